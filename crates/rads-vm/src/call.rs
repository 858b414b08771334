//! Calls in their slow form: wrong counts, named and spread arguments, methods met for the first time, natives that the
//! host performs.

use crate::arith::Fault;
use crate::cx::{Cx, with_article};
use crate::exec::{Args, Exit};
use crate::heap::{Heap, Obj};
use crate::native::NativeBody;
use crate::program::FunctionId;
use crate::record::Key;
use crate::value::{Handle, NativeId, Value};
use crate::vm::{Cache, Frame, NO_SHAPE, Vm, WINDOW};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    /// The value in the callee's register.
    Value,
    Native(NativeId),
    /// What the receiver in the callee's register has under the site's name.
    Method {
        site: u32,
    },
}

/// Above every shape; the low bits are the kind of a receiver whose methods are the same for all of its kind.
const KIND_KEYS: u32 = 0x8000_0000;

/// What a call's cache compares for receivers that are no objects.
#[inline(always)]
pub(crate) fn kind_key(receiver: Value) -> u32 {
    match receiver {
        Value::Str(_) => KIND_KEYS,
        Value::Array(_) => KIND_KEYS + 1,
        Value::Bytes(_) => KIND_KEYS + 2,
        Value::Char(_) => KIND_KEYS + 3,
        Value::Int(_) => KIND_KEYS + 4,
        Value::Float(_) => KIND_KEYS + 5,
        _ => NO_SHAPE,
    }
}

enum Target {
    Function(FunctionId, Option<Handle>),
    Native(NativeId),
}

impl Vm {
    /// Performs a call whose callee and arguments lie on the stack from `at` on. `None`: it was entered or done.
    pub(crate) fn slow_call(&mut self, at: u32, callee: Callee, args: Args) -> Result<Option<Exit>, Fault> {
        let place = at as usize;
        let mut args_given: Vec<Value> = match args {
            Args::Registers(n) | Args::Named(n) => self.stack[place + 1..place + 1 + usize::from(n)].to_vec(),
            Args::Spread => Cx { heap: &mut self.heap }.items(self.stack[place + 1]).to_vec(),
        };
        let named = matches!(args, Args::Named(_));
        let (target, receiver) = match callee {
            Callee::Native(id) => (Target::Native(id), None),
            Callee::Value => (self.target(self.stack[place])?, None),
            Callee::Method { site } => self.method(self.stack[place], site)?,
        };
        match target {
            Target::Function(function, closure) => {
                if let Some(receiver) = receiver {
                    args_given.insert(0, receiver);
                }
                let args = if named { self.by_name(function, args_given)? } else { args_given };
                self.enter(at, function, closure, args)?;
                Ok(None)
            }
            Target::Native(id) => {
                self.call_native(at, id, receiver, args_given, named, callee == Callee::Value && !named)
            }
        }
    }

    fn target(&mut self, callee: Value) -> Result<Target, Fault> {
        match callee {
            Value::Function(handle) => match self.heap.get(handle) {
                Obj::Closure { function, .. } => Ok(Target::Function(*function, Some(handle))),
                _ => Err(self.not_callable(callee)),
            },
            Value::Native(id) => Ok(Target::Native(id)),
            _ => Err(self.not_callable(callee)),
        }
    }

    fn not_callable(&mut self, callee: Value) -> Fault {
        let kind = with_article(self.heap.kind_of(callee));
        self.heap.thrown("type", format!("{kind} cannot be called"))
    }

