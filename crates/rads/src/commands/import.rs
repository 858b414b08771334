//! `rads import`: reads what others describe, writes the app, and tells what became of every key. What becomes of it is decided
//! by the crate `import`.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use import::{Beside, File, Format, Imported, Line, Source, Verdict};
use model::{Code, Problem};
use serde::Serialize;

use crate::cli::{Foreign, Form, Import};
use crate::screen;

/// Where compose looks for its file, in this order.
const COMPOSE_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// Where systemd looks for units, what is nearer to the user first.
const UNIT_FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// How a line that was typed is called in the report.
const TYPED: &str = "line";

pub(crate) fn import(args: &Import, form: Form) -> Result<u8, Problem> {
    let format = match args.format {
        Foreign::DockerRun => Format::DockerRun,
        Foreign::Compose => Format::Compose,
        Foreign::Kubernetes => Format::Kubernetes,
        Foreign::Nomad => Format::Nomad,
        Foreign::Systemd => Format::Systemd,
        Foreign::Procfile => Format::Procfile,
        Foreign::Crontab => Format::Crontab,
    };
    let files = input(format, args)?;
    let images = args.images.as_deref().map(read).transpose()?;
    let folder = files.first().and_then(|file| Path::new(&file.name).parent()).unwrap_or(Path::new(""));
    let beside = Folder(folder.to_owned());
    let imported = import::import(&Source { format, files: &files, beside: &beside, images: images.as_ref() })?;
    match (&args.to, form) {
        (Some(to), _) => write(to, &imported, args.force)?,
        (None, Form::Text) => screen::print(&imported.app),
        (None, Form::Json) => {}
    }
    match form {
        Form::Text => screen::note(told(&imported, args.to.as_deref())),
        Form::Json => screen::json(&Answer::of(&imported, args.to.is_some()))?,
    }
    Ok(0)
}

/// The files that were named, or those that are meant when none was.
fn input(format: Format, args: &Import) -> Result<Vec<File>, Problem> {
    if format == Format::DockerRun {
        return match &args.input[..] {
            [only] if only == "-" => Ok(vec![standard_input()?]),
            // One word is a line, or a file of lines.
            [only] if Path::new(only).is_file() => Ok(vec![read(Path::new(only))?]),
            [only] => Ok(vec![File { name: TYPED.to_owned(), bytes: only.as_encoded_bytes().to_vec() }]),
            words => Ok(vec![File { name: TYPED.to_owned(), bytes: as_line(words)?.into_bytes() }]),
        };
    }
    let mut files = Vec::new();
    for path in &args.input {
        match format {
            _ if path == "-" => files.push(standard_input()?),
            Format::Systemd => {
                for file in units(Path::new(path))? {
                    // A timer and its service may both have been named.
                    if !files.contains(&file) {
                        files.push(file);
                    }
                }
            }
            _ => files.push(read(Path::new(path))?),
        }
    }
    if !args.input.is_empty() {
        return Ok(files);
    }
    let missing = |what: &str| {
        Err(Problem::new(Code::Usage, format!("nothing was named to import, and there is no {what} here"))
            .help("name a file"))
    };
    match format {
        Format::Procfile if Path::new("Procfile").is_file() => Ok(vec![read(Path::new("Procfile"))?]),
        Format::Procfile => missing("`Procfile`"),
        Format::Compose => match COMPOSE_FILES.iter().find(|name| Path::new(name).is_file()) {
            Some(name) => Ok(vec![read(Path::new(name))?]),
            None => missing("`compose.yaml`"),
        },
        Format::Crontab => Ok(vec![standard_input()?]),
        _ => Err(Problem::new(Code::Usage, "nothing was named to import").help("name a file")),
    }
}

