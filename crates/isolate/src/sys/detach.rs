//! Starting a program that outlives its starter: in a session of its own, as a child of the system's init.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts `command` with nothing on standard input and `log` as standard output and error. The process in between
/// ends at once, so that the caller neither waits for the program nor leaves it a zombie.
pub(crate) fn launch(command: &mut Command, log: &Path) -> io::Result<u32> {
    let out = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let pid_to = writer.as_raw_fd();
    // SAFETY: the closure runs between fork and exec. It makes only async-signal-safe calls (fork, setsid, write,
    // _exit) and touches no memory but its own stack. `pid_to` is open: `writer` lives until after `spawn`.
    unsafe {
        command.pre_exec(move || match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let pid = libc::setsid().to_ne_bytes();
                match libc::write(pid_to, pid.as_ptr().cast(), pid.len()) {
                    -1 => Err(io::Error::last_os_error()),
                    _ => Ok(()),
                }
            }
            _ => libc::_exit(0),
        });
    }
    let between = command.spawn();
    drop(writer);
    between?.wait()?;
    let mut pid = [0; 4];
    std::fs::File::from(reader).read_exact(&mut pid)?;
    Ok(u32::from_ne_bytes(pid))
}
