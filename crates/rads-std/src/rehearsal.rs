//! A program that does nothing, compiled and run where nobody waits.
//!
//! A star is a copy of its nursery, and the kernel copies a page only when it is first touched. Most of the time from a
//! script's start to its first instruction goes by that way. What a rehearsal touches is there when the script comes.

use std::path::Path;

use rads_compile::{Sources, compile};

use crate::event_loop;
use crate::library::natives;
use crate::loading::Folder;
use crate::machine::functions;

/// A little of everything that the first lines of a usual service do.
const MOTIONS: &str = r#"
turbo parts = ["a", "b"];
turbo table = { name: "x", items: parts };
blast motion(count) {
    turbo text = "";
    for (turbo i = 0; i < count; i++) {
        text = text + `${i} ${table.name}`;
    }
    return text;
}
turbo began = time.monotonic_ns() + len(env.get("HOME", ""));
turbo done = parts.map(blast (part) { return part + motion(3); });
"#;

struct Motions;

impl Sources for Motions {
    fn read(&self, _: &str) -> Result<String, String> {
        // As a script is read; what it says is of no interest.
        let _ = Folder { root: Path::new("/proc/self") }.read("comm");
        Ok(MOTIONS.to_owned())
    }
}

/// Goes through a program's motions. What is left of it is memory that was touched and the event loop, made and open, which the
/// next [`run`](crate::run) of this thread takes: it asks nothing of the world.
pub fn rehearse() {
    functions();
    if let Some(program) = compile(&Motions, "motions.rads", &natives()).program {
        // Whether it ended is for a test to know.
        let _ = event_loop::rehearse(program);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use rads_vm::Limits;

    use super::*;
    use crate::{Output, RunOptions, Way, load, run};

    #[test]
    fn the_motions_are_a_program_that_runs_to_its_end_and_the_next_has_their_loop() {
        let compiled = compile(&Motions, "motions.rads", &natives());
        assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
        assert!(event_loop::rehearse(compiled.program.unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("next.rads");
        std::fs::write(&script, "process.exit(7);").unwrap();
        // The second has to make one.
        for _ in 0..2 {
            let options = RunOptions {
                args: Vec::new(),
                env: BTreeMap::new(),
                limits: Limits::default(),
                root: PathBuf::new(),
                ready: None,
                output: Output::Offered,
                way: Way::Star,
            };
            assert_eq!(run(load(&script, folder.path()).unwrap_or_else(|said| panic!("{said:?}")), options), 7);
        }
    }
}
