//! Assignment to names, fields and indexes, and the taking apart of arrays and objects.

use rads_syntax::ast::{
    BinaryOperator, Expr, ExprKind, Name, Pattern, PatternItem, PatternKind, Property, UnaryOperator,
};
use rads_syntax::{Diagnostic, Span};
use rads_vm::{Op, Reg};

use super::Lowerer;
use super::expr::changes_variables;
use super::names::{Known, Place, Variable};
use crate::codes;

impl<'a> Lowerer<'a> {
    /// `target = value` or `target operator= value`; the value assigned goes to `dst` when it is wanted.
    pub(super) fn assign(
        &mut self,
        operator: Option<BinaryOperator>,
        target: &'a Expr,
        value: &'a Expr,
        span: Span,
        dst: Option<Reg>,
    ) {
        let mark = self.emitter().mark();
        match &target.kind {
            ExprKind::Name(name) => {
                let Some(variable) = self.assignable(name, target.span) else {
                    self.expr(value);
                    return;
                };
                let from = self.assign_variable(variable, operator, value, span);
                self.give(dst, from);
            }
            ExprKind::Field { object, name, .. } if self.is_fixed(object, name) => {
                let message = format!("`{}` cannot be assigned to", name.text);
                self.error(Diagnostic::error(codes::NOT_ASSIGNABLE, target.span, message));
            }
            ExprKind::Field { object, name, .. } => {
                let object = self.expr_before(object, value);
                let from = match operator {
                    None => self.expr(value),
                    Some(operator) => {
                        let from = self.emitter().reserve();
                        let site = self.site(&name.text);
                        self.at(name.span);
                        self.emit(Op::GetField { a: from, b: object, site });
                        self.combine(operator, from, value, span);
                        from
                    }
                };
                let site = self.site(&name.text);
                self.at(name.span);
                self.emit(Op::SetField { a: object, b: from, site });
                self.give(dst, from);
            }
            ExprKind::Index { object, index, .. } => {
                let changed = changes_variables(value) || changes_variables(index);
                let object = if changed { self.expr_next(object) } else { self.expr(object) };
                let index = self.expr_before(index, value);
                let from = match operator {
                    None => self.expr(value),
                    Some(operator) => {
                        let from = self.emitter().reserve();
                        self.at(target.span);
                        self.emit(Op::GetIndex { a: from, b: object, c: index });
                        self.combine(operator, from, value, span);
                        from
                    }
                };
                self.at(target.span);
                self.emit(Op::SetIndex { a: object, b: index, c: from });
                self.give(dst, from);
            }
            ExprKind::Array(_) | ExprKind::Object(_) if operator.is_none() => {
                let from = self.expr_next(value);
                self.assign_parts(target, from);
                self.give(dst, from);
            }
            // The parser reported it.
            _ => {
                self.expr(value);
            }
        }
        self.emitter().release_to(mark);
    }

    /// `target += 1` or `-= 1`; the value wanted is the one before the change unless `prefix`.
    pub(super) fn update(&mut self, target: &'a Expr, up: bool, prefix: bool, span: Span, dst: Option<Reg>) {
        let mark = self.emitter().mark();
        let step = |a: Reg, b: Reg| match up {
            true => Op::AddInt { a, b, value: 1 },
            false => Op::SubInt { a, b, value: 1 },
        };
        match &target.kind {
            ExprKind::Name(name) => {
                let Some(variable) = self.assignable(name, target.span) else { return };
                if let Variable { place: Place::Register(register), check: None } = variable
                    && dst.is_none()
                {
                    self.at(span);
                    self.emit(step(register, register));
                    return;
                }
                let pair = self.emitter().reserve_many(2);
                let (before, after) = (pair, pair.wrapping_add(1));
                self.at(span);
                self.load(variable, before);
                self.emit(step(after, before));
                self.store(variable, after);
                self.give(dst, if prefix { after } else { before });
            }
            ExprKind::Field { object, name, .. } => {
                let object = self.expr(object);
                let pair = self.emitter().reserve_many(2);
                let (before, after) = (pair, pair.wrapping_add(1));
                let (read, write) = (self.site(&name.text), self.site(&name.text));
                self.at(span);
                self.emit(Op::GetField { a: before, b: object, site: read });
                self.emit(step(after, before));
                self.emit(Op::SetField { a: object, b: after, site: write });
                self.give(dst, if prefix { after } else { before });
            }
            ExprKind::Index { object, index, .. } => {
                let object = self.expr_before(object, index);
                let index = self.expr(index);
                let pair = self.emitter().reserve_many(2);
                let (before, after) = (pair, pair.wrapping_add(1));
                self.at(span);
                self.emit(Op::GetIndex { a: before, b: object, c: index });
                self.emit(step(after, before));
                self.emit(Op::SetIndex { a: object, b: index, c: after });
                self.give(dst, if prefix { after } else { before });
            }
            // The parser reported it.
            _ => {}
        }
        self.emitter().release_to(mark);
    }

