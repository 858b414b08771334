//! Source text to tokens. Every byte belongs to a token, a comment or white space; what is unreadable becomes an
//! `Error` token and a diagnostic, and reading goes on behind it.
//!
//! Texts keep their escapes here: `literal` reads them when the parser takes the token.

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::span::Span;
use crate::token::{Kind, Token};

pub(crate) struct Lexed {
    /// Ends with an `End` token.
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Span>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Template strings within `${ }` of template strings: nobody writes more, and each level is scanned again.
pub(crate) const TEMPLATE_DEPTH_MAX: usize = 8;

/// Reads the part `within` of a text; spans are places in the whole text.
pub(crate) fn lex(source: &str, within: Span) -> Lexed {
    let mut lexer = Lexer {
        source,
        at: within.start as usize,
        end: within.end as usize,
        out: Lexed { tokens: Vec::new(), comments: Vec::new(), diagnostics: Vec::new() },
        on_new_line: false,
    };
    while lexer.token() {}
    lexer.out
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    end: usize,
    out: Lexed,
    on_new_line: bool,
}

impl Lexer<'_> {
    /// The byte `ahead` of here; 0 behind the end, which no operator contains.
    fn byte(&self, ahead: usize) -> u8 {
        let at = self.at + ahead;
        if at < self.end { self.source.as_bytes()[at] } else { 0 }
    }

    fn rest(&self) -> &str {
        &self.source[self.at..self.end]
    }

    fn push(&mut self, kind: Kind, start: usize) {
        let token = Token { kind, span: span(start, self.at), on_new_line: self.on_new_line };
        self.on_new_line = false;
        self.out.tokens.push(token);
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.out.diagnostics.push(diagnostic);
    }

    /// Reads one token; false at the end.
    fn token(&mut self) -> bool {
        self.skip_blank();
        let start = self.at;
        if start >= self.end {
            self.push(Kind::End, start);
            return false;
        }
        match self.byte(0) {
            b'"' => self.quoted(b'"', Kind::Str),
            b'\'' => self.quoted(b'\'', Kind::Char),
            b'`' => self.template(),
            b'0'..=b'9' => self.number(),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => self.word(),
            byte if !byte.is_ascii() && self.rest().chars().next().is_some_and(char::is_alphabetic) => self.word(),
            _ => self.operator(),
        }
        true
    }

    fn skip_blank(&mut self) {
        while self.at < self.end {
            match self.byte(0) {
                b'\n' => {
                    self.on_new_line = true;
                    self.at += 1;
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'/' if self.byte(1) == b'/' => self.line_comment(),
                // A script may start with `#!/usr/bin/env rads`.
                b'#' if self.at == 0 && self.byte(1) == b'!' => self.line_comment(),
                b'/' if self.byte(1) == b'*' => self.block_comment(),
                // A byte order mark is no text.
                0xef if self.at == 0 && self.rest().starts_with('\u{feff}') => self.at += 3,
                _ => return,
            }
        }
    }

    fn line_comment(&mut self) {
        let start = self.at;
        self.at += self.rest().find('\n').unwrap_or(self.end - self.at);
        self.out.comments.push(span(start, self.at));
    }

    fn block_comment(&mut self) {
        let start = self.at;
        match self.rest()[2..].find("*/") {
            Some(length) => self.at += length + 4,
            None => {
                self.at = self.end;
                let opening = span(start, start + 2);
                self.report(
                    Diagnostic::error(codes::UNTERMINATED, opening, "comment has no end").help("close it with `*/`"),
                );
            }
        }
        self.on_new_line |= self.source[start..self.at].contains('\n');
        self.out.comments.push(span(start, self.at));
    }

    fn word(&mut self) {
        let start = self.at;
        let length = self.rest().find(|c: char| !(c.is_alphanumeric() || c == '_'));
        self.at += length.unwrap_or(self.end - self.at);
        let kind = Kind::keyword(&self.source[start..self.at]).unwrap_or(Kind::Name);
        self.push(kind, start);
    }

    fn number(&mut self) {
        let start = self.at;
        let mut kind = Kind::Int;
        if self.byte(0) == b'0' && matches!(self.byte(1), b'x' | b'X' | b'b' | b'B' | b'o' | b'O') {
            self.at += 2;
            self.digits(|byte| byte.is_ascii_hexdigit());
        } else {
            self.digits(|byte| byte.is_ascii_digit());
            // `1.5` is a float; `1..5` is a range and `1.max` a member.
            if self.byte(0) == b'.' && self.byte(1).is_ascii_digit() {
                kind = Kind::Float;
                self.at += 1;
                self.digits(|byte| byte.is_ascii_digit());
            }
            let sign = usize::from(matches!(self.byte(1), b'+' | b'-'));
            if matches!(self.byte(0), b'e' | b'E') && self.byte(1 + sign).is_ascii_digit() {
                kind = Kind::Float;
                self.at += 1 + sign;
                self.digits(|byte| byte.is_ascii_digit());
            }
        }
        let digits_end = self.at;
        let tail = self.rest().find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.end - self.at);
        if tail > 0 {
            self.at += tail;
            let text = &self.source[digits_end..self.at];
            let message = format!("`{text}` cannot follow a number directly");
            self.report(Diagnostic::error(codes::BAD_NUMBER, span(digits_end, self.at), message));
            kind = Kind::Error;
        }
        self.push(kind, start);
    }

