//! A nursery becomes another program in the same process: its stars stay its children, its connections stay open.
//!
//! First the other program is asked, in a process of its own, whether it understands the state there is. Only then are
//! the descriptors packed and the program executed; if that fails, everything is as it was.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::handover::{ExecState, Handover, LogState, Luggage, PhaseState, StarState, answer};
use super::poller::{Source, Token};
use super::{Exec, Logs, Nursery, Phase, Star};
use crate::fault::{Because, plain};
use crate::sys;

/// What is added to the arguments of a program that is asked.
const QUESTION: &str = "--can-take-over";
/// What is added, with the number of the state's descriptor, to those of a program that takes over.
const ORDER: &str = "--take-over";
/// Longest wait for an answer. It takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of an answer: a reason in a sentence or two.
const ANSWER_MAX: usize = 1024;

/// A program that is asked whether it can take over.
pub(super) struct Check {
    peer: u64,
    program: OwnedFd,
    args: Vec<String>,
    child: Child,
    answers: ChildStdout,
    token: Token,
    said: Vec<u8>,
    expected: String,
    pub(super) deadline: Instant,
}

impl Nursery {
    /// Asks a program whether it can take over; goes on meanwhile.
    pub(super) fn ask_successor(&mut self, peer: u64, args: Vec<String>, fds: Vec<OwnedFd>) {
        if let Err(reason) = self.begin_check(peer, args, fds) {
            self.refuse(peer, None, &reason);
        }
    }

    fn begin_check(&mut self, peer: u64, args: Vec<String>, fds: Vec<OwnedFd>) -> Result<(), String> {
        let [program]: [OwnedFd; 1] = fds.try_into().map_err(|_| "the program's descriptor is needed")?;
        if self.stopping {
            return Err("the nursery is shutting down".to_owned());
        }
        if self.check.is_some() {
            return Err("another program is about to take over".to_owned());
        }
        let (state, fingerprint) = self.pack(peer, &mut Luggage::default()).write().because(unwritten)?;
        let cannot = || "the program cannot be run".to_owned();
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let mut command = Command::new(path);
        command.args(&args).arg(QUESTION).stdin(state).stdout(Stdio::piped());
        let mut child = command.spawn().because(cannot)?;
        let Some(answers) = child.stdout.take() else { unreachable!("it was asked for") };
        let token = match self.poller.add(&answers, Source::Check) {
            Ok(token) => token,
            Err(error) => {
                dismiss(child);
                return Err(error).because(cannot);
            }
        };
        let (said, expected, deadline) = (Vec::new(), answer(fingerprint), Instant::now() + PATIENCE);
        self.check = Some(Check { peer, program, args, child, answers, token, said, expected, deadline });
        Ok(())
    }

