//! `up`, `deploy`, `create` and `plan`: from a file to services that answer.
//!
//! Everything that can be wrong with the files is found before an agent is asked or started; everything that can be
//! wrong with the change is found before it is made.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use api::{
    Accepted, AppView, Client, Forecast, LineReader, LogQuery, ServiceView, StarView, StarsThen, Version, WatchLine,
    WatchQuery,
};
use model::{AppKey, Code, Name, Problem, Protocol, ServiceKey, StarId, StarPhase};
use tokio::signal::unix::{SignalKind, signal};

use super::logs::{Printer, print_all};
use super::namespaces;
use super::planning::{self, Ended, Overrides, Planned};
use super::progress::Settled;
use super::{Failure, agent, progress, show};
use crate::cli::{Create, Deploy, Form, Plan, Up};
use crate::place::Place;
use crate::screen;

pub(crate) async fn up(place: &Place, args: Up, form: Form) -> Result<u8, Failure> {
    let planned = planning::file(&args.file, &Overrides::listening(args.listen))?;
    let go = Go { ask: !args.yes, form };
    if args.detach {
        return Ok(detached(place, &planned, go).await?);
    }
    let mut stop = Stop::new()?;
    let (client, version, _) = agent::at(place).await?;
    let came = tokio::select! {
        came = bring_up(&client, &planned, go) => came,
        () = stop.asked() => Ok(Came::Interrupted),
    };
    let app = &planned.spec.app;
    match came {
        Ok(Came::Unchanged | Came::Declined) => drop(leave(&client, &version).await?),
        Ok(Came::Up) => {
            let end = tokio::select! {
                end = attend(&client, app, form) => end?,
                () = stop.asked() => End::Asked,
            };
            match end {
                End::Asked => take_down(&client, &version, app, &mut stop).await?,
                End::TakenDown => screen::note(format!("`{app}` was taken down by another command")),
                End::Over { failed } => {
                    remove(&client, app).await?;
                    leave(&client, &version).await?;
                    return Ok(u8::from(failed));
                }
            }
        }
        // In the foreground it lasts as long as the command.
        Ok(Came::Failed(problem)) => return Err(undo(&client, &version, app, problem).await.into()),
        Ok(Came::Interrupted) => take_down(&client, &version, app, &mut stop).await?,
        Err(problem) => return Err(undo(&client, &version, app, problem).await.into()),
    }
    Ok(0)
}

pub(crate) async fn deploy(place: &Place, args: Deploy, form: Form) -> Result<u8, Failure> {
    let Deploy { file, name, options, yes, program } = args;
    let overrides = Overrides::of(options, name, program)?;
    let planned = match (file, &overrides.name) {
        (Some(file), _) => planning::file(&file, &overrides)?,
        (None, Some(name)) => planning::command(name.clone(), &overrides, Ended::Replaced)?,
        (None, None) => {
            let problem = Problem::new(Code::Usage, "a service of a command has no file to be called after");
            return Err(problem.help("say with `--name` what it is called").into());
        }
    };
    Ok(detached(place, &planned, Go { ask: !yes, form }).await?)
}

pub(crate) async fn create(place: &Place, args: Create, form: Form) -> Result<u8, Failure> {
    let Create { name, script, options, program } = args;
    let overrides = Overrides::of(options, Some(name.clone()), program)?;
    let planned = match script {
        Some(script) => planning::script(&script, &overrides, Ended::Left)?,
        None => planning::command(name, &overrides, Ended::Left)?,
    };
    new_app(place, &planned, form).await
}

/// Brings an app up that is not there yet.
pub(crate) async fn new_app(place: &Place, planned: &Planned, form: Form) -> Result<u8, Failure> {
    if let Ok((client, _)) = super::connect(place).await
        && client.app(&planned.spec.app).await.is_ok()
    {
        return Err(Problem::new(Code::AlreadyExists, format!("there is an app `{}` already", planned.spec.app))
            .help("choose another name, or change it with `rads c deploy`")
            .into());
    }
    Ok(detached(place, planned, Go { ask: false, form }).await?)
}

