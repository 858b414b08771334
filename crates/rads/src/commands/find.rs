//! From the names people type to the things they mean.

use api::{Client, StarView};
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
    let is = |star: &StarView| star.name == name || star.id.to_string() == name;
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
