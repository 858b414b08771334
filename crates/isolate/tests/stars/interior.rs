//! What a star finds inside beside its bundle: memory, binds, secrets; where it starts and as whom.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use isolate::{Bind, FileBind, Private, Secret, StarOrder, Tmpfs};
use model::{Bytes, Capability, ExitCause, Limits, User};

use crate::kit::Kit;
use crate::own_root::root;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("secrets_are_files_of_their_star_alone", secrets),
    ("a_secret_is_in_no_later_stars_memory_and_in_no_file", secret_memory),
    ("a_memory_file_system_ends_at_its_size_and_counts_as_memory", tmpfs),
    ("binds_are_read_only_and_follow_no_link", binds),
    ("a_star_starts_where_and_as_whom_it_is_told", stance),
    ("places_that_cannot_be_are_refused_with_the_reason", refused),
    ("capabilities_are_those_asked_for_and_no_more", capabilities),
    ("landlock_holds_where_a_mount_does_not", landlock),
];

fn sh(kit: &Kit, script: &str) -> StarOrder {
    kit.command(&["/bin/sh", "-c", script])
}

fn secret(inside: &str, content: &str) -> Secret {
    Secret { inside: inside.to_owned(), content: Private::new(content.as_bytes().to_vec()) }
}

fn bind(kit: &Kit, source: &str, inside: &str) -> FileBind {
    let host = kit.bundle.join(source);
    let file = host.is_file();
    FileBind { host, inside: inside.to_owned(), file, read_only: true }
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no line `{line}` in:\n{text}");
}

fn secrets(kit: &Kit) -> Verdict {
    let script = "cat /run/secrets/db /etc/key /tmp/x/y; stat -c '%a %u %F' /run/secrets/db; \
        stat -f -c 'on %T' /run/secrets/db; for f in /run/secrets/db /etc/key; do echo x > $f || echo kept; rm -f $f 2>&1; \
        chmod 777 $f 2>&1; cat $f; done";
    for root_of_its_own in [false, true] {
        let mut order = sh(kit, script);
        order.root = root_of_its_own.then(|| root(kit));
        if root_of_its_own {
            order.launch = isolate::Launch::Command {
                argv: ["/bin/sh", "-c", "cat /run/secrets/db /etc/key /tmp/x/y; echo x > /etc/key || echo kept"]
                    .map(str::to_owned)
                    .to_vec(),
            };
        }
        order.interior.secrets =
            vec![secret("/run/secrets/db", "one\n"), secret("/etc/key", "two\n"), secret("/tmp/x/y", "three\n")];
        let (cause, said) = kit.run(&order);
        assert_eq!(cause, ExitCause::Code(0), "{said}");
        assert!(said.starts_with("one\ntwo\nthree\n"), "{said}");
        has(&said, "kept");
        if !root_of_its_own {
            has(&said, "400 0 regular file");
            has(&said, "on ramfs");
            assert_eq!(
                said.matches("Read-only file system").count() + said.matches("resource busy").count(),
                6,
                "{said}"
            );
            assert_eq!(said.lines().filter(|line| ["one", "two"].contains(line)).count(), 4, "all as it was: {said}");
        }
    }
    // As large as they may be, and as many as there may be places.
    let mut order = sh(kit, "cat /run/secrets/* | wc -c");
    let large = "x".repeat(65_536);
    order.interior.secrets = (0..63).map(|n| secret(&format!("/run/secrets/{n}"), &large)).collect();
    assert_eq!(kit.run(&order).1, format!("{}\n", 63 * 65_536));
    Verdict::Held
}

