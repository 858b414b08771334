//! What happens to a container while it lives: hooks, further processes, halts, limits.

use std::fs;

use serde_json::{Value, json};

use crate::support::{World, as_root, both, groups, wait, watch};

/// A hook of the host's shell that appends a line to a file of the world.
fn noting(world: &World, name: &str, then: &str) -> Value {
    let script = format!("echo {name} >> {}; {then}", world.path("out/hooks").display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
}

fn noted(world: &World) -> Vec<String> {
    fs::read_to_string(world.path("out/hooks")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn hooks_come_in_their_order_with_the_state() {
    both(|world| {
        world.expect_word();
        let mut config = world.config("echo program >> /out/hooks; echo > /out/told; exec sleep 1000");
        let state = format!("cat > {}/state", world.path("out").display());
        config["hooks"] = json!({
            "prestart": noting(&world, "prestart", &format!("{state}1")),
            "createRuntime": noting(&world, "createRuntime", "true"),
            "createContainer": noting(&world, "createContainer", &format!("{state}2")),
            // This one finds its program and its files inside.
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /out/hooks; cat > /out/state3; echo $A > /out/a"]}],
            "poststart": noting(&world, "poststart", &format!("{state}4")),
            "poststop": noting(&world, "poststop", &format!("{state}5")),
        });
        config["process"]["env"] = json!(["PATH=/bin", "A=of the program"]);
        world.create(&config).ok();
        let pid = world.pid();
        assert_eq!(noted(&world), ["prestart", "createRuntime", "createContainer"]);
        world.start().ok();
        world.hear_word();
        world.end();
        world.delete().ok();
        let mut all = noted(&world);
        // The program and the hook after its start run side by side.
        all[4..6].sort();
        let expected =
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "program", "poststop"];
        assert_eq!(all, expected);
        assert_eq!(fs::read_to_string(world.path("out/a")).unwrap(), "of the program\n");
        for (number, status) in [(1, "created"), (2, "creating"), (3, "created"), (4, "running"), (5, "stopped")] {
            let state = fs::read(world.path(&format!("out/state{number}"))).unwrap();
            let state: Value = serde_json::from_slice(&state).unwrap();
            assert_eq!((&state["status"], &state["id"]), (&json!(status), &json!(world.id)), "{number}");
            if status != "stopped" {
                assert_eq!(state["pid"], json!(pid));
            }
        }
        world.nothing_is_left();
    });
}

#[test]
fn a_hook_that_fails_ends_what_it_was_for() {
    both(|world| {
        for kind in ["prestart", "createRuntime", "createContainer"] {
            let mut config = world.config("true");
            config["hooks"] =
                json!({kind: noting(&world, kind, "exit 3"), "poststop": noting(&world, "never", "true")});
            world.create(&config).refused(&format!("hook {kind}: `/bin/sh` ended with exit code 3"));
            world.nothing_is_left();
        }
        let mut config = world.config("echo program >> /out/hooks");
        config["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]});
        world.create(&config).ok();
        let ended = watch(world.pid());
        world.start().refused("hook startContainer: `/bin/false` ended with exit code 1");
        wait(&ended);
        assert_eq!(world.status(), "stopped");
        world.delete().ok();
        assert_eq!(noted(&world), ["prestart", "createRuntime", "createContainer"]);

        let mut config = world.config("exec sleep 1000");
        let mut poststart = noting(&world, "first", "exit 1");
        poststart.as_array_mut().unwrap().extend(noting(&world, "second", "true").as_array().unwrap().clone());
        config["hooks"] = json!({"poststart": poststart});
        world.create(&config).ok();
        world.start().refused("hook poststart");
        assert_eq!(world.status(), "stopped");
        world.delete().ok();
        assert!(!noted(&world).contains(&"second".to_owned()));

        let mut config = world.config("true");
        let mut poststop = noting(&world, "fails", "exit 1");
        poststop.as_array_mut().unwrap().extend(noting(&world, "goes on", "true").as_array().unwrap().clone());
        config["hooks"] = json!({"poststop": poststop});
        let said = world.run(&config);
        assert!(said.err.contains("warning: hook poststop"), "{}", said.err);
        said.ok();
        assert!(noted(&world).ends_with(&["fails".to_owned(), "goes on".to_owned()]));
        world.nothing_is_left();
    });
}

#[test]
fn a_hook_that_hangs_is_ended() {
    both(|world| {
        let mut config = world.config("true");
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]});
        world.create(&config).refused("`/bin/sleep` did not end within 1 s");
        world.nothing_is_left();
    });
}

