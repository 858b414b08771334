//! The options of a service: which there are, what they accept, and the spec they make.
//!
//! A fault names the option by its path (`env`, `ready.http`), so that whoever knows where it was written can point there.

mod access;
mod hold;
mod job;
mod placement;
mod program;
mod reserve;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use model::app::{GRACE_DEFAULT_MS, INSTANCES_MAX};
use model::interior::Misplaced;
use model::{
    Balance, BundleId, Bytes, Capability, Code, ContentHash, CpuSet, Entry, Health, Hooks, Interior, Limits,
    ListenAddr, Millicores, Name, Network, Probe, ProbeKind, Problem, Program, Protocol, RestartPolicy, ServiceSpec,
    StarTemplate, Tmpfs, User, VolumeMount, Weakened,
};

use crate::names::OPTIONS;
use crate::setting::Setting;

/// How a star can be asked, and when.
const PROBE_OPTIONS: [&str; 6] = ["http", "tcp", "exec", "script", "timeout_ms", "interval_ms"];

const VOLUME_OPTIONS: [&str; 2] = ["name", "size_mb"];

/// Machines have fewer cores than this for a while yet.
const CORES_MAX: f64 = 1024.0;
/// 16 TiB: beyond any one machine.
const RAM_MAX_MB: f64 = 16.0 * 1024.0 * 1024.0;
/// The kernel's own bound on process ids (`/proc/sys/kernel/pid_max` at most).
const PIDS_MAX: i64 = 4_194_304;
/// A year: beyond it a star runs for ever.
const DEADLINE_MAX_SECONDS: f64 = 31_536_000.0;
/// Longer than a day is no grace.
const GRACE_MAX_SECONDS: f64 = 86_400.0;

/// What is wrong, and the option it is about; an empty path is about the whole call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OptionFault {
    pub(crate) path: Vec<String>,
    pub(crate) problem: Problem,
}

type Read<T> = Result<T, OptionFault>;

/// A service as its options describe it, before its files are looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub(crate) namespace: Option<Name>,
    /// Complete but for the bundle, which has a placeholder.
    pub(crate) spec: ServiceSpec,
    pub(crate) assets: Vec<String>,
}

/// What differs between the ways to ask for stars.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) restart: RestartPolicy,
}

impl Defaults {
    pub(crate) const DEPLOY: Self = Self { restart: RestartPolicy::Always };
    pub(crate) const CREATE: Self = Self { restart: RestartPolicy::Never };
}

/// Faults as they are found: what stands in for a faulty part is looked at no further.
#[derive(Default)]
struct Faults(Vec<OptionFault>);

impl Faults {
    /// The value, or what has none after a fault.
    fn keep<T: Default>(&mut self, read: Read<T>) -> T {
        self.keep_or(read, T::default())
    }

    fn keep_or<T>(&mut self, read: Read<T>, otherwise: T) -> T {
        read.unwrap_or_else(|fault| {
            self.0.push(fault);
            otherwise
        })
    }
}

