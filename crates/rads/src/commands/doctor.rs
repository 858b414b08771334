//! `rads c doctor`: what this machine lets stars have, found by trying it, and how to get the rest.
//!
//! Nothing is concluded from versions or settings where it can be tried: stars are started, by a nursery of its own beside
//! the data folder, and everything is taken away again. `ports`: who has those the agent wants. `others`: the other nodes of
//! its constellation, as the agent reaches them, and clocks.

mod others;
mod ports;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::{ServiceView, Survey};
use isolate::criu::Criu;
use isolate::{Client, DiskMeans, Enforced, Launch, Message, Request, StarOrder, Walls};
use model::{Bytes, Limits, Millicores, Network, Problem, StarId};
use serde::Serialize;

use self::ports::{Kind, Port, Purpose, Sockets};
use super::agent::own_program;
use crate::cli::Form;
use crate::screen::{self, Paint};

/// One thing a star may need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    state: State,
    detail: String,
    /// How to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Works,
    /// It works, and something about it will be in the way sooner or later.
    Warns,
    /// Stars run without it, and say so.
    Missing,
    /// No star runs.
    Broken,
}

pub(super) fn doctor(data_dir: &Path, form: Form) -> Result<u8, Problem> {
    let findings = judge(&look(data_dir), rustix::process::geteuid().is_root());
    match form {
        Form::Json => screen::json(&findings)?,
        Form::Text => tell(&findings),
    }
    Ok(u8::from(findings.iter().any(|finding| finding.state == State::Broken)))
}

fn tell(findings: &[Finding]) {
    let paint = Paint::for_stream(&io::stdout());
    let uname = rustix::system::uname();
    let who = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
    screen::line(format!(
        "rads {} on Linux {}, as {who}\n",
        env!("CARGO_PKG_VERSION"),
        uname.release().to_string_lossy()
    ));
    for finding in findings {
        let state = match finding.state {
            State::Works => "ok     ".to_owned(),
            State::Warns => paint.bold("warning"),
            State::Missing => paint.bold("missing"),
            State::Broken => paint.red("BROKEN "),
        };
        screen::line(format!("{state}  {:<16} {}", finding.what, finding.detail));
        if let Some(help) = &finding.help {
            screen::line(format!("{:<26}help: {help}", ""));
        }
    }
}

/// What was tried, and what came of it; an error is the reason in words.
#[derive(Debug)]
struct Facts {
    folder: Result<PathBuf, String>,
    /// Time of one small write that is on the disk when it returns.
    sync: Result<Duration, String>,
    walls: Result<Walls, String>,
    /// From the order to a program behind its walls.
    star: Result<Duration, String>,
    root: Result<(), String>,
    bridge: Result<(), String>,
    /// Whether the kernel lets only little wait in memory for an image's disk.
    disk: Result<bool, String>,
    open_files: Option<u64>,
    /// CRIU's version and program.
    criu: Result<(String, PathBuf), String>,
    /// Whether systemd is what started everything here (sd_booted(3)).
    systemd: bool,
    /// The runtime for foreign containers.
    oci: Option<PathBuf>,
    /// The version of control groups that its containers have, and which controllers work there and which do not.
    groups: Result<(u8, Vec<&'static str>, Vec<&'static str>), String>,
    /// Whether the clock is kept right, by the kernel's word.
    clock: Result<bool, String>,
    ports: Vec<Port>,
    /// How the agent reaches the other nodes; nothing without an agent.
    survey: Option<Result<Survey, String>>,
}

/// Below it a node runs out of descriptors at a few hundred stars: each costs it four, and each connection two.
const OPEN_FILES_FEW: u64 = 4_096;
/// A disk that takes longer to make a write durable slows every change that much.
const SYNC_SLOW: Duration = Duration::from_millis(10);

/// How to get it.
const CRIU_HELP: &str = "install CRIU 4.1 or later, or unpack its packages into a folder and name that in `RADS_CRIU`";

