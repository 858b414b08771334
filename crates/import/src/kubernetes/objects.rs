//! Objects that workloads refer to, and what is said of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::ledger::{Ledger, WithHelp as _};
use crate::names::name_of;
use crate::tree::Node;
use crate::units;

/// What is not carried because it is about something that is not here, by its kind.
const NOT_CARRIED: &[(&str, &str)] = &[
    ("HorizontalPodAutoscaler", "services do not scale by themselves yet: `rads c scale`"),
    ("VerticalPodAutoscaler", "services do not scale by themselves yet: `rads c limits`"),
    ("ScaledObject", "services do not scale by themselves yet: `rads c scale`"),
    ("Ingress", "a service's entry point is its own address: requests are not told apart by host and path"),
    ("IngressRoute", "a service's entry point is its own address: requests are not told apart by host and path"),
    ("IngressClass", "a service's entry point is its own address"),
    ("Gateway", "a service's entry point is its own address"),
    ("HTTPRoute", "a service's entry point is its own address: requests are not told apart by host and path"),
    ("VirtualService", "a service's entry point is its own address: requests are not told apart by host and path"),
    ("Route", "a service's entry point is its own address: requests are not told apart by host and path"),
    ("NetworkPolicy", "a star is reached by its entry point alone, and reaches what its `network` lets it"),
    ("PodDisruptionBudget", "`rads c drain` moves stars one after another, each when the next is ready"),
    ("ServiceAccount", "stars have no account: who uses a constellation has a grant (`rads c grant`)"),
    ("Role", "who uses a constellation has a grant (`rads c grant`)"),
    ("RoleBinding", "who uses a constellation has a grant (`rads c grant`)"),
    ("ClusterRole", "who uses a constellation has a grant (`rads c grant`)"),
    ("ClusterRoleBinding", "who uses a constellation has a grant (`rads c grant`)"),
    ("PodSecurityPolicy", "every star has the same walls"),
    ("LimitRange", "limits are each service's own"),
    ("PriorityClass", "services have no priorities"),
    ("StorageClass", "a volume lies in its machine's data folder"),
    ("PersistentVolume", "a volume lies in its machine's data folder"),
    ("VolumeSnapshot", "`rads c snapshot` keeps what a service wrote"),
    ("CustomResourceDefinition", "there are no kinds but those of an app"),
    ("ServiceMonitor", "`rads c stats` and `rads c top` show what stars use"),
    ("PodMonitor", "`rads c stats` and `rads c top` show what stars use"),
    ("PrometheusRule", "there are no alerts yet"),
    ("Certificate", "an entry point speaks HTTP or TCP, and no TLS yet"),
    ("Issuer", "an entry point speaks HTTP or TCP, and no TLS yet"),
    ("ClusterIssuer", "an entry point speaks HTTP or TCP, and no TLS yet"),
    ("Endpoints", "a service's stars are its endpoints"),
    ("EndpointSlice", "a service's stars are its endpoints"),
    ("MutatingWebhookConfiguration", "nothing stands between a change and the log"),
    ("ValidatingWebhookConfiguration", "nothing stands between a change and the log"),
    ("APIService", "there is no API to add to"),
    ("Kustomization", "it names other files: import what `kubectl kustomize` prints"),
    ("HelmRelease", "it names a chart: import what `helm template` prints"),
    ("HelmChart", "it names a chart: import what `helm template` prints"),
    ("Application", "it names other files: import those"),
    ("SealedSecret", "its value is sealed for a cluster: set it with `rads c secrets set`"),
    ("ExternalSecret", "its value lies elsewhere: set it with `rads c secrets set`"),
];

/// Every text of an object.
fn named(node: &Node, names: &mut BTreeSet<String>) {
    names.extend(node.scalar().map(str::to_owned));
    node.items().iter().for_each(|item| named(item, names));
    node.entries().iter().for_each(|(_, value)| named(value, names));
}

/// Kinds that hold what others are told with.
pub(super) struct Objects {
    by_kind: BTreeMap<(String, String), Rc<Node>>,
    services: Vec<Node>,
    /// ConfigMaps and Secrets that something took something of.
    used: BTreeSet<(String, String)>,
    /// Which of them took their port from which Service, by its number in the ledger.
    entered: BTreeSet<usize>,
    /// Whatever Ingresses name.
    led_to: BTreeSet<String>,
}

