//! What conformance suites (`runtime-tools`, `contest`) ask beside what the other files show: small points, one a test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::support::{World, as_root, both, groups};

/// `contest` takes every word on standard error for a failure.
#[track_caller]
fn silent(world: &World, config: &Value) -> String {
    let said = world.run(config);
    assert_eq!(said.err, "", "out: {}", said.out);
    said.ok()
}

fn add(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn names_and_masks_are_asked_for_without_namespaces_of_its_own() {
    as_root(|world| {
        fs::write(world.path("rootfs/secret"), "seen").unwrap();
        fs::write(world.path("rootfs/fixed"), "").unwrap();
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let mut config = world.config("cat /secret; hostname; echo x 2>/dev/null > /fixed || echo refused");
        config["hostname"] = json!("never-the-hosts");
        config["linux"] = json!({
            "namespaces": [{"type": "network"}], "maskedPaths": ["/secret"], "readonlyPaths": ["/fixed"],
        });
        let said = world.run(&config);
        assert!(said.err.contains("warning: `hostname` is not set"), "{}", said.err);
        assert_eq!(said.ok(), format!("{name}refused\n"));
        assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), name);
        world.nothing_is_left();
        assert_eq!(fs::read_to_string(world.path("rootfs/secret")).unwrap(), "seen");
    });
}

#[test]
fn only_the_start_takes_a_process() {
    both(|world| {
        let mut config = world.config("true");
        config.as_object_mut().unwrap().remove("process");
        world.create(&config).ok();
        assert_eq!(world.status(), "created");
        let ended = crate::support::watch(world.pid());
        world.start().refused("no `process`");
        crate::support::wait(&ended);
        assert_eq!(world.status(), "stopped");
        world.delete().ok();
        world.nothing_is_left();
    });
}

#[test]
fn poststart_hooks_are_run_whatever_became_of_the_containers_own() {
    both(|world| {
        let mut config = world.config("echo program >> /out/hooks");
        let note = format!("echo poststart >> {}/hooks", world.path("out").display());
        config["hooks"] = json!({
            "startContainer": [{"path": "/bin/false"}],
            "poststart": [{"path": "/bin/sh", "args": ["sh", "-c", note]}],
        });
        world.create(&config).ok();
        world.start().refused("hook startContainer");
        assert_eq!(fs::read_to_string(world.path("out/hooks")).unwrap(), "poststart\n");
        assert_eq!(world.status(), "stopped");
        // A program that is not there is another matter.
        config["hooks"].as_object_mut().unwrap().remove("startContainer");
        config["process"]["args"] = json!(["not-there"]);
        world.delete().ok();
        world.create(&config).ok();
        world.start().refused("cannot run `not-there`");
        assert_eq!(fs::read_to_string(world.path("out/hooks")).unwrap(), "poststart\n");
        world.delete().ok();
        world.nothing_is_left();
    });
}

#[test]
fn whoever_is_to_be_asked_is_told_before_the_start() {
    both(|world| {
        for no_new_privileges in [true, false] {
            let socket = world.path("out/ask");
            let _ = fs::remove_file(&socket);
            let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
            world.expect_word();
            let script = "grep -E 'Seccomp:|CapEff' /proc/self/status > /out/status; echo > /out/told";
            let mut config = world.config(script);
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            let kill = json!(["CAP_KILL"]);
            config["process"]["capabilities"] = json!({"bounding": kill, "effective": kill, "permitted": kill});
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": socket,
                "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_NOTIFY"}],
            });
            world.create(&config).ok();
            let (text, _fd) = crate::support::receive(&listener);
            let state: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!((&state["pid"], &state["state"]["status"]), (&json!(world.pid()), &json!("creating")));
            assert_eq!(world.status(), "created");
            world.start().ok();
            world.hear_word();
            let status = fs::read_to_string(world.path("out/status")).unwrap();
            assert!(status.contains("CapEff:\t0000000000000020") && status.contains("Seccomp:\t2"), "{status}");
            world.runtime(&["delete", "--force", &world.id]).ok();
            fs::remove_file(world.path("out/told")).unwrap();
        }
        world.nothing_is_left();
    });
}