fn judge(facts: &Facts, root: bool) -> Vec<Finding> {
    let works = |what: &str, detail: String| Finding { what: what.to_owned(), state: State::Works, detail, help: None };
    let broken = |what: &str, detail: &str, help: &str| Finding {
        what: what.to_owned(),
        state: State::Broken,
        detail: detail.to_owned(),
        help: Some(help.to_owned()),
    };
    let missing =
        |what: &str, detail: &str, help: &str| Finding { state: State::Missing, ..broken(what, detail, help) };
    let mut findings = Vec::new();
    findings.push(match (&facts.folder, &facts.sync) {
        (Err(reason), _) | (Ok(_), Err(reason)) => {
            broken("data folder", reason, "choose another with `--data-dir` or `RADS_DATA`")
        }
        (Ok(path), Ok(time)) if *time > SYNC_SLOW => Finding {
            what: "data folder".to_owned(),
            state: State::Warns,
            detail: format!("`{}`: a durable write takes {}, and so does every change", path.display(), millis(*time)),
            help: Some("put the data folder on a local disk that is not busy".to_owned()),
        },
        (Ok(path), Ok(time)) => {
            works("data folder", format!("`{}`: a durable write takes {}", path.display(), millis(*time)))
        }
    });
    findings.push(match &facts.star {
        Ok(time) => works("stars", format!("one stood behind every wall after {}", millis(*time))),
        Err(reason) if root => broken("stars", reason, "see the message above; Linux 5.12 or later is needed"),
        Err(reason) => broken(
            "stars",
            reason,
            "allow user namespaces: `sysctl kernel.unprivileged_userns_clone=1`, \
             `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root",
        ),
    });
    let survey = facts.survey.as_ref().and_then(|survey| survey.as_ref().ok());
    let mut around = vec![others::judge_clock(&facts.clock, survey)];
    around.extend(ports::judge(&facts.ports));
    match &facts.survey {
        Some(Ok(survey)) => around.extend(others::judge(survey)),
        Some(Err(reason)) => around.push(Finding {
            what: "agent".to_owned(),
            state: State::Warns,
            detail: format!("it does not say how it reaches other nodes: {reason}"),
            help: Some("see what it last said in `agent.log`".to_owned()),
        }),
        None => {}
    }
    let Ok(walls) = &facts.walls else {
        findings.extend(around);
        return findings;
    };
    let delegate = match facts.systemd {
        true => {
            "run as root, or have systemd delegate controllers: `systemctl edit user@.service`, `Delegate=cpu cpuset io memory pids`"
        }
        false => "run as root, or within cgroups that belong to this user",
    };
    let controllers = match facts.systemd {
        true => "mount the controller, or boot with `systemd.unified_cgroup_hierarchy=1`",
        false => "mount the controller, `mount -t cgroup2 none /sys/fs/cgroup` for all of them",
    };
    for (what, enforced) in
        [("cpu limits", &walls.cpu), ("memory limits", &walls.memory), ("process limits", &walls.pids)]
    {
        findings.push(match enforced {
            Enforced::Yes if what == "process limits" && !walls.cpu.is_yes() => {
                works(what, "by a limit of each star's own".to_owned())
            }
            Enforced::Yes => works(what, format!("cgroups {}", walls.cgroup)),
            Enforced::No { reason } => missing(what, reason, if root { controllers } else { delegate }),
        });
    }
    findings.push(match &walls.landlock {
        Enforced::Yes => works("landlock", "a second wall around the files of stars".to_owned()),
        Enforced::No { reason } => {
            let help = "stars are safe without; to have it, boot Linux 5.19 or later with `lsm=landlock,…` in front of its list";
            missing("landlock", reason, help)
        }
    });
    findings.push(match &facts.root {
        Ok(()) => works("own root", "`rootfs` works, by overlay".to_owned()),
        Err(reason) => missing("own root", reason, "`rootfs` needs Linux 5.19 or later with overlayfs"),
    });
    findings.push(match &facts.bridge {
        Ok(()) => works("bridge network", "a star calls out by a bridge".to_owned()),
        Err(reason) if root => missing("bridge network", reason, "install the package `iptables`"),
        Err(reason) => missing("bridge network", reason, "run as root, or use `network: \"host\"`"),
    });
    findings.push(match &walls.memory {
        Enforced::Yes if walls.cgroup == "v2" => works("memory balloon", "a soft limit is heeded at once".to_owned()),
        Enforced::Yes => works("memory balloon", "a soft limit is heeded when memory is short (cgroup v1)".to_owned()),
        Enforced::No { reason } => missing("memory balloon", reason, if root { controllers } else { delegate }),
    });
    findings.push(works("log rate", "by the nursery".to_owned()));
    let io_help = match &walls.io {
        Enforced::No { reason } if reason.contains("lies on no disk") => {
            "put the data folder on a disk of this machine"
        }
        _ if root => controllers,
        _ => delegate,
    };
    for (what, enforced, help) in [
        ("cpu pinning", &walls.pinning, if root { controllers } else { delegate }),
        ("cpu burst", &walls.burst, if walls.cpu.is_yes() { "Linux 5.14 or later" } else { delegate }),
        ("giving way", &walls.yielding, if walls.cpu.is_yes() { "Linux 5.15 or later" } else { delegate }),
        ("io limits", &walls.io, io_help),
    ] {
        findings.push(match enforced {
            Enforced::Yes if what == "io limits" && walls.io_in_part => works(what, isolate::IO_IN_PART.to_owned()),
            Enforced::Yes if what == "giving way" && walls.yielding_in_part => {
                works(what, isolate::YIELDING_IN_PART.to_owned())
            }
            Enforced::Yes => works(what, format!("cgroups {}", walls.cgroup)),
            Enforced::No { reason } => missing(what, reason, help),
        });
    }
    let image = "install the package `e2fsprogs`, or put the data folder on ext4 or XFS mounted with `prjquota`";
    findings.push(match (&facts.disk, &walls.disk) {
        (Err(reason), _) => missing("disk limits", reason, image),
        (Ok(_), DiskMeans::ProjectQuota) => works("disk limits", "by the file system's project quota".to_owned()),
        (Ok(true), DiskMeans::Image) => works("disk limits", "by a file system in an image, one for each".to_owned()),
        (Ok(false), DiskMeans::Image) => missing(
            "disk limits",
            "by a file system in an image, one for each; a star that writes much delays others by milliseconds",
            "Linux 6.2 or later, and a writable `/sys`",
        ),
        (Ok(_), DiskMeans::Memory { reason }) => {
            let detail = format!("disks are in memory and sizes of volumes not enforced: {reason}");
            missing("disk limits", &detail, if root { image } else { "run as root" })
        }
    });
    findings.push(match facts.open_files {
        Some(limit) if limit < OPEN_FILES_FEW => missing(
            "open files",
            &format!("at most {limit}: enough for about {} stars", limit / 8),
            match facts.systemd {
                true => "raise the hard limit: `ulimit -Hn 65536`, `LimitNOFILE=` of a unit",
                false => "raise the hard limit: `ulimit -Hn 65536`",
            },
        ),
        Some(limit) => works("open files", format!("at most {limit}")),
        None => works("open files", "unlimited".to_owned()),
    });
    findings.push(match &facts.criu {
        _ if !root => missing("memory snapshots", "only root may read a process's system call filter", "run as root"),
        Ok((version, program)) => works("memory snapshots", format!("by CRIU {version}, `{}`", program.display())),
        Err(reason) => missing("memory snapshots", reason, CRIU_HELP),
    });
    let help = if root { controllers } else { delegate };
    findings.push(match (&facts.oci, &facts.groups) {
        (None, _) => missing(
            "containers",
            "`rads-oci` lies neither beside this program nor on the path",
            "put `rads-oci` beside `rads`; without it stars work as ever",
        ),
        (Some(_), Err(reason)) => missing("containers", &format!("without limits: {reason}"), help),
        (Some(_), Ok((version, has, lacks))) if !lacks.is_empty() => {
            let has = if has.is_empty() { "nothing".to_owned() } else { has.join(", ") };
            let detail = format!("cgroups v{version} limit {has}, and not {}", lacks.join(", "));
            missing("containers", &detail, help)
        }
        (Some(program), Ok((version, has, _))) => {
            works("containers", format!("`{}`; cgroups v{version} limit {}", program.display(), has.join(", ")))
        }
    });
    findings.extend(around);
    findings
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// What the agent of the folder says, if one answers.
struct Heard {
    pid: u32,
    survey: Result<Survey, String>,
    services: Vec<ServiceView>,
}

fn hear(data_dir: &Path) -> Option<Heard> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let (client, version) = api::Client::connect(data_dir).await.ok()?;
        let survey = client.survey().await.map_err(|problem| problem.message);
        Some(Heard { pid: version.pid, survey, services: client.services().await.unwrap_or_default() })
    })
}

