//! A place of its own for one test: a data folder, scripts, the real binary, and proof that nothing is left.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything; far above what a loaded machine needs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A web server that tells its star's name and process.
pub(crate) const HELLO: &str = r#"
turbo name = env.get("STAR_NAME") ?? "?";
turbo server = net.http_server("127.0.0.1", env.get("PORT") ?? 8080);
server.route("/", blast () { return name; }, "GET");
echo(`${name} begins`);
server.serve();
"#;

pub(crate) struct World {
    folder: tempfile::TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// The error has this code, or one that begins so, and says this.
    #[track_caller]
    pub(crate) fn refused(&self, code: &str, says: &str) {
        assert_eq!(self.code, 1, "{}{}", self.out, self.err);
        assert!(self.err.contains(&format!("error[{code}")), "{}{}", self.out, self.err);
        assert!(self.err.contains(says), "`{says}` is not in: {}{}", self.out, self.err);
    }
}

impl World {
    pub(crate) fn new() -> Self {
        // Not below a private home: stars run under other user ids and must reach their files.
        let folder = tempfile::Builder::new().prefix("rads-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("hello")).unwrap();
        Self { folder }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes a file of the app and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join("hello").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// An app of one service `hello` with these options beside its script and a port of the kernel's choosing.
    pub(crate) fn hello(&self, options: &str) -> PathBuf {
        self.file("hello.rads", HELLO);
        self.app(&format!(
            "constellation.deploy(\"hello\", {{script: \"hello.rads\", port: 8080, listen: 0, {options}}});"
        ))
    }

    pub(crate) fn app(&self, text: &str) -> PathBuf {
        self.file("app.rads", &format!("import constellation;\n{text}\n"))
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rads"));
        command.args(args).env("RADS_DATA", self.data()).env_remove("RADS_LOG").stdin(Stdio::null());
        command
    }

    pub(crate) fn rads(&self, args: &[&str]) -> Outcome {
        outcome(self.command(args).output().unwrap())
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.rads(&[args, &["-o", "json"]].concat()).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// A request of the API with a key, as any client would send it: the status and the body.
    pub(crate) fn ask_once(&self, request: &str, key: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.data().join("agent.sock")).unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nidempotency-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].parse().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// `rads up -d` on a port of the kernel's choosing; gives the address of the service `hello`.
    #[track_caller]
    pub(crate) fn up(&self, app: &Path) -> SocketAddr {
        self.rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
        self.address("hello")
    }

    #[track_caller]
    pub(crate) fn address(&self, service: &str) -> SocketAddr {
        let view = self.service(service);
        view["address"].as_str().unwrap_or_else(|| panic!("no address in {view}")).parse().unwrap()
    }

    #[track_caller]
    pub(crate) fn service(&self, service: &str) -> Value {
        let status = self.json(&["c", "status"]);
        let services = status["services"].as_array().unwrap();
        services.iter().find(|view| view["service"] == service).unwrap_or_else(|| panic!("{status}")).clone()
    }

    /// The running stars, by name.
    pub(crate) fn stars(&self) -> Vec<Star> {
        let stars = self.json(&["c", "list"]);
        let mut stars: Vec<Star> = stars.as_array().unwrap().iter().map(Star::read).collect();
        stars.sort_by(|a, b| a.name.cmp(&b.name));
        stars
    }

    pub(crate) fn agent_pid(&self) -> u32 {
        self.json(&["c", "version"])["agent"]["pid"].as_u64().unwrap() as u32
    }

    /// Nothing runs, is mounted or listens for this data folder any more.
    pub(crate) fn assert_nothing_left(&self) {
        self.wait_for("processes to be gone", || self.processes().is_empty());
        let data = self.data().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&data)).collect();
        assert!(left.is_empty(), "mounts left: {left:?}");
        let sockets = ["agent.sock", "nursery.sock"].map(|name| self.data().join(name));
        assert!(sockets.iter().all(|path| !path.exists()), "sockets left");
        let pids = self.cgroups();
        assert!(pids.is_empty(), "cgroups left: {pids:?}");
    }

