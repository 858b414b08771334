//! Snapshots: what stars wrote, kept by content.
//!
//! A snapshot may have a star's memory beside them: see `memory`.
//!
//! `snapshots/<name>` lists every file of some volumes of a service and of what its stars had of their own, with the hashes of
//! its pieces; `snapshots/.pieces/` holds the pieces, each once. Taking one is done in two looks: the first while the stars go
//! on, the second, short, while nothing writes. Restoring unpacks beside the volume, checks every piece, and then
//! exchanges the two: what is interrupted has changed nothing. What stars had of their own waits for those that come in
//! their places (`waiting`).
//!
//! Everything here blocks on the disk; an async caller gives it a thread.

mod capture;
mod memory;
mod pieces;
mod stopped;
mod tree;
mod unpack;
mod waiting;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use model::{Code, Name, Problem, ServiceKey, WallTime};
use rustix::fs::{Mode, RenameFlags};
use serde::{Deserialize, Serialize};

pub use self::capture::Owners;
use self::capture::{Capture, Known, Mounts, Refused};
pub use self::memory::{MemoryInfo, StoredMemory};
use self::pieces::Pieces;
pub use self::stopped::Stopped;
use self::tree::Tree;
use self::unpack::Unpack;
use self::waiting::WAITING;
pub use self::waiting::Waiting;
use self::way::FOLDER;
use crate::bundles::sync_dir;
use crate::fault;

/// The form of a snapshot's file; a later one is read beside this.
const VERSION: u32 = 2;
/// Of before stars' own files were kept: the same without them.
const WITHOUT_STARS: u32 = 1;
/// Bytes of BLAKE3 after the rest of the file.
const HASH: usize = 32;
/// No snapshot's name has a dot.
const PIECES: &str = ".pieces";
/// What a restore has exchanged so far.
const JOURNAL: &str = ".restoring";
/// A volume's name has no dots.
const UNPACKED: &str = ".restored-";

/// What is to be done about volumes that are more than folders. How is not the store's to know.
#[derive(Debug, Clone, Copy)]
pub struct Backing {
    /// The files of a volume that is in an image.
    pub open: fn(image: &Path) -> io::Result<OwnedFd>,
    /// Makes an image as large as another, and gives its files, of which there are none yet.
    pub make: fn(new: &Path, like: &Path) -> io::Result<OwnedFd>,
    /// Bounds a new folder as another one is.
    pub bound: fn(new: &Path, like: &Path) -> io::Result<()>,
    /// Gives back what bounds a folder.
    pub release: fn(folder: &Path) -> io::Result<()>,
}

/// The snapshots of one data folder.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
    volumes: PathBuf,
    /// Held by whoever changes something.
    pieces: Mutex<Pieces>,
    /// User and group that own whatever a star writes, when stars have no ids of their own.
    own_ids: Option<(u32, u32)>,
    backing: Backing,
    /// Services for whose next stars files wait.
    awaited: Mutex<BTreeSet<ServiceKey>>,
}

/// A star whose own files are to be kept.
#[derive(Debug)]
pub struct StarSource {
    pub ordinal: u32,
    /// What its root was made of.
    pub root: Option<String>,
    pub owners: Owners,
    pub areas: Vec<AreaSource>,
}

/// A place of a star that it writes to, and that is gone with it.
#[derive(Debug)]
pub struct AreaSource {
    pub inside: String,
    pub folder: OwnedFd,
    /// What it lies over: only what differs from that is kept.
    pub below: Option<OwnedFd>,
    /// Names in it that are not the star's.
    pub leave: Vec<String>,
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
    pub stars: Vec<StarInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    pub volume: Name,
    pub held: Held,
}

/// How much there is somewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Folders and links too.
    pub files: u64,
    pub bytes: u64,
    /// Sockets, of which nothing is kept.
    pub left_out: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StarInfo {
    pub ordinal: u32,
    pub root: Option<String>,
    pub areas: Vec<AreaInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaInfo {
    pub inside: String,
    pub held: Held,
    /// Bytes it takes in memory.
    pub room: u64,
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stars: Vec<Star>,
}

/// What a star had of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Star {
    ordinal: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    areas: Vec<(String, Tree)>,
}

