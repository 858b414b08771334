//! A namespace as it is asked for: how long it lasts, and what its services may ask for together.
//!
//! Which namespaces there are, and that no change goes beyond a quota, is the state's.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::app::ServiceSpec;
use crate::limits::{Limits, there};
use crate::name::Name;
use crate::placement::Priority;
use crate::problem::{Code, Problem};
use crate::reserve::Reserve;
use crate::units::{Bytes, Millicores};

/// Most namespaces that are kept by themselves: far more than there are teams, few enough to list.
pub const NAMESPACES_MAX: usize = 10_000;
/// Shortest time a namespace may last: in less nobody could be warned of its end.
pub const TTL_MIN_MS: u64 = 30_000;
/// Longest: ten years. What is to last longer has no end.
pub const TTL_MAX_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// Most that a namespace may have beyond its quota, in percent.
pub const BURST_MAX: u32 = 1_000;

/// What the services of a namespace may ask for together. `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Quota {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// Stars of all its services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Their limits of processor time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Millicores>,
    /// Their limits of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Their disks, and the sizes of the volumes they name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// The highest that one of them may have: whose stars may have those of others give way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// How much more than that, in percent, its stars may be and have as long as no other namespace wants the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// A change of some of it: what is absent stays, what is `null` becomes unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QuotaChange {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub services: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub instances: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub cpu: Option<Option<Millicores>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub memory: Option<Option<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub disk: Option<Option<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub priority: Option<Option<Priority>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub burst: Option<Option<u32>>,
}

/// What is asked of a namespace: what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NamespaceChange {
    /// Milliseconds from now on until it ends, with its apps and secrets; `null`: it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub ttl_ms: Option<Option<u64>>,
    #[serde(default, skip_serializing_if = "QuotaChange::is_empty")]
    pub quota: QuotaChange,
    /// How much more processor time than their own its stars may borrow, in percent, where their service says nothing else; `null`: none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub cpu_borrow: Option<Option<u32>>,
}

impl NamespaceChange {
    /// Whether it can be at all.
    ///
    /// # Errors
    /// `InvalidValue`: it would last for no time, or for ever, or there is no such priority.
    pub fn check(&self) -> Result<(), Problem> {
        if let Some(priority) = self.quota.priority.flatten().filter(|priority| *priority > Priority::MAX) {
            let message = format!("a quota of priority is from 0 to {}, not {priority}", Priority::MAX);
            return Err(Problem::new(Code::InvalidValue, message));
        }
        if let Some(more) = self.quota.burst.flatten().filter(|more| *more > BURST_MAX) {
            let message = format!("a namespace may have at most {BURST_MAX} % more than its quota, not {more} %");
            return Err(Problem::new(Code::InvalidValue, message)
                .help("take the limits away for it to have as much as there is"));
        }
        if let Some(more) = self.cpu_borrow.flatten().filter(|more| *more > Limits::CPU_BORROW_MAX) {
            let message = format!("stars borrow at most {} % more, not {more} %", Limits::CPU_BORROW_MAX);
            return Err(Problem::new(Code::InvalidValue, message));
        }
        match self.ttl_ms.flatten() {
            Some(ttl) if !(TTL_MIN_MS..=TTL_MAX_MS).contains(&ttl) => {
                let message = format!("a namespace lasts between {} s and ten years", TTL_MIN_MS / 1_000);
                Err(Problem::new(Code::InvalidValue, message).help("leave its end out for it to have none"))
            }
            _ => Ok(()),
        }
    }
}

impl QuotaChange {
    /// Takes every limit away.
    pub const NONE: Self = Self {
        services: Some(None),
        instances: Some(None),
        cpu: Some(None),
        memory: Some(None),
        disk: Some(None),
        priority: Some(None),
        burst: Some(None),
    };

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn of(&self, before: &Quota) -> Quota {
        Quota {
            services: self.services.unwrap_or(before.services),
            instances: self.instances.unwrap_or(before.instances),
            cpu: self.cpu.unwrap_or(before.cpu),
            memory: self.memory.unwrap_or(before.memory),
            disk: self.disk.unwrap_or(before.disk),
            priority: self.priority.unwrap_or(before.priority),
            burst: self.burst.unwrap_or(before.burst),
        }
    }
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    Services,
    Stars,
    Cpu,
    Memory,
    Disk,
}

