//! Which machines the stars of a service go to.

use std::str::FromStr;

use model::app::INSTANCES_MAX;
use model::placement::WEIGHT_MAX;
use model::{Code, Name, Placement, Preference, Priority, Problem, Strategy};

use super::update::amount;
use super::{OptionFault, Options, Read, narrow};
use crate::setting::Setting;

const PLACEMENT_OPTIONS: [&str; 12] = [
    "strategy",
    "require",
    "prefer",
    "spread",
    "max_skew",
    "per_node",
    "every_node",
    "tolerate",
    "apart_from",
    "reservation",
    "priority",
    "disruptions",
];
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
    let usual = Placement::default();
    let placement = Placement {
        strategy: own.choice("strategy", &strategies)?.unwrap_or_default(),
        require: parsed(own, "require")?,
        prefer: wishes(own)?,
        spread: parsed(own, "spread")?,
        max_skew: own.int("max_skew", 1, INSTANCES_MAX.into())?.map(narrow),
        per_node: own.int("per_node", 1, INSTANCES_MAX.into())?.map(narrow),
        every_node: own.bool("every_node")?.unwrap_or_default(),
        tolerate: parsed(own, "tolerate")?,
        apart_from: names(own, "apart_from")?,
        reservation: one_name(own, "reservation")?,
        priority: own.int("priority", 0, Priority::MAX.0.into())?.map_or(usual.priority, |it| Priority(it as u8)),
        disruptions: amount(own, "disruptions")?.unwrap_or(usual.disruptions),
    };
    placement.check().map_err(|problem| own.fault_of_all(problem))?;
    Ok(placement)
}

/// What is written as text, each by itself or one alone.
fn parsed<T: FromStr<Err = Problem>>(own: &mut Options, name: &str) -> Read<Vec<T>> {
    let texts = texts(own, name)?;
    texts.iter().map(|text| text.parse().map_err(|problem| own.fault(name, problem))).collect()
}

fn texts(own: &mut Options, name: &str) -> Read<Vec<String>> {
    match own.take(name) {
        None => Ok(Vec::new()),
        Some(Setting::Text(text)) => Ok(vec![text]),
        Some(list) => {
            own.settings.push((name.to_owned(), list));
            own.texts(name)
        }
    }
}

/// Services of the namespace, each by itself or one alone.
fn names(own: &mut Options, name: &str) -> Read<Vec<Name>> {
    let texts = texts(own, name)?;
    let parse = |text: &String| {
        text.parse::<Name>().map_err(|error| own.fault(name, Problem::new(Code::InvalidValue, error.to_string())))
    };
    texts.iter().map(parse).collect()
}

fn one_name(own: &mut Options, name: &str) -> Read<Option<Name>> {
    let Some(text) = own.text(name)? else { return Ok(None) };
    let name = text.parse().map_err(|error: model::name::InvalidName| {
        own.fault(name, Problem::new(Code::InvalidValue, error.to_string()))
    })?;
    Ok(Some(name))
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
