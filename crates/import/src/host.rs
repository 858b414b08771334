//! What programs of a host are to a star, and what a job that runs a line is called.

use crate::text::Piece;

/// Folders of its machine that a star sees.
const SEEN: [&str; 5] = ["/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/"];
/// Folders that it has itself.
const OWN: [&str; 6] = ["/dev/", "/proc/", "/tmp/", "/run/", "/var/tmp/", "/app/"];

/// Programs that run another one, or are not what a line is about.
const RUNNERS: [&str; 40] = [
    "sh",
    "bash",
    "dash",
    "zsh",
    "env",
    "nice",
    "ionice",
    "nohup",
    "sudo",
    "flock",
    "timeout",
    "exec",
    "cd",
    "test",
    "if",
    "then",
    "else",
    "python",
    "python2",
    "python3",
    "php",
    "perl",
    "ruby",
    "node",
    "java",
    "source",
    "export",
    "set",
    "sleep",
    "run-parts",
    "bundle",
    "rake",
    "npm",
    "command",
    "chronic",
    "echo",
    "time",
    "while",
    "true",
    "wget",
];

/// Whether a star sees a program of its machine: without a path it is looked for where programs are.
pub(crate) fn is_seen(path: &str) -> bool {
    !path.starts_with('/') || SEEN.iter().any(|folder| path.starts_with(folder) || path == folder.trim_end_matches('/'))
}

/// The first path of a line that no star sees.
pub(crate) fn unseen(line: &str) -> Option<String> {
    let words = crate::shell::words(line);
    let written = |piece: &Piece| match piece {
        Piece::Fixed(text) => text.clone(),
        Piece::Env { name, .. } => format!("${name}"),
    };
    let mut paths =
        words.iter().filter(|word| !word.is_operator).map(|word| word.text.0.iter().map(written).collect::<String>());
    let own = |path: &str| OWN.iter().any(|folder| path.starts_with(folder) || path == folder.trim_end_matches('/'));
    let of_home = |path: &str| path.starts_with("$HOME/") || path.starts_with("~/");
    // What holds a blank is a line of its own for another shell, or text.
    paths.find(|path| {
        (of_home(path) || !is_seen(path) && !own(path) && path.len() > 1) && !path.contains(char::is_whitespace)
    })
}

/// What the names of scripts end in.
const ENDINGS: [&str; 9] = [".sh", ".bash", ".py", ".php", ".pl", ".rb", ".js", ".jar", ".job"];

/// After what a command line is named: its script or program, without where that is and what kind of file it is.
pub(crate) fn called(line: &str) -> String {
    let plain = |word: &str| {
        let file = word.rsplit('/').next().unwrap_or_default();
        let ending = ENDINGS.iter().find_map(|ending| file.strip_suffix(ending));
        ending.unwrap_or(file).to_owned()
    };
    let words = line.split_whitespace().map(|word| word.trim_matches(|c: char| "\"'`;()[]{}&|<>!".contains(c)));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let is_name = |at: &usize| {
        let (word, name) = (words[*at], plain(words[*at]));
        // A folder that is gone to is not what is run there.
        let goes_to = *at > 0 && words[*at - 1] == "cd";
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
        begins && !goes_to && !word.contains(['=', '*', '%', '<', ',', ':']) && !RUNNERS.contains(&name.as_str())
    };
    let found = (0..words.len()).find(is_name).or(Some(0).filter(|_| !words.is_empty()));
    found.map_or_else(|| "job".to_owned(), |at| plain(words[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_called_after_what_it_runs() {
        let check = |line: &str, expected: &str| assert_eq!(called(line), expected, "{line}");
        check("/usr/local/bin/sync --quiet", "sync");
        check("/usr/bin/python3 /srv/app/daily_run.py --all >> /var/log/x 2>&1", "daily_run");
        check("", "job");
        check("cd /srv/app && ./nightly.sh", "nightly");
        check("sleep 10 && /home/x/gunicorn.sh", "gunicorn");
        check("run-parts /etc/cron.daily", "cron.daily");
        check("echo $(date)", "echo");
        check("$HOME/bin/daily.job", "daily");
    }

    #[test]
    fn what_no_star_sees_is_found_in_a_line() {
        let check = |line: &str, path: Option<&str>| assert_eq!(unseen(line).as_deref(), path, "{line}");
        check("/usr/bin/php /srv/cron.php", Some("/srv/cron.php"));
        check("/usr/bin/env > /dev/null 2>&1", None);
        check("cd / && tar cf /tmp/x .", None);
        check("find /tmp /usr -delete", None);
        check("sh -c '/opt/x y'", None);
        check("run >> /var/log/cron.log", Some("/var/log/cron.log"));
        check("$HOME/bin/x", Some("$HOME/bin/x"));
        check("~/bin/x 2>&1", Some("~/bin/x"));
    }
}
