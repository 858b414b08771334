//! Services that tasks register: their checks are what a star is asked.

use super::task::resolved;
use super::{Context, Ports, kind_of};
use crate::draft::{Asked, Probe, Service};
use crate::ledger::Ledger;
use crate::text::Text;
use crate::tree::Node;
use crate::units;

/// A service by which others find it: its checks are what a star is asked.
pub(super) fn registered(context: &Context, ledger: &mut Ledger, service: &mut Service, node: &Node, ports: &Ports) {
    for (key, value) in node.entries() {
        match kind_of(key) {
            "check" => check(context, ledger, service, value, ports),
            "port" => ledger.carried(value, "the service's port"),
            "name" => ledger
                .changed(value, format!("service `{}`: what is registered is called as it is described", service.name)),
            "provider" => ledger.carried(value, "a service is known as soon as it is there"),
            "check_restart" => ledger.left(value, "`live` ends and replaces what fails"),
            _ => ledger.left(value, "a service is known by its name alone"),
        }
    }
}

fn check(context: &Context, ledger: &mut Ledger, service: &mut Service, node: &Node, ports: &Ports) {
    let kind = node.text_at("type").unwrap_or_default();
    let at = node.text_at("port").and_then(|name| ports.get(name)).and_then(|(inside, _)| *inside);
    let elsewhere = at.is_some() && service.port.is_some() && at != service.port;
    let path = resolved(context, node.text_at("path").unwrap_or("/"));
    let asked = match kind {
        _ if elsewhere => None,
        "http" if path.starts_with('/') && !path.contains([' ', '\r', '\n']) => Some(Asked::Http(path)),
        "tcp" => Some(Asked::Tcp),
        "script" => {
            let command = node.text_at("command").map(|word| resolved(context, word));
            let args = node.get("args").and_then(Node::texts).unwrap_or_default();
            command.filter(|word| !word.is_empty()).map(|word| {
                Asked::Exec(
                    std::iter::once(word)
                        .chain(args.iter().map(|word| resolved(context, word)))
                        .map(Text::from)
                        .collect(),
                )
            })
        }
        _ => None,
    };
    let (Some(asked), None) = (asked, &service.ready) else {
        let why = if service.ready.is_some() {
            "a star is asked one thing for being ready"
        } else {
            "a star is asked by HTTP, by TCP at its port, or by a command"
        };
        ledger.left(node, why);
        return;
    };
    let needs_port = !matches!(asked, Asked::Exec(_));
    let mut probe = Probe::new(asked);
    for (key, value) in node.entries() {
        let ms = value.scalar().and_then(units::go_ms);
        match (key.as_str(), ms) {
            ("interval", Some(ms)) => probe.interval_ms = Some(ms),
            ("timeout", Some(ms)) => probe.timeout_ms = Some(ms),
            ("type" | "path" | "port" | "command" | "args" | "name", _) => {}
            ("method", _) if value.scalar() == Some("GET") => {}
            _ => {
                ledger.left(value, "a probe has nothing like it");
                continue;
            }
        }
        ledger.carried(value, "of `ready`");
    }
    if needs_port {
        service.http |= matches!(probe.asked, Asked::Http(_));
    }
    service.ready = Some(probe);
}
