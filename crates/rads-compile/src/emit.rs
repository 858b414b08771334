//! One function under construction: instructions, registers, jumps and handlers. Knows no syntax.

use rads_vm::{Capture, FileId, Function, Handler, Op, Reg, Span, Symbol};

/// Registers a function may use. The last is kept free, so that `a + 1` of any register exists.
const MOST_REGISTERS: u16 = 250;

/// A jump whose target is not known yet.
#[derive(Clone, Copy, Debug)]
#[must_use = "a jump must be given its target"]
pub(crate) struct Jump(usize);

/// A place to jump back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) usize);

#[derive(Debug)]
pub(crate) struct Emitter {
    code: Vec<Op>,
    spans: Vec<Span>,
    handlers: Vec<Handler>,
    pub(crate) captures: Vec<Capture>,
    next: u16,
    most: u16,
    /// It needed more registers than there are.
    pub(crate) overflowed: bool,
    /// Where what is emitted now comes from.
    pub(crate) span: Span,
}

impl Emitter {
    pub(crate) fn new() -> Emitter {
        Emitter {
            code: Vec::new(),
            spans: Vec::new(),
            handlers: Vec::new(),
            captures: Vec::new(),
            next: 0,
            most: 0,
            overflowed: false,
            span: Span::default(),
        }
    }

    // --- registers

    /// The next free register.
    pub(crate) fn reserve(&mut self) -> Reg {
        self.reserve_many(1)
    }

    /// The first of `count` free registers in a row.
    pub(crate) fn reserve_many(&mut self, count: usize) -> Reg {
        let first = self.next;
        let count = u16::try_from(count).unwrap_or(MOST_REGISTERS + 1);
        let next = first.saturating_add(count);
        if next > MOST_REGISTERS {
            self.overflowed = true;
            return 0;
        }
        self.next = next;
        self.most = self.most.max(next);
        first as Reg
    }

    /// The mark to give to `release_to` when everything reserved from now on is no longer needed.
    pub(crate) fn mark(&self) -> u16 {
        self.next
    }

    pub(crate) fn release_to(&mut self, mark: u16) {
        self.next = mark;
    }

    // --- instructions

    pub(crate) fn emit(&mut self, op: Op) {
        self.code.push(op);
        self.spans.push(self.span);
    }

    pub(crate) fn here(&self) -> Label {
        Label(self.code.len())
    }

    /// Emits a jump with a target to come.
    pub(crate) fn jump(&mut self, op: Op) -> Jump {
        self.emit(op);
        Jump(self.code.len() - 1)
    }

    /// Lets a jump lead to what is emitted next.
    pub(crate) fn land(&mut self, jump: Jump) {
        let here = self.here();
        self.land_at(jump, here);
    }

    pub(crate) fn land_all(&mut self, jumps: impl IntoIterator<Item = Jump>) {
        for jump in jumps {
            self.land(jump);
        }
    }

    pub(crate) fn land_at(&mut self, jump: Jump, label: Label) {
        let by = i32::try_from(label.0 as i64 - (jump.0 as i64 + 1)).unwrap_or_default();
        if let Some(place) = offset_of(&mut self.code[jump.0]) {
            *place = by;
        }
    }

    /// Emits a jump back to a label.
    pub(crate) fn jump_back(&mut self, op: Op, label: Label) {
        let jump = self.jump(op);
        self.land_at(jump, label);
    }

    /// Covers what was emitted since `start`, up to now, with a handler at `target`. Inner ones must come first.
    pub(crate) fn cover(&mut self, start: Label, end: Label, target: Label, register: Reg) {
        if start != end {
            let (start, end, target) = (start.0 as u32, end.0 as u32, target.0 as u32);
            self.handlers.push(Handler { start, end, target, register });
        }
    }

    pub(crate) fn finish(self, name: &str, file: FileId, params: Vec<Symbol>, defaults: bool, rest: bool) -> Function {
        Function {
            name: name.into(),
            file,
            params: params.into(),
            defaults,
            rest,
            registers: self.most.max(1) as u8,
            code: self.code.into(),
            spans: self.spans.into(),
            handlers: self.handlers.into(),
            captures: self.captures.into(),
        }
    }
}

/// The offset inside a jump.
fn offset_of(op: &mut Op) -> Option<&mut i32> {
    match op {
        Op::Jump { by }
        | Op::JumpIf { by, .. }
        | Op::JumpIfNot { by, .. }
        | Op::JumpIfNull { by, .. }
        | Op::JumpIfNotNull { by, .. }
        | Op::JumpLess { by, .. }
        | Op::JumpNotLess { by, .. }
        | Op::JumpLessEq { by, .. }
        | Op::JumpNotLessEq { by, .. }
        | Op::JumpEq { by, .. }
        | Op::JumpNotEq { by, .. }
        | Op::JumpLessInt { by, .. }
        | Op::JumpNotLessInt { by, .. }
        | Op::JumpLessEqInt { by, .. }
        | Op::JumpNotLessEqInt { by, .. }
        | Op::JumpGreaterInt { by, .. }
        | Op::JumpNotGreaterInt { by, .. }
        | Op::JumpGreaterEqInt { by, .. }
        | Op::JumpNotGreaterEqInt { by, .. }
        | Op::JumpEqInt { by, .. }
        | Op::JumpNotEqInt { by, .. }
        | Op::JumpIfGiven { by, .. }
        | Op::RangeNext { by, .. }
        | Op::IterNext { by, .. } => Some(by),
        _ => None,
    }
}