/// Reads all there is. Every fault that can be found is told.
pub(crate) fn read(settings: Vec<(String, Setting)>, defaults: Defaults) -> Result<Draft, Vec<OptionFault>> {
    let mut faults = Faults::default();
    program::no_module(&settings).map_err(|fault| vec![fault])?;
    let options = &mut Options::known(settings, &OPTIONS, &[], &mut faults.0);
    let holds = options.settings.iter().any(|(name, _)| name == "hold");
    let hold = faults.keep(hold::hold(options));
    // What is wrong with it is told; that nothing runs is not, too.
    let program = program::program(options, hold.is_some() || (holds && !faults.0.is_empty()));
    let known = program.is_ok();
    let program = faults.keep_or(program, Program::Command(Vec::new()));
    let limits = limits(options, &program, &mut faults);
    let limits = if hold.is_some() { Limits::UNLIMITED } else { limits };
    let reserve = faults.keep(reserve::reserve(options, &limits));
    let port = options.int("port", 1, 65_535);
    let port_known = port.is_ok();
    let port = faults.keep(port).map(narrow);
    let entry = entry(options, port);
    let entry = if port_known { faults.keep(entry) } else { None };
    let probe = probe(options, port);
    let probe =
        if port_known { faults.keep_or(probe, Probe::new(ProbeKind::Started)) } else { Probe::new(ProbeKind::Started) };
    let health = health(options, port);
    let health = if port_known { faults.keep(health) } else { Health::default() };
    let rootfs = program::rootfs(options, &program);
    let rootfs = if known { faults.keep(rootfs) } else { None };
    let checkpoint = known && faults.keep(program::checkpoint(options, &program));
    let network = [("none", Network::None), ("host", Network::Host), ("bridge", Network::Bridge)];
    let job = faults.keep(job::job(options));
    let restart =
        [("always", RestartPolicy::Always), ("on_failure", RestartPolicy::OnFailure), ("never", RestartPolicy::Never)];
    let milliseconds = |seconds: f64| (seconds * 1000.0).round();
    let grace = options.number("grace_seconds", 0.0, GRACE_MAX_SECONDS);
    let deadline = options.number("deadline_seconds", 0.1, DEADLINE_MAX_SECONDS);
    let template = StarTemplate {
        rootfs,
        checkpoint,
        singleton: faults.keep(options.bool("singleton")).unwrap_or(false),
        args: faults.keep(options.texts("args")),
        env: faults.keep(env(options)),
        volumes: faults.keep(volumes(options)),
        network: faults.keep(options.choice("network", &network)).unwrap_or(Network::None),
        probe,
        health,
        restart: match (faults.keep(options.choice("restart", &restart)), &job) {
            (restart, None) => restart.unwrap_or(defaults.restart),
            (None, Some(_)) => RestartPolicy::OnFailure,
            (Some(_), Some(_)) => {
                let problem = Problem::new(Code::InvalidValue, "the parts of a job are tried again as `retries` says");
                faults.0.push(options.fault("restart", problem.help("leave `restart` out")));
                RestartPolicy::OnFailure
            }
        },
        grace_ms: faults.keep(grace).map_or(GRACE_DEFAULT_MS, |seconds| milliseconds(seconds) as u32),
        stop_signal: faults.keep(stop_signal(options)),
        deadline_ms: faults.keep(deadline).map(|seconds| milliseconds(seconds) as u64),
        hooks: Hooks {
            before_start: faults.keep(program::command(options, "before_start")).unwrap_or_default(),
            before_stop: faults.keep(program::command(options, "before_stop")).unwrap_or_default(),
        },
        interior: interior(options, &mut faults),
        weakened: faults.keep(weakened(options)),
        access: faults.keep(access::access(options)),
        bundle: BundleId(ContentHash([0; 32])),
        program,
        limits,
        reserve,
        port,
    };
    let most = if template.singleton { 1 } else { i64::from(INSTANCES_MAX) };
    let instances = faults.keep(options.int("instances", 0, most)).map(narrow);
    if instances.is_some() && job.is_some() {
        let problem = Problem::new(Code::InvalidValue, "a job has `completions`, or as many parts as `inputs`");
        faults.0.push(options.fault("instances", problem.help("leave `instances` out")));
    }
    let (instances, job) = match job {
        Some((job, parts)) => (parts, Some(job)),
        None => (instances.unwrap_or(1), None),
    };
    let placement = faults.keep(placement::placement(options));
    let update = faults.keep(update::update(options, template.singleton));
    let assets = faults.keep(options.texts("assets"));
    let namespace = faults.keep(options.name("namespace"));
    // What the parts have to do with each other is asked of parts that are sound.
    if faults.0.is_empty()
        && let Err(Misplaced { path, problem }) = template.check_interior()
    {
        faults.0.push(OptionFault { path, problem });
    }
    let spec = ServiceSpec { template, instances, entry, placement, update, job, hold };
    if faults.0.is_empty()
        && let Err(problem) = spec.check_everywhere()
    {
        faults.0.push(options.fault_in("placement", "every_node", problem));
    }
    if faults.0.is_empty()
        && let Err(problem) = spec.check_hold()
    {
        faults.0.push(options.fault("hold", problem));
    }
    match faults.0.is_empty() {
        true => Ok(Draft { namespace, spec, assets }),
        false => Err(faults.0),
    }
}

/// Signals that mean "stop" to programs. The others end them at once or are for something else.
const STOP_SIGNALS: [&str; 6] = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"];

fn stop_signal(options: &mut Options) -> Read<Option<i32>> {
    let signals = STOP_SIGNALS.map(|name| (name, model::star::signal_number(name)));
    Ok(options.choice("stop_signal", &signals)?.flatten())
}

