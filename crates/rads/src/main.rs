//! The program: command line, agent, nursery and language tools in one binary.
//!
//! The command line is read first; what a command needs beyond that it sets up itself, so `run` starts in milliseconds and
//! the nursery, whose pages every star shares, stays small.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod moment;
mod place;
mod screen;

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use model::{Code, Problem};

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let form = cli.global.output;
    match commands::perform(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if let commands::Failure::Problem(problem) = failure {
                match form {
                    cli::Form::Text => screen::problem(&problem),
                    cli::Form::Json => screen::problem_as_json(&problem),
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// A command line that does not make sense, in the form of every other error. Help and version come here too.
fn refused(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        screen::print(&error.render().to_string());
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        screen::note(error.render().to_string().trim_end());
        return ExitCode::FAILURE;
    }
    screen::problem(&usage_problem(error));
    ExitCode::FAILURE
}

/// The library's message in our words: one line, the thing in backticks, then the next step.
fn usage_problem(error: &clap::Error) -> Problem {
    let text = error.render().to_string();
    let mut paragraphs = text.trim().split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    // Missing arguments are listed on lines of their own.
    let message = first.lines().map(str::trim).collect::<Vec<_>>().join(" ").replace('\'', "`");
    let nearest = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
        .into_iter()
        .find_map(|kind| match error.get(kind)? {
            ContextValue::String(name) => Some(name.clone()),
            ContextValue::Strings(names) => names.first().cloned(),
            _ => None,
        });
    // Options whose values come from the environment are listed as if they had been typed.
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let usage = usage.map(|usage| usage.replace(" --data-dir <FOLDER>", ""));
    let help = match (nearest, usage) {
        (Some(name), _) => format!("did you mean `{name}`?"),
        (None, Some(usage)) => format!("usage: `{usage}`"),
        (None, None) => "see `rads --help`".to_owned(),
    };
    Problem::new(Code::Usage, message).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_that_makes_no_sense_names_the_next_step() {
        let check = |line: &str, message: &str, help: &str| {
            let error = cli::Cli::try_parse_from(line.split(' ')).unwrap_err();
            let problem = usage_problem(&error);
            assert_eq!(problem.message, message, "{line}");
            assert_eq!(problem.help.as_deref(), Some(help), "{line}");
        };
        check("rads upp", "unrecognized subcommand `upp`", "did you mean `up`?");
        check("rads up a --detch", "unexpected argument `--detch` found", "did you mean `--detach`?");
        check(
            "rads c scale web many",
            "invalid value `many` for `<INSTANCES>`: invalid digit found in string",
            "see `rads --help`",
        );
        check(
            "rads check",
            "the following required arguments were not provided: <FILES>...",
            "usage: `rads check <FILES>...`",
        );
    }
}
