//! What literals mean: numbers, escapes, chars and the parts of template strings.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// An integer literal as its magnitude: `9223372036854775808` is legal behind a minus only, which the parser knows.
pub(crate) fn int(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let radix = match digits.get(..2) {
        Some("0x" | "0X") => 16,
        Some("0b" | "0B") => 2,
        Some("0o" | "0O") => 8,
        _ => return digits.parse().ok(),
    };
    u64::from_str_radix(&digits[2..], radix).ok()
}

pub(crate) fn float(text: &str) -> Option<f64> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    digits.parse().ok().filter(|value: &f64| value.is_finite())
}

/// The text between quotes with its escapes read. `offset` is where `raw` starts in the source.
pub(crate) fn unescape(raw: &str, offset: u32, diagnostics: &mut Vec<Diagnostic>) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(before) = rest.find('\\') {
        text.push_str(&rest[..before]);
        let at = raw.len() - rest.len() + before;
        let escape = &rest[before + 1..];
        let (value, length) = escaped(escape);
        match value {
            Some(c) => text.push(c),
            None => {
                let span = Span::new(offset + at as u32, offset + (at + 1 + length) as u32);
                let shown = &rest[before..before + 1 + length];
                diagnostics
                    .push(Diagnostic::error(codes::BAD_ESCAPE, span, format!("`{shown}` is not an escape")).help(
                    "escapes are \\n \\t \\r \\\" \\' \\` \\$ \\\\ \\0 \\e and \\u{1F600}; write \\\\ for a backslash",
                ));
            }
        }
        rest = &escape[length..];
    }
    text.push_str(rest);
    text
}

/// The character that an escape means, and how many bytes behind the backslash it takes.
fn escaped(escape: &str) -> (Option<char>, usize) {
    let Some(first) = escape.chars().next() else {
        return (None, 0);
    };
    let plain = match first {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        '0' => '\0',
        'e' => '\u{1b}',
        '"' | '\'' | '`' | '$' | '\\' => first,
        'u' => return code_point(escape),
        _ => return (None, first.len_utf8()),
    };
    (Some(plain), 1)
}

/// `u{1F600}`: one to six hexadecimal digits that name a character.
fn code_point(escape: &str) -> (Option<char>, usize) {
    let Some(close) =
        escape.strip_prefix("u{").and_then(|digits| digits.char_indices().take(8).find(|(_, c)| *c == '}'))
    else {
        return (None, 1);
    };
    let digits = &escape[2..2 + close.0];
    let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten().and_then(char::from_u32);
    (value, digits.len() + 3)
}

/// A part of a template string.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Raw text, escapes unread.
    Text(Span),
    /// Between `${` and `}`.
    Code(Span),
}

/// Takes the text between backticks apart. The lexer made sure that braces and quotes within are balanced.
pub(crate) fn template_parts(source: &str, within: Span) -> Vec<Part> {
    let bytes = source.as_bytes();
    let (mut at, end) = (within.start as usize, within.end as usize);
    let mut parts = Vec::new();
    let mut text_start = at;
    while at < end {
        match bytes[at] {
            b'\\' => at += 2,
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                parts.push(Part::Text(Span::new(text_start as u32, at as u32)));
                let close = code_end(bytes, at + 2, end);
                parts.push(Part::Code(Span::new(at as u32 + 2, close as u32)));
                at = (close + 1).min(end);
                text_start = at;
            }
            _ => at += 1,
        }
    }
    parts.push(Part::Text(Span::new(text_start.min(end) as u32, end as u32)));
    parts.retain(|part| !matches!(part, Part::Text(span) if span.start == span.end));
    parts
}

/// The place of the `}` that closes a `${` whose code starts at `at`.
fn code_end(bytes: &[u8], mut at: usize, end: usize) -> usize {
    let mut open = vec![b'{'];
    while at < end {
        let in_text = open.last() != Some(&b'{');
        match bytes[at] {
            b'\\' if in_text => at += 1,
            byte if in_text && Some(&byte) == open.last() => {
                open.pop();
            }
            b'$' if open.last() == Some(&b'`') && bytes.get(at + 1) == Some(&b'{') => {
                open.push(b'{');
                at += 1;
            }
            _ if in_text => {}
            quote @ (b'"' | b'\'' | b'`' | b'{') => open.push(quote),
            b'}' => {
                open.pop();
                if open.is_empty() {
                    return at;
                }
            }
            _ => {}
        }
        at += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read() {
        let mut diagnostics = Vec::new();
        let text = unescape(r#"a\n\t\"\\\0\e\u{e4}\u{1F600}z"#, 0, &mut diagnostics);
        assert_eq!(text, "a\n\t\"\\\0\u{1b}ä😀z");
        assert_eq!(diagnostics, []);
        for bad in [r"\q", r"\u", r"\u{}", r"\u{110000}", r"\u{zz}", r"\ä", "\\"] {
            diagnostics.clear();
            unescape(bad, 0, &mut diagnostics);
            assert_eq!(diagnostics.len(), 1, "{bad}");
        }
    }

    #[test]
    fn numbers_are_read() {
        assert_eq!(int("1_000"), Some(1000));
        assert_eq!(int("0xFf"), Some(255));
        assert_eq!(int("0b101"), Some(5));
        assert_eq!(int("0x"), None);
        assert_eq!(int("99999999999999999999"), None);
        assert_eq!(float("1_0.5e1"), Some(105.0));
        assert_eq!(float("1e999"), None);
    }

    #[test]
    fn templates_come_apart_at_their_code() {
        let source = "a${x}b${ {k: \"}\"}.k + `${y}` }";
        let parts = template_parts(source, Span::new(0, source.len() as u32));
        let texts: Vec<&str> = parts
            .iter()
            .map(|part| match part {
                Part::Text(span) | Part::Code(span) => &source[span.range()],
            })
            .collect();
        assert_eq!(texts, ["a", "x", "b", " {k: \"}\"}.k + `${y}` "]);
    }
}
