//! A diagnostic as a person reads it: code and message, the excerpt with a caret, the `help:` line.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::{Diagnostic, Severity, Span};

/// The text of a diagnostic, several lines without a final line break. `colour` adds ANSI escapes.
///
/// Any span is taken, also one that lies outside of `source` or cuts a character: it is moved to the nearest place.
pub fn render(diagnostic: &Diagnostic, file_name: &str, source: &str, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let excerpt = Excerpt::around(diagnostic, source);
    let mut snippet = Snippet::source(excerpt.text)
        .line_start(excerpt.first_line)
        .path(file_name)
        .annotation(AnnotationKind::Primary.span(excerpt.place(diagnostic.span)));
    for (span, text) in &diagnostic.notes {
        snippet = snippet.annotation(AnnotationKind::Context.span(excerpt.place(*span)).label(text));
    }
    let title = level.primary_title(&diagnostic.message).id(diagnostic.code);
    let mut group = Group::with_title(title).element(snippet);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// The lines from the first to the last place that is shown: the renderer's cost follows the text it is given, and a file
/// may be long and have many faults.
struct Excerpt<'a> {
    source: &'a str,
    text: &'a str,
    start: usize,
    first_line: usize,
}

impl<'a> Excerpt<'a> {
    fn around(diagnostic: &Diagnostic, source: &'a str) -> Excerpt<'a> {
        let spans = || diagnostic.notes.iter().map(|note| note.0).chain([diagnostic.span]);
        let first = spans().map(|span| span.start).min().unwrap_or(0) as usize;
        let last = spans().map(|span| span.end.max(span.start)).max().unwrap_or(0) as usize;
        let (first, last) = (boundary(source, first), boundary(source, last));
        let start = source[..first].rfind('\n').map_or(0, |at| at + 1);
        let end = source[last..].find('\n').map_or(source.len(), |at| last + at);
        let first_line = source[..start].bytes().filter(|b| *b == b'\n').count() + 1;
        Excerpt { source, text: &source[start..end], start, first_line }
    }

    /// Where a span lies within the excerpt.
    fn place(&self, span: Span) -> std::ops::Range<usize> {
        let start = boundary(self.source, span.start as usize);
        let end = boundary(self.source, span.end as usize).max(start);
        start - self.start..end - self.start
    }
}

/// The last boundary of a character that is not after `at`.
fn boundary(source: &str, at: usize) -> usize {
    let at = at.min(source.len());
    (0..=at).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_code_place_caret_and_help() {
        let source = "turbo a = 1;\nturbo b = \nturbo c = 3;\n";
        let diagnostic = Diagnostic::error("R0011", Span::new(22, 23), "expected an expression").help("write a value");
        assert_eq!(
            render(&diagnostic, "app.rads", source, false),
            "error[R0011]: expected an expression\n \
             --> app.rads:2:10\n  \
             |\n\
             2 | turbo b = \n  \
             |          ^\n  \
             |\n  \
             = help: write a value"
        );
        assert!(render(&diagnostic, "app.rads", source, true).contains("\u{1b}["));
    }

    #[test]
    fn any_span_is_taken() {
        for source in ["", "é", "a\r\nb", "\n\n"] {
            for (start, end) in [(0, 0), (1, 1), (0, 9), (9, 3), (u32::MAX, u32::MAX), (2, 1)] {
                let diagnostic = Diagnostic::warning("R0001", Span::new(start, end), "odd");
                let text = render(&diagnostic.note(Span::new(end, start), "here"), "f", source, false);
                assert!(text.contains("warning[R0001]: odd"), "{text}");
            }
        }
    }
}
