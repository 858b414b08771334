//! What stars use: counters, and the rates between two readings of them.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Client, StarStats};
use model::{Bytes, Problem, StarId};
use serde::Serialize;
use tokio::time::sleep;

use super::find;
use crate::cli::{Form, Stats};
use crate::screen::{self, Table};

/// Between the two readings that make a rate. Short for whoever waits, long enough for several of the kernel's 100 ms
/// quota periods.
const RATE_WINDOW: Duration = Duration::from_millis(500);

/// One star's counters, and what they came to since the reading before.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    #[serde(flatten)]
    pub(super) stats: StarStats,
    /// Processor time between the two readings, in percent of one core.
    pub(super) cpu_percent: Option<f64>,
    /// How much of the time it waited because its quota was used up.
    pub(super) throttled_percent: Option<f64>,
    pub(super) requests_per_second: Option<f64>,
    pub(super) network_received_bytes_per_second: Option<f64>,
    pub(super) network_sent_bytes_per_second: Option<f64>,
}

impl Sample {
    /// A star that was not there before has no rates yet.
    pub(super) fn new(stats: StarStats, before: Option<&StarStats>) -> Self {
        let window = before.map_or(Duration::ZERO, |before| stats.at.since(before.at)).as_secs_f64();
        let rate = |now: Option<u64>, then: fn(&StarStats) -> Option<u64>| {
            let gone = now?.saturating_sub(before.and_then(then)?);
            (window > 0.0).then_some(gone as f64 / window)
        };
        let percent = |us_per_second: f64| us_per_second / 1e4;
        Self {
            cpu_percent: rate(stats.cpu_usage_us, |stats| stats.cpu_usage_us).map(percent),
            throttled_percent: rate(stats.throttled_us, |stats| stats.throttled_us).map(percent),
            requests_per_second: rate(Some(stats.requests), |stats| Some(stats.requests)),
            network_received_bytes_per_second: rate(stats.network_received_bytes, |stats| stats.network_received_bytes),
            network_sent_bytes_per_second: rate(stats.network_sent_bytes, |stats| stats.network_sent_bytes),
            stats,
        }
    }

    /// From choosing the star to the last byte of its answer, in milliseconds.
    pub(super) fn mean_ms(&self) -> Option<f64> {
        let ended = self.stats.requests;
        (ended > 0).then(|| self.stats.latency_us_sum as f64 / ended as f64 / 1e3)
    }
}

pub(crate) async fn stats(client: &Client, args: Stats, form: Form) -> Result<u8, Problem> {
    let samples = sample(client, args.name.as_deref()).await?;
    match form {
        Form::Json => screen::json(&samples)?,
        Form::Text => {
            screen::print(&table(&samples).render());
            for stats in samples.iter().map(|sample| &sample.stats) {
                stats.problem.iter().for_each(|problem| screen::note(format!("{}: {problem}", stats.name)));
            }
        }
    }
    Ok(0)
}

/// Two readings, half a second apart.
pub(super) async fn sample(client: &Client, name: Option<&str>) -> Result<Vec<Sample>, Problem> {
    let before = read(client, name).await?;
    sleep(RATE_WINDOW).await;
    let after = read(client, name).await?;
    Ok(compare(&before, after))
}

pub(super) fn compare(before: &[StarStats], after: Vec<StarStats>) -> Vec<Sample> {
    let before: BTreeMap<StarId, &StarStats> = before.iter().map(|stats| (stats.star, stats)).collect();
    let sample = |stats: StarStats| {
        let earlier = before.get(&stats.star).copied();
        Sample::new(stats, earlier)
    };
    after.into_iter().map(sample).collect()
}

