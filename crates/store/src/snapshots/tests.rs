//! Snapshots of volumes that hold one of everything, of hostile ones, of damaged ones, and on full disks.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags};

use super::*;

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) snapshots: Snapshots,
}

pub(super) fn service() -> ServiceKey {
    ServiceKey::in_default("web".parse().unwrap())
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Stands for images by folders of their name.
pub(super) const BACKING: Backing = Backing {
    open: |image| Ok(rustix::fs::open(image, FOLDER, Mode::empty())?),
    make: |new, _| {
        fs::create_dir(new)?;
        Ok(rustix::fs::open(new, FOLDER, Mode::empty())?)
    },
    bound: |_, _| Ok(()),
    release: |_| Ok(()),
};

pub(super) fn what<'a>(volumes: &'a BTreeSet<Name>, service: &'a ServiceKey, stars: Vec<StarSource>) -> What<'a> {
    What { service, volumes, stars, taken: WallTime(7) }
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("volumes/default/pages")).unwrap();
        let snapshots = Snapshots::new(dir.path(), !is_root(), BACKING).unwrap();
        Self { dir, snapshots }
    }

    pub(super) fn volume(&self, volume: &str) -> PathBuf {
        self.dir.path().join("volumes/default").join(volume)
    }

    pub(super) fn take(&self, snapshot: &str) -> Result<Taken, Problem> {
        self.take_of(snapshot, &["pages"])
    }

    pub(super) fn take_of(&self, snapshot: &str, volumes: &[&str]) -> Result<Taken, Problem> {
        let volumes = volumes.iter().map(|volume| name(volume)).collect();
        self.snapshots.take(&name(snapshot), what(&volumes, &service(), Vec::new()), &FirstLook::default(), None)
    }

    pub(super) fn restore(&self, snapshot: &str) -> Result<SnapshotInfo, Problem> {
        self.snapshots.restore(&name(snapshot), &service(), &BTreeMap::new())
    }

    /// Bytes of all pieces, and how many there are.
    pub(super) fn pieces(&self) -> (u64, usize) {
        let shelves = fs::read_dir(self.dir.path().join("snapshots/.pieces")).unwrap().flatten();
        let sizes: Vec<u64> = shelves
            .flat_map(|shelf| fs::read_dir(shelf.path()).unwrap().flatten())
            .map(|piece| piece.metadata().unwrap().len())
            .collect();
        (sizes.iter().sum(), sizes.len())
    }

    pub(super) fn left_over(&self) -> Vec<String> {
        let names = |path: &Path| -> Vec<String> {
            fs::read_dir(path).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        let all = [names(&self.dir.path().join("volumes/default")), names(&self.dir.path().join("snapshots"))].concat();
        all.into_iter().filter(|name| name.starts_with('.') && name != ".pieces").collect()
    }
}

/// Everything that can be told of a folder's files, by path.
pub(super) fn whole(root: &Path) -> BTreeMap<Vec<u8>, String> {
    use std::os::unix::ffi::OsStrExt;
    let mut all = BTreeMap::new();
    let mut links: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        let key = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let content = match FileType::from_raw_mode(data.mode()) {
            FileType::RegularFile => blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string(),
            FileType::Symlink => format!("{:?}", fs::read_link(&path).unwrap()),
            _ => String::new(),
        };
        let mut attributes = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut attributes).unwrap_or(0);
        let attributes: Vec<_> = attributes[..length]
            .split(|&byte| byte == 0)
            .filter(|name| name.starts_with(b"user.") || name.starts_with(b"system.posix"))
            .map(|name| {
                let mut value = vec![0; 4096];
                let length = rustix::fs::lgetxattr(&path, name, &mut value).unwrap();
                (String::from_utf8_lossy(name).into_owned(), value[..length].to_vec())
            })
            .collect();
        let first = links.entry(data.ino()).or_insert_with(|| key.clone()).clone();
        let same = (data.is_file() && data.nlink() > 1).then_some(first);
        let time = (data.mtime(), data.mtime_nsec());
        all.insert(
            key,
            format!(
                "{:o} {}:{} {} {time:?} {attributes:?} {same:?} {content}",
                data.mode(),
                data.uid(),
                data.gid(),
                if data.is_dir() { 0 } else { data.len() }
            ),
        );
        if data.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            below.reverse();
            left.extend(below);
        }
    }
    all
}

