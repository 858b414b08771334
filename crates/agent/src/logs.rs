//! The logs of several stars as one stream: the last lines of each in the order of their times, then new ones as they
//! come, of stars that start later too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use api::{LogPart, LogQuery, LogRecord, LogStream, StarView, TAIL_DEFAULT, TAIL_MAX};
use futures_util::future::join_all;
use futures_util::stream;
use isolate::log::{LogLine, LogSource};
use model::{AppKey, Code, Problem, Scope, ServiceKey, StarId, StarPhase, WallTime};
use node::Node;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::constellation::far_logs::{self, FarLogs};
use crate::control::Looker;
use crate::main_loop::Seen;
use crate::tail::Tail;
use crate::watcher::Watcher;

/// Records read ahead of a slow reader. Beyond it reading stops: the files hold the rest.
const AHEAD_MAX: usize = 256;

/// Where a stream of logs comes from.
pub(crate) struct Sources {
    pub(crate) looker: Looker,
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) leaving: watch::Receiver<bool>,
    pub(crate) data_dir: PathBuf,
    /// Stars of other namespaces are as if they were not there.
    pub(crate) sees: Scope,
    /// How to ask for those of stars on other nodes; nothing on a machine that is alone, and when another node asks.
    pub(crate) far: Option<FarLogs>,
    pub(crate) asked: Asked,
}

/// Opens a stream; a target that names nothing is a problem now rather than silence later.
pub(crate) async fn open(mut sources: Sources, query: LogQuery) -> Result<LogStream, Problem> {
    // Seen before looking: a star that comes in between is found at the first turn.
    sources.seen.mark_unchanged();
    let target = query.target.clone();
    let (sees, previous_too) = (sources.sees.clone(), query.previous);
    let mut stars = sources.looker.look(move |node| matching(node, target.as_deref(), previous_too, &sees)).await??;
    if query.previous {
        if query.follow {
            return Err(Problem::new(Code::InvalidValue, "a star that has ended has no lines to follow"));
        }
        stars = previous(stars);
        if stars.is_empty() {
            let what = query.target.as_deref().unwrap_or("the stars");
            let message = format!("nothing is kept of a star that ran before `{what}`");
            return Err(Problem::new(Code::NotFound, message).help("`rads c list --all` shows those that ended"));
        }
    }
    let (records, reading) = mpsc::channel(AHEAD_MAX);
    tokio::spawn(async move {
        let (far_lines, from_far) = mpsc::channel(AHEAD_MAX);
        let follower =
            Follower { sources, query, records, stars: BTreeMap::new(), far: BTreeMap::new(), far_lines, from_far };
        if let Err(Stopped::Failed(problem)) = follower.run(stars).await {
            tracing::warn!(%problem, "log stream ended");
        }
    });
    Ok(Box::pin(stream::unfold(reading, async |mut reading| Some((reading.recv().await?, reading)))))
}

/// The stars that a target means: those of an app or a service, one by its name or id, or all. Of machines that were taken out
/// those by id alone, unless the `previous` are asked for.
fn matching(node: &Node, target: Option<&str>, previous: bool, sees: &Scope) -> Result<Vec<StarView>, Problem> {
    let mut stars = node.star_views();
    stars.retain(|star| sees.has(&star.service.namespace));
    let is_there = |star: &StarView| previous || star.phase != StarPhase::Ended || node.is_of_it(star.node);
    let Some(target) = target else {
        stars.retain(is_there);
        return Ok(stars);
    };
    if let Ok(id) = target.parse::<StarId>() {
        let found: Vec<_> = stars.into_iter().filter(|star| star.id == id).collect();
        return if found.is_empty() { Err(nothing(target)) } else { Ok(found) };
    }
    stars.retain(is_there);
    let service: Option<ServiceKey> = target.parse().ok();
    let app: Option<AppKey> = target.parse().ok();
    let seen = |namespace| sees.has(namespace);
    let known = service.as_ref().is_some_and(|key| seen(&key.namespace) && node.service_view(key).is_some())
        || app.as_ref().is_some_and(|key| seen(&key.namespace) && node.app_view(key).is_some());
    let means = |star: &StarView| {
        star.name == target
            || service.as_ref() == Some(&star.service)
            || app.as_ref().is_some_and(|app| node.app_of(&star.service) == Some(app))
    };
    let found: Vec<_> = stars.into_iter().filter(means).collect();
    if found.is_empty() && !known { Err(nothing(target)) } else { Ok(found) }
}

