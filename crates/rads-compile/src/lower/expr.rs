//! Expressions to instructions.

use rads_syntax::Diagnostic;
use rads_syntax::ast::{BinaryOperator, Element, Expr, ExprKind, Property, TemplatePart, UnaryOperator};
use rads_vm::{BitOperator, Const, Op, Reg, Test};

use super::Lowerer;
use super::names::{Known, Place};
use crate::codes;
use crate::emit::Jump;
use crate::scope::children;

/// Items of an array or parts of a template put together at a time, so that long ones need few registers.
const CHUNK: usize = 32;

impl<'a> Lowerer<'a> {
    /// Evaluates into whatever register is at hand: a variable's own, or a new one.
    pub(super) fn expr(&mut self, expr: &'a Expr) -> Reg {
        if let ExprKind::Name(name) = &expr.kind
            && let Some(variable) = self.variable(name)
            && let Place::Register(register) = variable.place
        {
            return register;
        }
        self.expr_next(expr)
    }

    /// The same, but never a variable's register when `others` may still change it.
    pub(super) fn expr_before(&mut self, expr: &'a Expr, others: &'a Expr) -> Reg {
        if changes_variables(others) { self.expr_next(expr) } else { self.expr(expr) }
    }

    /// Evaluates into the next free register.
    pub(super) fn expr_next(&mut self, expr: &'a Expr) -> Reg {
        let dst = self.emitter().reserve();
        self.expr_into(expr, dst);
        dst
    }

    /// Evaluates for effect only.
    pub(super) fn expr_for_effect(&mut self, expr: &'a Expr) {
        let mark = self.emitter().mark();
        match &expr.kind {
            ExprKind::Assign { operator, target, value } => {
                self.assign(*operator, target, value, expr.span, None);
            }
            ExprKind::Update { target, up, .. } => self.update(target, *up, true, expr.span, None),
            ExprKind::Spawn(inner) => {
                let dst = self.emitter().reserve();
                self.spawn(inner, expr.span, dst, true);
            }
            _ => {
                self.expr_next(expr);
            }
        }
        self.emitter().release_to(mark);
    }

    pub(super) fn int_into(&mut self, n: i64, dst: Reg) {
        match i32::try_from(n) {
            Ok(value) => self.emit(Op::Int { a: dst, value }),
            Err(_) => {
                let at = self.constant(Const::Int(n));
                self.emit(Op::Const { a: dst, at });
            }
        }
    }

    pub(super) fn text_into(&mut self, text: &str, dst: Reg) {
        let at = self.text_constant(text);
        self.emit(Op::Const { a: dst, at });
    }