pub(crate) async fn plan(place: &Place, args: Plan, form: Form) -> Result<u8, Failure> {
    let planned = planning::file(&args.file, &Overrides::listening(args.listen))?;
    let (current, views, quota, forecast) = match super::connect(place).await {
        Ok((client, _)) => {
            let app = &planned.spec.app;
            client.agreed().await?;
            let quota = namespaces::effect(&client, &planned.spec).await?;
            let (current, views) = (find_app(&client, app).await?, services_of(&client, app).await?);
            (current, views, quota, forecast(&client, &planned, None).await)
        }
        Err(problem) if problem.code == Code::NoAgent => {
            screen::note("note: no agent runs here: it is compared with nothing, whatever may have run before");
            (None, Vec::new(), None, None)
        }
        Err(problem) => return Err(problem.into()),
    };
    let changes = planned.changes(current.as_ref().map(|app| &app.spec));
    let resting = resting(&views);
    let is_nothing = changes.is_empty() && resting.is_empty();
    if form == Form::Text && is_nothing {
        screen::print(&changes.render());
        return Ok(0);
    }
    if form == Form::Text {
        tell_plan(&changes, &views, &resting);
    }
    if let Some(refused) = forecast.as_ref().and_then(|forecast| forecast.refused.clone()).filter(|_| !is_nothing) {
        if form == Form::Text {
            quota.iter().flat_map(namespaces::Effect::lines).for_each(screen::line);
        }
        return Err(refused.into());
    }
    match form {
        Form::Json => screen::json(&changes.for_programs(quota, forecast))?,
        Form::Text => {
            forecast.iter().flat_map(super::forecast::lines).for_each(screen::line);
            quota.iter().flat_map(namespaces::Effect::lines).for_each(screen::line);
        }
    }
    Ok(if is_nothing { 0 } else { 2 })
}

/// Longest wait for a place that stars of a new app have not.
const PLACE_TIMEOUT: Duration = Duration::from_secs(2);
const PLACE_AGAIN: Duration = Duration::from_millis(300);

/// That stars have no place which all have to be there at once: not parts of jobs, and not those that follow the machines.
fn no_place(planned: &Planned, forecast: &Forecast) -> Option<Problem> {
    let at_once = |name: &Name| {
        let spec = planned.spec.services.get(name);
        spec.is_some_and(|spec| spec.job.is_none() && !spec.placement.every_node)
    };
    let short = forecast.services.iter().filter(|service| at_once(&service.service));
    let problem = Problem::new(Code::NoCapacity, short.filter_map(|service| service.problem.clone()).next()?);
    let help = "of a new app every star needs a place: ask for fewer, or make room; `rads c resources` shows what is kept where";
    Some(problem.help(help))
}

/// What would come of it, if the agent can tell: one of another version may not.
async fn forecast(client: &Client, planned: &Planned, base: Option<u64>) -> Option<Forecast> {
    client.forecast(planned.spec.clone(), base).await.ok()
}

/// Brings an app up and leaves it running.
async fn detached(place: &Place, planned: &Planned, go: Go) -> Result<u8, Problem> {
    let (client, version, _) = agent::at(place).await?;
    match bring_up(&client, planned, go).await {
        Ok(Came::Up) => Ok(0),
        Ok(Came::Failed(problem)) => Err(problem),
        Ok(_) => leave(&client, &version).await.map(|_| 0),
        Err(problem) => Err(undo(&client, &version, &planned.spec.app, problem).await),
    }
}

#[derive(Debug, Clone, Copy)]
struct Go {
    /// Whether to ask before something that runs is removed or replaced.
    ask: bool,
    form: Form,
}

