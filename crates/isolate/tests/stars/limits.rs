//! Limits that bite, and that change while a star runs.

use std::collections::BTreeSet;

use isolate::{Enforced, Message, Request, StarOrder};
use model::units::{Bytes, Millicores};
use model::{ExitCause, Limits};
use rustix::thread::CapabilitySet;

use crate::kit::Kit;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("what_is_not_enforced_is_said", said),
    ("a_memory_bomb_ends_as_out_of_memory", memory),
    ("a_fork_bomb_stays_within_its_processes", processes),
    ("a_quarter_of_a_core_is_a_quarter", processor),
    ("limits_change_while_a_star_runs", live),
    ("open_files_are_limited_and_the_limit_changes", open_files),
    ("who_writes_faster_than_its_log_rate_waits", log_rate),
    ("a_star_runs_on_the_processors_it_is_given", pinned),
    ("a_burst_is_what_was_asked_for", burst),
    ("who_spends_all_it_may_gives_way", yielding),
    ("reads_and_writes_of_the_disk_take_their_time", io),
    ("counters_are_read_without_the_nursery", counters),
];

const NONE: Limits = Limits::UNLIMITED;

/// Whether the limit cannot be tried here.
fn missing(limit: &Enforced) -> Option<Verdict> {
    match limit {
        Enforced::Yes => None,
        Enforced::No { reason } => Some(Verdict::Skipped(reason.clone())),
    }
}

fn said(kit: &Kit) -> Verdict {
    let walls = &kit.walls;
    assert_eq!(walls.rootless, !rustix::process::geteuid().is_root());
    assert!(["v1", "v2", "hybrid", "none"].contains(&walls.cgroup.as_str()), "{walls:?}");
    for limit in [&walls.cpu, &walls.memory, &walls.pids, &walls.pinning, &walls.burst, &walls.yielding, &walls.io] {
        match limit {
            Enforced::No { reason } => assert!(!reason.is_empty()),
            Enforced::Yes => {}
        }
        assert!(limit.is_yes() || walls.rootless, "{walls:?}");
    }
    // Not enforced is not refused: the star starts all the same.
    let mut order = kit.script(&["exit", "0"]);
    order.limits =
        Limits { cpu: Some(Millicores(500)), memory: Some(Bytes::mib(64)), pids: Some(16), ..Limits::UNLIMITED };
    assert_eq!(kit.run(&order).0, ExitCause::Code(0));
    Verdict::Held
}

fn memory(kit: &Kit) -> Verdict {
    if let Some(skipped) = missing(&kit.walls.memory) {
        return skipped;
    }
    let limits = Limits { memory: Some(Bytes::mib(32)), ..NONE };
    let mut script = kit.script(&["eat"]);
    script.limits = limits;
    let (cause, said) = kit.run(&script);
    assert_eq!((cause, said.as_str()), (ExitCause::OutOfMemory, "eats\n"));
    // A native program, whose init the kernel spares: it is the program that dies.
    let mut command = kit.command(&["sh", "-c", "exec tail /dev/zero"]);
    command.limits = limits;
    assert_eq!(kit.run(&command).0, ExitCause::OutOfMemory);
    // The same death without the limit being the cause is told apart.
    let mut killed = kit.command(&["sh", "-c", "kill -KILL $$"]);
    killed.limits = limits;
    assert_eq!(kit.run(&killed).0, ExitCause::Signal(9));
    Verdict::Held
}

fn processes(kit: &Kit) -> Verdict {
    if let Some(skipped) = missing(&kit.walls.pids) {
        return skipped;
    }
    // From the bundle: a script makes no processes.
    std::fs::copy(std::env::current_exe().unwrap(), kit.bundle.join("probe")).unwrap();
    for expected in [19, 4] {
        let mut order = kit.command(&["./probe", "probe", "fork"]);
        order.limits = Limits { pids: Some(expected + 1), ..NONE };
        let (cause, said) = kit.run(&order);
        assert_eq!(cause, ExitCause::Code(0), "{said}");
        assert!(said.contains(&format!("forks {expected}\n")), "{said}");
    }
    // A shell beside its init has the whole limit to itself.
    let mut order = kit.command(&["sh", "-c", "sleep 100 & sleep 100 & echo two; sleep 100 & echo three"]);
    order.limits = Limits { pids: Some(3), ..NONE };
    let (_, said) = kit.run(&order);
    assert!(said.contains("two") && !said.contains("three"), "{said}");
    Verdict::Held
}

