//! Loops, `switch`, `try`, and the ways out of them.
//!
//! A `finally` is lowered once. Whatever leads through it (falling out, a throw, `return`, `break`, `continue`) first
//! notes in a register where it was going, and the end of the `finally` goes on there.

use rads_syntax::ast::{Block, Case, Catch, Expr, ExprKind, ForInit, Pattern, PatternKind};
use rads_syntax::{Diagnostic, Span};
use rads_vm::{Op, Reg};

use super::Lowerer;
use crate::codes;
use crate::emit::{Jump, Label};

/// Something that `break`, `continue` or `return` may have to do with.
#[derive(Debug)]
pub(super) enum Control {
    Loop { breaks: Vec<Jump>, continues: Vec<Jump> },
    Switch { breaks: Vec<Jump> },
    Finally { note: Reg, value: Reg, exits: Vec<Exit>, jumps: Vec<Jump> },
}

/// Where something was going when a `finally` came in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Return,
    Break,
    Continue,
}

/// What the note in front of a `finally` says: fell out, thrown, and from here on its exits in order.
const FELL_OUT: i64 = 0;
const THROWN: i16 = 1;
const FIRST_EXIT: i64 = 2;

impl<'a> Lowerer<'a> {
    fn open_loop(&mut self) {
        self.state().controls.push(Control::Loop { breaks: Vec::new(), continues: Vec::new() });
    }

    /// Lands what `continue` jumps to here.
    fn land_continues(&mut self) {
        if let Some(Control::Loop { continues, .. }) = self.state().controls.last_mut() {
            let jumps = std::mem::take(continues);
            self.emitter().land_all(jumps);
        }
    }

    fn close_loop(&mut self) {
        if let Some(Control::Loop { breaks, .. }) = self.state().controls.pop() {
            self.emitter().land_all(breaks);
        }
    }

    /// Jumps back to the body when the condition holds; the condition stands after the body, so that a round costs one
    /// jump.
    fn loop_back(&mut self, condition: Option<&'a Expr>, body: Label) {
        match condition {
            Some(condition) => {
                let again = self.branch(condition, true);
                for jump in again {
                    self.emitter().land_at(jump, body);
                }
            }
            None => self.emitter().jump_back(Op::Jump { by: 0 }, body),
        }
    }

    pub(super) fn while_loop(&mut self, condition: Option<&'a Expr>, body: &'a Block) {
        let entry = condition.map(|_| self.emitter().jump(Op::Jump { by: 0 }));
        let start = self.emitter().here();
        self.open_loop();
        self.block(body);
        self.land_continues();
        self.emitter().land_all(entry);
        self.loop_back(condition, start);
        self.close_loop();
    }

    pub(super) fn for_loop(
        &mut self,
        init: Option<&'a ForInit>,
        condition: Option<&'a Expr>,
        update: Option<&'a Expr>,
        body: &'a Block,
    ) {
        self.open_block();
        match init {
            Some(ForInit::Let(declared)) => self.declaration(declared),
            Some(ForInit::Bare { name, value }) => {
                if self.variable(&name.text).is_some() {
                    let mark = self.emitter().mark();
                    let from = self.expr_next(value);
                    if let Some(variable) = self.variable(&name.text) {
                        self.store(variable, from);
                    }
                    self.emitter().release_to(mark);
                } else {
                    let register = self.expr_next(value);
                    self.declare(name, register, None);
                }
            }
            Some(ForInit::Expr(expr)) => self.expr_for_effect(expr),
            None => {}
        }
        let entry = condition.map(|_| self.emitter().jump(Op::Jump { by: 0 }));
        let start = self.emitter().here();
        self.open_loop();
        self.block(body);
        self.land_continues();
        self.renew_cells();
        if let Some(update) = update {
            self.expr_for_effect(update);
        }
        self.emitter().land_all(entry);
        self.loop_back(condition, start);
        self.close_loop();
        self.close_block();
    }

