//! `run`: one program on one thread, from its start to its exit code.
//!
//! The loop waits for code that is ready to run and for signals; sockets and timers are tasks of the runtime and pump
//! the machine themselves. It alone decides when the program is over.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rads_vm::{Limits, Program, Vm};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::library::natives;
use crate::loading::Loaded;
use crate::machine::{Machine, World, complain};
use crate::modules::constellation::{Agent, Way};
use crate::modules::process::random_seed;

/// How long requests in flight may take after the first SIGTERM: a little less than the ten seconds after which a star
/// is killed by default, so that the program still ends by itself.
const GRACE: Duration = Duration::from_secs(9);

/// The exit code when the grace ended before the requests did: that of a process ended by SIGTERM.
const CUT_OFF: i32 = 128 + 15;

/// What a program is started with.
pub struct RunOptions {
    /// What `env.args()` gives.
    pub args: Vec<String>,
    /// What `env.get` and `env.all` see; the environment of the process is not consulted.
    pub env: BTreeMap<String, String>,
    pub limits: Limits,
    /// Where relative paths start; imports too, when the program was loaded from here.
    pub root: PathBuf,
    /// Written (one byte) and closed when the program's first server listens.
    pub ready: Option<OwnedFd>,
    pub output: Output,
    /// How `constellation` reaches the agent.
    pub way: Way,
}

/// What becomes of a program whose output cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It is what the program is run for: it ends with 1, and says why. A reader that has gone away is no failure.
    Wanted,
    /// The program serves on.
    Offered,
}

/// Runs a program to its end and gives the exit code: 0, 1 after an uncaught error, what `process.exit` says, or 143
/// when a second SIGTERM or the end of the grace cut requests off. SIGTERM and SIGINT are handled as long as it runs.
pub fn run(loaded: Loaded, options: RunOptions) -> i32 {
    let runtime = match AHEAD.take().map_or_else(new_loop, Ok) {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format_args!("error: cannot start the event loop: {error}"));
            return 1;
        }
    };
    let code = runtime.block_on(drive(loaded, options));
    // A thread may still wait for standard input; it must not hold the exit up.
    runtime.shutdown_background();
    code
}

thread_local! {
    /// A loop made before there was a program: the next one of this thread takes it.
    static AHEAD: RefCell<Option<LocalRuntime>> = const { RefCell::new(None) };
}

fn new_loop() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Makes the loop that the next [`run`] of this thread takes, and has it run a program of a few steps first. Whether that
/// came to its end.
pub(crate) fn rehearse(program: Program) -> bool {
    // The program itself will tell why there is none.
    let Ok(runtime) = new_loop() else { return false };
    let options = RunOptions {
        args: Vec::new(),
        env: BTreeMap::new(),
        limits: Limits::default(),
        root: PathBuf::new(),
        ready: None,
        output: Output::Offered,
        way: Way::Star,
    };
    let ended = runtime.block_on(async {
        let machine = machine(Arc::new(program), options);
        machine.pump();
        yield_now().await;
        let state = machine.state();
        state.main_ended && !state.failed
    });
    AHEAD.set(Some(runtime));
    ended
}

fn machine(program: Arc<Program>, options: RunOptions) -> Rc<Machine> {
    let mut vm = Vm::new(program, natives(), options.limits);
    vm.seed(random_seed());
    let world = World {
        root: options.root,
        env: options.env,
        args: options.args,
        servers: Default::default(),
        databases: Default::default(),
        ready: options.ready.into(),
        output: options.output,
        agent: Agent::new(options.way),
    };
    Machine::new(vm, world)
}

async fn drive(loaded: Loaded, options: RunOptions) -> i32 {
    let machine = machine(loaded.program, options);
    let mut signals = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => [terminate, interrupt],
        (Err(error), _) | (_, Err(error)) => {
            complain(&format_args!("error: cannot wait for signals: {error}"));
            return 1;
        }
    };
    machine.pump();
    let mut grace_ends: Option<Instant> = None;
    loop {
        if let Some(code) = verdict(&machine, grace_ends.is_some()) {
            return code;
        }
        match next(&machine, &mut signals, grace_ends).await {
            Event::Work => {
                // Sockets and timers first, else a busy script would never hear of them.
                yield_now().await;
                machine.pump();
            }
            Event::Stop if grace_ends.is_none() => {
                if !machine.world.servers.any_open() {
                    return 0;
                }
                machine.world.servers.stop_all();
                grace_ends = Some(Instant::now() + GRACE);
            }
            Event::Stop | Event::GraceEnded => {
                return if machine.world.servers.any_open() { CUT_OFF } else { 0 };
            }
        }
    }
}

/// The exit code, once the program is over.
fn verdict(machine: &Machine, stopping: bool) -> Option<i32> {
    let state = machine.state();
    if state.end.is_some() {
        return state.end;
    }
    if machine.world.servers.any_open() || !state.idle {
        return None;
    }
    // Told to stop, and everything asked was answered. A main task that waited for that may have more to do; one that
    // did not would go on for ever.
    if stopping && (state.main_ended || !state.main_serves) {
        return Some(0);
    }
    // A message or an event may come at any time.
    if machine.world.agent.listens() && !stopping {
        return None;
    }
    match machine.counts() {
        (0, _) => Some(i32::from(state.failed)),
        (_, 0) => {
            complain(&"error: every task waits for another one, so nothing can happen any more");
            Some(1)
        }
        _ => None,
    }
}

enum Event {
    /// Code is ready to run, or the program may be over.
    Work,
    /// SIGTERM or SIGINT.
    Stop,
    GraceEnded,
}

async fn next(machine: &Rc<Machine>, signals: &mut [Signal; 2], grace_ends: Option<Instant>) -> Event {
    let mut work = pin!(machine.work.notified());
    let mut grace = pin!(grace_ends.map(sleep_until));
    poll_fn(|context| {
        if signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
            return Poll::Ready(Event::Stop);
        }
        if let Some(grace) = grace.as_mut().as_pin_mut()
            && grace.poll(context).is_ready()
        {
            return Poll::Ready(Event::GraceEnded);
        }
        work.as_mut().poll(context).map(|()| Event::Work)
    })
    .await
}
