//! From a bundle to a container that waits for its start, and `run`, which does the rest as well.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use isolate::container::plan::{Kind, Plan};
use isolate::container::{self, Creator, GroupPath, Groups, Limits, Stage, hook};

use super::{Context, exit_code, life};
use crate::cli;
use crate::plan::{self, Bundle, Circumstances, Hooks};
use crate::spec::Spec;
use crate::store::{Folder, Record, Status};

pub(crate) fn create(context: &Context<'_>, args: &cli::Create) -> Result<(), String> {
    make(context, args, args.console_socket.as_deref()).map(drop)
}

/// Creates, starts, waits, deletes.
pub(crate) fn run(context: &Context<'_>, args: &cli::Run) -> Result<u8, String> {
    let mut terminal = None;
    let made = match (args.detach, args.create.console_socket.as_deref()) {
        (false, None) => {
            let pair = UnixStream::pair().map_err(|error| format!("cannot make a socket: {error}"))?;
            let made = make_with(context, &args.create, Some(pair.1))?;
            terminal = made.1.then_some(pair.0);
            made.0
        }
        (_, socket) => make(context, &args.create, socket)?,
    };
    let (folder, pid) = made;
    // The folder's lock is held: nobody comes between.
    if let Err(reason) = life::start_locked(context, &folder) {
        let _ = life::delete_locked(context, &folder, true);
        return Err(reason);
    }
    if args.detach {
        return Ok(0);
    }
    folder.unlock();
    let end = container::attend(pid, terminal)?;
    if !args.keep && folder.lock().is_ok() {
        life::delete_locked(context, &folder, true)?;
    }
    Ok(exit_code(end))
}

/// Makes a container whose terminal, if it has one, goes to a socket's other end.
fn make(context: &Context<'_>, args: &cli::Create, socket: Option<&Path>) -> Result<(Folder, u32), String> {
    let stream = socket.map(connect).transpose()?;
    make_with(context, args, stream).map(|(made, _)| made)
}

pub(crate) fn connect(path: &Path) -> Result<UnixStream, String> {
    UnixStream::connect(path).map_err(|error| format!("cannot connect to `{}`: {error}", path.display()))
}

/// The second part of the result tells whether it has a terminal.
fn make_with(
    context: &Context<'_>,
    args: &cli::Create,
    console: Option<UnixStream>,
) -> Result<((Folder, u32), bool), String> {
    plan::check_id(&args.id)?;
    let at_bundle = |error| format!("the bundle `{}`: {error}", args.bundle.display());
    let bundle = args.bundle.canonicalize().map_err(at_bundle)?;
    let config = bundle.join("config.json");
    let text = fs::read(&config).map_err(|error| format!("cannot read `{}`: {error}", config.display()))?;
    let spec = Spec::parse(&text).map_err(|reason| format!("`{}`: {reason}", config.display()))?;
    let mut judged = plan::bundle(&spec, circumstances(&bundle, &args.id))?;
    judged.plan.root = judged
        .plan
        .root
        .canonicalize()
        .ok()
        .filter(|root| root.is_dir())
        .ok_or_else(|| format!("the root `{}` is no folder", judged.plan.root.display()))?;
    if judged.plan.root == Path::new("/") {
        return Err("the host's own root cannot be a container's".to_owned());
    }
    judged.plan.no_pivot = args.no_pivot;
    judged.plan.new_keyring = !args.no_new_keyring;
    judged.plan.process.preserved = preserved(context, args.preserve_fds);
    let terminal = judged.plan.process.terminal;
    match (terminal, &console, args.console_socket.is_some()) {
        (true, None, _) => return Err("`process.terminal` takes `--console-socket`".to_owned()),
        (false, _, true) => return Err("`--console-socket` is for a `process.terminal`, and there is none".to_owned()),
        _ => {}
    }
    let console = console.filter(|_| terminal);
    let listener = judged.plan.process.filter.as_ref().and_then(|filter| filter.listener.as_deref());
    let notify = listener.map(connect).transpose()?;
    for warning in &judged.warnings {
        context.journal.warn(warning);
    }
    for note in &judged.notes {
        context.journal.debug(note);
    }
    let folder = context.store.create(&args.id)?;
    let making = Making { context, folder: &folder, spec: &spec, judged: &judged, bundle: &bundle };
    let made = folder.put("config.json", &text).and_then(|()| making.make(args, console.as_ref(), notify.as_ref()));
    match made {
        Ok(pid) => Ok(((folder, pid), terminal)),
        Err(reason) => {
            let _ = folder.remove();
            Err(reason)
        }
    }
}

