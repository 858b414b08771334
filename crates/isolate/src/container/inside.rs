//! The container's own side: from its birth to its program.
//!
//! It is born in its namespaces with all of its creator's rights in them and gives them up step by step. Each step that
//! fails ends it with a reason told to its creator. Once everything stands it says so and waits at a socket: whoever
//! connects and says the word starts the program, and hears why if that does not work.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};
use rustix::process::DumpableBehavior;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::console::Console;
use super::groups::Groups;
use super::identity::{self, Identity};
use super::mounts::{Furnisher, attach, clone_of, clone_of_fd, propagate, propagate_at};
use super::plan::{Attributes, Device, DeviceKind, Kind, Plan, Propagation};
use super::tree::{Proc, Tree, is_folder};
use super::{hook, wire};
use crate::fault::{Because, plain};
use crate::sys::mount::{Change, Reach};
use crate::{network, sys};

/// What the container says to its creator.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// It is in a new user namespace, whose ids are to be mapped.
    MapIds,
    /// Its number on the host.
    Born(u32),
    /// Its mounts are made and its root not yet entered.
    Furnished,
    /// It waits for its start.
    Ready,
    Warning(String),
    Failed(String),
}

/// What its creator answers: go on. `pid` is its number on the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Go {
    pub(super) pid: u32,
}

/// In which state of the container a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Creating,
    Created,
    Running,
    Stopped,
}

/// The text of the container's state in a stage, for hooks.
pub type StateText<'a> = dyn Fn(Stage, Option<u32>) -> Vec<u8> + 'a;

/// What its creator hands it beside the plan.
pub(super) struct Parts<'a> {
    pub(super) plan: &'a Plan,
    pub(super) groups: &'a Groups,
    pub(super) state: &'a StateText<'a>,
    pub(super) start: &'a UnixListener,
    pub(super) console: Option<&'a UnixStream>,
    /// The listener of calls the filter asks about, connected.
    pub(super) notify: Option<&'a UnixStream>,
    pub(super) link: &'a OwnedFd,
    pub(super) mapped: &'a [(usize, OwnedFd)],
    /// Where the mount lies that holds the root.
    pub(super) root_mount: &'a Path,
}

/// The word that starts the program.
pub(super) const START: u8 = b'!';
/// What the reason why it did not start begins with.
pub(super) const HOOK_FAILED: u8 = b'h';
const PROGRAM_FAILED: u8 = b'p';

const FAILED: i32 = 1;

const DEVICE_LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Goes from birth to program.
pub(super) fn run(parts: &Parts<'_>) -> Infallible {
    let give_up = |reason: String| -> ! {
        let _ = wire::send(parts.link.as_fd(), &Word::Failed(reason));
        sys::process::exit(FAILED)
    };
    match prepare(parts) {
        Ok(ready) => wait_and_go(parts, ready),
        Err(reason) => give_up(reason),
    }
}

/// What is left to do at the start.
struct Ready {
    identity: Identity,
    pid: u32,
}

