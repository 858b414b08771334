//! Variables: which of them are secrets, and the files that hold them.

use crate::draft::{App, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::text::Text;
use crate::tree::{Node, Value};

/// Words in the name of a variable whose value nobody should read.
const SECRET_WORDS: [&str; 14] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PWD",
    "PASS",
    "SECRET",
    "TOKEN",
    "APIKEY",
    "API_KEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "SECRET_KEY",
    "CREDENTIAL",
    "CREDENTIALS",
];
/// Endings after which it is about a secret and not one.
const ABOUT_SECRETS: [&str; 18] = [
    "_FILE",
    "_PATH",
    "_DIR",
    "_NAME",
    "_TTL",
    "_URL",
    "_HOST",
    "_USER",
    "_ID",
    "_TYPE",
    "_LENGTH",
    "_EXPIRY",
    "_ENABLED",
    "_EXPIRATION",
    "_TIMEOUT",
    "_ALGORITHM",
    "_REQUIRED",
    "_POLICY",
];

/// Whether a value is to be kept out of the app: by the name it has, or because it holds a password itself.
pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    let value = value.trim();
    if value.is_empty() || matches!(value, "true" | "false" | "yes" | "no" | "0" | "1") {
        return false;
    }
    has_password(value) || is_secret_name(name)
}

pub(crate) fn is_secret_name(name: &str) -> bool {
    let upper: String = name.to_ascii_uppercase().replace(['-', '.'], "_");
    if upper == "PWD" || upper == "OLDPWD" || ABOUT_SECRETS.iter().any(|ending| upper.ends_with(ending)) {
        return false;
    }
    SECRET_WORDS.iter().any(|word| match word.len() {
        // Short ones are parts of other words, as in COMPASS.
        ..=4 => upper.split('_').any(|part| part == *word),
        _ => upper.contains(word),
    })
}

/// `scheme://user:password@host`.
fn has_password(value: &str) -> bool {
    value.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', ' ', '"']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
    })
}

/// Whether words hold a secret, as `--password=x`, `--token x` or an address with a password do.
pub(crate) fn holds_secret(words: &[Text]) -> bool {
    let plain: Vec<String> = words.iter().map(Text::by_default).collect();
    let option = |word: &str| word.starts_with('-') && is_secret_name(word.trim_start_matches('-'));
    plain.iter().enumerate().any(|(at, word)| {
        let next = plain.get(at + 1).filter(|next| !next.starts_with('-'));
        match word.split_once('=') {
            Some((name, value)) => option(name) && !value.is_empty() || has_password(value),
            None => option(word) && next.is_some() || has_password(word),
        }
    })
}

/// Whether the command of a service names a variable.
pub(crate) fn mentions(service: &Service, name: &str) -> bool {
    service.command.iter().any(|word| word.by_default().contains(name))
}

/// Takes a variable over, and tells of it at `node`.
pub(crate) fn set(app: &mut App, ledger: &mut Ledger, service: &mut Service, node: &Node, name: &str, value: Text) {
    let plain = value.by_default();
    // What comes from the environment of who deploys is not known here; its name says enough.
    let hidden = is_secret(name, &plain) || is_secret_name(name) && value.fixed().is_none();
    if hidden {
        let secret = app.secret(name, &plain, &service.name);
        match service.secret_variable(name, secret.clone()) {
            Ok(()) => {
                let text = format!("variable `{name}` is secret `{secret}`; its value is not in the app");
                ledger.changed(node, text.help(ledger.how_to_set(&secret)));
            }
            Err(why) => {
                ledger.left(node, format!("variable `{name}`: {why}").help("read it from a file, by `secrets`"))
            }
        }
        return;
    }
    let variables: Vec<String> = value.variables().iter().map(|name| format!("`{name}`")).collect();
    match service.variable(name, value) {
        Err(why) => ledger.left(node, format!("variable `{}`: {why}", name.escape_debug())),
        Ok(()) if variables.is_empty() => ledger.carried(node, format!("variable `{name}`")),
        Ok(()) => {
            let text = format!("variable `{name}`, with {} of the environment of `rads up`", variables.join(", "));
            ledger.carried(node, text);
        }
    }
}

