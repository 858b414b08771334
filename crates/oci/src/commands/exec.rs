//! A further process in a running container.

use std::fs;
use std::os::unix::net::UnixStream;

use isolate::container::plan::Process;
use isolate::container::{self, Creator, Errand, Stage};

use super::create::{adjust_oom, circumstances, connect, expect, judged_again, preserved, write_pid};
use super::{Context, exit_code};
use crate::cli;
use crate::plan;
use crate::spec;
use crate::store::{Record, Status};

pub(crate) fn exec(context: &Context<'_>, args: &cli::Exec) -> Result<u8, String> {
    let folder = context.store.find(&args.id)?;
    let record = folder.load()?;
    let (status, pid) = folder.status(&record);
    let wanted: &[Status] = match args.ignore_paused {
        true => &[Status::Created, Status::Running, Status::Paused],
        false => &[Status::Created, Status::Running],
    };
    expect(status, wanted, &args.id, "entered")?;
    let pid = pid.ok_or_else(|| format!("container `{}` has ended", args.id))?;
    let spec = folder.spec()?;
    let mut warnings = Vec::new();
    let described = describe(args, &spec)?;
    let mut process = plan::process(&described, circumstances(&record.bundle, &args.id), &mut warnings)?;
    warnings.iter().for_each(|warning| context.journal.warn(warning));
    let judged = judged_again(&folder, &record)?;
    process.filter = judged.plan.process.filter;
    process.memory_policy = judged.plan.process.memory_policy;
    process.preserved = preserved(context, args.preserve_fds);
    if let Some(affinity) = &described.exec_cpu_affinity {
        if !affinity.initial.is_empty() {
            let cpus = plan::affinity(&affinity.initial)?;
            run_on(&cpus)?;
            context.journal.debug(&format!("initial affinity: {}", mask(&cpus)));
        }
        if !affinity.last.is_empty() {
            process.cpus = plan::affinity(&affinity.last)?;
        }
    }
    let listener = process.filter.as_ref().and_then(|filter| filter.listener.as_deref());
    let notify = listener.map(connect).transpose()?;
    let (console, terminal) = match (process.terminal, &args.console_socket, args.detach) {
        (false, Some(_), _) => return Err("`--console-socket` is for a terminal, and none is asked for".to_owned()),
        (false, None, _) => (None, None),
        (true, Some(socket), _) => (Some(connect(socket)?), None),
        (true, None, true) => return Err("a terminal with `--detach` takes `--console-socket`".to_owned()),
        (true, None, false) => {
            let (ours, theirs) = UnixStream::pair().map_err(|error| format!("cannot make a socket: {error}"))?;
            (Some(theirs), Some(ours))
        }
    };
    let state = |_: Stage, _: Option<u32>| record.state(status, Some(pid)).to_string().into_bytes();
    let errand = Errand {
        pid,
        process: &process,
        personality: judged.plan.personality,
        console: console.as_ref(),
        notify: notify.as_ref(),
        state: &state,
    };
    let mut attendant = Attendant { context, record: &record, process: &process, below: &args.cgroup };
    let child = container::execute(&errand, &mut attendant)?;
    if let Some(file) = &args.pid_file {
        write_pid(file, child)?;
    }
    if args.detach {
        return Ok(0);
    }
    drop(console);
    container::attend(child, terminal).map(exit_code)
}

/// Until the process is in the container's groups it runs where this program does.
fn run_on(cpus: &[usize]) -> Result<(), String> {
    let mut set = rustix::thread::CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|error| format!("cannot run on the processors of `execCPUAffinity`: {error}"))
}

/// Processors as a number with a bit for each.
fn mask(cpus: &[usize]) -> String {
    let last = cpus.iter().max().copied().unwrap_or(0);
    let digit = |at: usize| (0..4).filter(|bit| cpus.contains(&(at * 4 + bit))).map(|bit| 1 << bit).sum::<u32>();
    let digits = (0..=last / 4).rev().map(|at| format!("{:x}", digit(at)));
    format!("0x{}", digits.collect::<String>())
}

/// The process of a file or of the command line; what is not said there is as in the container.
fn describe(args: &cli::Exec, spec: &spec::Spec) -> Result<spec::Process, String> {
    let mut process = match &args.process {
        Some(path) => {
            let text = fs::read(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            spec::read(&text).map_err(|reason| format!("`{}`: {reason}", path.display()))?
        }
        None => {
            let mut process = spec.process.clone().unwrap_or_default();
            process.terminal = false;
            if args.command.is_empty() {
                return Err("there is no program to run: name one, or a file by `--process`".to_owned());
            }
            process
        }
    };
    if !args.command.is_empty() {
        process.args = args.command.clone();
    }
    process.terminal |= args.tty;
    process.no_new_privileges |= args.no_new_privs;
    if let Some(cwd) = &args.cwd {
        process.cwd = cwd.clone();
    }
    if process.cwd.is_empty() {
        process.cwd = "/".to_owned();
    }
    process.env.extend(args.env.iter().cloned());
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile = profile.clone();
    }
    if let Some(label) = &args.process_label {
        process.selinux_label = label.clone();
    }
    if let Some(user) = &args.user {
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("`--user` is UID or UID:GID, not `{user}`"));
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        process.user = spec::User { uid: number(uid)?, gid: number(gid)?, ..spec::User::default() };
    }
    process.user.additional_gids.extend(&args.additional_gids);
    if !args.cap.is_empty() {
        if let Some(unknown) = args.cap.iter().find(|name| plan::capability(name).is_none()) {
            return Err(format!("`--cap`: `{}` is not a capability", unknown.escape_debug()));
        }
        let capabilities = process.capabilities.get_or_insert_default();
        for set in [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted] {
            set.extend(args.cap.iter().cloned());
        }
    }
    Ok(process)
}

struct Attendant<'a> {
    context: &'a Context<'a>,
    record: &'a Record,
    process: &'a Process,
    /// Groups below the container's own, each perhaps for one controller.
    below: &'a [String],
}

impl Creator for Attendant<'_> {
    fn born(&mut self, pid: u32) -> Result<(), String> {
        self.record.groups.enter(pid)?;
        for below in self.below {
            let (controller, path) = match below.split_once(':') {
                Some((controller, path)) => (Some(controller), path),
                None => (None, &**below),
            };
            self.record
                .groups
                .enter_below(pid, controller, path)
                .map_err(|reason| format!("`--cgroup {below}`: {reason}"))?;
        }
        adjust_oom(pid, self.process.oom_score_adj, self.context)
    }

    fn furnished(&mut self, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn warn(&mut self, text: String) {
        self.context.journal.warn(&text);
    }
}