#[test]
fn further_processes_have_what_the_container_has() {
    both(|world| {
        let mut config = world.config("exec sleep 1000");
        config["process"]["env"] = json!(["PATH=/bin", "A=1"]);
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 50}]);
        config["process"]["noNewPrivileges"] = json!(true);
        config["hostname"] = json!("inside");
        world.create(&config).ok();
        world.start().ok();
        let exec = |args: &[&str]| {
            let mut all = vec!["exec"];
            all.extend(args);
            world.runtime(&all)
        };
        let id = &*world.id;
        let script = "hostname; echo $A$B; ulimit -n; pwd; grep -c . /proc/self/cgroup >/dev/null; grep NoNewPrivs /proc/self/status; \
                      grep CapBnd /proc/self/status; readlink /proc/1/exe";
        let out = exec(&["-e", "B=2", "--cwd", "/bin", id, "sh", "-c", script]).ok();
        let expected = ["inside", "12", "50", "/bin", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "/bin/busybox"];
        assert_eq!(out.lines().collect::<Vec<_>>(), expected);
        for kind in ["pid", "mnt", "ipc", "uts", "net", "cgroup", "user"] {
            let theirs = fs::read_link(format!("/proc/{}/ns/{kind}", world.pid())).unwrap();
            assert_eq!(exec(&[id, "readlink", &format!("/proc/self/ns/{kind}")]).ok().trim(), theirs.to_str().unwrap());
        }
        assert_eq!(exec(&[id, "sh", "-c", "exit 9"]).code, 9);
        exec(&[id, "gone"]).refused("cannot run `gone`");
        exec(&["--cap", "CAP_X", id, "true"]).refused("not a capability");
        let capable = exec(&["--cap", "CAP_KILL", id, "grep", "CapEff", "/proc/self/status"]).ok();
        assert_eq!(capable, "CapEff:\t0000000000000020\n");
        fs::write(
            world.path("process.json"),
            json!({"args": ["sh", "-c", "echo $C"], "cwd": "/", "env": ["PATH=/bin", "C=3"]}).to_string(),
        )
        .unwrap();
        assert_eq!(exec(&["--process", "process.json", id]).ok(), "3\n");
        let pid_file = world.path("out/pid");
        let detached = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), id, "sleep", "1000"];
        // It holds what it inherits.
        let null = std::process::Stdio::null;
        assert!(world.command(&detached).stdout(null()).stderr(null()).status().unwrap().success());
        let further: u32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
        let ended = watch(further);
        world.end();
        // It ends with the first process of its namespace.
        wait(&ended);
        world.delete().ok();
        world.nothing_is_left();
    });
}

#[test]
fn a_container_halts_and_goes_on() {
    as_root(|world| {
        world.create(&world.config("exec sleep 1000")).ok();
        world.start().ok();
        world.runtime(&["pause", &world.id]).ok();
        assert_eq!(world.status(), "paused");
        world.runtime(&["exec", &world.id, "true"]).refused("is paused");
        world.runtime(&["pause", &world.id]).refused("is paused and cannot be paused");
        world.runtime(&["resume", &world.id]).ok();
        assert_eq!(world.status(), "running");
        world.runtime(&["exec", &world.id, "true"]).ok();
        // Also what is halted can be ended.
        world.runtime(&["pause", &world.id]).ok();
        world.runtime(&["delete", "--force", &world.id]).ok();
        world.nothing_is_left();
    });
}

fn limit(world: &World, file: &str) -> String {
    let found = groups(&world.id).into_iter().find(|group| group.join(file).exists());
    fs::read_to_string(found.unwrap_or_else(|| panic!("no {file}")).join(file)).unwrap().trim().to_owned()
}

