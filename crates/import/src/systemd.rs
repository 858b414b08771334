//! systemd units: a service with its drop-ins becomes a service of the host's programs; one that a timer starts is a job.

mod exec;
mod known;
mod settings;
mod timer;

use std::collections::BTreeMap;

use model::{Code, Problem};

use crate::draft::{App, Job, Restart, Service};
use crate::ledger::Ledger;
use crate::names::name_of;
use crate::tree::{Node, Value};
use crate::{LeftJob, Source, check_lines, text_of};

pub(crate) fn read(source: &Source<'_>, ledger: &mut Ledger, app: &mut App) -> Result<(), Problem> {
    let mut units: BTreeMap<String, Vec<Node>> = BTreeMap::new();
    let mut order = Vec::new();
    for file in source.files {
        let text = text_of(file)?;
        check_lines(file, text)?;
        let mut root = parse(text);
        ledger.enter(&mut root, &file.name, "");
        let name = unit_name(&file.name);
        if !units.contains_key(&name) {
            order.push(name.clone());
        }
        units.entry(name).or_default().push(root);
    }
    let sections = |kind: &str| units.values().flatten().any(|root| root.get(kind).is_some());
    if !["Service", "Timer", "Socket", "Unit", "Install"].iter().any(|kind| sections(kind)) {
        return Err(Problem::new(Code::FileUnreadable, "there is no section of a unit in it")
            .help("a unit has lines such as `[Service]` and `ExecStart=/usr/bin/program`"));
    }
    // What a timer starts is a job.
    let mut timed = BTreeMap::new();
    for name in order.iter().filter(|name| name.ends_with(".timer")) {
        let roots = &units[name];
        let unit = all(roots, "Timer", "Unit").last().and_then(|node| node.scalar()).map(str::to_owned);
        let unit = unit.unwrap_or_else(|| format!("{}.service", name.trim_end_matches(".timer")));
        timed.insert(unit, name.clone());
    }
    let is_service = |name: &&String| units[*name].iter().any(|root| root.get("Service").is_some());
    for name in order.iter().filter(is_service) {
        let roots = &units[name];
        match timed.get(name).map(|timer| &units[timer]) {
            None => service(source, ledger, app, name, roots, None),
            Some(timer) => match timer::read(ledger, timer) {
                Ok(job) => service(source, ledger, app, name, roots, Some(job)),
                Err(why) => left(ledger, app, name, roots, timer, &why),
            },
        }
    }
    for name in order.iter().filter(|name| !is_service(name)) {
        for root in &units[name] {
            if ledger.is_open(root) {
                other(ledger, name, root, timed.values().any(|timer| timer == name));
            }
        }
    }
    Ok(())
}

/// The unit that a file describes: itself, or the one that its drop-in folder belongs to.
fn unit_name(path: &str) -> String {
    let mut parts = path.rsplit('/');
    let (file, folder) = (parts.next().unwrap_or_default(), parts.next());
    match folder.and_then(|folder| folder.strip_suffix(".d")).filter(|_| file.ends_with(".conf")) {
        Some(unit) => unit.to_owned(),
        None => file.to_owned(),
    }
}

/// Sections with their lines, in order; a key that is there several times is there several times.
fn parse(text: &str) -> Node {
    let mut sections: Vec<(String, Node)> = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((name.to_owned(), Node::new(number, Value::Map(Vec::new()))));
            continue;
        }
        let mut whole = trimmed.to_owned();
        // A line that ends in `\` goes on in the next; comments within are passed over.
        while whole.ends_with('\\') {
            whole.pop();
            match lines.next() {
                Some((_, next)) if next.trim_start().starts_with(['#', ';']) => whole.push('\\'),
                Some((_, next)) => {
                    whole.push(' ');
                    whole.push_str(next.trim());
                }
                None => break,
            }
        }
        let (key, value) = whole.split_once('=').unwrap_or((&whole, ""));
        let node = Node::text(number, value.trim());
        if sections.is_empty() {
            sections.push(("?".to_owned(), Node::new(number, Value::Map(Vec::new()))));
        }
        if let Some((_, Node { value: Value::Map(entries), .. })) = sections.last_mut() {
            entries.push((key.trim().to_owned(), node));
        }
    }
    Node::new(1, Value::Map(sections))
}

