//! A tree as one line a statement, for tests and for looking at: brackets show what belongs together.

use std::fmt::Write as _;

use crate::ast::{
    Block, Expr, ExprKind, File, ForInit, Function, ImportTarget, Let, Pattern, PatternItem, PatternKind, Property,
    Stmt, StmtKind, TemplatePart, TypeRef, UnaryOperator,
};

/// The whole file, statements indented by their depth.
pub fn dump(file: &File) -> String {
    let mut dumper = Dumper { text: String::new(), indent: 0 };
    dumper.statements(&file.statements);
    dumper.text
}

struct Dumper {
    text: String,
    indent: usize,
}

impl Dumper {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{:indent$}{text}", "", indent = self.indent * 2);
    }

    fn statements(&mut self, statements: &[Stmt]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn block(&mut self, head: &str, block: &Block) {
        self.line(head);
        self.indented(&block.statements);
    }

    fn indented(&mut self, statements: &[Stmt]) {
        self.indent += 1;
        self.statements(statements);
        self.indent -= 1;
    }

    fn statement(&mut self, statement: &Stmt) {
        match &statement.kind {
            StmtKind::Import(import) => {
                let target = match &import.target {
                    ImportTarget::Module(names) => names.iter().map(|name| &*name.text).collect::<Vec<_>>().join("."),
                    ImportTarget::File { path, .. } => format!("{path:?}"),
                };
                let alias = import.alias.as_ref().map(|alias| format!(" as {}", alias.text)).unwrap_or_default();
                self.line(&format!("import {target}{alias}"));
            }
            StmtKind::Export(inner) => {
                self.line("export");
                self.indent += 1;
                self.statement(inner);
                self.indent -= 1;
            }
            StmtKind::Blast(function) => self.block(&signature(function), &function.body),
            StmtKind::Struct(declaration) => {
                let fields = declaration.fields.iter().map(|field| typed(field.annotation.as_ref(), &field.name.text));
                self.line(&format!("struct {} {{{}}}", declaration.name.text, fields.collect::<Vec<_>>().join(", ")));
            }
            StmtKind::Enum(declaration) => {
                let variants = declaration.variants.iter().map(|(name, value)| match value {
                    Some(value) => format!("{} = {value}", name.text),
                    None => name.text.to_string(),
                });
                self.line(&format!("enum {} {{{}}}", declaration.name.text, variants.collect::<Vec<_>>().join(", ")));
            }
            StmtKind::Let(binding) => self.line(&binding_text(binding)),
            StmtKind::Expr(value) => self.line(&expr(value)),
            StmtKind::Block(inner) => self.block("block", inner),
            StmtKind::If { arms, otherwise } => {
                for (index, (condition, body)) in arms.iter().enumerate() {
                    let word = if index == 0 { "if" } else { "elif" };
                    self.block(&format!("{word} {}", expr(condition)), body);
                }
                if let Some(body) = otherwise {
                    self.block("else", body);
                }
            }
            StmtKind::While { condition, body } => {
                let condition = condition.as_ref().map_or("for ever".to_owned(), expr);
                self.block(&format!("while {condition}"), body);
            }
            StmtKind::Each { pattern: bound, iterable, body } => {
                self.block(&format!("each {} in {}", pattern(bound), expr(iterable)), body);
            }
            StmtKind::For { init, condition, update, body } => {
                let init = match init {
                    Some(ForInit::Let(binding)) => binding_text(binding),
                    Some(ForInit::Bare { name, value }) => format!("{} = {}", name.text, expr(value)),
                    Some(ForInit::Expr(value)) => expr(value),
                    None => String::new(),
                };
                let part = |part: &Option<Expr>| part.as_ref().map(expr).unwrap_or_default();
                self.block(&format!("for {init}; {}; {}", part(condition), part(update)), body);
            }
            StmtKind::Switch { subject, cases } => {
                self.line(&format!("switch {}", expr(subject)));
                self.indent += 1;
                for case in cases {
                    self.line(
                        &case.label.as_ref().map_or("default".to_owned(), |label| format!("case {}", expr(label))),
                    );
                    self.indented(&case.body);
                }
                self.indent -= 1;
            }
            StmtKind::Break => self.line("break"),
            StmtKind::Continue => self.line("continue"),
            StmtKind::Return(value) => self.line(&format!("return {}", value.as_ref().map(expr).unwrap_or_default())),
            StmtKind::Throw(value) => self.line(&format!("throw {}", expr(value))),
            StmtKind::Try { body, catch, finally } => {
                self.block("try", body);
                if let Some(catch) = catch {
                    let name = catch.name.as_ref().map_or("", |name| &name.text);
                    self.block(&format!("catch {name}"), &catch.body);
                }
                if let Some(finally) = finally {
                    self.block("finally", finally);
                }
            }
            StmtKind::Empty => self.line("empty"),
            StmtKind::Error => self.line("error"),
        }
    }
}

fn signature(function: &Function) -> String {
    let name = function.name.as_ref().map_or("", |name| &name.text);
    let params = function.params.iter().map(|param| {
        let dots = if param.rest { "..." } else { "" };
        let default = param.default.as_ref().map(|value| format!(" = {}", expr(value))).unwrap_or_default();
        format!("{dots}{}{default}", typed(param.annotation.as_ref(), &param.name.text))
    });
    let returns = function.returns.as_ref().map(|returns| format!(" -> {}", type_ref(returns))).unwrap_or_default();
    format!("blast {name}({}){returns}", params.collect::<Vec<_>>().join(", "))
}

fn binding_text(binding: &Let) -> String {
    let value = binding.value.as_ref().map(|value| format!(" = {}", expr(value))).unwrap_or_default();
    format!("let {}{value}", pattern(&binding.pattern))
}

