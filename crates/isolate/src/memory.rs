//! The memory of a star's processes, kept by CRIU and brought back.
//!
//! Whoever has it dump a container from outside has it make the container's namespaces, mounts and groups anew. Here CRIU
//! always runs *within* a star's namespaces, so that to it they are the world: it writes processes, their memory and what they
//! have open, and nothing else. A star that gets a memory back has its walls raised as any other.
//!
//! To keep it, CRIU runs as the host's root, for only that may read a process's system call filter. To bring it back it runs as
//! the star's root, begun before the star gives its rights up, and behind Landlock, which CRIU itself knows nothing of: what it
//! makes is behind the same rules. How the program of the star is held behind everything else is looked at before it counts as
//! started.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::Weakened;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::child::{FDS_OF_MEMORY, Shell};
use crate::criu::last_error;
use crate::fault::{Because, plain};
use crate::landlock::Rules;
use crate::order::StarOrder;
use crate::record::{Record, Stance};
use crate::sys::process::Ended;
use crate::{ids, keepsake, packet, star, sys};

/// What CRIU does without within a star: the rights of the host's root over networks and groups, and terminals.
const WAYS: [&str; 6] =
    ["--shell-job", "--unprivileged", "--manage-cgroups=ignore", "--tcp-close", "--file-locks", "-v2"];
/// Largest file without a name, but open, that is kept.
const NAMELESS_MAX: &str = "--ghost-limit=268435456";
/// What CRIU says while it keeps a memory, beside the images.
pub const DUMP_LOG: &str = "dump.log";
/// What it says while it brings one back, in the star's folder.
pub(crate) const RESTORE_LOG: &str = "restore.log";
/// Where code could come from that CRIU is to run: no star may have a say in it.
const FOREIGN: [&str; 3] = ["/etc/ld.so.preload", "/etc/gnutls", "/etc/pkcs11"];

/// What is to be kept, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeping {
    /// See `criu::Criu::kit`.
    pub kit: PathBuf,
    /// The folder for CRIU's images; what CRIU knows of this kernel is in it.
    pub images: PathBuf,
    /// The star's own memory file systems, what lies in which is kept with them.
    pub folders: Vec<String>,
}

/// What has to be known of images beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The program's number in its star.
    pub program: u32,
    /// How CRIU calls the star's output and its errors.
    pub out: Vec<String>,
    pub err: Vec<String>,
}

/// A memory for a star that is to be started: it goes on from there instead of beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub kit: PathBuf,
    pub images: PathBuf,
    pub kept: Kept,
    /// A number that no process in the images has, as `settle` says.
    pub free: u32,
}

/// The star as CRIU is to find it.
pub(crate) struct Target {
    kept: Kept,
    kit: OwnedFd,
    images: OwnedFd,
    folders: Vec<String>,
    /// The host's id of the star's root.
    base: u32,
}

impl Target {
    /// Refuses a star whose memory cannot be kept.
    pub(crate) fn of(record: &Record, folder: &Path, keeping: &Keeping) -> Result<Self, String> {
        let base = record.slot.map(ids::host_id).ok_or("only root may read the system call filter of a process")?;
        if !record.init {
            return Err(
                "a script is the first process of its star, and that cannot be made again in another".to_owned()
            );
        }
        if record.stance.writable.iter().any(|path| path == "/") {
            return Err("its root file system is its own, in which CRIU is not to be run".to_owned());
        }
        let failed = || "cannot look at the star's processes".to_owned();
        let member = star::member_pid(record).because(failed)?;
        let status = fs::read_to_string(format!("/proc/{member}/status")).because(failed)?;
        let program =
            status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().nth(1)?.parse().ok());
        let program = program.ok_or_else(failed)?;
        let [out, err] = ["stdout", "stderr"].map(|name| names(record, &folder.join(name)));
        let folder = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::empty());
            opened.because(|| format!("cannot open `{}`", path.display()))
        };
        let kept = Kept { program, out: out.because(failed)?, err: err.because(failed)? };
        let (kit, images) = (folder(&keeping.kit)?, folder(&keeping.images)?);
        Ok(Self { kept, kit, images, folders: keeping.folders.clone(), base })
    }
}