/// Of the descriptors this program was started with, those that go on to the container's: the first `asked` after the
/// standard ones, and before them those a service manager hands over. What is not open is not passed on.
pub(crate) fn preserved(context: &Context<'_>, asked: u32) -> Vec<i32> {
    let passed_on = std::env::var("LISTEN_FDS").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
    let last = i32::try_from(asked.saturating_add(passed_on)).unwrap_or(i32::MAX).saturating_add(2);
    context.inherited.iter().copied().filter(|fd| *fd <= last).collect()
}

pub(crate) fn circumstances<'a>(bundle: &'a Path, id: &'a str) -> Circumstances<'a> {
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    Circumstances {
        bundle,
        id,
        uid: rustix::process::geteuid().as_raw(),
        apparmor: apparmor.is_ok_and(|text| text.starts_with('Y')),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
    }
}

/// A container on its way.
struct Making<'a> {
    context: &'a Context<'a>,
    folder: &'a Folder,
    spec: &'a Spec,
    judged: &'a Bundle,
    bundle: &'a Path,
}

impl Making<'_> {
    /// Makes it; on failure nothing is left of it but its folder.
    fn make(
        &self,
        args: &cli::Create,
        console: Option<&UnixStream>,
        notify: Option<&UnixStream>,
    ) -> Result<u32, String> {
        let judged = self.judged;
        let mut record = Record::new(&args.id, self.bundle, self.spec, judged);
        let asks = self.spec.linux.resources.as_ref().is_some_and(|resources| !resources.devices.is_empty());
        record.groups =
            make_groups(&judged.groups, judged.groups_optional, &judged.limits, &judged.plan, asks, &|text| {
                self.context.journal.warn(&text);
            })?;
        self.folder.save(&record).or_else(|reason| abandon(&record, reason))?;
        let door = self.folder.make_door().or_else(|reason| abandon(&record, reason))?;
        let groups = record.groups.clone();
        let blank = record.clone();
        let state = move |stage: Stage, pid: Option<u32>| blank.state(stage.into(), pid).to_string().into_bytes();
        let order =
            container::Order { plan: &judged.plan, groups: &groups, state: &state, start: &door, console, notify };
        let mut attendant = Attendant {
            context: self.context,
            folder: self.folder,
            record: &mut record,
            hooks: &judged.hooks,
            plan: &judged.plan,
            state: &state,
        };
        let made = container::create(&order, &mut attendant);
        let finished = made.and_then(|pid| {
            record.whole = true;
            let written = args.pid_file.as_deref().map_or(Ok(()), |file| write_pid(file, pid));
            match written.and_then(|()| self.folder.save(&record)) {
                Ok(()) => Ok(pid),
                Err(reason) => {
                    if let Some(process) = container::Process::open(pid) {
                        let _ = process.signal(9);
                        let _ = container::reap_child(pid, true);
                    }
                    container::release_root(&record.root, record.shared_mount);
                    Err(reason)
                }
            }
        });
        finished.or_else(|reason| abandon(&record, reason))
    }
}

fn abandon<T>(record: &Record, reason: String) -> Result<T, String> {
    match record.groups.remove() {
        Ok(()) => Err(reason),
        Err(further) => Err(format!("{reason} (and {further})")),
    }
}