/// One of everything.
pub(super) fn zoo(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::write(at("plain"), "text").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("new\nline"), "name").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not \xff text")), "name").unwrap();
    fs::write(at("large"), (0..3_500_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    rustix::io::pwrite(&sparse, b"in the middle", 10 << 20).unwrap();
    fs::create_dir_all(at("deep/er/and/deeper")).unwrap();
    fs::write(at("deep/er/and/deeper/file"), "far down").unwrap();
    fs::hard_link(at("plain"), at("deep/again")).unwrap();
    symlink("/etc/passwd", at("to the host")).unwrap();
    symlink("../../../..", at("up")).unwrap();
    symlink("nowhere", at("deep/dangling")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    rustix::fs::setxattr(at("plain"), "user.note", b"of mine", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("deep"), "user.folder", b"\0bytes\xff", XattrFlags::empty()).unwrap();
    for (name, mode) in [("plain", 0o604), ("empty", 0o4711), ("deep/er", 0o1777), ("large", 0o400)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    if is_root() {
        for (name, uid, gid) in [("plain", 1000, 1001), ("deep", 7, 8), ("up", 65534, 3), ("fifo", 5, 6)] {
            std::os::unix::fs::lchown(at(name), Some(uid), Some(gid)).unwrap();
        }
    }
    let old = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 2 },
        last_modification: rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 },
    };
    for name in ["empty", "to the host", "deep/er", "fifo"] {
        rustix::fs::utimensat(CWD, at(name), &old, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

use std::os::unix::ffi::OsStrExt;

#[test]
fn what_is_restored_is_what_was_there() {
    let world = World::new();
    let volume = world.volume("pages");
    zoo(&volume);
    let before = whole(&volume);
    let taken = world.take("one").unwrap();
    assert_eq!(taken.info.volumes[0].held.files as usize, before.len() - 1);
    assert_eq!(whole(&volume), before, "taking it changes nothing");
    unpack::remove(&volume).unwrap();
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("other"), "came later").unwrap();
    world.restore("one").unwrap();
    assert_eq!(whole(&volume), before);
    let blocks = fs::metadata(volume.join("sparse")).unwrap().blocks() * 512;
    assert!(blocks < 4 << 20, "a hole is a hole: {blocks} bytes");
    // Twice is once; and a volume that is not there is made.
    fs::remove_dir_all(&volume).unwrap();
    world.restore("one").unwrap();
    assert_eq!(whole(&volume), before);
    assert!(world.left_over().is_empty(), "{:?}", world.left_over());
}

#[test]
fn the_same_content_is_kept_once() {
    let world = World::new();
    zoo(&world.volume("pages"));
    let first = world.take("one").unwrap();
    let kept = world.pieces();
    assert_eq!(first.added, kept.0);
    let second = world.take("two").unwrap();
    assert_eq!((second.added, world.pieces()), (0, kept));
    // A change in a large file costs a piece of it.
    let large = fs::OpenOptions::new().write(true).open(world.volume("pages").join("sparse")).unwrap();
    rustix::io::pwrite(&large, b"IN THE MIDDLE", 10 << 20).unwrap();
    let third = world.take("three").unwrap();
    assert!(third.added <= 1 << 20 && third.added > 0, "{}", third.added);
    world.snapshots.delete(&name("three")).unwrap();
    assert_eq!(world.pieces(), kept, "what only that one had is gone");
    world.snapshots.delete(&name("one")).unwrap();
    assert_eq!(world.pieces(), kept, "the other one has it too");
    world.snapshots.delete(&name("two")).unwrap();
    assert_eq!(world.pieces(), (0, 0));
    assert_eq!(world.snapshots.delete(&name("two")).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_look_before_spares_reading_what_did_not_change_and_nothing_else() {
    let world = World::new();
    let volume = world.volume("pages");
    for number in 0..50 {
        fs::write(volume.join(format!("{number}")), format!("{number}")).unwrap();
    }
    let volumes = BTreeSet::from([name("pages")]);
    // Whole seconds tell whether a file is older than the look.
    let settled = loop {
        let settled = world.snapshots.settle(&service(), &volumes).unwrap();
        let newest = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().metadata().unwrap().ctime()).max();
        if newest.unwrap() < settled {
            break settled;
        }
        std::thread::yield_now();
    };
    let look = world.snapshots.look(&service(), &volumes, Vec::new(), settled).unwrap();
    assert_eq!(look.known[0].len(), 50);
    // Same size, and its old time: still seen as changed.
    let time = fs::metadata(volume.join("7")).unwrap().modified().unwrap();
    fs::write(volume.join("7"), "X").unwrap();
    File::open(volume.join("7")).unwrap().set_modified(time).unwrap();
    fs::remove_file(volume.join("8")).unwrap();
    fs::write(volume.join("9"), "Y").unwrap();
    fs::write(volume.join("new"), "Z").unwrap();
    let before = whole(&volume);
    world.snapshots.take(&name("one"), what(&volumes, &service(), Vec::new()), &look, None).unwrap();
    world.restore("one").unwrap();
    assert_eq!(whole(&volume), before);
}

#[test]
fn what_cannot_be_kept_is_refused_and_named() {
    let world = World::new();
    let volume = world.volume("pages");
    if is_root() {
        rustix::fs::mknodat(CWD, volume.join("disk"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3))
            .unwrap();
        let refused = world.take("one").unwrap_err();
        assert!(
            refused.message.contains("`disk` of volume `pages`") && refused.message.contains("device"),
            "{refused}"
        );
        fs::remove_file(volume.join("disk")).unwrap();
    }
    unpack::remove(&volume).unwrap();
    let refused = world.take("one").unwrap_err();
    assert!(refused.message.contains("volume `pages`"), "{refused}");
    assert!(world.snapshots.list().unwrap().is_empty());
    // A socket is passed over.
    fs::create_dir(&volume).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(volume.join("socket")).unwrap();
    assert_eq!(world.take("one").unwrap().info.volumes[0].held.files, 0);
    assert_eq!(world.take("one").unwrap_err().code, Code::Conflict, "a name is given once");
}

#[test]
fn folders_of_any_depth_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    // Deeper than any path can name.
    let mut at = std::os::fd::OwnedFd::from(File::open(&root).unwrap());
    for number in 0..6000 {
        for name in ["d".to_owned(), format!(".removed-{number}")] {
            rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        }
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
    }
    unpack::remove(&root).unwrap();
    assert!(!root.exists());
}

#[test]
fn links_in_a_volume_lead_nowhere() {
    let world = World::new();
    let volume = world.volume("pages");
    let outside = world.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, volume.join("link")).unwrap();
    let taken = world.take("one").unwrap();
    assert_eq!(
        (taken.info.volumes[0].held.files, taken.info.volumes[0].held.bytes),
        (1, 0),
        "the link, not what is behind it"
    );
    // Where the volume was, there is a link now.
    fs::remove_dir_all(&volume).unwrap();
    symlink(&outside, &volume).unwrap();
    assert!(world.take("two").is_err());
    world.restore("one").unwrap();
    assert_eq!(fs::read_link(volume.join("link")).unwrap(), outside);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was put there or removed");
}

#[test]
fn a_snapshot_that_was_tampered_with_changes_nothing() {
    let world = World::new();
    let volume = world.volume("pages");
    zoo(&volume);
    world.take("one").unwrap();
    let before = whole(&volume);
    let manifest = world.dir.path().join("snapshots/one");
    let bytes = fs::read(&manifest).unwrap();
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&manifest, damaged).unwrap();
        assert_eq!(world.restore("one").unwrap_err().code, Code::DataCorrupt);
    }
    fs::write(&manifest, &bytes).unwrap();
    let piece = fs::read_dir(world.dir.path().join("snapshots/.pieces"))
        .unwrap()
        .flat_map(|shelf| fs::read_dir(shelf.unwrap().path()).unwrap())
        .map(|piece| piece.unwrap().path())
        .max_by_key(|piece| fs::metadata(piece).unwrap().len())
        .unwrap();
    let mut content = fs::read(&piece).unwrap();
    content[77] ^= 1;
    fs::write(&piece, content).unwrap();
    let refused = world.restore("one").unwrap_err();
    assert_eq!(refused.code, Code::DataCorrupt);
    assert!(refused.message.contains("large"), "{refused}");
    fs::remove_file(&piece).unwrap();
    assert_eq!(world.restore("one").unwrap_err().code, Code::DataCorrupt);
    assert_eq!(whole(&volume), before);
    assert!(world.left_over().is_empty(), "{:?}", world.left_over());
}

