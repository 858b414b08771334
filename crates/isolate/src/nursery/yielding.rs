//! Who gives way: a star that spends all the processor time it may, runs only where nobody else wants to, until it spends
//! less.
//!
//! Such a star waits for most of each period anyway, and moments later or earlier are all the same to it. To a neighbour that was just
//! woken they are not: without this the kernel may let it wait for the rest of the spender's turn, though another processor
//! is idle (ADR 0043). A star that gave way and then got less than its quota was kept from it, or is calm: either way it counts
//! like any other again, and for a while.
//!
//! A star that may borrow (`cpu_borrow`) has more while it gives way, and only then: what it uses beyond its own is what nobody else
//! wants at that moment, and whoever comes takes it back by running. It has its own again, like any other, when it needs no more than
//! that, or was kept from it.
//!
//! Looks take too long to find a star that lives for moments, as one that fills its memory does again and again: whoever comes in the
//! place of one that its limits ended gives way from its beginning until the first look.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::{ExitCause, Limits, StarId};

use super::{Nursery, Phase, Star};
use crate::cgroup::Spent;
use crate::star::Told;

/// Between two looks: three of the quota's periods.
const LOOK: Duration = Duration::from_millis(300);
/// The same while all stars together use next to nothing.
const CALM_LOOK: Duration = Duration::from_secs(1);
/// A look at every star is followed by a pause of this many times as long as it took, but not by a longer one than this.
const WORTH: u32 = 100;
const LOOK_MAX: Duration = Duration::from_secs(3);
/// What is next to nothing: this part of one processor.
const CALM: u32 = 50;
/// Looks for which a star is left alone that gave way and did not get its quota: so it is kept from its part of a busy
/// machine for a sixteenth of the time at most.
const REST: u32 = 16;
/// For how long it is held against the next one that its limits ended a star: longer than anybody waits before another
/// attempt.
const MEMORY: Duration = Duration::from_secs(60);
/// Of how many names that is known at most.
const SUSPECTS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Yielding {
    /// `None` while there is nobody to look at.
    next: Option<Instant>,
    /// When all of them had used how much.
    last: Option<(Instant, Duration)>,
    /// How much the processors of the machine had rested, and when.
    rested: Option<(Instant, Duration)>,
    accounts: BTreeMap<StarId, Account>,
    /// Names of stars that their limits ended, and when.
    suspects: BTreeMap<String, Instant>,
}

/// What is known of one star.
#[derive(Debug, Default)]
struct Account {
    /// What those that come in its place are called, too; empty when a nursery before this one started it.
    name: String,
    seen: Spent,
    gives_way: bool,
    rests: u32,
    /// When it was looked at last.
    at: Option<Instant>,
}

/// What somebody is judged by who may borrow.
#[derive(Debug, Clone, Copy)]
struct Loan {
    /// Processor time that was his own since the last look.
    own: Duration,
    /// Whether the processors had hardly anything left meanwhile.
    busy: bool,
}

impl Account {
    /// What another look at its counters means; `None` when all stays as it is.
    fn judge(&mut self, now: Spent, loan: Option<Loan>) -> Option<bool> {
        let periods = now.periods.saturating_sub(self.seen.periods);
        let cut_short = now.cut_short.saturating_sub(self.seen.cut_short);
        let used = now.used.saturating_sub(self.seen.used);
        self.seen = now;
        let spends_all = cut_short > 0 && cut_short * 2 >= periods;
        let borrows = self.gives_way && loan.is_some_and(|loan| used * 10 >= loan.own * 9);
        match (self.gives_way, spends_all || borrows) {
            (false, true) if self.rests == 0 => self.gives_way = true,
            // On a machine that had time left nothing kept it from its own: it wanted no more.
            (true, false) if loan.is_some_and(|loan| !loan.busy) => self.gives_way = false,
            (true, false) => (self.gives_way, self.rests) = (false, REST),
            _ => {
                self.rests = self.rests.saturating_sub(1);
                return None;
            }
        }
        Some(self.gives_way)
    }
}

impl Yielding {
    /// How long until the next look.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }

    /// Somebody new is to be looked at.
    pub(super) fn expect(&mut self, now: Instant) {
        let soon = now + LOOK;
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// Whether the last star of this name was ended by its limits.
    pub(super) fn suspects(&self, name: &str, now: Instant) -> bool {
        self.suspects.get(name).is_some_and(|ended| now.duration_since(*ended) < MEMORY)
    }

    /// A star begins; whether it gives way at once.
    fn begins(&mut self, star: StarId, name: &str, now: Instant) -> bool {
        let gives_way = self.suspects(name, now);
        self.accounts.insert(star, Account { name: name.to_owned(), gives_way, ..Account::default() });
        gives_way
    }

    /// A star ended by itself.
    fn ends(&mut self, star: StarId, cause: &ExitCause, now: Instant) {
        let Some(Account { name, gives_way, .. }) = self.accounts.remove(&star) else { return };
        let by_its_limits = match cause {
            ExitCause::OutOfMemory => true,
            ExitCause::Code(0) => false,
            _ => gives_way,
        };
        if !by_its_limits || name.is_empty() {
            return;
        }
        self.suspects.retain(|_, ended| now.duration_since(*ended) < MEMORY);
        if self.suspects.len() < SUSPECTS_MAX || self.suspects.contains_key(&name) {
            self.suspects.insert(name, now);
        }
    }

    /// It is like any other from now on.
    pub(super) fn forget(&mut self, star: StarId) {
        self.accounts.remove(&star);
    }

    /// Whether the processors of the machine had hardly anything left since the last look; so it is taken to be until that is known.
    fn is_busy(&mut self, now: Instant, rested: Option<(Duration, u32)>) -> bool {
        let last = std::mem::replace(&mut self.rested, rested.map(|(rested, _)| (now, rested)));
        let Some(((then, before), (rested, processors))) = last.zip(rested) else { return true };
        rested.saturating_sub(before) * 100 < now.duration_since(then) * processors * LEFT_PERCENT
    }

    /// Whether so little was used since the last look that nobody can have spent his part.
    fn is_calm(&mut self, now: Instant, used: Option<Duration>) -> bool {
        let last = std::mem::replace(&mut self.last, used.map(|used| (now, used)));
        let Some(((then, before), used)) = last.zip(used) else { return false };
        used.saturating_sub(before) * CALM < now.duration_since(then)
    }
}

/// Part of the time of all processors, in percent: a machine that has less left is busy.
const LEFT_PERCENT: u32 = 10;

/// How long the processors of the machine have rested since it started, and how many they are (proc_stat(5)).
fn rested() -> Option<(Duration, u32)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    // The first line is of all of them.
    let processors = text.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
    let mut words = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().skip(3);
    let (idle, waits): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((Duration::from_millis((idle + waits) * (1_000 / TICKS_A_SECOND)), u32::try_from(processors).ok()?))
}

/// Whether this process, and with it all stars, may use less than the machine has: how the machine rests says nothing then.
fn confined(rested: Option<(Duration, u32)>) -> bool {
    let may = || std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    rested.is_none_or(|(_, processors)| may() < processors as usize)
}

/// What that file counts in: the same on every Linux that this runs on.
const TICKS_A_SECOND: u64 = 100;

impl Nursery {
    /// What a nursery before this one knew of its stars is not known any more.
    pub(super) fn let_nobody_give_way(&mut self) {
        for star in self.stars.values().filter(|star| star.lives() && star.has_quota()) {
            if star.record.groups.gives_way() {
                // Fails when the group is about to go.
                let _ = star.record.groups.give_way(false);
                let _ = star.record.limits.map(|limits| star.record.groups.lend(&limits, false));
            }
            self.yielding.expect(Instant::now());
        }
    }

    /// A star that was just started gives way at once if the one before it ended by its limits.
    pub(super) fn begin_account(&mut self, star: &Star, name: &str) {
        let may = self.walls.yielding.is_yes() && star.has_quota();
        if may && self.yielding.begins(star.record.star, name, Instant::now()) {
            // Fails when it has ended already.
            let _ = star.record.groups.give_way(true);
        }
    }

    /// What a star's end says of those that come after it.
    pub(super) fn close_account(&mut self, star: StarId, told: Told, cause: &ExitCause) {
        if told == Told::default() {
            self.yielding.ends(star, cause, Instant::now());
        } else {
            self.yielding.forget(star);
        }
    }

