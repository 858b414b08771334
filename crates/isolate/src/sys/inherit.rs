//! Descriptors that come from the program this process was before an exec.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::check;

/// Takes over a descriptor by its number. Refused unless it is open across an exec, as only what was handed over is: all
/// that this program opens is not, and what was taken once is not any more.
pub(crate) fn take(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: looks at a descriptor's flags, and fails when there is none.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    if number <= libc::STDERR_FILENO || flags & libc::c_long::from(libc::FD_CLOEXEC) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {number} was not handed over")));
    }
    // SAFETY: sets a descriptor's flags.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open, and nobody here owns it: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::io::FdFlags;

    use super::*;

    #[test]
    fn only_what_was_handed_over_is_taken_and_once() {
        let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let number = reader.as_raw_fd();
        for wrong in [-1, 0, 2, number, 1 << 20] {
            assert!(take(wrong).is_err(), "{wrong}");
        }
        rustix::io::fcntl_setfd(&reader, FdFlags::empty()).unwrap();
        std::mem::forget(reader);
        let taken = take(number).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(take(number).is_err());
    }
}