/// Who reads a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    ByUser,
    /// Another node's agent, which itself ends what it has no more use for.
    ByNode,
}

/// Whether a target may have more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Lines,
    /// What it means was to run once, and has.
    Nothing,
}

fn next(node: &Node, target: Option<&str>, stars: &[StarView], asked: Asked) -> Next {
    if target.is_some_and(|target| target.parse::<StarId>().is_ok()) {
        // Nothing comes back under the id of one that has ended.
        let over = asked == Asked::ByUser && stars.iter().all(|star| star.phase == StarPhase::Ended);
        return if over { Next::Nothing } else { Next::Lines };
    }
    let is_over = |star: &StarView| {
        star.phase == StarPhase::Ended && node.service_view(&star.service).is_some_and(|service| service.is_over())
    };
    // A stopped service of the same app has no stars now, and may have.
    let app: Option<AppKey> = target.and_then(|target| target.parse().ok());
    let services = node.service_views();
    let whole = services.iter().filter(|view| Some(&view.app) == app.as_ref()).all(|view| view.is_over());
    match target {
        Some(_) if whole && !stars.is_empty() && stars.iter().all(is_over) => Next::Nothing,
        _ => Next::Lines,
    }
}

/// Where stars are, or were: one takes the place of another under the same name.
type Places = BTreeMap<StarId, (ServiceKey, String)>;

/// Those that have ended, and whose name another has had since.
fn replaced(stars: &[StarView], places: &Places) -> BTreeSet<StarId> {
    let mut last: BTreeMap<_, (bool, Option<WallTime>, StarId)> = BTreeMap::new();
    for star in stars {
        let (place, age) = (places.get(&star.id), (star.phase != StarPhase::Ended, star.since, star.id));
        let newest = last.entry(place).or_insert(age);
        *newest = age.max(*newest);
    }
    let newest: BTreeSet<StarId> = last.into_values().map(|(.., star)| star).collect();
    let ended = stars.iter().filter(|star| star.phase == StarPhase::Ended);
    ended.map(|star| star.id).filter(|star| !newest.contains(star)).collect()
}

/// Of each name the last lines, whichever of its stars said them.
fn last_of_each_name(lines: Vec<LogRecord>, wanted: usize, places: &Places) -> Vec<LogRecord> {
    let mut taken: BTreeMap<_, usize> = BTreeMap::new();
    let mut last: Vec<LogRecord> = lines.into_iter().rev().collect();
    last.retain(|line| {
        let taken = taken.entry(places.get(&line.star)).or_default();
        *taken += 1;
        *taken <= wanted
    });
    last.reverse();
    last
}

/// Of each name the star that ended last.
fn previous(stars: Vec<StarView>) -> Vec<StarView> {
    let mut last: BTreeMap<String, StarView> = BTreeMap::new();
    for star in stars.into_iter().filter(|star| star.phase == StarPhase::Ended) {
        match last.get(&star.name) {
            Some(other) if other.since >= star.since => {}
            _ => drop(last.insert(star.name.clone(), star)),
        }
    }
    last.into_values().collect()
}

fn nothing(target: &str) -> Problem {
    Problem::new(Code::NotFound, format!("no app, service or star `{target}`"))
        .help("`rads c list` names the stars, `rads c status` the services")
}

struct Follower {
    sources: Sources,
    query: LogQuery,
    records: mpsc::Sender<Result<LogRecord, Problem>>,
    stars: BTreeMap<StarId, Followed>,
    /// Stars on other nodes, with what follows them; nothing once they have ended.
    far: BTreeMap<StarId, Option<AbortHandle>>,
    far_lines: mpsc::Sender<LogRecord>,
    from_far: mpsc::Receiver<LogRecord>,
}

struct Followed {
    name: String,
    tail: Tail,
    watched: bool,
    /// It has ended and its last lines were read.
    done: bool,
}

