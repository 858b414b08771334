//! The interpreter's loop.
//!
//! `interpret` runs the innermost call and those it makes until something needs the whole machine, which it tells as an
//! [`Event`]; `execute` acts on events and starts it again. Calls never recurse on the host's stack: a call pushes a frame.
//!
//! Collections happen only between instructions, so no instruction has to think of them. An instruction that meets the
//! memory limit changes nothing, is run again after a collection, and only then throws.

use crate::arith::{Arith, Fault};
use crate::call::Callee;
use crate::cx::Cx;
use crate::heap::{Heap, Obj, TracePoint};
use crate::native::NativeBody;
use crate::op::{Op, Test};
use crate::program::{Capture, Const, FunctionId, Program};
use crate::step::Location;
use crate::value::{Handle, NativeId, Value};
use crate::vm::{Frame, NO_SHAPE, Vm, WINDOW};

/// Echoed text is handed out once there is this much of it, so that a chatty loop does not stop at every line.
pub(crate) const ECHO_AT: usize = 8 << 10;

/// What a call costs in fuel: about the instructions that entering and leaving are worth.
const CALL_COST: i64 = 4;

/// Why a task's turn ended.
pub(crate) enum Exit {
    Slice,
    /// Enough text to hand out.
    Echo,
    Call {
        native: u32,
        receiver: Option<Value>,
        args: Vec<Value>,
        at: Location,
        /// The stack place of the result.
        into: u32,
    },
    Await {
        handle: Handle,
        into: u32,
    },
    Done(Value),
    Failed(Value, Vec<TracePoint>),
}

/// What `interpret` cannot do with its part of the machine. The frame is saved, past the instruction.
pub(crate) enum Event {
    Slice,
    Echo,
    Collect,
    Fault(Fault),
    Depth,
    Done(Value),
    /// A call in its slow form, with the operand register as a stack place.
    Call {
        at: u32,
        callee: Callee,
        args: Args,
    },
    Spawn {
        at: u32,
        n: u8,
        detached: bool,
    },
    Await {
        into: u32,
        value: Value,
    },
    Rethrow(Value),
}

/// How the arguments of a slow call lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Args {
    /// In `n` registers after the callee.
    Registers(u8),
    /// The same, the last of them an object of named arguments.
    Named(u8),
    /// In the array after the callee.
    Spread,
}

type Registers = [Value; WINDOW];

#[inline(always)]
fn window(stack: &mut [Value], base: usize) -> &mut Registers {
    stack[base..base + WINDOW].first_chunk_mut().expect("a range of this length")
}

