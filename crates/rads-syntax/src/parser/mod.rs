//! Tokens to a tree, by recursive descent, going on after every error.
//!
//! A function that cannot read what it is for reports it once and gives `Err(Reported)`; the nearest list of
//! statements catches that, skips to where a statement can start, and goes on. Recursion is bounded by `NESTING_MAX`,
//! the depth of what is built by `DEPTH_MAX`, so that no input exhausts the stack of whoever reads or drops the tree.

mod binding;
mod declaration;
mod expression;
mod statement;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::ast::{Expr, ExprKind, File, Name};
use crate::diagnostic::Diagnostic;
use crate::lexer;
use crate::span::Span;
use crate::token::{Kind, Token};
use crate::{Parse, codes};

/// Blocks, brackets and prefix operators within each other: far beyond what people write, and small enough for the
/// 2 MiB stack of a thread in an unoptimised build.
pub(crate) const NESTING_MAX: u32 = 100;

/// Depth of one expression's tree, where chains like `a + b + c` and `a.b.c` count a level a link.
pub(crate) const DEPTH_MAX: u16 = 400;

/// Largest source file: a tree takes some thirty times the memory of its text.
pub(crate) const SOURCE_MAX_BYTES: usize = 8 << 20;

/// Errors shown of one file; who makes more has another problem.
const DIAGNOSTICS_MAX: usize = 100;

/// The error is in the diagnostics already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported;

pub(super) type Parsed<T> = Result<T, Reported>;

pub(crate) fn parse(source: &str) -> Parse {
    if source.len() > SOURCE_MAX_BYTES {
        let message = format!("file has {} bytes, at most {SOURCE_MAX_BYTES} are read", source.len());
        let diagnostic = Diagnostic::error(codes::FILE_TOO_LARGE, Span::default(), message)
            .help("keep data in a data file and read it at run time");
        return Parse { file: File::default(), diagnostics: vec![diagnostic] };
    }
    let lexed = lexer::lex(source, Span::new(0, source.len() as u32));
    let mut parser = Parser::new(source, lexed.tokens, lexed.diagnostics);
    let statements = parser.file();
    let mut diagnostics = parser.diagnostics;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    diagnostics.dedup_by(|later, first| later.span == first.span);
    if diagnostics.len() > DIAGNOSTICS_MAX {
        let more = diagnostics.len() - DIAGNOSTICS_MAX;
        diagnostics.truncate(DIAGNOSTICS_MAX);
        let last = diagnostics[DIAGNOSTICS_MAX - 1].span;
        diagnostics.push(Diagnostic::error(codes::TOO_MANY, last, format!("{more} more errors are not shown")));
    }
    Parse { file: File { statements, comments: lexed.comments }, diagnostics }
}

pub(super) struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Token>,
    at: usize,
    nesting: u32,
    /// In the head of an `if x {`, a name before `{` is no struct literal.
    struct_literals: bool,
    diagnostics: Vec<Diagnostic>,
}

impl<'s> Parser<'s> {
    fn new(source: &'s str, tokens: Vec<Token>, diagnostics: Vec<Diagnostic>) -> Self {
        Self { source, tokens, at: 0, nesting: 0, struct_literals: true, diagnostics }
    }

    // --- looking

    fn peek(&self) -> Token {
        self.peek_at(0)
    }

