//! What the compiler does not check: which crate may know which, what pure means, where `unsafe` lives, and
//! that every file says what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{self, Outcome};

/// Rings from the inside out. A crate may know crates of its own ring or of one further in, except that
/// effect crates do not know each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ring {
    Words,
    Pure,
    Effects,
    /// `api` and `agent`: they join effects, each other's only as `agent` → `api`.
    Joins,
    Programs,
}

/// Every crate's ring. A new crate fails `tidy` until it is given one.
const RINGS: &[(&str, Ring)] = &[
    ("model", Ring::Words),
    ("rnp", Ring::Words),
    ("base2histogram", Ring::Words),
    ("state", Ring::Pure),
    ("rollout", Ring::Pure),
    ("calendar", Ring::Pure),
    ("scheduler", Ring::Pure),
    ("balancer", Ring::Pure),
    ("membership", Ring::Pure),
    ("rads-syntax", Ring::Pure),
    ("rads-vm", Ring::Pure),
    ("rads-compile", Ring::Pure),
    ("deploy", Ring::Pure),
    ("import", Ring::Pure),
    ("node", Ring::Pure),
    ("isolate", Ring::Effects),
    ("store", Ring::Effects),
    ("net", Ring::Effects),
    ("consensus", Ring::Effects),
    ("consensus-sim", Ring::Effects),
    ("proxy", Ring::Effects),
    ("rads-std", Ring::Effects),
    ("api", Ring::Joins),
    ("agent", Ring::Joins),
    ("rads", Ring::Programs),
    ("oci", Ring::Programs),
    ("bench", Ring::Programs),
    ("sim", Ring::Programs),
    ("xtask", Ring::Programs),
];

/// The only crate that may hold `unsafe`.
const UNSAFE_HOME: &str = "isolate";

/// Longest source file before it must be split or be listed in `LONG_FILES` with its reason.
const FILE_LINES_MAX: usize = 900;

/// Files that are one long table or one loop, and read better whole.
const LONG_FILES: [&str; 0] = [];

pub(crate) fn run() -> Outcome {
    let mut faults = Vec::new();
    let rings: BTreeMap<&str, Ring> = RINGS.iter().copied().collect();
    let mut without_doctests = BTreeSet::new();
    let metadata = command::output("cargo", &["metadata", "--format-version", "1", "--no-deps"])?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        check_arrows(package, &rings, &mut faults);
        if !runs_doctests(package) {
            without_doctests.extend(package["name"].as_str());
        }
    }
    check_pure_lists_agree(&rings, &mut faults)?;
    for (name, ring) in &rings {
        let folder = command::root().join("crates").join(name);
        for file in rust_files(&folder.join("src"))? {
            let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            check_file(name, *ring, &file, &text, &mut faults);
            if without_doctests.contains(name) && has_example(&text) {
                faults.push(format!(
                    "{}: has an example that nothing runs: take `doctest = false` out of {name}",
                    file.display()
                ));
            }
        }
    }
    if faults.is_empty() {
        println!("tidy: {} crates in order", rings.len());
        return Ok(());
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    Err(format!("{} loose ends", faults.len()))
}

/// Asking a crate that has no examples for them takes seconds, so most crates say that they have none.
fn runs_doctests(package: &serde_json::Value) -> bool {
    let targets = package["targets"].as_array().into_iter().flatten();
    targets.into_iter().any(|target| target["doctest"].as_bool() == Some(true))
}

/// Whether the documentation in a file has an example in Rust: a fence without a word, or with one that rustdoc runs.
fn has_example(text: &str) -> bool {
    let docs = text.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("//!").or_else(|| line.strip_prefix("///"))
    });
    let opened = docs.filter_map(|doc| doc.trim_start().strip_prefix("```")).step_by(2);
    let run = ["rust", "should_panic", "no_run", "compile_fail"];
    opened.into_iter().any(|word| word.is_empty() || run.iter().any(|tag| word.starts_with(tag)))
}

fn check_arrows(package: &serde_json::Value, rings: &BTreeMap<&str, Ring>, faults: &mut Vec<String>) {
    let name = package["name"].as_str().unwrap_or_default();
    let Some(&ring) = rings.get(name) else {
        faults.push(format!("crate `{name}` has no ring: add it to RINGS in crates/xtask/src/tidy.rs"));
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        // Tests may look further out than the crate itself.
        let is_dev = dependency["kind"].as_str() == Some("dev");
        let Some((target, &target_ring)) = dependency["name"].as_str().and_then(|d| rings.get_key_value(d)) else {
            continue;
        };
        let between_effects = ring == Ring::Effects && target_ring == Ring::Effects;
        if !is_dev && (target_ring > ring || between_effects) {
            faults.push(format!("`{name}` ({ring:?}) must not know `{target}` ({target_ring:?})"));
        }
    }
}

/// The lists of what a pure crate may not touch are one list, repeated because a crate-local clippy.toml
/// replaces the root's.
fn check_pure_lists_agree(rings: &BTreeMap<&str, Ring>, faults: &mut Vec<String>) -> Outcome {
    let list = |name: &str| {
        let path = command::root().join("crates").join(name).join("clippy.toml");
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let expected = list("model")?;
    for (name, _) in rings.iter().filter(|(_, ring)| **ring <= Ring::Pure) {
        if list(name)? != expected {
            faults.push(format!("crates/{name}/clippy.toml differs from crates/model/clippy.toml"));
        }
    }
    Ok(())
}

fn check_file(name: &str, ring: Ring, file: &Path, text: &str, faults: &mut Vec<String>) {
    let path = file.strip_prefix(command::root()).unwrap_or(file).display().to_string();
    if !text.starts_with("//!") {
        faults.push(format!("{path}: does not say what it is (`//!` on its first line)"));
    }
    let is_root = ["lib.rs", "main.rs"].iter().any(|root| file.ends_with(Path::new("src").join(root)));
    if is_root && name != UNSAFE_HOME && !text.contains("#![forbid(unsafe_code)]") {
        faults.push(format!("{path}: lacks `#![forbid(unsafe_code)]`"));
    }
    if ring <= Ring::Pure && text.contains("allow(clippy::disallowed") {
        faults.push(format!("{path}: a pure crate allows itself what its clippy.toml forbids"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !LONG_FILES.contains(&path.as_str()) {
        faults.push(format!("{path}: {lines} lines; one idea a file, at most {FILE_LINES_MAX}"));
    }
    for (number, line) in text.lines().enumerate() {
        // Split so that this file does not report itself.
        for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimple", "mented!("), concat!("dbg", "!(")] {
            if line.contains(mark) {
                faults.push(format!("{path}:{}: loose end `{mark}`", number + 1));
            }
        }
    }
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_that_would_be_run_is_seen() {
        assert!(has_example("//! Words.\n//!\n//! ```\n//! let one = 1;\n//! ```\n"));
        assert!(has_example("//! ```text\n//! a b\n//! ```\nfn f() {}\n    /// ```no_run\n    /// ```\n"));
        assert!(!has_example("//! ```text\n//! a b\n//! ```\nfn f() {}\n"));
        assert!(!has_example("fn f() {\n    // ```\n}\n"));
    }
}
