//! Where something may be put inside a star: the rules of `model::interior`, kept while places are added one by one.

use model::interior::{PLACES_MAX, PlaceKind, check_place};

pub(crate) use model::interior::PlaceKind as Kind;

/// The places of one service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Vec<(String, PlaceKind)>);

impl Places {
    /// Takes a place, as it is to be written, or says why nothing can be there.
    pub(crate) fn take(&mut self, kind: PlaceKind, path: &str) -> Result<String, String> {
        let path = normal(path);
        if path == "/dev/shm" {
            return Err("a star has a `/dev/shm` of its own".to_owned());
        }
        check_place(kind, &path).map_err(str::to_owned)?;
        if self.0.len() >= PLACES_MAX {
            return Err(format!("a star has at most {PLACES_MAX} places"));
        }
        let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        for (other, other_kind) in &self.0 {
            if *other == path {
                return Err(format!("something else is at `{other}` already"));
            }
            let volumes = (kind, *other_kind) == (PlaceKind::Volume, PlaceKind::Volume);
            if !volumes && (within(&path, other) || within(other, &path)) {
                return Err(format!("`{other}`, where something else is, and it would lie within each other"));
            }
        }
        self.0.push((path.clone(), kind));
        Ok(path)
    }
}

/// Without `.`, doubled and last `/`; what climbs by `..` is left for the rules to refuse.
pub(crate) fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if path.starts_with('/') { format!("/{}", parts.join("/")) } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_once_and_not_within_each_other() {
        let mut places = Places::default();
        assert_eq!(places.take(Kind::Volume, "/data/").as_deref(), Ok("/data"));
        assert_eq!(places.take(Kind::Volume, "/data//sub/.").as_deref(), Ok("/data/sub"));
        for (kind, path) in [
            (Kind::Volume, "/data"),
            (Kind::Tmpfs, "/data/x"),
            (Kind::Bind, "/proc/x"),
            (Kind::Volume, "/dev/shm"),
            (Kind::Volume, "/"),
            (Kind::Volume, "relative"),
            (Kind::Bind, "/app"),
            (Kind::Bind, "/a/../b"),
        ] {
            assert!(places.take(kind, path).is_err(), "{path}");
        }
    }
}
