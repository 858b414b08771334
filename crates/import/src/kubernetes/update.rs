//! How the pods of a workload are replaced when it changes, as `update` of a service says it.

use model::{Amount, Update};

use crate::draft::Service;
use crate::ledger::Ledger;
use crate::tree::Node;

/// A part of the pods that may be missing, when a rolling update says nothing.
const UNAVAILABLE_DEFAULT: Amount = Amount::Percent(25);
/// As `deploy` has it.
const HEALTHY_MAX_SECONDS: u64 = 3_600;

/// Tells of what workloads say of it, once for all containers of a pod.
pub(super) fn read(ledger: &mut Ledger, service: &mut Service, spec: &Node, kind: &str, first: bool) {
    let number = |key: &str| spec.get(key).and_then(Node::int).and_then(|seconds| u64::try_from(seconds).ok());
    let healthy = number("minReadySeconds").filter(|seconds| *seconds <= HEALTHY_MAX_SECONDS);
    let deadline = number("progressDeadlineSeconds").map(|seconds| seconds.saturating_mul(1000));
    let deadline = deadline.filter(|ms| (Update::DEADLINE_MIN_MS..=Update::DEADLINE_MAX_MS).contains(ms));
    let healthy_ms = healthy.unwrap_or_default() * 1000;
    service.update.healthy_ms = healthy_ms as u32;
    // Stars that are to be healthy for so long have longer for it.
    let deadline = deadline.filter(|ms| healthy_ms < *ms);
    service.update.deadline_ms = deadline.unwrap_or(Update::DEADLINE_DEFAULT_MS.max(healthy_ms.saturating_mul(2)));
    for (key, value) in spec.entries() {
        match key.as_str() {
            "minReadySeconds" if first => match (healthy, value.int()) {
                (Some(_), _) => ledger.carried(value, "update: `healthy_seconds`"),
                (None, _) => ledger.left(value, "it is no time for which a star may have to be healthy"),
            },
            "progressDeadlineSeconds" if first => match deadline {
                Some(_) => {
                    ledger.changed(value, "update: `deadline_seconds`: of the whole change, which is taken back then")
                }
                None => ledger.left(value, "it is no time that a change may take"),
            },
            "strategy" | "updateStrategy" => strategy(ledger, service, value, kind, first),
            _ => {}
        }
    }
}

fn strategy(ledger: &mut Ledger, service: &mut Service, node: &Node, kind: &str, first: bool) {
    let named = node.text_at("type").or_else(|| node.scalar()).unwrap_or("RollingUpdate");
    let single = service.instances.unwrap_or(1) <= 1;
    if named == "Recreate" && !single {
        (service.update.max_surge, service.update.max_unavailable) = (Amount::Stars(0), Amount::Percent(100));
    }
    if let ("Recreate" | "OnDelete", true) = (named, first) {
        match (named, single) {
            ("Recreate", true) => ledger.carried(node, "singleton: the next star starts when the last has ended"),
            ("Recreate", false) => ledger.carried(node, "update: no star is started before all old ones end"),
            _ => ledger.left(node, "stars are replaced by `rads up`"),
        }
    }
    if named != "RollingUpdate" {
        return;
    }
    let settings = node.get("rollingUpdate").map(Node::entries).unwrap_or_default();
    // A DaemonSet has one on each machine at most, before and after.
    let mut usual = match kind {
        "Deployment" => UNAVAILABLE_DEFAULT,
        _ => Amount::Stars(1),
    };
    for (key, value) in settings {
        let amount = value.scalar().and_then(|text| text.trim().parse::<Amount>().ok());
        let sound = amount.filter(|amount| !matches!(amount, Amount::Percent(101..)));
        match (key.as_str(), sound) {
            ("maxSurge", Some(amount)) => service.update.max_surge = amount,
            ("maxUnavailable", Some(amount)) => usual = amount,
            _ => {}
        }
        if first {
            match (key.as_str(), sound) {
                ("maxSurge", Some(_)) => ledger.carried(value, "update: `max_surge`"),
                ("maxUnavailable", Some(_)) => ledger.carried(value, "update: `max_unavailable`"),
                ("partition", _) if value.int() == Some(0) => ledger.carried(value, "all stars are replaced"),
                ("partition", _) => {
                    ledger.left(value, "all stars are replaced; `canary` of `update` tries some of them first")
                }
                _ => ledger.left(value, "it is no number of stars, nor a part of them"),
            }
        }
    }
    if !settings.is_empty() {
        service.update.max_unavailable = usual;
        // A StatefulSet and a DaemonSet have no more than there are to be.
        if kind != "Deployment" && node.at(&["rollingUpdate", "maxSurge"]).is_none() {
            service.update.max_surge = Amount::Stars(0);
        }
    }
    if first {
        ledger.carried(node, "stars are replaced a few at a time, each when the one before is healthy");
    }
}
