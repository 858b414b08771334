//! What others describe — docker run lines, compose files, Kubernetes manifests, Nomad jobs, systemd units, Procfiles, crontabs — to
//! `app.rads`, with a report in which every key of the input is in exactly one line. Bytes in, text out; no effects.
//!
//! - `tree` is what every format is read into; `ledger` knows which of its values have been told, and tells the rest.
//! - A module for each format decides what becomes of a key; `draft` is the app it makes, `render` its text.
//! - Files that a description names (`env_file`, drop-ins) come through [`Beside`]; what is written where is the caller's.

#![forbid(unsafe_code)]

mod crontab;
mod docker;
mod draft;
mod env;
mod hcl;
mod host;
mod kubernetes;
mod ledger;
mod names;
mod nomad;
mod procfile;
mod render;
mod report;
mod shell;
mod systemd;
mod text;
mod tree;
mod units;
mod yaml;

use model::{Code, Problem};

pub use report::{Line, Place, Verdict};

use crate::draft::App;
use crate::ledger::Ledger;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    DockerRun,
    Compose,
    Kubernetes,
    Nomad,
    Systemd,
    Procfile,
    Crontab,
}

impl Format {
    pub const ALL: [Self; 7] =
        [Self::DockerRun, Self::Compose, Self::Kubernetes, Self::Nomad, Self::Systemd, Self::Procfile, Self::Crontab];

    /// As it is typed behind `rads import`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DockerRun => "docker-run",
            Self::Compose => "compose",
            Self::Kubernetes => "kubernetes",
            Self::Nomad => "nomad",
            Self::Systemd => "systemd",
            Self::Procfile => "procfile",
            Self::Crontab => "crontab",
        }
    }
}

/// A file to be imported. Its name is for the report, and for formats in which a file is called after what it describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Files that lie where the imported one does, by the path it names them by.
pub trait Beside {
    fn read(&self, path: &str) -> Option<Vec<u8>>;
}

/// Nothing lies there.
pub struct Nothing;

impl Beside for Nothing {
    fn read(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
}

/// All there is to go by.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub format: Format,
    pub files: &'a [File],
    pub beside: &'a dyn Beside,
    /// What `docker image inspect` printed of the images that are named.
    pub images: Option<&'a File>,
}

/// A description in RADS, and what became of every key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The text of `app.rads`.
    pub app: String,
    /// Files of the app that the input holds within itself (what a ConfigMap mounts), by their path.
    pub files: Vec<(String, Vec<u8>)>,
    /// How many services the app has; one without any cannot be started.
    pub services: usize,
    /// How many of them are jobs.
    pub jobs: usize,
    /// What runs at times that an app cannot say.
    pub left: Vec<LeftJob>,
    pub report: Vec<Line>,
    /// How many values the input has, of all of which the report tells.
    pub values: usize,
}

/// A job that the app does not have: it runs when a machine starts, or when somebody asks, and one of an app runs by a clock or as soon
/// as it is described. So it is told, and stands in a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftJob {
    pub name: String,
    /// As it was written.
    pub when: String,
    /// What it runs, as words; a line for a shell is `sh -c`.
    pub command: Vec<String>,
}

/// Largest file that is read: beyond any description that a person wrote.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Most lines of a unit, a Procfile, a crontab.
const LINES_MAX: usize = 10_000;
/// Most files of one import.
pub const FILES_MAX: usize = 1_000;

/// Refuses a file of more lines than anybody wrote.
fn check_lines(file: &File, text: &str) -> Result<(), Problem> {
    match text.lines().nth(LINES_MAX) {
        Some(_) => Err(Problem::new(Code::FileUnreadable, format!("`{}` has more than {LINES_MAX} lines", file.name))),
        None => Ok(()),
    }
}

/// Reads a description.
///
/// # Errors
/// When the input is not of the format at all: then nothing of it can be told.
pub fn import(source: &Source<'_>) -> Result<Imported, Problem> {
    import_with(source, true)
}

