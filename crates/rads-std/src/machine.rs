//! The machine and its world: runs script code whenever there is some, performs what it asks for, and hands outcomes to
//! whoever waits for them. Who decides when the program is over is the event loop.
//!
//! Whoever brings work (a request, a finished timer) pumps the machine itself, so a request whose handler does not
//! wait is answered without one trip through the scheduler.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use rads_vm::{RootId, Step, TaskId, Uncaught, Value, Vm};
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use crate::event_loop::Output;
use crate::handler::{self, Answer};
use crate::library::{Action, Host, HostFn, Later, host_functions};
use crate::modules::constellation::Agent;
use crate::modules::db::Databases;
use crate::modules::net::Servers;
use crate::server::Call;

/// Units of work (about one instruction each) before sockets and timers get a turn: some 100 µs.
const SLICE: u32 = 10_000;
/// Steps in one go for the same reason: a script that calls the host in a loop uses up no slice.
const STEPS: usize = 64;

/// The library's functions by their number.
pub(crate) fn functions() -> &'static [Option<HostFn>] {
    static FUNCTIONS: OnceLock<Vec<Option<HostFn>>> = OnceLock::new();
    FUNCTIONS.get_or_init(host_functions)
}

/// What the program may see and what it has opened.
pub(crate) struct World {
    pub(crate) root: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) args: Vec<String>,
    pub(crate) servers: Servers,
    pub(crate) databases: Databases,
    /// Written and closed when the first server listens.
    pub(crate) ready: RefCell<Option<OwnedFd>>,
    pub(crate) output: Output,
    /// The way to other machines and stars.
    pub(crate) agent: Agent,
}

impl World {
    /// Relative paths start at the root, absolute ones are taken as they are: what a star may reach is decided by its
    /// mounts, not here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

pub(crate) struct Machine {
    pub(crate) world: World,
    vm: RefCell<Vm>,
    main: TaskId,
    waiting: RefCell<HashMap<TaskId, Waiting>>,
    /// Answers that futures still have to give.
    outstanding: Cell<usize>,
    state: RefCell<State>,
    /// Tasks that were called for events and have not ended.
    hearing: Cell<usize>,
    /// One of them has.
    heard: Notify,
    /// The event loop should look: code is ready to run, or the program may be over.
    pub(crate) work: Notify,
}

/// What the event loop must know to decide whether the program is over.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// The program asked to end, or its main task failed.
    pub(crate) end: Option<i32>,
    pub(crate) main_ended: bool,
    /// The main task waits (or waited) for its servers to stop, and goes on afterwards.
    pub(crate) main_serves: bool,
    /// A task failed and nobody was there to see it.
    pub(crate) failed: bool,
    /// No code is ready to run.
    pub(crate) idle: bool,
}

/// Who gets the outcome of a task that the library started.
enum Waiting {
    Handler(oneshot::Sender<Answer>),
    /// Nobody; it was called for an event.
    Event,
    /// `async_utils.timeout`: the task that called it, and the timer to disarm.
    Race {
        caller: TaskId,
        timer: AbortHandle,
    },
}

