//! Agent and nursery as programs of their own: neither ends with the terminal or the process that started it.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::fault::{Doing, Fault};
use crate::sys;

/// Starts `exe` in a session of its own, with `log` (appended, only the owner may read it) as its output, and
/// returns its pid. It is nobody's child: its end is seen by what it leaves open, not by waiting for it.
pub fn launch_detached(exe: &Path, args: &[OsString], log: &Path) -> Result<u32, Fault> {
    sys::detach::launch(Command::new(exe).args(args), log).doing(|| format!("cannot start `{}`", exe.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_detached_program_has_its_own_session_and_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = ["-c".into(), "echo $$; cut -d' ' -f6 /proc/$$/stat; cat".into()];
        let pid = launch_detached(Path::new("/bin/sh"), &script, &log).unwrap();
        let expected = format!("{pid}\n{pid}\n");
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&log).unwrap() != expected {
            assert!(Instant::now() < deadline, "{:?}", std::fs::read_to_string(&log));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let fault = launch_detached(Path::new("/no/such/program"), &[], &folder.path().join("log")).unwrap_err();
        assert!(fault.to_string().starts_with("cannot start `/no/such/program`"), "{fault}");
    }
}