pub(super) fn table(samples: &[Sample]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        ">CPU",
        ">CPU TIME",
        ">THROTTLED",
        ">MEMORY",
        ">WORKING",
        ">PEAK",
        ">DISK",
        ">RECEIVED",
        ">SENT",
        ">LOOPBACK",
        ">PIDS",
        ">FILES",
        ">RESTARTS",
        ">REQUESTS",
        ">RATE",
        ">MEAN",
        ">ERRORS",
    ]);
    for sample in samples {
        let stats = &sample.stats;
        let seconds = |us: Option<u64>| or_dash(us.map(|us| format!("{:.2} s", us as f64 / 1e6)));
        table.row([
            stats.name.clone(),
            or_dash(sample.cpu_percent.map(|percent| format!("{percent:.1} %"))),
            seconds(stats.cpu_usage_us),
            seconds(stats.throttled_us),
            bytes(stats.memory_bytes),
            bytes(stats.memory_working_set_bytes),
            bytes(stats.memory_peak_bytes),
            bytes(stats.disk_bytes),
            bytes(stats.network_received_bytes),
            bytes(stats.network_sent_bytes),
            bytes(stats.network_loopback_bytes),
            or_dash(stats.pids.map(|pids| pids.to_string())),
            or_dash(stats.fds.map(|fds| fds.to_string())),
            stats.restarts.to_string(),
            stats.requests.to_string(),
            or_dash(sample.requests_per_second.map(|rate| format!("{rate:.0}/s"))),
            or_dash(sample.mean_ms().map(|ms| format!("{ms:.2} ms"))),
            stats.errors.to_string(),
        ]);
    }
    table
}

pub(super) fn bytes(bytes: Option<u64>) -> String {
    or_dash(bytes.map(|bytes| Bytes(bytes).to_string()))
}

/// What cannot be measured is shown as such, and never as nothing.
pub(super) fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

/// The counters of every star that a name means, or of all.
pub(super) async fn read(client: &Client, name: Option<&str>) -> Result<Vec<StarStats>, Problem> {
    let services = client.services().await?;
    let app = name.and_then(|name| find::app(name).ok());
    let mut stats = Vec::new();
    for service in &services {
        let means = name.is_none_or(|name| service.service.to_string() == name) || Some(&service.app) == app.as_ref();
        if means {
            stats.extend(client.service_stats(&service.service).await?);
        }
    }
    match name {
        Some(name) if stats.is_empty() && !services.iter().any(|service| service.service.to_string() == name) => {
            let star = find::running_star(client, name).await?;
            Ok(vec![client.star_stats(star).await?])
        }
        _ => Ok(stats),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use model::{Name, ServiceKey, WallTime};

    use super::*;

    /// A star that has been measured in nothing.
    pub(crate) fn unmeasured(id: u64, name: &str) -> StarStats {
        let service = name.rsplit_once('-').map_or(name, |(service, _)| service);
        StarStats {
            star: StarId(id),
            name: name.to_owned(),
            service: ServiceKey::in_default(Name::try_from(service.to_owned()).unwrap()),
            at: WallTime(1_000),
            cpu_usage_us: None,
            throttled_us: None,
            throttled_periods: None,
            memory_bytes: None,
            memory_working_set_bytes: None,
            memory_peak_bytes: None,
            memory_limit_bytes: None,
            disk_bytes: None,
            network_received_bytes: None,
            network_sent_bytes: None,
            network_loopback_bytes: None,
            pids: None,
            fds: None,
            restarts: 0,
            requests: 0,
            in_flight: 0,
            errors: 0,
            latency_us_sum: 0,
            problem: None,
        }
    }

    #[test]
    fn rates_are_taken_between_two_readings_and_what_is_not_measured_has_none() {
        let before = StarStats { cpu_usage_us: Some(100_000), requests: 5, ..unmeasured(1, "web-1") };
        let after = StarStats { cpu_usage_us: Some(350_000), requests: 6, at: WallTime(1_500), ..before.clone() };
        let sample = Sample::new(after.clone(), Some(&before));
        assert_eq!((sample.cpu_percent, sample.requests_per_second), (Some(50.0), Some(2.0)));
        assert_eq!((sample.throttled_percent, sample.network_sent_bytes_per_second), (None, None));
        let new = Sample::new(after.clone(), None);
        assert_eq!((new.cpu_percent, new.requests_per_second), (None, None));
        // A counter that was set back, or two readings at one moment, make no rate below nothing or beyond all.
        assert_eq!(Sample::new(before.clone(), Some(&after)).cpu_percent, None);
        assert_eq!(Sample::new(after.clone(), Some(&after)).cpu_percent, None);
    }

    #[test]
    fn what_cannot_be_read_is_a_dash() {
        let text = table(&[Sample::new(unmeasured(1, "web-1"), None)]).render();
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            cells,
            ["web-1", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "0", "0", "-", "-", "0"]
        );
    }
}
