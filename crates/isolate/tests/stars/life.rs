//! How stars begin, end, and outlive those who look after them.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use isolate::{Message, Request};
use model::{ExitCause, StarId};

use crate::kit::{Kit, runs, until};
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("endings_are_told_apart", endings),
    ("signals_reach_the_program", signals),
    ("a_stopped_program_goes_on_where_it_was", stopped),
    ("a_frozen_star_stands_still_until_it_is_thawed", freezing),
    ("a_frozen_star_can_be_killed", killed_frozen),
    ("the_next_nursery_thaws_what_the_last_one_froze", thawed_by_the_next),
    ("a_star_is_held_still_as_long_as_a_connection_lasts", holding),
    ("a_star_that_always_forks_can_be_held", holding_forks),
    ("kill_ends_everything_at_once", kill),
    ("orphans_are_reaped_behind_a_native_program", orphans),
    ("orphans_of_commands_are_reaped_in_a_scripts_star", orphans_of_commands),
    ("logs_are_taken_while_no_agent_is_there", unattended),
    ("a_star_outlives_its_agent", agent_lost),
    ("a_star_outlives_its_nursery_and_is_adopted", adoption),
    ("an_end_nobody_saw_is_found_again", unseen),
    ("a_star_whose_record_is_damaged_is_ended", unreadable),
    ("a_second_nursery_on_one_folder_is_refused", second),
    ("orders_that_make_no_sense_are_refused", refusals),
    ("a_log_flood_is_bounded_and_starves_nobody", flood),
    ("output_and_errors_are_kept_apart", sources),
    ("what_comes_before_the_program_must_succeed", before),
    ("a_command_inside_can_be_ended", end_exec),
    ("a_command_runs_inside_the_walls", exec),
    ("shutdown_leaves_nothing", shutdown),
    ("groups_made_elsewhere_are_removed_too", elsewhere),
];

fn endings(kit: &Kit) -> Verdict {
    let check = |order, expected| assert_eq!(kit.run(&order).0, expected);
    check(kit.script(&["exit", "0"]), ExitCause::Code(0));
    check(kit.script(&["exit", "42"]), ExitCause::Code(42));
    check(kit.script(&["panic"]), ExitCause::Code(101));
    check(kit.command(&["true"]), ExitCause::Code(0));
    check(kit.command(&["sh", "-c", "exit 200"]), ExitCause::Code(200));
    for (name, number) in [("TERM", 15), ("SEGV", 11), ("ABRT", 6), ("KILL", 9), ("INT", 2)] {
        check(kit.command(&["sh", "-c", &format!("kill -{name} $$")]), ExitCause::Signal(number));
    }
    Verdict::Held
}

fn signals(kit: &Kit) -> Verdict {
    let send = |star: StarId, signal: i32| kit.send(&Request::Signal { star, signal }, &[]);
    // A handler in a native program.
    let order = kit.command(&["sh", "-c", "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.01; done"]);
    kit.start(&order);
    kit.said(order.star, "ready");
    send(order.star, 15);
    assert_eq!(kit.end(order.star), ExitCause::Code(3));
    assert!(kit.log(order.star).contains("caught"));
    // No handler: the signal's default, though both are the first process of a namespace.
    for order in [kit.command(&["sleep", "1000"]), kit.script(&["idle"])] {
        kit.start(&order);
        for signal in [rustix::process::Signal::URG, rustix::process::Signal::TERM] {
            send(order.star, signal.as_raw());
        }
        assert_eq!(kit.end(order.star), ExitCause::Signal(15));
    }
    Verdict::Held
}

fn stopped(kit: &Kit) -> Verdict {
    use rustix::process::Signal;
    let state = |pid: u32| {
        fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().rsplit_once(") ").unwrap().1[..1].to_owned()
    };
    for order in [kit.command(&["sleep", "1000"]), kit.script(&["idle"])] {
        let (pid, _) = kit.start(&order);
        let program =
            until(|| descendants(pid).first().copied().or((order.args.len() == 1).then_some(pid)), || "no program");
        for (signal, stopped) in [(Signal::STOP, true), (Signal::CONT, false)] {
            kit.send(&Request::Signal { star: order.star, signal: signal.as_raw() }, &[]);
            until(|| ((state(program) == "T") == stopped).then_some(()), || state(program));
        }
    }
    Verdict::Held
}

const TICKING: &str = "(while :; do echo child; sleep 0.01; done) & while :; do echo parent; sleep 0.01; done";