#[test]
fn names_that_lead_elsewhere_are_not_unpacked() {
    let tree = |name: &[u8], parent: u32, kind: tree::Kind| {
        let entry = |name: &[u8], parent, kind| tree::Entry {
            parent,
            name: serde_bytes::ByteBuf::from(name.to_vec()),
            mode: 0o700,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: Vec::new(),
            kind,
        };
        Tree { entries: vec![entry(b"", 0, tree::Kind::Folder), entry(name, parent, kind)], ..Tree::default() }
    };
    use tree::Kind::{Fifo, File, Folder, Same};
    assert_eq!(tree(b"fine", 0, Folder).check(), Ok(()));
    let piece = |offset, length| tree::Piece { offset, length, hash: serde_bytes::ByteBuf::from(vec![0; 32]) };
    for bad in [
        tree(b"..", 0, Folder),
        tree(b".", 0, Folder),
        tree(b"", 0, Folder),
        tree(b"a/b", 0, Folder),
        tree(b"a\0", 0, Folder),
        tree(&[b'x'; 256], 0, Folder),
        tree(b"own parent", 1, Folder),
        tree(b"later parent", 9, Folder),
        tree(b"same as itself", 0, Same { entry: 1 }),
        tree(b"same as a folder", 0, Same { entry: 0 }),
        tree(b"beyond its end", 0, File { size: 1, pieces: vec![piece(0, 2)] }),
        tree(b"overlapping", 0, File { size: 9, pieces: vec![piece(0, 5), piece(4, 1)] }),
        tree(b"overflowing", 0, File { size: u64::MAX, pieces: vec![piece(u64::MAX, 1)] }),
        Tree::default(),
        Tree {
            entries: vec![tree::Entry { kind: Fifo, ..tree(b"x", 0, Folder).entries[0].clone() }],
            ..Tree::default()
        },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}

#[test]
fn a_restore_cut_short_is_undone_by_the_next_start() {
    let world = World::new();
    for volume in ["pages", "photos"] {
        fs::create_dir_all(world.volume(volume)).unwrap();
        fs::write(world.volume(volume).join("old"), "old").unwrap();
    }
    world.take_of("one", &["pages", "photos"]).unwrap();
    for volume in ["pages", "photos"] {
        fs::write(world.volume(volume).join("new"), "new").unwrap();
    }
    let before = [whole(&world.volume("pages")), whole(&world.volume("photos"))];
    let content = world.snapshots.load(&name("one")).unwrap();
    // Cut after the unpacking, after the journal, and after the first of two exchanges.
    for cut in 0..3 {
        world.snapshots.unpack(&content, &service(), &world.snapshots.pieces()).unwrap();
        if cut > 0 {
            let folder = world.dir.path().join("volumes/default");
            let journal: String = ["pages", "photos"]
                .map(|volume| {
                    let made = fs::metadata(folder.join(format!("{UNPACKED}{volume}"))).unwrap();
                    format!("default {volume} {} {}\n", made.dev(), made.ino())
                })
                .concat();
            world.snapshots.write(JOURNAL, journal.as_bytes()).unwrap();
            if cut > 1 {
                exchange(&folder, "pages").unwrap();
                assert!(!world.volume("pages").join("new").exists());
            }
        }
        let _next = Snapshots::new(world.dir.path(), !is_root(), BACKING).unwrap();
        assert_eq!([whole(&world.volume("pages")), whole(&world.volume("photos"))], before, "cut {cut}");
        assert!(world.left_over().is_empty(), "{:?}", world.left_over());
    }
    world.restore("one").unwrap();
    assert!(!world.volume("pages").join("new").exists() && !world.volume("photos").join("new").exists());
}

#[test]
fn a_full_disk_is_said_and_changes_nothing() {
    if !is_root() {
        println!("skipped: a small file system of its own needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = |size: &str| {
        let options = format!("size={size},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path()).status().unwrap();
        assert!(mounted.success());
    };
    mount("160m");
    let outcome = std::panic::catch_unwind(|| {
        let volume = dir.path().join("volumes/default/pages");
        fs::create_dir_all(&volume).unwrap();
        let snapshots = Snapshots::new(dir.path(), false, BACKING).unwrap();
        let volumes = BTreeSet::from([name("pages")]);
        let look = FirstLook::default();
        fs::write(volume.join("small"), vec![1; 1 << 20]).unwrap();
        snapshots.take(&name("one"), what(&volumes, &service(), Vec::new()), &look, None).unwrap();
        fs::write(volume.join("large"), (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
        let before = whole(&volume);
        let refused = snapshots.take(&name("two"), what(&volumes, &service(), Vec::new()), &look, None).unwrap_err();
        assert_eq!(refused.code, Code::DiskFull);
        snapshots.tidy().unwrap();
        assert_eq!(snapshots.list().unwrap().len(), 1);
        // No room to unpack: the rest of the disk is taken.
        let mut filler = File::create(dir.path().join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        drop(filler);
        let refused = snapshots.restore(&name("one"), &service(), &BTreeMap::new()).unwrap_err();
        assert_eq!(refused.code, Code::DiskFull, "{refused}");
        assert_eq!(whole(&volume), before);
        fs::remove_file(dir.path().join("filler")).unwrap();
        snapshots.restore(&name("one"), &service(), &BTreeMap::new()).unwrap();
        assert!(!volume.join("large").exists());
    });
    let unmounted = Command::new("umount").arg(dir.path()).status().unwrap();
    assert!(unmounted.success());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn pieces_share_blocks_where_the_file_system_can() {
    let tool = Command::new("mkfs.xfs").arg("-V").output().is_ok_and(|output| output.status.success());
    if !is_root() || !tool {
        println!("skipped: a file system with reflinks needs root and mkfs.xfs");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    File::create(&image).unwrap().set_len(400 << 20).unwrap();
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let made = Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image).status().unwrap();
    let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place).output().unwrap();
    if !made.success() || !mounted.status.success() {
        println!("skipped: {}", String::from_utf8_lossy(&mounted.stderr));
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let volume = place.join("volumes/default/pages");
        fs::create_dir_all(&volume).unwrap();
        let snapshots = Snapshots::new(&place, false, BACKING).unwrap();
        fs::write(volume.join("large"), (0..15_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
        let used = || {
            rustix::fs::syncfs(File::open(&place).unwrap()).unwrap();
            let disk = rustix::fs::statvfs(&place).unwrap();
            (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        };
        let before = used();
        let volumes = BTreeSet::from([name("pages")]);
        snapshots.take(&name("one"), what(&volumes, &service(), Vec::new()), &FirstLook::default(), None).unwrap();
        let grown = used() - before;
        assert!(grown < 10 << 20, "60 MB kept again took {grown} bytes");
    });
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    /// Keeps images of this content beside the snapshot `one`.
    fn keep_memory(&self, content: &[u8]) -> PathBuf {
        let images = self.snapshots.begin_memory(&name("one")).unwrap();
        fs::write(images.join("pages-1.img"), content).unwrap();
        fs::write(images.join("core-2.img"), "core").unwrap();
        let info = self.snapshots.keep_memory(&name("one"), "web-1".to_owned(), b"details".to_vec()).unwrap();
        assert_eq!(info, MemoryInfo { star: "web-1".to_owned(), bytes: content.len() as u64 + 4 });
        images
    }
}

#[test]
fn a_memory_is_its_snapshots_and_goes_with_it() {
    let world = World::new();
    let images = world.keep_memory(b"pages");
    assert_eq!(fs::metadata(&images).unwrap().permissions().mode() & 0o777, 0o700);
    // Not yet: there is no snapshot that it belongs to.
    assert_eq!(world.snapshots.open_memory(&name("one")).unwrap_err().code, Code::NotFound);
    assert_eq!(world.snapshots.begin_memory(&name("one")).unwrap_err().code, Code::Conflict);
    let taken = world.take("one").unwrap();
    assert_eq!(taken.info.memory.as_ref().map(|memory| memory.bytes), Some(9));
    assert_eq!(world.snapshots.list().unwrap(), [taken.info]);
    let stored = world.snapshots.open_memory(&name("one")).unwrap().unwrap();
    assert_eq!(stored, StoredMemory { images: images.clone(), details: b"details".to_vec() });
    world.take("two").unwrap();
    assert_eq!(world.snapshots.open_memory(&name("two")).unwrap(), None);
    world.snapshots.delete(&name("one")).unwrap();
    assert!(!images.exists());
}

#[test]
fn every_byte_of_a_memory_is_checked() {
    let world = World::new();
    let images = world.keep_memory(b"pages");
    world.take("one").unwrap();
    for file in ["pages-1.img", "core-2.img", "list"] {
        let path = images.join(file);
        let sound = fs::read(&path).unwrap();
        for byte in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[byte] ^= 4;
            fs::write(&path, damaged).unwrap();
            assert_eq!(world.snapshots.open_memory(&name("one")).unwrap_err().code, Code::DataCorrupt, "{file} {byte}");
        }
        fs::write(&path, &sound).unwrap();
    }
    world.snapshots.open_memory(&name("one")).unwrap();
    fs::remove_file(images.join("core-2.img")).unwrap();
    assert_eq!(world.snapshots.open_memory(&name("one")).unwrap_err().code, Code::DataCorrupt);
}

#[test]
fn a_memory_without_a_snapshot_is_removed_by_the_next_agent() {
    let world = World::new();
    let images = world.keep_memory(b"pages");
    let _next = Snapshots::new(world.dir.path(), !is_root(), BACKING).unwrap();
    assert!(!images.exists());
    world.keep_memory(b"pages");
    world.take("one").unwrap();
    let _next = Snapshots::new(world.dir.path(), !is_root(), BACKING).unwrap();
    assert!(images.exists());
}