enum Came {
    /// Every service is ready.
    Up,
    /// All of it ran, and what was to run once has failed: it is left, so that one can look at it.
    Failed(Problem),
    /// It ran like this already.
    Unchanged,
    /// The answer was no.
    Declined,
    Interrupted,
}

/// Uploads, shows the plan, asks if need be, applies it and waits until every service is ready.
async fn bring_up(client: &Client, planned: &Planned, go: Go) -> Result<Came, Problem> {
    let app = &planned.spec.app;
    // What is compared is what is agreed on, not what was when this machine was cut off.
    client.agreed().await?;
    let current = find_app(client, app).await?;
    let changes = planned.changes(current.as_ref().map(|app| &app.spec));
    let views = services_of(client, app).await?;
    let resting = resting(&views);
    if changes.is_empty() && resting.is_empty() {
        // Files that were lost in the data folder are there again with this.
        planned.upload(client).await?;
        return unchanged(client, app, go).await;
    }
    let base = current.map_or(0, |app| app.version);
    let mut forecast = self::forecast(client, planned, Some(base)).await.unwrap_or_default();
    let asked = Instant::now();
    while base == 0 && no_place(planned, &forecast).is_some() && asked.elapsed() < PLACE_TIMEOUT {
        // Who goes just now may leave a place a moment later.
        tokio::time::sleep(PLACE_AGAIN).await;
        forecast = self::forecast(client, planned, Some(base)).await.unwrap_or_default();
    }
    if go.form == Form::Text {
        tell_plan(&changes, &views, &resting);
        super::forecast::lines(&forecast).iter().for_each(screen::line);
    }
    // Another change that is under way is waited for below.
    if let Some(refused) = forecast.refused.clone().filter(|refused| refused.code != Code::Conflict) {
        return Err(refused);
    }
    if base == 0
        && let Some(problem) = no_place(planned, &forecast)
    {
        // It would be taken down again, and others would have given way for nothing.
        return Err(problem);
    }
    if go.ask && changes.disturbs() && !confirmed(&changes)? {
        screen::note("nothing was changed");
        return Ok(Came::Declined);
    }
    planned.upload(client).await?;
    let begun = Instant::now();
    let before = stars_started(&services_of(client, app).await?);
    let Put::Done(Accepted { index }) = put(client, planned, base).await? else {
        return unchanged(client, app, go).await;
    };
    let Settled { views, at } = settled(client, app, index, go.form).await.map_err(Problem::after_changes)?;
    let is_there = |name: &Name| views.iter().any(|view| view.service.name == *name);
    if let Some(gone) = planned.spec.services.keys().find(|name| !is_there(name)) {
        let message = format!("service `{gone}` of app `{app}` was removed meanwhile, by another command");
        return Err(Problem::new(Code::Conflict, message)
            .help("run the command again to have it back")
            .after_changes());
    }
    match go.form {
        Form::Json => screen::json(&views)?,
        Form::Text => {
            let elapsed = screen::elapsed(at.saturating_duration_since(begun));
            match stars_started(&views).saturating_sub(before) {
                0 => screen::line(format!("changed in {elapsed}")),
                started => screen::line(format!("started {} in {elapsed}", screen::count(started as usize, "star"))),
            }
            for held in views.iter().filter(|view| view.spec.hold.is_some() && view.ready > 0) {
                screen::line(format!("{}: {} held", held.service, screen::count(held.ready as usize, "place")));
            }
            print_addresses(&views);
            let waits = views.iter().filter(|view| progress::failed_and_held(view).is_none());
            waits.filter_map(progress::waits_for_somebody).for_each(screen::note);
        }
    }
    let templates: Vec<_> = planned.spec.services.values().map(|service| &service.template).collect();
    show::report_walls(client, &templates).await?;
    Ok(match report_ended(client, app).await.map_err(Problem::after_changes)? {
        Some(failed) => Came::Failed(failed.after_changes()),
        None => match views.iter().find_map(progress::failed_and_held) {
            Some(held) => Came::Failed(held.after_changes()),
            None => Came::Up,
        },
    })
}

