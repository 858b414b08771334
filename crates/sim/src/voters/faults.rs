//! What goes wrong: processes are killed, power is cut, disks fail, fill and dawdle, the network parts, loses and delays.

use std::time::Duration;

use consensus_sim::executor;
use model::NodeId;

use super::disk::Faults;
use super::network::Weather;
use super::world::{WORLD, World};

impl World {
    pub(crate) fn fault(&self) {
        let all = self.machines();
        let Some(any) = self.book().chance.pick(&all) else { return };
        // Leaders have more to lose.
        let leader = self.leader().map(|(node, ..)| node).filter(|_| self.book().chance.one_in(2));
        let at = leader.unwrap_or(any);
        self.book().report.faults += 1;
        let which = self.book().chance.below(20);
        match which {
            0..2 => {
                self.kill(at);
                self.start_later(at, Duration::from_secs(3));
            }
            2..4 => {
                self.cut_power(at);
                self.start_later(at, Duration::from_secs(3));
            }
            4..6 => self.cut_all_power(),
            6 => self.fail_sync(at),
            7 => self.fill_disk(at),
            8..10 => self.slow_disk(at),
            10 => self.leave(at),
            11 => self.lose_voter(at),
            12..15 => self.part(at),
            15 => self.net.heal(),
            16..18 => self.weather(),
            _ => self.net.set_weather(Weather::FAIR),
        }
    }

    /// Nothing is wrong any more, and everything that can be is on.
    pub(crate) fn mend(&self) {
        self.net.mend();
        for node in self.machines() {
            // One that has failed is not told of yet, perhaps.
            let will_not_fail = self.medium_of(node, |faults| std::mem::take(faults).sync_fails);
            self.book().machine(node).fails -= u32::from(will_not_fail);
            self.start(node);
        }
        self.note(|| "nothing goes wrong any more".to_owned());
    }

    /// Those that were not lost.
    pub(crate) fn machines(&self) -> Vec<NodeId> {
        self.book().machines.iter().filter(|(_, machine)| !machine.gone).map(|(node, _)| *node).collect()
    }

    fn medium_of<T>(&self, node: NodeId, change: impl FnOnce(&mut Faults) -> T) -> T {
        let medium = self.book().machines[&node].medium.clone();
        medium.faults(change)
    }

    fn cut_all_power(&self) {
        for node in self.machines() {
            self.cut_power(node);
            self.start_later(node, Duration::from_secs(2));
        }
    }

    /// The next sync fails, once: the process ends, and its successor reads what the disk has.
    fn fail_sync(&self, node: NodeId) {
        self.note(|| format!("the next sync of {node} fails"));
        let is_news = !self.medium_of(node, |faults| std::mem::replace(&mut faults.sync_fails, true));
        self.book().machine(node).fails += u32::from(is_news);
    }

    fn fill_disk(&self, node: NodeId) {
        self.note(|| format!("the disk of {node} is full"));
        self.medium_of(node, |faults| faults.full = true);
        self.mend_disk_later(node);
    }

    fn slow_disk(&self, node: NodeId) {
        let slow = self.book().chance.at_most(Duration::from_millis(600));
        self.note(|| format!("the disk of {node} takes {slow:?} and less"));
        self.medium_of(node, |faults| faults.slow = slow);
        self.mend_disk_later(node);
    }

    fn mend_disk_later(&self, node: NodeId) {
        let (this, wait) = (self.clone(), self.book().chance.at_most(Duration::from_secs(3)));
        executor::spawn(WORLD, async move {
            executor::sleep(wait).await;
            this.medium_of(node, |faults| (faults.full, faults.slow) = (false, Duration::ZERO));
        });
    }

    /// The process ends as it is asked to, and another is started.
    fn leave(&self, node: NodeId) {
        let Some((_, owner, consensus)) = self.voters().into_iter().find(|(it, ..)| *it == node) else { return };
        self.note(|| format!("{node} is asked to end"));
        let this = self.clone();
        executor::spawn(WORLD, async move {
            let ending = executor::spawn(owner, async move { consensus.shutdown().await });
            // It was killed meanwhile, then.
            if ending.await.is_ok() && this.book().running(node, owner).is_some() {
                this.kill(node);
                this.start_later(node, Duration::from_secs(1));
            }
        });
    }

    /// A voter's machine is lost with its disk: where a majority has what it had, and once a run.
    fn lose_voter(&self, node: NodeId) {
        let voters = self.leader().map(|(.., consensus)| consensus.status().voters).unwrap_or_default();
        let may = {
            let book = self.book();
            !book.changing && !book.lost && voters.len() >= 3 && voters.contains(&node)
        };
        if may {
            self.book().lost = true;
            self.lose(node);
        }
    }

    /// Halves, one way, a bridge, a ring, or one alone.
    fn part(&self, one: NodeId) {
        let all = self.machines();
        let (kind, bits) = {
            let mut book = self.book();
            (book.chance.below(6), book.chance.number())
        };
        self.net.heal();
        let side = |node: NodeId| bits >> (node.0 % 64) & 1 == 1;
        let place = |node: NodeId| all.iter().position(|it| *it == node).unwrap_or(0);
        let apart = |from: NodeId, to: NodeId| match kind {
            0 => side(from) != side(to),
            1 => from == one,
            2 => to == one,
            // Two halves that only one machine hears both of.
            3 => from != one && to != one && side(from) != side(to),
            // Each hears its neighbours.
            4 => {
                let (a, b) = (place(from), place(to));
                (a + 1) % all.len() != b && (b + 1) % all.len() != a
            }
            _ => from == one || to == one,
        };
        for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to))) {
            if from != to && apart(from, to) {
                self.net.cut(from, to);
            }
        }
        let name = ["halves", "nobody hears it", "it hears nobody", "a bridge", "a ring", "alone"][kind as usize];
        self.note(|| format!("the network parts, {one}: {name}"));
    }

    fn weather(&self) {
        let weather = {
            let mut book = self.book();
            let loss = book.chance.unit() * 0.3;
            let most = Duration::from_millis(2 + book.chance.below(4) * book.chance.below(60));
            Weather { loss, latency: (Duration::from_micros(100), most) }
        };
        self.note(|| format!("the network loses {:.2} and takes up to {:?}", weather.loss, weather.latency.1));
        self.net.set_weather(weather);
    }
}