fn share(kit: &Kit, limits: Limits) -> u64 {
    let mut order = kit.script(&["burn", "1200"]);
    order.limits = limits;
    let (_, said) = kit.run(&order);
    said.trim().strip_prefix("share ").unwrap_or_else(|| panic!("{said}")).parse().unwrap()
}

fn processor(kit: &Kit) -> Verdict {
    if let Some(skipped) = missing(&kit.walls.cpu) {
        return skipped;
    }
    let share = share(kit, Limits { cpu: Some(Millicores(250)), ..NONE });
    // 25 %, and one quota more for the burst; less when others use the machine.
    assert!((10..=32).contains(&share), "{share} %");
    Verdict::Held
}

fn live(kit: &Kit) -> Verdict {
    for limit in [&kit.walls.cpu, &kit.walls.memory, &kit.walls.pids] {
        if let Some(skipped) = missing(limit) {
            return skipped;
        }
    }
    let mut order = kit.script(&["idle"]);
    order.limits =
        Limits { cpu: Some(Millicores(100)), memory: Some(Bytes::mib(64)), pids: Some(10), ..Limits::UNLIMITED };
    let star = order.star;
    let (pid, _) = kit.start(&order);
    let change = |limits: Limits| {
        kit.send(&Request::Limit { star, limits: Box::new(limits) }, &[]);
        let (message, _) = kit.expect(|message| matches!(message, Message::Limited { .. }));
        let Message::Limited { problem, .. } = message else { unreachable!() };
        problem
    };
    let files = |name: &str| group_file(pid, name);
    for (limits, memory, pids) in [
        (
            Limits { cpu: Some(Millicores(900)), memory: Some(Bytes::mib(128)), pids: Some(20), ..Limits::UNLIMITED },
            128 << 20,
            "20",
        ),
        (
            Limits { cpu: Some(Millicores(50)), memory: Some(Bytes::mib(32)), pids: Some(5), ..Limits::UNLIMITED },
            32 << 20,
            "5",
        ),
        (NONE, u64::MAX, "max"),
    ] {
        assert_eq!(change(limits), None);
        let set: u64 = files("memory").trim().parse().unwrap_or(u64::MAX);
        assert!(set == memory || set > 1 << 60 && memory == u64::MAX, "{set}");
        assert_eq!(files("pids").trim(), pids);
    }
    // Less than it uses now cannot be.
    let problem = change(Limits { memory: Some(Bytes(4096)), ..NONE });
    assert!(problem.is_some());
    assert!(crate::kit::runs(pid), "and nobody dies of it");
    Verdict::Held
}

