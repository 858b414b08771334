//! Programs that a bundle has run at points of a container's life.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::groups::wait_until;
use super::plan::Hook;
use crate::fault::plain;

/// How long a hook without a time limit of its own may take. The specification has none; a hook that hangs for ever
/// must not hang everything that waits for it.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs a hook to its end, with the container's state on its standard input. What it writes goes where the runtime's
/// own output goes.
pub fn run(hook: &Hook, state: &[u8]) -> Result<(), String> {
    let name = hook.path.display();
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    if let Some(variables) = &hook.env {
        command.env_clear().envs(variables.iter().filter_map(|variable| variable.split_once('=')));
    }
    let mut child = command
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot run `{name}`: {}", plain(&error)))?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read it.
        let _ = input.write_all(state);
    }
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd: Result<OwnedFd, _> = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let limit = hook.timeout.unwrap_or(LONGEST);
    if let Ok(pidfd) = pidfd
        && !wait_until(&pidfd, Instant::now() + limit)
    {
        // With all it has started.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = child.wait();
        return Err(format!("`{name}` did not end within {} s", limit.as_secs()));
    }
    let status = child.wait().map_err(|error| format!("cannot wait for `{name}`: {}", plain(&error)))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("`{name}` ended with exit code {code}")),
        (None, signal) => Err(format!("`{name}` was killed by signal {}", signal.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["hook", "-c", script].map(str::to_owned).into(),
            env: Some(vec!["KEY=value".to_owned()]),
            timeout: timeout.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_only_its_own_environment() {
        run(&shell("test \"$(cat)\" = state && test \"$KEY\" = value && test -z \"$HOME\"", None), b"state").unwrap();
    }

    #[test]
    fn a_hook_that_fails_or_hangs_is_an_error_with_its_reason() {
        let check = |script, timeout, expected: &str| {
            let reason = run(&shell(script, timeout), b"").unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        };
        check("exit 3", None, "exit code 3");
        check("kill -9 $$", None, "signal 9");
        check("sleep 1000 & wait", Some(1), "did not end within 1 s");
        let gone = Hook { path: "/gone".into(), args: vec![], env: None, timeout: None };
        assert!(run(&gone, b"").unwrap_err().contains("cannot run `/gone`"));
    }
}