/// The ports that the agent listens on, or would.
fn ports(data_dir: &Path, heard: Option<&Heard>) -> Vec<Port> {
    let sockets = Sockets::look(heard.map(|heard| heard.pid));
    let port = |address: SocketAddr, kind: Kind, purpose: Purpose| {
        let holder = sockets.holder(kind, address);
        Port { address, kind, purpose, holder }
    };
    let usual = SocketAddr::from((Ipv4Addr::UNSPECIFIED, api::constellation::PORT));
    let running = heard.and_then(|heard| heard.survey.as_ref().ok()?.listen);
    // What it kept of its constellation tells where it will listen.
    let later = || agent::listens_on(data_dir).ok().flatten().unwrap_or(usual);
    let (address, purpose) = match running {
        Some(address) => (address, Purpose::Nodes),
        None => (later(), Purpose::NodesLater),
    };
    let mut found = vec![port(address, Kind::Tcp, purpose.clone()), port(address, Kind::Udp, purpose)];
    for view in heard.into_iter().flat_map(|heard| &heard.services) {
        let entry = view.spec.entry.as_ref().map(|entry| SocketAddr::new(entry.listen.ip, entry.listen.port));
        // A port that the system chose is known once it is open.
        let Some(address) = view.address.or(entry.filter(|address| address.port() != 0)) else { continue };
        let purpose = Purpose::Entry { service: view.service.to_string(), problem: view.problem.clone() };
        found.push(port(address, Kind::Tcp, purpose));
    }
    found
}

