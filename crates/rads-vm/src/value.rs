//! What a RADS variable holds: sixteen bytes, copied freely. Anything larger lives in the heap behind a handle.

/// The place of one object in the heap of the machine that made it; meaningless in any other machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub(crate) u32);

impl Handle {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A native function, by its place in the [`Natives`](crate::Natives) registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NativeId(pub u32);

/// One value of the language.
///
/// Two values of a heap kind are the same value when their handles are equal; contents are compared by
/// [`Cx::equal`](crate::Cx::equal).
#[derive(Clone, Copy, Debug, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Char(char),
    Str(Handle),
    Array(Handle),
    Object(Handle),
    Function(Handle),
    Native(NativeId),
    Struct(Handle),
    Error(Handle),
    Bytes(Handle),
    Task(Handle),
    Host(Handle),
    /// A parameter the caller left out, seen only by the prologue that fills in its default.
    #[doc(hidden)]
    Absent,
    /// A register that holds a captured variable's cell; never seen by a program.
    #[doc(hidden)]
    Cell(Handle),
}

impl Value {
    /// The name that `typeof` gives, but of a host object `host`, where `typeof` gives the object's own kind. Every callable
    /// is a `function`.
    pub fn kind(self) -> &'static str {
        match self {
            Value::Null | Value::Absent | Value::Cell(_) => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) => "integer",
            Value::Float(_) => "float",
            Value::Char(_) => "char",
            Value::Str(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Function(_) | Value::Native(_) => "function",
            Value::Struct(_) => "struct",
            Value::Error(_) => "error",
            Value::Bytes(_) => "bytes",
            Value::Task(_) => "task",
            Value::Host(_) => "host",
        }
    }

    /// False, null, zero and the empty string are not true; everything else is, empty arrays and objects too.
    /// The empty string needs the heap, so strings are answered by [`Cx::truthy`](crate::Cx::truthy).
    #[inline(always)]
    pub(crate) fn plain_truth(self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(b),
            Value::Null | Value::Absent => Some(false),
            Value::Int(n) => Some(n != 0),
            Value::Float(n) => Some(n != 0.0 && !n.is_nan()),
            Value::Str(_) => None,
            _ => Some(true),
        }
    }

    pub fn is_null(self) -> bool {
        matches!(self, Value::Null)
    }

    /// The integer in an int, or in a char as its code point.
    pub fn as_int(self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(n),
            Value::Char(c) => Some(i64::from(u32::from(c))),
            _ => None,
        }
    }

    /// The number in an int or float.
    pub fn as_number(self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(n as f64),
            Value::Float(n) => Some(n),
            _ => None,
        }
    }

    pub fn as_bool(self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn handle(self) -> Option<Handle> {
        match self {
            Value::Str(h)
            | Value::Array(h)
            | Value::Object(h)
            | Value::Function(h)
            | Value::Struct(h)
            | Value::Error(h)
            | Value::Bytes(h)
            | Value::Task(h)
            | Value::Host(h)
            | Value::Cell(h) => Some(h),
            _ => None,
        }
    }

    /// Whether it can be called.
    pub fn is_callable(self) -> bool {
        matches!(self, Value::Function(_) | Value::Native(_))
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Value {
        Value::Int(n)
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Value {
        Value::Float(n)
    }
}

const _: () = assert!(size_of::<Value>() == 16, "registers are sized for sixteen-byte values");
