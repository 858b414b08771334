//! Timers: when the job of their service runs, as far as a clock says it.

use model::{Missed, Overlap};

use super::all;
use crate::draft::{Job, Schedule};
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::Node;
use crate::units;

/// When it runs and in what manner, told line by line; or why no schedule says it.
pub(super) fn read(ledger: &mut Ledger, roots: &[Node]) -> Result<Job, String> {
    let schedule = schedule(roots)?;
    let monotonic = schedule.every.is_some();
    let is_said = |key: &str| all(roots, "Timer", key).last().is_some_and(|node| node.is_true());
    let missed = if is_said("Persistent") || monotonic { Missed::Once } else { Missed::Skip };
    for (section, lines) in roots.iter().flat_map(Node::entries) {
        for (key, node) in lines.entries() {
            line(ledger, section, key, node, &schedule);
        }
    }
    Ok(Job { schedule: Some(schedule.schedule.with(Overlap::Skip, missed)), ..Job::default() })
}

/// What the lines of a timer come to.
struct Found {
    schedule: Schedule,
    /// The line that says how often, when no line says at which times.
    every: Option<usize>,
    /// Whether a line names a zone.
    has_zone: bool,
}

fn schedule(roots: &[Node]) -> Result<Found, String> {
    let times = all(roots, "Timer", "OnCalendar");
    let mut crons = Vec::new();
    let mut zone = None;
    for node in &times {
        let text = node.scalar().unwrap_or_default();
        let (cron, own) = cron_of(text).ok_or_else(|| format!("no cron schedule says `{text}`"))?;
        if zone.as_ref().is_some_and(|zone| *zone != own) {
            return Err("its times are by several clocks, and a schedule goes by one".to_owned());
        }
        zone = Some(own);
        crons.push(cron);
    }
    let zone = zone.flatten();
    if let Some(cron) = Schedule::joined(&crons) {
        let schedule = Schedule::new(&cron, zone.as_deref())?;
        return Ok(Found { schedule, every: None, has_zone: zone.is_some() });
    }
    if !crons.is_empty() {
        return Err("its times do not fit one schedule".to_owned());
    }
    let every =
        ["OnUnitActiveSec", "OnUnitInactiveSec"].into_iter().find_map(|key| all(roots, "Timer", key).last().copied());
    let ms = every.and_then(|node| units::systemd_ms(node.scalar()?));
    let cron = ms.and_then(every_so_often);
    match (every, cron) {
        (Some(node), Some(cron)) => {
            Ok(Found { schedule: Schedule::new(&cron, None)?, every: Some(node.id), has_zone: false })
        }
        _ => Err("a job runs by the clock, not so long after its machine or its last run began".to_owned()),
    }
}

/// So often as a cron expression, where the clock can say it.
fn every_so_often(ms: u64) -> Option<String> {
    let minutes = ms / 60_000;
    match (ms % 60_000, minutes) {
        (0, 1) => Some("* * * * *".to_owned()),
        (0, minutes @ 2..=30) if 60 % minutes == 0 => Some(format!("*/{minutes} * * * *")),
        (0, 60) => Some("0 * * * *".to_owned()),
        (0, minutes @ 61..1_440) if minutes % 60 == 0 && 1_440 % minutes == 0 => {
            Some(format!("0 */{} * * *", minutes / 60))
        }
        (0, 1_440) => Some("0 0 * * *".to_owned()),
        (0, 10_080) => Some("0 0 * * 1".to_owned()),
        _ => None,
    }
}

