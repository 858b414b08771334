//! A program as text, for tests and for people who look at what the compiler makes.

use std::fmt::Write;

use crate::program::Program;

impl Program {
    /// Every function with its instructions, one a line.
    pub fn disassemble(&self) -> String {
        let mut text = String::new();
        for function in &self.functions {
            let _ = writeln!(
                text,
                "blast {} ({} params, {} registers, {} captures)",
                function.name,
                function.params.len(),
                function.registers,
                function.captures.len()
            );
            for (at, op) in function.code.iter().enumerate() {
                let _ = writeln!(text, "  {at:4} {op:?}");
            }
            for handler in &function.handlers {
                let _ =
                    writeln!(text, "  {}..{} -> {} r{}", handler.start, handler.end, handler.target, handler.register);
            }
        }
        text
    }
}
