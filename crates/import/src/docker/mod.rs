//! What `docker run` and compose have in common: images, ports, mounts, and what a container is given.

pub(crate) mod compose;
pub(crate) mod image;
pub(crate) mod mounts;
pub(crate) mod ports;
pub(crate) mod run;
mod settings;

pub(crate) use settings::{bounded, cap_add};

use crate::draft::{Restart, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::Node;

/// A restart policy, as `unless-stopped` or `on-failure:3`.
fn restart(ledger: &mut Ledger, service: &mut Service, node: &Node, policy: &str) {
    let (policy, retries) = policy.split_once(':').map_or((policy, None), |(policy, retries)| (policy, Some(retries)));
    let (restart, shown) = match policy {
        "always" | "unless-stopped" | "any" => (Restart::Always, "always"),
        "on-failure" => (Restart::OnFailure, "on_failure"),
        "no" | "none" | "false" | "" => (Restart::Never, "never"),
        other => {
            ledger.left(node, format!("no restart policy is called `{other}`"));
            return;
        }
    };
    service.restart = Some(restart);
    let text = format!("restart: \"{shown}\"");
    match (policy, retries) {
        (_, Some(retries)) => ledger.changed(node, format!("{text}; not at most {retries} times, with growing delays")),
        ("unless-stopped", None) => ledger.carried(node, format!("{text}; what `rads c stop` stops stays stopped")),
        _ => ledger.carried(node, text),
    }
}

/// What there is to say of a service whose description says nothing of restarts.
fn without_restart(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    use crate::report::Verdict;
    if service.restart.is_some() {
        return;
    }
    if service.port.is_some() {
        service.restart = Some(Restart::Always);
        let text = "a star that ends is started again; a container without a restart policy is not";
        ledger.note(Verdict::Changed, node, text.help("write restart: \"never\" for what ends by itself"));
    } else {
        service.restart = Some(Restart::Never);
        let text = "restart: \"never\", as of a container without a restart policy";
        ledger.note(Verdict::Carried, node, text);
    }
}