    /// Gives captured variables of the loop's head a fresh cell, so that each round's blasts keep their own.
    fn renew_cells(&mut self) {
        let cells: Vec<Reg> = match self.state().blocks.last() {
            Some((block, _)) => block.iter().filter(|local| local.cell).map(|local| local.register).collect(),
            None => Vec::new(),
        };
        for register in cells {
            self.emit(Op::GetCell { a: register, b: register });
            self.emit(Op::NewCell { a: register });
        }
    }

    pub(super) fn each_loop(&mut self, pattern: &'a Pattern, iterable: &'a Expr, body: &'a Block) {
        self.open_block();
        // Next and end of a range, or what is gone through and the position in it; then the item.
        let first = self.emitter().reserve_many(2);
        let range = match &iterable.kind {
            ExprKind::Range { start: Some(start), end: Some(end) } => Some((start, end)),
            _ => None,
        };
        match range {
            Some((start, end)) => {
                self.expr_into(start, first);
                self.expr_into(end, first.wrapping_add(1));
                self.at(iterable.span);
                self.emit(Op::RangePrepare { a: first });
            }
            None => {
                self.expr_into(iterable, first);
                self.at(iterable.span);
                self.emit(Op::IterPrepare { a: first });
            }
        }
        let item = self.emitter().reserve();
        let entry = self.emitter().jump(Op::Jump { by: 0 });
        let start = self.emitter().here();
        self.open_loop();
        self.open_block();
        match &pattern.kind {
            PatternKind::Name { .. } => self.bind(pattern, item),
            _ => {
                let from = self.emitter().reserve();
                self.emit(Op::Move { a: from, b: item });
                self.bind(pattern, from);
            }
        }
        self.block(body);
        self.close_block();
        self.land_continues();
        self.emitter().land(entry);
        self.at(iterable.span);
        let op = match range {
            Some(_) => Op::RangeNext { a: first, by: 0 },
            None => Op::IterNext { a: first, by: 0 },
        };
        self.emitter().jump_back(op, start);
        self.close_loop();
        self.close_block();
    }

    pub(super) fn switch(&mut self, subject: &'a Expr, cases: &'a [Case]) {
        self.open_block();
        let a = self.expr_next(subject);
        let mut entries = Vec::new();
        for case in cases {
            let mark = self.emitter().mark();
            if let Some(label) = &case.label {
                let b = self.expr(label);
                self.at(label.span);
                entries.push(Some(self.emitter().jump(Op::JumpEq { a, b, by: 0 })));
            } else {
                entries.push(None);
            }
            self.emitter().release_to(mark);
        }
        let otherwise = self.emitter().jump(Op::Jump { by: 0 });
        let mut otherwise = Some(otherwise);
        self.state().controls.push(Control::Switch { breaks: Vec::new() });
        for (case, entry) in cases.iter().zip(entries) {
            match entry {
                Some(jump) => self.emitter().land(jump),
                None => {
                    let jump = otherwise.take();
                    self.emitter().land_all(jump);
                }
            }
            self.open_block();
            self.statements(&case.body);
            self.close_block();
        }
        self.emitter().land_all(otherwise);
        if let Some(Control::Switch { breaks }) = self.state().controls.pop() {
            self.emitter().land_all(breaks);
        }
        self.close_block();
    }

    pub(super) fn leave_loop(&mut self, span: Span, go_on: bool) {
        let fits = |control: &Control| match control {
            Control::Loop { .. } => true,
            Control::Switch { .. } => !go_on,
            Control::Finally { .. } => false,
        };
        if !self.state().controls.iter().any(fits) {
            let message = if go_on { "`continue` outside a loop" } else { "`break` outside a loop or switch" };
            self.error(Diagnostic::error(codes::MISPLACED, span, message));
            return;
        }
        self.leave(if go_on { Exit::Continue } else { Exit::Break }, None);
    }

    pub(super) fn return_value(&mut self, value: Option<&'a Expr>, span: Span) {
        if self.state().top {
            let message = "`return` outside a blast";
            self.error(Diagnostic::error(codes::MISPLACED, span, message).help("only a blast returns"));
            return;
        }
        let mark = self.emitter().mark();
        let register = value.map(|value| self.expr(value));
        self.at(span);
        self.leave(Exit::Return, register);
        self.emitter().release_to(mark);
    }

