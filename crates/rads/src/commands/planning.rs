//! From a file to what is wanted: evaluates an app, or makes a service of a plain script, and sends its files.
//!
//! Nothing here asks an agent before [`Planned::upload`]; every fault of the files is told before anything changes.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::Path;

use api::{Client, Forecast, ServiceForecast};
use bytes::Bytes;
use deploy::{Bundle, Diff, Evaluated, Fault, ServiceChange, Setting, Source};
use model::{AppKey, AppSpec, Code, ListenAddr, Name, Problem};
use rads_std::AppFolder;
use rads_syntax::ast::{Expr, ExprKind, ImportTarget};
use serde::Serialize;

use super::Failure;
use super::language;
use super::namespaces::Effect as QuotaEffect;
use crate::options::ServiceOptions;
use crate::screen::{self, Paint};

/// What the command line says beside the file.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) name: Option<Name>,
    settings: Vec<(String, Setting)>,
}

impl Overrides {
    pub(crate) fn listening(listen: Option<ListenAddr>) -> Self {
        let listen = listen.map(|listen| ("listen".to_owned(), Setting::Text(listen.to_string())));
        Self { name: None, settings: listen.into_iter().collect() }
    }

    /// What is made of options alone, by a command of its own.
    pub(crate) fn held(name: Name, settings: Vec<(String, Setting)>) -> Self {
        Self { name: Some(name), settings }
    }

    /// Refuses what this version does not know how to do. `program` is a command of its own, beside the options.
    pub(crate) fn of(options: ServiceOptions, name: Option<Name>, program: Vec<String>) -> Result<Self, Problem> {
        let ServiceOptions { mut settings, later } = options;
        if later.is_some() {
            return Err(Problem::new(Code::Unsupported, "autoscaling is not part of this version")
                .help("leave `--autoscale-min` and `--autoscale-max` out, and use `rads c scale NAME N`"));
        }
        if !program.is_empty() {
            if settings.iter().any(|(name, _)| name == "command") {
                return Err(Problem::new(Code::Usage, "the command is given twice, by `--command` and behind `--`")
                    .help("leave one of them out"));
            }
            let words = program.into_iter().map(Setting::Text).collect();
            settings.push(("command".to_owned(), Setting::List(words)));
        }
        Ok(Self { name, settings })
    }
}

/// What is wanted, and the files it is made of.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) spec: AppSpec,
    bundles: Vec<Bundle>,
}

/// Reads an app, or the script of one service: a file that imports `constellation` is an app, and so is every `app.rads`.
pub(crate) fn file(path: &Path, overrides: &Overrides) -> Result<Planned, Failure> {
    if !is_app(path)? {
        return script(path, overrides, Ended::Replaced);
    }
    if overrides.name.is_some() {
        let problem = Problem::new(Code::Usage, "`--name` is for plain scripts; an app names its services itself");
        return Err(problem.help("leave `--name` out").into());
    }
    let place = Place::of(path)?;
    let evaluated = place.evaluate(|source| deploy::evaluate_with(source, &overrides.settings))?;
    Ok(Planned::new(evaluated))
}

/// Whether a file describes an app; any other is the script of a service, or of a program.
pub(crate) fn is_app(path: &Path) -> Result<bool, Failure> {
    language::readable(path)?;
    let text = fs::read(path).map_err(|error| unreadable(path, &rads_std::app_folder::reason(&error)))?;
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unreadable(path, &format!("byte {at} is not UTF-8 text")).help("save it as UTF-8")
    })?;
    Ok(path.file_name().is_some_and(|name| name == "app.rads") || describes_an_app(&text))
}

/// Whether a star of a plain script is replaced when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Replaced,
    Left,
}

/// Makes a service of a plain script.
pub(crate) fn script(path: &Path, overrides: &Overrides, ended: Ended) -> Result<Planned, Failure> {
    language::readable(path)?;
    let place = Place::of(path)?;
    let script = ("script".to_owned(), Setting::Text(place.entry.clone()));
    service(place, Some(script), overrides, ended)
}

/// Makes a service of a command, whose own files lie in the working folder.
pub(crate) fn command(name: Name, overrides: &Overrides, ended: Ended) -> Result<Planned, Failure> {
    let here = env::current_dir()
        .map_err(|error| Problem::new(Code::FileUnreadable, format!("the working folder cannot be used: {error}")))?;
    let (app, entry) = (AppKey::in_default(name), "the command line".to_owned());
    service(Place { folder: AppFolder(here), entry, shown_in: String::new(), app }, None, overrides, ended)
}

fn service(
    mut place: Place,
    script: Option<(String, Setting)>,
    overrides: &Overrides,
    ended: Ended,
) -> Result<Planned, Failure> {
    if let Some(name) = &overrides.name {
        place.app = AppKey { namespace: place.app.namespace, name: name.clone() };
    }
    let mut settings: Vec<(String, Setting)> = script.into_iter().chain(overrides.settings.iter().cloned()).collect();
    let typed = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    if let (Some(Setting::Text(listen)), None) = (typed("listen"), typed("port")) {
        settings.extend(own_port(listen).map(|port| ("port".to_owned(), Setting::Int(port.into()))));
    }
    let name = place.app.name.clone();
    let evaluated =
        place.evaluate(|source| deploy::single_service(source, &name, settings, ended == Ended::Replaced))?;
    Ok(Planned::new(evaluated))
}

