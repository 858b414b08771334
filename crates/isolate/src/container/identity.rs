//! Who a process in a container is and what it may do; then it becomes its program.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::birth::limit_resources;
use super::console::send_fd;
use super::inside::{Stage, StateText};
use super::plan::{Capabilities, Filter, Process};
use super::tree::Proc;
use crate::fault::{Because, plain};
use crate::sys;
use crate::sys::privilege::Instruction;
use crate::sys::schedule::SchedulerAttributes;

const SYS_ADMIN: u64 = 1 << 21;
/// How much of the container's `/etc/passwd` is looked through for a home.
const PASSWD_MAX: u64 = 1 << 20;
/// Where programs are looked for when the environment does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is left to do at the very last.
pub(super) struct Identity {
    capabilities: Capabilities,
    program: Option<Vec<Instruction>>,
    /// `None`: there is nothing to run, and the start is refused.
    command: Option<Command>,
}

struct Command {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl Identity {
    /// Takes the process's user, groups, folder, limits and capabilities. Where a filter may be loaded only by an
    /// administrator that one right is kept until it is.
    pub(super) fn assume(process: &Process, proc: Option<&Proc>, warn: &dyn Fn(String)) -> Result<Self, String> {
        let program = process.filter.as_ref().map(|filter| filter.profile.program()).transpose()?;
        let command = match process.args.is_empty() {
            true => None,
            false => Some(Command::new(process)?),
        };
        if !process.cpus.is_empty() {
            let mut set = rustix::thread::CpuSet::new();
            process.cpus.iter().for_each(|&cpu| set.set(cpu));
            let failed = || "cannot run on the processors of `execCPUAffinity`".to_owned();
            rustix::thread::sched_setaffinity(None, &set).because(failed)?;
        }
        if let Some(scheduler) = process.scheduler {
            let attributes = SchedulerAttributes {
                policy: scheduler.policy,
                flags: scheduler.flags,
                nice: scheduler.nice,
                priority: scheduler.priority,
                runtime: scheduler.runtime,
                deadline: scheduler.deadline,
                period: scheduler.period,
                ..SchedulerAttributes::default()
            };
            sys::schedule::set_scheduler(sys::schedule::SELF, attributes)
                .because(|| "cannot set the scheduler".to_owned())?;
        }
        if let Some(policy) = &process.memory_policy {
            sys::schedule::set_memory_policy(policy.mode, &policy.nodes)
                .because(|| "cannot set `linux.memoryPolicy`".to_owned())?;
        }
        if let Some(priority) = process.io_priority {
            sys::schedule::set_io_priority(priority).because(|| "cannot set the I/O priority".to_owned())?;
        }
        if let Some(profile) = &process.apparmor_profile {
            let failed = || format!("cannot use the AppArmor profile `{profile}`");
            let text = format!("exec {profile}");
            let proc = proc.ok_or_else(failed)?;
            match proc.write("self/attr/apparmor/exec", &text) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    proc.write("self/attr/exec", &text).because(failed)?;
                }
                other => other.because(failed)?,
            }
        }
        let capabilities = drop_bounding(&process.capabilities, warn)?;
        // Before the user changes and after: one of them may be refused.
        let first = rustix::process::chdir(&*process.cwd);
        take_user(process)?;
        if first.is_err() {
            rustix::process::chdir(&*process.cwd).because(|| format!("cannot enter `{}`", process.cwd))?;
        }
        let here = rustix::process::getcwd(Vec::new()).because(|| "cannot tell the working folder".to_owned())?;
        if !here.as_bytes().starts_with(b"/") {
            return Err("the working folder is outside the container".to_owned());
        }
        rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
        let late = program.is_some() && !process.no_new_privileges;
        let kept = if late { SYS_ADMIN } else { 0 };
        let now = Capabilities {
            effective: capabilities.effective | kept,
            permitted: capabilities.permitted | kept,
            ..capabilities
        };
        set_capabilities(&now)?;
        if !late {
            raise_ambient(capabilities.ambient)?;
        }
        if process.no_new_privileges {
            rustix::thread::set_no_new_privs(true).because(|| "cannot forbid new privileges".to_owned())?;
        }
        Ok(Self { capabilities, program, command })
    }

    /// Loads the filter and hands its listener over; then the rights that this took are gone.
    pub(super) fn load_filter(
        &mut self,
        process: &Process,
        notify: Option<&UnixStream>,
        state: &StateText<'_>,
        pid: u32,
    ) -> Result<(), String> {
        let (Some(program), Some(filter)) = (self.program.take(), &process.filter) else { return Ok(()) };
        load_filter(&program, filter, notify, state, pid)?;
        if process.no_new_privileges {
            return Ok(());
        }
        set_capabilities(&self.capabilities)?;
        raise_ambient(self.capabilities.ambient)
    }
}

