//! Volumes of pods and where containers see them.

use crate::docker::mounts::TMPFS_DEFAULT;
use crate::draft::{App, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::names::name_of;
use crate::tree::Node;
use crate::units;

use super::container::Container;
use super::objects::{Objects, secret_name};

/// What is in a file of a ConfigMap.
fn content(config: &Node, key: &str) -> Option<Vec<u8>> {
    config.get("data").and_then(|data| data.text_at(key)).map(|text| text.as_bytes().to_vec())
}

pub(super) fn mount(
    context: &Container<'_>,
    ledger: &mut Ledger,
    app: &mut App,
    objects: &mut Objects,
    service: &mut Service,
    node: &Node,
) {
    let (name, path) = (node.text_at("name").unwrap_or_default(), node.text_at("mountPath").unwrap_or_default());
    let sub = node.text_at("subPath").filter(|sub| !sub.is_empty());
    if context.claims.iter().any(|claim| claim.at(&["metadata", "name"]).and_then(Node::scalar) == Some(name)) {
        let claim =
            context.claims.iter().find(|claim| claim.at(&["metadata", "name"]).and_then(Node::scalar) == Some(name));
        let size = claim.and_then(|claim| claim.at(&["spec", "resources", "requests", "storage"]));
        let size = size.and_then(Node::scalar).and_then(units::quantity_bytes);
        let volume = app.volume(&format!("{}-{name}", context.workload));
        placed_volume(ledger, service, node, path, volume, size, sub);
        return;
    }
    let volumes = context.pod.get("volumes").map(Node::items).unwrap_or_default();
    let Some(volume) = volumes.iter().find(|volume| volume.text_at("name") == Some(name)) else {
        ledger.left(node, format!("the pod has no volume `{name}`"));
        return;
    };
    let kind = volume.entries().iter().find(|(key, _)| key != "name");
    match kind.map(|(kind, value)| (kind.as_str(), value)) {
        Some(("emptyDir", empty)) => {
            let size = empty.text_at("sizeLimit").and_then(units::quantity_bytes).filter(|size| *size > 0);
            let memory = empty.text_at("medium") == Some("Memory");
            if context.alone || memory {
                let outcome = service.tmpfs(path, size.unwrap_or(TMPFS_DEFAULT));
                match outcome {
                    Ok(()) if memory && size.is_some() => ledger.carried(node, format!("tmpfs at {path}")),
                    Ok(()) => {
                        ledger.changed(
                            node,
                            format!("tmpfs at {path}: what it holds counts as the star's memory")
                                .help("for much data, a volume: volumes: {PATH: NAME}"),
                        );
                    }
                    Err(why) => ledger.left(node, format!("nothing at `{path}`: {why}")),
                }
            } else {
                let shared = app.volume(&format!("{}-{name}", context.workload));
                match service.volume(path, shared.clone(), size) {
                    Ok(()) => ledger.changed(node, format!("volume `{shared}` at {path}, which stays")),
                    Err(why) => ledger.left(node, format!("nothing at `{path}`: {why}")),
                }
            }
        }
        Some(("persistentVolumeClaim", claim)) => {
            let claim = claim.text_at("claimName").unwrap_or(name).to_owned();
            let described = objects.get("PersistentVolumeClaim", &claim);
            let size = described.as_ref().and_then(|claim| claim.at(&["spec", "resources", "requests", "storage"]));
            let size = size.and_then(Node::scalar).and_then(units::quantity_bytes);
            let volume = app.volume(&claim);
            placed_volume(ledger, service, node, path, volume, size, sub);
        }
        Some(("configMap", config)) => config_files(ledger, app, objects, service, node, config, path, sub),
        Some(("secret", secret)) => secret_files(ledger, objects, service, node, secret, path, sub),
        Some(("hostPath", host)) => {
            let host = host.text_at("path").unwrap_or_default();
            ledger.left(
                node,
                format!("the host's `{host}` at {path}: no star sees the host's files")
                    .help("a file of the app in its place: binds: {PATH: FILE}"),
            );
        }
        Some((kind, _)) => ledger.left(node, format!("a volume of kind `{kind}` at {path}")),
        None => ledger.left(node, format!("volume `{name}` at {path} says nothing of what it is")),
    }
}

fn placed_volume(
    ledger: &mut Ledger,
    service: &mut Service,
    node: &Node,
    path: &str,
    volume: String,
    size: Option<u64>,
    sub: Option<&str>,
) {
    // A part of a volume is a volume of its own.
    let volume = match sub {
        Some(sub) => name_of(&format!("{volume}-{sub}"), "data"),
        None => volume,
    };
    match (service.volume(path, volume.clone(), size), sub) {
        (Ok(()), None) if node.get("readOnly").is_some_and(Node::is_true) => {
            ledger.changed(node, format!("volume `{volume}` at {path}; not read-only"));
        }
        (Ok(()), None) => ledger.carried(node, format!("volume `{volume}` at {path}")),
        (Ok(()), Some(_)) => {
            ledger.changed(node, format!("volume `{volume}` at {path}: a part of a volume is one of its own"))
        }
        (Err(why), _) => ledger.left(node, format!("volume `{volume}` at `{path}`: {why}")),
    }
}

/// Keys and the names of their files; all keys when none are chosen.
fn chosen(volume: &Node, all: &[String]) -> Vec<(String, String)> {
    match volume.get("items") {
        Some(items) => {
            let pair = |item: &Node| {
                let key = item.text_at("key")?;
                Some((key.to_owned(), item.text_at("path").unwrap_or(key).to_owned()))
            };
            items.items().iter().filter_map(pair).collect()
        }
        None => all.iter().map(|key| (key.clone(), key.clone())).collect(),
    }
}

fn config_files(
    ledger: &mut Ledger,
    app: &mut App,
    objects: &mut Objects,
    service: &mut Service,
    node: &Node,
    volume: &Node,
    path: &str,
    sub: Option<&str>,
) {
    let name = volume.text_at("name").unwrap_or_default().to_owned();
    let folder = format!("config/{}", name_of(&name, "config"));
    let Some(config) = objects.get("ConfigMap", &name) else {
        let source = match sub {
            Some(sub) => format!("{folder}/{}", crate::draft::normal(sub)),
            None => folder,
        };
        match service.bind(path, &source) {
            Ok(path) => {
                ledger.changed(
                    node,
                    format!("`{source}` of the app's folder at {path}")
                        .help(format!("put what config `{name}` holds there: it is not in these files")),
                );
            }
            Err(why) => ledger.left(node, format!("config `{name}` at `{path}`: {why}")),
        }
        return;
    };
    let keys: Vec<String> =
        config.get("data").map(Node::entries).unwrap_or_default().iter().map(|(key, _)| key.clone()).collect();
    let files = chosen(volume, &keys);
    let mut faults = Vec::new();
    for (key, file) in &files {
        if sub.is_some_and(|sub| sub != file) {
            continue;
        }
        let source = format!("{folder}/{key}");
        let Some(bytes) = content(&config, key).filter(|_| model::bundle::is_bundle_path(&source)) else {
            faults.push(format!("`{key}` is not in it"));
            continue;
        };
        let target = if sub.is_some() { path.to_owned() } else { format!("{}/{file}", path.trim_end_matches('/')) };
        match service.bind(&target, &source) {
            Ok(_) => drop(app.files.insert(source, bytes)),
            Err(why) => faults.push(why),
        }
    }
    match faults.is_empty() {
        true => ledger.carried(node, format!("`{folder}` of the app's folder, file by file, at {path}")),
        false => ledger.changed(node, format!("config `{name}` at {path}, but for: {}", faults.join("; "))),
    }
}

fn secret_files(
    ledger: &mut Ledger,
    objects: &mut Objects,
    service: &mut Service,
    node: &Node,
    volume: &Node,
    path: &str,
    sub: Option<&str>,
) {
    let name = volume.text_at("secretName").unwrap_or_default().to_owned();
    let known = objects.get("Secret", &name);
    let keys: Vec<String> = known
        .iter()
        .flat_map(|secret| ["data", "stringData"].into_iter().filter_map(|part| secret.get(part)))
        .flat_map(Node::entries)
        .map(|(key, _)| key.clone())
        .collect();
    let mut files = chosen(volume, &keys);
    if files.is_empty() {
        files.extend(sub.map(|sub| (sub.to_owned(), sub.to_owned())));
    }
    if files.is_empty() {
        ledger.left(
            node,
            format!("which keys secret `{name}` has is not known")
                .help(format!("name each: secrets: {{\"{path}/KEY\": \"{}\"}}", secret_name(&name, "KEY"))),
        );
        return;
    }
    let (mut made, mut faults) = (Vec::new(), Vec::new());
    for (key, file) in files {
        if sub.is_some_and(|sub| sub != file) {
            continue;
        }
        let target = if sub.is_some() { path.to_owned() } else { format!("{}/{file}", path.trim_end_matches('/')) };
        let secret = secret_name(&name, &key);
        match service.secret_file(&target, secret.clone()) {
            Ok(()) => made.push(secret),
            Err(why) => faults.push(why),
        }
    }
    match (made.is_empty(), faults.is_empty()) {
        (false, true) => {
            let names: Vec<String> = made.iter().map(|name| format!("`{name}`")).collect();
            ledger.carried(node, format!("secret {} below {path}", names.join(", ")).help(ledger.how_to_set(&made[0])));
        }
        (false, false) => ledger.changed(node, format!("secret `{name}` at {path}, but for: {}", faults.join("; "))),
        (true, _) => ledger.left(node, format!("secret `{name}` at {path}: {}", faults.join("; "))),
    }
}

/// Tells of a volume where it is declared.
pub(super) fn declared(ledger: &mut Ledger, node: &Node) {
    let kind = node.entries().iter().find(|(key, _)| key != "name").map_or("", |(key, _)| key.as_str());
    let text = match kind {
        "emptyDir" | "persistentVolumeClaim" | "configMap" | "secret" => "where it is mounted",
        "hostPath" => "no star sees the host's files",
        "projected" | "downwardAPI" => "a star has its name and id in `$STAR_NAME` and `$STAR_ID`",
        "" => "it says nothing of what it is",
        _ => "volumes are folders of a machine, memory, files of the app, and secrets",
    };
    match kind {
        "emptyDir" | "persistentVolumeClaim" | "configMap" | "secret" => ledger.carried(node, text),
        _ => ledger.left(node, text),
    }
}

/// Tells of a claim that a StatefulSet makes for each of its pods.
pub(super) fn claim_template(ledger: &mut Ledger, node: &Node, several: bool) {
    if let Some(size) = node.at(&["spec", "resources", "requests", "storage"]) {
        ledger.carried(size, "size_mb of the volume");
    }
    if let Some(name) = node.at(&["metadata", "name"]) {
        match several {
            true => {
                ledger.changed(
                    name,
                    "stars of a service share a volume, and run where it lies"
                        .help("what keeps its own data takes a service for each"),
                );
            }
            false => ledger.carried(name, "the volume"),
        }
    }
    for (key, value) in node.entries() {
        if ledger.is_open(value) {
            let text = if key == "spec" { "a volume lies in its machine's data folder" } else { "what it is" };
            ledger.left(value, text);
        }
    }
}