/// Whether this machine has its controllers in version 1.
fn version_1() -> bool {
    fs::metadata("/sys/fs/cgroup/memory/memory.limit_in_bytes").is_ok()
}

#[test]
fn limits_are_set_change_and_bite() {
    as_root(|world| {
        let mut config = world.config("exec sleep 1000");
        config["linux"]["cgroupsPath"] = json!(format!("/oci-test/{}", world.id));
        config["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20},
            "cpu": {"shares": 512, "quota": 20000, "period": 50000, "cpus": "0"},
            "pids": {"limit": 8},
        });
        world.create(&config).ok();
        let (memory, quota) = match version_1() {
            true => ("memory.limit_in_bytes", "cpu.cfs_quota_us"),
            false => ("memory.max", "cpu.max"),
        };
        assert_eq!(limit(&world, memory), (64 << 20).to_string());
        assert!(limit(&world, quota).starts_with("20000"));
        assert_eq!((limit(&world, "pids.max"), limit(&world, "cpuset.cpus")), ("8".to_owned(), "0".to_owned()));
        world.start().ok();
        world.runtime(&["update", "--memory", "33554432", "--pids-limit", "4", &world.id]).ok();
        assert_eq!((limit(&world, memory), limit(&world, "pids.max")), ((32 << 20).to_string(), "4".to_owned()));
        let bomb =
            world.runtime(&["exec", &world.id, "sh", "-c", "sleep 5 & sleep 5 & sleep 5 & sleep 5 & sleep 5 & true"]);
        assert!(bomb.err.contains("can't fork"), "{bomb:?}");
        world.runtime(&["update", "--resources", "/gone", &world.id]).refused("/gone");
        world.runtime(&["delete", "--force", &world.id]).ok();
        assert!(!std::path::Path::new("/sys/fs/cgroup/pids/oci-test").exists());
        world.nothing_is_left();

        config["linux"]["resources"] = json!({"memory": {"limit": 32 << 20}});
        // All of it would take more than there is.
        config["process"]["args"] =
            json!(["sh", "-c", "dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null; echo $?"]);
        assert_ne!(world.run(&config).out.trim(), "0");
        config["linux"]["resources"] = json!({});
        assert_eq!(world.run(&config).out.trim(), "0", "the control");
    });
}

#[test]
fn a_limit_that_is_not_to_be_had_is_refused() {
    both(|world| {
        let mut config = world.config("true");
        let wanted = match world.is_user() {
            true => json!({"memory": {"limit": 1 << 30}}),
            false if version_1() => json!({"unified": {"memory.high": "1000000000"}}),
            false => json!({"memory": {"swappiness": 5}}),
        };
        config["linux"]["resources"] = wanted;
        world.create(&config).refused("`linux.resources`");
        world.nothing_is_left();
    });
}

#[test]
fn devices_are_filtered_in_version_2_too() {
    as_root(|world| {
        let script = "mknod /dev/made c 10 229 && exec 3</dev/made";
        let mut config = world.config(script);
        config["process"]["capabilities"] =
            json!({"bounding": ["CAP_MKNOD"], "effective": ["CAP_MKNOD"], "permitted": ["CAP_MKNOD"]});
        let mut runs = |rules: Value| {
            config["linux"]["resources"] = json!({"devices": rules});
            world.write(&config);
            let command = world.command(&["run", &world.id]);
            let args: Vec<String> = command.get_args().map(|arg| arg.to_str().unwrap().to_owned()).collect();
            // As it looks where there is nothing but version 2.
            let view = "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$@\"";
            let said: crate::support::Said = std::process::Command::new("unshare")
                .args(["-m", "sh", "-c", view, "sh"])
                .arg(command.get_program())
                .args(&args)
                .current_dir(world.dir.path())
                .output()
                .unwrap()
                .into();
            assert!(said.code == 0 || said.err.contains("can't open"), "{said:?}");
            said.code == 0
        };
        let fuse = |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 10, "minor": 229, "access": access});
        assert!(!runs(json!([])));
        assert!(runs(json!([fuse(true, "r")])));
        assert!(!runs(json!([fuse(true, "w")])), "another way of using it");
        assert!(!runs(json!([fuse(true, "rw"), fuse(false, "r")])), "the later rule counts");
        assert!(runs(json!([{"allow": true, "access": "rwm"}])));
        world.nothing_is_left();
    });
}

