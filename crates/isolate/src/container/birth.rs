//! The creator's side of a container's making.
//!
//! Between the creator and the container stands a third process, for as long as it takes to go into the namespaces that
//! others made and to make those that only a child can be in. The container is then its brother, not its child, so that
//! the creator can wait for it.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, Gid, StatxFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, WaitOptions};
use rustix::thread::{UnshareFlags, move_into_link_name_space};

use super::groups::Groups;
use super::inside::{self, Go, Parts, StateText, Word};
use super::plan::{BindIdMap, IdMap, Kind, Namespaces, Plan, Process, Source};
use super::tree::mount_point;
use super::wire;
use crate::fault::{Because, plain};
use crate::sys;

/// What a creator does while a container is made, in this order.
pub trait Creator {
    /// It has a number on the host, and waits to be put into its groups.
    fn born(&mut self, pid: u32) -> Result<(), String>;
    /// Its mounts are made. Only if the plan stops there.
    fn furnished(&mut self, pid: u32) -> Result<(), String>;
    /// Something was asked for that is not had, and that does not end it.
    fn warn(&mut self, text: String);
}

/// What to make and what it needs from outside.
pub struct Order<'a> {
    pub plan: &'a Plan,
    pub groups: &'a Groups,
    pub state: &'a StateText<'a>,
    /// Where the container waits for its start.
    pub start: &'a UnixListener,
    /// Who takes the terminal's master.
    pub console: Option<&'a UnixStream>,
    /// Who is asked about system calls.
    pub notify: Option<&'a UnixStream>,
}

/// Makes a container that waits for its start. On failure nothing is left of it but its groups.
pub fn create(order: &Order<'_>, creator: &mut dyn Creator) -> Result<u32, String> {
    let plan = order.plan;
    let mapped = map_binds(plan)?;
    let before = mount_of(&plan.root).filter(|_| !plan.namespaces.is_apart(Kind::Mount));
    let root_mount = mount_point(&plan.root).because(|| format!("cannot use the root `{}`", plan.root.display()))?;
    let made = attend(&plan.namespaces, &plan.process, Some(&plan.root), creator, |link| {
        let parts = Parts {
            plan,
            root_mount: &root_mount,
            groups: order.groups,
            state: order.state,
            start: order.start,
            console: order.console,
            notify: order.notify,
            link,
            mapped: &mapped,
        };
        inside::run(&parts)
    });
    if made.is_err() {
        release_root(&plan.root, before);
    }
    made
}

/// Which mount holds a path.
pub fn mount_of(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).ok()?;
    Some(stat.stx_mnt_id)
}

/// Takes away what a container without mounts of its own has mounted over its root. `before` is what held the root then:
/// that is somebody else's, and stays.
pub fn release_root(root: &Path, before: Option<u64>) {
    if before.is_some() && mount_of(root) != before {
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
        let _ = rustix::mount::unmount(root, flags);
    }
}

/// Makes a process in namespaces and attends it until it is ready. On failure it is gone. It begins in the folder, which
/// as another user it might not come to.
pub(super) fn attend(
    namespaces: &Namespaces,
    process: &Process,
    folder: Option<&Path>,
    creator: &mut dyn Creator,
    inner: impl Fn(&OwnedFd) -> Infallible,
) -> Result<u32, String> {
    let failed = || "cannot make the container".to_owned();
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).because(failed)?;
    let between = sys::process::clone(0, None, || {
        sys::process::close(ours.as_fd());
        let go = || -> Result<(), String> {
            if let Some(folder) = folder {
                rustix::process::chdir(folder).because(|| format!("cannot enter `{}`", folder.display()))?;
            }
            go_between(namespaces, &theirs, &inner)
        };
        let reason = match go() {
            Ok(()) => sys::process::exit(0),
            Err(reason) => reason,
        };
        let _ = wire::send(theirs.as_fd(), &Word::Failed(reason));
        sys::process::exit(1)
    });
    let (between, _) = between.because(failed)?;
    drop(theirs);
    let mut child = Child { between: Some(between), pid: None };
    match child.listen(&ours, namespaces, process, creator) {
        Ok(pid) => {
            child.reap_between();
            Ok(pid)
        }
        Err(reason) => {
            drop(ours);
            child.end();
            Err(reason)
        }
    }
}

/// Whom the creator has to answer for.
struct Child {
    between: Option<u32>,
    pid: Option<u32>,
}

