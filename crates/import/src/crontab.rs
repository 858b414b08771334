//! Crontabs, of a user or of the system: everything in them is a job, which an app cannot say yet.

use model::{Code, Problem};

use crate::draft::App;
use crate::ledger::{Ledger, WithHelp as _};
use crate::shell;
use crate::tree::{Node, Value};
use crate::{Job, Source, check_lines, text_of};

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
        // Files of the system have the user in every line.
        let lines: Vec<Entry<'_>> = root.entries().iter().filter_map(|(_, item)| entry(item.scalar()?)).collect();
        let has_users = is_systems(&file.name) || !lines.is_empty() && lines.iter().all(|line| names_user(line.rest));
        for (_, node) in root.entries() {
            line(ledger, app, node, has_users);
        }
    }
    match app.jobs.is_empty() {
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
        let legal = |c: char| c.is_ascii_alphanumeric() || "*/,-?LW#~".contains(c);
        if field.is_empty() || !field.chars().all(legal) {
            return None;
        }
        fields.push(field);
        rest = behind.trim_start();
    }
    (!rest.is_empty()).then(|| Entry { schedule: fields.join(" "), rest })
}

/// Whether what follows the times begins with the name of a user that is no program.
fn names_user(rest: &str) -> bool {
    const USUAL: [&str; 8] = ["root", "www-data", "nobody", "postgres", "ubuntu", "debian", "git", "mail"];
    rest.split_whitespace().next().is_some_and(|word| USUAL.contains(&word))
}

fn line(ledger: &mut Ledger, app: &mut App, node: &Node, has_users: bool) {
    let text = node.scalar().unwrap_or_default();
    let Some(Entry { schedule, rest }) = entry(text) else {
        let variable = text.split_once('=').map(|(name, _)| name.trim()).filter(|name| shell::is_variable(name));
        match variable {
            Some("MAILTO" | "MAILFROM") => ledger.left(node, "what a star writes is kept by its agent: `rads c logs`"),
            Some(name) => {
                ledger.left(
                    node,
                    format!("variable `{name}` of the jobs below it")
                        .help("give it to them by `env`, once they are carried"),
                );
            }
            None => ledger.left(node, "it is no line of a crontab"),
        }
        return;
    };
    let (user, command) = match has_users {
        true => rest.split_once(char::is_whitespace).map_or(("", rest), |(user, command)| (user, command.trim_start())),
        false => ("", rest),
    };
    let program = command.split_whitespace().next().unwrap_or("job").to_owned();
    // What follows a `%` is what the command reads.
    let (command, input) = percent(command);
    let words: Vec<String> = match shell::simple(&command) {
        Some(words) if input.is_none() && words.iter().all(|word| word.fixed().is_some()) => {
            words.iter().map(crate::text::Text::by_default).collect()
        }
        _ => {
            let line = match input {
                Some(input) => format!("printf %s {} | {{ {command}; }}", shell::quoted(&input)),
                None => command,
            };
            vec!["sh".to_owned(), "-c".to_owned(), line]
        }
    };
    let program = program.rsplit('/').next().unwrap_or("job");
    let name = app.service_name(&crate::names::name_of(program.split('.').next().unwrap_or("job"), "job"));
    let place = ledger.place(node);
    if !user.is_empty() && user != "root" {
        ledger.note(crate::report::Verdict::NotCarried, node, format!("user `{user}`: a star's user is a number"));
    }
    app.job(ledger, node, Job { name, schedule: Some(schedule), command: words, place });
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