#[test]
fn a_relative_destination_is_no_reason_to_speak() {
    both(|world| {
        let mut config = world.config("cat /proc/self/mountinfo");
        add(&mut config, json!({"destination": "tmp/mine", "type": "tmpfs", "source": "t"}));
        assert!(silent(&world, &config).contains(" /tmp/mine "));
    });
}

#[test]
fn what_the_kernel_tells_is_mounted_on_no_link() {
    both(|world| {
        fs::create_dir(world.path("rootfs/elsewhere")).unwrap();
        for (place, kind) in [("proc", "proc"), ("sys", "sysfs")] {
            let mut config = world.config("true");
            add(&mut config, json!({"destination": format!("/{place}/"), "type": kind, "source": kind}));
            let link = world.path("rootfs").join(place);
            let _ = fs::remove_dir(&link);
            symlink("/elsewhere", &link).unwrap();
            world.create(&config).refused("must be mounted on ordinary directory");
            fs::remove_file(&link).unwrap();
            // The control: anything else may be, within the root.
            symlink("/elsewhere", world.path("rootfs/link")).unwrap();
            let mut config = world.config("cat /proc/self/mountinfo");
            add(&mut config, json!({"destination": "/link", "type": "tmpfs", "source": "t"}));
            assert!(world.run(&config).ok().contains(" /elsewhere "));
            fs::remove_file(world.path("rootfs/link")).unwrap();
        }
        world.nothing_is_left();
    });
}