fn prepare(parts: &Parts<'_>) -> Result<Ready, String> {
    let Parts { plan, link, .. } = parts;
    let pid = go(link)?;
    if !plan.namespaces.is_new(Kind::Pid) {
        // Others see this process: its memory and descriptors are not theirs to look into.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .because(|| "cannot close this process's memory".to_owned())?;
    }
    // The cgroup namespace begins at the groups it has just been put into.
    if plan.namespaces.is_new(Kind::Cgroup) {
        sys::namespace::unshare(UnshareFlags::NEWCGROUP).because(|| "cannot make a cgroup namespace".to_owned())?;
    }
    rustix::process::setsid().because(|| "cannot make a session".to_owned())?;
    let warn = |text: String| drop(wire::send(link.as_fd(), &Word::Warning(text)));
    if plan.new_keyring
        && let Err(error) = sys::privilege::new_session_keyring()
    {
        warn(format!("the container keeps its creator's session of keys: {}", plain(&error)));
    }
    rustix::process::umask(Mode::empty());
    let proc = Proc::open()?;
    name_machine(plan)?;
    if plan.namespaces.is_new(Kind::Network) {
        network::furnish().because(|| "cannot switch loopback on".to_owned())?;
    }
    let console = enter_files(parts, pid)?;
    for (path, value) in &plan.sysctl {
        proc.write(&format!("sys/{path}"), value).because(|| format!("cannot set sysctl `{path}` to `{value}`"))?;
    }
    if let Some(domain) = plan.personality {
        sys::schedule::set_personality(domain).because(|| "cannot set the personality".to_owned())?;
    }
    if let Some(console) = console {
        console.give_to(plan.process.uid);
        console.take()?;
    }
    sys::signal::default_all();
    // Nothing of the creator's is held open from here on.
    let keep = [Some(parts.start.as_fd()), Some(link.as_fd()), parts.notify.map(AsFd::as_fd)];
    close_all_but(&plan.process.preserved, keep.into_iter().flatten().chain([proc.fd()]))?;
    let mut identity = Identity::assume(&plan.process, Some(&proc), &warn)?;
    drop(proc);
    if parts.notify.is_some() {
        // Whoever is asked about calls expects to be introduced before the start.
        identity.load_filter(&plan.process, parts.notify, parts.state, pid)?;
    }
    wire::send(link.as_fd(), &Word::Ready).because(|| "cannot report".to_owned())?;
    Ok(Ready { identity, pid })
}

/// Waits for the creator's word to go on. Without a creator there is nobody to exist for.
fn go(link: &OwnedFd) -> Result<u32, String> {
    match wire::receive::<Go>(link.as_fd()) {
        Ok(Go { pid }) => Ok(pid),
        Err(_) => sys::process::exit(FAILED),
    }
}

fn name_machine(plan: &Plan) -> Result<(), String> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).because(|| "cannot set the host name".to_owned())?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).because(|| "cannot set the domain name".to_owned())?;
    }
    Ok(())
}

/// Waits at the door and becomes the program.
fn wait_and_go(parts: &Parts<'_>, ready: Ready) -> Infallible {
    sys::process::close(parts.link.as_fd());
    let Ok(mut starter) = accept(parts.start) else { sys::process::exit(FAILED) };
    // Only the one who connected first is to be heard.
    sys::process::close(parts.start.as_fd());
    let plan = parts.plan;
    let hooks = || -> Result<(), String> {
        for hook in &plan.start_container {
            // Without an environment of its own it has the program's.
            let mut hook = hook.clone();
            hook.env.get_or_insert_with(|| plan.process.env.clone());
            hook::run(&hook, &(parts.state)(Stage::Created, Some(ready.pid)))
                .map_err(|reason| format!("hook startContainer: {reason}"))?;
        }
        Ok(())
    };
    let (kind, reason) = match hooks() {
        Err(reason) => (HOOK_FAILED, reason),
        Ok(()) => {
            let reason = identity::execute(ready.identity, &plan.process, parts.notify, parts.state, ready.pid);
            (PROGRAM_FAILED, reason)
        }
    };
    let _ = starter.write_all(&[&[kind], reason.as_bytes()].concat());
    sys::process::exit(FAILED)
}

/// Someone who says the right word; anything else is no start.
fn accept(door: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (mut starter, _) = match door.accept() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let mut word = [0];
        if starter.read_exact(&mut word).is_ok() && word[0] == START {
            return Ok(starter);
        }
    }
}

pub(super) fn close_all_but<'a>(preserved: &[i32], keep: impl Iterator<Item = BorrowedFd<'a>>) -> Result<(), String> {
    let standard = 0..3;
    let mut keep: Vec<i32> = standard.chain(preserved.iter().copied()).chain(keep.map(|fd| fd.as_raw_fd())).collect();
    keep.sort_unstable();
    keep.dedup();
    sys::process::close_all_but(&mut keep).because(|| "cannot close descriptors".to_owned())
}

