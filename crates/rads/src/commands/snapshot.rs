//! Snapshots of what stars wrote: taken, listed, deleted, brought back.

use std::collections::BTreeSet;

use api::{Client, RestoreSnapshot, SnapshotTaken, SnapshotView, TakeSnapshot};
use model::{Bytes, Code, Name, Problem, ServiceKey};

use super::{find, progress};
use crate::cli::{Form, Restore, Snapshot, SnapshotsArgs, SnapshotsCommand};
use crate::moment::clock_time;
use crate::screen::{self, Table};

pub(crate) async fn take(client: &Client, args: Snapshot, form: Form) -> Result<u8, Problem> {
    let service = service_of(client, &args.name).await?;
    let taken = client.take_snapshot(&service, &TakeSnapshot { name: args.called, memory: args.memory }).await?;
    if form == Form::Json {
        screen::json(&taken)?;
        return Ok(0);
    }
    let SnapshotTaken { snapshot, added_bytes, stars, still_ms } = taken;
    let still = match stars {
        0 => String::new(),
        _ => format!("; {} stood still for {still_ms} ms", screen::count(stars as usize, "star")),
    };
    let (files, bytes) = sums(&snapshot);
    let left = match left_out(&snapshot) {
        0 => String::new(),
        left => format!("; {} left out", screen::count(left as usize, "socket")),
    };
    let mut kept = Vec::new();
    if !snapshot.volumes.is_empty() || !snapshot.stars.is_empty() {
        kept.push(format!("{files}, {}, {} of it new{left}", Bytes(bytes), Bytes(added_bytes)));
    }
    kept.extend(snapshot.memory.map(|memory| format!("the memory of {}, {}", memory.star, Bytes(memory.bytes))));
    screen::line(format!("{}: {}{still}", snapshot.name, kept.join("; ")));
    Ok(0)
}

pub(crate) async fn list(client: &Client, args: SnapshotsArgs, form: Form) -> Result<u8, Problem> {
    if let Some(SnapshotsCommand::Delete { snapshot }) = args.command {
        client.delete_snapshot(&snapshot).await?;
        match form {
            Form::Json => screen::json(&snapshot)?,
            Form::Text => screen::line(format!("{snapshot}: deleted")),
        }
        return Ok(0);
    }
    let snapshots = client.snapshots().await?;
    if form == Form::Json {
        screen::json(&snapshots)?;
        return Ok(0);
    }
    if snapshots.is_empty() {
        screen::line("no snapshots; take one with `rads c snapshot SERVICE`");
        return Ok(0);
    }
    let mut table = Table::new(&["SNAPSHOT", "SERVICE", "TAKEN", "VOLUMES", ">STARS", ">FILES", ">SIZE", ">MEMORY"]);
    for snapshot in &snapshots {
        let volumes: Vec<&str> = snapshot.volumes.iter().map(|volume| volume.volume.as_str()).collect();
        table.row([
            snapshot.name.to_string(),
            snapshot.service.to_string(),
            clock_time(snapshot.taken),
            if volumes.is_empty() { "-".to_owned() } else { volumes.join(", ") },
            snapshot.stars.len().to_string(),
            held(snapshot).map(|(files, ..)| files).sum::<u64>().to_string(),
            Bytes(sums(snapshot).1).to_string(),
            snapshot.memory.as_ref().map_or_else(|| "-".to_owned(), |memory| Bytes(memory.bytes).to_string()),
        ]);
    }
    screen::print(&table.render());
    Ok(0)
}

