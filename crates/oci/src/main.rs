//! `rads-oci`: the command line of the OCI runtime specification over the engine of `isolate`.
//!
//! One short-lived process a command; what lasts between them is a folder a container (`store`). A configuration is read
//! (`spec`), judged (`plan`, pure) and carried out by the engine; `commands` joins these.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod journal;
mod moment;
mod plan;
mod shield;
mod signal;
mod spec;
mod store;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let journal = match journal::Journal::open(&cli.global) {
        Ok(journal) => journal,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::FAILURE;
        }
    };
    match commands::perform(&cli, &journal) {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            journal.error(&reason);
            ExitCode::FAILURE
        }
    }
}

/// A command line that does not make sense, on one line.
fn refused(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        print!("{}", error.render());
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{}", error.render());
        return ExitCode::FAILURE;
    }
    let text = error.render().to_string();
    let mut paragraphs = text.trim().split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let line: Vec<&str> = first.lines().map(str::trim).collect();
    eprintln!("{}", line.join(" ").replace('\'', "`"));
    if let Some(usage) = text.lines().find_map(|line| line.strip_prefix("Usage: ")) {
        eprintln!("help: usage: `{usage}`");
    }
    ExitCode::FAILURE
}