    /// Evaluates into a register. Registers from the next free one on are used on the way, and free again afterwards.
    pub(super) fn expr_into(&mut self, expr: &'a Expr, dst: Reg) {
        let mark = self.emitter().mark();
        self.at(expr.span);
        match &expr.kind {
            ExprKind::Null | ExprKind::Error => self.emit(Op::Null { a: dst }),
            ExprKind::Bool(value) => self.emit(Op::Bool { a: dst, value: *value }),
            ExprKind::Int(n) => self.int_into(*n, dst),
            ExprKind::Float(n) => {
                let at = self.constant(Const::Float(*n));
                self.emit(Op::Const { a: dst, at });
            }
            ExprKind::Char(c) => {
                let at = self.constant(Const::Char(*c));
                self.emit(Op::Const { a: dst, at });
            }
            ExprKind::Str(text) => self.text_into(text, dst),
            ExprKind::Template(parts) => self.template(parts, dst),
            ExprKind::Name(name) => {
                let known = self.known_name(name, expr.span);
                self.load_known(known, name, expr.span, dst);
            }
            ExprKind::Array(elements) => self.array(elements, dst),
            ExprKind::Object(properties) => self.object(properties, dst),
            ExprKind::Struct { name, fields } => self.structure(name, fields, dst),
            ExprKind::Function(function) => self.closure_into(function, dst),
            ExprKind::Unary { operator, operand } => {
                let b = self.expr(operand);
                self.at(expr.span);
                self.emit(match operator {
                    UnaryOperator::Not => Op::Not { a: dst, b },
                    UnaryOperator::Negate => Op::Neg { a: dst, b },
                    UnaryOperator::BitNot => Op::BitNot { a: dst, b },
                    UnaryOperator::TypeOf => Op::TypeOf { a: dst, b },
                });
            }
            ExprKind::Binary { operator, left, right } => self.binary(*operator, left, right, expr.span, dst),
            ExprKind::Range { start, end } => {
                let pair = self.emitter().reserve_many(2);
                self.bounds(start.as_deref(), end.as_deref(), pair);
                self.at(expr.span);
                self.emit(Op::NewRange { a: dst, b: pair, c: pair.wrapping_add(1) });
            }
            ExprKind::Ternary { condition, then, otherwise } => {
                let no = self.branch(condition, false);
                self.emitter().release_to(mark);
                self.expr_into(then, dst);
                let end = self.emitter().jump(Op::Jump { by: 0 });
                self.emitter().land_all(no);
                self.expr_into(otherwise, dst);
                self.emitter().land(end);
            }
            ExprKind::Assign { operator, target, value } => {
                self.assign(*operator, target, value, expr.span, Some(dst));
            }
            ExprKind::Update { target, up, prefix } => self.update(target, *up, *prefix, expr.span, Some(dst)),
            ExprKind::Field { object, name, .. } if !has_optional(expr) => match self.known_member(object, name) {
                Some(known) => self.load_known(known, &name.text, expr.span, dst),
                None => {
                    let b = self.expr(object);
                    let site = self.site(&name.text);
                    self.at(name.span);
                    self.emit(Op::GetField { a: dst, b, site });
                }
            },
            ExprKind::Index { object, index, .. } if !has_optional(expr) => {
                let b = self.expr_before(object, index);
                self.index(b, index, expr.span, dst);
            }
            ExprKind::Field { .. } | ExprKind::Index { .. } | ExprKind::Call { .. } => self.chain_into(expr, dst),
            ExprKind::Spawn(inner) => self.spawn(inner, expr.span, dst, false),
            ExprKind::Await(inner) => {
                let b = self.expr(inner);
                self.at(expr.span);
                self.emit(Op::Await { a: dst, b });
            }
        }
        self.emitter().release_to(mark);
    }

    /// `b[index]`, which is a part when the index is a range.
    fn index(&mut self, b: Reg, index: &'a Expr, span: rads_syntax::Span, dst: Reg) {
        if let ExprKind::Range { start, end } = &index.kind {
            let pair = self.emitter().reserve_many(2);
            self.bounds(start.as_deref(), end.as_deref(), pair);
            self.at(span);
            self.emit(Op::Slice { a: dst, b, c: pair });
        } else {
            let c = self.expr(index);
            self.at(span);
            self.emit(Op::GetIndex { a: dst, b, c });
        }
    }

    fn bounds(&mut self, start: Option<&'a Expr>, end: Option<&'a Expr>, pair: Reg) {
        for (bound, register) in [(start, pair), (end, pair.wrapping_add(1))] {
            match bound {
                Some(bound) => self.expr_into(bound, register),
                None => self.emit(Op::Null { a: register }),
            }
        }
    }

    /// A chain of fields, indexes and calls, worked out in place in one register at the top, so that `?.` can leave it
    /// with null from anywhere.
    fn chain_into(&mut self, expr: &'a Expr, dst: Reg) {
        let at_top = u16::from(dst) + 1 == self.emitter().mark();
        let place = if at_top { dst } else { self.emitter().reserve() };
        let mut leave = Vec::new();
        self.chain(expr, place, &mut leave);
        self.emitter().land_all(leave);
        if place != dst {
            self.emit(Op::Move { a: dst, b: place });
        }
    }

    pub(super) fn chain(&mut self, expr: &'a Expr, place: Reg, leave: &mut Vec<Jump>) {
        let mark = self.emitter().mark();
        match &expr.kind {
            ExprKind::Field { object, name, optional } => {
                if !*optional && let Some(known) = self.known_member(object, name) {
                    self.load_known(known, &name.text, expr.span, place);
                    return;
                }
                self.chain(object, place, leave);
                self.leave_if_null(*optional, place, leave);
                let site = self.site(&name.text);
                self.at(name.span);
                self.emit(Op::GetField { a: place, b: place, site });
            }
            ExprKind::Index { object, index, optional } => {
                self.chain(object, place, leave);
                self.leave_if_null(*optional, place, leave);
                self.index(place, index, expr.span, place);
            }
            ExprKind::Call { callee, arguments } => {
                let op = self.call(callee, arguments, expr.span, place, leave);
                if let Some(op) = op {
                    self.emit(op);
                }
            }
            _ => self.expr_into(expr, place),
        }
        self.emitter().release_to(mark);
    }

