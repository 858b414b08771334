//! What there is and how it is: tables for people, the API's own words for programs.

use api::{Client, EventView, Former, ServiceView, StarView, Status, Version};
use model::{Bytes, Code, Problem, StarPhase, StarTemplate};
use serde::Serialize;

use super::{jobs, progress};
use crate::cli::{Events, Form, List};
use crate::moment::{clock_time, now};
use crate::place::Place;
use crate::screen::{self, Table};

#[derive(Serialize)]
struct Versions {
    program: &'static str,
    agent: Option<Version>,
}

pub(crate) async fn version(place: &Place, form: Form) -> Result<u8, Problem> {
    let found = match place {
        Place::Folder(folder) => Client::connect(folder).await,
        elsewhere => super::connect(elsewhere).await,
    };
    let agent = match found {
        Ok((_, version)) => Some(version),
        Err(problem) if problem.code == Code::NoAgent => None,
        Err(problem) => return Err(problem),
    };
    let versions = Versions { program: env!("CARGO_PKG_VERSION"), agent };
    if form == Form::Json {
        screen::json(&versions)?;
        return Ok(0);
    }
    screen::line(format!("rads {}", versions.program));
    screen::line(match (versions.agent, place) {
        (Some(agent), Place::Context(name, _)) => format!("agent {} of context `{name}`", agent.version),
        (Some(agent), Place::Folder(_)) => {
            format!("agent {} (pid {}) on {}", agent.version, agent.pid, agent.data_dir)
        }
        (None, Place::Folder(folder)) => format!("no agent on {}", folder.display()),
        (None, Place::Context(name, _)) => format!("no agent of context `{name}`"),
    });
    Ok(0)
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    status: Status,
    services: Vec<ServiceView>,
}

pub(crate) async fn status(client: &Client, form: Form) -> Result<u8, Problem> {
    let status = client.status().await?;
    let services = client.services().await?;
    if form == Form::Json {
        screen::json(&Whole { status, services })?;
        return Ok(0);
    }
    let agent = &status.agent;
    let up = screen::duration(now().since(agent.started));
    screen::line(format!(
        "agent    pid {}, up {up}, {} in use, data in {}",
        agent.pid,
        Bytes(status.agent_memory),
        agent.data_dir
    ));
    if let Some(place) = &status.node.place {
        let duty = if place.duty == model::Duty::Takes { String::new() } else { format!(", {}", place.duty) };
        screen::line(format!(
            "node     `{}` of constellation `{}`, {}{duty}; {} of {} alive",
            place.name,
            place.cluster,
            place.role,
            place.alive,
            screen::count(place.nodes as usize, "node"),
        ));
    }
    if let Some(Former { cluster, name, since }) = &status.former {
        let ago = screen::duration(now().since(*since));
        screen::line(format!(
            "node     none: it was `{name}` of constellation `{cluster}` until it was removed, as it heard {ago} ago"
        ));
    }
    match &status.walls {
        Some(walls) => {
            let as_whom = if walls.rootless { ", rootless" } else { "" };
            screen::line(format!("nursery  pid {}, cgroups {}{as_whom}", walls.nursery_pid, walls.cgroup));
            for (limit, reason) in not_enforced(walls) {
                screen::line(format!("         {limit} limits are not enforced: {reason}"));
            }
            if let Some(reason) = &walls.disk_in_memory {
                screen::line(format!(
                    "         disks of stars are in memory, and sizes of volumes not enforced: {reason}"
                ));
            } else if services.iter().any(|service| has_disk(&service.spec.template)) {
                let how = if walls.disk == "image" { "an image each" } else { "project quota" };
                screen::line(format!("         disks of stars and sizes of volumes: by {how}"));
            }
        }
        None => screen::line("nursery  down; it is started again by itself"),
    }
    for problem in status.node.cut_off.iter().chain(&status.node.problem) {
        screen::line(format!("problem  {problem}"));
    }
    if services.is_empty() {
        screen::line(match status.former {
            Some(_) => "\nno services; `rads c join` joins anew, `rads c leave` forgets that it was removed",
            None => "\nno services; start some with `rads up app.rads`",
        });
        return Ok(0);
    }
    let mut table = Table::new(&["SERVICE", "APP", ">READY", ">RESTARTS", "ADDRESS", "STATE"]);
    for service in &services {
        table.row([
            service.service.to_string(),
            service.app.to_string(),
            format!("{}/{}", service.ready, service.desired),
            service.restarts.to_string(),
            service.address.map(|address| address.to_string()).unwrap_or_else(|| "-".to_owned()),
            state(service),
        ]);
    }
    screen::print(&format!("\n{}", table.render()));
    Ok(0)
}