fn limits(options: &mut Options, program: &Program, faults: &mut Faults) -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.cpu = faults.keep(cpu(options));
    let (floor, what) = match program {
        Program::Script(_) => (Limits::SCRIPT_MEMORY_MIN, "a RADS star"),
        Program::Command(_) => (Limits::COMMAND_MEMORY_MIN, "a star"),
        Program::Nothing => (Bytes(0), "a place"),
    };
    let memory = memory(options, floor, what);
    let sound = memory.is_ok();
    limits.memory = faults.keep(memory).or(limits.memory);
    let soft = soft_memory(options, floor, what, limits.memory.filter(|_| sound));
    limits.memory_soft = faults.keep(soft);
    limits.balloon = faults.keep(options.bool("ram_balloon")).unwrap_or(false);
    if limits.balloon && limits.memory_soft.is_some() {
        let message = "the soft limit follows what a star uses, or is `ram_soft_mb`, not both";
        faults.0.push(options.fault("ram_balloon", Problem::new(Code::InvalidValue, message)));
    }
    if let Some(pids) = faults.keep(options.int("pids", 1, PIDS_MAX)) {
        limits.pids = Some(narrow(pids));
    }
    let (fewest, most) = (i64::from(Limits::OPEN_FILES_MIN), i64::from(Limits::OPEN_FILES_MAX));
    limits.open_files = faults.keep(options.int("open_files", fewest, most)).map(narrow);
    limits.disk = faults.keep(megabytes_of(options, "disk_mb"));
    limits.cpus = faults.keep(cpus(options));
    limits.cpu_burst = faults.keep(options.int("cpu_burst_percent", 0, i64::from(Limits::CPU_BURST_MAX))).map(narrow);
    let has_quota =
        limits.cpu.is_some() || faults.0.iter().any(|fault| fault.path.iter().any(|name| name.starts_with("cpu_")));
    let most = i64::from(Limits::CPU_BORROW_MAX);
    limits.cpu_borrow = faults.keep(options.int("cpu_borrow_percent", 0, most)).map(narrow);
    for (option, is_there) in
        [("cpu_burst_percent", limits.cpu_burst.is_some()), ("cpu_borrow_percent", limits.cpu_borrow.is_some())]
    {
        if is_there && !has_quota {
            let message = format!("`{option}` is a part of `cpu_percent` or `cpu_cores`, and there is neither");
            faults.0.push(options.fault(option, Problem::new(Code::InvalidValue, message)));
        }
    }
    limits.io_read = faults.keep(rate(options, "io_read_mb_s"));
    limits.io_write = faults.keep(rate(options, "io_write_mb_s"));
    let (slowest, fastest) = (Limits::LOG_RATE_MIN.0 as f64 / 1024.0, Limits::LOG_RATE_MAX.0 as f64 / 1024.0);
    let log_rate = faults.keep(options.number("log_kb_s", slowest, fastest));
    limits.log_rate = log_rate.map(|rate| Bytes((rate * 1024.0).round() as u64));
    limits
}

fn cpu(options: &mut Options) -> Read<Option<Millicores>> {
    let percent = options.number("cpu_percent", 1.0, CORES_MAX * 100.0)?.map(|percent| percent * 10.0);
    let cores = options.number("cpu_cores", 0.01, CORES_MAX)?.map(|cores| cores * 1000.0);
    if percent.is_some() && cores.is_some() {
        let message = "`cpu_percent` and `cpu_cores` say the same thing twice";
        return Err(options.fault("cpu_cores", Problem::new(Code::InvalidValue, message)));
    }
    Ok(percent.or(cores).map(|thousandths| Millicores(thousandths.round() as u32)))
}

fn memory(options: &mut Options, floor: Bytes, what: &str) -> Read<Option<Bytes>> {
    let megabytes = options.number("ram_mb", 0.0, RAM_MAX_MB)?.map(|megabytes| ("ram_mb", megabytes));
    let gigabytes = options.number("ram_gb", 0.0, RAM_MAX_MB / 1024.0)?.map(|gigabytes| ("ram_gb", gigabytes * 1024.0));
    if megabytes.is_some() && gigabytes.is_some() {
        let message = "`ram_mb` and `ram_gb` say the same thing twice";
        return Err(options.fault("ram_gb", Problem::new(Code::InvalidValue, message)));
    }
    let Some((option, megabytes)) = megabytes.or(gigabytes) else { return Ok(None) };
    let memory = Bytes((megabytes * 1024.0 * 1024.0).round() as u64);
    if memory < floor {
        let message = format!("{what} needs at least {floor} to live, `{option}` gives it {memory}");
        return Err(options.fault(option, Problem::new(Code::LimitTooLow, message)));
    }
    Ok(Some(memory))
}

fn soft_memory(options: &mut Options, floor: Bytes, what: &str, memory: Option<Bytes>) -> Read<Option<Bytes>> {
    let Some(megabytes) = options.number("ram_soft_mb", 0.0, RAM_MAX_MB)? else { return Ok(None) };
    let soft = Bytes((megabytes * 1024.0 * 1024.0).round() as u64);
    if soft < floor {
        let message = format!("{what} needs at least {floor} to live, `ram_soft_mb` leaves it {soft}");
        return Err(options.fault("ram_soft_mb", Problem::new(Code::LimitTooLow, message)));
    }
    if let Some(memory) = memory.filter(|memory| soft > *memory) {
        let message = format!("`ram_soft_mb` is at most the memory it may use at all, {memory}, not {soft}");
        return Err(options.fault("ram_soft_mb", Problem::new(Code::InvalidValue, message)));
    }
    Ok(Some(soft))
}

