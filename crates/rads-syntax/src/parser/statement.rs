//! Statements, and how reading goes on after an error in one.

use super::{Parsed, Parser, Reported};
use crate::ast::{
    Block, Case, Catch, Element, Expr, ExprKind, ForInit, Let, Name, Pattern, PatternKind, Stmt, StmtKind,
};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::span::Span;
use crate::token::Kind;

impl Parser<'_> {
    pub(super) fn file(&mut self) -> Vec<Stmt> {
        let mut statements = Vec::new();
        loop {
            self.statements_into(&mut statements, |kind| matches!(kind, Kind::RightBrace));
            if self.is(Kind::End) {
                return statements;
            }
            let stray = self.next().span;
            self.report(Diagnostic::error(codes::UNBALANCED, stray, "`}` closes nothing"));
        }
    }

    /// Statements up to a token that ends the list, errors caught and passed over.
    fn statements_into(&mut self, statements: &mut Vec<Stmt>, ends: impl Fn(Kind) -> bool) {
        while !self.is(Kind::End) && !ends(self.peek().kind) {
            let (start, first) = (self.peek().span, self.at);
            match self.nested(Self::statement) {
                Ok(statement) => statements.push(statement),
                Err(Reported) => {
                    self.skip_statement(first);
                    let span = start.to(self.last_span());
                    statements.push(Stmt { kind: StmtKind::Error, span });
                }
            }
        }
    }

    /// Skips what is left of a statement that started with token `first`: to behind its `;`, to the `}` of the list
    /// it is in, or to a keyword that starts a statement on a new line.
    fn skip_statement(&mut self, first: usize) {
        let mut open = 0usize;
        // A statement that failed at its first token must still be left behind.
        if self.at == first && !self.is(Kind::RightBrace) {
            open += usize::from(self.is(Kind::LeftBrace));
            self.next();
        }
        loop {
            let token = self.peek();
            match token.kind {
                Kind::End => return,
                Kind::Semicolon if open == 0 => {
                    self.next();
                    return;
                }
                Kind::RightBrace if open == 0 => return,
                Kind::RightBrace => {
                    open -= 1;
                    self.next();
                    // The block that was open is the statement's body: what follows on a new line is the next one.
                    if open == 0 && self.peek().on_new_line {
                        return;
                    }
                    continue;
                }
                Kind::LeftBrace => open += 1,
                kind if open == 0 && token.on_new_line && starts_statement(kind) => return,
                _ => {}
            }
            self.next();
        }
    }

    pub(super) fn block(&mut self, what: &str) -> Parsed<Block> {
        if !self.is(Kind::LeftBrace) {
            let next = self.peek();
            if next.kind == Kind::Error {
                return Err(Reported);
            }
            let message = format!("expected `{{` {what}, found {}", self.shown(next));
            return Err(self.report(Diagnostic::error(codes::UNEXPECTED, next.span, message)));
        }
        let open = self.next().span;
        self.with_struct_literals(true, |parser| {
            let mut statements = Vec::new();
            parser.statements_into(&mut statements, |kind| kind == Kind::RightBrace);
            // Without its `}` the block still has its statements: only the bracket is reported.
            let close = match parser.close(Kind::RightBrace, open) {
                Ok(token) => token.span,
                Err(Reported) => parser.last_span(),
            };
            Ok(Block { statements, span: open.to(close) })
        })
    }

    pub(super) fn statement(&mut self) -> Parsed<Stmt> {
        let start = self.peek().span;
        let kind = self.statement_kind()?;
        Ok(Stmt { kind, span: start.to(self.last_span()) })
    }

    fn statement_kind(&mut self) -> Parsed<StmtKind> {
        match self.peek().kind {
            Kind::Import => self.import(),
            Kind::Export => self.export(),
            Kind::Struct => self.struct_declaration(),
            Kind::Enum => self.enum_declaration(),
            Kind::Blast if self.is_at(1, Kind::Name) => Ok(StmtKind::Blast(Box::new(self.function()?))),
            Kind::Async if self.is_at(1, Kind::Blast) && self.is_at(2, Kind::Name) => {
                Ok(StmtKind::Blast(Box::new(self.function()?)))
            }
            Kind::Turbo => {
                self.next();
                self.let_statement()
            }
            Kind::Name if self.starts_annotated_name() => self.let_statement(),
            Kind::If => self.if_statement(),
            Kind::Elif | Kind::Else => Err(self.without_its_if()),
            Kind::Loop | Kind::While => self.while_statement(),
            Kind::Cruise | Kind::For => self.for_statement(),
            Kind::Switch => self.switch(),
            Kind::Try => self.try_statement(),
            Kind::LeftBrace => Ok(StmtKind::Block(self.block("")?)),
            Kind::Break => Ok(self.single(StmtKind::Break)),
            Kind::Continue => Ok(self.single(StmtKind::Continue)),
            Kind::Return => self.return_statement(),
            Kind::Throw => {
                self.next();
                let value = self.expression()?;
                self.semicolon();
                Ok(StmtKind::Throw(value))
            }
            Kind::Semicolon => {
                self.next();
                Ok(StmtKind::Empty)
            }
            _ => {
                let expression = self.expression()?;
                self.semicolon();
                Ok(StmtKind::Expr(expression))
            }
        }
    }

    /// The `;` behind a statement: optional before `}`, missed with a hint elsewhere.
    pub(super) fn semicolon(&mut self) {
        let next = self.peek();
        if self.eat(Kind::Semicolon) || matches!(next.kind, Kind::RightBrace | Kind::Error) {
            return;
        }
        let place = self.last_span().behind();
        let message = if next.kind == Kind::End || next.on_new_line {
            "statement has no `;`".to_owned()
        } else {
            format!("expected `;`, found {}", self.shown(next))
        };
        self.report(Diagnostic::error(codes::MISSING_SEMICOLON, place, message).help("add `;` here"));
        // On the same line more of the same mistake follows; on a new line the next statement does.
        if next.kind != Kind::End && !next.on_new_line {
            let at = self.at;
            self.skip_statement(at);
        }
    }

    fn single(&mut self, kind: StmtKind) -> StmtKind {
        self.next();
        self.semicolon();
        kind
    }

    /// Behind `turbo`, or at the type of an annotated variable.
    fn let_statement(&mut self) -> Parsed<StmtKind> {
        let binding = self.let_binding()?;
        self.semicolon();
        Ok(StmtKind::Let(binding))
    }

    fn let_binding(&mut self) -> Parsed<Let> {
        let pattern = self.pattern()?;
        let value = if self.eat(Kind::Assign) { Some(self.expression()?) } else { None };
        if value.is_none() && !matches!(pattern.kind, PatternKind::Name { .. }) {
            self.unexpected("`=` and the value to take apart");
        }
        Ok(Let { pattern, value })
    }

    fn return_statement(&mut self) -> Parsed<StmtKind> {
        let keyword = self.next();
        if matches!(self.peek().kind, Kind::Semicolon | Kind::RightBrace | Kind::End) {
            self.semicolon();
            return Ok(StmtKind::Return(None));
        }
        let first = self.expression()?;
        if !self.is(Kind::Comma) {
            self.semicolon();
            return Ok(StmtKind::Return(Some(first)));
        }
        let mut deepest = first.depth;
        let mut items = vec![Element { spread: false, value: first }];
        while self.eat(Kind::Comma) {
            let value = self.expression()?;
            deepest = deepest.max(value.depth);
            items.push(Element { spread: false, value });
        }
        let span = keyword.span.behind().to(self.last_span());
        let tuple = self.build(span, deepest, ExprKind::Array(items))?;
        self.semicolon();
        Ok(StmtKind::Return(Some(tuple)))
    }

    fn if_statement(&mut self) -> Parsed<StmtKind> {
        let mut arms = Vec::new();
        let mut otherwise = None;
        self.next();
        loop {
            let condition = self.head()?;
            let body = self.block("behind the condition")?;
            arms.push((condition, body));
            if self.eat(Kind::Elif) {
                continue;
            }
            if !self.eat(Kind::Else) {
                break;
            }
            if self.eat(Kind::If) {
                continue;
            }
            otherwise = Some(self.block("behind `else`")?);
            break;
        }
        Ok(StmtKind::If { arms, otherwise })
    }

    fn without_its_if(&mut self) -> Reported {
        let token = self.peek();
        let message = format!("`{}` without an `if` before it", token.kind.text());
        self.report(Diagnostic::error(codes::UNEXPECTED, token.span, message))
    }

    fn while_statement(&mut self) -> Parsed<StmtKind> {
        let for_ever = self.is(Kind::Loop) && self.is_at(1, Kind::LeftBrace);
        self.next();
        let condition = if for_ever { None } else { Some(self.head()?) };
        let body = self.block("as the body of the loop")?;
        Ok(StmtKind::While { condition, body })
    }

    /// `cruise` and `for` are the same word: over something, or in three parts.
    fn for_statement(&mut self) -> Parsed<StmtKind> {
        self.next();
        // `for (i32 a, i32 b) in pairs` has its parentheses from the pattern.
        let open =
            if self.is(Kind::LeftParen) && !self.parentheses_end_before_in() { Some(self.next().span) } else { None };
        let kind = self.with_struct_literals(open.is_some(), |parser| {
            if parser.in_follows_pattern() { parser.each_head() } else { parser.three_parts(open) }
        })?;
        if let Some(open) = open {
            self.close(Kind::RightParen, open)?;
        }
        let body = self.block("as the body of the loop")?;
        Ok(match kind {
            Head::Each { pattern, iterable } => StmtKind::Each { pattern, iterable, body },
            Head::Parts { init, condition, update } => StmtKind::For { init, condition, update, body },
        })
    }

    /// Whether the bracket that opens here is closed just before `in`.
    fn parentheses_end_before_in(&self) -> bool {
        self.matching(0).is_some_and(|close| self.is_at(close + 1, Kind::In))
    }

    /// How far ahead the bracket is that closes the one `ahead`; patterns are short, so the search is too.
    fn matching(&self, ahead: usize) -> Option<usize> {
        const TOKENS_MAX: usize = 60;
        let mut open = 0usize;
        for at in ahead..ahead + TOKENS_MAX {
            match self.peek_at(at).kind {
                Kind::LeftParen | Kind::LeftBracket | Kind::LeftBrace => open += 1,
                Kind::RightParen | Kind::RightBracket | Kind::RightBrace => {
                    open = open.checked_sub(1)?;
                    if open == 0 {
                        return Some(at);
                    }
                }
                Kind::End => return None,
                _ => {}
            }
        }
        None
    }

    fn in_follows_pattern(&self) -> bool {
        let opens = matches!(self.peek().kind, Kind::LeftParen | Kind::LeftBracket | Kind::LeftBrace);
        let is_in = |ahead| self.is_at(ahead, Kind::In);
        if opens {
            return self.matching(0).is_some_and(|close| is_in(close + 1));
        }
        // `x in`, `turbo x in`, `i32 x in`, `k, v in`
        is_in(1) || is_in(2) || (self.is_at(1, Kind::Comma) && is_in(3))
    }

    fn each_head(&mut self) -> Parsed<Head> {
        self.eat(Kind::Turbo);
        let first = self.pattern()?;
        let pattern = if self.is(Kind::Comma) { self.pair(first)? } else { first };
        self.expect(Kind::In, "behind the name")?;
        let iterable = self.expression()?;
        Ok(Head::Each { pattern, iterable })
    }

    /// `k, v in object` is `[k, v] in object`.
    fn pair(&mut self, first: Pattern) -> Parsed<Pattern> {
        self.next();
        let second = self.pattern()?;
        let span = first.span.to(second.span);
        let items = [first, second].map(|pattern| Some(crate::ast::PatternItem { pattern, default: None }));
        Ok(Pattern { kind: PatternKind::Array { items: items.into(), rest: None }, span })
    }

    fn three_parts(&mut self, open: Option<Span>) -> Parsed<Head> {
        let Some(_) = open else {
            return Err(self.unexpected("`x in …` or `(i = 0; …; …)` behind the loop's word"));
        };
        let init = if self.is(Kind::Semicolon) { None } else { Some(self.for_init()?) };
        self.expect(Kind::Semicolon, "behind the first part of the loop's head")?;
        let condition = if self.is(Kind::Semicolon) { None } else { Some(self.expression()?) };
        self.expect(Kind::Semicolon, "behind the condition")?;
        let update = if self.is(Kind::RightParen) { None } else { Some(self.expression()?) };
        Ok(Head::Parts { init, condition, update })
    }

    fn for_init(&mut self) -> Parsed<ForInit> {
        if self.eat(Kind::Turbo) || self.starts_annotated_name() {
            return Ok(ForInit::Let(self.let_binding()?));
        }
        let expression = self.expression()?;
        Ok(match expression.kind {
            ExprKind::Assign { operator: None, target, value } => match *target {
                Expr { kind: ExprKind::Name(text), span, .. } => {
                    ForInit::Bare { name: Name { text, span }, value: *value }
                }
                target => {
                    let kind = ExprKind::Assign { operator: None, target: Box::new(target), value };
                    ForInit::Expr(Expr { kind, ..expression })
                }
            },
            kind => ForInit::Expr(Expr { kind, ..expression }),
        })
    }

    fn switch(&mut self) -> Parsed<StmtKind> {
        self.next();
        let subject = self.head()?;
        let open = self.expect(Kind::LeftBrace, "to start the cases")?.span;
        let mut cases: Vec<Case> = Vec::new();
        loop {
            let start = self.peek();
            let label = match start.kind {
                Kind::Case => {
                    self.next();
                    Some(self.with_struct_literals(true, Self::expression)?)
                }
                Kind::Default => {
                    self.next();
                    if let Some(first) = cases.iter().find(|case| case.label.is_none()) {
                        let first = first.span;
                        let diagnostic = Diagnostic::error(codes::DUPLICATE, start.span, "`default` is there twice");
                        self.report(diagnostic.note(first, "first here"));
                    }
                    None
                }
                _ => break,
            };
            self.expect(Kind::Colon, "behind the case")?;
            let mut body = Vec::new();
            self.with_struct_literals(true, |parser| {
                let ends = |kind| matches!(kind, Kind::Case | Kind::Default | Kind::RightBrace);
                parser.statements_into(&mut body, ends);
                Ok(())
            })?;
            cases.push(Case { label, body, span: start.span });
        }
        self.close(Kind::RightBrace, open)?;
        Ok(StmtKind::Switch { subject, cases })
    }

    fn try_statement(&mut self) -> Parsed<StmtKind> {
        let keyword = self.next().span;
        let body = self.block("behind `try`")?;
        let catch = if self.eat(Kind::Catch) { Some(self.catch()?) } else { None };
        let finally = if self.eat(Kind::Finally) { Some(self.block("behind `finally`")?) } else { None };
        if catch.is_none() && finally.is_none() {
            let diagnostic = Diagnostic::error(codes::UNEXPECTED, keyword, "`try` has neither `catch` nor `finally`");
            self.report(diagnostic.help("add `catch (e) { }` behind its body"));
        }
        Ok(StmtKind::Try { body, catch, finally })
    }

    fn catch(&mut self) -> Parsed<Catch> {
        let name = if self.is(Kind::LeftParen) {
            let open = self.next().span;
            let name = self.name("a name for the error")?;
            self.close(Kind::RightParen, open)?;
            Some(name)
        } else if self.is(Kind::Name) {
            Some(self.name("a name for the error")?)
        } else {
            None
        };
        Ok(Catch { name, body: self.block("behind `catch`")? })
    }
}

/// The head of a `cruise` or `for`, before its body is read.
enum Head {
    Each { pattern: Pattern, iterable: Expr },
    Parts { init: Option<ForInit>, condition: Option<Expr>, update: Option<Expr> },
}

fn starts_statement(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Blast
            | Kind::Turbo
            | Kind::If
            | Kind::Loop
            | Kind::While
            | Kind::For
            | Kind::Cruise
            | Kind::Switch
            | Kind::Break
            | Kind::Continue
            | Kind::Return
            | Kind::Struct
            | Kind::Enum
            | Kind::Try
            | Kind::Throw
            | Kind::Import
            | Kind::Export
            | Kind::Async
            | Kind::Case
            | Kind::Default
    )
}