    /// What `receiver.name(…)` calls: a function in the field of that name, or a method of the receiver's kind.
    fn method(&mut self, receiver: Value, site: u32) -> Result<(Target, Option<Value>), Fault> {
        let name = self.heap.program.sites[site as usize];
        if let Value::Object(handle) | Value::Struct(handle) = receiver
            && let Some(field) = self.heap.field(handle, Key::Symbol(name))
            && field.is_callable()
        {
            if let Obj::Record { shape, .. } = self.heap.get(handle)
                && let Some(slot) = self.heap.shapes.slot(*shape, name)
            {
                self.caches[site as usize] = Cache { shape: *shape, slot: slot as u32, ..Cache::EMPTY };
            }
            return Ok((self.target(field)?, None));
        }
        let kind = self.heap.kind_of(receiver);
        let program = self.heap.program.clone();
        // A struct of the library has methods under its own name.
        if let Value::Struct(handle) = receiver
            && let Some(def) = self.heap.struct_of(handle)
            && let Some(function) = program.method(&program.structs[def as usize].name, name)
        {
            return Ok((Target::Function(function, None), Some(receiver)));
        }
        if let Some(function) = program.method(kind, name) {
            return Ok((Target::Function(function, None), Some(receiver)));
        }
        let text = program.symbol(name);
        if let Some(id) = self.heap.natives.lookup_method(kind, text) {
            let key = kind_key(receiver);
            if key != NO_SHAPE {
                self.caches[site as usize] = Cache { shape: key, slot: id.0, ..Cache::EMPTY };
            }
            return Ok((Target::Native(id), Some(receiver)));
        }
        if receiver.is_null() {
            return Err(self.heap.thrown("type", format!("cannot call `{text}` of null")));
        }
        let what = with_article(kind);
        let known: Vec<String> = self.heap.natives.methods_of(kind).map(str::to_owned).collect();
        let near = nearest(text, known.iter().map(String::as_str));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        Err(self.heap.thrown("type", format!("{what} has no method `{text}`{hint}")))
    }

    /// Puts named arguments, which come as an object after the others, where the parameters of their names are.
    fn by_name(&mut self, function: FunctionId, mut args: Vec<Value>) -> Result<Vec<Value>, Fault> {
        let program = self.heap.program.clone();
        let params = &program.function(function).params;
        let named = args.pop().unwrap_or_default();
        // A blast of the library takes its options by name, as a native does.
        let last = params.len().checked_sub(1).filter(|last| program.symbol(params[*last]) == "options");
        let options = last.filter(|last| program.function(function).name.contains('.') && args.len() <= *last);
        let mut gathered = None;
        for (key, value) in self.heap().entries(named) {
            let at = params.iter().position(|p| program.symbol(*p) == key);
            if let (None, Some(last)) = (at, options) {
                let object = *gathered.get_or_insert_with(|| self.heap().object());
                self.heap().set(object, &key, value);
                args.resize(args.len().max(last + 1), Value::Absent);
                args[last] = object;
                continue;
            }
            let Some(at) = at else {
                let name = &program.function(function).name;
                let near = nearest(&key, params.iter().map(|p| program.symbol(*p)));
                let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                return Err(self.heap.thrown("type", format!("`{name}` has no parameter `{key}`{hint}")));
            };
            if args.len() <= at {
                args.resize(at + 1, Value::Absent);
            } else if !matches!(args[at], Value::Absent) {
                return Err(self.heap.thrown("type", format!("parameter `{key}` is given twice")));
            }
            args[at] = value;
        }
        Ok(args)
    }

    /// Makes a frame for a function of the program, with its arguments arranged as it expects them.
    fn enter(&mut self, at: u32, function: FunctionId, closure: Option<Handle>, args: Vec<Value>) -> Result<(), Fault> {
        if self.frames.len() >= self.depth {
            return Err(self.heap.thrown("depth", format!("calls are nested deeper than {}", self.depth)));
        }
        let base = at as usize + 1;
        let args = self.heap.arrange(function, args)?;
        if self.stack.len() < base + WINDOW {
            self.stack.resize(base + WINDOW, Value::Null);
        }
        self.stack[base..base + args.len()].copy_from_slice(&args);
        self.frames.push(Frame { function, pc: 0, base: base as u32, closure });
        Ok(())
    }