/// `"0-1,3"`, or the number of one.
fn cpus(options: &mut Options) -> Read<Option<CpuSet>> {
    let Some(setting) = options.take("cpus") else { return Ok(None) };
    let text = match &setting {
        Setting::Text(text) => text.clone(),
        Setting::Int(cpu) => cpu.to_string(),
        other => return Err(options.wrong("cpus", "a list of processors such as \"0-1,3\"", other)),
    };
    let refused = |error: model::cpus::InvalidCpuSet| Problem::new(Code::InvalidValue, format!("`cpus`: {error}"));
    text.parse().map(Some).map_err(|error| options.fault("cpus", refused(error)))
}

/// Megabytes a second.
fn rate(options: &mut Options, name: &str) -> Read<Option<Bytes>> {
    const MIB: f64 = 1_048_576.0;
    // A terabyte a second is beyond any disk.
    let rate = options.number(name, Limits::IO_MIN.0 as f64 / MIB, MIB)?;
    Ok(rate.map(|megabytes| Bytes((megabytes * MIB).round() as u64)))
}

/// The size of a disk or of a volume.
fn megabytes_of(options: &mut Options, name: &str) -> Read<Option<Bytes>> {
    const MIB: f64 = 1_048_576.0;
    let (least, most) = (Limits::DISK_MIN.0 as f64 / MIB, Limits::DISK_MAX.0 as f64 / MIB);
    Ok(options.number(name, least, most)?.map(|megabytes| Bytes((megabytes * MIB).round() as u64)))
}

fn entry(options: &mut Options, port: Option<u16>) -> Read<Option<Entry>> {
    let listen = options.take("listen");
    let protocol = options.choice("protocol", &[("http", Protocol::Http), ("tcp", Protocol::Tcp)])?;
    let balance = options
        .choice("balance", &[("round_robin", Balance::RoundRobin), ("least_connections", Balance::LeastConnections)])?;
    let Some(port) = port else {
        for (option, given) in
            [("listen", listen.is_some()), ("protocol", protocol.is_some()), ("balance", balance.is_some())]
        {
            if given {
                let problem = Problem::new(Code::InvalidValue, format!("`{option}` needs a `port`, and there is none"))
                    .help("say with `port` where the program inside the star listens");
                return Err(options.fault(option, problem));
            }
        }
        return Ok(None);
    };
    let listen = match listen {
        None => ListenAddr::loopback(port),
        Some(setting) => listen_addr(&setting)
            .ok_or_else(|| options.wrong("listen", "a port from 0 to 65535 or \"ip:port\"", &setting))?,
    };
    Ok(Some(Entry {
        listen,
        protocol: protocol.unwrap_or(Protocol::Http),
        balance: balance.unwrap_or(Balance::RoundRobin),
    }))
}

/// `8080`, `"8080"`, `"0.0.0.0:8080"`, `"[::1]:8080"`, `"*:80"`.
fn listen_addr(setting: &Setting) -> Option<ListenAddr> {
    let text = match setting {
        Setting::Int(port) => return u16::try_from(*port).ok().map(ListenAddr::loopback),
        Setting::Text(text) => text,
        _ => return None,
    };
    if let Ok(port) = text.parse::<u16>() {
        return Some(ListenAddr::loopback(port));
    }
    if let Some(port) = text.strip_prefix("*:") {
        return port.parse().ok().map(|port| ListenAddr { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port });
    }
    let address: std::net::SocketAddr = text.parse().ok()?;
    Some(ListenAddr { ip: address.ip(), port: address.port() })
}

/// Whether it is ready; by default when its port accepts connections, or when it runs.
fn probe(options: &mut Options, port: Option<u16>) -> Read<Probe> {
    let by_default = if port.is_some() { ProbeKind::Tcp } else { ProbeKind::Started };
    let Some((mut ready, kind)) =
        asked(options, "ready", &["start_seconds", "failures", "restart_after"], port, Some(by_default.clone()))?
    else {
        return Ok(Probe::new(by_default));
    };
    let mut probe = timed(&mut ready, Probe::new(kind))?;
    probe.restart_after = ready.int("restart_after", 1, 1_000_000)?.map(narrow);
    Ok(probe)
}

/// Whether it has started, and whether it still lives.
fn health(options: &mut Options, port: Option<u16>) -> Read<Health> {
    let by_default = port.map(|_| ProbeKind::Tcp);
    let startup = match asked(options, "startup", &["start_seconds"], port, by_default.clone())? {
        Some((mut startup, kind)) => {
            // Often at first, then as often as one looks at something that takes long.
            let probe = Probe { interval_ms: 1_000, ..Probe::new(kind) };
            Some(timed(&mut startup, probe)?)
        }
        None => None,
    };
    let live = match asked(options, "live", &["failures"], port, by_default)? {
        Some((mut live, kind)) => Some(timed(&mut live, Probe::new(kind))?),
        None => None,
    };
    Ok(Health { startup, live })
}

