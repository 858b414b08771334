//! What is left when stars have come and gone: nothing, by counters of their own nursery.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use isolate::{Message, Request};
use model::StarId;

use crate::kit::{Kit, runs, until};
use crate::life::{descendants, group_name, groups};
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[("hundreds_of_stars_leave_nothing", churn)];

fn churn(kit: &Kit) -> Verdict {
    let name = group_name(kit).unwrap_or_else(|| "no group".to_owned());
    let counted = || counters(kit, &name);
    kit.run(&kit.script(&["exit", "0"]));
    kit.run(&kit.command(&["true"]));
    for star in [2, 3] {
        kit.send(&Request::Forget { star: StarId(star) }, &[]);
    }
    let before = at_rest(&counted);
    let memory = private_memory(*kit.nursery.borrow());
    for round in 0..times("RADS_CHURN", 300).div_ceil(30) {
        let orders: Vec<_> = (0..30)
            .map(|number| match number % 3 {
                0 => kit.script(&["idle"]),
                1 => kit.command(&["sleep", "1000"]),
                _ => kit.script(&["exit", "1"]),
            })
            .collect();
        orders.iter().for_each(|order| kit.send(&Request::Start(Box::new(order.clone())), &[]));
        for order in &orders {
            kit.expect(|message| matches!(message, Message::Started { star, .. } if *star == order.star));
        }
        for (number, order) in orders.iter().enumerate() {
            if number % 3 != 2 {
                kit.send(&Request::Kill { star: order.star }, &[]);
            }
            kit.end(order.star);
            kit.send(&Request::Forget { star: order.star }, &[]);
        }
        assert!(runs(*kit.nursery.borrow()), "round {round}");
    }
    is_as(&counted, &before);
    leaks_are_seen(kit, &counted, &before);
    // The first rounds fill what the allocator keeps; ten thousand more do not add to it.
    let grown = private_memory(*kit.nursery.borrow()).saturating_sub(memory);
    assert!(grown < 2048, "the nursery has {grown} KB more than before");
    Verdict::Held
}

/// What must be the same before and after: of one nursery and its stars alone, whatever else the machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counters {
    descriptors: usize,
    threads: usize,
    children: usize,
    groups: usize,
    /// In the nursery's namespace and in the host's, at or below the nursery's folder: it mounts nowhere else.
    mounts: usize,
    /// Namespaces that the nursery holds or that a process of its is in, but for those this test is in.
    namespaces: usize,
    /// Whose image lies in the nursery's folder.
    loops: usize,
    folders: usize,
}

fn counters(kit: &Kit, name: &str) -> Counters {
    let nursery = *kit.nursery.borrow();
    let entries = |path: &Path| fs::read_dir(path).map_or(0, |entries| entries.count());
    let data_dir = kit.data_dir.canonicalize().unwrap();
    let mounts = |process: &str| {
        let text = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        let point = |line: &str| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(&data_dir));
        text.lines().filter(|line| point(line)).count()
    };
    let children = descendants(nursery);
    Counters {
        descriptors: entries(Path::new(&format!("/proc/{nursery}/fd"))),
        threads: entries(Path::new(&format!("/proc/{nursery}/task"))),
        groups: groups(Path::new("/sys/fs/cgroup"), name),
        mounts: mounts("self") + mounts(&nursery.to_string()),
        namespaces: namespaces(nursery, &children),
        loops: fs::read_dir("/sys/block").map_or(0, |blocks| {
            let image = |block: &fs::DirEntry| fs::read_to_string(block.path().join("loop/backing_file"));
            blocks
                .flatten()
                .filter(|block| image(block).is_ok_and(|file| Path::new(&file).starts_with(&data_dir)))
                .count()
        }),
        folders: entries(&kit.data_dir.join("stars")),
        children: children.len(),
    }
}

