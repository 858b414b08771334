//! Coverage-guided fuzzing: `cargo xtask fuzz NAME [--minutes N] [--keep]`.
//!
//! What a target found interesting stays in `fuzz/corpus`, outside the repository. `--keep` puts the smallest of it that reach the
//! most into `fuzz/seeds`, from which every later run begins.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::command::{self, Outcome};

/// Of one target, in the repository.
const SEEDS_BYTES: u64 = 20 << 10;
const USAGE: &str = "`cargo xtask fuzz NAME [--minutes N] [--keep]`; `cargo xtask fuzz` lists the names";

pub(crate) fn run(rest: &[&str]) -> Outcome {
    let folder = command::root().join("fuzz");
    let names = targets(&folder)?;
    let Some((name, options)) = rest.split_first() else {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    if !names.iter().any(|known| known == name) {
        return Err(format!("no target `{}`; there are {}", name.escape_debug(), names.join(", ")));
    }
    let (mut minutes, mut keep) = (10_u64, false);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--keep" => keep = true,
            "--minutes" => {
                let number = options.next().and_then(|text| text.parse().ok());
                minutes = number.filter(|minutes| (1..=10_000).contains(minutes)).ok_or(USAGE)?;
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    install()?;
    let (corpus, seeds) = (folder.join("corpus").join(name), folder.join("seeds").join(name));
    for folder in [&corpus, &seeds] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let (corpus_arg, seeds_arg) = (format!("corpus/{name}"), format!("seeds/{name}"));
    let time = format!("-max_total_time={}", minutes * 60);
    let limits = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"];
    let run = ["+nightly", "fuzz", "run", name, &corpus_arg, &seeds_arg, "--", &time];
    command::run_in(&folder, "cargo", &[&run[..], &limits[..]].concat())?;
    if keep { keep_smallest(&folder, name) } else { Ok(()) }
}

fn targets(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder.join("fuzz_targets")).map_err(|error| format!("fuzz/fuzz_targets: {error}"))?;
    let names = entries.flatten().filter_map(|entry| entry.path().file_stem()?.to_str().map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

fn install() -> Outcome {
    let quiet = |args: &[&str]| {
        let status = Command::new("cargo").args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !quiet(&["+nightly", "--version"]) {
        return Err("fuzzing needs a nightly toolchain: `rustup toolchain install nightly`".to_owned());
    }
    match quiet(&["fuzz", "--version"]) {
        true => Ok(()),
        false => command::run_in(&command::root(), "cargo", &["install", "--locked", "cargo-fuzz"]),
    }
}

/// Puts as much of the corpus into the repository as there is room for: what reaches something that nothing smaller does.
fn keep_smallest(folder: &Path, name: &str) -> Outcome {
    let (merged, seeds) = (folder.join("corpus").join(format!("{name}.merged")), folder.join("seeds").join(name));
    let failed = |error: std::io::Error| format!("cannot keep the seeds of `{name}`: {error}");
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged).map_err(failed)?;
    let (to, from, old) = (format!("corpus/{name}.merged"), format!("corpus/{name}"), format!("seeds/{name}"));
    command::run_in(folder, "cargo", &["+nightly", "fuzz", "run", name, &to, &from, &old, "--", "-merge=1"])?;
    let mut files: Vec<(u64, std::path::PathBuf)> = Vec::new();
    for entry in fs::read_dir(&merged).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        files.push((entry.metadata().map_err(failed)?.len(), entry.path()));
    }
    files.sort();
    fs::remove_dir_all(&seeds).and_then(|()| fs::create_dir_all(&seeds)).map_err(failed)?;
    let (mut total, all) = (0, files.len());
    let mut kept = 0;
    for (size, path) in files {
        total += size;
        if total > SEEDS_BYTES {
            break;
        }
        fs::copy(&path, seeds.join(format!("{kept:03}"))).map_err(failed)?;
        kept += 1;
    }
    fs::remove_dir_all(&merged).map_err(failed)?;
    println!("{kept} of {all} inputs are in {}", seeds.display());
    Ok(())
}
