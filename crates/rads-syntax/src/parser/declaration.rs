//! What a file declares: blasts, structs, enums, imports and exports.

use std::collections::HashMap;

use super::{Parsed, Parser};
use crate::ast::{EnumDecl, Function, Import, ImportTarget, Stmt, StmtKind, StructDecl, StructField};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::literal;
use crate::token::Kind;

impl Parser<'_> {
    /// A blast with or without a name, from `async` or `blast` to the end of its body.
    pub(super) fn function(&mut self) -> Parsed<Function> {
        let start = self.peek().span;
        let is_async = self.eat(Kind::Async);
        self.expect(Kind::Blast, "behind `async`")?;
        let name = if self.is(Kind::LeftParen) { None } else { Some(self.name("a name or `(` behind `blast`")?) };
        let params = self.params()?;
        let returns = if self.eat(Kind::Arrow) { Some(self.type_ref()?) } else { None };
        let body = self.block("as the body of the blast")?;
        let span = start.to(body.span);
        Ok(Function { name, params, returns, body, is_async, span })
    }

    pub(super) fn struct_declaration(&mut self) -> Parsed<StmtKind> {
        self.next();
        let name = self.name("a name for the struct")?;
        let open = self.expect(Kind::LeftBrace, "to start the fields")?.span;
        let mut fields: Vec<StructField> = Vec::new();
        let mut seen = HashMap::new();
        while !self.is(Kind::RightBrace) {
            let annotation = if self.starts_annotated_name() { Some(self.type_ref()?) } else { None };
            let name = self.member_name("a field")?;
            self.once(&mut seen, &name, &format!("field `{}` is declared", name.text));
            fields.push(StructField { name, annotation });
            if !(self.eat(Kind::Semicolon) || self.eat(Kind::Comma)) {
                break;
            }
        }
        self.close(Kind::RightBrace, open)?;
        Ok(StmtKind::Struct(StructDecl { name, fields }))
    }

    pub(super) fn enum_declaration(&mut self) -> Parsed<StmtKind> {
        self.next();
        let name = self.name("a name for the enum")?;
        let open = self.expect(Kind::LeftBrace, "to start the variants")?.span;
        let mut variants = Vec::new();
        while !self.is(Kind::RightBrace) {
            let variant = self.member_name("a variant")?;
            let value = if self.eat(Kind::Assign) { Some(self.signed_int()?) } else { None };
            variants.push((variant, value));
            if !self.eat(Kind::Comma) {
                break;
            }
        }
        self.close(Kind::RightBrace, open)?;
        Ok(StmtKind::Enum(EnumDecl { name, variants }))
    }

    fn signed_int(&mut self) -> Parsed<i64> {
        let negative = self.eat(Kind::Minus);
        let token = self.expect(Kind::Int, "as the value of the variant")?;
        let magnitude = literal::int(self.text(token.span)).and_then(|value| i64::try_from(value).ok());
        let Some(magnitude) = magnitude else {
            let message = format!("`{}` does not fit a 64-bit integer", self.text(token.span));
            return Err(self.report(Diagnostic::error(codes::BAD_NUMBER, token.span, message)));
        };
        Ok(if negative { -magnitude } else { magnitude })
    }

    pub(super) fn import(&mut self) -> Parsed<StmtKind> {
        let start = self.next().span;
        let target = if self.is(Kind::Str) {
            let token = self.next();
            let within = crate::Span::new(token.span.start + 1, token.span.end - 1);
            let path = literal::unescape(self.text(within), within.start, &mut self.diagnostics);
            ImportTarget::File { path, span: token.span }
        } else {
            let mut names = vec![self.name("a module or \"file.rads\" behind `import`")?];
            while self.eat(Kind::Dot) {
                names.push(self.member_name("a part of the module")?);
            }
            ImportTarget::Module(names)
        };
        // `as` is a word of its own only here.
        let has_alias = self.is(Kind::Name) && self.text(self.peek().span) == "as";
        if has_alias {
            self.next();
        }
        let alias = if has_alias { Some(self.name("a name behind `as`")?) } else { None };
        let span = start.to(self.last_span());
        self.semicolon();
        Ok(StmtKind::Import(Import { target, alias, span }))
    }

    pub(super) fn export(&mut self) -> Parsed<StmtKind> {
        self.next();
        let exported: Stmt = self.nested(Self::statement)?;
        let is_declaration = matches!(
            exported.kind,
            StmtKind::Blast(_) | StmtKind::Struct(_) | StmtKind::Enum(_) | StmtKind::Let(_) | StmtKind::Error
        );
        if !is_declaration {
            let message = "only a blast, struct, enum or variable can be exported";
            self.report(Diagnostic::error(codes::UNEXPECTED, exported.span, message));
        }
        Ok(StmtKind::Export(Box::new(exported)))
    }
}
