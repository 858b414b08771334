//! Objects and structs as shapes: objects made with the same keys in the same order share one list of keys.
//!
//! A place in the program that reads `o.name` remembers the shape it met and the slot it found, and next time needs one
//! comparison. Only names that the program text contains take part; keys that are data make an object a `Dict`.

use std::collections::HashMap;

use crate::hash::Fixed;
use crate::heap::{Heap, Obj, OutOfMemory};
use crate::program::{Program, Symbol};
use crate::value::{Handle, Value};

/// Objects with more keys than this become dictionaries: searching a shape is linear.
const MOST_KEYS: usize = 32;

/// Shapes one machine may make. A program that builds objects in ever new orders gets dictionaries beyond it.
const MOST_SHAPES: usize = 4096;

#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) keys: Box<[Symbol]>,
    /// The struct declaration it stands for; `None` of plain objects.
    pub(crate) of: Option<u32>,
}

/// Every shape of one machine. Shape 0 has no keys; the program's structs follow in order of declaration.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    list: Vec<Shape>,
    with: HashMap<(u32, Symbol), u32, Fixed>,
}

impl Shapes {
    pub(crate) fn new(program: &Program) -> Shapes {
        let mut list = vec![Shape { keys: Box::default(), of: None }];
        for (n, def) in program.structs.iter().enumerate() {
            let keys = def.fields.iter().map(|f| f.name).collect();
            list.push(Shape { keys, of: Some(n as u32) });
        }
        Shapes { list, with: HashMap::default() }
    }

    pub(crate) fn of_struct(def: u32) -> u32 {
        def + 1
    }

    #[inline]
    pub(crate) fn get(&self, shape: u32) -> &Shape {
        &self.list[shape as usize]
    }

    #[inline]
    pub(crate) fn slot(&self, shape: u32, key: Symbol) -> Option<usize> {
        self.list[shape as usize].keys.iter().position(|k| *k == key)
    }

    /// The shape of a plain object after `key` is added to it; `None` when it should become a dictionary.
    pub(crate) fn grown(&mut self, shape: u32, key: Symbol) -> Option<u32> {
        if let Some(next) = self.with.get(&(shape, key)) {
            return Some(*next);
        }
        let keys = &self.list[shape as usize].keys;
        if keys.len() >= MOST_KEYS || self.list.len() >= MOST_SHAPES {
            return None;
        }
        let mut grown = keys.to_vec();
        grown.push(key);
        let next = self.list.len() as u32;
        self.list.push(Shape { keys: grown.into(), of: None });
        self.with.insert((shape, key), next);
        Some(next)
    }
}

/// A key in the form the caller has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key<'a> {
    Symbol(Symbol),
    Text(&'a str),
}

impl Heap {
    pub(crate) fn object(&mut self) -> Value {
        Value::Object(self.insert(Obj::Record { shape: 0, slots: Vec::new() }))
    }

    /// The value under `key`, of an object or struct.
    pub(crate) fn field(&self, handle: Handle, key: Key<'_>) -> Option<Value> {
        match self.get(handle) {
            Obj::Record { shape, slots } => {
                let symbol = match key {
                    Key::Symbol(symbol) => symbol,
                    Key::Text(text) => self.program.find_symbol(text)?,
                };
                slots.get(self.shapes.slot(*shape, symbol)?).copied()
            }
            Obj::Dict(dict) => dict.get(self.seed, self.key_text(key)),
            _ => None,
        }
    }

    /// Puts a value under `key` of an object (not of a struct, whose keys are fixed).
    pub(crate) fn set_field(&mut self, handle: Handle, key: Key<'_>, value: Value) -> Result<(), OutOfMemory> {
        let program = self.program.clone();
        let symbol = match key {
            Key::Symbol(symbol) => Some(symbol),
            Key::Text(text) => program.find_symbol(text),
        };
        if let Obj::Record { shape, slots } = &mut self.objects[handle.index()] {
            if let Some(symbol) = symbol {
                if let Some(slot) = self.shapes.slot(*shape, symbol) {
                    slots[slot] = value;
                    return Ok(());
                }
                if let Some(next) = self.shapes.grown(*shape, symbol) {
                    return self.add_slot(handle, next, value);
                }
            }
            self.make_dict(handle)?;
        }
        let text = match key {
            Key::Symbol(symbol) => program.symbol(symbol),
            Key::Text(text) => text,
        };
        let seed = self.seed;
        let Obj::Dict(dict) = self.get(handle) else { return Ok(()) };
        let growth = if dict.contains(seed, text) { 0 } else { dict.growth(text) };
        self.charge(growth)?;
        if let Obj::Dict(dict) = self.get_mut(handle) {
            dict.insert(seed, text, value);
        }
        Ok(())
    }

    /// Adds the slot by which `shape` exceeds the record's present shape.
    pub(crate) fn add_slot(&mut self, handle: Handle, next: u32, value: Value) -> Result<(), OutOfMemory> {
        let Obj::Record { slots, .. } = self.get(handle) else { return Ok(()) };
        if slots.len() == slots.capacity() {
            let more = slots.capacity().max(2);
            self.charge(more * size_of::<Value>())?;
            if let Obj::Record { slots, .. } = self.get_mut(handle) {
                slots.reserve_exact(more);
            }
        }
        if let Obj::Record { shape, slots } = self.get_mut(handle) {
            *shape = next;
            slots.push(value);
        }
        Ok(())
    }

    /// Removes a key of an object; gives what was there.
    pub(crate) fn remove_field(&mut self, handle: Handle, key: &str) -> Result<Option<Value>, OutOfMemory> {
        if self.field(handle, Key::Text(key)).is_none() {
            return Ok(None);
        }
        if matches!(self.get(handle), Obj::Record { .. }) {
            self.make_dict(handle)?;
        }
        let seed = self.seed;
        match self.get_mut(handle) {
            Obj::Dict(dict) => Ok(dict.remove(seed, key)),
            _ => Ok(None),
        }
    }

    pub(crate) fn field_count(&self, handle: Handle) -> usize {
        match self.get(handle) {
            Obj::Record { slots, .. } => slots.len(),
            Obj::Dict(dict) => dict.len(),
            _ => 0,
        }
    }

    /// The `n`th key and value, counted over a snapshot in order.
    pub(crate) fn fields(&self, handle: Handle) -> Vec<(&str, Value)> {
        match self.get(handle) {
            Obj::Record { shape, slots } => {
                let keys = self.shapes.get(*shape).keys.iter();
                keys.map(|k| self.program.symbol(*k)).zip(slots.iter().copied()).collect()
            }
            Obj::Dict(dict) => dict.iter().collect(),
            _ => Vec::new(),
        }
    }

    fn key_text<'a>(&'a self, key: Key<'a>) -> &'a str {
        match key {
            Key::Symbol(symbol) => self.program.symbol(symbol),
            Key::Text(text) => text,
        }
    }

    fn make_dict(&mut self, handle: Handle) -> Result<(), OutOfMemory> {
        let mut dict = crate::dict::Dict::default();
        for (key, value) in self.fields(handle) {
            dict.insert(self.seed, key, value);
        }
        self.charge(size_of::<crate::dict::Dict>() + dict.owned_bytes())?;
        *self.get_mut(handle) = Obj::Dict(Box::new(dict));
        Ok(())
    }
}