/// Becomes the program, and returns only with the reason why not.
pub(super) fn execute(
    mut identity: Identity,
    process: &Process,
    notify: Option<&UnixStream>,
    state: &StateText<'_>,
    pid: u32,
) -> String {
    let Some(command) = identity.command.take() else {
        return "the configuration has no `process`, so there is nothing to start".to_owned();
    };
    // As late as can be: a limit of files or of memory would be in the way of what comes before.
    if let Err(reason) = limit_resources(process) {
        return reason;
    }
    if let Err(reason) = identity.load_filter(process, notify, state, pid) {
        return reason;
    }
    let Command { candidates, argv, environment } = &command;
    let error = sys::exec::replace(candidates, argv, environment);
    format!("cannot run `{}`: {}", argv[0].to_string_lossy(), plain(&error))
}

fn load_filter(
    program: &[Instruction],
    filter: &Filter,
    notify: Option<&UnixStream>,
    state: &StateText<'_>,
    pid: u32,
) -> Result<(), String> {
    let flags = match notify {
        Some(_) => filter.flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32,
        None => filter.flags,
    };
    // Made before the filter stands: afterwards hardly anything may be allowed.
    let message = notify.map(|_| notice(filter, state, pid));
    let listener = sys::privilege::filter_calls_with(program, flags)
        .because(|| "cannot load the system call filter".to_owned())?;
    match (notify, listener, message) {
        (Some(socket), Some(listener), Some(message)) => {
            send_fd(socket, &message, &listener).because(|| "cannot hand the filter's listener over".to_owned())
        }
        _ => Ok(()),
    }
}

/// The container process state of the specification.
fn notice(filter: &Filter, state: &StateText<'_>, pid: u32) -> Vec<u8> {
    let state = String::from_utf8_lossy(&state(Stage::Creating, Some(pid))).into_owned();
    let metadata: String = filter.metadata.chars().flat_map(escape).collect();
    format!(
        "{{\"ociVersion\":\"1.2.0\",\"fds\":[\"seccompFd\"],\"pid\":{pid},\"metadata\":\"{metadata}\",\"state\":{state}}}"
    )
    .into_bytes()
}

/// A character of a JSON string.
fn escape(character: char) -> Vec<char> {
    match character {
        '"' | '\\' => vec!['\\', character],
        control if (control as u32) < 0x20 => format!("\\u{:04x}", control as u32).chars().collect(),
        other => vec![other],
    }
}

/// Takes from the bounding set what is not in the plan; what this process does not have itself it cannot give.
fn drop_bounding(wanted: &Capabilities, warn: &dyn Fn(String)) -> Result<Capabilities, String> {
    let have = rustix::thread::capabilities(None).because(|| "cannot tell the capabilities".to_owned())?;
    let have = have.permitted.bits();
    for number in 0..64u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if wanted.bounding & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know, as all after it.
            Err(Errno::INVAL) => break,
            other => other.because(|| "cannot drop capabilities".to_owned())?,
        }
    }
    let lacking = (wanted.permitted | wanted.effective) & !have;
    if lacking != 0 {
        warn(format!("capabilities this process does not have itself are not given (mask {lacking:#x})"));
    }
    let Capabilities { bounding, effective, permitted, inheritable, ambient } = *wanted;
    let permitted = permitted & have;
    Ok(Capabilities {
        bounding,
        effective: effective & permitted,
        permitted,
        inheritable: inheritable & have,
        ambient: ambient & permitted & inheritable,
    })
}