    /// Looks at who spends all he may, when it is time to.
    pub(super) fn look_at_spenders(&mut self) {
        let now = Instant::now();
        if self.yielding.next.is_none_or(|next| next > now) {
            return;
        }
        let can = |star: &&Star| matches!(star.phase, Phase::Running) && star.has_quota();
        // One that is starting may give way already.
        if !self.walls.yielding.is_yes() || !self.stars.values().any(|star| star.lives() && star.has_quota()) {
            self.yielding = Yielding::default();
            return;
        }
        let calm = self.yielding.is_calm(now, self.site.hierarchies.used());
        if calm && !self.yielding.accounts.values().any(|account| account.gives_way) {
            self.yielding.next = Some(now + CALM_LOOK);
            return;
        }
        let borrows = |star: &Star| {
            let may = star.record.limits.is_some_and(|limits| limits.cpu_borrow.is_some_and(|more| more > 0));
            may && star.record.groups.usage.is_some()
        };
        let any_borrows = self.stars.values().any(|star| can(&star) && borrows(star));
        let rested = if any_borrows { rested() } else { None };
        let busy = self.yielding.is_busy(now, rested) || confined(rested);
        let mut accounts = std::mem::take(&mut self.yielding.accounts);
        accounts.retain(|star, _| self.stars.get(star).is_some_and(|star| star.lives() && star.has_quota()));
        for star in self.stars.values().filter(can) {
            let groups = &star.record.groups;
            let limits = star.record.limits.unwrap_or(Limits::UNLIMITED);
            let borrows = borrows(star);
            let Some(spent) = groups.spent(borrows) else { continue };
            let begun = || Account { gives_way: groups.gives_way(), ..Account::default() };
            let account = accounts.entry(star.record.star).or_insert_with(begun);
            let since = account.at.replace(now).map(|at| now.duration_since(at));
            // One that has its own processors may be kept from them while others rest.
            let busy = busy || limits.cpus.is_some();
            let loan = since.zip(limits.cpu).filter(|_| borrows);
            let loan = loan.map(|(since, cpu)| Loan { own: since * cpu.0 / 1_000, busy });
            // Fails when the group is about to go.
            let _ = match account.judge(spent, loan) {
                Some(true) => groups.give_way(true).and_then(|()| groups.lend(&limits, true)),
                // What is not its own is taken back first; what could not be is tried again.
                Some(false) => {
                    let back = groups.lend(&limits, false);
                    account.gives_way = back.is_err();
                    if back.is_ok() { groups.give_way(false) } else { back }
                }
                None if account.gives_way => groups.still_give_way().and_then(|()| groups.lend(&limits, true)),
                None => Ok(()),
            };
        }
        self.yielding.accounts = accounts;
        let took = now.elapsed();
        self.yielding.next = Some(now + took + (took * WORTH).clamp(LOOK, LOOK_MAX));
    }
}

