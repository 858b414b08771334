//! Constraints and affinities, as conditions on machines.

use super::blocks;
use crate::draft::Service;
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::Node;

/// Conditions and wishes, of a job, a group or a task.
pub(super) fn conditions(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (kind, wish) in [("constraint", false), ("affinity", true)] {
        for (_, one) in blocks(node, kind) {
            condition(ledger, service, one, wish);
        }
    }
}

fn condition(ledger: &mut Ledger, service: &mut Service, node: &Node, wish: bool) {
    let value = node.text_at("value").unwrap_or_default();
    let operator = node.text_at("operator").unwrap_or("=");
    if operator == "distinct_hosts" || node.get("distinct_hosts").is_some_and(Node::is_true) {
        service.placement.per_node = Some(1);
        ledger.carried(node, "placement: per_node: 1");
        return;
    }
    let attribute = node.text_at("attribute").unwrap_or_default();
    let name = attribute.trim().trim_start_matches("${").trim_end_matches('}').trim();
    let name = match name {
        "node.unique.name" | "attr.unique.hostname" | "node.unique.id" => "node".to_owned(),
        "node.region" => "region".to_owned(),
        "node.datacenter" => "zone".to_owned(),
        "node.class" => "class".to_owned(),
        "attr.cpu.numcores" => "cores".to_owned(),
        "attr.kernel.name" | "attr.cpu.arch" | "attr.os.name" => {
            ledger.left(node, "machines are not told apart by system");
            return;
        }
        _ => match name.strip_prefix("meta.") {
            Some(label) => label.to_owned(),
            None => name.to_owned(),
        },
    };
    let condition = match operator {
        "=" | "==" | "is" => format!("{name} = {value}"),
        "!=" | "not" => format!("{name} != {value}"),
        ">" | ">=" | "<" | "<=" => format!("{name} {operator} {value}"),
        "set_contains_any" => format!("{name} in {value}"),
        "is_set" => format!("{name} exists"),
        "is_not_set" => format!("{name} missing"),
        "version" | "semver" => {
            let (sign, version) = value.split_at(value.find(|c: char| c.is_ascii_digit()).unwrap_or(0));
            format!("{name} version {} {version}", sign.trim())
        }
        _ => {
            ledger.left(node, format!("no comparison is called `{operator}`"));
            return;
        }
    };
    let taken = match wish {
        true => service.prefer(&condition, node.get("weight").and_then(Node::int).unwrap_or(50)),
        false => service.require(&condition),
    };
    match taken {
        Ok(()) => ledger.carried(
            node,
            format!("placement: {condition}")
                .help("labels of machines are given when they join: `rads c join --label NAME=VALUE`"),
        ),
        Err(why) => ledger.left(node, why),
    }
}
