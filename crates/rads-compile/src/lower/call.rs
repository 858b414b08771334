//! Calls: arguments in a row behind the callee, in the form that says most about the callee.

use rads_syntax::ast::{Argument, Expr, ExprKind, Function, Name};
use rads_syntax::{Diagnostic, Span};
use rads_vm::{FileId, NativeId, Op, Reg};

use super::names::Known;
use super::{Lowerer, missing_argument, with_register};
use crate::codes;
use crate::emit::{Emitter, Jump};

/// Arguments as they were put into registers.
enum Row {
    Plain(u8),
    /// The last is an object of the named ones.
    Named(u8),
    /// One array with all.
    Spread,
}

impl<'a> Lowerer<'a> {
    /// Puts a call's callee into `place`, the topmost register in use, and its arguments behind it. Gives the instruction
    /// that performs it and leaves the result in `place`; `None` when something is wrong.
    pub(super) fn call(
        &mut self,
        callee: &'a Expr,
        arguments: &'a [Argument],
        span: Span,
        place: Reg,
        leave: &mut Vec<Jump>,
    ) -> Option<Op> {
        match &callee.kind {
            ExprKind::Name(name) => {
                let known = self.known_name(name, callee.span);
                self.call_known(known, name, callee, arguments, place)
            }
            ExprKind::Field { object, name, optional } => {
                if !*optional && let Some(known) = self.known_member(object, name) {
                    return self.call_known(known, &name.text, callee, arguments, place);
                }
                self.chain(object, place, leave);
                self.leave_if_null(*optional, place, leave);
                let row = self.row(arguments);
                let site = self.method_site(&name.text);
                self.at(name.span);
                Some(match row {
                    Row::Plain(n) => Op::CallMethod { a: place, n, site },
                    Row::Named(n) => Op::CallMethodNamed { a: place, n, site },
                    Row::Spread => Op::CallMethodSpread { a: place, site },
                })
            }
            _ => {
                self.chain(callee, place, leave);
                Some(self.call_value(arguments, span, place))
            }
        }
    }

    fn call_known(
        &mut self,
        known: Known<'a>,
        shown: &str,
        callee: &'a Expr,
        arguments: &'a [Argument],
        place: Reg,
    ) -> Option<Op> {
        match known {
            Known::Blast(unit, function) => Some(self.call_blast(unit, function, shown, callee, arguments, place)),
            Known::Native(id) => Some(self.call_native(id, callee.span, arguments, place)),
            Known::Wrong => {
                // The arguments may hold mistakes of their own.
                self.row(arguments);
                None
            }
            Known::Module if self.natives.lookup("", shown).is_some() => {
                let id = self.natives.lookup("", shown)?;
                Some(self.call_native(id, callee.span, arguments, place))
            }
            _ => {
                self.load_known(known, shown, callee.span, place);
                Some(self.call_value(arguments, callee.span, place))
            }
        }
    }

    fn call_value(&mut self, arguments: &'a [Argument], span: Span, place: Reg) -> Op {
        let row = self.row(arguments);
        self.at(span);
        match row {
            Row::Plain(n) => Op::Call { a: place, n },
            Row::Named(n) => Op::CallNamed { a: place, n },
            Row::Spread => Op::CallSpread { a: place },
        }
    }

    /// Arguments for a callee that is known only at run time.
    fn row(&mut self, arguments: &'a [Argument]) -> Row {
        if arguments.iter().any(|argument| argument.spread) {
            self.spread_row(arguments);
            return Row::Spread;
        }
        let mut n = 0u8;
        for argument in arguments.iter().filter(|a| a.name.is_none()) {
            self.expr_next(&argument.value);
            // Beyond this the registers have run out and the blast is refused as a whole.
            n = n.saturating_add(1);
        }
        if arguments.len() > usize::from(n) {
            self.named_object(arguments);
            return Row::Named(n.saturating_add(1));
        }
        Row::Plain(n)
    }

    fn spread_row(&mut self, arguments: &'a [Argument]) {
        let array = self.emitter().reserve();
        self.emit(Op::NewArray { a: array, b: array, n: 0 });
        for argument in arguments {
            if let Some(name) = &argument.name {
                let message = "named arguments and `...` cannot be used in one call";
                self.error(Diagnostic::error(codes::UNKNOWN_ARGUMENT, name.span, message));
            }
            let mark = self.emitter().mark();
            let b = self.expr(&argument.value);
            self.at(argument.value.span);
            self.emit(if argument.spread { Op::Extend { a: array, b } } else { Op::Push { a: array, b } });
            self.emitter().release_to(mark);
        }
    }

