//! Runs scripts as processes (through the `run` example) and speaks HTTP with them over plain sockets.
//! Every wait ends with an event or fails at a deadline.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Far more than anything here takes, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a script did, once it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A folder with a script in it, and what it may be given.
pub(crate) struct Script {
    pub(crate) folder: tempfile::TempDir,
    env: Vec<(String, String)>,
    args: Vec<String>,
    stdin: String,
    memory_mb: Option<usize>,
}

impl Script {
    pub(crate) fn new(source: &str) -> Script {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("main.rads"), source).expect("written");
        Script { folder, env: Vec::new(), args: Vec::new(), stdin: String::new(), memory_mb: None }
    }

    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Script {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, content).expect("written");
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Script {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Script {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    pub(crate) fn stdin(mut self, text: &str) -> Script {
        self.stdin = text.to_owned();
        self
    }

    pub(crate) fn memory_mb(mut self, megabytes: usize) -> Script {
        self.memory_mb = Some(megabytes);
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(runner());
        command.args(
            self.memory_mb.map(|megabytes| ["--memory-mb".to_owned(), megabytes.to_string()]).into_iter().flatten(),
        );
        command.arg(self.folder.path().join("main.rads")).args(&self.args).envs(self.env.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Ended {
        let mut child = self.command().spawn().expect("the runner starts");
        child.stdin.take().expect("piped").write_all(self.stdin.as_bytes()).expect("read");
        finish(child, Vec::new())
    }

    /// Starts it and waits for the port that it prints on its first line.
    pub(crate) fn serve(self) -> Serving {
        let command = self.command();
        Serving::start(command, Some(self.folder))
    }
}

/// A script's output must be `expected`, and nothing may have gone wrong.
#[track_caller]
pub(crate) fn check(source: &str, expected: &str) {
    let ended = Script::new(source).run();
    assert_eq!((ended.code, ended.out.as_str()), (0, expected), "standard error: {}", ended.err);
}

pub(crate) fn runner() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.parent().and_then(Path::parent).expect("target/debug").join("examples/run")
}

/// A script that serves.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) folder: Option<tempfile::TempDir>,
    child: Option<Child>,
    out: Option<BufReader<ChildStdout>>,
}

impl Serving {
    pub(crate) fn start(mut command: Command, folder: Option<tempfile::TempDir>) -> Serving {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the runner starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("text");
        let port = line.trim().rsplit(' ').next().and_then(|port| port.parse::<u16>().ok());
        let Some(port) = port else {
            let ended = finish(child, line.into_bytes());
            panic!("no port in the first line: {ended:?}");
        };
        Serving { address: ([127, 0, 0, 1], port).into(), folder, child: Some(child), out: Some(out) }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        stream
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> Reply {
        let mut stream = self.connect();
        send(&mut stream, request);
        read_reply(&mut stream, request.starts_with("HEAD"))
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Reply {
        let length = body.len();
        self.ask(&format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"))
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("running").id().to_string();
        let done = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill is there");
        assert!(done.success());
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let mut child = self.child.take().expect("running");
        // The reader may hold lines already; what is left is read with it.
        let mut out = self.out.take().expect("piped");
        let buffered = out.buffer().to_vec();
        let length = buffered.len();
        out.consume(length);
        child.stdout = Some(out.into_inner());
        finish(child, buffered)
    }

    /// Asks it to stop and waits.
    pub(crate) fn stop(self) -> Ended {
        self.signal("TERM");
        self.ended()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn finish(mut child: Child, mut out: Vec<u8>) -> Ended {
    let mut rest = child.stdout.take().expect("piped");
    let mut errors = child.stderr.take().expect("piped");
    let (done, waiting) = mpsc::channel();
    let id = child.id();
    let reader = thread::spawn(move || {
        let mut err = Vec::new();
        errors.read_to_end(&mut err).expect("read");
        err
    });
    thread::spawn(move || {
        rest.read_to_end(&mut out).expect("read");
        let status = child.wait().expect("a status");
        let _ = done.send((status, out));
    });
    let Ok((status, out)) = waiting.recv_timeout(DEADLINE) else {
        let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
        panic!("the script did not end in time");
    };
    let err = reader.join().expect("read");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { code: status.code().unwrap_or(-1), out: text(out), err: text(err) }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub(crate) fn send(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).expect("sent");
}

pub(crate) fn read_reply(stream: &mut TcpStream, head_only: bool) -> Reply {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a reply");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut reply = Reply { status, head, body: Vec::new() };
    let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    if !head_only {
        reply.body.resize(length, 0);
        stream.read_exact(&mut reply.body).expect("the body");
    }
    reply
}
