//! Snapshots of volumes: what stars wrote, kept by content.
//!
//! A snapshot may have a star's memory beside them: see `memory`.
//!
//! `snapshots/<name>` lists every file of some volumes of a service, with the hashes of its pieces; `snapshots/.pieces/` holds
//! the pieces, each once. Taking one is done in two looks: the first while the stars go on, the second, short, while
//! nothing writes. Restoring unpacks beside the volume, checks every piece, and then exchanges the two folders: what is
//! interrupted has changed nothing.
//!
//! Everything here blocks on the disk; an async caller gives it a thread.

mod capture;
mod memory;
mod pieces;
mod tree;
mod unpack;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use model::{Code, Name, Problem, ServiceKey, WallTime};
use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use self::capture::{Capture, Known, Refused};
pub use self::memory::{MemoryInfo, StoredMemory};
use self::pieces::Pieces;
use self::tree::Tree;
use self::unpack::Unpack;
use crate::bundles::sync_dir;
use crate::fault;

/// The form of a snapshot's file; a later one is read beside this.
const VERSION: u32 = 1;
/// Bytes of BLAKE3 after the rest of the file.
const HASH: usize = 32;
/// No snapshot's name has a dot.
const PIECES: &str = ".pieces";
/// What a restore has exchanged so far.
const JOURNAL: &str = ".restoring";
/// A volume's name has no dots.
const UNPACKED: &str = ".restored-";

/// The snapshots of one data folder.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
    volumes: PathBuf,
    /// Held by whoever changes something.
    pieces: Mutex<Pieces>,
    /// User and group that own whatever a star writes, when stars have no ids of their own.
    own_ids: Option<(u32, u32)>,
}

/// One snapshot, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub name: Name,
    pub service: ServiceKey,
    pub taken: WallTime,
    pub volumes: Vec<VolumeInfo>,
    /// Of a star, when it was kept too.
    pub memory: Option<MemoryInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    pub volume: Name,
    /// Folders and links too.
    pub files: u64,
    pub bytes: u64,
}

/// What taking one came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub info: SnapshotInfo,
    /// Bytes of content that no other snapshot had.
    pub added: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u32,
    service: ServiceKey,
    taken: WallTime,
    volumes: Vec<(Name, Tree)>,
}

/// A snapshot that is being taken: what is known of files from a look at them.
#[derive(Debug, Default)]
pub struct FirstLook {
    known: Vec<Known>,
}