fn take_user(process: &Process) -> Result<(), String> {
    let refused = || format!("cannot take the user {}:{}", process.uid, process.gid);
    // The kernel would leave what it is.
    if [process.uid, process.gid].iter().chain(&process.additional_gids).any(|id| *id == u32::MAX) {
        return Err(refused());
    }
    rustix::thread::set_keep_capabilities(true).because(refused)?;
    let groups: Vec<Gid> = process.additional_gids.iter().map(|&gid| Gid::from_raw(gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // Where a user's namespace may not drop groups, none can be asked for.
        Err(Errno::PERM) if groups.is_empty() => {}
        other => other.because(|| "cannot take the additional groups".to_owned())?,
    }
    let gid = Gid::from_raw(process.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).because(refused)?;
    let uid = Uid::from_raw(process.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).because(refused)?;
    rustix::thread::set_keep_capabilities(false).because(refused)
}

fn set_capabilities(wanted: &Capabilities) -> Result<(), String> {
    let set = |bits| CapabilitySet::from_bits_retain(bits);
    let sets = CapabilitySets {
        effective: set(wanted.effective),
        permitted: set(wanted.permitted),
        inheritable: set(wanted.inheritable),
    };
    rustix::thread::set_capabilities(None::<Pid>, sets).because(|| "cannot set the capabilities".to_owned())
}

fn raise_ambient(ambient: u64) -> Result<(), String> {
    let failed = || "cannot raise ambient capabilities".to_owned();
    for number in (0..64).filter(|number| ambient & (1 << number) != 0) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(capability, true).because(failed)?;
    }
    Ok(())
}

impl Command {
    fn new(process: &Process) -> Result<Self, String> {
        let text = |text: &str| CString::new(text).map_err(|_| "an argument holds a NUL byte".to_owned());
        let mut variables: BTreeMap<&str, &str> = BTreeMap::new();
        let mut order = Vec::new();
        for variable in &process.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            if variables.insert(name, value).is_none() {
                order.push(name);
            }
        }
        let home = match variables.contains_key("HOME") {
            true => None,
            false => Some(home_of(process.uid).unwrap_or_else(|| "/".to_owned())),
        };
        let mut environment: Vec<CString> =
            order.iter().map(|name| text(&format!("{name}={}", variables[name]))).collect::<Result<_, _>>()?;
        if let Some(home) = home {
            environment.push(text(&format!("HOME={home}"))?);
        }
        let program = process.args.first().filter(|program| !program.is_empty()).ok_or("`process.args` is empty")?;
        let candidates = match program.contains('/') {
            true => vec![text(program)?],
            false => {
                let path = variables.get("PATH").copied().unwrap_or(USUAL_PATH);
                // An empty part is the working folder, as the C library has it.
                let folder = |part: &str| if part.is_empty() { ".".to_owned() } else { part.to_owned() };
                path.split(':').map(|part| text(&format!("{}/{program}", folder(part)))).collect::<Result<_, _>>()?
            }
        };
        let argv = process.args.iter().map(|argument| text(argument)).collect::<Result<_, _>>()?;
        Ok(Self { candidates, argv, environment })
    }
}

/// A user's home by the container's own list of users.
fn home_of(uid: u32) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::open("/etc/passwd", flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return None;
    }
    let lines = BufReader::new(File::from(file).take(PASSWD_MAX)).lines().map_while(Result::ok);
    let uid = uid.to_string();
    lines
        .filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let found = fields.next()? == uid;
            let home = fields.nth(2)?;
            (found && home.starts_with('/')).then(|| home.to_owned())
        })
        .next()
}