/// How CRIU calls a pipe that lies outside of the star: once for each mount it was opened through.
fn names(record: &Record, pipe: &Path) -> io::Result<Vec<String>> {
    let pipe = fs::metadata(pipe)?;
    let mut names = Vec::new();
    for pid in star::members(record) {
        // Whatever of it is gone by now has nothing open.
        for open in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let same = fs::metadata(open.path()).is_ok_and(|at| (at.dev(), at.ino()) == (pipe.dev(), pipe.ino()));
            let number = open.file_name();
            let info = format!("/proc/{pid}/fdinfo/{}", number.to_string_lossy());
            let Some(info) = same.then(|| fs::read_to_string(info).ok()).flatten() else { continue };
            let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
            names.extend(mount.map(|mount| format!("file[{mount:x}:{:x}]", pipe.ino())));
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Keeps the memory, in a process within the star's namespaces but for the user's. Standard output is told `Kept` when the
/// star's processes stand still and are written; they go on when standard input is closed.
pub(crate) fn keep(target: &Target, report: &OwnedFd) -> Result<Infallible, String> {
    let failed = || "cannot run CRIU".to_owned();
    nothing_foreign()?;
    let Target { kept, kit, images, folders, base } = target;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let files = rustix::fs::openat(images, keepsake::FILE, flags, Mode::RUSR | Mode::WUSR).because(failed)?;
    let close_on_exec = |stream: rustix::fd::BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(stream, 3);
    let told = close_on_exec(rustix::stdio::stdout()).because(failed)?;
    let closed = close_on_exec(rustix::stdio::stdin()).because(failed)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).because(failed)?;
    rustix::stdio::dup2_stdin(&null).because(failed)?;
    rustix::stdio::dup2_stdout(&null).because(failed)?;
    let kept_open = [report, &told, &closed, kit, images, &files].map(AsRawFd::as_raw_fd);
    let mut kept_open: Vec<_> = kept_open.into_iter().chain([0, 1, 2]).collect();
    sys::process::close_all_but(&mut kept_open).because(failed)?;
    for folder in [kit, images] {
        rustix::io::fcntl_setfd(folder, FdFlags::empty()).because(failed)?;
    }
    let program = kept.program.to_string();
    let images = inherited(images);
    let words =
        ["dump", "--tree", &program, "--leave-stopped", "--network-lock=skip", "--skip-in-flight", NAMELESS_MAX];
    let words = words.into_iter().chain(["--images-dir", &images, "--work-dir", &images, "--log-file", DUMP_LOG]);
    let outside = kept.out.iter().chain(&kept.err).flat_map(|name| ["--external", name]);
    let run = Run::new(kit, &images, words.chain(WAYS).chain(outside))?;
    let criu = sys::exec::spawn(&run.candidates, &run.argv, &run.environment).because(failed)?;
    let criu = i32::try_from(criu).ok().and_then(Pid::from_raw).ok_or_else(failed)?;
    let ended = loop {
        match rustix::process::waitpid(Some(criu), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            ended => break ended.because(failed)?,
        }
    };
    if ended.and_then(|(_, status)| status.exit_status()) != Some(0) {
        // It says why in its own log.
        sys::process::exit(1)
    }
    // Its files are of the same moment.
    let packed = keepsake::pack(folders, *base, File::from(files));
    let kept = rmp_serde::to_vec_named(kept).map_err(|error| error.to_string());
    let written = match packed.as_ref().ok().zip(kept.ok()) {
        Some(((), kept)) => rustix::io::write(&told, &kept),
        None => Err(rustix::io::Errno::IO),
    };
    // Whoever waits for it closes it, by their end if need be.
    while written.is_ok() && rustix::io::read(&closed, &mut [0; 64]).is_ok_and(|length| length > 0) {}
    // Everything in this process namespace but its first process and this one.
    let _ = sys::signal::kill(-1, libc::SIGCONT);
    packed?;
    sys::process::exit(0)
}

/// Makes what CRIU left ready to be brought back in the namespaces of another star, readable by nobody else, and gives a number
/// that no process or thread in it has.
pub fn settle(images: &Path, kept: &Kept) -> io::Result<u32> {
    let mut highest = kept.program;
    for entry in fs::read_dir(images)? {
        let entry = entry?;
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("core-")?.strip_suffix(".img")?.parse().ok());
        highest = highest.max(number.unwrap_or(0));
    }
    // To CRIU the star's user namespace was the one that was not its own. Where it is brought back it is.
    let [inventory, ids] =
        ["inventory.img".to_owned(), format!("ids-{}.img", kept.program)].map(|name| images.join(name));
    let bytes = settled_inventory(fs::read(&inventory)?, &fs::read(ids)?);
    fs::write(&inventory, bytes.ok_or_else(|| io::Error::other("CRIU's images are not of the form that is known"))?)?;
    Ok(highest + 1)
}