impl Objects {
    pub(super) fn of(all: &[Node]) -> Self {
        let mut by_kind = BTreeMap::new();
        let (mut services, mut led_to) = (Vec::new(), BTreeSet::new());
        for object in all {
            let kind = object.text_at("kind").unwrap_or_default();
            let name = object.at(&["metadata", "name"]).and_then(Node::scalar).unwrap_or_default();
            match kind {
                "Service" => services.push(object.clone()),
                "Ingress" => named(object, &mut led_to),
                "ConfigMap" | "Secret" | "PersistentVolumeClaim" => {
                    by_kind.entry((kind.to_owned(), name.to_owned())).or_insert_with(|| Rc::new(object.clone()));
                }
                _ => {}
            }
        }
        Self { by_kind, services, used: BTreeSet::new(), entered: BTreeSet::new(), led_to }
    }

    /// An object by its name; it counts as used from now on.
    pub(super) fn get(&mut self, kind: &str, name: &str) -> Option<Rc<Node>> {
        let key = (kind.to_owned(), name.to_owned());
        let found = self.by_kind.get(&key).cloned();
        if found.is_some() {
            self.used.insert(key);
        }
        found
    }

    /// The Services that choose pods of these labels.
    pub(super) fn services_for(&self, labels: Option<&Node>) -> Vec<Node> {
        let chosen = |service: &&Node| {
            let selector = service.at(&["spec", "selector"]).map(Node::entries).unwrap_or_default();
            let has = |(key, value): &(String, Node)| {
                labels.and_then(|labels| labels.get(key)).and_then(Node::scalar) == value.scalar()
            };
            !selector.is_empty() && selector.iter().all(has)
        };
        self.services.iter().filter(chosen).cloned().collect()
    }

    /// That a Service became the entry point of something.
    pub(super) fn entered(&mut self, service: &Node) -> bool {
        self.entered.insert(service.id)
    }

    /// Whether an Ingress leads to a Service.
    pub(super) fn has_ingress(&self, service: &str) -> bool {
        self.led_to.contains(service)
    }

    /// Tells of an object what its workloads have not told.
    pub(super) fn tell(&self, ledger: &mut Ledger, object: &Node) {
        let kind = object.text_at("kind").unwrap_or_default();
        let name = object.at(&["metadata", "name"]).and_then(Node::scalar).unwrap_or_default();
        match kind {
            "ConfigMap" => {
                let used = self.used.contains(&(kind.to_owned(), name.to_owned()));
                match used {
                    true => ledger.carried(object, format!("config `{name}`, where services use it")),
                    false => ledger.left(object, format!("config `{name}`: no service of the app uses it")),
                }
            }
            "Secret" => secret(ledger, object, name),
            "Service" if !self.entered.contains(&object.id) => {
                let headless = object.at(&["spec", "clusterIP"]).and_then(Node::scalar) == Some("None");
                let external = object.at(&["spec", "externalName"]).is_some();
                let text = match (headless, external) {
                    (_, true) => "another name for what is elsewhere: stars ask for that themselves",
                    (true, _) => "stars are not found by names",
                    _ => "none of the app's services is chosen by it",
                };
                ledger.left(object, text);
            }
            "Namespace" => namespace(ledger, object, name),
            "ResourceQuota" => quota(ledger, object),
            "PersistentVolumeClaim" => claim(ledger, object, self.used.contains(&(kind.to_owned(), name.to_owned()))),
            "" => {
                ledger.left(object, "it has no `kind`");
            }
            _ => {
                head(ledger, object, false);
                if let Some((_, why)) = NOT_CARRIED.iter().find(|(known, _)| *known == kind) {
                    ledger.left(object, *why);
                }
            }
        }
        head(ledger, object, true);
        if ledger.is_open(object) && !is_workload(kind) {
            ledger.left(object, format!("an app has nothing like a {kind}"));
        }
    }
}

fn is_workload(kind: &str) -> bool {
    matches!(
        kind,
        "Deployment"
            | "StatefulSet"
            | "DaemonSet"
            | "ReplicaSet"
            | "ReplicationController"
            | "Pod"
            | "Job"
            | "CronJob"
            | "Service"
    )
}

/// What an object says of itself. Of one that is not carried it is told with the whole.
fn head(ledger: &mut Ledger, object: &Node, carried: bool) {
    let kind = object.text_at("kind").unwrap_or_default();
    if !carried || !is_workload(kind) {
        return;
    }
    for key in ["apiVersion", "kind"] {
        if let Some(node) = object.get(key).filter(|node| ledger.is_open(node)) {
            ledger.carried(node, "what it is");
        }
    }
    metadata(ledger, object.get("metadata"));
    if let Some(status) = object.get("status").filter(|status| ledger.is_open(status)) {
        ledger.left(status, "how it was, not how it is to be");
    }
}

