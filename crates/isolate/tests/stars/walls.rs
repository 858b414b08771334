//! What a star sees and may do, each beside the same probe outside.

use std::fs;

use isolate::{Bind, Launch};
use model::ExitCause;

use crate::kit::Kit;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_star_is_alone_with_its_processes_and_name", alone),
    ("a_star_gets_its_arguments_and_environment_and_no_more", environment),
    ("files_of_the_host_are_out_of_sight", files),
    ("no_privilege_is_left", privileges),
    ("system_calls_that_reach_out_are_refused", calls),
    ("a_script_has_fewer_calls_than_a_command", fewer),
    ("native_programs_stand_behind_the_same_walls", native),
    ("volumes_are_writable_shared_and_keep_their_owner", volumes),
    ("an_impossible_order_fails_with_its_reason", impossible),
    ("a_star_is_never_user_0_of_the_host", user_id),
    ("descriptors_of_the_nursery_are_not_inherited", descriptors),
    ("secrets_of_one_star_are_not_in_the_memory_of_another", secrets),
];

/// Lines that say yes.
fn able(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_suffix(": yes")).collect()
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no line `{line}` in:\n{text}");
}

fn alone(kit: &Kit) -> Verdict {
    let (cause, said) = kit.run(&kit.script(&["whoami"]));
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    for line in ["pid 1", "uid 0", "hostname star-one", "pids [1]", "session true", "folder \"/app\""] {
        has(&said, line);
    }
    let mut long = kit.script(&["whoami"]);
    long.hostname = format!("{}-12", "a".repeat(70));
    has(&kit.run(&long).1, &format!("hostname {}-12", "a".repeat(61)));
    let outside = kit.outside(&["whoami"]);
    for line in ["pid 1", "hostname star-one", "pids [1]"] {
        assert!(!outside.lines().any(|found| found == line), "{outside}");
    }
    Verdict::Held
}

fn environment(kit: &Kit) -> Verdict {
    let (_, said) = kit.run(&kit.script(&["whoami"]));
    has(&said, "greeting Ok(\"hello\")");
    has(&said, "variables [\"GREETING\", \"HOME\", \"PATH\"]");
    let mut order = kit.command(&[
        "sh",
        "-c",
        "echo \"$0 $1 $GREETING $HOME $(pwd)\"; env | sort | cut -d= -f1 | tr '\\n' ' '",
        "a",
    ]);
    order.args = vec!["b".to_owned()];
    let (_, said) = kit.run(&order);
    has(&said, "a b hello /app /app");
    assert!(said.contains("GREETING HOME PATH PWD"), "{said}");
    Verdict::Held
}

fn files(kit: &Kit) -> Verdict {
    let secret = kit.data_dir.parent().unwrap().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let probe = ["files", secret.to_str().unwrap()];
    let (cause, said) = kit.run(&kit.script(&probe));
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    let inside = able(&said);
    assert_eq!(
        inside,
        ["read the bundle", "write /tmp", "use /dev/null", "use /dev/urandom", "use /dev/shm"]
            .iter()
            .copied()
            .chain(inside.contains(&"use /dev/stderr").then_some("use /dev/stderr"))
            .collect::<Vec<_>>(),
        "{said}"
    );
    has(&said, "hosts Ok(\"127.0.0.1 localhost star-one\\n::1 localhost\\n\")");
    let outside = kit.outside(&probe);
    let outside = able(&outside);
    for name in ["read a host file", "read /etc/shadow", "see /root", "see /sys", "see devices"] {
        assert!(outside.contains(&name), "the control fails: {name} in {outside:?}");
    }
    Verdict::Held
}

fn privileges(kit: &Kit) -> Verdict {
    let (_, said) = kit.run(&kit.script(&["privileges"]));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        has(&said, &format!("{set}: 0000000000000000"));
    }
    has(&said, "NoNewPrivs: 1");
    has(&said, "Seccomp: 2");
    if !kit.walls.rootless {
        // An ordinary user cannot give groups up; they count for nothing on the star's files.
        has(&said, "Groups:  ");
    }
    let outside = kit.outside(&["privileges"]);
    // Of the capability sets nothing can be said here: whoever runs the tests may have few or none.
    assert!(outside.contains("Seccomp: 0") && outside.contains("NoNewPrivs: 0"), "{outside}");
    Verdict::Held
}

