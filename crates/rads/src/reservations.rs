//! What is typed about reservations.

use std::time::Duration;

use clap::{ArgGroup, Args};
use deploy::Setting;
use model::{Name, WallTime};

use crate::moment::{self, Since};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("each").args(["cpu_percent", "ram_mb"]).required(true).multiple(true)))]
pub(crate) struct Reserve {
    /// What the reservation is called
    pub(crate) name: Name,
    /// How many places to hold, each for one star
    #[arg(long, value_name = "N", default_value_t = 1)]
    places: u32,
    /// Processor time of each place, in percent of a core
    #[arg(long, value_name = "PERCENT")]
    cpu_percent: Option<f64>,
    /// Memory of each place
    #[arg(long, value_name = "MB")]
    ram_mb: Option<f64>,
    /// From when on: in so much time (`2h`), or at a moment, in universal time [default: now]
    #[arg(long, value_name = "WHEN", value_parser = moment::since)]
    from: Option<Since>,
    /// For how long [default: until it is released]
    #[arg(long = "for", value_name = "TIME", value_parser = moment::duration, conflicts_with = "until")]
    length: Option<Duration>,
    /// Until when, in universal time
    #[arg(long, value_name = "WHEN", value_parser = moment::since)]
    until: Option<Since>,
    /// From 0 to 100: stars of lower services give way to its places [default: 50]
    #[arg(long, value_name = "N")]
    priority: Option<i64>,
    /// Where its places are, such as `require=disk = ssd` or `spread=zone`; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) placement: Vec<String>,
    /// Its namespace [default: default]
    #[arg(long, value_name = "NAME")]
    namespace: Option<Name>,
}

/// So much later, or then.
fn ahead(when: Since, now: WallTime) -> WallTime {
    match when {
        Since::Ago(time) => later(now, time),
        Since::At(at) => at,
    }
}

fn later(from: WallTime, time: Duration) -> WallTime {
    WallTime(from.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

impl Reserve {
    /// As the options of a service. `placement`: as it was read where those of services are.
    pub(crate) fn settings(&self, mut placement: Vec<(String, Setting)>, now: WallTime) -> Vec<(String, Setting)> {
        let from = self.from.map(|from| ahead(from, now));
        let until = self.until.map(|until| ahead(until, now));
        let until = until.or_else(|| Some(later(from.unwrap_or(now), self.length?)));
        let seconds = |at: WallTime| Setting::Float(at.0 as f64 / 1_000.0);
        let times = [("from", from), ("until", until)];
        let times = times.into_iter().filter_map(|(name, at)| Some((name.to_owned(), seconds(at?)))).collect();
        placement.extend(self.priority.map(|priority| ("priority".to_owned(), Setting::Int(priority))));
        let said = [
            ("hold", Some(Setting::Map(times))),
            ("instances", Some(Setting::Int(self.places.into()))),
            ("reserve_cpu_percent", self.cpu_percent.map(Setting::Float)),
            ("reserve_ram_mb", self.ram_mb.map(Setting::Float)),
            ("placement", (!placement.is_empty()).then_some(Setting::Map(placement))),
            ("namespace", self.namespace.as_ref().map(|name| Setting::Text(name.to_string()))),
        ];
        said.into_iter().filter_map(|(name, setting)| Some((name.to_owned(), setting?))).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// A reservation
    pub(crate) name: String,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        reserve: Reserve,
    }

    #[test]
    fn what_is_typed_becomes_the_options_of_a_service() {
        let now = WallTime(1_000_000);
        let settings = |line: &str| {
            let typed = Typed::try_parse_from(line.split(' ')).unwrap().reserve;
            let placement = crate::options::placement_settings(&typed.placement);
            typed.settings(placement, now)
        };
        let float = Setting::Float;
        let named = |name: &str, setting: Setting| (name.to_owned(), setting);
        let held = |times: &[(&str, f64)]| {
            named("hold", Setting::Map(times.iter().map(|(name, at)| named(name, float(*at))).collect()))
        };
        let four = named("instances", Setting::Int(4));
        assert_eq!(
            settings("reserve room --places 4 --ram-mb 256 --from 2h --for 4h --priority 80"),
            [
                held(&[("from", 8_200.0), ("until", 22_600.0)]),
                four.clone(),
                named("reserve_ram_mb", float(256.0)),
                named("placement", Setting::Map(vec![named("priority", Setting::Int(80))])),
            ]
        );
        let expected = [held(&[("until", 4_600.0)]), four, named("reserve_cpu_percent", float(50.0))];
        assert_eq!(settings("reserve room --places 4 --cpu-percent 50 --for 1h"), expected);
        for wrong in ["reserve room", "reserve room --ram-mb 1 --for 1h --until 2099-01-01"] {
            assert!(Typed::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
        for line in [
            "rads c reservations",
            "rads c release dev/room",
            "rads c reserve room --ram-mb 64 --placement spread=zone",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
