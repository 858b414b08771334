//! Evaluates an app as `rads up` does, on files of which all exist, and asks of it what is asked when it is put.

use std::collections::BTreeMap;

use deploy::{Entry, EntryKind, Files};
use rads_vm::core_natives;

/// Whatever is asked for is there: the user put it there, as the report says.
struct Everything;

impl Files for Everything {
    fn read(&self, _: &str) -> Result<Vec<u8>, String> {
        Ok(b"content".to_vec())
    }

    fn kind(&self, _: &str) -> Result<EntryKind, String> {
        Ok(EntryKind::File { executable: true })
    }

    fn link(&self, _: &str) -> Result<String, String> {
        Err("no link".to_owned())
    }

    fn list(&self, _: &str) -> Result<Vec<Entry>, String> {
        Ok(Vec::new())
    }
}

struct App<'a>(&'a str);

impl Files for App<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        if path == "app.rads" { Ok(self.0.as_bytes().to_vec()) } else { Everything.read(path) }
    }

    fn kind(&self, path: &str) -> Result<EntryKind, String> {
        Everything.kind(path)
    }

    fn link(&self, path: &str) -> Result<String, String> {
        Everything.link(path)
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, String> {
        Everything.list(folder)
    }
}

/// What `deploy` makes of an app, or what is wrong with it.
pub(crate) fn evaluated(app: &str) -> Result<model::AppSpec, String> {
    let mut library = rads_vm::Natives::builder();
    core_natives(&mut library);
    let (key, env) = ("case".parse().unwrap(), BTreeMap::new());
    let source = deploy::Source {
        files: &App(app),
        entry: "app.rads",
        shown_in: "",
        app: &key,
        env: &env,
        library: &library.build(),
        colour: false,
    };
    let faults = |faults: Vec<deploy::Fault>| faults.into_iter().map(|fault| fault.text + "\n").collect::<String>();
    let spec = deploy::evaluate(&source).map_err(faults)?.spec;
    // What is asked of an app when it is put.
    let jobs = spec.services.iter().map(|(name, service)| (name, service.job.as_ref()));
    model::job::check_order(jobs).map_err(|problem| problem.message)?;
    Ok(spec)
}