/// Words as a shell reads them back.
fn as_line(words: &[std::ffi::OsString]) -> Result<String, Problem> {
    if words.is_empty() {
        return Err(Problem::new(Code::Usage, "nothing was named to import")
            .help("write the line behind it: `rads import docker-run 'docker run -p 8080:80 nginx'`"));
    }
    let quoted = |word: &OsStr| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
    Ok(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

fn standard_input() -> Result<File, Problem> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(import::FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(Path::new("-"), &error))?;
    Ok(File { name: "-".to_owned(), bytes })
}

fn read(path: &Path) -> Result<File, Problem> {
    let file = fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::new();
    let read = file.take(import::FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(path, &error))?;
    Ok(File { name: path.display().to_string(), bytes })
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string().to_lowercase(),
    };
    Problem::new(Code::FileUnreadable, format!("cannot read `{}`: {why}", path.display()))
        .help("check the path; it starts at the working folder")
}

/// A unit with the one that goes with it: a timer with what it starts, a service with what starts it.
fn units(path: &Path) -> Result<Vec<File>, Problem> {
    let mut files = unit(path)?;
    let fellow = match path.extension().and_then(OsStr::to_str) {
        Some("timer") => path.with_extension("service"),
        Some("service") => path.with_extension("timer"),
        _ => return Ok(files),
    };
    let is_there = fellow.is_file()
        || path.components().count() == 1
            && UNIT_FOLDERS.iter().any(|folder| Path::new(folder).join(&fellow).is_file());
    if is_there {
        files.extend(unit(&fellow)?);
    }
    Ok(files)
}

/// A unit, by its file or its name, with the drop-ins that go with it.
fn unit(path: &Path) -> Result<Vec<File>, Problem> {
    let named = path.components().count() == 1 && !path.exists();
    let places = || UNIT_FOLDERS.iter().map(|folder| Path::new(folder).join(path));
    let main = match named {
        true => places().find(|path| path.is_file()).unwrap_or_else(|| path.to_owned()),
        false => path.to_owned(),
    };
    let mut files = vec![read(&main)?];
    let beside = std::iter::once(main.clone()).chain(places().filter(|_| named));
    let mut folders: Vec<PathBuf> = beside
        .map(|path| {
            let mut name = path.into_os_string();
            name.push(".d");
            PathBuf::from(name)
        })
        .collect();
    folders.dedup();
    let mut drop_ins: Vec<PathBuf> = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    // In the order of their names, wherever they lie.
    drop_ins.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    for drop_in in drop_ins {
        files.push(read(&drop_in)?);
    }
    Ok(files)
}

/// Files beside the imported one; what is named by a whole path is there.
struct Folder(PathBuf);

impl Beside for Folder {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let path = self.0.join(path);
        path.is_file().then(|| read(&path).ok()).flatten().map(|file| file.bytes)
    }
}

/// Writes the app and the files it needs. Nothing is written over unasked; then nothing is written at all.
fn write(to: &Path, imported: &Imported, force: bool) -> Result<(), Problem> {
    let folder = to.parent().unwrap_or(Path::new(""));
    let mut all = vec![(to.to_owned(), imported.app.as_bytes())];
    all.extend(imported.files.iter().map(|(path, bytes)| (folder.join(path), bytes.as_slice())));
    if let Some((path, _)) =
        all.iter().find(|(path, bytes)| !force && fs::read(path).is_ok_and(|there| there != *bytes))
    {
        return Err(Problem::new(
            Code::AlreadyExists,
            format!("`{}` is there already; nothing was written", path.display()),
        )
        .help("write to another file, or over it with `--force`"));
    }
    for (path, bytes) in all {
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes));
        written.map_err(|error| {
            let message = format!("cannot write `{}`: {}", path.display(), error.to_string().to_lowercase());
            Problem::new(Code::FileUnwritable, message)
        })?;
    }
    Ok(())
}

