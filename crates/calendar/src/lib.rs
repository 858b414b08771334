//! When a schedule is due: cron expressions by the clock of a time zone.
//!
//! Pure: moments come in as what a clock said, and the zones of the world are part of the program, so every machine of a constellation
//! that runs the same version says the same.
//!
//! Where a clock is set forward, a fixed time that it leaves out is due at the first moment after it; one that comes every so
//! often goes on by the new clock. Where it is set back, a fixed time that comes twice is due once, at its first; one that comes every
//! so often is due in both hours.

#![forbid(unsafe_code)]

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use model::{Code, Problem, WallTime};

/// A schedule that has been understood.
#[derive(Debug, Clone)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    /// Reads `minute hour day month weekday`, or `@daily` and its like, by the clock of a zone (`Europe/Berlin`, `UTC`).
    ///
    /// # Errors
    /// It is no cron expression, the zone is not known, or it is never due.
    pub fn new(cron: &str, zone: &str) -> Result<Self, Problem> {
        let parsed = parsed(cron).ok_or_else(|| {
            let message = format!("`{}` is no schedule: {}", cron.escape_debug(), fault(cron));
            Problem::new(Code::InvalidValue, message)
                .help("write minute, hour, day of the month, month and day of the week, such as \"30 4 * * mon-fri\"")
        })?;
        let known = TimeZone::get(zone).map_err(|_| {
            Problem::new(Code::InvalidValue, format!("there is no time zone `{}`", zone.escape_debug()))
                .help("name one of the tz database, such as \"Europe/Berlin\", or \"UTC\"")
        })?;
        let calendar = Self { cron: parsed, zone: known };
        // From some day on, however the leap years lie.
        if calendar.next_after(WallTime(0)).is_none() {
            let message = format!("`{}` is never due: there is no such day", cron.escape_debug());
            return Err(Problem::new(Code::InvalidValue, message).help("look at its day of the month and its month"));
        }
        Ok(calendar)
    }

    /// The first moment after that one at which it is due; `None` beyond what calendars know.
    pub fn next_after(&self, moment: WallTime) -> Option<WallTime> {
        self.cron.find_next_occurrence(&self.zoned(moment)?, false).ok().and_then(|due| wall(&due))
    }

    /// The last moment up to and with that one at which it was due.
    pub fn last_until(&self, moment: WallTime) -> Option<WallTime> {
        self.cron.find_previous_occurrence(&self.zoned(moment)?, true).ok().and_then(|due| wall(&due))
    }

    fn zoned(&self, moment: WallTime) -> Option<Zoned> {
        let stamp = Timestamp::from_millisecond(i64::try_from(moment.0).ok()?).ok()?;
        Some(stamp.to_zoned(self.zone.clone()))
    }
}

fn parsed(cron: &str) -> Option<Cron> {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build().parse(cron).ok()
}

/// The fields of a schedule, each with what may stand there.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, or L for the last"),
    ("month", "1 to 12, or jan to dec"),
    ("day of the week", "0 to 7, or sun to sat"),
];

/// What is wrong with what is no schedule, for whoever wrote it.
fn fault(cron: &str) -> String {
    if cron.trim_start().starts_with('@') {
        return "those with an `@` are `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily` and `@hourly`"
            .to_owned();
    }
    let fields: Vec<&str> = cron.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let count = fields.len();
        return format!("it has {count} {}, not 5", if count == 1 { "field" } else { "fields" });
    }
    // Each in turn, among others that are right.
    let is_wrong = |place: &usize| {
        let alone: Vec<&str> =
            (0..FIELDS.len()).map(|other| if other == *place { fields[other] } else { "*" }).collect();
        parsed(&alone.join(" ")).is_none()
    };
    match (0..FIELDS.len()).find(is_wrong) {
        Some(place) => {
            let (name, may) = FIELDS[place];
            format!("`{}` is no {name} ({may})", fields[place].escape_debug())
        }
        None => "its fields do not go together".to_owned(),
    }
}

/// `2026-12-24 18:00` in universal time, or with how far a place is from it: `2026-12-24T18:00+01:00`.
pub fn moment(text: &str) -> Option<WallTime> {
    let stamp = text.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(local).ok()
    });
    u64::try_from(stamp?.as_millisecond()).ok().map(WallTime)
}

