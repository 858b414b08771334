//! How the stars of a service are replaced when it changes.

use model::{Amount, Code, OnFailure, OnSecret, Problem, Update, UpdateStrategy};

use super::{DEADLINE_MAX_SECONDS, Options, Read};
use crate::setting::Setting;

const UPDATE_OPTIONS: [&str; 10] = [
    "strategy",
    "canary",
    "max_surge",
    "max_unavailable",
    "healthy_seconds",
    "promote_after_seconds",
    "deadline_seconds",
    "errors_percent",
    "on_failure",
    "on_secret",
];
/// An hour: longer than a star is watched before it is believed.
const HEALTHY_MAX_SECONDS: f64 = 3_600.0;

pub(super) fn update(options: &mut Options, singleton: bool) -> Read<Update> {
    let settings = match options.take("update") {
        None => return Ok(Update::default()),
        Some(Setting::Map(settings)) => settings,
        Some(other) => {
            let example = "an object such as {strategy: \"canary\", canary: \"10%\", healthy_seconds: 10}";
            return Err(options.wrong("update", example, &other));
        }
    };
    let own = &mut Options::new(settings, &UPDATE_OPTIONS, &["update"])?;
    let usual = Update::default();
    let failures = [("rollback", OnFailure::Rollback), ("hold", OnFailure::Hold)];
    let secrets = [("restart", OnSecret::Restart), ("keep", OnSecret::Keep)];
    let update = Update {
        strategy: strategy(own)?,
        max_surge: amount(own, "max_surge")?.unwrap_or(usual.max_surge),
        max_unavailable: amount(own, "max_unavailable")?.unwrap_or(usual.max_unavailable),
        healthy_ms: milliseconds(own, "healthy_seconds", HEALTHY_MAX_SECONDS)?.map_or(0, |ms| ms as u32),
        promote_after_ms: milliseconds(own, "promote_after_seconds", DEADLINE_MAX_SECONDS)?,
        deadline_ms: milliseconds(own, "deadline_seconds", DEADLINE_MAX_SECONDS)?.unwrap_or(usual.deadline_ms),
        errors_percent: own.int("errors_percent", 0, 99)?.map(|percent| percent as u32),
        on_failure: own.choice("on_failure", &failures)?.unwrap_or_default(),
        on_secret: own.choice("on_secret", &secrets)?.unwrap_or_default(),
    };
    update.check(singleton).map_err(|problem| own.fault_of_all(problem))?;
    Ok(update)
}

/// Whoever says how many are tried says that some are.
fn strategy(own: &mut Options) -> Read<UpdateStrategy> {
    #[derive(Clone, Copy, PartialEq)]
    enum Named {
        Rolling,
        Canary,
        BlueGreen,
    }
    let names = [("rolling", Named::Rolling), ("canary", Named::Canary), ("blue_green", Named::BlueGreen)];
    let named = own.choice("strategy", &names)?;
    let canary = amount(own, "canary")?;
    match (named, canary) {
        (None | Some(Named::Canary), Some(stars)) => Ok(UpdateStrategy::Canary { stars }),
        (Some(Named::Canary), None) => Ok(UpdateStrategy::Canary { stars: Amount::Stars(1) }),
        (None | Some(Named::Rolling), None) => Ok(UpdateStrategy::Rolling),
        (Some(Named::BlueGreen), None) => Ok(UpdateStrategy::BlueGreen),
        (Some(Named::Rolling | Named::BlueGreen), Some(_)) => {
            let problem = Problem::new(Code::InvalidValue, "`canary` says how many stars of a canary are tried first");
            Err(own.fault("canary", problem.help("leave it out, or say `strategy: \"canary\"`")))
        }
    }
}

/// A number of stars, or a part as text.
pub(super) fn amount(own: &mut Options, name: &str) -> Read<Option<Amount>> {
    match own.take(name) {
        None => Ok(None),
        Some(Setting::Text(text)) => text.parse().map(Some).map_err(|problem| own.fault(name, problem)),
        Some(Setting::Int(stars)) if u32::try_from(stars).is_ok() => Ok(Some(Amount::Stars(stars as u32))),
        Some(other) => Err(own.wrong(name, "a number of stars, or a part of them such as \"25%\"", &other)),
    }
}

fn milliseconds(own: &mut Options, name: &str, most: f64) -> Read<Option<u64>> {
    let seconds = own.number(name, 0.0, most)?;
    Ok(seconds.map(|seconds| (seconds * 1_000.0).round() as u64))
}
