//! Bundles, and the runtime's commands on them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nobody on any machine these tests run on.
const USER: u32 = 54321;
/// How long anything may take on a busy machine.
const DEADLINE_S: i64 = 60;

const APPLETS: [&str; 29] = [
    "cat", "chmod", "chown", "cp", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ls",
    "mkdir", "mknod", "mount", "ps", "pwd", "readlink", "sh", "sleep", "stat", "touch", "true", "tty", "umount", "wc",
];

/// The static program every test needs, or why there is no test.
pub(crate) fn busybox() -> Option<PathBuf> {
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(PathBuf::from).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: there is no busybox (apt install busybox-static)");
    }
    found
}

/// Who runs the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    Root,
    User,
}

/// A bundle of its own with a store of its own.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) id: String,
    who: As,
}

/// Runs a test as root, where this is root, and as an ordinary user.
pub(crate) fn both(test: impl Fn(World)) {
    if busybox().is_none() {
        return;
    }
    if is_root() {
        test(World::new(As::Root));
    }
    if may_have_namespaces() {
        test(World::new(As::User));
    }
}

pub(crate) fn as_root(test: impl Fn(World)) {
    if busybox().is_none() {
        return;
    }
    match is_root() {
        true => test(World::new(As::Root)),
        false => eprintln!("skipped: needs root"),
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether an ordinary user may make user namespaces here.
fn may_have_namespaces() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let mut command = Command::new("unshare");
        command.args(["-Ur", "true"]).stderr(Stdio::null());
        if is_root() {
            command.uid(USER).gid(USER);
        }
        let may = command.status().is_ok_and(|status| status.success());
        if !may {
            eprintln!("skipped as a user: no user namespaces");
        }
        may
    })
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "out: {} err: {}", self.out, self.err);
        self.out
    }

    /// One line that says why.
    #[track_caller]
    pub(crate) fn refused(&self, reason: &str) {
        assert_eq!(self.code, 1, "out: {} err: {}", self.out, self.err);
        let last = self.err.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(reason), "said: {}", self.err);
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl World {
    fn new(who: As) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new().prefix("oci-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let id = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox().unwrap(), bin.join("busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        fs::create_dir(dir.path().join("out")).unwrap();
        let world = Self { dir, id, who };
        if who == As::User && is_root() {
            let status = Command::new("chown").args(["-Rh", &format!("{USER}:{USER}")]).arg(world.dir.path()).status();
            assert!(status.unwrap().success());
        }
        world
    }

    /// A further one for the same user.
    pub(crate) fn beside(&self) -> Self {
        Self::new(self.who)
    }

    pub(crate) fn is_user(&self) -> bool {
        self.who == As::User
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A configuration that runs a shell script.
    pub(crate) fn config(&self, script: &str) -> Value {
        let mut config = json!({
            "ociVersion": "1.2.0",
            "process": {
                "args": ["sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {},
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
                {"destination": "/out", "type": "bind", "source": "out", "options": ["rbind"]},
            ],
            "linux": {"namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"},
            ]},
        });
        if self.is_user() {
            let id = if is_root() { USER } else { rustix::process::geteuid().as_raw() };
            let gid = if is_root() { USER } else { rustix::process::getegid().as_raw() };
            let linux = &mut config["linux"];
            linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            linux["uidMappings"] = json!([{"containerID": 0, "hostID": id, "size": 1}]);
            linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
        }
        config
    }

    pub(crate) fn write(&self, config: &Value) {
        fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    /// A command of the runtime.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--root").arg(self.path("state")).args(args).stdin(Stdio::null()).current_dir(self.dir.path());
        command.env_remove("LISTEN_FDS");
        if self.is_user() && is_root() {
            command.uid(USER).gid(USER);
        }
        command
    }

    /// A line for the host's shell, run by the same user.
    pub(crate) fn shell(&self, line: &str) -> Said {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).stdin(Stdio::null()).current_dir(self.dir.path());
        if self.is_user() && is_root() {
            command.uid(USER).gid(USER);
        }
        command.output().unwrap().into()
    }

    pub(crate) fn runtime(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    /// Runs a configuration to its end.
    pub(crate) fn run(&self, config: &Value) -> Said {
        self.write(config);
        self.runtime(&["run", &self.id])
    }

    /// What a script prints in a container like any other.
    #[track_caller]
    pub(crate) fn output(&self, script: &str) -> String {
        self.run(&self.config(script)).ok()
    }

    /// Creates a container whose output nobody waits for.
    pub(crate) fn create(&self, config: &Value) -> Said {
        self.write(config);
        self.create_with(&[])
    }

    pub(crate) fn create_with(&self, options: &[&str]) -> Said {
        let mut args = vec!["create"];
        args.extend(options);
        args.push(&self.id);
        let said = fs::File::create(self.path("said")).unwrap();
        let mut command = self.command(&args);
        // The container holds what it inherits for as long as it lives.
        command.stdout(Stdio::null()).stderr(said);
        let code = command.status().unwrap().code().unwrap_or(-1);
        Said { code, out: String::new(), err: fs::read_to_string(self.path("said")).unwrap() }
    }

    pub(crate) fn start(&self) -> Said {
        self.runtime(&["start", &self.id])
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.runtime(&["state", &self.id]).ok()).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.state()["pid"].as_u64().unwrap() as u32
    }

    pub(crate) fn kill(&self, signal: &str) -> Said {
        self.runtime(&["kill", &self.id, signal])
    }

    pub(crate) fn delete(&self) -> Said {
        self.runtime(&["delete", &self.id])
    }

    /// Makes a pipe at which a program of the container says that it has come so far, with `echo > /out/told`.
    pub(crate) fn expect_word(&self) {
        self.shell("mkfifo out/told").ok();
    }

    /// Waits for that.
    pub(crate) fn hear_word(&self) {
        assert_eq!(fs::read(self.path("out/told")).unwrap(), b"\n");
    }

    /// Kills the container and waits for its end.
    pub(crate) fn end(&self) {
        let ended = watch(self.pid());
        self.kill("KILL").ok();
        wait(&ended);
    }

    /// Nothing of any container is left.
    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        let left = |folder: &Path| fs::read_dir(folder).map(|entries| entries.count()).unwrap_or(0);
        assert_eq!(left(&self.path("state")), 0, "in the store");
        assert_eq!(groups(&self.id), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{mounts}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.runtime(&["delete", "--force", &self.id]);
    }
}