fn secret_memory(kit: &Kit) -> Verdict {
    // Given back to front, so that the question does not answer itself.
    let (value, own) = ("qk72ms04bd91zw55", "ht63pc18vn40rk77");
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    let mut held = Vec::new();
    for size in [1, 2_000] {
        let mut first = kit.script(&["idle"]);
        first.interior.secrets = vec![secret("/run/secrets/db", &value.repeat(size))];
        kit.start(&first);
        kit.said(first.star, "idle");
        held.push(first);
    }
    let mut second = kit.script(&["search", &backwards(value), &backwards(own)]);
    second.env.insert("OWN".to_owned(), own.to_owned());
    let (_, said) = kit.run(&second);
    has(&said, &format!("{}: yes", backwards(own)));
    has(&said, &format!("{}: no, not found", backwards(value)));
    // Nor did the nursery leave it anywhere in its folder, while the stars that have it run.
    let mut folders = vec![kit.data_dir.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => {
                    let bytes = fs::read(entry.path()).unwrap();
                    let found = bytes.windows(value.len()).any(|window| window == value.as_bytes());
                    assert!(!found, "{}", entry.path().display());
                }
                _ => {}
            }
        }
    }
    for order in held {
        let (result, said) = kit.exec(order.star, &["cat", "/run/secrets/db"]);
        assert_eq!(result, Ok(0));
        assert!(said.starts_with(value), "the control: the star itself reads it");
    }
    Verdict::Held
}

fn tmpfs(kit: &Kit) -> Verdict {
    let with = |mut order: StarOrder, size: u64| {
        order.interior.tmpfs = vec![
            Tmpfs { inside: "/cache".to_owned(), size },
            Tmpfs { inside: "/app/work".to_owned(), size: 1 << 20 },
            Tmpfs { inside: "/tmp".to_owned(), size: 2 << 20 },
        ];
        order
    };
    let script = "for d in /cache /app/work /tmp; do df -k $d | tail -1 | awk '{print $6, $2}'; done; \
        head -c 5M /dev/zero > /cache/x || echo full; rm /cache/x; echo y > /cache/y && cat /cache/y";
    let (cause, said) = kit.run(&with(sh(kit, script), 4 << 20));
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    for line in ["/cache 4096", "/app/work 1024", "/tmp 2048", "full", "y"] {
        has(&said, line);
    }
    if kit.walls.memory.is_yes() {
        let mut order = with(sh(kit, "head -c 60M /dev/zero > /cache/x; echo survived"), 64 << 20);
        order.limits = Limits { memory: Some(Bytes::mib(16)), ..Limits::UNLIMITED };
        let (cause, said) = kit.run(&order);
        assert_eq!(cause, ExitCause::OutOfMemory, "{said}");
        // The control: with room for it, it is no harm.
        order = with(sh(kit, "head -c 60M /dev/zero > /cache/x; echo survived"), 64 << 20);
        order.limits = Limits { memory: Some(Bytes::mib(128)), ..Limits::UNLIMITED };
        assert_eq!(kit.run(&order).1, "survived\n");
    }
    Verdict::Held
}

fn binds(kit: &Kit) -> Verdict {
    fs::create_dir_all(kit.bundle.join("conf/deep")).unwrap();
    fs::write(kit.bundle.join("conf/app.conf"), "setting\n").unwrap();
    fs::write(kit.bundle.join("conf/deep/more"), "more\n").unwrap();
    let own = root(kit);
    for own_root in [None, Some(own.clone())] {
        let script = "cat /etc/app.conf /opt/conf/deep/more; echo x > /etc/app.conf || echo kept; \
            echo x > /opt/conf/new || echo kept; ls -ln /etc/app.conf";
        let mut order = sh(kit, script);
        order.root = own_root;
        order.interior.files = vec![bind(kit, "conf/app.conf", "/etc/app.conf"), bind(kit, "conf", "/opt/conf")];
        let (cause, said) = kit.run(&order);
        assert_eq!(cause, ExitCause::Code(0), "{said}");
        assert!(said.starts_with("setting\nmore\n"), "{said}");
        assert_eq!(said.matches("kept").count(), 2, "{said}");
        assert!(said.contains(" 0 0 "), "it is seen as the star's root's: {said}");
    }
    assert_eq!(fs::read_to_string(kit.bundle.join("conf/app.conf")).unwrap(), "setting\n");
    // Links at the place, or on the way to it, in the star's own root and in the one it has otherwise.
    let outside = kit.bundle.with_file_name("outside-binds");
    fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, own.join("opt")).unwrap();
    std::os::unix::fs::symlink("/etc/motd", own.join("etc/linked")).unwrap();
    for (inside, own_root, why) in [
        ("/opt/x", true, "`/opt` of its root file system is no folder"),
        ("/etc/linked", true, "`/etc/linked` of its root file system is no file"),
        ("/etc/motd/x", true, "`/etc/motd` of its root file system is no folder"),
        ("/etc/hosts", false, "`/etc/hosts` is no file"),
        ("/etc/hosts/x", false, "`/etc/hosts` is no folder"),
        ("/bin/x", false, "cannot mount what is bound at `/bin/x`"),
        ("/usr/x-no-such", false, "cannot mount what is bound at `/usr/x-no-such`"),
    ] {
        let mut order = sh(kit, "true");
        order.root = own_root.then(|| own.clone());
        order.interior.files = vec![bind(kit, "conf/app.conf", inside)];
        let reason = kit.start_fails(&order);
        assert!(reason.contains(why), "{inside}: {reason}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made where the link leads");
    // Nor did a place below one of the links of the usual root make a folder on the host.
    let mut order = sh(kit, "true");
    order.volumes = vec![Bind { host: outside, inside: "/etc/hostname/x".to_owned(), size: None }];
    assert!(kit.start_fails(&order).contains("`/etc/hostname` is no folder"));
    assert!(!std::path::Path::new("/run/hostname").exists());
    Verdict::Held
}

