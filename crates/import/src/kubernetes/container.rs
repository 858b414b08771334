//! A container of a pod: its program, variables, limits and rights.

use crate::docker::image::{self, Images, Program};
use crate::draft::{App, Bounded, Service};
use crate::env;
use crate::ledger::{Ledger, WithHelp as _};
use crate::report::Verdict;
use crate::shell;
use crate::text::Text;
use crate::tree::Node;
use crate::units;

use super::objects::{Objects, secret_name};
use super::{probes, volumes};

/// What a container is part of.
pub(super) struct Container<'a> {
    pub(super) images: &'a Images,
    pub(super) pod: &'a Node,
    pub(super) claims: &'a [Node],
    pub(super) workload: &'a str,
    /// Whether no other container is in its pod.
    pub(super) alone: bool,
}

pub(super) fn read(
    context: &Container<'_>,
    ledger: &mut Ledger,
    app: &mut App,
    objects: &mut Objects,
    service: &mut Service,
    node: &Node,
) {
    // What is nearer holds: `env` before `envFrom`.
    for one in node.get("env").map(Node::items).unwrap_or_default() {
        variable(ledger, app, objects, service, one);
    }
    for one in node.get("envFrom").map(Node::items).unwrap_or_default() {
        variables(ledger, app, objects, service, one);
    }
    for (key, value) in node.entries() {
        match key.as_str() {
            "name" | "env" | "envFrom" | "ports" | "image" | "command" | "args" | "workingDir" => {}
            "resources" => resources(ledger, service, value),
            "securityContext" => security(ledger, service, value),
            "volumeMounts" => {
                for mount in value.items() {
                    volumes::mount(context, ledger, app, objects, service, mount);
                }
            }
            "volumeDevices" => ledger.left(value, "a volume is a folder"),
            "livenessProbe" | "readinessProbe" | "startupProbe" => {}
            "lifecycle" => lifecycle(ledger, service, value),
            "imagePullPolicy" => ledger.left(value, "nothing is pulled: the root file system lies beside the app"),
            "resizePolicy" => ledger.carried(value, "`rads c limits` changes what running stars may use"),
            "restartPolicy" | "restartPolicyRules" => ledger.left(value, "all stars of a service are restarted alike"),
            "tty" | "stdin" | "stdinOnce" => ledger.carried(value, "`rads c exec` gives a terminal to what it runs"),
            "terminationMessagePath" | "terminationMessagePolicy" => {
                ledger.left(value, "how a star ended is told by `rads c events`");
            }
            _ => {}
        }
        if value.is_leaf() && value.scalar().is_none() && ledger.is_open(value) {
            ledger.carried(value, "nothing is in it");
        }
    }
    if let Some(folder) = node.get("workingDir") {
        match service.set_workdir(folder.scalar().unwrap_or_default()) {
            Ok(()) => ledger.carried(folder, "workdir"),
            Err(why) => ledger.left(folder, why),
        }
    }
    let name = node.text_at("image").unwrap_or("image").to_owned();
    let words = |key: &str| {
        node.get(key).map(|words| words.items().iter().map(|word| expanded(service, word)).collect::<Vec<Text>>())
    };
    let (entrypoint, command) = (words("command"), words("args"));
    let program = Program {
        image: &name,
        image_at: node.get("image"),
        built: false,
        entrypoint,
        entrypoint_at: node.get("command"),
        command,
        command_at: node.get("args"),
    };
    image::set(app, ledger, service, context.images, program);
}

/// Called when the container's port is known: a probe asks at it.
pub(super) fn ask(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    probes::read(ledger, service, node);
}

