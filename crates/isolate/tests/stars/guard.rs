//! No run of the tests leaves a nursery: one that does not end is seen, and when the run itself is killed, another process that
//! was there from the start ends its nurseries. They are nobody's children and mean to outlive whoever started them.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long a nursery that is told to end may take for its stars and groups.
const PATIENCE: Duration = Duration::from_secs(10);

/// The nurseries whose data folders lie in `folder`.
pub(crate) fn nurseries(folder: &Path) -> Vec<u32> {
    let is_one = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        matches!(words[..], [_, b"nursery", data_dir, ..]
            if Path::new(&OsString::from_vec(data_dir.to_vec())).starts_with(folder))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// Starts the process that ends this one's nurseries should it not get to it.
pub(crate) fn post(folder: &Path) {
    let exe = std::env::current_exe().unwrap();
    let args = ["guard".into(), std::process::id().to_string().into(), folder.as_os_str().to_owned()];
    isolate::launch_detached(&exe, &args, Path::new("/dev/null")).unwrap();
}

/// The life of that process.
pub(crate) fn stand(runner: u32, folder: &Path) {
    let number = Pid::from_raw(runner as i32).unwrap();
    if let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) {
        while poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], None).is_err() {}
    }
    let begun = Instant::now();
    loop {
        let left = nurseries(folder);
        if left.is_empty() {
            break;
        }
        let signal = if begun.elapsed() < PATIENCE { Signal::TERM } else { Signal::KILL };
        for pid in left.into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, signal);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = fs::remove_dir_all(folder);
}
