//! One machine: its tasks, who runs next, and what happens turned into steps for the host.
//!
//! The running task borrows the machine's one large stack; a task that waits keeps only the part of it in use, so that a
//! hundred thousand waiting tasks stay small. A deep stack is swapped instead of copied.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cx::Cx;
use crate::exec::Exit;
use crate::heap::{Heap, Obj, TaskObj, TracePoint};
use crate::native::Natives;
use crate::program::{FunctionId, Program};
use crate::step::{Limits, RootId, Step, TaskId};
use crate::value::{Handle, Value};

/// The registers one frame can name; the stack always has this many beyond the base of the running frame.
pub(crate) const WINDOW: usize = 256;

/// A waiting task's stack up to this many values is copied out and in; a deeper one changes places with the machine's.
const COPY_UP_TO: usize = 64;

/// How long a task runs while others are ready, in the unit of fuel. Picked so that a switch costs under a percent.
const QUANTUM: i64 = 10_000;

/// A call that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) function: FunctionId,
    /// The next instruction.
    pub(crate) pc: u32,
    /// Where its registers start in the stack.
    pub(crate) base: u32,
    /// The running closure; `None` of functions without captures.
    pub(crate) closure: Option<Handle>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// In the ready queue, or running.
    Ready,
    Host,
    Task,
}

#[derive(Debug)]
struct Task {
    id: TaskId,
    /// What it had on the stack when it was suspended.
    stack: Vec<Value>,
    frames: Vec<Frame>,
    wait: Wait,
    /// The stack place that the outcome it waits for goes to.
    into: u32,
    outcome: Option<Result<Value, Value>>,
    handle: Handle,
    /// Tasks that await this one.
    waiters: Vec<TaskId>,
    /// Where `spawn` was, for traces.
    spawned: Option<TracePoint>,
    reports: Reports,
}

/// Whether the end of a task comes out as a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reports {
    /// Started by the host.
    Always,
    /// Its handle was dropped at once, so nobody can await it.
    Failure,
    /// The program holds its handle: a failure is reported when the handle goes unawaited.
    Unawaited,
}

/// One machine, running one program. See the crate's head for how it is driven.
#[derive(Debug)]
pub struct Vm {
    pub(crate) heap: Heap,
    pub(crate) caches: Vec<Cache>,
    pub(crate) globals: Vec<Value>,
    /// Registers of the running task.
    pub(crate) stack: Vec<Value>,
    /// Calls of the running task, without the innermost while it runs.
    pub(crate) frames: Vec<Frame>,
    pub(crate) depth: usize,
    /// By slot; a task's id names its slot in the low half.
    tasks: Vec<Option<Task>>,
    free_tasks: Vec<u32>,
    task_count: u32,
    ready: VecDeque<TaskId>,
    running: Option<TaskId>,
    /// Work left of the limit.
    pub(crate) budget: Option<u64>,
    roots: Vec<Option<Value>>,
    /// Steps to give out before running on, with what they hold.
    pending: VecDeque<Step>,
    /// Failed tasks whose handle the program may still await.
    failed: Vec<Handle>,
    failed_since_idle: bool,
    /// Results given out by the last step, valid until the next `run`.
    lent: Vec<Value>,
}

/// What a place in the program met last; see `record`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cache {
    pub(crate) shape: u32,
    pub(crate) slot: u32,
    /// What a write to the slot may bring without another look.
    pub(crate) only: Only,
}

/// The annotations of fields that a quick write can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Only {
    Anything,
    Ints,
    Floats,
    Strings,
    Bools,
}

impl Cache {
    pub(crate) const EMPTY: Cache = Cache { shape: NO_SHAPE, slot: 0, only: Only::Anything };

    #[inline(always)]
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        match self.only {
            Only::Anything => true,
            Only::Ints => matches!(value, Value::Int(_)),
            Only::Floats => matches!(value, Value::Float(_)),
            Only::Strings => matches!(value, Value::Str(_)),
            Only::Bools => matches!(value, Value::Bool(_)),
        }
    }
}