/// Bytes before the first entry of an image of one entry: two magic numbers and the entry's length.
const HEAD: usize = 12;
/// Of `inventory_entry`: the ids of CRIU's own namespaces, a `task_kobj_ids_entry`.
const ROOT_IDS: u64 = 3;
/// Of `task_kobj_ids_entry`.
const USER_NS_ID: u64 = 10;

/// The inventory with the user namespace of the program for CRIU's own. `None` if either is not what it should be.
fn settled_inventory(mut inventory: Vec<u8>, ids: &[u8]) -> Option<Vec<u8>> {
    let (at, length) = field(ids.get(HEAD..)?, USER_NS_ID)?;
    let theirs = ids.get(HEAD + at..HEAD + at + length)?.to_vec();
    let (root, root_length) = field(inventory.get(HEAD..)?, ROOT_IDS)?;
    let (at, length) = field(inventory.get(HEAD + root..HEAD + root + root_length)?, USER_NS_ID)?;
    let at = HEAD + root + at;
    // CRIU counts namespaces from 1: each number is one byte.
    (length == theirs.len()).then(|| inventory.splice(at..at + length, theirs).for_each(drop))?;
    Some(inventory)
}

/// Where the value of a field begins in a protobuf message, and its length.
fn field(message: &[u8], wanted: u64) -> Option<(usize, usize)> {
    let mut at = 0;
    while at < message.len() {
        let (key, length) = varint(message.get(at..)?)?;
        at += length;
        let (from, length) = match key & 7 {
            0 => (at, varint(message.get(at..)?)?.1),
            1 => (at, 8),
            2 => {
                let (length, prefix) = varint(message.get(at..)?)?;
                (at + prefix, usize::try_from(length).ok()?)
            }
            5 => (at, 4),
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some((from, length));
        }
        at = from.checked_add(length)?;
    }
    None
}

/// A number, and how many bytes it takes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// A process within a star that is being made which still has the rights that its root has over its namespaces.
pub(crate) struct Restorer {
    pid: u32,
    /// What to do comes here; closed unsent, it ends.
    orders: OwnedFd,
}

/// What a restorer is told. Beside it come the kit, the images and the log.
#[derive(Serialize, Deserialize)]
struct Errand {
    stance: Stance,
    kept: Kept,
}

impl Restorer {
    /// Made while this process has those rights. `number` is the process's in the star.
    pub(crate) fn begin(shell: &Shell<'_>, number: u32) -> Result<Self, String> {
        let failed = || "cannot make a process for CRIU".to_owned();
        let flags = SocketFlags::CLOEXEC;
        let (orders, ordered) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).because(failed)?;
        let begun = sys::process::clone_as(number, || {
            sys::process::close(orders.as_fd());
            restore(shell, &ordered)
        });
        begun.because(failed)?;
        Ok(Self { pid: number, orders })
    }

    pub(crate) fn orders(&self) -> &OwnedFd {
        &self.orders
    }

    /// Has the memory brought back as children of this process, and gives the program's number. `fds` are the kit, the images
    /// and the log.
    pub(crate) fn bring_back(&self, order: &StarOrder, fds: &[OwnedFd]) -> Result<u32, String> {
        let failed = || "cannot have its memory brought back".to_owned();
        let (Some(memory), [_, _, log]) = (&order.memory, fds) else { return Err(failed()) };
        let errand = Errand { stance: Stance::of(order), kept: memory.kept.clone() };
        let sent: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        packet::send(self.orders.as_fd(), &errand, &sent).because(failed)?;
        let ended = loop {
            match sys::process::reap_any().because(failed)? {
                Some((pid, ended)) if pid == self.pid => break ended,
                Some(_) => continue,
                None => {}
            }
            let _ = sys::signal::wait();
        };
        if ended != Ended::Code(0) {
            let mut said = vec![0; 64 << 10];
            let log = File::from(log.try_clone().because(failed)?);
            let length = log.read_at(&mut said, 0).unwrap_or(0);
            return Err(format!(
                "its memory cannot be brought back: {}",
                last_error(&String::from_utf8_lossy(&said[..length]))
            ));
        }
        let children = fs::read_to_string("/proc/self/task/1/children").because(failed)?;
        let program = memory.kept.program;
        if !children.split_whitespace().any(|child| child.parse() == Ok(program)) {
            return Err("its memory was brought back, but its program has ended".to_owned());
        }
        stands_behind_walls(&order.weakened)?;
        Ok(program)
    }
}

