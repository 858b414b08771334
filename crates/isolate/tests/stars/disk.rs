//! What stars write to disks: no more than they may, nobody else is hurt, and nothing of it is left.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use isolate::{Bind, DiskMeans, Message, Request, StarOrder};
use model::{Bytes, ExitCause, Limits, Millicores, StarId};
use rustix::thread::CapabilitySet;

use crate::kit::{Kit, until};
use crate::own_root::{root, shell};
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_disk_holds_what_it_may", |kit| on_each(kit, full)),
    ("a_full_disk_hurts_nobody_else", |kit| on_each(kit, beside)),
    ("little_waits_in_memory_for_a_disk", waiting),
    ("a_root_of_its_own_is_on_the_disk_too", |kit| on_each(kit, own_root)),
    ("a_disk_grows_while_its_star_runs", |kit| on_each(kit, grows)),
    ("a_volume_of_a_size_holds_that_much_and_keeps_it", |kit| on_each(kit, volume)),
    ("a_volume_outlives_a_nursery_in_use", |kit| on_each(kit, volume_adopted)),
    ("what_cannot_be_bounded_later_is_refused", |kit| on_each(kit, refused)),
];

const NONE: Limits = Limits::UNLIMITED;

/// Runs a test with the means this machine has and, as root, with both others: on file systems of its own, one with project
/// quota if the kernel has that, one without.
fn on_each(kit: &Kit, test: fn(&Kit)) -> Verdict {
    test(kit);
    if kit.walls.rootless {
        assert!(matches!(kit.walls.disk, DiskMeans::Memory { .. }), "{:?}", kit.walls.disk);
        return Verdict::Held;
    }
    for (features, option, means) in
        [("^quota", "defaults", DiskMeans::Image), ("quota,project", "prjquota", DiskMeans::ProjectQuota)]
    {
        if kit.walls.disk == means {
            continue;
        }
        let Some(place) = FileSystem::new(&kit.bundle.with_file_name(option), features, option) else {
            assert_eq!(means, DiskMeans::ProjectQuota, "an ext4 can always be mounted");
            eprintln!("(not tried with a project quota: this kernel has none)");
            continue;
        };
        let other = Kit::new(&place.0);
        assert_eq!(other.walls.disk, means);
        test(&other);
        other.shut_down();
        drop(other);
    }
    Verdict::Held
}

/// An ext4 of its own, mounted as long as this lives.
struct FileSystem(PathBuf);

impl FileSystem {
    fn new(folder: &Path, features: &str, option: &str) -> Option<Self> {
        fs::create_dir(folder).unwrap();
        let image = folder.with_extension("fs");
        fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
        let run = |program: &str, args: &[&str]| {
            let path = "/usr/sbin:/usr/bin:/sbin:/bin";
            Command::new(program).args(args).env("PATH", path).output().unwrap().status.success()
        };
        let (image, mounted) = (image.to_str().unwrap(), folder.to_str().unwrap());
        assert!(run("mkfs.ext4", &["-q", "-F", "-O", features, image]));
        run("mount", &["-o", &format!("loop,{option}"), image, mounted]).then(|| Self(folder.to_owned()))
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let unmounted = || Command::new("umount").arg(&self.0).status().unwrap().success().then_some(());
        // What used it may take a moment to go.
        until(unmounted, || "the file system stays in use");
    }
}

fn sh(kit: &Kit, script: &str) -> StarOrder {
    kit.command(&["sh", "-c", script])
}

fn with_disk(mut order: StarOrder, mib: u64) -> StarOrder {
    order.limits = Limits { disk: Some(Bytes::mib(mib)), ..NONE };
    order
}

/// Fills a file until there is no more room, and says how many whole MiB there were and why no more.
const FILL: &str = "fill() { i=0; while error=$(dd if=/dev/zero of=$1/$i bs=1M count=1 2>&1); do i=$((i+1)); done
    echo \"filled $i\"; case $error in *'No space left'*|*'quota exceeded'*) echo 'no more room';; *) echo \"$error\";; esac; }\n";

/// Tries to make files count for nobody.
const LEAVE: &str = "mkdir /tmp/own; for place in /tmp /tmp/own; do
    chattr -p 0 $place && lsattr -pd $place; chattr -P $place && lsattr -d $place; done 2>/dev/null; rmdir /tmp/own;";

