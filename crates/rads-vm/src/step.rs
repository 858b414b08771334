//! What goes in and out of a running machine: limits, steps, locations and errors nobody caught.

use std::fmt;

use crate::value::Value;

/// A source file, by its place in [`Program::files`](crate::Program::files).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A range of bytes of one file; the end is exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

/// Where in the source something happens. `Program::line_column` turns it into numbers for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub file: FileId,
    pub span: Span,
}

/// One task of one machine. Never reused by the machine that gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    /// A number for maps and logs.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A value kept alive from outside, until [`Vm::unroot`](crate::Vm::unroot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId(pub(crate) u32);

/// What one machine may use. A bound that is hit throws an error of kind `memory`, `budget` or `depth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all objects and task stacks. Growth is refused before it happens.
    pub memory: usize,
    /// Work done over the machine's life, counted at calls and backward jumps by the length of what ran; `None` is
    /// unbounded. The error it throws cannot be caught.
    pub instructions: Option<u64>,
    /// Nested calls of one task. A frame takes a few dozen bytes and its registers, so 10,000 cost about a megabyte.
    pub depth: u32,
    /// Collects garbage at every safe point. Slow; it makes a missing root show at once, so tests run under it.
    pub collect_always: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: 256 << 20, instructions: None, depth: 10_000, collect_always: false }
    }
}

/// Why [`Vm::run`](crate::Vm::run) returned.
#[derive(Debug)]
pub enum Step {
    /// A host native was called. Its task waits until `resume`; the arguments stay rooted until then.
    Call { task: TaskId, native: u32, receiver: Option<Value>, args: Vec<Value>, at: Location },
    /// Output of `echo`, newlines included; several calls may come out as one text.
    Echo { text: String },
    /// A task ended. The value stays valid until the next `run`. A spawned task whose handle the program holds comes out
    /// only when it failed and nobody awaited it.
    Finished { task: TaskId, outcome: Result<Value, Uncaught> },
    /// Every task waits: for the host, or, when no host call is open, for each other. Nothing happens until `resume` or
    /// `spawn`.
    Idle,
    /// The slice was used up; run again after serving what came in.
    Yielded,
}

/// An error that left its task. `Display` prints the message and the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncaught {
    /// What was thrown, as `echo` prints it; of an error object, its message.
    pub message: String,
    /// The kind of an error object; `None` for other thrown values.
    pub kind: Option<String>,
    /// Innermost call first.
    pub trace: Vec<TraceLine>,
}

/// One call of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLine {
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    pub function: String,
    /// How many innermost-first lines were left out before this one.
    pub skipped: u32,
}

impl fmt::Display for Uncaught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Some(kind) => write!(f, "error: {} ({kind})", self.message)?,
            None => write!(f, "error: uncaught `{}`", self.message)?,
        }
        for line in &self.trace {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.skipped > 0 {
            write!(f, "… {} more\n  ", self.skipped)?;
        }
        write!(f, "at {} ({}:{})", self.function, self.file, self.line)
    }
}

impl std::error::Error for Uncaught {}
