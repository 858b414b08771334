//! What a hostile star costs its neighbour (reliability row 14): the p99 of the neighbour's answers with the hostile star
//! running, held against the same without it, in turns; and against the same beside a process that is no star, has the lowest
//! priority that the kernel knows and uses as much of a processor: less than that costs, nobody can have of this machine (ADR 0050).

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::report::{Report, Samples, Target};
use crate::{Bench, Depth};

const NEIGHBOUR: &str = r#"
turbo server = net.http_server("127.0.0.1", 8080);
server.route("/", blast () { return "neighbour"; });
server.serve();
"#;

/// A star that misbehaves.
struct Hostile {
    name: &'static str,
    what: What,
    /// Its options beside a quarter of a core, 64 MB and 64 processes.
    options: &'static str,
}

enum What {
    Script(&'static str),
    /// Of a shell.
    Command(&'static str),
}

const fn script(name: &'static str, text: &'static str) -> Hostile {
    Hostile { name, what: What::Script(text), options: "" }
}

const fn command(name: &'static str, text: &'static str) -> Hostile {
    Hostile { name, what: What::Command(text), options: "" }
}

/// The same with a disk of its own, on whatever the machine has for that.
const fn on_disk(name: &'static str, text: &'static str) -> Hostile {
    Hostile { name, what: What::Command(text), options: "disk_mb: 64," }
}

const HOSTILE: [Hostile; 14] = [
    script("endless_loop_rads", "turbo n = 0; while (true) { n = n + 1; }"),
    script("memory_bomb_rads", "turbo all = []; while (true) { all.push(\"0123456789\".repeat(1000)); }"),
    script(
        "deep_recursion_rads",
        "blast deep(n) { return deep(n + 1) + 1; } while (true) { try { deep(0); } catch (e) {} }",
    ),
    command("endless_loop", "while :; do :; done"),
    command("fork_bomb", "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done"),
    command("memory_bomb", "while :; do tail /dev/zero; done"),
    command("descriptors", "while :; do exec {f}</dev/null; done 2>/dev/null"),
    command("memory_disk_fill", "while :; do cat /dev/zero > /tmp/fill; done 2>/dev/null"),
    command("memory_inode_fill", "i=0; while :; do : > /tmp/$i; i=$((i+1)); done 2>/dev/null"),
    on_disk("disk_fill", "while :; do cat /dev/zero > /tmp/fill; rm /tmp/fill; done 2>/dev/null"),
    on_disk(
        "synced_disk_fill",
        "while :; do dd if=/dev/zero of=/tmp/fill bs=1M conv=fsync; rm /tmp/fill; done 2>/dev/null",
    ),
    on_disk("inode_fill", "while :; do i=0; while : > /tmp/$i; do i=$((i+1)); done; rm -r /tmp/*; done 2>/dev/null"),
    command("log_flood", "yes & yes >&2"),
    command(
        "regex_bomb",
        "while :; do perl -e '(\"a\" x 28) =~ /^(a+)+$/; (\"a\" x 28 . \"b\") =~ /^(a|aa)+$/' ; done",
    ),
];

/// A quarter of a core in turns as a star's quota makes them, writing to more memory than a cache holds.
const IDLE_WRITER: &str = "use Time::HiRes qw(time sleep);
my ($size, $at) = (64 << 20, 0); my ($all, $some) = ('a' x $size, 'b' x 65536);
while (1) {
    my $begun = time;
    while (time - $begun < 0.025) { substr($all, $at, 65536) = $some; $at = ($at + 65536) % $size; }
    sleep 0.075;
}";

/// Between two requests: a neighbour that is used, not one that is measured to its limit.
const PAUSE: Duration = Duration::from_millis(2);
/// From the start of a hostile star to the first request: stars that spend all they may are found out by looks, three a second.
const SETTLE: Duration = Duration::from_secs(1);
/// Turns with and without, in each depth: many short ones, because the machine itself is slower in some seconds than in others.
const TURNS: usize = 16;
const TURNS_QUICK: usize = 4;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    if let Err(reason) = all(bench, report) {
        report.failed("neighbours_of_hostile_stars", &reason);
    }
}

fn all(bench: &Bench, report: &mut Report) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let agent = Agent::start(&bench.rads, folder.path())?;
    let neighbour = Hostile { options: "port: 8080, listen: 0,", ..script("neighbour", NEIGHBOUR) };
    let app = neighbour.app(folder.path())?;
    agent.run(&["up", "-d", "--yes", &app])?;
    let port = crate::stars::entry_port(&agent)?;
    // Four thousand each way, so that the p99 is forty answers and not a handful.
    let (turns, each) = if bench.depth == Depth::Quick { (TURNS_QUICK, 100) } else { (TURNS, 250) };
    for hostile in HOSTILE {
        let name = hostile.name;
        let figure = format!("neighbour_of_{name}");
        if !bench.wants(&figure) {
            continue;
        }
        let app = hostile.app(folder.path())?;
        let (mut alone, mut beside, mut floor) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..turns {
            alone.extend(requests(port, each)?);
            let service = name.replace('_', "-");
            let mut up = agent.spawn(&["up", "-d", "--yes", &app])?;
            until_known(&agent, &service)?;
            // Whoever waits for such a star would see it fail and take it back.
            let _ = up.kill();
            let _ = up.wait();
            std::thread::sleep(SETTLE);
            beside.extend(requests(port, each)?);
            agent.run(&["c", "down", &service])?;
            let writer = Writer::start()?;
            std::thread::sleep(SETTLE);
            floor.extend(requests(port, each)?);
            drop(writer);
        }
        let samples = |times| Samples::new(times).ok_or("no samples");
        let (alone, beside, floor) = (samples(alone)?, samples(beside)?, samples(floor)?);
        let ratio = |held_against: &Samples| beside.quantile(0.99) / held_against.quantile(0.99);
        let note = format!(
            "p99 {:.2} ms beside it, {:.2} alone; p50 {:.2}, {:.2}; n={}",
            beside.quantile(0.99),
            alone.quantile(0.99),
            beside.median(),
            alone.median(),
            turns * each,
        );
        report.figure(&figure, ratio(&alone), "x", Target::AtMost(1.2), &note);
        let note = format!(
            "p99 {:.2} ms beside a process at the lowest priority, no star, that writes for as long; p50 {:.2}",
            floor.quantile(0.99),
            floor.median(),
        );
        report.figure(&format!("{figure}_vs_floor"), ratio(&floor), "x", Target::AtMost(1.2), &note);
    }
    Ok(())
}

