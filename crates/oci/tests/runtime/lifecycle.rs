//! States, what may be done in which, and that nothing is left behind.

use std::fs;

use serde_json::json;

use crate::support::{World, both, groups, wait, watch};

#[test]
fn a_container_goes_from_created_to_running_to_stopped_to_nothing() {
    both(|world| {
        let mut config = world.config("echo here > /out/file; exec sleep 1000");
        config["annotations"] = json!({"org.example": "value"});
        world.create(&config).ok();
        let state = world.state();
        assert_eq!(state["status"], "created");
        assert_eq!(state["id"], *world.id);
        assert_eq!(state["ociVersion"], "1.2.0");
        assert_eq!(state["bundle"], *world.dir.path().canonicalize().unwrap().to_str().unwrap());
        assert_eq!(state["annotations"], json!({"org.example": "value"}));
        let pid = state["pid"].as_u64().unwrap();
        assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
        // The program has not run, and what the bundle says from now on is of no effect.
        assert!(!world.path("out/file").exists());
        fs::write(world.path("config.json"), "nonsense").unwrap();
        world.start().ok();
        let state = world.state();
        assert_eq!((&state["status"], &state["pid"]), (&json!("running"), &json!(pid)));
        world.end();
        assert_eq!(world.status(), "stopped");
        world.delete().ok();
        world.nothing_is_left();
    });
}

#[test]
fn what_a_state_does_not_allow_is_an_error_and_changes_nothing() {
    both(|world| {
        let config = world.config("exec sleep 1000");
        let unchanged = |world: &World, status: &str| assert_eq!(world.status(), status);
        for args in [["state", &world.id], ["start", &world.id], ["kill", &world.id], ["delete", &world.id]] {
            world.runtime(&args).refused("does not exist");
        }
        world.create(&config).ok();
        world.create(&config).refused("already");
        world.runtime(&["resume", &world.id]).refused("cannot be resumed");
        unchanged(&world, "created");
        world.start().ok();
        world.start().refused("is running and cannot be started");
        world.delete().refused("is running and cannot be deleted");
        world.create(&config).refused("already");
        world.kill("NOTHING").refused("not a signal");
        unchanged(&world, "running");
        world.end();
        world.start().refused("is stopped and cannot be started");
        world.kill("TERM").refused("is stopped and cannot be signalled");
        world.runtime(&["exec", &world.id, "true"]).refused("is stopped and cannot be entered");
        world.runtime(&["pause", &world.id]).refused("is stopped and cannot be paused");
        unchanged(&world, "stopped");
        world.delete().ok();
        world.delete().refused("does not exist");
        world.runtime(&["delete", "--force", &world.id]).ok();
        // The id is free again.
        world.create(&config).ok();
        world.runtime(&["delete", "--force", &world.id]).ok();
        world.nothing_is_left();
    });
}

#[test]
fn a_command_without_what_it_needs_is_an_error() {
    both(|world| {
        world.write(&world.config("true"));
        for command in ["create", "start", "state", "kill", "delete", "run", "pause", "exec"] {
            assert_eq!(world.runtime(&[command]).code, 1, "{command}");
        }
        for id in ["..", "a/b", "", "a\nb"] {
            world.runtime(&["create", id]).refused("not a container's id");
            world.runtime(&["delete", "--force", id]).refused("not a container's id");
        }
        world.runtime(&["create", "--bundle", "/nowhere", "x"]).refused("`/nowhere`");
        world.runtime(&["--systemd-cgroup", "create", "x"]).refused("`--systemd-cgroup` is not supported");
        world.nothing_is_left();
    });
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    both(|world| {
        world.create(&world.config("true")).ok();
        let ended = watch(world.pid());
        world.kill("KILL").ok();
        wait(&ended);
        assert_eq!(world.status(), "stopped");
        world.delete().ok();
        world.create(&world.config("true")).ok();
        world.delete().ok();
        wait(&ended);
        world.nothing_is_left();
    });
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    both(|world| {
        let base = || world.config("true");
        let refused = |change: &dyn Fn(&mut serde_json::Value), reason: &str| {
            let mut config = base();
            change(&mut config);
            world.create(&config).refused(reason);
            world.nothing_is_left();
        };
        refused(&|config| config["ociVersion"] = json!("invalid"), "`ociVersion`");
        refused(&|config| config["root"]["path"] = json!("gone"), "is no folder");
        refused(&|config| config["root"]["path"] = json!("config.json"), "is no folder");
        refused(&|config| config["root"]["path"] = json!("/"), "the host's own root");
        refused(&|config| config["process"]["cwd"] = json!("relative"), "`process.cwd`");
        refused(&|config| config["mounts"][3]["source"] = json!("gone"), "cannot mount `/out`: its source");
        refused(&|config| config["mounts"][1]["options"] = json!(["nonsense=1"]), "cannot mount `/dev`: its option");
        refused(&|config| config["mounts"][1]["type"] = json!("nofs"), "no file system `nofs`");
        refused(
            &|config| config["linux"]["namespaces"][0]["path"] = json!("/proc/self/ns/gone"),
            "cannot open the pid",
        );
        refused(&|config| config["process"]["terminal"] = json!(true), "`--console-socket`");
        refused(&|config| config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}), "hook createRuntime");
        refused(&|config| config["hooks"] = json!({"prestart": [{"path": "/gone"}]}), "hook prestart");
        refused(
            &|config| config["hooks"] = json!({"createContainer": [{"path": "/bin/false"}]}),
            "hook createContainer",
        );
        refused(&|config| config["linux"]["cgroupsPath"] = json!("/../x"), "cgroupsPath");
        fs::write(world.path("config.json"), "{").unwrap();
        world.create_with(&[]).refused("config.json");
        fs::remove_file(world.path("config.json")).unwrap();
        world.create_with(&[]).refused("config.json");
        world.write(&base());
        world.create_with(&["--pid-file", "/gone/file"]).refused("/gone/file");
        world.create_with(&["--console-socket", "/gone"]).refused("`/gone`");
        world.nothing_is_left();
    });
}

