//! Stars that mean harm. Each runs beside a neighbour that counts; afterwards the neighbour must have gone on counting, another
//! star must start as ever, and nothing of the hostile one may be left. How much slower a neighbour becomes is measured by
//! `cargo xtask bench hostile`.

use std::fs;
use std::time::{Duration, Instant};

use isolate::{Request, StarOrder};
use model::units::{Bytes, Millicores};
use model::{ExitCause, Limits};

use crate::kit::{Kit, PATIENCE, until};
use crate::life::descendants;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("hostile_endless_loop", |kit| beside(kit, &sh(kit, "while :; do :; done"))),
    ("hostile_fork_bomb", |kit| beside(kit, &sh(kit, "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done"))),
    ("hostile_memory_bomb", |kit| beside(kit, &sh(kit, "while :; do tail /dev/zero; done"))),
    ("hostile_hunger_for_descriptors", |kit| {
        beside(kit, &kit.command(&["bash", "-c", "while :; do exec {f}</dev/null; done 2>/dev/null"]))
    }),
    ("hostile_memory_disk_fill", |kit| {
        beside(kit, &sh(kit, "while :; do cat /dev/zero > /tmp/fill; done 2>/dev/null"))
    }),
    ("hostile_disk_fill", |kit| fills(kit, "cat /dev/zero > /tmp/fill || echo full; rm /tmp/fill")),
    ("hostile_synced_disk_fill", |kit| {
        fills(kit, "dd if=/dev/zero of=/tmp/fill bs=1M conv=fsync || echo full; rm /tmp/fill")
    }),
    ("hostile_shared_memory_fill", |kit| {
        beside(kit, &sh(kit, "while :; do cat /dev/zero > /dev/shm/fill; done 2>/dev/null"))
    }),
    ("hostile_inode_fill", |kit| fills(kit, "i=0; while true > /tmp/$i; do i=$((i+1)); done; echo full; rm -r /tmp/*")),
    ("hostile_memory_inode_fill", |kit| {
        beside(kit, &sh(kit, "i=0; while :; do true > /tmp/$i; i=$((i+1)); done 2>/dev/null"))
    }),
    ("hostile_deep_folders", |kit| beside(kit, &sh(kit, "cd /tmp; while :; do mkdir d && cd d; done 2>/dev/null"))),
    ("hostile_log_flood", |kit| beside(kit, &sh(kit, "yes & yes >&2"))),
    ("hostile_endless_line", |kit| beside(kit, &sh(kit, "cat /dev/zero"))),
    ("hostile_closed_pipes", |kit| beside(kit, &sh(kit, "exec >&- 2>&- <&-; while :; do sleep 1; done"))),
    ("hostile_deafness", |kit| {
        beside(kit, &sh(kit, "trap '' HUP INT QUIT TERM USR1 USR2 TSTP; while :; do sleep 1; done"))
    }),
    ("hostile_runaway_children", |kit| {
        beside(kit, &sh(kit, "(setsid sh -c 'sleep 1000 & sleep 1000 &' &); setsid sleep 1000 & exec sleep 1000"))
    }),
    ("hostile_killer", |kit| {
        beside(
            kit,
            &sh(kit, "kill -KILL 1 $PPID; kill -STOP 1; kill -TERM 1; while :; do kill -KILL -1; sleep 1; done"),
        )
    }),
    ("hostile_exits_by_the_hundred", by_the_hundred),
    ("hostile_words", words),
];

fn sh(kit: &Kit, script: &str) -> StarOrder {
    kit.command(&["sh", "-c", script])
}

/// Does something over and over that fills a disk of its own, on whatever the machine has for that.
fn fills(kit: &Kit, act: &str) -> Verdict {
    let mut order = sh(kit, &format!("while :; do {act}; done 2>/dev/null"));
    order.limits.disk = Some(Limits::DISK_MIN);
    // However slow the machine: it is not hostile before its disk is full.
    let is_full = |kit: &Kit| kit.log(order.star).starts_with("full\n");
    let verdict = beside_until(kit, &order, is_full);
    assert!(is_full(kit), "it has not come to the end of its disk");
    verdict
}

/// Long enough for what has no bound to be seen to have none.
const WHILE: Duration = Duration::from_millis(700);

fn beside(kit: &Kit, hostile: &StarOrder) -> Verdict {
    beside_until(kit, hostile, |_| true)
}

