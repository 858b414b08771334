//! Coverage-guided fuzzing: `cargo xtask fuzz NAME|all [--minutes N] [--keep]`.
//!
//! What a target found interesting stays in `fuzz/corpus`, outside the repository, what ended it in `fuzz/artifacts`. `--keep` puts
//! the smallest inputs that together reach the most into `fuzz/seeds`, from which every later run begins, beside the golden files of the
//! crates.

mod golden;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{self, Outcome};

/// Of one target, in the repository.
const SEEDS_BYTES: u64 = 20 << 10;
const SEEDS_MAX: usize = 80;
/// What no input takes, by far; by the wall's clock.
const INPUT_SECONDS_MAX: u64 = 20;
const USAGE: &str = "`cargo xtask fuzz NAME|all [--minutes N] [--keep]`; `cargo xtask fuzz` lists the names";

pub(crate) fn run(rest: &[&str]) -> Outcome {
    let folder = command::root().join("fuzz");
    let names = targets(&folder)?;
    let Some((name, options)) = rest.split_first() else {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    let wanted: Vec<&String> = names.iter().filter(|known| known == name || *name == "all").collect();
    if wanted.is_empty() {
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
    let (mut table, mut failed) = (Vec::new(), Vec::new());
    for name in wanted {
        let target = Target::new(&folder, name)?;
        let (reached, outcome) = target.run(Duration::from_secs(minutes * 60))?;
        table.push(reached.line(name, outcome.is_ok()));
        match outcome {
            Ok(()) if keep => keep_smallest(&folder, name)?,
            Ok(()) => {}
            Err(why) => failed.push(why),
        }
    }
    println!("{:<12} {:>12} {:>8} {:>8} {:>8} {:>8}", "target", "executions", "cov", "ft", "inputs", "seconds");
    table.iter().for_each(|line| println!("{line}"));
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn targets(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder.join("fuzz_targets")).map_err(|error| format!("fuzz/fuzz_targets: {error}"))?;
    let names = entries.flatten().filter_map(|entry| entry.path().file_stem()?.to_str().map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// Installs what is missing: a nightly toolchain, for the sanitizer, and `cargo-fuzz`.
fn install() -> Outcome {
    let quiet = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !quiet("cargo", &["+nightly", "--version"]) {
        let asked = ["toolchain", "install", "nightly", "--profile", "minimal"];
        command::run_in(&command::root(), "rustup", &asked)
            .map_err(|error| format!("fuzzing needs a nightly toolchain: {error}"))?;
    }
    match quiet("cargo", &["fuzz", "--version"]) {
        true => Ok(()),
        false => command::run_in(&command::root(), "cargo", &["install", "--locked", "cargo-fuzz"]),
    }
}

struct Target<'a> {
    folder: &'a Path,
    name: &'a str,
}

/// How far a run came, by what libFuzzer says of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reached {
    executions: u64,
    /// Edges of the program, and edges by how often they are taken.
    edges: u64,
    features: u64,
    inputs: u64,
    seconds: u64,
}

impl Reached {
    /// Takes in a line like `#4711 NEW cov: 815 ft: 2342 corp: 99/12Kb …`.
    fn read(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let Some(executions) = words.next().and_then(|word| word.strip_prefix('#')?.parse().ok()) else { return };
        self.executions = executions;
        while let Some(word) = words.next() {
            let place = match word {
                "cov:" => &mut self.edges,
                "ft:" => &mut self.features,
                "corp:" => &mut self.inputs,
                _ => continue,
            };
            let number = words.next().and_then(|word| word.split('/').next()?.parse().ok());
            *place = number.unwrap_or(*place);
        }
    }

    fn line(&self, name: &str, is_well: bool) -> String {
        let Self { executions, edges, features, inputs, seconds } = self;
        let failed = if is_well { "" } else { " FAILED" };
        format!("{name:<12} {executions:>12} {edges:>8} {features:>8} {inputs:>8} {seconds:>8}{failed}")
    }
}

impl<'a> Target<'a> {
    /// With its folders, and first inputs in them.
    fn new(folder: &'a Path, name: &'a str) -> Result<Self, String> {
        let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        for part in ["corpus", "seeds"] {
            let path = folder.join(part).join(name);
            fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
        for (at, input) in golden::inputs(&command::root(), name)?.iter().enumerate() {
            let path = folder.join("corpus").join(name).join(format!("golden-{at:03}"));
            fs::write(&path, input).map_err(|error| failed(&path, error))?;
        }
        Ok(Self { folder, name })
    }

    /// Runs it for so long, or until an input ends it.
    fn run(&self, length: Duration) -> Result<(Reached, Outcome), String> {
        let (mut sum, begun) = (Reached::default(), Instant::now());
        loop {
            let left = length.saturating_sub(begun.elapsed());
            let slow = self.slow()?;
            let (reached, outcome) = self.run_once(left.max(Duration::from_secs(1)))?;
            let executions = sum.executions + reached.executions;
            sum = Reached { executions, seconds: begun.elapsed().as_secs(), ..reached };
            // A machine that had other things to do makes an input slow, too.
            let fresh: Vec<PathBuf> = self.slow()?.into_iter().filter(|path| !slow.contains(path)).collect();
            match (outcome, &fresh[..]) {
                (Err(_), [path]) if self.is_quick(path) => {
                    println!("`{}` is no slow input: it went on", path.display());
                    fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
                }
                (outcome, _) => return Ok((sum, outcome)),
            }
        }
    }

    fn run_once(&self, length: Duration) -> Result<(Reached, Outcome), String> {
        let (corpus, seeds) = (format!("corpus/{}", self.name), format!("seeds/{}", self.name));
        let time = format!("-max_total_time={}", length.as_secs());
        let slow = format!("-timeout={INPUT_SECONDS_MAX}");
        let limits = ["-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"];
        let run = ["+nightly", "fuzz", "run", self.name, &corpus, &seeds, "--", &time, &slow];
        let mut command = Command::new("cargo");
        command.args(run).args(limits).current_dir(self.folder).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot run `cargo`: {error}"))?;
        let mut reached = Reached::default();
        let said = child.stderr.take().into_iter().flat_map(|said| BufReader::new(said).split(b'\n'));
        for line in said.map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            eprintln!("{line}");
            reached.read(&line);
        }
        let status = child.wait().map_err(|error| format!("cannot wait for `cargo`: {error}"))?;
        let outcome = match status.success() {
            true => Ok(()),
            false => Err(format!("target `{}` failed ({status}): see above, and `fuzz/artifacts/{0}`", self.name)),
        };
        Ok((reached, outcome))
    }

    /// Inputs that took too long.
    fn slow(&self) -> Result<Vec<PathBuf>, String> {
        let folder = self.folder.join("artifacts").join(self.name);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(format!("{}: {error}", folder.display())),
        };
        let is_slow =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("timeout-"));
        Ok(entries.flatten().map(|entry| entry.path()).filter(is_slow).collect())
    }

    /// Whether an input takes its time only when other things do, too.
    fn is_quick(&self, input: &Path) -> bool {
        let (input, slow) = (input.display().to_string(), format!("-timeout={INPUT_SECONDS_MAX}"));
        let run = ["+nightly", "fuzz", "run", self.name, &input, "--", &slow, "-runs=1"];
        (0..2).all(|_| command::run_in(self.folder, "cargo", &run).is_ok())
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
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
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
        if total > SEEDS_BYTES || kept == SEEDS_MAX {
            break;
        }
        fs::copy(&path, seeds.join(format!("{kept:03}"))).map_err(failed)?;
        kept += 1;
    }
    fs::remove_dir_all(&merged).map_err(failed)?;
    println!("{kept} of {all} inputs are in {}", seeds.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_run_came_is_read_from_what_it_says() {
        let mut reached = Reached::default();
        for line in [
            "INFO: seed corpus: files: 52 min: 2b max: 13000b total: 40000b rss: 60Mb",
            "#53	INITED cov: 815 ft: 2342 corp: 41/12Kb exec/s: 0 rss: 70Mb",
            "#4711	REDUCE cov: 816 ft: 2344 corp: 42/12Kb lim: 99 exec/s: 10 rss: 70Mb L: 7/99 MS: 1 EraseBytes-",
            "Done 4711 runs in 601 second(s)",
        ] {
            reached.read(line);
        }
        let expected = Reached { executions: 4711, edges: 816, features: 2344, inputs: 42, seconds: 0 };
        assert_eq!(reached, expected);
    }
}
