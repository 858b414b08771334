//! An agent whose data folder is taken from under it ends at once: whatever it wrote from then on, and acknowledged, would be in
//! files that nobody finds again. Its stars stay with their nursery, as after any end of an agent.

use std::sync::Arc;
use std::time::Duration;

use model::{Code, Problem};
use store::DataDir;

use crate::clock;

/// Two looks at a file's number cost microseconds; what is acknowledged between two of them may be lost with the folder.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks until the folder is gone; ends the process then.
pub(crate) async fn watch(folder: Arc<DataDir>) {
    while !folder.is_gone() {
        clock::rest(LOOK_EVERY).await;
    }
    eprintln!("{}", gone(&folder));
    // Ending in order would write more of what is lost.
    std::process::exit(1);
}

fn gone(folder: &DataDir) -> Problem {
    let path = folder.path().display();
    let message = format!("`{path}` is gone: somebody removed or moved it while its agent ran");
    Problem::new(Code::DataUnwritable, message).help(
        "if it was moved, start an agent where it is now: it takes its stars over; if it was removed, its stars run on until \
         the process `rads nursery` that is named after it gets SIGTERM",
    )
}
