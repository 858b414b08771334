//! The heap: a slab of objects behind handles, and the account of every byte they hold.
//!
//! Nothing here collects by itself. Whoever grows something asks `charge` first; the interpreter collects between two
//! instructions, when all roots lie in registers, so code in the middle of an instruction never loses an object.

use std::sync::Arc;

use crate::dict::Dict;
use crate::native::Natives;
use crate::program::{Const, FunctionId, Program};
use crate::record::Shapes;
use crate::step::TaskId;
use crate::value::{Handle, Value};

/// What the slab itself costs for each object, next to what the object owns.
pub(crate) const SLOT_BYTES: usize = size_of::<Obj>() + 1;

/// Collections start once this much was allocated, however small the live heap: below it they cost more than they free.
const FLOOR_BYTES: usize = 512 << 10;

/// Texts at least this long that grow by `+` get a shared buffer; shorter ones are cheaper to copy.
const BUFFER_FROM: usize = 128;

/// One object.
#[derive(Debug)]
pub(crate) enum Obj {
    /// A free slot, and the next free one.
    Free(u32),
    Str {
        ascii: bool,
        text: Box<str>,
    },
    /// The first `len` bytes of a buffer that may have grown since.
    Prefix {
        ascii: bool,
        len: u32,
        buffer: Handle,
    },
    /// The bytes behind one or more prefixes. Appending to the longest of them extends it in place, which makes building
    /// a text in a loop linear.
    Buffer(String),
    Array(Vec<Value>),
    /// An object or struct whose keys are given by its shape.
    Record {
        shape: u32,
        slots: Vec<Value>,
    },
    /// An object with keys the program text does not name, or very many, or removed ones.
    Dict(Box<Dict>),
    Closure {
        function: FunctionId,
        cells: Box<[Handle]>,
    },
    Cell(Value),
    Error(Box<ErrorObj>),
    Bytes(Vec<u8>),
    Task(Box<TaskObj>),
    Host {
        kind: &'static str,
        id: u64,
    },
}

/// One call at the moment something was thrown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TracePoint {
    pub(crate) function: FunctionId,
    pub(crate) pc: u32,
    /// Calls left out before this one.
    pub(crate) skipped: u32,
}

#[derive(Debug)]
pub(crate) struct ErrorObj {
    pub(crate) kind: Box<str>,
    pub(crate) message: Box<str>,
    /// What the thrower attached for programs to read as `.data`.
    pub(crate) data: Value,
    /// Filled when it is first thrown.
    pub(crate) trace: Option<Box<[TracePoint]>>,
}

/// What a task handle shows.
#[derive(Debug)]
pub(crate) struct TaskObj {
    pub(crate) id: TaskId,
    pub(crate) outcome: Option<Result<Value, Value>>,
    /// Calls at the throw, when it failed with a value that has no trace of its own.
    pub(crate) trace: Box<[TracePoint]>,
    /// Somebody took or waits for the outcome.
    pub(crate) observed: bool,
}

/// A bound was hit. The interpreter makes an error object of it, or collects and tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

#[derive(Debug)]
pub(crate) struct Heap {
    pub(crate) program: Arc<Program>,
    pub(crate) natives: Arc<Natives>,
    pub(crate) objects: Vec<Obj>,
    pub(crate) marks: Vec<u8>,
    free: u32,
    /// Bytes of all objects and of what else was charged.
    pub(crate) used: usize,
    /// Of `used`, what belongs to task stacks and other things outside the slab.
    pub(crate) outside: usize,
    pub(crate) limit: usize,
    /// What the last refused `charge` asked for.
    pub(crate) wanted: usize,
    /// A growth inside a native was refused and the native could not say so.
    pub(crate) refused: bool,
    /// A collection is due at the next safe point once `used` passes this.
    pub(crate) collect_at: usize,
    pub(crate) collect_always: bool,
    pub(crate) shapes: Shapes,
    /// The program's constants; a text is absent until it is first used.
    pub(crate) constants: Vec<Value>,
    /// Strings of symbols already made, by symbol: a program's strings are made once, when first used.
    pub(crate) interned: Vec<Option<Handle>>,
    /// Function values without captures, by function: made once, so that a blast equals itself.
    pub(crate) functions: Vec<Option<Handle>>,
    /// Names of kinds already made, for `typeof`.
    pub(crate) kinds: Vec<(&'static str, Handle)>,
    pub(crate) seed: u64,
    pub(crate) random: u64,
    /// Text echoed and not yet handed out.
    pub(crate) out: String,
    pub(crate) tasks_made: u32,
    /// Objects the mark phase still has to look into. Kept for its capacity.
    pub(crate) gray: Vec<Handle>,
}

const NO_FREE: u32 = u32::MAX;

impl Heap {
    pub(crate) fn new(program: Arc<Program>, natives: Arc<Natives>, limit: usize, collect_always: bool) -> Heap {
        let shapes = Shapes::new(&program);
        let constant = |constant: &Const| match *constant {
            Const::Int(n) => Value::Int(n),
            Const::Float(n) => Value::Float(n),
            Const::Char(c) => Value::Char(c),
            Const::Str(_) => Value::Absent,
        };
        let constants = program.consts.iter().map(constant).collect();
        Heap {
            program,
            natives,
            objects: Vec::new(),
            marks: Vec::new(),
            free: NO_FREE,
            used: 0,
            outside: 0,
            limit,
            wanted: 0,
            refused: false,
            collect_at: if collect_always { 0 } else { FLOOR_BYTES.min(limit / 2) },
            collect_always,
            shapes,
            constants,
            interned: Vec::new(),
            functions: Vec::new(),
            kinds: Vec::new(),
            seed: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            out: String::new(),
            tasks_made: 0,
            gray: Vec::new(),
        }
    }

