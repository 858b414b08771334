//! Work that blocks, on threads that are there for it.

use model::{Code, Problem};

/// Does what blocks on a thread for that.
pub(crate) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Problem::new(Code::Internal, format!("a request failed: {error}"))))
}