    /// The token `ahead` of the next one; the last one, `End`, for ever.
    fn peek_at(&self, ahead: usize) -> Token {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)]
    }

    fn is(&self, kind: Kind) -> bool {
        self.peek().kind == kind
    }

    fn is_at(&self, ahead: usize, kind: Kind) -> bool {
        self.peek_at(ahead).kind == kind
    }

    fn text(&self, span: Span) -> &'s str {
        &self.source[span.range()]
    }

    /// Where the token before the next one ended: errors about something missing point there.
    fn last_span(&self) -> Span {
        match self.at.checked_sub(1) {
            Some(before) => self.tokens[before].span,
            None => Span::new(self.peek().span.start, self.peek().span.start),
        }
    }

    // --- taking

    fn next(&mut self) -> Token {
        let token = self.peek();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, kind: Kind) -> bool {
        let found = self.is(kind);
        if found {
            self.next();
        }
        found
    }

    /// Takes a token that must be there; `what` says what for, as in "to start the body of `if`".
    fn expect(&mut self, kind: Kind, what: &str) -> Parsed<Token> {
        if self.is(kind) {
            return Ok(self.next());
        }
        Err(self.unexpected(&format!("`{}` {what}", kind.text())))
    }

    /// The bracket that ends what `open` started.
    fn close(&mut self, kind: Kind, open: Span) -> Parsed<Token> {
        if self.is(kind) {
            return Ok(self.next());
        }
        let next = self.peek();
        if next.kind == Kind::Error {
            return Err(Reported);
        }
        let message = format!("expected `{}`, found {}", kind.text(), self.shown(next));
        let note = format!("`{}` is open since here", self.text(open));
        Err(self.report(Diagnostic::error(codes::UNBALANCED, next.span, message).note(open, note)))
    }

    fn name(&mut self, what: &str) -> Parsed<Name> {
        if self.is(Kind::Name) {
            let span = self.next().span;
            return Ok(Name { text: self.text(span).into(), span });
        }
        let next = self.peek();
        if next.kind.is_keyword() {
            let word = next.kind.text();
            let message = format!("expected {what}, found the keyword `{word}`");
            let help = format!("choose another name, for example `{word}_`");
            return Err(self.report(Diagnostic::error(codes::UNEXPECTED, next.span, message).help(help)));
        }
        Err(self.unexpected(what))
    }

    /// A member, key or option: keywords are names there too.
    fn member_name(&mut self, what: &str) -> Parsed<Name> {
        if self.peek().kind.is_keyword() {
            let span = self.next().span;
            return Ok(Name { text: self.text(span).into(), span });
        }
        self.name(what)
    }

    // --- reporting

    fn report(&mut self, diagnostic: Diagnostic) -> Reported {
        self.diagnostics.push(diagnostic);
        Reported
    }

    /// Reports a name that stands twice where it may stand once. `seen` holds those before it, with their places.
    fn once(&mut self, seen: &mut HashMap<Box<str>, Span>, name: &Name, what: &str) {
        match seen.entry(name.text.clone()) {
            Entry::Vacant(place) => drop(place.insert(name.span)),
            Entry::Occupied(first) => {
                let problem = Diagnostic::error(codes::DUPLICATE, name.span, format!("{what} twice"));
                self.report(problem.note(*first.get(), "first here"));
            }
        }
    }

    fn unexpected(&mut self, expected: &str) -> Reported {
        let next = self.peek();
        // The lexer has reported what is unreadable.
        if next.kind == Kind::Error {
            return Reported;
        }
        let message = format!("expected {expected}, found {}", self.shown(next));
        self.report(Diagnostic::error(codes::UNEXPECTED, next.span, message))
    }

    fn shown(&self, token: Token) -> String {
        match token.kind {
            Kind::End => "the end of the file".to_owned(),
            Kind::Name => format!("`{}`", self.text(token.span)),
            Kind::Str | Kind::Template | Kind::Char => format!("a {}", token.kind.text()),
            Kind::Int | Kind::Float => format!("the number `{}`", self.text(token.span)),
            kind => format!("`{}`", kind.text()),
        }
    }

    // --- bounds

    /// Runs `inner` a level deeper, unless that is too deep.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= NESTING_MAX {
            let span = self.peek().span;
            let message = format!("nested deeper than {NESTING_MAX} levels");
            let help = "move an inner part into a blast or a variable";
            let reported = self.report(Diagnostic::error(codes::TOO_DEEP, span, message).help(help));
            // What comes is as deep again: reading on would report each level.
            self.at = self.tokens.len() - 1;
            return Err(reported);
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    /// Runs `inner` with or without struct literals, as the head of a statement or a bracket asks for.
    fn with_struct_literals<T>(&mut self, allowed: bool, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let before = std::mem::replace(&mut self.struct_literals, allowed);
        let result = inner(self);
        self.struct_literals = before;
        result
    }

    /// An expression over `parts`; one that is too deep becomes an error node.
    fn build(&mut self, span: Span, deepest: u16, kind: ExprKind) -> Parsed<Expr> {
        if deepest >= DEPTH_MAX {
            let message = format!("expression has a chain of more than {DEPTH_MAX} links");
            let help = "take it apart with variables, or use a loop";
            let reported = self.report(Diagnostic::error(codes::TOO_DEEP, span, message).help(help));
            self.at = self.tokens.len() - 1;
            return Err(reported);
        }
        Ok(Expr { kind, span, depth: deepest + 1 })
    }
}
