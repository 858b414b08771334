//! What must hold of the log and of the state, whoever tells it.

use std::collections::BTreeMap;
use std::sync::Arc;

use consensus_sim::{Applied, Role, Status};
use model::NodeId;
use state::{Change, Command, State};
use tokio::sync::{mpsc, watch};

use super::world::World;

/// What all machines together said was agreed on.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// By index: who said so first.
    commands: BTreeMap<u64, (NodeId, Arc<Command>, Vec<Change>)>,
    /// Every state that a machine began with, to be looked at when all that leads to it is known.
    states: Vec<(NodeId, Arc<State>)>,
    /// Every run of commands that a machine told of one after another: the index it began after, and theirs.
    runs: Vec<(NodeId, u64, Vec<u64>)>,
    /// Writes that were answered for.
    pub acknowledged: BTreeMap<u64, Command>,
    /// Writes that were refused: nothing of them may ever be seen.
    pub refused: Vec<Command>,
}

impl Truth {
    pub(crate) fn commands(&self) -> u64 {
        self.commands.len() as u64
    }

    /// Takes what a machine applied. The error says what is wrong with it.
    fn hear(&mut self, node: NodeId, applied: Applied) -> Result<(), String> {
        match applied {
            Applied::State(state) => {
                self.runs.push((node, state.index, Vec::new()));
                self.states.push((node, state));
            }
            Applied::Command { index, command, changes, .. } => {
                let run = self.runs.iter_mut().rev().find(|run| run.0 == node);
                let (_, after, indexes) = run.ok_or_else(|| format!("{node} tells a command before any state"))?;
                let last = *indexes.last().unwrap_or(after);
                if index <= last {
                    return Err(format!("{node} tells command {index} after {last}"));
                }
                indexes.push(index);
                let (first, expected, effects) =
                    self.commands.entry(index).or_insert_with(|| (node, Arc::clone(&command), changes.clone()));
                if *expected != command {
                    return Err(format!(
                        "{first} and {node} have different commands at {index}: {expected:?}, {command:?}"
                    ));
                }
                if *effects != changes {
                    return Err(format!("{first} and {node} came to different changes at {index}"));
                }
            }
        }
        Ok(())
    }

    /// What must hold in the end, when everybody has told everything. `last` are the states there are now.
    pub(crate) fn check(&mut self, last: Vec<(NodeId, Arc<State>)>) -> Result<(), String> {
        for (node, after, indexes) in &self.runs {
            let Some(end) = indexes.last() else { continue };
            let expected = self.commands.range(after + 1..=*end).map(|(index, _)| *index);
            if !expected.eq(indexes.iter().copied()) {
                return Err(format!("{node} left out commands between {after} and {end}"));
            }
        }
        for (index, command) in &self.acknowledged {
            match self.commands.get(index) {
                Some((_, found, _)) if **found == *command => {}
                Some((_, found, _)) => {
                    return Err(format!("{command:?} was answered for at {index}, where {found:?} is"));
                }
                None => return Err(format!("{command:?} was answered for at {index}, where nothing is")),
            }
        }
        for command in &self.refused {
            if let Some((index, _)) = self.commands.iter().find(|(_, (_, found, _))| **found == *command) {
                return Err(format!("{command:?} was refused and is at {index}"));
            }
        }
        let end = self.commands.last_key_value().map_or(0, |(index, _)| *index);
        for (node, state) in &last {
            if state.index != end {
                return Err(format!("{node} ends at {}, the log at {end}", state.index));
            }
        }
        let mut states = std::mem::take(&mut self.states);
        states.extend(last);
        states.sort_by_key(|(_, state)| state.index);
        let mut commands = self.commands.iter().peekable();
        let mut state = State::default();
        for (node, told) in states {
            while let Some((index, (_, command, _))) = commands.next_if(|(index, _)| **index <= told.index) {
                state::apply(&mut state, *index, command);
            }
            if *told != state {
                return Err(format!("the state of {node} at {} is not what the log says", told.index));
            }
        }
        Ok(())
    }
}

impl World {
    /// Hears what a machine applies, until it has ended.
    pub(crate) async fn listen(self, node: NodeId, mut applied: mpsc::Receiver<Applied>) {
        let mut states = 0;
        while let Some(applied) = applied.recv().await {
            let mut book = self.book();
            if let Applied::State(state) = &applied {
                states += 1;
                // The first is that of its own disk.
                if states > 1 {
                    book.report.snapshots += 1;
                    let index = state.index;
                    book.note(|| format!("{node} has the snapshot of {index}"));
                }
            }
            if let Err(what) = book.truth.hear(node, applied) {
                book.wrong(what);
            }
        }
    }

    /// Looks at what a machine says of itself, until it has ended.
    pub(crate) async fn look(self, node: NodeId, mut status: watch::Receiver<Option<Status>>) {
        let mut before = None;
        while status.changed().await.is_ok() {
            let Some(now) = status.borrow_and_update().clone() else { continue };
            if now.role == Role::Leader {
                self.net.leads(now.term, node);
            }
            if before != Some((now.role, now.term)) {
                before = Some((now.role, now.term));
                self.note(|| {
                    let voters: Vec<u64> = now.voters.iter().map(|voter| voter.0).collect();
                    format!("{node} is {:?} in term {}, of {voters:?}, at {}", now.role, now.term, now.last)
                });
            }
        }
    }
}
