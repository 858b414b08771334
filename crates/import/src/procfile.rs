//! A Procfile: a line for each kind of process, `web: bundle exec puma`. Only `web` is called from outside, at `$PORT`.

use model::{Code, Problem};

use crate::draft::{App, Job, Listen, Restart, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::report::Verdict;
use crate::shell;
use crate::text::{Piece, Text};
use crate::tree::{Node, Value};
use crate::{Source, check_lines, text_of};

/// Where `web` listens when nobody says: what foreman gives the first process.
const WEB_PORT: u16 = 5000;

pub(crate) fn read(source: &Source<'_>, ledger: &mut Ledger, app: &mut App) -> Result<(), Problem> {
    for file in source.files {
        let mut entries = Vec::new();
        let text = text_of(file)?;
        check_lines(file, text)?;
        for (at, line) in text.lines().enumerate() {
            let line_number = u32::try_from(at + 1).unwrap_or(u32::MAX);
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let (name, command) = line.split_once(':').unwrap_or(("", line));
            entries.push((name.trim().to_owned(), Node::text(line_number, command.trim())));
        }
        let mut root = Node::new(1, Value::Map(entries));
        ledger.enter(&mut root, &file.name, "");
        for (name, node) in root.entries() {
            process(ledger, app, name, node);
        }
    }
    match app.services.is_empty() {
        true => Err(Problem::new(Code::FileUnreadable, "there is no process in it")
            .help("a line of a Procfile is `web: bundle exec puma`")),
        false => Ok(()),
    }
}

fn process(ledger: &mut Ledger, app: &mut App, name: &str, node: &Node) {
    let line = node.scalar().unwrap_or_default();
    let sound = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if !sound || line.is_empty() {
        ledger.left(node, "it is not `NAME: COMMAND`");
        return;
    }
    let mut service = Service::new(app.service_name(name), node);
    let (command, how) = command(line);
    service.command = command;
    service.network = Some("bridge");
    if matches!(name, "release" | "postdeploy") {
        // What fails stops a release there; nobody tries it again.
        service.job = Some(Job { retries: Some(0), ..Job::default() });
        ledger.changed(
            node,
            format!(
                "job `{}`, {how}: it runs when the app is put up, beside its services and not before them",
                service.name
            )
            .help(format!(
                "a service that cannot do without it ends and is started again; `rads c wait {}`",
                service.name
            )),
        );
        app.services.push(service);
        return;
    }
    service.restart = Some(Restart::Always);
    if name == "web" || line.contains("$PORT") || line.contains("${PORT") {
        let (listen, _) = app.listen(Listen::new(Listen::HERE, WEB_PORT));
        (service.port, service.listen, service.http) = (Some(WEB_PORT), Some(listen), true);
        let text = "it listens on `$PORT`, which is 5000 within its star, and is reached at 127.0.0.1:5000";
        ledger.note(Verdict::Carried, node, text.help("listen: \"*:80\" for everybody"));
    }
    ledger.carried(
        node,
        format!("service `{}`, {how}", service.name).help(
            "what the program needs of files goes into `assets`, of variables into `env`; interpreters are the host's",
        ),
    );
    app.services.push(service);
}

/// Words, or a shell that reads the line. `$PORT` a star knows; of other variables the shell does.
fn command(line: &str) -> (Vec<Text>, &'static str) {
    let known = |word: &Text| word.variables().iter().all(|name| *name == "PORT");
    match shell::simple(line).filter(|words| words.iter().all(known)) {
        Some(words) => (words.iter().map(|word| Text::from(in_shell_words(word))).collect(), "word by word"),
        None => (vec!["sh".into(), "-c".into(), line.into()], "by a shell"),
    }
}

/// A word with its variables as a shell writes them.
fn in_shell_words(word: &Text) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Fixed(text) => text.clone(),
        Piece::Env { name, .. } => format!("${{{name}}}"),
    };
    word.0.iter().map(piece).collect()
}
