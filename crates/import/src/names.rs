//! Names that a constellation takes, from names that others take.

use std::collections::{BTreeMap, BTreeSet};

use model::name::NAME_MAX_CHARS;

/// `[a-z0-9-]`, as near to the text as can be; `otherwise` when nothing is left of it.
pub(crate) fn name_of(text: &str, otherwise: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => name.push(c),
            _ if name.ends_with('-') || name.is_empty() => {}
            _ => name.push('-'),
        }
        if name.len() == NAME_MAX_CHARS {
            break;
        }
    }
    let name = name.trim_matches('-');
    if name.is_empty() { otherwise.to_owned() } else { name.to_owned() }
}

/// Names that are given once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    given: BTreeSet<String>,
    /// What the next one is numbered that is called so, too.
    next: BTreeMap<String, u32>,
}

impl Names {
    /// The name, or with a number behind it when it is taken.
    pub(crate) fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let number = self.next.entry(wanted.to_owned()).or_insert(2);
        while !self.given.insert(name.clone()) {
            let tail = format!("-{number}");
            let kept = wanted.len().min(NAME_MAX_CHARS - tail.len());
            name = format!("{}{tail}", wanted[..kept].trim_end_matches('-'));
            *number += 1;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_names() {
        let check = |text: &str, expected: &str| {
            let name = name_of(text, "app");
            assert_eq!(name, expected, "{text}");
            assert!(name.parse::<model::Name>().is_ok(), "{text}");
        };
        check("web", "web");
        check("My_App.v2", "my-app-v2");
        check("--a--b--", "a-b");
        check("ÄÖ", "app");
        check("", "app");
        check(&"x-".repeat(100), &"x-".repeat(32)[..63]);
    }

    #[test]
    fn no_name_is_given_twice() {
        let mut names = Names::default();
        let long = "x".repeat(63);
        let all: Vec<String> = ["a", "a", "a", &long, &long].iter().map(|name| names.fresh(name)).collect();
        assert_eq!(all[..3], ["a", "a-2", "a-3"]);
        assert!(all[4].len() == 63 && all[4] != all[3]);
    }
}
