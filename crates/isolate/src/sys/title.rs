//! What `ps` and `top` show of a process.

use std::fs;
use std::io;

/// Where the kernel looks for a process's command line: the memory its arguments were put in when it was started. A copy
/// of the process has it at the same place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Title {
    start: usize,
    length: usize,
}

impl Title {
    /// This process's own, as `/proc/self/stat` tells it (fields 48 and 49).
    pub(crate) fn find() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let fields: Vec<usize> = stat
            .rsplit_once(')')
            .map(|(_, after)| after.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
            .unwrap_or_default();
        match (fields.get(45), fields.get(46)) {
            (Some(&start), Some(&end)) if start != 0 && end > start => Ok(Self { start, length: end - start }),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the command line's place is not told")),
        }
    }

    /// Puts `text` in place of the command line, cut to the room there is, and of the process's name, of which the kernel
    /// keeps 15 bytes. The arguments the process was started with are gone then.
    pub(crate) fn set(self, text: &str, name: &str) {
        let mut bytes: Vec<u8> = text.bytes().take(self.length - 1).collect();
        bytes.resize(self.length, 0);
        // SAFETY: the kernel mapped this range for the arguments before the process began, writable, and it stays mapped;
        // the callers are copies of the process in which nobody looks at the arguments any more.
        unsafe {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        }
        if let Ok(name) = std::ffi::CString::new(name) {
            // Only for people to read.
            let _ = rustix::thread::set_name(&name);
        }
    }
}
