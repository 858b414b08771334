//! What the stars of a service run.

use model::{Code, Problem, Program};

use super::{OptionFault, Options, Read, as_text};
use crate::setting::Setting;

/// WASM is not there yet, and somebody who tries it is to know that nothing else is wrong.
pub(super) fn no_module(settings: &[(String, Setting)]) -> Read<()> {
    let is_module = |(name, value): &&(String, Setting)| match value {
        Setting::Text(path) => name == "wasm" || name == "script" && path.ends_with(".wasm"),
        _ => name == "wasm",
    };
    let Some((name, _)) = settings.iter().find(is_module) else { return Ok(()) };
    let problem = Problem::new(Code::Unsupported, "this version runs no WASM modules")
        .help("run it by a `command` whose program is a WASM runtime, in a `rootfs` or from the host");
    Err(OptionFault { path: vec![name.clone()], problem })
}

pub(super) fn program(options: &mut Options, holds: bool) -> Read<Program> {
    let script = script(options, "script")?;
    let command = command(options, "command")?;
    match (script, command) {
        (None, None) if holds => Ok(Program::Nothing),
        _ if holds => {
            let problem = Problem::new(Code::InvalidValue, "a reservation runs nothing; what runs something is none");
            Err(options.fault("hold", problem.help("leave either `hold` out, or the program")))
        }
        (Some(script), None) => Ok(Program::Script(script)),
        (None, Some(words)) => Ok(Program::Command(words)),
        (Some(_), Some(_)) => {
            let message = "a star runs either a `script` or a `command`, not both";
            Err(options.fault("command", Problem::new(Code::InvalidValue, message)))
        }
        (None, None) => {
            let problem = Problem::new(Code::InvalidValue, "the service has neither `script` nor `command`")
                .help("say what its stars run, for example script: \"server.rads\"");
            Err(options.fault_of_all(problem))
        }
    }
}

/// A script of the bundle.
pub(super) fn script(options: &mut Options, name: &str) -> Read<Option<String>> {
    let path = options.text(name)?;
    if let Some(path) = path.as_ref().filter(|path| !model::bundle::is_bundle_path(path)) {
        let message = format!("`{name}` is a path inside the app's folder, `{}` is not", path.escape_debug());
        return Err(options.fault(name, Problem::new(Code::InvalidValue, message)));
    }
    Ok(path)
}

/// A program and its arguments.
pub(super) fn command(options: &mut Options, name: &str) -> Read<Option<Vec<String>>> {
    let Some(setting) = options.take(name) else { return Ok(None) };
    let words = match &setting {
        Setting::List(words) => words.iter().map(as_text).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    if let Some(words) = words.filter(|words| words.first().is_some_and(|program| !program.is_empty())) {
        options.check_words(name, &words)?;
        return Ok(Some(words));
    }
    let mut fault = options.wrong(name, "an array of strings with the program first", &setting);
    if let Setting::Text(line) = &setting {
        let words: Vec<String> = line.split_whitespace().map(|word| format!("\"{word}\"")).collect();
        fault.problem = fault.problem.help(format!("no shell reads it: write [{}]", words.join(", ")));
    }
    Err(fault)
}

pub(super) fn checkpoint(options: &mut Options, program: &Program) -> Read<bool> {
    let checkpoint = options.bool("checkpoint")?.unwrap_or(false);
    if checkpoint && matches!(program, Program::Command(_)) {
        let message = "`checkpoint` is for a `script`; the memory of a `command` can be kept without";
        return Err(
            options.fault("checkpoint", Problem::new(Code::InvalidValue, message).help("leave `checkpoint` out"))
        );
    }
    Ok(checkpoint)
}

pub(super) fn rootfs(options: &mut Options, program: &Program) -> Read<Option<String>> {
    let Some(path) = options.text("rootfs")? else { return Ok(None) };
    let path = path.strip_prefix("./").unwrap_or(&path);
    let path = path.strip_suffix('/').unwrap_or(path).to_owned();
    if !model::bundle::is_bundle_path(&path) {
        let message = format!("`rootfs` is a path inside the app's folder, `{}` is not", path.escape_debug());
        return Err(options.fault("rootfs", Problem::new(Code::InvalidValue, message)));
    }
    if matches!(program, Program::Script(_)) {
        let problem = Problem::new(Code::InvalidValue, "`rootfs` is for a `command`; a script needs none");
        return Err(options.fault("rootfs", problem.help("leave `rootfs` out")));
    }
    Ok(Some(path))
}
