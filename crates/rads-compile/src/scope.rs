//! Which variables are captured by an inner blast: only those live in cells, all others stay in registers.
//!
//! A variable is known by the byte where its name is declared. Variables of a file's top level that a blast uses become
//! globals. The rules of visibility here must be those of `lower`: a block that declares blasts sees its names from its
//! start, other names are seen from their declaration on.

use std::collections::{BTreeMap, BTreeSet};

use rads_syntax::ast::{
    Argument, Block, Element, Expr, ExprKind, ForInit, Function, Let, Name, Pattern, PatternKind, Property, Stmt,
    StmtKind, TemplatePart,
};

/// What is known of the variables of one file.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    /// Declarations that an inner blast uses.
    pub(crate) captured: BTreeSet<u32>,
}

/// Finds the captured variables of a file.
pub(crate) fn analyse(statements: &[Stmt]) -> Captures {
    let mut walker = Walker { functions: vec![vec![BTreeMap::new()]], found: Captures::default() };
    walker.statements(statements, true);
    walker.found
}

/// The names that a list of statements declares for its whole block: all, when one of them is a blast; else none.
pub(crate) fn hoisted(statements: &[Stmt]) -> Vec<&Name> {
    let blast = |stmt: &Stmt| matches!(&unexported(stmt).kind, StmtKind::Blast(_));
    if !statements.iter().any(blast) {
        return Vec::new();
    }
    let mut names = Vec::new();
    for stmt in statements {
        match &unexported(stmt).kind {
            StmtKind::Blast(function) => names.extend(&function.name),
            StmtKind::Let(declared) => pattern_names(&declared.pattern, &mut names),
            _ => {}
        }
    }
    names
}

pub(crate) fn unexported(stmt: &Stmt) -> &Stmt {
    match &stmt.kind {
        StmtKind::Export(inner) => inner,
        _ => stmt,
    }
}

/// Every name that a pattern declares.
pub(crate) fn pattern_names<'a>(pattern: &'a Pattern, names: &mut Vec<&'a Name>) {
    match &pattern.kind {
        PatternKind::Name { name, .. } => names.push(name),
        PatternKind::Array { items, rest } => {
            for item in items.iter().flatten() {
                pattern_names(&item.pattern, names);
            }
            names.extend(rest);
        }
        PatternKind::Object { fields, rest } => {
            for (_, item) in fields {
                pattern_names(&item.pattern, names);
            }
            names.extend(rest);
        }
        PatternKind::Error => {}
    }
}

/// Whether a blast is written somewhere in an expression: then the variable it initialises is visible inside.
pub(crate) fn holds_function(expr: &Expr) -> bool {
    let mut found = matches!(expr.kind, ExprKind::Function(_));
    if !found {
        children(expr, &mut |child| found = found || holds_function(child));
    }
    found
}

/// Calls `visit` with each expression directly inside another; the bodies of blasts are left out.
pub(crate) fn children<'a>(expr: &'a Expr, visit: &mut dyn FnMut(&'a Expr)) {
    match &expr.kind {
        ExprKind::Null
        | ExprKind::Bool(_)
        | ExprKind::Int(_)
        | ExprKind::Float(_)
        | ExprKind::Char(_)
        | ExprKind::Str(_)
        | ExprKind::Name(_)
        | ExprKind::Function(_)
        | ExprKind::Error => {}
        ExprKind::Template(parts) => {
            for part in parts {
                if let TemplatePart::Expr(inner) = part {
                    visit(inner);
                }
            }
        }
        ExprKind::Array(elements) => elements.iter().for_each(|Element { value, .. }| visit(value)),
        ExprKind::Object(properties) => {
            for property in properties {
                match property {
                    Property::Field { value, .. } | Property::Spread(value) => visit(value),
                }
            }
        }
        ExprKind::Struct { fields, .. } => fields.iter().for_each(|(_, value)| visit(value)),
        ExprKind::Unary { operand, .. } => visit(operand),
        ExprKind::Binary { left, right, .. } => {
            visit(left);
            visit(right);
        }
        ExprKind::Range { start, end } => {
            start.iter().for_each(|e| visit(e));
            end.iter().for_each(|e| visit(e));
        }
        ExprKind::Ternary { condition, then, otherwise } => {
            visit(condition);
            visit(then);
            visit(otherwise);
        }
        ExprKind::Assign { target, value, .. } => {
            visit(target);
            visit(value);
        }
        ExprKind::Update { target, .. } => visit(target),
        ExprKind::Field { object, .. } => visit(object),
        ExprKind::Index { object, index, .. } => {
            visit(object);
            visit(index);
        }
        ExprKind::Call { callee, arguments } => {
            visit(callee);
            arguments.iter().for_each(|Argument { value, .. }| visit(value));
        }
        ExprKind::Spawn(inner) | ExprKind::Await(inner) => visit(inner),
    }
}

/// Names of one block, with where each was declared.
type Names<'a> = BTreeMap<&'a str, u32>;

struct Walker<'a> {
    /// Blocks of each function, outermost first.
    functions: Vec<Vec<Names<'a>>>,
    found: Captures,
}

impl<'a> Walker<'a> {
    fn declare(&mut self, name: &'a Name) {
        if let Some(block) = self.functions.last_mut().and_then(|blocks| blocks.last_mut()) {
            block.insert(&name.text, name.span.start);
        }
    }

