//! A line of the report: what became of a part of the input, and where that part is.

use std::fmt;

use serde::Serialize;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The app says it, or every star has it anyway.
    Carried,
    /// The app says something near it; the line says what differs.
    Changed,
    /// The app does not say it.
    NotCarried,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Carried => "carried",
            Self::Changed => "changed",
            Self::NotCarried => "not carried",
        }
    }
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub file: String,
    /// From 1.
    pub line: u32,
    /// Keys from the outside in, as `services.web.ports[0]`.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub verdict: Verdict,
    #[serde(flatten)]
    pub place: Place,
    /// One line. Never the value of a secret.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// How many values of the input it tells of; none, when it is about something that is not written there.
    pub values: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "  {}", self.path) }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}  {}: {}", self.verdict.as_str(), self.place, self.text)?;
        match &self.help {
            Some(help) => write!(f, "\n             help: {help}"),
            None => Ok(()),
        }
    }
}
