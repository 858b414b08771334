//! A command, a script or a copy of files inside a star that runs already: behind the same walls, in the same groups.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Uid, WaitId, WaitIdOptions, WaitIdStatus};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::child::{Command, become_user, close_ways_back, enter_workdir, environment, give_up_privileges};
use crate::fault::{Because, plain};
use crate::landlock::Rules;
use crate::nursery::ScriptStart;
use crate::order::{BUNDLE, Launch};
use crate::parcel::{self, Copying};
use crate::record::{Record, Stance};
use crate::seccomp::{Filters, Profile};
use crate::sys::title::Title;
use crate::{memory, star, sys, terminal};

/// A command on its way.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pidfd: OwnedFd,
    pub(crate) pid: u32,
    pub(crate) report: OwnedFd,
}

/// What is done within the star.
#[derive(Clone, Copy)]
pub(crate) enum Task<'a> {
    Run(&'a Launch),
    Copy(&'a Copying),
    /// From within the star's namespaces, but with the host's rights.
    Keep(&'a memory::Target),
}

/// What it reads from and writes to.
pub(crate) enum Streams {
    /// Standard input, output and error.
    Three([OwnedFd; 3]),
    /// A terminal of the star's, whose near side goes by this socket.
    Terminal(OwnedFd),
}

impl Streams {
    pub(crate) fn of(fds: Vec<OwnedFd>) -> Result<Self, String> {
        match <[OwnedFd; 3]>::try_from(fds) {
            Ok(three) => Ok(Self::Three(three)),
            Err(fds) => match <[OwnedFd; 1]>::try_from(fds) {
                Ok([socket]) => Ok(Self::Terminal(socket)),
                Err(_) => Err("three descriptors are needed, or one".to_owned()),
            },
        }
    }

    /// Makes them the standard streams of this process, which is in the star and still its root.
    fn take(&self, stance: &Stance) -> Result<(), String> {
        let failed = || "cannot set the standard streams".to_owned();
        let terminal;
        let [input, output, error] = match self {
            Self::Three([input, output, error]) => [input, output, error],
            Self::Terminal(socket) => {
                terminal = terminal::open(socket.as_fd(), stance)?;
                [&terminal; 3]
            }
        };
        rustix::stdio::dup2_stdin(input).because(failed)?;
        rustix::stdio::dup2_stdout(output).because(failed)?;
        rustix::stdio::dup2_stderr(error).because(failed)
    }
}

/// What to run, and where.
pub(crate) struct Errand<'a> {
    pub(crate) record: &'a Record,
    pub(crate) task: Task<'a>,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) streams: &'a Streams,
    pub(crate) filters: &'a Filters,
    pub(crate) landlock: Option<u32>,
    /// What a script is run with.
    pub(crate) entry: fn(ScriptStart<'_>) -> i32,
    pub(crate) title: Option<&'a Title>,
}

/// Starts the command. Whether it could be executed is known when it ends.
///
/// A process that enters a process namespace has only its children in it. So there are two: one that goes in as far
/// as it can, and its child, which is the command. The first waits for the second and ends as it did.
pub(crate) fn start(errand: &Errand<'_>) -> Result<Running, String> {
    let failed = || "cannot enter the star".to_owned();
    let (report, report_to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).because(failed)?;
    // What keeps a star's memory is no part of the star.
    let keeps = matches!(errand.task, Task::Keep(_));
    let tasks = if keeps { Vec::new() } else { errand.record.groups.tasks().because(failed)? };
    let birthplace = if keeps { None } else { errand.record.groups.birthplace().because(failed)? };
    let star = star::member(errand.record).because(failed)?;
    let limits = limits(errand.record.pid).because(failed)?;
    let give_up = |reason: String| -> Infallible {
        let _ = rustix::io::write(&report_to, reason.as_bytes());
        sys::process::exit(126)
    };
    let go_in = || {
        if let Some(title) = errand.title {
            title.set("rads exec", "rads exec");
        }
        if let Err(reason) = enter(errand, star.as_fd(), &tasks) {
            return give_up(reason);
        }
        let command = sys::process::clone(0, None, || give_up(run(errand, &limits, &report_to)));
        match command.because(failed) {
            Ok((_, pidfd)) => wait_for(&pidfd),
            Err(reason) => give_up(reason),
        }
    };
    let birthplace = birthplace.as_ref().map(AsFd::as_fd);
    let (pid, pidfd) = sys::process::clone(0, birthplace, go_in).because(failed)?;
    Ok(Running { pidfd, pid, report })
}

/// Ends as the command does; see `Running::result`.
fn wait_for(command: &OwnedFd) -> Infallible {
    // What the command has open is its own: nobody is to wait for this process's copies.
    let _ = sys::process::close_all_but(&mut [command.as_raw_fd()]);
    let status = rustix::process::waitid(WaitId::PidFd(command.as_fd()), WaitIdOptions::EXITED);
    sys::process::exit(status.ok().flatten().and_then(code).unwrap_or(126))
}

fn code(status: WaitIdStatus) -> Option<i32> {
    status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal))
}

