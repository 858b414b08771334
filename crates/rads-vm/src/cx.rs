//! How natives and hosts reach the heap: make values, read them, and say what is wrong with an argument.
//!
//! Makers never fail: they count what they made, and a machine that passed its memory limit throws after the native
//! returns. A native that is about to make something large asks [`Cx::reserve`] first.

use crate::heap::{ErrorObj, Heap, Obj, OutOfMemory};
use crate::record::Key;
use crate::value::{Handle, NativeId, Value};

/// Access to the values of one machine.
#[derive(Debug)]
pub struct Cx<'a> {
    pub(crate) heap: &'a mut Heap,
}

/// Making values.
impl Cx<'_> {
    pub fn str(&mut self, text: &str) -> Value {
        self.heap.string(text.into())
    }

    pub fn string(&mut self, text: String) -> Value {
        self.heap.string(text.into_boxed_str())
    }

    pub fn bytes(&mut self, bytes: Vec<u8>) -> Value {
        self.heap.overcharge(bytes.capacity());
        Value::Bytes(self.heap.insert(Obj::Bytes(bytes)))
    }

    pub fn array(&mut self, items: Vec<Value>) -> Value {
        self.heap.array(items)
    }

    /// An object without keys.
    pub fn object(&mut self) -> Value {
        self.heap.object()
    }

    /// An object with these keys, in this order.
    pub fn object_of(&mut self, fields: &[(&str, Value)]) -> Value {
        let object = self.object();
        for (key, value) in fields {
            self.set(object, key, *value);
        }
        object
    }

    /// An error object, to be thrown (`Err(cx.error(…))`) or returned. `kind` is one lower-case word that programs
    /// compare with: `type`, `value`, `io`, …
    pub fn error(&mut self, kind: &str, message: impl AsRef<str>) -> Value {
        self.error_with(kind, message, Value::Null)
    }

    /// An error object that carries more for programs to read, as `.data`.
    pub fn error_with(&mut self, kind: &str, message: impl AsRef<str>, data: Value) -> Value {
        let error = ErrorObj { kind: kind.into(), message: message.as_ref().into(), data, trace: None };
        self.heap.overcharge(size_of::<ErrorObj>() + error.kind.len() + error.message.len());
        Value::Error(self.heap.insert(Obj::Error(Box::new(error))))
    }

    /// A value that stands for something outside: a server, a connection. Its kind decides its methods.
    pub fn host(&mut self, kind: &'static str, id: u64) -> Value {
        Value::Host(self.heap.insert(Obj::Host { kind, id }))
    }

    /// A declared blast as a value.
    pub fn function(&mut self, function: crate::program::FunctionId) -> Value {
        self.heap.function_value(function)
    }

    /// A native function as a value.
    pub fn native(&self, module: &str, name: &str) -> Option<Value> {
        self.heap.natives.lookup(module, name).map(Value::Native)
    }
}