/// The limits that this machine does not hold, with the reasons.
pub(crate) fn not_enforced(walls: &api::WallsView) -> Vec<(&'static str, &str)> {
    [("cpu", &walls.cpu_not_enforced), ("memory", &walls.memory_not_enforced), ("process", &walls.pids_not_enforced)]
        .into_iter()
        .filter_map(|(limit, reason)| Some((limit, reason.as_deref()?)))
        .collect()
}

/// Says which limits this machine does not hold: those of every star, and those that stars of these templates ask for.
pub(crate) async fn report_walls(client: &Client, asked: &[&StarTemplate]) -> Result<(), Problem> {
    let status = client.status().await?;
    for (limit, reason) in status.walls.iter().flat_map(not_enforced) {
        screen::note(format!("note: {limit} limits are not enforced: {reason}"));
    }
    let asks = |what: fn(&StarTemplate) -> bool| asked.iter().any(|template| what(template));
    let Some(walls) = &status.walls else { return Ok(()) };
    for (limit, reason, asked_for) in [
        ("the processors of stars", &walls.cpus_not_enforced, asks(|template| template.limits.cpus.is_some())),
        ("cpu bursts", &walls.cpu_burst_not_enforced, asks(|template| template.limits.cpu_burst.is_some())),
        ("cpu borrowing", &walls.cpu_borrow_not_enforced, asks(|template| template.limits.cpu_borrow.is_some())),
        ("limits of disk reads and writes", &walls.io_not_enforced, asks(limits_io)),
    ] {
        if let Some(reason) = reason.as_ref().filter(|_| asked_for) {
            screen::note(format!("note: {limit} are not enforced: {reason}"));
        }
    }
    if let Some(left_out) = walls.io_not_limited.as_ref().filter(|_| asks(limits_io)) {
        screen::note(format!("note: {left_out}"));
    }
    if let Some(reason) = &walls.disk_in_memory {
        if asks(|template| template.limits.disk.is_some()) {
            screen::note(format!("note: disks of stars are in memory and count as it: {reason}"));
        }
        if asks(|template| template.volumes.iter().any(|mount| mount.size.is_some())) {
            screen::note(format!("note: sizes of volumes are not enforced: {reason}"));
        }
    }
    Ok(())
}

fn has_disk(template: &StarTemplate) -> bool {
    template.limits.disk.is_some() || template.volumes.iter().any(|mount| mount.size.is_some())
}

fn limits_io(template: &StarTemplate) -> bool {
    template.limits.io_read.is_some() || template.limits.io_write.is_some()
}

/// A service's state in a few words.
pub(super) fn state(service: &ServiceView) -> String {
    if let Some(problem) = service.problem.as_ref().or(service.limit_problem.as_ref()) {
        return problem.to_string();
    }
    if let Some(unready) = &service.unready {
        return format!("unready: {unready}");
    }
    if let Some(state) = jobs::state(service).filter(|_| !service.stopped && !service.paused) {
        return state;
    }
    let version = service.version;
    if let Some(rollout) = service.rollout.as_ref().filter(|_| !service.stopped && !service.paused) {
        match (progress::held(service), rollout.trial) {
            (Some(held), _) => return held,
            (None, Some(tried)) => {
                return format!(
                    "version {version} on trial, {} of {} ready",
                    rollout.ready,
                    screen::count(tried as usize, "star")
                );
            }
            (None, None) if rollout.from.is_some() => {
                return format!(
                    "version {version} on its way, {} of {} ready",
                    rollout.ready,
                    screen::count(service.desired as usize, "star")
                );
            }
            (None, None) => {}
        }
    }
    match service {
        _ if service.stopped => "stopped".to_owned(),
        _ if service.paused && !service.changing => "paused".to_owned(),
        _ if !service.held.is_empty()
            && service.held.len() == service.spec.instances as usize
            && !service.changing
            && service.desired == 0 =>
        {
            "stopped, star by star".to_owned()
        }
        _ if !service.held.is_empty() && service.ready == service.desired && !service.changing => {
            format!("ready, {} stopped", screen::count(service.held.len(), "star"))
        }
        _ if service.spec.hold.is_some_and(|hold| !hold.has_begun(now())) => "not begun".to_owned(),
        // Stars that end by themselves and are not started again.
        _ if service.desired == 0
            && service.spec.instances > 0
            && !service.spec.placement.every_node
            && !service.changing =>
        {
            "ended".to_owned()
        }
        ServiceView { taken_back: Some(taken_back), .. } if service.ready == service.desired && !service.changing => {
            format!("ready; version {} was taken back", taken_back.version)
        }
        _ if service.ready == service.desired && !service.changing => "ready".to_owned(),
        _ => "changing".to_owned(),
    }
}