/// Stops whoever uses the volumes, has them exchanged, and lets those go on that ran.
pub(crate) async fn restore(client: &Client, args: Restore, form: Form) -> Result<u8, Problem> {
    let wanted = client.snapshot(&args.snapshot).await?;
    let service = args.name.as_deref().map(find::service).transpose()?;
    let target = service.clone().unwrap_or_else(|| wanted.service.clone());
    client.service(&target).await?;
    let volumes: BTreeSet<&Name> = wanted.volumes.iter().map(|volume| &volume.volume).collect();
    let services = client.services().await?;
    let uses = |view: &&api::ServiceView| {
        let mounts = &view.spec.template.volumes;
        let shares = mounts.iter().any(|mount| volumes.contains(&mount.volume));
        (view.service == target && (wanted.memory.is_some() || !wanted.stars.is_empty()))
            || (view.service.namespace == target.namespace && shares)
    };
    let users: Vec<_> = services.iter().filter(uses).filter(|view| !view.stopped).collect();
    // Before anybody is stopped for it.
    let starts_again = users.iter().map(|view| view.service.clone()).collect();
    let check = RestoreSnapshot { service: service.clone(), check: true, starts_again };
    client.restore_snapshot(&args.snapshot, &check).await?;
    let mut stopped = Vec::new();
    let mut outcome = Ok(());
    for view in &users {
        outcome = stop(client, &view.service).await;
        stopped.push(view);
        if outcome.is_err() {
            break;
        }
    }
    let restored = match outcome {
        Ok(()) => client.restore_snapshot(&args.snapshot, &RestoreSnapshot { service, ..Default::default() }).await,
        Err(problem) => Err(problem),
    };
    // Whatever came of it, what ran runs again.
    for view in stopped {
        let started = client.start(&view.service).await;
        let paused = if view.paused { client.pause(&view.service).await.map(drop) } else { Ok(()) };
        if let Err(problem) = started.map(drop).and(paused)
            && restored.is_ok()
        {
            return Err(problem.after_changes());
        }
    }
    let restored = restored?;
    for view in &users {
        progress::settled(client, &view.service, u64::MAX).await.map_err(Problem::after_changes)?;
    }
    if form == Form::Json {
        screen::json(&restored)?;
        return Ok(0);
    }
    let (files, bytes) = sums(&restored);
    let mut names: Vec<String> = restored.volumes.iter().map(|volume| volume.volume.to_string()).collect();
    if !restored.stars.is_empty() {
        names.push(screen::count(restored.stars.len(), "star"));
    }
    if !names.is_empty() {
        screen::line(format!("{}: {files}, {} restored to {}", restored.name, Bytes(bytes), names.join(", ")));
    }
    if let Some(memory) = &restored.memory {
        screen::line(format!("{}: {target} goes on from the memory of {}", restored.name, memory.star));
    }
    for view in users {
        let now = client.service(&view.service).await?;
        screen::line(format!("{}: {} ready", now.service, screen::count(now.ready as usize, "star")));
    }
    Ok(0)
}

async fn stop(client: &Client, service: &ServiceKey) -> Result<(), Problem> {
    client.stop(service).await?;
    progress::settled(client, service, u64::MAX).await.map(drop)
}

/// A service by its name or by that of one of its stars.
async fn service_of(client: &Client, name: &str) -> Result<ServiceKey, Problem> {
    let service = find::service(name)?;
    if client.services().await?.iter().any(|view| view.service == service) {
        return Ok(service);
    }
    let star = client.stars().await?.into_iter().find(|star| star.name == name || star.id.to_string() == name);
    star.map(|star| star.service).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("no service or star `{name}`")).help("`rads c status` lists what there is")
    })
}

/// How many files, in words, and bytes.
fn sums(snapshot: &SnapshotView) -> (String, u64) {
    let files: u64 = held(snapshot).map(|(files, ..)| files).sum();
    (screen::count(files as usize, "file"), held(snapshot).map(|(_, bytes, _)| bytes).sum())
}

fn left_out(snapshot: &SnapshotView) -> u64 {
    held(snapshot).map(|(.., left_out)| left_out).sum()
}

/// Files, bytes and what was left out, place by place.
fn held(snapshot: &SnapshotView) -> impl Iterator<Item = (u64, u64, u64)> {
    let own = snapshot.stars.iter().flat_map(|star| &star.places);
    let own = own.map(|place| (place.files, place.bytes, place.left_out));
    snapshot.volumes.iter().map(|volume| (volume.files, volume.bytes, volume.left_out)).chain(own)
}
