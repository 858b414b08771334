//! Which calls were under way when something was thrown, and how that is told to people.

use crate::heap::{Heap, Obj, TracePoint};
use crate::step::{Location, TraceLine, Uncaught};
use crate::value::Value;
use crate::vm::Vm;

/// Calls kept of a trace from its inner end, and from its outer end.
const TRACE_INNER: usize = 24;
const TRACE_OUTER: usize = 8;

impl Vm {
    /// The calls under way, innermost first, cut in the middle when there are very many.
    pub(crate) fn trace(&self) -> Vec<TracePoint> {
        // What the compiler wraps around a spawned call has no name and is no call of the program's.
        let named = || self.frames.iter().rev().filter(|f| !self.heap.program.function(f.function).name.is_empty());
        let count = named().count();
        let mut trace = Vec::with_capacity(count.min(TRACE_INNER + TRACE_OUTER) + 1);
        let mut skipped = 0;
        for (n, frame) in named().enumerate() {
            if count > TRACE_INNER + TRACE_OUTER && n >= TRACE_INNER && n < count - TRACE_OUTER {
                skipped += 1;
                continue;
            }
            trace.push(TracePoint { function: frame.function, pc: frame.pc.saturating_sub(1), skipped });
            skipped = 0;
        }
        trace.extend(self.running_origin());
        trace
    }
}

impl Heap {
    /// What an error that left its task tells.
    pub(crate) fn uncaught(&self, value: Value, trace: &[TracePoint]) -> Uncaught {
        let mut message = String::new();
        self.display(value, &mut message);
        let mut uncaught = Uncaught { message, kind: None, trace: Vec::new() };
        let mut points = trace;
        if let Value::Error(handle) = value
            && let Obj::Error(error) = self.get(handle)
        {
            uncaught.kind = Some(error.kind.to_string());
            if let Some(own) = &error.trace {
                points = own;
            }
        }
        uncaught.trace = self.trace_lines(points);
        uncaught
    }

    pub(crate) fn trace_lines(&self, points: &[TracePoint]) -> Vec<TraceLine> {
        let line = |point: &TracePoint| {
            let at: Location = self.program.location(point.function, point.pc);
            TraceLine {
                file: self.program.path(at.file).to_owned(),
                line: self.program.line_column(at).0,
                function: self.program.function(point.function).name.to_string(),
                skipped: point.skipped,
            }
        };
        points.iter().map(line).collect()
    }
}
