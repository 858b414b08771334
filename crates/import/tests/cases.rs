//! Each folder of `cases` is an input beside what becomes of it: `app.rads` and `report.txt`; other files lie beside the input for
//! it to name. `cargo xtask golden` rewrites them. Every app is evaluated, as `rads up` does, on files of which all exist.
// Tests read their cases from files, which the crate itself never does.
#![allow(clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::evaluated;
use import::{Beside, File, Format, Imported, Nothing, Source, import};

struct Folder(PathBuf);

impl Beside for Folder {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.0.join(path)).ok()
    }
}

/// A case: the folder's name begins with the format; the input files' names with `in`, what was inspected is `images.json`.
fn case(folder: &Path) -> (Format, Vec<File>, Option<File>) {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let format = Format::ALL.into_iter().find(|format| name.starts_with(format.as_str())).unwrap();
    let file = |path: &Path, shown: String| File { name: shown, bytes: fs::read(path).unwrap() };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let shown = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(own) = shown.strip_prefix("in.") {
            files.push(file(&path, own.replace("__", "/")));
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let images = folder.join("images.json");
    let images = images.exists().then(|| file(&images, "images.json".to_owned()));
    (format, files, images)
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn imported(folder: &Path) -> Imported {
    let (format, files, images) = case(folder);
    let beside = Folder(folder.to_owned());
    import(&Source { format, files: &files, beside: &beside, images: images.as_ref() }).unwrap()
}

#[test]
fn every_case_comes_out_as_recorded() {
    let mut wrong = String::new();
    for folder in folders() {
        let first = imported(&folder);
        assert_eq!(first, imported(&folder), "{} is not the same twice", folder.display());
        let mut report: String = first.report.iter().map(|line| format!("{line}\n")).collect();
        for (path, bytes) in &first.files {
            report.push_str(&format!("\n--- {path}\n{}", String::from_utf8_lossy(bytes)));
        }
        for (name, actual) in [("app.rads", &first.app), ("report.txt", &report)] {
            let recorded = folder.join(name);
            if fs::read_to_string(&recorded).unwrap_or_default() == *actual {
                continue;
            }
            match std::env::var_os("RADS_GOLDEN") {
                Some(_) => fs::write(&recorded, actual).unwrap(),
                None => wrong.push_str(&format!("--- {}\n{actual}", recorded.display())),
            }
        }
    }
    assert!(folders().len() >= 12, "the cases are missing");
    assert!(wrong.is_empty(), "differ from what is recorded:\n{wrong}");
}

#[test]
fn every_app_can_be_deployed() {
    for folder in folders() {
        let Imported { app, services, .. } = imported(&folder);
        let parsed = rads_syntax::parse(&app);
        assert!(parsed.diagnostics.is_empty(), "{}: {:?}\n{app}", folder.display(), parsed.diagnostics);
        if services == 0 {
            continue;
        }
        match evaluated(&app) {
            Ok(spec) => assert_eq!(spec.services.len(), services, "{}", folder.display()),
            Err(faults) => panic!("{}: {faults}\n{app}", folder.display()),
        }
    }
}

#[test]
fn every_value_of_every_case_is_told_in_one_line() {
    for folder in folders() {
        let Imported { report, values, .. } = imported(&folder);
        let told: usize = report.iter().map(|line| line.values).sum();
        assert_eq!(told, values, "{}", folder.display());
        // What is not known at all is for things nobody wrote down; the cases have none but where they mean to.
        let unknown = report.iter().filter(|line| line.text == "not known here");
        let unknown: Vec<String> =
            unknown.map(ToString::to_string).filter(|line| !line.to_lowercase().contains("unheard")).collect();
        assert!(unknown.is_empty(), "{}: {unknown:#?}", folder.display());
    }
}

#[test]
fn no_secret_is_in_what_comes_out() {
    for folder in folders() {
        let Imported { app, files, report, .. } = imported(&folder);
        let everything = format!("{app}{files:?}{report:?}");
        // The values of secrets in the cases all hold this word, plain or in Base64.
        for hidden in ["swordfish", "c3dvcmRmaXNo"] {
            assert!(!everything.contains(hidden), "{}", folder.display());
        }
    }
}

#[test]
fn a_part_of_a_case_comes_out_whole_or_is_refused() {
    /// A prime: cuts fall on every kind of place.
    const STEP: usize = 97;
    for folder in folders() {
        let (format, files, _) = case(&folder);
        for (at, file) in files.iter().enumerate() {
            for end in (0..file.bytes.len()).step_by(STEP) {
                let mut files = files.clone();
                files[at].bytes.truncate(end);
                let Ok(imported) = import(&Source { format, files: &files, beside: &Nothing, images: None }) else {
                    continue;
                };
                let told: usize = imported.report.iter().map(|line| line.values).sum();
                assert_eq!(told, imported.values, "{} to byte {end}", file.name);
                if imported.services > 0
                    && let Err(faults) = evaluated(&imported.app)
                {
                    panic!("{} to byte {end}: {faults}", file.name);
                }
            }
        }
    }
}