    fn call_native(
        &mut self,
        at: u32,
        id: NativeId,
        receiver: Option<Value>,
        mut args: Vec<Value>,
        named: bool,
        by_value: bool,
    ) -> Result<Option<Exit>, Fault> {
        let native = self.heap.natives.get(id).clone();
        if named && !native.params.options {
            let message = format!("`{}` takes no named arguments", native.full_name());
            return Err(self.heap.thrown("type", message));
        }
        // A native that is called as a value takes what it can of the arguments, like a blast: `list.map(str.upper)`.
        if let (true, Some(max)) = (by_value, native.params.max) {
            args.truncate(usize::from(max));
        }
        if !native.params.accepts(args.len()) {
            let takes = native.params.describe();
            let message = format!("`{}` takes {takes}, not {}", native.full_name(), args.len());
            return Err(self.heap.thrown("type", message));
        }
        match native.body {
            NativeBody::Pure(body) => {
                if let Some(receiver) = receiver {
                    args.insert(0, receiver);
                }
                let value = body(&mut Cx { heap: &mut self.heap }, &args)?;
                self.stack[at as usize] = value;
                let long = self.heap.out.len() >= crate::exec::ECHO_AT;
                Ok(long.then_some(Exit::Echo))
            }
            NativeBody::Host(number) => {
                let frame = self.frames.last().copied();
                let location = frame.map(|f| self.heap.program.location(f.function, f.pc.saturating_sub(1)));
                let location = location.unwrap_or_else(|| self.heap.program.location(FunctionId(0), 0));
                Ok(Some(Exit::Call { native: number, receiver, args, at: location, into: at }))
            }
        }
    }
}

impl Heap {
    /// The value of a declared function, made once.
    pub(crate) fn function_value(&mut self, function: FunctionId) -> Value {
        let at = function.0 as usize;
        if self.functions.len() <= at {
            self.functions.resize(at + 1, None);
        }
        if let Some(handle) = self.functions[at] {
            return Value::Function(handle);
        }
        let handle = self.insert(Obj::Closure { function, cells: Box::default() });
        self.functions[at] = Some(handle);
        Value::Function(handle)
    }

    /// Arguments as a function expects them: extra ones dropped or gathered, missing ones filled in.
    pub(crate) fn arrange(&mut self, function: FunctionId, mut args: Vec<Value>) -> Result<Vec<Value>, Fault> {
        let program = self.program.clone();
        let target = program.function(function);
        let missing = if target.defaults { Value::Absent } else { Value::Null };
        let fixed = target.params.len() - usize::from(target.rest);
        let further = if args.len() > fixed { args.split_off(fixed) } else { Vec::new() };
        args.resize(fixed, missing);
        if target.rest {
            self.charge(size_of_val(&*further))?;
            args.push(Value::Array(self.insert(Obj::Array(further))));
        }
        if !target.defaults {
            for arg in &mut args {
                if let Value::Absent = arg {
                    *arg = Value::Null;
                }
            }
        }
        Ok(args)
    }

    /// The stack and frame with which a task starts. Place 0 takes the result.
    pub(crate) fn first_frame(&mut self, callee: Value, args: &[Value]) -> (Vec<Value>, Vec<Frame>) {
        let (function, closure) = match callee {
            Value::Function(handle) => match self.get(handle) {
                Obj::Closure { function, .. } => (*function, Some(handle)),
                _ => (FunctionId(0), None),
            },
            _ => (FunctionId(0), None),
        };
        let args = self.arrange(function, args.to_vec()).unwrap_or_default();
        let registers = usize::from(self.program.function(function).registers);
        let mut stack = Vec::with_capacity(registers + 1);
        stack.push(Value::Null);
        stack.extend(args);
        stack.resize(stack.len().max(registers + 1), Value::Null);
        (stack, vec![Frame { function, pc: 0, base: 1, closure }])
    }
}

/// The known name that is closest to what was written, when it is close enough to be meant.
fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = wanted.chars().count();
    let near = |name: &'a str| {
        let longer = length.max(name.chars().count());
        let distance = distance(wanted, name);
        (distance <= (longer / 3).max(1) && distance < longer).then_some((distance, name))
    };
    known.filter_map(near).min().map(|(_, name)| name)
}

/// Edits (insert, remove, replace) from one name to another.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (n, a) in from.chars().enumerate() {
        let mut corner = row[0];
        row[0] = n + 1;
        for (m, b) in to.iter().enumerate() {
            let replaced = corner + usize::from(a != *b);
            corner = row[m + 1];
            row[m + 1] = replaced.min(row[m] + 1).min(corner + 1);
        }
    }
    row[to.len()]
}
