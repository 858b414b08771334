//! The star's own side of its start: from the moment it is cloned until its program runs.
//!
//! It is born in its namespaces but still sees what the nursery sees. Step by step it gives all of that up: its groups,
//! its files, its ids, its descriptors; then, with its order, its privileges and most system calls. Each step that fails ends it with the reason
//! on a pipe. The order matters: what needs a privilege comes before that privilege is dropped.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::path::Path;

use model::{Capability, Limits, User, Weakened};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::fault::Because;
use crate::landlock::Rules;
use crate::memory::Restorer;
use crate::nursery::{ScriptStart, StarEntry};
use crate::order::{BUNDLE, Content, Launch, StarOrder};
use crate::overlay::{ETC_FILES, cover_etc};
use crate::points::{Point, Tree};
use crate::record::Stance;
use crate::seccomp::{Filters, Profile};
use crate::sys::privilege::Instruction;
use crate::sys::title::Title;
use crate::{init, lay, network, packet, sys, terminal};

/// First byte on the report pipe: every wall stands and the program runs.
pub(crate) const STANDS: u8 = b'+';
/// First byte on the report pipe: it failed, and the rest says why.
pub(crate) const FAILED: u8 = b'-';

/// Exit code of a star whose walls could not be raised; nobody sees it but in the host's process accounting.
const NOT_STARTED: i32 = 125;

/// Parts of /proc that tell of the host or of the kernel's memory.
const PRIVATE_PROC: [&str; 13] = [
    "acpi",
    "asound",
    "interrupts",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "timer_list",
];

/// A part of /proc and what covers it.
pub(crate) struct Masked {
    name: &'static str,
    /// Of the star's root: an empty folder, or a device that is always empty.
    cover: &'static str,
}

/// What there is to mask on this machine.
pub(crate) fn masked_proc() -> Vec<Masked> {
    let mask = |name| {
        let metadata = std::fs::metadata(Path::new("/proc").join(name)).ok()?;
        Some(Masked { name, cover: if metadata.is_dir() { "sys" } else { "dev/null" } })
    };
    PRIVATE_PROC.into_iter().filter_map(mask).collect()
}

/// What the parent has prepared for a protostar.
pub(crate) struct Shell<'a> {
    /// Version 1 groups to join.
    pub(crate) tasks: Vec<OwnedFd>,
    /// `GO` once the ids are mapped, then a `Briefing`, then `GO` once the star's limits are set and its record is on disk.
    /// Closed before that if the parent dies or thinks better of it.
    pub(crate) orders: OwnedFd,
    pub(crate) report: OwnedFd,
    /// Where the exit status is noted, for a nursery that is not the parent.
    pub(crate) exit_note: OwnedFd,
    pub(crate) root: OwnedFd,
    /// For a root of the star's own: what goes to its `/dev`.
    pub(crate) devices: Option<OwnedFd>,
    /// Mounted at /run; its `tmp` and `shm` at /tmp and /dev/shm.
    pub(crate) scratch: BorrowedFd<'a>,
    /// Mounted at /tmp instead, when it has a disk.
    pub(crate) tmp: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Whether it was born in a network namespace that nobody has furnished.
    pub(crate) own_network: bool,
    /// Whether the groups of the parent can be given up: not without privileges on the host.
    pub(crate) drop_groups: bool,
    /// Whether it filters system calls from the start, as every star will that does not do without.
    pub(crate) filter_ahead: bool,
    /// Whether there is time for rehearsals: nobody waits for it.
    pub(crate) ahead: bool,
    /// Whether it is to go through a script's motions then.
    pub(crate) rehearse: bool,
    pub(crate) masked: &'a [Masked],
    pub(crate) filters: &'a Filters,
    pub(crate) landlock: Option<u32>,
    /// What it keeps of its rights over its own namespaces: nothing but where an order asks for it.
    pub(crate) capabilities: &'a BTreeSet<Capability>,
    /// The number of the process that brings its memory back, if it goes on from one.
    pub(crate) restorer: Option<u32>,
    pub(crate) entry: StarEntry,
    pub(crate) title: Option<Title>,
}

/// The packet that makes a protostar a star. Beside it come detached mounts for the order's `places`, then what its memory is
/// brought back with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Briefing<'a> {
    pub(crate) order: Cow<'a, StarOrder>,
    /// Most processes of the star, where no group limits them.
    pub(crate) processes: Option<u64>,
}