/// The options of a probe, and how it asks. `more` are those that not every probe has.
fn asked(
    options: &mut Options,
    name: &str,
    more: &[&str],
    port: Option<u16>,
    by_default: Option<ProbeKind>,
) -> Read<Option<(Options, ProbeKind)>> {
    let Some(setting) = options.take(name) else { return Ok(None) };
    let settings = match setting {
        Setting::Text(path) => vec![("http".to_owned(), Setting::Text(path))],
        Setting::Map(settings) => settings,
        other => return Err(options.wrong(name, "a path or an object such as {http: \"/healthz\"}", &other)),
    };
    let known: Vec<&str> = PROBE_OPTIONS.iter().chain(more).copied().collect();
    let mut probe = Options::new(settings, &known, &[name])?;
    let http = probe.text("http")?;
    let tcp = probe.bool("tcp")?.unwrap_or(false);
    if let Some(path) = http.as_ref().filter(|path| !path.starts_with('/') || path.contains([' ', '\r', '\n'])) {
        let message = format!("`http` is a path that starts with `/`, `{}` is not", path.escape_debug());
        return Err(probe.fault("http", Problem::new(Code::InvalidValue, message)));
    }
    let exec = program::command(&mut probe, "exec")?;
    let script = program::script(&mut probe, "script")?;
    let kinds = [("http", http.is_some()), ("tcp", tcp), ("exec", exec.is_some()), ("script", script.is_some())];
    let mut given = kinds.iter().filter(|(_, given)| *given).map(|(name, _)| name);
    if let (Some(one), Some(other)) = (given.next(), given.next()) {
        let message = format!("a star is asked in one way, not by `{one}` and by `{other}`");
        return Err(probe.fault(other, Problem::new(Code::InvalidValue, message)));
    }
    if (http.is_some() || tcp) && port.is_none() {
        let problem = Problem::new(Code::InvalidValue, format!("`{name}` needs a `port` to ask on, and there is none"));
        return Err(options.fault(name, problem));
    }
    let kind = match (http, exec, script) {
        (Some(path), ..) => Some(ProbeKind::Http { path }),
        (_, Some(command), _) => Some(ProbeKind::Exec { command }),
        (.., Some(path)) => Some(ProbeKind::Script { path }),
        _ if tcp => Some(ProbeKind::Tcp),
        _ => by_default,
    };
    let nothing = || {
        let problem = Problem::new(Code::InvalidValue, format!("`{name}` says nothing to ask"));
        options.fault(name, problem.help("give it one of `http`, `tcp`, `exec` and `script`"))
    };
    Ok(Some((probe, kind.ok_or_else(nothing)?)))
}

/// The times and counts that were given, in place of the usual ones.
fn timed(options: &mut Options, mut probe: Probe) -> Read<Probe> {
    const HOUR_MS: i64 = 3_600_000;
    if let Some(timeout) = options.int("timeout_ms", 1, HOUR_MS)? {
        probe.timeout_ms = narrow(timeout);
    }
    if let Some(interval) = options.int("interval_ms", 10, HOUR_MS)? {
        probe.interval_ms = narrow(interval);
    }
    if let Some(start) = options.number("start_seconds", 0.1, 3600.0)? {
        probe.start_ms = (start * 1000.0).round() as u32;
    }
    if let Some(failures) = options.int("failures", 1, 1_000_000)? {
        probe.failures = narrow(failures);
    }
    Ok(probe)
}

fn env(options: &mut Options) -> Read<BTreeMap<String, String>> {
    let Some(setting) = options.take("env") else {
        return Ok(BTreeMap::new());
    };
    let Setting::Map(entries) = setting else {
        return Err(options.wrong("env", "an object of names and values", &setting));
    };
    let mut env = BTreeMap::new();
    for (name, value) in entries {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("`{}` cannot be the name of an environment variable", name.escape_debug());
            return Err(options.fault_in("env", &name, Problem::new(Code::InvalidValue, message)));
        }
        let Some(text) = as_text(&value).filter(|text| !text.contains('\0')) else {
            let message = format!("`env.{name}` is a string, number or bool, not {}", value.shown());
            return Err(options.fault_in("env", &name, Problem::new(Code::InvalidValue, message)));
        };
        env.insert(name, text);
    }
    Ok(env)
}

