//! `constellation.deploy` and `create`: a service as it is described to the agent, made of the files that the program itself is made of.
//!
//! A star names its own files as they lie with its agent and sends none. A program outside of stars sends those of its folder, as
//! `rads up` does. The service joins its app beside what is there; whoever changes the app meanwhile goes first.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use deploy::{Bundle, Evaluated, Setting, Source};
use hyper::Method;
use model::{AppKey, BundleId, BundleManifest, Code, ContentHash, Name, Problem, ServiceKey, ServiceSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Way;
use super::api::Api;
use crate::app_folder::AppFolder;
use crate::library::natives;

/// Where a star sees its own files.
const FILES_IN_STAR: &str = "/app";
/// How long changes of the same app by others may keep this one waiting.
const CONFLICTS_FOR: Duration = Duration::from_secs(5);
const CONFLICT_AGAIN: Duration = Duration::from_millis(20);
/// In place of a bundle: the files of the star that asks.
const OWN_FILES: BundleId = BundleId(ContentHash([0; 32]));
/// Names that are tried for what has none.
const NAMES_TRIED: u32 = 16;

/// What is asked for.
pub(super) struct Wish {
    pub(super) namespace: Name,
    /// One is found when nothing is said.
    pub(super) name: Option<Name>,
    pub(super) app: Option<Name>,
    pub(super) settings: Vec<(String, Setting)>,
    /// It must not be there yet, and is not replaced when it ends.
    pub(super) create: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Deployed {
    namespace: Name,
    name: Name,
    /// Of the log.
    index: u64,
}

/// What is read of an app; the rest of its services is handed back as it came.
#[derive(Deserialize)]
struct App {
    spec: Value,
    version: u64,
}

#[derive(Deserialize)]
struct Accepted {
    index: u64,
}

#[derive(Deserialize)]
struct BundleStatus {
    missing: Vec<ContentHash>,
}

pub(super) async fn deploy(api: &Rc<Api>, wish: Wish) -> Result<Deployed, Problem> {
    if let Some(name) = wish.name.clone() {
        return as_named(api, &wish, name).await;
    }
    let base = base_name(&wish.settings);
    for _ in 0..NAMES_TRIED {
        let name = with_letters(&base)?;
        match as_named(api, &wish, name).await {
            Err(problem) if problem.code == Code::AlreadyExists => {}
            done => return done,
        }
    }
    let problem = Problem::new(Code::AlreadyExists, format!("no name such as `{base}-…` is free"));
    Err(problem.help("say with `name` what it is to be called"))
}

async fn as_named(api: &Rc<Api>, wish: &Wish, name: Name) -> Result<Deployed, Problem> {
    let Evaluated { spec, bundles, .. } = evaluated(api.way(), wish, &name)?;
    let namespace = spec.app.namespace.clone();
    let key = ServiceKey { namespace: namespace.clone(), name: name.clone() };
    let Some(mut service) = spec.services.into_values().next() else {
        return Err(Problem::new(Code::Internal, "a service was described and is not there"));
    };
    match api.way() {
        Way::Star => service.template.bundle = OWN_FILES,
        Way::Api { .. } => {
            for bundle in bundles.values() {
                upload(api, bundle).await?;
            }
        }
    }
    let app = match wish.create {
        true => AppKey { namespace: namespace.clone(), name: wish.app.clone().unwrap_or_else(|| name.clone()) },
        false => app_of(api, &key, wish.app.clone()).await?,
    };
    let index = put(api, &app, &name, service, wish.create).await?;
    Ok(Deployed { namespace, name, index })
}

/// What the options come to, and the files it takes. Faults are told in the words of the options.
fn evaluated(way: &Way, wish: &Wish, name: &Name) -> Result<Evaluated, Problem> {
    let folder = match way {
        Way::Star => FILES_IN_STAR.into(),
        Way::Api { files, .. } => files.clone(),
    };
    let (files, library, env) = (AppFolder(folder), natives(), BTreeMap::new());
    let app = AppKey { namespace: wish.namespace.clone(), name: name.clone() };
    let source = Source {
        files: &files,
        entry: "the program",
        shown_in: "",
        app: &app,
        env: &env,
        library: &library,
        colour: false,
    };
    deploy::service_of_program(&source, name, wish.settings.clone(), !wish.create).map_err(|faults| {
        let mut problems = faults.into_iter().map(|fault| fault.problem);
        let first = problems.next().unwrap_or_else(|| Problem::new(Code::Internal, "the options cannot be"));
        match problems.next() {
            None => first,
            Some(second) => Problem { message: format!("{}; and {}", first.message, second.message), ..first },
        }
    })
}

/// Sends the files that the agent does not have.
async fn upload(api: &Api, bundle: &Bundle) -> Result<(), Problem> {
    let told = async |manifest: &BundleManifest| -> Result<BundleStatus, Problem> {
        api.send(Method::POST, "/v1/bundles", manifest).await
    };
    let missing = told(&bundle.manifest).await?.missing;
    if missing.is_empty() {
        return Ok(());
    }
    for hash in missing {
        let content = bundle.contents.get(&hash).cloned().unwrap_or_default();
        api.request(Method::PUT, &format!("/v1/blobs/{hash}"), Bytes::from(content)).await?;
    }
    match told(&bundle.manifest).await?.missing.len() {
        0 => Ok(()),
        left => {
            Err(Problem::new(Code::BundleMissing, format!("{left} files did not reach the agent")).help("try again"))
        }
    }
}

/// The app that a service is of, or is to be: one that is there stays where it is.
async fn app_of(api: &Api, key: &ServiceKey, asked: Option<Name>) -> Result<AppKey, Problem> {
    #[derive(Deserialize)]
    struct Service {
        app: AppKey,
    }
    if let Some(name) = asked {
        return Ok(AppKey { namespace: key.namespace.clone(), name });
    }
    match api.get::<Service>(&format!("/v1/services/{}%2F{}", key.namespace, key.name)).await {
        Ok(service) => Ok(service.app),
        Err(problem) if problem.code == Code::NotFound => {
            Ok(AppKey { namespace: key.namespace.clone(), name: key.name.clone() })
        }
        Err(problem) => Err(problem),
    }
}

/// Puts the app with the service in it; gives the index of the log.
async fn put(api: &Api, app: &AppKey, name: &Name, service: ServiceSpec, create: bool) -> Result<u64, Problem> {
    let path = format!("/v1/apps/{}%2F{}", app.namespace, app.name);
    let deadline = Instant::now() + CONFLICTS_FOR;
    loop {
        let (mut spec, base) = match api.get::<App>(&path).await {
            Ok(App { spec, version }) => (spec, version),
            Err(problem) if problem.code == Code::NotFound => (json!({"app": app, "services": {}}), 0),
            Err(problem) => return Err(problem),
        };
        let services = &mut spec["services"];
        if create && services.get(name.as_str()).is_some() {
            let problem = Problem::new(Code::AlreadyExists, format!("there is a service `{name}` already"));
            return Err(problem.help("choose another name, or change it with `constellation.deploy`"));
        }
        services[name.as_str()] = json!(service);
        let body = json!({"spec": spec, "base": base});
        match api.send::<Accepted>(Method::PUT, &path, &body).await {
            Err(problem) if problem.code == Code::Conflict && Instant::now() < deadline => sleep(CONFLICT_AGAIN).await,
            answer => return answer.map(|accepted| accepted.index),
        }
    }
}

/// What something without a name is called after: its script or program.
fn base_name(settings: &[(String, Setting)]) -> String {
    let text = settings.iter().find_map(|(name, setting)| match (name.as_str(), setting) {
        ("script", Setting::Text(path)) => Some(path.as_str()),
        ("command", Setting::List(words)) => match words.first() {
            Some(Setting::Text(program)) => Some(program.as_str()),
            _ => None,
        },
        _ => None,
    });
    let file = text.unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let stem = file.split('.').next().unwrap_or_default();
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    const BASE_MAX_CHARS: usize = 40;
    let name: String = stem.chars().map(legal).take(BASE_MAX_CHARS).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "star".to_owned() } else { name.to_owned() }
}

/// One of a billion: two programs hardly ever choose the same, and then one chooses again.
fn with_letters(base: &str) -> Result<Name, Problem> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut seed = crate::modules::process::random_seed();
    let mut letters = String::new();
    for _ in 0..6 {
        letters.push(char::from(LETTERS[(seed % 32) as usize]));
        seed /= 32;
    }
    format!("{base}-{letters}")
        .parse()
        .map_err(|error: model::name::InvalidName| Problem::new(Code::Internal, error.to_string()))
}

/// As the program is told of it.
pub(super) fn told(deployed: &Deployed) -> String {
    json!(deployed).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_is_called_after_what_it_runs() {
        let text = |text: &str| Setting::Text(text.to_owned());
        let check = |settings: &[(&str, Setting)], expected: &str| {
            let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            assert_eq!(base_name(&settings), expected, "{settings:?}");
        };
        check(&[("script", text("jobs/Count Words.rads"))], "count-words");
        check(&[("command", Setting::List(vec![text("/usr/bin/sort"), text("-n")]))], "sort");
        check(&[("script", text("__.rads"))], "star");
        check(&[], "star");
        let (one, other) = (with_letters("sort").unwrap(), with_letters("sort").unwrap());
        assert!(one.as_str().starts_with("sort-") && one.as_str().len() == 11 && one != other, "{one} {other}");
        assert!(with_letters(&"x".repeat(40)).is_ok());
    }
}