/// A file of variables as Docker and systemd read it: a line `NAME=value` each, quotes taken off, `#` before a comment.
pub(crate) fn file(bytes: &[u8]) -> Node {
    let text = String::from_utf8_lossy(bytes);
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line_number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let node = match line.split_once('=') {
            Some((name, value)) => (name.trim().to_owned(), Node::text(line_number, unquoted(value.trim()))),
            // A name alone takes its value from the environment.
            None => (line.to_owned(), Node::new(line_number, Value::Null)),
        };
        entries.push(node);
    }
    Node::new(1, Value::Map(entries))
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}

/// Takes over a file of variables, which was read; every one of them is told.
pub(crate) fn set_file(
    app: &mut App,
    ledger: &mut Ledger,
    service: &mut Service,
    name: &str,
    bytes: &[u8],
    interpolate: bool,
) {
    let mut node = file(bytes);
    ledger.enter(&mut node, name, "");
    for (variable, value) in node.entries() {
        // A variable of the description itself holds before one of a file.
        if service.env.contains_key(variable) || service.env_secrets.contains_key(variable) {
            ledger.carried(value, format!("variable `{variable}` is given by the description itself"));
            continue;
        }
        let text = match value.scalar() {
            Some(text) if interpolate => crate::text::interpolated(text).0,
            Some(text) => text.into(),
            None => from_environment(variable),
        };
        set(app, ledger, service, value, variable, text);
    }
    if node.entries().is_empty() {
        ledger.carried(&node, "it holds no variables");
    }
}

/// The value that whoever deploys has in the same variable.
pub(crate) fn from_environment(name: &str) -> Text {
    Text(vec![crate::text::Piece::Env { name: name.to_owned(), otherwise: String::new() }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names_and_by_what_they_hold() {
        for (name, value) in [
            ("POSTGRES_PASSWORD", "x"),
            ("MYSQL_ROOT_PASSWORD", "12345"),
            ("API_TOKEN", "abc"),
            ("DB_PASS", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("DATABASE_URL", "postgres://app:hunter2@db:5432/app"),
            ("app.jwt-secret", "x"),
        ] {
            assert!(is_secret(name, value), "{name}");
        }
        for (name, value) in [
            ("POSTGRES_PASSWORD_FILE", "/run/secrets/db"),
            ("COMPASS", "north"),
            ("DATABASE_URL", "postgres://db:5432/app"),
            ("POSTGRES_PASSWORD", ""),
            ("ALLOW_EMPTY_PASSWORD", "yes"),
            ("TOKEN_TTL", "5m"),
            ("PWD", "/x"),
            ("URL", "http://a:@b/"),
        ] {
            assert!(!is_secret(name, value), "{name}");
        }
    }

    #[test]
    fn a_secret_among_the_words_of_a_command_is_seen() {
        let holds = |line: &str| holds_secret(&line.split(' ').map(Text::from).collect::<Vec<_>>());
        for yes in ["redis --requirepassword=x", "app --token abc", "app postgres://u:p@db/x", "app --url=amqp://a:b@c"]
        {
            assert!(holds(yes), "{yes}");
        }
        for no in ["app --password-file /x", "app --token", "app --token --fast", "app --user=x", "app http://a:80/"] {
            assert!(!holds(no), "{no}");
        }
    }

    #[test]
    fn files_of_variables_are_read_line_by_line() {
        let node = file(b"# no\nA=1\nexport B=\"x y\"\n\nC\nD=a=b\n");
        let pairs: Vec<_> = node.entries().iter().map(|(name, value)| (name.as_str(), value.scalar())).collect();
        assert_eq!(pairs, [("A", Some("1")), ("B", Some("x y")), ("C", None), ("D", Some("a=b"))]);
        assert_eq!(node.get("D").unwrap().line, 6);
    }
}
