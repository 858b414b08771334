//! `sleep` and `async_utils`: waiting, and running several things at a time. What the language can say itself is written
//! in it.

use std::time::Duration;

use rads_vm::{Params, Value};
use tokio::time::sleep as timer;

use crate::library::{Action, Entry, Host, host, make};

pub(crate) const ENTRIES: &[Entry] =
    &[host("", "sleep", Params::exactly(1), sleep), host("async_utils", "within", Params::exactly(2), within)];

/// Callbacks named `done` are for programs from before `await`; all of these give their result too.
pub(crate) const PRELUDE: &str = r#"
blast async_utils__parallel(jobs, done) {
    turbo running = [];
    cruise (job in jobs) { running.push(spawn job()); }
    turbo results = [];
    cruise (task in running) { results.push(await task); }
    if (done != null) { done(results); }
    return results;
}

blast async_utils__series(jobs, done) {
    turbo results = [];
    cruise (job in jobs) { results.push(job()); }
    if (done != null) { done(results); }
    return results;
}

blast async_utils__each(items, visit, done) {
    turbo running = [];
    cruise (item in items) { running.push(spawn visit(item)); }
    cruise (task in running) { await task; }
    if (done != null) { done(items); }
    return items;
}

blast async_utils__retry(job, count, done) {
    turbo pause = 100;
    turbo left = count ?? 3;
    loop (true) {
        left = left - 1;
        try {
            turbo result = job();
            if (done != null) { done(result); }
            return result;
        } catch (e) {
            if (left <= 0) { throw e; }
        }
        sleep(pause);
        pause = math.min(pause * 2, 10000);
    }
}

blast async_utils__timeout(job, ms, done) {
    turbo result = async_utils.within(ms, job);
    if (done != null) { done(result); }
    return result;
}

blast async_utils__delay(ms, done) {
    sleep(ms);
    if (done != null) { return done(); }
    return null;
}

blast log__info(message, fields) { log.line("info", message, json.stringify(fields ?? {})); }
blast log__warn(message, fields) { log.line("warn", message, json.stringify(fields ?? {})); }
blast log__error(message, fields) { log.line("error", message, json.stringify(fields ?? {})); }

blast net__json_response(value, status) {
    return { status: status ?? 200, type: "application/json", body: json.stringify(value) };
}
"#;

/// Suspends the task for so many milliseconds.
fn sleep(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let duration = milliseconds(host, args, 0)?;
    Ok(Action::Later(Box::pin(async move {
        timer(duration).await;
        make(|_| Ok(Value::Null))
    })))
}

/// Calls a blast; throws an error of kind `timeout` when it is not done in time, and cancels it.
fn within(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let limit = milliseconds(host, args, 0)?;
    let job = host.cx().arg_callable(args, 1, "job")?;
    host.machine.race(host.vm, host.task, job, limit)?;
    Ok(Action::Elsewhere)
}

fn milliseconds(host: &mut Host<'_>, args: &[Value], n: usize) -> Result<Duration, Value> {
    let mut cx = host.cx();
    let ms = cx.arg_number(args, n, "milliseconds")?;
    // A year and more is a mistake in the unit.
    if !(0.0..=31.6e9).contains(&ms) {
        return Err(cx.error("value", "`milliseconds` must lie between 0 and a year"));
    }
    Ok(Duration::from_secs_f64(ms / 1000.0))
}
