//! Where pods may run, as conditions on machines.

use model::placement::CONDITIONS_MAX;

use crate::draft::Service;
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::Node;

/// What a label of nodes is called here; nothing for those that say what every machine is.
fn attribute(label: &str) -> Option<&str> {
    match label {
        "kubernetes.io/hostname" | "metadata.name" => Some("node"),
        "topology.kubernetes.io/region" | "failure-domain.beta.kubernetes.io/region" => Some("region"),
        "topology.kubernetes.io/zone" | "failure-domain.beta.kubernetes.io/zone" => Some("zone"),
        "kubernetes.io/os" | "beta.kubernetes.io/os" | "kubernetes.io/arch" | "beta.kubernetes.io/arch" => None,
        label => Some(label),
    }
}

const LABELS: &str = "labels of machines are given when they join: `rads c join --label NAME=VALUE`";

/// Takes a condition over, and tells of it.
pub(super) fn requires(ledger: &mut Ledger, service: &mut Service, node: &Node, condition: &str) {
    match service.require(condition) {
        Ok(()) => ledger.carried(node, format!("placement: {condition}").help(LABELS)),
        Err(why) => ledger.left(node, why),
    }
}

pub(super) fn node_selector(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (label, value) in node.entries() {
        match attribute(label) {
            None => ledger.left(value, "machines are not told apart by system"),
            Some(name) => requires(ledger, service, value, &format!("{name} = {}", value.scalar().unwrap_or_default())),
        }
    }
}

/// What it does with those that are there is the machine's affair here.
pub(super) fn tolerations(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for item in node.items() {
        let text = |key: &str| item.get(key).and_then(Node::scalar).map(str::to_owned);
        let (key, value) = (text("key").filter(|key| !key.is_empty()), text("value").filter(|value| !value.is_empty()));
        let said = match (key, value) {
            (None, _) => "*".to_owned(),
            (Some(key), None) => key,
            (Some(key), Some(value)) => format!("{key} = {value}"),
        };
        match said.parse::<model::Toleration>() {
            Ok(toleration) if service.placement.tolerate.len() < CONDITIONS_MAX => {
                if !service.placement.tolerate.contains(&toleration) {
                    service.placement.tolerate.push(toleration);
                }
                ledger.carried(
                    item,
                    format!("placement: tolerate {said}").help("`rads c taint NODE NAME` says what a node is for"),
                );
            }
            _ => ledger.left(item, "it is no name of a taint"),
        }
    }
}

pub(super) fn affinity(ledger: &mut Ledger, service: &mut Service, node: &Node, labels: Option<&Node>) {
    if let Some(own) = node.get("nodeAffinity") {
        let terms = own.at(&["requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"]);
        if let Some(terms) = terms {
            match terms.items() {
                [one] => expressions(ledger, service, one, None),
                _ => {
                    ledger.left(
                        terms,
                        "conditions hold all together, and these are one or the other"
                            .help("give the machines a label of their own, and require that"),
                    );
                }
            }
        }
        for wish in own.get("preferredDuringSchedulingIgnoredDuringExecution").map(Node::items).unwrap_or_default() {
            let weight = wish.get("weight").and_then(Node::int).unwrap_or(1);
            if let Some(one) = wish.get("preference") {
                expressions(ledger, service, one, Some(weight));
            }
            if let Some(weight) = wish.get("weight") {
                ledger.carried(weight, "the weight of the wish");
            }
        }
    }
    if let Some(apart) = node.get("podAntiAffinity") {
        for required in apart.get("requiredDuringSchedulingIgnoredDuringExecution").map(Node::items).unwrap_or_default()
        {
            anti(ledger, service, required, required, labels, true);
        }
        for wish in apart.get("preferredDuringSchedulingIgnoredDuringExecution").map(Node::items).unwrap_or_default() {
            if let Some(term) = wish.get("podAffinityTerm") {
                anti(ledger, service, wish, term, labels, false);
            }
        }
    }
    if let Some(together) = node.get("podAffinity") {
        ledger.left(together, "a service is not placed by where another is");
    }
}