/// As another user, with ids of its own, whom the root belongs to.
fn foreign(world: &World, script: &str) -> Value {
    world.shell("chown -Rh 700000:700000 rootfs").ok();
    let mut config = world.config(script);
    let linux = &mut config["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}]);
    config
}

#[test]
fn a_root_behind_a_closed_folder_can_be_another_users() {
    as_root(|world| {
        fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        for propagation in ["", "private", "slave"] {
            let mut config = foreign(&world, "id -u; ls /bin/sh; cat /proc/self/uid_map");
            if !propagation.is_empty() {
                config["linux"]["rootfsPropagation"] = json!(propagation);
            }
            let out = silent(&world, &config);
            let words: Vec<&str> = out.split_whitespace().collect();
            assert_eq!(words, ["0", "/bin/sh", "0", "700000", "1000"], "{propagation}");
        }
        world.nothing_is_left();
    });
}

#[test]
fn binds_are_seen_through_a_user_namespace_that_is_joined() {
    as_root(|world| {
        let holder = world.beside();
        holder.create(&foreign(&holder, "exec sleep 1000")).ok();
        fs::create_dir(world.path("mine")).unwrap();
        fs::write(world.path("mine/file"), "").unwrap();
        let owner = |option: &str| {
            world.shell("chown -Rh 700000:700000 rootfs").ok();
            let mut config = world.config("stat -c %u:%g /mine/file");
            let path = format!("/proc/{}/ns/user", holder.pid());
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user", "path": path}));
            add(&mut config, json!({"destination": "/mine", "source": "mine", "options": ["rbind", option]}));
            world.run(&config).ok()
        };
        assert_eq!(owner("idmap"), "0:0\n");
        assert_ne!(owner("ro"), "0:0\n", "the control");
        holder.runtime(&["delete", "--force", &holder.id]).ok();
        world.nothing_is_left();
    });
}

#[test]
fn access_times_are_kept_as_the_options_say() {
    as_root(|world| {
        world
            .shell(
                "mkdir m && mount -t tmpfs -o strictatime t m && mkdir m/sub && mount -t tmpfs -o strictatime t m/sub",
            )
            .ok();
        // Options of the bind; what becomes of the mount and of the one below it. The kernel calls strict what has no word.
        for (option, above, below) in [
            ("rw", "rw", "rw"),
            ("atime", "rw,relatime", "rw"),
            ("ratime", "rw,relatime", "rw,relatime"),
            ("noatime", "rw,noatime", "rw"),
            ("rnoatime", "rw,noatime", "rw,noatime"),
            ("relatime", "rw,relatime", "rw"),
            ("rrelatime", "rw,relatime", "rw,relatime"),
            ("norelatime", "rw,relatime", "rw"),
            ("rnorelatime", "rw,relatime", "rw,relatime"),
            ("strictatime", "rw", "rw"),
            ("rnostrictatime", "rw,relatime", "rw,relatime"),
            ("rstrictatime", "rw", "rw"),
            ("rnodiratime", "rw,nodiratime", "rw,nodiratime"),
            ("rdiratime", "rw", "rw"),
        ] {
            let mut config = world.config("grep ' /m' /proc/self/mountinfo | grep -o ' /m[^-]*'");
            add(&mut config, json!({"destination": "/m", "source": "m", "options": ["rbind", option]}));
            let out = silent(&world, &config);
            let found: Vec<&str> = out.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
            assert_eq!(found, [above, below], "{option}");
        }
        world.shell("umount m/sub m").ok();
    });
}

#[test]
fn a_root_that_cannot_be_bound_has_its_masks() {
    as_root(|world| {
        fs::write(world.path("rootfs/fixed"), "").unwrap();
        let mut config =
            world.config("echo x 2>/dev/null > /fixed || echo refused; grep -c unbindable /proc/self/mountinfo");
        config["linux"]["rootfsPropagation"] = json!("unbindable");
        config["linux"]["readonlyPaths"] = json!(["/fixed"]);
        assert_eq!(silent(&world, &config), "refused\n1\n");
        world.nothing_is_left();
    });
}

#[test]
fn where_a_further_process_begins_is_told_to_those_who_debug() {
    as_root(|world| {
        let mut config = world.config("exec sleep 1000");
        config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
        world.create(&config).ok();
        world.start().ok();
        let exec = |debug: &[&str]| {
            let args = [debug, &["exec", &world.id, "grep", "Cpus_allowed_list", "/proc/self/status"]].concat();
            world.runtime(&args)
        };
        let said = exec(&["--debug"]);
        assert!(said.err.contains("debug: initial affinity: 0x1\n"), "{}", said.err);
        assert_eq!(said.ok(), "Cpus_allowed_list:\t0\n");
        assert_eq!(exec(&[]).err, "");
        world.end();
    });
}

#[test]
fn hooks_of_the_first_version_know_a_container_that_is_created() {
    both(|world| {
        let mut config = world.config("true");
        let note = |name: &str| {
            let script = format!("cat > {}/{name}", world.path("out").display());
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        config["hooks"] = json!({"prestart": note("prestart"), "createRuntime": note("createRuntime")});
        world.run(&config).ok();
        for (name, status) in [("prestart", "created"), ("createRuntime", "creating")] {
            let state: Value = serde_json::from_slice(&fs::read(world.path("out").join(name)).unwrap()).unwrap();
            assert_eq!(state["status"], json!(status), "{name}");
        }
    });
}

#[test]
fn network_devices_move_in_with_their_addresses() {
    as_root(|world| {
        let name = format!("o{}", std::process::id());
        let made = world
            .shell(&format!("ip link add {name} type veth peer name {name}p && ip addr add 192.0.2.7/24 dev {name}"));
        if made.code != 0 {
            eprintln!("skipped: no pair of network devices can be made: {}", made.err.trim());
            return;
        }
        let here = |name: &str| std::path::Path::new("/sys/class/net").join(name).exists();
        let devices = |devices: Value| {
            let mut config = world.config("ifconfig inside0 || ip addr show inside0; cat /sys/class/net/inside0/flags");
            add(&mut config, json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}));
            symlink("busybox", world.path("rootfs/bin/ifconfig")).unwrap_or_default();
            config["linux"]["netDevices"] = devices;
            config
        };
        // Of two of which one is not there neither is moved.
        let both = devices(json!({&name: {"name": "inside0"}, "zz-not-there": {}}));
        world.create(&both).refused("there is no network device `zz-not-there`");
        assert!(here(&name));
        let out = world.run(&devices(json!({&name: {"name": "inside0"}}))).ok();
        assert!(out.contains("192.0.2.7") && !here(&name), "{out}");
        let flags = out.lines().last().unwrap().trim_start_matches("0x");
        assert_eq!(u32::from_str_radix(flags, 16).unwrap() & 1, 1, "it is switched on: {out}");
        let mut shared = devices(json!({"lo": {}}));
        shared["linux"]["namespaces"] = json!([{"type": "mount"}]);
        world.create(&shared).refused("takes a `network` namespace");
        world.create(&devices(json!({"lo": {"name": "../x"}}))).refused("not a device's name");
        world.nothing_is_left();
    });
}

