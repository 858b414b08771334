//! A service that runs nothing and holds places: a reservation.

use model::{Code, Hold, Problem, WallTime};

use super::{Options, Read};
use crate::setting::Setting;

const HOLD_OPTIONS: [&str; 2] = ["from", "until"];

/// `hold: true`, or from when until when.
pub(super) fn hold(options: &mut Options) -> Read<Option<Hold>> {
    let settings = match options.take("hold") {
        None | Some(Setting::Bool(false)) => return Ok(None),
        Some(Setting::Bool(true)) => return Ok(Some(Hold::default())),
        Some(Setting::Map(settings)) => settings,
        Some(other) => {
            let example = "`true`, or an object such as {from: \"2026-12-24 18:00\", until: \"2026-12-26 06:00\"}";
            return Err(options.wrong("hold", example, &other));
        }
    };
    let own = &mut Options::new(settings, &HOLD_OPTIONS, &["hold"])?;
    Ok(Some(Hold { from: moment(own, "from")?, until: moment(own, "until")? }))
}

/// A moment in words, in universal time unless it says otherwise; or in seconds since 1970, as `time.now()` gives it.
fn moment(own: &mut Options, name: &str) -> Read<Option<WallTime>> {
    const EXAMPLE: &str = "a moment such as \"2026-12-24 18:00\" or \"2026-12-24T18:00+01:00\"";
    let moment = match own.take(name) {
        None => return Ok(None),
        Some(Setting::Int(seconds)) if seconds >= 0 => WallTime(seconds.unsigned_abs().saturating_mul(1_000)),
        // Beyond what a float counts exactly no clock goes.
        Some(Setting::Float(seconds)) if (0.0..9e12).contains(&seconds) => WallTime((seconds * 1_000.0).round() as u64),
        Some(Setting::Text(text)) => calendar::moment(&text).ok_or_else(|| {
            let message = format!("`{name}` is no moment: `{}`", text.escape_debug());
            own.fault(name, Problem::new(Code::InvalidValue, message).help(format!("write {EXAMPLE}")))
        })?,
        Some(other) => return Err(own.wrong(name, EXAMPLE, &other)),
    };
    Ok(Some(moment))
}
