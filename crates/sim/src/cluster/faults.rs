//! What goes wrong: agents are killed, power is cut, the network parts, stars crash, operators drain machines.

use std::time::Duration;

use model::{Duty, ExitCause, StarId, Taint};
use state::Command;

use super::world::{Happening, World};

impl World {
    pub(crate) fn fault(&mut self) {
        let machines = self.machines.len() as u64;
        let at = self.random.below(machines) as usize;
        match self.random.below(15) {
            0..4 => self.crash_star(at),
            4 => self.kill_agent(at),
            5 => {
                let back = (!self.random.one_in(6)).then(|| self.random.at_most(Duration::from_secs(40)));
                self.cut_power(at, back);
            }
            6 | 7 => self.part(),
            8 => self.lose_nursery(at),
            9 => {
                let duty = self.random.pick(&[Duty::Takes, Duty::Cordoned, Duty::Draining]).unwrap_or_default();
                let node = self.machines[at].id;
                self.append(Command::SetDuty { node, duty, wall: self.wall() });
            }
            12 => {
                let evicts = self.random.one_in(2);
                let taint = (!self.random.one_in(3)).then_some(Taint { value: None, evicts });
                let node = self.machines[at].id;
                self.append(Command::SetTaint { node, name: "gpu".to_owned(), taint, wall: self.wall() });
            }
            10 => self.hint_wrongly(at),
            11 => self.depose(),
            13 => self.fill_memory(at),
            _ => self.kill_leader(),
        }
    }

    fn crash_star(&mut self, at: usize) {
        let stars: Vec<StarId> = self.machines[at].processes.keys().copied().collect();
        if let Some(star) = self.random.pick(&stars) {
            let cause = if self.random.one_in(2) { ExitCause::OutOfMemory } else { ExitCause::Code(0) };
            self.end_star(at, star, cause);
        }
    }

    /// What runs beside the stars takes the memory of a machine, for a while: one star after another gives way.
    fn fill_memory(&mut self, at: usize) {
        self.note(format!("memory of {at} runs short"));
        let length = self.random.at_most(Duration::from_secs(12));
        self.machines[at].short_until = self.now + length;
    }

    fn kill_leader(&mut self) {
        if let Some(leader) = self.leader {
            self.kill_agent(leader);
        }
    }

    /// Another comes to lead while the one that does is there, and hears of it later.
    fn depose(&mut self) {
        let Some(leader) = self.leader.take() else { return };
        self.note(format!("{leader} is deposed"));
        let wait = self.random.at_most(Duration::from_secs(20));
        self.after(wait, Happening::StepDown { at: leader });
        self.after(Duration::from_millis(50), Happening::Elect);
    }

    /// The agent dies; another is started a moment later.
    fn kill_agent(&mut self, at: usize) {
        if self.machines[at].agent.is_none() {
            return;
        }
        self.note(format!("agent {at} killed"));
        self.machines[at].stop_agent();
        self.network_changed();
        let wait = self.random.at_most(Duration::from_secs(3));
        self.after(wait, Happening::StartAgent { at });
    }

    /// Everything on a machine is gone but its disk; without `back` that too.
    pub(crate) fn cut_power(&mut self, at: usize, back: Option<Duration>) {
        let voters_left = (0..self.voters()).filter(|voter| *voter != at && !self.machines[*voter].wrecked).count();
        // Of the voters a majority survives: what a constellation does without one is to wait.
        let back = back.or_else(|| (at < self.voters() && voters_left <= self.voters() / 2).then_some(Duration::ZERO));
        if !self.machines[at].powered {
            return;
        }
        self.note(format!("power of {at} cut"));
        self.machines[at].cut_power();
        self.network_changed();
        match back {
            Some(wait) => self.after(wait + Duration::from_secs(1), Happening::PowerOn { at }),
            None => self.machines[at].wrecked = true,
        }
    }

    /// The network falls into two; or a machine sees nobody.
    fn part(&mut self) {
        let alone = self.random.one_in(3);
        let machines = self.machines.len();
        let hermit = self.random.below(machines as u64) as usize;
        for at in 0..machines {
            let side = if alone { at == hermit } else { self.random.one_in(2) };
            self.sides[at] = u8::from(side);
        }
        self.note(format!("network parts: {:?}", self.sides));
        self.network_changed();
        let wait = self.random.at_most(Duration::from_secs(30));
        self.after(wait, Happening::Heal);
    }

    pub(crate) fn heal(&mut self) {
        self.note("network heals".to_owned());
        self.sides.fill(0);
        self.network_changed();
    }

    /// The nursery dies: with it goes what it was about to say, and sometimes its stars.
    fn lose_nursery(&mut self, at: usize) {
        if !self.machines[at].powered || !self.machines[at].nursery_up {
            return;
        }
        self.note(format!("nursery {at} lost"));
        self.machines[at].nursery_up = false;
        if self.random.one_in(2) {
            self.machines[at].processes.clear();
        }
        self.drop_news(at);
        self.tell(at, node::Event::NurseryDown);
        let wait = self.random.at_most(Duration::from_millis(500));
        self.after(wait, Happening::NurseryUp { at });
    }

    /// Membership takes a machine for dead that is not, for a while.
    fn hint_wrongly(&mut self, about: usize) {
        let node = self.machines[about].id;
        for at in 0..self.machines.len() {
            if at != about {
                self.tell(at, node::Event::Seems { node, alive: false });
            }
        }
        self.network_changed();
    }
}
