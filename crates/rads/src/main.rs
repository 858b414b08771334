//! The program: command line, agent, nursery and language tools in one binary.
//!
//! The command line is read first; what a command needs beyond that it sets up itself, so `run` starts in milliseconds and
//! the nursery, whose pages every star shares, stays small.

#![forbid(unsafe_code)]

mod access;
mod cli;
mod commands;
mod context;
mod membership;
mod moment;
mod namespaces;
mod options;
mod place;
mod reservations;
mod screen;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
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
            failure.tell(form);
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
    commands::Failure::Problem(usage_problem(error)).tell(form_asked_for(std::env::args_os()));
    ExitCode::FAILURE
}

/// The form of answers on a command line that as a whole makes no sense.
fn form_asked_for(args: impl Iterator<Item = OsString>) -> cli::Form {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let is_json = |pair: &[String]| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json";
    let joined = |arg: &String| matches!(arg.as_str(), "-ojson" | "-o=json" | "--output=json");
    if args.windows(2).any(is_json) || args.iter().any(joined) { cli::Form::Json } else { cli::Form::Text }
}

/// The library's message in our words: one line, the thing in backticks, then the next step.
fn usage_problem(error: &clap::Error) -> Problem {
    let text = error.render().to_string();
    let mut paragraphs = text.trim().split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    // Missing arguments are listed on lines of their own.
    let message = first.lines().map(str::trim).collect::<Vec<_>>().join(" ").replace('\'', "`");
    let message = message.replace("invalid digit found in string", "not a whole number");
    let context = |kind| match error.get(kind)? {
        ContextValue::String(name) => Some(name.clone()),
        ContextValue::Strings(names) => names.first().cloned(),
        _ => None,
    };
    // The library's idea of a near word is a generous one, and it knows of commands that are not for people.
    let nearest = match context(ContextKind::InvalidSubcommand) {
        Some(wrong) => nearest_command(&wrong),
        None => context(ContextKind::SuggestedArg).or_else(|| context(ContextKind::SuggestedValue)),
    };
    // Options whose values come from the environment are listed as if they had been typed.
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    let usage = usage.map(|usage| usage.replace(" --data-dir <FOLDER>", ""));
    let help = match (nearest, usage) {
        (Some(name), _) => format!("did you mean `{name}`?"),
        (None, Some(usage)) => format!("usage: `{usage}`"),
        (None, None) => "see the same command with `--help`".to_owned(),
    };
    Problem::new(Code::Usage, message).help(help)
}

/// The command that was probably meant, of those that are shown, as it is typed.
fn nearest_command(wrong: &str) -> Option<String> {
    let top = cli::Cli::command();
    let shown = |command: &&clap::Command| !command.is_hide_set();
    let own = top.get_subcommands().filter(shown).map(|command| (command.get_name(), String::new()));
    let below = top.get_subcommands().filter(shown).flat_map(|parent| {
        let before = format!("rads {} ", parent.get_visible_aliases().next().unwrap_or_else(|| parent.get_name()));
        parent.get_subcommands().filter(shown).map(move |command| (command.get_name(), before.clone()))
    });
    let shown: Vec<(&str, String)> = own.chain(below).collect();
    // One that begins like it is likelier than one that only looks like it.
    let begins = |name: &&str| wrong.len() >= 3 && (name.starts_with(wrong) || wrong.starts_with(*name));
    let names = || shown.iter().map(|(name, _)| *name);
    let nearest = names().find(begins).or_else(|| rads_syntax::nearest(wrong, names()))?;
    let (name, before) = shown.iter().find(|(name, _)| *name == nearest)?;
    Some(format!("{before}{name}"))
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
            "invalid value `many` for `<INSTANCES>`: not a whole number",
            "see the same command with `--help`",
        );
        check("rads c statsu", "unrecognized subcommand `statsu`", "did you mean `rads c stats`?");
        check("rads c lst", "unrecognized subcommand `lst`", "did you mean `rads c list`?");
        check("rads down", "unrecognized subcommand `down`", "did you mean `rads c down`?");
        check("rads nursry", "unrecognized subcommand `nursry`", "usage: `rads [OPTIONS] <COMMAND>`");
        check(
            "rads check",
            "the following required arguments were not provided: <FILES>...",
            "usage: `rads check <FILES>...`",
        );
    }

    #[test]
    fn an_argument_that_is_no_text_is_refused_in_the_form_that_was_asked_for() {
        use std::os::unix::ffi::OsStringExt;
        let args = |rest: &[&str]| {
            let bad = OsString::from_vec(b"rads1_\xff\xfe".to_vec());
            let line = ["rads", "c", "join", "10.0.0.1", "--token"].map(OsString::from).into_iter().chain([bad]);
            line.chain(rest.iter().map(OsString::from)).collect::<Vec<_>>()
        };
        let problem = usage_problem(&cli::Cli::try_parse_from(args(&[])).unwrap_err());
        assert_eq!((problem.code, problem.help.is_some()), (Code::Usage, true), "{problem}");
        assert!(problem.message.contains("UTF-8"), "{problem}");
        assert_eq!(form_asked_for(args(&[]).into_iter()), cli::Form::Text);
        assert_eq!(form_asked_for(args(&["-o", "json"]).into_iter()), cli::Form::Json);
    }
}
