//! `deploy` of a compose service: how many, with how much, where.

use super::super::settings;
use crate::draft::Service;
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::Node;

pub(super) fn read(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (key, value) in node.entries() {
        match key.as_str() {
            "replicas" => match value.int().and_then(|count| u64::try_from(count).ok()) {
                Some(count) => settings::bounded(ledger, value, "instances", service.set_instances(count)),
                None => ledger.left(value, "it is no number"),
            },
            "mode" => mode(ledger, service, value),
            "resources" => resources(ledger, service, value),
            "restart_policy" => restart(ledger, service, value),
            "placement" => placement(ledger, service, value),
            "update_config" | "rollback_config" => {
                let text = "stars are replaced one after another, each when the one before is ready; what fails stays as it was";
                ledger.left(value, text);
            }
            "labels" => ledger.left(value, "services have no labels"),
            "endpoint_mode" => ledger.left(value, "a service has one entry point, which balances"),
            _ => {}
        }
    }
}

fn mode(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    match node.scalar() {
        Some("replicated") => ledger.carried(node, "instances"),
        Some("global") => {
            service.placement.per_node = Some(1);
            ledger.changed(
                node,
                "placement: at most one star on a machine; how many there are is `instances`"
                    .help(format!("`rads c scale {} N`, for N machines", service.name)),
            );
        }
        _ => ledger.left(node, "a job that runs to its end is not carried yet"),
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
                ("reservations", _) => ledger.left(value, "a limit bounds, and nothing is reserved"),
                _ => {}
            }
        }
    }
}

fn restart(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (key, value) in node.entries() {
        match key.as_str() {
            "condition" => super::super::restart(ledger, service, value, value.scalar().unwrap_or_default()),
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
