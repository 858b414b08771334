//! The memory of a running star, kept and brought back in another one.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use isolate::criu::Criu;
use isolate::memory::{DUMP_LOG, Keeping, Kept, Memory, settle};
use isolate::{Message, Request, StarOrder};
use model::{StarId, User};

use crate::kit::Kit;
use crate::own_root::root;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_memory_goes_on_in_another_star", goes_on),
    ("what_was_brought_back_is_behind_the_same_walls", walls),
    ("what_lies_in_a_stars_own_memory_comes_back_with_it", files),
    ("memories_that_cannot_be_kept_or_brought_back_are_refused", refused),
];

/// Counts, a line each; says what it finds when it is asked.
const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo count $n; sleep 0.02; done";

struct Camera<'a> {
    kit: &'a Kit,
    criu: Criu,
    with: PathBuf,
}

impl<'a> Camera<'a> {
    fn new(kit: &'a Kit) -> Result<Self, String> {
        if kit.walls.rootless {
            return Err("only root keeps memories".to_owned());
        }
        let criu = Criu::find()?;
        criu.check()?;
        let with = criu.kit(&kit.data_dir.join("criu"))?;
        Ok(Self { kit, criu, with })
    }

    fn images(&self, name: &str) -> PathBuf {
        let images = self.kit.data_dir.join(name);
        fs::create_dir(&images).unwrap();
        fs::set_permissions(&images, fs::Permissions::from_mode(0o700)).unwrap();
        self.criu.write_kernel_facts(&images).unwrap();
        images
    }

    /// Keeps a star's memory and has `meanwhile` done while it stands still.
    fn keep(&self, star: StarId, name: &str, meanwhile: impl FnOnce()) -> Result<Memory, String> {
        let images = self.images(name);
        let (their_input, input) = rustix::pipe::pipe().unwrap();
        let (output, their_output) = rustix::pipe::pipe().unwrap();
        let null = File::options().write(true).open("/dev/null").unwrap();
        let folders = vec!["/run".to_owned()];
        let keeping = Keeping { kit: self.with.clone(), images: images.clone(), folders };
        let request = Request::KeepMemory { star, token: 9, keeping };
        self.kit.send(&request, &[their_input.as_fd(), their_output.as_fd(), null.as_fd()]);
        drop((their_input, their_output));
        let mut told = [0; 4096];
        let length = File::from(output).read(&mut told).unwrap();
        if length > 0 {
            meanwhile();
        }
        drop(input);
        let (message, _) = self.kit.expect(|message| matches!(message, Message::ExecEnded { token: 9, .. }));
        let Message::ExecEnded { result, .. } = message else { unreachable!() };
        if result? != 0 {
            return Err(fs::read_to_string(images.join(DUMP_LOG)).unwrap());
        }
        let kept: Kept = rmp_serde::from_slice(&told[..length]).unwrap();
        let free = settle(&images, &kept).unwrap();
        Ok(Memory { kit: self.with.clone(), images, kept, free })
    }
}

/// `skipped!`: the verdict when there is no CRIU that works.
macro_rules! camera {
    ($kit:expr) => {
        match Camera::new($kit) {
            Ok(camera) => camera,
            // Not of every machine, and not in Debian 12: it is no part of what a star stands on.
            Err(reason) => return Verdict::Absent(reason),
        }
    };
}

fn counts(kit: &Kit, star: StarId) -> Vec<u64> {
    let lines = kit.lines(star);
    lines.iter().filter_map(|line| line.text.strip_prefix("count ")?.parse().ok()).collect()
}

fn sh(kit: &Kit, script: &str) -> StarOrder {
    kit.command(&["/bin/sh", "-c", script])
}

fn goes_on(kit: &Kit) -> Verdict {
    let camera = camera!(kit);
    let order = sh(kit, COUNTER);
    kit.start(&order);
    kit.said(order.star, "count 20");
    let mut stood = 0;
    let kept = camera.keep(order.star, "kept", || {
        stood = *counts(kit, order.star).last().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = *counts(kit, order.star).last().unwrap();
        // What was in its pipe came in meanwhile, but no more than that.
        assert!(now <= stood + 3, "it stands still: {stood}, {now}");
        stood = now;
    });
    let memory = kept.unwrap_or_else(|log| panic!("{log}"));
    for file in fs::read_dir(&memory.images).unwrap().flatten() {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    // It went on itself.
    kit.said(order.star, &format!("count {}", stood + 20));
    // Another goes on from there, and has its own life: a second time, too.
    for _ in 0..2 {
        let mut second = sh(kit, COUNTER);
        second.memory = Some(memory.clone());
        kit.start(&second);
        kit.said(second.star, &format!("count {}", stood + 20));
        let counts = counts(kit, second.star);
        assert!(counts[0] >= stood && counts[0] <= stood + 2, "from {stood}: {counts:?}");
        assert!(counts.windows(2).all(|pair| pair[1] == pair[0] + 1), "{counts:?}");
        kit.send(&Request::Kill { star: second.star }, &[]);
        kit.end(second.star);
    }
    // The control: without a memory it begins.
    let third = sh(kit, COUNTER);
    kit.start(&third);
    kit.said(third.star, "count 1");
    Verdict::Held
}

/// Tells of itself whenever there is a file for it.
const TELLS: &str = "echo ready; while ! [ -e /tmp/go ]; do sleep 0.02; done; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; \
    (echo x > /app/new) 2>&1; (echo x > /bound/new) 2>&1; mount -t tmpfs none /tmp 2>&1; unshare -U true 2>&1; echo told; sleep 1000";

fn walls(kit: &Kit) -> Verdict {
    let camera = camera!(kit);
    let hole = kit.data_dir.join("hole");
    fs::create_dir(&hole).unwrap();
    fs::set_permissions(&hole, fs::Permissions::from_mode(0o777)).unwrap();
    let order = || {
        let mut order = sh(kit, TELLS);
        // A hole in the first wall, which only Landlock covers.
        order.interior.files =
            vec![isolate::FileBind { host: hole.clone(), inside: "/bound".to_owned(), file: false, read_only: false }];
        order
    };
    let first = order();
    kit.start(&first);
    kit.said(first.star, "ready");
    let memory = camera.keep(first.star, "kept", || {}).unwrap_or_else(|log| panic!("{log}"));
    let tell = |star: StarId| {
        assert_eq!(kit.exec(star, &["touch", "/tmp/go"]).0, Ok(0));
        kit.said(star, "told");
        let text = kit.log(star);
        text.replace("ready\n", "")
    };
    let before = tell(first.star);
    let mut second = order();
    second.memory = Some(memory.clone());
    kit.start(&second);
    let after = tell(second.star);
    assert_eq!(after, before);
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(after.contains(line), "{after}");
    }
    // The control: with Landlock off the hole is one.
    if kit.walls.landlock.is_yes() {
        assert!(!hole.join("new").exists());
        let mut third = order();
        third.memory = Some(memory);
        third.weakened.no_landlock = true;
        kit.start(&third);
        tell(third.star);
        assert!(hole.join("new").exists());
    }
    Verdict::Held
}