/// As [`moment`] reads it, to the second: `2026-12-24 18:00:00`.
pub fn moment_text(moment: WallTime) -> String {
    let stamp = i64::try_from(moment.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let text = |stamp: Timestamp| stamp.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string();
    stamp.map_or_else(|| "never".to_owned(), text)
}

fn wall(due: &Zoned) -> Option<WallTime> {
    u64::try_from(due.timestamp().as_millisecond()).ok().map(WallTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> WallTime {
        WallTime(text.parse::<Timestamp>().unwrap().as_millisecond() as u64)
    }

    fn text(moment: WallTime) -> String {
        Timestamp::from_millisecond(moment.0 as i64).unwrap().to_string()
    }

    /// The moments at which it is due after a moment.
    fn check(cron: &str, zone: &str, after: &str, due: &[&str]) {
        let calendar = Calendar::new(cron, zone).unwrap();
        let mut moment = at(after);
        let mut found = Vec::new();
        for _ in due {
            moment = calendar.next_after(moment).unwrap();
            assert_eq!(calendar.last_until(moment), Some(moment), "{cron} from {after}");
            found.push(text(moment));
        }
        assert_eq!(found, due, "{cron} in {zone} after {after}");
    }

    #[test]
    fn moments_are_read_in_universal_time_unless_they_say_otherwise() {
        let check = |text: &str, expected: &str| assert_eq!(moment(text).map(moment_text).as_deref(), Some(expected));
        check("2026-12-24 18:00", "2026-12-24 18:00:00");
        check("2026-12-24T18:00:30Z", "2026-12-24 18:00:30");
        check("2026-12-24T18:00+01:00", "2026-12-24 17:00:00");
        check("2026-12-24", "2026-12-24 00:00:00");
        for wrong in ["", "tomorrow", "2026-02-30", "18:00", "1969-12-31", "2026-12-24 25:00"] {
            assert_eq!(moment(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_schedule_is_due_by_the_clock_of_its_zone() {
        check("30 4 * * *", "UTC", "2026-11-26T04:30:00Z", &["2026-11-27T04:30:00Z", "2026-11-28T04:30:00Z"]);
        check("30 4 * * *", "Europe/Berlin", "2026-11-26T00:00:00Z", &["2026-11-26T03:30:00Z"]);
        check("30 4 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", &["2026-07-01T02:30:00Z"]);
        check("@hourly", "UTC", "2026-01-01T00:59:59.999Z", &["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]);
        check("0 9 * * mon-fri", "UTC", "2026-11-27T09:00:00Z", &["2026-11-30T09:00:00Z"]);
        check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn a_clock_that_is_set_forward_leaves_no_day_out() {
        // At 2 o'clock on 29 March 2026 it is 3 in Berlin.
        check("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        let often = ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"];
        check("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", &often);
    }

    #[test]
    fn a_clock_that_is_set_back_has_no_fixed_time_come_twice() {
        // At 3 o'clock on 25 October 2026 it is 2 in Berlin.
        check("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let often = ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"];
        check("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", &often);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let refused = |cron: &str, zone: &str| Calendar::new(cron, zone).unwrap_err().message;
        assert!(refused("0 0 30 2 *", "UTC").contains("never due"));
        assert_eq!(refused("every day", "UTC"), "`every day` is no schedule: it has 2 fields, not 5");
        assert_eq!(refused("", "UTC"), "`` is no schedule: it has 0 fields, not 5");
        assert_eq!(refused("61 * * * *", "UTC"), "`61 * * * *` is no schedule: `61` is no minute (0 to 59)");
        assert!(refused("0 4 * * mno-fri", "UTC").contains("`mno-fri` is no day of the week"));
        assert!(refused("0 4 * 13 *", "UTC").contains("`13` is no month"));
        assert!(refused("@dayly", "UTC").contains("`@daily`"));
        assert!(refused("* * * * * *", "UTC").contains("6 fields"));
        assert!(refused("0 0 * * *", "Mars/Olympus").contains("no time zone"));
    }
}