fn open_files(kit: &Kit) -> Verdict {
    let count = "$n = 3; while (open(my $f, '<', '/dev/null')) { push @f, $f; $n++ } print \"$n $!\\n\"; ";
    let perl = |code: &str| kit.command(&["perl", "-e", &["$| = 1; ", count, code].concat()]);
    let said = |order: &StarOrder, expected: &str| kit.said(order.star, expected);
    let mut order = perl("exit if !fork; sleep 1000");
    order.limits = Limits { open_files: Some(40), ..NONE };
    kit.start(&order);
    said(&order, "40 Too many open files");
    // The same holds for what is executed in it, and for a script.
    let exec = || kit.exec(order.star, &["sh", "-c", "ulimit -n; ulimit -Hn"]);
    assert_eq!(exec(), (Ok(0), "40\n40\n".to_owned()));
    let mut script = kit.script(&["exit", "0"]);
    script.limits = Limits { open_files: Some(Limits::OPEN_FILES_MIN), ..NONE };
    assert_eq!(kit.run(&script).0, ExitCause::Code(0));

    // A change reaches every process of the star, at once.
    let mut family = kit.command(&["sh", "-c", "(while sleep 0.01; do ulimit -Hn; done) & wait"]);
    family.limits = order.limits;
    kit.start(&family);
    said(&family, "40");
    let change = |star, open_files| {
        kit.send(&Request::Limit { star, limits: Box::new(Limits { open_files, ..NONE }) }, &[]);
        let (message, _) = kit.expect(|message| matches!(message, Message::Limited { .. }));
        let Message::Limited { problem, .. } = message else { unreachable!() };
        problem
    };
    assert_eq!(change(family.star, Some(33)), None);
    said(&family, "33");
    assert_eq!(change(order.star, Some(33)), None);
    assert_eq!(exec(), (Ok(0), "33\n33\n".to_owned()));
    let may_raise = rustix::thread::capabilities(None).unwrap().effective.contains(CapabilitySet::SYS_RESOURCE);
    match change(family.star, Some(50)) {
        None => drop(said(&family, "50")),
        // Not every container's root may.
        Some(problem) => assert!(!may_raise && problem.contains("SYS_RESOURCE"), "{problem}"),
    }
    // More than there is is refused, not cut.
    let problem = change(family.star, Some(Limits::OPEN_FILES_MAX + 1)).unwrap();
    assert!(problem.contains("a process may have"), "{problem}");
    let mut greedy = kit.script(&["idle"]);
    greedy.limits = Limits { open_files: Some(Limits::OPEN_FILES_MAX + 1), ..NONE };
    let reason = kit.start_fails(&greedy);
    assert!(reason.contains("a process may have"), "{reason}");
    Verdict::Held
}