#[test]
fn namespaces_are_new_joined_or_the_callers() {
    as_root(|world| {
        let of = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let mut config = world.config("exec sleep 1000");
        world.create(&config).ok();
        let (first, first_id) = (world.pid().to_string(), world.id.clone());
        for kind in ["pid", "mnt", "ipc", "uts", "net", "cgroup"] {
            assert_ne!(of(&first, kind), of("self", kind), "{kind}");
        }
        assert_eq!(of(&first, "user"), of("self", "user"));
        // Another shares some with it and some with the caller.
        let second = world.beside();
        config["linux"]["namespaces"] = json!([
            {"type": "mount"},
            {"type": "network", "path": format!("/proc/{first}/ns/net")},
            {"type": "ipc", "path": format!("/proc/{first}/ns/ipc")},
            {"type": "pid", "path": format!("/proc/{first}/ns/pid")},
        ]);
        second.create(&config).ok();
        let pid = second.pid().to_string();
        for kind in ["net", "ipc", "pid"] {
            assert_eq!(of(&pid, kind), of(&first, kind), "{kind}");
        }
        for kind in ["uts", "cgroup", "user"] {
            assert_eq!(of(&pid, kind), of("self", kind), "{kind}");
        }
        second.runtime(&["delete", "--force", &second.id]).ok();
        world.runtime(&["delete", "--force", &first_id]).ok();
        world.nothing_is_left();
    });
}

#[test]
fn a_container_with_none_of_its_own_namespaces_leaves_the_hosts_mounts_as_they_were() {
    as_root(|world| {
        let mut config = world.config("readlink /proc/self/ns/mnt; cat /etc/passwd; ls /");
        config["linux"]["namespaces"] = json!([]);
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = mounts();
        let said = world.run(&config);
        assert!(said.out.contains(fs::read_link("/proc/self/ns/mnt").unwrap().to_str().unwrap()), "{said:?}");
        assert!(said.err.contains("can't open '/etc/passwd'"), "it sees its own root: {said:?}");
        let own = |text: &str| text.lines().filter(|line| line.contains(world.dir.path().to_str().unwrap())).count();
        assert_eq!((own(&before), own(&mounts())), (0, 0));
        // Nor is a root that somebody else mounted taken away with it, whether it was made or not.
        world.shell("mount --bind rootfs rootfs").ok();
        world.run(&config).ok();
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
        world.create(&config).refused("hook createRuntime");
        config["mounts"][0]["type"] = json!("nofs");
        world.create(&config).refused("no file system `nofs`");
        assert_eq!(own(&mounts()), 1);
        world.shell("umount rootfs").ok();
        world.nothing_is_left();
    });
}

#[test]
fn clocks_and_ids_are_the_namespaces_own() {
    as_root(|world| {
        let mut config = world.config("cat /proc/self/uid_map; cat /proc/uptime; id -u; touch /out/file");
        let linux = &mut config["linux"];
        linux["namespaces"].as_array_mut().unwrap().extend([json!({"type": "user"}), json!({"type": "time"})]);
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}]);
        linux["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 0}});
        config["process"]["user"] = json!({"uid": 5, "gid": 5});
        // The root belongs to the container's root, as engines arrange it.
        world.shell("chown -Rh 700000:700000 rootfs").ok();
        fs::set_permissions(world.path("out"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let out = world.run(&config).ok();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "700000", "1000"]);
        assert!(lines[1].split('.').next().unwrap().parse::<u64>().unwrap() >= 1_000_000_000, "{out}");
        assert_eq!(lines[2], "5");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(world.path("out/file")).unwrap().uid(), 700_005);
        // What only the host's root may reach can be bound all the same.
        fs::create_dir_all(world.path("closed/below")).unwrap();
        fs::set_permissions(world.path("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut reaching = config.clone();
        reaching["mounts"][3]["source"] = json!("closed/below");
        reaching["process"]["args"] = json!(["ls", "/out"]);
        world.run(&reaching).ok();
        // A bind with mapped ids shows the host's own files as the container's root's.
        fs::create_dir(world.path("mine")).unwrap();
        fs::write(world.path("mine/file"), "").unwrap();
        config["process"]["user"] = json!({"uid": 0, "gid": 0});
        config["process"]["args"] = json!(["stat", "-c", "%u", "/mine/file"]);
        let mount = |option: &str| {
            json!({"destination": "/mine", "source": "mine", "options": ["bind", option],
            "uidMappings": [{"containerID": 0, "hostID": 700_000, "size": 1000}],
            "gidMappings": [{"containerID": 0, "hostID": 700_000, "size": 1000}]})
        };
        config["mounts"].as_array_mut().unwrap().push(mount("idmap"));
        assert_eq!(world.run(&config).ok(), "0\n");
        config["mounts"][4] = json!({"destination": "/mine", "source": "mine", "options": ["bind"]});
        assert_ne!(world.run(&config).ok(), "0\n", "the control");
    });
}