fn freeze(kit: &Kit, star: StarId, frozen: bool) {
    kit.send(&Request::Freeze { star, frozen }, &[]);
    let (answer, _) = kit.expect(|message| matches!(message, Message::Frozen { .. }));
    assert_eq!(answer, Message::Frozen { star, problem: None });
}

/// Waits until a star has written so many more lines of a kind.
fn ticks(kit: &Kit, star: StarId, kind: &str, more: usize) {
    let count = || kit.log(star).matches(kind).count();
    let before = count();
    until(|| (count() >= before + more).then_some(()), || format!("`{kind}` is silent"));
}

fn freezing(kit: &Kit) -> Verdict {
    let orders = [kit.command(&["sh", "-c", TICKING]), kit.command(&["sh", "-c", TICKING])];
    let [still, control] = orders.each_ref().map(|order| {
        kit.start(order);
        ticks(kit, order.star, "child", 1);
        order.star
    });
    for _ in 0..2 {
        freeze(kit, still, true);
        // Twice is once.
        freeze(kit, still, true);
        // What it wrote before is read by then.
        ticks(kit, control, "child", 5);
        let before = kit.log(still);
        ticks(kit, control, "child", 20);
        ticks(kit, control, "parent", 20);
        assert_eq!(kit.log(still), before);
        freeze(kit, still, false);
        ticks(kit, still, "child", 5);
        ticks(kit, still, "parent", 5);
    }
    kit.send(&Request::Freeze { star: StarId(99), frozen: true }, &[]);
    let (answer, _) = kit.expect(|message| matches!(message, Message::Frozen { .. }));
    assert!(matches!(answer, Message::Frozen { problem: Some(why), .. } if why.contains("does not run")));
    Verdict::Held
}

fn killed_frozen(kit: &Kit) -> Verdict {
    for order in [kit.command(&["sh", "-c", TICKING]), kit.script(&["idle"])] {
        kit.start(&order);
        freeze(kit, order.star, true);
        kit.send(&Request::Kill { star: order.star }, &[]);
        assert_eq!(kit.end(order.star), ExitCause::Signal(9));
    }
    Verdict::Held
}

fn thawed_by_the_next(kit: &Kit) -> Verdict {
    let name = group_name(kit);
    let order = kit.command(&["sh", "-c", TICKING]);
    kit.start(&order);
    ticks(kit, order.star, "child", 1);
    freeze(kit, order.star, true);
    kit.kill_nursery();
    kit.open();
    freeze(kit, order.star, false);
    ticks(kit, order.star, "child", 5);
    kit.send(&Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    kit.shut_down();
    assert_eq!(name.map_or(0, |name| groups(Path::new("/sys/fs/cgroup"), &name)), 0);
    Verdict::Held
}

fn holding(kit: &Kit) -> Verdict {
    let orders = [kit.command(&["sh", "-c", TICKING]), kit.command(&["sh", "-c", TICKING])];
    let [still, control] = orders.each_ref().map(|order| {
        kit.start(order);
        ticks(kit, order.star, "child", 1);
        order.star
    });
    let stands = || {
        ticks(kit, control, "child", 5);
        let before = kit.log(still);
        ticks(kit, control, "parent", 20);
        assert_eq!(kit.log(still), before);
    };
    let one = kit.hold(still);
    stands();
    let other = kit.hold(still);
    drop(one);
    stands();
    // Who pauses it or resumes it meanwhile does not move it.
    freeze(kit, still, true);
    freeze(kit, still, false);
    stands();
    crate::upgrade::upgrade(kit, &crate::upgrade::another(kit, "one"));
    stands();
    drop(other);
    ticks(kit, still, "child", 5);
    ticks(kit, still, "parent", 5);
    // A pause outlasts a hold.
    let one = kit.hold(still);
    freeze(kit, still, true);
    drop(one);
    stands();
    freeze(kit, still, false);
    ticks(kit, still, "child", 5);
    Verdict::Held
}

/// Version 1's freezer forgets a process that is about to wait for the child it has by vfork; see `Groups::is_frozen`.
fn holding_forks(kit: &Kit) -> Verdict {
    let orders: Vec<_> = (0..10).map(|_| kit.command(&["sh", "-c", "while :; do date > /tmp/now; done"])).collect();
    for order in &orders {
        kit.start(order);
    }
    for _ in 0..30 {
        let held: Vec<_> = orders.iter().map(|order| kit.hold(order.star)).collect();
        drop(held);
    }
    Verdict::Held
}

fn kill(kit: &Kit) -> Verdict {
    let order = kit.command(&["sh", "-c", "trap '' TERM INT; for i in 1 2 3; do sleep 1000 & done; echo ready; wait"]);
    let (pid, _) = kit.start(&order);
    kit.said(order.star, "ready");
    let family = until(|| Some(descendants(pid)).filter(|pids| pids.len() == 4), || "its processes are not there");
    kit.send(&Request::Kill { star: order.star }, &[]);
    assert_eq!(kit.end(order.star), ExitCause::Signal(9));
    assert!(family.iter().all(|&pid| !runs(pid)) && !runs(pid));
    Verdict::Held
}

pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    children.iter().flat_map(|&child| [vec![child], descendants(child)].concat()).collect()
}

