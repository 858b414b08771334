//! Commands that are used from a terminal, from one.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use support::World;

/// A program on a terminal: what it draws comes as it draws it.
struct Screen {
    terminal: std::fs::File,
    drawn: Receiver<Vec<u8>>,
    text: String,
    program: Child,
}

impl Screen {
    fn run(world: &World, args: &[&str], rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&near).unwrap();
        let far = rustix::pty::ioctl_tiocgptpeer(&near, flags).unwrap();
        resize(&near, rows, columns);
        let stream = || Stdio::from(far.try_clone().unwrap());
        let mut command = world.command(args);
        let program = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        drop((command, far));
        let terminal = std::fs::File::from(near);
        let mut reader = terminal.try_clone().unwrap();
        let (tell, drawn) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                if tell.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { terminal, drawn, text: String::new(), program }
    }

    fn type_in(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something is drawn; what was drawn up to its end is forgotten.
    #[track_caller]
    fn shows(&mut self, expected: &str) {
        assert!(self.shows_within(expected, 30), "`{expected}` is not drawn:\n{}", self.text);
    }

    fn shows_within(&mut self, expected: &str, seconds: u64) -> bool {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(at) = self.text.find(expected) {
                self.text.drain(..at + expected.len());
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.drawn.recv_timeout(left) {
                Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => return false,
            }
        }
    }
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

#[test]
fn a_shell_in_a_star_has_a_terminal() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    let mut screen = Screen::run(&world, &["c", "exec", "hello-1", "--", "/bin/sh"], 30, 100);
    screen.type_in("tty -s && echo yes-$((40 + 2)); tty; stty size\n");
    screen.shows("yes-42");
    screen.shows("/dev/pts/0");
    screen.shows("30 100");
    // A new size reaches the program.
    let terminal = OwnedFd::from(screen.terminal.try_clone().unwrap());
    resize(&terminal, 50, 120);
    support::kill(screen.program.id(), "-WINCH");
    screen.type_in("sleep 0.2; stty size\n");
    screen.shows("50 120");
    // ^C ends what runs in the star, not the shell and not this program.
    // It says so itself: before it runs, the key would be the shell's.
    screen.type_in("sh -c 'echo asleep-$((1 + 1)); exec sleep 100'\n");
    screen.shows("asleep-2");
    screen.type_in("\u{3}");
    screen.type_in("echo after=$?\n");
    screen.shows("after=130");
    screen.type_in("exit 7\n");
    assert_eq!(screen.program.wait().unwrap().code(), Some(7));
}

#[test]
fn a_terminal_ends_with_its_shell_whatever_runs_on_behind_it() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    for left in ["sleep 1000 &", "(trap '' HUP; while echo more; do sleep 0.05; done) &"] {
        let mut screen = Screen::run(&world, &["c", "exec", "hello-1", "--", "/bin/sh"], 30, 100);
        screen.type_in(&format!("{left}\necho begun-$((1 + 1))\n"));
        screen.shows("begun-2");
        screen.type_in("exit 7\n");
        let deadline = Instant::now() + Duration::from_secs(20);
        let ended = loop {
            match screen.program.try_wait().unwrap() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                ended => break ended,
            }
        };
        if ended.is_none() {
            screen.program.kill().unwrap();
        }
        assert_eq!(ended.and_then(|ended| ended.code()), Some(7), "{left}");
    }
}

#[test]
fn programs_in_a_star_open_terminals_of_their_own() {
    let world = World::new();
    let user = if rustix::process::getuid().is_root() { ", user: \"1000:1000\"" } else { "" };
    world.up(&world.hello(&format!("instances: 2{user}")));
    let run =
        |star: &str, script: &str| world.rads(&["c", "exec", star, "--", "sh", "-c", script]).ok().replace('\r', "");
    assert_eq!(run("hello-1", "script -qec 'tty; test -w $(tty) && echo mine' /dev/null"), "/dev/pts/0\nmine\n");
    // A second one beside the first, and the second star's, which knows nothing of either.
    let twice = "script -qec \"script -qec tty /dev/null\" /dev/null; ls /dev/pts";
    assert_eq!(run("hello-1", twice), "/dev/pts/1\nptmx\n");
    let mut screen = Screen::run(&world, &["c", "exec", "hello-1", "--", "/bin/sh"], 30, 100);
    screen.type_in("echo its-$(tty); echo $0-there > $(tty)\n");
    screen.shows("its-/dev/pts/0");
    screen.shows("sh-there");
    assert_eq!(run("hello-1", "ls /dev/pts"), "0\nptmx\n");
    assert_eq!(run("hello-2", "ls /dev/pts"), "ptmx\n");
    screen.type_in("exit\n");
    assert_eq!(screen.program.wait().unwrap().code(), Some(0));
    let mounted = run("hello-1", "grep ' /dev/pts ' /proc/self/mountinfo");
    assert!(mounted.contains("nosuid,noexec") && mounted.contains(" - devpts "), "{mounted}");
    // There is an end to them, and it is the star's own.
    let many = "exec 2>&1; i=10; while test $i -lt 90 && eval \"exec $i<>/dev/ptmx\"; do i=$((i + 1)); done; echo $i";
    let most = world.rads(&["c", "exec", "hello-1", "--", "bash", "-c", many]);
    assert!(most.out.contains("No space left on device") || most.out.contains("Too many"), "{most:?}");
    assert_eq!(run("hello-2", "script -qec tty /dev/null"), "/dev/pts/0\n");
}