/// A folder with CRIU, one with its images, and its log.
pub(crate) const FDS_OF_MEMORY: usize = 3;

/// What the parent sends when it has done its part.
pub(crate) const GO: &[u8] = b"+";

/// Goes from clone to program and ends with it.
pub(crate) fn run(shell: &Shell<'_>) -> ! {
    show_as(shell, "rads protostar", "protostar");
    let fail = |reason: String| -> ! {
        say(&shell.report, FAILED, &reason);
        sys::process::exit(NOT_STARTED)
    };
    let Raised { rules, restorer } = match raise_walls(shell) {
        Ok(raised) => raised,
        Err(reason) => fail(reason),
    };
    if shell.ahead {
        rehearse_order();
    }
    let of_script = match shell.rehearse.then(|| rehearse_script(shell)).transpose() {
        Ok(opened) => opened.unwrap_or_default(),
        Err(reason) => fail(reason),
    };
    let mut given = Vec::new();
    let Briefing { order, .. } = match await_order(shell) {
        Ok((briefing, mut fds)) => {
            if restorer.is_some() {
                given = fds.split_off(fds.len().saturating_sub(FDS_OF_MEMORY));
            }
            let of_memory: Vec<_> = restorer.iter().map(Restorer::orders).chain(&given).map(AsFd::as_fd).collect();
            match settle_in(shell, &briefing, fds, rules, &of_script, &of_memory) {
                Ok(()) => briefing,
                Err(reason) => fail(reason),
            }
        }
        Err(reason) => fail(reason),
    };
    let name = order.short_hostname();
    match &order.launch {
        Launch::Script { .. } => show_as(shell, &format!("rads star {name}"), name),
        Launch::Command { .. } => show_as(shell, &format!("rads init of star {name}"), name),
    }
    match &order.launch {
        Launch::Script { path } => run_script(shell, &order, path),
        Launch::Command { argv } => init::run(shell, &order, argv, restorer.map(|restorer| (restorer, given))),
    }
}

fn show_as(shell: &Shell<'_>, line: &str, name: &str) {
    if let Some(title) = shell.title {
        title.set(line, name);
    }
}

pub(crate) fn say(report: &OwnedFd, first: u8, text: &str) {
    let message = [&[first], text.as_bytes()].concat();
    // Shorter than PIPE_BUF or cut by the reader; if nobody reads, nobody wants to know.
    let _ = rustix::io::write(report, &message);
}