/// A namespace is there as soon as something of the app is in it.
fn namespace(ledger: &mut Ledger, object: &Node, name: &str) {
    match ledger.namespace.as_deref() == Some(name) || name == "default" {
        true => ledger.carried(object, format!("namespace `{name}`: it is there when something is in it")),
        false => ledger.left(
            object,
            format!("namespace `{name}`: nothing of the app is in it").help(format!("`rads c ns create {name}`")),
        ),
    }
}

/// What a namespace may have is no app's to say; the command that says it is told.
fn quota(ledger: &mut Ledger, object: &Node) {
    let namespace = object.at(&["metadata", "namespace"]).and_then(Node::scalar).map(str::to_owned);
    let namespace = namespace.or_else(|| ledger.namespace.clone()).unwrap_or_else(|| "default".to_owned());
    for (key, value) in object.at(&["spec", "hard"]).map(Node::entries).unwrap_or_default() {
        let text = value.scalar().unwrap_or_default();
        let megabytes = || units::quantity_bytes(text).map(|bytes| (bytes >> 20).to_string());
        let said = match key.as_str() {
            "pods" | "count/pods" => text.parse::<u64>().ok().map(|count| format!("instances={count}")),
            "limits.cpu" => units::quantity_milli(text).map(|milli| format!("cpu_percent={}", milli / 10)),
            "limits.memory" => megabytes().map(|megabytes| format!("ram_mb={megabytes}")),
            "requests.storage" => megabytes().map(|megabytes| format!("disk_mb={megabytes}")),
            "count/deployments.apps" => text.parse::<u64>().ok().map(|count| format!("services={count}")),
            _ => None,
        };
        match said {
            Some(said) => ledger.left(
                value,
                "a namespace is given its quota beside the app"
                    .help(format!("`rads c ns set {} --quota {said}`", name_of(&namespace, "default"))),
            ),
            None => ledger.left(value, "a quota counts services, stars and their limits"),
        }
    }
    ledger.left(object, "a quota counts all services of its namespace");
}

/// Labels and the like.
pub(super) fn metadata(ledger: &mut Ledger, metadata: Option<&Node>) {
    let Some(metadata) = metadata else { return };
    for (key, value) in metadata.entries() {
        if !ledger.is_open(value) {
            continue;
        }
        match key.as_str() {
            "labels" => ledger.carried(value, "Services choose by them, which is done; services have no labels"),
            "annotations" => ledger.left(value, "services have no annotations"),
            "name" => ledger.carried(value, "its name"),
            _ => ledger.left(value, "a cluster's own notes"),
        }
    }
}

/// The value of a secret goes nowhere: it is set beside the app, by its name.
fn secret(ledger: &mut Ledger, object: &Node, name: &str) {
    for (part, encoded) in [("data", true), ("stringData", false)] {
        for (key, value) in object.get(part).map(Node::entries).unwrap_or_default() {
            let called = secret_name(name, key);
            let decode = if encoded { " (the value is Base64: decode it with `base64 -d`)" } else { "" };
            ledger.changed(
                value,
                format!("secret `{called}`: its value is not in the app")
                    .help(format!("{}{decode}", ledger.how_to_set(&called))),
            );
        }
    }
    for (key, value) in object.entries().iter().filter(|(key, _)| !matches!(key.as_str(), "data" | "stringData")) {
        if ledger.is_open(value) {
            let text = if key == "type" { "a secret is bytes of any kind" } else { "what it is" };
            ledger.carried(value, text);
        }
    }
}

/// What a key of a Secret is called here.
pub(super) fn secret_name(object: &str, key: &str) -> String {
    name_of(&format!("{object}-{key}"), "secret")
}

fn claim(ledger: &mut Ledger, object: &Node, used: bool) {
    if !used {
        ledger.left(object, "no service of the app mounts it");
        return;
    }
    let request = object.at(&["spec", "resources", "requests", "storage"]);
    if let Some(request) = request {
        ledger.carried(request, "size_mb of the volume");
    }
    for (key, value) in object.get("spec").map(Node::entries).unwrap_or_default() {
        if ledger.is_open(value) {
            let text = match key.as_str() {
                "accessModes" => "a volume is seen by the stars of its machine",
                _ => "a volume lies in its machine's data folder",
            };
            ledger.left(value, text);
        }
    }
    for (key, value) in object.entries() {
        if key != "spec" && ledger.is_open(value) {
            ledger.carried(value, "the volume");
        }
    }
}
