//! What `docker run` and compose have in common: images, ports, mounts, and what a container is given.

pub(crate) mod compose;
pub(crate) mod image;
pub(crate) mod mounts;
pub(crate) mod ports;
pub(crate) mod run;
mod settings;

pub(crate) use settings::{bounded, cap_add, kept_cpu};

use crate::draft::{Job, Restart, Service};
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
    if let Some(job) = &mut service.job {
        tries(ledger, job, node, restart, retries);
        return;
    }
    let text = format!("restart: \"{shown}\"");
    match (policy, retries) {
        (_, Some(retries)) => ledger.changed(node, format!("{text}; not at most {retries} times, with growing delays")),
        ("unless-stopped", None) => ledger.carried(node, format!("{text}; what `rads c stop` stops stays stopped")),
        _ => ledger.carried(node, text),
    }
}

/// How often a part of a job is tried, by the same policy.
fn tries(ledger: &mut Ledger, job: &mut Job, node: &Node, restart: Restart, retries: Option<&str>) {
    match (restart, retries.and_then(|retries| retries.parse::<u64>().ok())) {
        (Restart::Never, _) => {
            job.retries = Some(0);
            ledger.carried(node, "retries: 0");
        }
        (_, Some(count)) => bounded(ledger, node, "retries", job.set_retries(count)),
        _ => ledger
            .changed(node, "a part of a job that fails is tried again three times, and has ended when it ended well"),
    }
}

/// What there is to say of a service whose description says nothing of restarts.
fn without_restart(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    use crate::report::Verdict;
    if service.restart.is_some() {
        return;
    }
    if let Some(job) = &mut service.job {
        job.retries = job.retries.or(Some(0));
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
