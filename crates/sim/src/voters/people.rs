//! Clients, who write and read registers, and an operator, who changes who votes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use consensus_sim::executor;
use consensus_sim::{Consensus, Refusal, Role};
use model::{AppSpec, NodeId, ServiceKey, WallTime};
use state::{Command, State};

use super::history::{Deed, FIRST};
use super::world::{Bug, WORLD, World};
use crate::chance::Chance;
use crate::cluster::spec;

/// Registers are the numbers of instances of so many services.
pub(crate) const REGISTERS: u64 = 4;
/// Nothing takes longer: an answer's time, and that of a leader to be known.
const ANSWERED: Duration = Duration::from_secs(8);

fn service(register: u64) -> ServiceKey {
    ServiceKey::in_default(format!("web-{register}").parse().expect("a name"))
}

/// The app that the registers are of.
pub(crate) fn app() -> Command {
    let service = |register: u64| {
        let mut spec = spec(&mut Chance::new(0), "web", 0);
        spec.instances = FIRST as u32;
        spec.entry = None;
        (service(register).name, spec)
    };
    let services: BTreeMap<_, _> = (0..REGISTERS).map(service).collect();
    let spec = AppSpec { app: "shop".parse().expect("a name"), services };
    Command::PutApp { spec, base: None, wall: WallTime(1) }
}

/// Every value is written once at most.
fn write(register: u64, value: u64) -> Command {
    Command::Scale { service: service(register), instances: value as u32, wall: WallTime(1) }
}

fn value(state: &State, register: u64) -> Option<u64> {
    Some(u64::from(state.services.get(&service(register))?.spec.instances))
}

async fn read(consensus: Consensus, register: u64, bug: Option<Bug>) -> Result<Option<u64>, Refusal> {
    let asks = bug != Some(Bug::ReadsWithoutAsking) || consensus.status().role != Role::Leader;
    if asks {
        consensus.read_index().await?;
    }
    Ok(value(&consensus.state(), register))
}

impl World {
    /// One thing at a time, of any register, at whom it takes for the leader or at anybody.
    pub(crate) async fn client(self) {
        loop {
            let pause = self.book().chance.at_most(Duration::from_millis(150));
            executor::sleep(pause).await;
            if self.book().is_over {
                return;
            }
            let register = self.book().chance.below(REGISTERS);
            let is_write = self.book().chance.one_in(2);
            self.deed(register, is_write).await;
        }
    }

    /// Whether it was done.
    pub(crate) async fn deed(&self, register: u64, is_write: bool) -> bool {
        let all = self.voters();
        let anybody = {
            let mut book = self.book();
            let place = if all.is_empty() { 0 } else { book.chance.below(all.len() as u64) as usize };
            all.get(place).filter(|_| book.chance.one_in(4)).cloned()
        };
        let Some((node, owner, consensus)) = anybody.or_else(|| self.leader()) else { return false };
        let (began, new) = {
            let mut book = self.book();
            book.value += u64::from(is_write);
            (book.tick(), book.value)
        };
        let asked = executor::now();
        let deed = |value, ended| Deed { register, is_write, value, began, ended };
        if is_write {
            let command = write(register, new);
            let proposed = command.clone();
            let answer = executor::spawn(owner, async move { consensus.propose(&proposed).await }).await;
            let mut book = self.book();
            let ended = book.tick();
            let outcome = match answer {
                Ok(Ok(outcome)) => {
                    book.deeds.push(deed(new, Some(ended)));
                    book.report.writes += 1;
                    if let Some(other) = book.truth.acknowledged.insert(outcome.index, command) {
                        book.wrong(format!("two writes were answered for at {}: {other:?}", outcome.index));
                    }
                    Ok(outcome.index)
                }
                Ok(Err(Refusal::Unknown(_))) | Err(_) => {
                    book.deeds.push(deed(new, None));
                    book.report.unknown += 1;
                    Err("nobody knows")
                }
                Ok(Err(Refusal::NotLeader { .. } | Refusal::Refused(_))) => {
                    book.truth.refused.push(command);
                    Err("refused")
                }
            };
            drop(book);
            self.in_time(node, asked);
            self.detail(|| format!("{node} is asked to write {new} to {register}: {outcome:?}, {began} to {ended}"));
            return outcome.is_ok();
        }
        let bug = self.options.bug;
        let answer = executor::spawn(owner, read(consensus, register, bug)).await;
        let mut book = self.book();
        let ended = book.tick();
        let seen = match answer {
            Ok(Ok(Some(value))) => {
                book.deeds.push(deed(value, Some(ended)));
                book.report.reads += 1;
                Some(value)
            }
            // Before there is the app there is no register.
            Ok(Ok(None)) => {
                book.wrong(format!("{node} has read a state without the register {register}"));
                None
            }
            Ok(Err(_)) | Err(_) => None,
        };
        drop(book);
        self.in_time(node, asked);
        self.detail(|| format!("{node} is asked to read {register}: {seen:?}, {began} to {ended}"));
        seen.is_some()
    }

