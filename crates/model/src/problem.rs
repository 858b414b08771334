//! A problem as a person meets it: a code with a page, one line that names the thing, and the next step.
//!
//! Codes are never reused. `C0…` is the constellation, `R0…` the language (those live in `rads-syntax`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, in the words of `style.md`: lower case, the thing in backticks, no full stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    pub code: Code,
    pub message: String,
    /// The next step, when there is one worth taking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Whether anything was changed before the problem was met, or may have been.
    #[serde(default)]
    pub changed: bool,
    /// An index of the log that goes with it: the oldest there is, where to resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, changed: false, index: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn at(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    #[must_use]
    pub fn after_changes(mut self) -> Self {
        self.changed = true;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// Every code of the constellation, one per kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)+ }
            }
        }
    };
}

codes! {
    // 00xx: the command line and its files
    /// The command line does not make sense.
    Usage = "C0001",
    /// A file named by the user cannot be read.
    FileUnreadable = "C0002",
    /// A script does not parse, compile or evaluate; its diagnostics were printed before.
    ScriptFaulty = "C0003",
    /// A file named by the user cannot be written.
    FileUnwritable = "C0004",
    // 01xx: specs
    /// An option that no spec has.
    UnknownOption = "C0101",
    /// An option of the wrong kind or outside its range.
    InvalidValue = "C0102",
    /// A limit below what the program needs to start at all.
    LimitTooLow = "C0103",
    /// No app, service or star goes by that name.
    NotFound = "C0104",
    /// The thing changed since it was looked at; look again.
    Conflict = "C0105",
    /// The name is taken by something else.
    AlreadyExists = "C0106",
    /// No node can hold the star.
    NoCapacity = "C0107",
    /// A file or bundle the spec needs was not sent.
    BundleMissing = "C0108",
    /// A secret the spec needs was not set.
    SecretMissing = "C0109",
    /// More than its namespace may have.
    QuotaExceeded = "C0110",
    // 02xx: agent and places
    /// No agent answers on this data folder.
    NoAgent = "C0201",
    /// Another agent holds this data folder.
    AgentRunning = "C0202",
    /// The data folder cannot be written.
    DataUnwritable = "C0203",
    /// The disk is full; nothing was written.
    DiskFull = "C0204",
    /// Stored data fails its checksum or cannot be decoded.
    DataCorrupt = "C0205",
    /// A port cannot be listened on.
    PortInUse = "C0206",
    /// The caller may not do this.
    Forbidden = "C0207",
    /// The agent is stopping or overloaded; try again.
    Unavailable = "C0208",
    /// What was asked for is too old to be kept; ask for what is now.
    Compacted = "C0209",
    /// What was asked for is ahead of all that happened; ask for what is now.
    Ahead = "C0210",
    /// Another agent is this very node, and was so first: it has this data folder, or this is a copy of it.
    NodeTwice = "C0211",
    // 03xx: stars
    /// A star could not be started.
    StartFailed = "C0301",
    /// A star ended at once, again and again.
    CrashLoop = "C0302",
    /// The machine lacks what the spec asks for.
    Unsupported = "C0303",
    /// Something took longer than its deadline.
    Timeout = "C0304",
    /// A change did not come about, and what was before is there again.
    RolledBack = "C0305",
    /// A fault of RADS itself.
    Internal = "C0900",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line_and_a_next_step() {
        let problem = Problem::new(Code::NoAgent, "no agent answers on `/tmp/x`").help("start one with `rads c agent`");
        assert_eq!(
            problem.to_string(),
            "error[C0201]: no agent answers on `/tmp/x`\nhelp: start one with `rads c agent`"
        );
    }

    #[test]
    fn codes_are_distinct() {
        let distinct: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(distinct.len(), Code::ALL.len());
    }
}
