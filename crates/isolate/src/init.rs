//! The first process of a star that runs a native program.
//!
//! The kernel treats the first process of a process namespace unlike any other: signals it has no handler for do
//! nothing, and orphans become its children. A program is not written for that. So a copy of the nursery stays
//! behind as process 1: it passes signals on, reaps orphans, notes how the program ended, and ends as it did.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::DumpableBehavior;

use crate::child::{Command, FAILED, STANDS, Shell, environment, note_exit, say};
use crate::fault::plain;
use crate::memory::Restorer;
use crate::order::StarOrder;
use crate::sys;
use crate::sys::process::Ended;

/// Starts the program, or has its memory brought back, and stays with it to its end.
pub(crate) fn run(
    shell: &Shell<'_>,
    order: &StarOrder,
    argv: &[String],
    restorer: Option<(Restorer, Vec<OwnedFd>)>,
) -> ! {
    sys::signal::block_all();
    // Its memory is the nursery's, with what other stars were started with: not for the program beside it to read.
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        say(&shell.report, FAILED, &format!("cannot close the init's memory: {error}"));
        sys::process::exit(125)
    }
    let environment = environment(&order.env);
    let spawned = || {
        if let Some((restorer, fds)) = restorer {
            return restorer.bring_back(order, &fds);
        }
        run_before(order, &environment)?;
        spawn(argv.iter().chain(&order.args), &environment)
    };
    match spawned() {
        Ok(program) => {
            say(&shell.report, STANDS, "");
            sys::process::close(shell.report.as_fd());
            end_as(attend(program), shell)
        }
        Err(reason) => {
            say(&shell.report, FAILED, &reason);
            sys::process::exit(125)
        }
    }
}

/// Runs what the star runs before its program, if anything, to its end.
pub(crate) fn run_before(order: &StarOrder, environment: &BTreeMap<String, String>) -> Result<(), String> {
    if order.before.is_empty() {
        return Ok(());
    }
    sys::signal::block_all();
    let what = order.before.join(" ");
    match attend(spawn(order.before.iter(), environment).map_err(|reason| format!("before its start: {reason}"))?) {
        Ended::Code(0) => Ok(()),
        Ended::Code(code) => Err(format!("`{what}`, to be run before it, ended with exit code {code}")),
        Ended::Signal(signal) => {
            Err(format!("`{what}`, to be run before it, was killed by {}", model::star::signal_name(signal)))
        }
    }
}

fn spawn<'a>(argv: impl Iterator<Item = &'a String>, environment: &BTreeMap<String, String>) -> Result<u32, String> {
    let command = Command::new(argv, environment)?;
    sys::exec::spawn(&command.candidates, &command.argv, &command.environment)
        .map_err(|error| format!("cannot run `{}`: {}", command.argv[0].to_string_lossy(), plain(&error)))
}

/// Passes signals on and reaps until the program has ended.
fn attend(program: u32) -> Ended {
    loop {
        while let Ok(Some((pid, ended))) = sys::process::reap_any() {
            if pid == program {
                return ended;
            }
        }
        match sys::signal::wait() {
            Ok(libc::SIGCHLD) | Err(_) => {}
            // It may have ended meanwhile; then its SIGCHLD is next.
            Ok(signal) => drop(sys::signal::kill(program as i32, signal)),
        }
    }
}

/// Ends with the program's exit code. Process 1 cannot die of a signal of its own, so a signal is told by the note,
/// and by 128 and its number.
fn end_as(ended: Ended, shell: &Shell<'_>) -> ! {
    note_exit(&shell.exit_note, ended);
    match ended {
        Ended::Code(code) => sys::process::exit(code),
        Ended::Signal(signal) => sys::process::exit(128 + signal),
    }
}
