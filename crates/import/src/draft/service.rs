//! One service as it is being made. What cannot be is refused when it is asked for, with the reason.

use std::collections::BTreeMap;

use model::app::INSTANCES_MAX;
use model::interior::{ENV_SECRETS_MAX, TMPFS_MIN};
use model::placement::{CONDITIONS_MAX, Condition};
use model::{Limits, Placement, Update};

use super::job::Job;

use super::places::{Kind, Places};
use crate::ledger::{Said, WithHelp};
use crate::text::Text;
use crate::tree::Node;

/// Most processor time of a star, as `deploy` has it.
const CPU_MAX_MILLI: u64 = 1_024_000;

/// Where requests come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) ip: String,
    /// 0: any that is free.
    pub(crate) port: u16,
}

impl Listen {
    pub(crate) const EVERYWHERE: &'static str = "*";
    pub(crate) const HERE: &'static str = "127.0.0.1";

    pub(crate) fn new(ip: &str, port: u16) -> Self {
        let every = matches!(ip, "" | "0.0.0.0" | "*" | "::" | "[::]");
        Self { ip: if every { Self::EVERYWHERE } else { ip }.to_owned(), port }
    }

    pub(crate) fn shown(&self) -> String {
        match self.ip.contains(':') {
            true => format!("[{}]:{}", self.ip.trim_matches(['[', ']']), self.port),
            false => format!("{}:{}", self.ip, self.port),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

/// How a star is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Http(String),
    Tcp,
    Exec(Vec<Text>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) asked: Asked,
    pub(crate) interval_ms: Option<u64>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) start_ms: Option<u64>,
    pub(crate) failures: Option<u64>,
}

impl Probe {
    pub(crate) fn new(asked: Asked) -> Self {
        Self { asked, interval_ms: None, timeout_ms: None, start_ms: None, failures: None }
    }

    /// Brings its numbers into the bounds that options have.
    pub(crate) fn bounded(mut self) -> Self {
        self.interval_ms = self.interval_ms.map(|ms| ms.clamp(10, 3_600_000));
        self.timeout_ms = self.timeout_ms.map(|ms| ms.clamp(1, 3_600_000));
        self.start_ms = self.start_ms.map(|ms| ms.clamp(100, 3_600_000));
        self.failures = self.failures.map(|count| count.clamp(1, 1_000_000));
        self
    }
}

/// A number brought into the bounds of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bounded<T> {
    AsAsked(T),
    Brought(T),
}

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Where it is described.
    pub(crate) node: Node,
    /// Lines before it.
    pub(crate) comments: Vec<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) rootfs: Option<String>,
    pub(crate) command: Vec<Text>,
    pub(crate) instances: Option<u32>,
    pub(crate) singleton: bool,
    pub(crate) cpu_milli: Option<u32>,
    pub(crate) ram: Option<u64>,
    pub(crate) ram_soft: Option<u64>,
    pub(crate) pids: Option<u32>,
    pub(crate) open_files: Option<u32>,
    pub(crate) cpus: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) listen: Option<Listen>,
    pub(crate) http: bool,
    pub(crate) startup: Option<Probe>,
    pub(crate) ready: Option<Probe>,
    pub(crate) live: Option<Probe>,
    pub(crate) env: BTreeMap<String, Text>,
    pub(crate) env_secrets: BTreeMap<String, String>,
    pub(crate) volumes: BTreeMap<String, (String, Option<u64>)>,
    pub(crate) tmpfs: BTreeMap<String, u64>,
    pub(crate) binds: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) workdir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) no_seccomp: bool,
    pub(crate) capabilities: Vec<&'static str>,
    pub(crate) network: Option<&'static str>,
    pub(crate) restart: Option<Restart>,
    pub(crate) grace_ms: Option<u64>,
    pub(crate) stop_signal: Option<&'static str>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) before_start: Vec<Text>,
    pub(crate) before_stop: Vec<Text>,
    pub(crate) placement: Placement,
    pub(crate) update: Update,
    /// Thousandths of a core that are kept for each star.
    pub(crate) reserve_cpu: Option<u32>,
    pub(crate) reserve_ram: Option<u64>,
    pub(crate) job: Option<Job>,
    places: Places,
}

impl Service {
    pub(crate) fn new(name: String, node: &Node) -> Self {
        // Its place is all that is asked of it again.
        let node = Node { value: crate::tree::Value::Null, ..node.clone() };
        Self {
            name,
            node,
            comments: Vec::new(),
            namespace: None,
            rootfs: None,
            command: Vec::new(),
            instances: None,
            singleton: false,
            cpu_milli: None,
            ram: None,
            ram_soft: None,
            pids: None,
            open_files: None,
            cpus: None,
            port: None,
            listen: None,
            http: false,
            startup: None,
            ready: None,
            live: None,
            env: BTreeMap::new(),
            env_secrets: BTreeMap::new(),
            volumes: BTreeMap::new(),
            tmpfs: BTreeMap::new(),
            binds: BTreeMap::new(),
            secrets: BTreeMap::new(),
            workdir: None,
            user: None,
            no_seccomp: false,
            capabilities: Vec::new(),
            network: None,
            restart: None,
            grace_ms: None,
            stop_signal: None,
            deadline_ms: None,
            before_start: Vec::new(),
            before_stop: Vec::new(),
            placement: Placement::default(),
            update: Update::default(),
            reserve_cpu: None,
            reserve_ram: None,
            job: None,
            places: Places::default(),
        }
    }

