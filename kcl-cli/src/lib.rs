//! The operator's tool for lease tables of the Amazon KCL and of kcl-core.
//!
//! The binary is `kcl`; `docs/cli.md` says what it does. This library is its inside, in three layers: what was seen
//! ([`TableView`](table::TableView), [`StreamView`](stream::StreamView), [`Watcher`](liveness::Watcher)), pure
//! functions from that to reports and planned writes ([`status`], [`audit`], [`lineage`], [`write`](mod@write), [`backup`],
//! [`cost`], [`estimate`]), and the commands that look, show, ask and write. Outside semver but for the fields of
//! its JSON, which are those of the report types.

mod access;
pub mod args;
pub mod audit;
pub mod backup;
mod commands;
mod console;
pub mod cost;
pub mod coverage;
mod error;
pub mod estimate;
mod execute;
pub mod leases;
pub mod lineage;
pub mod liveness;
mod observation;
pub mod prices;
pub mod signs;
pub mod status;
pub mod stream;
pub mod table;
pub mod text;
pub mod write;

pub use access::Access;
pub use commands::{Outcome, run};
pub use console::Console;
pub use error::{CliError, CliErrorKind};
pub use execute::WriteReport;
