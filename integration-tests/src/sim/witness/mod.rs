//! What stands between the library and the world and tells the judge: of every call to the services, every write
//! that lands, every answer read, every callback.

mod clock;
mod processor;
mod source;
mod store;
mod strike;

pub use clock::{Clocks, Sleepless};
pub use processor::{Checkpoints, Conduct, Manners, Witness};
pub use source::WatchedSource;
pub use store::{Asked, Landed};
pub use strike::{Blow, Request, Strike, Strikes, Struck};