fn stance(kit: &Kit) -> Verdict {
    fs::create_dir_all(kit.bundle.join("sub")).unwrap();
    fs::write(kit.bundle.join("sub/tool"), "#!/bin/sh\necho tool in $(pwd)\n").unwrap();
    fs::set_permissions(kit.bundle.join("sub/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    // A relative program is the bundle's, wherever it starts.
    let mut order = kit.command(&["./sub/tool"]);
    order.interior.workdir = Some("/app/sub".to_owned());
    assert_eq!(kit.run(&order).1, "tool in /app/sub\n");
    let mut script = kit.script(&["whoami"]);
    script.interior.workdir = Some("/tmp".to_owned());
    has(&kit.run(&script).1, "folder \"/tmp\"");
    let mut nowhere = kit.command(&["true"]);
    nowhere.interior.workdir = Some("/no/such".to_owned());
    assert_eq!(kit.start_fails(&nowhere), "cannot enter `/no/such`: no such file or directory");

    let user = Some(User { uid: 1000, gid: 2000 });
    if kit.walls.rootless {
        let mut order = kit.command(&["true"]);
        order.interior.user = user;
        assert_eq!(kit.start_fails(&order), "without root a star has no user but its root");
        order = kit.command(&["id", "-u"]);
        order.interior.user = Some(User { uid: 0, gid: 0 });
        assert_eq!(kit.run(&order).1, "0\n");
        return Verdict::Held;
    }
    let volume = kit.bundle.with_file_name("volume-of-user");
    fs::create_dir(&volume).unwrap();
    let script = "id -u; id -g; id -G; echo x > /data/x && echo wrote; cat /run/secrets/db; echo to stderr > /dev/stderr; \
        echo y > /cache/y && echo cached; touch /etc/x 2>/dev/null || echo refused; grep CapEff /proc/self/status; \
        echo done; sleep 1000";
    let mut order = sh(kit, script);
    order.interior.user = user;
    order.interior.secrets = vec![secret("/run/secrets/db", "of 1000\n")];
    order.interior.tmpfs = vec![Tmpfs { inside: "/cache".to_owned(), size: 1 << 20 }];
    order.volumes = vec![Bind { host: volume.clone(), inside: "/data".to_owned(), size: None }];
    let (pid, _) = kit.start(&order);
    kit.said(order.star, "done");
    // It comes by another pipe, and maybe later.
    kit.said(order.star, "to stderr");
    let said = kit.log(order.star);
    for line in ["1000", "2000", "wrote", "of 1000", "to stderr", "cached", "refused", "CapEff:\t0000000000000000"] {
        has(&said, line);
    }
    // On the host it is that user of the star's range, and the volume's files are that number's.
    let uid = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse::<u32>().ok()).unwrap()
    };
    assert_eq!(uid(pid) % 65_536, 1000);
    assert_eq!(fs::metadata(volume.join("x")).unwrap().uid(), 1000);
    let (result, said) = kit.exec(order.star, &["sh", "-c", "id -u; id -g; pwd"]);
    assert_eq!((result, said.as_str()), (Ok(0), "1000\n2000\n/app\n"));
    let mut disked = sh(kit, "echo x > /tmp/x && echo wrote; cat /tmp/deep/secret; df /tmp | tail -1");
    disked.interior.user = user;
    disked.interior.secrets = vec![secret("/tmp/deep/secret", "on a disk\n")];
    disked.limits.disk = Some(Limits::DISK_MIN);
    let (_, said) = kit.run(&disked);
    assert!(said.starts_with("wrote\non a disk\n"), "{said}");
    // A later nursery knows it, too.
    kit.kill_nursery();
    kit.open();
    assert_eq!(kit.exec(order.star, &["id", "-u"]).1, "1000\n");
    Verdict::Held
}