impl Counted {
    pub const ALL: [Self; 5] = [Self::Services, Self::Stars, Self::Cpu, Self::Memory, Self::Disk];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Stars => "stars",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }

    /// Whether there is more of it again when a star is ended: that may be had beyond a quota while there is room.
    pub fn is_given_back(self) -> bool {
        match self {
            Self::Stars | Self::Cpu | Self::Memory => true,
            // Volumes outlive the stars that have them.
            Self::Services | Self::Disk => false,
        }
    }

    /// So much of it, alone: `4`, `512 MiB`, `150 %`.
    pub fn amount(self, amount: u64) -> String {
        match self {
            Self::Services | Self::Stars => amount.to_string(),
            Self::Cpu => Millicores(u32::try_from(amount).unwrap_or(u32::MAX)).to_string(),
            Self::Memory | Self::Disk => Bytes(amount).exact(),
        }
    }

    /// So much of it, as what one has: `8 stars`, `512 MiB of memory`, `150 % of a core`.
    fn phrase(self, amount: u64) -> String {
        let text = self.amount(amount);
        match self {
            Self::Services if amount == 1 => "1 service".to_owned(),
            Self::Stars if amount == 1 => "1 star".to_owned(),
            Self::Services | Self::Stars => format!("{text} {self}"),
            Self::Cpu => format!("{text} of a core"),
            Self::Memory | Self::Disk => format!("{text} of {self}"),
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Quota {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a service has a higher priority than may be.
    fn is_outranked_by(&self, spec: &ServiceSpec) -> bool {
        self.priority.is_some_and(|most| spec.placement.priority > most)
    }

    pub fn of(&self, counted: Counted) -> Option<u64> {
        match counted {
            Counted::Services => self.services.map(u64::from),
            Counted::Stars => self.instances.map(u64::from),
            Counted::Cpu => self.cpu.map(|cpu| cpu.0.into()),
            Counted::Memory => self.memory.map(|memory| memory.0),
            Counted::Disk => self.disk.map(|disk| disk.0),
        }
    }

    /// The most there may be, with what may be had beyond the quota while there is room.
    pub fn most(&self, counted: Counted) -> Option<u64> {
        let own = self.of(counted)?;
        let more = self.burst.filter(|_| counted.is_given_back()).unwrap_or_default();
        Some(own.saturating_add(own.saturating_mul(more.into()) / 100))
    }

    /// What is the namespace's own of what is given back.
    fn given_back(&self) -> impl Iterator<Item = (Counted, u64)> {
        let given_back = Counted::ALL.into_iter().filter(|counted| counted.is_given_back());
        given_back.filter_map(|counted| Some((counted, self.of(counted)?)))
    }

    /// Whether more is used than is the namespace's own, of what is given back.
    pub fn is_passed_by(&self, used: &Usage) -> bool {
        self.given_back().any(|(counted, own)| used.of(counted) > own)
    }

    /// How many of so many stars are the namespace's own beside what is used.
    pub fn has_room_for(&self, used: &Usage, star: &Usage, stars: u32) -> u32 {
        let room = self.given_back().filter_map(|(counted, own)| {
            let left = own.saturating_sub(used.of(counted));
            left.checked_div(star.of(counted))
        });
        room.fold(stars, |stars, room| stars.min(u32::try_from(room).unwrap_or(u32::MAX)))
    }

    /// What is used beyond it, in words, each by itself: so it is when a quota is set below what is there, or over services that
    /// have no limit of what it counts.
    pub fn exceeded(&self, services: &Services<'_>) -> Vec<String> {
        let used = Usage::of_services(services);
        let over = Counted::ALL.into_iter().filter_map(|counted| {
            let (most, used) = (self.most(counted)?, used.of(counted));
            (used > most).then(|| format!("{} of {}", counted.amount(used), counted.phrase(most)))
        });
        let limited = || Counted::ALL.into_iter().filter(|counted| self.of(*counted).is_some());
        let free = services.iter().filter(|(_, asked)| asked.stars > 0).flat_map(|(name, Asked { spec, .. })| {
            let without = limited().filter(|counted| unlimited(spec, *counted).is_some());
            without.map(move |counted| format!("service `{name}` has no limit of {counted}"))
        });
        let higher = services.iter().filter(|(_, asked)| self.is_outranked_by(asked.spec));
        let higher =
            higher.map(|(name, asked)| format!("service `{name}` has priority {}", asked.spec.placement.priority));
        over.chain(free).chain(higher).collect()
    }

    /// Whether the services of a namespace may come from `before` to `after`: nothing that there is a quota of may grow beyond it.
    /// What is beyond it already may stay, or shrink.
    ///
    /// # Errors
    /// `QuotaExceeded`, with what there may be, what is used and what more is asked for; or that a service has no limit of what is
    /// counted.
    pub fn check(&self, namespace: &Name, before: &Services<'_>, after: &Services<'_>) -> Result<(), Problem> {
        if self.is_empty() {
            return Ok(());
        }
        for (name, Asked { spec, stars }) in after {
            let was = before.get(name);
            let (priority, had) = (spec.placement.priority, was.map(|was| was.spec.placement.priority));
            if let Some(most) =
                self.priority.filter(|_| self.is_outranked_by(spec) && had.is_none_or(|had| priority > had))
            {
                let message = format!(
                    "service `{name}` has priority {priority}, and in namespace `{namespace}` {most} is the highest there may be"
                );
                let help =
                    format!("say `priority: {most}` in its `placement`, or less; unsaid it is {}", Priority::default());
                return Err(Problem::new(Code::QuotaExceeded, message).help(help));
            }
            let grows = |counted: &Counted| {
                *stars > was.map_or(0, |was| was.stars)
                    || was.is_some_and(|was| unlimited(was.spec, *counted).is_none())
            };
            let without = Counted::ALL.into_iter().filter(|counted| self.of(*counted).is_some());
            let without = without.filter_map(|counted| Some((counted, unlimited(spec, counted)?)));
            if let Some((counted, write)) = without.into_iter().find(|(counted, _)| grows(counted)) {
                let message = format!(
                    "service `{name}` has no limit of {counted}, of which namespace `{namespace}` may have {} in all",
                    counted.amount(self.of(counted).unwrap_or_default())
                );
                return Err(Problem::new(Code::QuotaExceeded, message).help(write));
            }
        }
        let (used, asked) = (Usage::of_services(before), Usage::of_services(after));
        for counted in Counted::ALL {
            let (used, asked) = (used.of(counted), asked.of(counted));
            let Some(most) = self.most(counted).filter(|most| asked > *most && asked > used) else { continue };
            let (more, own) = (asked - used, self.of(counted).unwrap_or(most));
            let burst =
                if most > own { format!(", and {} while there is room", counted.amount(most)) } else { String::new() };
            let (are, are_more) = match counted {
                Counted::Services | Counted::Stars => {
                    (if used == 1 { "is" } else { "are" }, if more == 1 { "is" } else { "are" })
                }
                _ => ("are", "are"),
            };
            let message = format!(
                "namespace `{namespace}` may have {}{burst}: {} {are} used, {} more {are_more} asked for",
                counted.phrase(own),
                counted.amount(used),
                counted.amount(more)
            );
            let help = format!("`rads c ns show {namespace}` shows what uses it; an admin sets it: `rads c ns set`");
            return Err(Problem::new(Code::QuotaExceeded, message).help(help));
        }
        Ok(())
    }
}

/// A service as a quota counts it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub spec: &'a ServiceSpec,
    /// How many it has: of one with a star on each machine that follows from the machines.
    pub stars: u32,
}

impl<'a> Asked<'a> {
    /// `everywhere`: how many it has because of the machines there are, if it has one on each.
    pub fn of(spec: &'a ServiceSpec, everywhere: Option<u32>) -> Self {
        Self { spec, stars: everywhere.unwrap_or(spec.instances) }
    }
}

/// The services of one namespace.
pub type Services<'a> = BTreeMap<&'a Name, Asked<'a>>;

/// What to write where a service has no limit of something that is counted.
fn unlimited(spec: &ServiceSpec, counted: Counted) -> Option<&'static str> {
    if spec.hold.is_some() {
        // What it keeps is what it has.
        return None;
    }
    let limits = &spec.template.limits;
    match counted {
        Counted::Cpu => {
            limits.cpu.is_none().then_some("give it one, for example `cpu_percent: 50` or `--cpu-percent 50`")
        }
        Counted::Memory => {
            limits.memory.is_none().then_some("give it one, for example `ram_mb: 256` or `--ram-mb 256`")
        }
        // A star without a disk of its own writes to memory, which is counted as such.
        Counted::Disk => spec.template.volumes.iter().any(|mount| mount.size.is_none()).then_some(
            "give each of its volumes a size, for example `volumes: {\"/data\": {name: \"pages\", size_mb: 100}}`",
        ),
        Counted::Services | Counted::Stars => None,
    }
}