/// `$(NAME)` is a variable of the container, `$$(` is `$(`.
fn expanded(service: &Service, node: &Node) -> Text {
    let text = node.scalar().unwrap_or_default();
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        rest = after;
        if let Some(behind) = rest.strip_prefix('$') {
            result.push('$');
            rest = behind;
        } else if let Some((name, behind)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match service.env.get(name).and_then(Text::fixed) {
                Some(value) => result.push_str(value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = behind;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result.into()
}

pub(super) fn bounded<T: std::fmt::Display>(ledger: &mut Ledger, node: &Node, option: &str, value: Bounded<T>) {
    crate::docker::bounded(ledger, node, option, value);
}

fn variable(ledger: &mut Ledger, app: &mut App, objects: &mut Objects, service: &mut Service, node: &Node) {
    let Some(name) = node.text_at("name").map(str::to_owned) else {
        ledger.left(node, "a variable without a name");
        return;
    };
    if let Some(from) = node.get("valueFrom") {
        from_elsewhere(ledger, app, objects, service, node, &name, from);
        return;
    }
    let value = match node.get("value") {
        Some(value) => expanded(service, value),
        None => Text::default(),
    };
    env::set(app, ledger, service, node, &name, value);
}

fn from_elsewhere(
    ledger: &mut Ledger,
    app: &mut App,
    objects: &mut Objects,
    service: &mut Service,
    node: &Node,
    name: &str,
    from: &Node,
) {
    let named = |reference: &Node| {
        let text = |key: &str| reference.text_at(key).unwrap_or_default().to_owned();
        (text("name"), text("key"))
    };
    if let Some(reference) = from.get("secretKeyRef") {
        let (object, key) = named(reference);
        let secret = secret_name(&object, &key);
        match service.secret_variable(name, secret.clone()) {
            Ok(()) => {
                let known = objects.get("Secret", &object).is_some();
                let text = format!("variable `{name}` is secret `{secret}`");
                match known {
                    true => ledger.carried(node, text),
                    false => ledger.carried(node, text.help(ledger.how_to_set(&secret))),
                }
            }
            Err(why) => ledger.left(node, format!("variable `{name}`: {why}")),
        }
    } else if let Some(reference) = from.get("configMapKeyRef") {
        let (object, key) = named(reference);
        let config = objects.get("ConfigMap", &object);
        let value = config.as_ref().and_then(|config| config.get("data")).and_then(|data| data.text_at(&key));
        match value {
            Some(value) => env::set(app, ledger, service, node, name, value.into()),
            None => {
                ledger.left(
                    node,
                    format!("variable `{name}`: `{key}` of config `{object}` is not in these files")
                        .help("import the ConfigMap with it"),
                );
            }
        }
    } else if let Some(path) = from.at(&["fieldRef", "fieldPath"]).and_then(Node::scalar) {
        let value = match path {
            "metadata.name" | "spec.hostname" => "$STAR_NAME".to_owned(),
            "metadata.uid" => "$STAR_ID".to_owned(),
            "metadata.namespace" => "default".to_owned(),
            "spec.serviceAccountName" => String::new(),
            _ => {
                ledger.left(node, format!("variable `{name}`: a star is not told `{path}`"));
                return;
            }
        };
        match service.variable(name, value.as_str().into()) {
            Ok(()) if value.starts_with('$') => ledger.carried(node, format!("variable `{name}` is `{value}`")),
            Ok(()) => ledger.changed(node, format!("variable `{name}` is \"{value}\"")),
            Err(why) => ledger.left(node, format!("variable `{name}`: {why}")),
        }
    } else if let Some(resource) = from.at(&["resourceFieldRef", "resource"]).and_then(Node::scalar) {
        ledger.left(node, format!("variable `{name}`: a star is not told `{resource}`"));
    } else {
        ledger.left(node, format!("variable `{name}`: where it comes from is not known here"));
    }
}

/// All that a ConfigMap or Secret has, as variables.
fn variables(ledger: &mut Ledger, app: &mut App, objects: &mut Objects, service: &mut Service, node: &Node) {
    let prefix = node.text_at("prefix").unwrap_or_default().to_owned();
    if let Some(name) = node.at(&["configMapRef", "name"]).and_then(Node::scalar) {
        let Some(config) = objects.get("ConfigMap", name) else {
            ledger.left(node, format!("config `{name}` is not in these files").help("import the ConfigMap with it"));
            return;
        };
        let entries = config.get("data").map(Node::entries).unwrap_or_default();
        ledger.carried(node, format!("the variables of config `{name}`, each told there"));
        for (key, value) in entries {
            let variable = format!("{prefix}{key}");
            if !service.env.contains_key(&variable) && !service.env_secrets.contains_key(&variable) {
                env::set(app, ledger, service, value, &variable, value.scalar().unwrap_or_default().into());
            }
        }
    } else if let Some(name) = node.at(&["secretRef", "name"]).and_then(Node::scalar) {
        let Some(secret) = objects.get("Secret", name) else {
            ledger.left(
                node,
                format!("which keys secret `{name}` has is not known")
                    .help("name each in `env_secrets`, or import the Secret with it"),
            );
            return;
        };
        ledger.carried(node, format!("the variables of secret `{name}`"));
        for (key, value) in
            ["data", "stringData"].into_iter().filter_map(|part| secret.get(part)).flat_map(Node::entries)
        {
            let variable = format!("{prefix}{key}");
            let called = secret_name(name, key);
            if let Err(why) = service.secret_variable(&variable, called) {
                ledger.note(Verdict::NotCarried, value, format!("variable `{variable}`: {why}"));
            }
        }
    } else {
        ledger.left(node, "where these variables come from is not known here");
    }
}

pub(super) fn resources(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (which, amounts) in node.entries() {
        for (key, value) in amounts.entries() {
            let text = value.scalar().unwrap_or_default();
            match (which.as_str(), key.as_str()) {
                ("limits", "cpu") => match units::quantity_milli(text).filter(|milli| *milli > 0) {
                    Some(milli) => {
                        let bounded = service.set_cpu(milli);
                        let cores = service.cpu_milli.unwrap_or_default();
                        let text = format!("cpu_cores: {}.{:03}", cores / 1000, cores % 1000);
                        match bounded {
                            Bounded::AsAsked(_) => ledger.carried(value, text),
                            Bounded::Brought(_) => ledger.changed(value, format!("{text}, the nearest there is")),
                        }
                    }
                    None => ledger.left(value, format!("`{text}` is no number of cores")),
                },
                ("limits", "memory") => match units::quantity_bytes(text).filter(|bytes| *bytes > 0) {
                    Some(bytes) => bounded(ledger, value, "ram_mb", service.set_ram(bytes)),
                    None => ledger.left(value, format!("`{text}` is no size")),
                },
                ("limits", "ephemeral-storage") => ledger.left(value, "a disk of its own is `disk_mb`"),
                ("limits", _) => ledger.left(value, "stars have no GPUs or other devices yet"),
                ("requests", "cpu") => match units::quantity_milli(text) {
                    Some(milli) => crate::docker::kept_cpu(ledger, service, value, milli),
                    None => ledger.left(value, format!("`{text}` is no number of cores")),
                },
                ("requests", "memory") => match units::quantity_bytes(text) {
                    Some(bytes) => bounded(ledger, value, "reserve_ram_mb", service.set_reserve_ram(bytes)),
                    None => ledger.left(value, format!("`{text}` is no size")),
                },
                ("requests", "ephemeral-storage") => ledger.left(value, "a disk of its own is `disk_mb`"),
                ("requests", _) => ledger.left(value, "stars have no GPUs or other devices yet"),
                _ => {}
            }
        }
        if !amounts.is_map() && ledger.is_open(amounts) {
            ledger.left(amounts, "it claims nothing that stars have");
        }
        if which == "claims" {
            ledger.left(amounts, "stars have no GPUs or other devices yet");
        }
    }
}

/// Rights, of a pod or of a container.
pub(super) fn security(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    let user = node.get("runAsUser").and_then(Node::int);
    let group = node.get("runAsGroup").and_then(Node::int);
    for (key, value) in node.entries() {
        match key.as_str() {
            "runAsUser" | "runAsGroup" => {
                let (uid, gid) = (user.or(group).unwrap_or(0), group.or(user).unwrap_or(0));
                // A container's own is read before its pod's and holds.
                let sound = service.user.is_some() || user.is_some() && service.set_user(&format!("{uid}:{gid}"));
                match sound {
                    true => ledger.carried(value, "user, an id of the star's own"),
                    false => ledger.left(value, "a star's ids are from 0 to 65535, a group beside a user"),
                }
            }
            "runAsNonRoot" => ledger.carried(value, "a star's root is nobody on the host"),
            "fsGroup" | "fsGroupChangePolicy" => {
                ledger.carried(value, "a volume that is empty is given to the star's user")
            }
            "supplementalGroups" | "supplementalGroupsPolicy" => ledger.left(value, "a star's user has one group"),
            "allowPrivilegeEscalation" if !value.is_true() => {
                ledger.carried(value, "no star gains rights by a program")
            }
            "allowPrivilegeEscalation" => ledger.left(value, "no star gains rights by a program"),
            "privileged" if !value.is_true() => ledger.carried(value, "it is off"),
            "privileged" => ledger.left(value, "no star has rights over its machine"),
            "readOnlyRootFilesystem" if !value.is_true() => ledger.carried(value, "it is off"),
            "readOnlyRootFilesystem" => {
                ledger.left(value, "a star may write above its `rootfs`; what it writes goes with it")
            }
            "capabilities" => capabilities(ledger, service, value),
            "seccompProfile" => match value.text_at("type") {
                Some("Unconfined") => {
                    service.no_seccomp = true;
                    ledger.carried(value, "weaken: seccomp off");
                }
                Some("RuntimeDefault") => ledger.carried(value, "every command has a filter of system calls"),
                _ => ledger.left(value, "every command has the same filter of system calls"),
            },
            "procMount" => ledger.left(value, "a star's `/proc` shows its own processes"),
            "sysctls" if value.items().is_empty() => ledger.carried(value, "nothing is in it"),
            "sysctls" => ledger.left(value, "a star has the settings of its machine's kernel"),
            "seLinuxOptions" | "appArmorProfile" | "windowsOptions" | "seLinuxChangePolicy" => {
                ledger.left(value, "a star's walls are namespaces, seccomp and Landlock");
            }
            _ => {}
        }
    }
}

fn capabilities(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (key, value) in node.entries() {
        for one in value.one_or_more() {
            let name = one.scalar().unwrap_or_default();
            match key.as_str() {
                "add" => crate::docker::cap_add(ledger, service, one, name),
                _ => ledger.carried(one, format!("a star lacks `{name}` unless `weaken` gives it")),
            }
        }
    }
}

fn lifecycle(ledger: &mut Ledger, service: &mut Service, node: &Node) {
    for (key, value) in node.entries() {
        let words = value.at(&["exec", "command"]).and_then(Node::texts).filter(|words| !words.is_empty());
        let pause = value.at(&["sleep", "seconds"]).and_then(Node::scalar);
        match (key.as_str(), words, pause) {
            ("preStop", Some(words), _) => {
                service.before_stop = words.into_iter().map(Text::from).collect();
                ledger.carried(value, "before_stop");
            }
            ("preStop", None, Some(_)) => ledger.carried(value, "a star that is to stop gets no requests first"),
            ("preStop", None, None) => ledger.left(value, "`before_stop` runs a command"),
            ("postStart", ..) => ledger.left(value, "there is a `before_start`, nothing after it"),
            _ => ledger.left(value, "a star has no such turn"),
        }
    }
}

/// A container that runs before the others: a hook, when it is of the same image and there is none yet.
pub(super) fn init(ledger: &mut Ledger, service: &mut Service, containers: &[Node], node: &Node, at: usize) {
    let same = containers.first().is_some_and(|first| first.text_at("image") == node.text_at("image"));
    let words = |key: &str| node.get(key).and_then(Node::texts).unwrap_or_default();
    let command: Vec<String> = words("command").into_iter().chain(words("args")).collect();
    let sidecar = node.text_at("restartPolicy") == Some("Always");
    if same && !sidecar && at == 0 && !words("command").is_empty() && service.before_start.is_empty() {
        service.before_start = command.into_iter().map(Text::from).collect();
        for key in ["name", "image", "command", "args"] {
            if let Some(node) = node.get(key) {
                ledger.carried(node, "before_start: it runs in each star before its program");
            }
        }
        ledger.changed(node, "it runs as its service does: with its variables, places and limits");
        return;
    }
    let shown = command.iter().map(|word| shell::quoted(word)).collect::<Vec<_>>().join(" ");
    let shown = if shown.is_empty() { "what its image starts".to_owned() } else { format!("`{shown}`") };
    ledger.left(
        node,
        format!("a container that runs first, of another image: {shown}")
            .help("put what it does into `before_start`, or run it by itself"),
    );
}
