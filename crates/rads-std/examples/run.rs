//! `cargo run -p rads-std --example run -- [--memory-mb N] FILE [ARGS…]`: runs one script with the library and nothing else around it.
//! The tests drive it as a process; the real thing is `rads run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rads_std::{Output, RunOptions, load, run};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let mut limits = rads_vm::Limits::default();
    if args.next_if_eq("--memory-mb").is_some() {
        limits.memory = args.next().and_then(|megabytes| megabytes.parse().ok()).unwrap_or(1_usize) << 20;
    }
    let Some(file) = args.next() else {
        eprintln!("usage: run [--memory-mb N] FILE [ARGS…]");
        return ExitCode::from(2);
    };
    let file = PathBuf::from(file);
    let root = file.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let loaded = match load(&file, &root) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            return ExitCode::FAILURE;
        }
    };
    let options = RunOptions {
        args: args.collect(),
        env: std::env::vars().collect(),
        limits,
        root,
        ready: None,
        output: Output::Offered,
        way: rads_std::Way::Star,
    };
    ExitCode::from(run(loaded, options) as u8)
}