    /// Takes `bytes` out of the allowance, before they are allocated.
    #[inline]
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        let used = self.used.saturating_add(bytes);
        if used > self.limit {
            self.wanted = bytes;
            return Err(OutOfMemory);
        }
        self.used = used;
        Ok(())
    }

    /// Counts bytes that exist already; the interpreter throws after the current native if this passed the limit.
    #[inline]
    pub(crate) fn overcharge(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
    }

    /// Whether a safe point should collect.
    #[inline(always)]
    pub(crate) fn collection_due(&self) -> bool {
        self.used > self.collect_at
    }

    /// Sets when the next collection is due: after as much as is live was allocated again, but with half of what is left
    /// of the limit in reserve, so that garbage alone never makes an allocation fail.
    pub(crate) fn plan_collection(&mut self) {
        let live = self.used;
        let headroom = self.limit.saturating_sub(live) / 2;
        self.collect_at = if self.collect_always { 0 } else { live + live.max(FLOOR_BYTES).min(headroom) };
    }

    /// Puts an object into the slab. Its own bytes are charged by the caller; the slot is charged here.
    #[inline]
    pub(crate) fn insert(&mut self, obj: Obj) -> Handle {
        self.used += SLOT_BYTES;
        if self.free != NO_FREE {
            let at = self.free;
            let slot = &mut self.objects[at as usize];
            if let Obj::Free(next) = *slot {
                self.free = next;
            }
            *slot = obj;
            return Handle(at);
        }
        let at = self.objects.len() as u32;
        self.objects.push(obj);
        self.marks.push(0);
        Handle(at)
    }

    pub(crate) fn release(&mut self, at: u32) {
        self.objects[at as usize] = Obj::Free(self.free);
        self.free = at;
    }

    #[inline(always)]
    pub(crate) fn get(&self, handle: Handle) -> &Obj {
        &self.objects[handle.index()]
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, handle: Handle) -> &mut Obj {
        &mut self.objects[handle.index()]
    }

    // --- strings

    /// A string value. The bytes are counted without a check; see `overcharge`.
    pub(crate) fn string(&mut self, text: Box<str>) -> Value {
        self.overcharge(text.len());
        let ascii = text.is_ascii();
        Value::Str(self.insert(Obj::Str { ascii, text }))
    }

    #[inline]
    pub(crate) fn text(&self, handle: Handle) -> &str {
        match self.get(handle) {
            Obj::Str { text, .. } => text,
            Obj::Prefix { len, buffer, .. } => match self.get(*buffer) {
                Obj::Buffer(text) => &text[..*len as usize],
                _ => "",
            },
            _ => "",
        }
    }

    pub(crate) fn is_ascii(&self, handle: Handle) -> bool {
        match self.get(handle) {
            Obj::Str { ascii, .. } | Obj::Prefix { ascii, .. } => *ascii,
            _ => false,
        }
    }

    /// A constant that is a text, at its first use.
    #[cold]
    pub(crate) fn text_constant(&mut self, at: u32) -> Value {
        let value = match self.program.consts[at as usize] {
            Const::Str(symbol) => self.intern(symbol),
            _ => Value::Null,
        };
        self.constants[at as usize] = value;
        value
    }

    /// The string of a symbol, made when first asked for and kept.
    pub(crate) fn intern(&mut self, symbol: crate::program::Symbol) -> Value {
        let at = symbol.0 as usize;
        if self.interned.len() <= at {
            self.interned.resize(self.program.symbol_count().max(at + 1), None);
        }
        if let Some(handle) = self.interned[at] {
            return Value::Str(handle);
        }
        let text: Box<str> = self.program.symbol(symbol).into();
        let made = self.string(text);
        self.interned[at] = made.handle();
        made
    }