    fn used(&mut self, name: &str) {
        for (depth, blocks) in self.functions.iter().enumerate().rev() {
            if let Some(key) = blocks.iter().rev().find_map(|block| block.get(name)) {
                if depth + 1 < self.functions.len() {
                    self.found.captured.insert(*key);
                }
                return;
            }
        }
    }

    fn in_block(&mut self, body: impl FnOnce(&mut Self)) {
        if let Some(blocks) = self.functions.last_mut() {
            blocks.push(BTreeMap::new());
        }
        body(self);
        if let Some(blocks) = self.functions.last_mut() {
            blocks.pop();
        }
    }

    fn block(&mut self, block: &'a Block) {
        self.in_block(|walker| walker.statements(&block.statements, false));
    }

    fn statements(&mut self, statements: &'a [Stmt], top: bool) {
        if top {
            // Everything at the top of a file is visible in all of it.
            let mut names = Vec::new();
            for stmt in statements {
                if let StmtKind::Let(declared) = &unexported(stmt).kind {
                    pattern_names(&declared.pattern, &mut names);
                }
            }
            names.into_iter().for_each(|name| self.declare(name));
        }
        for name in hoisted(statements) {
            // At the top a blast is an item of the file, not a variable.
            if !top {
                self.declare(name);
            }
        }
        for stmt in statements {
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &'a Stmt) {
        match &unexported(stmt).kind {
            StmtKind::Blast(function) => self.function(function),
            StmtKind::Let(declared) => self.declaration(declared),
            StmtKind::Expr(expr) | StmtKind::Throw(expr) | StmtKind::Return(Some(expr)) => self.expr(expr),
            StmtKind::Block(block) => self.block(block),
            StmtKind::If { arms, otherwise } => {
                for (condition, body) in arms {
                    self.expr(condition);
                    self.block(body);
                }
                otherwise.iter().for_each(|body| self.block(body));
            }
            StmtKind::While { condition, body } => {
                condition.iter().for_each(|c| self.expr(c));
                self.block(body);
            }
            StmtKind::Each { pattern, iterable, body } => {
                self.expr(iterable);
                self.in_block(|walker| {
                    walker.pattern(pattern);
                    walker.block(body);
                });
            }
            StmtKind::For { init, condition, update, body } => self.in_block(|walker| {
                match init {
                    Some(ForInit::Let(declared)) => walker.declaration(declared),
                    Some(ForInit::Bare { name, value }) => {
                        walker.expr(value);
                        if walker.is_visible(&name.text) {
                            walker.used(&name.text);
                        } else {
                            walker.declare(name);
                        }
                    }
                    Some(ForInit::Expr(expr)) => walker.expr(expr),
                    None => {}
                }
                condition.iter().chain(update).for_each(|e| walker.expr(e));
                walker.block(body);
            }),
            StmtKind::Switch { subject, cases } => {
                self.expr(subject);
                for case in cases {
                    case.label.iter().for_each(|label| self.expr(label));
                    self.in_block(|walker| walker.statements(&case.body, false));
                }
            }
            StmtKind::Try { body, catch, finally } => {
                self.block(body);
                if let Some(catch) = catch {
                    self.in_block(|walker| {
                        catch.name.iter().for_each(|name| walker.declare(name));
                        walker.block(&catch.body);
                    });
                }
                finally.iter().for_each(|body| self.block(body));
            }
            StmtKind::Import(_)
            | StmtKind::Export(_)
            | StmtKind::Struct(_)
            | StmtKind::Enum(_)
            | StmtKind::Break
            | StmtKind::Continue
            | StmtKind::Return(None)
            | StmtKind::Empty
            | StmtKind::Error => {}
        }
    }

    fn is_visible(&self, name: &str) -> bool {
        self.functions.iter().flatten().any(|block| block.contains_key(name))
    }

    fn declaration(&mut self, declared: &'a Let) {
        let early = declared.value.as_ref().is_some_and(holds_function);
        if early {
            self.pattern(&declared.pattern);
        }
        declared.value.iter().for_each(|value| self.expr(value));
        if !early {
            self.pattern(&declared.pattern);
        }
    }

    fn pattern(&mut self, pattern: &'a Pattern) {
        match &pattern.kind {
            PatternKind::Name { name, .. } => self.declare(name),
            PatternKind::Array { items, rest } => {
                for item in items.iter().flatten() {
                    item.default.iter().for_each(|default| self.expr(default));
                    self.pattern(&item.pattern);
                }
                rest.iter().for_each(|name| self.declare(name));
            }
            PatternKind::Object { fields, rest } => {
                for (_, item) in fields {
                    item.default.iter().for_each(|default| self.expr(default));
                    self.pattern(&item.pattern);
                }
                rest.iter().for_each(|name| self.declare(name));
            }
            PatternKind::Error => {}
        }
    }

    fn function(&mut self, function: &'a Function) {
        self.functions.push(vec![BTreeMap::new()]);
        for param in &function.params {
            param.default.iter().for_each(|default| self.expr(default));
            self.declare(&param.name);
        }
        self.block(&function.body);
        self.functions.pop();
    }

    fn expr(&mut self, expr: &'a Expr) {
        match &expr.kind {
            ExprKind::Name(name) => self.used(name),
            ExprKind::Function(function) => self.function(function),
            _ => children(expr, &mut |child| self.expr(child)),
        }
    }
}
