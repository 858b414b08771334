//! `deploy` of a compose service: how many, with how much, where.

use model::{Amount, OnFailure};

use super::super::settings;
use crate::draft::Service;
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::Node;

/// An hour, as `deploy` has it.
const HEALTHY_MAX_MS: u64 = 3_600_000;

pub(super) fn read(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    // What it is comes before how many there are of it.
    if let Some(value) = node.get("mode") {
        mode(ledger, service, value);
    }
    let is_job = service.job.is_some();
    for (key, value) in node.entries() {
        match key.as_str() {
            "replicas" if is_job => match value.int().and_then(|count| u64::try_from(count).ok()) {
                Some(count) => {
                    let job = service.job.get_or_insert_default();
                    settings::bounded(ledger, value, "completions", job.set_completions(count));
                }
                None => ledger.left(value, "it is no number"),
            },
            "replicas" => match value.int().and_then(|count| u64::try_from(count).ok()) {
                Some(count) => settings::bounded(ledger, value, "instances", service.set_instances(count)),
                None => ledger.left(value, "it is no number"),
            },
            "mode" => {}
            "resources" => resources(ledger, service, value),
            "restart_policy" => restart(ledger, service, value),
            "placement" => placement(ledger, service, value),
            "update_config" => update(ledger, service, value),
            "rollback_config" => ledger.left(value, "a version that fails is left as it was come to"),
            "labels" => ledger.left(value, "services have no labels"),
            "endpoint_mode" => ledger.left(value, "a service has one entry point, which balances"),
            _ => {}
        }
    }
}

fn mode(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    match node.scalar() {
        Some("replicated") => ledger.carried(node, "instances"),
        // When it is known what lies on its machine.
        Some("global") => {}
        Some("replicated-job") => {
            service.job.get_or_insert_default();
            ledger.carried(node, "job");
        }
        Some("global-job") => {
            service.job.get_or_insert_default();
            ledger.changed(node, "job: it runs once, and not on each machine");
        }
        _ => ledger.left(node, "no such mode is known"),
    }
}

/// One on each machine, when all else of the service is known.
pub(super) fn everywhere(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    let mode = node.get("deploy").and_then(|deploy| deploy.get("mode"));
    if let Some(mode) = mode.filter(|mode| mode.scalar() == Some("global")) {
        match service.put_everywhere() {
            Ok(told) => ledger.carried(mode, told),
            Err(told) => ledger.changed(mode, told),
        }
    }
}

/// How many are replaced at a time, in which order, and what becomes of a change that fails.
fn update(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    let at_a_time =
        node.get("parallelism").map_or(Some(1), |value| value.int().and_then(|count| u32::try_from(count).ok()));
    let amount = match at_a_time {
        Some(0) => Amount::Percent(100),
        count => Amount::Stars(count.unwrap_or(1)),
    };
    let starts_first = node.text_at("order") == Some("start-first");
    (service.update.max_surge, service.update.max_unavailable) = match starts_first {
        true => (amount, Amount::Stars(0)),
        false => (Amount::Stars(0), amount),
    };
    for (key, value) in node.entries() {
        let ms = value.scalar().and_then(crate::units::go_ms);
        match (key.as_str(), value.scalar().unwrap_or_default()) {
            ("parallelism", _) if at_a_time.is_some() => ledger.carried(value, "of `update`: so many at a time"),
            ("order", "start-first") => {
                ledger.carried(value, "update: `max_surge`: new stars start before old ones end")
            }
            ("order", "stop-first") => {
                ledger.carried(value, "update: `max_unavailable`: old stars end before new ones start")
            }
            ("monitor", _) if ms.is_some_and(|ms| ms <= HEALTHY_MAX_MS) => {
                service.update.healthy_ms = ms.unwrap_or_default() as u32;
                ledger.carried(value, "update: `healthy_seconds`");
            }
            ("failure_action", "rollback") => ledger.carried(value, "a change that fails is taken back"),
            ("failure_action", "pause") => {
                service.update.on_failure = OnFailure::Hold;
                ledger.carried(value, "update: `on_failure`: \"hold\"");
            }
            ("failure_action", _) => ledger.left(value, "a change that fails is taken back or held"),
            ("delay", "0" | "0s") => ledger.carried(value, "there is none"),
            ("delay", _) => ledger.left(
                value,
                "the next star is replaced when the one before is healthy"
                    .help("`healthy_seconds` of `update` has it wait"),
            ),
            _ => ledger.left(value, "`update` has nothing like it"),
        }
    }
}