/// The same; `sweep` tells what no carrier has told. Off, it shows what the carriers know.
fn import_with(source: &Source<'_>, sweep: bool) -> Result<Imported, Problem> {
    if source.files.is_empty() {
        return Err(Problem::new(Code::Usage, "there is nothing to import").help("name a file"));
    }
    if source.files.len() > FILES_MAX {
        return Err(Problem::new(Code::Usage, format!("at most {FILES_MAX} files are imported at once")));
    }
    for file in source.files.iter().chain(source.images) {
        text_of(file)?;
    }
    let (mut ledger, mut app) = (Ledger::new(), App::new(source));
    match source.format {
        Format::DockerRun => docker::run::read(source, &mut ledger, &mut app)?,
        Format::Compose => docker::compose::read(source, &mut ledger, &mut app)?,
        Format::Kubernetes => kubernetes::read(source, &mut ledger, &mut app)?,
        Format::Nomad => nomad::read(source, &mut ledger, &mut app)?,
        Format::Systemd => systemd::read(source, &mut ledger, &mut app)?,
        Format::Procfile => procfile::read(source, &mut ledger, &mut app)?,
        Format::Crontab => crontab::read(source, &mut ledger, &mut app)?,
    }
    app.finish(&mut ledger);
    if sweep {
        ledger.sweep();
    }
    let (values, report) = ledger.close();
    Ok(Imported {
        app: render::app(&app),
        services: app.services.len(),
        jobs: app.services.iter().filter(|service| service.job.is_some()).count(),
        files: app.files.into_iter().collect(),
        left: app.left,
        report,
        values,
    })
}

/// The text of a file.
fn text_of(file: &File) -> Result<&str, Problem> {
    let unreadable = |why: String| Problem::new(Code::FileUnreadable, format!("cannot read `{}`: {why}", file.name));
    if file.bytes.len() > FILE_BYTES_MAX {
        return Err(unreadable(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let text = std::str::from_utf8(&file.bytes);
    let text = text.map_err(|error| unreadable(format!("byte {} is not UTF-8 text", error.valid_up_to())))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many values a description has, and how many of them are told.
    fn told(format: Format, text: &str, sweep: bool) -> (usize, usize) {
        let files = [File { name: "f".to_owned(), bytes: text.as_bytes().to_vec() }];
        let imported = import_with(&Source { format, files: &files, beside: &Nothing, images: None }, sweep).unwrap();
        (imported.values, imported.report.iter().map(|line| line.values).sum())
    }

    #[test]
    fn a_value_that_no_carrier_knows_is_missed_by_the_count_and_told_by_the_sweep() {
        let cases = [
            (Format::Compose, "services: {web: {image: a, KEY: 1}}"),
            (Format::Kubernetes, "{kind: Pod, metadata: {name: a}, spec: {KEY: 1, containers: [{name: a, image: b}]}}"),
            (
                Format::Nomad,
                "job \"a\" {\n group \"b\" {\n task \"c\" {\n driver = \"exec\"\n config {\n command = \"d\"\n }\n KEY = 1\n }\n }\n}\n",
            ),
            (Format::Systemd, "[Service]\nExecStart=/bin/true\nKEY=1\n"),
        ];
        for (format, text) in cases {
            let (values, without_sweep) = told(format, text, false);
            assert_eq!(without_sweep, values - 1, "{text}");
            assert_eq!(told(format, text, true), (values, values), "{text}");
            // Under a name that a carrier knows it is not missed.
            let known = match format {
                Format::Compose => "user",
                Format::Kubernetes => "schedulerName",
                Format::Nomad => "user",
                _ => "Nice",
            };
            let (values, without_sweep) = told(format, &text.replace("KEY", known), false);
            assert_eq!(without_sweep, values, "{text}");
        }
    }

    #[test]
    fn what_is_no_description_is_refused_with_the_next_step() {
        for format in Format::ALL {
            let files = [File { name: "f".to_owned(), bytes: b"\n".to_vec() }];
            let problem = import(&Source { format, files: &files, beside: &Nothing, images: None }).unwrap_err();
            assert!(problem.help.is_some(), "{}: {problem}", format.as_str());
        }
        let files = [File { name: "f".to_owned(), bytes: vec![0xff] }];
        let source = Source { format: Format::Procfile, files: &files, beside: &Nothing, images: None };
        assert!(import(&source).unwrap_err().message.contains("byte 0 is not UTF-8"));
    }
}