    /// The named arguments as an object in the next register.
    fn named_object(&mut self, arguments: &'a [Argument]) {
        let object = self.emitter().reserve();
        self.emit(Op::NewObject { a: object });
        for argument in arguments {
            let Some(name) = &argument.name else { continue };
            let mark = self.emitter().mark();
            let b = self.expr(&argument.value);
            let site = self.site(&name.text);
            self.at(name.span);
            self.emit(Op::SetField { a: object, b, site });
            self.emitter().release_to(mark);
        }
    }

    /// A blast known by name: every parameter gets its register, so the call needs no further look at them.
    fn call_blast(
        &mut self,
        unit: usize,
        function: &'a Function,
        shown: &str,
        callee: &'a Expr,
        arguments: &'a [Argument],
        place: Reg,
    ) -> Op {
        let id = self.blast_id(unit, function);
        if arguments.iter().any(|argument| argument.spread) {
            self.emit(Op::Function { a: place, function: id.0 });
            self.spread_row(arguments);
            self.at(callee.span);
            return Op::CallSpread { a: place };
        }
        let rest = function.params.iter().any(|p| p.rest);
        let fixed = function.params.len() - usize::from(rest);
        let positional: Vec<&'a Argument> = arguments.iter().filter(|a| a.name.is_none()).collect();
        if positional.len() > fixed && !rest {
            let takes = match fixed {
                0 => "no arguments".to_owned(),
                1 => "1 argument".to_owned(),
                n => format!("{n} arguments"),
            };
            let message = format!("`{shown}` takes {takes}, not {}", positional.len());
            let extra = positional[fixed].value.span;
            self.error(Diagnostic::error(codes::WRONG_COUNT, extra, message));
        }
        for argument in positional.iter().take(fixed) {
            self.expr_next(&argument.value);
        }
        let missing = missing_argument(function, 0);
        let first_missing = positional.len().min(fixed);
        for _ in first_missing..fixed {
            let a = self.emitter().reserve();
            self.emit(with_register(missing, a));
        }
        if rest {
            let array = self.emitter().reserve();
            self.emit(Op::NewArray { a: array, b: array, n: 0 });
            for argument in positional.iter().skip(fixed) {
                let mark = self.emitter().mark();
                let b = self.expr(&argument.value);
                self.emit(Op::Push { a: array, b });
                self.emitter().release_to(mark);
            }
        }
        let mut given = vec![false; fixed];
        given[..first_missing].fill(true);
        let mut options = Vec::new();
        for argument in arguments {
            let Some(name) = &argument.name else { continue };
            let at = function.params[..fixed].iter().position(|p| p.name.text == name.text);
            match at {
                Some(at) if given[at] => {
                    let message = format!("parameter `{}` is given twice", name.text);
                    self.error(Diagnostic::error(codes::UNKNOWN_ARGUMENT, name.span, message));
                }
                Some(at) => {
                    given[at] = true;
                    self.expr_into(&argument.value, place.wrapping_add(1).wrapping_add(at as u8));
                }
                // A blast of the library takes its options by name, as a native does.
                None if self.units[unit].library && takes_options(function) && !given[fixed - 1] => {
                    options.push(argument)
                }
                None => self.unknown_parameter(function, shown, name),
            }
        }
        if let Some(first) = options.first() {
            self.options_into(&options, first.value.span, place.wrapping_add(fixed as u8));
        }
        self.at(callee.span);
        Op::CallDirect { a: place, n: function.params.len() as u8, function: id.0 }
    }

