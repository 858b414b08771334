//! What a container sees: its root, mounts, devices, masks.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::support::{World, as_root, both};

fn with_mounts(world: &World, script: &str, mounts: &[Value]) -> Value {
    let mut config = world.config(script);
    config["mounts"].as_array_mut().unwrap().extend(mounts.iter().cloned());
    config
}

#[test]
fn mounts_have_their_options() {
    both(|world| {
        fs::create_dir(world.path("out/sub")).unwrap();
        let script = "cat /proc/self/mountinfo";
        let out = world.run(&with_mounts(&world, script, &[
            json!({"destination": "/t", "type": "tmpfs", "source": "name", "options": ["size=1m", "nosuid", "noexec", "noatime", "mode=700"]}),
            json!({"destination": "/ro", "source": "out/sub", "options": ["bind", "ro", "nodev"]}),
            json!({"destination": "/q", "type": "mqueue", "source": "mqueue"}),
        ])).ok();
        let line = |place: &str| {
            let of = |line: &&str| line.split(' ').nth(4) == Some(place);
            out.lines().find(of).unwrap_or_else(|| panic!("no {place} in {out}")).to_owned()
        };
        let tmpfs = line("/t");
        assert!(tmpfs.contains("rw,nosuid,noexec,noatime") && tmpfs.contains("size=1024k,mode=700"), "{tmpfs}");
        assert!(line("/ro").contains(" ro,") && line("/ro").contains("nodev"), "{}", line("/ro"));
        assert!(line("/q").contains("mqueue"));
    });
}

#[test]
fn a_read_only_bind_cannot_be_written_to_and_a_plain_one_can() {
    both(|world| {
        for (option, worked) in [("rw", "wrote"), ("ro", "refused")] {
            let mount = json!({"destination": "/b", "source": "out", "options": ["rbind", option]});
            let script = "touch /b/x 2>/dev/null && echo wrote || echo refused";
            assert_eq!(world.run(&with_mounts(&world, script, &[mount])).ok().trim(), worked);
        }
    });
}

#[test]
fn the_root_is_read_only_when_it_is_said_and_only_then() {
    both(|world| {
        for (wanted, found) in [(true, "refused"), (false, "wrote")] {
            let mut config =
                world.config("touch /x 2>/dev/null && echo wrote || echo refused; touch /dev/y && echo dev");
            config["root"]["readonly"] = json!(wanted);
            assert_eq!(world.run(&config).ok(), format!("{found}\ndev\n"));
        }
    });
}

#[test]
fn paths_are_masked_and_read_only() {
    both(|world| {
        fs::create_dir_all(world.path("rootfs/secret/below")).unwrap();
        fs::write(world.path("rootfs/secret/below/file"), "seen").unwrap();
        fs::write(world.path("rootfs/file"), "seen").unwrap();
        let script = "cat /file; ls -A /secret | wc -l; (echo x > /fixed/x) 2>/dev/null && echo wrote || echo refused; \
                      cat /proc/cpuinfo | wc -c";
        fs::create_dir(world.path("rootfs/fixed")).unwrap();
        fs::set_permissions(world.path("rootfs/fixed"), fs::Permissions::from_mode(0o777)).unwrap();
        let mut config = world.config(script);
        let open = world.run(&config).ok();
        assert!(open.starts_with("seen1\nwrote\n") && !open.ends_with("\n0\n"), "{open}");
        config["linux"]["maskedPaths"] = json!(["/file", "/secret", "/not/there", "/proc/cpuinfo"]);
        config["linux"]["readonlyPaths"] = json!(["/fixed", "/not/there"]);
        assert_eq!(world.run(&config).ok(), "0\nrefused\n0\n");
    });
}