/// What services ask for, counted. A star is counted whether it runs or not: a service that is stopped may be started at any time.
/// Stars that take the place of others, and run beside them for a moment, are not: they are a way to somewhere, and gone there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Usage {
    pub services: u64,
    pub instances: u64,
    /// In thousandths of a core; what has no limit counts for nothing.
    pub cpu: u64,
    /// In bytes, as is `disk`.
    pub memory: u64,
    pub disk: u64,
}

impl Usage {
    /// Of services of one namespace. What a reservation keeps is counted once: its stars count where they may use more than a place has.
    pub fn of_services(services: &Services<'_>) -> Self {
        let mut usage = Self::default();
        // One volume is one, however many services have it.
        let mut volumes: BTreeMap<&Name, u64> = BTreeMap::new();
        for Asked { spec, stars } in services.values() {
            usage.services += 1;
            usage.add(&Self::of_star(spec, services), *stars);
            for mount in &spec.template.volumes {
                let largest = volumes.entry(&mount.volume).or_default();
                *largest = (*largest).max(mount.size.map_or(0, |size| size.0));
            }
        }
        let sizes = volumes.into_values().fold(0u64, u64::saturating_add);
        usage.disk = usage.disk.saturating_add(sizes);
        usage
    }

    /// Of one star of a service, among the services of its namespace: a place counts what it keeps, and a star in one what it may use beyond
    /// that.
    pub fn of_star(spec: &ServiceSpec, services: &Services<'_>) -> Self {
        let limits = &spec.template.limits;
        let reservation = spec.placement.reservation.as_ref().and_then(|name| services.get(name));
        let place = reservation.map(|held| held.spec.template.reserve).unwrap_or_default();
        let own = if spec.hold.is_some() { spec.template.reserve } else { Reserve::default() };
        Self {
            services: 0,
            instances: 1,
            cpu: limits.cpu.unwrap_or(own.cpu).0.saturating_sub(place.cpu.0).into(),
            memory: limits.memory.unwrap_or(own.memory).0.saturating_sub(place.memory.0),
            disk: limits.disk.map_or(0, |disk| disk.0),
        }
    }