fn look(data_dir: &Path) -> Facts {
    let heard = hear(data_dir);
    let ports = ports(data_dir, heard.as_ref());
    let survey = heard.map(|heard| heard.survey);
    let clock = isolate::clock_is_synchronised().map_err(|error| error.to_string());
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let criu = Criu::find().and_then(|criu| Ok((criu.check()?, criu.program().to_owned())));
    let systemd = Path::new("/run/systemd/system").is_dir();
    let oci = runtime();
    let groups = isolate::container::Groups::survey(&format!("rads-doctor-{}", std::process::id()));
    let unknown = || "not tried".to_owned();
    let place = match Trial::beside(data_dir) {
        Ok(place) => place,
        Err(error) => {
            let reason = format!("cannot write beside `{}`: {error}", data_dir.display());
            let none = Err(reason);
            return Facts {
                folder: none,
                sync: Err(unknown()),
                walls: Err(unknown()),
                star: Err("there is no folder to try it in".to_owned()),
                root: Err(unknown()),
                bridge: Err(unknown()),
                disk: Err(unknown()),
                open_files,
                criu,
                systemd,
                oci,
                groups,
                clock,
                ports,
                survey,
            };
        }
    };
    let sync = sync_time(&place.0).map_err(|error| error.to_string());
    let folder = Ok(data_dir.to_owned());
    let nursery = match Nursery::start(&place.0) {
        Ok(nursery) => nursery,
        Err(reason) => {
            let (walls, root, bridge, disk) = (Err(unknown()), Err(unknown()), Err(unknown()), Err(unknown()));
            let star = Err(reason);
            return Facts {
                folder,
                sync,
                walls,
                star,
                root,
                bridge,
                disk,
                open_files,
                criu,
                systemd,
                oci,
                groups,
                clock,
                ports,
                survey,
            };
        }
    };
    let star = nursery.order(1, |_| {});
    // In an empty root there is no program: that this is what is missing means that all else stood.
    let root = match nursery.order(2, |order| order.root = Some(place.0.join("empty"))) {
        Err(reason) if !reason.starts_with("cannot run") => Err(reason),
        _ => Ok(()),
    };
    let bridge = nursery.order(3, |order| order.network = Network::Bridge).map(drop);
    let disk = nursery.order(4, |order| order.limits.disk = Some(Limits::DISK_MIN)).map(|_| isolate::pace::can_bound());
    let walls = Ok(nursery.walls.clone());
    Facts {
        folder,
        sync,
        walls,
        star,
        root,
        bridge,
        disk,
        open_files,
        criu,
        systemd,
        oci,
        groups,
        clock,
        ports,
        survey,
    }
}

