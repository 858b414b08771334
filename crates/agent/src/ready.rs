//! Descriptors of the runtime's reactor: anything that owns one can be waited for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use tokio::io::unix::AsyncFd;

/// Something that owns a descriptor, for the reactor.
#[derive(Debug)]
pub(crate) struct Ready<T>(pub(crate) T);

impl<T: AsFd> AsRawFd for Ready<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Hands a descriptor to the reactor. It must be non-blocking.
#[allow(
    deprecated,
    reason = "its successor is an unsafe function, whose condition holds: what is inside owns its \
                              descriptor (`AsFd`) and is neither replaced nor closed while it is registered"
)]
pub(crate) fn register<T: AsFd>(owner: T) -> io::Result<AsyncFd<Ready<T>>> {
    AsyncFd::new(Ready(owner))
}