impl Vm {
    /// Runs the task whose frames and stack are in place, with a value to throw first, if any. Gives what fuel is left.
    pub(crate) fn execute(&mut self, mut fuel: i64, thrown: Option<Value>) -> (Exit, i64) {
        let program = self.heap.program.clone();
        if self.budget == Some(0) {
            let error = self.heap().error("budget", "the instruction budget is used up");
            let trace = self.trace();
            self.note_trace(error, &trace);
            return (Exit::Failed(error, trace), fuel);
        }
        let mut fault = thrown.map(Fault::Thrown);
        // Where an instruction last met the memory limit, so that it is tried again once only.
        let mut refused_at = None;
        loop {
            if let Some(fault) = fault.take() {
                let value = match fault {
                    Fault::Thrown(value) => value,
                    Fault::Memory => {
                        let at = (self.frames.len(), self.frames.last().map(|f| f.pc), fuel);
                        self.collect();
                        let fits = self.heap.used.saturating_add(self.heap.wanted) <= self.heap.limit;
                        if fits && refused_at != Some(at) {
                            refused_at = Some(at);
                            if let Some(frame) = self.frames.last_mut() {
                                frame.pc -= 1;
                            }
                            continue;
                        }
                        self.heap().out_of_memory()
                    }
                };
                if let Err(trace) = self.unwind(value) {
                    return (Exit::Failed(value, trace), fuel);
                }
            }
            match self.interpret(&program, &mut fuel) {
                Event::Slice => return (Exit::Slice, fuel),
                Event::Echo => return (Exit::Echo, fuel),
                Event::Done(value) => return (Exit::Done(value), fuel),
                Event::Collect => fault = self.safe_point(),
                Event::Fault(f) => fault = Some(f),
                Event::Rethrow(value) => fault = Some(Fault::Thrown(value)),
                Event::Depth => {
                    let message = format!("calls are nested deeper than {}", self.depth);
                    fault = Some(self.heap.thrown("depth", message));
                }
                Event::Call { at, callee, args } => match self.slow_call(at, callee, args) {
                    Ok(None) => fault = self.safe_point(),
                    Ok(Some(exit)) => return (exit, fuel),
                    Err(f) => fault = Some(f),
                },
                Event::Spawn { at, n, detached } => {
                    let place = at as usize;
                    let callee = self.stack[place];
                    let args = self.stack[place + 1..place + 1 + usize::from(n)].to_vec();
                    if matches!(callee, Value::Function(_)) {
                        let from = self.trace().first().copied();
                        let from = from.unwrap_or(TracePoint { function: FunctionId(0), pc: 0, skipped: 0 });
                        self.stack[place] = self.spawn_from_program(callee, &args, from, detached);
                        fault = self.safe_point();
                    } else {
                        let kind = crate::cx::with_article(callee.kind());
                        fault = Some(self.heap.thrown("type", format!("cannot spawn {kind}: it is not a function")));
                    }
                }
                Event::Await { into, value } => match self.take_outcome(value) {
                    Some(Ok(value)) => self.stack[into as usize] = value,
                    Some(Err(value)) => fault = Some(Fault::Thrown(value)),
                    None => {
                        if let Value::Task(handle) = value {
                            return (Exit::Await { handle, into }, fuel);
                        }
                    }
                },
            }
        }
    }

    /// Collects when that is due. The fault is for what already exists but passed the limit.
    fn safe_point(&mut self) -> Option<Fault> {
        if self.heap.collection_due() || self.heap.refused {
            self.collect();
        }
        if std::mem::take(&mut self.heap.refused) || self.heap.used > self.heap.limit {
            return Some(Fault::Thrown(self.heap().out_of_memory()));
        }
        None
    }

    /// The outcome of an awaited value: of a finished task, or the value itself when it is no task.
    fn take_outcome(&mut self, value: Value) -> Option<Result<Value, Value>> {
        let Value::Task(handle) = value else { return Some(Ok(value)) };
        match self.heap.get_mut(handle) {
            Obj::Task(task) => {
                task.observed = true;
                task.outcome
            }
            _ => Some(Ok(value)),
        }
    }

    fn note_trace(&mut self, value: Value, trace: &[TracePoint]) {
        if let Value::Error(handle) = value
            && let Obj::Error(error) = self.heap.get_mut(handle)
            && error.trace.is_none()
        {
            error.trace = Some(trace.into());
            self.heap.overcharge(size_of_val(trace));
        }
    }

    /// Finds who catches a thrown value and goes on there. The error is the trace, when nobody does.
    fn unwind(&mut self, value: Value) -> Result<(), Vec<TracePoint>> {
        let program = self.heap.program.clone();
        let caught = self.frames.iter().enumerate().rev().find_map(|(n, frame)| {
            let at = frame.pc.saturating_sub(1);
            let handlers = &program.function(frame.function).handlers;
            handlers.iter().find(|h| h.start <= at && at < h.end).map(|handler| (n, *handler))
        });
        let needs_trace = match value {
            Value::Error(handle) => matches!(self.heap.get(handle), Obj::Error(error) if error.trace.is_none()),
            _ => caught.is_none(),
        };
        let trace = if needs_trace { self.trace() } else { Vec::new() };
        self.note_trace(value, &trace);
        let Some((n, handler)) = caught else {
            self.frames.clear();
            return Err(trace);
        };
        self.frames.truncate(n + 1);
        let frame = &mut self.frames[n];
        frame.pc = handler.target;
        let place = frame.base as usize + usize::from(handler.register);
        self.stack[place] = value;
        // What the covered part had in its registers is dead, and must not keep what it held alive: the error may be
        // about memory.
        let end = frame.base as usize + usize::from(program.function(frame.function).registers);
        self.stack[(place + 1).min(end)..end].fill(Value::Null);
        Ok(())
    }

