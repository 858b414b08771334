//! A run: a log begins, clients and an operator set to work, things go wrong, and then no longer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use consensus_sim::Defect;
use consensus_sim::executor::{self, Simulation, Step};
use model::NodeId;

use super::history;
use super::people::{REGISTERS, app};
use super::world::{Bug, Failure, Options, Report, WORLD, World};

const CLIENTS: usize = 4;
/// From the end of all faults until a write goes through, and then until everybody has it: a few elections, and a snapshot.
const RECOVERED: Duration = Duration::from_secs(15);
/// No run has so many steps: a second of virtual time has a few thousand.
const POLLS_MAX: u64 = 4_000_000;
/// Nor so many before time goes on.
const POLLS_AT_ONCE_MAX: u64 = 100_000;

/// Runs one.
pub fn run(options: Options) -> Result<Report, Box<Failure>> {
    let defect = match options.bug {
        Some(Bug::AnswersBeforeSync) => Some(Defect::AnswersBeforeSync),
        Some(Bug::ForgetsVotes) => Some(Defect::ForgetsVotes),
        Some(Bug::TakesSnapshotsUnchecked) => Some(Defect::TakesSnapshotsUnchecked),
        Some(Bug::ReadsWithoutAsking | Bug::TrustsTails) | None => None,
    };
    let mut simulation = Simulation::new(options.seed, defect);
    let world = World::new(options);
    drop(executor::spawn(WORLD, world.clone().scenario()));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut at_once = 0;
        loop {
            let step = simulation.step();
            match step {
                Step::Ran(_) => at_once += 1,
                Step::Waited | Step::Idle => at_once = 0,
            }
            if let Some(failure) = world.take_wrong() {
                return Err(failure);
            }
            if world.book().done {
                return Ok(());
            }
            if at_once > POLLS_AT_ONCE_MAX {
                world.wrong("somebody is busy without an end".to_owned());
            }
            if step == Step::Idle || simulation.polls() > POLLS_MAX {
                world.wrong("nothing comes to an end any more".to_owned());
            }
        }
    }));
    let result = match ran {
        Ok(Ok(())) => Ok(world.report(&simulation)),
        Ok(Err(failure)) => Err(Box::new(failure)),
        Err(_) => {
            world.wrong("it panics".to_owned());
            Err(Box::new(world.take_wrong().expect("it was just said")))
        }
    };
    world.end();
    result
}

impl World {
    fn report(&self, simulation: &Simulation) -> Report {
        let mut book = self.book();
        book.report.polls = simulation.polls();
        book.report.hash = simulation.hash();
        book.report.carried = self.net.carried();
        book.report.terms = self.net.leaders() as u64;
        book.report.commands = book.truth.commands();
        book.report.torn = book.machines.values().map(|machine| machine.medium.torn()).sum();
        book.report
    }

    async fn scenario(self) {
        let first = self.add_machine();
        self.found(first);
        // What was written arrives on the disk.
        executor::sleep(Duration::from_millis(20)).await;
        self.start(first);
        let Some((_, owner, consensus)) = self.a_leader().await else { return };
        let command = app();
        let put = executor::spawn(owner, async move { consensus.propose(&command).await }).await;
        if !matches!(put, Ok(Ok(_))) {
            return self.wrong(format!("the first command is refused: {put:?}"));
        }
        let mut people: Vec<_> = (0..CLIENTS).map(|_| executor::spawn(WORLD, self.clone().client())).collect();
        people.push(executor::spawn(WORLD, self.clone().operator()));
        // The voters are three, most of the time, when things begin to go wrong.
        executor::sleep(Duration::from_millis(1_500)).await;
        let end = executor::now() + self.options.time;
        let pace = Duration::from_millis(200 << self.book().chance.below(3));
        while executor::now() < end {
            let pause = self.book().chance.at_most(pace * 2);
            executor::sleep(pause).await;
            self.fault();
        }
        self.book().is_over = true;
        self.mend();
        for one in people {
            // The world is never killed.
            let _ = one.await;
        }
        // What was to go wrong a little later has, by now; what was to be started is.
        executor::sleep(Duration::from_secs(4)).await;
        self.mend();
        self.settle().await;
        let took = self.book().took();
        self.book().report.took = took;
        self.book().done = true;
    }

    async fn a_leader(&self) -> Option<(NodeId, executor::Owner, consensus_sim::Consensus)> {
        let end = executor::now() + RECOVERED;
        loop {
            if let Some(leader) = self.leader() {
                return Some(leader);
            }
            if executor::now() > end {
                self.wrong(format!("nobody leads {RECOVERED:?} after the last fault"));
                return None;
            }
            executor::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nothing goes wrong any more: a write goes through, everybody has all there is, and it is what it must be.
    async fn settle(&self) {
        let (began, end) = (executor::now(), executor::now() + RECOVERED);
        while !self.deed(0, true).await {
            if executor::now() > end {
                return self.wrong(format!("no write goes through {RECOVERED:?} after the last fault"));
            }
            executor::sleep(Duration::from_millis(20)).await;
        }
        self.book().report.recovered = executor::now() - began;
        for register in 0..REGISTERS {
            let mut tries = 0;
            while !self.deed(register, false).await {
                tries += 1;
                if tries > 200 {
                    return self.wrong(format!("register {register} cannot be read in the end"));
                }
                executor::sleep(Duration::from_millis(20)).await;
            }
        }
        let end = executor::now() + RECOVERED;
        while self.finish().await {
            if executor::now() > end {
                return self.wrong("a change of the voters stays half done".to_owned());
            }
            executor::sleep(Duration::from_millis(20)).await;
        }
        let Some((_, _, leader)) = self.a_leader().await else { return };
        let members = leader.status();
        let end = executor::now() + RECOVERED;
        let states = loop {
            let all = self.voters().into_iter();
            let states: Vec<_> = all
                .filter(|(node, ..)| members.voters.contains(node) || members.learners.contains(node))
                .map(|(node, _, consensus)| (node, consensus.state()))
                .collect();
            let newest = states.iter().map(|(_, state)| state.index).max();
            if states.iter().all(|(_, state)| Some(state.index) == newest) {
                break states;
            }
            if executor::now() > end {
                let indexes: Vec<_> = states.iter().map(|(node, state)| (node.0, state.index)).collect();
                return self.wrong(format!("some stay behind: {indexes:?}"));
            }
            executor::sleep(Duration::from_millis(20)).await;
        };
        let missing = members.voters.iter().find(|voter| !states.iter().any(|(node, _)| node == *voter));
        if let Some(missing) = missing.filter(|missing| !self.book().machines[missing].gone) {
            return self.wrong(format!("{missing} is not there in the end"));
        }
        // Everything that was told is heard.
        executor::sleep(Duration::from_millis(20)).await;
        let states: Vec<(NodeId, Arc<state::State>)> = states;
        let mut book = self.book();
        if let Err(what) = book.truth.check(states) {
            book.wrong(what);
        }
        if let Some(what) = history::unexplained(&book.deeds) {
            book.wrong(what);
        }
    }
}