impl Snapshots {
    /// `dir` is the data folder. What an earlier process left unfinished is undone or removed. `own_ids` says that stars
    /// have no user ids of their own.
    pub fn new(dir: &Path, rootless: bool) -> Result<Self, Problem> {
        let folder = dir.join("snapshots");
        let failed = |error: io::Error| fault::problem("create", &folder, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let pieces = Pieces::new(folder.join(PIECES)).map_err(failed)?;
        let own_ids = rootless.then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        let this = Self { folder: folder.clone(), volumes: dir.join("volumes"), pieces: Mutex::new(pieces), own_ids };
        this.recover().and_then(|()| this.recover_memories()).map_err(failed)?;
        Ok(this)
    }

    /// Waits until what was written so far is on disk, so that a file changed from now on shows it: a page that a program has
    /// mapped and writes to again is seen as changed only after that. Nothing may be written meanwhile. Gives the second in
    /// which this was.
    pub fn settle(&self, service: &ServiceKey, volumes: &BTreeSet<Name>) -> Result<i64, Problem> {
        for volume in volumes {
            self.reachable(service, volume)?;
            let path = self.volume(service, volume);
            let synced = File::open(&path).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
            synced.map_err(|error| fault::problem("read", &path, &error))?;
        }
        Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64))
    }

    /// Reads the volumes while stars write to them. What does not change from here on need not be read again. `settled` is
    /// from `settle`.
    pub fn look(&self, service: &ServiceKey, volumes: &BTreeSet<Name>, settled: i64) -> Result<FirstLook, Problem> {
        let pieces = self.pieces();
        let mut known = Vec::new();
        for volume in volumes {
            let nothing = Known::new();
            let mut capture = Capture {
                pieces: &pieces,
                own_ids: self.own_ids,
                known: &nothing,
                moving: true,
                seen: Known::new(),
                unchanged_since: settled,
            };
            let path = self.volume(service, volume);
            capture.run(&path).map_err(|refused| not_taken(volume, refused))?;
            known.push(capture.seen);
        }
        // Now, and not when stars stand still and may wait for the same disk.
        pieces.sync().map_err(|error| fault::problem("write", pieces.folder(), &error))?;
        Ok(FirstLook { known })
    }

    /// Takes a snapshot of volumes to which nothing writes. Durable when it returns.
    ///
    /// # Errors
    /// `Conflict` when there is one of this name, or what is in a volume cannot be kept; `DiskFull`. Nothing is kept then.
    pub fn take(
        &self,
        name: &Name,
        service: &ServiceKey,
        volumes: &BTreeSet<Name>,
        look: &FirstLook,
        taken: WallTime,
    ) -> Result<Taken, Problem> {
        let pieces = self.pieces();
        let mut content = Content { version: VERSION, service: service.clone(), taken, volumes: Vec::new() };
        let nothing = Known::new();
        for (index, volume) in volumes.iter().enumerate() {
            self.reachable(service, volume)?;
            let mut capture = Capture {
                pieces: &pieces,
                own_ids: self.own_ids,
                known: look.known.get(index).unwrap_or(&nothing),
                moving: false,
                seen: Known::new(),
                unchanged_since: i64::MIN,
            };
            let tree = capture.run(&self.volume(service, volume)).map_err(|refused| not_taken(volume, refused))?;
            content.volumes.push((volume.clone(), tree));
        }
        self.keep(name, &content, &pieces)?;
        let used = content.volumes.iter().flat_map(|(_, tree)| tree.pieces().map(|piece| &piece.hash));
        Ok(Taken { info: self.describe(name, &content)?, added: pieces.added(used) })
    }

    /// Removes the pieces that no snapshot has: of what changed after a first look, or of one that could not be taken.
    pub fn tidy(&self) -> Result<(), Problem> {
        let pieces = self.pieces();
        self.collect(&pieces)
    }

    /// Every snapshot, by name.
    ///
    /// # Errors
    /// `DataCorrupt` when one cannot be read.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, Problem> {
        self.names()?.iter().map(|name| self.info(name)).collect()
    }

    pub fn info(&self, name: &Name) -> Result<SnapshotInfo, Problem> {
        self.describe(name, &self.load(name)?)
    }

    /// Removes a snapshot, and the pieces that no other one has.
    pub fn delete(&self, name: &Name) -> Result<(), Problem> {
        let pieces = self.pieces();
        let path = self.folder.join(name.as_str());
        fs::remove_file(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => no_snapshot(name),
            _ => fault::problem("remove", &path, &error),
        })?;
        self.drop_memory(name)?;
        self.collect(&pieces)
    }

    /// Gives the volumes of a service the files that they had. Nobody may be using them. Durable when it returns.
    ///
    /// # Errors
    /// `NotFound`; `DataCorrupt` for a piece that is not what it was; `DiskFull`. The volumes are what they were then.
    pub fn restore(&self, name: &Name, service: &ServiceKey) -> Result<SnapshotInfo, Problem> {
        let pieces = self.pieces();
        let content = self.load(name)?;
        let info = self.describe(name, &content)?;
        let folder = self.volumes.join(service.namespace.as_str());
        let cannot = |error: io::Error| fault::problem("write", &folder, &error);
        DirBuilder::new().recursive(true).mode(0o711).create(&folder).map_err(cannot)?;
        let done =
            self.unpack(&content, service, &pieces).and_then(|()| self.exchange(&content, service).map_err(cannot));
        if done.is_err() {
            // What was exchanged is changed back; the first problem is the one to tell.
            let _ = self.recover();
        }
        self.sweep(&folder).map_err(cannot)?;
        done.map(|()| info)
    }

    /// Unpacks every volume beside itself.
    fn unpack(&self, content: &Content, service: &ServiceKey, pieces: &Pieces) -> Result<(), Problem> {
        let folder = self.volumes.join(service.namespace.as_str());
        self.sweep(&folder).map_err(|error| fault::problem("write", &folder, &error))?;
        for (volume, tree) in &content.volumes {
            self.reachable(service, volume)?;
            let unpack = Unpack { pieces, own_ids: self.own_ids };
            let to = folder.join(format!("{UNPACKED}{volume}"));
            unpack.run(tree, &to).map_err(|(path, error)| match error.kind() {
                ErrorKind::InvalidData => {
                    fault::corrupt(&self.folder, &format!("volume `{volume}`, `{path}`: {error}"))
                }
                ErrorKind::NotFound => fault::corrupt(&self.folder, &format!("a piece of `{path}` is missing")),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => fault::problem("write", &to, &error),
                _ => Problem::new(Code::Conflict, format!("`{path}` of volume `{volume}` cannot be restored: {error}"))
                    .help("the volume is as it was"),
            })?;
            File::open(&to)
                .and_then(|made| Ok(rustix::fs::syncfs(made)?))
                .map_err(|error| fault::problem("write", &to, &error))?;
        }
        Ok(())
    }

    /// Puts what was unpacked in the volumes' places, all or none of it.
    fn exchange(&self, content: &Content, service: &ServiceKey) -> io::Result<()> {
        let folder = self.volumes.join(service.namespace.as_str());
        let mut journal = String::new();
        for (volume, _) in &content.volumes {
            let made = fs::metadata(folder.join(format!("{UNPACKED}{volume}")))?;
            journal += &format!("{} {volume} {} {}\n", service.namespace, made.dev(), made.ino());
            // There is something to exchange it with.
            match DirBuilder::new().mode(0o711).create(folder.join(volume.as_str())) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        self.write(JOURNAL, journal.as_bytes())?;
        for (volume, _) in &content.volumes {
            exchange(&folder, volume.as_str())?;
        }
        sync_dir(&folder)?;
        // From here on it is done.
        fs::remove_file(self.folder.join(JOURNAL))?;
        sync_dir(&self.folder)
    }

    /// Changes back what a restore exchanged that did not come to its end, and removes what it unpacked.
    fn recover(&self) -> io::Result<()> {
        let path = self.folder.join(JOURNAL);
        if let Ok(journal) = fs::read_to_string(&path) {
            for line in journal.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                let [namespace, volume, dev, ino] = words[..] else { continue };
                let (Ok(namespace), Ok(volume)) = (namespace.parse::<Name>(), volume.parse::<Name>()) else { continue };
                let folder = self.volumes.join(namespace.as_str());
                let exchanged = (dev.parse().ok()).zip(ino.parse().ok());
                let place = folder.join(volume.as_str());
                if exchanged.is_some_and(|(dev, ino)| unpack::is_same(&place, dev, ino)) {
                    exchange(&folder, volume.as_str())?;
                    sync_dir(&folder)?;
                }
            }
            fs::remove_file(&path)?;
        }
        for namespace in fs::read_dir(&self.volumes).into_iter().flatten().flatten() {
            if namespace.file_type()?.is_dir() {
                self.sweep(&namespace.path())?;
            }
        }
        Ok(())
    }

    /// Removes what was unpacked or replaced in a namespace.
    fn sweep(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNPACKED) {
                unpack::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn keep(&self, name: &Name, content: &Content, pieces: &Pieces) -> Result<(), Problem> {
        let path = self.folder.join(name.as_str());
        if path.exists() {
            return Err(taken_already(name));
        }
        let write = || -> io::Result<()> {
            pieces.sync()?;
            let mut bytes = rmp_serde::to_vec_named(content).map_err(io::Error::other)?;
            let hash = blake3::hash(&bytes);
            bytes.extend_from_slice(hash.as_bytes());
            self.write(name.as_str(), &bytes)
        };
        write().map_err(|error| fault::problem("write", &path, &error))
    }

    /// All or nothing, and durable.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.join(".unfinished");
        let _ = fs::remove_file(&unfinished);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&unfinished, self.folder.join(name)));
        renamed.inspect_err(|_| {
            let _ = fs::remove_file(&unfinished);
        })?;
        sync_dir(&self.folder)
    }

    fn load(&self, name: &Name) -> Result<Content, Problem> {
        let path = self.folder.join(name.as_str());
        let mut bytes = Vec::new();
        File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => no_snapshot(name),
            _ => fault::problem("read", &path, &error),
        })?;
        let (content, hash) = bytes.split_at(bytes.len().saturating_sub(HASH));
        if blake3::hash(content).as_bytes() != hash {
            return Err(fault::corrupt(&path, "its content does not have its hash"));
        }
        let content: Content =
            rmp_serde::from_slice(content).map_err(|error| fault::corrupt(&path, &error.to_string()))?;
        if content.version != VERSION {
            return Err(fault::corrupt(&path, &format!("it is of version {}", content.version)));
        }
        for (_, tree) in &content.volumes {
            tree.check().map_err(|why| fault::corrupt(&path, &why))?;
        }
        Ok(content)
    }

    fn names(&self) -> Result<Vec<Name>, Problem> {
        let failed = |error: io::Error| fault::problem("read", &self.folder, &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_file() {
                names.extend(entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok()));
            }
        }
        names.sort();
        Ok(names)
    }

    fn collect(&self, pieces: &Pieces) -> Result<(), Problem> {
        let mut used = BTreeSet::new();
        for name in self.names()? {
            // One that cannot be read may need any of them: nothing is removed then.
            let content = self.load(&name)?;
            used.extend(content.volumes.iter().flat_map(|(_, tree)| tree.pieces().map(|piece| piece.hash.clone())));
        }
        pieces.collect(&used).map_err(|error| fault::problem("remove", pieces.folder(), &error))
    }

    fn volume(&self, service: &ServiceKey, volume: &Name) -> PathBuf {
        self.volumes.join(service.namespace.as_str()).join(volume.as_str())
    }

    /// Refuses a volume whose files are not in its folder: one with a size may be a file system of its own, in an image.
    fn reachable(&self, service: &ServiceKey, volume: &Name) -> Result<(), Problem> {
        let image = self.volumes.join(service.namespace.as_str()).join(format!("{volume}.img"));
        match image.exists() {
            false => Ok(()),
            true => Err(Problem::new(
                Code::Unsupported,
                format!("volume `{volume}` is in an image, and snapshots do not reach into one"),
            )
            .help("a volume without `size_mb`, or on a disk with project quota, is a folder")),
        }
    }

    fn describe(&self, name: &Name, content: &Content) -> Result<SnapshotInfo, Problem> {
        Ok(SnapshotInfo { memory: self.memory_info(name)?, ..info(name, content) })
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exchange(folder: &Path, volume: &str) -> io::Result<()> {
    let folder = File::open(folder)?;
    let unpacked = format!("{UNPACKED}{volume}");
    Ok(rustix::fs::renameat_with(&folder, unpacked, &folder, volume, RenameFlags::EXCHANGE)?)
}

fn info(name: &Name, content: &Content) -> SnapshotInfo {
    let volume = |(volume, tree): &(Name, Tree)| VolumeInfo {
        volume: volume.clone(),
        files: tree.entries.len() as u64 - 1,
        bytes: tree.bytes(),
    };
    SnapshotInfo {
        name: name.clone(),
        service: content.service.clone(),
        taken: content.taken,
        volumes: content.volumes.iter().map(volume).collect(),
        memory: None,
    }
}

fn no_snapshot(name: &Name) -> Problem {
    Problem::new(Code::NotFound, format!("no snapshot `{name}`")).help("`rads c snapshots` lists what there is")
}

/// Names are given once.
pub fn taken_already(name: &Name) -> Problem {
    Problem::new(Code::Conflict, format!("there is a snapshot `{name}` already"))
        .help("choose another name with `--as`, or delete that one")
}

fn not_taken(volume: &Name, refused: Refused) -> Problem {
    let (path, why) = match refused {
        Refused::Failed(path, error) if fault::is_full(&error) => {
            let path = if path.is_empty() { String::new() } else { format!(" (at `{path}`)") };
            return Problem::new(Code::DiskFull, format!("no room for a snapshot of volume `{volume}`{path}"))
                .help("free some space, or delete a snapshot; nothing was kept");
        }
        Refused::Failed(path, error) => (path, error.to_string()),
        Refused::There(path, why) => (path, why),
    };
    let at = if path.is_empty() { String::new() } else { format!("`{path}` of ") };
    Problem::new(Code::Conflict, format!("{at}volume `{volume}` cannot be kept: {why}")).help("no snapshot was taken")
}

#[cfg(test)]
mod tests;