enum Stopped {
    /// Nobody reads any more.
    Unread,
    Failed(Problem),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Failed(Problem::new(Code::Internal, format!("a log cannot be read: {error}")))
    }
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl Follower {
    async fn run(mut self, stars: Vec<StarView>) -> Result<(), Stopped> {
        let mut watcher = Watcher::new()?;
        self.begin(stars, &mut watcher).await?;
        // A star may have ended since it was looked at; what it said last is read then.
        if !self.query.follow {
            return Ok(());
        }
        if self.regroup(&mut watcher).await? == Next::Nothing {
            return self.last_of_far().await;
        }
        let records = self.records.clone();
        let (mut seen, mut leaving) = (self.sources.seen.clone(), self.sources.leaving.clone());
        loop {
            tokio::select! {
                changed = watcher.changed() => {
                    for star in changed? {
                        self.read(star).await?;
                    }
                }
                moved = seen.changed() => {
                    if moved.is_err() {
                        return Ok(());
                    }
                    if self.regroup(&mut watcher).await? == Next::Nothing {
                        return self.last_of_far().await;
                    }
                }
                Some(line) = self.from_far.recv() => self.send(line).await?,
                () = left(&mut leaving) => return Ok(()),
                () = records.closed() => return Err(Stopped::Unread),
            }
        }
    }

    /// The last lines of the stars there are, oldest first.
    async fn begin(&mut self, mut stars: Vec<StarView>, watcher: &mut Watcher) -> Result<(), Stopped> {
        let wanted = self.query.tail.unwrap_or(TAIL_DEFAULT) as usize;
        // What is chosen by what is in it can only be counted once it is read.
        let choosy = self.query.since.is_some() || self.query.stream.is_some();
        let lines = if choosy { TAIL_MAX as usize } else { wanted };
        let places = stars.iter().map(|star| (star.id, (star.service.clone(), star.name.clone()))).collect();
        let replaced = replaced(&stars, &places);
        let far = stars.extract_if(.., |star| self.sources.is_far(star)).collect();
        let mut first = self.begin_far(far, &replaced).await;
        for star in stars {
            let folder = self.folder(star.id);
            if self.query.follow && star.phase == StarPhase::Ended && star.outdated {
                // What an earlier version said last is no part of what goes on now.
                let tail = Tail::from_start(&folder);
                self.stars.insert(star.id, Followed { name: star.name, tail, watched: false, done: true });
                continue;
            }
            let watched = self.query.follow && watcher.add(star.id, &folder)?;
            // As much as two log files may have to be read.
            let opened = tokio::task::spawn_blocking(move || Tail::open(&folder, lines)).await;
            let (tail, mut found) = opened.map_err(io::Error::other)??;
            found.retain(|line| wants(&self.query, line));
            let found = found.split_off(found.len().saturating_sub(wanted));
            first.extend(found.into_iter().map(|line| record(star.id, &star.name, line)));
            self.stars.insert(star.id, Followed { name: star.name, tail, watched, done: false });
        }
        first.sort_by_key(|record| record.at);
        for record in last_of_each_name(first, wanted, &places) {
            self.send(record).await?;
        }
        Ok(())
    }

    /// The last lines of stars on other nodes, asked for all at once.
    async fn begin_far(&mut self, stars: Vec<StarView>, replaced: &BTreeSet<StarId>) -> Vec<LogRecord> {
        let Some(far) = self.sources.far.clone() else { return Vec::new() };
        let wanted = |star: &StarView| !(self.query.follow && star.phase == StarPhase::Ended && star.outdated);
        let (now, past): (Vec<StarView>, Vec<StarView>) = stars.into_iter().partition(wanted);
        self.far.extend(past.into_iter().map(|star| (star.id, None)));
        let heads = join_all(now.iter().map(|star| far.head(star, replaced.contains(&star.id)))).await;
        let mut lines = Vec::new();
        for (star, mut head) in now.into_iter().zip(heads) {
            lines.extend(head.lines.iter().cloned());
            if self.query.follow {
                head.lines.drain(..head.lines.len().saturating_sub(1));
                let id = star.id;
                self.far.insert(id, Some(far.follow(star, Some(head), self.far_lines.clone())));
            }
        }
        lines
    }

    /// What stars on other nodes said last, for as long as it may come.
    async fn last_of_far(&mut self) -> Result<(), Stopped> {
        let until = Instant::now() + far_logs::LAST_WORDS;
        while !self.far.is_empty()
            && let Ok(Some(line)) = timeout_at(until, self.from_far.recv()).await
        {
            self.send(line).await?;
        }
        Ok(())
    }

    /// Follows stars that came to be on other nodes, and no longer those that ended.
    fn regroup_far(&mut self, stars: Vec<StarView>) {
        let Some(far) = &self.sources.far else { return };
        for star in stars {
            let (id, ended) = (star.id, star.phase == StarPhase::Ended);
            let lines = &self.far_lines;
            let following = self.far.entry(id).or_insert_with(|| Some(far.follow(star, None, lines.clone())));
            if ended && let Some(following) = following.take() {
                far_logs::end(following);
            }
        }
    }

    /// Looks which stars there are now: new ones are followed from their first line, ended ones to their last.
    async fn regroup(&mut self, watcher: &mut Watcher) -> Result<Next, Stopped> {
        let (target, asked, sees) = (self.query.target.clone(), self.sources.asked, self.sources.sees.clone());
        let looked = move |node: &Node| {
            // A target that is gone for now may come back.
            let stars = matching(node, target.as_deref(), false, &sees).unwrap_or_default();
            let next = next(node, target.as_deref(), &stars, asked);
            (stars, next)
        };
        let (stars, next) = self.sources.looker.look(looked).await?;
        let listed: Vec<StarId> = stars.iter().map(|star| star.id).collect();
        let (far, stars): (Vec<StarView>, Vec<StarView>) =
            stars.into_iter().partition(|star| self.sources.is_far(star));
        self.regroup_far(far);
        for star in stars {
            let folder = self.folder(star.id);
            let ended = star.phase == StarPhase::Ended;
            let new = || Followed { name: star.name, tail: Tail::from_start(&folder), watched: false, done: false };
            let followed = self.stars.entry(star.id).or_insert_with(new);
            if followed.done {
                continue;
            }
            followed.done = ended;
            if ended {
                watcher.remove(star.id);
                self.read(star.id).await?;
            } else if !followed.watched {
                followed.watched = watcher.add(star.id, &folder)?;
                self.read(star.id).await?;
            }
        }
        self.stars.retain(|star, _| listed.contains(star));
        for (_, following) in self.far.extract_if(.., |star, _| !listed.contains(star)) {
            following.into_iter().for_each(far_logs::end);
        }
        Ok(next)
    }

    async fn read(&mut self, star: StarId) -> Result<(), Stopped> {
        let Some(followed) = self.stars.get_mut(&star) else { return Ok(()) };
        let mut lines = followed.tail.read()?;
        lines.retain(|line| wants(&self.query, line));
        let name = followed.name.clone();
        for line in lines {
            self.send(record(star, &name, line)).await?;
        }
        Ok(())
    }

    async fn send(&self, record: LogRecord) -> Result<(), Stopped> {
        self.records.send(Ok(record)).await.map_err(|_| Stopped::Unread)
    }

    fn folder(&self, star: StarId) -> PathBuf {
        isolate::place::star(&self.sources.data_dir, star)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        for following in self.far.values().flatten() {
            following.abort();
        }
    }
}

