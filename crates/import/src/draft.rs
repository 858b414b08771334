//! The app as it is being made: services with what a description can say of them, held to the rules that `deploy` has, so that what
//! comes out can be deployed.

mod job;
mod order;
mod places;
mod service;

pub(crate) use job::{Job, Schedule};
pub(crate) use places::normal;
pub(crate) use service::{Asked, Bounded, Listen, Probe, Restart, Service};

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{Ledger, WithHelp as _};
use crate::names::{Names, name_of};
use crate::report::Verdict;
use crate::tree::Node;
use crate::{Format, LeftJob, Source};

pub(crate) struct App {
    pub(crate) format: Format,
    /// The names of the files it comes from.
    pub(crate) from: Vec<String>,
    pub(crate) services: Vec<Service>,
    /// Jobs whose time no app can say.
    pub(crate) left: Vec<LeftJob>,
    /// Files of its folder that the input holds.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    names: Names,
    volumes: BTreeMap<String, String>,
    volume_names: Names,
    /// Names of secrets with what their value was when it was written in the input, so that two values never get one name.
    secrets: BTreeMap<String, String>,
    secret_names: Names,
    taken: BTreeSet<(String, u16)>,
}

impl App {
    pub(crate) fn new(source: &Source<'_>) -> Self {
        Self {
            format: source.format,
            from: source.files.iter().map(|file| file.name.clone()).collect(),
            services: Vec::new(),
            left: Vec::new(),
            files: BTreeMap::new(),
            names: Names::default(),
            volumes: BTreeMap::new(),
            volume_names: Names::default(),
            secrets: BTreeMap::new(),
            secret_names: Names::default(),
            taken: BTreeSet::new(),
        }
    }

    /// A name for a service, given to no other.
    pub(crate) fn service_name(&mut self, wanted: &str) -> String {
        self.names.fresh(&name_of(wanted, "app"))
    }

    /// What the volume is called that is called so in the input.
    pub(crate) fn volume(&mut self, wanted: &str) -> String {
        if let Some(name) = self.volumes.get(wanted) {
            return name.clone();
        }
        let name = self.volume_names.fresh(&name_of(wanted, "data"));
        self.volumes.insert(wanted.to_owned(), name.clone());
        name
    }

    /// What the secret is called that has this value in the input. `owner` goes before the name when another value has it.
    pub(crate) fn secret(&mut self, wanted: &str, value: &str, owner: &str) -> String {
        let plain = name_of(wanted, "secret");
        for candidate in [plain.clone(), name_of(&format!("{owner}-{plain}"), "secret")] {
            match self.secrets.get(&candidate) {
                Some(known) if known != value => {}
                Some(_) => return candidate,
                None => {
                    self.secrets.insert(candidate.clone(), value.to_owned());
                    return self.secret_names.fresh(&candidate);
                }
            }
        }
        let name = self.secret_names.fresh(&plain);
        self.secrets.insert(name.clone(), value.to_owned());
        name
    }

    /// An address nobody listens on yet, or any free port.
    pub(crate) fn listen(&mut self, listen: Listen) -> (Listen, bool) {
        let every = |ip: &str| ip == Listen::EVERYWHERE;
        let clashes =
            |(ip, port): &(String, u16)| *port == listen.port && (ip == &listen.ip || every(ip) || every(&listen.ip));
        if listen.port != 0 && self.taken.iter().any(clashes) {
            return (Listen { port: 0, ..listen }, false);
        }
        self.taken.insert((listen.ip.clone(), listen.port));
        (listen, true)
    }

    /// A job that cannot be one of the app's: one of those runs by a clock, or as soon as it is described.
    pub(crate) fn leave_job(&mut self, ledger: &mut Ledger, node: &Node, job: LeftJob, why: &str) {
        let what = job.command.join(" ");
        let what = if what.is_empty() { String::new() } else { format!(": {what}") };
        let text = format!("job `{}`, {}, is not carried: {why}{what}", job.name, job.when);
        ledger.left(node, text.help("it is kept as a comment at the end of the app"));
        self.left.push(job);
    }

    /// Has jobs wait for no service that is none, and for none that waits for them.
    fn settle_order(&mut self, ledger: &mut Ledger) {
        let jobs: BTreeMap<String, Vec<String>> = self
            .services
            .iter()
            .filter_map(|service| Some((service.name.clone(), service.job.as_ref()?.after.clone())))
            .collect();
        let mut settled: BTreeSet<&String> = BTreeSet::new();
        loop {
            let free: Vec<&String> = jobs
                .iter()
                .filter(|(name, after)| {
                    let waits = |other: &String| jobs.contains_key(other) && !settled.contains(other);
                    !settled.contains(name) && !after.iter().any(waits)
                })
                .map(|(name, _)| name)
                .collect();
            if free.is_empty() {
                break;
            }
            settled.extend(free);
        }
        for service in &mut self.services {
            let Some(job) = &mut service.job else { continue };
            job.after.retain(|other| jobs.contains_key(other) && *other != service.name);
            job.after.dedup();
            if !settled.contains(&service.name) {
                job.after.clear();
                let text = format!("`{}` runs after jobs that run after it: it waits for none", service.name);
                ledger.note(Verdict::NotCarried, &service.node, text);
            }
        }
    }

    /// What is to be said when all is known: what a star has that the input did not ask for.
    pub(crate) fn finish(&mut self, ledger: &mut Ledger) {
        self.settle_order(ledger);
        let (mut unlimited, mut calling) = (Vec::new(), Vec::new());
        let (mut first, mut first_calling) = (None, None);
        for service in &mut self.services {
            service.finish(ledger);
            if service.network == Some("bridge") {
                calling.push(format!("`{}`", service.name));
                first_calling = first_calling.or(Some(service.node.clone()));
            }
            if service.ram.is_none() {
                unlimited.push(format!("`{}`", service.name));
                first = first.or(Some(service.node.clone()));
            }
        }
        let named = |names: &[String]| match names.len() {
            1..=6 => names.join(", "),
            more => format!("{more} services"),
        };
        if let Some(node) = first_calling {
            let text =
                format!("{} may call out, by network: \"bridge\", which takes root and `iptables`", named(&calling));
            ledger.note(Verdict::Carried, &node, text.help("network: \"none\" for what calls nobody"));
        }
        if let Some(node) = first {
            let names = named(&unlimited);
            let text = format!("no limit of memory for {names}: a star has 256 MiB and 256 processes");
            ledger.note(
                Verdict::Changed,
                &node,
                text.help("give what needs more its `ram_mb` and `pids`; `rads c top` shows what stars use"),
            );
        }
    }
}
