//! What becomes of an image: a root file system that the user exports, and the program it starts.
//!
//! There are no images here. What one starts, and with what, is known when `docker image inspect` was asked for it.

use model::Problem;

use crate::draft::{App, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::names::name_of;
use crate::report::Verdict;
use crate::text::Text;
use crate::tree::Node;
use crate::{Source, text_of, yaml};

/// What was inspected.
#[derive(Debug, Default)]
pub(crate) struct Images(Vec<Node>);

impl Images {
    /// JSON is YAML.
    pub(crate) fn of(source: &Source<'_>) -> Result<Self, Problem> {
        let Some(file) = source.images else { return Ok(Self::default()) };
        let documents = yaml::documents(&file.name, text_of(file)?)?;
        Ok(Self(documents.iter().flat_map(|document| document.one_or_more().to_vec()).collect()))
    }

    /// What is known of an image.
    fn config(&self, image: &str) -> Option<&Node> {
        let with_tag = |name: &str| match name.rsplit('/').next().unwrap_or(name).contains([':', '@']) {
            true => name.to_owned(),
            false => format!("{name}:latest"),
        };
        let plain = |name: &str| {
            let name = name.strip_prefix("docker.io/").unwrap_or(name);
            with_tag(name.strip_prefix("library/").unwrap_or(name))
        };
        let is_named = |one: &&Node| {
            let names = ["RepoTags", "RepoDigests"].into_iter().filter_map(|key| one.get(key));
            let named = names.flat_map(Node::items).filter_map(Node::scalar);
            one.text_at("Id") == Some(image) || named.into_iter().any(|name| plain(name) == plain(image))
        };
        self.0.iter().find(is_named)?.get("Config")
    }
}

/// What a description says of the program.
#[derive(Debug, Default)]
pub(crate) struct Program<'a> {
    pub(crate) image: &'a str,
    /// Where the image is named.
    pub(crate) image_at: Option<&'a Node>,
    /// Why there is an image at all, when none is named: what it is built of.
    pub(crate) built: bool,
    pub(crate) entrypoint: Option<Vec<Text>>,
    pub(crate) entrypoint_at: Option<&'a Node>,
    pub(crate) command: Option<Vec<Text>>,
    pub(crate) command_at: Option<&'a Node>,
}

/// Gives a service its root and its program, and tells of image, entry point and command.
pub(crate) fn set(app: &mut App, ledger: &mut Ledger, service: &mut Service, images: &Images, program: Program<'_>) {
    let Program { image, image_at, built, entrypoint, entrypoint_at, command, command_at } = program;
    let called = name_of(image.split('@').next().unwrap_or(image), &service.name);
    let rootfs = format!("rootfs/{called}.tar.gz");
    service.comments.push(format!("image {image}"));
    let config = images.config(image);
    let at = image_at.cloned().unwrap_or_else(|| service.node.clone());
    let export = match built {
        true => format!("`docker export $(docker create {image}) | gzip > {rootfs}` once it is built as `{image}`"),
        false => format!("`docker export $(docker create {image}) | gzip > {rootfs}`"),
    };
    ledger.changed(&at, format!("image `{image}` is the root file system `{rootfs}`, to be put there").help(export));
    let from_image = |key: &str| -> Option<Vec<Text>> {
        let words = config?.get(key)?.one_or_more().iter().filter_map(Node::scalar).map(Text::from);
        Some(words.collect()).filter(|words: &Vec<Text>| !words.is_empty())
    };
    let says = |words: &Option<Vec<Text>>| words.as_ref().is_some_and(|words| !words.is_empty());
    let mut words = Vec::new();
    let mut unknown = None;
    match (says(&entrypoint), says(&command), config.is_some()) {
        (true, ..) => {
            words.extend(entrypoint.into_iter().flatten());
            words.extend(command.into_iter().flatten());
        }
        (false, _, true) => {
            words.extend(from_image("Entrypoint").into_iter().flatten());
            words.extend(command.filter(|words| !words.is_empty()).or_else(|| from_image("Cmd")).into_iter().flatten());
        }
        (false, true, false) => {
            words.extend(command.into_iter().flatten());
            unknown = Some("if the image has an entry point, its words go before this command");
        }
        (false, false, false) => {
            unknown = Some("what the image starts by itself is not known: its words are to be put in `command`")
        }
    }
    if words.first().is_none_or(|word| word.by_default().is_empty()) {
        words = vec![format!("command-of-{called}").into()];
        unknown = unknown.or(Some("the image starts nothing by itself: what it is to run has to be put in `command`"));
    }
    service.rootfs = Some(rootfs);
    service.command = words;
    for (node, what) in [(entrypoint_at, "entry point"), (command_at, "command")] {
        if let Some(node) = node {
            ledger.carried(node, format!("{what}, in `command`"));
        }
    }
    if let Some(unknown) = unknown {
        let help =
            format!("`docker image inspect {image} > images.json`, then import again with `--images images.json`");
        ledger.note(Verdict::Changed, command_at.unwrap_or(&at), unknown.help(help));
    }
    if let Some(config) = config {
        inherit(app, ledger, service, config, &at);
    }
    match &service.workdir {
        Some(folder) if folder == "/app" || folder.starts_with("/app/") => {
            let text = "`/app` is the app's own folder in a star: what the image has there is not seen";
            ledger.note(
                Verdict::Changed,
                &at,
                text.help("move it within the root file system, or put it beside `app.rads` and name it in `assets`"),
            );
        }
        _ => {}
    }
}