#[test]
fn without_a_terminal_output_and_errors_stay_apart() {
    let world = World::new();
    world.up(&world.hello("instances: 1"));
    let script = "tty -s || echo none; echo wrong >&2";
    let outcome = world.rads(&["c", "exec", "hello-1", "--", "/bin/sh", "-c", script]);
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "none\n", "wrong\n"));
    let mut screen = Screen::run(&world, &["c", "exec", "-T", "hello-1", "--", "/bin/sh", "-c", script], 30, 100);
    screen.shows("none");
    assert!(screen.program.wait().unwrap().success());
}

#[test]
fn top_draws_filters_and_gives_the_terminal_back() {
    let world = World::new();
    world.up(&world.hello("instances: 2"));
    let mut screen = Screen::run(&world, &["c", "top"], 24, 80);
    screen.shows("\u{1b}[?1049h");
    screen.shows("hello-2");
    screen.type_in("/-1\r");
    // Only what changed is drawn, so words come in pieces; in a new size everything is.
    let terminal = OwnedFd::from(screen.terminal.try_clone().unwrap());
    let whole = (30..40).any(|rows| {
        resize(&terminal, rows, 100);
        screen.shows_within("only `-1`", 3)
    });
    assert!(whole, "{}", screen.text);
    screen.type_in("q");
    screen.shows("\u{1b}[?1049l");
    assert_eq!(screen.program.wait().unwrap().code(), Some(0));
    // Whatever ends it, the terminal is as before.
    for (signal, code) in [("-TERM", 143), ("-HUP", 129), ("-INT", 130)] {
        let mut screen = Screen::run(&world, &["c", "top"], 24, 80);
        let before = rustix::termios::tcgetattr(&screen.terminal).unwrap();
        screen.shows("hello-1");
        support::kill(screen.program.id(), signal);
        screen.shows("\u{1b}[?1049l");
        assert_eq!(screen.program.wait().unwrap().code(), Some(code));
        let after = rustix::termios::tcgetattr(&screen.terminal).unwrap();
        assert!(after.local_modes.contains(rustix::termios::LocalModes::ICANON), "{:?}", before.local_modes);
    }
    // An agent that goes away is told of, and the table stays.
    let mut screen = Screen::run(&world, &["c", "top"], 24, 80);
    screen.shows("hello-1");
    world.rads(&["c", "shutdown"]).ok();
    screen.shows("no agent answers");
    screen.type_in("\u{3}");
    assert_eq!(screen.program.wait().unwrap().code(), Some(0));
}

#[test]
fn a_client_that_is_killed_ends_its_command() {
    let world = World::new();
    world.up(&world.hello("instances: 1, grace_seconds: 1"));
    let processes = || {
        let stats = world.json(&["c", "stats", "hello-1"]);
        stats[0]["pids"].as_u64().unwrap()
    };
    let alone = processes();
    let begin = |script: &str| {
        let mut child = world.command(&["c", "exec", "hello-1", "--", "sh", "-c", script]);
        let mut child = support::Ended(child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = [0; 6];
        child.0.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        child
    };
    // One that minds: it is hung up on, and has its last word, though not to whoever is gone.
    let child =
        begin("exec 2>/dev/null; trap 'echo gone > /tmp/last; exit' HUP; echo ready; while :; do sleep 0.05; done");
    assert!(processes() > alone);
    support::kill(child.0.id(), "-9");
    world.wait_for("it to end", || processes() == alone);
    assert_eq!(world.rads(&["c", "exec", "hello-1", "--", "cat", "/tmp/last"]).ok(), "gone\n");
    // One that does not is killed after the grace, with what it started.
    let child = begin("trap '' HUP; echo ready; sleep 1000 & wait");
    support::kill(child.0.id(), "-9");
    let begun = Instant::now();
    world.wait_for("it to be killed", || processes() == alone);
    assert!(begun.elapsed() > Duration::from_millis(500), "it had its grace: {:?}", begun.elapsed());
    // One that ends by itself leaves what it started alone.
    assert_eq!(
        world.rads(&["c", "exec", "hello-1", "--", "sh", "-c", "sleep 1000 >&- 2>&- & echo ready"]).ok(),
        "ready\n"
    );
    assert_eq!(processes(), alone + 1);
}