fn refused(kit: &Kit) -> Verdict {
    let check = |order: StarOrder, expected: &str| {
        let reason = kit.start_fails(&order);
        assert!(reason.contains(expected), "{expected}: {reason}");
    };
    let with = |change: &dyn Fn(&mut StarOrder)| {
        let mut order = kit.command(&["true"]);
        change(&mut order);
        order
    };
    for inside in
        ["", "/", "x", "/a/../b", "/a//b", "/a\0b", "/a\nb", "/proc/x", "/dev/x", "/sys", "/run", "/run/hosts"]
    {
        check(with(&|order| order.interior.secrets = vec![secret(inside, "x")]), "a secret cannot be at");
        let tmpfs = Tmpfs { inside: inside.to_owned(), size: 1 << 20 };
        check(with(&|order| order.interior.tmpfs = vec![tmpfs.clone()]), "a memory file system cannot be at");
        let file = FileBind { host: kit.bundle.clone(), inside: inside.to_owned(), file: false, read_only: true };
        check(with(&|order| order.interior.files = vec![file.clone()]), "a bind cannot be at");
    }
    check(with(&|order| order.interior.secrets = vec![secret("/app/x", "x")]), "a secret cannot be at `/app/x`");
    let many = |n: usize| Tmpfs { inside: format!("/t{n}"), size: 1 << 20 };
    check(with(&|order| order.interior.tmpfs = (0..10_000).map(many).collect()), "at most 63 places");
    check(with(&|order| order.interior.workdir = Some("sub".to_owned())), "is no folder to start in");
    check(with(&|order| order.interior.workdir = Some("/a\0".to_owned())), "is no folder to start in");
    let missing = FileBind { host: kit.bundle.join("none"), inside: "/x".to_owned(), file: true, read_only: true };
    check(with(&|order| order.interior.files = vec![missing.clone()]), "cannot bind what is bound at `/x` from");
    // What is no file where one was expected, and the other way round.
    let folder = FileBind { host: kit.bundle.clone(), inside: "/x".to_owned(), file: true, read_only: true };
    check(with(&|order| order.interior.files = vec![folder.clone()]), "cannot mount what is bound at `/x`");
    assert_eq!(kit.run(&kit.command(&["echo", "still here"])).1, "still here\n");
    Verdict::Held
}

fn capabilities(kit: &Kit) -> Verdict {
    let script = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status; touch /tmp/x; \
        chown 7:7 /tmp/x 2>&1 && stat -c 'owner %u' /tmp/x; setpriv --reuid 5 --regid 5 --clear-groups \
        sh -c 'id -u; grep CapEff /proc/self/status | sed s/Cap/after/; chown 0 /tmp/x 2>&1'; mount -t tmpfs t /tmp 2>&1";
    let usual = kit.run(&sh(kit, script)).1;
    has(&usual, "CapEff:\t0000000000000000");
    assert!(!usual.contains("owner 7") && !usual.contains("afterEff"), "{usual}");
    let mut order = sh(kit, script);
    order.weakened.capabilities = [Capability::Chown, Capability::Setuid, Capability::Setgid].into();
    let (_, said) = kit.run(&order);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        has(&said, &format!("{set}:\t00000000000000c1"));
    }
    has(&said, "NoNewPrivs:\t1");
    assert!(said.contains("permission denied") || said.contains("Operation not permitted"), "mount: {said}");
    if !kit.walls.rootless {
        has(&said, "owner 7");
        has(&said, "5");
        // Whoever becomes somebody else has them no more.
        has(&said, "afterEff:\t0000000000000000");
        // As somebody else from the start, it has what was asked for.
        let mut order = sh(kit, "id -u; grep -E 'CapEff|CapBnd' /proc/self/status");
        order.weakened.capabilities = [Capability::Kill].into();
        order.interior.user = Some(User { uid: 1000, gid: 1000 });
        let (_, said) = kit.run(&order);
        assert_eq!(said, "1000\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000020\n");
        let mut idle = sh(kit, "sleep 1000");
        idle.weakened = order.weakened.clone();
        idle.interior.user = order.interior.user;
        kit.start(&idle);
        let (_, said) = kit.exec(idle.star, &["grep", "-E", "CapEff|CapBnd", "/proc/self/status"]);
        assert_eq!(said, "CapEff:\t0000000000000020\nCapBnd:\t0000000000000020\n");
    }
    // The next usual star has none.
    has(&kit.run(&sh(kit, script)).1, "CapEff:\t0000000000000000");
    let mut order = sh(kit, "grep Seccomp: /proc/self/status; unshare -U echo apart");
    order.weakened.no_seccomp = true;
    let (_, said) = kit.run(&order);
    assert!(!kit.run(&sh(kit, "unshare -U echo apart")).1.contains("apart"), "the usual star's wall");
    has(&said, "Seccomp:\t0");
    has(&said, "apart");
    Verdict::Held
}

