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
    // Before this program opens anything itself.
    let inherited = inherited();
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
    match commands::perform(&cli, &journal, &inherited) {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            journal.error(&reason);
            ExitCode::FAILURE
        }
    }
}

/// The descriptors beside the standard ones that this program was started with.
fn inherited() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    // Without the one by which this was read.
    numbers.into_iter().filter(|number| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok()).collect()
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