fn run_script(shell: &Shell<'_>, order: &StarOrder, path: &str) -> ! {
    let environment = environment(&order.env);
    let begun = init::run_before(order, &environment).and_then(|()| match order.before.is_empty() {
        true => Ok(()),
        // From here on those of a command and this one hold.
        false => load_filter(shell.filters.closing(Profile::Script)),
    });
    if let Err(reason) = begun {
        say(&shell.report, FAILED, &reason);
        sys::process::exit(NOT_STARTED)
    }
    sys::signal::unblock_all();
    // As every Rust program has it: writing to what nobody reads is an error, not the end.
    sys::signal::ignore(libc::SIGPIPE);
    // It is process 1 of its namespace: what commands executed in the star leave behind becomes its children. It has none of
    // its own to wait for, and like this the kernel takes those away that end.
    sys::signal::ignore(libc::SIGCHLD);
    sys::process::replace_environment(environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let path = Path::new(BUNDLE).join(path);
    let start = ScriptStart { path: &path, args: &order.args, env: &environment, ready_fd: None };
    say(&shell.report, STANDS, "");
    sys::process::close(shell.report.as_fd());
    let entry = shell.entry.run;
    let code = std::panic::catch_unwind(AssertUnwindSafe(|| entry(start))).unwrap_or(sys::process::PANICKED);
    note_exit(&shell.exit_note, sys::process::Ended::Code(code & 0xff));
    sys::process::exit(code)
}

/// Leaves the exit status where a later nursery finds it: `c` or `s` and the number.
pub(crate) fn note_exit(note: &OwnedFd, ended: sys::process::Ended) {
    let text = match ended {
        sys::process::Ended::Code(code) => format!("c{code}"),
        sys::process::Ended::Signal(signal) => format!("s{signal}"),
    };
    let _ = rustix::io::write(note, text.as_bytes());
}

/// The order's environment with what every program expects.
pub(crate) fn environment(given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut environment = given.clone();
    let mut add = |name: &str, value: &str| {
        environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    add("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    add("HOME", "/app");
    environment
}

/// What raising walls leaves for the rest of a start.
struct Raised {
    /// What is known so far of the wall around its files.
    rules: Option<Rules>,
    restorer: Option<Restorer>,
}

/// Raises every wall that needs no order.
fn raise_walls(shell: &Shell<'_>) -> Result<Raised, String> {
    join_groups(&shell.tasks)?;
    rustix::process::setsid().because(|| "cannot make a session".to_owned())?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if shell.own_network {
        // The kernel lets only the namespace's own user 0 furnish it, and it has one only now.
        wait_for(&shell.orders);
        network::furnish().because(|| "cannot switch loopback on".to_owned())?;
    }
    // The cgroup namespace begins at the groups just joined.
    sys::namespace::unshare(UnshareFlags::NEWCGROUP).because(|| "cannot make a cgroup namespace".to_owned())?;
    enter_root(shell)?;
    if !shell.own_network {
        // As late as can be: meanwhile the parent has mapped the ids.
        wait_for(&shell.orders);
    }
    become_root_of_the_star(shell.drop_groups)?;
    terminal::mount(shell.drop_groups)?;
    // The last that has the rights which bringing a memory back takes.
    let restorer = shell.restorer.map(|number| Restorer::begin(shell, number)).transpose()?;
    close_ways_back(shell.capabilities)?;
    limit_resources()?;
    sys::signal::default_all();
    take_standard_streams(shell)?;
    let rules = shell.landlock.map(Rules::usual).transpose()?;
    // From here on nothing of the nursery's or of another star's is held open, however long the order takes.
    let of_restorer: Vec<_> = restorer.iter().map(|restorer| restorer.orders().as_fd().as_raw_fd()).collect();
    close_all_but(shell, rules.as_ref(), &of_restorer)?;
    if shell.filter_ahead {
        load_filter(shell.filters.ahead())?;
    }
    Ok(Raised { rules, restorer })
}

/// Waits for the parent's `GO`.
fn wait_for(orders: &OwnedFd) {
    match rustix::io::read(orders, &mut [0; GO.len()]) {
        Ok(1) => {}
        // The parent is gone before anybody knows of this star: it must not be.
        _ => sys::process::exit(NOT_STARTED),
    }
}

fn await_order(shell: &Shell<'_>) -> Result<(Briefing<'static>, Vec<OwnedFd>), String> {
    let mut fds = [PollFd::from_borrowed_fd(shell.orders.as_fd(), PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    match packet::receive(shell.orders.as_fd()) {
        Ok(received) => Ok(received),
        // There will be none: no star, and nobody to tell.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => sys::process::exit(NOT_STARTED),
        Err(error) => Err(error).because(|| "cannot read the star's order".to_owned()),
    }
}

/// Has the entry rehearse. Gives the descriptors that it opened and a script goes on with.
fn rehearse_script(shell: &Shell<'_>) -> Result<BTreeSet<RawFd>, String> {
    let failed = || "cannot tell which descriptors are open".to_owned();
    let before = sys::process::open_descriptors().because(failed)?;
    (shell.entry.rehearse)();
    let after = sys::process::open_descriptors().because(failed)?;
    Ok(after.difference(&before).copied().collect())
}

/// Receives an order that asks for nothing: as with a script's motions, what this touches is this process's own when the
/// true one comes.
pub(crate) fn rehearse_order() {
    let Ok((ours, theirs)) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None) else {
        return;
    };
    let order = StarOrder::nothing();
    let briefing = Briefing { order: Cow::Borrowed(&order), processes: None };
    if packet::send(theirs.as_fd(), &briefing, &[theirs.as_fd()]).is_ok()
        && let Ok((briefing, _)) = packet::receive::<Briefing<'_>>(ours.as_fd())
    {
        environment(&briefing.order.env);
        Stance::of(&briefing.order);
    }
}

/// Becomes the star that is ordered, and gives up what that took.
fn settle_in(
    shell: &Shell<'_>,
    briefing: &Briefing<'_>,
    binds: Vec<OwnedFd>,
    rules: Option<Rules>,
    of_script: &BTreeSet<RawFd>,
    of_memory: &[BorrowedFd<'_>],
) -> Result<(), String> {
    let order = &*briefing.order;
    rustix::system::sethostname(order.short_hostname().as_bytes()).because(|| "cannot set the host name".to_owned())?;
    if shell.devices.is_some() {
        for name in ETC_FILES {
            cover_etc(name).because(|| format!("cannot cover `/etc/{name}`"))?;
        }
    }
    mount_places(order, binds)?;
    if let Some(processes) = briefing.processes {
        let limit = Rlimit { current: Some(processes), maximum: Some(processes) };
        let failed = || "cannot limit the number of processes".to_owned();
        rustix::process::setrlimit(Resource::Nproc, limit).because(failed)?;
    }
    if order.limits.open_files.is_some() {
        limit_open_files(order.limits.open_files)?;
    }
    let of_script = of_script.iter().copied().filter(|_| matches!(order.launch, Launch::Script { .. }));
    let others: Vec<_> = of_memory.iter().map(AsRawFd::as_raw_fd).chain(of_script).collect();
    close_all_but(shell, rules.as_ref(), &others)?;
    let stance = Stance::of(order);
    give_streams(&stance)?;
    rules.map_or(Ok(()), |rules| rules.restrict(&stance))?;
    become_user(&stance)?;
    let profile = match order.launch {
        // What runs before a script is a command: until it has ended, the script has what that needs.
        Launch::Script { .. } if order.before.is_empty() => Profile::Script,
        Launch::Script { .. } | Launch::Command { .. } => Profile::Command,
    };
    give_up_privileges(&stance, shell.filters.closing(profile))?;
    // Meanwhile the parent has set the limits and noted that there is this star.
    wait_for(&shell.orders);
    sys::process::close(shell.orders.as_fd());
    Ok(())
}

/// Closes every descriptor but the standard ones, those that its start takes and these.
fn close_all_but(shell: &Shell<'_>, rules: Option<&Rules>, others: &[RawFd]) -> Result<(), String> {
    let Shell { orders, report, exit_note, .. } = shell;
    let own = [orders, report, exit_note].map(AsFd::as_fd).into_iter().chain(rules.map(AsFd::as_fd));
    let own = own.map(|fd| fd.as_raw_fd());
    let mut keep: Vec<RawFd> = own.chain(others.iter().copied()).chain([0, 1, 2]).collect();
    sys::process::close_all_but(&mut keep).because(|| "cannot close descriptors".to_owned())
}

/// One write per hierarchy. The kernel moves a single-threaded writer of `0` without stopping others.
fn join_groups(tasks: &[OwnedFd]) -> Result<(), String> {
    for group in tasks {
        rustix::io::write(group, b"0").because(|| "cannot join a cgroup".to_owned())?;
    }
    Ok(())
}

fn become_root_of_the_star(drop_groups: bool) -> Result<(), String> {
    let refused = || "cannot take the star's user id".to_owned();
    if drop_groups {
        rustix::thread::set_thread_groups(&[]).because(refused)?;
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).because(refused)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).because(refused)
}

/// Replaces the host's files by the star's.
fn enter_root(shell: &Shell<'_>) -> Result<(), String> {
    let cannot = |what: &str| format!("cannot {what}");
    // On top of the old root: the one place that every path has and every user may reach.
    mount_at(&shell.root, CWD, "/").because(|| cannot("mount the star's root"))?;
    rustix::process::fchdir(&shell.root).because(|| cannot("enter the star's root"))?;
    mount_at(shell.scratch, CWD, "run").because(|| cannot("mount `/run`"))?;
    if let Some(devices) = &shell.devices {
        mount_at(devices, CWD, "dev").because(|| cannot("mount `/dev`"))?;
    }
    match &shell.tmp {
        Some(disk) => mount_at(disk, CWD, "tmp"),
        None => bind("run/tmp", "tmp"),
    }
    .because(|| cannot("mount `/tmp`"))?;
    bind("run/shm", "dev/shm").because(|| cannot("mount `/dev/shm`"))?;
    mount_proc(shell.masked)?;
    rustix::process::pivot_root(".", ".").because(|| cannot("change the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).because(|| cannot("leave the host's files"))?;
    rustix::process::chdir("/").because(|| cannot("enter the star's root"))?;
    match shell.devices {
        None => check_read_only("/"),
        Some(_) => Ok(()),
    }
}

/// Mounts what the order puts into the star, and goes where its programs start.
fn mount_places(order: &StarOrder, mut mounts: Vec<OwnedFd>) -> Result<(), String> {
    let places = order.places();
    let begun_with = order.beginning.as_ref().and_then(|begun| mounts.pop().map(|files| (begun, files)));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).because(|| "cannot open the star's root".to_owned())?;
    let tree = Tree { root: &root, owner: None, whose: "" };
    for (place, mount) in places.iter().zip(mounts) {
        if place.is_own_memory() {
            tree.make(&Point { path: place.inside.trim_start_matches('/').to_owned(), file: place.is_file() })?;
        }
        let failed = || format!("cannot mount {} at `{}`", place.what(), place.inside);
        // A bundle or a root may hold links; none of them leads a mount elsewhere.
        let kind = if place.is_file() { OFlags::NOFOLLOW } else { OFlags::DIRECTORY };
        let flags = OFlags::PATH | OFlags::CLOEXEC | kind;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let target = rustix::fs::openat2(CWD, place.inside.trim_start_matches('/'), flags, Mode::empty(), resolve);
        let target = target.because(failed)?;
        mount_at(&mount, &target, "").because(failed)?;
        if let (Content::Volume(_), Some(user)) = (place.content, order.interior.user) {
            give_empty(place.inside, user).because(failed)?;
        }
    }
    places.iter().filter(|place| place.is_read_only()).try_for_each(|place| check_read_only(place.inside))?;
    if let Some((begun, files)) = begun_with {
        lay::lay(&files, &begun.areas)?;
    }
    let stance = Stance::of(order);
    enter_workdir(&stance)
}

/// A volume that nothing is in yet belongs to whom the star runs as, who could not write to it otherwise.
fn give_empty(volume: &str, user: User) -> io::Result<()> {
    let is_empty = std::fs::read_dir(volume)?.next().is_none();
    if is_empty { std::os::unix::fs::chown(volume, Some(user.uid), Some(user.gid)) } else { Ok(()) }
}

/// Goes where a star's programs start.
pub(crate) fn enter_workdir(stance: &Stance) -> Result<(), String> {
    let folder = stance.workdir();
    rustix::process::chdir(folder).because(|| format!("cannot enter `{folder}`"))
}

/// So that programs which open `/dev/stdout` anew may.
fn give_streams(stance: &Stance) -> Result<(), String> {
    let Some(user) = stance.user.filter(|user| user.uid != 0) else { return Ok(()) };
    let (uid, gid) = (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
    let mut streams = [rustix::stdio::stdout(), rustix::stdio::stderr()].into_iter();
    streams
        .try_for_each(|stream| rustix::fs::fchown(stream, uid, gid))
        .because(|| "cannot give the streams away".to_owned())
}

/// From the star's root to whom it runs as. Comes after all that needs the root's rights.
pub(crate) fn become_user(stance: &Stance) -> Result<(), String> {
    let Some(user) = stance.user.filter(|user| (user.uid, user.gid) != (0, 0)) else { return Ok(()) };
    let refused = || format!("cannot become the user {user}");
    if !stance.weakened.capabilities.is_empty() {
        sys::privilege::keep_capabilities().because(refused)?;
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).because(refused)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).because(refused)
}

fn mount_at(mount: impl AsFd, folder: impl AsFd, target: &str) -> io::Result<()> {
    let flags = match target {
        "" => MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        _ => MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    };
    Ok(move_mount(mount, "", folder, target, flags)?)
}

fn bind(source: &str, target: &str) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, source, flags)?;
    mount_at(&mount, CWD, target)
}

/// The star's own /proc: nothing in it can be written, and what tells of the host is covered.
fn mount_proc(masked: &[Masked]) -> Result<(), String> {
    let make = || -> io::Result<()> {
        let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        mount_at(&mount, CWD, "proc")
    };
    make().because(|| "cannot mount `/proc`".to_owned())?;
    for Masked { name, cover } in masked {
        let failed = || format!("cannot mask `/proc/{name}`");
        let target = format!("proc/{name}");
        rustix::mount::mount_bind(*cover, target.as_str()).because(failed)?;
        let look = |path: &str| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).because(failed);
        if look(&target)? != look(cover)? {
            return Err(format!("`/proc/{name}` shows through its mask"));
        }
    }
    check_read_only("proc")
}

fn check_read_only(path: &str) -> Result<(), String> {
    let flags = rustix::fs::statvfs(path).because(|| format!("cannot look at `{path}`"))?.f_flag;
    match flags.contains(StatVfsMountFlags::RDONLY) {
        true => Ok(()),
        false => Err(format!("`{path}` is not read-only")),
    }
}

fn limit_resources() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).because(|| "cannot forbid core files".to_owned())?;
    limit_open_files(None)
}

