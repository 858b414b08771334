//! What the node's orders become for the nursery: names turn into folders of this machine.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use isolate::{Beginning, Bind, FileBind, Interior, Launch, Private, Secret, StarOrder, StarReport, Tmpfs};
use model::talk::NAMESPACE_VARIABLE;
use model::{AppSpec, Code, Name, Problem, Program, SecretKey, ServiceKey, StarId, VolumeMount};
use node::{Event, RunningStar, StartOrder};
use state::StarRecord;
use store::secrets::Value;
use store::snapshots::Waiting;
use store::{Bundles, Roots, Secrets, Snapshots};

use crate::constellation::vault::{Opened, Vault};

/// Where a script that is executed sees the program that runs it.
const OWN_PROGRAM: &str = "/run/rads";

/// Where values of secrets come from.
pub(crate) trait Open: Send {
    /// # Errors
    /// When there is none, or it does not open.
    fn open(&self, secret: &SecretKey) -> Result<Value, Problem>;
}

/// The files of a machine that is alone.
impl Open for Arc<Secrets> {
    fn open(&self, secret: &SecretKey) -> Result<Value, Problem> {
        Secrets::open(self, secret)
    }
}

/// What was opened for one star.
impl Open for Opened {
    fn open(&self, secret: &SecretKey) -> Result<Value, Problem> {
        let missing = || Problem::new(Code::SecretMissing, format!("secret `{secret}` was not given to this star"));
        self.get(secret).cloned().ok_or_else(missing)
    }
}

/// Where this machine has values of secrets from. Clones are the same.
#[derive(Clone)]
pub(crate) enum Values {
    Alone(Arc<Secrets>),
    Shared(Vault),
}

impl Values {
    /// All that a star of this node is bound to.
    ///
    /// # Errors
    /// In a constellation, when nobody gives them.
    pub(crate) async fn of(&self, record: &StarRecord) -> Result<Box<dyn Open>, Problem> {
        Ok(match self {
            Self::Alone(secrets) => Box::new(Arc::clone(secrets)),
            Self::Shared(_) if record.secrets().is_empty() => Box::new(Opened::new()),
            Self::Shared(vault) => Box::new(vault.of_star(record.id).await?),
        })
    }

    /// The environment of a star that is known. A secret that is gone since it started is left out.
    pub(crate) async fn environment(&self, record: &StarRecord) -> BTreeMap<String, String> {
        let values = self.of(record).await.unwrap_or_else(|_| Box::new(Opened::new()));
        let hidden = secret_variables(&record.service.namespace, &record.template.interior.env_secrets, &*values);
        let own = own_variables(record.id, &record.service, &record.name(), record.generation, record.port);
        environment(&record.template.env, &own, hidden.unwrap_or_default())
    }
}

/// The order as the nursery takes it. The error names the star that cannot be started.
pub(crate) fn star_order(
    order: StartOrder,
    bundles: &Bundles,
    roots: &Roots,
    secrets: &dyn Open,
    snapshots: &Snapshots,
    data_dir: &Path,
    exe: &Path,
    ordinal: u32,
) -> Result<StarOrder, (StarId, String)> {
    let star = order.star;
    let waiting = snapshots.give(&order.service, ordinal, star).map_err(|problem| (star, problem.message))?;
    let beginning = waiting.map(|Waiting { folder, areas }| Beginning { folder, areas });
    let template = order.template;
    let bundle = bundles
        .path(&template.bundle)
        .ok_or_else(|| (star, format!("bundle `{}` is not in the data folder", template.bundle)))?;
    let root = match &template.rootfs {
        None => None,
        Some(archive) => {
            let missing = || (star, format!("the root file system `{archive}` is not in the data folder"));
            Some(roots.path(&template.bundle).ok_or_else(missing)?)
        }
    };
    let mut volumes = Vec::with_capacity(template.volumes.len());
    for mount in &template.volumes {
        volumes.push(volume(data_dir, &order.service, mount).map_err(|reason| (star, reason))?);
    }
    let own = own_variables(star, &order.service, &order.name, order.generation, order.port);
    let hidden = secret_variables(&order.service.namespace, &template.interior.env_secrets, secrets);
    let env = environment(&template.env, &own, hidden.map_err(|problem| (star, problem.message))?);
    let interior = interior(&order.service.namespace, &template.interior, &bundle, secrets);
    let mut interior = interior.map_err(|reason| (star, reason))?;
    let words = |words: Vec<String>| words.iter().map(|word| expand(word, &own)).collect();
    let launch = match template.program {
        // The first process of a star cannot be made again in another, and the nursery's memory is in every copy of it.
        Program::Script(path) if template.checkpoint => {
            let (host, inside) = (exe.to_owned(), OWN_PROGRAM.to_owned());
            interior.files.push(FileBind { host, inside, file: true, read_only: true });
            Launch::Command { argv: vec![OWN_PROGRAM.to_owned(), "star".to_owned(), path] }
        }
        Program::Script(path) => Launch::Script { path },
        Program::Command(argv) => Launch::Command { argv: words(argv) },
        Program::Nothing => return Err((star, "a place of a reservation runs nothing".to_owned())),
    };
    Ok(StarOrder {
        star,
        generation: order.generation,
        hostname: order.name,
        launch,
        args: words(template.args),
        before: words(template.hooks.before_start),
        env,
        bundle,
        root,
        volumes,
        limits: template.limits,
        network: template.network,
        interior,
        weakened: template.weakened,
        memory: None,
        beginning,
    })
}

