//! A star with a root file system of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use isolate::{Bind, StarOrder};
use model::{Bytes, ExitCause, Limits};

use crate::kit::Kit;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_star_has_the_root_it_brings", brings),
    ("what_a_star_writes_to_its_root_is_gone_with_it", writes),
    ("a_full_root_is_an_error_and_no_more", full),
    ("a_hostile_root_leads_nowhere", hostile),
];

/// A root with a shell, a few programs and the libraries they need, copied from the host.
pub(crate) fn root(kit: &Kit) -> PathBuf {
    let root = kit.bundle.with_file_name("rootfs");
    if root.exists() {
        return root;
    }
    for folder in ["bin", "etc"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for program in ["sh", "cat", "ls", "id", "dd", "rm", "sleep"] {
        let host = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(program));
        let host = host.into_iter().find(|path| path.exists()).expect("a usual program");
        fs::copy(&host, root.join("bin").join(program)).unwrap();
        let libraries = Command::new("ldd").arg(&host).output().unwrap().stdout;
        let libraries = String::from_utf8(libraries).unwrap();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let target = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(library, target).unwrap();
        }
    }
    fs::write(root.join("etc/motd"), "from my root\n").unwrap();
    fs::write(root.join("etc/hosts"), "192.0.2.1 stale\n").unwrap();
    root
}

pub(crate) fn shell(kit: &Kit, script: &str) -> StarOrder {
    let mut order = kit.command(&["/bin/sh", "-c", script]);
    order.root = Some(root(kit));
    order
}

fn brings(kit: &Kit) -> Verdict {
    let volume = kit.bundle.with_file_name("volume");
    fs::create_dir_all(&volume).unwrap();
    let mut order = shell(
        kit,
        "cat /etc/motd; ls -d /usr/share /etc/passwd; ls /; cat /etc/hosts; cat /etc/hostname; \
        id -u; pwd; cat hello.txt; echo; echo kept > /srv/data/note; cat /proc/1/comm > /dev/null && echo has proc; \
        echo x > /dev/null && ls /dev",
    );
    order.volumes.push(Bind { host: volume.clone(), inside: "/srv/data".to_owned(), size: None });
    // As volumes are made: the star's root gets what is in it.
    if !kit.walls.rootless {
        fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let (cause, said) = kit.run(&order);
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    for expected in ["from my root", "star-one", "/app", "from the bundle", "has proc", "urandom"] {
        assert!(said.contains(expected), "`{expected}` is not in:\n{said}");
    }
    assert!(said.lines().any(|line| line == "0"), "{said}");
    assert!(said.contains("cannot access '/usr/share'") && said.contains("cannot access '/etc/passwd'"), "{said}");
    assert!(said.contains("127.0.0.1 localhost") && !said.contains("stale"), "{said}");
    assert_eq!(fs::read_to_string(volume.join("note")).unwrap(), "kept\n");
    Verdict::Held
}

fn writes(kit: &Kit) -> Verdict {
    let script = "echo mine > /new; echo changed > /etc/motd; rm /bin/id; cat /new /etc/motd; ls /bin/id";
    for _ in 0..2 {
        let (_, said) = kit.run(&shell(kit, script));
        assert!(said.starts_with("mine\nchanged\n") && said.contains("cannot access '/bin/id'"), "{said}");
    }
    let root = root(kit);
    assert!(!root.join("new").exists() && root.join("bin/id").exists());
    assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "from my root\n");
    Verdict::Held
}

fn full(kit: &Kit) -> Verdict {
    let mut order = shell(kit, "dd if=/dev/zero of=/big bs=1048576; rm /big; echo still here");
    order.limits = Limits { memory: Some(Bytes::mib(32)), ..Limits::UNLIMITED };
    let (cause, said) = kit.run(&order);
    assert_eq!(cause, ExitCause::Code(0), "{said}");
    assert!(said.contains("No space left on device") && said.contains("still here"), "{said}");
    Verdict::Held
}

fn hostile(kit: &Kit) -> Verdict {
    let usual = root(kit);
    let outside = kit.bundle.with_file_name("outside");
    fs::write(&outside, "untouched").unwrap();
    for name in ["proc", "dev", "run", "tmp", "app"] {
        let _ = fs::remove_dir(usual.join(name));
        symlink("/etc", usual.join(name)).unwrap();
        let reason = kit.start_fails(&shell(kit, "true"));
        assert_eq!(reason, format!("`/{name}` of its root file system is no folder"));
        fs::remove_file(usual.join(name)).unwrap();
    }
    let mut order = shell(kit, "true");
    symlink("/etc", usual.join("data")).unwrap();
    order.volumes.push(Bind { host: kit.bundle.clone(), inside: "/data/x".to_owned(), size: None });
    assert_eq!(kit.start_fails(&order), "`/data` of its root file system is no folder");
    // A link where a file of ours goes is replaced for this star, not followed.
    symlink(&outside, usual.join("etc/hostname")).unwrap();
    let (_, said) = kit.run(&shell(kit, "cat /etc/hostname; echo changed > /etc/hostname"));
    assert!(said.starts_with("star-one\n"), "{said}");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    assert!(usual.join("etc/hostname").is_symlink());
    let mut script = kit.script(&["idle"]);
    script.root = Some(usual);
    assert_eq!(kit.start_fails(&script), "a script has the nursery's own root");
    Verdict::Held
}
