//! Each `cases/NAME.rads` is an `app.rads`; `NAME.out` is what comes of it: the plan against nothing, or the faults.
//! `cargo xtask golden` rewrites them. The app's other files are made up here.
// Tests read their cases from files, which the crate itself never does.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use deploy::{
    Entry, EntryKind, Evaluated, Fault, Files, Setting, Source, diff, evaluate, service_of_program, single_service,
};
use model::{AppKey, AppSpec};
use rads_vm::{NativeBody, Natives, Params, core_natives};

/// Files in memory. Folders are what paths have in common; `link` is a symbolic link.
struct Memory(BTreeMap<String, Vec<u8>>);

impl Memory {
    fn with(app: &str) -> Self {
        let files = [
            ("app.rads", app),
            (
                "server.rads",
                "import \"lib/util.rads\";\nturbo s = net.http_server(\"127.0.0.1\", 8080);\necho(helper());\n",
            ),
            ("lib/util.rads", "export blast helper() { return io.read_file(\"x\"); }\n"),
            ("faulty.rads", "turbo = 1;\necho(unknown_name);\n"),
            ("static/style.css", "p { }"),
            ("static/deep/a.txt", "a"),
            ("bin/server", "#!/bin/sh\n"),
            ("link", ""),
            ("root/bin/sh", "an interpreter"),
            ("root/link", "bin/sh"),
        ];
        Self(files.into_iter().map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).collect())
    }
}

impl Files for Memory {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).cloned().ok_or_else(|| "no such file".to_owned())
    }

    fn kind(&self, path: &str) -> Result<EntryKind, String> {
        if path == "link" || path.ends_with("/link") {
            return Ok(EntryKind::Link);
        }
        if self.0.contains_key(path) {
            return Ok(EntryKind::File { executable: path.starts_with("bin/") });
        }
        let is_folder = self.0.keys().any(|file| file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
        if is_folder { Ok(EntryKind::Folder) } else { Err("no such file".to_owned()) }
    }

    fn link(&self, path: &str) -> Result<String, String> {
        self.read(path).map(|target| String::from_utf8(target).unwrap())
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, String> {
        let inside = |file: &String| file.strip_prefix(folder)?.strip_prefix('/')?.split('/').next().map(str::to_owned);
        let mut names: Vec<String> = self.0.keys().filter_map(inside).collect();
        names.dedup();
        names.into_iter().map(|name| Ok(Entry { kind: self.kind(&format!("{folder}/{name}"))?, name })).collect()
    }
}

/// The core and two effects, as a library has them.
fn library() -> Natives {
    let mut builder = Natives::builder();
    core_natives(&mut builder);
    builder.function("io", "read_file", Params::exactly(1), NativeBody::Host(1));
    builder.function("net", "http_server", Params::exactly(2), NativeBody::Host(2));
    builder.build()
}

fn evaluated(app: &str) -> Result<Evaluated, Vec<Fault>> {
    let (files, library) = (Memory::with(app), library());
    let env = BTreeMap::from([("STARS".to_owned(), "7".to_owned())]);
    let key: AppKey = "shop".parse().unwrap();
    evaluate(&Source {
        files: &files,
        entry: "app.rads",
        shown_in: "",
        app: &key,
        env: &env,
        library: &library,
        colour: false,
    })
}

fn shown(result: &Result<Evaluated, Vec<Fault>>) -> String {
    match result {
        Ok(evaluated) => {
            let plan = diff(None, &evaluated.spec);
            let mut text = format!("app {}\n{plan}{}\n", evaluated.spec.app, plan.summary());
            for (name, bundle) in &evaluated.bundles {
                let files: Vec<&str> = bundle.manifest.files.keys().map(String::as_str).collect();
                text.push_str(&format!("files of {name}: {}\n", files.join(" ")));
            }
            text + &evaluated.echoed
        }
        Err(faults) => faults.iter().map(|fault| fault.text.clone() + "\n").collect(),
    }
}

#[test]
fn every_case_comes_out_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut scripts: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "rads"));
    scripts.sort();
    assert!(scripts.len() >= 20, "the cases are missing");
    let mut wrong = String::new();
    for script in scripts {
        let app = fs::read_to_string(&script).unwrap();
        let first = evaluated(&app);
        assert_eq!(first, evaluated(&app), "{} is not the same twice", script.display());
        let (actual, recorded) = (shown(&first), script.with_extension("out"));
        if fs::read_to_string(&recorded).unwrap_or_default() == actual {
            continue;
        }
        if std::env::var_os("RADS_GOLDEN").is_some() {
            fs::write(&recorded, actual).unwrap();
        } else {
            wrong.push_str(&format!("--- {}\n{actual}", recorded.display()));
        }
    }
    assert!(wrong.is_empty(), "differ from what is recorded:\n{wrong}");
}

