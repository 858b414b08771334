//! Files that tasks see: mounts, and what Nomad renders for them.

use super::Context;
use super::task::resolved;
use crate::docker::mounts;
use crate::draft::{App, Service};
use crate::env;
use crate::ledger::{Ledger, WithHelp as _};
use crate::report::Verdict;
use crate::tree::Node;
use crate::units;

/// A mount, field by field.
pub(super) fn mounted(context: &Context, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node) {
    let text = |key: &str| resolved(context, node.text_at(key).unwrap_or_default());
    let read_only = node.get("readonly").or_else(|| node.get("read_only")).is_some_and(Node::is_true);
    let size = node.at(&["tmpfs_options", "size"]).and_then(Node::scalar).and_then(units::docker_bytes);
    let mut mount = mounts::Mount { source: text("source"), target: text("target"), read_only, size };
    match node.text_at("type").unwrap_or("volume") {
        "tmpfs" => crate::docker::run::tmpfs(ledger, service, node, &mount.target, size),
        "bind" => {
            mount.source = in_task(&mount.source);
            mounts::take(app, ledger, service, node, &mount, None);
        }
        "volume" => mounts::take(app, ledger, service, node, &mount, None),
        other => ledger.left(node, format!("a mount of type `{other}`")),
    }
}

/// A path that is none of the host is one of the task's own folder, where its templates go.
pub(super) fn in_task(source: &str) -> String {
    match source {
        _ if source.starts_with("local/") => format!("./config/{source}"),
        _ if source.starts_with("/local/") => format!("./config{source}"),
        _ if source.starts_with(['/', '.', '~']) => source.to_owned(),
        _ => format!("./{source}"),
    }
}

/// A file that Nomad renders: one of the app, when nothing in it has to be.
pub(super) fn template(context: &Context, ledger: &mut Ledger, app: &mut App, service: &mut Service, node: &Node) {
    let destination = resolved(context, node.text_at("destination").unwrap_or_default());
    let data = node.text_at("data").unwrap_or_default();
    if data.is_empty() || data.contains("{{") {
        ledger.left(
            node,
            format!("a template for `{destination}`: what it looks up is Nomad's to know")
                .help("write the file beside the app and name it in `binds`; secrets are `secrets` and `env_secrets`"),
        );
        return;
    }
    if node.get("env").is_some_and(Node::is_true) {
        ledger.carried(node, "the variables in it");
        for (name, value) in env::file(data.as_bytes()).entries() {
            let text = value.scalar().unwrap_or_default();
            if env::is_secret(name, text) {
                let secret = app.secret(name, text, &service.name);
                let _ = service.secret_variable(name, secret.clone());
                ledger.note(
                    Verdict::Changed,
                    node,
                    format!("variable `{name}` is secret `{secret}`").help(ledger.how_to_set(&secret)),
                );
            } else if let Err(why) = service.variable(name, text.into()) {
                ledger.note(Verdict::NotCarried, node, format!("variable `{name}`: {why}"));
            }
        }
        return;
    }
    let path = if destination.starts_with('/') {
        destination.clone()
    } else {
        format!("/{}", crate::draft::normal(&destination))
    };
    let source = format!("config/{}", crate::draft::normal(path.trim_start_matches('/')));
    match service.bind(&path, &source) {
        Ok(_) => {
            app.files.insert(source.clone(), data.as_bytes().to_vec());
            ledger.changed(
                node,
                format!("`{source}` of the app's folder at {path}")
                    .help("the program's own path to it may have to follow"),
            );
        }
        Err(why) => ledger.left(node, format!("a file at `{destination}`: {why}")),
    }
}
