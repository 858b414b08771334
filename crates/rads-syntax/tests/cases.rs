//! Each `cases/NAME.rads` gives the tree in `NAME.tree` and the diagnostics in `NAME.errors` (absent when there are
//! none). `cargo xtask golden` rewrites both.
// Tests read their cases from files, which the crate itself never does.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::Path;

#[test]
fn every_case_reads_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut scripts: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rads"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 10, "the cases are missing");
    let mut wrong = Vec::new();
    for script in scripts {
        let source = fs::read_to_string(&script).unwrap();
        let parse = rads_syntax::parse(&source);
        let name = script.file_name().unwrap().to_string_lossy().into_owned();
        let errors: Vec<String> =
            parse.diagnostics.iter().map(|d| rads_syntax::render(d, &name, &source, false) + "\n").collect();
        wrong.extend(differs(&script.with_extension("tree"), &rads_syntax::dump(&parse.file)));
        wrong.extend(differs(&script.with_extension("errors"), &errors.join("\n")));
    }
    assert!(wrong.is_empty(), "differ from what is recorded:\n{}", wrong.join("\n"));
}

/// An empty text has no file.
fn differs(path: &Path, actual: &str) -> Option<String> {
    let recorded = fs::read_to_string(path).unwrap_or_default();
    if recorded == actual {
        return None;
    }
    if std::env::var_os("RADS_GOLDEN").is_none() {
        return Some(format!("--- {}\n{actual}", path.display()));
    }
    if actual.is_empty() {
        fs::remove_file(path).unwrap();
    } else {
        fs::write(path, actual).unwrap();
    }
    None
}
