//! What is known of containers between two commands: a folder each, with its state, its configuration as it was when it
//! was created, and the door at which it waits for its start.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use isolate::container::{Groups, Stage};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::plan::{self, Bundle};
use crate::spec::Spec;

/// The form of `state.json`; a released one is never changed.
const FORM: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl From<Stage> for Status {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Creating => Self::Creating,
            Stage::Created => Self::Created,
            Stage::Running => Self::Running,
            Stage::Stopped => Self::Stopped,
        }
    }
}

/// What is written down of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) form: u32,
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) created: String,
    pub(crate) owner: u32,
    /// With the moment it began, in the kernel's ticks, it is one process for ever.
    pub(crate) process: Option<(u32, u64)>,
    pub(crate) groups: Groups,
    /// Where its mounts are made among the host's: the mount that held its root before.
    #[serde(default)]
    pub(crate) shared_mount: Option<u64>,
    /// Whether it is whole: its creator has done its part.
    pub(crate) whole: bool,
}

impl Record {
    pub(crate) fn new(id: &str, bundle: &Path, spec: &Spec, judged: &Bundle) -> Self {
        use isolate::container::plan::Kind;
        Self {
            form: FORM,
            oci_version: spec.oci_version.clone(),
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            root: judged.plan.root.clone(),
            annotations: spec.annotations.clone(),
            created: crate::moment::Moment::now().to_string(),
            owner: rustix::process::getuid().as_raw(),
            process: None,
            groups: Groups::default(),
            shared_mount: isolate::container::mount_of(&judged.plan.root)
                .filter(|_| !judged.plan.namespaces.is_apart(Kind::Mount)),
            whole: false,
        }
    }

    /// The state as the specification has it.
    pub(crate) fn state(&self, status: Status, pid: Option<u32>) -> Value {
        let mut state = json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status.name(),
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if let Some(pid) = pid.filter(|_| status != Status::Stopped) {
            state["pid"] = json!(pid);
        }
        state
    }

    /// The number of its first process, while that lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        let (pid, began) = self.process?;
        (start_of(pid) == Some(began)).then_some(pid)
    }
}

/// When a process began, if it still runs.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// All containers of one `--root`.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// The folder given, or the usual one of this user.
    pub(crate) fn new(root: Option<&Path>) -> Result<Self, String> {
        let uid = rustix::process::geteuid();
        let root = match (root, std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty())) {
            (Some(root), _) => std::path::absolute(root).map_err(|error| format!("`{}`: {error}", root.display()))?,
            (None, _) if uid.is_root() => PathBuf::from("/run/rads-oci"),
            (None, Some(folder)) => PathBuf::from(folder).join("rads-oci"),
            (None, None) => return Err("without `XDG_RUNTIME_DIR` a user has to say `--root FOLDER`".to_owned()),
        };
        Ok(Self { root })
    }

    /// The ids of all containers.
    pub(crate) fn ids(&self) -> Result<Vec<String>, String> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| format!("cannot read `{}`: {error}", self.root.display()))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<String> = names.filter(|id| plan::check_id(id).is_ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// Makes a container's folder, which no other may have.
    pub(crate) fn create(&self, id: &str) -> Result<Folder, String> {
        plan::check_id(id)?;
        let uid = rustix::process::geteuid().as_raw();
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|error| format!("cannot make `{}`: {error}", self.root.display()))?;
        let metadata = fs::metadata(&self.root).map_err(|error| format!("`{}`: {error}", self.root.display()))?;
        if metadata.uid() != uid || metadata.mode() & 0o022 != 0 {
            return Err(format!("others may write to `{}`: what lies there cannot be trusted", self.root.display()));
        }
        let path = self.root.join(id);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(format!("container `{id}` exists already"))
            }
            Err(error) => Err(format!("cannot make `{}`: {error}", path.display())),
            Ok(()) => Folder::open(path, id).inspect(|folder| drop(folder.lock())),
        }
    }

    /// A container's folder.
    pub(crate) fn find(&self, id: &str) -> Result<Folder, String> {
        plan::check_id(id)?;
        let path = self.root.join(id);
        match path.is_dir() {
            true => Folder::open(path, id),
            false => Err(format!("container `{id}` does not exist")),
        }
    }
}

