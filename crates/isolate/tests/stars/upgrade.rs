//! Nurseries that become another program while their stars run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use isolate::{Launch, Message, Request, StarReport};
use model::{ExitCause, StarId};

use crate::kit::{Kit, runs, until};
use crate::life::{group_name, groups};
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_hundred_stars_do_not_notice_an_upgrade", hundred),
    ("what_is_on_its_way_goes_on_through_an_upgrade", on_its_way),
    ("limits_doors_and_ends_work_after_an_upgrade", as_before),
    ("an_upgraded_nursery_is_the_only_one_and_leaves_nothing", alone),
    ("a_program_that_cannot_take_over_changes_nothing", refused),
    ("a_program_that_fails_as_it_takes_over_loses_no_star", lost),
];

/// Programs that are asked to take over, and how they fail.
pub(crate) fn successor(words: &[&str]) -> ExitCode {
    let (last, question) = (words.last().copied(), Some("--can-take-over"));
    match words[0] {
        "silent" => ExitCode::SUCCESS,
        "wordy" => {
            println!("I would rather not\nreally");
            ExitCode::FAILURE
        }
        "endless" => loop {
            if std::io::stdout().write_all(b"takes over 0123456789abcdef and on and on").is_err() {
                return ExitCode::FAILURE;
            }
        },
        "stuck" => loop {
            std::thread::park();
        },
        "vanishing" => {
            let mode = fs::Permissions::from_mode(0o600);
            exit(isolate::can_take_over() && fs::set_permissions("/proc/self/exe", mode).is_ok())
        }
        "dying" if last == question => exit(isolate::can_take_over()),
        "dying" => ExitCode::FAILURE,
        other => panic!("no successor {other}"),
    }
}

pub(crate) fn exit(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Another program, as far as the kernel is concerned.
pub(crate) fn another(kit: &Kit, name: &str) -> PathBuf {
    let path = kit.data_dir.parent().unwrap().join(name);
    fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    path
}

pub(crate) fn upgrade(kit: &Kit, program: &std::path::Path) -> (u32, Duration) {
    kit.upgrade(program, &["nursery", kit.data_dir.to_str().unwrap()]).unwrap()
}

/// Who runs, by process.
fn running(stars: Vec<StarReport>) -> BTreeMap<StarId, (u32, u64)> {
    let running = stars.into_iter().filter(|report| report.ended.is_none());
    running.map(|report| (report.star, (report.pid, report.start_time))).collect()
}

fn hundred(kit: &Kit) -> Verdict {
    let programs = [another(kit, "one"), another(kit, "two")];
    // They end all along, each with a code of its own, while one upgrade follows upon another.
    let orders: Vec<_> = (0..100_u64)
        .map(|number| match number % 3 {
            0 => kit.command(&[
                "sh",
                "-c",
                &format!(
                    "i=0; while [ $i -lt 20 ]; do seq -f 'number %g' $((i*50)) $((i*50+49)); i=$((i+1)); \
                     sleep 0.{:03}; done; exit {number}",
                    40 + number
                ),
            ]),
            _ => kit.script(&["count then exit", "1000", &(1 + number % 4).to_string(), &number.to_string()]),
        })
        .collect();
    let begun = Instant::now();
    let before: BTreeMap<_, _> = orders.iter().map(|order| (order.star, kit.start(order))).collect();
    // An emulated machine takes fifty times as long for everything.
    let emulated = begun.elapsed() > Duration::from_secs(5);
    let nursery = *kit.nursery.borrow();
    let mut pauses = Vec::new();
    let mut ended = BTreeMap::new();
    while ended.len() < orders.len() {
        let program = &programs[pauses.len() % 2];
        pauses.push(upgrade(kit, program).1);
        // By the file, for a nursery without privileges runs it from a mount of its own.
        let file = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).unwrap();
        assert_eq!(file(Path::new(&format!("/proc/{nursery}/exe"))), file(program));
        for (star, process) in running(kit.look()) {
            assert_eq!(process, before[&star], "the same process");
        }
        while let Some(Message::Exited { star, cause }) = kit.heard(|message| matches!(message, Message::Exited { .. }))
        {
            ended.insert(star, cause);
        }
    }
    for (number, order) in orders.iter().enumerate() {
        assert_eq!(ended[&order.star], ExitCause::Code(number as i32));
        let log = kit.log(order.star);
        assert_eq!(log.lines().count(), 1000, "star {number}");
        for (expected, line) in log.lines().enumerate() {
            assert_eq!(line, format!("number {expected}"), "star {number}");
        }
    }
    pauses.sort();
    println!("     {} upgrades: {:?} at best, {:?} at worst", pauses.len(), pauses[0], pauses[pauses.len() - 1]);
    assert!(pauses.len() > 3 && (emulated || pauses[0] < Duration::from_millis(50)), "{pauses:?}");
    Verdict::Held
}