    pub(super) fn leave_if_null(&mut self, optional: bool, place: Reg, leave: &mut Vec<Jump>) {
        if optional {
            let jump = self.emitter().jump(Op::JumpIfNull { a: place, by: 0 });
            leave.push(jump);
        }
    }

    fn template(&mut self, parts: &'a [TemplatePart], dst: Reg) {
        let mark = self.emitter().mark();
        if parts.is_empty() {
            return self.text_into("", dst);
        }
        let mut so_far = None;
        for chunk in parts.chunks(CHUNK) {
            let first = self.emitter().mark() as Reg;
            if let Some(text) = so_far {
                let register = self.emitter().reserve();
                self.emit(Op::Move { a: register, b: text });
            }
            for part in chunk {
                match part {
                    TemplatePart::Text(text) => {
                        let register = self.emitter().reserve();
                        self.text_into(text, register);
                    }
                    TemplatePart::Expr(expr) => {
                        self.expr_next(expr);
                    }
                }
            }
            let n = self.emitter().mark() as Reg - first;
            self.emitter().release_to(mark);
            let joined = self.emitter().reserve();
            self.emit(Op::Concat { a: joined, b: first, n });
            so_far = Some(joined);
        }
        if let Some(text) = so_far {
            self.emit(Op::Move { a: dst, b: text });
        }
        self.emitter().release_to(mark);
    }

    pub(super) fn array(&mut self, elements: &'a [Element], dst: Reg) {
        let mark = self.emitter().mark();
        let plain = elements.len() <= CHUNK && elements.iter().all(|e| !e.spread);
        if plain {
            let first = self.emitter().mark() as Reg;
            for element in elements {
                self.expr_next(&element.value);
            }
            self.emit(Op::NewArray { a: dst, b: first, n: elements.len() as u8 });
        } else {
            let made = self.emitter().reserve();
            self.emit(Op::NewArray { a: made, b: made, n: 0 });
            for element in elements {
                let inner = self.emitter().mark();
                let b = self.expr(&element.value);
                self.at(element.value.span);
                self.emit(if element.spread { Op::Extend { a: made, b } } else { Op::Push { a: made, b } });
                self.emitter().release_to(inner);
            }
            self.emit(Op::Move { a: dst, b: made });
        }
        self.emitter().release_to(mark);
    }

    fn object(&mut self, properties: &'a [Property], dst: Reg) {
        let mark = self.emitter().mark();
        let made = self.emitter().reserve();
        self.emit(Op::NewObject { a: made });
        for property in properties {
            let inner = self.emitter().mark();
            match property {
                Property::Field { key, value } => {
                    let b = self.expr(value);
                    let site = self.site(&key.text);
                    self.at(key.span);
                    self.emit(Op::SetField { a: made, b, site });
                }
                Property::Spread(value) => {
                    let b = self.expr(value);
                    self.at(value.span);
                    self.emit(Op::Merge { a: made, b });
                }
            }
            self.emitter().release_to(inner);
        }
        self.emit(Op::Move { a: dst, b: made });
        self.emitter().release_to(mark);
    }

    fn structure(&mut self, name: &'a rads_syntax::ast::Name, fields: &'a [(rads_syntax::ast::Name, Expr)], dst: Reg) {
        let known = self.known_name(&name.text, name.span);
        let Known::Struct(def) = known else {
            if !matches!(known, Known::Wrong) {
                let message = format!("`{}` is not a struct", name.text);
                self.error(Diagnostic::error(codes::NOT_A_VALUE, name.span, message));
            }
            return;
        };
        let (_, decl) = self.items.structs[def as usize];
        let count = decl.fields.len();
        let made = self.emitter().reserve_many(count + 1);
        let mut given = vec![false; count];
        for (field, value) in fields {
            match decl.fields.iter().position(|f| f.name.text == field.text) {
                // The parser reports one given twice.
                Some(at) => {
                    given[at] = true;
                    self.expr_into(value, made.wrapping_add(1).wrapping_add(at as u8));
                }
                None => {
                    let message = format!("struct `{}` has no field `{}`", name.text, field.text);
                    let near = self.near(&field.text, decl.fields.iter().map(|f| &*f.name.text));
                    self.unknown_member(field, message, near);
                }
            }
        }
        for (at, _) in given.iter().enumerate().filter(|(_, given)| !**given) {
            self.emit(Op::Absent { a: made.wrapping_add(1).wrapping_add(at as u8) });
        }
        self.at(name.span);
        self.emit(Op::NewStruct { a: made, def });
        self.emit(Op::Move { a: dst, b: made });
    }