/// The second wall, seen where the first is open: a bind that should have been read-only.
fn landlock(kit: &Kit) -> Verdict {
    if std::env::var_os("RADS_LANDLOCK").is_some() {
        assert!(kit.walls.landlock.is_yes(), "this machine was made with it: {:?}", kit.walls.landlock);
    }
    fs::create_dir_all(kit.bundle.join("holed")).unwrap();
    fs::write(kit.bundle.join("holed/old"), "old\n").unwrap();
    let script = "for f in /hole/old /hole/new; do echo x > $f && echo wrote $f; done; mkdir /hole/d && echo made; \
        rm /hole/old && echo removed; true";
    let order = |weak: bool| {
        let mut order = sh(kit, script);
        order.interior.files = vec![FileBind { read_only: false, ..bind(kit, "holed", "/hole") }];
        order.weakened.no_landlock = weak;
        order
    };
    if kit.walls.landlock.is_yes() {
        let (cause, said) = kit.run(&order(false));
        assert_eq!(cause, ExitCause::Code(0), "{said}");
        assert_eq!(said.matches("Permission denied").count(), 4, "{said}");
        assert_eq!(fs::read_to_string(kit.bundle.join("holed/old")).unwrap(), "old\n");
    }
    // The control: without it, the hole is one.
    let (_, said) = kit.run(&order(true));
    for line in ["wrote /hole/old", "wrote /hole/new", "made", "removed"] {
        has(&said, line);
    }
    // What a star may write to it does, in all the ways that programs have, and so does what is run in it later.
    let volume = kit.bundle.with_file_name("landlock-volume");
    fs::create_dir(&volume).unwrap();
    let ways = "set -e; for d in /tmp /run /dev/shm /data /cache; do mkdir $d/a $d/b; echo x > $d/a/x; echo y >> $d/a/x; \
        mv $d/a/x $d/b/y; ln $d/b/y $d/a/z; ln -s z $d/a/l; mkfifo $d/a/p; : > $d/a/z; truncate -s 5 $d/b/y; rm -r $d/a $d/b; done; \
        echo x > /dev/null; echo to stdout > /dev/stdout; echo to stderr > /dev/stderr; echo fine";
    let mut order = sh(kit, &format!("{ways}; sleep 1000"));
    order.volumes = vec![Bind { host: volume, inside: "/data".to_owned(), size: None }];
    order.interior.tmpfs = vec![Tmpfs { inside: "/cache".to_owned(), size: 1 << 20 }];
    kit.start(&order);
    kit.said(order.star, "fine");
    // It comes by another pipe, and maybe later.
    kit.said(order.star, "to stderr");
    let (result, said) = kit.exec(order.star, &["sh", "-c", &ways.replace("/dev/std", "/tmp/std")]);
    assert!(result == Ok(0) && said.contains("fine"), "{result:?} {said}");
    let mut own = kit.command(&["/bin/sh", "-c", "echo x > /new && echo wrote; echo x > /app/new || echo kept"]);
    own.root = Some(root(kit));
    let (_, said) = kit.run(&own);
    assert!(said.contains("wrote") && said.contains("kept"), "{said}");
    Verdict::Held
}