fn spec(app: &str) -> AppSpec {
    evaluated(app).unwrap().spec
}

#[test]
fn a_difference_says_what_stays_and_what_is_replaced() {
    let old = spec("constellation.deploy(\"web\", {script: \"server.rads\", instances: 2, port: 80});");
    let scaled = spec("constellation.deploy(\"web\", {script: \"server.rads\", instances: 5, port: 80});");
    let other = spec(
        "constellation.deploy(\"web\", {script: \"server.rads\", instances: 2, port: 80, ram_mb: 8, env: {A: 1}});",
    );
    let gone = spec("constellation.deploy(\"job\", {command: [\"true\"]});");
    assert!(diff(Some(&old), &old).is_empty());
    assert_eq!(diff(Some(&old), &scaled).to_string(), "  ~ web: in place\n      instances: 2 → 5\n");
    assert_eq!(
        diff(Some(&old), &other).to_string(),
        "  ± web: 2 stars replaced one after another\n      env A: (none) → 1\n      memory: 256 MiB → 8 MiB\n"
    );
    assert_eq!(diff(Some(&old), &gone).summary(), "1 star to start, 2 stars to stop");
}

#[test]
fn a_changed_import_makes_another_bundle() {
    let app = "constellation.deploy(\"web\", {script: \"server.rads\"});";
    let (library, env, key) = (library(), BTreeMap::new(), "shop".parse().unwrap());
    let bundle = |files: &Memory| {
        let source =
            Source { files, entry: "app.rads", shown_in: "", app: &key, env: &env, library: &library, colour: false };
        evaluate(&source).unwrap().bundles.into_values().next().unwrap().id
    };
    let mut files = Memory::with(app);
    let before = bundle(&files);
    assert_eq!(before, bundle(&files));
    files.0.insert("static/style.css".to_owned(), b"other".to_vec());
    assert_eq!(before, bundle(&files), "a file that is not declared does not count");
    files.0.insert("lib/util.rads".to_owned(), b"export blast helper() { return 2; }\n".to_vec());
    assert_ne!(before, bundle(&files));
}

#[test]
fn options_from_a_command_line_are_checked_alike() {
    let (files, library, env, key) = (Memory::with(""), library(), BTreeMap::new(), "web".parse().unwrap());
    let source = Source {
        files: &files,
        entry: "server.rads",
        shown_in: "",
        app: &key,
        env: &env,
        library: &library,
        colour: false,
    };
    let settings = |instances| {
        vec![
            ("script".to_owned(), Setting::Text("server.rads".to_owned())),
            ("instances".to_owned(), Setting::Int(instances)),
        ]
    };
    let made = single_service(&source, &"web".parse().unwrap(), settings(4), true).unwrap();
    assert_eq!(made.spec.services.values().next().unwrap().instances, 4);
    let faults = single_service(&source, &"web".parse().unwrap(), settings(-1), true).unwrap_err();
    assert_eq!(faults[0].text, "error[C0102]: `--instances` is between 0 and 10000, not `-1`");
    // A program that asks for it wrote none of that.
    let faults = service_of_program(&source, &"web".parse().unwrap(), settings(-1), true).unwrap_err();
    assert_eq!(faults[0].problem.message, "`instances` is between 0 and 10000, not `-1`");
}
