//! Every expression of a file, for those who look for something in it.

use crate::ast::{
    Block, Expr, ExprKind, File, ForInit, Function, Pattern, PatternKind, Property, Stmt, StmtKind, TemplatePart,
};

/// Calls `seen` with every expression, an outer one before those inside it.
pub fn expressions<'f>(file: &'f File, seen: &mut dyn FnMut(&'f Expr)) {
    let mut visitor = Visitor { seen };
    visitor.statements(&file.statements);
}

struct Visitor<'v, 'f> {
    seen: &'v mut dyn FnMut(&'f Expr),
}

impl<'f> Visitor<'_, 'f> {
    fn statements(&mut self, statements: &'f [Stmt]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn block(&mut self, block: &'f Block) {
        self.statements(&block.statements);
    }

    fn function(&mut self, function: &'f Function) {
        function.params.iter().filter_map(|param| param.default.as_ref()).for_each(|value| self.expr(value));
        self.block(&function.body);
    }

    fn pattern(&mut self, pattern: &'f Pattern) {
        let mut item = |item: &'f crate::ast::PatternItem| {
            self.pattern(&item.pattern);
            item.default.iter().for_each(|value| self.expr(value));
        };
        match &pattern.kind {
            PatternKind::Array { items, .. } => items.iter().flatten().for_each(item),
            PatternKind::Object { fields, .. } => fields.iter().for_each(|(_, field)| item(field)),
            PatternKind::Name { .. } | PatternKind::Error => {}
        }
    }

    fn binding(&mut self, binding: &'f crate::ast::Let) {
        self.pattern(&binding.pattern);
        binding.value.iter().for_each(|value| self.expr(value));
    }

    fn statement(&mut self, statement: &'f Stmt) {
        match &statement.kind {
            StmtKind::Export(inner) => self.statement(inner),
            StmtKind::Blast(function) => self.function(function),
            StmtKind::Let(binding) => self.binding(binding),
            StmtKind::Expr(value) | StmtKind::Throw(value) => self.expr(value),
            StmtKind::Return(value) => value.iter().for_each(|value| self.expr(value)),
            StmtKind::Block(inner) => self.block(inner),
            StmtKind::If { arms, otherwise } => {
                for (condition, body) in arms {
                    self.expr(condition);
                    self.block(body);
                }
                otherwise.iter().for_each(|body| self.block(body));
            }
            StmtKind::While { condition, body } => {
                condition.iter().for_each(|value| self.expr(value));
                self.block(body);
            }
            StmtKind::Each { pattern, iterable, body } => {
                self.pattern(pattern);
                self.expr(iterable);
                self.block(body);
            }
            StmtKind::For { init, condition, update, body } => {
                match init {
                    Some(ForInit::Let(binding)) => self.binding(binding),
                    Some(ForInit::Bare { value, .. } | ForInit::Expr(value)) => self.expr(value),
                    None => {}
                }
                condition.iter().chain(update).for_each(|value| self.expr(value));
                self.block(body);
            }
            StmtKind::Switch { subject, cases } => {
                self.expr(subject);
                for case in cases {
                    case.label.iter().for_each(|value| self.expr(value));
                    self.statements(&case.body);
                }
            }
            StmtKind::Try { body, catch, finally } => {
                self.block(body);
                catch.iter().for_each(|catch| self.block(&catch.body));
                finally.iter().for_each(|body| self.block(body));
            }
            StmtKind::Import(_)
            | StmtKind::Struct(_)
            | StmtKind::Enum(_)
            | StmtKind::Break
            | StmtKind::Continue
            | StmtKind::Empty
            | StmtKind::Error => {}
        }
    }

    fn expr(&mut self, value: &'f Expr) {
        (self.seen)(value);
        match &value.kind {
            ExprKind::Template(parts) => {
                for part in parts {
                    if let TemplatePart::Expr(value) = part {
                        self.expr(value);
                    }
                }
            }
            ExprKind::Array(items) => items.iter().for_each(|item| self.expr(&item.value)),
            ExprKind::Object(properties) => {
                for property in properties {
                    let (Property::Field { value, .. } | Property::Spread(value)) = property;
                    self.expr(value);
                }
            }
            ExprKind::Struct { fields, .. } => fields.iter().for_each(|(_, value)| self.expr(value)),
            ExprKind::Function(function) => self.function(function),
            ExprKind::Unary { operand: inner, .. }
            | ExprKind::Update { target: inner, .. }
            | ExprKind::Field { object: inner, .. }
            | ExprKind::Spawn(inner)
            | ExprKind::Await(inner) => self.expr(inner),
            ExprKind::Binary { left, right, .. } => [left, right].into_iter().for_each(|side| self.expr(side)),
            ExprKind::Assign { target, value, .. } => [target, value].into_iter().for_each(|side| self.expr(side)),
            ExprKind::Index { object, index, .. } => [object, index].into_iter().for_each(|side| self.expr(side)),
            ExprKind::Range { start, end } => start.iter().chain(end).for_each(|side| self.expr(side)),
            ExprKind::Ternary { condition, then, otherwise } => {
                [condition, then, otherwise].into_iter().for_each(|part| self.expr(part));
            }
            ExprKind::Call { callee, arguments } => {
                self.expr(callee);
                arguments.iter().for_each(|argument| self.expr(&argument.value));
            }
            ExprKind::Null
            | ExprKind::Bool(_)
            | ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Char(_)
            | ExprKind::Str(_)
            | ExprKind::Name(_)
            | ExprKind::Error => {}
        }
    }
}
