//! The data folder: made, checked and held by one agent at a time.
//!
//! What is in it is nobody's business but its owner's: the folder and its sub-folders have mode 0700. Stars run under other
//! user ids and reach their files all the same, by mounts. It matters most for volumes: to a star its root is root, and
//! what it puts there, a set-user-id program too, belongs to the host's.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::{Code, Problem};

use crate::fault;

/// A data folder that belongs to this process until the value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Keeps the kernel's lock; its content, the pid, is only for people.
    lock: File,
}

impl DataDir {
    /// Makes the folder when there is none, checks that files can be made in it, and takes it.
    ///
    /// # Errors
    /// `DataUnwritable` when it cannot be made or written, `AgentRunning` (naming the pid) when another process holds
    /// it, `DiskFull` when not even an empty file fits.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        make_place(path)?;
        // Absolute from here on: the path is handed to processes with another working folder.
        let path = fs::canonicalize(path).map_err(|error| unwritable("open", path, &error))?;
        let lock = take(&path)?;
        for (folder, mode) in [("store", 0o700), ("blobs", 0o700), ("bundles", 0o700), ("volumes", 0o700)] {
            make(&path.join(folder), mode)?;
        }
        Ok(Self { path, lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder for [`crate::Store::open`].
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Whether the folder is not where it was any more: removed, moved away, or another in its place. What is written to files
    /// that are open is found by nobody then.
    pub fn is_gone(&self) -> bool {
        is_elsewhere(&self.lock, &self.path)
    }

    /// Empties a folder in which an agent was for nothing: of what it makes for itself, and of folders with nothing in them. What
    /// holds something else stays, and what cannot be removed is in nobody's way.
    pub fn clear_unused(self) {
        for folder in ["store", "blobs", "bundles"] {
            let _ = fs::remove_dir_all(self.path.join(folder));
        }
        for file in ["agent.log", "agent.sock", "nursery.log", "nursery.pid", "nursery.sock"] {
            let _ = fs::remove_file(self.path.join(file));
        }
        remove_empty(&self.path);
        // While it is held: who comes now begins with its own.
        let _ = fs::remove_file(self.path.join(LOCK));
    }

    /// The pid that holds the folder now, when some process does. For messages: it may be gone the next moment.
    pub fn holder(path: &Path) -> Option<u32> {
        let file = File::open(path.join(LOCK)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read_pid(&file),
            _ => None,
        }
    }
}

/// Whether another lock, or none, is where this one was.
fn is_elsewhere(lock: &File, path: &Path) -> bool {
    match (fs::metadata(path.join(LOCK)), lock.metadata()) {
        (Ok(there), Ok(own)) => (there.dev(), there.ino()) != (own.dev(), own.ino()),
        (Err(error), _) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        // A disk that gives no answer says so elsewhere.
        (Ok(_), Err(_)) => false,
    }
}

/// Removes the folders in one that have nothing but folders in them.
fn remove_empty(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
            // Refused unless it is empty by now.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

const LOCK: &str = "agent.lock";
/// An agent that was killed holds the lock until the last of its threads is gone, though it is told to be dead before: longer on a
/// busy machine. Whoever starts the next one at that moment is not sent away.
const DYING_FOR: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);

/// Makes the data folder itself. One that is there already keeps its mode: it may be in use for other things too. But where
/// others may write, they could put their files in the place of the agent's.
fn make_place(path: &Path) -> Result<(), Problem> {
    if !path.exists() {
        return make(path, 0o700);
    }
    let data = fs::metadata(path).map_err(|error| unwritable("read", path, &error))?;
    if data.is_dir() && data.permissions().mode() & 0o022 != 0 {
        let message = format!("others may write to `{}`, which makes it no data folder", path.display());
        return Err(Problem::new(Code::DataUnwritable, message).help("choose a folder of your own, or one in it"));
    }
    Ok(())
}

fn make(path: &Path, mode: u32) -> Result<(), Problem> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|error| unwritable("create", path, &error))?;
    // The umask may have taken bits that stars need, and an older folder may be too open.
    let current = fs::metadata(path).map_err(|error| unwritable("read", path, &error))?.permissions().mode() & 0o7777;
    if current != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|error| unwritable("set the permissions of", path, &error))?;
    }
    Ok(())
}

fn take(path: &Path) -> Result<File, Problem> {
    loop {
        let lock = take_there(path)?;
        // Whoever had it may have taken the file away with all that was there: see `clear_unused`.
        if !is_elsewhere(&lock, path) {
            return Ok(lock);
        }
    }
}

