//! Bad input gets a clear error, and nothing changes. One test per kind that the manual names.

mod support;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use support::{World, kill};

/// Runs `rads up -d` on an app and expects it refused before anything was started.
#[track_caller]
fn up_refused(world: &World, app: &std::path::Path, code: &str, says: &str) {
    let outcome = world.rads(&["up", "-d", app.to_str().unwrap()]);
    outcome.refused(code, says);
    if world.data().join("agent.sock").exists() {
        let services = world.json(&["c", "status"])["services"].clone();
        assert_eq!(services, serde_json::json!([]), "something was started");
    }
}

#[test]
fn a_syntax_error_is_shown_with_a_caret_in_app_and_service() {
    let world = World::new();
    let app = world.app("constellation.deploy(\"hello\" {});");
    up_refused(&world, &app, "R0", "app.rads");
    let outcome = world.rads(&["up", "-d", app.to_str().unwrap()]);
    assert!(outcome.err.contains('^'), "{}", outcome.err);
    let app = world.hello("");
    world.file("hello.rads", "turbo x = ;\n");
    up_refused(&world, &app, "R0", "hello.rads");
    assert!(!world.data().join("agent.sock").exists(), "nothing was started for it");
}

#[test]
fn mistakes_are_json_for_programs() {
    let world = World::new();
    world.file("hello.rads", "turbo x = ;\n");
    let faulty = world.app("constellation.deploy(\"hello\", {instances: -1});");
    let (faulty, hello) = (faulty.to_str().unwrap().to_owned(), world.file("hello.rads", "turbo x = ;\n"));
    for (args, code) in [
        (vec!["up", "-d", &faulty], "C0003"),
        (vec!["c", "plan", &faulty], "C0003"),
        (vec!["check", hello.to_str().unwrap()], "C0003"),
        (vec!["run", hello.to_str().unwrap()], "C0003"),
        (vec!["c", "scale", "hello", "many"], "C0001"),
        (vec!["c", "frobnicate"], "C0001"),
        (vec!["c", "status"], "C0201"),
    ] {
        let outcome = world.rads(&[&args[..], &["-o", "json"]].concat());
        assert_eq!(outcome.code, 1, "{args:?}: {outcome:?}");
        let problem: serde_json::Value =
            serde_json::from_str(&outcome.err).unwrap_or_else(|error| panic!("{args:?}: {error}: {}", outcome.err));
        assert_eq!(problem["code"], code, "{args:?}");
    }
}

#[test]
fn an_app_that_deploys_nothing_is_told_so() {
    let world = World::new();
    let app = world.file("app.rads", "");
    up_refused(&world, &app, "C0", "describes no service");
}

#[test]
fn a_service_is_not_removed_where_nobody_can_be_asked() {
    let world = World::new();
    let app = world.hello("instances: 1");
    world.up(&app);
    let path = app.to_str().unwrap();
    world.app("constellation.deploy(\"other\", {script: \"hello.rads\", port: 8080, listen: 0});");
    world.rads(&["up", "-d", path]).refused("C0001", "service `hello` would be removed");
    assert_eq!(world.service("hello")["ready"], 1);
    world.rads(&["up", "-d", "--yes", path]).ok();
    assert_eq!(world.service("other")["ready"], 1);
}

#[test]
fn missing_files_are_named() {
    let world = World::new();
    world.rads(&["up", "nowhere.rads"]).refused("C0002", "`nowhere.rads`");
    world.rads(&["run", "nowhere.rads"]).refused("C0002", "`nowhere.rads`");
    world.rads(&["check", "nowhere.rads"]).refused("C0002", "`nowhere.rads`");
    let app = world.app("constellation.deploy(\"hello\", {script: \"gone.rads\"});");
    let outcome = world.rads(&["up", "-d", app.to_str().unwrap()]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("gone.rads"), "{}", outcome.err);
}

