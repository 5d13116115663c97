//! Our own coordination: what members of a fleet tell each other, and the rules they follow.
//!
//! Pure: values, and functions from what a worker saw to what it may do. The rules R1… are those of
//! `docs/fleet-protocol.md`; the model checks the very functions the scheduler runs on.

mod entry;
mod member_id;
pub mod rules;

pub use entry::{FleetEntry, FleetRow, Gave, MemberLimits, MemberState};
pub use member_id::{FleetRowKey, member_id, row_of, worker_of};

/// How many members a row takes: a row is written and read whole, so a larger one costs everybody in it more.
pub const MEMBERS_PER_ROW: usize = 10;

/// The version of the protocol this crate speaks (`v` of an entry).
pub const VERSION: u32 = 1;

/// How many bytes of news about leases given away an entry carries; with more it says `*`.
pub const GAVE_BYTES: usize = 512;