impl Child {
    fn listen(
        &mut self,
        link: &OwnedFd,
        namespaces: &Namespaces,
        process: &Process,
        creator: &mut dyn Creator,
    ) -> Result<u32, String> {
        let gone = || "the container is gone before it was made".to_owned();
        loop {
            let word: Word = match wire::receive(link.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(gone()),
                other => other.because(gone)?,
            };
            let pid = self.pid.or(self.between).unwrap_or_default();
            let go = || wire::send(link.as_fd(), &Go { pid }).because(gone);
            match word {
                Word::MapIds => {
                    map_ids(pid, namespaces)?;
                    go()?;
                }
                Word::Born(pid) => {
                    self.pid = Some(pid);
                    self.reap_between();
                    raise_limits(pid, process)?;
                    creator.born(pid)?;
                    super::links::give(&namespaces.devices, pid)?;
                    wire::send(link.as_fd(), &Go { pid }).because(gone)?;
                }
                Word::Furnished => {
                    creator.furnished(pid)?;
                    go()?;
                }
                Word::Warning(text) => creator.warn(text),
                Word::Failed(reason) => return Err(reason),
                Word::Ready => return Ok(pid),
            }
        }
    }

    fn reap_between(&mut self) {
        if let Some(pid) = self.between.take() {
            wait_for(pid);
        }
    }

    fn end(&mut self) {
        for pid in [self.pid.take(), self.between.take()].into_iter().flatten() {
            let _ = sys::signal::kill(pid as i32, libc::SIGKILL);
            wait_for(pid);
        }
    }
}

fn wait_for(pid: u32) {
    let Some(pid) = Pid::from_raw(pid as i32) else { return };
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(pid), WaitOptions::empty()) {}
}

/// What raises a limit takes a right that the container does not have or will not have for long; it lowers them itself.
fn raise_limits(pid: u32, process: &Process) -> Result<(), String> {
    for &(number, _, hard) in &process.rlimits {
        let failed = || format!("cannot raise `{}` to {hard}", resource_name(number));
        let resource = resource(number).ok_or_else(failed)?;
        let now = rustix::process::getrlimit(resource);
        let wanted = finite(hard);
        let higher = now.maximum.is_some_and(|have| wanted.is_none_or(|wanted| wanted > have));
        if higher {
            let limit = Rlimit { current: now.current, maximum: wanted };
            rustix::process::prlimit(Pid::from_raw(pid as i32), resource, limit).because(failed)?;
        }
    }
    Ok(())
}

/// The kernel's word for no limit is the largest number.
fn finite(value: u64) -> Option<u64> {
    (value != libc::RLIM_INFINITY).then_some(value)
}

/// Sets this process's limits, none of which is above what it may have.
pub(super) fn limit_resources(process: &Process) -> Result<(), String> {
    for &(number, soft, hard) in &process.rlimits {
        let failed = || format!("cannot set `{}` to {soft}:{hard}", resource_name(number));
        let resource = resource(number).ok_or_else(failed)?;
        let limit = Rlimit { current: finite(soft), maximum: finite(hard) };
        rustix::process::setrlimit(resource, limit).because(failed)?;
    }
    Ok(())
}

/// The resources a process may be limited in, by the kernel's numbers.
const RESOURCES: [(&str, Resource); 16] = [
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_STACK", Resource::Stack),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
];

/// The number of a resource by its name.
pub fn resource_number(name: &str) -> Option<u32> {
    RESOURCES.iter().position(|(known, _)| *known == name).map(|number| number as u32)
}

fn resource(number: u32) -> Option<Resource> {
    RESOURCES.get(number as usize).map(|(_, resource)| *resource)
}

fn resource_name(number: u32) -> &'static str {
    RESOURCES.get(number as usize).map_or("?", |(name, _)| name)
}

/// Goes into namespaces, makes some, and leaves the container in them.
fn go_between(namespaces: &Namespaces, link: &OwnedFd, inner: &impl Fn(&OwnedFd) -> Infallible) -> Result<(), String> {
    join(&namespaces.joined)?;
    let joined_user = namespaces.joined.iter().any(|(kind, _)| *kind == Kind::User);
    if namespaces.is_new(Kind::User) {
        sys::namespace::unshare(UnshareFlags::NEWUSER).because(|| "cannot make a user namespace".to_owned())?;
        wire::send(link.as_fd(), &Word::MapIds).because(|| "cannot report".to_owned())?;
        let Ok(Go { .. }) = wire::receive(link.as_fd()) else { sys::process::exit(1) };
    }
    if namespaces.is_new(Kind::User) || joined_user {
        become_root()?;
    }
    if namespaces.is_new(Kind::Time) {
        sys::namespace::unshare(UnshareFlags::NEWTIME).because(|| "cannot make a time namespace".to_owned())?;
        set_clocks(namespaces)?;
    }
    let flags = namespaces.new.iter().map(|kind| flag(*kind)).fold(libc::CLONE_PARENT, |flags, flag| flags | flag);
    let (pid, _) = sys::process::clone(flags, None, || inner(link)).map_err(|error| {
        let help = match error.raw_os_error() {
            Some(libc::EPERM) => " (an ordinary user needs a user namespace)",
            _ => "",
        };
        format!("cannot make the container's namespaces: {}{help}", plain(&error))
    })?;
    wire::send(link.as_fd(), &Word::Born(pid)).because(|| "cannot report".to_owned())
}