    /// The agent, the nursery and every RADS star: all carry the data folder in their command line.
    fn processes(&self) -> Vec<u32> {
        let data = self.data().display().to_string();
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|&pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&data) && state(pid) != Some('Z')
        })
        .collect()
    }

    /// Whether this machine lets this user limit memory; says so when it does not.
    pub(crate) fn limits_bite(&self) -> bool {
        let reason = self.json(&["c", "status"])["walls"]["memory_not_enforced"].clone();
        if let Some(reason) = reason.as_str() {
            println!("skipped: memory limits are not enforced: {reason}");
        }
        reason.is_null()
    }

    /// Groups made for this data folder and those in them: they carry a hash of its path, FNV-1a, cut to 32 bits.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let path = fs::canonicalize(self.data()).unwrap_or_default();
        let hash = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let name = format!("rads-{:08x}", hash as u32);
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if entry.path().to_string_lossy().contains(&name) {
                        found.push(entry.path());
                    }
                    folders.push(entry.path());
                }
            }
        }
        found
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.data().join("agent.log")).unwrap_or_default();
                panic!("waited too long for {what}; the agent said:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.command(&["c", "shutdown"]).output();
        // Where a test left stars without an agent, the nursery is told itself.
        if let Ok(pid) = fs::read_to_string(self.data().join("nursery.pid")) {
            let _ = Command::new("kill").args(["-TERM", pid.trim()]).output();
        }
        // Killed before it has tidied up, a nursery would leave its groups: force is for what hangs.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        for pid in self.processes() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Star {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) phase: String,
    pub(crate) pid: u32,
    /// The kernel's start time, which with the pid names one process for ever.
    pub(crate) start_time: u64,
}

impl Star {
    fn read(view: &Value) -> Self {
        let pid = view["pid"].as_u64().unwrap_or(0) as u32;
        let text = |key: &str| view[key].as_str().unwrap_or_default().to_owned();
        Self { id: text("id"), name: text("name"), phase: text("phase"), pid, start_time: start_time(pid) }
    }
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn start_time(pid: u32) -> u64 {
    stat(pid).and_then(|fields| fields.get(19)?.parse().ok()).unwrap_or(0)
}

fn state(pid: u32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

pub(crate) fn outcome(output: Output) -> Outcome {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Sends a signal; after `-9` returns when the process is gone, and what it held with it.
pub(crate) fn kill(pid: u32, signal: &str) {
    let killed = Command::new("kill").args([signal, &pid.to_string()]).output().unwrap();
    assert!(killed.status.success(), "{killed:?}");
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    let deadline = Instant::now() + DEADLINE;
    while signal == "-9" && runs() {
        assert!(Instant::now() < deadline, "process {pid} does not die");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills a process of which another takes what it holds: a lock among it.
pub(crate) fn kill_to_the_end(world: &World, pid: u32) {
    kill(pid, "-9");
    world.wait_for("it to be gone", || matches!(state(pid), None | Some('Z')));
}

/// `GET /`: the status and the body.
pub(crate) fn get(address: SocketAddr) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

/// Ends a child that a test leaves behind when it fails.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A root with a shell and what it needs, copied from the host.
pub(crate) fn shell_root(world: &World, programs: &[&str]) {
    for &program in programs {
        let host = ["/bin", "/usr/bin"].map(|folder| std::path::Path::new(folder).join(program));
        let host = host.into_iter().find(|path| path.exists()).expect("a usual program");
        let libraries = std::process::Command::new("ldd").arg(&host).output().unwrap().stdout;
        let libraries = String::from_utf8(libraries).unwrap();
        let files = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(std::path::PathBuf::from);
        for file in files.chain([host.clone()]) {
            let inside = if file == host { format!("bin/{program}") } else { file.display().to_string() };
            let target = world.file(&format!("root/{}", inside.trim_start_matches('/')), "");
            std::fs::copy(&file, target).unwrap();
        }
    }
    world.file("root/etc/motd", "from my root\n");
}
