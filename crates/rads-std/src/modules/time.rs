//! `time`: the clocks.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rads_vm::{Cx, Params, Value};
use rustix::time::{ClockId, clock_gettime};

use crate::library::{Entry, inline};
use crate::web::date;

pub(crate) const ENTRIES: &[Entry] = &[
    inline("time", "now", Params::exactly(0), now),
    inline("time", "now_ms", Params::exactly(0), now_ms),
    inline("time", "monotonic_ms", Params::exactly(0), monotonic_ms),
    inline("time", "monotonic_ns", Params::exactly(0), monotonic_ns),
    inline("time", "iso", Params::between(0, 1), iso),
];

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Seconds since 1970 with a fraction.
fn now(_: &mut Cx<'_>, _: &[Value]) -> Result<Value, Value> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Value::Float(since.as_secs_f64()))
}

fn now_ms(_: &mut Cx<'_>, _: &[Value]) -> Result<Value, Value> {
    Ok(Value::Int(wall_ms()))
}

/// Milliseconds with a fraction since some moment of this process; never goes back, so it measures durations.
fn monotonic_ms(_: &mut Cx<'_>, _: &[Value]) -> Result<Value, Value> {
    static START: OnceLock<Instant> = OnceLock::new();
    Ok(Value::Float(START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1000.0))
}

/// Nanoseconds of the machine's monotonic clock (`CLOCK_MONOTONIC`), which every process reads alike: moments of two
/// programs on one machine can be compared.
fn monotonic_ns(_: &mut Cx<'_>, _: &[Value]) -> Result<Value, Value> {
    let now = clock_gettime(ClockId::Monotonic);
    Ok(Value::Int(now.tv_sec * 1_000_000_000 + now.tv_nsec))
}

/// `2026-01-31T12:00:00.000Z` of the given milliseconds since 1970, or of now.
fn iso(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let ms = if cx.arg(args, 0).is_null() { wall_ms() } else { cx.arg_int(args, 0, "milliseconds")? };
    if !(-62_135_596_800_000..=253_402_300_799_999).contains(&ms) {
        return Err(cx.error("value", "`milliseconds` lies outside of the years 1 to 9999"));
    }
    Ok(cx.string(date::iso(ms)))
}