impl Sources {
    fn is_far(&self, star: &StarView) -> bool {
        self.far.as_ref().is_some_and(|far| star.node != far.forward.me())
    }
}

fn wants(query: &LogQuery, line: &LogLine) -> bool {
    let part = match line.source {
        LogSource::Out => LogPart::Stdout,
        LogSource::Err => LogPart::Stderr,
    };
    query.since.is_none_or(|since| line.unix_ms >= since.0) && query.stream.is_none_or(|wanted| wanted == part)
}

fn record(star: StarId, name: &str, line: LogLine) -> LogRecord {
    LogRecord {
        star,
        name: name.to_owned(),
        at: WallTime(line.unix_ms),
        error: line.source == LogSource::Err,
        text: line.text,
    }
}

/// Waits until the agent is about to end.
async fn left(leaving: &mut watch::Receiver<bool>) {
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

#[cfg(test)]
mod tests {
    use model::WallTime;

    use super::*;

    #[test]
    fn a_name_has_its_last_lines_whichever_star_said_them() {
        let place = |service: &str, name: &str| (service.parse().unwrap(), name.to_owned());
        let places: Places = [
            (StarId(1), place("web", "web-1")),
            (StarId(2), place("web", "web-1")),
            (StarId(3), place("web", "web-2")),
            (StarId(4), place("dev/web", "web-1")),
        ]
        .into();
        let line = |star: u64, at: u64| LogRecord {
            star: StarId(star),
            name: places[&StarId(star)].1.clone(),
            at: WallTime(at),
            error: false,
            text: String::new(),
        };
        let said = || vec![line(1, 1), line(3, 2), line(1, 3), line(4, 4), line(2, 5), line(4, 6)];
        let times =
            |wanted| last_of_each_name(said(), wanted, &places).iter().map(|line| line.at.0).collect::<Vec<_>>();
        assert_eq!(times(1), [2, 5, 6]);
        assert_eq!(times(2), [2, 3, 4, 5, 6]);
        assert_eq!((times(0), times(9)), (vec![], vec![1, 2, 3, 4, 5, 6]));
    }
}