/// Makes the container's files and goes among them.
fn enter_files(parts: &Parts<'_>, pid: u32) -> Result<Option<Console>, String> {
    let Parts { plan, link, .. } = parts;
    let apart = plan.namespaces.is_apart(Kind::Mount);
    if plan.namespaces.is_new(Kind::Mount) {
        leave_the_hosts_mounts(plan, parts.root_mount)?;
    }
    let failed = || format!("cannot use the root `{}`", plan.root.display());
    // The root becomes a mount of its own, at its own path, where hooks expect to find it. Another user may not be let
    // through the folders above it, and has been put into it.
    let at = if plan.namespaces.is_new(Kind::Mount) { Path::new(".") } else { &*plan.root };
    let root = clone_of(at, true).because(failed)?;
    propagate(root.as_fd(), Propagation::Private { recursive: false }).because(failed)?;
    let under = Tree::open_root(at).because(failed)?;
    attach(&root, &under.0).because(failed)?;
    let tree = Tree(root);
    let warn = |text: String| drop(wire::send(link.as_fd(), &Word::Warning(text)));
    let furnisher = Furnisher { plan, tree: &tree, groups: parts.groups, mapped: parts.mapped, warn: &warn };
    let sealed = furnisher.mount_all()?;
    let own_devices = plan.mounts.iter().any(|mount| {
        mount.destination.trim_end_matches('/') == "/dev" && matches!(mount.source, super::plan::Source::Bind { .. })
    });
    let mut console = None;
    if !own_devices {
        furnish_devices(plan, &tree)?;
    } else {
        plan.devices.iter().try_for_each(|device| make_device(&tree, device))?;
    }
    if plan.process.terminal {
        console = Some(Console::open(&tree, plan.process.terminal_size, true)?);
    }
    if let Some(folder) = missing_folder(&tree, &plan.process.cwd) {
        // As other runtimes do; it belongs to whoever works in it.
        let made = tree.folder(folder, 0o755).because(|| format!("cannot make the working folder `{folder}`"))?;
        let _ = rustix::fs::chownat(
            &made,
            "",
            Some(Uid::from_raw(plan.process.uid)),
            Some(Gid::from_raw(plan.process.gid)),
            AtFlags::EMPTY_PATH,
        );
    }
    if plan.stop_before_root {
        wire::send(link.as_fd(), &Word::Furnished).because(|| "cannot report".to_owned())?;
        go(link)?;
    }
    for hook in &plan.create_container {
        hook::run(hook, &(parts.state)(Stage::Creating, Some(pid)))
            .map_err(|reason| format!("hook createContainer: {reason}"))?;
    }
    if let (Some(console), Some(socket)) = (&console, parts.console) {
        console.hand_over(socket)?;
    }
    // Opened while the host's are in sight: what is in the container's `/dev` may be anything.
    let covers = Covers::open(plan)?;
    for mount in &sealed {
        seal(mount.as_fd()).because(|| "cannot make a mount read-only".to_owned())?;
    }
    match (plan.namespaces.is_new(Kind::Mount), plan.no_pivot) {
        (true, false) => pivot(&tree)?,
        (true, true) => move_root(&tree)?,
        // Others live among these mounts, and keep theirs: only the view changes.
        (false, _) => {
            rustix::process::fchdir(&tree.0).because(|| "cannot enter the root".to_owned())?;
            rustix::process::chroot(".").because(|| "cannot change the root".to_owned())?;
        }
    }
    rustix::process::chdir("/").because(|| "cannot enter the root".to_owned())?;
    drop(tree);
    let here = Tree::open_root(Path::new("/")).because(|| "cannot enter the root".to_owned())?;
    for path in &plan.read_only_paths {
        make_read_only(&here, path)?;
    }
    for path in &plan.masked_paths {
        covers.mask(&here, path)?;
    }
    // Last: of what cannot be bound there is no view to make read-only.
    if apart && let Some(propagation) = plan.root_propagation {
        propagate_at(Path::new("/"), propagation).because(|| "cannot set the root's propagation".to_owned())?;
    }
    if plan.read_only_root {
        seal(here.fd()).because(|| "cannot make the root read-only".to_owned())?;
        check_read_only(&here.0, "/")?;
    }
    Ok(console)
}

