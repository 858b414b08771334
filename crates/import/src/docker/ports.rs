//! Published ports. A service has one: the first that is published, or else the first that is exposed.

use crate::draft::{App, Listen, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::Node;

/// Ports on which programs usually speak HTTP. On others each connection is balanced as a whole, which is right for everything.
const HTTP_PORTS: [u16; 9] = [80, 8080, 3000, 8000, 5000, 8081, 8888, 9090, 4000];

pub(crate) fn is_usually_http(port: u16) -> bool {
    HTTP_PORTS.contains(&port)
}

/// A port as `-p` has it: `[[IP:]PORT:]PORT[/PROTOCOL]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Published {
    ip: String,
    host: Option<(u16, u16)>,
    inside: (u16, u16),
    protocol: String,
}

fn parse(text: &str) -> Option<Published> {
    let (text, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (text, inside) = match text.rsplit_once(':') {
        Some((rest, inside)) => (Some(rest), inside),
        None => (None, text),
    };
    let (ip, host) = match text {
        None => ("", None),
        Some(rest) => match rest.rsplit_once(':') {
            Some((ip, host)) => (ip, Some(host)),
            None if rest.parse::<std::net::IpAddr>().is_ok() => (rest, None),
            None => ("", Some(rest)),
        },
    };
    let host = match host {
        None | Some("") => None,
        Some(host) => Some(range(host)?),
    };
    Some(Published {
        ip: ip.trim_matches(['[', ']']).to_owned(),
        host,
        inside: range(inside)?,
        protocol: protocol.to_ascii_lowercase(),
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first != 0 && first <= last).then_some((first, last))
}

/// Takes over a port that is published.
pub(crate) fn publish(app: &mut App, ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    let Some(published) = parse(text.trim()) else {
        ledger.left(node, format!("`{}` is no port", text.trim()));
        return;
    };
    take(app, ledger, service, node, published);
}

/// The same in the long form of compose.
pub(crate) fn publish_long(app: &mut App, ledger: &mut Ledger, service: &mut Service, node: &Node) {
    let value = |key: &str| node.text_at(key).map(|text| crate::text::interpolated(text).0.by_default());
    let inside = value("target").and_then(|target| range(&target));
    let host = value("published").filter(|published| !published.is_empty() && published != "0");
    let host = host.map(|published| range(&published));
    let (Some(inside), None | Some(Some(_))) = (inside, host) else {
        ledger.left(node, "it names no port");
        return;
    };
    let published = Published {
        ip: value("host_ip").unwrap_or_default(),
        host: host.flatten(),
        inside,
        protocol: value("protocol").unwrap_or_else(|| "tcp".to_owned()).to_ascii_lowercase(),
    };
    if value("app_protocol").is_some_and(|protocol| protocol.starts_with("http")) && service.port.is_none() {
        service.http = true;
    }
    take(app, ledger, service, node, published);
}

fn take(app: &mut App, ledger: &mut Ledger, service: &mut Service, node: &Node, published: Published) {
    let Published { ip, host, inside, protocol } = published;
    let port = inside.0;
    if protocol != "tcp" {
        ledger.left(node, format!("port {port}/{protocol}: requests come in by TCP"));
        return;
    }
    if let Some(known) = service.port.filter(|known| *known != port) {
        let text = format!("port {port}: a service has one port, and `{}` has {known}", service.name);
        ledger.left(node, text.help("a program that serves several ports takes a service for each"));
        return;
    }
    if service.port == Some(port) && service.listen.as_ref().is_some_and(|listen| listen.ip != Listen::HERE) {
        ledger.left(node, format!("port {port} is published elsewhere already"));
        return;
    }
    let ip = if ip.is_empty() || ip.parse::<std::net::IpAddr>().is_ok() { ip } else { String::new() };
    let wanted = Listen::new(&ip, host.map_or(0, |(first, _)| first));
    let (listen, free) = app.listen(wanted.clone());
    service.port = Some(port);
    service.http |= is_usually_http(port);
    service.listen = Some(listen);
    let how = if service.http { "http" } else { "tcp" };
    let where_to = if wanted.port == 0 { "any free port".to_owned() } else { wanted.shown() };
    let text = format!("{where_to} leads to port {port}, by {how}");
    if !free {
        ledger.changed(
            node,
            format!("{text}; another service listens there: any free port").help("give it another `listen`"),
        );
    } else if inside.0 != inside.1 {
        ledger.changed(node, format!("{text}; of a range of ports the first"));
    } else {
        ledger.carried(node, text);
    }
}

/// Takes over a port that is exposed: others reach it on this machine alone.
pub(crate) fn expose(app: &mut App, ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    let plain = text.trim();
    let (number, protocol) = plain.split_once('/').unwrap_or((plain, "tcp"));
    let Some((port, _)) = range(number) else {
        ledger.left(node, format!("`{plain}` is no port"));
        return;
    };
    if protocol != "tcp" {
        ledger.left(node, format!("port {plain}: requests come in by TCP"));
        return;
    }
    match service.port {
        Some(known) if known == port => ledger.carried(node, format!("port {port}, which is published")),
        Some(known) => {
            ledger.left(node, format!("port {port}: a service has one port, and `{}` has {known}", service.name));
        }
        None => {
            let (listen, free) = app.listen(Listen::new(Listen::HERE, port));
            service.port = Some(port);
            service.http |= is_usually_http(port);
            let where_to = if free { format!("127.0.0.1:{port}") } else { "any free port".to_owned() };
            service.listen = Some(listen);
            ledger.changed(node, format!("port {port} is reached at {where_to} of this machine"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_every_form() {
        let check = |text: &str, ip: &str, host: Option<u16>, inside: u16, protocol: &str| {
            let read = parse(text).unwrap();
            assert_eq!(
                (read.ip.as_str(), read.host.map(|host| host.0), read.inside.0, read.protocol.as_str()),
                (ip, host, inside, protocol),
                "{text}"
            );
        };
        check("80", "", None, 80, "tcp");
        check("8080:80", "", Some(8080), 80, "tcp");
        check("127.0.0.1:8080:80", "127.0.0.1", Some(8080), 80, "tcp");
        check("127.0.0.1::80", "127.0.0.1", None, 80, "tcp");
        check("[::1]:8080:80/tcp", "::1", Some(8080), 80, "tcp");
        check("53:53/udp", "", Some(53), 53, "udp");
        check("8000-8010:9000-9010", "", Some(8000), 9000, "tcp");
        for bad in ["", "x", "0", "80:", "70000", "9-8", "80:x", "a:b:c:d"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
