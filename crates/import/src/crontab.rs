//! Crontabs, of a user or of the system: every line that says when becomes a job with a schedule.

use model::{Code, Missed, Overlap, Problem};

use crate::draft::{App, Job, Schedule, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::text::Text;
use crate::tree::{Node, Value};
use crate::{LeftJob, Source, check_lines, env, host, shell, text_of};

const MACROS: [&str; 8] = ["@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

pub(crate) fn read(source: &Source<'_>, ledger: &mut Ledger, app: &mut App) -> Result<(), Problem> {
    for file in source.files {
        let mut items = Vec::new();
        let text = text_of(file)?;
        check_lines(file, text)?;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                items.push((String::new(), Node::text(u32::try_from(at + 1).unwrap_or(u32::MAX), line)));
            }
        }
        let mut root = Node::new(1, Value::Map(items));
        ledger.enter(&mut root, &file.name, "");
        // Files of the system have the user in every line; one that is known is enough to tell them.
        let mut lines = root.entries().iter().filter_map(|(_, item)| entry(item.scalar()?));
        let has_users = is_systems(&file.name) || lines.any(|line| names_user(line.rest));
        let mut reader =
            Reader { has_users, variables: Vec::new(), zone: None, shell: "sh".to_owned(), zone_is_told: false };
        for (_, node) in root.entries() {
            reader.line(ledger, app, node);
        }
    }
    match app.services.is_empty() && app.left.is_empty() {
        true => Err(Problem::new(Code::FileUnreadable, "there is no line of a crontab in it")
            .help("a line is `minute hour day month weekday command`, or `@daily command`")),
        false => Ok(()),
    }
}

/// `/etc/crontab`, and what lies in `/etc/cron.d`.
fn is_systems(name: &str) -> bool {
    name == "/etc/crontab" || name.contains("cron.d/")
}

/// When, and what.
struct Entry<'a> {
    schedule: String,
    rest: &'a str,
}

fn entry(line: &str) -> Option<Entry<'_>> {
    if line.starts_with('@') {
        let (word, rest) = line.split_once(char::is_whitespace)?;
        return MACROS.contains(&word).then(|| Entry { schedule: word.to_owned(), rest: rest.trim_start() });
    }
    let mut rest = line;
    let mut fields = Vec::new();
    for _ in 0..5 {
        let (field, behind) = rest.split_once(char::is_whitespace)?;
        if !is_time(field) {
            return None;
        }
        fields.push(field);
        rest = behind.trim_start();
    }
    (!rest.is_empty()).then(|| Entry { schedule: fields.join(" "), rest })
}

/// Whether a word can be one of the five times: numbers, names of months and days, and the signs between them.
fn is_time(field: &str) -> bool {
    const NAMES: [&str; 22] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", "sun", "mon", "tue", "wed",
        "thu", "fri", "sat", "l", "w", "lw",
    ];
    let mut words = field.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let legal = |c: char| c.is_ascii_alphanumeric() || "*/,-?#~".contains(c);
    !field.is_empty()
        && field.chars().all(legal)
        && words.all(|word| NAMES.contains(&word.to_ascii_lowercase().as_str()))
}

/// Whether what follows the times begins with the name of a user that is no program.
fn names_user(rest: &str) -> bool {
    const USUAL: [&str; 8] = ["root", "www-data", "nobody", "postgres", "ubuntu", "debian", "apache", "nginx"];
    let mut words = rest.split_whitespace();
    words.next().is_some_and(|word| USUAL.contains(&word)) && words.next().is_some()
}