/// What the host mounts later may still reach this namespace, and by default nothing goes back.
fn leave_the_hosts_mounts(plan: &Plan, root_mount: &Path) -> Result<(), String> {
    let failed = || "cannot leave the host's mounts".to_owned();
    let ours = from_the_host(plan);
    propagate_at(Path::new("/"), ours).because(failed)?;
    // What the root is attached to must not be shared, or the host would see it.
    match propagate_at(root_mount, Propagation::Private { recursive: false }) {
        // Out of another user's reach, and not shared already.
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied && !matches!(ours, Propagation::Shared { .. }) =>
        {
            Ok(())
        }
        other => other.because(failed),
    }
}

/// How what the host mounts and what the container mounts reach each other, before the root's own propagation is set.
pub(super) fn from_the_host(plan: &Plan) -> Propagation {
    match plan.root_propagation {
        Some(Propagation::Shared { .. }) => Propagation::Shared { recursive: true },
        None | Some(Propagation::Slave { .. }) => Propagation::Slave { recursive: true },
        // As little as private mounts are they seen elsewhere; and binds of them are to be possible until the end.
        Some(Propagation::Private { .. } | Propagation::Unbindable { .. }) => Propagation::Private { recursive: true },
    }
}

fn pivot(tree: &Tree) -> Result<(), String> {
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .because(|| "cannot open the host's root".to_owned())?;
    rustix::process::fchdir(&tree.0).because(|| "cannot enter the root".to_owned())?;
    rustix::process::pivot_root(".", ".").because(|| "cannot change the root".to_owned())?;
    rustix::process::fchdir(&old).because(|| "cannot leave the host's files".to_owned())?;
    // Taking the old root away must not be seen where it came from.
    propagate_at(Path::new("."), Propagation::Slave { recursive: true })
        .because(|| "cannot leave the host's mounts".to_owned())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).because(|| "cannot leave the host's files".to_owned())
}

/// Where the host's root cannot be pivoted from: the container's is moved on top of it.
fn move_root(tree: &Tree) -> Result<(), String> {
    let failed = || "cannot change the root".to_owned();
    rustix::process::fchdir(&tree.0).because(failed)?;
    let root =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).because(failed)?;
    attach(&tree.0, &root).because(failed)?;
    rustix::process::chroot(".").because(failed)
}

fn seal(mount: BorrowedFd<'_>) -> io::Result<()> {
    let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
    sys::mount::change(mount, change, Reach::ThisMount)
}

/// The working folder, if it has to be made.
fn missing_folder<'a>(tree: &Tree, cwd: &'a str) -> Option<&'a str> {
    match tree.find(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(cwd),
        _ => None,
    }
}

fn furnish_devices(plan: &Plan, tree: &Tree) -> Result<(), String> {
    let listed = |path: &str| plan.devices.iter().any(|device| device.path == path);
    for device in super::devices::usual().iter().filter(|device| !listed(&device.path)) {
        make_device(tree, device)?;
    }
    plan.devices.iter().try_for_each(|device| make_device(tree, device))?;
    let dev = tree.folder("/dev", 0o755).because(|| "cannot make `/dev`".to_owned())?;
    let link = |target: &str, name: &str| match rustix::fs::symlinkat(target, &dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).because(|| format!("cannot make `/dev/{name}`")),
    };
    for (target, name) in DEVICE_LINKS {
        link(target, name)?;
    }
    if Path::new("/proc/kcore").exists() {
        link("/proc/kcore", "core")?;
    }
    // A terminal master belongs to the container's own terminals, whatever the root brings.
    let _ = rustix::fs::unlinkat(&dev, "ptmx", AtFlags::empty());
    link("pts/ptmx", "ptmx")
}