fn files(kit: &Kit) -> Verdict {
    let camera = camera!(kit);
    let script = "mkdir -m 750 /tmp/d; echo one > /tmp/d/a; chmod 640 /tmp/d/a; ln -s a /tmp/d/l; mkfifo -m 600 /tmp/d/p; \
        exec 5>>/dev/shm/open; exec 6<>/tmp/gone; rm /tmp/gone; echo inside >&6; n=0; \
        while :; do n=$((n+1)); echo $n >&5; echo count $n; sleep 0.02; [ -e /tmp/go ] && { rm /tmp/go; cat /proc/self/fd/6; }; done";
    let order = |user: Option<User>| {
        let mut order = sh(kit, script);
        order.interior.user = user;
        order
    };
    for user in [None, Some(User { uid: 7, gid: 8 })] {
        let first = order(user);
        kit.start(&first);
        kit.said(first.star, "count 5");
        let name = format!("kept-{}", first.star);
        let memory = camera.keep(first.star, &name, || {}).unwrap_or_else(|log| panic!("{log}"));
        let mut second = order(user);
        second.memory = Some(memory);
        kit.start(&second);
        let from = counts(kit, second.star).first().copied();
        kit.said(second.star, &format!("count {}", from.unwrap_or(5) + 10));
        let look = "stat -c '%a %u:%g %F %n' /tmp/d /tmp/d/* /dev/shm/open; cat /tmp/d/l; ls /tmp";
        let [(_, before), (_, after)] = [first.star, second.star].map(|star| kit.exec(star, &["sh", "-c", look]));
        assert_eq!(after, before);
        assert!(before.contains("640 ") && before.contains("fifo /tmp/d/p") && before.contains("one\n"), "{before}");
        // It writes on to the file it had open, from the first number on.
        let (_, numbers) = kit.exec(second.star, &["cat", "/dev/shm/open"]);
        assert!(numbers.starts_with("1\n2\n3\n") && numbers.lines().count() > 10, "{numbers}");
        // And has the one that has no name any more.
        assert_eq!(kit.exec(second.star, &["touch", "/tmp/go"]).0, Ok(0), "as {user:?}");
        kit.said(second.star, "inside");
        for star in [first.star, second.star] {
            kit.send(&Request::Kill { star }, &[]);
            kit.end(star);
        }
    }
    Verdict::Held
}

fn refused(kit: &Kit) -> Verdict {
    let camera = camera!(kit);
    let script = kit.script(&["idle"]);
    kit.start(&script);
    let why = camera.keep(script.star, "script", || {}).unwrap_err();
    assert!(why.contains("a script is the first process"), "{why}");
    let mut own = kit.command(&["/bin/sh", "-c", "while :; do :; done"]);
    own.root = Some(root(kit));
    kit.start(&own);
    let why = camera.keep(own.star, "own", || {}).unwrap_err();
    assert!(why.contains("its root file system is its own"), "{why}");
    let why = camera.keep(StarId(99), "none", || {}).unwrap_err();
    assert!(why.contains("does not run"), "{why}");
    // What CRIU would load from the star.
    let mut preload = sh(kit, "echo ready; sleep 1000");
    fs::write(kit.bundle.join("preload"), "/app/mine.so\n").unwrap();
    preload.interior.files = vec![isolate::FileBind {
        host: kit.bundle.join("preload"),
        inside: "/etc/ld.so.preload".to_owned(),
        file: true,
        read_only: true,
    }];
    kit.start(&preload);
    let why = camera.keep(preload.star, "preload", || {}).unwrap_err();
    assert!(why.contains("/etc/ld.so.preload"), "{why}");
    // Images that are damaged, of a program that is not what it was.
    let order = sh(kit, "echo ready; sleep 1000");
    kit.start(&order);
    kit.said(order.star, "ready");
    let memory = camera.keep(order.star, "kept", || {}).unwrap_or_else(|log| panic!("{log}"));
    let pages = memory.images.join("pstree.img");
    File::options().write(true).open(pages).unwrap().write_all(b"nothing").unwrap();
    let mut second = sh(kit, "echo ready; sleep 1000");
    second.memory = Some(memory);
    let why = kit.start_fails(&second);
    assert!(why.contains("its memory cannot be brought back"), "{why}");
    Verdict::Held
}
