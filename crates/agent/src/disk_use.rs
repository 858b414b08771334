//! What stars' writable places hold, remembered for a while: volumes have to be gone through, and whoever watches a table
//! asks every second.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::StarId;

/// A look is worth twenty times the time it took: so going through volumes takes a twentieth of a core at most, however
/// often it is asked for.
const WORTH: u32 = 20;
/// And at least this long: two who ask at once ask the same.
const WORTH_MIN: Duration = Duration::from_millis(400);

#[derive(Debug, Default)]
pub(crate) struct DiskUse {
    looks: Mutex<HashMap<StarId, Look>>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    stale_at: Instant,
    bytes: Option<u64>,
}

impl DiskUse {
    /// What a star's places hold now, or held a moment ago. Blocks for as long as it takes to look.
    pub(crate) fn of(&self, data_dir: &Path, star: StarId) -> Option<u64> {
        self.look(star, || isolate::disk_bytes(data_dir, star).unwrap_or_default())
    }

    fn look(&self, star: StarId, count: impl FnOnce() -> Option<u64>) -> Option<u64> {
        let began = Instant::now();
        if let Some(look) = self.looks().get(&star).filter(|look| look.stale_at > began) {
            return look.bytes;
        }
        let bytes = count();
        let now = Instant::now();
        let stale_at = now + (now.duration_since(began) * WORTH).max(WORTH_MIN);
        let mut looks = self.looks();
        // Those of stars nobody asks about any more go with the others' next look.
        looks.retain(|_, look| look.stale_at > now);
        looks.insert(star, Look { stale_at, bytes });
        bytes
    }

    fn looks(&self) -> std::sync::MutexGuard<'_, HashMap<StarId, Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_repeated_when_it_is_no_longer_worth_anything() {
        let known = DiskUse::default();
        assert_eq!(known.look(StarId(1), || Some(5)), Some(5));
        assert_eq!(known.look(StarId(1), || Some(6)), Some(5));
        assert_eq!(known.look(StarId(2), || None), None);
        known.looks().values_mut().for_each(|look| look.stale_at = Instant::now());
        assert_eq!(known.look(StarId(1), || Some(6)), Some(6));
        assert_eq!(known.looks().len(), 1, "what is stale is forgotten");
    }
}