/// Before anybody is in the new namespace. A process whose ids have changed is not let at its own files in `/proc` until
/// it says that it may be looked into.
fn set_clocks(namespaces: &Namespaces) -> Result<(), String> {
    let failed = || "cannot set the offsets of the clocks".to_owned();
    let before = rustix::process::dumpable_behavior().because(failed)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).because(failed)?;
    for (clock, seconds, nanoseconds) in &namespaces.time_offsets {
        std::fs::write("/proc/self/timens_offsets", format!("{clock} {seconds} {nanoseconds}"))
            .because(|| format!("cannot set the offset of the clock `{clock}`"))?;
    }
    rustix::process::set_dumpable_behavior(before).because(failed)
}

/// What a clone makes; the others are made before or after it.
fn flag(kind: Kind) -> libc::c_int {
    match kind {
        Kind::Mount => libc::CLONE_NEWNS,
        Kind::Pid => libc::CLONE_NEWPID,
        Kind::Network => libc::CLONE_NEWNET,
        Kind::Ipc => libc::CLONE_NEWIPC,
        Kind::Uts => libc::CLONE_NEWUTS,
        // One's own groups have to be entered first; clocks have to be set first; ids have to be mapped first.
        Kind::Cgroup | Kind::Time | Kind::User => 0,
    }
}

/// Goes into namespaces by their files. Which of them belong to the user namespace among them is not told: what may not
/// be entered before it is tried again after it.
pub(super) fn join(joined: &[(Kind, std::path::PathBuf)]) -> Result<(), String> {
    let mut doors = Vec::new();
    for (kind, path) in joined {
        let failed = || format!("cannot open the {} namespace `{}`", kind.name(), path.display());
        doors.push((*kind, File::open(path).because(failed)?));
    }
    // Its mounts last: until then paths mean what they meant.
    doors.sort_by_key(|(kind, _)| *kind == Kind::Mount);
    let enter = |kind: Kind, door: &File| {
        move_into_link_name_space(door.as_fd(), Some(link_type(kind)))
            .because(|| format!("cannot enter the {} namespace", kind.name()))
    };
    let (user, mut others): (Vec<_>, Vec<_>) = doors.into_iter().partition(|(kind, _)| *kind == Kind::User);
    if let Some((kind, door)) = user.first() {
        others.retain(|(kind, door)| enter(*kind, door).is_err());
        enter(*kind, door)?;
    }
    others.iter().try_for_each(|(kind, door)| enter(*kind, door))
}

fn link_type(kind: Kind) -> rustix::thread::LinkNameSpaceType {
    use rustix::thread::LinkNameSpaceType as Link;
    match kind {
        Kind::User => Link::User,
        Kind::Mount => Link::Mount,
        Kind::Pid => Link::ProcessID,
        Kind::Network => Link::Network,
        Kind::Ipc => Link::InterProcessCommunication,
        Kind::Uts => Link::HostNameAndNISDomainName,
        Kind::Cgroup => Link::ControlGroup,
        Kind::Time => Link::Time,
    }
}

/// User 0 of the namespace one has come into, if it has one.
fn become_root() -> Result<(), String> {
    let failed = || "cannot become the user namespace's root".to_owned();
    match rustix::thread::set_thread_groups(&[]) {
        // Its maker was not allowed to let it drop groups.
        Err(Errno::PERM) => {}
        other => other.because(failed)?,
    }
    match rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT) {
        Err(Errno::INVAL) => {}
        other => other.because(failed)?,
    }
    match rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT) {
        Err(Errno::INVAL) => Ok(()),
        other => other.because(failed),
    }
}