#[test]
fn memory_is_taken_from_the_nodes_that_are_named() {
    both(|world| {
        if !std::path::Path::new("/proc/self/numa_maps").exists() {
            eprintln!("skipped: this kernel has no memory nodes");
            return;
        }
        for (policy, found) in [
            (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), "interleave:0"),
            (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0"),
            (json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}), "prefer=relative:0"),
            (json!({"mode": "MPOL_DEFAULT", "nodes": ""}), "default"),
        ] {
            let mut config = world.config("head -n 1 /proc/self/numa_maps > /out/policy; exec sleep 1000");
            config["linux"]["memoryPolicy"] = policy;
            world.create(&config).ok();
            world.start().ok();
            let further = world.runtime(&["exec", &world.id, "head", "-n", "1", "/proc/self/numa_maps"]).ok();
            assert_eq!(further.split(' ').nth(1), Some(found));
            let own = fs::read_to_string(format!("/proc/{}/numa_maps", world.pid())).unwrap();
            assert_eq!(own.split(' ').nth(1), Some(found));
            world.runtime(&["delete", "--force", &world.id]).ok();
        }
        let mut config = world.config("true");
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1000"});
        world.create(&config).refused("cannot set `linux.memoryPolicy`");
        world.nothing_is_left();
    });
}

#[test]
fn an_update_of_half_a_limit_keeps_the_other() {
    as_root(|world| {
        let mut config = world.config("exec sleep 1000");
        config["linux"]["resources"] = json!({
            "cpu": {"quota": 20_000, "period": 50_000}, "memory": {"limit": 64 << 20}, "pids": {"limit": 50},
        });
        world.create(&config).ok();
        let says = |file: &str| {
            let found = groups(&world.id).into_iter().map(|group| group.join(file)).find(|path| path.exists());
            found.map(|path| fs::read_to_string(path).unwrap().trim().to_owned())
        };
        let cpu = || {
            says("cpu.max").unwrap_or_else(|| {
                format!("{} {}", says("cpu.cfs_quota_us").unwrap(), says("cpu.cfs_period_us").unwrap())
            })
        };
        let memory = || says("memory.max").or_else(|| says("memory.limit_in_bytes")).unwrap();
        let update = |args: &[&str]| world.runtime(&[&["update"], args, &[&*world.id]].concat());
        for (args, found) in [
            (&["--cpu-period", "40000"][..], "20000 40000"),
            (&["--cpu-quota", "10000"], "10000 40000"),
            (&["--memory", "100M"], "10000 40000"),
            (&["--cpu-quota", "30000", "--cpu-period", "60000"], "30000 60000"),
        ] {
            update(args).ok();
            assert_eq!(cpu(), found, "{args:?}");
        }
        assert_eq!(memory(), (100 << 20).to_string());
        update(&["--pids-limit", "0"]).ok();
        assert_eq!(says("pids.max").unwrap(), "1", "none at all would be a container of no use");
        for (args, reason) in
            [(&["--memory", "much"][..], "`100M`"), (&["--blkio-weight", "2000"], "between 10 and 1000")]
        {
            let said = update(args);
            assert!(said.code == 1 && said.err.contains(reason), "{said:?}");
        }
        world.runtime(&["delete", "--force", &world.id]).ok();
        world.nothing_is_left();
    });
}