#[test]
fn the_program_is_looked_for_when_it_is_started() {
    both(|world| {
        let mut config = world.config("true");
        config["process"]["args"] = json!(["not-there-yet"]);
        world.create(&config).ok();
        assert_eq!(world.status(), "created");
        let ended = watch(world.pid());
        world.start().refused("cannot run `not-there-yet`: no such file or directory");
        wait(&ended);
        assert_eq!(world.status(), "stopped");
        world.delete().ok();
        // Put there between the two it is found.
        world.create(&config).ok();
        std::os::unix::fs::symlink("busybox", world.path("rootfs/bin/not-there-yet")).unwrap();
        world.start().ok();
        world.runtime(&["delete", "--force", &world.id]).ok();
        world.nothing_is_left();
    });
}

#[test]
fn run_ends_as_its_program_does() {
    both(|world| {
        assert_eq!(world.run(&world.config("exit 7")).code, 7);
        assert_eq!(world.run(&world.config("kill -9 $$; sleep 1000 & kill -TERM $!; wait; exit 3")).code, 3);
        let said = world.run(&world.config("echo out; echo err >&2"));
        assert_eq!((&*said.out, &*said.err, said.code), ("out\n", "err\n", 0));
        world.nothing_is_left();
    });
}

#[test]
fn a_pid_file_and_a_log_are_written() {
    both(|world| {
        world.write(&world.config("exec sleep 1000"));
        let pid_file = world.path("out/pid");
        world.create_with(&["--pid-file", pid_file.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(pid_file).unwrap(), world.pid().to_string());
        let log = world.path("out/log");
        let log_of = |form: &str| {
            world
                .runtime(&["--log", log.to_str().unwrap(), "--log-format", form, "start", "nobody"])
                .refused("`nobody`");
            fs::read_to_string(&log).unwrap().lines().last().unwrap().to_owned()
        };
        let line: serde_json::Value = serde_json::from_str(&log_of("json")).unwrap();
        assert_eq!((&line["level"], &line["msg"]), (&json!("error"), &json!("container `nobody` does not exist")));
        assert!(log_of("text").contains("level=error msg=\"container `nobody` does not exist\""));
    });
}

#[test]
fn a_container_without_a_process_namespace_leaves_no_process() {
    crate::support::as_root(|world| {
        let mut config = world.config("sleep 1000 & sleep 1000 & exit 0");
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        world.create(&config).ok();
        let ended = watch(world.pid());
        world.start().ok();
        wait(&ended);
        assert_eq!(world.status(), "stopped");
        let group = &groups(&world.id)[0];
        let left = fs::read_to_string(group.join("cgroup.procs")).unwrap();
        let left: Vec<_> = left.lines().map(|pid| watch(pid.parse().unwrap())).collect();
        assert_eq!(left.len(), 2);
        world.delete().ok();
        left.iter().for_each(wait);
        world.nothing_is_left();
    });
}
