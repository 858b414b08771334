//! `rads c inspect`: everything that is known of a star or a service, as a page or as JSON.

use std::collections::BTreeMap;

use api::{Client, EventView, HostView, InForce, Inspection, PlaceInForce, ServiceView, StarView};
use model::limits::limit_fields;
use model::{Bytes, Millicores, Problem, Program, StarPhase, StarTemplate};
use serde::Serialize;

use super::find::{self, Named};
use super::show;
use super::stats::or_dash;
use crate::cli::{Form, Inspect};
use crate::moment::{clock_time, now};
use crate::screen::{self, Table};

/// Events shown of a service: the last, as many as a glance takes in.
const EVENTS_SHOWN: usize = 10;

#[derive(Serialize)]
struct OfService {
    #[serde(flatten)]
    service: ServiceView,
    stars: Vec<Inspection>,
    events: Vec<EventView>,
}

pub(crate) async fn inspect(client: &Client, args: Inspect, form: Form) -> Result<u8, Problem> {
    match find::named(client, &args.name).await? {
        Named::Service(service) => of_service(client, *service, form).await,
        Named::Star { id: Some(id), .. } => {
            let found = client.inspect(id).await?;
            match form {
                Form::Json => screen::json(&found)?,
                Form::Text => screen::print(&star_page(&found)),
            }
            Ok(0)
        }
        Named::Star { service, id: None, .. } => {
            let message = format!("star `{}` is stopped and forgotten", args.name);
            Err(Problem::new(model::Code::NotFound, message)
                .help(format!("`rads c inspect {service}` has its service")))
        }
    }
}

async fn of_service(client: &Client, service: ServiceView, form: Form) -> Result<u8, Problem> {
    let key = service.service.clone();
    let mut stars = Vec::new();
    for star in client.stars().await?.into_iter().filter(|star| star.service == key) {
        // One that was forgotten meanwhile is none of it any more.
        stars.extend(client.inspect(star.id).await.ok());
    }
    let mut events = client.events(0, 0).await?.events;
    events.retain(|event| event.service.as_ref() == Some(&key));
    let found = OfService { service, stars, events };
    match form {
        Form::Json => screen::json(&found)?,
        Form::Text => screen::print(&service_page(&found)),
    }
    Ok(0)
}

/// Lines of a name and what it is, and tables between them.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.0.push_str(format!("{name:<12} {text}").trim_end());
        self.0.push('\n');
    }

    /// The name before the first line alone.
    fn lines(&mut self, name: &str, texts: impl IntoIterator<Item = String>) {
        for (at, text) in texts.into_iter().enumerate() {
            self.line(if at == 0 { name } else { "" }, text);
        }
    }

    fn table(&mut self, table: &Table) {
        self.0.push('\n');
        self.0.push_str(&table.render());
    }
}

fn star_page(found: &Inspection) -> String {
    let (star, template) = (&found.detail.star, &found.detail.template);
    let mut page = Page::default();
    page.line("star", format!("{} ({})", star.name, star.id));
    page.line("service", format!("{} of app {}", star.service, star.app));
    if let Some(node) = &star.node_name {
        page.line("node", node.as_str());
    }
    page.line("state", state(star));
    if star.outdated {
        page.line("", "of an earlier version of its service: it will be replaced");
    }
    program(&mut page, template);
    let port = star.port.map(|port| match found.detail.entry {
        Some(entry) => format!("{port}, requests come in at {entry}"),
        None => port.to_string(),
    });
    page.line("port", or_dash(port));
    page.line("version", format!("revision {}, generation {}", found.detail.revision, found.detail.generation));
    page.line("restarts", star.restarts.to_string());
    if let Some(host) = &found.host {
        host_lines(&mut page, host);
    }
    page.lines("logs", found.log_files.iter().cloned());
    page.table(&limits(found));
    if let Some(host) = &found.host {
        let mut table = Table::new(&["MOUNT", "KIND", "FROM", "OPTIONS"]);
        for mount in &host.mounts {
            table.row([mount.at.clone(), mount.kind.clone(), mount.source.clone(), mount.options.clone()]);
        }
        page.table(&table);
    }
    let mut table = Table::new(&["WHEN", "PHASE"]);
    found.detail.history.iter().for_each(|turn| table.row([clock_time(turn.at), turn.phase.to_string()]));
    page.table(&table);
    if !found.detail.before.is_empty() {
        page.table(&ends(&found.detail.before));
    }
    page.0
}

