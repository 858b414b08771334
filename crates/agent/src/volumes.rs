//! Volumes as their owner sees them: which there are, what they hold, and the end of those that nobody has.
//!
//! A deletion is in the log first, and the files go after it. An agent that ends between the two leaves files of which the log
//! knows nothing: they are listed still, and can be deleted again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use api::{Caller, Client, VolumeView};
use model::{Code, Name, NodeId, Problem, Standing, Verb, VolumeKey};
use node::{Node, Request};
use state::{Deed, Outcome};

use crate::beside::beside;
use crate::control::Remote;

impl Remote {
    /// Every volume of all nodes; of this one when another node asks.
    pub(crate) async fn all_volumes(&self, caller: Caller) -> Result<Vec<VolumeView>, Problem> {
        let me = self.looker().look(Node::id).await?;
        let data_dir = self.data_dir.clone();
        // Looked for first: what is made meanwhile is in the log, at the latest when that is asked.
        let files = beside(move || Ok(found(&data_dir))).await?;
        let on_disk: BTreeSet<VolumeKey> = files.keys().cloned().collect();
        let own_alone = caller.from.is_some();
        let views = move |node: &Node| {
            let state = node.state();
            let name = |node: NodeId| state.nodes.get(&node).map_or_else(|| "-".to_owned(), |of| of.name.to_string());
            let known = state.homes.iter().map(|(volume, home)| (volume.clone(), *home));
            let left = on_disk.iter().filter(|volume| state.home_of(volume).is_none()).map(|it| (it.clone(), me));
            let all = known.chain(left).filter(|(_, home)| !own_alone || *home == me);
            let view = |(volume, home): (VolumeKey, NodeId)| {
                let services = state.users_of_volume(&volume).into_iter().cloned().collect();
                (home, VolumeView { node: name(home), services, volume, bytes: None })
            };
            let up = state.nodes.iter().filter(|(_, record)| record.standing == Standing::Up).map(|(node, _)| *node);
            (all.map(view).collect::<Vec<_>>(), up.filter(|node| *node != me).collect::<Vec<_>>())
        };
        let (mut volumes, others) = self.looker().look(views).await?;
        for (_, view) in volumes.iter_mut().filter(|(home, _)| *home == me) {
            view.bytes = files.get(&view.volume).copied().flatten();
        }
        if !own_alone && self.far.is_some() {
            let ask = |client: Client| async move { client.volumes().await };
            for (node, answer) in self.ask_all(others, caller, ask).await {
                for told in answer.unwrap_or_default() {
                    match volumes.iter_mut().find(|(home, view)| *home == node && view.volume == told.volume) {
                        Some((_, view)) => view.bytes = told.bytes,
                        None => volumes.push((node, told)),
                    }
                }
            }
        }
        let mut volumes: Vec<VolumeView> = volumes.into_iter().map(|(_, view)| view).collect();
        volumes.sort_by(|a, b| (&a.volume, &a.node).cmp(&(&b.volume, &b.node)));
        Ok(volumes)
    }

    /// Removes a volume of this node that nobody has.
    pub(crate) async fn discard_volume(&self, volume: VolumeKey) -> Result<(), Problem> {
        if self.done().await?.is_none() {
            self.give_up(&volume).await?;
        }
        let folder = self.data_dir.clone();
        // Looked at where nothing is ordered meanwhile: a star that is given a volume of that name gets an empty one.
        let put_aside = move |node: &Node| match node.state().home_of(&volume) {
            Some(_) => Ok(()),
            // They went when it was asked for first.
            None if !host(&folder, &volume).exists() => Ok(()),
            None => isolate::volumes::put_aside(&host(&folder, &volume), &aside(&folder)).map_err(|error| {
                let message = format!("volume `{volume}` is out of the log, and its files cannot be removed: {error}");
                Problem::new(Code::DataUnwritable, message).help("`rads c volumes delete` tries again")
            }),
        };
        self.looker().look(put_aside).await??;
        sweep(&self.data_dir);
        Ok(())
    }

    /// Takes a volume of this node that nobody has out of the log.
    async fn give_up(&self, volume: &VolumeKey) -> Result<(), Problem> {
        let key = volume.clone();
        let look = move |node: &Node| {
            node.state().check_unused(&key)?;
            match node.state().home_of(&key) {
                Some(home) if home != node.id() => {
                    Err(Problem::new(Code::Conflict, format!("volume `{key}` lies on another node by now")))
                }
                home => Ok(home.is_some()),
            }
        };
        let known = self.looker().look(look).await??;
        if known {
            self.change(Request::DeleteVolume { volume: volume.clone() }).await?;
        } else if host(&self.data_dir, volume).exists() {
            let what = format!("remove what is left of volume `{volume}`");
            self.looker().note_once(self.author(), Deed { verb: Verb::Change, what, outcome: Outcome::Done }).await?;
        } else {
            let problem = Problem::new(Code::NotFound, format!("no volume `{volume}`"));
            return Err(problem.help("`rads c volumes` lists them"));
        }
        Ok(())
    }
}

/// Removes what was put aside, in its own time.
pub(crate) fn sweep(data_dir: &Path) {
    let aside = aside(data_dir);
    if aside.exists() {
        tokio::task::spawn_blocking(move || isolate::volumes::remove_aside(&aside));
    }
}

/// No volume is called so: it is no name.
fn aside(data_dir: &Path) -> PathBuf {
    data_dir.join("volumes").join(".deleted")
}

fn host(data_dir: &Path, volume: &VolumeKey) -> PathBuf {
    data_dir.join("volumes").join(volume.namespace.as_str()).join(volume.name.as_str())
}

/// The volumes whose folders are there, with the bytes they take of the disk.
fn found(data_dir: &Path) -> BTreeMap<VolumeKey, Option<u64>> {
    let names = |folder: &Path| -> Vec<Name> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    let namespaces = names(&data_dir.join("volumes")).into_iter();
    let keys = namespaces.flat_map(|namespace| {
        let names = names(&data_dir.join("volumes").join(namespace.as_str())).into_iter();
        names.map(move |name| VolumeKey { namespace: namespace.clone(), name })
    });
    keys.map(|volume| (volume.clone(), isolate::volumes::bytes(&host(data_dir, &volume)).unwrap_or_default())).collect()
}