    fn digits(&mut self, is_digit: impl Fn(u8) -> bool) {
        while is_digit(self.byte(0)) || self.byte(0) == b'_' {
            self.at += 1;
        }
    }

    /// A string or char: up to the same quote, which a backslash takes its meaning from.
    fn quoted(&mut self, quote: u8, kind: Kind) {
        let start = self.at;
        self.at += 1;
        while self.at < self.end {
            match self.byte(0) {
                byte if byte == quote => {
                    self.at += 1;
                    self.push(kind, start);
                    return;
                }
                b'\\' => self.skip_escaped(),
                // A char ends on its line: what looks like one over several lines is a lone apostrophe.
                b'\n' if kind == Kind::Char => break,
                _ => self.at += 1,
            }
        }
        self.unterminated(start, kind);
    }

    /// Over a backslash and the whole character behind it.
    fn skip_escaped(&mut self) {
        self.at += 1;
        self.at += self.rest().chars().next().map_or(0, char::len_utf8);
    }

    fn unterminated(&mut self, start: usize, kind: Kind) {
        // A string lost its end somewhere: the line it starts on is the likeliest place, so reading goes on behind it.
        let line_end = self.source[start..self.end].find('\n').map_or(self.end, |length| start + length);
        self.at = line_end;
        let opening = span(start, start + 1);
        let quote = &self.source[start..start + 1];
        self.report(
            Diagnostic::error(codes::UNTERMINATED, opening, format!("{} has no end", kind.text()))
                .help(format!("close it with {quote}")),
        );
        self.push(Kind::Error, start);
    }