fn volumes(options: &mut Options) -> Read<Vec<VolumeMount>> {
    let Some(setting) = options.take("volumes") else {
        return Ok(Vec::new());
    };
    let Setting::Map(entries) = setting else {
        return Err(options.wrong(
            "volumes",
            "an object of paths and volumes, such as {\"/data\": \"db\"} or {\"/data\": {name: \"db\", size_mb: 100}}",
            &setting,
        ));
    };
    let mut volumes = Vec::new();
    for (path, value) in entries {
        let path = path.strip_suffix('/').unwrap_or(&path).to_owned();
        let (value, size) = match value {
            Setting::Map(settings) => {
                let mut volume = Options::new(settings, &VOLUME_OPTIONS, &["volumes", &path])?;
                let size = megabytes_of(&mut volume, "size_mb")?;
                (volume.take("name").unwrap_or(Setting::Null), size)
            }
            value => (value, None),
        };
        let Some(volume) = as_text(&value).and_then(|text| text.parse::<Name>().ok()) else {
            let shown = path.escape_debug();
            let message = format!("the volume at `{shown}` needs a name of a-z, 0-9 and `-`, not {}", value.shown());
            return Err(options.fault_in("volumes", &path, Problem::new(Code::InvalidValue, message)));
        };
        let other = |mount: &&VolumeMount| mount.volume == volume && mount.size != size;
        if let Some(VolumeMount { path: elsewhere, .. }) = volumes.iter().find(other) {
            let message = format!("volume `{volume}` has one size at `{elsewhere}` and another at `{path}`");
            return Err(options.fault_in("volumes", &path, Problem::new(Code::InvalidValue, message)));
        }
        volumes.push(VolumeMount { volume, path, size });
    }
    volumes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(volumes)
}

/// What it finds inside and as whom it runs. Whether the places can be is the template's to say, when all are known.
fn interior(options: &mut Options, faults: &mut Faults) -> Interior {
    Interior {
        tmpfs: faults.keep(memory_file_systems(options)),
        binds: faults.keep(binds(options)),
        secrets: faults.keep(secrets(options)),
        env_secrets: faults.keep(env_secrets(options)),
        workdir: faults.keep(options.text("workdir")).map(|folder| match folder.strip_suffix('/') {
            Some(rest) if !rest.is_empty() => rest.to_owned(),
            _ => folder,
        }),
        user: faults.keep(user(options)),
    }
}

fn memory_file_systems(options: &mut Options) -> Read<BTreeMap<String, Tmpfs>> {
    let mut all = BTreeMap::new();
    for (path, value) in places(options, "tmpfs", "{\"/cache\": {size_mb: 16}}")? {
        let Setting::Map(settings) = value else {
            let message =
                format!("`tmpfs.{}` is an object such as {{size_mb: 16}}, not {}", path.escape_debug(), value.shown());
            return Err(options.fault_in("tmpfs", &path, Problem::new(Code::InvalidValue, message)));
        };
        let mut own = Options::new(settings, &["size_mb"], &["tmpfs", &path])?;
        let Some(megabytes) = own.number("size_mb", 0.0, RAM_MAX_MB)? else {
            let message = format!("`tmpfs.{}` needs its `size_mb`", path.escape_debug());
            return Err(options.fault_in("tmpfs", &path, Problem::new(Code::InvalidValue, message)));
        };
        all.insert(path, Tmpfs { size: Bytes((megabytes * 1024.0 * 1024.0).round() as u64) });
    }
    Ok(all)
}

fn binds(options: &mut Options) -> Read<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (path, value) in places(options, "binds", "{\"/etc/app.conf\": \"conf/app.conf\"}")? {
        let Setting::Text(source) = value else {
            let message = format!(
                "what is bound at `{}` is a path inside the app's folder, not {}",
                path.escape_debug(),
                value.shown()
            );
            return Err(options.fault_in("binds", &path, Problem::new(Code::InvalidValue, message)));
        };
        let source = source.strip_prefix("./").unwrap_or(&source);
        all.insert(path, source.strip_suffix('/').unwrap_or(source).to_owned());
    }
    Ok(all)
}

fn secrets(options: &mut Options) -> Read<BTreeMap<String, Name>> {
    let places = places(options, "secrets", "{\"/run/secrets/db\": \"db-password\"}")?.into_iter();
    places.map(|(path, value)| Ok((path.clone(), secret(options, "secrets", &path, &value)?))).collect()
}

fn env_secrets(options: &mut Options) -> Read<BTreeMap<String, Name>> {
    let entries = entries(options, "env_secrets", "{\"DB_PASSWORD\": \"db-password\"}")?.into_iter();
    entries.map(|(name, value)| Ok((name.clone(), secret(options, "env_secrets", &name, &value)?))).collect()
}