    pub(crate) fn volume(&mut self, path: &str, name: String, size: Option<u64>) -> Result<(), String> {
        let path = self.places.take(Kind::Volume, path)?;
        let size = size.map(|bytes| bytes.clamp(Limits::DISK_MIN.0, Limits::DISK_MAX.0));
        self.volumes.insert(path, (name, size));
        Ok(())
    }

    /// A file or folder of the app's folder, seen at a path.
    pub(crate) fn bind(&mut self, path: &str, source: &str) -> Result<String, String> {
        let source = super::places::normal(source);
        if !model::bundle::is_bundle_path(&source) {
            return Err(format!("`{source}` is no path inside the app's folder"));
        }
        let path = self.places.take(Kind::Bind, path)?;
        self.binds.insert(path.clone(), source);
        Ok(path)
    }

    pub(crate) fn tmpfs(&mut self, path: &str, size: u64) -> Result<(), String> {
        let path = self.places.take(Kind::Tmpfs, path)?;
        self.tmpfs.insert(path, size.clamp(TMPFS_MIN.0, 1 << 44));
        Ok(())
    }

    pub(crate) fn secret_file(&mut self, path: &str, name: String) -> Result<(), String> {
        let path = self.places.take(Kind::Secret, path)?;
        self.secrets.insert(path, name);
        Ok(())
    }

    /// A variable. The last one of a name holds.
    pub(crate) fn variable(&mut self, name: &str, value: Text) -> Result<(), String> {
        check_variable(name)?;
        if value.by_default().contains('\0') {
            return Err("its value holds a NUL byte".to_owned());
        }
        self.env_secrets.remove(name);
        self.env.insert(name.to_owned(), value);
        Ok(())
    }

    /// A variable whose value is a secret.
    pub(crate) fn secret_variable(&mut self, name: &str, secret: String) -> Result<(), String> {
        check_variable(name)?;
        if self.env_secrets.len() >= ENV_SECRETS_MAX && !self.env_secrets.contains_key(name) {
            return Err(format!("at most {ENV_SECRETS_MAX} secrets go into variables"));
        }
        self.env.remove(name);
        self.env_secrets.insert(name.to_owned(), secret);
        Ok(())
    }

