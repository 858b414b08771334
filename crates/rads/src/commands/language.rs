//! The language without a constellation: `run` and `check`, and what a RADS star does once its walls stand.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use isolate::{NurseryConfig, ScriptStart, StarEntry};
use model::{Code, Problem};
use rads_std::{Loaded, Output, RunOptions, Way};
use rads_vm::Limits;

use super::Failure;
use super::planning::{self, Overrides};
use crate::cli::{Form, Nursery};
use crate::{place, screen};

/// Runs a script on this thread; its exit code is the program's.
pub(crate) fn run(file: &Path, args: Vec<OsString>, data_dir: Option<PathBuf>) -> Result<u8, Failure> {
    let args = args.into_iter().map(text_argument).collect::<Result<_, _>>()?;
    let loaded = load(file)?;
    let here = env::current_dir()
        .map_err(|error| Problem::new(Code::FileUnreadable, format!("the working folder cannot be used: {error}")))?;
    let env = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    // What it deploys lies beside it, wherever it is run.
    let files = here.join(file.parent().unwrap_or(Path::new("")));
    let options = RunOptions {
        args,
        env: env.collect(),
        limits: Limits::default(),
        root: here,
        ready: None,
        output: Output::Wanted,
        // Only asked for when the program wants something of an agent.
        way: Way::Api { socket: place::data_dir(data_dir).map(|folder| api::socket_path(&folder)), files },
    };
    // The kernel keeps eight bits of an exit code.
    Ok((rads_std::run(loaded, options) & 0xff) as u8)
}

/// Compiles scripts and says what is wrong with them; the rest are looked at even when one is faulty.
pub(crate) fn check(files: &[PathBuf], form: Form) -> Result<u8, Failure> {
    let failures: Vec<Failure> = files.iter().filter_map(|file| look_at(file).err()).collect();
    if !failures.is_empty() {
        failures.into_iter().for_each(|failure| failure.tell(form));
        return Ok(1);
    }
    screen::note(format!("{} checked, no mistakes", screen::count(files.len(), "file")));
    Ok(0)
}

/// An app is evaluated, which has no effects, with the scripts of its services; any other script is compiled.
fn look_at(file: &Path) -> Result<(), Failure> {
    match planning::is_app(file)? {
        true => planning::file(file, &Overrides::default()).map(drop),
        false => load(file).map(drop),
    }
}

/// Reads and compiles a script; its diagnostics are told here.
fn load(file: &Path) -> Result<Loaded, Failure> {
    readable(file)?;
    rads_std::load_typed(file).map_err(Failure::Faulty)
}

fn tell(diagnostics: &[String]) {
    for diagnostic in diagnostics {
        screen::note(format!("{}\n", diagnostic.trim_end()));
    }
}

/// A script that is not there, or is no text, is told apart from one with mistakes.
pub(crate) fn readable(file: &Path) -> Result<(), Problem> {
    let unreadable =
        |why: String| Problem::new(Code::FileUnreadable, format!("cannot read `{}`: {why}", file.display()));
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => {
            Err(unreadable("it is a folder".to_owned()).help("name a script, as `app.rads` in it"))
        }
        Ok(_) => std::fs::File::open(file).map(drop).map_err(|error| unreadable(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(unreadable("no such file".to_owned()).help("check the path; it starts at the working folder"))
        }
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn text_argument(argument: OsString) -> Result<String, Problem> {
    argument.into_string().map_err(|argument| {
        Problem::new(Code::Usage, format!("the argument `{}` is not UTF-8 text", argument.to_string_lossy()))
    })
}

/// The nursery's whole life. The library is built before the first star, so that every star shares it.
pub(crate) fn nursery(data_dir: PathBuf, args: &Nursery) -> Result<u8, Problem> {
    if args.can_take_over {
        return Ok(u8::from(!isolate::can_take_over()));
    }
    rads_std::natives();
    let (config, entry) = (NurseryConfig { data_dir }, StarEntry { run: star, rehearse: rads_std::rehearse });
    let ended = match args.take_over {
        Some(state) => isolate::take_over(config, entry, state),
        None => isolate::serve(config, entry),
    };
    ended.map(|()| 0).map_err(|fault| Problem::new(Code::Internal, fault.to_string()))
}

/// A script that is executed in a star, where another would be a copy of the nursery. It stays behind the filter of a command:
/// under a script's, which lets nobody become somebody else, CRIU could not bring it back.
pub(crate) fn star_alone(script: &str, args: Vec<OsString>) -> Result<u8, Failure> {
    let args: Vec<String> = args.into_iter().map(text_argument).collect::<Result<_, _>>()?;
    let env = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (path, env) = (Path::new("/app").join(script), env.collect());
    Ok((star(ScriptStart { path: &path, args: &args, env: &env, ready_fd: None }) & 0xff) as u8)
}

/// A RADS star, from its first instruction to its exit code.
fn star(start: ScriptStart<'_>) -> i32 {
    let app = Path::new("/app");
    let loaded = match rads_std::load(start.path, app) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            tell(&diagnostics);
            return 1;
        }
    };
    let env: BTreeMap<String, String> = start.env.clone();
    let options = RunOptions {
        args: start.args.to_vec(),
        env,
        limits: Limits::default(),
        // Where relative paths begin: `/app`, or the star's `workdir`.
        root: env::current_dir().unwrap_or_else(|_| app.to_owned()),
        ready: start.ready_fd,
        output: Output::Offered,
        way: Way::Star,
    };
    rads_std::run(loaded, options)
}
