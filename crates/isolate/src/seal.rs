//! Files in memory that nobody can change any more.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::SealFlags;
use rustix::io::Errno;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// How often a busy file is asked for again. The kernel itself waits up to 150 ms each time, so this is some 3 s.
const ASKED_MOST: u32 = 20;

/// Seals a file of `memfd_create` that allows it: from here on its content and length stay as they are.
///
/// The kernel refuses while somebody holds a page of it, which it cannot tell from somebody who may write to it. A page
/// that was just written is held for moments by the kernel's own lists, on a busy machine for longer than one call waits.
///
/// # Errors
///
/// `ResourceBusy` if the file stays mapped writable or its pages held; whatever else `fcntl` says.
pub fn seal(file: impl AsFd) -> io::Result<()> {
    let mut asked = 1;
    loop {
        match rustix::fs::fcntl_add_seals(&file, SEALS) {
            Err(Errno::BUSY) if asked < ASKED_MOST => asked += 1,
            result => return result.map_err(io::Error::from),
        }
    }
}

/// Whether a file has been given to [`seal`].
pub fn is_sealed(file: impl AsFd) -> bool {
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, Write};
    use std::time::Duration;

    use rustix::fs::MemfdFlags;
    use rustix::pipe::SpliceFlags;

    use super::*;

    #[test]
    fn a_page_that_is_held_for_a_moment_is_waited_for() {
        let mut file = File::from(rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap());
        file.write_all(&[7; 4096]).unwrap();
        file.rewind().unwrap();
        // A pipe holds the pages that were spliced into it.
        let pipe = rustix::pipe::pipe().unwrap();
        assert_eq!(rustix::pipe::splice(&file, None, &pipe.1, None, 4096, SpliceFlags::empty()).unwrap(), 4096);
        assert_eq!(rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE), Err(Errno::BUSY), "the control");
        assert!(!is_sealed(&file));
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            drop(pipe);
        });
        seal(&file).unwrap();
        assert!(is_sealed(&file));
        assert!(file.write_all(&[0]).is_err());
        holder.join().unwrap();
    }
}