fn filled(said: &str) -> u64 {
    let number = said.lines().find_map(|line| line.strip_prefix("filled ")).unwrap_or_else(|| panic!("{said}"));
    assert!(said.contains("no more room"), "{said}");
    number.parse().unwrap()
}

fn loop_devices() -> usize {
    let blocks = fs::read_dir("/sys/block").unwrap().flatten();
    blocks.filter(|entry| entry.path().join("loop").exists()).count()
}

fn full(kit: &Kit) {
    let before = loop_devices();
    let order = with_disk(
        sh(kit, &format!("{LEAVE} {FILL} fill /tmp; sync; rm -r /tmp/*; echo again > /tmp/x && cat /tmp/x")),
        32,
    );
    let (cause, said) = kit.run(&order);
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    assert!((24..=32).contains(&filled(&said)), "{said}");
    assert!(said.ends_with("again\n"), "{said}");
    // A script has the same.
    assert_eq!(kit.run(&with_disk(kit.script(&["say", "hello"]), 32)).0, ExitCause::Code(0));
    // Files are bounded too.
    let order = with_disk(
        kit.command(&["perl", "-e", "$i = 0; $i++ while open(my $f, '>', \"/tmp/$i\"); print \"$i $!\\n\""]),
        8,
    );
    let (_, said) = kit.run(&order);
    let (count, why) = said.trim().split_once(' ').unwrap();
    assert!((500..=1100).contains(&count.parse::<u32>().unwrap()), "{said}");
    assert!(why.contains("No space left") || why.contains("quota"), "{said}");
    // Nobody else gets at what it wrote, and nothing is left of it.
    until(|| (loop_devices() == before).then_some(()), || "a loop device is left behind");
    let folder = isolate::place::star(&kit.data_dir, order.star);
    until(|| nothing_left(kit, &folder).then_some(()), || "something of its disk is left");
}

fn nothing_left(kit: &Kit, folder: &Path) -> bool {
    !folder.join("disk").exists() && !folder.join("disk.img").exists() && !kit.data_dir.join("trash").exists()
}

fn beside(kit: &Kit) {
    let neighbour =
        with_disk(sh(kit, "i=0; while :; do i=$((i+1)); echo $i > /tmp/x && echo number $(cat /tmp/x); done"), 8);
    kit.start(&neighbour);
    for script in [
        "while :; do cat /dev/zero > /tmp/fill; done 2>/dev/null",
        "i=0; while :; do : > /tmp/$i; i=$((i+1)); done 2>/dev/null",
        "cd /tmp; while mkdir d && cd d; do :; done 2>/dev/null; echo deep; sleep 1000",
    ] {
        let mut hostile = with_disk(sh(kit, script), 16);
        hostile.limits.cpu = Some(Millicores(250));
        kit.start(&hostile);
        let last = kit.lines(neighbour.star).len();
        kit.said(neighbour.star, &format!("number {}", last + 30));
        let other = with_disk(sh(kit, "echo hello > /tmp/x; cat /tmp/x"), 8);
        assert_eq!(kit.run(&other), (ExitCause::Code(0), "hello\n".to_owned()));
        kit.send(&Request::Kill { star: hostile.star }, &[]);
        kit.end(hostile.star);
        let folder = isolate::place::star(&kit.data_dir, hostile.star);
        until(|| nothing_left(kit, &folder).then_some(()), || "something of its disk is left");
    }
}

/// The kernel's bounds for what waits for a device: whether they are strict, and bytes.
fn bounds(device: &Path) -> (u64, u64) {
    let number = |file: &str| fs::read_to_string(device.join("bdi").join(file)).unwrap().trim().parse().unwrap();
    (number("strict_limit"), number("max_bytes"))
}