fn orphans(kit: &Kit) -> Verdict {
    let script = "for i in 1 2 3 4 5; do (sleep 0.01 & ) ; done; echo ready; exec sleep 1000";
    let order = kit.command(&["sh", "-c", script]);
    let (pid, _) = kit.start(&order);
    kit.said(order.star, "ready");
    until(|| (descendants(pid).len() == 1).then_some(()), || format!("zombies: {:?}", descendants(pid)));
    Verdict::Held
}

fn orphans_of_commands(kit: &Kit) -> Verdict {
    for order in [kit.script(&["idle"]), kit.command(&["sleep", "1000"])] {
        let (pid, _) = kit.start(&order);
        let before = descendants(pid).len();
        for _ in 0..20 {
            assert_eq!(kit.exec(order.star, &["sh", "-c", "(sleep 0.01; exit 3) >&- 2>&- & exit 0"]).0, Ok(0));
        }
        until(|| (descendants(pid).len() == before).then_some(()), || format!("left: {:?}", descendants(pid)));
        // How the star itself ends is told all the same.
        kit.send(&Request::Signal { star: order.star, signal: 15 }, &[]);
        assert_eq!(kit.end(order.star), ExitCause::Signal(15));
    }
    Verdict::Held
}

fn unattended(kit: &Kit) -> Verdict {
    // Many times what its pipe holds: it gets on only if somebody reads.
    let order = kit.command(&["sh", "-c", "seq 400000; echo done; sleep 1000"]);
    kit.start(&order);
    kit.disconnect();
    kit.said(order.star, "done");
    let numbers: Vec<u32> = kit.lines(order.star).iter().filter_map(|line| line.text.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "without a gap");
    assert_eq!(numbers.last(), Some(&400_000));
    kit.reconnect();
    Verdict::Held
}