/// Gives a new user namespace its ids.
fn map_ids(pid: u32, namespaces: &Namespaces) -> Result<(), String> {
    let (uids, gids) = (&namespaces.uid_map, &namespaces.gid_map);
    let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text);
    let own = |maps: &[IdMap], id: u32| matches!(maps, [one] if one.outside == id && one.count == 1);
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let privileged = uid.is_root();
    if privileged {
        write("uid_map", &map_text(uids)).because(|| "cannot map user ids".to_owned())?;
        return write("gid_map", &map_text(gids)).because(|| "cannot map group ids".to_owned());
    }
    match own(uids, uid.as_raw()) {
        true => write("uid_map", &map_text(uids)).because(|| "cannot map user ids".to_owned())?,
        false => help_map("newuidmap", pid, uids)?,
    }
    match own(gids, gid.as_raw()) {
        true => {
            // The kernel lets a user map its group only when that cannot rid it of groups that deny it something.
            write("setgroups", "deny").because(|| "cannot forbid changes of groups".to_owned())?;
            write("gid_map", &map_text(gids)).because(|| "cannot map group ids".to_owned())
        }
        false => help_map("newgidmap", pid, gids),
    }
}

fn map_text(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count)).collect()
}

/// What only a privileged program may map for a user, who has to be allowed those ids in `/etc/subuid` or `/etc/subgid`.
fn help_map(program: &str, pid: u32, maps: &[IdMap]) -> Result<(), String> {
    let numbers = maps.iter().flat_map(|map| [map.inside, map.outside, map.count]).map(|number| number.to_string());
    let output = Command::new(program).arg(pid.to_string()).args(numbers).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("mapping more than one's own id takes `{program}` (package `uidmap`)"),
        _ => format!("cannot run `{program}`: {}", plain(&error)),
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("`{program}` refused: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Binds that are opened here, where the right for it is: those whose files are to be seen under other ids, and for a
/// container of another user all of them, because its root may not be let at their paths.
fn map_binds(plan: &Plan) -> Result<Vec<(usize, OwnedFd)>, String> {
    let mut mapped = Vec::new();
    for (index, mount) in plan.mounts.iter().enumerate() {
        let Source::Bind { path, recursive, id_map } = &mount.source else { continue };
        let foreign = plan.namespaces.is_apart(Kind::User) && rustix::process::geteuid().is_root();
        if id_map.is_none() && !foreign {
            continue;
        }
        let failed = || format!("cannot mount `{}`: its source `{}`", mount.destination, path.display());
        let bind = super::mounts::clone_of(path, *recursive).because(failed)?;
        // As it would be in the container's copy of the host's mounts.
        super::mounts::propagate(bind.as_fd(), super::inside::from_the_host(plan)).because(failed)?;
        let Some(map) = id_map else {
            mapped.push((index, bind));
            continue;
        };
        let failed = || format!("cannot mount `{}` with mapped ids", mount.destination);
        let namespace = namespace_of(plan, map)?;
        let reach = if map.recursive { sys::mount::Reach::WholeTree } else { sys::mount::Reach::ThisMount };
        let change = sys::mount::Change { owners: Some(namespace.as_fd()), ..Default::default() };
        sys::mount::change(bind.as_fd(), change, reach).because(failed)?;
        mapped.push((index, bind));
    }
    Ok(mapped)
}

/// A user namespace with a bind's mapping: the container's own, or one that nobody is in, for as long as its descriptor
/// is open.
fn namespace_of(plan: &Plan, map: &BindIdMap) -> Result<OwnedFd, String> {
    let failed = || "cannot make a user namespace for a mount".to_owned();
    let own = map.uid_map.is_empty() && map.gid_map.is_empty();
    if let Some((_, path)) = plan.namespaces.joined.iter().find(|(kind, _)| own && *kind == Kind::User) {
        let file = File::open(path).because(|| format!("cannot open the user namespace `{}`", path.display()));
        return file.map(OwnedFd::from);
    }
    let (uid_map, gid_map) = match own {
        true => (&plan.namespaces.uid_map, &plan.namespaces.gid_map),
        false => (&map.uid_map, &map.gid_map),
    };
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).because(failed)?;
    let (pid, _) = sys::process::clone(libc::CLONE_NEWUSER, None, || {
        sys::process::close(writer.as_fd());
        let _ = rustix::io::read(&reader, &mut [0]);
        sys::process::exit(0)
    })
    .because(failed)?;
    let namespaces = Namespaces { uid_map: uid_map.clone(), gid_map: gid_map.clone(), ..Namespaces::default() };
    let result = map_ids(pid, &namespaces)
        .and_then(|()| File::open(format!("/proc/{pid}/ns/user")).because(failed).map(OwnedFd::from));
    drop(writer);
    wait_for(pid);
    result
}