/// Where `rads-oci` lies: beside this program, or where programs are looked for.
fn runtime() -> Option<PathBuf> {
    let beside = own_program().ok().and_then(|program| Some(program.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = beside.into_iter().chain(std::env::split_paths(&path));
    places.map(|folder| folder.join("rads-oci")).find(|program| program.is_file())
}

/// A folder to try things in, on the disk of the data folder; gone when dropped.
struct Trial(PathBuf);

impl Trial {
    fn beside(data_dir: &Path) -> io::Result<Self> {
        let there = data_dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        let folder = there.join(format!(".rads-doctor-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let trial = Self(folder);
        fs::set_permissions(&trial.0, fs::Permissions::from_mode(0o700))?;
        for name in ["bundle", "empty"] {
            fs::create_dir(trial.0.join(name))?;
        }
        Ok(trial)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The median of some writes of a page, each on the disk before the next.
fn sync_time(folder: &Path) -> io::Result<Duration> {
    const TRIES: usize = 21;
    let file = File::create(folder.join("sync"))?;
    let mut times = Vec::with_capacity(TRIES);
    for _ in 0..TRIES {
        let begun = Instant::now();
        file.write_all_at(&[7; 4096], 0)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[TRIES / 2])
}

/// Longest wait for anything the nursery is asked for.
const PATIENCE: Duration = Duration::from_secs(10);

struct Nursery {
    client: Client,
    bundle: PathBuf,
    walls: Walls,
}

impl Nursery {
    fn start(place: &Path) -> Result<Self, String> {
        let (data, log) = (place.join("data"), place.join("nursery.log"));
        let exe = own_program().map_err(|problem| problem.message)?;
        let args = ["nursery".into(), "--data-dir".into(), data.clone().into_os_string()];
        isolate::launch_detached(&exe, &args, &log).map_err(|fault| fault.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        let client = loop {
            match Client::connect(&data) {
                Ok(client) => break client,
                Err(_) if Instant::now() < deadline => {
                    // What it says, it says before it ends.
                    let said = fs::read_to_string(&log).unwrap_or_default();
                    if let Some(reason) = said.lines().next() {
                        return Err(reason.split_once("]: ").map_or(reason, |(_, reason)| reason).to_owned());
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(format!("the nursery does not come up: {error}")),
            }
        };
        send(&client, &Request::Hello { version: isolate::protocol::VERSION })?;
        let walls = answer(&client, |message| match message {
            Message::Welcome { walls, .. } => Some(Ok(walls)),
            Message::Refused { reason, .. } => Some(Err(reason)),
            _ => None,
        })?;
        Ok(Self { client, bundle: place.join("bundle"), walls })
    }

    /// Starts a star with limits, changed as told; how long it took, or why it does not stand.
    fn order(&self, number: u64, change: impl FnOnce(&mut StarOrder)) -> Result<Duration, String> {
        let mut order = StarOrder {
            star: StarId(number),
            generation: 1,
            hostname: format!("doctor-{number}"),
            launch: Launch::Command { argv: vec!["true".to_owned()] },
            args: Vec::new(),
            before: Vec::new(),
            env: BTreeMap::new(),
            bundle: self.bundle.clone(),
            root: None,
            volumes: Vec::new(),
            limits: Limits {
                cpu: Some(Millicores(250)),
                memory: Some(Bytes::mib(64)),
                pids: Some(16),
                ..Limits::UNLIMITED
            },
            network: Network::None,
            interior: Default::default(),
            weakened: Default::default(),
            memory: None,
            beginning: None,
        };
        change(&mut order);
        send(&self.client, &Request::Start(Box::new(order)))?;
        answer(&self.client, |message| match message {
            Message::Started { star, elapsed_us, .. } if star.0 == number => {
                Some(Ok(Duration::from_micros(elapsed_us)))
            }
            Message::StartFailed { star, reason } if star.0 == number => Some(Err(reason)),
            Message::Refused { reason, .. } => Some(Err(reason)),
            _ => None,
        })
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // It tidies up and hangs up; what it made is gone then.
        if send(&self.client, &Request::Shutdown).is_ok() {
            let _ = answer::<()>(&self.client, |_| None);
        }
    }
}

fn send(client: &Client, request: &Request) -> Result<(), String> {
    client.try_send(request, &[]).map_err(|error| format!("the nursery does not listen: {error}"))
}

fn answer<T>(client: &Client, mut wanted: impl FnMut(Message) -> Option<Result<T, String>>) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match client.try_recv() {
            Ok((message, _)) => {
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => return Err(format!("the nursery ended: {error}")),
        }
    }
    Err("the nursery does not answer".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Facts {
        let walls = Walls {
            landlock: Enforced::Yes,
            cpu: Enforced::Yes,
            memory: Enforced::Yes,
            pids: Enforced::Yes,
            pinning: Enforced::Yes,
            burst: Enforced::Yes,
            yielding: Enforced::Yes,
            yielding_in_part: false,
            io: Enforced::Yes,
            io_in_part: false,
            disk: DiskMeans::Image,
            rootless: false,
            cgroup: "v2".to_owned(),
        };
        Facts {
            folder: Ok("/var/lib/rads".into()),
            sync: Ok(Duration::from_micros(130)),
            walls: Ok(walls),
            star: Ok(Duration::from_millis(4)),
            root: Ok(()),
            bridge: Ok(()),
            disk: Ok(true),
            open_files: Some(65_536),
            criu: Ok(("4.1.1".to_owned(), "/usr/sbin/criu".into())),
            systemd: true,
            oci: Some("/usr/bin/rads-oci".into()),
            groups: Ok((2, vec!["cpu", "memory", "pids"], Vec::new())),
            clock: Ok(true),
            ports: Vec::new(),
            survey: None,
        }
    }

    #[test]
    fn what_works_in_part_says_for_whom() {
        let detail = |in_part| {
            let mut facts = sound();
            if let Ok(walls) = &mut facts.walls {
                walls.yielding_in_part = in_part;
            }
            let findings = judge(&facts, true);
            findings
                .into_iter()
                .find(|finding| finding.what == "giving way")
                .map(|finding| (finding.state, finding.detail))
        };
        assert_eq!(detail(false), Some((State::Works, "cgroups v2".to_owned())));
        assert_eq!(detail(true), Some((State::Works, isolate::YIELDING_IN_PART.to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        let check = |change: &dyn Fn(&mut Facts), root: bool, what: &str, state: State, help: &str| {
            let mut facts = sound();
            change(&mut facts);
            let findings = judge(&facts, root);
            let found = findings.iter().find(|finding| finding.what == what).unwrap_or_else(|| panic!("{findings:?}"));
            assert_eq!(found.state, state, "{found:?}");
            assert!(found.help.as_deref().unwrap_or_default().contains(help), "{found:?}");
        };
        assert!(judge(&sound(), true).iter().all(|finding| finding.state == State::Works));
        let no = || Err("it failed".to_owned());
        check(&|facts| facts.folder = Err("no".to_owned()), true, "data folder", State::Broken, "--data-dir");
        check(&|facts| facts.sync = Ok(Duration::from_millis(11)), true, "data folder", State::Warns, "local disk");
        check(&|facts| facts.sync = Ok(Duration::from_millis(10)), true, "data folder", State::Works, "");
        check(&|facts| facts.clock = Ok(false), true, "clock", State::Warns, "NTP");
        check(&|facts| facts.survey = Some(Err("it ended".to_owned())), true, "agent", State::Warns, "agent.log");
        let no_walls = |facts: &mut Facts| (facts.walls, facts.clock) = (Err("not tried".to_owned()), Ok(false));
        check(&no_walls, true, "clock", State::Warns, "NTP");
        check(&|facts| facts.star = no(), false, "stars", State::Broken, "user namespaces");
        check(&|facts| facts.star = no(), true, "stars", State::Broken, "Linux 5.12");
        check(&|facts| facts.root = no().map(drop::<Duration>), true, "own root", State::Missing, "5.19");
        check(&|facts| facts.bridge = no().map(drop::<Duration>), true, "bridge network", State::Missing, "iptables");
        check(&|facts| facts.bridge = no().map(drop::<Duration>), false, "bridge network", State::Missing, "root");
        let no_landlock = |facts: &mut Facts| {
            if let Ok(walls) = &mut facts.walls {
                walls.landlock = Enforced::No { reason: "it is switched off".to_owned() };
            }
        };
        check(&no_landlock, true, "landlock", State::Missing, "lsm=landlock");
        check(&|facts| facts.open_files = Some(1024), true, "open files", State::Missing, "ulimit");
        check(&|facts| facts.disk = Err("it failed".to_owned()), true, "disk limits", State::Missing, "e2fsprogs");
        check(&|facts| facts.disk = Ok(false), true, "disk limits", State::Missing, "6.2");
        let in_memory = |facts: &mut Facts| {
            if let Ok(walls) = &mut facts.walls {
                walls.disk = DiskMeans::Memory { reason: "quotas take root".to_owned() };
            }
        };
        check(&in_memory, false, "disk limits", State::Missing, "root");
        let unlimited = |facts: &mut Facts| {
            if let Ok(walls) = &mut facts.walls {
                walls.memory = Enforced::No { reason: "permission denied".to_owned() };
            }
        };
        check(&unlimited, false, "memory balloon", State::Missing, "Delegate");
        let no_io = |facts: &mut Facts| {
            if let Ok(walls) = &mut facts.walls {
                walls.io = Enforced::No { reason: "the file system of `/x` lies on no disk of its own".to_owned() };
                walls.burst = Enforced::No { reason: "this kernel has none".to_owned() };
                walls.yielding = Enforced::No { reason: "this kernel has none".to_owned() };
                walls.pinning = Enforced::No { reason: "permission denied".to_owned() };
            }
        };
        let no_criu = |facts: &mut Facts| facts.criu = Err("CRIU is not installed".to_owned());
        check(&no_criu, true, "memory snapshots", State::Missing, "RADS_CRIU");
        check(&|_| {}, false, "memory snapshots", State::Missing, "root");
        check(&no_io, true, "io limits", State::Missing, "disk of this machine");
        check(&no_io, true, "cpu burst", State::Missing, "Linux 5.14");
        check(&no_io, true, "giving way", State::Missing, "Linux 5.15");
        check(&no_io, false, "cpu pinning", State::Missing, "Delegate=cpu cpuset");
        check(&unlimited, false, "memory limits", State::Missing, "Delegate");
        check(&unlimited, true, "memory limits", State::Missing, "controller");
        // Nobody is sent to a systemd that is not there.
        for root in [true, false] {
            let mut facts = Facts { systemd: false, open_files: Some(1024), ..sound() };
            unlimited(&mut facts);
            no_io(&mut facts);
            for finding in judge(&facts, root) {
                let help = finding.help.unwrap_or_default();
                assert!(!["system", "unit", "Delegate"].iter().any(|word| help.contains(word)), "{help}");
            }
        }
        check(&|facts| facts.oci = None, true, "containers", State::Missing, "beside `rads`");
        check(&|facts| facts.groups = Err("denied".to_owned()), false, "containers", State::Missing, "Delegate");
        let few = |facts: &mut Facts| facts.groups = Ok((2, vec!["pids"], vec!["cpu", "memory"]));
        check(&few, true, "containers", State::Missing, "controller");
    }
}
