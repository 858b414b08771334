//! Moments as people read and write them, in universal time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::WallTime;

const DAY_SECONDS: u64 = 86_400;

pub(crate) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `2026-11-23 14:05:09`.
pub(crate) fn clock_time(wall: WallTime) -> String {
    let seconds = wall.0 / 1000;
    let (mut day, time) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let mut year = 1970;
    while day >= year_days(year) {
        day -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    for length in month_days(year) {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}", day + 1)
}

/// What is asked for with `--since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    At(WallTime),
}

impl Since {
    pub(crate) fn moment(self, now: WallTime) -> WallTime {
        match self {
            Self::Ago(ago) => WallTime(now.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))),
            Self::At(at) => at,
        }
    }
}

/// `90s`, `10m`, `2h`, `7d`, or a moment as `rads` prints it, to the day, the minute or the second; a `T` and a `Z` are welcome.
pub(crate) fn since(text: &str) -> Result<Since, String> {
    let wrong = || "neither a time ago like `10m` nor a moment like `2026-11-23 14:05`, in universal time".to_owned();
    let ago = duration(text).ok().map(Since::Ago);
    ago.or_else(|| at(text).map(Since::At)).ok_or_else(wrong)
}

/// `90s`, `10m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => DAY_SECONDS,
            _ => return None,
        };
        Some(Duration::from_secs(number.parse::<u64>().ok()?.saturating_mul(unit)))
    };
    parsed().ok_or_else(|| "a time is written as in `90s`, `10m`, `2h` or `7d`".to_owned())
}

fn at(text: &str) -> Option<WallTime> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let numbers =
        |text: &str, separator| text.split(separator).map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>();
    let &[year @ 1970..=9999, month @ 1..=12, day] = numbers(date, '-')?.as_slice() else { return None };
    let (hour, minute, second) = match numbers(time, ':')?[..] {
        [hour @ 0..24, minute @ 0..60] => (hour, minute, 0),
        [hour @ 0..24, minute @ 0..60, second @ 0..60] => (hour, minute, second),
        _ => return None,
    };
    let months = month_days(year);
    if !(1..=months[month as usize - 1]).contains(&day) {
        return None;
    }
    let days = (1970..year).map(year_days).sum::<u64>() + months[..month as usize - 1].iter().sum::<u64>() + day - 1;
    Some(WallTime((days * DAY_SECONDS + hour * 3_600 + minute * 60 + second) * 1000))
}

fn year_days(year: u64) -> u64 {
    month_days(year).into_iter().sum()
}

fn month_days(year: u64) -> [u64; 12] {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_calendar_and_clock_and_back() {
        let check = |ms: u64, expected: &str| {
            assert_eq!(clock_time(WallTime(ms)), expected);
            assert_eq!(since(expected), Ok(Since::At(WallTime(ms / 1000 * 1000))));
        };
        check(0, "1970-01-01 00:00:00");
        check(951_782_400_000, "2000-02-29 00:00:00");
        check(1_709_251_199_999, "2024-02-29 23:59:59");
        check(4_102_444_799_000, "2099-12-31 23:59:59");
    }

    #[test]
    fn what_people_type_is_understood_or_refused() {
        let check = |text: &str, ago| assert_eq!(since(text), Ok(Since::Ago(Duration::from_secs(ago))), "{text}");
        check("90s", 90);
        check("10m", 600);
        check("2h", 7_200);
        check("7d", 604_800);
        for text in ["2026-11-23T14:05:09Z", "2026-11-23 14:05:09"] {
            assert_eq!(since(text), Ok(Since::At(WallTime(1_795_442_709_000))), "{text}");
        }
        assert_eq!(since("2026-11-23"), since("2026-11-23 00:00"));
        for text in [
            "",
            "m",
            "-5m",
            "10",
            "10 m",
            "ä",
            "2026-13-01",
            "2026-02-29",
            "2026-11-23 25:00",
            "2026-11-23 1",
            "1969-12-31",
        ] {
            assert!(since(text).is_err(), "{text}");
        }
        assert_eq!(Since::Ago(Duration::MAX).moment(WallTime(5)), WallTime(0));
    }
}
