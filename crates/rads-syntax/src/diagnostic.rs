//! What is wrong with a file: one shape for the parser, for the passes after it and for those who show it.

use crate::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The program cannot run.
    Error,
    /// The program can run, but hardly as it was meant.
    Warning,
}

/// A fault and where it is, in the words of `style.md`: lower case, the thing in backticks, no full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// From a registry of codes: the grammar's own are in [`codes`](crate::codes).
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    pub span: Span,
    /// The next step.
    pub help: Option<String>,
    /// Other places that explain the fault, in the same file.
    pub notes: Vec<(Span, String)>,
}

impl Diagnostic {
    pub fn error(code: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        let message = message.into();
        Diagnostic { code, severity: Severity::Error, message, span, help: None, notes: Vec::new() }
    }

    pub fn warning(code: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, message, span) }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn note(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.notes.push((span, text.into()));
        self
    }
}