impl Star {
    pub(super) fn has_quota(&self) -> bool {
        self.record.limits.is_some_and(|limits| limits.cpu.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges looks of three periods each, of which so many were cut short.
    fn judged(account: &mut Account, looks: &[u64]) -> Vec<Option<bool>> {
        let mut spent = account.seen;
        let mut look = |&cut_short: &u64| {
            spent = Spent { periods: spent.periods + 3, cut_short: spent.cut_short + cut_short, ..spent };
            account.judge(spent, None)
        };
        looks.iter().map(&mut look).collect()
    }

    #[test]
    fn who_spends_all_gives_way_and_who_was_kept_from_it_is_left_alone_for_a_while() {
        let mut account = Account::default();
        assert_eq!(judged(&mut account, &[0, 1, 0]), [None; 3], "now and then is nothing");
        assert_eq!(judged(&mut account, &[2, 3, 3]), [Some(true), None, None]);
        assert_eq!(judged(&mut account, &[0]), [Some(false)], "it was kept from its quota, or is calm");
        let rest = vec![3; REST as usize];
        assert!(judged(&mut account, &rest).iter().all(Option::is_none));
        assert_eq!(judged(&mut account, &[3]), [Some(true)]);
    }

    #[test]
    fn who_comes_in_the_place_of_one_that_its_limits_ended_gives_way_at_once_and_for_a_minute() {
        let (mut yielding, now) = (Yielding::default(), Instant::now());
        let mut life = |name: &str, cause: ExitCause, star: u64, now| {
            let began = yielding.begins(StarId(star), name, now);
            yielding.ends(StarId(star), &cause, now);
            began
        };
        assert!(!life("bomb-1", ExitCause::OutOfMemory, 1, now), "nothing is known of it");
        assert!(!life("bomb-2", ExitCause::Code(1), 2, now), "another one");
        assert!(!life("bomb-2", ExitCause::Code(1), 3, now), "it failed, but not by its limits");
        assert!(life("bomb-1", ExitCause::Code(1), 4, now + MEMORY / 2), "it gave way to its end");
        assert!(life("bomb-1", ExitCause::Code(0), 5, now + MEMORY));
        assert!(!life("bomb-1", ExitCause::Code(0), 6, now + MEMORY * 2));
        // A nursery that did not start it knows no name.
        assert!(!life("", ExitCause::OutOfMemory, 7, now + MEMORY * 2));
        assert!(!life("", ExitCause::OutOfMemory, 8, now + MEMORY * 2));
        let mut account = Account { gives_way: true, ..Account::default() };
        assert_eq!(judged(&mut account, &[0]), [Some(false)], "the first look finds it calm");
    }

    #[test]
    fn of_many_names_no_more_are_remembered_than_there_is_room_for() {
        let (mut yielding, now) = (Yielding::default(), Instant::now());
        for star in 0..2 * SUSPECTS_MAX as u64 {
            yielding.begins(StarId(star), &star.to_string(), now);
            yielding.ends(StarId(star), &ExitCause::OutOfMemory, now);
        }
        assert_eq!(yielding.suspects.len(), SUSPECTS_MAX);
        assert!(yielding.begins(StarId(0), "0", now));
        yielding.ends(StarId(0), &ExitCause::OutOfMemory, now + MEMORY);
        assert_eq!(yielding.suspects.keys().collect::<Vec<_>>(), ["0"], "the others are forgotten");
    }

    #[test]
    fn a_star_without_a_period_spends_nothing() {
        let mut account = Account::default();
        assert_eq!(account.judge(Spent::default(), None), None);
        assert_eq!(account.judge(Spent { periods: 1, cut_short: 1, ..Spent::default() }, None), Some(true));
        // Counters of another group of the same name.
        assert_eq!(account.judge(Spent::default(), None), Some(false));
    }

    #[test]
    fn who_may_borrow_does_so_as_long_as_it_needs_more_than_its_own_and_others_do_not() {
        // A quarter of a core: 75 ms of each look are its own.
        let mut account = Account::default();
        let mut spent = Spent::default();
        let mut look = |cut_short: u64, used_ms: u64, busy: bool| {
            let used = spent.used + Duration::from_millis(used_ms);
            spent = Spent { periods: spent.periods + 3, cut_short: spent.cut_short + cut_short, used };
            account.judge(spent, Some(Loan { own: Duration::from_millis(75), busy }))
        };
        assert_eq!(look(3, 75, false), Some(true), "it wants more than it has");
        assert_eq!(look(3, 150, false), None, "and all that it is lent");
        assert_eq!(look(0, 110, true), None, "or some of that");
        assert_eq!(look(0, 70, true), None, "or nearly its own: others are there, and it runs all the same");
        assert_eq!(look(0, 20, true), Some(false), "it was kept from it");
        assert!((0..REST).all(|_| look(3, 75, true).is_none()), "then it has its own for a while");
        assert_eq!(look(3, 75, true), Some(true));
        assert_eq!(look(0, 20, false), Some(false), "nobody kept it from anything: it wants no more");
        assert_eq!(look(3, 75, false), Some(true), "and borrows again as soon as it does");
    }

    #[test]
    fn a_machine_is_busy_when_its_processors_hardly_rest() {
        let (mut yielding, now) = (Yielding::default(), Instant::now());
        let at = |ms: u64| now + Duration::from_millis(ms);
        let rested = |ms: u64| Some((Duration::from_millis(ms), 2));
        assert!(yielding.is_busy(at(0), rested(1_000)), "nothing is known yet");
        assert!(!yielding.is_busy(at(300), rested(1_100)), "a sixth of the time of two was left");
        assert!(yielding.is_busy(at(600), rested(1_150)), "a twelfth was");
        assert!(yielding.is_busy(at(900), None));
    }

    #[test]
    fn looks_come_soon_after_somebody_new_and_rarely_where_nothing_is_used() {
        let (mut yielding, now) = (Yielding::default(), Instant::now());
        assert_eq!(yielding.patience(now), None);
        yielding.next = Some(now + CALM_LOOK);
        yielding.expect(now);
        assert_eq!(yielding.patience(now), Some(LOOK));
        yielding.expect(now + LOOK);
        assert_eq!(yielding.patience(now), Some(LOOK), "the first look waits for nobody");
        assert!(!yielding.is_calm(now, Some(Duration::ZERO)), "nothing is known yet");
        assert!(yielding.is_calm(now + LOOK, Some(Duration::from_millis(1))));
        assert!(!yielding.is_calm(now + LOOK * 2, Some(Duration::from_millis(100))));
        assert!(!yielding.is_calm(now + LOOK * 3, None));
    }
}