fn resources(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (which, amounts) in node.entries() {
        for (key, value) in amounts.entries() {
            let text = crate::text::interpolated(value.scalar().unwrap_or_default()).0.by_default();
            match (which.as_str(), key.as_str()) {
                ("limits", "cpus") => settings::cpus(ledger, service, value, &text),
                ("limits", "memory") => settings::memory(ledger, service, value, &text),
                ("limits", "pids") => settings::pids(ledger, service, value, &text),
                ("reservations", "devices") => ledger.left(value, "stars have no GPUs or other devices yet"),
                ("reservations", "cpus") => settings::reserve_cpu(ledger, service, value, &text),
                ("reservations", "memory") => settings::reserve_memory(ledger, service, value, &text),
                ("reservations", _) => ledger.left(value, "what is kept for a star is processor time and memory"),
                _ => {}
            }
        }
    }
}

fn restart(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (key, value) in node.entries() {
        match key.as_str() {
            "condition"
                if service.job.is_some() && value.scalar() != Some("none") && node.get("max_attempts").is_some() =>
            {
                ledger.carried(value, "a part that fails is tried again, as often as `retries` says");
            }
            "condition" => super::super::restart(ledger, service, value, value.scalar().unwrap_or_default()),
            "max_attempts" if service.job.is_some() => match value.int().and_then(|count| u64::try_from(count).ok()) {
                Some(count) => match &mut service.job {
                    Some(job) => settings::bounded(ledger, value, "retries", job.set_retries(count)),
                    None => ledger.left(value, "it is no job"),
                },
                None => ledger.left(value, "it is no number"),
            },
            "delay" | "max_attempts" | "window" => {
                ledger.left(value, "a star that ends again and again is started with growing delays");
            }
            _ => {}
        }
    }
}

fn placement(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (key, value) in node.entries() {
        match key.as_str() {
            "constraints" => value.one_or_more().iter().for_each(|one| constraint(ledger, service, one)),
            "preferences" => {
                for one in value.one_or_more() {
                    let over = one.text_at("spread").map(attribute);
                    match over.map(|over| (service.spread_over(&over), over)) {
                        Some((Ok(()), over)) => ledger.carried(one, format!("placement: spread over `{over}`")),
                        Some((Err(why), _)) => ledger.left(one, why),
                        None => ledger.left(one, "it says nothing to spread over"),
                    }
                }
            }
            "max_replicas_per_node" => {
                match value.int().and_then(|most| u32::try_from(most).ok()).filter(|most| (1..=10_000).contains(most)) {
                    Some(most) => {
                        service.placement.per_node = Some(most);
                        ledger.carried(value, format!("placement: per_node: {most}"));
                    }
                    None => ledger.carried(value, "no bound"),
                }
            }
            _ => {}
        }
    }
}

/// What a machine's attribute is called here.
fn attribute(text: &str) -> String {
    let text = text.trim();
    match text {
        "node.hostname" | "node.id" => "node".to_owned(),
        _ => match text.strip_prefix("node.labels.").or_else(|| text.strip_prefix("engine.labels.")) {
            Some(label) => label.to_owned(),
            None => text.to_owned(),
        },
    }
}

fn constraint(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    let text = node.scalar().unwrap_or_default();
    let parts =
        text.split_once("==").map(|parts| (parts, "=")).or_else(|| text.split_once("!=").map(|parts| (parts, "!=")));
    let Some(((left, right), sign)) = parts else {
        ledger.left(node, format!("`{text}` is no condition"));
        return;
    };
    let (left, right) = (left.trim(), right.trim());
    match left {
        "node.role" => {
            ledger.left(node, "controllers and workers alike have stars");
            return;
        }
        "node.platform.os" | "node.platform.arch" => {
            ledger.left(node, "machines are not told apart by system");
            return;
        }
        _ => {}
    }
    let condition = format!("{} {sign} {right}", attribute(left));
    match service.require(&condition) {
        Ok(()) => {
            let text = format!("placement: {condition}");
            match left {
                "node.hostname" => ledger.carried(node, text),
                _ => ledger.carried(
                    node,
                    text.help("labels of machines are given when they join: `rads c join --label NAME=VALUE`"),
                ),
            }
        }
        Err(why) => ledger.left(node, why),
    }
}