    /// A template string, with the `${ }` parts and the strings and templates within them passed over.
    fn template(&mut self) {
        let start = self.at;
        // What is open, innermost last: a template, or a `{` within a `${ }`.
        let mut open = vec![b'`'];
        let mut templates = 1;
        self.at += 1;
        while self.at < self.end {
            let in_text = open.last() == Some(&b'`');
            match self.byte(0) {
                b'\\' if in_text => self.skip_escaped(),
                b'`' if in_text => {
                    self.at += 1;
                    open.pop();
                    templates -= 1;
                    if open.is_empty() {
                        self.push(Kind::Template, start);
                        return;
                    }
                }
                b'$' if in_text && self.byte(1) == b'{' => {
                    self.at += 2;
                    open.push(b'{');
                }
                _ if in_text => self.at += 1,
                b'`' => {
                    self.at += 1;
                    open.push(b'`');
                    templates += 1;
                }
                b'{' => {
                    self.at += 1;
                    open.push(b'{');
                }
                b'}' => {
                    self.at += 1;
                    open.pop();
                }
                quote @ (b'"' | b'\'') => self.skip_quoted(quote),
                _ => self.at += 1,
            }
            if templates > TEMPLATE_DEPTH_MAX {
                let message = format!("template strings nest deeper than {TEMPLATE_DEPTH_MAX}");
                self.report(
                    Diagnostic::error(codes::TOO_DEEP, span(self.at - 1, self.at), message)
                        .help("put the inner one into a variable"),
                );
                self.at = self.end;
                self.push(Kind::Error, start);
                return;
            }
        }
        self.unterminated(start, Kind::Template);
    }

    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while self.at < self.end {
            match self.byte(0) {
                b'\\' => self.skip_escaped(),
                byte => {
                    self.at += 1;
                    if byte == quote {
                        return;
                    }
                }
            }
        }
    }

    fn operator(&mut self) {
        let start = self.at;
        let (kind, length) = match (self.byte(0), self.byte(1), self.byte(2)) {
            (b'.', b'.', b'.') => (Kind::Ellipsis, 3),
            (b'.', b'.', _) => (Kind::DotDot, 2),
            (b'.', ..) => (Kind::Dot, 1),
            // `a ?.5 : b` is a ternary.
            (b'?', b'.', next) if !next.is_ascii_digit() => (Kind::QuestionDot, 2),
            (b'?', b'?', _) => (Kind::Coalesce, 2),
            (b'?', ..) => (Kind::Question, 1),
            (b'-', b'>', _) => (Kind::Arrow, 2),
            (b'-', b'=', _) => (Kind::MinusAssign, 2),
            (b'-', b'-', _) => (Kind::MinusMinus, 2),
            (b'-', ..) => (Kind::Minus, 1),
            (b'+', b'=', _) => (Kind::PlusAssign, 2),
            (b'+', b'+', _) => (Kind::PlusPlus, 2),
            (b'+', ..) => (Kind::Plus, 1),
            (b'*', b'=', _) => (Kind::StarAssign, 2),
            (b'*', ..) => (Kind::Star, 1),
            (b'/', b'=', _) => (Kind::SlashAssign, 2),
            (b'/', ..) => (Kind::Slash, 1),
            (b'%', b'=', _) => (Kind::PercentAssign, 2),
            (b'%', ..) => (Kind::Percent, 1),
            (b'=', b'=', _) => (Kind::Equal, 2),
            (b'=', b'>', _) => (Kind::FatArrow, 2),
            (b'=', ..) => (Kind::Assign, 1),
            (b'!', b'=', _) => (Kind::NotEqual, 2),
            (b'!', ..) => (Kind::Bang, 1),
            (b'<', b'=', _) => (Kind::LessEqual, 2),
            (b'<', b'<', _) => (Kind::ShiftLeft, 2),
            (b'<', ..) => (Kind::Less, 1),
            // `>>` is two tokens, because `array<array<i32>>` ends with them; the parser joins neighbours.
            (b'>', b'=', _) => (Kind::GreaterEqual, 2),
            (b'>', ..) => (Kind::Greater, 1),
            (b'&', b'&', _) => (Kind::AndAnd, 2),
            (b'&', ..) => (Kind::Ampersand, 1),
            (b'|', b'|', _) => (Kind::OrOr, 2),
            (b'|', ..) => (Kind::Pipe, 1),
            (b'^', ..) => (Kind::Caret, 1),
            (b'~', ..) => (Kind::Tilde, 1),
            (b'(', ..) => (Kind::LeftParen, 1),
            (b')', ..) => (Kind::RightParen, 1),
            (b'[', ..) => (Kind::LeftBracket, 1),
            (b']', ..) => (Kind::RightBracket, 1),
            (b'{', ..) => (Kind::LeftBrace, 1),
            (b'}', ..) => (Kind::RightBrace, 1),
            (b';', ..) => (Kind::Semicolon, 1),
            (b',', ..) => (Kind::Comma, 1),
            (b':', ..) => (Kind::Colon, 1),
            _ => return self.strange(),
        };
        self.at += length;
        self.push(kind, start);
    }

    /// One diagnostic for a whole run of characters that start nothing.
    fn strange(&mut self) {
        let start = self.at;
        let means_something = |c: char| c.is_ascii_graphic() && !"#$@\\".contains(c);
        let is_strange = |c: char| !means_something(c) && !c.is_whitespace() && !c.is_alphabetic();
        let first = self.rest().chars().next().map_or(1, char::len_utf8);
        self.at += first;
        self.at += self.rest().find(|c| !is_strange(c)).unwrap_or(self.end - self.at);
        let text: String = self.source[start..self.at].chars().take(8).flat_map(char::escape_debug).collect();
        let message = format!("`{text}` starts nothing in RADS");
        self.report(Diagnostic::error(codes::STRANGE_CHARACTER, span(start, self.at), message));
        self.push(Kind::Error, start);
    }
}

fn span(start: usize, end: usize) -> Span {
    // Sources are far below 4 GiB: `parser::SOURCE_MAX_BYTES`.
    Span { start: start as u32, end: end as u32 }
}