impl Content {
    fn trees(&self) -> impl Iterator<Item = &Tree> {
        let own = self.stars.iter().flat_map(|star| star.areas.iter().map(|(_, tree)| tree));
        self.volumes.iter().map(|(_, tree)| tree).chain(own)
    }
}

/// A snapshot that is being taken: what is known of files from a look at them.
#[derive(Debug, Default)]
pub struct FirstLook {
    known: Vec<Known>,
}

impl Snapshots {
    /// `dir` is the data folder. What an earlier process left unfinished is undone or removed. `rootless` says that stars
    /// have no user ids of their own.
    pub fn new(dir: &Path, rootless: bool, backing: Backing) -> Result<Self, Problem> {
        let folder = dir.join("snapshots");
        let failed = |error: io::Error| fault::problem("create", &folder, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let pieces = Pieces::new(folder.join(PIECES)).map_err(failed)?;
        let own_ids = rootless.then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        let this = Self {
            folder: folder.clone(),
            volumes: dir.join("volumes"),
            pieces: Mutex::new(pieces),
            own_ids,
            backing,
            awaited: Mutex::default(),
        };
        this.recover().and_then(|()| this.recover_memories()).map_err(failed)?;
        this.find_waiting().map_err(failed)?;
        Ok(this)
    }

    /// Waits until what was written so far is on disk, so that a file changed from now on shows it: a page that a program has
    /// mapped and writes to again is seen as changed only after that. Nothing may be written meanwhile. Gives the second in
    /// which this was.
    pub fn settle(&self, service: &ServiceKey, volumes: &BTreeSet<Name>) -> Result<i64, Problem> {
        for volume in volumes {
            let synced = self.open(service, volume).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
            synced.map_err(|error| fault::problem("read", &self.volume(service, volume), &error))?;
        }
        Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64))
    }

    /// Reads volumes and stars while these write to them. What does not change in a volume from here on need not be read
    /// again. `settled` is from `settle`.
    pub fn look(
        &self,
        service: &ServiceKey,
        volumes: &BTreeSet<Name>,
        stars: Vec<StarSource>,
        settled: i64,
    ) -> Result<FirstLook, Problem> {
        let pieces = self.pieces();
        let nothing = Known::new();
        let look = Look { pieces: &pieces, moving: true, unchanged_since: settled, until: None };
        let mut known = Vec::new();
        for volume in volumes {
            let mut capture = look.capture(self.owners(), &nothing);
            let folder = self.open(service, volume).map_err(|error| Refused::Failed(String::new(), error));
            let seen = folder.and_then(|folder| capture.run(folder, None));
            seen.map_err(|refused| not_taken(&format!("volume `{volume}`"), refused))?;
            known.push(capture.seen);
        }
        // Of memory nothing tells whether it has changed: its content is only kept ahead.
        for star in stars {
            look.star(service, star)?;
        }
        // Now, and not when stars stand still and may wait for the same disk.
        pieces.sync().map_err(|error| fault::problem("write", pieces.folder(), &error))?;
        Ok(FirstLook { known })
    }

    /// Takes a snapshot of what nothing writes to. Durable when it returns.
    ///
    /// # Errors
    /// `Conflict` when there is one of this name, what is in a volume cannot be kept, or it is not done `until` then;
    /// `DiskFull`. Nothing is kept then.
    pub fn take(
        &self,
        name: &Name,
        what: What<'_>,
        look: &FirstLook,
        until: Option<Instant>,
    ) -> Result<Taken, Problem> {
        let What { service, volumes, stars, taken } = what;
        let pieces = self.pieces();
        let (service, version) = (service.clone(), VERSION);
        let mut content = Content { version, service, taken, volumes: Vec::new(), stars: Vec::new() };
        let nothing = Known::new();
        let second = Look { pieces: &pieces, moving: false, unchanged_since: i64::MIN, until };
        for (index, volume) in volumes.iter().enumerate() {
            let mut capture = second.capture(self.owners(), look.known.get(index).unwrap_or(&nothing));
            let folder = self.open(&content.service, volume).map_err(|error| Refused::Failed(String::new(), error));
            let tree = folder.and_then(|folder| capture.run(folder, None));
            let tree = tree.map_err(|refused| not_taken(&format!("volume `{volume}`"), refused))?;
            content.volumes.push((volume.clone(), tree));
        }
        for star in stars {
            content.stars.push(second.star(&content.service, star)?);
        }
        self.keep(name, &content, &pieces)?;
        let used = content.trees().flat_map(|tree| tree.pieces().map(|piece| &piece.hash));
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

    /// Gives the volumes of a service the files that they had, and has what stars had of their own wait for those that
    /// `places` says: from which ordinal to which. Nobody may be using them. Durable when it returns.
    ///
    /// # Errors
    /// `NotFound`; `DataCorrupt` for a piece that is not what it was; `DiskFull`. The volumes are what they were then.
    pub fn restore(
        &self,
        name: &Name,
        service: &ServiceKey,
        places: &BTreeMap<u32, u32>,
    ) -> Result<SnapshotInfo, Problem> {
        let pieces = self.pieces();
        let content = self.load(name)?;
        let info = self.describe(name, &content)?;
        let folder = self.volumes.join(service.namespace.as_str());
        let cannot = |error: io::Error| fault::problem("write", &folder, &error);
        DirBuilder::new().recursive(true).mode(0o711).create(&folder).map_err(cannot)?;
        let done = self
            .unpack(&content, service, &pieces)
            .and_then(|mut items| {
                items.extend(self.unpack_stars(&content, service, places, &pieces)?);
                Ok(items)
            })
            .and_then(|items| self.exchange(&items).map_err(cannot));
        if done.is_err() {
            // What was exchanged is changed back; the first problem is the one to tell.
            let _ = self.recover();
        }
        self.sweep(&folder).map_err(cannot)?;
        self.find_waiting().map_err(cannot)?;
        done.map(|()| info)
    }

    /// Unpacks every volume beside itself.
    fn unpack(&self, content: &Content, service: &ServiceKey, pieces: &Pieces) -> Result<Vec<Item>, Problem> {
        let folder = self.volumes.join(service.namespace.as_str());
        self.sweep(&folder).map_err(|error| fault::problem("write", &folder, &error))?;
        let mut items = Vec::new();
        for (volume, tree) in &content.volumes {
            let image = format!("{volume}.img");
            let name = if folder.join(&image).exists() { image.clone() } else { volume.to_string() };
            let (new, old) = (folder.join(format!("{UNPACKED}{name}")), folder.join(&name));
            let made = match name == image {
                true => (self.backing.make)(&new, &old),
                false => {
                    // There is something to exchange it with.
                    let old_one = match DirBuilder::new().mode(0o711).create(&old) {
                        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                        _ => Ok(()),
                    };
                    old_one.and_then(|()| fs::create_dir(&new)).and_then(|()| {
                        (self.backing.bound)(&new, &old)?;
                        Ok(rustix::fs::open(&new, FOLDER, Mode::empty())?)
                    })
                }
            };
            let made = made.map_err(|error| fault::problem("write", &new, &error))?;
            self.fill(tree, &made, pieces, &format!("volume `{volume}`"), &new)?;
            items.push(Item { folder: folder.clone(), namespace: service.namespace.to_string(), name });
        }
        Ok(items)
    }

    /// Unpacks a tree into an empty folder and brings it to the disk.
    fn fill(&self, tree: &Tree, made: &OwnedFd, pieces: &Pieces, what: &str, to: &Path) -> Result<(), Problem> {
        let unpack = Unpack { pieces, own_ids: self.own_ids };
        unpack.run(tree, made).map_err(|(path, error)| match error.kind() {
            ErrorKind::InvalidData => fault::corrupt(&self.folder, &format!("{what}, `{path}`: {error}")),
            ErrorKind::NotFound => fault::corrupt(&self.folder, &format!("a piece of `{path}` is missing")),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => fault::problem("write", to, &error),
            _ => Problem::new(Code::Conflict, format!("`{path}` of {what} cannot be restored: {error}"))
                .help("everything is as it was"),
        })?;
        rustix::fs::syncfs(made).map_err(|error| fault::problem("write", to, &error.into()))
    }

    /// Puts what was unpacked in its places, all or none of it.
    fn exchange(&self, items: &[Item]) -> io::Result<()> {
        let mut journal = String::new();
        for Item { folder, namespace, name } in items {
            let made = fs::metadata(folder.join(format!("{UNPACKED}{name}")))?;
            journal += &format!("{namespace} {name} {} {}\n", made.dev(), made.ino());
        }
        self.write(JOURNAL, journal.as_bytes())?;
        for Item { folder, name, .. } in items {
            exchange(folder, name)?;
            sync_dir(folder)?;
        }
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
                let [namespace, name, dev, ino] = words[..] else { continue };
                let folder = match namespace {
                    WAITING => self.folder.join(WAITING),
                    _ if namespace.parse::<Name>().is_ok() => self.volumes.join(namespace),
                    _ => continue,
                };
                // A volume, its image, or what waits for a service.
                if !name.split('.').all(|part| part.parse::<Name>().is_ok()) {
                    continue;
                }
                let exchanged = (dev.parse().ok()).zip(ino.parse().ok());
                let place = folder.join(name);
                if exchanged.is_some_and(|(dev, ino)| unpack::is_same(&place, dev, ino)) {
                    exchange(&folder, name)?;
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

    /// Removes what was unpacked or replaced in a folder.
    fn sweep(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNPACKED) {
                if entry.file_type()?.is_dir() {
                    // A bound that stays costs a number; there are a billion.
                    let _ = (self.backing.release)(&entry.path());
                }
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
        if !matches!(content.version, VERSION | WITHOUT_STARS) {
            return Err(fault::corrupt(&path, &format!("it is of version {}", content.version)));
        }
        for tree in content.trees() {
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
            used.extend(content.trees().flat_map(|tree| tree.pieces().map(|piece| piece.hash.clone())));
        }
        pieces.collect(&used).map_err(|error| fault::problem("remove", pieces.folder(), &error))
    }

    fn volume(&self, service: &ServiceKey, volume: &Name) -> PathBuf {
        self.volumes.join(service.namespace.as_str()).join(volume.as_str())
    }

    /// The files of a volume, which may be a file system of its own, in an image.
    fn open(&self, service: &ServiceKey, volume: &Name) -> io::Result<OwnedFd> {
        let folder = self.volume(service, volume);
        let image = folder.with_file_name(format!("{volume}.img"));
        match image.exists() {
            true => (self.backing.open)(&image),
            false => Ok(rustix::fs::open(&folder, FOLDER, Mode::empty())?),
        }
    }

    fn describe(&self, name: &Name, content: &Content) -> Result<SnapshotInfo, Problem> {
        Ok(SnapshotInfo { memory: self.memory_info(name)?, ..info(name, content) })
    }

    /// What a volume's owners are to the stars that see it.
    fn owners(&self) -> Owners {
        self.own_ids.map_or(Owners::Same, |(uid, gid)| Owners::Root(uid, gid))
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a snapshot is to be of.
#[derive(Debug)]
pub struct What<'a> {
    pub service: &'a ServiceKey,
    pub volumes: &'a BTreeSet<Name>,
    pub stars: Vec<StarSource>,
    pub taken: WallTime,
}

/// Something unpacked that is to be put in a place beside it.
struct Item {
    folder: PathBuf,
    /// As the journal calls the folder.
    namespace: String,
    name: String,
}

/// How to look.
struct Look<'a> {
    pieces: &'a Pieces,
    moving: bool,
    unchanged_since: i64,
    until: Option<Instant>,
}

static NOWHERE: BTreeSet<(u64, u64)> = BTreeSet::new();

impl<'a> Look<'a> {
    fn capture(&self, owners: Owners, known: &'a Known) -> Capture<'a> {
        Capture {
            pieces: self.pieces,
            owners,
            mounts: Mounts::Refuse,
            leave: &[],
            elsewhere: &NOWHERE,
            known,
            moving: self.moving,
            seen: Known::new(),
            unchanged_since: self.unchanged_since,
            until: self.until,
        }
    }

    /// Everything a star has of its own.
    fn star(&self, service: &ServiceKey, star: StarSource) -> Result<Star, Problem> {
        let StarSource { ordinal, root, owners, areas } = star;
        let mut kept = Vec::with_capacity(areas.len());
        // Some of them lie within others, and none is to be kept twice.
        let tops = areas.iter().filter_map(|area| rustix::fs::fstat(&area.folder).ok());
        let tops: BTreeSet<(u64, u64)> = tops.map(|stat| (stat.st_dev, stat.st_ino)).collect();
        for AreaSource { inside, folder, below, leave } in areas {
            let nothing = Known::new();
            let mut capture = Capture {
                mounts: Mounts::PassOver,
                leave: &leave,
                elsewhere: &tops,
                ..Look { pieces: self.pieces, ..*self }.capture(owners, &nothing)
            };
            let tree = capture.run(folder, below);
            let tree = tree
                .map_err(|refused| not_taken(&format!("`{inside}` of star `{}-{ordinal}`", service.name), refused))?;
            kept.push((inside, tree));
        }
        Ok(Star { ordinal, root, areas: kept })
    }
}

fn exchange(folder: &Path, name: &str) -> io::Result<()> {
    let folder = File::open(folder)?;
    let unpacked = format!("{UNPACKED}{name}");
    Ok(rustix::fs::renameat_with(&folder, unpacked, &folder, name, RenameFlags::EXCHANGE)?)
}

fn info(name: &Name, content: &Content) -> SnapshotInfo {
    let held = |tree: &Tree| Held {
        files: (tree.entries.len() + tree.gone.len()) as u64 - 1,
        bytes: tree.bytes(),
        left_out: tree.left_out,
    };
    let area =
        |(inside, tree): &(String, Tree)| AreaInfo { inside: inside.clone(), held: held(tree), room: tree.room() };
    let star = |star: &Star| StarInfo {
        ordinal: star.ordinal,
        root: star.root.clone(),
        areas: star.areas.iter().map(area).collect(),
    };
    let volume = |(volume, tree): &(Name, Tree)| VolumeInfo { volume: volume.clone(), held: held(tree) };
    SnapshotInfo {
        name: name.clone(),
        service: content.service.clone(),
        taken: content.taken,
        volumes: content.volumes.iter().map(volume).collect(),
        memory: None,
        stars: content.stars.iter().map(star).collect(),
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

fn not_taken(what: &str, refused: Refused) -> Problem {
    let (path, why) = match refused {
        Refused::Failed(path, error) if fault::is_full(&error) => {
            let path = if path.is_empty() { String::new() } else { format!(" (at `{path}`)") };
            return Problem::new(Code::DiskFull, format!("no room for a snapshot of {what}{path}"))
                .help("free some space, or delete a snapshot; nothing was kept");
        }
        Refused::Failed(path, error) if error.kind() == ErrorKind::PermissionDenied => {
            (path, "its mode closes it, and only an agent of root's could read it all the same".to_owned())
        }
        Refused::Failed(path, error) => (path, error.to_string()),
        Refused::There(path, why) => (path, why),
    };
    let at = if path.is_empty() { String::new() } else { format!("`{path}` of ") };
    Problem::new(Code::Conflict, format!("{at}{what} cannot be kept: {why}")).help("no snapshot was taken")
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_stars;