fn waiting(kit: &Kit) -> Verdict {
    if kit.walls.disk != DiskMeans::Image {
        return Verdict::Absent("disks are no images".to_owned());
    }
    if !isolate::pace::can_bound() {
        return Verdict::Absent("this kernel cannot bound what waits for a disk".to_owned());
    }
    let device = |file: &Path| {
        let blocks = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path());
        let shows = |block: &PathBuf| {
            fs::read_to_string(block.join("loop/backing_file")).is_ok_and(|it| Path::new(it.trim()) == file)
        };
        { blocks }.find(shows)
    };
    let of_star = |star| isolate::place::star(&kit.data_dir.canonicalize().unwrap(), star).join("disk.img");
    let order = with_disk(sh(kit, "while :; do cat /dev/zero > /tmp/fill; rm /tmp/fill; done 2>/dev/null"), 64);
    kit.start(&order);
    let used = device(&of_star(order.star)).unwrap();
    let (strict, bytes) = bounds(&used);
    assert_eq!(strict, 1);
    assert!((512 << 10..=1 << 20).contains(&bytes), "{bytes} bytes may wait");
    // A device that somebody else mounts is as the kernel makes it, also when it is the one that a star had.
    kit.send(&Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    let free = || (!used.join("loop").exists() && bounds(&used).0 == 0).then_some(());
    // Another nursery may have taken it.
    let taken = || (used.join("loop").exists() && device(&of_star(order.star)).as_ref() != Some(&used)).then_some(());
    until(|| free().or_else(taken), || format!("{} stays bounded", used.display()));
    let other = FileSystem::new(&kit.bundle.with_file_name("others"), "^quota", "defaults").unwrap();
    let other = device(&other.0.canonicalize().unwrap().with_extension("fs")).unwrap();
    assert_eq!(bounds(&other).0, 0, "a device of somebody else is bounded");
    Verdict::Held
}

fn own_root(kit: &Kit) {
    root(kit);
    let fill = FILL.replace("dd if", "/bin/dd if");
    let mut order = shell(
        kit,
        &format!("{fill} echo changed > /etc/motd; fill /; cat /etc/motd; echo x > /tmp/x || echo full too"),
    );
    order.limits = Limits { disk: Some(Bytes::mib(32)), memory: Some(Bytes::mib(256)), ..NONE };
    let (cause, said) = kit.run(&order);
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    assert!((24..=32).contains(&filled(&said)), "{said}");
    assert!(said.contains("changed"), "{said}");
}

fn change(kit: &Kit, star: StarId, disk: Option<Bytes>) -> Option<String> {
    kit.send(&Request::Limit { star, limits: Box::new(Limits { disk, ..NONE }) }, &[]);
    let (message, _) = kit.expect(|message| matches!(message, Message::Limited { .. }));
    let Message::Limited { problem, .. } = message else { unreachable!() };
    problem
}

/// Not every container's root may let a mounted image grow.
fn may_grow() -> bool {
    rustix::thread::capabilities(None).unwrap().effective.contains(CapabilitySet::SYS_RESOURCE)
}