fn state(star: &StarView) -> String {
    let since = star.since.map(|since| screen::duration(now().since(since)));
    match (star.phase, since) {
        (StarPhase::Ended, Some(since)) => format!("{}, {since} ago", show::phase(star)),
        (_, Some(since)) => format!("{}, started {since} ago", star.phase),
        _ => star.phase.to_string(),
    }
}

fn program(page: &mut Page, template: &StarTemplate) {
    let words = match &template.program {
        Program::Script(path) => path.clone(),
        Program::Command(words) => words.join(" "),
        Program::Nothing => "none: it holds a place".to_owned(),
    };
    page.line("program", template.args.iter().fold(words, |words, arg| format!("{words} {arg}")));
    if let Some(rootfs) = &template.rootfs {
        page.line("rootfs", rootfs);
    }
    page.line("bundle", template.bundle.to_string());
    page.lines("env", template.env.iter().map(|(name, value)| format!("{name}={value}")));
    page.lines("volumes", template.volumes.iter().map(|mount| format!("{}: {}", mount.path, mount.volume)));
    let weaker = template.missing_walls();
    if !weaker.is_empty() {
        page.line("walls", format!("weaker: {weaker}"));
    }
    page.line("network", format!("{:?}", template.network).to_lowercase());
}

fn host_lines(page: &mut Page, host: &HostView) {
    let program = host.program_pid.map(|pid| format!(", its program {pid}")).unwrap_or_default();
    page.line("pid", format!("{}{program}", host.pid));
    let last = host.first_user_id + host.user_ids.saturating_sub(1);
    page.line(
        "user ids",
        match host.user_ids {
            1 => format!("{} on the host, its root", host.first_user_id),
            _ => format!("{} to {last} on the host, its root the first", host.first_user_id),
        },
    );
    if let Some(address) = host.address {
        page.line("address", format!("{address} on the bridge"));
    }
    let mut by_folder: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
    for (controller, folder) in &host.cgroups {
        by_folder.entry(folder).or_default().push(controller);
    }
    page.lines(
        "cgroups",
        by_folder.into_iter().map(|(folder, controllers)| format!("{folder} ({})", controllers.join(", "))),
    );
    page.line("namespaces", host.namespaces.values().cloned().collect::<Vec<_>>().join(" "));
}

/// Every limit there is, in the order of the guide.
const LIMITS: [&str; 11] = [
    "cpu",
    "cpu burst",
    "processors",
    "memory",
    "soft memory",
    "pids",
    "open files",
    "disk",
    "disk reads",
    "disk writes",
    "log rate",
];

/// What was asked for beside what is in force, and what holds it.
fn limits(found: &Inspection) -> Table {
    let template = &found.detail.template;
    let in_force = found.host.as_ref().map(|host| &host.limits);
    let asked = limit_fields(&template.limits);
    let mut table = Table::new(&["LIMIT", "ASKED", "IN FORCE", "HELD BY"]);
    for name in LIMITS {
        let wish = asked.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str());
        let wish = wish.filter(|value| *value != "unlimited");
        let held = in_force.and_then(|limits| Some((value_in_force(limits, name)?, limits.means.get(name).cloned())));
        let (value, means) = match (found.not_enforced.get(name), held) {
            (_, Some((value, means))) => (value, or_dash(means)),
            (Some(reason), None) if wish.is_some() => ("not enforced".to_owned(), reason.clone()),
            (_, None) if in_force.is_none() => ("-".to_owned(), "-".to_owned()),
            (_, None) if name == "disk" => ("none: `/tmp` is memory".to_owned(), "-".to_owned()),
            (_, None) => ("unlimited".to_owned(), "-".to_owned()),
        };
        table.row([name.to_owned(), or_dash(wish.map(str::to_owned)), value, means]);
    }
    let volumes = template.volumes.iter().map(|mount| ("volume", &mount.path, mount.size));
    let memory = template.interior.tmpfs.iter().map(|(path, tmpfs)| ("tmpfs", path, Some(tmpfs.size)));
    for (kind, path, size) in volumes.chain(memory) {
        let place = in_force.and_then(|limits| limits.places.iter().find(|place| place.at == *path));
        let unheld = found.not_enforced.get("size of volumes").filter(|_| size.is_some());
        let (value, means) = match (place, unheld) {
            (None, _) => ("-".to_owned(), None),
            (Some(PlaceInForce { bytes: Some(bytes), means, .. }), _) => (Bytes(*bytes).to_string(), means.clone()),
            (Some(_), Some(reason)) => ("not enforced".to_owned(), Some(reason.clone())),
            (Some(_), None) => ("unlimited".to_owned(), None),
        };
        table.row([format!("{kind} {path}"), or_dash(size.map(|size| size.to_string())), value, or_dash(means)]);
    }
    table
}