fn line(ledger: &mut Ledger, section: &str, key: &str, node: &Node, found: &Found) {
    let cron = found.schedule.cron();
    match (section, key) {
        _ if node.scalar() == Some("") => ledger.carried(node, "what was said before it does not hold"),
        ("Timer", "OnCalendar") if found.has_zone || found.schedule.is_hourly() => {
            ledger.carried(node, format!("schedule: \"{cron}\""));
        }
        ("Timer", "OnCalendar") => ledger.changed(
            node,
            format!("schedule: \"{cron}\", by the clock of UTC")
                .help("zone: \"Europe/Berlin\" and the like say whose clock"),
        ),
        ("Timer", _) if found.every == Some(node.id) => {
            ledger.changed(node, format!("schedule: \"{cron}\": as often, at times of the clock"));
        }
        ("Timer", "OnBootSec" | "OnStartupSec" | "OnActiveSec" | "OnUnitActiveSec" | "OnUnitInactiveSec") => {
            ledger.left(node, "a job runs by the clock, not so long after something else began");
        }
        ("Timer", "Persistent") => match node.is_true() {
            true => ledger.carried(node, "a run that was missed begins late"),
            false => ledger.carried(node, "missed: \"skip\""),
        },
        ("Timer", "Unit") => ledger.carried(node, "the job's service"),
        ("Timer", "AccuracySec") => ledger.carried(node, "a run begins at its moment"),
        ("Timer", "RandomizedDelaySec" | "FixedRandomDelay" | "RandomizedOffsetSec") => {
            ledger.left(node, "a run begins at its moment, whatever else does".help("give jobs moments of their own"));
        }
        ("Timer", "RemainAfterElapse" | "DeferReactivation") => ledger.carried(node, "a schedule goes on"),
        ("Timer", "WakeSystem" | "OnClockChange" | "OnTimezoneChange") => {
            ledger.left(node, "a job runs by the clock of its zone, wherever it runs");
        }
        ("Install", "WantedBy" | "RequiredBy") => ledger.carried(node, "a job of an app that is up has its schedule"),
        ("Unit", "Description") => ledger.carried(node, "the job's schedule says it"),
        ("Unit", "Documentation") => ledger.left(node, "an app has comments"),
        ("Unit", _) => ledger.left(node, "a job runs by its schedule alone".help("`after` names jobs of the same app")),
        _ => ledger.left(node, "a schedule has nothing like it"),
    }
}

/// `Mon..Fri *-*-* 02:30:00 UTC` as a cron expression and the zone it names; nothing for what none says.
fn cron_of(text: &str) -> Option<(String, Option<String>)> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let is_zone =
        |word: &str| Schedule::new("@daily", Some(word)).is_ok() && word.chars().any(|c| c.is_ascii_alphabetic());
    let zone = words.last().copied().filter(|word| words.len() > 1 && is_zone(word) || matches!(*word, "UTC"));
    if zone.is_some() {
        words.pop();
    }
    let named = match words[..] {
        ["minutely"] => Some("* * * * *"),
        ["hourly"] => Some("0 * * * *"),
        ["daily" | "midnight"] => Some("0 0 * * *"),
        ["weekly"] => Some("0 0 * * 1"),
        ["monthly"] => Some("0 0 1 * *"),
        ["quarterly"] => Some("0 0 1 1,4,7,10 *"),
        ["semiannually"] => Some("0 0 1 1,7 *"),
        ["yearly" | "annually"] => Some("0 0 1 1 *"),
        _ => None,
    };
    let zone = zone.map(str::to_owned);
    if let Some(named) = named {
        return Some((named.to_owned(), zone));
    }
    if words.is_empty() {
        return None;
    }
    let (mut week, mut date, mut time) = (None, None, None);
    for word in words {
        let place = match (word.contains(':'), word.starts_with(|c: char| c.is_ascii_alphabetic())) {
            (true, _) => &mut time,
            (false, true) => &mut week,
            (false, false) => &mut date,
        };
        if place.replace(word).is_some() {
            return None;
        }
    }
    let week = match week {
        Some(days) => weekdays(days)?,
        None => "*".to_owned(),
    };
    let (day, month) = match date {
        Some(date) => days(date)?,
        None => ("*".to_owned(), "*".to_owned()),
    };
    // By systemd both have to hold, by cron one of them.
    if week != "*" && day != "*" {
        return None;
    }
    let (minute, hour) = match time {
        Some(time) => hours(time)?,
        None => ("0".to_owned(), "0".to_owned()),
    };
    Some((format!("{minute} {hour} {day} {month} {week}"), zone))
}