    /// So many stars more.
    pub fn add(&mut self, star: &Self, stars: u32) {
        let add = |sum: &mut u64, one: u64| *sum = sum.saturating_add(one.saturating_mul(stars.into()));
        add(&mut self.instances, star.instances);
        add(&mut self.cpu, star.cpu);
        add(&mut self.memory, star.memory);
        add(&mut self.disk, star.disk);
    }

    pub fn of(&self, counted: Counted) -> u64 {
        match counted {
            Counted::Services => self.services,
            Counted::Stars => self.instances,
            Counted::Cpu => self.cpu,
            Counted::Memory => self.memory,
            Counted::Disk => self.disk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Network, Probe, ProbeKind, Program, RestartPolicy, StarTemplate, VolumeMount};
    use crate::limits::Limits;
    use crate::{BundleId, ContentHash};

    fn service(instances: u32, limits: Limits) -> ServiceSpec {
        let template = StarTemplate {
            program: Program::Script("x.rads".to_owned()),
            args: Vec::new(),
            bundle: BundleId(ContentHash([0; 32])),
            rootfs: None,
            checkpoint: false,
            singleton: false,
            env: BTreeMap::new(),
            limits,
            volumes: Vec::new(),
            network: Network::None,
            port: None,
            probe: Probe::new(ProbeKind::Started),
            restart: RestartPolicy::Always,
            grace_ms: 1_000,
            stop_signal: None,
            deadline_ms: None,
            hooks: Default::default(),
            health: Default::default(),
            interior: Default::default(),
            weakened: Default::default(),
            access: None,
            reserve: Default::default(),
        };
        ServiceSpec {
            template,
            instances,
            entry: None,
            placement: Default::default(),
            update: Default::default(),
            job: None,
            hold: None,
        }
    }

    fn sized(instances: u32, megabytes: u64) -> ServiceSpec {
        service(instances, Limits { memory: Some(Bytes::mib(megabytes)), ..Limits::DEFAULT })
    }

    fn with_volume(mut spec: ServiceSpec, volume: &str, megabytes: Option<u64>) -> ServiceSpec {
        let (volume, path) = (volume.parse().unwrap(), "/data".to_owned());
        spec.template.volumes.push(VolumeMount { volume, path, size: megabytes.map(Bytes::mib) });
        spec
    }

    /// From what there is to what is asked for, each a service by its name.
    fn refused(quota: Quota, before: &[(&str, ServiceSpec)], after: &[(&str, ServiceSpec)]) -> Option<String> {
        let names: BTreeMap<&str, Name> =
            before.iter().chain(after).map(|(name, _)| (*name, name.parse().unwrap())).collect();
        let of = |services: &[(&str, ServiceSpec)]| -> Vec<(Name, ServiceSpec)> {
            services.iter().map(|(name, spec)| (names[name].clone(), spec.clone())).collect()
        };
        let (before, after) = (of(before), of(after));
        fn named(services: &[(Name, ServiceSpec)]) -> Services<'_> {
            services.iter().map(|(name, spec)| (name, Asked::of(spec, None))).collect()
        }
        let problem = quota.check(&"dev".parse().unwrap(), &named(&before), &named(&after)).err()?;
        assert_eq!(problem.code, Code::QuotaExceeded);
        assert!(problem.help.is_some());
        Some(problem.message)
    }