    // --- operators

    pub(super) fn binary(
        &mut self,
        operator: BinaryOperator,
        left: &'a Expr,
        right: &'a Expr,
        span: rads_syntax::Span,
        dst: Reg,
    ) {
        match operator {
            BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Coalesce => {
                // The left value may still be read by the right side, so it must not be overwritten early.
                let place = self.emitter().reserve();
                self.expr_into(left, place);
                let end = match operator {
                    BinaryOperator::And => Op::JumpIfNot { a: place, by: 0 },
                    BinaryOperator::Or => Op::JumpIf { a: place, by: 0 },
                    _ => Op::JumpIfNotNull { a: place, by: 0 },
                };
                let end = self.emitter().jump(end);
                self.expr_into(right, place);
                self.emitter().land(end);
                self.emit(Op::Move { a: dst, b: place });
            }
            BinaryOperator::Equal
            | BinaryOperator::NotEqual
            | BinaryOperator::Less
            | BinaryOperator::LessEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterEqual => {
                let b = self.expr_before(left, right);
                let c = self.expr(right);
                self.at(span);
                self.emit(match operator {
                    BinaryOperator::Equal => Op::Compare { a: dst, b, c, test: Test::Eq },
                    BinaryOperator::NotEqual => Op::Compare { a: dst, b, c, test: Test::NotEq },
                    BinaryOperator::Less => Op::Compare { a: dst, b, c, test: Test::Less },
                    BinaryOperator::LessEqual => Op::Compare { a: dst, b, c, test: Test::LessEq },
                    BinaryOperator::Greater => Op::Compare { a: dst, b: c, c: b, test: Test::Less },
                    _ => Op::Compare { a: dst, b: c, c: b, test: Test::LessEq },
                });
            }
            _ => {
                let b = self.expr_before(left, right);
                self.arithmetic(operator, b, right, span, dst);
            }
        }
    }

    /// `dst = b operator right`
    pub(super) fn arithmetic(
        &mut self,
        operator: BinaryOperator,
        b: Reg,
        right: &'a Expr,
        span: rads_syntax::Span,
        dst: Reg,
    ) {
        if let ExprKind::Int(n) = right.kind
            && let Ok(value) = i32::try_from(n)
        {
            let quick = match operator {
                BinaryOperator::Add => Some(Op::AddInt { a: dst, b, value }),
                BinaryOperator::Subtract => Some(Op::SubInt { a: dst, b, value }),
                BinaryOperator::Multiply => Some(Op::MulInt { a: dst, b, value }),
                BinaryOperator::Divide => Some(Op::DivInt { a: dst, b, value }),
                BinaryOperator::Remainder => Some(Op::RemInt { a: dst, b, value }),
                _ => None,
            };
            if let Some(op) = quick {
                self.at(span);
                self.emit(op);
                return;
            }
        }
        let c = self.expr(right);
        self.at(span);
        self.emit(match operator {
            BinaryOperator::Add => Op::Add { a: dst, b, c },
            BinaryOperator::Subtract => Op::Sub { a: dst, b, c },
            BinaryOperator::Multiply => Op::Mul { a: dst, b, c },
            BinaryOperator::Divide => Op::Div { a: dst, b, c },
            BinaryOperator::Remainder => Op::Rem { a: dst, b, c },
            BinaryOperator::BitAnd => Op::Bits { a: dst, b, c, operator: BitOperator::And },
            BinaryOperator::BitOr => Op::Bits { a: dst, b, c, operator: BitOperator::Or },
            BinaryOperator::BitXor => Op::Bits { a: dst, b, c, operator: BitOperator::Xor },
            BinaryOperator::ShiftLeft => Op::Bits { a: dst, b, c, operator: BitOperator::ShiftLeft },
            _ => Op::Bits { a: dst, b, c, operator: BitOperator::ShiftRight },
        });
    }

    /// Jumps, to be landed by the caller, that are taken when the truth of `expr` is `when`; otherwise control goes on.
    pub(super) fn branch(&mut self, expr: &'a Expr, when: bool) -> Vec<Jump> {
        let mark = self.emitter().mark();
        let jumps = self.branches(expr, when);
        self.emitter().release_to(mark);
        jumps
    }