    /// `left + right` for a string `left`. Extends the buffer in place when `left` is its whole content.
    pub(crate) fn append(&mut self, left: Handle, right: &str) -> Result<Value, OutOfMemory> {
        if right.is_empty() {
            return Ok(Value::Str(left));
        }
        let joined_ascii = self.is_ascii(left) && right.is_ascii();
        if let Obj::Prefix { len, buffer, .. } = *self.get(left)
            && let Obj::Buffer(text) = self.get(buffer)
            && text.len() == len as usize
        {
            let needed = text.len() + right.len();
            let grown = if needed > text.capacity() { needed.max(text.capacity() * 2) } else { text.capacity() };
            let more = grown - text.capacity();
            self.charge(more)?;
            let Obj::Buffer(text) = self.get_mut(buffer) else { return Err(OutOfMemory) };
            text.reserve_exact(grown - text.len());
            text.push_str(right);
            let len = u32::try_from(text.len()).map_err(|_| OutOfMemory)?;
            return Ok(Value::Str(self.insert(Obj::Prefix { ascii: joined_ascii, len, buffer })));
        }
        let left_len = self.text(left).len();
        let total = left_len.checked_add(right.len()).ok_or(OutOfMemory)?;
        let len = u32::try_from(total).map_err(|_| OutOfMemory)?;
        if total < BUFFER_FROM {
            self.charge(total)?;
            let mut joined = String::with_capacity(total);
            joined.push_str(self.text(left));
            joined.push_str(right);
            return Ok(Value::Str(self.insert(Obj::Str { ascii: joined_ascii, text: joined.into_boxed_str() })));
        }
        // Half again as much room: most texts that got this far go on growing.
        let room = total + total / 2;
        self.charge(room)?;
        let mut joined = String::with_capacity(room);
        joined.push_str(self.text(left));
        joined.push_str(right);
        let buffer = self.insert(Obj::Buffer(joined));
        Ok(Value::Str(self.insert(Obj::Prefix { ascii: joined_ascii, len, buffer })))
    }

    // --- arrays

    #[inline]
    pub(crate) fn array(&mut self, items: Vec<Value>) -> Value {
        self.overcharge(items.capacity() * size_of::<Value>());
        Value::Array(self.insert(Obj::Array(items)))
    }

    #[inline]
    pub(crate) fn items(&self, handle: Handle) -> &[Value] {
        match self.get(handle) {
            Obj::Array(items) => items,
            _ => &[],
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, array: Handle, value: Value) -> Result<(), OutOfMemory> {
        if let Obj::Array(items) = self.get_mut(array) {
            if items.len() < items.capacity() {
                items.push(value);
                return Ok(());
            }
            self.grow(array, 1)?;
            if let Obj::Array(items) = self.get_mut(array) {
                items.push(value);
            }
        }
        Ok(())
    }

    /// Makes room for `more` items, by doubling, charged first.
    pub(crate) fn grow(&mut self, array: Handle, more: usize) -> Result<(), OutOfMemory> {
        let Obj::Array(items) = self.get(array) else { return Ok(()) };
        let (len, capacity) = (items.len(), items.capacity());
        let needed = len.checked_add(more).ok_or(OutOfMemory)?;
        if needed <= capacity {
            return Ok(());
        }
        let grown = needed.max(capacity * 2).max(4);
        self.charge((grown - capacity) * size_of::<Value>())?;
        if let Obj::Array(items) = self.get_mut(array) {
            items.reserve_exact(grown - len);
        }
        Ok(())
    }

    /// What an object holds outside its slot.
    pub(crate) fn owned_bytes(obj: &Obj) -> usize {
        let value = size_of::<Value>();
        match obj {
            Obj::Free(_) | Obj::Prefix { .. } | Obj::Cell(_) | Obj::Host { .. } => 0,
            Obj::Str { text, .. } => text.len(),
            Obj::Buffer(text) => text.capacity(),
            Obj::Array(items) => items.capacity() * value,
            Obj::Record { slots, .. } => slots.capacity() * value,
            Obj::Dict(dict) => size_of::<Dict>() + dict.owned_bytes(),
            Obj::Closure { cells, .. } => size_of_val(&**cells),
            Obj::Error(error) => {
                let trace = error.trace.as_ref().map_or(0, |t| size_of_val(&**t));
                size_of::<ErrorObj>() + error.kind.len() + error.message.len() + trace
            }
            Obj::Bytes(bytes) => bytes.capacity(),
            Obj::Task(task) => size_of::<TaskObj>() + size_of_val(&*task.trace),
        }
    }
}

const _: () = assert!(size_of::<Obj>() <= 32, "an object's slot is two values large");