    fn in_time(&self, node: NodeId, asked: executor::Moment) {
        let took = executor::now() - asked;
        if took > ANSWERED {
            self.wrong(format!("{node} took {took:?} to answer"));
        }
    }

    /// Lets the voters become three, then perhaps five, replaces what is lost, and now and then changes them for no reason.
    pub(crate) async fn operator(self) {
        let mut wanted = 3;
        loop {
            let pause = self.book().chance.at_most(Duration::from_millis(1_200));
            executor::sleep(pause).await;
            if self.book().is_over {
                return;
            }
            if self.book().chance.one_in(8) {
                wanted = 5;
            }
            let Some((leader, owner, consensus)) = self.leader() else { continue };
            if self.finish().await {
                continue;
            }
            let voters = consensus.status().voters;
            let gone = voters.iter().copied().find(|voter| self.book().machines[voter].gone);
            let any: Vec<NodeId> = voters.iter().copied().collect();
            let any = self.book().chance.pick(&any);
            let whim = self.book().chance.below(6);
            let change = match (gone, any) {
                (Some(gone), _) => Change::Replace(gone, self.spare(&voters)),
                // All at once, as a leader does, and sometimes one by one.
                (None, _) if voters.len() < wanted && whim > 0 => Change::Grow(self.spares(&voters, wanted)),
                (None, _) if voters.len() < wanted => Change::Add(self.spare(&voters)),
                (None, Some(any)) if whim == 0 => Change::Replace(any, self.spare(&voters)),
                (None, Some(any)) if whim == 1 && voters.len() > 3 => Change::Remove(any),
                (None, Some(any)) if whim == 2 => Change::Transfer(any),
                _ => continue,
            };
            self.note(|| format!("{leader} is asked to {change:?}"));
            if !matches!(change, Change::Transfer(_)) {
                self.book().changing = true;
            }
            let asked = change.clone();
            let changed = executor::spawn(owner, async move {
                let mut wanted = BTreeSet::clone(&voters);
                match asked {
                    Change::Transfer(to) => return consensus.transfer_leadership(Some(to)).await.map(drop),
                    Change::Grow(voters) => wanted = voters,
                    Change::Add(new) => drop(wanted.insert(new)),
                    Change::Remove(old) => drop(wanted.remove(&old)),
                    Change::Replace(old, new) => {
                        wanted.remove(&old);
                        wanted.insert(new);
                    }
                }
                consensus.set_voters(&wanted).await
            });
            let changed = changed.await;
            self.note(|| format!("{change:?}: {changed:?}"));
            if let Ok(Ok(())) = changed {
                self.book().report.changes += 1;
                match change {
                    Change::Transfer(_) => {}
                    Change::Grow(_) | Change::Add(_) => self.book().changing = false,
                    Change::Remove(old) | Change::Replace(old, _) => {
                        self.book().changing = false;
                        self.retire(old);
                    }
                }
            }
        }
    }

    /// Goes on with a change of the voters that a leader left half done. Whether there was one.
    pub(crate) async fn finish(&self) -> bool {
        let Some((leader, owner, consensus)) = self.leader() else { return false };
        let Some(begun) = consensus.status().voters_next else { return false };
        let finished = executor::spawn(owner, async move { consensus.set_voters(&begun).await }).await;
        self.note(|| format!("{leader} is asked to finish a change of the voters: {finished:?}"));
        if let Ok(Ok(())) = finished {
            let mut book = self.book();
            book.report.finished += 1;
            book.changing = false;
        }
        true
    }

    /// These voters and so many machines that do not vote that there are `wanted`.
    fn spares(&self, voters: &BTreeSet<NodeId>, wanted: usize) -> BTreeSet<NodeId> {
        let mut more = voters.clone();
        while more.len() < wanted {
            more.insert(self.spare(&more));
        }
        more
    }

    /// A machine that does not vote: one there is, or a new one.
    fn spare(&self, voters: &BTreeSet<NodeId>) -> NodeId {
        let there = {
            let book = self.book();
            let spares = book.machines.iter().filter(|(node, machine)| !machine.is_leaving && !voters.contains(node));
            spares.map(|(node, _)| *node).next()
        };
        let node = there.unwrap_or_else(|| self.add_machine());
        self.start(node);
        node
    }

    /// It is no voter any more: it goes, a little later, and never comes back.
    fn retire(&self, node: NodeId) {
        let this = self.clone();
        let wait = {
            let mut book = self.book();
            book.machines.get_mut(&node).into_iter().for_each(|machine| machine.is_leaving = true);
            book.chance.at_most(Duration::from_secs(2))
        };
        executor::spawn(WORLD, async move {
            executor::sleep(wait).await;
            this.lose(node);
        });
    }
}

#[derive(Debug, Clone)]
enum Change {
    Grow(BTreeSet<NodeId>),
    Add(NodeId),
    Remove(NodeId),
    Replace(NodeId, NodeId),
    Transfer(NodeId),
}