/// `Mon..Fri`, `Sat,Sun`.
fn weekdays(text: &str) -> Option<String> {
    let day = |name: &str| -> Option<String> {
        let short: String = name.chars().take(3).collect::<String>().to_ascii_lowercase();
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].contains(&short.as_str()).then_some(short)
    };
    let part = |part: &str| match part.split_once("..").or_else(|| part.split_once('-')) {
        Some((from, to)) => Some(format!("{}-{}", day(from)?, day(to)?)),
        None => day(part),
    };
    let parts: Option<Vec<String>> = text.trim_end_matches(',').split(',').map(part).collect();
    Some(parts?.join(","))
}

/// `*-*-01`, `12-24`: the day and the month of every year.
fn days(text: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = text.split('-').collect();
    let (month, day) = match parts[..] {
        ["*", month, day] => (month, day),
        [month, day] => (month, day),
        _ => return None,
    };
    Some((field(day, 1, 31)?, field(month, 1, 12)?))
}

/// `02:30`, `*:0/15:00`: minutes and hours, at second 0.
fn hours(text: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = text.split(':').collect();
    let (hour, minute) = match parts[..] {
        [hour, minute] | [hour, minute, "0" | "00"] => (hour, minute),
        _ => return None,
    };
    Some((field(minute, 0, 59)?, field(hour, 0, 23)?))
}

/// `*`, `1,3`, `8..17`, `0/15` within bounds.
fn field(text: &str, least: u32, most: u32) -> Option<String> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| (least..=most).contains(number));
    let part = |part: &str| -> Option<String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let range = match (range, step) {
            ("*", _) => "*".to_owned(),
            (range, step) => match (range.split_once(".."), step) {
                (Some((from, to)), _) => format!("{}-{}", number(from)?, number(to)?),
                (None, None) => number(range)?.to_string(),
                (None, Some(_)) if number(range)? == least => "*".to_owned(),
                (None, Some(_)) => format!("{}-{most}", number(range)?),
            },
        };
        Some(step.map_or_else(|| range.clone(), |step| format!("{range}/{step}")))
    };
    let parts: Option<Vec<String>> = text.split(',').map(part).collect();
    Some(parts?.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_calendar_are_cron_expressions_where_they_can_be() {
        let check = |text: &str, cron: Option<&str>, zone: Option<&str>| {
            let expected = cron.map(|cron| (cron.to_owned(), zone.map(str::to_owned)));
            assert_eq!(cron_of(text), expected, "{text}");
            if let Some((cron, zone)) = expected {
                assert!(Schedule::new(&cron, zone.as_deref()).is_ok(), "{text}");
            }
        };
        check("daily", Some("0 0 * * *"), None);
        check("weekly UTC", Some("0 0 * * 1"), Some("UTC"));
        check("*-*-* 02:30:00", Some("30 2 * * *"), None);
        check("Mon..Fri *-*-* 10:00 Europe/Berlin", Some("0 10 * * mon-fri"), Some("Europe/Berlin"));
        check("Sat,Sun 03:10", Some("10 3 * * sat,sun"), None);
        check("*:0/15", Some("*/15 * * * *"), None);
        check("00/3:00", Some("0 */3 * * *"), None);
        check("*-*-* 5/2:05:00", Some("5 5-23/2 * * *"), None);
        check("*-*-* 6,18:00", Some("0 6,18 * * *"), None);
        check("*-01,07-01 00:00:00", Some("0 0 1 1,7 *"), None);
        check("01:00:00 UTC", Some("0 1 * * *"), Some("UTC"));
        check("*-*-1..7 4:00", Some("0 4 1-7 * *"), None);
        for none in ["Mon *-*-1..7 4:00", "2026-01-01", "*:*:00/10", "*-*~1", "*-*-* 25:00", "whenever", ""] {
            check(none, None, None);
        }
    }

    #[test]
    fn so_often_is_a_schedule_where_the_clock_has_it() {
        let check = |minutes: u64, cron: Option<&str>| assert_eq!(every_so_often(minutes * 60_000).as_deref(), cron);
        check(1, Some("* * * * *"));
        check(15, Some("*/15 * * * *"));
        check(60, Some("0 * * * *"));
        check(360, Some("0 */6 * * *"));
        check(1_440, Some("0 0 * * *"));
        check(7, None);
        check(0, None);
        assert_eq!(every_so_often(90_500), None);
    }
}
