//! A description of others: the first byte says of which kind. Whatever it is, every value of it is told, and what comes out can be
//! deployed.
#![no_main]

use std::collections::BTreeMap;

use deploy::{Entry, EntryKind, Files};
use import::{File, Format, Nothing, Source, import};
use libfuzzer_sys::fuzz_target;

/// The app, and beside it whatever it asks for.
struct App<'a>(&'a str);

impl Files for App<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        Ok(if path == "app.rads" { self.0 } else { "content" }.as_bytes().to_vec())
    }

    fn kind(&self, _: &str) -> Result<EntryKind, String> {
        Ok(EntryKind::File { executable: true })
    }

    fn list(&self, _: &str) -> Result<Vec<Entry>, String> {
        Ok(Vec::new())
    }

    fn link(&self, _: &str) -> Result<String, String> {
        Err("no link".to_owned())
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let format = Format::ALL[usize::from(*kind) % Format::ALL.len()];
    let files = [File { name: "web.service".to_owned(), bytes: bytes.to_vec() }];
    let Ok(imported) = import(&Source { format, files: &files, beside: &Nothing, images: None }) else { return };
    let told: usize = imported.report.iter().map(|line| line.values).sum();
    assert_eq!(told, imported.values, "every value is told once");
    let mut library = rads_vm::Natives::builder();
    rads_vm::core_natives(&mut library);
    let (key, env) = ("case".parse().expect("a name"), BTreeMap::new());
    let source = deploy::Source {
        files: &App(&imported.app),
        entry: "app.rads",
        shown_in: "",
        app: &key,
        env: &env,
        library: &library.build(),
        colour: false,
    };
    if imported.services > 0
        && let Err(faults) = deploy::evaluate(&source)
    {
        let faults: String = faults.into_iter().map(|fault| fault.text).collect();
        panic!("what comes out cannot be deployed: {faults}\n{}", imported.app);
    }
});