/// By what the kernel calls them, as `net:[4026532311]`.
fn namespaces(nursery: u32, children: &[u32]) -> usize {
    let links = |folder: String| {
        let links = fs::read_dir(folder).into_iter().flatten().flatten();
        links.filter_map(|link| Some(fs::read_link(link.path()).ok()?.to_string_lossy().into_owned()))
    };
    let all = |pid: u32| links(format!("/proc/{pid}/ns")).chain(links(format!("/proc/{pid}/fd")));
    let ours: BTreeSet<String> = links("/proc/self/ns".to_owned()).collect();
    let is_namespace =
        |link: &String| link.contains(":[") && !link.starts_with("pipe:") && !link.starts_with("socket:");
    let held = children.iter().copied().chain([nursery]).flat_map(all).filter(is_namespace);
    held.collect::<BTreeSet<_>>().difference(&ours).count()
}

/// Kilobytes that only this process has.
fn private_memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// How often to do what is done a few times in every run: `cargo xtask test soak` says so.
fn times(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What is counted once it stays the same: spares are made while nothing else is to do.
fn at_rest(counted: &dyn Fn() -> Counters) -> Counters {
    let (mut last, mut same) = (counted(), 0);
    let rests = || {
        std::thread::sleep(Duration::from_millis(60));
        let now = counted();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same == 5).then(|| last.clone())
    };
    until(rests, || "the counters never rest")
}

#[track_caller]
fn is_as(counted: &dyn Fn() -> Counters, expected: &Counters) {
    let state = || format!("left {:?}, before {expected:?}", counted());
    until(|| (counted() == *expected).then_some(()), state);
}

/// The control: what is left on purpose is counted, and what is somebody else's is not.
fn leaks_are_seen(kit: &Kit, counted: &dyn Fn() -> Counters, before: &Counters) {
    let order = kit.script(&["idle"]);
    kit.start(&order);
    let with_star = at_rest(counted);
    for (what, with, without, at_least) in [
        ("descriptors", with_star.descriptors, before.descriptors, 3),
        ("children", with_star.children, before.children, 1),
        ("groups", with_star.groups, before.groups, usize::from(before.groups > 0)),
        // Of users, processes, mounts, names, the network.
        ("namespaces", with_star.namespaces, before.namespaces, 5),
        ("folders", with_star.folders, before.folders, 1),
    ] {
        assert!(with >= without + at_least, "{what}: {with} with a star more, {without} without");
    }
    kit.send(&Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    kit.send(&Request::Forget { star: order.star }, &[]);
    is_as(counted, before);
    let connection = kit.another();
    is_as(counted, &Counters { descriptors: before.descriptors + 1, ..before.clone() });
    drop(connection);
    is_as(counted, before);

    let other = Kit::new(&kit.data_dir.with_file_name("somebody-else"));
    other.start(&other.script(&["idle"]));
    if !kit.walls.rootless {
        for (whose, counts) in [(&other, false), (kit, true)] {
            let left = Mount::new(&whose.data_dir.join("left"));
            let now = at_rest(counted);
            assert_eq!(now.mounts > before.mounts, counts, "{now:?}");
            assert_eq!(Counters { mounts: before.mounts, ..now }, *before);
            drop(left);
            let left = Loop::new(&whose.data_dir.join("left.img"));
            is_as(counted, &Counters { loops: before.loops + usize::from(counts), ..before.clone() });
            drop(left);
        }
    }
    is_as(counted, before);
    other.shut_down();
}

fn tool(name: &str, words: &[&Path]) -> String {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let output = Command::new(name).args(words).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{name} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A memory file system mounted on the host.
struct Mount(PathBuf);

impl Mount {
    fn new(folder: &Path) -> Self {
        fs::create_dir(folder).unwrap();
        tool("mount", &[Path::new("-t"), Path::new("tmpfs"), Path::new("left"), folder]);
        Self(folder.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        tool("umount", &[&self.0]);
        fs::remove_dir(&self.0).unwrap();
    }
}

/// A loop device over a file.
struct Loop {
    image: PathBuf,
    device: String,
}

impl Loop {
    fn new(image: &Path) -> Self {
        fs::File::create(image).unwrap().set_len(1 << 20).unwrap();
        let device = tool("losetup", &[Path::new("--find"), Path::new("--show"), image]);
        Self { image: image.to_owned(), device }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        tool("losetup", &[Path::new("--detach"), Path::new(&self.device)]);
        fs::remove_file(&self.image).unwrap();
    }
}