/// A process that runs only when nobody else wants to (`SCHED_IDLE`), until it is dropped.
struct Writer(Child);

impl Writer {
    fn start() -> Result<Self, String> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0", "perl", "-e", IDLE_WRITER]);
        command.spawn().map(Self).map_err(|error| format!("`chrt` and `perl`: {error}"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until_known(agent: &Agent, service: &str) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !agent.run(&["c", "status"])?.contains(service) {
        if Instant::now() > deadline {
            return Err(format!("`{service}` is not there after 5 s"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Milliseconds of each of `count` answers over one connection, through the proxy.
fn requests(port: u16, count: usize) -> Result<Vec<f64>, String> {
    let failed = |error: std::io::Error| format!("the neighbour does not answer: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
    let mut reader = BufReader::new(stream.try_clone().map_err(failed)?);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        std::thread::sleep(PAUSE);
        let begun = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n").map_err(failed)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).map_err(failed)? == 0 {
                return Err("the neighbour hung up".to_owned());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| "an answer without a length")?;
            }
            if line == "\r\n" {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).map_err(failed)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

impl Hostile {
    /// An app of one service with the limits of this group; gives the path of its description.
    fn app(&self, folder: &Path) -> Result<String, String> {
        let Self { name, what, options } = self;
        let service = name.replace('_', "-");
        let folder = folder.join(&service);
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(&folder).map_err(failed)?;
        let runs = match what {
            What::Script(text) => {
                fs::write(folder.join(format!("{name}.rads")), text).map_err(failed)?;
                format!("script: \"{name}.rads\",")
            }
            What::Command(words) => {
                let words = words.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
                format!("command: [\"bash\", \"-c\", \"{words}\"],")
            }
        };
        let app = format!(
            "import constellation;\nconstellation.deploy(\"{service}\", {{ {runs} {options} instances: 1, \
             cpu_percent: 25, ram_mb: 64, pids: 64 }});\n"
        );
        let path = folder.join("app.rads");
        fs::write(&path, app).map_err(failed)?;
        Ok(path.display().to_string())
    }
}