/// Every line of a key in a section, of all files, since the last empty one.
fn all<'a>(roots: &'a [Node], section: &str, key: &str) -> Vec<&'a Node> {
    let mut found: Vec<&Node> = Vec::new();
    for (name, lines) in roots.iter().flat_map(Node::entries) {
        for (known, value) in lines.entries() {
            if name == section && known == key {
                match value.scalar() {
                    Some("") => found.clear(),
                    _ => found.push(value),
                }
            }
        }
    }
    found
}

fn last<'a>(roots: &'a [Node], section: &str, key: &str) -> Option<&'a str> {
    all(roots, section, key).last().and_then(|node| node.scalar())
}

fn service(source: &Source<'_>, ledger: &mut Ledger, app: &mut App, name: &str, roots: &[Node], job: Option<Job>) {
    let plain = name.trim_end_matches(".service");
    let starts = all(roots, "Service", "ExecStart");
    let node = &roots[0];
    if starts.is_empty() {
        roots.iter().for_each(|root| ledger.left(root, "it starts nothing: it has no `ExecStart`"));
        return;
    }
    let specifiers = exec::Specifiers::of(name);
    let mut service = Service::new(app.service_name(&name_of(plain, "app")), node);
    if let Some(text) = last(roots, "Unit", "Description") {
        service.comments.push(specifiers.expand(text).trim().to_owned());
    }
    service.network = Some("host");
    service.restart = Some(Restart::Never);
    // What a timer starts is started again by it alone, unless `Restart` says otherwise.
    service.job = job.map(|job| Job { retries: Some(0), ..job });
    let mut context = settings::Context { source, specifiers: &specifiers, roots };
    for (section, lines) in roots.iter().flat_map(Node::entries) {
        for (key, value) in lines.entries() {
            context.setting(ledger, app, &mut service, section, key, value);
        }
    }
    context.program(ledger, &mut service);
    ledger.note(
        crate::report::Verdict::Changed,
        node,
        "network: \"host\", as of a unit; a star without this wall is noted among the events",
    );
    app.services.push(service);
}

/// A service whose timer says what no schedule does.
fn left(ledger: &mut Ledger, app: &mut App, name: &str, roots: &[Node], timer: &[Node], why: &str) {
    let lines = timer.iter().flat_map(Node::entries).filter(|(section, _)| section == "Timer");
    let when = lines.flat_map(|(_, lines)| lines.entries()).filter(|(key, _)| key.starts_with("On"));
    let when: Vec<String> = when.map(|(key, value)| format!("{key}={}", value.scalar().unwrap_or_default())).collect();
    let specifiers = exec::Specifiers::of(name);
    let line = last(roots, "Service", "ExecStart").unwrap_or_default();
    let command = exec::words(&specifiers.expand(line)).0;
    let command = command.iter().map(crate::text::Text::by_default).collect();
    let name = name_of(name.trim_end_matches(".service"), "job");
    app.leave_job(ledger, &roots[0], LeftJob { name, when: when.join("; "), command }, why);
    roots[1..].iter().for_each(|root| ledger.left(root, "of that job"));
}

/// A unit that is no service.
fn other(ledger: &mut Ledger, name: &str, root: &Node, used: bool) {
    let kind = name.rsplit('.').next().unwrap_or_default();
    let text = match kind {
        "timer" if used => "when a job runs that is not carried",
        "timer" => "a timer whose service is not among these files",
        "socket" => "an entry point waits for requests while a service starts: `port` and `listen` of the service",
        "mount" | "automount" | "swap" => "a star sees nothing of the host's file systems but its programs",
        "target" | "slice" | "scope" => "services are not grouped: an app is what belongs together",
        "path" => "nothing starts when a file changes",
        _ => "it has no `[Service]`",
    };
    ledger.left(root, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_sections_are_read_as_systemd_does() {
        let text = "# no\n[Service]\nExecStart=/bin/a \\\n  --b \\\n# within\n  --c\nEnvironment=A=1\n\n[Service]\nExecStart=\nExecStart=/bin/z\n";
        let root = parse(text);
        let roots = [root];
        assert_eq!(last(&roots, "Service", "ExecStart"), Some("/bin/z"));
        assert_eq!(all(&roots, "Service", "ExecStart").len(), 1);
        let first = roots[0].entries()[0].1.get("ExecStart").unwrap();
        assert_eq!((first.scalar(), first.line), (Some("/bin/a  --b  --c"), 3));
    }

    #[test]
    fn a_drop_in_belongs_to_the_unit_of_its_folder() {
        assert_eq!(unit_name("/etc/systemd/system/web.service.d/10-limits.conf"), "web.service");
        assert_eq!(unit_name("units/web.service"), "web.service");
    }
}