fn take_there(path: &Path) -> Result<File, Problem> {
    let lock_path = path.join(LOCK);
    // Not truncated: until the lock is ours the pid inside is the holder's.
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| unwritable("create", &lock_path, &error))?;
    let deadline = Instant::now() + DYING_FOR;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => match read_pid(&lock) {
                Some(pid) if is_dead(pid) && Instant::now() < deadline => std::thread::sleep(STEP),
                pid => return Err(held(path, pid)),
            },
            Err(TryLockError::Error(error)) => return Err(unwritable("lock", &lock_path, &error)),
        }
    }
    let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(|error| unwritable("write", &lock_path, &error))?;
    Ok(lock)
}

/// Whether a process has ended, but for what the kernel still takes away of it.
fn is_dead(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn read_pid(mut lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

pub(crate) fn held(path: &Path, pid: Option<u32>) -> Problem {
    let by = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    Problem::new(Code::AgentRunning, format!("another agent{by} holds `{}`", path.display()))
        .help("use that agent, stop it first, or choose another folder with `--data-dir`")
}

/// As `fault::problem`, but whatever stands in the way of a data folder makes it unusable as one.
fn unwritable(verb: &str, path: &Path, error: &io::Error) -> Problem {
    let mut problem = fault::problem(verb, path, error);
    if problem.code == Code::Internal {
        problem.code = Code::DataUnwritable;
        problem = problem.help("choose another folder with `--data-dir` or `RADS_DATA`");
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_folder_that_was_used_for_nothing_is_emptied_but_of_what_is_somebodys() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let left = || fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let used = DataDir::open(&data).unwrap();
        fs::write(data.join("agent.log"), "it began").unwrap();
        fs::write(data.join("store/journal"), "nothing").unwrap();
        fs::create_dir_all(data.join("snapshots/.pieces")).unwrap();
        used.clear_unused();
        assert_eq!(left(), Vec::<std::ffi::OsString>::new());
        let used = DataDir::open(&data).unwrap();
        fs::create_dir_all(data.join("volumes/default/pages")).unwrap();
        fs::write(data.join("volumes/default/pages/index.html"), "mine").unwrap();
        fs::write(data.join("notes"), "mine too").unwrap();
        used.clear_unused();
        let mut left = left();
        left.sort();
        assert_eq!(left, ["notes", "volumes"]);
        assert!(data.join("volumes/default/pages/index.html").exists());
    }

    #[test]
    fn the_folder_is_made_with_the_permissions_stars_need() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&temp.path().join("a/b")).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.store()), 0o700);
        assert_eq!(mode(&dir.path().join("bundles")), 0o700);
        assert_eq!(mode(&dir.path().join("volumes")), 0o700);
        assert!(dir.path().is_absolute());
    }

    #[test]
    fn a_second_agent_is_refused_and_told_the_pid_until_the_first_lets_go() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::open(temp.path()).unwrap();
        let refused = DataDir::open(temp.path()).unwrap_err();
        assert_eq!(refused.code, Code::AgentRunning);
        assert!(refused.message.contains(&format!("pid {}", std::process::id())), "{refused}");
        assert_eq!(DataDir::holder(temp.path()), Some(std::process::id()));
        drop(first);
        assert_eq!(DataDir::holder(temp.path()), None);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn a_folder_that_was_removed_moved_or_replaced_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let (path, other) = (temp.path().join("data"), temp.path().join("other"));
        let dir = DataDir::open(&path).unwrap();
        assert!(!dir.is_gone());
        fs::rename(&path, &other).unwrap();
        assert!(dir.is_gone(), "moved");
        let second = DataDir::open(&path).unwrap();
        assert!(dir.is_gone() && !second.is_gone(), "another in its place");
        fs::remove_dir_all(&path).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!dir.is_gone() && second.is_gone(), "it is back");
        fs::remove_dir_all(&path).unwrap();
        assert!(dir.is_gone(), "removed");
        fs::write(&path, "").unwrap();
        assert!(dir.is_gone(), "a file in its place");
    }

    #[test]
    fn an_agent_that_is_just_dying_is_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        drop(DataDir::open(temp.path()).unwrap());
        // As when a thread of it is left: the process is dead, and something still holds what it held.
        let dying = "exec 9<>agent.lock; flock 9; : > agent.lock; echo $$ >&9; sleep 0.3 & exit 0";
        let mut holder = std::process::Command::new("sh").args(["-c", dying]).current_dir(temp.path()).spawn().unwrap();
        let pid = holder.id();
        while !(DataDir::holder(temp.path()) == Some(pid) && is_dead(pid)) {
            std::thread::yield_now();
        }
        DataDir::open(temp.path()).unwrap();
        holder.wait().unwrap();
    }

    #[test]
    fn a_place_that_cannot_hold_a_folder_is_said_so() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        for bad in [file.clone(), file.join("below"), PathBuf::from("/proc/nowhere")] {
            let problem = DataDir::open(&bad).unwrap_err();
            assert_eq!(problem.code, Code::DataUnwritable, "{}: {problem}", bad.display());
            assert!(problem.help.is_some());
        }
    }
}