/// Says why what is shown may be old, if it may, to whoever may know.
pub(super) async fn tell_age(client: &Client, form: Form) {
    if form == Form::Text
        && let Ok(status) = client.status().await
        && let Some(cut_off) = status.node.cut_off
    {
        screen::note(format!("note: {cut_off}"));
    }
}

pub(crate) async fn list(client: &Client, args: List, form: Form) -> Result<u8, Problem> {
    tell_age(client, form).await;
    let mut stars = client.stars().await?;
    stars.retain(|star| args.all || star.phase != StarPhase::Ended);
    if form == Form::Json {
        screen::json(&stars)?;
        return Ok(0);
    }
    // Where there is one machine, nobody asks on which.
    let of_many = stars.iter().any(|star| star.node_name.is_some());
    let titles = ["NAME", "ID", "STATE", ">PID", "AGE", "SERVICE", "NODE"];
    let mut table = Table::new(&titles[..titles.len() - usize::from(!of_many)]);
    let now = now();
    for star in &stars {
        table.row([
            star.name.clone(),
            star.id.to_string(),
            phase(star),
            star.pid.map(|pid| pid.to_string()).unwrap_or_else(|| "-".to_owned()),
            star.since.map(|since| screen::duration(now.since(since))).unwrap_or_else(|| "-".to_owned()),
            star.service.to_string(),
            node(star),
        ]);
    }
    screen::print(&table.render());
    Ok(0)
}

/// The name of the machine that a star is on, where there are several.
pub(super) fn node(star: &StarView) -> String {
    star.node_name.as_ref().map(ToString::to_string).unwrap_or_default()
}

pub(super) fn phase(star: &StarView) -> String {
    match &star.exit {
        Some(exit) if star.phase == StarPhase::Ended => format!("ended: {}", exit.cause),
        _ => match &star.problem {
            Some(problem) if star.phase == StarPhase::Unready => format!("unready: {problem}"),
            _ => star.phase.to_string(),
        },
    }
}

/// Longest wait for new events in one request.
const EVENTS_WAIT_MS: u64 = 30_000;

pub(crate) async fn events(client: &Client, args: Events, form: Form) -> Result<u8, Problem> {
    let since = args.since.map(|since| since.moment(now()));
    let wanted = |event: &&EventView| {
        since.is_none_or(|since| event.wall >= since) && args.name.as_deref().is_none_or(|name| is_about(event, name))
    };
    let mut after = 0;
    let mut wait_ms = 0;
    loop {
        let events = tokio::select! {
            events = client.events(after, wait_ms) => events?,
            _ = tokio::signal::ctrl_c() => return Ok(0),
        };
        let mut any = false;
        for event in events.events.iter().filter(wanted) {
            print_event(event, form);
            any = true;
        }
        if !args.follow {
            if let Some(name) = args.name.as_deref().filter(|_| !any) {
                screen::note(format!("nothing is recorded of `{name}`"));
            }
            return Ok(0);
        }
        (after, wait_ms) = (events.index, EVENTS_WAIT_MS);
    }
}

/// Whether an event is about an app, a service or a star of that name. Those of an app or a service are also those of what
/// is in it.
fn is_about(event: &EventView, name: &str) -> bool {
    let names = [event.app.as_ref().map(ToString::to_string), event.service.as_ref().map(ToString::to_string)];
    names.iter().flatten().any(|known| known == name)
        || event.star.as_deref() == Some(name)
        // What was recorded before events said what they are about says it in words.
        || event.what.contains(&format!("`{name}`"))
}

fn print_event(event: &EventView, form: Form) {
    screen::line(match form {
        // One object a line, so that a program can read on while events come.
        Form::Json => serde_json::to_string(event).unwrap_or_default(),
        Form::Text => format!("{}  {}", clock_time(event.wall), event.what),
    });
}