    #[test]
    fn what_a_reservation_keeps_counts_once() {
        let mut room = sized(4, 0);
        room.template.limits = Limits::UNLIMITED;
        room.template.program = Program::Nothing;
        room.template.reserve = Reserve { memory: Bytes::mib(100), cpu: Millicores(500) };
        room.hold = Some(crate::Hold::default());
        let within = |stars: u32, megabytes: u64| {
            let mut spec = sized(stars, megabytes);
            spec.placement.reservation = Some("room".parse().unwrap());
            spec
        };
        let quota = Quota { memory: Some(Bytes::mib(600)), cpu: Some(Millicores(2_000)), ..Quota::default() };
        let kept = ("room", room.clone());
        let memory = Quota { cpu: None, ..quota };
        assert_eq!(refused(quota, &[], std::slice::from_ref(&kept)), None, "it has no limits, and keeps what it keeps");
        assert_eq!(refused(memory, &[], &[kept.clone(), ("web", within(4, 100))]), None, "they are in its places");
        assert_eq!(refused(memory, &[], &[kept.clone(), ("web", within(4, 150))]), None, "and may use 200 MiB more");
        assert!(refused(memory, &[], &[kept.clone(), ("web", within(4, 151))]).is_some());
        assert!(refused(memory, &[], &[kept, ("web", sized(3, 100))]).is_some(), "elsewhere they count");
    }