fn typed(annotation: Option<&TypeRef>, name: &str) -> String {
    annotation.map_or(name.to_owned(), |annotation| format!("{} {name}", type_ref(annotation)))
}

fn type_ref(reference: &TypeRef) -> String {
    let arguments = reference.arguments.iter().map(type_ref).collect::<Vec<_>>().join(", ");
    let arguments = if arguments.is_empty() { arguments } else { format!("<{arguments}>") };
    format!("{}{arguments}{}", reference.name.text, if reference.nullable { "?" } else { "" })
}

fn pattern(bound: &Pattern) -> String {
    let item = |item: &PatternItem| {
        let default = item.default.as_ref().map(|value| format!(" = {}", expr(value))).unwrap_or_default();
        format!("{}{default}", pattern(&item.pattern))
    };
    let with_rest = |mut parts: Vec<String>, rest: &Option<crate::ast::Name>| {
        parts.extend(rest.as_ref().map(|rest| format!("...{}", rest.text)));
        parts.join(", ")
    };
    match &bound.kind {
        PatternKind::Name { name, annotation } => typed(annotation.as_ref(), &name.text),
        PatternKind::Array { items, rest } => {
            let items = items.iter().map(|entry| entry.as_ref().map_or("_".to_owned(), item)).collect();
            format!("[{}]", with_rest(items, rest))
        }
        PatternKind::Object { fields, rest } => {
            let fields = fields.iter().map(|(key, entry)| format!("{}: {}", key.text, item(entry))).collect();
            format!("{{{}}}", with_rest(fields, rest))
        }
        PatternKind::Error => "error".to_owned(),
    }
}

/// An expression with every operator in brackets.
fn expr(value: &Expr) -> String {
    let list = |parts: Vec<String>| parts.join(" ");
    match &value.kind {
        ExprKind::Null => "null".to_owned(),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Int(value) => value.to_string(),
        ExprKind::Float(value) => format!("{value:?}"),
        ExprKind::Char(value) => format!("{value:?}"),
        ExprKind::Str(value) => format!("{value:?}"),
        ExprKind::Name(name) => name.to_string(),
        ExprKind::Template(parts) => {
            let parts = parts.iter().map(|part| match part {
                TemplatePart::Text(text) => format!("{text:?}"),
                TemplatePart::Expr(value) => expr(value),
            });
            format!("(template {})", list(parts.collect()))
        }
        ExprKind::Array(items) => {
            let items =
                items.iter().map(|item| format!("{}{}", if item.spread { "..." } else { "" }, expr(&item.value)));
            format!("[{}]", list(items.collect()))
        }
        ExprKind::Object(properties) => {
            let properties = properties.iter().map(|property| match property {
                Property::Field { key, value } => format!("{}: {}", key.text, expr(value)),
                Property::Spread(value) => format!("...{}", expr(value)),
            });
            format!("{{{}}}", properties.collect::<Vec<_>>().join(", "))
        }
        ExprKind::Struct { name, fields } => {
            let fields = fields.iter().map(|(field, value)| format!("{}: {}", field.text, expr(value)));
            format!("({} {{{}}})", name.text, fields.collect::<Vec<_>>().join(", "))
        }
        ExprKind::Function(function) => {
            let mut body = Dumper { text: String::new(), indent: 0 };
            body.statements(&function.body.statements);
            format!("({} {{ {} }})", signature(function), body.text.trim_end().replace('\n', "; "))
        }
        ExprKind::Unary { operator, operand } => {
            let sign = match operator {
                UnaryOperator::Not => "!",
                UnaryOperator::Negate => "-",
                UnaryOperator::BitNot => "~",
                UnaryOperator::TypeOf => "typeof",
            };
            format!("({sign} {})", expr(operand))
        }
        ExprKind::Binary { operator, left, right } => format!("({} {} {})", operator.text(), expr(left), expr(right)),
        ExprKind::Range { start, end } => {
            let side = |side: &Option<Box<Expr>>| side.as_ref().map_or("_".to_owned(), |value| expr(value));
            format!("(.. {} {})", side(start), side(end))
        }
        ExprKind::Ternary { condition, then, otherwise } => {
            format!("(? {} {} {})", expr(condition), expr(then), expr(otherwise))
        }
        ExprKind::Assign { operator, target, value } => {
            let sign = operator.map_or("", crate::ast::BinaryOperator::text);
            format!("({sign}= {} {})", expr(target), expr(value))
        }
        ExprKind::Update { target, up, prefix } => {
            let sign = if *up { "++" } else { "--" };
            if *prefix { format!("({sign} {})", expr(target)) } else { format!("({} {sign})", expr(target)) }
        }
        ExprKind::Field { object, name, optional } => {
            format!("({} {} {})", if *optional { "?." } else { "." }, expr(object), name.text)
        }
        ExprKind::Index { object, index, optional } => {
            format!("({} {} {})", if *optional { "?.[]" } else { "[]" }, expr(object), expr(index))
        }
        ExprKind::Call { callee, arguments } => {
            let arguments = arguments.iter().map(|argument| {
                let name = argument.name.as_ref().map(|name| format!("{}: ", name.text)).unwrap_or_default();
                format!(" {name}{}{}", if argument.spread { "..." } else { "" }, expr(&argument.value))
            });
            format!("(call {}{})", expr(callee), arguments.collect::<String>())
        }
        ExprKind::Spawn(value) => format!("(spawn {})", expr(value)),
        ExprKind::Await(value) => format!("(await {})", expr(value)),
        ExprKind::Error => "error".to_owned(),
    }
}