fn calls(kit: &Kit) -> Verdict {
    let (cause, said) = kit.run(&kit.script(&["calls"]));
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    assert_eq!(able(&said), ["inet", "unix"], "{said}");
    assert!(said.contains("unshare: no, Operation not permitted"), "{said}");
    let outside = kit.outside(&["calls"]);
    for name in ["unshare", "mount", "open_tree", "chroot", "hostname", "netlink"] {
        assert!(able(&outside).contains(&name), "the control fails: {name} in\n{outside}");
    }
    Verdict::Held
}

fn fewer(kit: &Kit) -> Verdict {
    // The same probe as a script and, from the bundle, as a command.
    fs::copy(std::env::current_exe().unwrap(), kit.bundle.join("probe")).unwrap();
    let (cause, said) = kit.run(&kit.script(&["few calls"]));
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    assert_eq!(able(&said), ["a thread", "a lookup"], "{said}");
    assert!(said.contains("a program: no, Operation not permitted"), "{said}");
    let (cause, said) = kit.run(&kit.command(&["./probe", "probe", "few calls"]));
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    let all = ["a thread", "a lookup", "a program", "a group", "memory files", "notices of files", "a priority"];
    assert_eq!(able(&said), all, "the control: {said}");
    // What comes before a script is a command, and leaves the script none of its calls.
    let mut hooked = kit.script(&["few calls"]);
    hooked.before = ["sh", "-c", "true | cat && echo hook"].map(str::to_owned).to_vec();
    let (cause, said) = kit.run(&hooked);
    assert_eq!((cause, able(&said)), (ExitCause::Code(0), vec!["a thread", "a lookup"]), "{said}");
    has(&said, "hook");
    // What is run in a script's star by name is a command, too.
    let idle = kit.script(&["idle"]);
    kit.start(&idle);
    assert_eq!(kit.exec(idle.star, &["sh", "-c", "true | cat && echo ran"]), (Ok(0), "ran\n".to_owned()));
    Verdict::Held
}

fn native(kit: &Kit) -> Verdict {
    let script = "echo pid $$; ls /; ls -a /root /home/* 2>&1; hostname; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; \
                  touch /app/x; mount -t tmpfs none /tmp; unshare -r true; cat /proc/sys/kernel/hostname; \
                  ls -d /proc/[0-9]* | wc -l; ls /proc/self/fd >/dev/null && echo own fds; \
                  ls /proc/1/fd 2>/dev/null && echo init fds; head -c 1 /proc/1/mem 2>/dev/null && echo init memory; true";
    let (cause, said) = kit.run(&kit.command(&["/bin/sh", "-c", script]));
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    assert!(!said.contains("init "), "the init is open to the program:\n{said}");
    for line in ["pid 2", "star-one", "own fds", "NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
        has(&said, line);
    }
    for refused in ["touch: cannot touch '/app/x'", "mount: ", "unshare: "] {
        assert!(said.contains(refused), "{refused} in\n{said}");
    }
    Verdict::Held
}

fn volumes(kit: &Kit) -> Verdict {
    let host = kit.data_dir.parent().unwrap().join("volume");
    fs::create_dir(&host).unwrap();
    for inside in ["/data", "/var/lib/app", "/app/files"] {
        let _ = fs::remove_file(host.join("note"));
        for (number, expected) in [(1, false), (2, true)] {
            let mut order = kit.script(&["volume", inside, &format!("by star {number}")]);
            order.volumes = vec![Bind { host: host.clone(), inside: inside.to_owned(), size: None }];
            let (_, said) = kit.run(&order);
            assert_eq!(able(&said), if expected { vec!["read", "write"] } else { vec!["write"] }, "{inside}:\n{said}");
            has(&said, "owner Ok(0)");
        }
        assert_eq!(fs::read_to_string(host.join("note")).unwrap(), "by star 2");
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(host.join("note")).unwrap());
        assert_eq!(owner, rustix::process::geteuid().as_raw(), "files stay the service's own");
    }
    Verdict::Held
}

