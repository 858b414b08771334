//! Looks at what becomes of services, for all tasks of a program that wait for some: however many they are, the agent is asked as often
//! as for one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use model::Problem;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::api::Api;

/// Least time between two looks: nobody notices it, and three requests each are less than a third of what a star may ask.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest wait for something to move. Some of what is shown of a service is no change of the log.
const WAIT_MS: u64 = 1_000;

#[derive(Default)]
pub(super) struct Looks {
    /// Held by the task that looks for all.
    looking: Mutex<()>,
    /// Counts the looks.
    last: Cell<u64>,
    at: Cell<Option<Instant>>,
    index: Cell<u64>,
    /// What the last one saw, by the names of the services.
    seen: RefCell<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Index {
    index: u64,
}

impl Looks {
    /// The last look; what begins from here on counts more.
    pub(super) fn last(&self) -> u64 {
        self.last.get()
    }

    /// What a service is at a later look than this: that look, and the service as JSON if it is there.
    pub(super) async fn after(&self, api: &Api, look: u64, key: &str) -> Result<(u64, Option<String>), Problem> {
        let _looking = self.looking.lock().await;
        if self.last.get() <= look {
            self.look(api).await?;
        }
        Ok((self.last.get(), self.seen.borrow().get(key).cloned()))
    }

    async fn look(&self, api: &Api) -> Result<(), Problem> {
        if self.at.get().is_some() {
            let path = format!("/v1/index?after={}&wait_ms={WAIT_MS}", self.index.get());
            api.get::<Index>(&path).await?;
        }
        if let Some(at) = self.at.get() {
            sleep_until(at + LOOK_EVERY).await;
        }
        // What is seen is at least as new as this.
        let Index { index } = api.get("/v1/index").await?;
        let views: Vec<Box<RawValue>> = api.get("/v1/services").await?;
        let named = views.iter().filter_map(|view| {
            #[derive(Deserialize)]
            struct Named {
                service: String,
            }
            let Named { service } = serde_json::from_str(view.get()).ok()?;
            Some((service, view.get().to_owned()))
        });
        *self.seen.borrow_mut() = named.collect();
        self.index.set(index);
        self.at.set(Some(Instant::now()));
        self.last.set(self.last.get() + 1);
        Ok(())
    }
}

/// As the program is told of it: the number of the look, and the service or null.
pub(super) fn told((look, view): (u64, Option<String>)) -> String {
    let view = view.and_then(|view| serde_json::from_str::<Value>(&view).ok()).unwrap_or(Value::Null);
    Value::from(vec![Value::from(look), view]).to_string()
}