    #[test]
    fn a_refusal_says_what_there_may_be_what_is_used_and_what_more_is_asked_for() {
        let check = |quota: Quota, before: &[(&str, ServiceSpec)], after: &[(&str, ServiceSpec)], expected: &str| {
            assert_eq!(refused(quota, before, after).as_deref(), Some(expected));
        };
        let stars = Quota { instances: Some(8), ..Quota::default() };
        let six = ("web", sized(6, 64));
        check(
            stars,
            std::slice::from_ref(&six),
            &[six.clone(), ("api", sized(4, 64))],
            "namespace `dev` may have 8 stars: 6 are used, 4 more are asked for",
        );
        let one = Quota { services: Some(1), ..Quota::default() };
        check(
            one,
            std::slice::from_ref(&six),
            &[six.clone(), ("api", sized(0, 64))],
            "namespace `dev` may have 1 service: 1 is used, 1 more is asked for",
        );
        let memory = Quota { memory: Some(Bytes::mib(1_024)), ..Quota::default() };
        check(
            memory,
            &[("web", sized(3, 256))],
            &[("web", sized(3, 512))],
            "namespace `dev` may have 1 GiB of memory: 768 MiB are used, 768 MiB more are asked for",
        );
        let cpu = Quota { cpu: Some(Millicores(1_000)), ..Quota::default() };
        let limited = |stars, cpu| service(stars, Limits { cpu: Some(Millicores(cpu)), ..Limits::DEFAULT });
        check(
            cpu,
            &[],
            &[("web", limited(3, 500))],
            "namespace `dev` may have 100 % of a core: 0 % are used, 150 % more are asked for",
        );
        assert_eq!(refused(cpu, &[], &[("web", limited(2, 500))]), None);
        assert_eq!(refused(Quota::default(), &[], &[("web", service(9_999, Limits::UNLIMITED))]), None);
    }

    #[test]
    fn with_burst_there_may_be_more_of_what_is_given_back() {
        let quota = Quota {
            services: Some(1),
            instances: Some(4),
            memory: Some(Bytes::mib(256)),
            disk: Some(Bytes::mib(100)),
            burst: Some(50),
            ..Quota::default()
        };
        assert_eq!(refused(quota, &[], &[("web", sized(6, 64))]), None);
        let beyond = "namespace `dev` may have 4 stars, and 6 while there is room: 4 are used, 3 more are asked for";
        assert_eq!(refused(quota, &[("web", sized(4, 1))], &[("web", sized(7, 1))]).as_deref(), Some(beyond));
        let beyond = "namespace `dev` may have 256 MiB of memory, and 384 MiB while there is room: 0 B are used, 385 MiB more are \
                      asked for";
        assert_eq!(refused(quota, &[], &[("web", sized(5, 77))]).as_deref(), Some(beyond));
        let two = [("web", sized(1, 1)), ("api", sized(1, 1))];
        assert!(refused(quota, &[], &two).unwrap().starts_with("namespace `dev` may have 1 service: "));
        let disk = [("web", with_volume(sized(1, 1), "pages", Some(101)))];
        assert!(refused(quota, &[], &disk).unwrap().starts_with("namespace `dev` may have 100 MiB of disk: "));
        assert_eq!(
            quota.exceeded(&BTreeMap::from([(&"web".parse().unwrap(), Asked::of(&sized(6, 64), None))])),
            [""; 0]
        );
        let more = |burst| NamespaceChange {
            quota: QuotaChange { burst: Some(Some(burst)), ..QuotaChange::default() },
            ..NamespaceChange::default()
        };
        assert!(more(BURST_MAX).check().is_ok() && more(BURST_MAX + 1).check().is_err());
    }

    #[test]
    fn what_is_beyond_a_quota_already_may_stay_or_shrink_and_not_grow() {
        let memory = Quota { memory: Some(Bytes::mib(100)), instances: Some(2), ..Quota::default() };
        let check = |before: (u32, u64), after: (u32, u64), allowed: bool| {
            let of = |(stars, megabytes)| [("web", sized(stars, megabytes))];
            assert_eq!(refused(memory, &of(before), &of(after)).is_none(), allowed, "{before:?} {after:?}");
        };
        check((4, 64), (4, 64), true);
        check((4, 64), (3, 64), true);
        check((4, 64), (5, 64), false);
        check((4, 64), (4, 65), false);
        // Fewer stars, and more memory than there was.
        check((4, 64), (3, 128), false);
        check((1, 64), (2, 50), true);
    }

