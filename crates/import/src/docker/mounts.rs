//! Mounts: named volumes, folders and files of the host, memory.
//!
//! A star sees nothing of the host's files. What was mounted from there becomes a file of the app, which is read-only, or a volume,
//! into which its content is copied once.

use crate::draft::{App, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::names::name_of;
use crate::report::Verdict;
use crate::text::interpolated;
use crate::tree::Node;

/// Of a memory file system that names no size.
pub(crate) const TMPFS_DEFAULT: u64 = 64 << 20;

/// What is mounted where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    /// A path of the host, the name of a volume, or nothing for a volume without a name.
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) size: Option<u64>,
}

/// What came of it: verdict, words, and what is to be done.
type Outcome = (Verdict, String, Option<String>);

/// `[SOURCE:]TARGET[:OPTIONS]`, as `-v` has it.
pub(crate) fn parse(text: &str) -> Mount {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        // A drive letter of Windows is part of its path.
        [drive, path, target] if is_drive(drive) && target.starts_with('/') => {
            return Mount { source: format!("{drive}:{path}"), target: target.to_owned(), ..Mount::default() };
        }
        [drive, path, target, options] if is_drive(drive) && target.starts_with('/') => {
            let plain = parse(&format!("{path}:{target}:{options}"));
            return Mount { source: format!("{drive}:{path}"), ..plain };
        }
        [source, target, options] => (source, target, options),
        _ => (parts[0], parts.get(1).copied().unwrap_or_default(), parts.last().copied().unwrap_or_default()),
    };
    let read_only = options.split(',').any(|option| option == "ro" || option == "readonly");
    Mount { source: source.to_owned(), target: target.to_owned(), read_only, size: None }
}

