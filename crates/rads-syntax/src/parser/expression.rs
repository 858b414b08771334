//! Expressions, by precedence climbing. Low to high: assignment, ternary, `..`, `??`, `||`, `&&`, comparison, `|`, `^`, `&`,
//! shifts, `+ -`, `* / %`, prefix operators, postfix.

use std::collections::HashMap;

use super::{Parsed, Parser};
use crate::ast::{
    Argument, BinaryOperator as Binary, Element, Expr, ExprKind, Name, Property, TemplatePart, UnaryOperator,
};
use crate::diagnostic::Diagnostic;
use crate::literal::{self, Part};
use crate::span::Span;
use crate::token::{Kind, Token};
use crate::{codes, lexer};

/// How tightly the loosest operators of `binary` hold; `..` is looser than all of them.
const LOOSEST: u8 = 1;

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        self.nested(Self::assignment)
    }

    /// The head of a statement without parentheses, before its `{`.
    pub(super) fn head(&mut self) -> Parsed<Expr> {
        self.with_struct_literals(false, Self::expression)
    }

    fn assignment(&mut self) -> Parsed<Expr> {
        let target = self.ternary()?;
        let operator = match self.peek().kind {
            Kind::Assign => None,
            Kind::PlusAssign => Some(Binary::Add),
            Kind::MinusAssign => Some(Binary::Subtract),
            Kind::StarAssign => Some(Binary::Multiply),
            Kind::SlashAssign => Some(Binary::Divide),
            Kind::PercentAssign => Some(Binary::Remainder),
            _ => return Ok(target),
        };
        let sign = self.next().span;
        self.check_target(&target, operator.is_none(), sign);
        let value = self.expression()?;
        let (span, depth) = (target.span.to(value.span), target.depth.max(value.depth));
        self.build(span, depth, ExprKind::Assign { operator, target: Box::new(target), value: Box::new(value) })
    }

    fn check_target(&mut self, target: &Expr, may_take_apart: bool, sign: Span) {
        let assignable = match &target.kind {
            ExprKind::Name(_) | ExprKind::Error => true,
            ExprKind::Field { optional, .. } | ExprKind::Index { optional, .. } => !optional,
            ExprKind::Array(_) | ExprKind::Object(_) => may_take_apart,
            _ => false,
        };
        if !assignable {
            let message = format!("`{}` cannot be assigned to", self.excerpt(target.span));
            let mut diagnostic = Diagnostic::error(codes::NOT_ASSIGNABLE, target.span, message);
            if self.text(sign) == "=" {
                diagnostic = diagnostic.help("write `==` to compare");
            }
            self.report(diagnostic);
        }
    }

    fn excerpt(&self, span: Span) -> String {
        const SHOWN_CHARS: usize = 30;
        let text = self.text(span);
        match text.char_indices().nth(SHOWN_CHARS) {
            Some((cut, _)) => format!("{}…", &text[..cut]),
            None => text.to_owned(),
        }
    }

    fn ternary(&mut self) -> Parsed<Expr> {
        let condition = self.range()?;
        if !self.eat(Kind::Question) {
            return Ok(condition);
        }
        let then = self.with_struct_literals(true, Self::expression)?;
        self.expect(Kind::Colon, "between the two values of `? :`")?;
        let otherwise = self.expression()?;
        let span = condition.span.to(otherwise.span);
        let depth = condition.depth.max(then.depth).max(otherwise.depth);
        let kind =
            ExprKind::Ternary { condition: Box::new(condition), then: Box::new(then), otherwise: Box::new(otherwise) };
        self.build(span, depth, kind)
    }

    fn range(&mut self) -> Parsed<Expr> {
        if self.is(Kind::DotDot) {
            let dots = self.next().span;
            return self.range_from(None, dots);
        }
        let start = self.binary(LOOSEST)?;
        if !self.is(Kind::DotDot) {
            return Ok(start);
        }
        let dots = self.next().span;
        self.range_from(Some(start), dots)
    }

    fn range_from(&mut self, start: Option<Expr>, dots: Span) -> Parsed<Expr> {
        // `s[2..]` and `s[..]` have no end.
        let end = if self.is(Kind::RightBracket) { None } else { Some(self.binary(LOOSEST)?) };
        let first = start.as_ref().map_or(dots, |start| start.span);
        let span = first.to(end.as_ref().map_or(dots, |end| end.span));
        let depth = start.as_ref().map_or(0, |e| e.depth).max(end.as_ref().map_or(0, |e| e.depth));
        self.build(span, depth, ExprKind::Range { start: start.map(Box::new), end: end.map(Box::new) })
    }

    /// Left-associative operators that hold at least as tightly as `tightness`.
    fn binary(&mut self, tightness: u8) -> Parsed<Expr> {
        let mut left = self.prefix()?;
        while let Some((operator, holds, tokens)) = self.binary_operator() {
            if holds < tightness {
                break;
            }
            for _ in 0..tokens {
                self.next();
            }
            let right = self.nested(|parser| parser.binary(holds + 1))?;
            let (span, depth) = (left.span.to(right.span), left.depth.max(right.depth));
            let kind = ExprKind::Binary { operator, left: Box::new(left), right: Box::new(right) };
            left = self.build(span, depth, kind)?;
        }
        Ok(left)
    }

    /// The operator that comes next, how tightly it holds, and how many tokens it is.
    fn binary_operator(&self) -> Option<(Binary, u8, u8)> {
        let token = self.peek();
        let one = |operator, tightness| Some((operator, tightness, 1));
        match token.kind {
            Kind::Coalesce => one(Binary::Coalesce, LOOSEST),
            Kind::OrOr | Kind::Or => one(Binary::Or, 2),
            Kind::AndAnd | Kind::And => one(Binary::And, 3),
            Kind::Equal => one(Binary::Equal, 4),
            Kind::NotEqual => one(Binary::NotEqual, 4),
            Kind::Less => one(Binary::Less, 4),
            Kind::LessEqual => one(Binary::LessEqual, 4),
            Kind::GreaterEqual => one(Binary::GreaterEqual, 4),
            Kind::Greater => {
                let next = self.peek_at(1);
                if next.kind == Kind::Greater && next.span.start == token.span.end {
                    Some((Binary::ShiftRight, 8, 2))
                } else {
                    one(Binary::Greater, 4)
                }
            }
            Kind::Pipe => one(Binary::BitOr, 5),
            Kind::Caret => one(Binary::BitXor, 6),
            Kind::Ampersand => one(Binary::BitAnd, 7),
            Kind::ShiftLeft => one(Binary::ShiftLeft, 8),
            Kind::Plus => one(Binary::Add, 9),
            Kind::Minus => one(Binary::Subtract, 9),
            Kind::Star => one(Binary::Multiply, 10),
            Kind::Slash => one(Binary::Divide, 10),
            Kind::Percent => one(Binary::Remainder, 10),
            _ => None,
        }
    }

    fn prefix(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        let operator = match token.kind {
            Kind::Bang | Kind::Not => UnaryOperator::Not,
            Kind::Minus => UnaryOperator::Negate,
            Kind::Tilde => UnaryOperator::BitNot,
            Kind::TypeOf => UnaryOperator::TypeOf,
            Kind::PlusPlus | Kind::MinusMinus => return self.prefix_update(),
            Kind::Spawn | Kind::Await => return self.task_operator(),
            _ => return self.postfix(),
        };
        self.next();
        // The most negative integer has no positive counterpart: the minus belongs to the literal.
        if operator == UnaryOperator::Negate && self.is(Kind::Int) {
            let literal = self.peek().span;
            if literal::int(self.text(literal)) == Some(1 << 63) {
                self.next();
                return self.build(token.span.to(literal), 0, ExprKind::Int(i64::MIN));
            }
        }
        let operand = self.nested(Self::prefix)?;
        let (span, depth) = (token.span.to(operand.span), operand.depth);
        self.build(span, depth, ExprKind::Unary { operator, operand: Box::new(operand) })
    }

    fn prefix_update(&mut self) -> Parsed<Expr> {
        let token = self.next();
        let target = self.nested(Self::prefix)?;
        self.check_target(&target, false, token.span);
        let (span, depth) = (token.span.to(target.span), target.depth);
        let up = token.kind == Kind::PlusPlus;
        self.build(span, depth, ExprKind::Update { target: Box::new(target), up, prefix: true })
    }

    fn task_operator(&mut self) -> Parsed<Expr> {
        let token = self.next();
        let operand = self.nested(Self::prefix)?;
        let (span, depth) = (token.span.to(operand.span), operand.depth);
        let operand = Box::new(operand);
        let kind = if token.kind == Kind::Spawn { ExprKind::Spawn(operand) } else { ExprKind::Await(operand) };
        self.build(span, depth, kind)
    }

    fn postfix(&mut self) -> Parsed<Expr> {
        let mut object = self.primary()?;
        loop {
            let token = self.peek();
            object = match token.kind {
                Kind::Dot => {
                    self.next();
                    self.member(object, false)?
                }
                Kind::QuestionDot => {
                    self.next();
                    if self.is(Kind::LeftBracket) { self.index(object, true)? } else { self.member(object, true)? }
                }
                Kind::LeftBracket => self.index(object, false)?,
                Kind::LeftParen => {
                    let (arguments, close, deepest) = self.arguments()?;
                    let (span, depth) = (object.span.to(close), object.depth.max(deepest));
                    self.build(span, depth, ExprKind::Call { callee: Box::new(object), arguments })?
                }
                Kind::PlusPlus | Kind::MinusMinus if !token.on_new_line => {
                    self.next();
                    self.check_target(&object, false, token.span);
                    let (span, depth) = (object.span.to(token.span), object.depth);
                    let up = token.kind == Kind::PlusPlus;
                    self.build(span, depth, ExprKind::Update { target: Box::new(object), up, prefix: false })?
                }
                _ => return Ok(object),
            };
        }
    }

    fn member(&mut self, object: Expr, optional: bool) -> Parsed<Expr> {
        let name = self.member_name("a member behind the dot")?;
        let (span, depth) = (object.span.to(name.span), object.depth);
        self.build(span, depth, ExprKind::Field { object: Box::new(object), name, optional })
    }

    fn index(&mut self, object: Expr, optional: bool) -> Parsed<Expr> {
        let open = self.next().span;
        let index = self.with_struct_literals(true, Self::expression)?;
        let close = self.close(Kind::RightBracket, open)?.span;
        let (span, depth) = (object.span.to(close), object.depth.max(index.depth));
        self.build(span, depth, ExprKind::Index { object: Box::new(object), index: Box::new(index), optional })
    }

    /// `(a, ...b, name: c)`; gives the closing bracket's place and the deepest argument's depth.
    fn arguments(&mut self) -> Parsed<(Vec<Argument>, Span, u16)> {
        let open = self.next().span;
        let mut arguments = Vec::new();
        let mut deepest = 0;
        while !self.is(Kind::RightParen) {
            let argument = self.with_struct_literals(true, |parser| {
                let is_named =
                    (parser.is(Kind::Name) || parser.peek().kind.is_keyword()) && parser.is_at(1, Kind::Colon);
                let name = if is_named { Some(parser.member_name("an option")?) } else { None };
                if is_named {
                    parser.next();
                }
                let spread = parser.eat(Kind::Ellipsis);
                Ok(Argument { name, spread, value: parser.expression()? })
            })?;
            deepest = deepest.max(argument.value.depth);
            arguments.push(argument);
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        let close = self.close(Kind::RightParen, open)?.span;
        Ok((arguments, close, deepest))
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        match token.kind {
            Kind::Int => self.int(token),
            Kind::Float => self.float(token),
            Kind::Str => {
                self.next();
                let text = self.unescaped(token.span);
                self.build(token.span, 0, ExprKind::Str(text))
            }
            Kind::Char => self.char(token),
            Kind::Template => self.template(token),
            Kind::True | Kind::False => {
                self.next();
                self.build(token.span, 0, ExprKind::Bool(token.kind == Kind::True))
            }
            Kind::Null => {
                self.next();
                self.build(token.span, 0, ExprKind::Null)
            }
            Kind::Name if self.struct_literals && self.starts_struct_literal() => self.struct_literal(),
            Kind::Name => {
                self.next();
                self.build(token.span, 0, ExprKind::Name(self.text(token.span).into()))
            }
            Kind::LeftParen => {
                self.next();
                let inner = self.with_struct_literals(true, Self::expression)?;
                let close = self.close(Kind::RightParen, token.span)?.span;
                Ok(Expr { span: token.span.to(close), ..inner })
            }
            Kind::LeftBracket => self.array(),
            Kind::LeftBrace => self.object(),
            Kind::Blast | Kind::Async => {
                let function = self.with_struct_literals(true, |parser| parser.nested(Self::function))?;
                let span = function.span;
                self.build(span, 0, ExprKind::Function(Box::new(function)))
            }
            _ => Err(self.unexpected("an expression")),
        }
    }

    fn int(&mut self, token: Token) -> Parsed<Expr> {
        self.next();
        let text = self.text(token.span);
        // Hexadecimal literals may fill all 64 bits.
        let written_in_bits = text.starts_with('0') && text.len() > 1 && !text.as_bytes()[1].is_ascii_digit();
        let value = match literal::int(text) {
            Some(value) if written_in_bits => Some(value.cast_signed()),
            Some(value) => i64::try_from(value).ok(),
            None => None,
        };
        let Some(value) = value else {
            let shown = self.excerpt(token.span);
            let diagnostic = if written_in_bits {
                let message = format!("`{shown}` is no number of at most 64 bits in its base");
                Diagnostic::error(codes::BAD_NUMBER, token.span, message)
            } else {
                let message = format!("`{shown}` does not fit a 64-bit integer");
                Diagnostic::error(codes::BAD_NUMBER, token.span, message)
                    .help("write it as a float, with `.0` behind it")
            };
            self.report(diagnostic);
            return self.build(token.span, 0, ExprKind::Error);
        };
        self.build(token.span, 0, ExprKind::Int(value))
    }

    fn float(&mut self, token: Token) -> Parsed<Expr> {
        self.next();
        let Some(value) = literal::float(self.text(token.span)) else {
            let message = format!("`{}` does not fit a 64-bit float", self.excerpt(token.span));
            self.report(Diagnostic::error(codes::BAD_NUMBER, token.span, message));
            return self.build(token.span, 0, ExprKind::Error);
        };
        self.build(token.span, 0, ExprKind::Float(value))
    }

    /// The text between the quotes of a token, its escapes read.
    fn unescaped(&mut self, quoted: Span) -> String {
        let within = Span::new(quoted.start + 1, quoted.end - 1);
        literal::unescape(self.text(within), within.start, &mut self.diagnostics)
    }

    fn char(&mut self, token: Token) -> Parsed<Expr> {
        self.next();
        let text = self.unescaped(token.span);
        let mut chars = text.chars();
        if let (Some(only), None) = (chars.next(), chars.next()) {
            return self.build(token.span, 0, ExprKind::Char(only));
        }
        let message = format!("a char literal holds one character, this one {}", text.chars().count());
        let help = format!("write a string as \"{}\"", text.escape_debug());
        self.report(Diagnostic::error(codes::BAD_CHAR, token.span, message).help(help));
        self.build(token.span, 0, ExprKind::Error)
    }

    fn template(&mut self, token: Token) -> Parsed<Expr> {
        self.next();
        let within = Span::new(token.span.start + 1, token.span.end - 1);
        let mut parts = Vec::new();
        let mut deepest = 0;
        for part in literal::template_parts(self.source, within) {
            parts.push(match part {
                Part::Text(span) => {
                    TemplatePart::Text(literal::unescape(self.text(span), span.start, &mut self.diagnostics))
                }
                Part::Code(span) => {
                    let value = self.template_code(span)?;
                    deepest = deepest.max(value.depth);
                    TemplatePart::Expr(value)
                }
            });
        }
        self.build(token.span, deepest, ExprKind::Template(parts))
    }

    /// The expression within `${ }`: its tokens are read on their own and then parsed in place.
    fn template_code(&mut self, span: Span) -> Parsed<Expr> {
        let lexed = lexer::lex(self.source, span);
        self.diagnostics.extend(lexed.diagnostics);
        let outer_tokens = std::mem::replace(&mut self.tokens, lexed.tokens);
        let outer_at = std::mem::replace(&mut self.at, 0);
        let value = self.with_struct_literals(true, Self::expression);
        let value = match value {
            Ok(_) if !self.is(Kind::End) => Err(self.unexpected("`}` behind the expression in `${ }`")),
            value => value,
        };
        self.tokens = outer_tokens;
        self.at = outer_at;
        match value {
            Ok(value) => Ok(value),
            Err(_) => self.build(span, 0, ExprKind::Error),
        }
    }

    fn array(&mut self) -> Parsed<Expr> {
        let open = self.next().span;
        let mut items = Vec::new();
        let mut deepest = 0;
        while !self.is(Kind::RightBracket) {
            let item = self.with_struct_literals(true, |parser| {
                let spread = parser.eat(Kind::Ellipsis);
                Ok(Element { spread, value: parser.expression()? })
            })?;
            deepest = deepest.max(item.value.depth);
            items.push(item);
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        let close = self.close(Kind::RightBracket, open)?.span;
        self.build(open.to(close), deepest, ExprKind::Array(items))
    }

    fn object(&mut self) -> Parsed<Expr> {
        let open = self.next().span;
        let mut properties = Vec::new();
        let mut deepest = 0;
        while !self.is(Kind::RightBrace) {
            let property = self.with_struct_literals(true, Self::property)?;
            let (Property::Field { value, .. } | Property::Spread(value)) = &property;
            deepest = deepest.max(value.depth);
            properties.push(property);
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        let close = self.close(Kind::RightBrace, open)?.span;
        self.build(open.to(close), deepest, ExprKind::Object(properties))
    }

    fn property(&mut self) -> Parsed<Property> {
        if self.eat(Kind::Ellipsis) {
            return Ok(Property::Spread(self.expression()?));
        }
        let token = self.peek();
        let key = if matches!(token.kind, Kind::Str | Kind::Int) {
            self.next();
            let text =
                if token.kind == Kind::Str { self.unescaped(token.span) } else { self.text(token.span).to_owned() };
            Name { text: text.into(), span: token.span }
        } else {
            self.member_name("a key")?
        };
        if self.eat(Kind::Colon) {
            return Ok(Property::Field { key, value: self.expression()? });
        }
        if token.kind != Kind::Name {
            return Err(self.unexpected("`:` behind the key"));
        }
        let value = self.build(key.span, 0, ExprKind::Name(key.text.clone()))?;
        Ok(Property::Field { key, value })
    }

    /// `Name {` starts a struct literal when a field or the end of it follows: `Name { x: …` or `Name { }`.
    fn starts_struct_literal(&self) -> bool {
        if !self.is_at(1, Kind::LeftBrace) {
            return false;
        }
        let first = self.peek_at(2).kind;
        first == Kind::RightBrace || ((first == Kind::Name || first.is_keyword()) && self.is_at(3, Kind::Colon))
    }

    fn struct_literal(&mut self) -> Parsed<Expr> {
        let name = self.name("a struct")?;
        let open = self.next().span;
        let mut fields: Vec<(Name, Expr)> = Vec::new();
        let mut seen = HashMap::new();
        let mut deepest = 0;
        while !self.is(Kind::RightBrace) {
            let field = self.member_name("a field")?;
            self.expect(Kind::Colon, "behind the field's name")?;
            let value = self.expression()?;
            self.once(&mut seen, &field, &format!("field `{}` is given", field.text));
            deepest = deepest.max(value.depth);
            fields.push((field, value));
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        let close = self.close(Kind::RightBrace, open)?.span;
        self.build(name.span.to(close), deepest, ExprKind::Struct { name, fields })
    }
}
