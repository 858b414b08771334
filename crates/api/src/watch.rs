//! Watching what the log changes, by prefix.

use std::pin::Pin;

use futures_util::Stream;
use model::{Name, Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What is to be watched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// What keys begin with: `services/default/`, `stars/default/web/`, `nodes/`; nothing for all. Kinds are `apps`, `services`,
    /// `stars`, `volumes`, `secrets`, `namespaces` and `nodes`, all but the last with a namespace after them; `security` is one key.
    #[serde(default)]
    pub prefix: String,
    /// Everything after this index of the log; from now on when it is left out. The index of any answer, or of any line of an earlier
    /// watch, of any node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// What one command of the log changed, or without keys a bookmark: everything up to this index was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchLine {
    /// To resume from.
    pub index: u64,
    /// Keys that are new or other than they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Keys that are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Why this is the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl WatchLine {
    /// Keys, and whether each is there since.
    pub fn of<'k>(index: u64, keys: impl Iterator<Item = &'k (String, bool)>) -> Self {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for (key, there) in keys {
            if *there { &mut changed } else { &mut removed }.push(key.clone());
        }
        Self { index, changed, removed, problem: None }
    }

    pub fn bookmark(index: u64) -> Self {
        Self { index, changed: Vec::new(), removed: Vec::new(), problem: None }
    }

    pub fn cut_off(index: u64, problem: Problem) -> Self {
        Self { problem: Some(problem), ..Self::bookmark(index) }
    }

    /// Without the keys of other namespaces than those: what is left may be none.
    #[must_use]
    pub fn of_namespaces(mut self, sees: impl Fn(&Name) -> bool) -> Self {
        let keep = |key: &String| {
            let mut parts = key.split('/');
            match (parts.next(), parts.next()) {
                (Some("nodes"), _) => true,
                (Some("apps" | "services" | "stars" | "volumes" | "secrets" | "namespaces"), Some(namespace)) => {
                    namespace.parse().is_ok_and(|namespace| sees(&namespace))
                }
                _ => false,
            }
        };
        self.changed.retain(keep);
        self.removed.retain(keep);
        self
    }

    pub fn is_bookmark(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty() && self.problem.is_none()
    }
}

/// Lines as they come; ends when the agent does, or with a line that has a problem.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchLine, Problem>> + Send>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_namespaces_are_left_out() {
        let keys = [
            "apps/shop/web",
            "services/blog/web",
            "stars/shop/web/1",
            "volumes/blog/x",
            "secrets/shop/s",
            "namespaces/shop",
            "namespaces/blog",
            "nodes/a",
            "security",
            "other/shop/x",
            "apps",
        ];
        let all: Vec<(String, bool)> = keys.iter().map(|key| ((*key).to_owned(), key.len() % 2 == 0)).collect();
        let line = WatchLine::of(7, all.iter()).of_namespaces(|name| name.as_str() == "shop");
        let mut left: Vec<String> = [line.changed, line.removed].concat();
        left.sort();
        assert_eq!(
            (line.index, left),
            (
                7,
                ["apps/shop/web", "namespaces/shop", "nodes/a", "secrets/shop/s", "stars/shop/web/1"]
                    .map(str::to_owned)
                    .to_vec()
            )
        );
    }
}
