//! What stars have of their own, and what they do to be in the way.

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use model::StarId;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::tests::{BACKING, World, is_root, name, service, what, whole, zoo};
use super::way::{FOLDER, Way};
use super::*;

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, FOLDER, Mode::empty()).unwrap()
}

fn owners() -> Owners {
    match is_root() {
        true => Owners::Same,
        false => Owners::Root(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
    }
}

impl World {
    /// A folder that stands for a star's.
    fn place(&self, called: &str) -> PathBuf {
        let place = self.dir.path().join(called);
        fs::create_dir_all(&place).unwrap();
        place
    }

    fn star(&self, ordinal: u32, areas: &[(&str, &Path, Option<&Path>)]) -> StarSource {
        let area = |(inside, folder, below): &(&str, &Path, Option<&Path>)| AreaSource {
            inside: (*inside).to_owned(),
            folder: open(folder),
            below: below.map(open),
            leave: vec!["not its own".to_owned()],
        };
        StarSource { ordinal, root: None, owners: owners(), areas: areas.iter().map(area).collect() }
    }

    fn keep(&self, snapshot: &str, stars: Vec<StarSource>) -> Result<Taken, Problem> {
        let volumes = BTreeSet::new();
        self.snapshots.take(&name(snapshot), what(&volumes, &service(), stars), &FirstLook::default(), None)
    }

    /// What the star of this ordinal is to begin with.
    fn given(&self, ordinal: u32, star: u64) -> Option<Waiting> {
        self.snapshots.give(&service(), ordinal, StarId(star)).unwrap()
    }

    fn waits(&self) -> Vec<String> {
        let folder = self.dir.path().join("snapshots/.waiting");
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }
}

fn identity(ordinals: &[u32]) -> BTreeMap<u32, u32> {
    ordinals.iter().map(|&it| (it, it)).collect()
}

#[test]
fn a_star_gets_the_files_that_another_had() {
    let world = World::new();
    let (tmp, run) = (world.place("tmp"), world.place("run"));
    zoo(&tmp);
    fs::write(run.join("not its own"), "of this star only").unwrap();
    // As /tmp is seen in /run too.
    fs::create_dir(run.join("shm")).unwrap();
    let inner = run.join("shm");
    let _listener = std::os::unix::net::UnixListener::bind(run.join("socket")).unwrap();
    fs::hard_link(run.join("socket"), run.join("socket again")).unwrap();
    fs::write(run.join("pid"), "7").unwrap();
    fs::write(inner.join("shared"), "s").unwrap();
    let taken = world
        .keep("one", vec![world.star(2, &[("/tmp", &tmp, None), ("/run", &run, None), ("/dev/shm", &inner, None)])]);
    let info = taken.unwrap().info;
    let held: Vec<_> = info.stars[0].areas.iter().map(|area| (area.held.files, area.held.left_out)).collect();
    assert_eq!(held, [(whole(&tmp).len() as u64 - 1, 0), (1, 2), (1, 0)]);

    world.snapshots.restore(&name("one"), &service(), &BTreeMap::from([(2, 1)])).unwrap();
    assert_eq!(world.given(2, 5), None);
    let given = world.given(1, 5).unwrap();
    assert_eq!(given.areas, ["/tmp", "/run", "/dev/shm"]);
    assert_eq!(whole(&given.folder.join("0")), whole(&tmp));
    assert_eq!(whole(&given.folder.join("1")).into_keys().collect::<Vec<_>>(), [b"".to_vec(), b"pid".to_vec()]);
    // Whoever failed to start with it leaves it to the next; the next agent finds it too.
    world.snapshots.taken(&service(), 1, StarId(4));
    let next = Snapshots::new(world.dir.path(), !is_root(), BACKING).unwrap();
    assert_eq!(next.give(&service(), 1, StarId(6)).unwrap(), Some(given));
    next.taken(&service(), 1, StarId(5));
    assert!(next.awaits(&service()));
    next.taken(&service(), 1, StarId(6));
    assert!(!next.awaits(&service()));
    assert_eq!(next.give(&service(), 1, StarId(7)).unwrap(), None);
    assert!(world.waits().is_empty(), "{:?}", world.waits());
}

#[test]
fn of_a_root_only_what_differs_is_kept() {
    let world = World::new();
    let (below, seen) = (world.place("below"), world.place("seen"));
    for folder in ["sub/inner", "kept"] {
        fs::create_dir_all(below.join(folder)).unwrap();
    }
    for file in ["plain", "gone", "sub/x", "sub/y", "sub/inner/z", "kept/k", "becomes a folder"] {
        fs::write(below.join(file), file).unwrap();
    }
    // A clock that stands still for some milliseconds at a time tells what came later only after that.
    let changed = |path: &Path| fs::metadata(path).map(|data| (data.ctime(), data.ctime_nsec())).unwrap();
    let last = changed(&below);
    let probe = world.place("probe").join("time");
    while {
        fs::write(&probe, "").unwrap();
        fs::set_permissions(&probe, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        changed(&probe) <= last
    } {}
    // What is seen through an overlay and was not changed is the file below itself.
    for folder in ["sub/new", "kept", "becomes a folder"] {
        fs::create_dir_all(seen.join(folder)).unwrap();
    }
    for file in ["plain", "sub/y", "kept/k"] {
        fs::hard_link(below.join(file), seen.join(file)).unwrap();
    }
    fs::write(seen.join("sub/new/file"), "new").unwrap();
    let star = world.star(1, &[("/", &seen, Some(&below))]);
    let taken = world.keep("one", vec![star]).unwrap();
    assert_eq!(taken.added, 3, "what lies below is not kept");
    let content = world.snapshots.load(&name("one")).unwrap();
    let tree = &content.stars[0].areas[0].1;
    let mut paths: Vec<_> = (1..tree.entries.len()).map(|index| tree.path(index)).collect();
    paths.sort();
    // Folders come with what is in them.
    assert_eq!(paths, ["becomes a folder", "kept", "sub", "sub/new", "sub/new/file"]);
    let mut gone: Vec<_> = tree.gone.iter().map(|gone| tree.raw_path(gone.parent, &gone.name)).collect();
    gone.sort();
    assert_eq!(gone, [b"gone".to_vec(), b"sub/inner".to_vec(), b"sub/x".to_vec()]);
    world.snapshots.restore(&name("one"), &service(), &identity(&[1])).unwrap();
    let given = world.given(1, 5).unwrap();
    let mut listed: Vec<Vec<u8>> =
        fs::read(given.folder.join("0.gone")).unwrap().split(|&b| b == 0).map(<[u8]>::to_vec).collect();
    listed.sort();
    assert_eq!(listed, [b"".to_vec(), b"gone".to_vec(), b"sub/inner".to_vec(), b"sub/x".to_vec()]);
}

#[test]
fn users_are_numbered_as_the_star_does() {
    if !is_root() {
        println!("skipped: to give files away takes root");
        return;
    }
    let world = World::new();
    let tmp = world.place("tmp");
    for (file, id) in [("root", 100_000), ("user", 101_000)] {
        fs::write(tmp.join(file), "").unwrap();
        std::os::unix::fs::chown(tmp.join(file), Some(id), Some(id + 1)).unwrap();
    }
    let star = || StarSource { owners: Owners::From(100_000, 65_536), ..world.star(1, &[("/tmp", &tmp, None)]) };
    std::os::unix::fs::chown(&tmp, Some(100_000), Some(100_000)).unwrap();
    world.keep("one", vec![star()]).unwrap();
    world.snapshots.restore(&name("one"), &service(), &identity(&[1])).unwrap();
    let folder = world.given(1, 5).unwrap().folder.join("0");
    let owner = |file: &str| fs::metadata(folder.join(file)).map(|data| (data.uid(), data.gid())).unwrap();
    assert_eq!((owner("root"), owner("user"), owner("")), ((0, 1), (1000, 1001), (0, 0)));
    for stranger in [0, 99_999, 165_536] {
        std::os::unix::fs::chown(tmp.join("user"), Some(stranger), None).unwrap();
        let refused = world.keep("two", vec![star()]).unwrap_err();
        assert!(refused.message.contains("`user` of `/tmp` of star `web-1`"), "{refused}");
    }
}

#[test]
fn a_tree_as_deep_as_anybody_makes_it_comes_back() {
    const DEPTH: usize = 4000;
    let world = World::new();
    let tmp = world.place("tmp");
    let mut at = open(&tmp);
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&at, "file", flags, Mode::RUSR | Mode::WUSR).unwrap();
        rustix::io::write(&file, b"deep").unwrap();
        at = rustix::fs::openat(&at, "d", FOLDER, Mode::empty()).unwrap();
    }
    drop(at);
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    let taken = world.keep("one", vec![world.star(1, &[("/tmp", &tmp, None)])]).unwrap();
    assert_eq!((taken.info.stars[0].areas[0].held.files, taken.added), (2 * DEPTH as u64, 4));
    world.snapshots.restore(&name("one"), &service(), &identity(&[1])).unwrap();
    let mut at = open(&world.given(1, 5).unwrap().folder.join("0"));
    for level in 0..DEPTH {
        let stat = rustix::fs::statat(&at, "file", AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!((FileType::from_raw_mode(stat.st_mode), stat.st_size), (FileType::RegularFile, 4), "level {level}");
        at = rustix::fs::openat(&at, "d", FOLDER, Mode::empty()).unwrap();
    }
    drop(at);
    world.snapshots.taken(&service(), 1, StarId(5));
    assert!(world.waits().is_empty());
    unpack::remove(&tmp).unwrap();
    // Other tests of this process open some too.
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() < before + 200);
}

