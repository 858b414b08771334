//! Who the program is, what it may do and what it is handed.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::support::{World, as_root, both};

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn arguments_variables_folder_and_mask_are_the_bundles() {
    both(|world| {
        let mut config = world.config("");
        config["process"]["args"] =
            json!(["sh", "-c", "echo \"$0 $1\"; echo $A:$B; pwd; umask; echo $HOME", "first", "second  word"]);
        config["process"]["env"] = json!(["PATH=/bin", "A=1", "A=2", "B=x=y"]);
        config["process"]["cwd"] = json!("/made/for/it");
        config["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 0o027});
        assert_eq!(lines(&world.run(&config).ok()), ["first second  word", "2:x=y", "/made/for/it", "0027", "/"]);
    });
}

#[test]
fn a_relative_program_is_looked_for_on_the_path_given() {
    both(|world| {
        fs::write(world.path("rootfs/tool"), "#!/bin/sh\necho found\n").unwrap();
        std::os::unix::fs::symlink("/bin/true", world.path("rootfs/bin/tool")).unwrap();
        fs::set_permissions(world.path("rootfs/tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut config = world.config("");
        config["process"]["args"] = json!(["tool"]);
        config["process"]["env"] = json!(["PATH=/:/bin"]);
        assert_eq!(world.run(&config).ok(), "found\n");
    });
}

#[test]
fn user_and_groups_are_taken() {
    as_root(|world| {
        let mut config = world.config("id -u; id -g; cat /proc/self/status | grep Groups; echo $HOME");
        config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6]});
        fs::create_dir(world.path("rootfs/etc")).unwrap();
        fs::write(world.path("rootfs/etc/passwd"), "root:x:0:0::/root:/bin/sh\nsome:x:1000:1::/home/some:/bin/sh\n")
            .unwrap();
        let out = world.run(&config).ok();
        assert_eq!(lines(&out)[..2], ["1000", "1001"]);
        assert_eq!(lines(&out)[2].split_whitespace().skip(1).collect::<Vec<_>>(), ["5", "6"]);
        assert_eq!(lines(&out)[3], "/home/some");
    });
}

/// The sets of capabilities that a program finds, as in `/proc/self/status`.
fn capabilities(world: &World, user: u32, sets: Value, no_new_privileges: bool) -> [u64; 5] {
    let mut config = world.config("");
    config["process"]["args"] = json!(["grep", "^Cap", "/proc/self/status"]);
    config["process"]["user"] = json!({"uid": user, "gid": 0});
    config["process"]["capabilities"] = sets;
    config["process"]["noNewPrivileges"] = json!(no_new_privileges);
    let out = world.run(&config).ok();
    let mut found = out.lines().map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap());
    std::array::from_fn(|_| found.next().unwrap())
}

#[test]
fn capabilities_are_those_listed_and_no_others() {
    both(|world| {
        let (kill, chown) = (1 << 5, 1 << 0);
        let none = capabilities(&world, 0, json!({}), false);
        assert_eq!(none, [0; 5]);
        let two = json!(["CAP_KILL", "CAP_CHOWN"]);
        let sets = json!({"bounding": two, "effective": two, "permitted": two});
        assert_eq!(capabilities(&world, 0, sets, true), [0, kill | chown, kill | chown, kill | chown, 0]);
        let one = json!(["CAP_KILL"]);
        let sets = json!({"bounding": two, "effective": one, "permitted": one, "inheritable": one, "ambient": one});
        // What is ambient stays with a user who is not root.
        let user = if world.is_user() { 0 } else { 1000 };
        let found = capabilities(&world, user, sets, false);
        assert_eq!((found[0], found[3], found[4]), (kill, kill | chown, kill));
        if !world.is_user() {
            assert_eq!(found[1..3], [kill, kill]);
        }
        let said = {
            let mut config = world.config("true");
            config["process"]["capabilities"] = json!({"bounding": ["CAP_NEVER"]});
            world.run(&config)
        };
        assert!(
            said.err.contains("warning: `process.capabilities`: there is no variant for CAP_NEVER"),
            "{}",
            said.err
        );
        said.ok();
    });
}

#[test]
fn privileges_can_be_forbidden_to_grow() {
    both(|world| {
        for (wanted, found) in [(true, "1"), (false, "0")] {
            let mut config = world.config("grep NoNewPrivs /proc/self/status");
            config["process"]["noNewPrivileges"] = json!(wanted);
            assert!(world.run(&config).ok().trim_end().ends_with(found));
        }
    });
}

#[test]
fn resources_are_limited() {
    both(|world| {
        let mut config = world.config("ulimit -n; ulimit -Hn; ulimit -c; ulimit -v");
        config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_AS", "soft": 1 << 30, "hard": 1 << 30},
        ]);
        assert_eq!(lines(&world.run(&config).ok()), ["100", "200", "0", "1048576"]);
        // Less than it takes to make the container.
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3}]);
        config["process"]["args"] = json!(["true"]);
        world.run(&config).ok();
    });
}

