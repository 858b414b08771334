//! Changes to what runs: each is sent, then waited for, so that the command's end means that it holds.

use api::{Accepted, Client, StarTurn, StarsThen};
use model::{AppKey, Code, Problem, ServiceKey};

use super::find::{self, Named};
use super::{Connected, agent, progress};
use crate::cli::{Down, Form, OneService, OneTarget, Scale};
use crate::screen;

pub(crate) async fn scale(client: &Client, args: Scale, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let asked = client.scale(&service, args.instances).await?;
    settle(client, service, asked, form).await
}

pub(crate) async fn restart(client: &Client, args: OneTarget, form: Form) -> Result<u8, Problem> {
    match find::named(client, &args.name).await? {
        Named::Service(service) => {
            let asked = client.restart(&service.service).await?;
            settle(client, service.service, asked, form).await
        }
        Named::Star { service, ordinal, .. } => turn(client, &service, ordinal, StarTurn::Restart, form).await,
    }
}

pub(crate) async fn stop(client: &Client, args: OneTarget, form: Form) -> Result<u8, Problem> {
    match find::named(client, &args.name).await? {
        Named::Service(service) => {
            let asked = client.stop(&service.service).await?;
            settle(client, service.service, asked, form).await
        }
        Named::Star { service, ordinal, .. } => turn(client, &service, ordinal, StarTurn::Stop, form).await,
    }
}

pub(crate) async fn start(client: &Client, args: OneTarget, form: Form) -> Result<u8, Problem> {
    match find::named(client, &args.name).await? {
        Named::Service(service) => {
            let asked = client.start(&service.service).await?;
            settle(client, service.service, asked, form).await
        }
        Named::Star { service, ordinal, .. } => turn(client, &service, ordinal, StarTurn::Start, form).await,
    }
}

pub(crate) async fn pause(client: &Client, args: OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let asked = client.pause(&service).await?;
    settle(client, service, asked, form).await
}

pub(crate) async fn resume(client: &Client, args: OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let asked = client.resume(&service).await?;
    settle(client, service, asked, form).await
}

/// One star, by the number in its name.
async fn turn(client: &Client, service: &ServiceKey, ordinal: u32, turn: StarTurn, form: Form) -> Result<u8, Problem> {
    let asked = client.turn(service, ordinal, turn).await?;
    let view = progress::settled(client, service, asked.index).await.map_err(Problem::after_changes)?;
    let what = match turn {
        StarTurn::Stop => "stopped",
        StarTurn::Start => "started",
        StarTurn::Restart => "restarted",
        StarTurn::Move => "moved",
    };
    match form {
        Form::Json => screen::json(&view)?,
        Form::Text => screen::line(format!("{}-{ordinal}: {what}", service.name)),
    }
    Ok(0)
}

/// Takes a service out of its app.
pub(super) async fn destroy(on: &Connected, args: OneTarget) -> Result<u8, Problem> {
    let client = &on.client;
    let service = match find::named(client, &args.name).await? {
        Named::Service(service) => service.service,
        Named::Star { service, ordinal, .. } => {
            let message = format!("star `{}` belongs to service `{service}`: it cannot be destroyed alone", args.name);
            let help = format!(
                "`rads c stop {}-{ordinal}` ends it, `rads c scale {service} N` changes how many there are",
                service.name
            );
            return Err(Problem::new(Code::Usage, message).help(help));
        }
    };
    client.remove_service(&service).await?;
    progress::service_gone(client, &service).await.map_err(Problem::after_changes)?;
    match on.form {
        Form::Json => screen::json(&service)?,
        Form::Text => screen::line(format!("{service}: destroyed")),
    }
    end_agent_with_last_app(on).await?;
    Ok(0)
}

/// With the last app goes an agent that was started only because it was needed.
async fn end_agent_with_last_app(on: &Connected) -> Result<(), Problem> {
    let none_left = on.client.apps().await?.is_empty();
    if on.version.background && !on.version.is_node && none_left {
        agent::shut_down(&on.client, &on.version, StarsThen::Stop).await?;
    }
    Ok(())
}

/// Waits until what was asked for holds, and says how it is.
pub(super) async fn settle(client: &Client, service: ServiceKey, asked: Accepted, form: Form) -> Result<u8, Problem> {
    let view = progress::settled(client, &service, asked.index).await.map_err(Problem::after_changes)?;
    match form {
        Form::Json => screen::json(&view)?,
        Form::Text if view.stopped => screen::line(format!("{service}: stopped")),
        Form::Text if view.paused => screen::line(format!("{service}: paused")),
        Form::Text if view.job.is_some() => {
            screen::line(format!("{service}: {}", super::jobs::state(&view).unwrap_or_default()));
        }
        Form::Text => {
            screen::line(format!("{service}: {} ready", screen::count(view.ready as usize, "star")));
            progress::waits_for_somebody(&view).into_iter().for_each(screen::note);
        }
    }
    Ok(0)
}

/// Takes apps down; with the last one goes an agent that was started only because it was needed.
pub(super) async fn down(on: &Connected, args: Down) -> Result<u8, Problem> {
    let client = &on.client;
    let apps: Vec<AppKey> = client.apps().await?.into_iter().map(|app| app.app).collect();
    let wanted = match (args.names.as_slice(), args.all, apps.as_slice()) {
        ([_, ..], _, known) => {
            let mut named = args.names.iter().map(|name| find::app(name)).collect::<Result<Vec<AppKey>, _>>()?;
            named.sort();
            named.dedup();
            // One that is not there is refused before anything has changed.
            named.sort_by_key(|app| known.contains(app));
            named
        }
        ([], true, all) => all.to_vec(),
        ([], false, [only]) => vec![only.clone()],
        ([], false, []) => Vec::new(),
        ([], false, several) => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            return Err(Problem::new(Code::Usage, format!("several apps run: {}", names.join(", ")))
                .help("name one, or take all down with `--all`"));
        }
    };
    for app in &wanted {
        if let Err(problem) = client.remove_app(app).await {
            return Err(service_meant(client, app, problem).await);
        }
    }
    progress::gone(client, &wanted).await.map_err(Problem::after_changes)?;
    match on.form {
        Form::Json => screen::json(&wanted)?,
        Form::Text => wanted.iter().for_each(|app| screen::line(format!("{app}: down"))),
    }
    end_agent_with_last_app(on).await?;
    if wanted.is_empty() {
        screen::note("nothing was up");
    }
    Ok(0)
}

/// Apps and services are easily taken for each other: most apps have one service.
async fn service_meant(client: &Client, app: &AppKey, problem: Problem) -> Problem {
    let services = client.services().await.unwrap_or_default();
    match services.iter().find(|view| problem.code == Code::NotFound && view.service.to_string() == app.to_string()) {
        Some(view) => problem.help(format!(
            "`{app}` is a service of app `{0}`: `rads c down {0}` takes the app down, `rads c destroy {app}` the service",
            view.app
        )),
        None => problem,
    }
}