fn impossible(kit: &Kit) -> Verdict {
    let check = |order: isolate::StarOrder, expected: &str| {
        let reason = kit.start_fails(&order);
        assert!(reason.contains(expected), "{expected}: {reason}");
    };
    check(kit.command(&["no-such-program"]), "cannot run `no-such-program`: no such file or directory");
    check(kit.command(&["/app/hello.txt"]), "cannot run `/app/hello.txt`: permission denied");
    check(kit.command(&[""]), "the command is empty");
    let with = |change: &dyn Fn(&mut isolate::StarOrder)| {
        let mut order = kit.script(&["idle"]);
        change(&mut order);
        order
    };
    check(with(&|order| order.bundle = "/no/such/bundle".into()), "cannot bind the bundle from `/no/such/bundle`");
    check(with(&|order| order.hostname = "a b".to_owned()), "`a b` is not a host name");
    for name in ["", "A=B", "A\0"] {
        check(with(&|order| drop(order.env.insert(name.to_owned(), "x".to_owned()))), "is not a variable's name");
    }
    check(with(&|order| order.args = vec!["a\0b".to_owned()]), "holds a NUL byte");
    if kit.walls.rootless {
        check(with(&|order| order.network = model::Network::Bridge), "`network: \"bridge\"` needs root");
    }
    check(
        with(&|order| order.launch = Launch::Script { path: "../../etc/passwd".to_owned() }),
        "is not a path within the bundle",
    );
    for inside in ["/", "data", "/proc/x", "/a/../b", "/app", "/a//b", "/run", "/dev/shm/x"] {
        let volume = Bind { host: kit.bundle.clone(), inside: inside.to_owned(), size: None };
        check(with(&|order| order.volumes = vec![volume.clone()]), "a volume cannot be at");
    }
    let volume = Bind { host: "/no/such/volume".into(), inside: "/data".to_owned(), size: None };
    check(with(&|order| order.volumes = vec![volume.clone()]), "cannot bind the volume at `/data`");
    // A link in the bundle must not lead a mount out of the star's own files.
    let _ = std::os::unix::fs::symlink("/etc", kit.bundle.join("link"));
    let volume = Bind { host: kit.bundle.clone(), inside: "/app/link".to_owned(), size: None };
    check(with(&|order| order.volumes = vec![volume.clone()]), "the volume at `/app/link`");
    Verdict::Held
}

fn user_id(kit: &Kit) -> Verdict {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let order = kit.script(&["idle"]);
        let (pid, _) = kit.start(&order);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap().to_owned();
        ids.push(uid.split('\t').next().unwrap().parse::<u32>().unwrap());
    }
    match kit.walls.rootless {
        true => assert_eq!(ids, [rustix::process::geteuid().as_raw(); 2]),
        false => assert!(ids[0] >= 0x7000_0000 && ids[1] >= 0x7000_0000 && ids[0] != ids[1], "{ids:?}"),
    }
    Verdict::Held
}

fn secrets(kit: &Kit) -> Verdict {
    // Given back to front, so that the question does not answer itself.
    let (secret, own) = ("kf83hs92kd73jx01", "vb56mq20xz41lt98");
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    for size in [1, 20_000] {
        let mut first = kit.script(&["idle"]);
        first.env.insert("SECRET".to_owned(), secret.repeat(size));
        kit.start(&first);
    }
    let mut second = kit.script(&["search", &backwards(secret), &backwards(own)]);
    second.env.insert("SECRET".to_owned(), own.to_owned());
    let (_, said) = kit.run(&second);
    has(&said, &format!("{}: yes", backwards(own)));
    has(&said, &format!("{}: no, not found", backwards(secret)));
    Verdict::Held
}

fn descriptors(kit: &Kit) -> Verdict {
    let order = kit.script(&["idle"]);
    let (pid, _) = kit.start(&order);
    kit.said(order.star, "idle");
    let open = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    // Standard streams and the exit note.
    assert_eq!(open(pid), 4);
    assert!(open(*kit.nursery.borrow()) > 8, "the control: the nursery has many");
    let (_, said) = kit.run(&kit.command(&["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"]));
    assert_eq!(said.trim(), "0 1 2 3", "3 is the folder being listed");
    Verdict::Held
}