/// A program told where the service listens, but not on which port of its own, gets the same one, or the usual one. It takes it from
/// `PORT`.
fn own_port(listen: &str) -> Option<u16> {
    const USUAL: u16 = 8080;
    let port = listen.rsplit(':').next()?.parse().ok()?;
    Some(if port == 0 { USUAL } else { port })
}

impl Planned {
    fn new(evaluated: Evaluated) -> Self {
        // Standard output is for what the command has to say.
        if !evaluated.echoed.is_empty() {
            screen::note(evaluated.echoed.trim_end());
        }
        Self { spec: evaluated.spec, bundles: evaluated.bundles.into_values().collect() }
    }

    pub(crate) fn changes(&self, current: Option<&AppSpec>) -> Changes {
        Changes(deploy::diff(current, &self.spec))
    }

    /// Sends the files that the agent does not have.
    pub(crate) async fn upload(&self, client: &Client) -> Result<(), Problem> {
        for bundle in &self.bundles {
            let status = client.put_bundle(&bundle.manifest).await?;
            if status.missing.is_empty() {
                continue;
            }
            for hash in &status.missing {
                let content = bundle.contents.get(hash).ok_or_else(|| {
                    Problem::new(Code::Internal, format!("the agent asks for a file it was not told of: `{hash}`"))
                })?;
                client.put_blob(*hash, Bytes::copy_from_slice(content)).await?;
            }
            let left = client.put_bundle(&bundle.manifest).await?.missing.len();
            if left > 0 {
                return Err(Problem::new(Code::BundleMissing, format!("{left} files did not reach the agent"))
                    .help("try again"));
            }
        }
        Ok(())
    }
}

/// The difference between what runs and what is wanted.
pub(crate) struct Changes(Diff);

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something that runs is removed or replaced.
    pub(crate) fn disturbs(&self) -> bool {
        let disturbing =
            |change: &ServiceChange| matches!(change, ServiceChange::Replace { .. } | ServiceChange::Remove { .. });
        self.0.services.iter().any(|(_, change)| disturbing(change))
    }

    /// Whether stars of a service are replaced.
    pub(crate) fn replaces(&self, service: &Name) -> bool {
        let mut services = self.0.services.iter();
        services.any(|(name, change)| name == service && matches!(change, ServiceChange::Replace { .. }))
    }

    /// A service that is removed, if one is.
    pub(crate) fn removed(&self) -> Option<&Name> {
        let is_removal = |change: &ServiceChange| matches!(change, ServiceChange::Remove { .. });
        self.0.services.iter().find(|(_, change)| is_removal(change)).map(|(name, _)| name)
    }

    /// The plan as people read it.
    pub(crate) fn render(&self) -> String {
        format!("plan for `{}`: {}\n{}", self.0.app, self.0.summary(), self.0)
    }

    /// The same for programs. `quota`: what it does to that of its namespace, where there is one; `forecast`: where its stars would come
    /// to, if an agent could be asked.
    pub(crate) fn for_programs(&self, quota: Option<QuotaEffect>, forecast: Option<Forecast>) -> impl Serialize {
        #[derive(Serialize)]
        struct Plan {
            app: AppKey,
            summary: String,
            services: Vec<Service>,
            #[serde(skip_serializing_if = "Option::is_none")]
            quota: Option<QuotaEffect>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            placements: Vec<ServiceForecast>,
        }
        #[derive(Serialize)]
        struct Service {
            service: Name,
            /// `create`, `update`, `replace` or `remove`.
            action: &'static str,
            /// None where the stars stay, or where each node has one.
            stars: Option<u32>,
            changes: Vec<Field>,
        }
        #[derive(Serialize)]
        struct Field {
            field: String,
            old: String,
            new: String,
        }
        let fields = |changes: &[deploy::Change]| {
            let field = |change: &deploy::Change| Field {
                field: change.field.clone(),
                old: change.old.clone(),
                new: change.new.clone(),
            };
            changes.iter().map(field).collect()
        };
        let services = self.0.services.iter().map(|(name, change)| {
            let (action, stars, changes) = match change {
                ServiceChange::Create { stars, .. } => ("create", stars.number(), Vec::new()),
                ServiceChange::Update { changes } => ("update", None, fields(changes)),
                ServiceChange::Replace { stars, changes, .. } => ("replace", stars.number(), fields(changes)),
                ServiceChange::Remove { stars } => ("remove", stars.number(), Vec::new()),
            };
            Service { service: name.clone(), action, stars, changes }
        });
        let placements = forecast.map(|forecast| forecast.services).unwrap_or_default();
        Plan { app: self.0.app.clone(), summary: self.0.summary(), services: services.collect(), quota, placements }
    }
}