fn limit_open_files(files: Option<u32>) -> Result<(), String> {
    let failed = || "cannot limit the open files".to_owned();
    rustix::process::setrlimit(Resource::Nofile, open_files(files)?).because(failed)
}

/// A limit of open files as the kernel takes it, of which this process has as many to give.
pub(crate) fn open_files(files: Option<u32>) -> Result<Rlimit, String> {
    let most = u64::from(Limits::OPEN_FILES_MAX);
    let most = rustix::process::getrlimit(Resource::Nofile).maximum.map_or(most, |maximum| maximum.min(most));
    let wanted = files.map_or(most, u64::from);
    if wanted > most {
        return Err(format!("a process may have {most} open files here, not {wanted} (see `rads c doctor`)"));
    }
    Ok(Rlimit { current: Some(wanted), maximum: Some(wanted) })
}

fn take_standard_streams(shell: &Shell<'_>) -> Result<(), String> {
    let failed = || "cannot set the standard streams".to_owned();
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).because(failed)?;
    rustix::stdio::dup2_stdin(&null).because(failed)?;
    rustix::stdio::dup2_stdout(&shell.stdout).because(failed)?;
    rustix::stdio::dup2_stderr(&shell.stderr).because(failed)
}

/// Shared with what is executed inside a running star, as is the next.
pub(crate) fn close_ways_back(keep: &BTreeSet<Capability>) -> Result<(), String> {
    sys::privilege::close_ways_back(&numbers(keep)).because(|| "cannot give privileges up for good".to_owned())
}

