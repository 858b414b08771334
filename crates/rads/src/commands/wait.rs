//! `rads c wait`: until what was started has done its work.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{Client, StarView};
use model::{Code, ExitCause, Problem, RestartPolicy, StarId, StarPhase};
use tokio::time::Instant;

use super::{find, jobs};
use crate::cli::{Form, Wait};
use crate::screen;

/// Longest single wait at the agent.
const WAIT_MS: u64 = 10_000;

/// Returns when the star, or every star of the service, has ended and none is to follow; the exit code is that of the
/// first that failed.
pub(crate) async fn wait(client: &Client, args: Wait, form: Form) -> Result<u8, Problem> {
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut star = None;
    let ended = loop {
        let index = client.index(0, 0).await?;
        if let Some(ended) = look(client, &args.name, &mut star).await? {
            break ended;
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            let message = format!("`{}` has not ended", args.name);
            return Err(Problem::new(Code::Timeout, message).help("it goes on; see `rads c status`"));
        }
        let left_ms = left.map_or(WAIT_MS, |left| u64::try_from(left.as_millis()).unwrap_or(WAIT_MS));
        client.index(index, left_ms.clamp(1, WAIT_MS)).await?;
    };
    match form {
        Form::Json => screen::json(&ended)?,
        Form::Text if ended.is_empty() => screen::note(format!("no star of `{}` is remembered", args.name)),
        Form::Text => ended.iter().for_each(|star| screen::line(format!("{}  {}", star.name, cause(star)))),
    }
    Ok(ended.iter().map(cause).map(code).find(|&code| code != 0).unwrap_or(0))
}

/// The stars that are meant, by name, if all of them are over. `star` remembers which one a star's name meant at first:
/// another may bear it later.
async fn look(client: &Client, name: &str, star: &mut Option<StarId>) -> Result<Option<Vec<StarView>>, Problem> {
    let stars = client.stars().await?;
    let is = |view: &&StarView| star.map_or(view.name == name || view.id.to_string() == name, |star| view.id == star);
    // The one that runs, or else the last.
    if let Some(found) = stars.iter().filter(is).max_by_key(|view| (view.phase != StarPhase::Ended, view.id)) {
        *star = Some(found.id);
        return Ok((found.phase == StarPhase::Ended).then(|| vec![found.clone()]));
    }
    if star.is_some() {
        return Err(Problem::new(Code::NotFound, format!("star `{name}` is forgotten")));
    }
    let service = find::service(name)?;
    let view = client.service(&service).await?;
    if view.spec.template.restart == RestartPolicy::Always && view.desired > 0 {
        return Err(Problem::new(Code::Usage, format!("the stars of `{service}` are replaced whenever they end"))
            .help("wait for one of them by its name (`rads c list`), or say `restart: \"never\"` in its app"));
    }
    let live = stars.iter().any(|star| star.service == service && star.phase != StarPhase::Ended);
    let over = view.desired == 0 && !live && view.job.as_ref().is_none_or(|job| job.run.is_none());
    if let Some(rests) = jobs::rests(&view, live) {
        return Err(rests);
    }
    Ok(over.then(|| last_of_each_name(stars.into_iter().filter(|star| star.service == service))))
}

fn last_of_each_name(stars: impl Iterator<Item = StarView>) -> Vec<StarView> {
    let mut last: BTreeMap<String, StarView> = BTreeMap::new();
    for star in stars {
        match last.get(&star.name) {
            Some(other) if other.since >= star.since => {}
            _ => drop(last.insert(star.name.clone(), star)),
        }
    }
    last.into_values().collect()
}

fn cause(star: &StarView) -> ExitCause {
    star.exit.as_ref().map_or(ExitCause::Unknown, |exit| exit.cause.clone())
}

/// As a shell has it; 1 for what has no code of its own.
fn code(cause: ExitCause) -> u8 {
    match cause {
        ExitCause::Code(code) => u8::try_from(code).unwrap_or(1),
        ExitCause::Signal(signal) => u8::try_from(signal + 128).unwrap_or(1),
        _ => 1,
    }
}
