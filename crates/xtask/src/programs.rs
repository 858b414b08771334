//! The test programs of the workspace, run in two lanes: those that start agents and stars wait most of the time, and beside them
//! there is room for those that compute.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use crate::command::{self, Outcome};

/// Crates whose tests change the machine: namespaces, groups, mounts, processes. No two of their programs run at once.
const OF_THE_MACHINE: [&str; 5] = ["rads", "agent", "isolate", "oci", "proxy"];

/// One program that cargo made of tests.
struct Program {
    /// Of its crate.
    package: String,
    folder: PathBuf,
    /// Of its source, from the crate's folder.
    source: String,
    path: PathBuf,
}

/// Builds them all and runs them; `args` go to each. A program that fails keeps none of the others from running.
pub(crate) fn run(args: &[&str], env: &[(&str, &str)]) -> Outcome {
    let all = build()?;
    if all.is_empty() {
        return Err("cargo made no test program".to_owned());
    }
    let (machine, others): (VecDeque<Program>, VecDeque<Program>) =
        all.into_iter().partition(|program| OF_THE_MACHINE.contains(&program.package.as_str()));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for lane in [machine, others] {
            scope.spawn(|| lane.into_iter().for_each(|program| program.run(args, env, &failed)));
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("tests failed in {}", failed.join(", "))),
    }
}

fn build() -> Result<Vec<Program>, String> {
    const BUILD: [&str; 4] = ["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
    println!("$ cargo {}", BUILD.join(" "));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let told = command::output(&cargo, &BUILD)?;
    let messages = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(messages.filter_map(|message| program(&message)).collect())
}

/// Of what cargo says it has made, what is a program of tests.
fn program(message: &serde_json::Value) -> Option<Program> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let folder = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let source = PathBuf::from(message["target"]["src_path"].as_str()?);
    Some(Program {
        package: folder.file_name()?.to_str()?.to_owned(),
        source: source.strip_prefix(&folder).unwrap_or(&source).display().to_string(),
        path: message["executable"].as_str()?.into(),
        folder,
    })
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