impl Machine {
    pub(crate) fn new(mut vm: Vm, world: World) -> Rc<Machine> {
        let main = vm.start();
        Rc::new(Machine {
            world,
            vm: RefCell::new(vm),
            main,
            waiting: RefCell::default(),
            outstanding: Cell::new(0),
            state: RefCell::default(),
            hearing: Cell::new(0),
            heard: Notify::new(),
            work: Notify::new(),
        })
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Tasks that have not ended, and the answers that are still to come for them.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.vm.borrow().task_count(), self.outstanding.get())
    }

    /// Runs code until every task waits or the turn is over.
    pub(crate) fn pump(self: &Rc<Machine>) {
        let mut vm = self.vm.borrow_mut();
        let mut idle = false;
        for _ in 0..STEPS {
            if self.state.borrow().end.is_some() {
                break;
            }
            match vm.run(SLICE) {
                Step::Call { task, native, receiver, mut args, .. } => {
                    // A method's receiver is its first argument, so that `server.route(…)` and `net.route(server, …)`
                    // are one function.
                    if let Some(receiver) = receiver {
                        args.insert(0, receiver);
                    }
                    self.perform(&mut vm, task, native, &args);
                }
                Step::Echo { text } => {
                    // Flushed, because a star ends without the farewell of the standard library.
                    let mut out = std::io::stdout().lock();
                    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                    if let Err(error) = written
                        && self.world.output == Output::Wanted
                        && error.kind() != ErrorKind::BrokenPipe
                    {
                        complain(&format_args!("error: cannot write to standard output: {}", plain(&error)));
                        self.state.borrow_mut().end = Some(1);
                    }
                }
                Step::Finished { task, outcome } => self.finished(&mut vm, task, outcome),
                Step::Idle => {
                    idle = true;
                    break;
                }
                Step::Yielded => break,
            }
        }
        let may_be_over = vm.task_count() == 0 || self.outstanding.get() == 0;
        self.state.borrow_mut().idle = idle;
        if !idle || may_be_over {
            self.work.notify_one();
        }
    }

    fn perform(self: &Rc<Machine>, vm: &mut Vm, task: TaskId, native: u32, args: &[Value]) {
        let Some(function) = functions().get(native as usize).copied().flatten() else {
            let error = vm.heap().error("internal", format!("native {native} is not part of this library"));
            return vm.resume(task, Err(error));
        };
        let mut host = Host { vm, machine: self, task };
        match function(&mut host, args) {
            Ok(Action::Done(value)) => vm.resume(task, Ok(value)),
            Ok(Action::Later(future)) => self.answer_later(task, future),
            Ok(Action::Elsewhere) => {}
            Ok(Action::Exit(code)) => self.state.borrow_mut().end = Some(code),
            Err(thrown) => vm.resume(task, Err(thrown)),
        }
    }

    fn answer_later(self: &Rc<Machine>, task: TaskId, future: Later) {
        let machine = Rc::clone(self);
        self.outstanding.set(self.outstanding.get() + 1);
        spawn_local(async move {
            let make = future.await;
            machine.outstanding.set(machine.outstanding.get() - 1);
            machine.resume(task, |vm| make(&mut vm.heap()));
        });
    }

    fn resume(self: &Rc<Machine>, task: TaskId, outcome: impl FnOnce(&mut Vm) -> Result<Value, Value>) {
        {
            let mut vm = self.vm.borrow_mut();
            let outcome = outcome(&mut vm);
            vm.resume(task, outcome);
        }
        self.pump();
    }

    fn finished(&self, vm: &mut Vm, task: TaskId, outcome: Result<Value, Uncaught>) {
        match self.waiting.borrow_mut().remove(&task) {
            Some(Waiting::Handler(asker)) => {
                let answer = handler::answer(&mut vm.heap(), outcome);
                // Gone when its connection was cut; the handler was left to finish all the same.
                let _ = asker.send(answer);
            }
            Some(Waiting::Event) => {
                self.hearing.set(self.hearing.get() - 1);
                self.heard.notify_one();
                if let Err(uncaught) = outcome {
                    complain(&uncaught);
                }
            }
            Some(Waiting::Race { caller, timer }) => {
                timer.abort();
                self.outstanding.set(self.outstanding.get() - 1);
                let outcome = outcome.map_err(|uncaught| rethrown(vm, &uncaught));
                vm.resume(caller, outcome);
            }
            None => {
                let mut state = self.state.borrow_mut();
                state.main_ended |= task == self.main;
                if let Err(uncaught) = outcome {
                    complain(&uncaught);
                    state.failed = true;
                    if task == self.main {
                        state.end = Some(1);
                    }
                }
            }
        }
    }

    /// Starts a handler for a request and runs it as far as it goes.
    pub(crate) fn handle(self: &Rc<Machine>, target: RootId, call: &Call) -> oneshot::Receiver<Answer> {
        let (asker, answer) = oneshot::channel();
        {
            let mut vm = self.vm.borrow_mut();
            let callee = vm.rooted(target);
            let args = handler::arguments(&mut vm.heap(), callee, call);
            match vm.spawn(callee, &args) {
                Ok(task) => {
                    self.waiting.borrow_mut().insert(task, Waiting::Handler(asker));
                }
                Err(error) => {
                    let message = vm.heap().display(error);
                    let _ = asker.send(Answer::Failed(format!("error: {message}")));
                    return answer;
                }
            }
        }
        self.pump();
        answer
    }

    /// Calls a job with what an event tells, in a task of its own.
    pub(crate) fn hear(self: &Rc<Machine>, job: RootId, data: &str) {
        {
            let mut vm = self.vm.borrow_mut();
            let callee = vm.rooted(job);
            let data = vm.heap().str(data);
            match vm.spawn(callee, &[data]) {
                Ok(task) => {
                    self.hearing.set(self.hearing.get() + 1);
                    self.waiting.borrow_mut().insert(task, Waiting::Event);
                }
                Err(error) => complain(&format_args!("error: {}", vm.heap().display(error))),
            }
        }
        self.pump();
    }

    /// Waits until no more than so many of those tasks are under way.
    pub(crate) async fn heard_at_most(&self, most: usize) {
        while self.hearing.get() > most {
            self.heard.notified().await;
        }
    }

    /// Calls `job` in a task of its own for the task `caller`, which gets its outcome, or a time-out error after `limit`.
    pub(crate) fn race(
        self: &Rc<Machine>,
        vm: &mut Vm,
        caller: TaskId,
        job: Value,
        limit: Duration,
    ) -> Result<(), Value> {
        let task = vm.spawn(job, &[])?;
        let machine = Rc::clone(self);
        let timer = spawn_local(async move {
            sleep(limit).await;
            if machine.waiting.borrow_mut().remove(&task).is_none() {
                return;
            }
            machine.outstanding.set(machine.outstanding.get() - 1);
            // Its end is nobody's business any more; a `cancelled` error it dies of is no news.
            machine.vm.borrow_mut().cancel(task);
            machine.forsake(task);
            machine.resume(caller, |vm| {
                let message = format!("not done after {} ms", limit.as_millis());
                Err(vm.heap().error("timeout", message))
            });
        });
        self.outstanding.set(self.outstanding.get() + 1);
        self.waiting.borrow_mut().insert(task, Waiting::Race { caller, timer: timer.abort_handle() });
        Ok(())
    }

    /// Lets a task end without anybody hearing of it.
    fn forsake(&self, task: TaskId) {
        let (nobody, _) = oneshot::channel();
        self.waiting.borrow_mut().insert(task, Waiting::Handler(nobody));
    }

    /// The main task goes on when its servers have stopped.
    pub(crate) fn serves(&self, task: TaskId) {
        if task == self.main {
            self.state.borrow_mut().main_serves = true;
        }
    }
}

/// What a task died of, to be thrown in another one. The thrown value itself is gone with its task.
fn rethrown(vm: &mut Vm, uncaught: &Uncaught) -> Value {
    match &uncaught.kind {
        Some(kind) => vm.heap().error(kind, &uncaught.message),
        None => vm.heap().str(&uncaught.message),
    }
}

/// An error of the system's as people read it.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::StorageFull => "no space left on the device".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}

/// Message and trace on standard error, where nothing can be done if it is closed.
pub(crate) fn complain(what: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