/// For what runs as it is described; it may still be on its way there.
async fn unchanged(client: &Client, app: &AppKey, go: Go) -> Result<Came, Problem> {
    let Settled { views, .. } = settled(client, app, u64::MAX, go.form).await?;
    if let Some(held) = views.iter().find_map(progress::failed_and_held) {
        return Ok(Came::Failed(held));
    }
    match go.form {
        Form::Json => screen::json(&views)?,
        Form::Text => {
            screen::line("nothing to change");
            print_addresses(&views);
        }
    }
    Ok(Came::Unchanged)
}

/// Waits until every service is ready; when one does not get there, what its stars said comes first.
async fn settled(client: &Client, app: &AppKey, asked: u64, form: Form) -> Result<Settled, Problem> {
    let mut bar = Bar::new(form);
    let settled = progress::app_settled(client, app, asked, |views| bar.show(views)).await;
    bar.clear();
    if let Err(problem) = settled {
        let spoke = last_words(client, app).await;
        return Err(match problem.code {
            Code::CrashLoop if spoke => {
                problem.help("what its stars said last is above; correct it and run the command again")
            }
            Code::CrashLoop => problem.help("its stars said nothing; correct it and run the command again"),
            _ => problem,
        });
    }
    settled
}

enum Put {
    Done(Accepted),
    /// Somebody else asked for the same at the same moment.
    DoneByAnother,
}

/// How long a change of somebody else's may keep this one waiting: its entry points open in a moment, or never.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for the app as it was planned. When another change of it is under way, that one goes first; what it leads to may be
/// just what was wanted here, or something that was not planned for, which is told.
async fn put(client: &Client, planned: &Planned, base: u64) -> Result<Put, Problem> {
    const STEP: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    loop {
        let problem = match client.put_app(planned.spec.clone(), Some(base)).await {
            Ok(accepted) => return Ok(Put::Done(accepted)),
            Err(problem) if problem.code == Code::Conflict => problem,
            Err(problem) => return Err(problem),
        };
        tokio::time::sleep(STEP).await;
        let current = find_app(client, &planned.spec.app).await?;
        if current.as_ref().is_some_and(|app| planned.changes(Some(&app.spec)).is_empty()) {
            return Ok(Put::DoneByAnother);
        }
        if current.map_or(0, |app| app.version) != base || Instant::now() > deadline {
            return Err(problem);
        }
    }
}

/// Services that are to run again, whatever else changes.
fn resting(views: &[ServiceView]) -> Vec<&ServiceView> {
    views.iter().filter(|view| view.stopped || view.paused).collect()
}

fn tell_plan(changes: &planning::Changes, views: &[ServiceView], resting: &[&ServiceView]) {
    if !changes.is_empty() {
        screen::print(&changes.render());
    }
    let under_way = views.iter().filter(|view| changes.replaces(&view.service.name) && view.rollout.is_some());
    for view in under_way {
        let how = progress::held(view).unwrap_or_else(|| format!("version {} is still on its way", view.version));
        screen::line(format!("  ! {}: {how}, and would be overtaken", view.service));
    }
    for view in resting {
        let (is, will) = if view.paused { ("paused", "go on") } else { ("stopped", "start") };
        screen::line(format!("  ~ {}: {is}, will {will}", view.service));
    }
}

