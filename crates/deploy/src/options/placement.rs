//! Which machines the stars of a service go to.

use std::str::FromStr;

use model::app::INSTANCES_MAX;
use model::placement::WEIGHT_MAX;
use model::{Code, Placement, Preference, Problem, Strategy};

use super::{OptionFault, Options, Read, narrow};
use crate::setting::Setting;

const PLACEMENT_OPTIONS: [&str; 5] = ["strategy", "require", "prefer", "spread", "per_node"];
/// Of a wish that says only what is wished.
const WEIGHT_DEFAULT: i32 = 50;

pub(super) fn placement(options: &mut Options) -> Read<Placement> {
    let settings = match options.take("placement") {
        None => return Ok(Placement::default()),
        Some(Setting::Map(settings)) => settings,
        Some(other) => {
            let example = "an object such as {require: [\"region = eu\"], spread: [\"zone\"]}";
            return Err(options.wrong("placement", example, &other));
        }
    };
    let own = &mut Options::new(settings, &PLACEMENT_OPTIONS, &["placement"])?;
    let strategies = [Strategy::Spread, Strategy::Binpack, Strategy::Random].map(|one| (one.as_str(), one));
    let placement = Placement {
        strategy: own.choice("strategy", &strategies)?.unwrap_or_default(),
        require: parsed(own, "require")?,
        prefer: wishes(own)?,
        spread: parsed(own, "spread")?,
        per_node: own.int("per_node", 1, INSTANCES_MAX.into())?.map(narrow),
    };
    placement.check().map_err(|problem| own.fault_of_all(problem))?;
    Ok(placement)
}

/// What is written as text, each by itself or one alone.
fn parsed<T: FromStr<Err = Problem>>(own: &mut Options, name: &str) -> Read<Vec<T>> {
    let texts = match own.take(name) {
        None => Vec::new(),
        Some(Setting::Text(text)) => vec![text],
        Some(list) => {
            own.settings.push((name.to_owned(), list));
            own.texts(name)?
        }
    };
    texts.iter().map(|text| text.parse().map_err(|problem| own.fault(name, problem))).collect()
}

/// `"disk = ssd"`, or `{that: "disk = ssd", weight: 80}`.
fn wishes(own: &mut Options) -> Read<Vec<Preference>> {
    let settings = match own.take("prefer") {
        None => Vec::new(),
        Some(Setting::List(settings)) => settings,
        Some(one @ (Setting::Text(_) | Setting::Map(_))) => vec![one],
        Some(other) => return Err(own.wrong("prefer", "an array of conditions", &other)),
    };
    let wish = |setting: Setting| match setting {
        Setting::Text(text) => condition(own, &text, WEIGHT_DEFAULT),
        Setting::Map(settings) => {
            let mut one = Options::new(settings, &["that", "weight"], &["placement", "prefer"])?;
            let weight = one.int("weight", (-WEIGHT_MAX).into(), WEIGHT_MAX.into())?;
            let Some(that) = one.text("that")? else {
                let problem = Problem::new(Code::InvalidValue, "a preference says with `that` what is preferred");
                return Err(one.fault_of_all(problem.help("for example {that: \"disk = ssd\", weight: 80}")));
            };
            condition(own, &that, weight.map_or(WEIGHT_DEFAULT, |weight| weight as i32))
        }
        other => Err(own.wrong("prefer", "made of conditions such as \"disk = ssd\"", &other)),
    };
    settings.into_iter().map(wish).collect()
}

fn condition(own: &Options, that: &str, weight: i32) -> Result<Preference, OptionFault> {
    let that = that.parse().map_err(|problem| own.fault("prefer", problem))?;
    Ok(Preference { that, weight })
}
