//! Files that a star begins with, and what a star has of its own seen from outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use isolate::{Beginning, StarOrder};
use model::{Bytes, ExitCause, Limits};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use crate::kit::Kit;
use crate::own_root;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_star_begins_with_the_files_it_is_given", begins),
    ("a_root_begins_as_another_one_was_left", root),
    ("files_to_begin_with_lead_nowhere_else", hostile),
    ("files_that_do_not_fit_fail_the_start_and_leave_nothing", no_room),
    ("a_star_s_places_are_seen_from_outside", seen),
];

/// A folder for what a star begins with.
fn folder(kit: &Kit, name: &str) -> PathBuf {
    let folder = kit.bundle.with_file_name(format!("beginning-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("0")).unwrap();
    folder
}

fn sh(kit: &Kit, script: &str, folder: &Path, areas: &[&str]) -> StarOrder {
    let order = kit.command(&["sh", "-c", script]);
    with(order, folder, areas)
}

fn with(mut order: StarOrder, folder: &Path, areas: &[&str]) -> StarOrder {
    let areas = areas.iter().map(|&area| area.to_owned()).collect();
    order.beginning = Some(Beginning { folder: folder.to_owned(), areas });
    order
}

fn ran(kit: &Kit, order: &StarOrder) -> String {
    let (cause, said) = kit.run(order);
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    said
}

fn begins(kit: &Kit) -> Verdict {
    let folder = folder(kit, "plain");
    let tmp = folder.join("0");
    fs::create_dir_all(tmp.join("a/b")).unwrap();
    fs::write(tmp.join("a/b/file"), "text").unwrap();
    fs::hard_link(tmp.join("a/b/file"), tmp.join("same")).unwrap();
    symlink("/etc/passwd", tmp.join("link")).unwrap();
    rustix::fs::mknodat(CWD, tmp.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let sparse = fs::File::create(tmp.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    rustix::io::pwrite(&sparse, b"end", (40 << 20) - 3).unwrap();
    drop(sparse);
    fs::set_permissions(tmp.join("a/b/file"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(tmp.join("a"), fs::Permissions::from_mode(0o1711)).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for path in ["a/b/file", "a/b"] {
        fs::File::open(tmp.join(path)).unwrap().set_modified(time).unwrap();
    }
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).unwrap();
    if !kit.walls.rootless {
        std::os::unix::fs::chown(tmp.join("a/b/file"), Some(1000), Some(1001)).unwrap();
    }
    fs::create_dir(folder.join("1")).unwrap();
    fs::write(folder.join("1/pid"), "7").unwrap();
    let script = "stat -c '%n %a %u:%g %h %Y %F' /tmp/a /tmp/a/b /tmp/a/b/file /tmp/fifo; readlink /tmp/link; \
                  cat /tmp/same /run/pid; stat -c '%s %b' /tmp/sparse; tail -c 3 /tmp/sparse; stat -c %a /tmp";
    let said = ran(kit, &sh(kit, script, &folder, &["/tmp", "/run"]));
    let owner = if kit.walls.rootless { "0:0" } else { "1000:1001" };
    for line in [
        "/tmp/a 1711 0:0 3 ",
        "/tmp/a/b 755 0:0 2 1000000000 directory",
        &format!("/tmp/a/b/file 644 {owner} 2 1000000000 regular file"),
        "/tmp/fifo 400 0:0 1 ",
        "/etc/passwd\ntext7",
        "end1777",
    ] {
        assert!(said.contains(line), "`{line}` is not in:\n{said}");
    }
    let sparse = said.split_whitespace().skip_while(|word| !word.ends_with("41943040")).nth(1).unwrap();
    assert!(sparse.parse::<u64>().unwrap() < 1024, "a hole is a hole: {said}");
    // A script has them too, and a star that is given none has none.
    let none = ran(kit, &kit.command(&["sh", "-c", "ls -A /tmp"]));
    assert_eq!(none, "");
    Verdict::Held
}

fn root(kit: &Kit) -> Verdict {
    let folder = folder(kit, "root");
    let change = "echo new > /etc/added; echo changed > /etc/motd; rm /bin/id";
    // As a snapshot keeps it: what is there, and what is not.
    fs::create_dir_all(folder.join("0/etc")).unwrap();
    fs::write(folder.join("0/etc/added"), "new\n").unwrap();
    fs::write(folder.join("0/etc/motd"), "changed\n").unwrap();
    fs::create_dir_all(folder.join("0/bin")).unwrap();
    fs::write(folder.join("0.gone"), b"bin/id\0not/there\0etc\xff\0").unwrap();
    let look = "cat /etc/added /etc/motd; ls /bin /etc; cat /etc/hostname";
    let expected = ran(kit, &own_root::shell(kit, &format!("{change}; {look}")));
    assert_eq!(ran(kit, &with(own_root::shell(kit, look), &folder, &["/"])), expected);
    assert!(expected.contains("changed") && expected.contains("star-one") && !expected.contains("id\n"), "{expected}");
    // The folder below has not changed.
    assert!(own_root::root(kit).join("bin/id").exists());
    assert_eq!(fs::read_to_string(own_root::root(kit).join("etc/motd")).unwrap(), "from my root\n");
    Verdict::Held
}

fn hostile(kit: &Kit) -> Verdict {
    let folder = folder(kit, "hostile");
    let tmp = folder.join("0");
    // A link out of it stays one; what goes through a name that is one replaces it.
    symlink("/app", tmp.join("out")).unwrap();
    symlink("../../..", tmp.join("up")).unwrap();
    fs::write(tmp.join(std::ffi::OsString::from("new\nline")), "odd").unwrap();
    let mut at = rustix::fs::open(&tmp, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..4000 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    // Gone is what lies in the place itself: neither `..` nor a link leads out of it.
    fs::write(folder.join("0.gone"), b"../app/hello.txt\0out/hello.txt\0../../etc/passwd\0\0").unwrap();
    let script = "perl -e '$i++ while chdir \"d\"; print \"deep $i\\n\"'; ls /app; readlink out up";
    let mut order = sh(kit, &format!("cd /tmp; {script}"), &folder, &["/tmp"]);
    order.limits.open_files = Some(Limits::OPEN_FILES_MIN);
    let said = ran(kit, &order);
    assert!(said.contains("deep 4000") && said.contains("hello.txt") && said.ends_with("/app\n../../..\n"), "{said}");
    assert!(kit.bundle.join("hello.txt").exists());
    for areas in [["/tmp/../app"], ["relative"]] {
        let why = kit.start_fails(&sh(kit, "true", &folder, &areas));
        assert!(why.contains("no place for files"), "{why}");
    }
    let why = kit.start_fails(&sh(kit, "true", &folder, &["/nowhere"]));
    assert!(why.contains("`/nowhere`"), "{why}");
    Verdict::Held
}

fn no_room(kit: &Kit) -> Verdict {
    let folder = folder(kit, "large");
    fs::write(folder.join("0/large"), vec![1; 24 << 20]).unwrap();
    let mut order = sh(kit, "true", &folder, &["/cache"]);
    order.interior.tmpfs.push(isolate::Tmpfs { inside: "/cache".to_owned(), size: 8 << 20 });
    let why = kit.start_fails(&order);
    assert!(why.contains("cannot bring `/cache/large` back") && why.to_lowercase().contains("space"), "{why}");
    order.star = kit.command(&["true"]).star;
    order.interior.tmpfs[0].size = 32 << 20;
    order.limits.memory = Some(Bytes::mib(64));
    ran(kit, &order);
    Verdict::Held
}

fn seen(kit: &Kit) -> Verdict {
    let order = kit.command(&["sh", "-c", "echo mine > /tmp/file; ln -s /etc /tmp/link; echo done; exec sleep 1000"]);
    kit.start(&order);
    kit.said(order.star, "done");
    let places = ["/tmp", "/run"].map(str::to_owned);
    let areas = isolate::areas(&kit.data_dir, order.star, &places).unwrap().unwrap();
    let stat = rustix::fs::statat(&areas.folders[0], "file", AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let own = fs::metadata("/proc/self").unwrap().uid();
    assert_eq!(stat.st_uid, areas.users.map_or(own, |(first, _)| first));
    assert_eq!(areas.users.is_none(), kit.walls.rootless);
    // Its links lead nowhere.
    let refused = isolate::areas(&kit.data_dir, order.star, &["/tmp/link".to_owned()]).unwrap_err();
    assert!(refused.to_string().contains("/tmp/link"), "{refused}");
    kit.send(&isolate::Request::Kill { star: order.star }, &[]);
    kit.end(order.star);
    assert!(isolate::areas(&kit.data_dir, order.star, &places).unwrap().is_none());
    Verdict::Held
}
