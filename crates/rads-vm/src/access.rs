//! Reading and writing inside values: fields, indexes, slices, annotations, and what `cruise` goes through.

use crate::arith::Fault;
use crate::cx::{Cx, with_article};
use crate::heap::{Heap, Obj};
use crate::program::{Symbol, Type};
use crate::record::{Key, Shapes};
use crate::value::{Handle, Value};
use crate::vm::{Cache, Only};

impl Heap {
    /// `value.name`, the slow way; tells the cache what it found.
    #[inline(never)]
    pub(crate) fn read_field(&mut self, value: Value, name: Symbol, cache: &mut Cache) -> Result<Value, Fault> {
        match value {
            Value::Object(handle) | Value::Struct(handle) => {
                if let Obj::Record { shape, slots } = self.get(handle) {
                    if let Some(slot) = self.shapes.slot(*shape, name) {
                        *cache = Cache { shape: *shape, slot: slot as u32, only: Only::Anything };
                        return Ok(slots[slot]);
                    }
                    if self.shapes.get(*shape).of.is_some() {
                        return Err(self.no_field(handle, name));
                    }
                    return Ok(Value::Null);
                }
                Ok(self.field(handle, Key::Symbol(name)).unwrap_or_default())
            }
            _ => self.read_property(value, name),
        }
    }

    fn read_property(&mut self, value: Value, name: Symbol) -> Result<Value, Fault> {
        let program = self.program.clone();
        let text = program.symbol(name);
        match (value, text) {
            (Value::Array(handle), "length") => Ok(Value::Int(self.items(handle).len() as i64)),
            (Value::Str(handle), "length") => Ok(Value::Int(self.char_count(handle) as i64)),
            (Value::Bytes(handle), "length") => match self.get(handle) {
                Obj::Bytes(bytes) => Ok(Value::Int(bytes.len() as i64)),
                _ => Ok(Value::Null),
            },
            (Value::Error(handle), "message" | "kind" | "stack" | "data") => {
                let Obj::Error(error) = self.get(handle) else { return Ok(Value::Null) };
                let text: Box<str> = match text {
                    "message" => error.message.clone(),
                    "kind" => error.kind.clone(),
                    "data" => return Ok(error.data),
                    _ => {
                        let lines = self.trace_lines(error.trace.as_deref().unwrap_or_default());
                        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
                        lines.join("\n").into()
                    }
                };
                Ok(self.string(text))
            }
            (Value::Function(_) | Value::Native(_), "name") => {
                let name = Cx { heap: self }.callee_name(value).unwrap_or_default();
                Ok(self.string(name.into()))
            }
            (Value::Null, _) => Err(self.thrown("type", format!("cannot read `{text}` of null"))),
            _ => {
                let kind = with_article(self.kind_of(value));
                Err(self.thrown("type", format!("{kind} has no field `{text}`")))
            }
        }
    }