#[test]
fn an_unknown_option_names_the_nearest_and_its_line() {
    let world = World::new();
    let app = world.hello("instnces: 3");
    let outcome = world.rads(&["up", "-d", app.to_str().unwrap()]);
    assert_eq!(outcome.code, 1);
    for word in ["`instnces`", "`instances`", "app.rads:2"] {
        assert!(outcome.err.contains(word), "`{word}` is not in: {}", outcome.err);
    }
}

#[test]
fn values_out_of_range_and_limits_too_low_are_refused() {
    let world = World::new();
    for (options, word) in [
        ("instances: -1", "instances"),
        ("cpu_percent: 0", "cpu_percent"),
        ("pids: 0", "pids"),
        ("open_files: 31", "open_files"),
        ("ram_mb: 1", "ram_mb"),
    ] {
        let app = world.hello(options);
        let outcome = world.rads(&["up", "-d", app.to_str().unwrap()]);
        assert_eq!(outcome.code, 1, "{options}");
        assert!(outcome.err.contains(word), "{options}: {}", outcome.err);
    }
    let script = world.file("x.rads", "echo(1);\n");
    world.rads(&["c", "deploy", script.to_str().unwrap(), "--ram-mb", "lots"]).refused("C0102", "lots");
}

#[test]
fn a_port_in_use_names_its_holder_and_changes_nothing() {
    let world = World::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    world.hello("");
    let app =
        world.app(&format!("constellation.deploy(\"hello\", {{script: \"hello.rads\", port: 8080, listen: {port}}});"));
    up_refused(&world, &app, "C0206", &format!("pid {}", std::process::id()));
    drop(held);
    world.rads(&["up", "-d", app.to_str().unwrap()]).ok();
    assert_eq!(world.address("hello").port(), port);
}

#[test]
fn a_script_that_ends_at_once_shows_its_last_words() {
    let world = World::new();
    let app = world.hello("instances: 1");
    world.file("hello.rads", "echo(\"my last words\");\nthrow \"no reason\";\n");
    let outcome = world.rads(&["up", "-d", app.to_str().unwrap()]);
    outcome.refused("C0302", "exit code 1");
    assert!(outcome.err.contains("my last words") && outcome.err.contains("no reason"), "{}", outcome.err);
    world.assert_nothing_left();
}

#[test]
fn a_script_without_a_port_that_ends_at_once_is_told_too() {
    let world = World::new();
    let script = world.file("short.rads", "echo(\"my last words\");\nthrow \"no reason\";\n");
    let path = script.to_str().unwrap();
    let replaced = world.rads(&["up", "-d", path]);
    replaced.refused("C0302", "exit code 1");
    assert!(replaced.err.contains("my last words"), "{}", replaced.err);
    world.assert_nothing_left();
    let left = world.rads(&["c", "create", "--name", "short", "--script", path]);
    left.refused("C0302", "`short-1` ended at once: exit code 1");
    assert!(left.err.contains("my last words") && !left.err.contains("taken down"), "{}", left.err);
    // It ran, so it is left: what it said can be read again, to its end.
    assert!(left.err.contains("`rads c logs short`"), "{}", left.err);
    let logs = world.rads(&["c", "logs", "short", "-f"]).ok();
    assert!(logs.contains("short-1 | my last words"), "{logs}");
    let all = world.json(&["c", "list", "--all"]);
    assert_eq!(all[0]["name"], "short-1", "{all}");
    // By its own id it has no more to say either.
    let logs = world.rads(&["c", "logs", all[0]["id"].as_str().unwrap(), "-f"]).ok();
    assert!(logs.contains("short-1 | my last words"), "{logs}");
    world.rads(&["c", "down", "short"]).ok();
    let job = world.file("job.rads", "echo(\"done\");\n");
    let done = world.rads(&["c", "create", "--name", "job", "--script", job.to_str().unwrap()]).ok();
    assert!(done.contains("job-1 ended: exit code 0"), "{done}");
}

