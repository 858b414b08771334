//! What names are bound by: patterns, annotations and parameters.

use std::collections::HashMap;

use super::{Parsed, Parser};
use crate::ast::{Param, Pattern, PatternItem, PatternKind, TypeRef};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::token::Kind;

impl Parser<'_> {
    /// A name or something that takes a value apart.
    pub(super) fn pattern(&mut self) -> Parsed<Pattern> {
        self.nested(|parser| match parser.peek().kind {
            Kind::LeftBracket => parser.array_pattern(Kind::RightBracket),
            Kind::LeftParen => parser.array_pattern(Kind::RightParen),
            Kind::LeftBrace => parser.object_pattern(),
            _ => parser.name_pattern(),
        })
    }

    /// `x` or `i32 x`.
    fn name_pattern(&mut self) -> Parsed<Pattern> {
        let start = self.peek().span;
        let annotation = if self.starts_annotated_name() { Some(self.type_ref()?) } else { None };
        let name = self.name("a name")?;
        Ok(Pattern { span: start.to(name.span), kind: PatternKind::Name { name, annotation } })
    }

    /// `[a, , b = 1, ...rest]`, or the same in parentheses.
    fn array_pattern(&mut self, closing: Kind) -> Parsed<Pattern> {
        let open = self.next().span;
        let mut items = Vec::new();
        let mut rest = None;
        while !self.is(closing) {
            if self.eat(Kind::Comma) {
                items.push(None);
                continue;
            }
            if self.eat(Kind::Ellipsis) {
                rest = Some(self.name("a name for the rest")?);
            } else {
                items.push(Some(self.pattern_item()?));
            }
            if rest.is_some() || !self.eat(Kind::Comma) {
                self.eat(Kind::Comma);
                break;
            }
        }
        let close = self.close(closing, open)?.span;
        Ok(Pattern { kind: PatternKind::Array { items, rest }, span: open.to(close) })
    }

    fn pattern_item(&mut self) -> Parsed<PatternItem> {
        let pattern = self.pattern()?;
        let default = if self.eat(Kind::Assign) { Some(self.expression()?) } else { None };
        Ok(PatternItem { pattern, default })
    }

    /// `{f, g: alias, h = 1, ...rest}`.
    fn object_pattern(&mut self) -> Parsed<Pattern> {
        let open = self.next().span;
        let mut fields = Vec::new();
        let mut rest = None;
        while !self.is(Kind::RightBrace) {
            if self.eat(Kind::Ellipsis) {
                rest = Some(self.name("a name for the rest")?);
                self.eat(Kind::Comma);
                break;
            }
            let key = self.member_name("a key")?;
            let item = if self.eat(Kind::Colon) {
                self.pattern_item()?
            } else {
                let kind = PatternKind::Name { name: key.clone(), annotation: None };
                let pattern = Pattern { kind, span: key.span };
                let default = if self.eat(Kind::Assign) { Some(self.expression()?) } else { None };
                PatternItem { pattern, default }
            };
            fields.push((key, item));
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        let close = self.close(Kind::RightBrace, open)?.span;
        Ok(Pattern { kind: PatternKind::Object { fields, rest }, span: open.to(close) })
    }

    /// A type and a name follow: `i32 x`, `array<i32> a`, `Player? p`; but not `c ? a : b`.
    pub(super) fn starts_annotated_name(&self) -> bool {
        let name_at = self.type_tokens(0).filter(|length| self.is_at(*length, Kind::Name));
        name_at.is_some_and(|at| !(self.is_at(at - 1, Kind::Question) && self.is_at(at + 1, Kind::Colon)))
    }

    /// How many tokens the type `ahead` takes, if one is there. Looks no further than a type is likely to be long.
    fn type_tokens(&self, ahead: usize) -> Option<usize> {
        const TOKENS_MAX: usize = 40;
        if !self.is_at(ahead, Kind::Name) {
            return None;
        }
        let mut at = ahead + 1;
        let mut open = 0;
        while open > 0 || self.is_at(at, Kind::Less) {
            match self.peek_at(at).kind {
                Kind::Less => open += 1,
                Kind::Greater => open -= 1,
                Kind::Name | Kind::Comma | Kind::Question => {}
                _ => return None,
            }
            at += 1;
            if at > ahead + TOKENS_MAX {
                return None;
            }
            if open == 0 {
                break;
            }
        }
        Some(if self.is_at(at, Kind::Question) { at + 1 } else { at })
    }

    pub(super) fn type_ref(&mut self) -> Parsed<TypeRef> {
        self.nested(|parser| {
            let name = parser.name("a type")?;
            let mut arguments = Vec::new();
            let mut span = name.span;
            if parser.is(Kind::Less) {
                let open = parser.next().span;
                while !parser.is(Kind::Greater) {
                    arguments.push(parser.type_ref()?);
                    if !parser.eat(Kind::Comma) {
                        break;
                    }
                }
                span = span.to(parser.close(Kind::Greater, open)?.span);
            }
            let nullable = parser.is(Kind::Question);
            if nullable {
                span = span.to(parser.next().span);
            }
            Ok(TypeRef { name, arguments, nullable, span })
        })
    }

    /// `(i32 a, b = 1, ...rest)`.
    pub(super) fn params(&mut self) -> Parsed<Vec<Param>> {
        let open = self.expect(Kind::LeftParen, "before the parameters")?.span;
        let mut params: Vec<Param> = Vec::new();
        let mut seen = HashMap::new();
        while !self.is(Kind::RightParen) {
            let rest = self.eat(Kind::Ellipsis);
            let annotation = if self.starts_annotated_name() { Some(self.type_ref()?) } else { None };
            let name = self.name("a parameter")?;
            let default = if self.eat(Kind::Assign) { Some(self.expression()?) } else { None };
            self.once(&mut seen, &name, &format!("parameter `{}` is declared", name.text));
            if params.last().is_some_and(|last| last.rest) {
                let message = "a `...` parameter takes all that is left, so none can follow it";
                self.report(Diagnostic::error(codes::UNEXPECTED, name.span, message));
            }
            params.push(Param { name, annotation, default, rest });
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        self.close(Kind::RightParen, open)?;
        Ok(params)
    }
}
