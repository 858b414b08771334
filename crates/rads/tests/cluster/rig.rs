//! Machines that are network namespaces on one bridge, with a real agent in each: made, hurt in every way, and taken away.
//!
//! Each rig has a namespace of its own as the switch, so nothing on the host is touched but the names of namespaces. Agents
//! see the host's file systems and processes: what they keep is in a data folder each, below the rig's own.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// Longest wait for anything that has no bound of its own; far above what a loaded machine needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Several rigs in one process, one after another or at once.
static RIGS: AtomicU32 = AtomicU32::new(0);

/// Whether agents are those of a user without rights, in a user namespace that `cargo xtask test cluster --rootless` made: there the
/// rig may do with networks what it does elsewhere as root, and agents are started without that.
fn is_rootless() -> bool {
    !rustix::process::geteuid().is_root() && std::env::var_os("RADS_ROOTLESS").is_some()
}

/// Whether this machine lets us; says so when it does not.
pub(crate) fn possible() -> bool {
    if !rustix::process::geteuid().is_root() && !is_rootless() {
        println!("skipped: it takes root, or `cargo xtask test cluster --rootless`");
        return false;
    }
    for program in ["ip", "iptables", "nsenter", "setpriv"] {
        if Command::new(program).arg("--version").output().is_err() {
            println!("skipped: `{program}` is not installed");
            return false;
        }
    }
    true
}

/// The same for what no user namespace lets one do.
pub(crate) fn possible_as_root(what: &str) -> bool {
    if is_rootless() {
        println!("skipped: {what} takes root");
        return false;
    }
    possible()
}

pub(crate) struct Rig {
    folder: tempfile::TempDir,
    tag: String,
    /// The third byte of addresses: 10.77.X.Y.
    net: u8,
    machines: Vec<Machine>,
    /// What an agent is started through, as `faketime`.
    pub(crate) env: RefCell<Vec<(String, String)>>,
}

/// One machine: a namespace, an address, a data folder and, while it is up, an agent.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    namespace: String,
    data: PathBuf,
    agent: RefCell<Option<Child>>,
    mounted: RefCell<bool>,
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

/// A star as `rads c list` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Star {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) phase: String,
    pub(crate) pid: u32,
}

impl Rig {
    /// Machines named `a`, `b`, `c` and so on, joined by a bridge; no agent runs yet.
    pub(crate) fn new(machines: u8) -> Self {
        let number = RIGS.fetch_add(1, SeqCst);
        let folder = tempfile::Builder::new().prefix("rads-cluster-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let tag = format!("rc{}-{number}", std::process::id());
        let net = ((std::process::id() + number) % 250) as u8 + 1;
        let mut rig = Self { folder, tag, net, machines: Vec::new(), env: RefCell::default() };
        let hub = rig.hub();
        run("ip", &["netns", "add", &hub]);
        run("ip", &["-n", &hub, "link", "add", "br0", "type", "bridge"]);
        run("ip", &["-n", &hub, "link", "set", "br0", "up"]);
        for _ in 0..machines {
            rig.add();
        }
        rig
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.tag)
    }