/// What an image brings along unless the description says otherwise.
fn inherit(app: &mut App, ledger: &mut Ledger, service: &mut Service, config: &Node, at: &Node) {
    let mut brought = Vec::new();
    for entry in config.get("Env").map(Node::items).unwrap_or_default().iter().filter_map(Node::scalar) {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if service.env.contains_key(name) || service.env_secrets.contains_key(name) {
            continue;
        }
        let done = match crate::env::is_secret(name, value) {
            true => {
                let secret = app.secret(name, value, &service.name);
                service.secret_variable(name, secret)
            }
            false => service.variable(name, value.into()),
        };
        if done.is_ok() {
            brought.push(format!("`{name}`"));
        }
    }
    let text = |key: &str| config.text_at(key).filter(|text| !text.is_empty());
    if let Some(folder) = text("WorkingDir").filter(|_| service.workdir.is_none())
        && service.set_workdir(folder).is_ok()
    {
        brought.push(format!("workdir `{folder}`"));
    }
    if let Some(user) = text("User").filter(|_| service.user.is_none()) {
        match service.set_user(user) {
            true => brought.push(format!("user {user}")),
            false => ledger.note(Verdict::NotCarried, at, format!("the image's user `{user}`: a star's is a number")),
        }
    }
    if let Some(signal) = text("StopSignal").filter(|_| service.stop_signal.is_none())
        && service.set_stop_signal(signal)
    {
        brought.push(format!("stop signal {signal}"));
    }
    if service.port.is_none()
        && service.job.is_none()
        && let Some((port, _)) = config.get("ExposedPorts").and_then(|ports| ports.entries().first())
        && let Some(port) = port.strip_suffix("/tcp").unwrap_or(port).parse().ok().filter(|port| *port != 0)
    {
        service.port = Some(port);
        let (listen, _) = app.listen(crate::draft::Listen::new(crate::draft::Listen::HERE, port));
        service.listen = Some(listen);
        brought.push(format!("port {port}"));
    }
    if !brought.is_empty() {
        ledger.note(Verdict::Carried, at, format!("from the image: {}", brought.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_any_of_its_names() {
        let text = r#"[{"Id": "sha256:1", "RepoTags": ["nginx:1.27", "nginx:latest"], "Config": {"Cmd": ["nginx"]}}]"#;
        let images = Images(yaml::documents("f", text).unwrap()[0].items().to_vec());
        for name in ["nginx", "nginx:1.27", "docker.io/library/nginx:latest", "sha256:1"] {
            assert!(images.config(name).is_some(), "{name}");
        }
        for name in ["nginx:1.28", "other/nginx", "ngin"] {
            assert!(images.config(name).is_none(), "{name}");
        }
    }
}