fn agent_lost(kit: &Kit) -> Verdict {
    let order = kit.script(&["count"]);
    let (pid, start_time) = kit.start(&order);
    let ends = kit.script(&["exit", "5"]);
    kit.start(&ends);
    kit.said(order.star, "number 5");
    let (stars, _) = kit.reconnect();
    let known = |star: StarId| stars.iter().find(|report| report.star == star).unwrap().clone();
    let report = known(order.star);
    assert_eq!((report.pid, report.start_time, report.generation, report.ended), (pid, start_time, 7, None));
    // It had ended before or tells now.
    assert_eq!(known(ends.star).ended.unwrap_or_else(|| kit.end(ends.star)), ExitCause::Code(5));
    kit.send(&Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    assert_numbers_without_gap(&kit.log(order.star));
    Verdict::Held
}

fn assert_numbers_without_gap(log: &str) {
    for (expected, line) in log.lines().enumerate() {
        assert_eq!(line, format!("number {expected}"));
    }
}

fn adoption(kit: &Kit) -> Verdict {
    let script = kit.script(&["count"]);
    let native = kit.command(&["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"]);
    let listens = kit.script(&["listen", "99"]);
    let before: Vec<_> = [&script, &native, &listens].iter().map(|order| kit.start(order)).collect();
    kit.said(native.star, "ready");
    kit.said(script.star, "number 3");
    kit.kill_nursery();
    let (stars, _) = kit.open();
    let after: Vec<_> = stars.iter().map(|report| (report.pid, report.start_time)).collect();
    assert_eq!(before, after, "same processes");
    let seen = kit.lines(script.star).len();
    kit.said(script.star, &format!("number {}", seen + 50));
    // The new nursery has the whole of them: doors, signals, limits, ends.
    kit.send(&Request::Door { star: listens.star, token: 1, count: 1 }, &[]);
    let (message, fds) = kit.expect(|message| matches!(message, Message::Doors { .. }));
    assert!(matches!(message, Message::Doors { problem: None, .. }) && fds.len() == 1, "{message:?}");
    kit.send(&Request::Signal { star: native.star, signal: 15 }, &[]);
    assert_eq!(kit.end(native.star), ExitCause::Code(9), "its init noted it");
    kit.send(&Request::Signal { star: listens.star, signal: 15 }, &[]);
    assert_eq!(kit.end(listens.star), ExitCause::Signal(15), "as it was told");
    kit.send(&Request::Kill { star: script.star }, &[]);
    assert_eq!(kit.end(script.star), ExitCause::Signal(9), "as it was told");
    assert_numbers_without_gap(&kit.log(script.star));
    Verdict::Held
}

fn unseen(kit: &Kit) -> Verdict {
    let noted = kit.command(&["sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done"]);
    let unknown = kit.script(&["idle"]);
    let (noted_pid, _) = kit.start(&noted);
    let (unknown_pid, _) = kit.start(&unknown);
    kit.said(noted.star, "ready");
    kit.kill_nursery();
    for (pid, signal) in [(noted_pid, rustix::process::Signal::TERM), (unknown_pid, rustix::process::Signal::KILL)] {
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
        until(|| (!runs(pid)).then_some(()), || "it does not end");
    }
    let (stars, _) = kit.open();
    let causes: Vec<_> = stars.into_iter().map(|report| report.ended).collect();
    assert_eq!(causes, [Some(ExitCause::Code(4)), Some(ExitCause::Unknown)]);
    Verdict::Held
}

/// A star whose record was damaged is not left to run where nobody knows it.
fn unreadable(kit: &Kit) -> Verdict {
    let Some(name) = group_name(kit) else {
        return Verdict::Skipped("without groups of their own stars cannot be found but by their records".to_owned());
    };
    let (damaged, whole) = (kit.script(&["idle"]), kit.script(&["idle"]));
    let (pid, _) = kit.start(&damaged);
    let (other, _) = kit.start(&whole);
    kit.kill_nursery();
    let record = isolate::place::star(&kit.data_dir, damaged.star).join("record");
    let bytes = fs::read(&record).unwrap();
    fs::write(&record, &bytes[..bytes.len() - 3]).unwrap();
    let (stars, _) = kit.open();
    assert_eq!(stars.iter().map(|report| report.pid).collect::<Vec<_>>(), [other]);
    until(|| (!runs(pid)).then_some(()), || "the star nobody knows runs on");
    kit.shut_down();
    assert_eq!(groups(Path::new("/sys/fs/cgroup"), &name), 0);
    Verdict::Held
}

fn second(kit: &Kit) -> Verdict {
    let exe = std::env::current_exe().unwrap();
    let output = Command::new(exe).arg("nursery").arg(&kit.data_dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(&format!("(pid {})", kit.nursery.borrow())), "{said}");
    assert_eq!(kit.run(&kit.script(&["exit", "0"])).0, ExitCause::Code(0), "the first is undisturbed");
    Verdict::Held
}

fn refusals(kit: &Kit) -> Verdict {
    let refused = |request: Request, expected: &str| {
        kit.send(&request, &[]);
        let (message, _) = kit.expect(|message| matches!(message, Message::Refused { .. }));
        let Message::Refused { reason, .. } = message else { unreachable!() };
        assert!(reason.contains(expected), "{reason}");
    };
    let order = kit.script(&["idle"]);
    kit.start(&order);
    refused(Request::Start(Box::new(order.clone())), "known already");
    refused(Request::Forget { star: order.star }, "still runs");
    refused(Request::Kill { star: StarId(77) }, "no such star");
    refused(Request::Signal { star: order.star, signal: 0 }, "cannot be sent");
    refused(Request::Signal { star: order.star, signal: 65 }, "cannot be sent");
    refused(Request::Hello { version: 99 }, "speaks version 1, not 99");
    let folder = isolate::place::star(&kit.data_dir, order.star);
    kit.send(&Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    kit.send(&Request::Forget { star: order.star }, &[]);
    refused(Request::Forget { star: order.star }, "no such star");
    assert!(!folder.exists());
    Verdict::Held
}

fn flood(kit: &Kit) -> Verdict {
    let flood = kit.script(&["flood", "1500"]);
    kit.start(&flood);
    // A neighbour's life goes on meanwhile.
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(kit.run(&kit.script(&["say", "hello"])), (ExitCause::Code(0), "hello\n".to_owned()));
    }
    let neighbour = begun.elapsed().as_millis();
    assert!(neighbour < 1500, "five starts took {neighbour} ms");
    kit.end(flood.star);
    let folder = isolate::place::star(&kit.data_dir, flood.star);
    let kept: u64 =
        isolate::log::files(&folder).iter().map(|file| fs::metadata(file).map_or(0, |data| data.len())).sum();
    assert!(kept <= 2 * isolate::log::FILE_MAX, "{kept}");
    let said = kit.lines(flood.star).last().unwrap().text.clone();
    let written: u64 = said.strip_prefix("flooded ").unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    // At most 10 MiB/s for 1.5 s and what waits in the pipe: the star waits, not the nursery. At least many pipes full, or
    // it was no flood; an emulated machine manages not much more.
    assert!((1 << 20..32 << 20).contains(&written), "{written}");
    Verdict::Held
}

fn sources(kit: &Kit) -> Verdict {
    let order = kit.command(&["sh", "-c", "echo out; echo err >&2; printf unfinished"]);
    kit.run(&order);
    let mut lines: Vec<_> = kit.lines(order.star).into_iter().map(|line| (line.text, line.source)).collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    use isolate::log::LogSource::{Err, Out};
    assert_eq!(lines, [("err".into(), Err), ("out".into(), Out), ("unfinished".into(), Out)]);
    Verdict::Held
}

fn before(kit: &Kit) -> Verdict {
    let words = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
    for mut order in [kit.command(&["echo", "program"]), kit.script(&["exit", "0"])] {
        // Behind the same walls, in the same folder, with the same variables.
        order.before = words("echo before $GREETING in $(pwd); sleep 0.05 & exit 0");
        let (cause, log) = kit.run(&order);
        assert_eq!(cause, ExitCause::Code(0));
        assert!(log.starts_with("before hello in /app\n"), "{log}");
    }
    for mut order in [kit.command(&["echo", "program"]), kit.script(&["exit", "0"])] {
        order.before = words("echo no database; exit 3");
        let reason = kit.start_fails(&order);
        assert!(reason.contains("echo no database; exit 3`") && reason.ends_with("exit code 3"), "{reason}");
        assert_eq!(kit.log(order.star), "no database\n", "what it said is kept, and the program did not run");
    }
    let mut order = kit.command(&["echo", "program"]);
    order.before = vec!["no-such-program".to_owned()];
    assert!(kit.start_fails(&order).contains("cannot run `no-such-program`"));
    // One that hangs is ended with the star.
    let mut order = kit.command(&["echo", "program"]);
    order.before = words("echo begun; sleep 1000");
    kit.send(&Request::Start(Box::new(order.clone())), &[]);
    kit.said(order.star, "begun");
    kit.send(&Request::Kill { star: order.star }, &[]);
    let (message, _) = kit.expect(|message| matches!(message, Message::StartFailed { .. } | Message::Exited { .. }));
    assert!(!kit.log(order.star).contains("program"), "{message:?}");
    Verdict::Held
}

fn end_exec(kit: &Kit) -> Verdict {
    let order = kit.command(&["sleep", "1000"]);
    let (pid, _) = kit.start(&order);
    let null = fs::File::open("/dev/null").unwrap();
    let launch = isolate::Launch::Command { argv: ["sh", "-c", "sleep 999 & sleep 998"].map(str::to_owned).to_vec() };
    kit.send(&Request::Exec { star: order.star, token: 5, launch, env: Default::default() }, &[null.as_fd(); 3]);
    let sleeping = |what: &str| {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.trim_end_matches('\0') == format!("sleep\0{what}")).count()
    };
    let both = || (sleeping("999"), sleeping("998"));
    until(|| (both() == (1, 1)).then_some(()), || format!("{:?}", both()));
    // Only whoever asked for it can end it, by its own token.
    kit.send(&Request::EndExec { token: 6 }, &[]);
    kit.send(&Request::EndExec { token: 5 }, &[]);
    let (message, _) = kit.expect(|message| matches!(message, Message::ExecEnded { .. }));
    assert_eq!(message, Message::ExecEnded { token: 5, result: Ok(137) });
    until(|| (both() == (0, 0)).then_some(()), || format!("{:?}", both()));
    kit.send(&Request::EndExec { token: 5 }, &[]);
    assert!(runs(pid));
    Verdict::Held
}