/// As users are called: no path, and nothing of a shell.
fn is_user(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// What lines before one say of it.
struct Reader<'a> {
    has_users: bool,
    variables: Vec<(&'a str, &'a str, &'a Node)>,
    zone: Option<&'a str>,
    shell: String,
    /// That times are by the clock of UTC.
    zone_is_told: bool,
}

impl<'a> Reader<'a> {
    fn line(&mut self, ledger: &mut Ledger, app: &mut App, node: &'a Node) {
        let text = node.scalar().unwrap_or_default();
        if let Some(entry) = entry(text) {
            self.job(ledger, app, node, &entry);
            return;
        }
        let variable = text.split_once('=').map(|(name, value)| (name.trim(), unquoted(value.trim())));
        match variable.filter(|(name, _)| shell::is_variable(name)) {
            Some(("MAILTO" | "MAILFROM", _)) => {
                ledger.left(node, "what a star writes is kept by its agent: `rads c logs`")
            }
            Some(("CRON_TZ", zone)) => match Schedule::new("@daily", Some(zone)) {
                Ok(_) => {
                    self.zone = Some(zone);
                    ledger.carried(node, "zone of the jobs below it");
                }
                Err(why) => ledger.left(node, why),
            },
            Some(("SHELL", shell)) if shell.starts_with('/') && !shell.contains(char::is_whitespace) => {
                shell.clone_into(&mut self.shell);
                ledger.carried(node, "the shell of the jobs below it that take one");
            }
            Some((name, value)) => self.variables.push((name, value, node)),
            None => ledger.left(node, "it is no line of a crontab"),
        }
    }

    fn job(&mut self, ledger: &mut Ledger, app: &mut App, node: &Node, entry: &Entry<'_>) {
        let (user, command) = match self.has_users {
            true => {
                entry.rest.split_once(char::is_whitespace).filter(|(user, _)| is_user(user)).unwrap_or(("", entry.rest))
            }
            false => ("", entry.rest),
        };
        let command = command.trim_start();
        // What follows a `%` is what the command reads.
        let (line, input) = percent(command);
        let words = self.words(&line, input.as_deref());
        let wanted = crate::names::name_of(&host::called(command), "job");
        let schedule = match Schedule::new(&entry.schedule, self.zone) {
            Ok(schedule) => schedule.with(Overlap::Skip, Missed::Skip),
            Err(why) => {
                let why = match entry.schedule.as_str() {
                    "@reboot" => "no job runs when a machine starts; what is to run on is a service".to_owned(),
                    _ => why,
                };
                let (name, when) = (app.service_name(&wanted), format!("at `{}`", entry.schedule));
                app.leave_job(ledger, node, LeftJob { name, when, command: words }, &why);
                return;
            }
        };
        let mut service = Service::new(app.service_name(&wanted), node);
        let unseen = host::unseen(&line);
        service.command = words.into_iter().map(Text::from).collect();
        service.network = Some("host");
        for (name, value, at) in &self.variables {
            env::set(app, ledger, &mut service, at, name, (*value).into());
        }
        if !matches!(user, "" | "root") {
            let text = format!("not as `{user}`, but as a star's root, which is nobody on the host");
            ledger.note(crate::report::Verdict::Changed, node, text);
        }
        let when = match &self.zone {
            Some(zone) => format!("by the clock of {zone}"),
            None => "by the clock of UTC".to_owned(),
        };
        let text = format!(
            "job `{}`, `{}` {when}; a run that is due while the last one runs is left out",
            service.name,
            schedule.cron()
        );
        match (unseen, self.zone.is_some() || schedule.is_hourly()) {
            (Some(path), _) => ledger.changed(
                node,
                format!("{text}; a star does not see the host's `{path}`")
                    .help("put what it takes beside the app, as ./program or in `assets`"),
            ),
            (None, true) => ledger.carried(node, text),
            (None, false) if std::mem::replace(&mut self.zone_is_told, true) => ledger.changed(node, text),
            (None, false) => ledger.changed(node, text.help("zone: \"Europe/Berlin\" and the like say whose clock")),
        }
        // Nobody tries again there.
        service.job = Some(Job { retries: Some(0), schedule: Some(schedule), ..Job::default() });
        app.services.push(service);
    }

    /// Words of the command, or a shell that reads the line.
    fn words(&self, line: &str, input: Option<&str>) -> Vec<String> {
        match shell::simple(line) {
            Some(words) if input.is_none() && words.iter().all(|word| word.fixed().is_some()) => {
                words.iter().map(Text::by_default).collect()
            }
            _ => {
                let line = match input {
                    Some(input) => format!("printf %s {} | {{ {line}; }}", shell::quoted(input)),
                    None => line.to_owned(),
                };
                vec![self.shell.clone(), "-c".to_owned(), line]
            }
        }
    }
}

/// Without the quotes around it.
fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

/// A command and what it reads: an unescaped `%` ends the one, and each further one is a line's end in the other.
fn percent(text: &str) -> (String, Option<String>) {
    let (mut command, mut input) = (String::new(), None::<String>);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let to = input.as_mut();
        match (c, chars.peek()) {
            ('\\', Some('%')) => {
                chars.next();
                to.unwrap_or(&mut command).push('%');
            }
            ('%', _) => match to {
                Some(input) => input.push('\n'),
                None => input = Some(String::new()),
            },
            (c, _) => to.unwrap_or(&mut command).push(c),
        }
    }
    (command, input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_apart_into_when_and_what() {
        let check = |line: &str, schedule: &str, rest: &str| {
            let read = entry(line).unwrap();
            assert_eq!((read.schedule.as_str(), read.rest), (schedule, rest), "{line}");
        };
        check("*/5 * * * *  run it", "*/5 * * * *", "run it");
        check("0\t3 * * MON-FRI root x", "0 3 * * MON-FRI", "root x");
        check("@daily x y", "@daily", "x y");
        check("0 0 l jan,FEB mon#1 x", "0 0 l jan,FEB mon#1", "x");
        assert!(entry("This cron job will play the file").is_none());
        for bad in ["A=1", "* * * *", "* * * * *", "@never x", "", "a b c d e! f"] {
            assert!(entry(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_follows_a_percent_sign_is_read_by_the_command() {
        assert_eq!(percent(r"date +\%F"), ("date +%F".to_owned(), None));
        assert_eq!(percent("mail x%a%b"), ("mail x".to_owned(), Some("a\nb".to_owned())));
    }
}