    /// Reads what a program says that was asked.
    pub(super) fn hear_successor(&mut self) {
        let Some(check) = &mut self.check else { return };
        let mut bytes = [0; ANSWER_MAX];
        match check.answers.read(&mut bytes) {
            Ok(length) if length > 0 && check.said.len() + length <= ANSWER_MAX => {
                check.said.extend_from_slice(&bytes[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => self.end_check(None),
        }
    }

    /// Gives a program up that does not answer in time.
    pub(super) fn lose_patience(&mut self) {
        if self.check.as_ref().is_some_and(|check| check.deadline <= Instant::now()) {
            self.end_check(Some(format!("it did not answer within {} s", PATIENCE.as_secs())));
        }
    }

    /// Ends the questioning; without a reason against it, hands over.
    pub(super) fn end_check(&mut self, against: Option<String>) {
        let Some(Check { peer, program, args, child, answers, token, said, expected, .. }) = self.check.take() else {
            return;
        };
        self.poller.remove(&answers, token);
        dismiss(child);
        let against = against.or_else(|| match String::from_utf8_lossy(&said).trim() {
            _ if said == expected.as_bytes() => None,
            "" => Some("it does not answer as a nursery does".to_owned()),
            reason => Some(reason.escape_debug().to_string()),
        });
        let reason = match against {
            Some(reason) => format!("the program cannot take over: {reason}"),
            None => self.hand_over(peer, &program, &args),
        };
        self.refuse(peer, None, &reason);
    }

    /// Becomes the program. Returns only when that failed, with the reason; then nothing has changed.
    fn hand_over(&mut self, peer: u64, program: &OwnedFd, args: &[String]) -> String {
        if self.stopping {
            return "the nursery is shutting down".to_owned();
        }
        let begun = super::handover::now_ns();
        // They wait for orders that only this program could give.
        self.site.abandon_ahead();
        let mut luggage = Luggage::default();
        let mut state = self.pack(peer, &mut luggage);
        state.stopped_ns = begun;
        let become_it = || -> Result<io::Error, String> {
            let (file, _) = state.write().because(unwritten)?;
            let covered = match self.walls.rootless {
                true => Some(
                    super::program::cover(program.as_fd()).because(|| "it cannot be mounted read-only".to_owned())?,
                ),
                false => None,
            };
            let program = covered.as_ref().unwrap_or(program);
            let mut words = vec!["rads".to_owned()];
            words.extend(args.iter().cloned());
            words.extend([ORDER.to_owned(), file.as_raw_fd().to_string()]);
            let no_nul = |_| "an argument holds a NUL byte".to_owned();
            let argv = words.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().map_err(no_nul)?;
            let environment =
                std::env::vars_os().map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')));
            let environment = environment.collect::<Result<Vec<_>, _>>().map_err(no_nul)?;
            let mut all = Luggage::default();
            all.pack(&file);
            let opened = luggage.keep(true).and_then(|()| all.keep(true));
            let failed = match opened {
                Ok(()) => sys::exec::become_program(program.as_fd(), &argv, &environment),
                Err(error) => error,
            };
            Ok(failed)
        };
        let failed = become_it();
        // What cannot be closed again would be open in no program but this one's: stars close what is not theirs.
        let _ = luggage.keep(false);
        match failed {
            Ok(error) => format!("the program cannot be executed: {}", plain(&error)),
            Err(reason) => reason,
        }
    }

    /// All that the next program has to know.
    fn pack<'a>(&'a self, peer: u64, luggage: &mut Luggage<'a>) -> Handover {
        let (lock, listener) = (luggage.pack(&self.lock), luggage.pack(&self.listener));
        let mut state = Handover::new(!self.walls.rootless, peer, lock, listener);
        (state.next_peer, state.peers) = self.peers.pack(luggage);
        state.stars = self.stars.values().map(|star| star.pack(luggage)).collect();
        state.next_exec = self.next_exec;
        state.execs = self
            .execs
            .iter()
            .map(|(&number, Exec { running, peer, asked_as, .. })| ExecState {
                number,
                pid: running.pid,
                pidfd: luggage.pack(&running.pidfd),
                report: luggage.pack(&running.report),
                peer: *peer,
                asked_as: *asked_as,
            })
            .collect();
        state
    }
}

fn unwritten() -> String {
    "the state cannot be written down".to_owned()
}

/// Ends a program that was asked: it has answered, or will not.
fn dismiss(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Star {
    fn pack<'a>(&'a self, luggage: &mut Luggage<'a>) -> StarState {
        let phase = match &self.phase {
            Phase::Starting { asked, report, .. } => {
                PhaseState::Starting { asked_us_ago: asked.elapsed().as_micros() as u64, report: luggage.pack(report) }
            }
            Phase::Running => PhaseState::Running,
            Phase::Leaving(outcome) => PhaseState::Leaving(outcome.clone()),
            Phase::Ended => PhaseState::Ended,
        };
        let logs = self.logs.as_ref().map(|Logs { pipes, .. }| {
            pipes.unfinished().map(|(reader, rest)| LogState { reader: luggage.carry(reader), rest: rest.to_vec() })
        });
        StarState {
            record: self.record.clone(),
            phase,
            told: self.told,
            network: self.network.as_ref().map(|network| luggage.pack(network)),
            pidfd: self.pidfd.as_ref().map(|(pidfd, _)| luggage.pack(pidfd)),
            logs,
            still: self.still.clone(),
        }
    }
}