fn on_its_way(kit: &Kit) -> Verdict {
    let program = another(kit, "one");
    // A line half written, a command half done, a start that takes its time, a star that stands still.
    let script = "mkfifo /tmp/go /tmp/end; echo ready; printf 'half a '; read x < /tmp/go; echo line; sleep 1000";
    let writer = kit.command(&["sh", "-c", script]);
    kit.start(&writer);
    kit.said(writer.star, "ready");
    let frozen = kit.command(&["sh", "-c", "while :; do echo tick; sleep 0.01; done"]);
    kit.start(&frozen);
    kit.said(frozen.star, "tick");
    freeze(kit, frozen.star, true);
    let mut slow = kit.command(&["echo", "begun"]);
    slow.before = ["sh", "-c", "echo before; sleep 0.7"].map(str::to_owned).to_vec();
    kit.send(&Request::Start(Box::new(slow.clone())), &[]);
    kit.said(slow.star, "before");
    let (reader, said) = rustix::pipe::pipe().unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let argv = ["sh", "-c", "echo here; read x < /tmp/end; exit 23"].map(str::to_owned).to_vec();
    let exec = Request::Exec { star: writer.star, token: 77, launch: Launch::Command { argv }, env: BTreeMap::new() };
    kit.send(&exec, &[null.as_fd(), said.as_fd(), said.as_fd()]);
    drop(said);
    let mut said = fs::File::from(reader);
    said.read_exact(&mut [0; 5]).unwrap();

    upgrade(kit, &program);

    let (message, _) = kit.expect(|message| matches!(message, Message::Started { star, .. } if *star == slow.star));
    assert!(matches!(message, Message::Started { elapsed_us, .. } if elapsed_us > 600_000), "{message:?}");
    assert_eq!(kit.end(slow.star), ExitCause::Code(0));
    assert_eq!(kit.exec(writer.star, &["sh", "-c", "echo > /tmp/end; echo > /tmp/go"]).0, Ok(0));
    let (message, _) = kit.expect(|message| matches!(message, Message::ExecEnded { token: 77, .. }));
    assert_eq!(message, Message::ExecEnded { token: 77, result: Ok(23) }, "told to whoever asked before");
    assert_eq!(kit.said(writer.star, "half a "), "line");
    let before = kit.lines(frozen.star).len();
    freeze(kit, frozen.star, false);
    until(|| (kit.lines(frozen.star).len() > before).then_some(()), || "it does not go on");
    Verdict::Held
}

fn freeze(kit: &Kit, star: StarId, frozen: bool) {
    kit.send(&Request::Freeze { star, frozen }, &[]);
    let (answer, _) = kit.expect(|message| matches!(message, Message::Frozen { .. }));
    assert_eq!(answer, Message::Frozen { star, problem: None });
}

fn as_before(kit: &Kit) -> Verdict {
    let program = another(kit, "one");
    let listens = kit.script(&["listen", "99"]);
    let native = kit.command(&["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"]);
    let idle = kit.script(&["idle"]);
    let mut slow = kit.command(&["yes"]);
    slow.limits.log_rate = Some(model::Bytes::kib(10));
    kit.start(&slow);
    for order in [&listens, &native, &idle] {
        kit.start(order);
    }
    kit.said(native.star, "ready");
    assert_eq!(upgrade(kit, &program).0, 4);
    let begun = Instant::now();
    let before = kit.log(slow.star).len();
    until(|| (begun.elapsed() > Duration::from_secs(1)).then_some(()), || "");
    let rate = (kit.log(slow.star).len() - before) as f64 / begun.elapsed().as_secs_f64();
    assert!(rate > 1000.0 && rate < 30_000.0, "{rate} bytes a second of 10 KiB");
    kit.send(&Request::Kill { star: slow.star }, &[]);
    kit.end(slow.star);
    kit.send(&Request::Door { star: listens.star, token: 1, count: 1 }, &[]);
    let (message, fds) = kit.expect(|message| matches!(message, Message::Doors { .. }));
    assert!(matches!(message, Message::Doors { problem: None, .. }) && fds.len() == 1, "{message:?}");
    let limits = model::Limits { memory: Some(model::Bytes::mib(64)), ..model::Limits::UNLIMITED };
    kit.send(&Request::Limit { star: idle.star, limits: Box::new(limits) }, &[]);
    let (message, _) = kit.expect(|message| matches!(message, Message::Limited { .. }));
    assert_eq!(message, Message::Limited { star: idle.star, problem: None });
    kit.send(&Request::Signal { star: native.star, signal: 15 }, &[]);
    assert_eq!(kit.end(native.star), ExitCause::Code(9));
    // A script keeps no note: its code is had by being its parent.
    let (pid, _) = kit.start(&kit.script(&["idle"]));
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::SEGV)
        .unwrap();
    for order in [&listens, &idle] {
        kit.send(&Request::Kill { star: order.star }, &[]);
        assert_eq!(kit.end(order.star), ExitCause::Signal(9));
    }
    for order in [kit.script(&["exit", "4"]), kit.command(&["sh", "-c", "exit 4"])] {
        assert_eq!(kit.run(&order).0, ExitCause::Code(4));
    }
    Verdict::Held
}