pub(crate) const NO_SHAPE: u32 = u32::MAX;

impl Vm {
    pub fn new(program: Arc<Program>, natives: Arc<Natives>, limits: Limits) -> Vm {
        let caches = vec![Cache::EMPTY; program.sites.len()];
        let globals = vec![Value::Null; program.globals.len()];
        let mut heap = Heap::new(program, natives, limits.memory, limits.collect_always);
        let stack = vec![Value::Null; WINDOW * 2];
        let fixed = size_of_val(&*caches) + size_of_val(&*globals);
        heap.overcharge(fixed + size_of_val(&*stack));
        Vm {
            heap,
            caches,
            globals,
            stack,
            frames: Vec::new(),
            depth: limits.depth as usize,
            tasks: Vec::new(),
            free_tasks: Vec::new(),
            task_count: 0,
            ready: VecDeque::new(),
            running: None,
            budget: limits.instructions,
            roots: Vec::new(),
            pending: VecDeque::new(),
            failed: Vec::new(),
            failed_since_idle: false,
            lent: Vec::new(),
        }
    }

    /// Seeds `math.random` and the hashing of keys. Call it before anything else; a machine that was not seeded gives the
    /// same numbers every time, which suits tests and plans.
    pub fn seed(&mut self, seed: u64) {
        self.heap.random = seed | 1;
        if self.heap.objects.is_empty() {
            self.heap.seed = seed;
        }
    }

    pub fn program(&self) -> &Arc<Program> {
        &self.heap.program
    }

    /// Bytes of all objects, garbage not yet collected included, and of the machine's own tables.
    pub fn memory_used(&self) -> usize {
        self.heap.used
    }

    /// Tasks that have not ended.
    pub fn task_count(&self) -> usize {
        self.task_count as usize
    }

    /// Starts the program: its top-level statements, then `main()`.
    pub fn start(&mut self) -> TaskId {
        let entry = self.heap.program.entry.unwrap_or(FunctionId(0));
        let callee = self.heap.function_value(entry);
        self.start_task(callee, &[], None, Reports::Always)
    }

    /// Starts a task that calls a blast, for example one for each request of a server. Arguments beyond what the blast
    /// declares are dropped, missing ones are null. The error is the value to show: the callee cannot be called.
    pub fn spawn(&mut self, callee: Value, args: &[Value]) -> Result<TaskId, Value> {
        let Some(count) = self.heap().param_count(callee) else {
            let kind = callee.kind();
            return Err(self.heap().error("type", format!("{} cannot be called", crate::cx::with_article(kind))));
        };
        let args = &args[..args.len().min(count)];
        Ok(self.start_task(callee, args, None, Reports::Always))
    }

    /// Answers the `Step::Call` of a task. A task that does not wait for the host (it was cancelled) ignores it.
    pub fn resume(&mut self, task: TaskId, outcome: Result<Value, Value>) {
        if let Some(waiting) = self.task_mut(task)
            && waiting.wait == Wait::Host
        {
            waiting.wait = Wait::Ready;
            waiting.outcome = Some(outcome);
            self.ready.push_back(task);
        }
    }

    /// Throws an error of kind `cancelled` at the place where the task waits; `finally` blocks run. A task that is ready
    /// to run gets it at its next turn. The host forgets a call it was performing for the task.
    pub fn cancel(&mut self, task: TaskId) {
        if self.task_mut(task).is_none() {
            return;
        }
        let error = self.heap().error("cancelled", "the task was cancelled");
        let Some(cancelled) = self.task_mut(task) else { return };
        cancelled.outcome = Some(Err(error));
        if cancelled.wait != Wait::Ready {
            cancelled.wait = Wait::Ready;
            self.ready.push_back(task);
        }
    }

    /// The task behind a handle that a program holds.
    pub fn task_of(&self, value: Value) -> Option<TaskId> {
        match value {
            Value::Task(handle) => match self.heap.get(handle) {
                Obj::Task(task) => Some(task.id),
                _ => None,
            },
            _ => None,
        }
    }