    fn give(&mut self, dst: Option<Reg>, from: Reg) {
        if let Some(dst) = dst
            && dst != from
        {
            self.emit(Op::Move { a: dst, b: from });
        }
    }

    /// `from = from operator value`
    fn combine(&mut self, operator: BinaryOperator, from: Reg, value: &'a Expr, span: Span) {
        let mark = self.emitter().mark();
        match operator {
            BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Coalesce => {
                let end = match operator {
                    BinaryOperator::And => Op::JumpIfNot { a: from, by: 0 },
                    BinaryOperator::Or => Op::JumpIf { a: from, by: 0 },
                    _ => Op::JumpIfNotNull { a: from, by: 0 },
                };
                let end = self.emitter().jump(end);
                self.expr_into(value, from);
                self.emitter().land(end);
            }
            _ => self.arithmetic(operator, from, value, span, from),
        }
        self.emitter().release_to(mark);
    }

    /// Gives the register that holds the value assigned.
    fn assign_variable(
        &mut self,
        variable: Variable,
        operator: Option<BinaryOperator>,
        value: &'a Expr,
        span: Span,
    ) -> Reg {
        if let Variable { place: Place::Register(register), check: None } = variable {
            match operator {
                // The register may be written directly only by what writes it last of all.
                None if writes_once(value) => {
                    self.expr_into(value, register);
                    return register;
                }
                Some(op)
                    if !matches!(op, BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Coalesce)
                        && writes_once(value) =>
                {
                    self.arithmetic(op, register, value, span, register);
                    return register;
                }
                _ => {}
            }
        }
        let from = self.emitter().reserve();
        match operator {
            None => self.expr_into(value, from),
            Some(operator) => {
                self.load(variable, from);
                self.combine(operator, from, value, span);
            }
        }
        self.at(span);
        self.store(variable, from);
        from
    }

    fn assignable(&mut self, name: &str, span: Span) -> Option<Variable> {
        match self.known_name(name, span) {
            Known::Variable(variable) => Some(variable),
            Known::Wrong => None,
            _ => {
                let message = format!("`{name}` cannot be assigned to");
                self.error(Diagnostic::error(codes::NOT_ASSIGNABLE, span, message));
                None
            }
        }
    }

    /// Whether a field is of a module, file or enum and no variable.
    fn is_fixed(&mut self, object: &'a Expr, name: &'a Name) -> bool {
        matches!(self.known_member(object, name), Some(known) if !matches!(known, Known::Variable(_)))
    }

    /// `[a, b] = …` and `{a, b} = …` for targets that exist already.
    fn assign_parts(&mut self, target: &'a Expr, from: Reg) {
        let mark = self.emitter().mark();
        match &target.kind {
            ExprKind::Array(elements) => {
                for (n, element) in elements.iter().enumerate() {
                    let part = self.emitter().reserve();
                    if element.spread {
                        self.part_after(from, n, part, element.value.span);
                    } else {
                        self.item_into(from, n, part, element.value.span);
                    }
                    self.assign_part(&element.value, part);
                    self.emitter().release_to(mark);
                }
            }
            ExprKind::Object(properties) => {
                for property in properties {
                    let Property::Field { key, value } = property else {
                        let message = "`...` cannot be assigned to here";
                        self.error(Diagnostic::error(codes::NOT_ASSIGNABLE, target.span, message));
                        continue;
                    };
                    let part = self.emitter().reserve();
                    let site = self.site(&key.text);
                    self.at(key.span);
                    self.emit(Op::GetField { a: part, b: from, site });
                    self.assign_part(value, part);
                    self.emitter().release_to(mark);
                }
            }
            _ => {}
        }
    }

    fn assign_part(&mut self, target: &'a Expr, part: Reg) {
        match &target.kind {
            ExprKind::Name(name) => {
                if let Some(variable) = self.assignable(name, target.span) {
                    self.store(variable, part);
                }
            }
            ExprKind::Field { object, name, .. } => {
                let object = self.expr(object);
                let site = self.site(&name.text);
                self.at(name.span);
                self.emit(Op::SetField { a: object, b: part, site });
            }
            ExprKind::Index { object, index, .. } => {
                let object = self.expr(object);
                let index = self.expr(index);
                self.at(target.span);
                self.emit(Op::SetIndex { a: object, b: index, c: part });
            }
            ExprKind::Array(_) | ExprKind::Object(_) => self.assign_parts(target, part),
            _ => {
                let message = "only a name, a field or an index can be assigned to";
                self.error(Diagnostic::error(codes::NOT_ASSIGNABLE, target.span, message));
            }
        }
    }

    fn item_into(&mut self, from: Reg, n: usize, dst: Reg, span: Span) {
        self.at(span);
        self.int_into(n as i64, dst);
        self.emit(Op::GetIndex { a: dst, b: from, c: dst });
    }