#[test]
fn no_link_of_the_root_leads_a_mount_outside() {
    both(|world| {
        // Each leads to a folder beside the root, if it is followed on the host.
        let outside = world.path("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, world.path("rootfs/absolute")).unwrap();
        symlink("../outside", world.path("rootfs/relative")).unwrap();
        let tmpfs = |destination: &str| json!({"destination": destination, "type": "tmpfs", "source": "t"});
        let mounts = [tmpfs("/absolute/a"), tmpfs("/relative/b"), tmpfs("/../outside/c")];
        let out = world.run(&with_mounts(&world, "cat /proc/self/mountinfo", &mounts)).ok();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        for inside in [format!("{}/a", outside.display()), "/outside/b".to_owned(), "/outside/c".to_owned()] {
            assert!(out.lines().any(|line| line.split(' ').nth(4) == Some(&inside)), "{inside} in {out}");
        }
    });
}

#[test]
fn nothing_is_mounted_over_the_kernels_own_files() {
    both(|world| {
        let bind = |destination: &str| json!({"destination": destination, "source": "out", "options": ["bind"]});
        for place in ["/proc/self", "/proc/sys", "/proc/1/attr", "/proc/../proc/sys/kernel"] {
            world.create(&with_mounts(&world, "true", &[bind(place)])).refused("only a few files may be covered");
        }
        fs::write(world.path("out/fake"), "mine\n").unwrap();
        let cover = json!({"destination": "/proc/uptime", "source": "out/fake", "options": ["bind"]});
        assert_eq!(world.run(&with_mounts(&world, "cat /proc/uptime", &[cover])).ok(), "mine\n");
    });
}

#[test]
fn usual_devices_and_links_are_there() {
    both(|world| {
        let script = "for d in null zero full random urandom tty; do stat -c %t,%T,%a /dev/$d; done; \
                      for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo x > /dev/null; head -c 2 /dev/zero | wc -c";
        assert_eq!(
            world.output(script).lines().collect::<Vec<_>>(),
            [
                "1,3,666",
                "1,5,666",
                "1,7,666",
                "1,8,666",
                "1,9,666",
                "5,0,666",
                "/proc/self/fd",
                "/proc/self/fd/0",
                "/proc/self/fd/1",
                "/proc/self/fd/2",
                "pts/ptmx",
                "2",
            ]
        );
    });
}

#[test]
fn devices_are_made_as_they_are_listed() {
    as_root(|world| {
        let mut config = world.config("stat -c '%F %t,%T %a %u:%g' /dev/mine /dev/deep/er/pipe /elsewhere");
        config["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 1, "gid": 2},
            {"path": "/dev/deep/er/pipe", "type": "p", "fileMode": 0o600},
            {"path": "/elsewhere", "type": "b", "major": 7, "minor": 1},
        ]);
        assert_eq!(
            world.run(&config).ok().lines().collect::<Vec<_>>(),
            ["character special file a,e5 640 1:2", "fifo 0,0 600 0:0", "block special file 7,1 666 0:0"]
        );
        // The root keeps what was made outside `/dev`; it may be used again, and by no other name.
        world.run(&config).ok();
        config["linux"]["devices"][2]["minor"] = json!(2);
        world.create(&config).refused("`/elsewhere` is there and is not that device");
        world.nothing_is_left();
    });
}

/// Whether a shell may read a device it makes itself.
fn reads(world: &World, rules: Value) -> bool {
    let mut config = world.config("mknod /dev/made c 10 229 && exec 3</dev/made");
    config["process"]["capabilities"] =
        json!({"bounding": ["CAP_MKNOD"], "effective": ["CAP_MKNOD"], "permitted": ["CAP_MKNOD"]});
    config["linux"]["resources"] = json!({"devices": rules});
    world.run(&config).code == 0
}

#[test]
fn only_allowed_devices_can_be_opened() {
    as_root(|world| {
        assert!(!reads(&world, json!([])));
        assert!(!reads(&world, json!([{"allow": false, "access": "rwm"}])));
        let fuse = |allow: bool| json!({"allow": allow, "type": "c", "major": 10, "minor": 229, "access": "r"});
        assert!(reads(&world, json!([fuse(true)])));
        assert!(!reads(&world, json!([fuse(true), fuse(false)])), "the later rule counts");
        assert!(reads(&world, json!([{"allow": true, "access": "rwm"}])));
    });
}

#[test]
fn a_tmpfs_can_begin_with_what_it_covers() {
    both(|world| {
        fs::create_dir_all(world.path("rootfs/data/sub")).unwrap();
        fs::write(world.path("rootfs/data/sub/file"), "copied").unwrap();
        symlink("sub/file", world.path("rootfs/data/link")).unwrap();
        let mount =
            json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]});
        let script = "cat /data/link; echo new > /data/sub/file; cat /data/sub/file";
        assert_eq!(world.run(&with_mounts(&world, script, &[mount])).ok(), "copiednew\n");
        assert_eq!(fs::read_to_string(world.path("rootfs/data/sub/file")).unwrap(), "copied");
    });
}

#[test]
fn propagation_goes_where_it_is_said_to() {
    as_root(|world| {
        let shown = |propagation: &str| {
            let mut config = world.config("grep '^[0-9]* [0-9]* [0-9:]* [^ ]* / ' /proc/self/mountinfo");
            config["linux"]["rootfsPropagation"] = json!(propagation);
            world.run(&config).ok()
        };
        assert!(shown("shared").contains("shared:"));
        assert!(!shown("private").contains("shared:"));
        assert!(shown("unbindable").contains("unbindable"));
        let mount = json!({"destination": "/s", "type": "tmpfs", "source": "t", "options": ["rshared"]});
        assert!(world.run(&with_mounts(&world, "grep ' /s ' /proc/self/mountinfo", &[mount])).ok().contains("shared:"));
        world.nothing_is_left();
    });
}
