//! From the names people type to the things they mean.

use api::{Client, ServiceView, StarView};
use model::{AppKey, Code, Problem, ServiceKey, StarId, StarPhase};

/// A service's name, checked.
pub(crate) fn service(name: &str) -> Result<ServiceKey, Problem> {
    name.parse().map_err(|error: model::name::InvalidName| {
        Problem::new(Code::InvalidValue, error.to_string()).help("`rads c status` lists the services")
    })
}

/// An app's name, checked.
pub(crate) fn app(name: &str) -> Result<AppKey, Problem> {
    name.parse().map_err(|error: model::name::InvalidName| {
        Problem::new(Code::InvalidValue, error.to_string()).help("`rads c status` lists the apps")
    })
}

/// The running star that a name means: a star's own name or id, or the first of a service.
pub(crate) async fn running_star(client: &Client, name: &str) -> Result<StarId, Problem> {
    let stars = client.stars().await?;
    let runs = |star: &&StarView| !matches!(star.phase, StarPhase::Assigned | StarPhase::Ended);
    let is = |star: &StarView| {
        star.name == name
            || star.id.to_string() == name
            || name.contains('/') && format!("{}-{}", star.service, star.ordinal) == name
    };
    let of = |star: &StarView| star.service.to_string() == name;
    // Several stars bear one name for a moment while one replaces the other: the ready one is meant.
    let best = |means: &dyn Fn(&StarView) -> bool| {
        let found = stars.iter().filter(runs).filter(|star| means(star));
        found.min_by_key(|star| (star.phase != StarPhase::Ready, star.id))
    };
    best(&is).or_else(|| best(&of)).map(|star| star.id).ok_or_else(|| {
        match stars.iter().any(|star| is(star) || of(star)) {
            true => Problem::new(Code::Conflict, format!("no star `{name}` runs now"))
                .help("`rads c list` names those that run"),
            false => Problem::new(Code::NotFound, format!("no service or star `{name}`"))
                .help("`rads c list` names those that run"),
        }
    })
}

/// What a name means where both services and stars may be meant.
pub(crate) enum Named {
    Service(Box<ServiceView>),
    /// A place of a service; without an id when nothing is remembered of a star there.
    Star {
        service: ServiceKey,
        ordinal: u32,
        id: Option<StarId>,
    },
}

/// The service of that name, or else the star: the one that runs, or the last.
pub(crate) async fn named(client: &Client, name: &str) -> Result<Named, Problem> {
    // What is no name at all is told so.
    if name.parse::<StarId>().is_err() {
        service(name)?;
    }
    let services = client.services().await?;
    if let Some(service) = services.iter().find(|view| view.service.to_string() == name) {
        return Ok(Named::Service(Box::new(service.clone())));
    }
    let full_name = |service: &ServiceKey, ordinal: u32| format!("{service}-{ordinal}");
    let is = |star: &&StarView| {
        star.name == name || star.id.to_string() == name || full_name(&star.service, star.ordinal) == name
    };
    let stars = client.stars().await?;
    if let Some(star) = stars.iter().filter(is).max_by_key(|star| (star.phase != StarPhase::Ended, star.since)) {
        return Ok(Named::Star { service: star.service.clone(), ordinal: star.ordinal, id: Some(star.id) });
    }
    let held = services.iter().find_map(|view| {
        let ordinal = view.held.iter().find(|ordinal| {
            format!("{}-{ordinal}", view.service.name) == name || full_name(&view.service, **ordinal) == name
        })?;
        Some(Named::Star { service: view.service.clone(), ordinal: *ordinal, id: None })
    });
    held.ok_or_else(|| {
        Problem::new(Code::NotFound, format!("no service or star `{name}`"))
            .help("`rads c list` names the stars, `rads c status` the services")
    })
}

/// What may have been meant, as help: the same name in another namespace, or what is called almost like that: a service, a star
/// or an app. Nothing when there is something of that very name, or when it cannot be asked.
pub(crate) async fn nearest_to(client: &Client, name: &str) -> Option<String> {
    let (services, stars) = (client.services().await.ok()?, client.stars().await.ok()?);
    let names = services.iter().flat_map(|view| [view.service.to_string(), view.app.to_string()]);
    let running = stars.iter().filter(|star| star.phase != StarPhase::Ended);
    let names: Vec<String> = names.chain(running.map(|star| star.name.clone())).collect();
    if names.iter().any(|known| known == name) {
        return None;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let near = || rads_syntax::nearest(name, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    elsewhere(name, &names).or_else(near)
}

/// Where a name without a namespace is, when it is in others only.
fn elsewhere(name: &str, names: &[&str]) -> Option<String> {
    let (mut spaces, mut found) = (Vec::new(), Vec::new());
    for known in names {
        if let Some((namespace, rest)) = known.split_once('/')
            && rest == name
            && !found.contains(known)
        {
            found.push(*known);
            spaces.push(format!("`{namespace}`"));
        }
    }
    let first = found.first()?;
    let (what, more) = if spaces.len() == 1 { ("namespace", "") } else { ("namespaces", ", and so on") };
    Some(format!("it is in {what} {}: name it `{first}`{more}", spaces.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_another_namespace_is_told_by_its_full_name() {
        let names = ["team/o1", "team/o1", "test/o1", "team/o2", "hello"];
        let check = |name: &str, expected: Option<&str>| assert_eq!(elsewhere(name, &names).as_deref(), expected);
        check("o2", Some("it is in namespace `team`: name it `team/o2`"));
        check("o1", Some("it is in namespaces `team`, `test`: name it `team/o1`, and so on"));
        check("hell", None);
        check("team/o3", None);
    }
}