impl Running {
    /// Sends a signal to the command and the rest of its process group. When that ends it, the process that waits for it ends by
    /// itself.
    pub(crate) fn signal(&self, signal: i32) {
        let pid = self.pid;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for command in children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()) {
            // Before it has its own group, itself. It may have ended, which is what is wanted.
            if sys::signal::kill(-command, signal).is_err() {
                let _ = sys::signal::kill(command, signal);
            }
        }
    }

    /// Its exit code once it has ended, 128 and the signal's number if one ended it; or why it never ran.
    pub(crate) fn result(self) -> Result<i32, String> {
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        let mut reason = [0; 1024];
        match rustix::io::read(&self.report, &mut reason) {
            Ok(length) if length > 0 => return Err(String::from_utf8_lossy(&reason[..length]).into_owned()),
            _ => {}
        }
        let status = status.ok().flatten().ok_or("the command's end was not seen")?;
        code(status).ok_or_else(|| "the command's end was not seen".to_owned())
    }
}

/// Joins the star's groups and namespaces. The user namespace comes with the others: in it lie the rights to enter them.
fn enter(errand: &Errand<'_>, star: BorrowedFd<'_>, tasks: &[OwnedFd]) -> Result<(), String> {
    for group in tasks {
        rustix::io::write(group, b"0").because(|| "cannot join the star's cgroup".to_owned())?;
    }
    let mut spaces = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::CONTROL_GROUP;
    if errand.record.network != model::Network::Host {
        spaces |= ThreadNameSpaceType::NETWORK;
    }
    if matches!(errand.task, Task::Keep(_)) {
        spaces.remove(ThreadNameSpaceType::USER);
        return move_into_thread_name_spaces(star, spaces).because(|| "cannot enter the star".to_owned());
    }
    move_into_thread_name_spaces(star, spaces).because(|| "cannot enter the star".to_owned())?;
    let refused = || "cannot take the star's user id".to_owned();
    if errand.record.slot.is_some() {
        rustix::thread::set_thread_groups(&[]).because(refused)?;
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).because(refused)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).because(refused)
}

/// What each process of the star may use is what the command may use.
fn limits(pid: u32) -> io::Result<[(Resource, Rlimit); 3]> {
    let limit = |resource| sys::process::rlimit(pid, resource).map(|limit| (resource, limit));
    Ok([limit(Resource::Core)?, limit(Resource::Nofile)?, limit(Resource::Nproc)?])
}

