//! Statements that neither loop nor leave: declarations, expressions, `if`. The others are in `flow`.

use rads_syntax::ast::{Let, PatternKind, Stmt, StmtKind};
use rads_vm::Op;

use super::Lowerer;
use crate::scope::{self, holds_function, unexported};

impl<'a> Lowerer<'a> {
    pub(super) fn statements(&mut self, statements: &'a [Stmt]) {
        let at_file_top = self.states.last().is_some_and(|state| state.top && state.blocks.len() == 1);
        if !at_file_top {
            self.hoist(statements);
        }
        for stmt in statements {
            self.stmt(stmt);
        }
    }

    /// In a block that declares blasts every name is there from the start: the blasts may be called before they are
    /// written, and may use variables that come after them.
    fn hoist(&mut self, statements: &'a [Stmt]) {
        let names = scope::hoisted(statements);
        if names.is_empty() {
            return;
        }
        for name in names {
            let register = self.emitter().reserve();
            self.emit(Op::Null { a: register });
            self.declare(name, register, None);
        }
        for stmt in statements {
            if let StmtKind::Blast(function) = &unexported(stmt).kind
                && let Some(name) = &function.name
            {
                let mark = self.emitter().mark();
                let made = self.emitter().reserve();
                self.closure_into(function, made);
                if let Some(variable) = self.declared_early(name) {
                    self.store(variable, made);
                }
                self.emitter().release_to(mark);
            }
        }
    }

    fn stmt(&mut self, stmt: &'a Stmt) {
        self.at(stmt.span);
        match &stmt.kind {
            StmtKind::Export(inner) => self.stmt(inner),
            StmtKind::Let(declared) => self.declaration(declared),
            StmtKind::Expr(expr) => self.expr_for_effect(expr),
            StmtKind::Block(block) => self.block(block),
            StmtKind::If { arms, otherwise } => {
                let mut ends = Vec::new();
                for (n, (condition, body)) in arms.iter().enumerate() {
                    let no = self.branch(condition, false);
                    self.block(body);
                    if n + 1 < arms.len() || otherwise.is_some() {
                        ends.push(self.emitter().jump(Op::Jump { by: 0 }));
                    }
                    self.emitter().land_all(no);
                }
                if let Some(body) = otherwise {
                    self.block(body);
                }
                self.emitter().land_all(ends);
            }
            StmtKind::While { condition, body } => self.while_loop(condition.as_ref(), body),
            StmtKind::Each { pattern, iterable, body } => self.each_loop(pattern, iterable, body),
            StmtKind::For { init, condition, update, body } => {
                self.for_loop(init.as_ref(), condition.as_ref(), update.as_ref(), body);
            }
            StmtKind::Switch { subject, cases } => self.switch(subject, cases),
            StmtKind::Break => self.leave_loop(stmt.span, false),
            StmtKind::Continue => self.leave_loop(stmt.span, true),
            StmtKind::Return(value) => self.return_value(value.as_ref(), stmt.span),
            StmtKind::Throw(value) => {
                let mark = self.emitter().mark();
                let a = self.expr(value);
                self.at(stmt.span);
                self.emit(Op::Throw { a });
                self.emitter().release_to(mark);
            }
            StmtKind::Try { body, catch, finally } => self.try_statement(body, catch.as_ref(), finally.as_ref()),
            StmtKind::Struct(_)
            | StmtKind::Enum(_)
            | StmtKind::Blast(_)
            | StmtKind::Import(_)
            | StmtKind::Empty
            | StmtKind::Error => {}
        }
    }

    pub(super) fn declaration(&mut self, declared: &'a Let) {
        let Let { pattern, value } = declared;
        let PatternKind::Name { name, annotation } = &pattern.kind else {
            let from = self.emitter().reserve();
            match value {
                Some(value) => self.expr_into(value, from),
                None => self.emit(Op::Null { a: from }),
            }
            self.bind(pattern, from);
            return;
        };
        let check = annotation.as_ref().and_then(|annotation| self.check_of(annotation, &name.text));
        let early = self.declared_early(name);
        if let Some(variable) = early {
            let mark = self.emitter().mark();
            let from = self.emitter().reserve();
            match value {
                Some(value) => {
                    self.expr_into(value, from);
                    self.at(name.span);
                    self.emit_check(check, from);
                }
                None => self.emit(Op::Null { a: from }),
            }
            self.store(super::names::Variable { check: None, ..variable }, from);
            self.emitter().release_to(mark);
            // From here on the annotation holds for assignments too.
            let key = name.span.start;
            if let Some((block, _)) = self.state().blocks.last_mut() {
                for local in block.iter_mut().filter(|local| local.key == key) {
                    local.check = check;
                }
            }
            return;
        }
        let register = self.emitter().reserve();
        let Some(value) = value else {
            self.emit(Op::Null { a: register });
            self.declare(name, register, check);
            return;
        };
        if holds_function(value) {
            // The blast inside may use the variable, so it is there first.
            self.emit(Op::Null { a: register });
            self.declare(name, register, check);
            let mark = self.emitter().mark();
            let from = self.expr_next(value);
            self.at(name.span);
            if let Some(variable) = self.variable(&name.text) {
                self.store(variable, from);
            }
            self.emitter().release_to(mark);
        } else {
            self.expr_into(value, register);
            self.at(name.span);
            self.emit_check(check, register);
            self.declare(name, register, check);
        }
    }
}