/// The report, and what it comes to.
fn told(imported: &Imported, to: Option<&Path>) -> String {
    let mut text: String = imported.report.iter().map(|line| format!("{line}\n")).collect();
    let count = |verdict: Verdict| -> usize {
        imported.report.iter().filter(|line| line.verdict == verdict).map(|line| line.values).sum()
    };
    let (carried, changed, left) = (count(Verdict::Carried), count(Verdict::Changed), count(Verdict::NotCarried));
    let values = if imported.values == 1 { "value" } else { "values" };
    text.push_str(&format!(
        "\n{} {values}: {carried} carried, {changed} changed, {left} not carried; {}",
        imported.values,
        made(imported),
    ));
    if !imported.left.is_empty() {
        text.push_str(&format!("; {} not carried", screen::count(imported.left.len(), "job")));
    }
    match to {
        _ if imported.services == 0 => {
            text.push_str("\nthe app has no service: there is nothing that `rads up` could start yet")
        }
        Some(to) => {
            text.push_str(&format!("\nnext: `rads check {}` says what is still to be put beside it", to.display()))
        }
        None if !imported.files.is_empty() => {
            text.push_str(&format!(
                "\nnote: {} of the app would be written beside it with `--to FILE`",
                screen::count(imported.files.len(), "file")
            ));
        }
        None => {}
    }
    text
}

/// How many services there are, and how many of them are jobs.
fn made(imported: &Imported) -> String {
    let services = screen::count(imported.services, "service");
    match imported.jobs {
        0 => services,
        jobs if jobs == imported.services => screen::count(jobs, "job"),
        1 => format!("{services}, 1 of them a job"),
        jobs => format!("{services}, {jobs} of them jobs"),
    }
}

/// The same for programs.
#[derive(Serialize)]
struct Answer<'a> {
    /// Only where it was not written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'a str>,
    files: Vec<&'a str>,
    services: usize,
    /// Of the services.
    jobs: usize,
    /// Those that no service became.
    left_jobs: Vec<LeftJob<'a>>,
    values: usize,
    report: &'a [Line],
}

#[derive(Serialize)]
struct LeftJob<'a> {
    name: &'a str,
    when: &'a str,
    command: &'a [String],
}

impl<'a> Answer<'a> {
    fn of(imported: &'a Imported, written: bool) -> Self {
        let left = |job: &'a import::LeftJob| LeftJob { name: &job.name, when: &job.when, command: &job.command };
        Self {
            app: (!written).then_some(imported.app.as_str()),
            files: imported.files.iter().map(|(path, _)| path.as_str()).collect(),
            services: imported.services,
            jobs: imported.jobs,
            left_jobs: imported.left.iter().map(left).collect(),
            values: imported.values,
            report: &imported.report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line_come_back_as_they_were() {
        let words: Vec<_> = ["docker", "run", "-e", "A=it's \"$x\"", "nginx"].iter().map(Into::into).collect();
        assert_eq!(as_line(&words).unwrap(), r#"'docker' 'run' '-e' 'A=it'\''s "$x"' 'nginx'"#);
        assert!(as_line(&[]).is_err());
    }

    #[test]
    fn nothing_is_written_over_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("app.rads");
        let imported = |app: &str| Imported {
            app: app.to_owned(),
            files: vec![("config/x".to_owned(), b"x".to_vec())],
            services: 1,
            jobs: 0,
            left: Vec::new(),
            report: Vec::new(),
            values: 0,
        };
        write(&to, &imported("one"), false).unwrap();
        write(&to, &imported("one"), false).unwrap();
        let problem = write(&to, &imported("two"), false).unwrap_err();
        assert_eq!(problem.code, Code::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"one");
        write(&to, &imported("two"), true).unwrap();
        assert_eq!(
            (fs::read(&to).unwrap(), fs::read(folder.path().join("config/x")).unwrap()),
            (b"two".to_vec(), b"x".to_vec())
        );
    }

    #[test]
    fn a_unit_brings_its_drop_ins_along() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("web.service");
        fs::create_dir(folder.path().join("web.service.d")).unwrap();
        fs::write(&main, "[Service]\n").unwrap();
        for name in ["20-b.conf", "10-a.conf", "note.txt"] {
            fs::write(folder.path().join("web.service.d").join(name), "[Service]\n").unwrap();
        }
        let names: Vec<String> =
            unit(&main).unwrap().iter().map(|file| file.name.rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["web.service", "10-a.conf", "20-b.conf"]);
        let timer = folder.path().join("web.timer");
        fs::write(&timer, "[Timer]\n").unwrap();
        assert_eq!((units(&timer).unwrap().len(), units(&main).unwrap().len()), (4, 4));
        assert!(unit(Path::new("no-such.service")).is_err());
    }
}