/// The restorer's own life: it waits for what to do, and becomes CRIU.
fn restore(shell: &Shell<'_>, ordered: &OwnedFd) -> ! {
    let mut fds = [PollFd::from_borrowed_fd(ordered.as_fd(), PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    let received = packet::receive(ordered.as_fd());
    let Ok((errand, fds)) = received else { sys::process::exit(1) };
    let Ok([kit, images, log]) = <[OwnedFd; FDS_OF_MEMORY]>::try_from(fds) else { sys::process::exit(1) };
    match become_criu(shell, &errand, &kit, &images, &log) {
        Err(reason) => {
            // As CRIU says its own.
            let _ = rustix::io::write(&log, format!("Error (rads): {reason}\n").as_bytes());
            sys::process::exit(1)
        }
    }
}

fn become_criu(
    shell: &Shell<'_>,
    Errand { stance, kept }: &Errand,
    kit: &OwnedFd,
    images: &OwnedFd,
    log: &OwnedFd,
) -> Result<Infallible, String> {
    let failed = || "cannot run CRIU".to_owned();
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).because(failed)?;
    // As the program is to have them, which is what the rules are made for.
    rustix::stdio::dup2_stdin(&null).because(failed)?;
    rustix::stdio::dup2_stdout(&shell.stdout).because(failed)?;
    rustix::stdio::dup2_stderr(&shell.stderr).because(failed)?;
    nothing_foreign()?;
    shell.landlock.map(Rules::usual).transpose()?.map_or(Ok(()), |rules| rules.restrict(stance))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let files = rustix::fs::openat(images, keepsake::FILE, flags, Mode::empty())
        .because(|| "cannot read its files".to_owned())?;
    keepsake::unpack(File::from(files))?;
    let [out, err] = [&shell.stdout, &shell.stderr].map(rustix::io::dup);
    let (out, err) = (out.because(failed)?, err.because(failed)?);
    rustix::stdio::dup2_stdout(log).because(failed)?;
    rustix::stdio::dup2_stderr(log).because(failed)?;
    let keep = [kit, images, &out, &err];
    for fd in keep {
        rustix::io::fcntl_setfd(fd, FdFlags::empty()).because(failed)?;
    }
    let mut numbers: Vec<_> = keep.iter().map(|fd| fd.as_raw_fd()).chain([0, 1, 2]).collect();
    sys::process::close_all_but(&mut numbers).because(failed)?;
    let images = inherited(images);
    let words =
        ["restore", "--restore-detached", "--images-dir", &images, "--work-dir", &images].into_iter().chain(WAYS);
    let inherit = |fd: &OwnedFd, name: &String| format!("--inherit-fd=fd[{}]:{name}", fd.as_raw_fd());
    let streams =
        kept.out.iter().map(|name| inherit(&out, name)).chain(kept.err.iter().map(|name| inherit(&err, name)));
    let streams: Vec<String> = streams.collect();
    let run = Run::new(kit, &images, words.chain(streams.iter().map(String::as_str)))?;
    let error = sys::exec::replace(&run.candidates, &run.argv, &run.environment);
    Err(format!("cannot run CRIU: {}", plain(&error)))
}

/// CRIU of a kit, as `exec` wants it.
struct Run {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl Run {
    fn new<'a>(kit: &OwnedFd, images: &str, words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let kit = inherited(kit);
        let loader = format!("{kit}/ld.so");
        let program = format!("{kit}/criu");
        // No list of the star's is asked where libraries are.
        let before = [&*loader, "--inhibit-cache", "--library-path", &kit, &program];
        let text = |text: &str| CString::new(text).map_err(|_| "a word of CRIU's holds a NUL byte".to_owned());
        let argv = before.into_iter().map(text).chain(words.map(text)).collect::<Result<_, _>>()?;
        // It would run what it finds there.
        let environment = ["PATH=/nonexistent".to_owned(), format!("XDG_RUNTIME_DIR={images}")];
        let environment = environment.iter().map(|variable| text(variable)).collect::<Result<_, _>>()?;
        Ok(Self { candidates: vec![text(&loader)?], argv, environment })
    }
}

/// The path by which a program that is executed reaches what this process has open.
fn inherited(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// CRIU runs with more rights than the star has: nothing in it may come from the star's files.
fn nothing_foreign() -> Result<(), String> {
    match FOREIGN.iter().find(|path| {
        rustix::fs::accessat(CWD, **path, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::EACCESS).is_ok()
    }) {
        Some(path) => Err(format!("the star has `{path}`, by which CRIU could be made to run its code")),
        None => Ok(()),
    }
}

/// Makes sure that what was brought back can do no more than a star may.
fn stands_behind_walls(weakened: &Weakened) -> Result<(), String> {
    let failed = || "cannot look at what was brought back".to_owned();
    for entry in fs::read_dir("/proc").because(failed)? {
        let name = entry.because(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()).filter(|pid| *pid != 1) else {
            continue;
        };
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        check_status(&status, weakened)
            .map_err(|why| format!("what was brought back is not behind its walls: {why}"))?;
    }
    Ok(())
}

fn check_status(status: &str, weakened: &Weakened) -> Result<(), String> {
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).ok_or_else(|| format!("nothing is known of `{name}`"))
    };
    if value("State")?.starts_with(['Z', 'X']) {
        return Ok(());
    }
    if value("NoNewPrivs")? != "1" {
        return Err("it may gain privileges".to_owned());
    }
    if value("Seccomp")? != "2" && !weakened.no_seccomp {
        return Err("its system calls are not filtered".to_owned());
    }
    let allowed = weakened.capabilities.iter().fold(0_u64, |allowed, capability| allowed | 1 << capability.number());
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let has = u64::from_str_radix(value(name)?, 16).map_err(|_| format!("`{name}` is no number"))?;
        if has & !allowed != 0 {
            return Err(format!("it has capabilities ({name} {has:x})"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_user_namespace_becomes_crius_own() {
        // An inventory as CRIU 4.1.1 writes it: version 1, `fdinfo_per_id`, then the ids, then more.
        let ids = |user: u8| [8, 2, 16, 2, 24, 2, 32, 2, 40, 1, 48, 2, 56, 3, 64, 4, 72, 6, 80, user, 88, 8, 96, 5];
        let head = |length: usize| [[0; 8].as_slice(), &(length as u32).to_le_bytes()].concat();
        let inventory = |user: u8| {
            let body = [&[8, 1, 16, 1, 26, 24][..], &ids(user), &[32, 1, 40, 1, 48, 0, 98, 0]].concat();
            [head(body.len()), body].concat()
        };
        let of_program = [head(24), ids(9).to_vec()].concat();
        assert_eq!(settled_inventory(inventory(10), &of_program), Some(inventory(9)));
        for length in 0..inventory(10).len() - 12 {
            let cut = inventory(10)[..length].to_vec();
            assert!(settled_inventory(cut.clone(), &of_program).is_none_or(|settled| settled.len() == cut.len()));
        }
        assert_eq!(settled_inventory(inventory(10), &of_program[..20]), None);
        assert_eq!(settled_inventory(inventory(10), &[255; 40]), None);
    }

    #[test]
    fn what_is_not_behind_its_walls_is_found() {
        let status = |change: (&str, &str)| {
            let sound = "State:\tS (sleeping)\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                         CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
            sound.replace(change.0, change.1)
        };
        let check = |change: (&str, &str)| check_status(&status(change), &Weakened::default());
        assert_eq!(check(("", "")), Ok(()));
        assert!(check(("NoNewPrivs:\t1", "NoNewPrivs:\t0")).unwrap_err().contains("privileges"));
        assert!(check(("Seccomp:\t2", "Seccomp:\t0")).unwrap_err().contains("filtered"));
        assert!(check(("CapBnd:\t0", "CapBnd:\t8")).unwrap_err().contains("CapBnd"));
        assert!(check(("CapEff:", "CapEfg:")).unwrap_err().contains("nothing is known"));
    }
}