#[test]
fn a_process_is_the_likelier_victim_it_is_made() {
    both(|world| {
        let mut config = world.config("cat /proc/self/oom_score_adj");
        config["process"]["oomScoreAdj"] = json!(500);
        assert_eq!(world.run(&config).ok(), "500\n");
    });
}

#[test]
fn scheduler_and_disk_priority_are_set() {
    both(|world| {
        let mut config = world.config("exec sleep 1000");
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 15});
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
        world.create(&config).ok();
        world.start().ok();
        let stat = fs::read_to_string(format!("/proc/{}/stat", world.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // Fields 19 and 41 of the file.
        assert_eq!((fields[16], fields[38]), ("15", "3"));
        world.end();
    });
}

#[test]
fn nothing_but_the_standard_streams_is_inherited_unless_it_is_asked_for() {
    both(|world| {
        let mut file = fs::File::create(world.path("out/passed")).unwrap();
        file.write_all(b"through").unwrap();
        let path = world.path("out/passed");
        let list = |preserve: &str, script: &str| {
            world.write(&world.config(script));
            let runtime = world.command(&["run", "--preserve-fds", preserve, &world.id]);
            let args: Vec<String> = runtime.get_args().map(|arg| format!("'{}'", arg.to_str().unwrap())).collect();
            let line = format!(
                "exec 3<{} 4</dev/null 5</dev/null; exec {} {}",
                path.display(),
                runtime.get_program().to_str().unwrap(),
                args.join(" ")
            );
            world.shell(&line).ok()
        };
        // `ls` itself opens the folder it lists.
        assert_eq!(lines(&list("0", "ls /proc/self/fd"))[..3], ["0", "1", "2"]);
        assert_eq!(lines(&list("0", "ls /proc/self/fd")).len(), 4);
        assert_eq!(list("1", "cat <&3; ls /proc/self/fd | wc -l"), "through5\n");
        // More than there are: nothing of the runtime's own is among them.
        let all =
            world.shell(&format!("exec 3<{} 4</dev/null 5</dev/null; ls /proc/self/fd | wc -l", path.display())).ok();
        assert_eq!(list("1000", "ls /proc/self/fd | wc -l"), all);
    });
}

#[test]
fn a_terminal_is_handed_over() {
    both(|world| {
        let socket = world.path("out/console");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let mut config =
            world.config("tty; stat -c %t,%T /dev/console; read line; echo got $line; stty size 2>/dev/null; exit 3");
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 10, "width": 40});
        world.write(&config);
        world.create_with(&["--console-socket", socket.to_str().unwrap()]).ok();
        let master = crate::support::receive_fd(&listener);
        let size = rustix::termios::tcgetwinsize(&master).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (10, 40));
        let ended = crate::support::watch(world.pid());
        world.start().ok();
        rustix::io::write(&master, b"typed\n").unwrap();
        crate::support::wait(&ended);
        let mut text = Vec::new();
        let mut buffer = [0; 1024];
        // The master of a terminal that nobody holds any more ends with an error.
        while let Ok(read @ 1..) = rustix::io::read(&master, &mut buffer) {
            text.extend(&buffer[..read]);
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("/dev/pts/0\r\n") && text.contains("got typed\r\n"), "{text}");
        assert!(text.contains("88,0\r\n"), "the console is the terminal: {text}");
        world.delete().ok();
    });
}

#[test]
fn the_runtimes_own_file_is_out_of_reach() {
    as_root(|world| {
        world.create(&world.config("true")).ok();
        let exe = format!("/proc/{}/exe", world.pid());
        assert!(fs::read_link(&exe).unwrap().to_str().unwrap().contains("memfd:rads-oci"));
        let own = fs::File::open(&exe).unwrap();
        let seals = rustix::fs::fcntl_get_seals(&own).unwrap();
        assert!(seals.contains(rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::GROW), "{seals:?}");
        world.runtime(&["delete", "--force", &world.id]).ok();
    });
}

#[test]
fn two_at_once_start_it_once() {
    both(|world| {
        world.expect_word();
        world.create(&world.config("echo once >> /out/starts; echo > /out/told; exec sleep 1000")).ok();
        let starts: Vec<_> = (0..4).map(|_| world.command(&["start", &world.id]).spawn().unwrap()).collect();
        let worked = starts.into_iter().map(|mut one| one.wait().unwrap()).filter(|status| status.success()).count();
        assert_eq!(worked, 1);
        assert_eq!(world.status(), "running");
        world.hear_word();
        world.end();
        assert_eq!(fs::read_to_string(world.path("out/starts")).unwrap(), "once\n");
    });
}