/// Makes a device, or where the user may not, binds the host's.
fn make_device(tree: &Tree, device: &Device) -> Result<(), String> {
    let failed = || format!("cannot make the device `{}`", device.path);
    let (folder, name) = tree.above(&device.path).because(failed)?;
    let kind = match device.kind {
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    };
    let number = match device.kind {
        DeviceKind::Fifo => 0,
        _ => rustix::fs::makedev(device.major, device.minor),
    };
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match rustix::fs::mknodat(&folder, &*name, kind, mode, number) {
        Ok(()) => {
            let (uid, gid) = (Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)));
            rustix::fs::chownat(&folder, &*name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).because(failed)
        }
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(&folder, &*name, AtFlags::SYMLINK_NOFOLLOW).because(failed)?;
            let same =
                FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == number);
            // An earlier container of the same user left the place where the host's is bound.
            let bound = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0;
            match (same, bound) {
                (true, _) => Ok(()),
                (false, true) if bind_device(&folder, &name, device).is_ok() => Ok(()),
                _ => Err(format!("`{}` is there and is not that device", device.path)),
            }
        }
        Err(Errno::PERM) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&folder, &*name, flags, Mode::from_raw_mode(0o644)).because(failed)?;
            bind_device(&folder, &name, device).because(failed)
        }
        Err(error) => Err(error).because(failed),
    }
}

/// The host's device of that path over an empty file.
fn bind_device(folder: &OwnedFd, name: &str, device: &Device) -> io::Result<()> {
    let host = clone_of(Path::new(&device.path), false)?;
    let stat = rustix::fs::fstat(&host)?;
    if stat.st_rdev != rustix::fs::makedev(device.major, device.minor) {
        return Err(io::Error::other("the host has another device there"));
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    attach(&host, &target)
}

/// What hides a path: over a file a device that is always empty, over a folder an empty one.
struct Covers {
    null: Option<OwnedFd>,
    /// Whether it lies over something already.
    used: Cell<bool>,
}

impl Covers {
    fn open(plan: &Plan) -> Result<Self, String> {
        if plan.masked_paths.is_empty() {
            return Ok(Self { null: None, used: Cell::new(false) });
        }
        let failed = || "cannot use `/dev/null` to mask with".to_owned();
        let null = clone_of(Path::new("/dev/null"), false).because(failed)?;
        let stat = rustix::fs::fstat(&null).because(failed)?;
        let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3);
        match is_null {
            true => Ok(Self { null: Some(null), used: Cell::new(false) }),
            false => Err("the host's `/dev/null` is something else".to_owned()),
        }
    }

    /// Hides what is at a path, if anything is, and makes sure that it does not show through.
    fn mask(&self, tree: &Tree, path: &str) -> Result<(), String> {
        let failed = || format!("cannot mask `{path}`");
        let target = match tree.find(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            other => other.because(failed)?,
        };
        let cover = match (is_folder(target.as_fd()).because(failed)?, &self.null) {
            (true, _) => empty_folder().because(failed)?,
            // Kernels before 6.15 copy only what is attached: so the first is the mount itself.
            (false, Some(null)) => match self.used.replace(true) {
                true => clone_of_fd(null.as_fd()).because(failed)?,
                false => rustix::io::fcntl_dupfd_cloexec(null, 0).because(failed)?,
            },
            (false, None) => return Err(failed()),
        };
        attach(&cover, &target).because(failed)?;
        let look = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).because(failed);
        match look(tree.find(path).because(failed)?.as_fd())? == look(cover.as_fd())? {
            true => Ok(()),
            false => Err(format!("`{path}` shows through its mask")),
        }
    }
}

fn empty_folder() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", "4k"), ("nr_inodes", "2"), ("mode", "0755")] {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn make_read_only(tree: &Tree, path: &str) -> Result<(), String> {
    let failed = || format!("cannot make `{path}` read-only");
    let target = match tree.find(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        other => other.because(failed)?,
    };
    let view = clone_of_fd(target.as_fd()).because(failed)?;
    let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
    sys::mount::change(view.as_fd(), change, Reach::WholeTree).because(failed)?;
    attach(&view, &target).because(failed)?;
    check_read_only(&tree.find(path).because(failed)?, path)
}

fn check_read_only(fd: &OwnedFd, path: &str) -> Result<(), String> {
    let flags = rustix::fs::fstatvfs(fd).because(|| format!("cannot look at `{path}`"))?.f_flag;
    match flags.contains(StatVfsMountFlags::RDONLY) {
        true => Ok(()),
        false => Err(format!("`{path}` is not read-only")),
    }
}