    pub(crate) fn set_instances(&mut self, count: u64) -> Bounded<u32> {
        let most = u64::from(INSTANCES_MAX);
        let bounded = bring(count, 0, most);
        self.instances = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    /// One star on each machine, where nothing of it stands against that: then as many as are asked for, one on a machine. What is
    /// to be told of it, as carried or as changed.
    pub(crate) fn put_everywhere(&mut self) -> Result<Said, Said> {
        let against = [
            (!self.volumes.is_empty(), "volumes lie on one machine"),
            (self.singleton, "it is a singleton"),
            (self.job.is_some(), "it is a job"),
            (self.instances.is_some_and(|count| count != 1), "`instances` says how many there are"),
        ];
        match against.into_iter().find_map(|(is, why)| is.then_some(why)) {
            None => {
                self.placement.every_node = true;
                (self.placement.per_node, self.placement.max_skew, self.instances) = (None, None, None);
                Ok("placement: every_node: true, one star on each machine".into())
            }
            Some(why) => {
                self.placement.per_node = Some(1);
                let told = format!("one star on a machine at most, and not one on each: {why}");
                Err(told.help(format!("`rads c scale {} N`, for N machines", self.name)))
            }
        }
    }

    pub(crate) fn set_cpu(&mut self, milli: u64) -> Bounded<u32> {
        let bounded = bring(milli, 10, CPU_MAX_MILLI);
        self.cpu_milli = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    /// In whole MiB, rounded up.
    pub(crate) fn set_ram(&mut self, bytes: u64) -> Bounded<u64> {
        let bounded = bring(bytes.div_ceil(1 << 20), Limits::COMMAND_MEMORY_MIN.0 >> 20, 16 << 20);
        let megabytes = value_of(&bounded);
        self.ram = Some(megabytes << 20);
        if megabytes << 20 == bytes { Bounded::AsAsked(megabytes) } else { Bounded::Brought(megabytes) }
    }

    /// Processor time that is kept for each star.
    pub(crate) fn set_reserve_cpu(&mut self, milli: u64) -> Bounded<u32> {
        let bounded = bring(milli, 0, CPU_MAX_MILLI);
        self.reserve_cpu = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    /// Memory that is kept for each star, in whole MiB, rounded up.
    pub(crate) fn set_reserve_ram(&mut self, bytes: u64) -> Bounded<u64> {
        let megabytes = bytes.div_ceil(1 << 20).min(16 << 20);
        self.reserve_ram = Some(megabytes << 20);
        if megabytes << 20 == bytes { Bounded::AsAsked(megabytes) } else { Bounded::Brought(megabytes) }
    }

    pub(crate) fn set_soft_ram(&mut self, bytes: u64) -> u64 {
        let megabytes = bytes.div_ceil(1 << 20).clamp(1, 16 << 20);
        self.ram_soft = Some(megabytes << 20);
        megabytes
    }

    pub(crate) fn set_pids(&mut self, count: u64) -> Bounded<u32> {
        let bounded = bring(count, 1, 4_194_304);
        self.pids = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    pub(crate) fn set_open_files(&mut self, count: u64) -> Bounded<u32> {
        let bounded = bring(count, Limits::OPEN_FILES_MIN.into(), Limits::OPEN_FILES_MAX.into());
        self.open_files = Some(value_of(&bounded) as u32);
        narrowed(bounded)
    }

    pub(crate) fn set_grace(&mut self, ms: u64) {
        self.grace_ms = Some(ms.min(86_400_000));
    }

    /// A user by its numbers.
    pub(crate) fn set_user(&mut self, text: &str) -> bool {
        let sound = text.parse::<model::User>().is_ok();
        if sound {
            self.user = Some(text.to_owned());
        }
        sound
    }

    pub(crate) fn set_workdir(&mut self, path: &str) -> Result<(), String> {
        let path = super::places::normal(path);
        let sound = path == "/" || path.strip_prefix('/').is_some_and(model::bundle::is_bundle_path);
        if !sound {
            return Err("a `workdir` is an absolute path without `..`".to_owned());
        }
        self.workdir = Some(path);
        Ok(())
    }

    pub(crate) fn set_stop_signal(&mut self, signal: &str) -> bool {
        const KNOWN: [&str; 6] = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"];
        const NUMBERS: [&str; 6] = ["15", "2", "3", "1", "10", "12"];
        let upper = signal.trim().to_ascii_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        let by_number = NUMBERS.iter().position(|number| *number == signal.trim());
        let found = by_number.or_else(|| KNOWN.iter().position(|known| *known == name));
        self.stop_signal = found.map(|at| KNOWN[at]).or(self.stop_signal);
        found.is_some()
    }

    /// A capability by its name, if stars can have it.
    pub(crate) fn add_capability(&mut self, name: &str) -> bool {
        let plain = name.to_ascii_lowercase();
        let plain = plain.strip_prefix("cap_").unwrap_or(&plain);
        let found = model::Capability::ALL.into_iter().map(model::Capability::as_str).find(|known| *known == plain);
        if let Some(found) = found.filter(|found| !self.capabilities.contains(found)) {
            self.capabilities.push(found);
        }
        found.is_some()
    }

    /// A condition on machines, unless no machine could have it beside those that are there.
    pub(crate) fn require(&mut self, condition: &str) -> Result<(), String> {
        let condition: Condition = condition.parse().map_err(|problem: model::Problem| problem.message)?;
        if self.placement.require.len() >= CONDITIONS_MAX {
            return Err(format!("at most {CONDITIONS_MAX} conditions"));
        }
        if self.placement.require.contains(&condition) {
            return Ok(());
        }
        self.placement.require.push(condition);
        self.placement.check().map_err(|problem| {
            self.placement.require.pop();
            problem.message
        })
    }

    pub(crate) fn prefer(&mut self, condition: &str, weight: i64) -> Result<(), String> {
        let that: Condition = condition.parse().map_err(|problem: model::Problem| problem.message)?;
        if self.placement.prefer.len() >= CONDITIONS_MAX {
            return Err(format!("at most {CONDITIONS_MAX} wishes"));
        }
        let weight = weight.clamp(-100, 100) as i32;
        self.placement.prefer.push(model::Preference { that, weight });
        Ok(())
    }

    pub(crate) fn spread_over(&mut self, attribute: &str) -> Result<(), String> {
        let attribute = attribute.parse().map_err(|problem: model::Problem| problem.message)?;
        if self.placement.spread.len() < CONDITIONS_MAX && !self.placement.spread.contains(&attribute) {
            self.placement.spread.push(attribute);
        }
        Ok(())
    }
}

fn check_variable(name: &str) -> Result<(), String> {
    match name.is_empty() || name.contains(['=', '\0']) {
        true => Err("it cannot be the name of a variable".to_owned()),
        false => Ok(()),
    }
}

pub(super) fn bring(value: u64, least: u64, most: u64) -> Bounded<u64> {
    if (least..=most).contains(&value) { Bounded::AsAsked(value) } else { Bounded::Brought(value.clamp(least, most)) }
}

pub(super) fn value_of(bounded: &Bounded<u64>) -> u64 {
    match bounded {
        Bounded::AsAsked(value) | Bounded::Brought(value) => *value,
    }
}

pub(super) fn narrowed(bounded: Bounded<u64>) -> Bounded<u32> {
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    match bounded {
        Bounded::AsAsked(value) => Bounded::AsAsked(narrow(value)),
        Bounded::Brought(value) => Bounded::Brought(narrow(value)),
    }
}