    fn branches(&mut self, expr: &'a Expr, when: bool) -> Vec<Jump> {
        match &expr.kind {
            ExprKind::Bool(value) => {
                if *value != when {
                    return Vec::new();
                }
                vec![self.emitter().jump(Op::Jump { by: 0 })]
            }
            ExprKind::Unary { operator: UnaryOperator::Not, operand } => self.branches(operand, !when),
            ExprKind::Binary { operator: operator @ (BinaryOperator::And | BinaryOperator::Or), left, right } => {
                // `a && b` is false as soon as `a` is; `a || b` is true as soon as `a` is.
                let decisive = *operator == BinaryOperator::Or;
                if when == decisive {
                    let mut jumps = self.branch(left, when);
                    jumps.extend(self.branch(right, when));
                    jumps
                } else {
                    let decided = self.branch(left, decisive);
                    let jumps = self.branch(right, when);
                    self.emitter().land_all(decided);
                    jumps
                }
            }
            ExprKind::Binary { operator, left, right } if is_comparison(*operator) => {
                let a = self.expr_before(left, right);
                let op = self.comparison(*operator, a, right, when, expr.span);
                vec![self.emitter().jump(op)]
            }
            _ => {
                let a = self.expr(expr);
                self.at(expr.span);
                let op = if when { Op::JumpIf { a, by: 0 } } else { Op::JumpIfNot { a, by: 0 } };
                vec![self.emitter().jump(op)]
            }
        }
    }

    /// The jump taken when comparing `a` with `right` gives `when`. The negations are instructions of their own, since
    /// with a float that is no number both a comparison and its opposite are false.
    fn comparison(
        &mut self,
        operator: BinaryOperator,
        a: Reg,
        right: &'a Expr,
        when: bool,
        span: rads_syntax::Span,
    ) -> Op {
        use BinaryOperator::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
        let by = 0;
        if let ExprKind::Int(n) = right.kind
            && let Ok(value) = i16::try_from(n)
        {
            self.at(span);
            return match (operator, when) {
                (Less, true) => Op::JumpLessInt { a, value, by },
                (Less, false) => Op::JumpNotLessInt { a, value, by },
                (LessEqual, true) => Op::JumpLessEqInt { a, value, by },
                (LessEqual, false) => Op::JumpNotLessEqInt { a, value, by },
                (Greater, true) => Op::JumpGreaterInt { a, value, by },
                (Greater, false) => Op::JumpNotGreaterInt { a, value, by },
                (GreaterEqual, true) => Op::JumpGreaterEqInt { a, value, by },
                (GreaterEqual, false) => Op::JumpNotGreaterEqInt { a, value, by },
                (Equal, true) | (NotEqual, false) => Op::JumpEqInt { a, value, by },
                _ => Op::JumpNotEqInt { a, value, by },
            };
        }
        let b = self.expr(right);
        self.at(span);
        match (operator, when) {
            (Less, true) => Op::JumpLess { a, b, by },
            (Less, false) => Op::JumpNotLess { a, b, by },
            (LessEqual, true) => Op::JumpLessEq { a, b, by },
            (LessEqual, false) => Op::JumpNotLessEq { a, b, by },
            (Greater, true) => Op::JumpLess { a: b, b: a, by },
            (Greater, false) => Op::JumpNotLess { a: b, b: a, by },
            (GreaterEqual, true) => Op::JumpLessEq { a: b, b: a, by },
            (GreaterEqual, false) => Op::JumpNotLessEq { a: b, b: a, by },
            (Equal, true) | (NotEqual, false) => Op::JumpEq { a, b, by },
            _ => Op::JumpNotEq { a, b, by },
        }
    }
}

fn is_comparison(operator: BinaryOperator) -> bool {
    matches!(
        operator,
        BinaryOperator::Equal
            | BinaryOperator::NotEqual
            | BinaryOperator::Less
            | BinaryOperator::LessEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterEqual
    )
}

/// Whether evaluating may assign to a variable of the function at hand (calls cannot: what they change is in cells).
pub(super) fn changes_variables(expr: &Expr) -> bool {
    if matches!(expr.kind, ExprKind::Assign { .. } | ExprKind::Update { .. }) {
        return true;
    }
    let mut found = false;
    children(expr, &mut |child| found = found || changes_variables(child));
    found
}

/// Whether a `?.` stands somewhere along a chain of fields and indexes, or a call does, which works in place as well.
fn has_optional(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Field { object, optional, .. } | ExprKind::Index { object, optional, .. } => {
            *optional || has_optional(object)
        }
        ExprKind::Call { callee, .. } => has_optional(callee),
        _ => false,
    }
}
