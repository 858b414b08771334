//! Probes: three questions, which a star is asked under nearly the same names.

use crate::draft::{Asked, Probe, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::text::Text;
use crate::tree::Node;

pub(super) fn read(ledger: &mut Ledger, service: &mut Service, container: &Node) {
    for key in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let Some(node) = container.get(key) else { continue };
        let Some(asked) = asked(ledger, service, container, node) else { continue };
        let mut probe = Probe::new(asked);
        // What Kubernetes has when nothing is said.
        (probe.interval_ms, probe.failures) = (Some(10_000), Some(3));
        let mut delay = 0;
        for (name, value) in node.entries() {
            let number = value.int().and_then(|number| u64::try_from(number).ok());
            match (name.as_str(), number) {
                ("periodSeconds", Some(seconds)) => probe.interval_ms = Some(seconds.saturating_mul(1000)),
                ("timeoutSeconds", Some(seconds)) => probe.timeout_ms = Some(seconds.saturating_mul(1000)),
                ("failureThreshold", Some(count)) => probe.failures = Some(count),
                ("initialDelaySeconds", Some(seconds)) => {
                    delay = seconds;
                    ledger.changed(value, "a star is asked from its start on, and has that much longer for it");
                    continue;
                }
                ("successThreshold", Some(1)) => {}
                ("successThreshold", _) => {
                    ledger.left(value, "one success is enough");
                    continue;
                }
                ("terminationGracePeriodSeconds", _) => {
                    ledger.left(value, "a star has one grace");
                    continue;
                }
                _ => continue,
            }
            ledger.carried(value, "of the probe");
        }
        let tries = probe.failures.unwrap_or(3).saturating_mul(probe.interval_ms.unwrap_or(10_000));
        let start = delay.saturating_mul(1000).saturating_add(tries);
        match key {
            "startupProbe" => {
                (probe.start_ms, probe.failures) = (Some(start), None);
                service.startup = Some(probe);
            }
            "readinessProbe" => {
                // Kubernetes waits for ever; a star that never gets ready is replaced.
                probe.start_ms = Some(start.max(60_000));
                service.ready = Some(probe);
            }
            _ => service.live = Some(probe),
        }
    }
}

fn asked(ledger: &mut Ledger, service: &Service, container: &Node, node: &Node) -> Option<Asked> {
    if let Some(words) = node.at(&["exec", "command"]).and_then(Node::texts).filter(|words| !words.is_empty()) {
        if let Some(exec) = node.get("exec") {
            ledger.carried(exec, "what is run within the star");
        }
        return Some(Asked::Exec(words.into_iter().map(Text::from).collect()));
    }
    let (how, is_http) = match (node.get("httpGet"), node.get("tcpSocket")) {
        (Some(http), _) => (http, true),
        (None, Some(tcp)) => (tcp, false),
        (None, None) => {
            ledger.left(node, "a star is asked by HTTP, by TCP or by a command");
            return None;
        }
    };
    let named = |name: &str| {
        let ports = container.get("ports").map(Node::items).unwrap_or_default();
        ports.iter().find(|port| port.text_at("name") == Some(name))?.get("containerPort")?.int()
    };
    let port = how.get("port").and_then(|port| port.int().or_else(|| named(port.scalar()?)));
    if port.is_none() || port != service.port.map(i64::from) {
        let at = port.map_or_else(|| "its port".to_owned(), |port| format!("port {port}"));
        ledger.left(
            node,
            format!("it asks at {at}, and a star is asked at its service's")
                .help("ask by a command that runs in the star: {exec: [...]}"),
        );
        return None;
    }
    for (key, value) in how.entries() {
        match key.as_str() {
            "path" | "port" => ledger.carried(value, "where the star is asked"),
            "scheme" if value.scalar() == Some("HTTP") => ledger.carried(value, "where the star is asked"),
            "scheme" => ledger.changed(value, "by a connection: a star is not asked by HTTPS"),
            "httpHeaders" => ledger.left(value, "a probe has no headers of its own"),
            "host" => ledger.left(value, "a star is asked itself"),
            _ => {}
        }
    }
    let secure = how.text_at("scheme") == Some("HTTPS");
    let path = how.text_at("path").unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let sound = !path.contains([' ', '\r', '\n']);
    Some(if is_http && !secure && sound { Asked::Http(path) } else { Asked::Tcp })
}
