//! What goes together in a service, brought into order once everything is known.

use model::interior::TMPFS_MIN;
use model::{Limits, Update};

use super::service::{Asked, Probe, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::report::Verdict;
use crate::text::Text;

impl Service {
    /// Brings what goes together into order, once everything is known.
    pub(crate) fn finish(&mut self, ledger: &mut Ledger) {
        for (path, (name, size)) in self.volumes.clone() {
            // One volume has one size wherever it is seen.
            let largest = self.volumes.values().filter(|(other, _)| *other == name).filter_map(|(_, size)| *size).max();
            if largest != size {
                self.volumes.insert(path, (name, largest));
            }
        }
        if self.port.is_none() {
            (self.listen, self.http) = (None, false);
            for probe in [&mut self.startup, &mut self.ready, &mut self.live] {
                if probe.as_ref().is_some_and(|probe| !matches!(probe.asked, Asked::Exec(_))) {
                    *probe = None;
                }
            }
        }
        if self.singleton && self.instances.is_some_and(|count| count > 1) {
            self.singleton = false;
        }
        self.settle_job();
        self.settle_update(ledger);
        self.settle_reserve(ledger);
        let memory = self.ram.or(Limits::DEFAULT.memory.map(|memory| memory.0)).unwrap_or(u64::MAX);
        if self.ram_soft.is_some_and(|soft| soft > memory) {
            match self.ram {
                Some(ram) => self.ram_soft = Some(ram),
                // A soft limit alone says how much it takes: the hard one is above it.
                None => self.ram = self.ram_soft.map(|soft| soft.saturating_mul(2).min(1 << 44)),
            }
        }
        let memory = self.ram.or(Limits::DEFAULT.memory.map(|memory| memory.0)).unwrap_or(u64::MAX);
        let in_memory: u64 = self.tmpfs.values().fold(0, |sum, size| sum.saturating_add(*size));
        if in_memory > memory / 2 && self.tmpfs.len() as u64 * TMPFS_MIN.0 <= memory / 2 {
            let share = (memory / 2 / self.tmpfs.len() as u64).max(TMPFS_MIN.0);
            self.tmpfs.values_mut().for_each(|size| *size = (*size).min(share));
            let text =
                format!("memory file systems of `{}` are smaller: what they hold counts as its memory", self.name);
            ledger.note(Verdict::Changed, &self.node, text);
        } else if in_memory > memory {
            self.tmpfs.clear();
            let text = format!("memory file systems of `{}` are left out: they do not fit its memory", self.name);
            ledger.note(Verdict::NotCarried, &self.node, text);
        }
        for probe in [&mut self.startup, &mut self.ready, &mut self.live] {
            *probe = probe.take().map(Probe::bounded);
            if let Some(Probe { asked: Asked::Exec(words), .. }) = probe {
                anchor(words, self.rootfs.is_some(), self.workdir.as_deref());
            }
        }
        if crate::env::holds_secret(&self.command) {
            let text =
                format!("the command of `{}` holds what looks like a secret: who reads the app reads it", self.name);
            let help = "give it by a file (`secrets`) or a variable (`env_secrets`), if the program can read one";
            ledger.note(Verdict::Changed, &self.node, text.help(help));
        }
        for words in [&mut self.command, &mut self.before_start, &mut self.before_stop] {
            anchor(words, self.rootfs.is_some(), self.workdir.as_deref());
        }
    }

    /// Parts of a job are tried again by its retries, and are as many as it says.
    fn settle_job(&mut self) {
        let Some(job) = &mut self.job else { return };
        (self.restart, self.instances, self.singleton) = (None, None, false);
        self.update = Update::default();
        // A job goes by a clock or by others, and the clock says more.
        if job.schedule.is_some() {
            job.after.clear();
        }
        let parts = job.completions.unwrap_or(1);
        job.parallelism = job.parallelism.filter(|at_a_time| *at_a_time < parts);
    }

    fn settle_update(&mut self, ledger: &mut Ledger) {
        if let Err(problem) = self.update.check(self.singleton) {
            self.update = Update::default();
            let text = format!("`{}` is replaced as services are by default: {}", self.name, problem.message);
            ledger.note(Verdict::Changed, &self.node, text);
        }
    }

    /// No more is kept for a star than it may use.
    fn settle_reserve(&mut self, ledger: &mut Ledger) {
        if let (Some(kept), Some(limit)) = (self.reserve_cpu, self.cpu_milli) {
            self.reserve_cpu = Some(kept.min(limit));
        }
        let Some(kept) = self.reserve_ram else { return };
        match self.ram {
            Some(limit) => self.reserve_ram = Some(kept.min(limit)),
            None if kept > Limits::DEFAULT.memory.map_or(u64::MAX, |memory| memory.0) => {
                self.ram = Some(kept);
                let text = format!("ram_mb of `{}` is what is kept for it, as a star has a limit", self.name);
                ledger.note(Verdict::Changed, &self.node, text.help("give it more, if it takes more now and then"));
            }
            None => {}
        }
    }
}

/// A program that is named by a relative path is in the app's folder for a star; in an image it is below the folder it starts in.
fn anchor(words: &mut [Text], in_image: bool, workdir: Option<&str>) {
    for word in &mut *words {
        if word.by_default().contains('\0') {
            *word = word.by_default().replace('\0', "").into();
        }
    }
    let Some(first) = words.first_mut() else { return };
    let program = first.by_default();
    if !program.contains('/') || program.starts_with('/') {
        if program.is_empty() {
            *first = "true".into();
        }
        return;
    }
    let program = super::places::normal(&program);
    *first = match in_image {
        true => super::places::normal(&format!("{}/{program}", workdir.unwrap_or("/"))).into(),
        // What climbs out of the app's folder is in no bundle; no star finds it there.
        false if !model::bundle::is_bundle_path(&program) => format!("/{program}").into(),
        false if program.contains('/') => program.into(),
        false => format!("./{program}").into(),
    };
}