async fn find_app(client: &Client, app: &AppKey) -> Result<Option<AppView>, Problem> {
    match client.app(app).await {
        Ok(view) => Ok(Some(view)),
        Err(problem) if problem.code == Code::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

async fn services_of(client: &Client, app: &AppKey) -> Result<Vec<ServiceView>, Problem> {
    let mut views = client.services().await?;
    views.retain(|view| view.app == *app);
    Ok(views)
}

fn stars_started(views: &[ServiceView]) -> u64 {
    views.iter().filter(|view| view.spec.hold.is_none()).map(|view| view.started).sum()
}

/// Where to go now: one line per service that can be reached.
fn print_addresses(views: &[ServiceView]) {
    for view in views {
        if let Some(address) = view.address {
            let scheme = match view.protocol {
                Some(Protocol::Http) => "http",
                _ => "tcp",
            };
            let label = if views.len() > 1 { format!("  {}", view.service) } else { String::new() };
            screen::line(format!("{scheme}://{address}{label}"));
        }
    }
}

/// Tells of stars that have ended already and stay so. One that failed is a failure of the command.
async fn report_ended(client: &Client, app: &AppKey) -> Result<Option<Problem>, Problem> {
    let views = services_of(client, app).await?;
    let stays = |star: &&StarView| {
        let view = views.iter().find(|view| view.service == star.service);
        // What parts of a job come to is told with its run: they are tried again.
        view.is_some_and(|view| view.is_over() && view.job.is_none())
    };
    let stars = client.stars().await?;
    let ended = stars.iter().filter(|star| star.app == *app && !star.outdated).filter(stays);
    for star in ended {
        let Some(exit) = star.exit.as_ref().filter(|exit| !exit.asked) else { continue };
        if !exit.cause.is_success() {
            tell_last_words(client, &star.service).await;
            let message = format!("star `{}` ended at once: {}", star.name, exit.cause);
            let help = format!("`rads c logs {0}` has all it said, `rads c down {0}` takes it away", star.service);
            return Ok(Some(Problem::new(Code::CrashLoop, message).help(help)));
        }
        screen::line(format!("{} ended: {}", star.name, exit.cause));
    }
    Ok(None)
}

/// Asks at the terminal. Where nobody can be asked, a service may be replaced, which keeps it serving, but not removed.
fn confirmed(changes: &planning::Changes) -> Result<bool, Problem> {
    match (screen::ask("go on?")?, changes.removed()) {
        (Some(yes), _) => Ok(yes),
        (None, None) => Ok(true),
        (None, Some(service)) => Err(Problem::new(Code::Usage, format!("service `{service}` would be removed"))
            .help("use `--yes` where nobody can be asked")),
    }
}

/// Lines of a service that failed; as much as fits beside the error.
const LAST_WORDS: u32 = 10;

/// Prints what the stars of failed services said last; gives whether they said anything.
async fn last_words(client: &Client, app: &AppKey) -> bool {
    let Ok(views) = services_of(client, app).await else { return false };
    let mut spoke = false;
    for view in views.iter().filter(|view| view.problem.is_some() || view.taken_back.is_some()) {
        spoke |= tell_last_words(client, &view.service).await;
    }
    spoke
}

async fn tell_last_words(client: &Client, service: &ServiceKey) -> bool {
    let which = LogQuery { target: Some(service.to_string()), tail: Some(LAST_WORDS), ..LogQuery::default() };
    // Without its words the problem still stands for itself.
    let Ok(mut records) = client.logs(&which).await else { return false };
    let mut lines = Vec::new();
    while let Some(Ok(record)) = records.next().await {
        lines.push(record);
    }
    let first = lines.len().saturating_sub(LAST_WORDS as usize);
    for record in &lines[first..] {
        screen::note(format!("{} | {}", record.name, super::logs::printable(&record.text)));
    }
    !lines.is_empty()
}

/// How it ends that a terminal attends an app.
enum End {
    /// By the terminal's own wish.
    Asked,
    /// Another command took the app down.
    TakenDown,
    /// Its stars have ended, and none is to follow.
    Over { failed: bool },
}

/// What stars wrote last is printed within this time of their end.
const LAST_LINES: Duration = Duration::from_millis(300);

/// Prints the logs of an app's stars, and how they end, until there is nothing more to come.
async fn attend(client: &Client, app: &AppKey, form: Form) -> Result<End, Problem> {
    let mut presence = Presence::of(client, app).await?;
    let lines = print_lines(client, app, form);
    tokio::pin!(lines);
    let end = tokio::select! {
        // First, for it knows whether an agent that closes its logs was to end.
        biased;
        end = until_over(client, app) => end,
        problem = &mut lines => Err(problem),
        // What it comes to is for who asks when the agent is gone.
        never = async { presence.follow().await; std::future::pending().await } => never,
    };
    let is_gone = |end: &Result<End, Problem>| {
        end.as_ref().is_err_and(|problem| matches!(problem.code, Code::NoAgent | Code::Unavailable))
    };
    if is_gone(&end) && presence.is_removed().await {
        return Ok(End::TakenDown);
    }
    match end {
        Err(problem) if matches!(problem.code, Code::NoAgent | Code::Unavailable) => {
            Err(Problem::new(Code::Unavailable, "the agent was ended, by another command or by a fault")
                .help("`rads c status` tells whether stars still run; see `agent.log` in its data folder"))
        }
        Ok(End::Over { failed }) => {
            let _ = tokio::time::timeout(LAST_LINES, lines).await;
            Ok(End::Over { failed })
        }
        end => end,
    }
}

/// Whether an app is there, by what its agent tells without being asked: that can be read when the agent has ended, too. One that
/// nothing needs any more ends as soon as its last app is down.
struct Presence {
    lines: LineReader<WatchLine>,
    key: String,
    there: bool,
}

impl Presence {
    async fn of(client: &Client, app: &AppKey) -> Result<Self, Problem> {
        let key = format!("apps/{}/{}", app.namespace, app.name);
        let lines = client.watch(&WatchQuery { prefix: key.clone(), from: None }).await?;
        Ok(Self { lines, key, there: true })
    }

    /// Until there is no more to hear.
    async fn follow(&mut self) {
        while let Some(Ok(line)) = self.lines.next().await {
            self.there = (self.there || line.changed.contains(&self.key)) && !line.removed.contains(&self.key);
        }
    }

    /// Of an agent that has ended: whether the last it said of the app was that it is no more.
    async fn is_removed(&mut self) -> bool {
        // Its socket may be open until all of its process is gone.
        let _ = tokio::time::timeout(LAST_LINES, self.follow()).await;
        !self.there
    }
}

/// Prints until there is a problem; an end of the logs is none.
async fn print_lines(client: &Client, app: &AppKey, form: Form) -> Problem {
    let which = LogQuery { target: Some(app.to_string()), follow: true, ..LogQuery::default() };
    let printed = match client.logs(&which).await {
        Ok(mut records) => print_all(&mut records, &mut Printer::new(form)).await,
        Err(problem) => Err(problem),
    };
    match printed {
        Err(problem) => problem,
        Ok(()) => std::future::pending().await,
    }
}

/// Tells of stars that end, until the app is gone or none of its stars will follow.
async fn until_over(client: &Client, app: &AppKey) -> Result<End, Problem> {
    /// Longest single wait at the agent.
    const WAIT_MS: u64 = 10_000;
    let mut known: BTreeSet<StarId> =
        stars_of(client, app).await?.iter().filter(|star| has_ended(star)).map(|star| star.id).collect();
    loop {
        let index = client.index(0, 0).await?;
        if find_app(client, app).await?.is_none() {
            return Ok(End::TakenDown);
        }
        let views = services_of(client, app).await?;
        let stars = stars_of(client, app).await?;
        for star in stars.iter().filter(|star| has_ended(star)) {
            let Some(exit) = star.exit.as_ref().filter(|exit| known.insert(star.id) && !exit.asked) else { continue };
            let follows = views.iter().any(|view| view.service == star.service && view.desired > 0);
            let then = if follows { "; another takes its place" } else { "" };
            screen::note(format!("{} ended: {}{then}", star.name, exit.cause));
        }
        if !views.is_empty() && views.iter().all(ServiceView::is_over) && stars.iter().all(has_ended) {
            let failed =
                |star: &StarView| star.exit.as_ref().is_some_and(|exit| !exit.asked && !exit.cause.is_success());
            return Ok(End::Over { failed: stars.iter().any(failed) });
        }
        client.index(index, WAIT_MS).await?;
    }
}

async fn stars_of(client: &Client, app: &AppKey) -> Result<Vec<StarView>, Problem> {
    let mut stars = client.stars().await?;
    stars.retain(|star| star.app == *app);
    Ok(stars)
}

fn has_ended(star: &StarView) -> bool {
    star.phase == StarPhase::Ended
}

/// Ends an app, and the agent with it when nothing else needs it. A second signal leaves everything as it is.
async fn take_down(client: &Client, version: &Version, app: &AppKey, stop: &mut Stop) -> Result<(), Problem> {
    screen::note(format!("\ntaking `{app}` down; ^C again leaves it as it is"));
    let down = async {
        remove(client, app).await?;
        leave(client, version).await.map(drop)
    };
    tokio::select! {
        ended = down => ended,
        () = stop.asked() => Err(Problem::new(Code::Timeout, format!("`{app}` may still run"))
            .help("see `rads c status`, and take it down with `rads c down`")
            .after_changes()),
    }
}

async fn remove(client: &Client, app: &AppKey) -> Result<(), Problem> {
    match client.remove_app(app).await {
        Err(problem) if problem.code != Code::NotFound => return Err(problem),
        _ => {}
    }
    progress::gone(client, std::slice::from_ref(app)).await
}

/// After a failure: an app that never ran is taken away again, and an agent that nothing else needs ends. What ran
/// before runs on: the new version does not replace it until it is ready.
async fn undo(client: &Client, version: &Version, app: &AppKey, mut problem: Problem) -> Problem {
    // Somebody else is at work on it, with this agent.
    if problem.code == Code::Conflict {
        return problem;
    }
    let first = match find_app(client, app).await {
        Ok(Some(view)) => view.changes == 1,
        _ => false,
    };
    let taken_down = problem.changed && first && remove(client, app).await.is_ok();
    problem.changed &= !taken_down;
    // The first problem is the one to tell.
    let _ = leave(client, version).await;
    if taken_down {
        problem.message += "; it was taken down again";
    }
    problem
}

/// Ends an agent that was started only because a command needed it, once no app needs it any more. Gives whether it did.
pub(super) async fn leave(client: &Client, version: &Version) -> Result<bool, Problem> {
    let unneeded = version.background && !version.is_node && client.apps().await?.is_empty();
    if unneeded {
        agent::shut_down(client, version, StarsThen::Stop).await?;
    }
    Ok(unneeded)
}

/// The wish to end, however it comes: ^C, a polite kill, a closed terminal.
struct Stop([tokio::signal::unix::Signal; 3]);

impl Stop {
    fn new() -> Result<Self, Problem> {
        let on = |kind| {
            signal(kind).map_err(|error| Problem::new(Code::Internal, format!("cannot wait for signals: {error}")))
        };
        Ok(Self([on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// How far it is, on a terminal only: one line that is written over.
struct Bar {
    on: bool,
    shown: Instant,
}

impl Bar {
    /// Between two writings of the line; faster is not seen.
    const STEP: Duration = Duration::from_millis(50);

    fn new(form: Form) -> Self {
        Self { on: form == Form::Text && io::stderr().is_terminal(), shown: Instant::now() }
    }

    fn show(&mut self, views: &[ServiceView]) {
        if self.on && self.shown.elapsed() >= Self::STEP {
            self.shown = Instant::now();
            let parts: Vec<String> =
                views.iter().map(|view| format!("{} {}/{}", view.service, view.ready, view.desired)).collect();
            eprint!("\r\x1b[K{}", parts.join("  "));
        }
    }

    fn clear(&self) {
        if self.on {
            eprint!("\r\x1b[K");
        }
    }
}