/// The command's own side; returns only with the reason why nothing was executed.
fn run(errand: &Errand<'_>, limits: &[(Resource, Rlimit)], report: &OwnedFd) -> String {
    let environment = environment(errand.env);
    let stance = &errand.record.stance;
    let prepare = || -> Result<(), String> {
        if matches!(errand.task, Task::Copy(_)) {
            // What passes through it is for the star's files and the user, and its streams are for nobody else to write to.
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .because(|| "cannot close the copy's memory".to_owned())?;
        }
        rustix::process::setsid().because(|| "cannot make a session".to_owned())?;
        enter_workdir(stance)?;
        errand.streams.take(stance)?;
        if rustix::termios::isatty(rustix::stdio::stdin()) {
            // So that ^C reaches what runs in it, and a shell has its jobs.
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
                .because(|| "cannot take the terminal".to_owned())?;
        }
        sys::process::close_all_but(&mut [0, 1, 2, report.as_raw_fd()])
            .because(|| "cannot close descriptors".to_owned())?;
        close_ways_back(&stance.weakened.capabilities)?;
        for (resource, limit) in limits {
            let failed = || "cannot take over the star's limits".to_owned();
            rustix::process::setrlimit(*resource, *limit).because(failed)?;
        }
        errand.landlock.map(Rules::usual).transpose()?.map_or(Ok(()), |rules| rules.restrict(stance))?;
        become_user(stance)?;
        let profile = match errand.task {
            Task::Run(Launch::Script { .. }) => Profile::Script,
            Task::Run(Launch::Command { .. }) | Task::Copy(_) | Task::Keep(_) => Profile::Command,
        };
        give_up_privileges(stance, errand.filters.of(profile))
    };
    let execute = |argv: &[String]| -> Result<Infallible, String> {
        let command = Command::new(argv.iter(), &environment)?;
        let error = sys::exec::replace(&command.candidates, &command.argv, &command.environment);
        cannot_run(&argv[0], &error)
    };
    let run = || match errand.task {
        Task::Run(Launch::Command { argv }) => execute(argv),
        Task::Run(Launch::Script { path }) => run_script(errand.entry, path, &environment, report),
        Task::Copy(copying) => run_copy(copying, report),
        Task::Keep(target) => keep(errand, target, report),
    };
    let prepared = if matches!(errand.task, Task::Keep(_)) { Ok(()) } else { prepare() };
    match prepared.and_then(|()| run()) {
        Err(reason) => reason,
    }
}

/// As shells do it: a line where the program's own would be, and one of two exit codes.
fn cannot_run(program: &str, error: &io::Error) -> ! {
    const NOT_THERE: i32 = 127;
    const NOT_EXECUTABLE: i32 = 126;
    let line = format!("cannot run `{program}`: {}\n", plain(error));
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    sys::process::exit(if error.kind() == io::ErrorKind::NotFound { NOT_THERE } else { NOT_EXECUTABLE })
}

/// No wall is raised around what keeps a memory: it does not run what the star gives it.
fn keep(errand: &Errand<'_>, target: &memory::Target, report: &OwnedFd) -> Result<Infallible, String> {
    rustix::process::setsid().because(|| "cannot make a session".to_owned())?;
    errand.streams.take(&errand.record.stance)?;
    memory::keep(target, report)
}

fn run_script(
    entry: fn(ScriptStart<'_>) -> i32,
    path: &str,
    environment: &BTreeMap<String, String>,
    report: &OwnedFd,
) -> ! {
    sys::process::close(report.as_fd());
    sys::signal::default_all();
    sys::signal::unblock_all();
    sys::signal::ignore(libc::SIGPIPE);
    sys::process::replace_environment(environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let path = Path::new(BUNDLE).join(path);
    let start = ScriptStart { path: &path, args: &[], env: environment, ready_fd: None };
    let code = std::panic::catch_unwind(AssertUnwindSafe(|| entry(start))).unwrap_or(sys::process::PANICKED);
    sys::process::exit(code)
}

fn run_copy(copying: &Copying, report: &OwnedFd) -> ! {
    sys::process::close(report.as_fd());
    sys::signal::default_all();
    sys::signal::unblock_all();
    sys::signal::ignore(libc::SIGPIPE);
    let code = std::panic::catch_unwind(|| parcel::serve(copying)).unwrap_or(sys::process::PANICKED);
    sys::process::exit(code)
}