    /// Access to the values, to build arguments and read results. What is built is safe until the next `run`; to keep a
    /// value longer, root it.
    pub fn heap(&mut self) -> Cx<'_> {
        Cx { heap: &mut self.heap }
    }

    /// Keeps a value alive until `unroot`.
    pub fn root(&mut self, value: Value) -> RootId {
        if let Some(at) = self.roots.iter().position(Option::is_none) {
            self.roots[at] = Some(value);
            return RootId(at as u32);
        }
        self.roots.push(Some(value));
        RootId(self.roots.len() as u32 - 1)
    }

    pub fn rooted(&self, root: RootId) -> Value {
        self.roots.get(root.0 as usize).copied().flatten().unwrap_or_default()
    }

    pub fn unroot(&mut self, root: RootId) {
        if let Some(kept) = self.roots.get_mut(root.0 as usize) {
            *kept = None;
        }
    }

    /// Runs until something needs the host or about `fuel` units of work are done: one unit is about one instruction.
    pub fn run(&mut self, fuel: u32) -> Step {
        self.lent.clear();
        let mut fuel = i64::from(fuel.max(1));
        loop {
            if !self.heap.out.is_empty() && (!self.pending.is_empty() || self.ready.is_empty() || self.echo_is_long()) {
                return Step::Echo { text: std::mem::take(&mut self.heap.out) };
            }
            if let Some(step) = self.pending.pop_front() {
                self.lend(&step);
                return step;
            }
            let Some(task) = self.ready.pop_front() else {
                self.report_unawaited();
                if self.pending.is_empty() {
                    return Step::Idle;
                }
                continue;
            };
            if fuel <= 0 {
                self.ready.push_front(task);
                if !self.heap.out.is_empty() {
                    return Step::Echo { text: std::mem::take(&mut self.heap.out) };
                }
                return Step::Yielded;
            }
            self.turn(task, &mut fuel);
        }
    }

    fn echo_is_long(&self) -> bool {
        self.heap.out.len() >= crate::exec::ECHO_AT
    }

    fn lend(&mut self, step: &Step) {
        match step {
            Step::Finished { outcome: Ok(value), .. } => self.lent.push(*value),
            Step::Call { .. } | Step::Finished { .. } | Step::Echo { .. } | Step::Idle | Step::Yielded => {}
        }
    }

    /// Gives one task its turn.
    fn turn(&mut self, id: TaskId, fuel: &mut i64) {
        let Some(task) = self.task_mut(id) else { return };
        let outcome = task.outcome.take();
        let into = task.into;
        let stack = std::mem::take(&mut task.stack);
        let frames = std::mem::take(&mut task.frames);
        self.switch_in(stack, frames);
        self.running = Some(id);
        let mut thrown = None;
        match outcome {
            Some(Ok(value)) => self.stack[into as usize] = value,
            Some(Err(value)) => thrown = Some(value),
            None => {}
        }
        // Alone it runs the whole slice; among others a quantum.
        let slice = if self.ready.is_empty() { *fuel } else { (*fuel).min(QUANTUM) };
        let slice = self.budget.map_or(slice, |left| slice.min(i64::try_from(left).unwrap_or(i64::MAX)));
        let (exit, left) = self.execute(slice, thrown);
        let spent = slice - left;
        *fuel -= spent.max(1);
        if let Some(budget) = &mut self.budget {
            *budget = budget.saturating_sub(spent.max(0) as u64);
        }
        self.running = None;
        match exit {
            Exit::Slice | Exit::Echo => {
                self.switch_out(id, Wait::Ready, 0);
                self.ready.push_front(id);
                // The others first, unless it only stopped to hand out text.
                if matches!(exit, Exit::Slice) {
                    self.ready.rotate_left(1);
                }
            }
            Exit::Call { native, receiver, args, at, into } => {
                self.switch_out(id, Wait::Host, into);
                self.pending.push_back(Step::Call { task: id, native, receiver, args, at });
            }
            Exit::Await { handle, into } => {
                let awaited = match self.heap.get(handle) {
                    Obj::Task(task) => Some(task.id),
                    _ => None,
                };
                self.switch_out(id, Wait::Task, into);
                if let Some(awaited) = awaited.and_then(|awaited| self.task_mut(awaited)) {
                    awaited.waiters.push(id);
                }
            }
            Exit::Done(value) => self.finish(id, Ok(value), Vec::new()),
            Exit::Failed(value, trace) => self.finish(id, Err(value), trace),
        }
    }

    fn finish(&mut self, id: TaskId, outcome: Result<Value, Value>, trace: Vec<TracePoint>) {
        self.frames.clear();
        let slot = id.0 as u32 as usize;
        let Some(mut task) = self.tasks.get_mut(slot).and_then(Option::take) else { return };
        self.free_tasks.push(slot as u32);
        self.task_count -= 1;
        let observed = !task.waiters.is_empty();
        for waiter in std::mem::take(&mut task.waiters) {
            if let Some(waiting) = self.task_mut(waiter)
                && waiting.wait == Wait::Task
            {
                waiting.wait = Wait::Ready;
                waiting.outcome = Some(outcome);
                self.ready.push_back(waiter);
            }
        }
        if let Obj::Task(handle) = self.heap.get_mut(task.handle) {
            handle.outcome = Some(outcome);
            handle.trace = trace.clone().into();
            handle.observed |= observed;
        }
        match (task.reports, outcome) {
            (Reports::Always, Ok(value)) => self.pending.push_back(Step::Finished { task: id, outcome: Ok(value) }),
            (Reports::Always | Reports::Failure, Err(value)) => {
                let uncaught = self.heap.uncaught(value, &trace);
                self.pending.push_back(Step::Finished { task: id, outcome: Err(uncaught) });
            }
            (Reports::Unawaited, Err(_)) if !observed => {
                self.failed.push(task.handle);
                self.failed_since_idle = true;
            }
            _ => {}
        }
    }

    /// Hands out the failures that nobody can await any more: those whose handle is lost, and all once no task is left.
    /// Looking for lost ones costs a collection, so it is done once for each new failure, when nothing else is to do.
    fn report_unawaited(&mut self) {
        if self.task_count == 0 {
            for handle in std::mem::take(&mut self.failed) {
                self.report_failure(handle);
            }
        } else if std::mem::take(&mut self.failed_since_idle) {
            self.collect();
        }
    }

    fn report_failure(&mut self, handle: Handle) {
        let Obj::Task(task) = self.heap.get_mut(handle) else { return };
        if std::mem::replace(&mut task.observed, true) {
            return;
        }
        let id = task.id;
        if let (Some(Err(value)), trace) = (task.outcome, task.trace.clone()) {
            let uncaught = self.heap.uncaught(value, &trace);
            self.pending.push_back(Step::Finished { task: id, outcome: Err(uncaught) });
        }
    }

    /// Called by the interpreter for `spawn`; the handle is the result.
    pub(crate) fn spawn_from_program(
        &mut self,
        callee: Value,
        args: &[Value],
        at: TracePoint,
        detached: bool,
    ) -> Value {
        let reports = if detached { Reports::Failure } else { Reports::Unawaited };
        let id = self.start_task(callee, args, Some(at), reports);
        self.task_mut(id).map_or(Value::Null, |task| Value::Task(task.handle))
    }

    fn start_task(&mut self, callee: Value, args: &[Value], spawned: Option<TracePoint>, reports: Reports) -> TaskId {
        let slot = self.free_tasks.pop().unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len() as u32 - 1
        });
        // The high half counts the tasks made so far, so an id is never given out twice.
        self.heap.tasks_made += 1;
        let id = TaskId(u64::from(slot) | u64::from(self.heap.tasks_made) << 32);
        let about = TaskObj { id, outcome: None, trace: Box::default(), observed: false };
        self.heap.overcharge(size_of::<TaskObj>() + TASK_BYTES);
        let handle = self.heap.insert(Obj::Task(Box::new(about)));
        let (stack, frames) = self.heap.first_frame(callee, args);
        self.tasks[slot as usize] = Some(Task {
            id,
            stack,
            frames,
            wait: Wait::Ready,
            into: 0,
            outcome: None,
            handle,
            waiters: Vec::new(),
            spawned,
            reports,
        });
        self.task_count += 1;
        self.ready.push_back(id);
        id
    }

    fn task_mut(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(id.0 as u32 as usize)?.as_mut().filter(|task| task.id == id)
    }

    fn switch_in(&mut self, mut stack: Vec<Value>, frames: Vec<Frame>) {
        if stack.len() <= COPY_UP_TO {
            self.stack[..stack.len()].copy_from_slice(&stack);
        } else {
            let base = frames.last().map_or(0, |f| f.base as usize);
            stack.resize(stack.len().max(base + WINDOW), Value::Null);
            self.stack = stack;
        }
        self.frames = frames;
    }

    fn switch_out(&mut self, id: TaskId, wait: Wait, into: u32) {
        let used = self.heap.stack_in_use(&self.frames);
        let stack = if used <= COPY_UP_TO {
            self.stack[..used].to_vec()
        } else {
            let fresh = vec![Value::Null; WINDOW * 2];
            std::mem::replace(&mut self.stack, fresh)
        };
        let frames = std::mem::take(&mut self.frames);
        if let Some(task) = self.task_mut(id) {
            task.stack = stack;
            task.frames = frames;
            task.wait = wait;
            task.into = into;
        }
    }

    /// Where the running task was spawned, for traces.
    pub(crate) fn running_origin(&self) -> Option<TracePoint> {
        let id = self.running?;
        self.tasks.get(id.0 as u32 as usize)?.as_ref()?.spawned
    }

    // --- garbage

    /// Frees what nothing can reach any more. The interpreter calls it between instructions.
    pub(crate) fn collect(&mut self) {
        let in_use = self.heap.stack_in_use(&self.frames);
        let Vm { heap, globals, stack, tasks, roots, pending, lent, failed, caches, .. } = self;
        let stacks: usize = tasks.iter().flatten().map(|t| t.stack.capacity() * size_of::<Value>() + TASK_BYTES).sum();
        let frames = self.frames.capacity() * size_of::<Frame>();
        heap.outside = stacks + frames + size_of_val(&**stack) + size_of_val(&**caches) + size_of_val(&**globals);
        heap.begin_marking();
        heap.mark_all(&stack[..in_use.min(stack.len())]);
        heap.mark_all(globals);
        heap.mark_all(lent);
        for task in tasks.iter().flatten() {
            heap.mark_all(&task.stack);
            heap.mark(Value::Task(task.handle));
            if let Some(Ok(value) | Err(value)) = task.outcome {
                heap.mark(value);
            }
            for frame in &task.frames {
                heap.mark_handle(frame.closure);
            }
        }
        for frame in &self.frames {
            heap.mark_handle(frame.closure);
        }
        for value in roots.iter().flatten() {
            heap.mark(*value);
        }
        for step in pending.iter() {
            match step {
                Step::Call { args, receiver, .. } => {
                    heap.mark_all(args);
                    heap.mark_all(receiver.as_slice());
                }
                Step::Finished { outcome: Ok(value), .. } => heap.mark(*value),
                _ => {}
            }
        }
        heap.trace_marked();
        // A failed task that only its own failure keeps: nobody can await it any more.
        let lost: Vec<Handle> = failed.iter().copied().filter(|handle| !heap.is_marked(*handle)).collect();
        failed.retain(|handle| heap.is_marked(*handle));
        for handle in &lost {
            heap.mark(Value::Task(*handle));
        }
        heap.trace_marked();
        heap.sweep();
        for handle in lost {
            self.report_failure(handle);
        }
    }
}

/// What a task costs besides its stack.
const TASK_BYTES: usize = size_of::<Task>() + size_of::<Frame>();

impl Heap {
    /// How much of a stack belongs to calls under way.
    pub(crate) fn stack_in_use(&self, frames: &[Frame]) -> usize {
        frames.last().map_or(0, |top| top.base as usize + usize::from(self.program.function(top.function).registers))
    }
}