fn user(options: &mut Options) -> Read<Option<User>> {
    let Some(setting) = options.take("user") else { return Ok(None) };
    let user = match &setting {
        Setting::Int(id) => id.to_string().parse::<User>().ok(),
        Setting::Text(text) => text.parse().ok(),
        _ => None,
    };
    user.map(Some).ok_or_else(|| options.wrong("user", "a number from 0 to 65535 or two as \"1000:1000\"", &setting))
}

/// Paths inside the star and what is there. Two that differ by a `/` at their end are one, asked for twice.
fn places(options: &mut Options, name: &str, example: &str) -> Read<Vec<(String, Setting)>> {
    let mut entries = entries(options, name, example)?;
    let mut seen = BTreeSet::new();
    for (path, _) in &mut entries {
        let shorter = path.strip_suffix('/').unwrap_or(path).to_owned();
        if !seen.insert(shorter.clone()) {
            let message = format!("`{}` is asked for twice", shorter.escape_debug());
            return Err(options.fault_in(name, &shorter, Problem::new(Code::InvalidValue, message)));
        }
        *path = shorter;
    }
    Ok(entries)
}

fn entries(options: &mut Options, name: &str, example: &str) -> Read<Vec<(String, Setting)>> {
    match options.take(name) {
        None => Ok(Vec::new()),
        Some(Setting::Map(entries)) => Ok(entries),
        Some(other) => Err(options.wrong(name, &format!("an object such as {example}"), &other)),
    }
}

fn secret(options: &Options, option: &str, key: &str, value: &Setting) -> Read<Name> {
    let name = match value {
        Setting::Text(text) => text.parse::<Name>().ok(),
        _ => None,
    };
    name.ok_or_else(|| {
        // Not shown: somebody may have written the value itself there.
        let message = format!("`{option}` names for `{}` a secret by a-z, 0-9 and `-`", key.escape_debug());
        let problem = Problem::new(Code::InvalidValue, message);
        options.fault_in(option, key, problem.help("set its value with `rads c secrets set NAME`"))
    })
}

const WEAKEN_OPTIONS: [&str; 3] = ["seccomp", "landlock", "capabilities"];

fn weakened(options: &mut Options) -> Read<Weakened> {
    let example = "{seccomp: \"off\"} or {capabilities: [\"setuid\", \"setgid\"]}";
    let settings = entries(options, "weaken", example)?;
    let mut weaken = Options::new(settings, &WEAKEN_OPTIONS, &["weaken"])?;
    let no_seccomp = weaken.choice("seccomp", &[("off", true)])?.unwrap_or(false);
    let no_landlock = weaken.choice("landlock", &[("off", true)])?.unwrap_or(false);
    let mut capabilities = BTreeSet::new();
    for name in weaken.texts("capabilities")? {
        let lower = name.to_ascii_lowercase();
        let plain = lower.strip_prefix("cap_").unwrap_or(&lower);
        let Some(known) = Capability::ALL.into_iter().find(|capability| capability.as_str() == plain) else {
            let message = format!("no star can be given the capability `{}`", name.escape_debug());
            let help = match plain {
                "net_bind_service" => "it is not needed: in its own network a star may listen on every port".to_owned(),
                _ => format!("those there are: {}", Capability::ALL.map(Capability::as_str).join(", ")),
            };
            return Err(weaken.fault("capabilities", Problem::new(Code::InvalidValue, message).help(help)));
        };
        capabilities.insert(known);
    }
    Ok(Weakened { no_seccomp, no_landlock, capabilities })
}

