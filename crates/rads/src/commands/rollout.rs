//! `rads c rollout`, `history`, `diff` and `rollback`: the versions of a service, and the way from one to the next.

use api::{Client, RolloutView, VersionView};
use deploy::{ServiceChange, service_diff};
use model::{Code, Fate, Problem, RolloutTurn};
use serde::Serialize;

use super::{change, find, progress};
use crate::cli::{DiffArgs, Form, OneService, RollbackArgs, Turn};
use crate::moment::clock_time;
use crate::screen::{self, Table};

pub(crate) async fn turn(client: &Client, turn: Turn, service: &str, form: Form) -> Result<u8, Problem> {
    let service = find::service(service)?;
    let turn = match turn {
        Turn::Promote => RolloutTurn::Promote,
        Turn::Abort => RolloutTurn::Abort,
        Turn::Pause => RolloutTurn::Pause,
        Turn::Resume => RolloutTurn::Resume,
    };
    let version = client.service(&service).await?.version;
    let asked = client.turn_rollout(&service, turn).await?;
    if form == Form::Text {
        let done = match turn {
            RolloutTurn::Promote => "promoted: it takes the place of all",
            RolloutTurn::Abort => "aborted: the one before it comes back",
            RolloutTurn::Pause => "paused",
            RolloutTurn::Resume => "goes on",
        };
        screen::note(format!("{service}: version {version} {}", done));
    }
    // Whoever aborts hears no complaint that it was aborted.
    let asked = if turn == RolloutTurn::Abort { api::Accepted { index: u64::MAX } } else { asked };
    let code = change::settle(client, service.clone(), asked, form).await?;
    let goes_on = matches!(turn, RolloutTurn::Promote | RolloutTurn::Resume);
    match goes_on && progress::failed_and_held(&client.service(&service).await?).is_some() {
        // It failed once more, as is said above.
        true => Ok(1),
        false => Ok(code),
    }
}

pub(crate) async fn back(client: &Client, args: RollbackArgs, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let asked = client.roll_back(&service, args.version).await?;
    change::settle(client, service, asked, form).await
}

/// A version with what it changed, for programs.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    version: &'a VersionView,
    changes: Vec<String>,
}

pub(crate) async fn history(client: &Client, args: &OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let versions = client.versions(&service).await?;
    let view = client.service(&service).await?;
    let before = std::iter::once(None).chain(versions.iter().map(Some));
    let told: Vec<Told<'_>> = versions.iter().zip(before).map(|(version, before)| told(version, before)).collect();
    if form == Form::Json {
        screen::json(&told)?;
        return Ok(0);
    }
    let mut table = Table::new(&[">VERSION", "SINCE", "CHANGES", "STATE"]);
    for Told { version, changes } in &told {
        let since = if version.since.0 == 0 { "-".to_owned() } else { clock_time(version.since) };
        let state = match (&version.fate, &view.rollout) {
            (Some(Fate::Good), _) => "was good".to_owned(),
            (Some(Fate::Overtaken), _) => "overtaken".to_owned(),
            (Some(Fate::Failed { reason }), _) => format!("failed: {reason}"),
            (None, Some(RolloutView { held: Some(held), .. })) => {
                if held.reason.is_some() {
                    "held".to_owned()
                } else {
                    "paused".to_owned()
                }
            }
            (None, Some(rollout)) if rollout.trial.is_some() => "on trial".to_owned(),
            (None, Some(_)) => "on its way".to_owned(),
            (None, None) => "present".to_owned(),
        };
        let again = version.of.map(|of| format!("as version {of}"));
        let changes = again.unwrap_or_else(|| if changes.is_empty() { "-".to_owned() } else { changes.join(", ") });
        table.row([version.version.to_string(), since, changes, state]);
    }
    screen::print(&table.render());
    Ok(0)
}

fn told<'a>(version: &'a VersionView, before: Option<&VersionView>) -> Told<'a> {
    let change = before.and_then(|before| service_diff(&before.spec, &version.spec));
    let fields = match change {
        Some(ServiceChange::Update { changes } | ServiceChange::Replace { changes, .. }) => changes,
        _ => Vec::new(),
    };
    // How many stars there are is no part of a version.
    let changes = fields.into_iter().map(|change| change.field).filter(|field| field != "instances").collect();
    Told { version, changes }
}

#[derive(Serialize)]
struct Difference {
    from: u64,
    to: u64,
    changes: Vec<Field>,
}

#[derive(Serialize)]
struct Field {
    field: String,
    old: String,
    new: String,
}

pub(crate) async fn diff(client: &Client, args: &DiffArgs, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let versions = client.versions(&service).await?;
    let find = |number: u64| {
        versions.iter().find(|version| version.version == number).ok_or_else(|| {
            let message = format!("service `{service}` has no version {number}, or it is not kept any more");
            Problem::new(Code::NotFound, message).help(format!("`rads c history {service}` shows its versions"))
        })
    };
    let Some((present, earlier)) = versions.split_last() else { return Ok(0) };
    let to = args.to.map_or(Ok(present), find)?;
    let from = match (args.from, earlier.last()) {
        (Some(number), _) => find(number)?,
        (None, Some(last)) => last,
        (None, None) => {
            screen::note(format!("service `{service}` has had no other version"));
            return Ok(0);
        }
    };
    let same_number = model::ServiceSpec { instances: to.spec.instances, ..from.spec.clone() };
    let change = service_diff(&same_number, &to.spec);
    match (form, change) {
        (Form::Json, change) => {
            let fields = match change {
                Some(ServiceChange::Update { changes } | ServiceChange::Replace { changes, .. }) => changes,
                _ => Vec::new(),
            };
            let field = |change: deploy::Change| Field { field: change.field, old: change.old, new: change.new };
            let changes = fields.into_iter().map(field).collect();
            screen::json(&Difference { from: from.version, to: to.version, changes })?;
        }
        (Form::Text, None) => screen::line(format!("versions {} and {} are the same", from.version, to.version)),
        (Form::Text, Some(change)) => {
            let mut text = format!("from version {} to {}\n", from.version, to.version);
            let told = change.tell(&mut text, &service.name);
            told.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
            screen::print(&text);
        }
    }
    Ok(0)
}