#[test]
fn limits_of_version_2_are_those_of_the_table() {
    as_root(|world| {
        let top = std::path::Path::new("/sys/fs/cgroup");
        let Ok(controllers) = fs::read_to_string(top.join("cgroup.controllers")) else {
            eprintln!("skipped: control groups of version 1 (`cargo xtask vm-test oci version_2` has version 2)");
            return;
        };
        let place = format!("/oci-suite/{}", world.id);
        let group = top.join(place.trim_start_matches('/'));
        let create = |resources: Value| {
            let mut config = world.config("true");
            config["linux"]["cgroupsPath"] = json!(place);
            config["linux"]["resources"] = resources;
            world.create(&config)
        };
        let disk = fs::read_to_string("/sys/block/vda/dev").unwrap_or_default();
        let (major, minor) = disk.trim().split_once(':').unwrap_or(("0", "0"));
        let number = |text: &str| text.parse::<i64>().unwrap();
        let rate = json!([{"major": number(major), "minor": number(minor), "rate": 102_400}]);
        let unified = json!({"memory.min": "131072", "memory.max": "41943040", "pids.max": "42", "cpu.max": "5000 50000", "cpu.weight": "42"});
        for (controller, resources, file, found) in [
            ("cpu", json!({"cpu": {"shares": 22_000}}), "cpu.weight", "840"),
            ("cpu", json!({"cpu": {"shares": 0}}), "cpu.weight", "100"),
            ("cpu", json!({"cpu": {"shares": 500_000}}), "cpu.weight", "10000"),
            ("cpu", json!({"cpu": {"quota": 250_000}}), "cpu.max", "250000 100000"),
            ("cpu", json!({"cpu": {"quota": 0}}), "cpu.max", "max 100000"),
            ("cpu", json!({"cpu": {"quota": -9999}}), "cpu.max", "max 100000"),
            ("cpu", json!({"cpu": {"period": 250_000}}), "cpu.max", "max 250000"),
            ("cpu", json!({"cpu": {"idle": 1}}), "cpu.idle", "1"),
            ("cpuset", json!({"cpu": {"cpus": "0-1", "mems": "0"}}), "cpuset.cpus", "0-1"),
            ("memory", json!({"memory": {"limit": 48 << 20}}), "memory.max", "50331648"),
            ("memory", json!({"memory": {"reservation": 16 << 20}}), "memory.low", "16777216"),
            ("memory", json!({"memory": {"limit": 48 << 20, "swap": 64 << 20}}), "memory.swap.max", "16777216"),
            ("pids", json!({"pids": {"limit": -1}}), "pids.max", "max"),
            ("io", json!({"blockIO": {"throttleReadBpsDevice": rate}}), "io.max", "rbps=102400 "),
            ("io", json!({"blockIO": {"throttleWriteIOPSDevice": rate}}), "io.max", "wiops=102400"),
            (
                "hugetlb",
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 30}]}),
                "hugetlb.2MB.max",
                "1073741824",
            ),
            (
                "hugetlb",
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 30}]}),
                "hugetlb.2MB.rsvd.max",
                "1073741824",
            ),
            ("memory", json!({"memory": {"limit": 32 << 20}, "unified": unified}), "memory.max", "41943040"),
            ("cpu", json!({"cpu": {"shares": 3333, "quota": 40_000}, "unified": unified}), "cpu.max", "5000 50000"),
        ] {
            if !controllers.split_whitespace().any(|one| one == controller) || controller == "io" && disk.is_empty() {
                eprintln!("skipped: no {controller} here");
                continue;
            }
            create(resources).ok();
            let text = fs::read_to_string(group.join(file)).unwrap();
            let same = if controller == "io" { text.contains(found) } else { text.trim() == found };
            assert!(same, "{file} is {text:?}, not {found}");
            world.runtime(&["delete", "--force", &world.id]).ok();
        }
        create(json!({"unified": {"nonexistent.max": "1"}})).refused("`nonexistent` controller");
        create(json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1 << 20}]})).refused("linux.resources");
        create(json!({"cpu": {"period": 100}})).refused("linux.resources");
        assert!(!group.exists());
        // What is there already and not asked for stays as it is, and the group with it.
        world.shell(&format!(
            "cd {}; mkdir -p .{place}; echo +cpu > cgroup.subtree_control; echo +cpu > oci-suite/cgroup.subtree_control; \
             echo '250000 250000' > .{place}/cpu.max",
            top.display()
        )).ok();
        create(json!({"cpu": {}})).ok();
        assert_eq!(fs::read_to_string(group.join("cpu.max")).unwrap().trim(), "250000 250000");
        world.runtime(&["delete", "--force", &world.id]).ok();
        assert!(group.exists());
        world.shell(&format!("rmdir {} {}", group.display(), group.parent().unwrap().display())).ok();
        world.nothing_is_left();
    });
}