    /// Named arguments as an object, in a register that is there already.
    fn options_into(&mut self, options: &[&'a Argument], span: Span, to: Reg) {
        self.at(span);
        self.emit(Op::NewObject { a: to });
        for argument in options {
            let Some(name) = &argument.name else { continue };
            let mark = self.emitter().mark();
            let b = self.expr(&argument.value);
            let site = self.site(&name.text);
            self.at(name.span);
            self.emit(Op::SetField { a: to, b, site });
            self.emitter().release_to(mark);
        }
    }

    fn unknown_parameter(&mut self, function: &Function, shown: &str, name: &Name) {
        let message = format!("`{shown}` has no parameter `{}`", name.text);
        let near = self.near(&name.text, function.params.iter().map(|p| &*p.name.text));
        let problem = Diagnostic::error(codes::UNKNOWN_ARGUMENT, name.span, message);
        self.error(match near {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem,
        });
    }

    fn call_native(&mut self, id: NativeId, span: Span, arguments: &'a [Argument], place: Reg) -> Op {
        let params = self.natives.params(id);
        let named = arguments.iter().find_map(|a| a.name.as_ref());
        if let Some(name) = named
            && !params.options
        {
            let message = format!("`{}` takes no named arguments", self.natives.name(id));
            self.error(Diagnostic::error(codes::UNKNOWN_ARGUMENT, name.span, message));
        }
        let row = self.row(arguments);
        self.at(span);
        let count = match row {
            Row::Plain(n) | Row::Named(n) => n,
            Row::Spread => {
                // The count shows only at run time; the native as a value goes where the callee is expected.
                self.emit(Op::Native { a: place, native: id.0 });
                return Op::CallSpread { a: place };
            }
        };
        let fits = count >= params.min && params.max.is_none_or(|max| count <= max);
        if !fits {
            let takes = match params.max {
                Some(1) if params.min == 1 => "1 argument".to_owned(),
                Some(0) => "no arguments".to_owned(),
                Some(max) if max == params.min => format!("{max} arguments"),
                Some(max) => format!("{} to {max} arguments", params.min),
                None => format!("at least {}", params.min),
            };
            let message = format!("`{}` takes {takes}, not {count}", self.natives.name(id));
            self.error(Diagnostic::error(codes::WRONG_COUNT, span, message));
        }
        Op::CallNative { a: place, n: count, native: id.0 }
    }

    /// `spawn call`: callee and arguments are worked out here and now, the call itself is a task of its own. It runs in a
    /// small function without a name, whose parameters are those registers.
    pub(super) fn spawn(&mut self, expr: &'a Expr, span: Span, dst: Reg, detached: bool) {
        let mark = self.emitter().mark();
        let task = self.emitter().reserve();
        let place = self.emitter().reserve();
        let mut leave = Vec::new();
        let op = match &expr.kind {
            ExprKind::Call { callee, arguments } => self.call(callee, arguments, span, place, &mut leave),
            _ => {
                self.expr_into(expr, place);
                Some(Op::Call { a: place, n: 0 })
            }
        };
        let count = self.emitter().mark() - u16::from(place);
        self.at(span);
        if let Some(op) = op {
            // A callee that is known has nothing in its register yet.
            if matches!(op, Op::CallDirect { .. } | Op::CallNative { .. }) {
                self.emit(Op::Null { a: place });
            }
            let mut wrapper = Emitter::new();
            wrapper.span = rads_vm::Span { start: span.start, end: span.end };
            wrapper.reserve_many(usize::from(count));
            wrapper.emit(at_zero(op));
            wrapper.emit(Op::Return { a: 0 });
            let id = self.reserve_function();
            let unnamed = self.program.symbols.intern("");
            let file = FileId(self.unit() as u32);
            let wrapper = wrapper.finish("", file, vec![unnamed; usize::from(count)], true, false);
            self.functions[id.0 as usize] = Some(wrapper);
            self.emit(Op::Function { a: task, function: id.0 });
            self.emit(Op::Spawn { a: task, n: count as u8, detached });
        }
        self.emitter().land_all(leave);
        self.emit(Op::Move { a: dst, b: task });
        self.emitter().release_to(mark);
    }
}

/// Whether the last of its parameters is an object of options.
fn takes_options(function: &Function) -> bool {
    function.params.last().is_some_and(|last| &*last.name.text == "options" && !last.rest)
}

/// The same call with its callee in register 0.
fn at_zero(op: Op) -> Op {
    match op {
        Op::Call { n, .. } => Op::Call { a: 0, n },
        Op::CallDirect { n, function, .. } => Op::CallDirect { a: 0, n, function },
        Op::CallNative { n, native, .. } => Op::CallNative { a: 0, n, native },
        Op::CallMethod { n, site, .. } => Op::CallMethod { a: 0, n, site },
        Op::CallNamed { n, .. } => Op::CallNamed { a: 0, n },
        Op::CallMethodNamed { n, site, .. } => Op::CallMethodNamed { a: 0, n, site },
        Op::CallSpread { .. } => Op::CallSpread { a: 0 },
        Op::CallMethodSpread { site, .. } => Op::CallMethodSpread { a: 0, site },
        other => other,
    }
}