    /// The items from `n` on.
    fn part_after(&mut self, from: Reg, n: usize, dst: Reg, span: Span) {
        let mark = self.emitter().mark();
        let pair = self.emitter().reserve_many(2);
        self.at(span);
        self.int_into(n as i64, pair);
        self.emit(Op::Null { a: pair.wrapping_add(1) });
        self.emit(Op::Slice { a: dst, b: from, c: pair });
        self.emitter().release_to(mark);
    }

    // --- patterns that declare

    /// Binds the names of a pattern to the parts of the value in `from`. A register that is reserved for the value alone
    /// becomes the variable itself.
    pub(super) fn bind(&mut self, pattern: &'a Pattern, from: Reg) {
        match &pattern.kind {
            PatternKind::Name { name, annotation } => {
                let check = annotation.as_ref().and_then(|t| self.check_of(t, &name.text));
                self.at(name.span);
                self.bind_name(name, from, check);
            }
            PatternKind::Array { items, rest } => {
                for (n, item) in items.iter().enumerate() {
                    if let Some(item) = item {
                        let part = self.emitter().reserve();
                        self.item_into(from, n, part, item.pattern.span);
                        self.bind_item(item, part);
                    }
                }
                if let Some(rest) = rest {
                    let part = self.emitter().reserve();
                    self.part_after(from, items.len(), part, rest.span);
                    self.bind_name(rest, part, None);
                }
            }
            PatternKind::Object { fields, rest } => {
                for (key, item) in fields {
                    let part = self.emitter().reserve();
                    let site = self.site(&key.text);
                    self.at(key.span);
                    self.emit(Op::GetField { a: part, b: from, site });
                    self.bind_item(item, part);
                }
                if let Some(rest) = rest {
                    let part = self.emitter().reserve();
                    let mark = self.emitter().mark();
                    let keys = self.emitter().reserve_many(fields.len());
                    for (n, (key, _)) in fields.iter().enumerate() {
                        self.text_into(&key.text, keys.wrapping_add(n as u8));
                    }
                    self.at(rest.span);
                    self.emit(Op::Without { a: part, b: from, c: keys, n: fields.len() as u8 });
                    self.emitter().release_to(mark);
                    self.bind_name(rest, part, None);
                }
            }
            PatternKind::Error => {}
        }
    }

    fn bind_item(&mut self, item: &'a PatternItem, part: Reg) {
        if let Some(default) = &item.default {
            let given = self.emitter().jump(Op::JumpIfNotNull { a: part, by: 0 });
            self.expr_into(default, part);
            self.emitter().land(given);
        }
        self.bind(&item.pattern, part);
    }

    /// Gives a value to a declared name: a global, a variable its block declared early, or the register itself.
    fn bind_name(&mut self, name: &'a Name, from: Reg, check: Option<super::Check>) {
        self.emit_check(check, from);
        if let Some(variable) = self.declared_early(name) {
            self.store(Variable { check: None, ..variable }, from);
        } else {
            self.declare(name, from, check);
        }
    }

    /// The place of a name that is visible before its declaration runs: at a file's top as a global, or in a block that
    /// declares blasts.
    pub(super) fn declared_early(&mut self, name: &Name) -> Option<Variable> {
        let state = self.states.last()?;
        let (block, _) = state.blocks.last()?;
        if let Some(local) = block.iter().rev().find(|local| local.key == name.span.start) {
            let place = if local.cell { Place::Cell(local.register) } else { Place::Register(local.register) };
            return Some(Variable { place, check: local.check });
        }
        if state.top && state.blocks.len() == 1 {
            let unit = state.unit;
            if let Some(crate::items::Item::Global(at, _)) = self.items.names[unit].items.get(&*name.text) {
                return Some(Variable { place: Place::Global(*at), check: None });
            }
        }
        None
    }
}

/// Whether evaluating into a variable's register writes it in the last instruction only, after all reading.
fn writes_once(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Null
        | ExprKind::Bool(_)
        | ExprKind::Int(_)
        | ExprKind::Float(_)
        | ExprKind::Char(_)
        | ExprKind::Str(_)
        | ExprKind::Name(_) => true,
        ExprKind::Unary { operator, .. } => {
            matches!(
                operator,
                UnaryOperator::Not | UnaryOperator::Negate | UnaryOperator::BitNot | UnaryOperator::TypeOf
            )
        }
        ExprKind::Binary { operator, .. } => {
            !matches!(operator, BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Coalesce)
        }
        ExprKind::Index { object, index, .. } => {
            matches!(object.kind, ExprKind::Name(_)) && matches!(index.kind, ExprKind::Name(_) | ExprKind::Int(_))
        }
        ExprKind::Field { object, optional: false, .. } => matches!(object.kind, ExprKind::Name(_)),
        _ => false,
    }
}