    /// Goes where `exit` leads, through the next `finally` in between, if there is one.
    fn leave(&mut self, exit: Exit, value: Option<Reg>) {
        for at in (0..self.state().controls.len()).rev() {
            match (&mut self.state().controls[at], exit) {
                (Control::Loop { .. } | Control::Switch { .. }, Exit::Break)
                | (Control::Loop { .. }, Exit::Continue) => {
                    let jump = self.emitter().jump(Op::Jump { by: 0 });
                    match &mut self.state().controls[at] {
                        Control::Loop { continues, .. } if exit == Exit::Continue => continues.push(jump),
                        Control::Loop { breaks, .. } | Control::Switch { breaks } => breaks.push(jump),
                        Control::Finally { .. } => {}
                    }
                    return;
                }
                (Control::Finally { note, value: keep, exits, .. }, _) => {
                    let (note, keep) = (*note, *keep);
                    let number = exits.iter().position(|known| *known == exit).unwrap_or_else(|| {
                        exits.push(exit);
                        exits.len() - 1
                    });
                    match value {
                        Some(b) if b != keep => self.emit(Op::Move { a: keep, b }),
                        None if exit == Exit::Return => self.emit(Op::Null { a: keep }),
                        _ => {}
                    }
                    self.int_into(FIRST_EXIT + number as i64, note);
                    let jump = self.emitter().jump(Op::Jump { by: 0 });
                    if let Control::Finally { jumps, .. } = &mut self.state().controls[at] {
                        jumps.push(jump);
                    }
                    return;
                }
                _ => {}
            }
        }
        match value {
            Some(a) => self.emit(Op::Return { a }),
            None => self.emit(Op::ReturnNull),
        }
    }

    pub(super) fn try_statement(&mut self, body: &'a Block, catch: Option<&'a Catch>, finally: Option<&'a Block>) {
        let Some(finally) = finally else {
            self.try_catch(body, catch);
            return;
        };
        self.open_block();
        let note = self.emitter().reserve();
        let value = self.emitter().reserve();
        self.state().controls.push(Control::Finally { note, value, exits: Vec::new(), jumps: Vec::new() });
        let start = self.emitter().here();
        self.try_catch(body, catch);
        let end = self.emitter().here();
        self.int_into(FELL_OUT, note);
        let fell_out = self.emitter().jump(Op::Jump { by: 0 });
        let target = self.emitter().here();
        self.emitter().cover(start, end, target, value);
        self.int_into(i64::from(THROWN), note);
        let (exits, jumps) = match self.state().controls.pop() {
            Some(Control::Finally { exits, jumps, .. }) => (exits, jumps),
            _ => (Vec::new(), Vec::new()),
        };
        self.emitter().land(fell_out);
        self.emitter().land_all(jumps);
        self.block(finally);
        let not_thrown = self.emitter().jump(Op::JumpNotEqInt { a: note, value: THROWN, by: 0 });
        self.emit(Op::Rethrow { a: value });
        self.emitter().land(not_thrown);
        for (n, exit) in exits.into_iter().enumerate() {
            let number = (FIRST_EXIT as usize + n) as i16;
            let other = self.emitter().jump(Op::JumpNotEqInt { a: note, value: number, by: 0 });
            self.leave(exit, (exit == Exit::Return).then_some(value));
            self.emitter().land(other);
        }
        self.close_block();
    }

    fn try_catch(&mut self, body: &'a Block, catch: Option<&'a Catch>) {
        let Some(catch) = catch else {
            self.block(body);
            return;
        };
        self.open_block();
        let thrown = self.emitter().reserve();
        let start = self.emitter().here();
        self.block(body);
        let end = self.emitter().here();
        let after = self.emitter().jump(Op::Jump { by: 0 });
        let target = self.emitter().here();
        self.emitter().cover(start, end, target, thrown);
        if let Some(name) = &catch.name {
            self.declare(name, thrown, None);
        }
        self.block(&catch.body);
        self.emitter().land(after);
        self.close_block();
    }
}