/// What the description names becomes what the nursery mounts: bundled paths become files, secrets their values.
fn interior(namespace: &Name, asked: &model::Interior, bundle: &Path, secrets: &dyn Open) -> Result<Interior, String> {
    let tmpfs = |(inside, tmpfs): (&String, &model::Tmpfs)| Tmpfs { inside: inside.clone(), size: tmpfs.size.0 };
    let mut files = Vec::with_capacity(asked.binds.len());
    for (inside, source) in &asked.binds {
        let host = bundle.join(source);
        // A bundle holds no links; see `store::Bundles`.
        let metadata = host.symlink_metadata().map_err(|error| format!("the bundle has no `{source}`: {error}"))?;
        files.push(FileBind { host, inside: inside.clone(), file: metadata.is_file(), read_only: true });
    }
    let mut opened = Vec::with_capacity(asked.secrets.len());
    for (inside, name) in &asked.secrets {
        let mut value = secrets.open(&in_namespace(namespace, name)).map_err(|problem| problem.message)?;
        opened.push(Secret { inside: inside.clone(), content: Private::new(std::mem::take(&mut *value)) });
    }
    Ok(Interior {
        tmpfs: asked.tmpfs.iter().map(tmpfs).collect(),
        files,
        secrets: opened,
        workdir: asked.workdir.clone(),
        user: asked.user,
    })
}

fn in_namespace(namespace: &Name, name: &Name) -> SecretKey {
    SecretKey { namespace: namespace.clone(), name: name.clone() }
}

/// The variables in which a star reads secrets, with their values.
fn secret_variables(
    namespace: &Name,
    asked: &BTreeMap<String, Name>,
    secrets: &dyn Open,
) -> Result<BTreeMap<String, String>, Problem> {
    let variable = |(variable, name): (&String, &Name)| {
        let secret = in_namespace(namespace, name);
        let value = secrets.open(&secret)?;
        let text = std::str::from_utf8(&value).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| {
            let message = format!("secret `{secret}` holds bytes that no variable can, which `env_secrets` asks for");
            Problem::new(Code::InvalidValue, message).help("read it from a file, by `secrets`")
        })?;
        Ok((variable.clone(), text.to_owned()))
    };
    asked.iter().map(variable).collect()
}

/// Refuses a spec whose secrets are not there, or not what they are to be used as.
pub(crate) fn check_secrets(spec: &AppSpec, secrets: &Arc<Secrets>) -> Result<(), Problem> {
    let namespace = &spec.app.namespace;
    for (service, spec) in &spec.services {
        let of_service = |mut problem: Problem| {
            problem.message = format!("service `{service}`: {}", problem.message);
            problem
        };
        for name in spec.template.secrets() {
            secrets.open(&in_namespace(namespace, name)).map_err(of_service)?;
        }
        secret_variables(namespace, &spec.template.interior.env_secrets, secrets).map_err(of_service)?;
    }
    Ok(())
}

