//! Mark and sweep. Marking keeps its own stack of objects, so a long list cannot exhaust the host's; a handle is followed
//! by what its slot holds, whatever the value claims, so a stale register can keep garbage for a while but never harm.

use crate::heap::{Heap, Obj, SLOT_BYTES};
use crate::value::{Handle, Value};

const MARKED: u8 = 1;

impl Heap {
    /// Marks what the heap itself keeps: constants and function values made so far.
    pub(crate) fn begin_marking(&mut self) {
        self.gray.clear();
        let kinds = self.kinds.iter().map(|(_, handle)| *handle);
        let kept = self.interned.iter().chain(&self.functions).flatten().copied().chain(kinds);
        for handle in kept {
            self.marks[handle.index()] = MARKED;
        }
    }

    pub(crate) fn mark_all(&mut self, values: &[Value]) {
        for value in values {
            self.mark(*value);
        }
    }

    pub(crate) fn mark(&mut self, value: Value) {
        self.mark_handle(value.handle());
    }

    #[inline]
    pub(crate) fn mark_handle(&mut self, handle: Option<Handle>) {
        let Some(handle) = handle else { return };
        if let Some(mark) = self.marks.get_mut(handle.index())
            && *mark != MARKED
        {
            *mark = MARKED;
            self.gray.push(handle);
        }
    }

    pub(crate) fn is_marked(&self, handle: Handle) -> bool {
        self.marks[handle.index()] == MARKED
    }

    /// Marks everything that marked objects lead to.
    pub(crate) fn trace_marked(&mut self) {
        let Heap { objects, marks, gray, .. } = self;
        let mut reach = |gray: &mut Vec<Handle>, handle: Option<Handle>| {
            if let Some(handle) = handle
                && let Some(mark) = marks.get_mut(handle.index())
                && *mark != MARKED
            {
                *mark = MARKED;
                gray.push(handle);
            }
        };
        while let Some(handle) = gray.pop() {
            match &objects[handle.index()] {
                Obj::Free(_) | Obj::Str { .. } | Obj::Buffer(_) | Obj::Bytes(_) | Obj::Host { .. } => {}
                Obj::Prefix { buffer, .. } => reach(gray, Some(*buffer)),
                Obj::Array(items) | Obj::Record { slots: items, .. } => {
                    for item in items {
                        reach(gray, item.handle());
                    }
                }
                Obj::Dict(dict) => {
                    for value in dict.values() {
                        reach(gray, value.handle());
                    }
                }
                Obj::Closure { cells, .. } => {
                    for cell in cells {
                        reach(gray, Some(*cell));
                    }
                }
                Obj::Cell(value) => reach(gray, value.handle()),
                Obj::Error(error) => reach(gray, error.data.handle()),
                Obj::Task(task) => {
                    if let Some(Ok(value) | Err(value)) = task.outcome {
                        reach(gray, value.handle());
                    }
                }
            }
        }
    }

    /// Frees what is not marked, and counts anew what is used.
    pub(crate) fn sweep(&mut self) {
        let mut used = self.outside;
        for at in 0..self.objects.len() {
            if self.marks[at] == MARKED {
                self.marks[at] = 0;
                used += SLOT_BYTES + Heap::owned_bytes(&self.objects[at]);
            } else if !matches!(self.objects[at], Obj::Free(_)) {
                self.release(at as u32);
            }
        }
        self.used = used;
        self.plan_collection();
    }
}