/// Reading values.
impl Cx<'_> {
    /// The text of a string; of anything else the empty text. See `as_text`.
    pub fn text(&self, value: Value) -> &str {
        self.as_text(value).unwrap_or("")
    }

    pub fn as_text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Str(handle) => Some(self.heap.text(handle)),
            _ => None,
        }
    }

    /// The content of a bytes value, or of a string.
    pub fn as_bytes(&self, value: Value) -> Option<&[u8]> {
        match value {
            Value::Str(handle) => Some(self.heap.text(handle).as_bytes()),
            Value::Bytes(handle) => match self.heap.get(handle) {
                Obj::Bytes(bytes) => Some(bytes),
                _ => None,
            },
            _ => None,
        }
    }

    /// The items of an array; of anything else none.
    pub fn items(&self, value: Value) -> &[Value] {
        self.as_items(value).unwrap_or(&[])
    }

    pub fn as_items(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Array(handle) => Some(self.heap.items(handle)),
            _ => None,
        }
    }

    /// The value under a key of an object or struct.
    pub fn get(&self, object: Value, key: &str) -> Option<Value> {
        match object {
            Value::Object(handle) | Value::Struct(handle) => self.heap.field(handle, Key::Text(key)),
            _ => None,
        }
    }

    /// Every key and value of an object or struct, in order.
    pub fn entries(&self, object: Value) -> Vec<(String, Value)> {
        match object {
            Value::Object(handle) | Value::Struct(handle) => {
                self.heap.fields(handle).into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// How many keys an object or struct has.
    pub fn field_count(&self, object: Value) -> usize {
        match object {
            Value::Object(handle) | Value::Struct(handle) => self.heap.field_count(handle),
            _ => 0,
        }
    }

    /// The number inside a host object of this kind.
    pub fn host_id(&self, value: Value, kind: &str) -> Option<u64> {
        match value {
            Value::Host(handle) => match self.heap.get(handle) {
                Obj::Host { kind: k, id } if *k == kind => Some(*id),
                _ => None,
            },
            _ => None,
        }
    }

    /// The kind of a host object.
    pub fn host_kind(&self, value: Value) -> Option<&'static str> {
        match value {
            Value::Host(handle) => match self.heap.get(handle) {
                Obj::Host { kind, .. } => Some(kind),
                _ => None,
            },
            _ => None,
        }
    }

    /// Message and kind of an error object.
    pub fn error_parts(&self, value: Value) -> Option<(&str, &str)> {
        match value {
            Value::Error(handle) => match self.heap.get(handle) {
                Obj::Error(error) => Some((&error.message, &error.kind)),
                _ => None,
            },
            _ => None,
        }
    }

    /// What `if (value)` decides.
    pub fn truthy(&self, value: Value) -> bool {
        value.plain_truth().unwrap_or_else(|| !self.text(value).is_empty())
    }

    /// How many parameters a blast declares; `None` of natives and of what cannot be called.
    pub fn param_count(&self, callee: Value) -> Option<usize> {
        match callee {
            Value::Function(handle) => match self.heap.get(handle) {
                Obj::Closure { function, .. } => Some(self.heap.program.function(*function).params.len()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The name of a blast or native.
    pub fn callee_name(&self, callee: Value) -> Option<String> {
        match callee {
            Value::Function(handle) => match self.heap.get(handle) {
                Obj::Closure { function, .. } => Some(self.heap.program.function(*function).name.to_string()),
                _ => None,
            },
            Value::Native(id) => Some(self.heap.natives.name(id)),
            _ => None,
        }
    }
}

/// Changing values in place.
impl Cx<'_> {
    /// Puts a value under a key of an object. Ignored for anything else.
    pub fn set(&mut self, object: Value, key: &str, value: Value) {
        if let Value::Object(handle) = object
            && self.heap.set_field(handle, Key::Text(key), value).is_err()
        {
            // Noted, so that the machine throws as soon as the native returns.
            self.heap.refused = true;
        }
    }

    /// Appends to an array. Ignored for anything else.
    pub fn push(&mut self, array: Value, value: Value) {
        if let Value::Array(handle) = array
            && self.heap.push(handle, value).is_err()
        {
            self.heap.refused = true;
        }
    }

    /// The items of an array, to be changed but not added to.
    pub fn items_mut(&mut self, value: Value) -> &mut [Value] {
        match value {
            Value::Array(handle) => match self.heap.get_mut(handle) {
                Obj::Array(items) => items,
                _ => &mut [],
            },
            _ => &mut [],
        }
    }

    /// Asks whether `bytes` more may be allocated, without taking them. The error is the one to throw.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Value> {
        if self.heap.used.saturating_add(bytes) > self.heap.limit {
            return Err(self.out_of_memory());
        }
        Ok(())
    }

    pub(crate) fn out_of_memory(&mut self) -> Value {
        let message = format!("memory limit of {} reached", bytes_for_people(self.heap.limit));
        self.error("memory", message)
    }

    pub(crate) fn or_memory<T>(&mut self, result: Result<T, OutOfMemory>) -> Result<T, Value> {
        result.map_err(|OutOfMemory| self.out_of_memory())
    }

    pub(crate) fn text_of(&self, handle: Handle) -> &str {
        self.heap.text(handle)
    }
}

/// Arguments of natives. The errors name the argument and what came instead.
impl Cx<'_> {
    /// Argument `n`, null when it was not given.
    pub fn arg(&self, args: &[Value], n: usize) -> Value {
        args.get(n).copied().unwrap_or_default()
    }

    pub fn arg_text(&mut self, args: &[Value], n: usize, name: &str) -> Result<&str, Value> {
        match self.arg(args, n) {
            Value::Str(handle) => Ok(self.heap.text(handle)),
            other => Err(self.wrong(name, "a string", other)),
        }
    }

    pub fn arg_int(&mut self, args: &[Value], n: usize, name: &str) -> Result<i64, Value> {
        let value = self.arg(args, n);
        match value {
            Value::Float(x) if x.fract() == 0.0 && x.abs() < 9.0e15 => Ok(x as i64),
            _ => value.as_int().ok_or_else(|| self.wrong(name, "an integer", value)),
        }
    }

    pub fn arg_number(&mut self, args: &[Value], n: usize, name: &str) -> Result<f64, Value> {
        let value = self.arg(args, n);
        value.as_number().ok_or_else(|| self.wrong(name, "a number", value))
    }

    pub fn arg_bool(&mut self, args: &[Value], n: usize, name: &str) -> Result<bool, Value> {
        let value = self.arg(args, n);
        value.as_bool().ok_or_else(|| self.wrong(name, "a bool", value))
    }

    pub fn arg_array(&mut self, args: &[Value], n: usize, name: &str) -> Result<Value, Value> {
        match self.arg(args, n) {
            value @ Value::Array(_) => Ok(value),
            other => Err(self.wrong(name, "an array", other)),
        }
    }

    pub fn arg_object(&mut self, args: &[Value], n: usize, name: &str) -> Result<Value, Value> {
        match self.arg(args, n) {
            value @ (Value::Object(_) | Value::Struct(_)) => Ok(value),
            other => Err(self.wrong(name, "an object", other)),
        }
    }

    pub fn arg_callable(&mut self, args: &[Value], n: usize, name: &str) -> Result<Value, Value> {
        match self.arg(args, n) {
            value @ (Value::Function(_) | Value::Native(_)) => Ok(value),
            other => Err(self.wrong(name, "a function", other)),
        }
    }

    /// The number of a host object of this kind.
    pub fn arg_host(&mut self, args: &[Value], n: usize, kind: &str, name: &str) -> Result<u64, Value> {
        let value = self.arg(args, n);
        self.host_id(value, kind).ok_or_else(|| self.wrong(name, &format!("a {kind}"), value))
    }

    /// The error of an argument of the wrong kind.
    pub fn wrong(&mut self, name: &str, wanted: &str, got: Value) -> Value {
        let got = got.kind();
        self.error("type", format!("`{name}` must be {wanted}, not {}", with_article(got)))
    }
}

/// A native's identity, for hosts that compare callees.
impl Cx<'_> {
    pub fn native_id(&self, value: Value) -> Option<NativeId> {
        match value {
            Value::Native(id) => Some(id),
            _ => None,
        }
    }
}

pub(crate) fn with_article(kind: &str) -> String {
    match kind {
        "null" | "bytes" => kind.to_owned(),
        _ if kind.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

pub(crate) fn bytes_for_people(bytes: usize) -> String {
    const MIB: usize = 1 << 20;
    const KIB: usize = 1 << 10;
    match bytes {
        b if b >= MIB && b % MIB == 0 => format!("{} MiB", b / MIB),
        b if b >= KIB && b % KIB == 0 => format!("{} KiB", b / KIB),
        b => format!("{b} bytes"),
    }
}
