//! Descriptions that others wrote, from the folder that `RADS_REAL` names, with a folder for each format (`compose`, `crontab`, …):
//! none panics, every value of each is in one line, and its app can be deployed. Says how much of each kind is carried. A unit comes
//! with the timer that has its name.
// It reads a folder that its caller names, which the crate itself never does.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use import::{Beside, File, Format, Source, Verdict, import};

struct Folder(PathBuf);

impl Beside for Folder {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        // What a description names by a whole path is not ours.
        (!path.starts_with('/')).then(|| fs::read(self.0.join(path)).ok()).flatten()
    }
}

#[derive(Default)]
struct Count {
    inputs: usize,
    refused: usize,
    services: usize,
    jobs: usize,
    left: usize,
    carried: usize,
    changed: usize,
    not_carried: usize,
    unknown: usize,
    accepted: usize,
}

/// Inputs: files that belong together.
fn inputs(format: Format, folder: &Path) -> BTreeMap<String, Vec<File>> {
    let mut inputs: BTreeMap<String, Vec<File>> = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let of = match format {
            Format::Systemd => name
                .rsplit_once('.')
                .filter(|(_, kind)| *kind == "timer")
                .map_or(name.clone(), |(stem, _)| format!("{stem}.service")),
            _ => name.clone(),
        };
        inputs.entry(of).or_default().push(File { name, bytes: fs::read(&path).unwrap() });
    }
    inputs
}

#[test]
#[ignore = "needs a folder of descriptions that others wrote: RADS_REAL=FOLDER cargo test -p import --test real -- --ignored --nocapture"]
fn what_others_wrote_is_told_whole_and_can_be_deployed() {
    let Some(real) = std::env::var_os("RADS_REAL") else { return println!("skipped: `RADS_REAL` names no folder") };
    let mut faults = Vec::new();
    println!(
        "{:<11} inputs refused services jobs left-jobs  values carried changed not-carried unknown accepted",
        "format"
    );
    for format in Format::ALL {
        let folder = Path::new(&real).join(format.as_str());
        if !folder.is_dir() {
            continue;
        }
        let mut count = Count::default();
        for (name, files) in inputs(format, &folder) {
            let shown = format!("{}/{name}", format.as_str());
            count.inputs += 1;
            let imported =
                match import(&Source { format, files: &files, beside: &Folder(folder.clone()), images: None }) {
                    Ok(imported) => imported,
                    Err(problem) => {
                        println!("refused: {shown}: {}", problem.message);
                        count.refused += 1;
                        continue;
                    }
                };
            let values = |verdict| {
                imported.report.iter().filter(|line| line.verdict == verdict).map(|line| line.values).sum::<usize>()
            };
            let (carried, changed, not_carried) =
                (values(Verdict::Carried), values(Verdict::Changed), values(Verdict::NotCarried));
            if carried + changed + not_carried != imported.values {
                faults.push(format!(
                    "{shown}: {} of {} values are told",
                    carried + changed + not_carried,
                    imported.values
                ));
            }
            for line in imported.report.iter().filter(|line| line.text == "not known here") {
                println!("unknown: {line}");
                count.unknown += line.values;
            }
            if std::env::var_os("RADS_REAL_SHOW").is_some_and(|wanted| shown.contains(&*wanted.to_string_lossy())) {
                println!("=== {shown}\n{}", imported.app);
                imported.report.iter().for_each(|line| println!("{line}"));
            }
            count.services += imported.services;
            count.jobs += imported.jobs;
            count.left += imported.left.len();
            (count.carried, count.changed) = (count.carried + carried, count.changed + changed);
            count.not_carried += not_carried;
            if imported.services == 0 {
                continue;
            }
            match common::evaluated(&imported.app) {
                Ok(spec) if spec.services.len() == imported.services => count.accepted += 1,
                Ok(spec) => faults.push(format!("{shown}: {} services of {}", spec.services.len(), imported.services)),
                Err(why) => faults.push(format!("{shown}: {why}\n{}", imported.app)),
            }
        }
        let Count { inputs, refused, services, jobs, left, carried, changed, not_carried, unknown, accepted } = count;
        println!(
            "{:<11} {inputs:>6} {refused:>7} {services:>8} {jobs:>4} {left:>9} {:>7} {carried:>7} {changed:>7} {not_carried:>11} {unknown:>7} {accepted:>8}",
            format.as_str(),
            carried + changed + not_carried,
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