#[test]
fn more_processors_than_the_machine_has_are_refused() {
    let world = World::new();
    let cores = std::thread::available_parallelism().unwrap().get();
    let create = |cores: usize| {
        world.rads(&["c", "create", "--name", "wide", "--cpu-cores", &cores.to_string(), "--", "sleep", "1000"])
    };
    create(cores + 1)
        .refused("C0107", &format!("needs {} % of a core, the node has {} %", (cores + 1) * 100, cores * 100));
    create(cores).ok();
    let more = world.rads(&["c", "limits", "wide", "--cpu-percent", &(cores * 100 + 1).to_string()]);
    more.refused("C0107", "of a core, the node has");
}

#[test]
fn without_an_agent_the_next_step_is_named() {
    let world = World::new();
    for args in [&["c", "status"][..], &["c", "list"], &["c", "scale", "hello", "2"], &["c", "logs"], &["c", "down"]] {
        let outcome = world.rads(args);
        outcome.refused("C0201", "no agent answers");
        assert!(outcome.err.contains("help: "), "{}", outcome.err);
    }
}

#[test]
fn a_second_agent_on_one_folder_is_refused() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    let pid = world.agent_pid();
    world.rads(&["c", "agent"]).refused("C0202", &format!("pid {pid}"));
    assert_eq!(world.agent_pid(), pid);
}

#[test]
fn a_data_folder_that_cannot_be_written_is_refused() {
    let world = World::new();
    let file = world.file("a-file", "");
    let app = world.hello("");
    let folder = file.join("below");
    for place in [file.as_path(), folder.as_path(), std::path::Path::new("/proc/rads")] {
        let place = place.to_str().unwrap();
        world.rads(&["up", "-d", app.to_str().unwrap(), "--data-dir", place]).refused("C0203", place);
        world.rads(&["c", "agent", "--data-dir", place]).refused("C0203", place);
    }
}

#[test]
fn names_that_mean_nothing_are_said_so() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    world.rads(&["c", "scale", "nobody", "2"]).refused("C0104", "`nobody`");
    world.rads(&["c", "restart", "nobody"]).refused("C0104", "`nobody`");
    world.rads(&["c", "logs", "nobody"]).refused("C0104", "`nobody`");
    world.rads(&["c", "stats", "nobody"]).refused("C0104", "`nobody`");
    world.rads(&["c", "down", "nobody"]).refused("C0104", "`nobody`");
    world.rads(&["c", "stop", "No_Name"]).refused("C0102", "`No_Name`");
    world.rads(&["c", "stopp", "hello"]).refused("C0001", "`stopp`");
    assert_eq!(world.service("hello")["ready"], 1, "nothing changed");
}

#[test]
fn a_disk_that_is_full_is_refused_and_what_runs_goes_on() {
    let world = World::new();
    let data = world.data();
    std::fs::create_dir(&data).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m,mode=711", "tmpfs", data.to_str().unwrap()])
        .output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        println!("skipped: this user may not mount a small file system to fill");
        return;
    }
    let unmount = Unmount(data.clone());
    let app = world.hello("instances: 1");
    let address = world.up(&app);
    let filler = data.join("filler");
    let mut left = vec![0_u8; 1 << 20];
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &left).is_ok() {}
    while left.len() > 1 {
        left.truncate(left.len() / 2);
        while std::io::Write::write_all(&mut file, &left).is_ok() {}
    }
    let before = world.stars();
    world.file("hello.rads", &support::HELLO.replace("begins", "begins anew"));
    let path = app.to_str().unwrap();
    world.rads(&["up", "-d", path]).refused("C0204", "full");
    assert_eq!(support::get(address).unwrap().0, 200);
    assert_eq!(world.stars(), before, "what runs goes on");
    // An agent that could not even write down why it ends is not started.
    let other = data.join("other");
    world.rads(&["--data-dir", other.to_str().unwrap(), "up", "-d", path]).refused("C0204", "cannot write");
    // The log may have room for one more command, but a star has none.
    let scaled = world.rads(&["c", "scale", "hello", "2"]);
    assert_eq!(scaled.code, 1);
    assert!(scaled.err.contains("full") || scaled.err.contains("no space left on device"), "{}", scaled.err);
    // Nor does it end when not even its log can grow.
    for _ in 0..15 {
        world.rads(&["c", "restart", "hello"]);
    }
    assert_eq!(support::get(address).unwrap().0, 200);
    world.rads(&["c", "status"]).ok();
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    world.rads(&["c", "scale", "hello", "2"]).ok();
    world.rads(&["up", "-d", path]).ok();
    assert_ne!(world.stars(), before);
    world.rads(&["c", "down"]).ok();
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let world = World::new();
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("{} c completions bash | head -1; echo ${{PIPESTATUS:-}}", env!("CARGO_BIN_EXE_rads"))])
        .env("RADS_DATA", world.data())
        .output()
        .unwrap();
    let outcome = support::outcome(output);
    assert!(outcome.err.is_empty(), "{}", outcome.err);
}