fn as_text(setting: &Setting) -> Option<String> {
    match setting {
        Setting::Text(text) => Some(text.clone()),
        Setting::Int(value) => Some(value.to_string()),
        Setting::Float(value) => Some(value.to_string()),
        Setting::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// A number whose range was checked.
fn narrow<T: TryFrom<i64> + Default>(value: i64) -> T {
    T::try_from(value).unwrap_or_default()
}

/// Options not yet looked at, and where they are.
pub(crate) struct Options {
    settings: Vec<(String, Setting)>,
    within: Vec<String>,
}

impl Options {
    /// Refuses options that are not `known`, naming the nearest.
    pub(crate) fn new(settings: Vec<(String, Setting)>, known: &[&str], within: &[&str]) -> Read<Self> {
        let mut faults = Vec::new();
        let options = Self::known(settings, known, within, &mut faults);
        faults.into_iter().next().map_or(Ok(options), Err)
    }

    /// Those that are `known`; of each that is not there is a fault.
    fn known(settings: Vec<(String, Setting)>, known: &[&str], within: &[&str], faults: &mut Vec<OptionFault>) -> Self {
        let mut options = Self { settings, within: within.iter().map(|part| (*part).to_owned()).collect() };
        let is_known = |(name, _): &(String, Setting)| known.contains(&name.as_str());
        faults
            .extend(options.settings.iter().filter(|one| !is_known(one)).map(|(name, _)| options.unknown(name, known)));
        options.settings.retain(is_known);
        options
    }

    fn unknown(&self, name: &str, known: &[&str]) -> OptionFault {
        let within = &self.within;
        let whose = if within.is_empty() { "a service".to_owned() } else { format!("`{}`", within.join(".")) };
        let problem = Problem::new(Code::UnknownOption, format!("{whose} has no option `{}`", name.escape_debug()));
        let help = match rads_syntax::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the options are {}", known.join(", ")),
        };
        self.fault(name, problem.help(help))
    }

    /// The value of an option, if it is there and not null.
    pub(crate) fn take(&mut self, name: &str) -> Option<Setting> {
        let at = self.settings.iter().position(|(key, _)| key == name)?;
        Some(self.settings.swap_remove(at).1).filter(|setting| *setting != Setting::Null)
    }

    fn fault(&self, name: &str, problem: Problem) -> OptionFault {
        let path = self.within.iter().cloned().chain([name.to_owned()]).collect();
        OptionFault { path, problem }
    }

    fn fault_in(&self, name: &str, inner: &str, problem: Problem) -> OptionFault {
        let mut fault = self.fault(name, problem);
        fault.path.push(inner.to_owned());
        fault
    }

    fn fault_of_all(&self, problem: Problem) -> OptionFault {
        OptionFault { path: self.within.clone(), problem }
    }

    fn wrong(&self, name: &str, wanted: &str, got: &Setting) -> OptionFault {
        self.fault(name, Problem::new(Code::InvalidValue, format!("`{name}` is {wanted}, not {}", got.shown())))
    }

    fn text(&mut self, name: &str) -> Read<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Setting::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    fn name(&mut self, name: &str) -> Read<Option<Name>> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|error: model::name::InvalidName| {
            self.fault(name, Problem::new(Code::InvalidValue, format!("`{name}`: {error}")))
        })
    }

    fn bool(&mut self, name: &str) -> Read<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Setting::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(name, "true or false", &other)),
        }
    }

    fn texts(&mut self, name: &str) -> Read<Vec<String>> {
        let Some(setting) = self.take(name) else {
            return Ok(Vec::new());
        };
        let texts = match &setting {
            Setting::List(items) => items.iter().map(as_text).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let texts = texts.ok_or_else(|| self.wrong(name, "an array of strings", &setting))?;
        self.check_words(name, &texts)?;
        Ok(texts)
    }

    /// Refuses what no program can be given as an argument.
    fn check_words(&self, name: &str, words: &[String]) -> Read<()> {
        let Some(word) = words.iter().find(|word| word.contains('\0')) else { return Ok(()) };
        let message = format!(
            "`{name}` holds a NUL byte, which ends a word for every program: {}",
            Setting::Text(word.clone()).shown()
        );
        Err(self.fault(name, Problem::new(Code::InvalidValue, message)))
    }

    pub(crate) fn number(&mut self, name: &str, min: f64, max: f64) -> Read<Option<f64>> {
        let Some(setting) = self.take(name) else {
            return Ok(None);
        };
        let number = match setting {
            Setting::Int(value) => value as f64,
            Setting::Float(value) => value,
            other => return Err(self.wrong(name, "a number", &other)),
        };
        if !(min..=max).contains(&number) {
            let message = format!("`{name}` is between {min} and {max}, not `{number}`");
            return Err(self.fault(name, Problem::new(Code::InvalidValue, message)));
        }
        Ok(Some(number))
    }

    fn int(&mut self, name: &str, min: i64, max: i64) -> Read<Option<i64>> {
        match self.take(name) {
            None => Ok(None),
            Some(Setting::Int(value)) if (min..=max).contains(&value) => Ok(Some(value)),
            Some(Setting::Int(value)) => {
                let message = format!("`{name}` is between {min} and {max}, not `{value}`");
                Err(self.fault(name, Problem::new(Code::InvalidValue, message)))
            }
            Some(other) => Err(self.wrong(name, "a whole number", &other)),
        }
    }

    /// One of a few words.
    fn choice<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Read<Option<T>> {
        let Some(setting) = self.take(name) else {
            return Ok(None);
        };
        if let Setting::Text(text) = &setting
            && let Some((_, value)) = words.iter().find(|(word, _)| word == text)
        {
            return Ok(Some(*value));
        }
        let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let mut fault = self.wrong(name, &all.join(" or "), &setting);
        if let Setting::Text(text) = &setting
            && let Some(near) = rads_syntax::nearest(text, words.iter().map(|(word, _)| *word))
        {
            fault.problem = fault.problem.help(format!("did you mean \"{near}\"?"));
        }
        Err(fault)
    }
}