/// Comes after `close_ways_back` with the same capabilities.
pub(crate) fn give_up_privileges(stance: &Stance, filter: &[Instruction]) -> Result<(), String> {
    let Weakened { no_seccomp, capabilities, .. } = &stance.weakened;
    let failed = || "cannot drop capabilities".to_owned();
    sys::privilege::drop_capabilities(&numbers(capabilities)).because(failed)?;
    match no_seccomp {
        true => Ok(()),
        false => load_filter(filter),
    }
}

fn load_filter(filter: &[Instruction]) -> Result<(), String> {
    sys::privilege::filter_calls(filter).because(|| "cannot load the system call filter".to_owned())
}

fn numbers(capabilities: &BTreeSet<Capability>) -> Vec<u32> {
    capabilities.iter().map(|capability| capability.number()).collect()
}

/// The program's path candidates, arguments and environment as `exec` wants them.
pub(crate) struct Command {
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) environment: Vec<CString>,
}

impl Command {
    /// A first word with a `/` is taken from `/app` when it is relative, one without is looked up on the `PATH` given.
    pub(crate) fn new<'a>(
        argv: impl Iterator<Item = &'a String>,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let text = |text: String| CString::new(text).map_err(|_| "an argument holds a NUL byte".to_owned());
        let argv: Vec<CString> = argv.cloned().map(text).collect::<Result<_, _>>()?;
        let program = argv.first().filter(|program| !program.is_empty()).ok_or("the command is empty")?;
        let program = program.to_str().map_err(|_| "the command is not text")?;
        let candidates = match program.contains('/') {
            true => vec![text(Path::new(BUNDLE).join(program).to_string_lossy().into_owned())?],
            false => {
                let path = environment.get("PATH").map_or("", String::as_str);
                let folders = path.split(':').filter(|folder| folder.starts_with('/'));
                folders.map(|folder| text(format!("{folder}/{program}"))).collect::<Result<_, _>>()?
            }
        };
        let environment = environment.iter().map(|(name, value)| text(format!("{name}={value}")));
        Ok(Self { environment: environment.collect::<Result<_, _>>()?, candidates, argv })
    }
}