fn grows(kit: &Kit) {
    let script = format!("{FILL} fill /tmp; while ! [ -e /tmp/more ]; do sleep 0.02; done; fill /tmp; sleep 1000");
    let order = with_disk(sh(kit, &script), 16);
    kit.start(&order);
    kit.said(order.star, "no more room");
    let has = |mib: u64| change(kit, order.star, Some(Bytes::mib(mib)));
    let may = may_grow();
    match (has(48), &kit.walls.disk) {
        (None, _) => {
            let (result, said) = kit.exec(order.star, &["touch", "/tmp/more"]);
            assert_eq!(result, Ok(0), "{said}");
            until(
                || (kit.log(order.star).matches("no more room").count() == 2).then_some(()),
                || format!("it does not grow: {}", kit.log(order.star)),
            );
            let log = kit.log(order.star);
            let second = filled(log.split_once("no more room").unwrap().1);
            assert!((36..=48).contains(&second), "{log}");
        }
        (Some(problem), DiskMeans::Image) => assert!(!may && problem.contains("SYS_RESOURCE"), "{problem}"),
        (Some(problem), _) => panic!("{problem}"),
    }
    // Less than there is in it cannot be, and the star goes on.
    let problem = has(8).unwrap();
    assert!(problem.contains("can only grow") || problem.contains("more than 8 MiB"), "{problem}");
    assert!(change(kit, order.star, None).unwrap().contains("began with a disk"));
    kit.send(&Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    let order = sh(kit, "sleep 1000");
    kit.start(&order);
    assert!(change(kit, order.star, Some(Bytes::mib(8))).unwrap().contains("in memory"));
}

/// A volume's folder as an agent makes it.
fn folder(kit: &Kit, name: &str) -> PathBuf {
    let host = kit.data_dir.join("volumes/default").join(name);
    fs::create_dir_all(&host).unwrap();
    let mode = if kit.walls.rootless { 0o700 } else { 0o711 };
    fs::set_permissions(&host, fs::Permissions::from_mode(mode)).unwrap();
    host
}

fn with_volume(kit: &Kit, script: &str, size: Option<u64>) -> StarOrder {
    let mut order = sh(kit, script);
    order.volumes = vec![Bind { host: folder(kit, "pages"), inside: "/data".to_owned(), size: size.map(Bytes::mib) }];
    order
}

fn volume(kit: &Kit) {
    let is_bounded = !kit.walls.rootless;
    let before = loop_devices();
    // Two stars see one volume.
    let first = with_volume(kit, "echo kept > /data/note; id -u; sleep 1000", Some(32));
    kit.start(&first);
    kit.said(first.star, "0");
    let (cause, said) = kit.run(&with_volume(kit, "cat /data/note; stat -c %u /data /data/note", Some(32)));
    assert_eq!((cause, said.as_str()), (ExitCause::Code(0), "kept\n0\n0\n"));
    if is_bounded {
        let (_, said) = kit.run(&with_volume(
            kit,
            &format!("{FILL} mkdir /data/fill; fill /data/fill; rm -r /data/fill"),
            Some(32),
        ));
        assert!((20..=32).contains(&filled(&said)), "{said}");
        assert!(fs::metadata(folder(kit, "pages")).unwrap().dev() == fs::metadata(&kit.data_dir).unwrap().dev());
    }
    // One without a size holds more.
    let mut unbounded = sh(kit, "dd if=/dev/zero of=/data/fill bs=1M count=40 2>/dev/null && echo all of it");
    unbounded.volumes = vec![Bind { host: folder(kit, "free"), inside: "/data".to_owned(), size: None }];
    assert_eq!(kit.run(&unbounded).1, "all of it\n");
    kit.send(&Request::Kill { star: first.star }, &[]);
    kit.end(first.star);
    until(|| (loop_devices() == before).then_some(()), || "a loop device is left behind");
    // It is kept, named without its size too; and cannot be less than it is.
    for size in [Some(32), None] {
        assert_eq!(kit.run(&with_volume(kit, "cat /data/note", size)).1, "kept\n");
    }
    if kit.walls.disk == DiskMeans::Image {
        assert!(kit.start_fails(&with_volume(kit, "true", Some(16))).contains("cannot shrink to 16 MiB"));
    }
    if is_bounded {
        // It grows with the next star that asks for more.
        let larger = with_volume(kit, &format!("cat /data/note; {FILL} mkdir /data/fill; fill /data/fill"), Some(64));
        if kit.walls.disk == DiskMeans::Image && !may_grow() {
            assert!(kit.start_fails(&larger).contains("takes the capability SYS_RESOURCE"));
            assert_eq!(kit.run(&with_volume(kit, "cat /data/note", Some(32))).1, "kept\n");
        } else {
            let (_, said) = kit.run(&larger);
            assert!(said.starts_with("kept\n") && (44..=64).contains(&filled(&said)), "{said}");
        }
    }
}

fn volume_adopted(kit: &Kit) {
    let order = with_volume(kit, "echo mine > /data/note; while sleep 0.05; do cat /data/note; done", Some(32));
    kit.start(&order);
    kit.said(order.star, "mine");
    kit.kill_nursery();
    kit.open();
    let (_, said) = kit.run(&with_volume(kit, "cat /data/note; echo changed > /data/note", Some(32)));
    assert_eq!(said, "mine\n");
    // It is the same one for the star that was there before.
    kit.said(order.star, "changed");
    let disk = with_disk(sh(kit, "sleep 1000"), 8);
    let (pid, _) = kit.start(&disk);
    kit.kill_nursery();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    until(|| (!crate::kit::runs(pid)).then_some(()), || "it does not end");
    kit.open();
    let folder = isolate::place::star(&kit.data_dir, disk.star);
    until(|| nothing_left(kit, &folder).then_some(()), || "something of its disk is left");
}

fn refused(kit: &Kit) {
    if kit.walls.rootless {
        return;
    }
    let host = folder(kit, "pages");
    fs::write(host.join("old"), "from before").unwrap();
    let reason = kit.start_fails(&with_volume(kit, "true", Some(32)));
    assert!(reason.contains("has files from before it had a size"), "{reason}");
    assert_eq!(kit.run(&with_volume(kit, "cat /data/old", None)).1, "from before\n");
    assert_eq!(fs::read_dir(host.parent().unwrap()).unwrap().count(), 1, "nothing was made beside it");
}
