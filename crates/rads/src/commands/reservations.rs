//! `rads c reserve`, `reservations`, `release`: places that are held for stars to come.

use api::{Client, ServiceView};
use model::{Code, Hold, Problem};

use super::Failure;
use super::find;
use super::planning::{self, Ended, Overrides};
use super::up;
use crate::cli::Form;
use crate::moment;
use crate::options;
use crate::place::Place;
use crate::reservations::{Release, Reserve};
use crate::screen::{self, Table};

pub(crate) async fn reserve(place: &Place, args: Reserve, form: Form) -> Result<u8, Failure> {
    let placement = options::placement_settings(&args.placement);
    let overrides = Overrides::held(args.name.clone(), args.settings(placement, moment::now()));
    let planned = planning::command(args.name, &overrides, Ended::Replaced)?;
    up::new_app(place, &planned, form).await
}

pub(crate) async fn reservations(client: &Client, form: Form) -> Result<u8, Problem> {
    let mut views = client.services().await?;
    views.retain(|view| view.spec.hold.is_some());
    if form == Form::Json {
        screen::json(&views)?;
        return Ok(0);
    }
    let mut table = Table::new(&["RESERVATION", ">PLACES", ">HELD", ">FREE", "EACH", "FROM", "UNTIL"]);
    for view in &views {
        let Hold { from, until } = view.spec.hold.unwrap_or_default();
        let count = |count: Option<u32>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        table.row([
            view.service.to_string(),
            view.spec.instances.to_string(),
            view.ready.to_string(),
            count(view.free),
            view.spec.template.reserve.to_string(),
            from.map_or_else(|| "now".to_owned(), moment::clock_time),
            until.map_or_else(|| "released".to_owned(), moment::clock_time),
        ]);
    }
    screen::print(&table.render());
    for view in &views {
        if let Some(problem) = &view.problem {
            screen::note(format!("{}: {problem}", view.service));
        }
    }
    Ok(0)
}

pub(crate) async fn release(client: &Client, args: Release, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let ServiceView { spec, free, ready, .. } =
        client.service(&service).await.map_err(|problem| match problem.code {
            Code::NotFound => {
                let problem = Problem::new(Code::NotFound, format!("no reservation `{service}`"));
                problem.help("`rads c reservations` lists them")
            }
            _ => problem,
        })?;
    if spec.hold.is_none() {
        let problem = Problem::new(Code::InvalidValue, format!("service `{service}` is no reservation"));
        return Err(problem.help(format!("`rads c destroy {service}` takes it away")));
    }
    let accepted = client.remove_service(&service).await?;
    match form {
        Form::Json => screen::json(&accepted)?,
        Form::Text => {
            let stay = ready.saturating_sub(free.unwrap_or(ready)) as usize;
            let stay = if stay > 0 { format!("; {} in them stay", screen::count(stay, "star")) } else { String::new() };
            screen::line(format!("{service}: its places are free{stay}"));
        }
    }
    Ok(0)
}