    #[test]
    fn nobody_says_a_higher_priority_than_there_may_be() {
        let of = |priority: u8| {
            let mut spec = sized(1, 64);
            spec.placement.priority = Priority(priority);
            [("web", spec)]
        };
        let quota = Quota { priority: Some(Priority(50)), ..Quota::default() };
        let expected = "service `web` has priority 51, and in namespace `dev` 50 is the highest there may be";
        assert_eq!(refused(quota, &[], &of(51)).as_deref(), Some(expected));
        assert_eq!(refused(quota, &of(50), &of(51)).as_deref(), Some(expected));
        assert_eq!(refused(quota, &[], &of(50)), None);
        // Unsaid it is 50.
        let low = Quota { priority: Some(Priority(10)), ..Quota::default() };
        assert!(refused(low, &[], &[("web", sized(1, 64))]).is_some());
        // What was there before the quota may stay as it is, and go down.
        assert_eq!(refused(quota, &of(80), &of(80)), None);
        assert_eq!(refused(quota, &of(80), &of(60)), None);
        assert!(refused(quota, &of(80), &of(81)).is_some());
        let (name, [(_, spec)]) = ("web".parse().unwrap(), of(80));
        assert_eq!(
            quota.exceeded(&Services::from([(&name, Asked::of(&spec, None))])),
            ["service `web` has priority 80"]
        );
        let change = |priority| NamespaceChange {
            quota: QuotaChange { priority: Some(Some(Priority(priority))), ..QuotaChange::default() },
            ..NamespaceChange::default()
        };
        assert!(change(101).check().is_err() && change(100).check().is_ok());
    }

    #[test]
    fn without_a_limit_of_what_is_counted_nothing_comes_and_nothing_grows() {
        let quota = Quota { memory: Some(Bytes::mib(100)), ..Quota::default() };
        let free = |stars| [("web", service(stars, Limits::UNLIMITED))];
        let expected = "service `web` has no limit of memory, of which namespace `dev` may have 100 MiB in all";
        assert_eq!(refused(quota, &[], &free(1)).as_deref(), Some(expected));
        assert_eq!(refused(quota, &free(1), &free(2)).as_deref(), Some(expected));
        assert_eq!(refused(quota, &[("web", sized(1, 64))], &free(1)).as_deref(), Some(expected));
        assert_eq!(refused(quota, &free(2), &free(1)), None);
        assert_eq!(refused(quota, &free(2), &free(2)), None);
        let [(name, spec)] = free(1);
        let (name, spec): (Name, _) = (name.parse().unwrap(), spec);
        let told = quota.exceeded(&BTreeMap::from([(&name, Asked::of(&spec, None))]));
        assert_eq!(told, ["service `web` has no limit of memory"]);
    }

    #[test]
    fn a_volume_counts_once_however_many_have_it() {
        let quota = Quota { disk: Some(Bytes::mib(100)), ..Quota::default() };
        let has = |megabytes| with_volume(sized(3, 64), "pages", megabytes);
        assert_eq!(refused(quota, &[], &[("web", has(Some(100))), ("api", has(Some(100)))]), None);
        assert!(refused(quota, &[], &[("web", has(Some(101)))]).is_some());
        assert!(refused(quota, &[], &[("web", has(None))]).unwrap().contains("no limit of disk"));
        let disks = service(2, Limits { disk: Some(Bytes::mib(51)), ..Limits::DEFAULT });
        assert!(refused(quota, &[], &[("web", disks)]).unwrap().contains("100 MiB of disk"));
    }

    #[test]
    fn a_change_tells_absent_from_unlimited() {
        let change: NamespaceChange =
            serde_json::from_str(r#"{"ttl_ms": null, "quota": {"memory": null, "instances": 7}}"#).unwrap();
        assert_eq!(change.ttl_ms, Some(None));
        let before = Quota { memory: Some(Bytes(5)), services: Some(3), ..Quota::default() };
        let after = change.quota.of(&before);
        assert_eq!(after, Quota { instances: Some(7), services: Some(3), ..Quota::default() });
        assert_eq!(serde_json::from_str::<NamespaceChange>("{}").unwrap(), NamespaceChange::default());
        assert!(QuotaChange::NONE.of(&before).is_empty());
    }
}