/// The binary where every user may run it.
fn binary() -> &'static Path {
    static COPY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &COPY
        .get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let path = dir.path().join("rads-oci");
            fs::copy(env!("CARGO_BIN_EXE_rads-oci"), &path).unwrap();
            (dir, path)
        })
        .1
}

/// Every group of that name.
pub(crate) fn groups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                match entry.file_name() == name {
                    true => found.push(entry.path()),
                    false => folders.push(entry.path()),
                }
            }
        }
    }
    found
}

pub(crate) fn watch(pid: u32) -> OwnedFd {
    rustix::process::pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap()
}

/// Until a process has ended.
#[track_caller]
pub(crate) fn wait(ended: &OwnedFd) {
    let deadline = Timespec { tv_sec: DEADLINE_S, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&deadline)).unwrap(), 1, "it did not end");
}

/// The descriptor that the next one to connect sends.
pub(crate) fn receive_fd(listener: &std::os::unix::net::UnixListener) -> OwnedFd {
    receive(listener).1
}

/// The same with the bytes beside it.
pub(crate) fn receive(listener: &std::os::unix::net::UnixListener) -> (Vec<u8>, OwnedFd) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let (stream, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 8192];
    let buffers = &mut [std::io::IoSliceMut::new(&mut bytes)];
    let got = rustix::net::recvmsg(&stream, buffers, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    bytes.truncate(got);
    (bytes, fd.expect("a descriptor"))
}