fn value_in_force(limits: &InForce, name: &str) -> Option<String> {
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| Bytes(bytes).to_string());
    let rate = |rate: Option<u64>| rate.map(|rate| format!("{}/s", Bytes(rate)));
    match name {
        "cpu" => limits.cpu_millicores.map(|cpu| Millicores(u32::try_from(cpu).unwrap_or(u32::MAX)).to_string()),
        "cpu burst" => limits.cpu_burst_percent.map(|percent| format!("{percent} %")),
        "processors" => limits.cpus.clone(),
        "memory" => bytes(limits.memory_bytes),
        "soft memory" => bytes(limits.memory_soft_bytes),
        "pids" => limits.pids.map(|pids| pids.to_string()),
        "open files" => limits.open_files.map(|files| files.to_string()),
        "disk" => bytes(limits.disk_bytes),
        "disk reads" => rate(limits.io_read_bytes_s),
        "disk writes" => rate(limits.io_write_bytes_s),
        "log rate" => rate(limits.log_bytes_s),
        _ => None,
    }
}

fn ends(stars: &[StarView]) -> Table {
    let mut table = Table::new(&["ENDED", "NAME", "ID", "HOW"]);
    for star in stars {
        let how = star.exit.as_ref().map(|exit| match exit.asked {
            true => format!("{}, as asked", exit.cause),
            false => exit.cause.to_string(),
        });
        table.row([or_dash(star.since.map(clock_time)), star.name.clone(), star.id.to_string(), or_dash(how)]);
    }
    table
}

fn service_page(found: &OfService) -> String {
    let service = &found.service;
    let mut page = Page::default();
    page.line("service", format!("{} of app {}", service.service, service.app));
    page.line("state", show::state(service));
    page.line("stars", format!("{} of {} ready, {} asked for", service.ready, service.desired, service.spec.instances));
    page.line("entry", or_dash(service.address.map(|address| address.to_string())));
    program(&mut page, &service.spec.template);
    page.line("started", format!("{} stars, {} ended without being asked to", service.started, service.restarts));
    page.0.push('\n');
    for (name, value) in limit_fields(&service.spec.template.limits) {
        page.line(name, value);
    }
    let (ended, running): (Vec<StarView>, Vec<StarView>) =
        found.stars.iter().map(|star| star.detail.star.clone()).partition(|star| star.phase == StarPhase::Ended);
    let mut table = Table::new(&["STAR", "ID", "STATE", ">PID", ">USER", ">RESTARTS"]);
    for star in &running {
        let host = found.stars.iter().find(|other| other.detail.star.id == star.id).and_then(|star| star.host.as_ref());
        table.row([
            star.name.clone(),
            star.id.to_string(),
            star.phase.to_string(),
            or_dash(star.pid.map(|pid| pid.to_string())),
            or_dash(host.map(|host| host.first_user_id.to_string())),
            star.restarts.to_string(),
        ]);
    }
    page.table(&table);
    if !ended.is_empty() {
        page.table(&ends(&ended));
    }
    let mut table = Table::new(&["WHEN", "EVENT"]);
    let skipped = found.events.len().saturating_sub(EVENTS_SHOWN);
    found.events[skipped..].iter().for_each(|event| table.row([clock_time(event.wall), event.what.clone()]));
    page.table(&table);
    page.0
}