fn beside_until(kit: &Kit, hostile: &StarOrder, done: impl Fn(&Kit) -> bool) -> Verdict {
    let neighbour = kit.script(&["count"]);
    kit.start(&neighbour);
    let mut hostile = hostile.clone();
    hostile.limits =
        Limits { cpu: Some(Millicores(250)), memory: Some(Bytes::mib(48)), pids: Some(32), ..hostile.limits };
    let (pid, _) = kit.start(&hostile);
    let begun = Instant::now();
    while begun.elapsed() < WHILE || (!done(kit) && begun.elapsed() < PATIENCE) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The neighbour goes on: ten more numbers than it had written by now.
    let last = kit.lines(neighbour.star).len();
    kit.said(neighbour.star, &format!("number {}", last + 10));
    // Others start, and are what was ordered.
    for order in [kit.script(&["say", "hello"]), kit.command(&["echo", "hello"])] {
        assert_eq!(kit.run(&order), (ExitCause::Code(0), "hello\n".to_owned()));
    }
    let below = descendants(pid);
    assert!(below.len() <= 32, "{below:?}");
    let folder = isolate::place::star(&kit.data_dir, hostile.star);
    let log: u64 =
        isolate::log::files(&folder).iter().map(|file| fs::metadata(file).map_or(0, |file| file.len())).sum();
    assert!(log <= 2 * isolate::log::FILE_MAX, "its log takes {log} bytes");
    // It may have ended itself. Its end is told only when its groups are empty.
    kit.send(&Request::Kill { star: hostile.star }, &[]);
    kit.end(hostile.star);
    until(
        || below.iter().all(|&pid| !crate::kit::runs(pid)).then_some(()),
        || format!("something of it is left: {below:?}"),
    );
    kit.send(&Request::Kill { star: neighbour.star }, &[]);
    kit.end(neighbour.star);
    Verdict::Held
}

/// Stars that end as fast as they are started.
fn by_the_hundred(kit: &Kit) -> Verdict {
    let neighbour = kit.script(&["count"]);
    kit.start(&neighbour);
    let orders: Vec<_> = (0..100).map(|_| kit.command(&["false"])).collect();
    orders.iter().for_each(|order| kit.send(&Request::Start(Box::new(order.clone())), &[]));
    orders.iter().for_each(|order| assert_eq!(kit.end(order.star), ExitCause::Code(1)));
    let last = kit.lines(neighbour.star).len();
    kit.said(neighbour.star, &format!("number {}", last + 10));
    Verdict::Held
}

/// Names, arguments and variables made to confuse whoever handles them on the way.
fn words(kit: &Kit) -> Verdict {
    for hostname in ["", "a b", "a\nb", "../x", "a/b", "ä", "a\0b", "$(id)", "a.b"] {
        let mut order = kit.script(&["exit", "0"]);
        order.hostname = hostname.to_owned();
        assert!(kit.start_fails(&order).contains("is not a host name"), "{hostname:?}");
    }
    for name in ["", "A=B", "A\0B"] {
        let mut order = kit.script(&["exit", "0"]);
        order.env.insert(name.to_owned(), "x".to_owned());
        assert!(kit.start_fails(&order).contains("is not a variable's name"), "{name:?}");
    }
    for inside in ["/", "/app", "/proc/x", "/sys", "/dev/shm", "/run", "/run/hosts", "/a/../b", "/a//b", "a", "/a\0b"] {
        let mut order = kit.script(&["exit", "0"]);
        order.volumes = vec![isolate::Bind { host: kit.bundle.clone(), inside: inside.to_owned(), size: None }];
        assert!(kit.start_fails(&order).contains("a volume cannot be at"), "{inside:?}");
    }
    for path in ["../probe.rads", "/probe.rads", "", "a/../b", "a\0b"] {
        let mut order = kit.script(&["exit", "0"]);
        order.launch = isolate::Launch::Script { path: path.to_owned() };
        assert!(kit.start_fails(&order).contains("is not a path within the bundle"), "{path:?}");
    }
    // What is only odd is passed on as it is.
    let mut order = kit.command(&["sh", "-c", "printf '%s|' \"$@\" \"$ODD\"; echo; env | wc -l", "sh"]);
    order.args = ["a\nb", "$(id)", "`id`", "--", "-e", "ä", "\u{1b}[31m"].map(str::to_owned).to_vec();
    order.env.insert("ODD".to_owned(), "x\ny".to_owned());
    order.env.extend((0..10_000).map(|number| (format!("V{number}"), "v".to_owned())));
    let (cause, said) = kit.run(&order);
    assert_eq!(cause, ExitCause::Code(0));
    assert!(said.starts_with("a\nb|$(id)|`id`|--|-e|ä|\u{1b}[31m|x\ny|\n"), "{said:?}");
    assert!(said.trim_end().rsplit('\n').next().unwrap().trim().parse::<u32>().unwrap() > 10_000, "{said:?}");
    Verdict::Held
}