fn is_drive(part: &str) -> bool {
    part.len() == 1 && part.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// A text of the input with its variables, where only one value will do; and what is to be said of them.
pub(crate) fn resolved(text: &str) -> (String, Option<String>) {
    // A `$` that a shell reads is doubled in what it leaves.
    let text = text
        .replace("$$(pwd)", "$(pwd)")
        .replace("${PWD}", ".")
        .replace("$PWD", ".")
        .replace("$(pwd)", ".")
        .replace("`pwd`", ".");
    let (read, _) = interpolated(&text);
    let names: Vec<String> = read.variables().iter().map(|name| format!("`{name}`")).collect();
    let mut plain = String::new();
    for piece in &read.0 {
        match piece {
            crate::text::Piece::Fixed(text) => plain.push_str(text),
            // A path that only a variable knows is called after it.
            crate::text::Piece::Env { name, otherwise } if otherwise.is_empty() => plain.push_str(&name.to_lowercase()),
            crate::text::Piece::Env { otherwise, .. } => plain.push_str(otherwise),
        }
    }
    let said = (!names.is_empty()).then(|| format!("{} as by default", names.join(", ")));
    (plain, said)
}

/// Takes over a mount and tells of it.
pub(crate) fn take(
    app: &mut App,
    ledger: &mut Ledger,
    service: &mut Service,
    node: &Node,
    mount: &Mount,
    said: Option<String>,
) {
    let (verdict, text, help) = match placed(app, service, mount) {
        Ok(outcome) => outcome,
        Err(why) => (Verdict::NotCarried, format!("nothing at `{}`: {why}", mount.target), None),
    };
    let (verdict, text) = match said {
        Some(said) => (verdict.max(Verdict::Changed), format!("{text}; {said}")),
        None => (verdict, text),
    };
    match help {
        Some(help) => ledger.tell(verdict, node, text.help(help)),
        None => ledger.tell(verdict, node, text),
    }
}

fn placed(app: &mut App, service: &mut Service, mount: &Mount) -> Result<Outcome, String> {
    let Mount { source, target, read_only, size } = mount;
    if source.is_empty() {
        let name = app.volume(&format!("{}-{}", service.name, name_of(target, "data")));
        service.volume(target, name.clone(), *size)?;
        return Ok((Verdict::Carried, format!("volume `{name}` at {target}"), None));
    }
    let is_path = source.starts_with(['/', '.', '~', '\\']) || source.contains('/') || source.get(1..2) == Some(":");
    if !is_path {
        let name = app.volume(source);
        service.volume(target, name.clone(), *size)?;
        let as_is = if *read_only { "; not read-only" } else { "" };
        let verdict = if *read_only { Verdict::Changed } else { Verdict::Carried };
        return Ok((verdict, format!("volume `{name}` at {target}{as_is}"), None));
    }
    if let Some(why) = belongs_to_the_host(source) {
        return Ok((Verdict::NotCarried, format!("`{source}` at {target}: {why}"), None));
    }
    let inside = crate::draft::normal(source);
    if inside.is_empty() {
        let text = format!("the folder itself at {target}: the app's folder is at `/app`");
        let help = "name what the program needs of it in `assets`, or single folders in `binds`";
        return Ok((Verdict::NotCarried, text, Some(help.to_owned())));
    }
    let is_here = source.starts_with('.') && !inside.starts_with("..") || !source.starts_with(['/', '.', '~', '\\']);
    if *read_only || looks_like_a_file(target) || looks_like_a_file(source) {
        let (source_here, help) = match is_here {
            true => (inside.clone(), None),
            false => {
                let here = format!("host/{}", inside.trim_start_matches("../").trim_start_matches('/'));
                let here = here.replace("..", "").replace(['~', '\\', ':'], "");
                (here.clone(), Some(format!("copy `{source}` to `{here}` beside the app")))
            }
        };
        service.bind(target, &source_here)?;
        let verdict = if *read_only && is_here { Verdict::Carried } else { Verdict::Changed };
        let rights = if *read_only { "" } else { ", read-only" };
        return Ok((verdict, format!("`{source_here}` of the app's folder at {target}{rights}"), help));
    }
    let name = app.volume(&format!("{}-{}", service.name, name_of(&inside, "data")));
    service.volume(target, name.clone(), *size)?;
    let text = format!("the host's `{source}` is volume `{name}` at {target}, empty at first");
    let help = format!("copy what is in it: `tar -C {source} -c . | rads c cp - {}-1:{target}`", service.name);
    Ok((Verdict::Changed, text, Some(help)))
}

/// What no star is shown of a host, and why.
fn belongs_to_the_host(path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches('/');
    let below = |folder: &str| path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    match path {
        _ if path.ends_with("docker.sock") || path.ends_with("containerd.sock") => {
            Some("no star controls the machine it runs on")
        }
        "/etc/localtime" | "/etc/timezone" => Some("a star's clock says the time zone by `TZ`"),
        "/etc/passwd" | "/etc/group" | "/etc/shadow" => Some("a star has users of its own"),
        "" | "/" => Some("no star sees the host's files"),
        _ if ["/proc", "/sys", "/dev"].iter().any(|folder| below(folder)) => Some("it is the host's kernel"),
        _ if below("/lib/modules") || below("/usr/src") || below("/boot") => Some("it is the host's kernel"),
        _ if below("/var/lib/docker") || below("/var/run/docker") => Some("there are no containers"),
        _ => None,
    }
}

/// Whether a path is more likely one of a file than of a folder.
fn looks_like_a_file(path: &str) -> bool {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let ending = last.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, ending)| ending);
    let is_folder = path.ends_with('/') || ending.is_some_and(|ending| ending == "d" || ending == "git");
    !is_folder
        && ending
            .is_some_and(|ending| (1..=8).contains(&ending.len()) && ending.chars().any(|c| c.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_in_every_form() {
        let check = |text: &str, source: &str, target: &str, read_only: bool| {
            let mount = parse(text);
            assert_eq!(
                (mount.source.as_str(), mount.target.as_str(), mount.read_only),
                (source, target, read_only),
                "{text}"
            );
        };
        check("/data", "", "/data", false);
        check("db:/data", "db", "/data", false);
        check("./x:/y:ro", "./x", "/y", true);
        check("./x:/y:ro,z", "./x", "/y", true);
        check("C:\\x:/y", "C:\\x", "/y", false);
        check("", "", "", false);
        check("a:b:c:d:ro", "a", "b", true);
    }

    #[test]
    fn files_are_told_from_folders_by_their_names() {
        for file in ["/etc/nginx/nginx.conf", "./init.sql", "a.d/x.yml"] {
            assert!(looks_like_a_file(file), "{file}");
        }
        for folder in ["/data", "./conf.d", "/x/", "/opt/v1.2", ".hidden", "/etc/nginx"] {
            assert!(!looks_like_a_file(folder), "{folder}");
        }
    }
}
