//! What a star is doing, and how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::WallTime;

/// Where a star is in its life. It only ever moves down this list, but for `Ready` and `Unready`, which may alternate,
/// and `Paused`, after which it starts to be probed again.
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
    /// It stands still, in memory and without processor time, until it is resumed.
    Paused,
    /// It gets no new requests and finishes those in flight, then it is told to stop.
    Draining,
    /// It has been told to stop (SIGTERM, after the grace SIGKILL).
    Stopping,
    /// Its process has ended; kept for a while for its logs and exit.
    Ended,
}

impl StarPhase {
    /// Whether a star may come from this phase into another.
    pub fn leads_to(self, next: Self) -> bool {
        match (self, next) {
            (Self::Unready, Self::Ready) | (Self::Paused, Self::Starting | Self::Ready | Self::Unready) => true,
            _ => next > self,
        }
    }
}

impl fmt::Display for StarPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Assigned => "assigned",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        })
    }
}

/// When a star came into a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Turn {
    pub phase: StarPhase,
    pub at: WallTime,
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
    /// It ran for as long as it may and was ended.
    Deadline,
    /// It could not be started at all.
    StartFailed { reason: String },
    /// It ended while nobody was its parent; how is not known.
    Unknown,
    /// Its node was given up. It may run on there, unseen, until the node is heard of again.
    NodeLost,
    /// It may run once only, and its node was out of touch with the others for so long that another may run elsewhere.
    LeaseOver,
    /// Its machine had too little memory left, and it was the one to give way.
    Evicted,
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
            Self::Deadline => f.write_str("ran into its deadline"),
            Self::StartFailed { reason } => write!(f, "not started: {reason}"),
            Self::Unknown => f.write_str("ended unseen"),
            Self::NodeLost => f.write_str("its node was lost"),
            Self::Evicted => f.write_str("gave way: its machine had too little memory left"),
            Self::LeaseOver => f.write_str("its node was out of touch with the others"),
        }
    }
}

/// Linux signals by number, from 1 (signal(7), x86 and ARM).
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The name of a Linux signal, `signal N` for the real-time ones.
pub fn signal_name(signal: i32) -> String {
    match usize::try_from(signal).ok().and_then(|n| SIGNALS.get(n.wrapping_sub(1))) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

/// The number of a signal called by its name, with or without `SIG`.
pub fn signal_number(name: &str) -> Option<i32> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    SIGNALS.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok())
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

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!((signal_number("SIGINT"), signal_number("QUIT"), signal_number("int")), (Some(2), Some(3), None));
        assert!((1..=31).all(|signal| signal_number(&signal_name(signal)) == Some(signal)));
    }

    #[test]
    fn only_a_pause_and_a_bad_probe_are_come_back_from() {
        use StarPhase::{Draining, Ended, Paused, Ready, Starting, Stopping, Unready};
        for (from, to) in [(Starting, Ready), (Ready, Paused), (Paused, Starting), (Unready, Ready), (Paused, Stopping)]
        {
            assert!(from.leads_to(to), "{from} {to}");
        }
        for (from, to) in [(Ready, Ready), (Ready, Starting), (Ended, Paused), (Draining, Paused), (Stopping, Ready)] {
            assert!(!from.leads_to(to), "{from} {to}");
        }
    }
}
