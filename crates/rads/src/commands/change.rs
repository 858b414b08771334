//! Changes to what runs: each is sent, then waited for, so that the command's end means that it holds.

use api::{Client, StarsThen};
use model::{AppKey, Code, Problem, ServiceKey};

use super::{Connected, agent, find, progress};
use crate::cli::{Down, Form, OneService, Scale};
use crate::screen;

pub(crate) async fn scale(client: &Client, args: Scale, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    client.scale(&service, args.instances).await?;
    settle(client, service, form).await
}

pub(crate) async fn restart(client: &Client, args: OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    client.restart(&service).await?;
    settle(client, service, form).await
}

pub(crate) async fn stop(client: &Client, args: OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    client.stop(&service).await?;
    settle(client, service, form).await
}

pub(crate) async fn start(client: &Client, args: OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    client.start(&service).await?;
    settle(client, service, form).await
}

pub(crate) async fn pause(client: &Client, args: OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    client.pause(&service).await?;
    settle(client, service, form).await
}

pub(crate) async fn resume(client: &Client, args: OneService, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    client.resume(&service).await?;
    settle(client, service, form).await
}

async fn settle(client: &Client, service: ServiceKey, form: Form) -> Result<u8, Problem> {
    let view = progress::settled(client, &service).await.map_err(Problem::after_changes)?;
    match form {
        Form::Json => screen::json(&view)?,
        Form::Text if view.stopped => screen::line(format!("{service}: stopped")),
        Form::Text if view.paused => screen::line(format!("{service}: paused")),
        Form::Text => screen::line(format!("{service}: {} ready", screen::count(view.ready as usize, "star"))),
    }
    Ok(0)
}

/// Takes apps down; with the last one goes an agent that was started only because it was needed.
pub(super) async fn down(on: &Connected, args: Down) -> Result<u8, Problem> {
    let client = &on.client;
    let apps: Vec<AppKey> = client.apps().await?.into_iter().map(|app| app.app).collect();
    let wanted = match (&args.name, args.all, apps.as_slice()) {
        (Some(name), _, _) => vec![find::app(name)?],
        (None, true, all) => all.to_vec(),
        (None, false, [only]) => vec![only.clone()],
        (None, false, []) => Vec::new(),
        (None, false, several) => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            return Err(Problem::new(Code::Usage, format!("several apps run: {}", names.join(", ")))
                .help("name one, or take all down with `--all`"));
        }
    };
    for app in &wanted {
        client.remove_app(app).await?;
    }
    progress::gone(client, &wanted).await.map_err(Problem::after_changes)?;
    match on.form {
        Form::Json => screen::json(&wanted)?,
        Form::Text => wanted.iter().for_each(|app| screen::line(format!("{app}: down"))),
    }
    let none_left = client.apps().await?.is_empty();
    if on.version.background && none_left {
        agent::shut_down(client, &on.version, StarsThen::Stop).await?;
    }
    if wanted.is_empty() {
        screen::note("nothing was up");
    }
    Ok(0)
}