    /// One machine more; gives its place among them.
    pub(crate) fn add(&mut self) -> usize {
        let at = self.machines.len();
        let name = char::from(b'a' + at as u8).to_string();
        let namespace = format!("{}-{name}", self.tag);
        let ip = Ipv4Addr::new(10, 77, self.net, at as u8 + 1);
        let hub = self.hub();
        run("ip", &["netns", "add", &namespace]);
        // Interfaces have at most 15 letters; both ends are born in namespaces, so the host sees neither.
        let port = format!("p-{name}");
        run("ip", &["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        run("ip", &["-n", &hub, "link", "set", &port, "master", "br0", "up"]);
        run("ip", &["-n", &namespace, "addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
        run("ip", &["-n", &namespace, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"]);
        for chain in ["INPUT", "OUTPUT"] {
            iptables(&namespace, &["-N", &format!("RIG-{chain}")]);
            iptables(&namespace, &["-I", chain, "-j", &format!("RIG-{chain}")]);
        }
        let data = self.folder.path().join(&name).join("data");
        fs::create_dir_all(data.parent().unwrap()).unwrap();
        fs::set_permissions(data.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (agent, mounted) = (RefCell::new(None), RefCell::new(false));
        self.machines.push(Machine { name, ip, namespace, data, agent, mounted });
        at
    }

    pub(crate) fn machine(&self, at: usize) -> &Machine {
        &self.machines[at]
    }

    pub(crate) fn all(&self) -> std::ops::Range<usize> {
        0..self.machines.len()
    }

    /// By a node's name.
    #[track_caller]
    pub(crate) fn named(&self, name: &str) -> usize {
        self.machines.iter().position(|machine| machine.name == name).unwrap_or_else(|| panic!("no machine `{name}`"))
    }

    /// Starts an agent and returns when it answers.
    #[track_caller]
    pub(crate) fn start(&self, at: usize) {
        let machine = &self.machines[at];
        assert!(machine.agent.borrow().is_none(), "`{}` has an agent", machine.name);
        fs::create_dir_all(&machine.data).unwrap();
        let log = || OpenOptions::new().create(true).append(true).open(machine.log()).unwrap();
        let mut command = machine.enter();
        command.arg(program()).args(["c", "agent", "--data-dir"]).arg(&machine.data);
        command.envs(self.env.borrow().iter().map(|(name, value)| (name.clone(), value.clone())));
        command.env_remove("RADS_DATA").env_remove("RADS_LOG").stdin(Stdio::null()).stdout(log()).stderr(log());
        *machine.agent.borrow_mut() = Some(command.spawn().unwrap());
        self.wait_for(&format!("the agent of `{}`", machine.name), || {
            machine.rads(&["c", "version"]).out.contains("pid")
        });
    }

    /// A constellation of all machines, the first its founder; returns when each sees all alive.
    #[track_caller]
    pub(crate) fn constellation(&self) {
        self.constellation_with(|_| Vec::new());
    }

    /// The same of the first so many machines; on the others no agent runs.
    #[track_caller]
    pub(crate) fn constellation_of(&self, machines: usize) {
        self.start(0);
        let token = self.init(0, &[]);
        for at in 1..machines {
            self.start(at);
            self.join(at, &token, &[]);
        }
        self.all_alive(machines);
    }

    #[track_caller]
    pub(crate) fn constellation_with(&self, options: impl Fn(usize) -> Vec<&'static str>) {
        self.start(0);
        let token = self.init(0, &options(0));
        for at in self.all().skip(1) {
            self.start(at);
            self.join(at, &token, &options(at));
        }
        self.all_alive(self.machines.len());
        // They come to vote one after another, and two can lose none.
        let votes = match self.machines.len() {
            1 | 2 => 1,
            3 | 4 => 3,
            _ => 5,
        };
        self.wait_for(&format!("{votes} voters"), || {
            self.machines[0].nodes().iter().filter(|node| node["votes"] == true).count() == votes
        });
    }

    /// Founds one on a machine; gives the token.
    #[track_caller]
    pub(crate) fn init(&self, at: usize, options: &[&str]) -> String {
        let name = &self.machines[at].name;
        let args = [&["c", "init", "--cluster", "test", "--name", name], options].concat();
        let became = self.machines[at].json(&args);
        became["token"]["token"].as_str().unwrap_or_else(|| panic!("no token in {became}")).to_owned()
    }

    #[track_caller]
    pub(crate) fn join(&self, at: usize, token: &str, options: &[&str]) {
        let (name, first) = (&self.machines[at].name, self.machines[0].ip.to_string());
        let args = [&["c", "join", &first, "--token", token, "--name", name], options].concat();
        self.machines[at].rads(&args).ok();
    }

    /// By the address of another machine than the first.
    #[track_caller]
    pub(crate) fn join_at(&self, at: usize, by: usize, token: &str) {
        let (name, address) = (&self.machines[at].name, self.machines[by].ip.to_string());
        self.machines[at].rads(&["c", "join", &address, "--token", token, "--name", name]).ok();
    }

    /// Waits until every machine with an agent sees so many alive, and one that leads.
    #[track_caller]
    pub(crate) fn all_alive(&self, count: usize) {
        self.all_alive_of(&self.up().collect::<Vec<_>>(), count);
    }

    /// The same of these machines.
    #[track_caller]
    pub(crate) fn all_alive_of(&self, these: &[usize], count: usize) {
        self.wait_for(&format!("{count} nodes alive everywhere"), || {
            these.iter().all(|at| {
                let at = *at;
                let nodes = self.machines[at].nodes();
                let alive = nodes.iter().filter(|node| node["health"] == "alive").count();
                alive == count && nodes.iter().any(|node| node["leads"] == true)
            })
        });
    }

    /// Machines whose agent was started and not killed.
    pub(crate) fn up(&self) -> impl Iterator<Item = usize> + '_ {
        self.all().filter(|at| self.machines[*at].agent.borrow().is_some())
    }

    /// The one that leads, as the machine at `seen_from` has it.
    pub(crate) fn leader(&self, seen_from: usize) -> Option<usize> {
        let nodes = self.machines[seen_from].nodes();
        let leader = nodes.iter().find(|node| node["leads"] == true)?["name"].as_str()?.to_owned();
        Some(self.named(&leader))
    }

    /// Waits for a leader that the machine at `seen_from` knows of, other than `not`.
    #[track_caller]
    pub(crate) fn await_leader(&self, seen_from: usize, not: Option<usize>) -> usize {
        let mut found = None;
        self.wait_for("a leader", || {
            found = self.leader(seen_from).filter(|leader| Some(*leader) != not);
            found.is_some()
        });
        found.unwrap()
    }

    /// A path beside the machines' folders.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file for apps; gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join("hello").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Gives a machine without an agent what another one without an agent has in its data folder.
    pub(crate) fn copy_folder(&self, from: usize, to: usize) {
        let (from, to) = (&self.machines[from].data, &self.machines[to].data);
        if to.exists() {
            fs::remove_dir_all(to).unwrap();
        }
        run("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
    }

    /// Starts an agent that is to end by itself; gives what with, and how long that took.
    #[track_caller]
    pub(crate) fn start_in_vain(&self, at: usize) -> (Outcome, Duration) {
        let (machine, began) = (&self.machines[at], Instant::now());
        let mut command = machine.enter();
        // Of one that does not end nothing is learned but that.
        command
            .args(["timeout", "-s", "KILL", "30"])
            .arg(program())
            .args(["c", "agent", "--data-dir"])
            .arg(&machine.data);
        command.env_remove("RADS_DATA").env_remove("RADS_LOG").stdin(Stdio::null());
        (outcome(command.output().unwrap()), began.elapsed())
    }

    /// Ends the agent alone; nursery and stars run on.
    pub(crate) fn kill_agent(&self, at: usize) {
        let machine = &self.machines[at];
        let mut agent = machine.agent.borrow_mut().take().expect("an agent");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Waits for an agent that was told to end.
    pub(crate) fn ended(&self, at: usize) {
        let mut agent = self.machines[at].agent.borrow_mut().take().expect("an agent");
        self.wait_for("the agent to end", || matches!(agent.try_wait(), Ok(Some(_))));
    }

    pub(crate) fn agent_pid(&self, at: usize) -> u32 {
        self.machines[at].agent.borrow().as_ref().expect("an agent").id()
    }

    /// Waits for an agent that ends by itself; gives what with.
    #[track_caller]
    pub(crate) fn exit_code(&self, at: usize) -> i32 {
        let mut agent = self.machines[at].agent.borrow_mut().take().expect("an agent");
        let mut code = None;
        self.wait_for("the agent to end", || {
            code = agent.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// A machine's end: off the network, then agent, nursery and stars are killed at one moment.
    pub(crate) fn die(&self, at: usize) {
        self.link(at, "down");
        let machine = &self.machines[at];
        let processes = machine.processes();
        // Nothing of it acts on the end of something else of it.
        processes.iter().for_each(|pid| signal(*pid, Signal::STOP));
        processes.iter().for_each(|pid| signal(*pid, Signal::KILL));
        if let Some(mut agent) = machine.agent.borrow_mut().take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
        self.wait_for("processes to be gone", || machine.processes().is_empty());
    }

    /// A machine that died is switched on again, as after a reboot: its agent starts.
    #[track_caller]
    pub(crate) fn revive(&self, at: usize) {
        self.link(at, "up");
        self.start(at);
    }

    fn link(&self, at: usize, state: &str) {
        run("ip", &["-n", &self.hub(), "link", "set", &format!("p-{}", self.machines[at].name), state]);
    }

    /// Everything of a machine stands still, or goes on.
    pub(crate) fn pause(&self, at: usize) {
        self.machines[at].processes().iter().for_each(|pid| signal(*pid, Signal::STOP));
    }

    pub(crate) fn go_on(&self, at: usize) {
        self.machines[at].processes().iter().for_each(|pid| signal(*pid, Signal::CONT));
    }

    /// No packet gets from the one to the other.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        let source = self.machines[from].ip.to_string();
        iptables(&self.machines[to].namespace, &["-A", "RIG-INPUT", "-s", &source, "-j", "DROP"]);
    }

    /// No packet gets between any of these and any of those.
    pub(crate) fn cut(&self, these: &[usize], those: &[usize]) {
        for (a, b) in these.iter().flat_map(|a| those.iter().map(move |b| (*a, *b))) {
            self.cut_one_way(a, b);
            self.cut_one_way(b, a);
        }
    }

    /// Every machine loses this part of what comes in from others.
    pub(crate) fn lose(&self, part: f64) {
        let probability = part.to_string();
        for machine in &self.machines {
            let random = ["-m", "statistic", "--mode", "random", "--probability", &probability];
            iptables(&machine.namespace, &[&["-A", "RIG-INPUT", "-i", "eth0"], &random[..], &["-j", "DROP"]].concat());
        }
    }

    /// The network is as it was.
    pub(crate) fn heal(&self) {
        for machine in &self.machines {
            iptables(&machine.namespace, &["-F", "RIG-INPUT"]);
            iptables(&machine.namespace, &["-F", "RIG-OUTPUT"]);
        }
    }

    /// Gives a machine without an agent a small disk for its data folder.
    pub(crate) fn small_disk(&self, at: usize, mib: u64) {
        let machine = &self.machines[at];
        let image = machine.data.with_extension("img");
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        fs::create_dir_all(&machine.data).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), machine.data.to_str().unwrap()]);
        *machine.mounted.borrow_mut() = true;
    }

    /// Writes into a machine's data folder until nothing more fits; gives the file to be removed.
    pub(crate) fn fill_disk(&self, at: usize) -> PathBuf {
        let path = self.machines[at].data.join("filler");
        let mut file = File::create(&path).unwrap();
        let mut chunk = vec![7; 1 << 20];
        while !chunk.is_empty() {
            match file.write_all(&chunk).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => chunk.truncate(chunk.len() / 16),
                Err(error) => panic!("{error}"),
            }
        }
        path
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, holds: impl FnMut() -> bool) {
        self.wait_within(what, DEADLINE, holds);
    }

    /// Waits, and gives how long it took. On the way out every agent's last words are shown.
    #[track_caller]
    pub(crate) fn wait_within(&self, what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Duration {
        let since = Instant::now();
        while !holds() {
            if since.elapsed() > within {
                let logs: String = self.machines.iter().map(Machine::last_words).collect();
                panic!("waited {within:?} for {what}\n{logs}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        since.elapsed()
    }

    /// The stars that have not ended, as a machine has them.
    pub(crate) fn stars(&self, seen_from: usize) -> Vec<Star> {
        self.machines[seen_from].stars()
    }

    /// Waits until a service has so many ready stars, none of them on `not`; gives how long it took.
    #[track_caller]
    pub(crate) fn await_ready(&self, seen_from: usize, count: usize, not: &[usize], within: Duration) -> Duration {
        let gone: Vec<&str> = not.iter().map(|at| self.machines[*at].name.as_str()).collect();
        self.wait_within(&format!("{count} ready stars, none on {gone:?}"), within, || {
            let stars = self.stars(seen_from);
            let ready = stars.iter().filter(|star| star.phase == "ready" && !gone.contains(&star.node.as_str()));
            ready.count() == count
        })
    }
}

impl Machine {
    /// A command within the machine's network, without any right that only the rig is to have.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        if is_rootless() {
            command.args(["setpriv", "--ambient-caps=-all", "--inh-caps=-all", "--"]);
        }
        command
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.enter();
        command.arg(program()).args(args).env("RADS_DATA", &self.data).stdin(Stdio::null());
        command
    }

    pub(crate) fn rads(&self, args: &[&str]) -> Outcome {
        outcome(self.command(args).output().unwrap())
    }

    /// A request of the API without content, as any program of this machine would send it: the status and the body.
    pub(crate) fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = std::os::unix::net::UnixStream::connect(self.data.join("agent.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
                            content-length: 4\r\n\r\nnull"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].parse().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.rads(&[args, &["-o", "json"]].concat()).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What it says of the nodes, each without its `facts`; nothing when it does not answer.
    pub(crate) fn nodes(&self) -> Vec<Value> {
        let outcome = self.rads(&["c", "nodes", "--all", "-o", "json"]);
        let nodes: Value = serde_json::from_str(&outcome.out).unwrap_or_default();
        nodes.as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn node(&self, name: &str) -> Option<Value> {
        self.nodes().into_iter().find(|node| node["name"] == name)
    }

    pub(crate) fn stars(&self) -> Vec<Star> {
        let outcome = self.rads(&["c", "list", "-o", "json"]);
        let stars: Value = serde_json::from_str(&outcome.out).unwrap_or_default();
        let read = |view: &Value| {
            let text = |key: &str| view[key].as_str().unwrap_or_default().to_owned();
            let pid = view["pid"].as_u64().unwrap_or(0) as u32;
            Star { id: text("id"), name: text("name"), node: text("node_name"), phase: text("phase"), pid }
        };
        stars.as_array().map(|stars| stars.iter().map(read).collect()).unwrap_or_default()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(12)..];
        format!("--- agent of `{}`\n{}\n", self.name, last.join("\n"))
    }

    /// `GET /` at a port of this very machine, asked from within it.
    pub(crate) fn get(&self, port: u16) -> io::Result<(u16, String)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.within(move || get(address))
    }

    /// Does something on a thread that is in the machine's network.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.namespace();
        std::thread::spawn(move || {
            namespace.enter();
            work()
        })
        .join()
        .unwrap()
    }

    pub(crate) fn namespace(&self) -> Namespace {
        Namespace(PathBuf::from("/run/netns").join(&self.namespace))
    }

    /// Whether any star runs here, in the log or not.
    pub(crate) fn runs_stars(&self) -> bool {
        let line = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        self.processes().iter().any(|pid| line(pid).starts_with(b"rads star "))
    }

    /// The agent, the nursery, and everything below it.
    fn processes(&self) -> Vec<u32> {
        let data = self.data.display().to_string();
        let mut parents: Vec<(u32, u32)> = Vec::new();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
            let mut fields = rest.split_whitespace();
            if fields.next() == Some("Z") {
                continue;
            }
            let parent = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
            parents.push((pid, parent));
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).split('\0').any(|word| word == data) {
                found.push(pid);
            }
        }
        let mut next = 0;
        while let Some(&parent) = found.get(next) {
            let children = parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid);
            let new: Vec<u32> = children.filter(|pid| !found.contains(pid)).collect();
            found.extend(new);
            next += 1;
        }
        found
    }
}

/// A machine's network, for threads to be in.
#[derive(Debug, Clone)]
pub(crate) struct Namespace(PathBuf);

impl Namespace {
    /// This thread is in it from here on, and so are its connections.
    pub(crate) fn enter(&self) {
        let file = File::open(&self.0).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("RADS_KEEP").is_some() {
            eprintln!("kept: {} and namespaces {}-*", self.folder.path().display(), self.tag);
            self.folder.disable_cleanup(true);
            return;
        }
        for at in self.all() {
            self.go_on(at);
        }
        let endings: Vec<Child> = self
            .machines
            .iter()
            .filter(|machine| !machine.processes().is_empty())
            .filter_map(|machine| {
                let mut command = machine.command(&["c", "shutdown"]);
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
            })
            .collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        for mut ending in endings {
            while matches!(ending.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = ending.kill();
            let _ = ending.wait();
        }
        for machine in &self.machines {
            // An agent without a leader cannot write that its stars ended; a nursery that is told itself ends them all the same.
            if let Ok(pid) = fs::read_to_string(machine.data.join("nursery.pid")) {
                pid.trim().parse().ok().into_iter().for_each(|pid| signal(pid, Signal::TERM));
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            while machine.processes().len() > 1 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            machine.processes().iter().for_each(|pid| signal(*pid, Signal::KILL));
            if let Some(mut agent) = machine.agent.borrow_mut().take() {
                let _ = agent.kill();
                let _ = agent.wait();
            }
            if *machine.mounted.borrow() {
                let _ = Command::new("umount").arg("-l").arg(&machine.data).output();
            }
            let _ = Command::new("ip").args(["netns", "del", &machine.namespace]).output();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.hub()]).output();
    }
}

/// What agents run: the program these tests were built with, or another one that `RADS_PROGRAM` names.
fn program() -> std::ffi::OsString {
    std::env::var_os("RADS_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_rads").into())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

pub(crate) fn outcome(output: Output) -> Outcome {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn iptables(namespace: &str, args: &[&str]) {
    let network = format!("--net=/run/netns/{namespace}");
    run("nsenter", &[&[network.as_str(), "iptables", "-w"], args].concat());
}

/// `GET /`: the status and the body.
pub(crate) fn get(address: SocketAddr) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}
