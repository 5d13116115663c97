//! The operator's tool for lease tables: see `docs/cli.md`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use kcl_cli::args::Cli;
use kcl_cli::{Access, CliError, Console, Outcome, run};
use serde_json::json;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&CliError::from(error), cli.json),
    };
    let (mut out, mut err, mut input) = (std::io::stdout(), std::io::stderr(), std::io::stdin().lock());
    let person = std::io::stdin().is_terminal();
    let clears = out.is_terminal();
    let asked: Option<&mut dyn std::io::BufRead> = if person { Some(&mut input) } else { None };
    let mut console = Console::new(&mut out, &mut err, asked, cli.json).clearing(clears);
    let outcome = runtime.block_on(async {
        let access = if cli.command.is_local() {
            Access::nowhere(cli.connection.clone())
        } else {
            Access::from_environment(cli.connection.clone()).await
        };
        Box::pin(run(&cli.command, &access, &mut console)).await
    });
    match outcome {
        Ok(Outcome::InOrder) => ExitCode::SUCCESS,
        Ok(Outcome::ProblemsFound) => ExitCode::from(1),
        // Whoever reads has enough, as in `kcl status | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error, cli.json),
    }
}

fn is_broken_pipe(error: &CliError) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Tells of a failure, on standard error: as text, or as one object of JSON.
fn failed(error: &CliError, as_json: bool) -> ExitCode {
    let mut text = if as_json {
        let error = json!({
            "kind": error.kind().name(),
            "message": error.to_string(),
            "causes": error.causes(),
            "hint": error.hint(),
        });
        format!("{}\n", json!({ "error": error }))
    } else {
        let mut text = format!("error: {error}\n");
        // An error of a service says all of it in its message.
        for cause in error.causes().iter().filter(|cause| !text.contains(cause.as_str())).collect::<Vec<_>>()
        {
            text.push_str(&format!("  because: {cause}\n"));
        }
        text
    };
    if let (Some(hint), false) = (error.hint(), as_json) {
        text.push_str(&format!("  {hint}\n"));
    }
    // There is nowhere left to tell that it cannot be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(2)
}
