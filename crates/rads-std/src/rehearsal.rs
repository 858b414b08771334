//! A program that does nothing, compiled and run where nobody waits.
//!
//! A star is a copy of its nursery, and the kernel copies a page only when it is first touched. Most of the time from a
//! script's start to its first instruction goes by that way. What a rehearsal touches is there when the script comes.

use std::sync::Arc;

use rads_compile::{Sources, compile};
use rads_vm::{Limits, Step, Vm};

use crate::library::natives;
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
turbo done = parts.map(blast (part) { return part + motion(3); });
"#;

/// Bounds a rehearsal that would not end.
const STEPS: usize = 100;

struct Motions;

impl Sources for Motions {
    fn read(&self, _: &str) -> Result<String, String> {
        Ok(MOTIONS.to_owned())
    }
}

/// Goes through a program's motions. It opens no file, makes no event loop and asks for nothing of the world; nothing is
/// left of it but memory that was touched.
pub fn rehearse() {
    functions();
    let Some(program) = compile(&Motions, "motions.rads", &natives()).program else { return };
    let mut vm = Vm::new(Arc::new(program), natives(), Limits::default());
    vm.start();
    for _ in 0..STEPS {
        match vm.run(10_000) {
            Step::Yielded => {}
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_motions_are_a_program_that_runs_to_its_end() {
        let compiled = compile(&Motions, "motions.rads", &natives());
        assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
        let mut vm = Vm::new(Arc::new(compiled.program.unwrap()), natives(), Limits::default());
        vm.start();
        let ended = (0..STEPS).map(|_| vm.run(10_000)).find(|step| !matches!(step, Step::Yielded));
        assert!(matches!(ended, Some(Step::Finished { outcome: Ok(_), .. })), "{ended:?}");
    }
}