/// Where an app or a script lies, and what it is called.
struct Place {
    folder: AppFolder,
    /// The file's name within the folder.
    entry: String,
    /// The folder as it was typed.
    shown_in: String,
    app: AppKey,
}

impl Place {
    fn of(path: &Path) -> Result<Self, Problem> {
        let whole = fs::canonicalize(path).map_err(|error| unreadable(path, &error.to_string()))?;
        let entry = whole.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let (Some(entry), Some(folder)) = (entry, whole.parent()) else {
            return Err(unreadable(path, "its name is not UTF-8 text"));
        };
        // A link to an app elsewhere is shown as what it leads to.
        let typed = path.parent().filter(|_| path.file_name().is_some_and(|name| name == entry.as_str()));
        let typed = typed.unwrap_or(folder).join("").to_string_lossy().into_owned();
        let app = AppKey::in_default(app_name(&whole));
        Ok(Self { app, folder: AppFolder(folder.to_owned()), entry, shown_in: typed })
    }

    /// Evaluates with everything a description may know; faults are told here.
    fn evaluate(&self, how: impl FnOnce(&Source<'_>) -> Result<Evaluated, Vec<Fault>>) -> Result<Evaluated, Failure> {
        let library = rads_std::natives();
        let env: BTreeMap<String, String> = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let source = Source {
            files: &self.folder,
            entry: &self.entry,
            shown_in: &self.shown_in,
            app: &self.app,
            env: &env,
            library: &library,
            colour: Paint::for_stream(&io::stderr()).is_on(),
        };
        how(&source).map_err(|faults| Failure::Faulty(faults.into_iter().map(|fault| fault.text).collect()))
    }
}

/// What an app is called: its file, or the folder of an `app.rads`. Letters that names do not have become `-`.
fn app_name(path: &Path) -> Name {
    let part = |part: Option<&std::ffi::OsStr>| part.map(|text| text.to_string_lossy().into_owned());
    let stem = part(path.file_stem()).filter(|stem| !matches!(stem.as_str(), "app" | "main"));
    let text = stem.or_else(|| part(path.parent().and_then(Path::file_name))).unwrap_or_default();
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().map(legal).take(model::name::NAME_MAX_CHARS).collect();
    text.trim_matches('-').parse().unwrap_or_else(|_| Name::default_namespace())
}

/// Whether a file is an app: it imports `constellation` or names it, which needs no import. One that asks for more than to describe
/// services, or takes what comes of that, is a program. One that does not parse is told so when it is evaluated.
fn describes_an_app(text: &str) -> bool {
    let file = rads_syntax::parse(text).file;
    let (mut is_named, mut is_program) = (false, false);
    rads_syntax::expressions(&file, &mut |expr| match &expr.kind {
        ExprKind::Name(name) => is_named |= &**name == "constellation",
        ExprKind::Field { object, name, .. } if is_constellation(object) => {
            is_program |= !matches!(&*name.text, "deploy" | "create");
        }
        ExprKind::Call { callee, .. } => {
            let of = matches!(&callee.kind, ExprKind::Field { object, .. } if is_constellation(object));
            let before = text.get(..expr.span.start as usize).unwrap_or_default().trim_end();
            is_program |= of && (before.ends_with('=') || before.ends_with("return"));
        }
        _ => {}
    });
    let is_module = |target: &ImportTarget| match target {
        ImportTarget::Module(names) => names.first().is_some_and(|name| &*name.text == "constellation"),
        ImportTarget::File { .. } => false,
    };
    let is_imported = rads_syntax::imports(&file).iter().any(|import| is_module(&import.target));
    !is_program && (is_named || is_imported)
}

fn is_constellation(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Name(name) if &**name == "constellation")
}

fn unreadable(path: &Path, why: &str) -> Problem {
    Problem::new(Code::FileUnreadable, format!("cannot read `{}`: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_called_after_its_file_or_folder() {
        let check = |path: &str, expected: &str| assert_eq!(app_name(Path::new(path)).as_str(), expected, "{path}");
        check("/x/hello/app.rads", "hello");
        check("/x/shop/main.rads", "shop");
        check("/x/hello/server.rads", "server");
        check("/x/My Shop!/app.rads", "my-shop");
        check("/app.rads", "default");
    }

    #[test]
    fn a_file_that_imports_constellation_is_an_app() {
        let check = |text: &str, expected: bool| assert_eq!(describes_an_app(text), expected, "{text}");
        check("import constellation;\nconstellation.deploy(\"a\", {});", true);
        check("constellation.deploy(\"a\", {});", true);
        check("// import constellation;\nserver.serve();", false);
        check("echo(\"import constellation;\");", false);
        check("cruise (name in [\"a\"]) { constellation.deploy(name, {}); }", true);
        // Programs, which deploy by themselves when they run.
        check("turbo web = constellation.deploy(\"a\", {});", false);
        check("blast f() { return constellation.create({}); }", false);
        check("constellation.scale(\"a\", 3);", false);
        check("constellation.on(\"message\", blast (event) { echo(event); });", false);
    }
}
