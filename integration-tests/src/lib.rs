//! What the integration tests share: a fleet of real schedulers over a model of Kinesis, in virtual time, and the
//! judge of what it did. `line` is for fleets of processes.

pub mod aws;
pub mod bill;
pub mod fleet;
pub mod ledger;
pub mod line;
pub mod log;
pub mod model;
pub mod sim;
