//! What a star is doing, and how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a star is in its life. It only ever moves down this list (`Ready` and `Unready` may alternate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StarPhase {
    /// Assigned to a node; its process does not run yet.
    Assigned,
    /// Its process runs; its probe has not passed yet.
    Starting,
    /// Its probe passes: requests go to it.
    Ready,
    /// Its probe failed several times in a row: no requests go to it.
    Unready,
    /// It gets no new requests and finishes those in flight, then it is told to stop.
    Draining,
    /// It has been told to stop (SIGTERM, after the grace SIGKILL).
    Stopping,
    /// Its process has ended; kept for a while for its logs and exit.
    Ended,
}

impl fmt::Display for StarPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Assigned => "assigned",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        })
    }
}

/// How a star ended, and whether that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Exit {
    pub cause: ExitCause,
    /// It ended because it was told to stop.
    pub asked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// It returned or called exit with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The kernel ended it because it reached its memory limit.
    OutOfMemory,
    /// It did not become ready in time and was ended.
    StartTimeout,
    /// It was ready and did not answer its probe any more.
    Unhealthy,
    /// It could not be started at all.
    StartFailed { reason: String },
    /// It ended while nobody was its parent; how is not known.
    Unknown,
}

impl ExitCause {
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by {}", signal_name(*signal)),
            Self::OutOfMemory => f.write_str("killed: out of memory"),
            Self::StartTimeout => f.write_str("not ready in time"),
            Self::Unhealthy => f.write_str("no longer healthy"),
            Self::StartFailed { reason } => write!(f, "not started: {reason}"),
            Self::Unknown => f.write_str("ended unseen"),
        }
    }
}

/// The name of a Linux signal, `signal N` for the real-time ones.
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::try_from(signal).ok().and_then(|n| NAMES.get(n.wrapping_sub(1))) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_told_apart_in_words() {
        assert_eq!(ExitCause::Code(3).to_string(), "exit code 3");
        assert_eq!(ExitCause::Signal(9).to_string(), "killed by SIGKILL");
        assert_eq!(ExitCause::Signal(40).to_string(), "killed by signal 40");
        assert_eq!(ExitCause::OutOfMemory.to_string(), "killed: out of memory");
    }
}