/// One container's folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    id: String,
    fd: File,
}

impl Folder {
    fn open(path: PathBuf, id: &str) -> Result<Self, String> {
        let fd = File::open(&path).map_err(|error| format!("cannot open `{}`: {error}", path.display()))?;
        Ok(Self { path, id: id.to_owned(), fd })
    }

    /// Held until the command ends: one at a time changes a container.
    pub(crate) fn lock(&self) -> Result<(), String> {
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("cannot lock `{}`: {error}", self.path.display())),
                Ok(()) => break,
            }
        }
        // Whoever held it may have deleted the container.
        let same =
            fs::metadata(&self.path).is_ok_and(|now| self.fd.metadata().is_ok_and(|ours| ours.ino() == now.ino()));
        if same { Ok(()) } else { Err(format!("container `{}` does not exist", self.id)) }
    }

    /// Lets others change it.
    pub(crate) fn unlock(&self) {
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
    }

    /// Whether somebody holds it.
    fn is_locked(&self) -> bool {
        match File::open(&self.path) {
            Ok(fd) => rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err(),
            Err(_) => false,
        }
    }

    pub(crate) fn load(&self) -> Result<Record, String> {
        let unreadable = |why: String| format!("the state of `{}` is unreadable: {why}", self.id);
        let text = match fs::read(self.path.join("state.json")) {
            Ok(text) => text,
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        match record.form {
            FORM => Ok(record),
            form => Err(unreadable(format!("it has form {form}, and this program knows {FORM}"))),
        }
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), String> {
        let text = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        self.put("state.json", &text)
    }

    /// The configuration as it was when the container was created.
    pub(crate) fn spec(&self) -> Result<Spec, String> {
        let path = self.path.join("config.json");
        let text = fs::read(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        Spec::parse(&text)
    }

    pub(crate) fn put(&self, name: &str, text: &[u8]) -> Result<(), String> {
        let (new, path) = (self.path.join(format!(".{name}")), self.path.join(name));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text)?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| format!("cannot write `{}`: {error}", path.display()))
    }

    /// The status of a container, and the number of its first process while it lives.
    pub(crate) fn status(&self, record: &Record) -> (Status, Option<u32>) {
        let pid = record.pid();
        let status = match (record.whole, pid) {
            // Without its creator it will never be whole; what was begun of it has ended with it.
            (false, _) => {
                if self.is_locked() {
                    Status::Creating
                } else {
                    Status::Stopped
                }
            }
            (true, None) => Status::Stopped,
            (true, Some(_)) if self.path.join("door").exists() => Status::Created,
            (true, Some(_)) if record.groups.is_frozen() => Status::Paused,
            (true, Some(_)) => Status::Running,
        };
        (status, pid)
    }

    /// The door is named by the folder's descriptor: a socket's own path may not be long.
    fn door(&self) -> String {
        format!("/proc/self/fd/{}/door", self.fd.as_raw_fd())
    }

    pub(crate) fn make_door(&self) -> Result<UnixListener, String> {
        UnixListener::bind(self.door())
            .map_err(|error| format!("cannot make a socket in `{}`: {error}", self.path.display()))
    }

    pub(crate) fn knock(&self) -> Result<UnixStream, String> {
        UnixStream::connect(self.door()).map_err(|error| format!("container `{}` does not answer: {error}", self.id))
    }

    /// From here on it has been started.
    pub(crate) fn close_door(&self) {
        let _ = fs::remove_file(self.path.join("door"));
    }

    pub(crate) fn remove(&self) -> Result<(), String> {
        fs::remove_dir_all(&self.path).map_err(|error| format!("cannot remove `{}`: {error}", self.path.display()))
    }
}
