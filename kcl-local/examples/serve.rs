//! Serves local Kinesis and DynamoDB on a loopback port, for clients in any language.
//!
//! ```text
//! cargo run -p kcl-local --example serve -- --port 4567
//! ```
//!
//! prints the endpoint and what to set, and serves until Ctrl-C. Without `--port` a free one is
//! taken. Everything is kept in memory.

#![allow(clippy::print_stdout, reason = "it talks to a terminal")]

use kcl_local::LocalAws;
use kcl_local::local_aws::REGION;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let aws = LocalAws::builder().port(port()?).start().await?;
    println!("Kinesis and DynamoDB at {}, for example with", aws.endpoint_url());
    println!(
        "  export AWS_ENDPOINT_URL={} AWS_REGION={REGION} AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local",
        aws.endpoint_url()
    );
    println!("Java clients: set -Daws.cborEnabled=false. Ctrl-C ends it.");
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// Reads `--port N`; 0, a free one, without it.
fn port() -> Result<u16, String> {
    const USAGE: &str = "usage: serve [--port N]";
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (None, ..) => Ok(0),
        (Some("--port"), Some(port), None) => {
            port.parse().map_err(|_| format!("not a port: {port}; {USAGE}"))
        }
        _ => Err(USAGE.to_owned()),
    }
}