/// Makes the groups and sets their limits, before anything is in them.
fn make_groups(
    path: &GroupPath,
    optional: bool,
    limits: &Limits,
    plan: &Plan,
    asks: bool,
    warn: &dyn Fn(String),
) -> Result<Groups, String> {
    let groups = Groups::make(path, optional)?;
    // An ordinary user can make no device, so there are none to be kept from.
    let user = plan.namespaces.is_apart(Kind::User) && !rustix::process::geteuid().is_root();
    let with_devices = !user && rustix::process::geteuid().is_root();
    if !with_devices && asks {
        warn("device rules are not enforced for an ordinary user, who can make no devices".to_owned());
    }
    match groups.limit(limits, with_devices && !groups.is_empty()) {
        Ok(()) => Ok(groups),
        Err(reason) => {
            groups.remove()?;
            Err(format!("`linux.resources`: {reason}"))
        }
    }
}

/// Whole or not at all: an engine may read it as soon as it is there.
pub(crate) fn write_pid(file: &Path, pid: u32) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot write the number to `{}`: {error}", file.display());
    let name = file.file_name().ok_or_else(|| format!("`{}` is no file", file.display()))?;
    let new = file.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    fs::write(&new, pid.to_string()).and_then(|()| fs::rename(&new, file)).map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(error)
    })
}

/// What this program does while the engine makes the container.
struct Attendant<'a> {
    context: &'a Context<'a>,
    folder: &'a Folder,
    record: &'a mut Record,
    hooks: &'a Hooks,
    plan: &'a Plan,
    state: &'a dyn Fn(Stage, Option<u32>) -> Vec<u8>,
}

impl Creator for Attendant<'_> {
    fn born(&mut self, pid: u32) -> Result<(), String> {
        self.record.groups.enter(pid)?;
        adjust_oom(pid, self.plan.process.oom_score_adj, self.context)?;
        let began = crate::store::start_of(pid).ok_or("the container ended while it was made")?;
        self.record.process = Some((pid, began));
        self.context.journal.debug(&format!("container `{}` is process {pid}", self.record.id));
        self.folder.save(self.record)
    }

    fn furnished(&mut self, pid: u32) -> Result<(), String> {
        // Hooks of version 1.0 of the specification were run at the start and know no container that is being created.
        let named = [
            ("prestart", &self.hooks.prestart, Stage::Created),
            ("createRuntime", &self.hooks.create_runtime, Stage::Creating),
        ];
        for (name, hooks, stage) in named {
            let state = (self.state)(stage, Some(pid));
            for one in hooks {
                hook::run(one, &state).map_err(|reason| format!("hook {name}: {reason}"))?;
            }
        }
        Ok(())
    }

    fn warn(&mut self, text: String) {
        self.context.journal.warn(&text);
    }
}

pub(crate) fn adjust_oom(pid: u32, score: Option<i32>, context: &Context<'_>) -> Result<(), String> {
    let Some(score) = score else { return Ok(()) };
    match fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        Ok(()) => Ok(()),
        // A user may only make it likelier to be chosen.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() => {
            context.journal.warn(&format!("`process.oomScoreAdj` {score} is not enforced: it takes root to lower it"));
            Ok(())
        }
        Err(error) => Err(format!("cannot set `process.oomScoreAdj` to {score}: {error}")),
    }
}

/// For hooks after the start and the end.
pub(crate) fn judged_again(folder: &Folder, record: &Record) -> Result<Bundle, String> {
    let spec = folder.spec()?;
    plan::bundle(&spec, circumstances(&record.bundle, &record.id))
}

/// Whether a container is in a state that a command needs.
pub(crate) fn expect(status: Status, wanted: &[Status], id: &str, deed: &str) -> Result<(), String> {
    match wanted.contains(&status) {
        true => Ok(()),
        false => Err(format!("container `{id}` is {} and cannot be {deed}", status.name())),
    }
}