#[test]
fn sysctls_of_its_own_namespaces_are_set() {
    both(|world| {
        let mut config = world.config(
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; hostname; cat /proc/sys/kernel/domainname",
        );
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "12345"});
        config["hostname"] = json!("name");
        config["domainname"] = json!("domain");
        assert_eq!(world.run(&config).ok(), "1\n12345\nname\ndomain\n");
    });
}

#[test]
fn system_calls_are_filtered() {
    both(|world| {
        let script = "mkdir /tmp/x 2>&1; echo $?; chmod 700 /out 2>&1; echo $?";
        let filter = |syscalls: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls});
        for no_new_privileges in [true, false] {
            let mut config = world.config(script);
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            fs::create_dir_all(world.path("rootfs/tmp")).unwrap();
            fs::set_permissions(world.path("rootfs/tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            let _ = fs::remove_dir(world.path("rootfs/tmp/x"));
            assert_eq!(world.run(&config).ok(), "0\n0\n", "the control");
            fs::remove_dir(world.path("rootfs/tmp/x")).unwrap();
            config["linux"]["seccomp"] = filter(json!([
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": 0o711}]},
            ]));
            let out = world.run(&config).ok();
            assert!(out.contains("No space left on device\n1\n") && out.ends_with("\n0\n"), "{out}");
            config["linux"]["seccomp"] = filter(json!([{
                "names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0o700, "valueTwo": 0o700}],
            }]));
            let _ = fs::remove_dir(world.path("rootfs/tmp/x"));
            let out = world.run(&config).ok();
            assert!(out.contains("Operation not permitted") && out.ends_with("\n1\n"), "{out}");
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"});
            world.create(&config).ok();
            let ended = watch(world.pid());
            // Not even its program may be loaded.
            let _ = world.start();
            wait(&ended);
            world.delete().ok();
        }
    });
}

#[test]
fn whoever_is_to_be_asked_gets_the_listener() {
    both(|world| {
        let socket = world.path("out/ask");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let mut config = world.config("mkdir /asked; echo done");
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": socket,
            "listenerMetadata": "meta \"data\"",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        });
        world.create(&config).ok();
        world.start().ok();
        let (text, fd) = crate::support::receive(&listener);
        let state: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("meta \"data\"")));
        assert_eq!(state["state"]["id"], json!(world.id));
        // Once it asks there is something to read.
        wait(&fd);
        world.end();
    });
}

#[test]
fn containers_are_listed_with_their_processes() {
    as_root(|world| {
        world.create(&world.config("sleep 1000 & exec sleep 1001")).ok();
        world.start().ok();
        let list: Value = serde_json::from_str(&world.runtime(&["list", "--format", "json"]).ok()).unwrap();
        assert_eq!((&list[0]["id"], &list[0]["status"]), (&json!(world.id), &json!("running")));
        assert_eq!(world.runtime(&["list", "-q"]).ok(), format!("{}\n", world.id));
        assert!(world.runtime(&["list"]).ok().starts_with("ID "));
        let first = world.pid();
        let pids: Vec<u32> = serde_json::from_str(&world.runtime(&["ps", "--format", "json", &world.id]).ok()).unwrap();
        assert!(pids.contains(&first), "{pids:?}");
        world.end();
    });
}