    /// Runs instructions until an event. `frames` has the innermost call on top before and after.
    fn interpret(&mut self, program: &Program, fuel: &mut i64) -> Event {
        let Vm { heap, caches, globals, stack, frames, depth, .. } = self;
        let Some(mut frame) = frames.pop() else { return Event::Done(Value::Null) };
        let mut code: &[Op] = &program.function(frame.function).code;
        let mut pc = frame.pc as usize;
        let mut left = *fuel;
        if stack.len() < frame.base as usize + WINDOW {
            stack.resize(frame.base as usize + WINDOW, Value::Null);
        }
        let mut regs = window(stack, frame.base as usize);

        macro_rules! r {
            ($reg:expr) => {
                regs[usize::from($reg)]
            };
        }
        macro_rules! leave {
            ($event:expr) => {
                break $event
            };
        }
        // The result of something that may fail.
        macro_rules! attempt {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(fault) => leave!(Event::Fault(fault.into())),
                }
            };
        }
        // After what allocated: its result is in a register, so this is a safe point.
        macro_rules! allocated {
            () => {
                if heap.collection_due() {
                    leave!(Event::Collect);
                }
            };
        }
        macro_rules! jump {
            ($by:expr) => {{
                pc = pc.wrapping_add_signed($by as isize);
                if $by < 0 {
                    left += i64::from($by);
                    if left <= 0 {
                        leave!(Event::Slice);
                    }
                }
            }};
        }
        // The quick forms read by reference and write in place: a value built elsewhere and copied as a whole would wait for
        // its two halves to be stored.
        macro_rules! arith {
            ($operator:expr, $int:ident, $a:expr, $b:expr, $c:expr, $float:tt) => {{
                match (&r!($b), &$c) {
                    (Value::Int(x), Value::Int(y)) if let Some(n) = x.$int(*y) => r!($a) = Value::Int(n),
                    (Value::Float(x), Value::Float(y)) => r!($a) = Value::Float(x $float y),
                    (Value::Float(x), Value::Int(y)) => r!($a) = Value::Float(x $float *y as f64),
                    (Value::Int(x), Value::Float(y)) => r!($a) = Value::Float(*x as f64 $float y),
                    (x, y) => {
                        let (x, y) = (*x, *y);
                        if let Err(fault) = heap.arith_into($operator, x, y, &mut r!($a)) {
                            leave!(Event::Fault(fault));
                        }
                        allocated!();
                    }
                }
            }};
        }
        // The same for division, whose zero divisor throws.
        macro_rules! divide {
            ($operator:expr, $int:ident, $a:expr, $b:expr, $c:expr) => {{
                match (&r!($b), &$c) {
                    (Value::Int(x), Value::Int(y)) if let Some(n) = x.$int(*y) => r!($a) = Value::Int(n),
                    (Value::Float(x), Value::Float(y)) if *y != 0.0 && $operator == Arith::Div => {
                        r!($a) = Value::Float(x / y);
                    }
                    (x, y) => {
                        let (x, y) = (*x, *y);
                        if let Err(fault) = heap.arith_into($operator, x, y, &mut r!($a)) {
                            leave!(Event::Fault(fault));
                        }
                    }
                }
            }};
        }
        macro_rules! is_less {
            ($b:expr, $c:expr, $test:tt, $or_equal:expr) => {{
                match (&$b, &$c) {
                    (Value::Int(x), Value::Int(y)) => x $test y,
                    (Value::Float(x), Value::Float(y)) => x $test y,
                    (x, y) => attempt!(heap.less(*x, *y, $or_equal)),
                }
            }};
        }
        macro_rules! truth {
            ($a:expr) => {{
                match &r!($a) {
                    Value::Bool(truth) => *truth,
                    value => Cx { heap: &mut *heap }.truthy(*value),
                }
            }};
        }
        // Enters a function whose parameters are in place from `at` on.
        macro_rules! enter {
            ($at:expr, $function:expr, $closure:expr) => {{
                left -= CALL_COST;
                if frames.len() >= *depth {
                    leave!(Event::Depth);
                }
                let base = frame.base as usize + $at;
                if base + WINDOW > stack.len() {
                    let more = stack.len();
                    if heap.charge(more * size_of::<Value>()).is_err() {
                        leave!(Event::Fault(Fault::Memory));
                    }
                    stack.resize(stack.len() + more, Value::Null);
                }
                frames.push(Frame { pc: pc as u32, ..frame });
                frame = Frame { function: $function, pc: 0, base: base as u32, closure: $closure };
                code = &program.function($function).code;
                pc = 0;
                regs = window(stack, base);
                if left <= 0 {
                    leave!(Event::Slice);
                }
            }};
        }
        macro_rules! give_back {
            ($value:expr) => {{
                let value = $value;
                let Some(caller) = frames.pop() else {
                    frames.push(frame);
                    *fuel = left;
                    return Event::Done(value);
                };
                stack[frame.base as usize - 1] = value;
                frame = caller;
                code = &program.function(frame.function).code;
                pc = frame.pc as usize;
                regs = window(stack, frame.base as usize);
            }};
        }
        macro_rules! place {
            ($a:expr) => {
                frame.base + u32::from($a)
            };
        }
        // An inline native; `$args` are its arguments.
        macro_rules! native {
            ($a:expr, $n:expr, $id:expr, $callee:expr, $first:expr) => {{
                let native = heap.natives.get($id);
                match native.body {
                    NativeBody::Pure(body) if native.params.accepts(usize::from($n)) => {
                        let first = usize::from($a) + $first;
                        let args = &regs[first..usize::from($a) + 1 + usize::from($n)];
                        let result = body(&mut Cx { heap: &mut *heap }, args);
                        left -= CALL_COST;
                        if heap.refused {
                            leave!(Event::Collect);
                        }
                        r!($a) = attempt!(result);
                        allocated!();
                        if heap.out.len() >= ECHO_AT {
                            leave!(Event::Echo);
                        }
                    }
                    _ => leave!(Event::Call { at: place!($a), callee: $callee, args: Args::Registers($n) }),
                }
            }};
        }

        let event = loop {
            let op = code[pc];
            pc += 1;
            match op {
                Op::Move { a, b } => r!(a) = r!(b),
                Op::Null { a } => r!(a) = Value::Null,
                Op::Absent { a } => r!(a) = Value::Absent,
                Op::Bool { a, value } => r!(a) = Value::Bool(value),
                Op::Int { a, value } => r!(a) = Value::Int(i64::from(value)),
                Op::Const { a, at } => {
                    let value = &heap.constants[at as usize];
                    if let Value::Absent = value {
                        r!(a) = heap.text_constant(at);
                    } else {
                        r!(a) = *value;
                    }
                }
                Op::Function { a, function } => r!(a) = heap.function_value(FunctionId(function)),
                Op::Native { a, native } => r!(a) = Value::Native(NativeId(native)),
                Op::Closure { a, function } => {
                    let function = FunctionId(function);
                    let captures = &program.function(function).captures;
                    attempt!(heap.charge(captures.len() * size_of::<Handle>()));
                    let up = frame.closure.map(|closure| heap.get(closure));
                    let cells: Box<[Handle]> = captures
                        .iter()
                        .filter_map(|capture| match (capture, up) {
                            (Capture::Register(reg), _) => r!(*reg).handle(),
                            (Capture::Captured(at), Some(Obj::Closure { cells, .. })) => {
                                cells.get(usize::from(*at)).copied()
                            }
                            _ => None,
                        })
                        .collect();
                    r!(a) = Value::Function(heap.insert(Obj::Closure { function, cells }));
                    allocated!();
                }
                Op::GetGlobal { a, global } => r!(a) = globals[global as usize],
                Op::SetGlobal { a, global } => globals[global as usize] = r!(a),
                Op::NewCell { a } => {
                    r!(a) = Value::Cell(heap.insert(Obj::Cell(r!(a))));
                    allocated!();
                }
                Op::GetCell { a, b } => {
                    if let Value::Cell(handle) = r!(b)
                        && let Obj::Cell(value) = heap.get(handle)
                    {
                        r!(a) = *value;
                    }
                }
                Op::SetCell { a, b } => {
                    if let Value::Cell(handle) = r!(a)
                        && let Obj::Cell(value) = heap.get_mut(handle)
                    {
                        *value = r!(b);
                    }
                }
                Op::GetUp { a, at } => {
                    if let Some(cell) = captured(heap, frame.closure, at)
                        && let Obj::Cell(value) = heap.get(cell)
                    {
                        r!(a) = *value;
                    }
                }
                Op::SetUp { a, at } => {
                    if let Some(cell) = captured(heap, frame.closure, at)
                        && let Obj::Cell(value) = heap.get_mut(cell)
                    {
                        *value = r!(a);
                    }
                }

                Op::Add { a, b, c } => arith!(Arith::Add, checked_add, a, b, r!(c), +),
                Op::Sub { a, b, c } => arith!(Arith::Sub, checked_sub, a, b, r!(c), -),
                Op::Mul { a, b, c } => arith!(Arith::Mul, checked_mul, a, b, r!(c), *),
                Op::Div { a, b, c } => divide!(Arith::Div, checked_div, a, b, r!(c)),
                Op::Rem { a, b, c } => divide!(Arith::Rem, checked_rem, a, b, r!(c)),
                Op::AddInt { a, b, value } => {
                    arith!(Arith::Add, checked_add, a, b, Value::Int(i64::from(value)), +)
                }
                Op::SubInt { a, b, value } => {
                    arith!(Arith::Sub, checked_sub, a, b, Value::Int(i64::from(value)), -)
                }
                Op::MulInt { a, b, value } => {
                    arith!(Arith::Mul, checked_mul, a, b, Value::Int(i64::from(value)), *)
                }
                Op::DivInt { a, b, value } => divide!(Arith::Div, checked_div, a, b, Value::Int(i64::from(value))),
                Op::RemInt { a, b, value } => divide!(Arith::Rem, checked_rem, a, b, Value::Int(i64::from(value))),
                Op::Bits { a, b, c, operator } => r!(a) = attempt!(heap.bits(operator, r!(b), r!(c))),
                Op::Neg { a, b } => r!(a) = attempt!(heap.negate(r!(b))),
                Op::BitNot { a, b } => r!(a) = attempt!(heap.bit_not(r!(b))),
                Op::Not { a, b } => r!(a) = Value::Bool(!truth!(b)),
                Op::TypeOf { a, b } => {
                    r!(a) = heap.kind_value(r!(b));
                    allocated!();
                }
                Op::Compare { a, b, c, test } => {
                    let (x, y) = (r!(b), r!(c));
                    r!(a) = Value::Bool(match test {
                        Test::Eq => heap.equal(x, y),
                        Test::NotEq => !heap.equal(x, y),
                        Test::Less => is_less!(x, y, <, false),
                        Test::LessEq => is_less!(x, y, <=, true),
                    });
                }
                Op::Concat { a, b, n } => {
                    let parts = &regs[usize::from(b)..usize::from(b) + usize::from(n)];
                    r!(a) = attempt!(heap.concat(parts));
                    allocated!();
                }

                Op::Jump { by } => jump!(by),
                Op::JumpIf { a, by } => {
                    if truth!(a) {
                        jump!(by);
                    }
                }
                Op::JumpIfNot { a, by } => {
                    if !truth!(a) {
                        jump!(by);
                    }
                }
                Op::JumpIfNull { a, by } => {
                    if let Value::Null = r!(a) {
                        jump!(by);
                    }
                }
                Op::JumpIfNotNull { a, by } => {
                    if !r!(a).is_null() {
                        jump!(by);
                    }
                }
                Op::JumpLess { a, b, by } => {
                    if is_less!(r!(a), r!(b), <, false) {
                        jump!(by);
                    }
                }
                Op::JumpNotLess { a, b, by } => {
                    if !is_less!(r!(a), r!(b), <, false) {
                        jump!(by);
                    }
                }
                Op::JumpLessEq { a, b, by } => {
                    if is_less!(r!(a), r!(b), <=, true) {
                        jump!(by);
                    }
                }
                Op::JumpNotLessEq { a, b, by } => {
                    if !is_less!(r!(a), r!(b), <=, true) {
                        jump!(by);
                    }
                }
                Op::JumpEq { a, b, by } => {
                    if heap.equal(r!(a), r!(b)) {
                        jump!(by);
                    }
                }
                Op::JumpNotEq { a, b, by } => {
                    if !heap.equal(r!(a), r!(b)) {
                        jump!(by);
                    }
                }
                Op::JumpLessInt { a, value, by } => {
                    if is_less!(r!(a), Value::Int(i64::from(value)), <, false) {
                        jump!(by);
                    }
                }
                Op::JumpNotLessInt { a, value, by } => {
                    if !is_less!(r!(a), Value::Int(i64::from(value)), <, false) {
                        jump!(by);
                    }
                }
                Op::JumpLessEqInt { a, value, by } => {
                    if is_less!(r!(a), Value::Int(i64::from(value)), <=, true) {
                        jump!(by);
                    }
                }
                Op::JumpNotLessEqInt { a, value, by } => {
                    if !is_less!(r!(a), Value::Int(i64::from(value)), <=, true) {
                        jump!(by);
                    }
                }
                Op::JumpGreaterInt { a, value, by } => {
                    if is_less!(Value::Int(i64::from(value)), r!(a), <, false) {
                        jump!(by);
                    }
                }
                Op::JumpNotGreaterInt { a, value, by } => {
                    if !is_less!(Value::Int(i64::from(value)), r!(a), <, false) {
                        jump!(by);
                    }
                }
                Op::JumpGreaterEqInt { a, value, by } => {
                    if is_less!(Value::Int(i64::from(value)), r!(a), <=, true) {
                        jump!(by);
                    }
                }
                Op::JumpNotGreaterEqInt { a, value, by } => {
                    if !is_less!(Value::Int(i64::from(value)), r!(a), <=, true) {
                        jump!(by);
                    }
                }
                Op::JumpEqInt { a, value, by } => {
                    if heap.equal(r!(a), Value::Int(i64::from(value))) {
                        jump!(by);
                    }
                }
                Op::JumpNotEqInt { a, value, by } => {
                    if !heap.equal(r!(a), Value::Int(i64::from(value))) {
                        jump!(by);
                    }
                }
                Op::JumpIfGiven { a, by } => {
                    if !matches!(r!(a), Value::Absent) {
                        jump!(by);
                    }
                }
                Op::RangePrepare { a } => {
                    let (from, to) = (r!(a), r!(a.wrapping_add(1)));
                    match (from.as_int(), to.as_int()) {
                        (Some(from), Some(to)) => {
                            r!(a) = Value::Int(from);
                            r!(a.wrapping_add(1)) = Value::Int(to);
                        }
                        _ => leave!(Event::Fault(heap.range_kind(from, to))),
                    }
                }
                Op::RangeNext { a, by } => {
                    if let (Value::Int(next), Value::Int(end)) = (r!(a), r!(a.wrapping_add(1)))
                        && next < end
                    {
                        r!(a.wrapping_add(2)) = Value::Int(next);
                        r!(a) = Value::Int(next + 1);
                        jump!(by);
                    }
                }
                Op::IterPrepare { a } => {
                    r!(a) = attempt!(heap.iterable(r!(a)));
                    r!(a.wrapping_add(1)) = Value::Int(0);
                    allocated!();
                }
                Op::IterNext { a, by } => {
                    if let Value::Int(at) = r!(a.wrapping_add(1))
                        && let Some((item, next)) = heap.next_item(r!(a), at)
                    {
                        r!(a.wrapping_add(1)) = Value::Int(next);
                        r!(a.wrapping_add(2)) = item;
                        jump!(by);
                    }
                }

                Op::NewArray { a, b, n } => {
                    let items = &regs[usize::from(b)..usize::from(b) + usize::from(n)];
                    attempt!(heap.charge(size_of_val(items)));
                    let items = items.to_vec();
                    r!(a) = Value::Array(heap.insert(Obj::Array(items)));
                    allocated!();
                }
                Op::Push { a, b } => {
                    if let Value::Array(handle) = r!(a) {
                        attempt!(heap.push(handle, r!(b)));
                        allocated!();
                    }
                }
                Op::Extend { a, b } => {
                    if let Value::Array(handle) = r!(a) {
                        attempt!(heap.extend(handle, r!(b)));
                        allocated!();
                    }
                }
                Op::NewObject { a } => {
                    r!(a) = heap.object();
                    allocated!();
                }
                Op::Merge { a, b } => {
                    if let Value::Object(handle) = r!(a) {
                        attempt!(heap.merge(handle, r!(b)));
                        allocated!();
                    }
                }
                Op::NewStruct { a, def } => {
                    let count = program.structs[def as usize].fields.len();
                    let first = usize::from(a) + 1;
                    r!(a) = attempt!(heap.make_struct(def, &regs[first..first + count]));
                    allocated!();
                }
                Op::GetField { a, b, site } => {
                    let value = r!(b);
                    let cache = &mut caches[site as usize];
                    if let Value::Struct(handle) | Value::Object(handle) = value
                        && let Obj::Record { shape, slots } = heap.get(handle)
                        && *shape == cache.shape
                        && let Some(found) = slots.get(cache.slot as usize)
                    {
                        r!(a) = *found;
                    } else {
                        r!(a) = attempt!(heap.read_field(value, program.sites[site as usize], cache));
                        allocated!();
                    }
                }
                Op::SetField { a, b, site } => {
                    let value = r!(a);
                    let cache = &mut caches[site as usize];
                    if let Value::Struct(handle) | Value::Object(handle) = value
                        && let Obj::Record { shape, slots } = heap.get_mut(handle)
                        && *shape == cache.shape
                        && cache.accepts(&r!(b))
                        && let Some(found) = slots.get_mut(cache.slot as usize)
                    {
                        *found = r!(b);
                    } else {
                        attempt!(heap.write_field(value, program.sites[site as usize], r!(b), cache));
                        allocated!();
                    }
                }
                Op::GetIndex { a, b, c } => {
                    let (value, index) = (r!(b), r!(c));
                    if let (Value::Array(handle), Value::Int(at)) = (value, index)
                        && let Obj::Array(items) = heap.get(handle)
                        && let Some(item) = items.get(at as usize)
                    {
                        r!(a) = *item;
                    } else {
                        r!(a) = attempt!(heap.read_index(value, index));
                    }
                }
                Op::SetIndex { a, b, c } => {
                    let (value, index) = (r!(a), r!(b));
                    if let (Value::Array(handle), Value::Int(at)) = (value, index)
                        && let Obj::Array(items) = heap.get_mut(handle)
                        && let Some(item) = items.get_mut(at as usize)
                    {
                        *item = r!(c);
                    } else {
                        attempt!(heap.write_index(value, index, r!(c)));
                        allocated!();
                    }
                }
                Op::Slice { a, b, c } => {
                    r!(a) = attempt!(heap.slice(r!(b), r!(c), r!(c.wrapping_add(1))));
                    allocated!();
                }
                Op::Without { a, b, c, n } => {
                    let keys = &regs[usize::from(c)..usize::from(c) + usize::from(n)];
                    r!(a) = attempt!(heap.without(r!(b), keys));
                    allocated!();
                }
                Op::NewRange { a, b, c } => {
                    r!(a) = attempt!(heap.range(r!(b), r!(c)));
                    allocated!();
                }

                Op::CallDirect { a, function, .. } => enter!(usize::from(a) + 1, FunctionId(function), None),
                Op::Call { a, n } => match r!(a) {
                    Value::Function(handle)
                        if let Obj::Closure { function, .. } = *heap.get(handle)
                            && let target = program.function(function)
                            && target.params.len() == usize::from(n)
                            && !target.rest =>
                    {
                        enter!(usize::from(a) + 1, function, Some(handle));
                    }
                    Value::Native(id) => native!(a, n, id, Callee::Value, 1),
                    _ => leave!(Event::Call { at: place!(a), callee: Callee::Value, args: Args::Registers(n) }),
                },
                Op::CallNative { a, n, native } => {
                    native!(a, n, NativeId(native), Callee::Native(NativeId(native)), 1);
                }
                Op::CallMethod { a, n, site } => {
                    let cache = caches[site as usize];
                    let receiver = r!(a);
                    let callee = Callee::Method { site };
                    match receiver {
                        Value::Object(handle) | Value::Struct(handle)
                            if let Obj::Record { shape, slots } = heap.get(handle)
                                && *shape == cache.shape
                                && let Some(Value::Function(called)) = slots.get(cache.slot as usize).copied()
                                && let Obj::Closure { function, .. } = *heap.get(called)
                                && let target = program.function(function)
                                && target.params.len() == usize::from(n)
                                && !target.rest =>
                        {
                            enter!(usize::from(a) + 1, function, Some(called));
                        }
                        _ if cache.shape != NO_SHAPE && cache.shape == crate::call::kind_key(receiver) => {
                            native!(a, n, NativeId(cache.slot), callee, 0);
                        }
                        _ => leave!(Event::Call { at: place!(a), callee, args: Args::Registers(n) }),
                    }
                }
                Op::CallNamed { a, n } => {
                    leave!(Event::Call { at: place!(a), callee: Callee::Value, args: Args::Named(n) })
                }
                Op::CallMethodNamed { a, n, site } => {
                    leave!(Event::Call { at: place!(a), callee: Callee::Method { site }, args: Args::Named(n) })
                }
                Op::CallSpread { a } => {
                    leave!(Event::Call { at: place!(a), callee: Callee::Value, args: Args::Spread })
                }
                Op::CallMethodSpread { a, site } => {
                    leave!(Event::Call { at: place!(a), callee: Callee::Method { site }, args: Args::Spread })
                }
                Op::Return { a } => give_back!(r!(a)),
                Op::ReturnNull => give_back!(Value::Null),
                Op::Spawn { a, n, detached } => leave!(Event::Spawn { at: place!(a), n, detached }),
                Op::Await { a, b } => leave!(Event::Await { into: place!(a), value: r!(b) }),

                Op::Throw { a } => leave!(Event::Fault(Fault::Thrown(r!(a)))),
                Op::Rethrow { a } => leave!(Event::Rethrow(r!(a))),
                Op::Check { a, kind, what } => {
                    let kind = program.types[usize::from(kind)];
                    let name = |heap: &Heap| match program.consts[what as usize] {
                        Const::Str(symbol) => format!("`{}`", heap.program.symbol(symbol)),
                        _ => String::new(),
                    };
                    r!(a) = attempt!(heap.check(Some(kind), r!(a), name));
                }
            }
        };
        frames.push(Frame { pc: pc as u32, ..frame });
        *fuel = left;
        event
    }
}

#[inline(always)]
fn captured(heap: &Heap, closure: Option<Handle>, at: u8) -> Option<Handle> {
    match heap.get(closure?) {
        Obj::Closure { cells, .. } => cells.get(usize::from(at)).copied(),
        _ => None,
    }
}