/// Whether a term chooses the pods it is written for.
fn is_own(term: &Node, labels: Option<&Node>) -> bool {
    let has =
        |key: &str, value: Option<&str>| labels.and_then(|labels| labels.get(key)).and_then(Node::scalar) == value;
    let matched = term.at(&["labelSelector", "matchLabels"]).map(Node::entries).unwrap_or_default();
    let expressions = term.at(&["labelSelector", "matchExpressions"]).map(Node::items).unwrap_or_default();
    let holds = |one: &Node| {
        let values = one.get("values").and_then(Node::texts).unwrap_or_default();
        one.text_at("operator") == Some("In")
            && values.iter().any(|value| has(one.text_at("key").unwrap_or_default(), Some(value)))
    };
    !(matched.is_empty() && expressions.is_empty())
        && matched.iter().all(|(key, value)| has(key, value.scalar()))
        && expressions.iter().all(holds)
}

fn anti(ledger: &mut Ledger, service: &mut Service, node: &Node, term: &Node, labels: Option<&Node>, required: bool) {
    let over = term.text_at("topologyKey").and_then(attribute).unwrap_or("node").to_owned();
    if !is_own(term, labels) {
        ledger.left(node, "a service is not placed by where another is");
        return;
    }
    match (required, over.as_str()) {
        (true, "node") => {
            service.placement.per_node = Some(1);
            ledger.carried(node, "placement: per_node: 1");
        }
        (false, "node") => ledger.carried(node, "stars go to machines with the fewest of their service"),
        (_, over) => match service.spread_over(over) {
            Ok(()) if required => ledger.changed(node, format!("placement: spread over `{over}`, as evenly as can be")),
            Ok(()) => ledger.carried(node, format!("placement: spread over `{over}`")),
            Err(why) => ledger.left(node, why),
        },
    }
}

fn expressions(ledger: &mut Ledger, service: &mut Service, term: &Node, weight: Option<i64>) {
    for key in ["matchExpressions", "matchFields"] {
        for one in term.get(key).map(Node::items).unwrap_or_default() {
            let label = one.text_at("key").unwrap_or_default();
            let Some(name) = attribute(label) else {
                ledger.left(one, "machines are not told apart by system");
                continue;
            };
            let values = one.get("values").and_then(Node::texts).unwrap_or_default().join(", ");
            let condition = match one.text_at("operator").unwrap_or_default() {
                "In" => format!("{name} in {values}"),
                "NotIn" => format!("{name} not in {values}"),
                "Exists" => format!("{name} exists"),
                "DoesNotExist" => format!("{name} missing"),
                "Gt" => format!("{name} > {values}"),
                "Lt" => format!("{name} < {values}"),
                other => {
                    ledger.left(one, format!("no comparison is called `{other}`"));
                    continue;
                }
            };
            match weight {
                None => requires(ledger, service, one, &condition),
                Some(weight) => match service.prefer(&condition, weight) {
                    Ok(()) => ledger.carried(one, format!("placement: prefer {condition}").help(LABELS)),
                    Err(why) => ledger.left(one, why),
                },
            }
        }
    }
}

pub(super) fn spread(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for one in node.items() {
        let over = one.text_at("topologyKey").and_then(attribute).unwrap_or("node").to_owned();
        if let Err(why) = service.spread_over(&over) {
            ledger.left(one, why);
            continue;
        }
        let placement = &mut service.placement;
        let is_first = placement.spread.first().is_some_and(|first| first.to_string() == over);
        let must = one.text_at("whenUnsatisfiable") != Some("ScheduleAnyway");
        match one.get("maxSkew").and_then(Node::int).and_then(|skew| u32::try_from(skew).ok()) {
            Some(skew @ 1..) if must && is_first && !placement.every_node => {
                placement.max_skew = Some(skew);
                ledger.carried(one, format!("placement: spread over `{over}`, max_skew: {skew}"));
            }
            _ if must => ledger.changed(one, format!("placement: spread over `{over}`, as evenly as can be")),
            _ => ledger.carried(one, format!("placement: spread over `{over}`, as evenly as can be")),
        }
    }
}