#[test]
fn another_users_agent_is_not_for_everybody() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    let socket = world.data().join("agent.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    if rustix::process::geteuid().is_root() {
        // Even with its mode loosened the socket serves nobody but its owner and root.
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_rads"), "c", "status"])
            .env("RADS_DATA", world.data())
            .output();
        match output {
            Ok(output) => assert_ne!(support::outcome(output).code, 0),
            Err(error) => println!("skipped: no setpriv ({error})"),
        }
    } else {
        println!("skipped: only root can try another user");
    }
    kill(world.agent_pid(), "-TERM");
    world.wait_for("the agent to end", || !socket.exists());
}

#[test]
fn a_folder_in_use_is_left_as_it_is() {
    let world = World::new();
    let app = world.hello("instances: 1");
    std::fs::create_dir(world.data()).unwrap();
    let mode = |mode| std::fs::set_permissions(world.data(), PermissionsExt::from_mode(mode)).unwrap();
    mode(0o1777);
    world.rads(&["up", "-d", app.to_str().unwrap()]).refused("C0203", "others may write");
    assert_eq!(std::fs::metadata(world.data()).unwrap().permissions().mode() & 0o7777, 0o1777);
    mode(0o755);
    world.up(&app);
    assert_eq!(std::fs::metadata(world.data()).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn answers_and_problems_are_json_when_asked_for() {
    let world = World::new();
    let app = world.hello("instances: 1");
    let path = app.to_str().unwrap();
    let up = world.json(&["up", "-d", path]);
    assert_eq!(up[0]["ready"], 1, "{up}");
    for words in [vec!["c", "scale", "hello", "2"], vec!["c", "restart", "hello"], vec!["c", "start", "hello"]] {
        assert_eq!(world.json(&words)["ready"], 2, "{words:?}");
    }
    assert_eq!(world.json(&["c", "stop", "hello"])["stopped"], true);
    for words in [vec!["c", "scale", "nobody", "2"], vec!["c", "scale", "hello", "999999"], vec!["up", "nowhere.rads"]]
    {
        let outcome = world.rads(&[&words[..], &["-o", "json"]].concat());
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{words:?}");
        let problem: serde_json::Value = serde_json::from_str(&outcome.err).unwrap();
        assert!(problem["code"].as_str().is_some_and(|code| code.starts_with('C')), "{problem}");
    }
    assert_eq!(world.json(&["c", "down", "--all"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn an_app_is_checked_by_what_it_describes() {
    let world = World::new();
    let app = world.hello("instances: 1");
    let path = app.to_str().unwrap();
    world.rads(&["check", path]).ok();
    world.hello("instnces: 1");
    let outcome = world.rads(&["check", path]);
    assert!(outcome.code == 1 && outcome.err.contains("`instances`"), "{}", outcome.err);
    let endless = world.app("loop (true) {}");
    world.rads(&["check", endless.to_str().unwrap()]).refused("C0", "help:");
}

#[test]
fn a_data_folder_is_named_in_text() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let app = world.hello("instances: 1");
    let mut command = world.command(&["up", "-d", app.to_str().unwrap()]);
    command.env("RADS_DATA", world.data().join(std::ffi::OsStr::from_bytes(b"\xff")));
    support::outcome(command.output().unwrap()).refused("C0001", "not UTF-8 text");
}

#[test]
fn files_are_shown_as_they_were_typed() {
    let world = World::new();
    world.file("lib/broken.rads", "turbo = 1;\n");
    world.file("uses.rads", "import \"lib/broken.rads\";\n");
    world.file("thrown.rads", "blast f() { throw \"x\"; }\nf();\n");
    world.file("app.rads", "constellation.deploy(\"a\", {scriptt: \"x.rads\"});\n");
    world.file("more/app.rads", "constellation.deploy(\"a\", {script: \"bad.rads\"});\n");
    world.file("more/bad.rads", "nothing_of_that_name;\n");
    world.file("more/throws.rads", "import constellation;\nblast f() { throw \"x\"; }\nf();\n");
    let whole = world.file("more/link.rads", "");
    std::fs::remove_file(&whole).unwrap();
    std::os::unix::fs::symlink("throws.rads", &whole).unwrap();
    let folder = whole.parent().unwrap().parent().unwrap().to_owned();
    let check = |at: &str, args: &[&str], place: &str| {
        let said = support::outcome(world.command(args).current_dir(folder.join(at)).output().unwrap());
        assert!(said.code == 1 && said.err.contains(place), "`{place}` is not in: {}", said.err);
    };
    check("..", &["run", "hello/uses.rads"], "--> hello/lib/broken.rads:1:7\n");
    check("", &["run", "uses.rads"], "--> lib/broken.rads:1:7\n");
    check("", &["run", "./uses.rads"], "--> ./lib/broken.rads:1:7\n");
    check("lib", &["check", "../uses.rads"], "--> ../lib/broken.rads:1:7\n");
    check("..", &["run", "hello/thrown.rads"], "at f (hello/thrown.rads:1)\n");
    check("..", &["up", "hello/app.rads"], "--> hello/app.rads:1:28\n");
    check("", &["c", "plan", "app.rads"], "--> app.rads:1:28\n");
    check("..", &["check", "hello/more/app.rads"], "--> hello/more/bad.rads:1:1\n");
    check("..", &["c", "deploy", "hello/more/throws.rads"], "at f (hello/more/throws.rads:2)\n");
    let app = folder.join("app.rads");
    check("..", &["check", app.to_str().unwrap()], &format!("--> {}:1:28\n", app.display()));
    check(
        "",
        &["check", "more/link.rads"],
        &format!("({}/more/throws.rads:2)\n", folder.canonicalize().unwrap().display()),
    );
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let world = World::new();
    let script = world.file("loud.rads", "echo(\"one\");\necho(\"two\");\nio.write_file(\"after\", \"x\");\n");
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut run = world.command(&["run", script.to_str().unwrap()]);
    let folder = script.parent().unwrap();
    let said = support::outcome(run.current_dir(folder).stdout(full()).output().unwrap());
    assert_eq!(
        (said.code, said.err.as_str()),
        (1, "error: cannot write to standard output: no space left on the device\n")
    );
    // The control: what can be written is.
    assert_eq!(support::outcome(run.stdout(std::process::Stdio::piped()).output().unwrap()).ok(), "one\ntwo\n");
    let said = support::outcome(world.command(&["c", "completions", "bash"]).stdout(full()).output().unwrap());
    said.refused("C0004", "cannot write to standard output: no space left on the device");
}

#[test]
fn the_nearest_name_is_told() {
    let world = World::new();
    world.up(&world.hello("instances: 2"));
    for words in [
        &["c", "scale", "helo", "3"][..],
        &["c", "stop", "helo"],
        &["c", "logs", "helo"],
        &["c", "inspect", "helo"],
        &["c", "limits", "helo", "--ram-mb", "64"],
        &["c", "exec", "helo", "--", "true"],
        &["c", "cp", "helo:/app", "-"],
        &["c", "down", "helo"],
        &["c", "top", "helo"],
        &["c", "snapshot", "helo"],
    ] {
        let refused = world.rads(words);
        refused.refused("C0104", "`helo`");
        assert!(refused.err.contains("help: did you mean `hello`?"), "{words:?}: {}", refused.err);
    }
    assert!(world.rads(&["c", "inspect", "helo-2"]).err.contains("did you mean `hello-2`?"));
    // What is like nothing that is there is not guessed at.
    assert!(!world.rads(&["c", "stop", "database"]).err.contains("did you mean"));
}

#[test]
fn every_mistake_of_a_command_line_is_told_at_once_and_by_its_option() {
    let world = World::new();
    let line = "c create --name job --cpu-percent 5000000 --ram-mb 0.5 --pids x --user 99999999 --volume data --tmpfs /a=4 \
                --ready nothing=1 --stop-signal TERM --grace-seconds -1 --bind /x=../y --secret /s=Not_A_Name -- true";
    let words: Vec<&str> = line.split_whitespace().collect();
    let said = world.rads(&words);
    assert_eq!(said.code, 1, "{said:?}");
    for part in [
        "`--cpu-percent` is between 1 and 102400, not `5000000`",
        "`--ram-mb` gives it 512 KiB",
        "`--pids` is a whole number, not \"x\"",
        "`--user` is a number",
        "help: type it as `--volume /data=pages`",
        "help: type it as `--tmpfs /cache=size_mb=16`",
        "`--ready` has no option `nothing`",
        "did you mean \"SIGTERM\"?",
        "`--grace-seconds` is between 0 and 86400, not `-1`",
        "names for `/s` a secret",
        "nothing was changed",
    ] {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    assert!(!world.data().join("agent.sock").exists(), "nothing was started for it");
    // What cannot be together is told as it was typed.
    let check = |line: &str, code: &str, says: &str| {
        world.rads(&line.split_whitespace().collect::<Vec<_>>()).refused(code, says);
    };
    let script = world.file("x.rads", "echo(1);\n");
    let script = script.to_str().unwrap();
    check(&format!("c create --name a --script {script} -- ls"), "C0102", "a `--script` or a `--command`, not both");
    check(
        "c create --name a --cpu-percent 5 --cpu-cores 1 -- ls",
        "C0102",
        "`--cpu-percent` and `--cpu-cores` say the same",
    );
    check("c create --name a --ram-mb 64 --ram-gb 1 -- ls", "C0102", "`--ram-mb` and `--ram-gb` say the same");
    check("c create --name a --ram-soft-mb 64 --ram-balloon -- ls", "C0102", "or is `--ram-soft-mb`, not both");
    check("c create --name a --cpu-burst-percent 5 -- ls", "C0102", "`--cpu-burst-percent` is a part of");
    check("c create --name a --listen 80 --protocol udp -- ls", "C0102", "`--protocol` is \"http\" or \"tcp\"");
    check("c create --name a --command ls -- ls", "C0001", "given twice");
    check("c create --name a", "C0001", "--script <FILE>");
    check("c deploy -- ls", "C0001", "no file to be called after");
    check("c create --name a --ready tcp -- ls", "C0102", "needs a `port`");
    // A description's own mistakes and those of the command line together, each where it is.
    let app = world.app("constellation.deploy(\"a\", {command: [\"ls\"], pids: 0, scripp: 1});");
    let said = world.rads(&["c", "deploy", app.to_str().unwrap(), "--ram-mb", "0"]);
    for part in ["app.rads:2:45", "did you mean `script`?", "`pids` is between", "`--ram-mb` gives it 0 B"] {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
}