fn log_rate(kit: &Kit) -> Verdict {
    const LINE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde";
    let flood = || kit.command(&["sh", "-c", &format!("while :; do echo {LINE}; done")]);
    let taken = |star| -> u64 { kit.lines(star).iter().map(|line| line.text.len() as u64 + 1).sum() };
    let (mut slow, fast) = (flood(), flood());
    slow.limits = Limits { log_rate: Some(Bytes::kib(32)), ..NONE };
    let begun = std::time::Instant::now();
    kit.start(&slow);
    kit.start(&fast);
    // The other one has the usual rate beside it.
    crate::kit::until(|| (taken(fast.star) > 2 << 20).then_some(()), || "the other one waits too");
    crate::kit::until(|| (begun.elapsed().as_millis() > 1500).then_some(()), || "time stands still");
    let rate = |before: u64, since: std::time::Instant| {
        let bytes = taken(slow.star) - before;
        bytes as f64 / 1024.0 / since.elapsed().as_secs_f64()
    };
    let before = rate(0, begun);
    assert!(before <= 36.0 && taken(slow.star) > 1024, "{before} KiB/s");
    let change = |rate| {
        kit.send(&Request::Limit { star: slow.star, limits: Box::new(Limits { log_rate: rate, ..NONE }) }, &[]);
        kit.expect(|message| matches!(message, Message::Limited { problem: None, .. }));
    };
    // A nursery that follows holds it to the same.
    kit.kill_nursery();
    let killed = std::time::Instant::now();
    let had = taken(slow.star);
    kit.open();
    crate::kit::until(|| (killed.elapsed().as_millis() > 1000).then_some(()), || "time stands still");
    assert!(rate(had, killed) <= 38.0, "{} KiB/s", rate(had, killed));
    // Free again, it writes as fast as others.
    change(None);
    let had = taken(slow.star);
    crate::kit::until(|| (taken(slow.star) > had + (1 << 20)).then_some(()), || "it still waits");
    // What waits in the pipe when it ends is not lost, and does not keep it from ending.
    let mut last =
        kit.command(&["sh", "-c", "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo line $i; done; echo the last"]);
    last.limits = Limits { log_rate: Some(Limits::LOG_RATE_MIN), ..NONE };
    let begun = std::time::Instant::now();
    let (cause, said) = kit.run(&last);
    assert_eq!(cause, ExitCause::Code(0));
    // At its rate forty seconds' worth.
    assert!(said.ends_with("the last\n") && begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    Verdict::Held
}

/// Changes the limits of a star; what came of it.
fn change(kit: &Kit, star: model::StarId, limits: Limits) -> Result<(), String> {
    kit.send(&Request::Limit { star, limits: Box::new(limits) }, &[]);
    let (message, _) = kit.expect(|message| matches!(message, Message::Limited { .. }));
    let Message::Limited { problem, .. } = message else { unreachable!() };
    problem.map_or(Ok(()), Err)
}

fn pinned(kit: &Kit) -> Verdict {
    if let Some(skipped) = missing(&kit.walls.pinning) {
        return skipped;
    }
    let on = |cpus: &str| Limits { cpus: cpus.parse().ok(), ..NONE };
    let allowed = |star| {
        let words = ["sed", "-n", "s/^Cpus_allowed_list:.//p", "/proc/2/status", "/proc/self/status"];
        let (result, said) = kit.exec(star, &words);
        assert_eq!(result, Ok(0), "{said}");
        said
    };
    let usual = kit.command(&["sleep", "1000"]);
    kit.start(&usual);
    let all = allowed(usual.star);
    assert!(all.lines().all(|line| line != "1"), "{all}");
    let mut order = kit.command(&["sleep", "1000"]);
    order.limits = on("1");
    kit.start(&order);
    assert_eq!(allowed(order.star), "1\n1\n");
    // It cannot help itself to another; who is not held to one can.
    let (result, said) = kit.exec(order.star, &["taskset", "-c", "0", "true"]);
    assert!(result != Ok(0) && said.contains("Invalid argument"), "{said}");
    assert_eq!(kit.exec(usual.star, &["taskset", "-c", "0", "true"]).0, Ok(0));
    for (limits, expected) in [(on("0"), "0\n0\n"), (on("0-1"), "0-1\n0-1\n"), (NONE, all.as_str())] {
        assert_eq!(change(kit, order.star, limits), Ok(()));
        assert_eq!(allowed(order.star), expected);
    }
    // One that began without, too; and a nursery that follows knows of it.
    assert_eq!(change(kit, usual.star, on("1")), Ok(()));
    assert_eq!(allowed(usual.star), "1\n1\n");
    kit.kill_nursery();
    kit.open();
    assert_eq!(change(kit, usual.star, on("0")), Ok(()));
    let refused = change(kit, usual.star, on("0,1000")).unwrap_err();
    assert!(refused.contains("cannot run on the processors 0,1000"), "{refused}");
    assert_eq!(allowed(usual.star), "0\n0\n");
    let mut nowhere = kit.script(&["idle"]);
    nowhere.limits = on("1000-1001");
    assert!(kit.start_fails(&nowhere).contains("cannot run on the processors 1000-1001"));
    Verdict::Held
}

fn burst(kit: &Kit) -> Verdict {
    if let Some(skipped) = missing(&kit.walls.burst) {
        return skipped;
    }
    let with = |burst| Limits { cpu: Some(Millicores(500)), cpu_burst: burst, ..NONE };
    for (burst, expected) in [(None, "50000"), (Some(20), "10000"), (Some(0), "0")] {
        let mut order = kit.script(&["idle"]);
        order.limits = with(burst);
        let (pid, _) = kit.start(&order);
        assert_eq!(group_file(pid, "cpu").trim(), expected);
        assert_eq!(change(kit, order.star, with(Some(60))), Ok(()));
        assert_eq!(group_file(pid, "cpu").trim(), "30000");
    }
    Verdict::Held
}

/// A star at its limit runs where nobody else wants to, with all it starts, until it is calm or may do more; others do not.
fn yielding(kit: &Kit) -> Verdict {
    if let Some(skipped) = missing(&kit.walls.yielding) {
        return skipped;
    }
    let with = |cpu| Limits { cpu, ..NONE };
    let mut calm = kit.script(&["idle"]);
    calm.limits = with(Some(Millicores(100)));
    let (calm, _) = kit.start(&calm);
    let mut order = kit.command(&["sh", "-c", "while :; do (:); done"]);
    order.limits = with(Some(Millicores(100)));
    let (spender, _) = kit.start(&order);
    let told_by_turns = !kit.walls.yielding_in_part;
    let usual: BTreeSet<u64> = turn_of("self").into_iter().collect();
    let takes = |pid: u32, long: bool| !told_by_turns || turns(pid) == if long { [LONG].into() } else { usual.clone() };
    let gives_way = |pid: u32| group_file(pid, "cpu.idle").trim() == "1";
    let until = |pid: u32, expected: bool| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while gives_way(pid) != expected || !takes(pid, expected) {
            assert!(std::time::Instant::now() < deadline, "wanted {expected}: {} {:?}", gives_way(pid), turns(pid));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    assert!(!gives_way(spender) && takes(spender, false), "nobody begins so");
    until(spender, true);
    // What is executed in it is no child of what it runs.
    let sleep = "sleep 1000 <&- >&- 2>&- &";
    assert_eq!(kit.exec(order.star, &["sh", "-c", sleep]).0, Ok(0));
    let name = |thread: &str| std::fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
    let sleeps = || group_file(spender, "cpu.threads").lines().any(|thread| name(thread).trim() == "sleep");
    crate::kit::until(|| sleeps().then_some(()), || "nothing sleeps in it");
    until(spender, true);
    // On a slow machine its start took all it may; now it has time left.
    until(calm, false);
    // It may do as it likes now, and counts like everybody else.
    assert_eq!(change(kit, order.star, NONE), Ok(()));
    until(spender, false);
    assert_eq!(change(kit, order.star, with(Some(Millicores(100)))), Ok(()));
    until(spender, true);
    // What does nothing spends nothing.
    kit.send(&Request::Freeze { star: order.star, frozen: true }, &[]);
    until(spender, false);
    Verdict::Held
}

/// What is read past the page cache and written so takes as long as it must; without a limit it does not.
fn io(kit: &Kit) -> Verdict {
    if let Some(skipped) = missing(&kit.walls.io) {
        return skipped;
    }
    let volume = kit.data_dir.join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let mut order = kit.command(&["sleep", "1000"]);
    order.volumes = vec![isolate::Bind { host: volume, inside: "/data".to_owned(), size: None }];
    order.limits = Limits { disk: Some(Bytes::mib(64)), ..NONE };
    kit.start(&order);
    let millis = |words: &[&str]| {
        let begun = std::time::Instant::now();
        let (result, said) = kit.exec(order.star, words);
        assert_eq!(result, Ok(0), "{said}");
        begun.elapsed().as_millis()
    };
    let write = |folder: &str| {
        millis(&["dd", "if=/dev/zero", &format!("of={folder}/x"), "bs=256k", "count=16", "oflag=direct"])
    };
    let read = |folder: &str| {
        millis(&["dd", &format!("if={folder}/x"), "of=/dev/null", "bs=256k", "count=16", "iflag=direct"])
    };
    // Four MiB at four a second, beside none: how quick it is otherwise is the control.
    for folder in ["/data", "/tmp"] {
        let (wrote, had) = (write(folder), read(folder));
        let limits = Limits { io_read: Some(Bytes::mib(4)), io_write: Some(Bytes::mib(4)), ..order.limits };
        assert_eq!(change(kit, order.star, limits), Ok(()));
        let (slow_write, slow_read) = (write(folder), read(folder));
        assert!(slow_write > 700 && slow_write > wrote + 300, "{folder}: {slow_write} ms, {wrote} ms without a limit");
        assert!(slow_read > 700 && slow_read > had + 300, "{folder}: {slow_read} ms, {had} ms without a limit");
        assert_eq!(change(kit, order.star, order.limits), Ok(()));
        let again = write(folder);
        assert!(again + 300 < slow_write, "{folder}: {again} ms without a limit again, {slow_write} with one");
    }
    // One that starts with limits has them, and its end does not wait for what it wrote.
    let mut slow = kit.command(&["sh", "-c", "echo begins; dd if=/dev/zero of=/tmp/x bs=256k count=100 oflag=direct"]);
    slow.limits = Limits { disk: Some(Bytes::mib(64)), io_write: Some(Bytes::mib(1)), ..NONE };
    kit.start(&slow);
    kit.said(slow.star, "begins");
    let begun = std::time::Instant::now();
    kit.send(&Request::Kill { star: slow.star }, &[]);
    assert_eq!(kit.end(slow.star), ExitCause::Signal(9));
    assert!(begun.elapsed().as_millis() < 3000, "{:?}", begun.elapsed());
    Verdict::Held
}

/// A limit as the kernel has it, found by way of the star's own process.
/// How long the turns are that those in a star's group take, in nanoseconds: the longest that the kernel grants, or as it has it.
const LONG: u64 = 100_000_000;

fn turns(pid: u32) -> BTreeSet<u64> {
    group_file(pid, "cpu.threads").lines().filter_map(turn_of).collect()
}

fn turn_of(thread: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{thread}/sched")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("se.slice")?.split_whitespace().last()?.parse().ok())
}

fn group_file(pid: u32, file: &str) -> String {
    let controller = file.split('.').next().unwrap_or(file);
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let v1 = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let names = parts.next()?;
        names.split(',').any(|name| name == controller).then(|| parts.next()).flatten()
    });
    let (path, v1) = match v1 {
        Some(path) => (format!("/sys/fs/cgroup/{controller}{path}"), true),
        None => (format!("/sys/fs/cgroup{}", groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap()), false),
    };
    let file = match (file, v1) {
        ("memory", true) => "memory.limit_in_bytes",
        ("memory", false) => "memory.max",
        ("cpu.idle", _) => "cpu.idle",
        ("cpu.threads", true) => "tasks",
        ("cpu.threads", false) => "cgroup.threads",
        ("cpu", true) => "cpu.cfs_burst_us",
        ("cpu", false) => "cpu.max.burst",
        _ => "pids.max",
    };
    std::fs::read_to_string(format!("{path}/{file}")).unwrap()
}