fn exec(kit: &Kit) -> Verdict {
    let order = kit.script(&["idle"]);
    kit.start(&order);
    let run = |argv: &[&str]| kit.exec(order.star, argv);
    let (result, said) = run(&[
        "sh",
        "-c",
        "hostname; echo $WORD $$; pwd; grep -E 'CapEff|CapBnd|NoNew|Seccomp:' /proc/self/status; cat /proc/1/comm; exit 6",
    ]);
    assert_eq!(result, Ok(6), "{said}");
    assert!(said.starts_with("star-one\ngiven 2\n/app\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"), "{said}");
    assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).0, Ok(143));
    assert_eq!(run(&["sh", "-c", "touch /app/x || unshare -r true"]).0, Ok(1));
    assert_eq!(run(&["nope"]), (Ok(127), "cannot run `nope`: no such file or directory\n".to_owned()));
    assert_eq!(run(&["/app/hello.txt"]), (Ok(126), "cannot run `/app/hello.txt`: permission denied\n".to_owned()));
    kit.send(&Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    assert_eq!(run(&["true"]).0, Err("the star does not run".to_owned()));
    Verdict::Held
}

/// The name of this nursery's groups, found by way of a star. Other nurseries of the machine are not our concern.
pub(crate) fn group_name(kit: &Kit) -> Option<String> {
    let order = kit.script(&["idle"]);
    let (pid, _) = kit.start(&order);
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    kit.send(&Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    kit.send(&Request::Forget { star: order.star }, &[]);
    let name = text.split(['/', '\n']).find(|part| part.starts_with("rads-"))?;
    Some(name.to_owned())
}

/// Groups anywhere below a folder that are `name` or in it.
pub(crate) fn groups(folder: &Path, name: &str) -> usize {
    let below = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    below.map(|entry| usize::from(entry.path().to_string_lossy().contains(name)) + groups(&entry.path(), name)).sum()
}

/// A nursery that follows another may be started from another group, as from another session.
fn elsewhere(kit: &Kit) -> Verdict {
    if kit.walls.rootless {
        return Verdict::Skipped("an ordinary user cannot move to another group".to_owned());
    }
    let groups_of_us = fs::read_to_string("/proc/self/cgroup").unwrap();
    let Some(own) = groups_of_us.lines().find_map(|line| line.split_once(":pids:")) else {
        // Version 2 puts root's stars at the top, wherever the nursery is.
        return Verdict::Held;
    };
    let own = Path::new("/sys/fs/cgroup/pids").join(own.1.trim_start_matches('/'));
    let other = own.join(format!("isolate-test-{}", std::process::id()));
    let name = group_name(kit).unwrap();
    let order = kit.script(&["idle"]);
    kit.start(&order);
    kit.kill_nursery();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cgroup.procs"), "0").unwrap();
    let (stars, _) = kit.open();
    fs::write(own.join("cgroup.procs"), "0").unwrap();
    assert_eq!((stars.len(), &stars[0].ended), (1, &None));
    assert!(own.join(&name).is_dir() && other.join(&name).is_dir(), "the parents of the first and of the second");
    kit.shut_down();
    assert!(!own.join(&name).exists() && !other.join(&name).exists());
    fs::remove_dir(&other).unwrap();
    Verdict::Held
}

fn shutdown(kit: &Kit) -> Verdict {
    let name = group_name(kit);
    let orders = [kit.script(&["idle"]), kit.command(&["sleep", "1000"])];
    let pids: Vec<u32> = orders.iter().map(|order| kit.start(order).0).collect();
    kit.shut_down();
    assert!(pids.iter().all(|&pid| !runs(pid)));
    for name in ["nursery.sock", "nursery.pid"] {
        assert!(!kit.data_dir.join(name).exists(), "{name}");
    }
    // Processes are limited without a group too.
    let limited = [&kit.walls.cpu, &kit.walls.memory].into_iter().any(isolate::Enforced::is_yes);
    assert!(name.is_some() || !limited);
    assert_eq!(name.map_or(0, |name| groups(Path::new("/sys/fs/cgroup"), &name)), 0);
    // The next nursery knows how they ended.
    let (stars, _) = kit.open();
    assert!(stars.iter().all(|report| report.ended == Some(ExitCause::Signal(9))), "{stars:?}");
    Verdict::Held
}