fn alone(kit: &Kit) -> Verdict {
    let program = another(kit, "one");
    let name = group_name(kit);
    let order = kit.command(&["sleep", "1000"]);
    let (pid, _) = kit.start(&order);
    for _ in 0..3 {
        upgrade(kit, &program);
    }
    let output = Command::new(&program).arg("nursery").arg(&kit.data_dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&format!("(pid {})", kit.nursery.borrow())), "{said}");
    let nursery = *kit.nursery.borrow();
    let root = kit.data_dir.join("root");
    let stages = || {
        // While it makes a protostar it is in another namespace for a moment.
        let mounts = fs::read_to_string(format!("/proc/{nursery}/mountinfo")).unwrap();
        mounts.lines().filter(|line| line.split(' ').nth(4) == root.to_str()).count()
    };
    until(|| (stages() == 1).then_some(()), || format!("{} stages", stages()));
    kit.shut_down();
    assert!(!runs(pid));
    for name in ["nursery.sock", "nursery.pid"] {
        assert!(!kit.data_dir.join(name).exists(), "{name}");
    }
    assert_eq!(name.map_or(0, |name| groups(std::path::Path::new("/sys/fs/cgroup"), &name)), 0);
    Verdict::Held
}

fn refused(kit: &Kit) -> Verdict {
    let program = another(kit, "one");
    let order = kit.script(&["count"]);
    let process = kit.start(&order);
    let text = kit.data_dir.parent().unwrap().join("text");
    fs::write(&text, "no program\n").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    let plain = kit.data_dir.parent().unwrap().join("plain");
    fs::write(&plain, "\x7fELF").unwrap();
    let check = |program: &std::path::Path, args: &[&str], expected: &str| {
        let reason = kit.upgrade(program, args).unwrap_err();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(running(kit.look())[&order.star], process);
        assert_eq!(kit.run(&kit.script(&["say", "hello"])).1, "hello\n");
    };
    check(&plain, &[], "cannot be run: permission denied");
    check(&text, &[], "cannot");
    check(std::path::Path::new("/bin/true"), &[], "does not answer as a nursery does");
    check(std::path::Path::new("/bin/echo"), &["takes over 0000000000000000"], "cannot take over: takes over 0000");
    check(&program, &["successor", "silent"], "does not answer as a nursery does");
    check(&program, &["successor", "wordy"], r"cannot take over: I would rather not\nreally");
    check(&program, &["successor", "endless"], "cannot take over: takes over");
    check(&program, &["successor", "stuck"], "did not answer within 5 s");
    check(&program, &["successor", "vanishing"], "cannot be executed: permission denied");
    check(&program, &["nul\0"], "");
    // One at a time, and without the program there is nothing to do.
    kit.send(&Request::Upgrade { args: Vec::new() }, &[]);
    let (message, _) = kit.expect(|message| matches!(message, Message::Refused { .. }));
    assert!(matches!(message, Message::Refused { reason, .. } if reason.contains("descriptor is needed")));
    assert_numbers(&kit.log(order.star));
    let program = another(kit, "two");
    upgrade(kit, &program);
    assert_eq!(running(kit.look())[&order.star], process);
    Verdict::Held
}

fn lost(kit: &Kit) -> Verdict {
    let program = another(kit, "one");
    let orders = [kit.script(&["count"]), kit.command(&["sh", "-c", "sleep 3; exit 3"])];
    let before: BTreeMap<_, _> = orders.iter().map(|order| (order.star, kit.start(order))).collect();
    let file = fs::File::open(&program).unwrap();
    let args = ["successor", "dying"].map(str::to_owned).to_vec();
    kit.send(&Request::Upgrade { args }, &[file.as_fd()]);
    kit.gone();
    let (stars, _) = kit.open();
    assert_eq!(running(stars), before);
    assert_eq!(kit.end(orders[1].star), ExitCause::Code(3));
    assert_numbers(&kit.log(orders[0].star));
    Verdict::Held
}

fn assert_numbers(log: &str) {
    for (expected, line) in log.lines().enumerate() {
        assert_eq!(line, format!("number {expected}"));
    }
}
