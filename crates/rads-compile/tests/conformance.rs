//! Every program under `tests/lang` does what the `.out` beside it says. `RADS_GOLDEN=1` writes the outputs anew.
//!
//! A program's output is its echoed text, then how it ended when that was not well. A first line may set the machine up:
//! `// limits: memory=1048576 instructions=1000 depth=50 gc`. Files below a case's own folder are what it imports.

// This reads and rewrites the case folder; the crate under test stays pure.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rads_compile::{Sources, compile};
use rads_vm::{Limits, NativeBody, Natives, Params, Step, Value, Vm};

struct Folder(PathBuf);

impl Sources for Folder {
    fn read(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(self.0.join(path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".to_owned(),
            _ => error.to_string(),
        })
    }
}

/// Host calls that the tests answer themselves.
const WAIT: u32 = 1;
const OPTIONS: u32 = 2;
const METHOD: u32 = 3;

fn natives() -> Natives {
    let mut builder = Natives::builder();
    rads_vm::core_natives(&mut builder);
    builder
        .function("host", "wait", Params::between(0, 2), NativeBody::Host(WAIT))
        .function("host", "options", Params::between(0, 1).with_options(), NativeBody::Host(OPTIONS))
        .function("host", "thing", Params::exactly(0), NativeBody::Pure(|cx, _| Ok(cx.host("thing", 7))))
        .method("thing", "ask", Params::at_least(0).with_options(), NativeBody::Host(METHOD));
    builder.build()
}

fn limits(source: &str) -> Limits {
    let mut limits = Limits { memory: 64 << 20, ..Limits::default() };
    let Some(line) = source.lines().next().and_then(|line| line.strip_prefix("// limits:")) else { return limits };
    for word in line.split_whitespace() {
        let number = |text: &str| text.parse().expect("a number");
        match word.split_once('=') {
            Some(("memory", n)) => limits.memory = number(n) as usize,
            Some(("instructions", n)) => limits.instructions = Some(number(n)),
            Some(("depth", n)) => limits.depth = number(n) as u32,
            _ if word == "gc" => limits.collect_always = true,
            _ => panic!("unknown limit {word}"),
        }
    }
    limits
}

/// Runs a program and tells everything it did.
fn run(folder: &Path, entry: &str, natives: &Arc<Natives>, stress: bool) -> String {
    let source = std::fs::read_to_string(folder.join(entry)).expect("the case can be read");
    let compiled = compile(&Folder(folder.to_owned()), entry, natives);
    let mut out = compiled.render(false);
    let Some(program) = compiled.program else { return out };
    let mut limits = limits(&source);
    limits.collect_always |= stress;
    let mut vm = Vm::new(Arc::new(program), natives.clone(), limits);
    vm.start();
    // Answers come in the order of the calls, after everything else that can run has run.
    let mut calls = std::collections::VecDeque::new();
    for _ in 0..100_000 {
        match vm.run(1_000_000) {
            Step::Echo { text } => out.push_str(&text),
            Step::Call { task, native, receiver, args, at } => calls.push_back((task, native, receiver, args, at)),
            Step::Finished { outcome: Ok(_), .. } => {}
            Step::Finished { outcome: Err(uncaught), .. } => out.push_str(&format!("{uncaught}\n")),
            Step::Yielded => {}
            Step::Idle => {
                let Some((task, native, receiver, args, at)) = calls.pop_front() else {
                    if vm.task_count() > 0 {
                        out.push_str(&format!("{} tasks wait for ever\n", vm.task_count()));
                    }
                    return out;
                };
                let shown: Vec<String> = args.iter().map(|arg| vm.heap().display(*arg)).collect();
                let outcome = match native {
                    WAIT if args.len() > 1 => Err(vm.heap().error("host", shown[1].clone())),
                    WAIT => Ok(args.first().copied().unwrap_or(Value::Null)),
                    OPTIONS => Ok(vm.heap().str(&shown.join(" "))),
                    _ => {
                        let id = receiver.and_then(|value| vm.heap().host_id(value, "thing"));
                        let (line, column) = vm.program().line_column(at);
                        let text = format!("thing {id:?} asked at {line}:{column} {}", shown.join(" "));
                        Ok(vm.heap().string(text))
                    }
                };
                vm.resume(task, outcome);
            }
        }
    }
    out.push_str("it does not end\n");
    out
}

fn cases(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the folder can be read").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        // The folder `lib` holds what cases import.
        if path.is_dir() && path.file_name().is_some_and(|name| name != "lib") {
            cases(&path, found);
        } else if path.extension().is_some_and(|e| e == "rads") {
            found.push(path);
        }
    }
}

#[test]
fn programs_do_what_is_written_beside_them() {
    let natives = Arc::new(natives());
    let rewrite = std::env::var("RADS_GOLDEN").is_ok_and(|v| v == "1");
    let mut found = Vec::new();
    cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lang"), &mut found);
    let mut failures = Vec::new();
    for path in &found {
        let folder = path.parent().expect("a case is in a folder");
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        let got = run(folder, name, &natives, false);
        let expected_path = path.with_extension("out");
        if rewrite {
            std::fs::write(&expected_path, &got).expect("the golden can be written");
            continue;
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if got != expected {
            failures.push(format!("--- {}\nexpected:\n{expected}\ngot:\n{got}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases differ\n{}", failures.len(), found.len(), failures.join("\n"));
}

#[test]
fn collecting_at_every_safe_point_changes_nothing() {
    let natives = Arc::new(natives());
    let mut found = Vec::new();
    cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lang"), &mut found);
    for path in found {
        let source = std::fs::read_to_string(&path).expect("the case can be read");
        // A case about its own limits, or one that is large on purpose, says nothing more when it is slow.
        if source.starts_with("// limits:") || source.starts_with("// large") {
            continue;
        }
        let folder = path.parent().expect("a case is in a folder");
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        let plain = run(folder, name, &natives, false);
        assert_eq!(plain, run(folder, name, &natives, true), "{}", path.display());
    }
}
