//! A fleet of workers on local services, through a reshard and a crash, with every record accounted for.
//!
//! ```text
//! cargo run -p examples --example quickstart
//! ```
//!
//! needs no AWS account and no other program. It shows for about a minute how worker A leases the four shards of a
//! stream, B joins, a shard is split, two are merged, A is killed and B takes over: on a terminal as a table (shard,
//! owner, stage, records, lag) that is redrawn in place, otherwise in lines. In the end it prints the ledger: put,
//! delivered, duplicates, out of order, lost, checkpointed. Its exit code is 0 only if nothing was lost and the
//! order per key held. `-- --help` lists the options.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a terminal")]

use std::process::ExitCode;

use examples::quickstart::{Command, HELP, Screen, run};

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Command::parse(std::env::args().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(&options, &mut Screen::stdout()).await {
        Ok(account) => {
            println!("\nledger\n{account}");
            if account.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the scenario broke off: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