#[test]
fn a_way_holds_few_folders_and_finds_back_or_says_so() {
    let world = World::new();
    let top = world.place("way");
    let mut path = top.clone();
    let mut way = Way::new(open(&top)).unwrap();
    for _ in 0..100 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        way.down(open(&path)).unwrap();
    }
    while path != top {
        way.up().unwrap();
        path.pop();
        let stat = rustix::fs::fstat(way.here().unwrap()).unwrap();
        assert_eq!(stat.st_ino, fs::metadata(&path).unwrap().ino());
    }
    way.up().unwrap();
    assert!(way.here().is_err() && way.up().is_err());
    // Somebody moves the tree away while it is walked.
    let mut way = Way::new(open(&top)).unwrap();
    for depth in 1..=100 {
        way.down(open(&top.join(vec!["d"; depth].join("/")))).unwrap();
    }
    fs::rename(top.join(vec!["d"; 40].join("/")), world.place("elsewhere").join("d")).unwrap();
    let failed = std::iter::repeat_with(|| way.up()).take(100).find_map(Result::err).unwrap();
    assert_eq!(failed.kind(), ErrorKind::Interrupted);
}

#[test]
fn whoever_swaps_names_meanwhile_leads_nowhere() {
    let world = World::new();
    let (tmp, outside) = (world.place("tmp"), world.place("outside"));
    fs::write(outside.join("secret"), "nobody is to know").unwrap();
    fs::create_dir(tmp.join("folder")).unwrap();
    fs::write(tmp.join("folder/secret"), "known").unwrap();
    fs::write(tmp.join("file"), "known").unwrap();
    symlink(&outside, tmp.join("link")).unwrap();
    symlink(outside.join("secret"), tmp.join("link to a file")).unwrap();
    let done = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let folder = open(&tmp);
            let mut swaps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for (one, other) in [("folder", "link"), ("file", "link to a file")] {
                    rustix::fs::renameat_with(&folder, one, &folder, other, RenameFlags::EXCHANGE).unwrap();
                    swaps += 1;
                }
            }
            swaps
        });
        let pieces = world.snapshots.pieces();
        let look = Look { pieces: &pieces, moving: true, unchanged_since: 0, until: None };
        let mut looks = (0..200).map(|_| look.star(&service(), world.star(1, &[("/tmp", &tmp, None)])));
        let failed = looks.find_map(Result::err);
        done.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
        swapping.join().unwrap()
    });
    assert!(swaps > 1000, "{swaps}");
    let known = world.snapshots.pieces().get(blake3::hash(b"known").as_bytes()).unwrap().1;
    assert_eq!(known, b"known", "it was read at all");
    let secret = world.snapshots.pieces().get(blake3::hash(b"nobody is to know").as_bytes());
    assert_eq!(secret.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn nobody_stands_still_for_ever() {
    let world = World::new();
    let tmp = world.place("tmp");
    fs::write(tmp.join("file"), "text").unwrap();
    let volumes = BTreeSet::new();
    let take = |until: Option<Instant>| {
        let stars = vec![world.star(1, &[("/tmp", &tmp, None)])];
        world.snapshots.take(&name("one"), what(&volumes, &service(), stars), &FirstLook::default(), until)
    };
    let past = Instant::now().checked_sub(std::time::Duration::from_secs(1));
    let refused = take(past).unwrap_err();
    assert!(refused.message.contains("takes too long"), "{refused}");
    assert!(world.snapshots.list().unwrap().is_empty());
    take(Some(Instant::now() + std::time::Duration::from_secs(60))).unwrap();
}

#[test]
fn a_second_snapshot_costs_what_has_changed() {
    let world = World::new();
    let tmp = world.place("tmp");
    zoo(&tmp);
    let star = || vec![world.star(1, &[("/tmp", &tmp, None)])];
    let first = world.keep("one", star()).unwrap();
    let kept = world.pieces();
    assert!(first.added > 10 << 20 && first.added == kept.0, "{}", first.added);
    assert_eq!((world.keep("two", star()).unwrap().added, world.pieces()), (0, kept));
    fs::write(tmp.join("small"), "more").unwrap();
    assert_eq!(world.keep("three", star()).unwrap().added, 4);
    assert_eq!(world.pieces().0, kept.0 + 4);
    for snapshot in ["one", "three"] {
        world.snapshots.delete(&name(snapshot)).unwrap();
    }
    assert_eq!(world.pieces(), kept, "the other one needs it");
    world.snapshots.delete(&name("two")).unwrap();
    assert_eq!(world.pieces(), (0, 0));
}

#[test]
fn a_damaged_piece_is_found_and_changes_nothing_that_waits() {
    let world = World::new();
    let tmp = world.place("tmp");
    fs::write(tmp.join("file"), "first").unwrap();
    world.keep("one", vec![world.star(1, &[("/tmp", &tmp, None)])]).unwrap();
    world.snapshots.restore(&name("one"), &service(), &identity(&[1])).unwrap();
    fs::write(tmp.join("file"), "second").unwrap();
    world.keep("two", vec![world.star(1, &[("/tmp", &tmp, None)])]).unwrap();
    let hash = blake3::hash(b"second").to_hex().to_string();
    let piece = world.dir.path().join("snapshots/.pieces").join(&hash[..2]).join(&hash[2..]);
    for bit in 0..8 {
        let mut bytes = b"second".to_vec();
        bytes[3] ^= 1 << bit;
        fs::write(&piece, bytes).unwrap();
        let refused = world.snapshots.restore(&name("two"), &service(), &identity(&[1])).unwrap_err();
        assert_eq!(refused.code, Code::DataCorrupt, "{refused}");
        assert_eq!(fs::read(world.given(1, 5).unwrap().folder.join("0/file")).unwrap(), b"first");
    }
    fs::write(&piece, "second").unwrap();
    world.snapshots.restore(&name("two"), &service(), &identity(&[1])).unwrap();
    assert_eq!(fs::read(world.given(1, 5).unwrap().folder.join("0/file")).unwrap(), b"second");
    // A star that has no place gets nothing, and nobody else's files.
    let refused = world.snapshots.restore(&name("two"), &service(), &BTreeMap::new()).unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert_eq!(fs::read(world.given(1, 5).unwrap().folder.join("0/file")).unwrap(), b"second");
    // With the service goes what waits for it.
    assert!(!world.snapshots.wait_only_for(|_| true));
    assert!(world.snapshots.wait_only_for(|_| false));
    assert_eq!(world.given(1, 6), None);
    world.snapshots.sweep_waiting();
    assert!(world.waits().is_empty());
}

#[test]
fn volumes_and_stars_come_back_together_or_not_at_all() {
    let world = World::new();
    let tmp = world.place("tmp");
    let volumes = BTreeSet::from([name("pages"), name("sized")]);
    let image = world.volume("sized.img");
    fs::create_dir_all(&image).unwrap();
    let state = |world: &World| {
        let waiting = world.dir.path().join("snapshots/.waiting/default.web/1/0/file");
        [world.volume("pages").join("file"), image.join("file"), waiting].map(|path| fs::read_to_string(path).ok())
    };
    let write = |text: &str| {
        for file in [world.volume("pages").join("file"), image.join("file"), tmp.join("file")] {
            fs::write(file, text).unwrap();
        }
    };
    let take = |called: &str| {
        let stars = vec![world.star(1, &[("/tmp", &tmp, None)])];
        world.snapshots.take(&name(called), what(&volumes, &service(), stars), &FirstLook::default(), None).unwrap();
    };
    write("old");
    take("old");
    world.snapshots.restore(&name("old"), &service(), &identity(&[1])).unwrap();
    write("new");
    take("new");
    world.snapshots.restore(&name("old"), &service(), &identity(&[1])).unwrap();
    let text = |text: &str| [(); 3].map(|()| Some(text.to_owned()));
    assert_eq!(state(&world), text("old"));
    let content = world.snapshots.load(&name("new")).unwrap();
    // Cut after the unpacking, after the journal, and after each exchange.
    for cut in 0..5 {
        let pieces = world.snapshots.pieces();
        let mut items = world.snapshots.unpack(&content, &service(), &pieces).unwrap();
        items.extend(world.snapshots.unpack_stars(&content, &service(), &identity(&[1]), &pieces).unwrap());
        drop(pieces);
        assert_eq!(items.len(), 3);
        if cut > 0 {
            let line = |item: &Item| {
                let made = fs::metadata(item.folder.join(format!("{UNPACKED}{}", item.name))).unwrap();
                format!("{} {} {} {}\n", item.namespace, item.name, made.dev(), made.ino())
            };
            world.snapshots.write(JOURNAL, items.iter().map(line).collect::<String>().as_bytes()).unwrap();
            items.iter().take(cut - 1).for_each(|item| exchange(&item.folder, &item.name).unwrap());
            let changed = state(&world).iter().filter(|text| text.as_deref() == Some("new")).count();
            assert_eq!(changed, cut - 1);
        }
        let _next = Snapshots::new(world.dir.path(), !is_root(), BACKING).unwrap();
        assert_eq!(state(&world), text("old"), "cut {cut}");
        assert!(world.left_over().iter().all(|left| left == ".waiting"), "{:?}", world.left_over());
        assert_eq!(world.waits(), ["default.web"]);
    }
    world.snapshots.restore(&name("new"), &service(), &identity(&[1])).unwrap();
    assert_eq!(state(&world), text("new"));
    // Twice is once.
    world.snapshots.restore(&name("new"), &service(), &identity(&[1])).unwrap();
    assert_eq!(state(&world), text("new"));
}

#[test]
fn snapshots_of_before_stars_had_files_are_read() {
    let world = World::new();
    fs::write(world.volume("pages").join("file"), "text").unwrap();
    world.take("one").unwrap();
    let manifest = world.dir.path().join("snapshots/one");
    let mut content = world.snapshots.load(&name("one")).unwrap();
    content.version = WITHOUT_STARS;
    let mut bytes = rmp_serde::to_vec_named(&content).unwrap();
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    fs::write(&manifest, &bytes).unwrap();
    fs::write(world.volume("pages").join("file"), "other").unwrap();
    world.restore("one").unwrap();
    assert_eq!(fs::read_to_string(world.volume("pages").join("file")).unwrap(), "text");
}
