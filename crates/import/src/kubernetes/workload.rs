//! A workload and its pods: every container becomes a service.

use crate::docker::image::Images;
use crate::docker::ports::is_usually_http;
use crate::draft::{App, Job, Listen, Restart, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::names::name_of;
use crate::report::Verdict;
use crate::tree::Node;

use super::container::{self, Container};
use super::objects::{self, Objects};
use super::{job, placement, update, volumes};

/// A pod's grace when it says nothing.
const GRACE_DEFAULT_MS: u64 = 30_000;

pub(super) fn read(
    ledger: &mut Ledger,
    app: &mut App,
    images: &Images,
    objects: &mut Objects,
    object: &Node,
    kind: &str,
    job: Option<Job>,
) {
    let name = object.at(&["metadata", "name"]).or_else(|| object.at(&["metadata", "generateName"]));
    let name = name.and_then(Node::scalar).unwrap_or("pod").to_owned();
    let (spec, pod, labels) = match kind {
        "Pod" => (None, object.get("spec"), object.at(&["metadata", "labels"])),
        _ => {
            let spec = match kind {
                "CronJob" => object.at(&["spec", "jobTemplate", "spec"]),
                _ => object.get("spec"),
            };
            let template = spec.and_then(|spec| spec.get("template"));
            let labels = template.and_then(|template| template.at(&["metadata", "labels"]));
            (spec, template.and_then(|template| template.get("spec")), labels)
        }
    };
    let Some(pod) = pod else {
        ledger.left(object, "it describes no pod");
        return;
    };
    let containers = pod.get("containers").map(Node::items).unwrap_or_default();
    if containers.is_empty() {
        ledger.left(object, "its pod has no containers");
        return;
    }
    let chosen_by = objects.services_for(labels);
    let claims = spec.and_then(|spec| spec.get("volumeClaimTemplates")).map(Node::items).unwrap_or_default();
    let mut made = Vec::new();
    for (at, node) in containers.iter().enumerate() {
        let own = node.text_at("name").unwrap_or("container");
        let wanted = if at == 0 { name_of(&name, "pod") } else { name_of(&format!("{name}-{own}"), "pod") };
        let mut service = Service::new(app.service_name(&wanted), node);
        service.job.clone_from(&job);
        let told = format!("{} `{}`", if job.is_some() { "job" } else { "service" }, service.name);
        if let Some(own) = node.get("name") {
            ledger.carried(own, told);
        }
        let context = Container { images, pod, claims, workload: &name, alone: containers.len() == 1 };
        container::read(&context, ledger, app, objects, &mut service, node);
        entry(ledger, app, objects, &mut service, node, &chosen_by, at == 0);
        container::ask(ledger, &mut service, node);
        made.push(service);
    }
    if containers.len() > 1 {
        let names: Vec<String> = made.iter().map(|service| format!("`{}`", service.name)).collect();
        let text = format!(
            "containers of a pod are services of their own ({}): they do not share a network",
            names.join(", ")
        );
        let help = "one that serves the others and never ends keeps a run from ending: take its `job` out";
        match job.is_some() {
            true => ledger.note(Verdict::Changed, pod, text.help(help)),
            false => ledger.note(Verdict::Changed, pod, text),
        }
    }
    for (at, init) in pod.get("initContainers").map(Node::items).unwrap_or_default().iter().enumerate() {
        container::init(ledger, &mut made[0], containers, init, at);
    }
    for (at, service) in made.iter_mut().enumerate() {
        match spec {
            Some(spec) if service.job.is_some() => job::spec(ledger, service, spec, at == 0),
            Some(spec) => workload(ledger, service, spec, kind, at == 0),
            None => {}
        }
        pod_spec(ledger, service, pod, kind, labels);
        if kind == "DaemonSet" {
            match service.put_everywhere() {
                Ok(told) => ledger.note(Verdict::Carried, object, told),
                Err(told) => ledger.note(Verdict::Changed, object, told),
            }
        }
    }
    for claim in claims {
        volumes::claim_template(ledger, claim, made[0].instances.unwrap_or(1) > 1);
    }
    if let Some(template) = spec.and_then(|spec| spec.get("template")) {
        objects::metadata(ledger, template.get("metadata"));
    }
    for declared in pod.get("volumes").map(Node::items).unwrap_or_default() {
        volumes::declared(ledger, declared);
    }
    app.services.extend(made);
}

/// How many there are and how they are replaced.
fn workload(ledger: &mut Ledger, service: &mut Service, spec: &Node, kind: &str, first: bool) {
    for (key, value) in spec.entries() {
        match key.as_str() {
            "replicas" => match value.int().and_then(|count| u64::try_from(count).ok()) {
                Some(count) => {
                    let bounded = service.set_instances(count);
                    if first {
                        container::bounded(ledger, value, "instances", bounded);
                    }
                }
                None => ledger.left(value, "it is no number"),
            },
            "selector" if first => ledger.carried(value, "its own pods"),
            "revisionHistoryLimit" if first => ledger.left(value, "what an app was is in its file's history"),
            "progressDeadlineSeconds" | "minReadySeconds" | "strategy" | "updateStrategy" => {}
            "paused" if first && value.is_true() => ledger.left(value, "a change is made when `rads up` is told to"),
            "paused" if first => ledger.carried(value, "it is off"),
            "serviceName" if first => ledger.left(value, "stars are not found by names"),
            "podManagementPolicy" if first => {
                ledger.left(value, "stars start together and are replaced one after another")
            }
            "persistentVolumeClaimRetentionPolicy" if first => {
                ledger.carried(value, "volumes stay until they are deleted")
            }
            "ordinals" if first => ledger.left(value, "stars are numbered from 1"),
            _ => {}
        }
    }
    update::read(ledger, service, spec, kind, first);
    let single = service.instances.unwrap_or(1) <= 1;
    let recreate = spec.at(&["strategy", "type"]).and_then(Node::scalar) == Some("Recreate");
    if single && (kind == "StatefulSet" || recreate) {
        service.singleton = true;
        if first && kind == "StatefulSet" {
            ledger.note(
                Verdict::Carried,
                spec,
                "singleton: never more than one star of it, as of one pod of a StatefulSet",
            );
        }
    }
}

/// What all containers of a pod share.
fn pod_spec(ledger: &mut Ledger, service: &mut Service, pod: &Node, kind: &str, labels: Option<&Node>) {
    service.network = service.network.or(Some("bridge"));
    service.grace_ms = service.grace_ms.or(Some(GRACE_DEFAULT_MS));
    for (key, value) in pod.entries() {
        match key.as_str() {
            "containers" | "initContainers" | "volumes" => {}
            "restartPolicy" => {
                let restart = match value.scalar() {
                    Some("Always") => Restart::Always,
                    Some("OnFailure") => Restart::OnFailure,
                    Some("Never") => Restart::Never,
                    _ => {
                        ledger.left(value, "no such policy is known");
                        continue;
                    }
                };
                if kind == "Pod" {
                    service.restart = Some(restart);
                }
                match service.job.is_some() {
                    true => ledger.carried(value, "a part that fails is tried again as `retries` says"),
                    false => ledger.carried(value, "restart"),
                }
            }
            "terminationGracePeriodSeconds" => match value.int().and_then(|seconds| u64::try_from(seconds).ok()) {
                Some(seconds) => {
                    service.set_grace(seconds.saturating_mul(1000));
                    ledger.carried(value, "grace_seconds");
                }
                None => ledger.left(value, "it is no time"),
            },
            "activeDeadlineSeconds" => match value.int().filter(|seconds| (1..=31_536_000).contains(seconds)) {
                Some(seconds) => {
                    service.deadline_ms = Some(seconds.unsigned_abs() * 1000);
                    ledger.carried(value, "deadline_seconds");
                }
                None => ledger.left(value, "it is no time that a star may be given"),
            },
            "hostNetwork" if value.is_true() => {
                service.network = Some("host");
                ledger.carried(
                    value,
                    "network: \"host\""
                        .help("a service with a `port` is given one in `$PORT`: its program has to listen there"),
                );
            }
            "hostNetwork" | "hostPID" | "hostIPC" | "shareProcessNamespace" if !value.is_true() => {
                ledger.carried(value, "it is off");
            }
            "hostPID" | "hostIPC" | "shareProcessNamespace" => {
                ledger.left(value, "a star has processes and memory of its own")
            }
            "resources" if pod.get("containers").map(Node::items).unwrap_or_default().len() == 1 => {
                container::resources(ledger, service, value);
            }
            "resources" => ledger.left(value, "each container is a service with limits of its own"),
            "schedulingGates" => ledger.left(value, "what is asked for is placed as soon as there is room"),
            "hostUsers" => ledger.carried(value, "a star has ids of its own"),
            "securityContext" => container::security(ledger, service, value),
            "nodeSelector" => placement::node_selector(ledger, service, value),
            "nodeName" => {
                placement::requires(ledger, service, value, &format!("node = {}", value.scalar().unwrap_or_default()))
            }
            "affinity" => placement::affinity(ledger, service, value, labels),
            "topologySpreadConstraints" => placement::spread(ledger, service, value),
            "tolerations" => placement::tolerations(ledger, service, value),
            "schedulerName" => ledger.left(value, "there is one scheduler"),
            "priorityClassName" | "priority" | "preemptionPolicy" => {
                ledger
                    .left(value, "a priority is a number from 0 to 100".help("say it as `placement: {priority: 80}`"));
            }
            "serviceAccountName" | "serviceAccount" => ledger.left(value, "stars have no account"),
            "automountServiceAccountToken" => match value.boolean() {
                Some(false) => ledger.carried(value, "stars have no account"),
                _ => ledger.left(value, "stars have no account"),
            },
            "imagePullSecrets" => ledger.left(value, "nothing is pulled: the root file system lies beside the app"),
            "dnsPolicy" | "dnsConfig" => ledger.left(value, "a star has the name servers of its machine"),
            "hostname" | "subdomain" | "setHostnameAsFQDN" => {
                ledger.left(value, "a star's host name is its own, as `web-1`")
            }
            "hostAliases" => ledger.left(value, "a star's `/etc/hosts` is its own"),
            "enableServiceLinks" => ledger.carried(value, "stars have no variables about other services"),
            "runtimeClassName" | "overhead" => ledger.left(value, "every star has the same walls"),
            "readinessGates" => ledger.left(value, "a star is ready when its probe says so"),
            "ephemeralContainers" => ledger.left(value, "`rads c exec` runs what looks into a star"),
            "os" => ledger.carried(value, "stars run on Linux"),
            "terminationMessagePath" | "terminationMessagePolicy" => {
                ledger.left(value, "how a star ended is told by `rads c events`")
            }
            _ => {}
        }
        if value.is_leaf() && value.scalar().is_none() && ledger.is_open(value) {
            ledger.carried(value, "nothing is in it");
        }
    }
}

/// Gives a container its port: that of a Service which leads to it, else the first it names.
fn entry(
    ledger: &mut Ledger,
    app: &mut App,
    objects: &mut Objects,
    service: &mut Service,
    node: &Node,
    chosen_by: &[Node],
    first: bool,
) {
    let ports = node.get("ports").map(Node::items).unwrap_or_default();
    let by_name = |name: &str| ports.iter().find(|port| port.text_at("name") == Some(name));
    let number = |port: &Node| port.get("containerPort").and_then(Node::int).and_then(|port| u16::try_from(port).ok());
    let mut led = None;
    for chosen in chosen_by {
        for leads in chosen.at(&["spec", "ports"]).map(Node::items).unwrap_or_default() {
            let target = leads.get("targetPort").or_else(|| leads.get("port"));
            let named = target.and_then(Node::scalar).and_then(by_name);
            let port = match named {
                Some(named) => number(named),
                None => target.and_then(Node::int).and_then(|port| u16::try_from(port).ok()),
            };
            let Some(port) = port.filter(|port| *port != 0) else { continue };
            // A number that no container names belongs to the first one.
            let is_ours =
                named.is_some() || ports.iter().any(|one| number(one) == Some(port)) || first && ports.is_empty();
            let is_tcp = leads.text_at("protocol").unwrap_or("TCP") == "TCP";
            if is_ours && is_tcp && led.is_none() {
                led = Some((chosen.clone(), leads.clone(), port, named.cloned()));
            }
        }
    }
    if let Some((chosen, leads, port, named)) = led {
        let kind = chosen.at(&["spec", "type"]).and_then(Node::scalar).unwrap_or("ClusterIP");
        let outside = |key: &str| leads.get(key).and_then(Node::int).and_then(|port| u16::try_from(port).ok());
        let wanted = match kind {
            "NodePort" => Listen::new(Listen::EVERYWHERE, outside("nodePort").unwrap_or(0)),
            "LoadBalancer" => Listen::new(Listen::EVERYWHERE, outside("port").unwrap_or(port)),
            _ => Listen::new(Listen::HERE, outside("port").unwrap_or(port)),
        };
        let (listen, free) = app.listen(wanted.clone());
        let name = |node: &Node| node.text_at("name").unwrap_or_default().to_owned();
        let names = [Some(name(&leads)), named.as_ref().map(name), leads.text_at("appProtocol").map(str::to_owned)];
        let speaks = |word: &str| names.iter().flatten().any(|name| name.contains(word));
        let is_named = names.iter().flatten().any(|name| !name.is_empty());
        let ingress = objects.has_ingress(chosen.at(&["metadata", "name"]).and_then(Node::scalar).unwrap_or("\0"));
        service.http = speaks("http") && !speaks("https") || ingress || !is_named && is_usually_http(port);
        (service.port, service.listen) = (Some(port), Some(listen));
        if objects.entered(&chosen) {
            let at = match (wanted.port, free) {
                (0, _) => "any free port of this machine".to_owned(),
                (_, true) => wanted.shown(),
                (_, false) => "any free port, as another service listens there".to_owned(),
            };
            let how = if service.http { "http" } else { "tcp" };
            let text = format!("`{}` is reached at {at}, by {how}", service.name);
            let verdict = if free && kind != "ClusterIP" { Verdict::Carried } else { Verdict::Changed };
            service_object(ledger, &chosen, &leads, verdict, &text);
        }
    }
    for port in ports {
        let inside = number(port).filter(|port| *port != 0);
        let is_tcp = port.text_at("protocol").unwrap_or("TCP") == "TCP";
        match (inside, service.port) {
            (Some(inside), None) if is_tcp => {
                let (listen, free) = app.listen(Listen::new(Listen::HERE, inside));
                let name = port.text_at("name").unwrap_or_default();
                service.http =
                    name.starts_with("http") && name != "https" || name.is_empty() && is_usually_http(inside);
                (service.port, service.listen) = (Some(inside), Some(listen));
                let at = if free { format!("127.0.0.1:{inside}") } else { "any free port".to_owned() };
                ledger.changed(port, format!("port {inside} is reached at {at} of this machine"));
            }
            (Some(inside), Some(known)) if inside == known && is_tcp => {
                if let Some(host) = port.get("hostPort") {
                    ledger.left(host, "the entry point is what `listen` says");
                }
                ledger.carried(port, format!("port {known}"));
            }
            (Some(_), _) if !is_tcp => ledger.left(port, "requests come in by TCP"),
            (Some(inside), Some(known)) => {
                ledger.left(
                    port,
                    format!("port {inside}: a service has one port, and `{}` has {known}", service.name)
                        .help("a program that serves several ports takes a service for each"),
                );
            }
            _ => ledger.left(port, "it is no port"),
        }
    }
}

/// Tells of a Service that became an entry point.
fn service_object(ledger: &mut Ledger, object: &Node, leads: &Node, verdict: Verdict, text: &str) {
    ledger.tell(verdict, leads, text);
    for (key, value) in object.get("spec").map(Node::entries).unwrap_or_default() {
        match key.as_str() {
            "ports" => {
                for other in value.items() {
                    if ledger.is_open(other) {
                        ledger.left(
                            other,
                            "a service has one port"
                                .help("a program that serves several ports takes a service for each"),
                        );
                    }
                }
            }
            "selector" => ledger.carried(value, "the stars of the service"),
            "type" | "clusterIP" => ledger.carried(value, "how the service is reached"),
            "sessionAffinity" if value.scalar() == Some("None") => ledger.carried(value, "requests go round"),
            "sessionAffinity" | "sessionAffinityConfig" => ledger.left(value, "requests go round, whoever sends them"),
            "externalTrafficPolicy" | "internalTrafficPolicy" | "trafficDistribution" => {
                ledger.left(value, "an entry point takes stars of its own machine first, then those of others");
            }
            "publishNotReadyAddresses" => ledger.left(value, "stars that are not ready get no requests"),
            _ => {
                ledger.left(value, "a service's address is its `listen`");
            }
        }
    }
}
