//! Kubernetes manifests: what each kind of object becomes.
//!
//! Workloads become services (`workload`, `container`), Jobs among them (`job`); Services give them their entry points, ConfigMaps and Secrets their
//! variables and files (`objects`). Objects about other objects of a cluster have nothing here to be about.

mod container;
mod job;
mod objects;
mod placement;
mod probes;
mod update;
mod volumes;
mod workload;

use model::{Code, Problem};

use crate::docker::image::Images;
use crate::draft::App;
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::{NODES_MAX, Node};
use crate::{Source, text_of, yaml};

use objects::Objects;

/// Deepest nesting of lists of objects.
const LISTS_MAX: usize = 4;

pub(crate) fn read(source: &Source<'_>, ledger: &mut Ledger, app: &mut App) -> Result<(), Problem> {
    let images = Images::of(source)?;
    let mut all = Vec::new();
    let mut nodes = 0;
    for file in source.files {
        for mut document in yaml::documents(&file.name, text_of(file)?)? {
            nodes += document.count();
            if nodes > NODES_MAX * 4 {
                let message = format!("the files hold more than {} values", NODES_MAX * 4);
                return Err(Problem::new(Code::FileUnreadable, message).help("import fewer at once"));
            }
            if document.is_null() {
                continue;
            }
            let path = label(&document);
            ledger.enter(&mut document, &file.name, &path);
            unfold(ledger, document, LISTS_MAX, &mut all);
        }
    }
    if !all.iter().any(|object| object.get("kind").is_some()) {
        return Err(Problem::new(Code::FileUnreadable, "there is no Kubernetes object in it")
            .help("an object has a `kind`; templates are imported as what they render to, as of `helm template`"));
    }
    ledger.namespace = namespace(&all);
    let mut objects = Objects::of(&all);
    for object in &all {
        let kind = object.text_at("kind").unwrap_or_default();
        match kind {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Pod" => {
                workload::read(ledger, app, &images, &mut objects, object, kind, None);
            }
            "Job" | "CronJob" => job::read(ledger, app, &images, &mut objects, object, kind),
            _ => {}
        }
    }
    tell_namespaces(ledger, app, &all);
    for object in &all {
        objects.tell(ledger, object);
    }
    Ok(())
}

/// `Deployment/web `, before the keys of an object.
fn label(object: &Node) -> String {
    let kind = object.text_at("kind").unwrap_or("?");
    match object.at(&["metadata", "name"]).and_then(Node::scalar) {
        Some(name) => format!("{kind}/{name} "),
        None => format!("{kind} "),
    }
}

/// A `List` is what it lists.
fn unfold(ledger: &mut Ledger, object: Node, depth: usize, all: &mut Vec<Node>) {
    let is_list = object.text_at("kind").is_some_and(|kind| kind.ends_with("List") || kind == "Template");
    let items = object.get("items").or_else(|| object.get("objects")).filter(|items| items.is_list());
    match items {
        Some(items) if is_list && depth > 0 => {
            for (key, value) in object.entries() {
                if matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    ledger.carried(value, "a list of objects");
                }
            }
            items.items().to_vec().into_iter().for_each(|item| unfold(ledger, item, depth - 1, all));
        }
        _ => all.push(object),
    }
}

fn named_namespaces(all: &[Node]) -> impl Iterator<Item = &Node> {
    all.iter().filter_map(|object| object.at(&["metadata", "namespace"]))
}

/// The namespace that all objects name, if it is one and not the default.
fn namespace(all: &[Node]) -> Option<String> {
    let first = named_namespaces(all).next()?.scalar()?;
    let sound = first.parse::<model::Name>().is_ok() && named_namespaces(all).all(|node| node.scalar() == Some(first));
    (sound && first != "default").then(|| first.to_owned())
}

fn tell_namespaces(ledger: &mut Ledger, app: &mut App, all: &[Node]) {
    let namespace = ledger.namespace.clone();
    app.services.iter_mut().for_each(|service| service.namespace.clone_from(&namespace));
    for node in named_namespaces(all) {
        match node.scalar() {
            Some("default") if namespace.is_none() => ledger.carried(node, "namespace `default`"),
            name if name.is_some() && name == namespace.as_deref() => {
                ledger.carried(node, format!("namespace `{}`", name.unwrap_or_default()));
            }
            _ => ledger.left(
                node,
                "one app is in one namespace, by a name of a-z, 0-9 and `-`".help("import each namespace by itself"),
            ),
        }
    }
}
