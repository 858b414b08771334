//! The peers that apt offers, made to do what a star start does: reach the first instruction of the same
//! program with the same walls and limits.
//!
//! `fork+exec` has no walls: the floor. `bwrap` has namespaces without limits. `crun` has both.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::clock::{ms_between, now_ns};
use crate::report::Samples;

/// Milliseconds from the request to the first instruction of `stamp`, by plain fork and exec.
pub(crate) fn fork_exec(stamp: &Path, samples: usize) -> Result<Samples, String> {
    collect(samples, || {
        let mut command = Command::new(stamp);
        command.arg("stamp");
        command
    })
}

/// The same through bubblewrap: every namespace, read-only root, private /tmp, /proc and /dev, no capabilities.
pub(crate) fn bubblewrap(stamp: &Path, samples: usize) -> Result<Samples, String> {
    installed("bwrap")?;
    collect(samples, || {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]);
        for folder in ["bin", "lib", "lib64"] {
            command.args(["--symlink", &format!("usr/{folder}"), &format!("/{folder}")]);
        }
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind"]).arg(stamp).arg("/app");
        command.args(["/app", "stamp"]);
        command
    })
}

/// The same through crun: every namespace, pivot_root, no capabilities, seccomp left to its default of none, and
/// limits on CPU, memory and pids.
pub(crate) fn crun(stamp: &Path, samples: usize) -> Result<Samples, String> {
    installed("crun")?;
    let bundle = tempfile::tempdir().map_err(|error| error.to_string())?;
    let config = crun_bundle(bundle.path(), stamp).map_err(|error| format!("crun bundle: {error}"))?;
    let mut number = 0;
    collect(samples, || {
        number += 1;
        // crun refuses a hybrid cgroup mount: in a private mount namespace it is shown the v1 side alone.
        let hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
        let name = format!("rads-bench-{}-{number}", std::process::id());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", hide, "sh", "crun", "run", "--bundle"]);
        command.arg(&config).arg(name);
        command
    })
}

fn crun_bundle(folder: &Path, stamp: &Path) -> std::io::Result<PathBuf> {
    let root = folder.join("rootfs");
    for inside in ["usr", "proc", "dev", "sys", "tmp", "app"] {
        fs::create_dir_all(root.join(inside))?;
    }
    for link in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link))?;
    }
    fs::copy(stamp, root.join("app/bench"))?;
    let namespaces = ["pid", "mount", "ipc", "uts", "network", "cgroup"].map(|kind| json!({ "type": kind }));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": ["/app/bench", "stamp"], "cwd": "/",
            "env": ["PATH=/usr/bin:/bin"], "noNewPrivileges": true, "capabilities": {},
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "star",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"] },
            { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] },
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {
                "cpu": { "quota": 25_000, "period": 100_000 }, "memory": { "limit": 64 << 20 }, "pids": { "limit": 64 },
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    fs::File::create(folder.join("config.json"))?.write_all(config.to_string().as_bytes())?;
    Ok(folder.to_path_buf())
}

/// Runs the command `samples` times; each prints the moment of its first instruction.
fn collect(samples: usize, mut command: impl FnMut() -> Command) -> Result<Samples, String> {
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let mut command = command();
        let requested = now_ns();
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        let stamp = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().map_err(|_| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            format!("did not run here: {}", complaint.lines().last().unwrap_or("no output"))
        })?;
        times.push(ms_between(requested, stamp));
    }
    Samples::new(times).ok_or_else(|| "no samples".to_owned())
}

fn installed(program: &str) -> Result<(), String> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    if found { Ok(()) } else { Err(format!("`{program}` is not installed")) }
}