fn counters(kit: &Kit) -> Verdict {
    for limit in [&kit.walls.cpu, &kit.walls.memory, &kit.walls.pids] {
        if let Some(skipped) = missing(limit) {
            return skipped;
        }
    }
    let mut order = kit.command(&["sh", "-c", "echo begun; while :; do :; done"]);
    order.limits =
        Limits { cpu: Some(Millicores(100)), memory: Some(Bytes::mib(64)), pids: Some(10), ..Limits::UNLIMITED };
    kit.start(&order);
    let stats = crate::kit::until(
        || {
            let stats = isolate::stats(&kit.data_dir, order.star).unwrap();
            (stats.nr_throttled.unwrap() > 2).then_some(stats)
        },
        || "it is never throttled",
    );
    assert!(stats.cpu_usage_us.unwrap() > 10_000 && stats.throttled_us.unwrap() > 0, "{stats:?}");
    assert!((10_000..64 << 20).contains(&stats.memory_bytes.unwrap()), "{stats:?}");
    assert!(stats.memory_peak >= stats.memory_bytes, "{stats:?}");
    assert_eq!((stats.pids, stats.fds.is_some()), (Some(1), true), "the init does not count");
    let unknown = isolate::stats(&kit.data_dir, model::StarId(999)).unwrap_err();
    assert_eq!(unknown.kind(), std::io::ErrorKind::NotFound);
    Verdict::Held
}
