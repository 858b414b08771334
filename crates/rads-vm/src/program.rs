//! A compiled program: functions, constants, names and the tables that lead back to the source. Immutable and shared;
//! it is made by `rads-compile` and trusted by the machine.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hash::Fixed;
use crate::op::Op;
use crate::step::{FileId, Location, Span};

/// A function of the program, by its place in [`Program::functions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub u32);

/// A text that the program mentions: a name or a string constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(pub u32);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Const {
    Int(i64),
    Float(f64),
    Char(char),
    Str(Symbol),
}

/// What an annotation accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Int,
    Float,
    Str,
    Bool,
    Char,
    Array,
    Object,
    Function,
    Bytes,
    Error,
    Task,
    Struct(u32),
}

/// Where a closure finds a variable that it captures, when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// The cell in a register of the function that makes it.
    Register(u8),
    /// A captured variable of the function that makes it.
    Captured(u8),
}

/// The part of a function that a `try` covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handler {
    /// Instructions `start..end` are covered. Inner handlers come before outer ones.
    pub start: u32,
    pub end: u32,
    /// Where to go on.
    pub target: u32,
    /// The register that gets the thrown value.
    pub register: u8,
}

#[derive(Clone, Debug)]
pub struct Function {
    /// As traces show it.
    pub name: Box<str>,
    pub file: FileId,
    pub params: Box<[Symbol]>,
    /// At least one parameter has a default: missing arguments arrive as absent and the prologue replaces them.
    pub defaults: bool,
    /// The last parameter takes all further arguments as an array.
    pub rest: bool,
    /// Registers in use, calls' arguments included: at most 255.
    pub registers: u8,
    pub code: Box<[Op]>,
    /// Where each instruction comes from.
    pub spans: Box<[Span]>,
    pub handlers: Box<[Handler]>,
    pub captures: Box<[Capture]>,
}

#[derive(Clone, Debug)]
pub struct StructField {
    pub name: Symbol,
    pub kind: Option<Type>,
}

#[derive(Clone, Debug)]
pub struct StructDef {
    pub name: Box<str>,
    pub fields: Box<[StructField]>,
}

/// A source file, kept for traces: its path and where its lines start.
#[derive(Clone, Debug)]
pub struct File {
    pub path: Box<str>,
    pub line_starts: Arc<[u32]>,
}

impl File {
    pub fn new(path: &str, text: &str) -> File {
        File { path: path.into(), line_starts: File::line_starts(text) }
    }

    /// Where the lines of a text start.
    pub fn line_starts(text: &str) -> Arc<[u32]> {
        let after_breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at as u32 + 1);
        std::iter::once(0).chain(after_breaks).collect()
    }

    /// The line of a byte, counted from 1, and the byte's place in it.
    pub fn line_column(&self, offset: u32) -> (u32, u32) {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        (line as u32, offset - self.line_starts.get(line - 1).copied().unwrap_or(0) + 1)
    }
}

/// The texts of a program, each once.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    texts: Vec<Box<str>>,
    places: HashMap<Box<str>, Symbol, Fixed>,
}

impl Symbols {
    pub fn intern(&mut self, text: &str) -> Symbol {
        if let Some(found) = self.places.get(text) {
            return *found;
        }
        let symbol = Symbol(self.texts.len() as u32);
        self.texts.push(text.into());
        self.places.insert(text.into(), symbol);
        symbol
    }

    pub fn find(&self, text: &str) -> Option<Symbol> {
        self.places.get(text).copied()
    }

    pub fn get(&self, symbol: Symbol) -> &str {
        &self.texts[symbol.0 as usize]
    }
}

#[derive(Clone, Debug, Default)]
pub struct Program {
    pub functions: Vec<Function>,
    pub symbols: Symbols,
    pub consts: Vec<Const>,
    pub types: Vec<Type>,
    pub structs: Vec<StructDef>,
    /// The name that each `GetField`, `SetField` and method call uses. A place has one site of its own, because the
    /// machine remembers there what it met.
    pub sites: Vec<Symbol>,
    /// Names of the variables that live outside functions, by place.
    pub globals: Vec<Box<str>>,
    pub files: Vec<File>,
    /// What `Vm::start` calls.
    pub entry: Option<FunctionId>,
    /// Methods of built-in kinds that are written in RADS.
    pub methods: Vec<(Box<str>, Symbol, FunctionId)>,
}

impl Program {
    #[inline]
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.0 as usize]
    }

    pub fn symbol(&self, symbol: Symbol) -> &str {
        self.symbols.get(symbol)
    }

    pub fn find_symbol(&self, text: &str) -> Option<Symbol> {
        self.symbols.find(text)
    }

    pub(crate) fn symbol_count(&self) -> usize {
        self.symbols.texts.len()
    }

    /// The path of a file.
    pub fn path(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("?", |f| &f.path)
    }

    /// Line and column of a location, both counted from 1; the column in bytes.
    pub fn line_column(&self, at: Location) -> (u32, u32) {
        self.files.get(at.file.0 as usize).map_or((1, 1), |f| f.line_column(at.span.start))
    }

    /// A declared function by name, for hosts that call one (`main`, a test).
    pub fn find_function(&self, name: &str) -> Option<FunctionId> {
        self.functions.iter().position(|f| &*f.name == name).map(|n| FunctionId(n as u32))
    }

    pub(crate) fn method(&self, kind: &str, name: Symbol) -> Option<FunctionId> {
        self.methods.iter().find(|(k, n, _)| *n == name && &**k == kind).map(|m| m.2)
    }

    pub(crate) fn location(&self, function: FunctionId, pc: u32) -> Location {
        let function = self.function(function);
        Location { file: function.file, span: function.spans.get(pc as usize).copied().unwrap_or_default() }
    }
}