/// What every star is told of itself.
fn own_variables(
    star: StarId,
    service: &ServiceKey,
    name: &str,
    generation: u64,
    port: Option<u16>,
) -> BTreeMap<String, String> {
    let mut own = BTreeMap::from([
        ("STAR_ID".to_owned(), star.to_string()),
        ("STAR_NAME".to_owned(), name.to_owned()),
        (NAMESPACE_VARIABLE.to_owned(), service.namespace.to_string()),
        ("STAR_GENERATION".to_owned(), generation.to_string()),
    ]);
    own.extend(port.map(|port| ("PORT".to_owned(), port.to_string())));
    own
}

/// A star's environment: what its description gives it, in which what the star is told of itself may be named, and that.
fn environment(
    given: &BTreeMap<String, String>,
    own: &BTreeMap<String, String>,
    hidden: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = own.clone();
    env.extend(hidden);
    env.extend(given.iter().map(|(name, value)| (name.clone(), expand(value, own))));
    env
}

/// A command to run in a star that is known, in which what the star is told of itself may be named.
pub(crate) fn command_in(record: &StarRecord, command: &[String]) -> Launch {
    let own = own_variables(record.id, &record.service, &record.name(), record.generation, record.port);
    Launch::Command { argv: command.iter().map(|word| expand(word, &own)).collect() }
}

/// Puts values in place of `$NAME` and `${NAME}`. A name that has none stays as it is written, for a shell to read.
fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let (name, behind) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(after.find(|c| !is_word(c)).unwrap_or(after.len())),
        };
        rest = match values.get(name) {
            Some(value) => {
                result.push_str(value);
                behind
            }
            None => {
                result.push('$');
                after
            }
        };
    }
    result + rest
}

/// What the nursery reports when it is met.
pub(crate) fn nursery_up(stars: Vec<StarReport>) -> Event {
    let (mut running, mut ended) = (Vec::new(), Vec::new());
    for report in stars {
        let StarReport { star, generation, pid, start_time, ended: cause } = report;
        match cause {
            None => running.push(RunningStar { star, generation, pid, start_time }),
            Some(cause) => ended.push((star, cause)),
        }
    }
    Event::NurseryUp { running, ended }
}

/// A volume's folder, made when it is first used: `volumes/<namespace>/<name>`, shared by the services of a namespace
/// that name it.
pub(crate) fn volume(data_dir: &Path, service: &ServiceKey, mount: &VolumeMount) -> Result<Bind, String> {
    let host = data_dir.join("volumes").join(service.namespace.as_str()).join(mount.volume.as_str());
    // `volumes` itself is closed to others; this is as the star's root sees its folder.
    let made = DirBuilder::new().recursive(true).mode(0o711).create(&host);
    made.map_err(|error| format!("the folder of volume `{}` cannot be made: {error}", mount.volume))?;
    Ok(Bind { host, inside: mount.path.clone(), size: mount.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_star_is_told_of_itself_can_be_named() {
        let own = own_variables(StarId(7), &"shop/web".parse().unwrap(), "web-1", 42, Some(8080));
        let check = |text: &str, expected: &str| assert_eq!(expand(text, &own), expected, "{text}");
        check("--port=$PORT", "--port=8080");
        check("http://$STAR_NAME:${PORT}/", "http://web-1:8080/");
        check("$PORT$PORT", "80808080");
        check("--fence=$STAR_GENERATION", "--fence=42");
        check("$STAR_NAMESPACE/$STAR_NAME", "shop/web-1");
        for left in ["$PORTS", "$HOME", "${PORT", "${HOME}", "$", "$$", "a$", "echo $$ $1 ${x:-y}", ""] {
            check(left, left);
        }
        let given =
            BTreeMap::from([("URL".to_owned(), "tcp://:$PORT".to_owned()), ("PORT".to_owned(), "1".to_owned())]);
        let env = environment(&given, &own, BTreeMap::new());
        assert_eq!(
            (env["URL"].as_str(), env["PORT"].as_str(), env["STAR_NAME"].as_str()),
            ("tcp://:8080", "1", "web-1")
        );
    }
}
