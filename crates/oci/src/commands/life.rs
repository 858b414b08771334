//! Turns in a container's life after its creation.

use std::time::Duration;

use isolate::container::{self, NotStarted, Stage, hook};

use super::Context;
use super::create::{expect, judged_again};
use crate::cli;
use crate::signal;
use crate::store::{Folder, Record, Status};

/// How long what was killed may take to end.
const END_MAX: Duration = Duration::from_secs(10);
/// How long `kill` waits for what it killed. A frozen process ends when it is thawed.
const KILLED_MAX: Duration = Duration::from_secs(1);
const SIGKILL: i32 = 9;

pub(crate) fn start(context: &Context<'_>, id: &str) -> Result<(), String> {
    let folder = context.store.find(id)?;
    folder.lock()?;
    start_locked(context, &folder)
}

pub(crate) fn start_locked(context: &Context<'_>, folder: &Folder) -> Result<(), String> {
    let record = folder.load()?;
    let (status, pid) = folder.status(&record);
    expect(status, &[Status::Created], &record.id, "started")?;
    let hooks = judged_again(folder, &record)?.hooks;
    let failed = match container::start(folder.knock()?) {
        Ok(()) => None,
        Err(NotStarted::Program(reason)) => {
            await_end(&record);
            return Err(reason);
        }
        Err(NotStarted::Hook(reason)) => Some(reason),
    };
    folder.close_door();
    context.journal.debug(&format!("container `{}` is started", record.id));
    let state = record.state(Status::Running, pid).to_string().into_bytes();
    // Other runtimes do not wait for a container's own hooks and run these whatever becomes of those; suites expect it.
    for one in &hooks.poststart {
        if let Err(reason) = hook::run(one, &state) {
            kill_all(&record)?;
            return Err(format!("hook poststart: {reason}; the container was stopped"));
        }
    }
    let Some(reason) = failed else { return Ok(()) };
    await_end(&record);
    Err(reason)
}

/// A container that could not be started is stopped to whoever asks next, not still on its way there.
fn await_end(record: &Record) {
    if let Some(process) = record.pid().and_then(container::Process::open) {
        process.ends_within(KILLED_MAX);
    }
}

pub(crate) fn kill(context: &Context<'_>, args: &cli::Kill) -> Result<(), String> {
    let signal = signal::parse(&args.signal)?;
    let folder = context.store.find(&args.id)?;
    let record = folder.load()?;
    let (status, pid) = folder.status(&record);
    if args.all && status == Status::Stopped && record.groups.pids().is_ok_and(|pids| !pids.is_empty()) {
        // Without a process namespace of its own it may have outlived its first process.
        return record.groups.signal(signal);
    }
    expect(status, &[Status::Created, Status::Running, Status::Paused], &args.id, "signalled")?;
    if args.all {
        return record.groups.signal(signal);
    }
    let gone = || format!("container `{}` is stopped and cannot be signalled", args.id);
    let process = pid.and_then(container::Process::open).ok_or_else(gone)?;
    // By a descriptor, and looked at again: meanwhile the number may be another's.
    if record.pid().is_none() {
        return Err(gone());
    }
    process.signal(signal).map_err(|error| format!("cannot signal container `{}`: {error}", args.id))?;
    if signal == SIGKILL {
        // Nothing stops it any more: whoever asks next finds it stopped, unless the kernel is slow about it.
        process.ends_within(KILLED_MAX);
    }
    Ok(())
}

pub(crate) fn delete(context: &Context<'_>, args: &cli::Delete) -> Result<(), String> {
    let folder = match context.store.find(&args.id) {
        Err(_) if args.force && crate::plan::check_id(&args.id).is_ok() => return Ok(()),
        other => other?,
    };
    folder.lock()?;
    delete_locked(context, &folder, args.force)
}

pub(crate) fn delete_locked(context: &Context<'_>, folder: &Folder, force: bool) -> Result<(), String> {
    let record = match folder.load() {
        Ok(record) => record,
        // Its creator was killed before it wrote anything down: there is nothing to take back.
        Err(_) if force => return folder.remove(),
        Err(reason) => return Err(reason),
    };
    // Under the lock nobody is creating it any more.
    let (status, pid) = folder.status(&Record { whole: true, ..record.clone() });
    match (status, force) {
        (Status::Stopped, _) => {}
        // Its program has not run, so nothing is lost. The specification would have it stopped first; engines and the
        // other runtimes delete it.
        (Status::Created, false) => kill_all(&record)?,
        (_, false) if record.whole => {
            expect(status, &[Status::Stopped], &record.id, "deleted (`--force` ends it first)")?;
        }
        _ => kill_all(&record)?,
    }
    if let Some(pid) = pid {
        // Only a child can be taken; others are their parents' affair.
        let _ = container::reap_child(pid, false);
    }
    record.groups.remove()?;
    container::release_root(&record.root, record.shared_mount);
    let hooks = judged_again(folder, &record).map(|judged| judged.hooks.poststop);
    folder.remove()?;
    let state = record.state(Stage::Stopped.into(), None).to_string().into_bytes();
    for one in hooks.unwrap_or_default() {
        // As the specification has it: told, and no reason to stop.
        if let Err(reason) = hook::run(&one, &state) {
            context.journal.warn(&format!("hook poststop: {reason}"));
        }
    }
    Ok(())
}

/// Ends every process of a container and waits for it.
fn kill_all(record: &Record) -> Result<(), String> {
    if let Some(process) = record.pid().and_then(container::Process::open) {
        if record.groups.is_frozen() {
            record.groups.freeze(false)?;
        }
        process.signal(SIGKILL).map_err(|error| format!("cannot kill container `{}`: {error}", record.id))?;
        if !process.ends_within(END_MAX) {
            return Err(format!("container `{}` does not end", record.id));
        }
    }
    record.groups.kill()
}

pub(crate) fn freeze(context: &Context<'_>, id: &str, frozen: bool) -> Result<(), String> {
    let folder = context.store.find(id)?;
    folder.lock()?;
    let record = folder.load()?;
    let (status, _) = folder.status(&record);
    match frozen {
        true => expect(status, &[Status::Created, Status::Running], id, "paused")?,
        false => expect(status, &[Status::Paused], id, "resumed")?,
    }
    if record.groups.is_empty() {
        return Err(format!("container `{id}` has no cgroup to be halted in"));
    }
    record.groups.freeze(frozen)
}