    /// The kind as methods are registered under: of a host object its own.
    pub(crate) fn kind_of(&self, value: Value) -> &'static str {
        match value {
            Value::Host(handle) => match self.get(handle) {
                Obj::Host { kind, .. } => kind,
                _ => "host",
            },
            _ => value.kind(),
        }
    }

    /// The kind's name as a string value, made once for each kind of the language.
    pub(crate) fn kind_value(&mut self, value: Value) -> Value {
        let kind = self.kind_of(value);
        if let Some((_, made)) = self.kinds.iter().find(|(known, _)| std::ptr::eq(*known, kind)) {
            return Value::Str(*made);
        }
        let made = self.string(kind.into());
        if let Some(handle) = made.handle()
            && !matches!(value, Value::Host(_))
        {
            self.kinds.push((kind, handle));
        }
        made
    }

    fn no_field(&mut self, handle: Handle, name: Symbol) -> Fault {
        let def = self.struct_of(handle).map(|def| self.program.structs[def as usize].clone());
        let Some(def) = def else { return self.thrown("type", "not a struct") };
        let fields: Vec<&str> = def.fields.iter().map(|f| self.program.symbol(f.name)).collect();
        let message =
            format!("struct `{}` has no field `{}`; it has {}", def.name, self.program.symbol(name), fields.join(", "));
        self.thrown("type", message)
    }

    /// `value.name = new`, the slow way; tells the cache when the next time can be quick.
    #[inline(never)]
    pub(crate) fn write_field(
        &mut self,
        value: Value,
        name: Symbol,
        new: Value,
        cache: &mut Cache,
    ) -> Result<(), Fault> {
        match value {
            Value::Object(handle) => {
                if let Obj::Record { shape, .. } = self.get(handle)
                    && let Some(slot) = self.shapes.slot(*shape, name)
                {
                    *cache = Cache { shape: *shape, slot: slot as u32, only: Only::Anything };
                }
                Ok(self.set_field(handle, Key::Symbol(name), new)?)
            }
            Value::Struct(handle) => {
                let Obj::Record { shape, .. } = self.get(handle) else { return Ok(()) };
                let shape = *shape;
                let Some(slot) = self.shapes.slot(shape, name) else { return Err(self.no_field(handle, name)) };
                let def = self.shapes.get(shape).of.unwrap_or_default();
                let kind = self.program.structs[def as usize].fields[slot].kind;
                let only = match kind {
                    None => Some(Only::Anything),
                    Some(Type::Int) => Some(Only::Ints),
                    Some(Type::Float) => Some(Only::Floats),
                    Some(Type::Str) => Some(Only::Strings),
                    Some(Type::Bool) => Some(Only::Bools),
                    Some(_) => None,
                };
                if let Some(only) = only {
                    *cache = Cache { shape, slot: slot as u32, only };
                }
                let new = self.check(kind, new, |heap| format!("field `{}`", heap.program.symbol(name)))?;
                if let Obj::Record { slots, .. } = self.get_mut(handle) {
                    slots[slot] = new;
                }
                Ok(())
            }
            _ => {
                let kind = with_article(self.kind_of(value));
                let name = self.program.symbol(name).to_owned();
                Err(self.thrown("type", format!("cannot set `{name}` of {kind}")))
            }
        }
    }

    /// A struct from its fields in order; a field not given is null.
    pub(crate) fn make_struct(&mut self, def: u32, fields: &[Value]) -> Result<Value, Fault> {
        let program = self.program.clone();
        let declared = &program.structs[def as usize].fields;
        let bytes = declared.len() * size_of::<Value>();
        self.charge(bytes)?;
        let mut slots = Vec::with_capacity(declared.len());
        for (field, value) in declared.iter().zip(fields) {
            slots.push(match value {
                Value::Absent => Value::Null,
                given => {
                    self.check(field.kind, *given, |heap| format!("field `{}`", heap.program.symbol(field.name)))?
                }
            });
        }
        Ok(Value::Struct(self.insert(Obj::Record { shape: Shapes::of_struct(def), slots })))
    }

    /// The value if it is of the type, or the float of an int where a float is wanted.
    pub(crate) fn check(
        &mut self,
        kind: Option<Type>,
        value: Value,
        what: impl FnOnce(&Heap) -> String,
    ) -> Result<Value, Fault> {
        let fits = match (kind, value) {
            (None, _)
            | (Some(Type::Int), Value::Int(_))
            | (Some(Type::Float), Value::Float(_))
            | (Some(Type::Str), Value::Str(_))
            | (Some(Type::Bool), Value::Bool(_))
            | (Some(Type::Char), Value::Char(_))
            | (Some(Type::Array), Value::Array(_))
            | (Some(Type::Object), Value::Object(_) | Value::Struct(_))
            | (Some(Type::Function), Value::Function(_) | Value::Native(_))
            | (Some(Type::Bytes), Value::Bytes(_))
            | (Some(Type::Error), Value::Error(_))
            | (Some(Type::Task), Value::Task(_)) => true,
            (Some(Type::Float), Value::Int(n)) => return Ok(Value::Float(n as f64)),
            (Some(Type::Struct(def)), Value::Struct(handle)) => self.struct_of(handle) == Some(def),
            _ => false,
        };
        if fits {
            return Ok(value);
        }
        let wanted = match kind {
            Some(Type::Int) => "an integer".to_owned(),
            Some(Type::Float) => "a float".to_owned(),
            Some(Type::Str) => "a string".to_owned(),
            Some(Type::Bool) => "a bool".to_owned(),
            Some(Type::Char) => "a char".to_owned(),
            Some(Type::Array) => "an array".to_owned(),
            Some(Type::Object) => "an object".to_owned(),
            Some(Type::Function) => "a function".to_owned(),
            Some(Type::Bytes) => "bytes".to_owned(),
            Some(Type::Error) => "an error".to_owned(),
            Some(Type::Task) => "a task".to_owned(),
            Some(Type::Struct(def)) => format!("a `{}`", self.program.structs[def as usize].name),
            None => String::new(),
        };
        let got = match value {
            Value::Struct(handle) => match self.struct_of(handle) {
                Some(def) => format!("a `{}`", self.program.structs[def as usize].name),
                None => "a struct".to_owned(),
            },
            other => with_article(other.kind()),
        };
        let what = what(self);
        Err(self.thrown("type", format!("{what} must be {wanted}, not {got}")))
    }

    // --- indexes

    /// `value[index]`
    #[inline(never)]
    pub(crate) fn read_index(&mut self, value: Value, index: Value) -> Result<Value, Fault> {
        match (value, index) {
            (Value::Array(handle), _) => {
                let at = self.position(index)?;
                Ok(at.and_then(|at| self.items(handle).get(at)).copied().unwrap_or_default())
            }
            (Value::Str(handle), _) if index.as_int().is_some() => {
                let at = self.position(index)?;
                Ok(at.and_then(|at| self.char_at(handle, at)).map_or(Value::Null, Value::Char))
            }
            (Value::Bytes(handle), _) => {
                let at = self.position(index)?;
                let Obj::Bytes(bytes) = self.get(handle) else { return Ok(Value::Null) };
                Ok(at.and_then(|at| bytes.get(at)).map_or(Value::Null, |b| Value::Int(i64::from(*b))))
            }
            (Value::Object(handle) | Value::Struct(handle), Value::Str(key)) => {
                Ok(self.field(handle, Key::Text(self.text(key))).unwrap_or_default())
            }
            (Value::Object(handle), _) => {
                let key = self.key_of(index)?;
                Ok(self.field(handle, Key::Text(&key)).unwrap_or_default())
            }
            (Value::Null, _) => Err(self.thrown("type", "cannot index null")),
            _ => {
                let (kind, by) = (with_article(self.kind_of(value)), with_article(index.kind()));
                Err(self.thrown("type", format!("cannot index {kind} by {by}")))
            }
        }
    }

    /// `value[index] = new`
    #[inline(never)]
    pub(crate) fn write_index(&mut self, value: Value, index: Value, new: Value) -> Result<(), Fault> {
        match value {
            Value::Array(handle) => {
                let length = self.items(handle).len();
                let at = self.position(index)?;
                match at {
                    Some(at) if at < length => {
                        if let Obj::Array(items) = self.get_mut(handle) {
                            items[at] = new;
                        }
                        Ok(())
                    }
                    Some(at) if at == length => Ok(self.push(handle, new)?),
                    _ => {
                        let at = index.as_int().unwrap_or_default();
                        let message = format!("index {at} is out of range: the array has {length} items");
                        Err(self.thrown("range", message))
                    }
                }
            }
            Value::Object(handle) => {
                let key = self.key_of(index)?;
                Ok(self.set_field(handle, Key::Text(&key), new)?)
            }
            Value::Struct(_) => {
                let key = self.key_of(index)?;
                let mut unused = Cache::EMPTY;
                match self.program.find_symbol(&key) {
                    Some(name) => self.write_field(value, name, new, &mut unused),
                    None => Err(self.thrown("type", format!("the struct has no field `{key}`"))),
                }
            }
            Value::Str(_) => Err(self.thrown("type", "a string cannot be changed in place")),
            _ => {
                let kind = with_article(self.kind_of(value));
                Err(self.thrown("type", format!("cannot set an index of {kind}")))
            }
        }
    }

    /// An index from the start; `None` when it is negative.
    fn position(&mut self, index: Value) -> Result<Option<usize>, Fault> {
        match index {
            Value::Float(n) if n.fract() == 0.0 => Ok((n >= 0.0).then_some(n as usize)),
            _ => match index.as_int() {
                Some(n) => Ok(usize::try_from(n).ok()),
                None => {
                    Err(self.thrown("type", format!("an index must be an integer, not {}", with_article(index.kind()))))
                }
            },
        }
    }

    /// A value as the key of an object: its text.
    fn key_of(&mut self, index: Value) -> Result<String, Fault> {
        match index {
            Value::Str(_) | Value::Int(_) | Value::Float(_) | Value::Char(_) | Value::Bool(_) => {
                let mut text = String::new();
                self.display(index, &mut text);
                Ok(text)
            }
            _ => Err(self.thrown("type", format!("a key must be a string, not {}", with_article(index.kind())))),
        }
    }

    // --- strings by chars

    pub(crate) fn char_count(&self, handle: Handle) -> usize {
        let text = self.text(handle);
        if self.is_ascii(handle) { text.len() } else { text.chars().count() }
    }

    fn char_at(&self, handle: Handle, at: usize) -> Option<char> {
        let text = self.text(handle);
        if self.is_ascii(handle) { text.as_bytes().get(at).map(|b| char::from(*b)) } else { text.chars().nth(at) }
    }

    /// The byte at which char `at` starts; the length when there are fewer.
    pub(crate) fn char_offset(&self, handle: Handle, at: usize) -> usize {
        let text = self.text(handle);
        if self.is_ascii(handle) {
            return at.min(text.len());
        }
        text.char_indices().nth(at).map_or(text.len(), |(offset, _)| offset)
    }

    /// `value[from .. to]`: cut to what exists; a negative bound counts from the end.
    pub(crate) fn slice(&mut self, value: Value, from: Value, to: Value) -> Result<Value, Fault> {
        let length = match value {
            Value::Array(handle) => self.items(handle).len(),
            Value::Str(handle) => self.char_count(handle),
            Value::Bytes(handle) => match self.get(handle) {
                Obj::Bytes(bytes) => bytes.len(),
                _ => 0,
            },
            other => {
                let kind = with_article(self.kind_of(other));
                return Err(self.thrown("type", format!("cannot take a part of {kind}")));
            }
        };
        let mut bound = |at: Value, missing: usize| match at {
            Value::Null => Ok(missing),
            _ => match at.as_int() {
                Some(n) if n < 0 => Ok(length.saturating_sub(n.unsigned_abs() as usize)),
                Some(n) => Ok((n as usize).min(length)),
                None => {
                    Err(self.thrown("type", format!("an index must be an integer, not {}", with_article(at.kind()))))
                }
            },
        };
        let from = bound(from, 0)?;
        let to = bound(to, length)?.max(from);
        match value {
            Value::Array(handle) => {
                self.charge((to - from) * size_of::<Value>())?;
                let items = self.items(handle)[from..to].to_vec();
                Ok(Value::Array(self.insert(Obj::Array(items))))
            }
            Value::Str(handle) => {
                let (start, end) = (self.char_offset(handle, from), self.char_offset(handle, to));
                self.charge(end - start)?;
                let text: Box<str> = self.text(handle)[start..end].into();
                let ascii = text.is_ascii();
                Ok(Value::Str(self.insert(Obj::Str { ascii, text })))
            }
            Value::Bytes(handle) => {
                self.charge(to - from)?;
                let Obj::Bytes(bytes) = self.get(handle) else { return Ok(Value::Null) };
                let part = bytes[from..to].to_vec();
                Ok(Value::Bytes(self.insert(Obj::Bytes(part))))
            }
            _ => Ok(Value::Null),
        }
    }

    // --- going through

    /// What a loop over `value` goes through: an object's keys; arrays, strings and bytes as they are.
    pub(crate) fn iterable(&mut self, value: Value) -> Result<Value, Fault> {
        match value {
            Value::Array(_) | Value::Str(_) | Value::Bytes(_) => Ok(value),
            Value::Object(_) | Value::Struct(_) => Ok(Cx { heap: self }.keys(value)),
            other => {
                let kind = with_article(self.kind_of(other));
                Err(self.thrown("type", format!("cannot loop over {kind}")))
            }
        }
    }

    /// The item at a position and the position after it; positions in strings are bytes.
    #[inline(never)]
    pub(crate) fn next_item(&self, value: Value, at: i64) -> Option<(Value, i64)> {
        let start = at as usize;
        match value {
            Value::Array(handle) => self.items(handle).get(start).map(|item| (*item, at + 1)),
            Value::Str(handle) => {
                let next = self.text(handle).get(start..)?.chars().next()?;
                Some((Value::Char(next), at + next.len_utf8() as i64))
            }
            Value::Bytes(handle) => match self.get(handle) {
                Obj::Bytes(bytes) => bytes.get(start).map(|b| (Value::Int(i64::from(*b)), at + 1)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The integers of a range as an array.
    pub(crate) fn range(&mut self, from: Value, to: Value) -> Result<Value, Fault> {
        let (Some(from), Some(to)) = (from.as_int(), to.as_int()) else {
            return Err(self.range_kind(from, to));
        };
        let count = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        self.charge(count.saturating_mul(size_of::<Value>()))?;
        let items: Vec<Value> = (from..to).map(Value::Int).collect();
        Ok(Value::Array(self.insert(Obj::Array(items))))
    }

    pub(crate) fn range_kind(&mut self, from: Value, to: Value) -> Fault {
        let (from, to) = (with_article(from.kind()), with_article(to.kind()));
        self.thrown("type", format!("a range goes from an integer to an integer, not from {from} to {to}"))
    }

    /// Appends what a spread gives to an array.
    pub(crate) fn extend(&mut self, array: Handle, from: Value) -> Result<(), Fault> {
        let items = match from {
            Value::Array(handle) => {
                let bytes = size_of_val(self.items(handle));
                if self.used.saturating_add(bytes) > self.limit {
                    self.charge(bytes)?;
                }
                self.items(handle).to_vec()
            }
            Value::Str(handle) => self.text(handle).chars().map(Value::Char).collect(),
            other => {
                let kind = with_article(self.kind_of(other));
                return Err(self.thrown("type", format!("cannot spread {kind} into an array")));
            }
        };
        self.grow(array, items.len())?;
        if let Obj::Array(into) = self.get_mut(array) {
            into.extend_from_slice(&items);
        }
        Ok(())
    }

    /// Copies all keys of `from` into an object; null adds nothing.
    pub(crate) fn merge(&mut self, object: Handle, from: Value) -> Result<(), Fault> {
        match from {
            Value::Null => Ok(()),
            Value::Object(_) | Value::Struct(_) => {
                for (key, value) in (Cx { heap: self }).entries(from) {
                    self.set_field(object, Key::Text(&key), value)?;
                }
                Ok(())
            }
            other => {
                let kind = with_article(self.kind_of(other));
                Err(self.thrown("type", format!("cannot spread {kind} into an object")))
            }
        }
    }

    /// The keys of an object but these.
    pub(crate) fn without(&mut self, from: Value, keys: &[Value]) -> Result<Value, Fault> {
        let rest = self.object();
        for (key, value) in (Cx { heap: self }).entries(from) {
            let taken = keys.iter().any(|k| matches!(k, Value::Str(h) if self.text(*h) == key));
            if !taken && let Value::Object(handle) = rest {
                self.set_field(handle, Key::Text(&key), value)?;
            }
        }
        Ok(rest)
    }
}

impl Cx<'_> {
    /// The keys of an object as an array of strings.
    pub fn keys(&mut self, object: Value) -> Value {
        let keys: Vec<Value> = self.entries(object).into_iter().map(|(key, _)| self.string(key)).collect();
        self.array(keys)
    }
}
