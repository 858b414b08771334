//! The test programs of the workspace, run in two lanes: those that start agents and stars wait most of the time, and beside them
//! there is room for those that compute.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use crate::command::{self, Outcome};

/// Crates whose tests change the machine: namespaces, groups, mounts, processes. No two of their programs run at once.
const OF_THE_MACHINE: [&str; 5] = ["rads", "agent", "isolate", "oci", "proxy"];

/// Crates whose tests run what cargo makes of the crate beside them, and perhaps after them: a program, an example. With its name.
const WITH_PROGRAMS: [(&str, &str); 3] = [("rads", "rads"), ("oci", "rads-oci"), ("rads-std", "run")];

/// Tests of real stars: they wait for minutes, so they are made first and run while the rest is compiled, most of which cargo would
/// compile before them.
const FIRST: [&str; 4] = ["--test", "stars", "--test", "escape"];

/// What cargo made that can be run.
enum Made {
    /// Of tests.
    Tests(Program),
    /// Of these, by package and name: what tests run.
    Other(String, String),
}

/// One program that cargo made of tests.
struct Program {
    /// Of its crate.
    package: String,
    folder: PathBuf,
    /// Of its source, from the crate's folder.
    source: String,
    path: PathBuf,
}

/// Builds them all and runs each as soon as it is there; `args` go to each. A program that fails keeps none of the others
/// from running.
pub(crate) fn run(args: &[&str], env: &[(&str, &str)]) -> Outcome {
    let failed = Mutex::new(Vec::new());
    let built = std::thread::scope(|scope| {
        let [machine, others] = [(); 2].map(|()| {
            let (made, programs) = mpsc::channel::<Program>();
            let failed = &failed;
            scope.spawn(move || programs.into_iter().for_each(|program| program.run(args, env, failed)));
            made
        });
        let (mut waiting, mut there) = (Vec::<Program>::new(), BTreeSet::new());
        let lane = |program: Program| {
            let lane = if OF_THE_MACHINE.contains(&program.package.as_str()) { &machine } else { &others };
            // A lane ends before its programs only by a panic, which is told.
            let _ = lane.send(program);
        };
        // Those that wait run as soon as they can: they mostly wait for time to pass, as nobody else on a busy machine.
        let built = build(|made| match made {
            Made::Tests(program) => match needs(&program) {
                Some(needed) if !there.contains(&needed) => waiting.push(program),
                _ => lane(program),
            },
            Made::Other(package, name) => {
                there.insert((package, name));
                let can_run = |program: &mut Program| needs(program).is_none_or(|needed| there.contains(&needed));
                waiting.extract_if(.., can_run).for_each(lane);
            }
        });
        waiting.into_iter().for_each(lane);
        built
    });
    if built? == 0 {
        return Err("cargo made no test program".to_owned());
    }
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("tests failed in {}", failed.join(", "))),
    }
}

/// What has to be there before a program of tests runs, by package and name.
fn needs(program: &Program) -> Option<(String, String)> {
    let needed = WITH_PROGRAMS.iter().find(|(package, _)| *package == program.package);
    needed.map(|(package, name)| ((*package).to_owned(), (*name).to_owned()))
}

/// Says of each program once that it is there; gives how many there are of tests.
fn build(mut made: impl FnMut(Made)) -> Result<usize, String> {
    let mut there = BTreeSet::new();
    for which in [&FIRST[..], &[]] {
        cargo(which, |new| match &new {
            Made::Tests(program) if !there.insert(program.path.clone()) => {}
            _ => made(new),
        })?;
    }
    Ok(there.len())
}

/// Has cargo make `which` tests, all of them when it is empty. What is compiled yields to tests that run, which look at the time.
fn cargo(which: &[&str], mut made: impl FnMut(Made)) -> Outcome {
    const BUILD: [&str; 4] = ["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
    println!("$ cargo {}", [&BUILD, which].concat().join(" "));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let cannot = |error: std::io::Error| format!("cannot run cargo: {error}");
    let mut building = Command::new("nice")
        .args(["-n", "10", &cargo])
        .args(BUILD)
        .args(which)
        .current_dir(command::root())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    for line in building.stdout.take().into_iter().flat_map(|told| BufReader::new(told).lines()) {
        let message = serde_json::from_str(&line.map_err(cannot)?);
        if let Some(new) = message.ok().as_ref().and_then(executable) {
            made(new);
        }
    }
    let status = building.wait().map_err(cannot)?;
    if status.success() { Ok(()) } else { Err(format!("the tests were not built ({status})")) }
}

/// Of what cargo says it has made, what can be run.
fn executable(message: &serde_json::Value) -> Option<Made> {
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let folder = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let package = folder.file_name()?.to_str()?.to_owned();
    if message["profile"]["test"] != true {
        return Some(Made::Other(package, message["target"]["name"].as_str()?.to_owned()));
    }
    let source = PathBuf::from(message["target"]["src_path"].as_str()?);
    let source = source.strip_prefix(&folder).unwrap_or(&source).display().to_string();
    Some(Made::Tests(Program { package, source, path, folder }))
}

impl Program {
    /// What it prints is shown when it has ended, whole.
    fn run(&self, args: &[&str], env: &[(&str, &str)], failed: &Mutex<Vec<String>>) {
        let name = format!("{}/{}", self.package, self.source);
        let began = Instant::now();
        let outcome = self.output(args, env);
        let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        println!("     Running {name} ({:.1} s)", began.elapsed().as_secs_f64());
        match outcome {
            Ok((said, succeeded)) => {
                println!("{said}");
                if !succeeded {
                    failed.push(name);
                }
            }
            Err(why) => {
                println!("{why}");
                failed.push(name);
            }
        }
    }

    fn output(&self, args: &[&str], env: &[(&str, &str)]) -> Result<(String, bool), String> {
        let said = self.path.with_extension("said");
        let cannot = |error: std::io::Error| format!("cannot run {}: {error}", self.path.display());
        let file = File::create(&said).map_err(cannot)?;
        let status = Command::new(&self.path)
            .args(args)
            .envs(env.iter().copied())
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(cannot)?)
            .stderr(file)
            .status()
            .map_err(cannot)?;
        let text = std::fs::read(&said).map_err(cannot)?;
        let _ = std::fs::remove_file(&said);
        Ok((String::from_utf8_lossy(&text).into_owned(), status.success()))
    }
}
