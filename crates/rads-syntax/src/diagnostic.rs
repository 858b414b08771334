//! What is wrong with a source text, and how it is shown to a person.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::span::Span;

/// One thing wrong, in the project's form: lower case, the thing in backticks, no full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// `R0012`: see `codes`.
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    pub span: Span,
    /// The next step.
    pub help: Option<String>,
    /// Other places that matter, each with what it has to do with this one.
    pub notes: Vec<(Span, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Diagnostic {
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, severity: Severity::Error, message, span, help: None, notes: Vec::new() }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn note(mut self, span: Span, note: impl Into<String>) -> Self {
        self.notes.push((span, note.into()));
        self
    }
}

/// Code and message, the line with a caret, notes and the `help:` line. `colour` is for terminals.
pub fn render(diagnostic: &Diagnostic, file_name: &str, source: &str, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let within = |span: Span| {
        let end = floor_boundary(source, span.end as usize);
        floor_boundary(source, span.start as usize).min(end)..end
    };
    let notes = diagnostic.notes.iter().map(|(span, note)| AnnotationKind::Context.span(within(*span)).label(note));
    let snippet = Snippet::source(source)
        .path(file_name)
        .annotation(AnnotationKind::Primary.span(within(diagnostic.span)))
        .annotations(notes);
    let mut group = level.primary_title(&*diagnostic.message).id(diagnostic.code).element(snippet);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(&**help));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// The nearest character boundary at or before `at`: a span made for another text must not end the program.
fn floor_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&place| text.is_char_boundary(place)).unwrap_or(0)
}
