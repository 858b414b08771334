//! Statements and expressions to instructions.
//!
//! `Lowerer` walks one function at a time; an inner blast is lowered in the middle of the outer one, which stays on a
//! stack of states. Expressions go to a register the caller names, or to wherever they already are.

mod assign;
mod call;
mod expr;
mod flow;
mod names;
mod stmt;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rads_syntax::ast::{Block, Function, Name, Param, TypeRef};
use rads_syntax::{Diagnostic, nearest};
use rads_vm::{
    Capture, Const, File, FileId, Function as Code, FunctionId, Natives, Op, Program, Reg, Span, StructDef,
    StructField, Symbol, Type,
};

use crate::codes;
use crate::emit::Emitter;
use crate::items::{Item, Items};
use crate::load::Unit;
use flow::Control;

/// Mistakes of a program for which the name that was meant is looked for.
const SUGGESTED_MAX: usize = 20;

pub(crate) struct Lowered {
    pub(crate) program: Program,
    pub(crate) diagnostics: Vec<(FileId, Diagnostic)>,
}

/// What an annotated variable accepts.
#[derive(Clone, Copy, Debug)]
struct Check {
    kind: u16,
    nullable: bool,
    /// The constant with the variable's name.
    what: u32,
}

/// A variable in a register of its function.
#[derive(Clone, Copy, Debug)]
struct Local<'a> {
    name: &'a str,
    key: u32,
    register: Reg,
    /// The register holds a cell with the value.
    cell: bool,
    check: Option<Check>,
}

/// One function while it is lowered.
#[derive(Debug)]
struct State<'a> {
    emitter: Emitter,
    unit: usize,
    /// Open blocks, outermost first, with the registers in use when each began.
    blocks: Vec<(Vec<Local<'a>>, u16)>,
    /// Captured variables by the depth of the function that has them and their key.
    ups: BTreeMap<(usize, u32), u8>,
    controls: Vec<Control>,
    /// The top-level statements of a file.
    top: bool,
}

struct Lowerer<'a> {
    units: &'a [Unit],
    natives: &'a Natives,
    items: Items<'a>,
    program: Program,
    functions: Vec<Option<Code>>,
    /// Declared blasts by unit and where they are declared.
    ids: BTreeMap<(usize, u32), FunctionId>,
    /// Blasts that were mentioned and are not lowered yet.
    todo: VecDeque<(usize, &'a Function, FunctionId)>,
    /// Names of methods that some call uses: the library's methods of these names are needed.
    methods: BTreeMap<Symbol, ()>,
    consts: BTreeMap<(u8, u64), u32>,
    types: BTreeMap<String, u16>,
    states: Vec<State<'a>>,
    diagnostics: Vec<(FileId, Diagnostic)>,
}

pub(crate) fn lower(units: &[Unit], natives: &Natives) -> Lowered {
    let mut items = crate::items::collect(units, natives);
    let diagnostics = std::mem::take(&mut items.diagnostics);
    let mut lowerer = Lowerer {
        units,
        natives,
        items,
        program: Program::default(),
        functions: Vec::new(),
        ids: BTreeMap::new(),
        todo: VecDeque::new(),
        methods: BTreeMap::new(),
        consts: BTreeMap::new(),
        types: BTreeMap::new(),
        states: Vec::new(),
        diagnostics,
    };
    lowerer.run();
    let Lowerer { mut program, functions, diagnostics, .. } = lowerer;
    program.functions = functions.into_iter().flatten().collect();
    Lowered { program, diagnostics }
}

impl<'a> Lowerer<'a> {
    fn run(&mut self) {
        let file =
            |unit: &Unit| File { path: unit.path.as_str().into(), line_starts: Arc::clone(&unit.parsed.line_starts) };
        self.program.files = self.units.iter().map(file).collect();
        self.program.globals = self.items.globals.iter().map(|name| (*name).into()).collect();
        self.declare_structs();
        let entry = self.reserve_function();
        self.program.entry = Some(entry);
        let mut order: Vec<usize> = (0..self.units.len()).filter(|at| !self.units[*at].library).collect();
        order.sort_by_key(|at| self.units[*at].turn);
        let mut tops = Vec::new();
        for at in order {
            tops.push(self.top_level(at));
            // All blasts of a program are lowered, used or not: their mistakes are reported.
            let blasts: Vec<&'a Function> = self.items.names[at]
                .items
                .values()
                .filter_map(|item| match item {
                    Item::Blast(function) => Some(*function),
                    _ => None,
                })
                .collect();
            for function in blasts {
                self.blast_id(at, function);
            }
        }
        self.entry(entry, &tops);
        self.drain();
    }

    /// Lowers what was mentioned, until nothing new is.
    fn drain(&mut self) {
        loop {
            while let Some((unit, function, id)) = self.todo.pop_front() {
                let name = function.name.as_ref().map_or("blast", |name| &name.text);
                let name = match name.split_once("__") {
                    Some(("", member)) if self.units[unit].library => member.to_owned(),
                    Some((module, member)) if self.units[unit].library => format!("{module}.{member}"),
                    _ => name.to_owned(),
                };
                self.function_body(unit, function, id, &name);
            }
            let wanted: Vec<(String, Symbol, usize, &'a Function)> = self
                .items
                .library
                .iter()
                .filter_map(|((module, member), (unit, function))| {
                    let symbol = self.program.symbols.find(member)?;
                    let known =
                        self.program.methods.iter().any(|(kind, name, _)| **kind == **module && *name == symbol);
                    (!known && self.methods.contains_key(&symbol)).then(|| (module.clone(), symbol, *unit, *function))
                })
                .collect();
            if wanted.is_empty() {
                return;
            }
            for (module, symbol, unit, function) in wanted {
                let id = self.blast_id(unit, function);
                self.program.methods.push((module.into(), symbol, id));
            }
        }
    }

    fn declare_structs(&mut self) {
        let structs = self.items.structs.clone();
        for (unit, decl) in structs {
            let mut fields = Vec::new();
            for field in &decl.fields {
                let name = self.program.symbols.intern(&field.name.text);
                let kind = field.annotation.as_ref().filter(|t| !t.nullable).and_then(|t| self.type_of(unit, t));
                fields.push(StructField { name, kind });
            }
            self.program.structs.push(StructDef { name: decl.name.text.clone(), fields: fields.into() });
        }
    }

    fn reserve_function(&mut self) -> FunctionId {
        self.functions.push(None);
        FunctionId(self.functions.len() as u32 - 1)
    }

    /// The id of a blast at the top of a unit; lowering it is put on the list when it is first asked for.
    fn blast_id(&mut self, unit: usize, function: &'a Function) -> FunctionId {
        let key = (unit, function.span.start);
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = self.reserve_function();
        self.ids.insert(key, id);
        self.todo.push_back((unit, function, id));
        id
    }

    /// What the machine starts with: the files' top levels, then `main`.
    fn entry(&mut self, id: FunctionId, tops: &[FunctionId]) {
        let mut emitter = Emitter::new();
        let a = emitter.reserve();
        for top in tops {
            emitter.emit(Op::CallDirect { a, n: 0, function: top.0 });
        }
        match self.items.names[0].items.get("main").copied() {
            Some(Item::Blast(main)) => {
                let main_id = self.blast_id(0, main);
                let missing = missing_argument(main, a + 1);
                emitter.reserve_many(main.params.len());
                for n in 0..main.params.len() {
                    emitter.emit(with_register(missing, (a + 1).wrapping_add(n as u8)));
                }
                emitter.emit(Op::CallDirect { a, n: main.params.len() as u8, function: main_id.0 });
                emitter.emit(Op::Return { a });
            }
            _ => emitter.emit(Op::ReturnNull),
        }
        // Without a name it is left out of traces.
        self.functions[id.0 as usize] = Some(emitter.finish("", FileId(0), Vec::new(), false, false));
    }

    fn top_level(&mut self, unit: usize) -> FunctionId {
        let id = self.reserve_function();
        self.states.push(State::new(unit, true));
        let units: &'a [Unit] = self.units;
        self.statements(&units[unit].parsed.ast.statements);
        self.emit(Op::ReturnNull);
        self.finish_function(id, "top level", &[], rads_syntax::Span::default());
        id
    }

    /// Lowers a blast into the function reserved for it. Gives whether it captures anything.
    fn function_body(&mut self, unit: usize, function: &'a Function, id: FunctionId, name: &str) -> bool {
        self.states.push(State::new(unit, false));
        let first = self.emitter().reserve_many(function.params.len());
        let defaults = function.params.iter().any(|p| p.default.is_some());
        for (n, param) in function.params.iter().enumerate() {
            self.param(param, first.wrapping_add(n as u8), defaults);
        }
        self.block(&function.body);
        self.emit(Op::ReturnNull);
        self.finish_function(id, name, &function.params, function.span)
    }

    /// The prologue of one parameter: default, annotation, cell.
    fn param(&mut self, param: &'a Param, register: Reg, defaults: bool) {
        self.at(param.name.span);
        if defaults {
            let given = self.emitter().jump(Op::JumpIfGiven { a: register, by: 0 });
            match &param.default {
                Some(default) => self.expr_into(default, register),
                None => self.emit(Op::Null { a: register }),
            }
            self.emitter().land(given);
        }
        let check = param.annotation.as_ref().filter(|_| !param.rest).and_then(|t| self.check_of(t, &param.name.text));
        self.at(param.name.span);
        self.emit_check(check, register);
        self.declare(&param.name, register, check);
    }

    fn finish_function(&mut self, id: FunctionId, name: &str, params: &[Param], span: rads_syntax::Span) -> bool {
        let Some(state) = self.states.pop() else { return false };
        let file = FileId(state.unit as u32);
        if state.emitter.overflowed || state.ups.len() > 250 {
            let message = format!("`{name}` uses more variables at once than a blast can have");
            let help = "move a part of it into a blast of its own";
            self.diagnostics.push((file, Diagnostic::error(codes::TOO_LARGE, span, message).help(help)));
        }
        let names = params.iter().map(|p| self.program.symbols.intern(&p.name.text)).collect();
        let defaults = params.iter().any(|p| p.default.is_some());
        let rest = params.iter().any(|p| p.rest);
        let code = state.emitter.finish(name, file, names, defaults, rest);
        let captures = !code.captures.is_empty();
        self.functions[id.0 as usize] = Some(code);
        captures
    }

    // --- the function being lowered

    fn state(&mut self) -> &mut State<'a> {
        self.states.last_mut().expect("code is lowered inside a function")
    }

    fn emitter(&mut self) -> &mut Emitter {
        &mut self.state().emitter
    }

    fn emit(&mut self, op: Op) {
        self.emitter().emit(op);
    }

    /// What is emitted from now on comes from here.
    fn at(&mut self, span: rads_syntax::Span) {
        self.emitter().span = Span { start: span.start, end: span.end };
    }

    fn unit(&self) -> usize {
        self.states.last().map_or(0, |state| state.unit)
    }

    /// The known name that was probably meant. Only for the first mistakes of a program: nobody reads on, and each look
    /// goes through every name.
    fn near<'n>(&self, wrong: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
        if self.diagnostics.len() >= SUGGESTED_MAX {
            return None;
        }
        nearest(wrong, known).map(str::to_owned)
    }

    fn error(&mut self, diagnostic: Diagnostic) {
        let file = FileId(self.unit() as u32);
        self.diagnostics.push((file, diagnostic));
    }

    fn open_block(&mut self) {
        let mark = self.emitter().mark();
        self.state().blocks.push((Vec::new(), mark));
    }

    fn close_block(&mut self) {
        if let Some((_, mark)) = self.state().blocks.pop() {
            self.emitter().release_to(mark);
        }
    }

    /// Makes a register that holds a value the variable of this name.
    fn declare(&mut self, name: &'a Name, register: Reg, check: Option<Check>) {
        let key = name.span.start;
        let unit = self.unit();
        let cell = self.items.names[unit].captures.captured.contains(&key);
        if cell {
            self.emit(Op::NewCell { a: register });
        }
        let local = Local { name: &name.text, key, register, cell, check };
        if let Some((block, _)) = self.state().blocks.last_mut() {
            block.push(local);
        }
    }

    // --- constants and types

    fn constant(&mut self, value: Const) -> u32 {
        let key = match value {
            Const::Int(n) => (0, n as u64),
            Const::Float(n) => (1, n.to_bits()),
            Const::Char(c) => (2, u64::from(u32::from(c))),
            Const::Str(symbol) => (3, u64::from(symbol.0)),
        };
        let next = self.program.consts.len() as u32;
        let at = *self.consts.entry(key).or_insert(next);
        if at == next {
            self.program.consts.push(value);
        }
        at
    }

    fn text_constant(&mut self, text: &str) -> u32 {
        let symbol = self.program.symbols.intern(text);
        self.constant(Const::Str(symbol))
    }

    /// A place in the program that uses a field or method of this name.
    fn site(&mut self, name: &str) -> u32 {
        let symbol = self.program.symbols.intern(name);
        self.program.sites.push(symbol);
        self.program.sites.len() as u32 - 1
    }

    /// The same for a call: the library's methods of the name are needed.
    fn method_site(&mut self, name: &str) -> u32 {
        let symbol = self.program.symbols.intern(name);
        self.methods.insert(symbol, ());
        self.site(name)
    }

    fn check_of(&mut self, annotation: &TypeRef, name: &str) -> Option<Check> {
        let unit = self.unit();
        let kind = self.type_of(unit, annotation)?;
        let key = format!("{kind:?}");
        let next = self.program.types.len() as u16;
        let at = *self.types.entry(key).or_insert(next);
        if at == next {
            self.program.types.push(kind);
        }
        let what = self.text_constant(name);
        Some(Check { kind: at, nullable: annotation.nullable, what })
    }

    fn emit_check(&mut self, check: Option<Check>, register: Reg) {
        let Some(Check { kind, nullable, what }) = check else { return };
        let null = nullable.then(|| self.emitter().jump(Op::JumpIfNull { a: register, by: 0 }));
        self.emit(Op::Check { a: register, kind, what });
        if let Some(jump) = null {
            self.emitter().land(jump);
        }
    }

    /// What an annotation accepts; `None` when that is anything.
    fn type_of(&mut self, unit: usize, annotation: &TypeRef) -> Option<Type> {
        const KNOWN: [&str; 12] =
            ["i32", "i64", "f64", "str", "bool", "char", "array", "object", "function", "bytes", "error", "any"];
        Some(match &*annotation.name.text {
            "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "int" | "integer" => Type::Int,
            "f32" | "f64" | "float" | "double" => Type::Float,
            "str" | "string" => Type::Str,
            "bool" | "boolean" => Type::Bool,
            "char" => Type::Char,
            "array" | "tuple" => Type::Array,
            "object" | "map" | "dict" => Type::Object,
            "function" | "blast" | "fn" => Type::Function,
            "bytes" => Type::Bytes,
            "error" => Type::Error,
            "task" => Type::Task,
            "any" | "auto" | "turbo" | "void" | "null" => return None,
            name => match self.items.find(unit, name) {
                Some((_, Item::Struct(def))) => Type::Struct(def),
                Some((_, Item::Enum(_))) => Type::Int,
                _ if name == "Result" => return None,
                _ => {
                    let structs = self.items.names[unit].items.keys().copied();
                    let near = self.near(name, KNOWN.into_iter().chain(structs));
                    let problem = Diagnostic::error(
                        codes::UNKNOWN_TYPE,
                        annotation.name.span,
                        format!("no type is called `{name}`"),
                    );
                    let problem = match near {
                        Some(near) => problem.help(format!("did you mean `{near}`?")),
                        None => problem,
                    };
                    self.diagnostics.push((FileId(unit as u32), problem));
                    return None;
                }
            },
        })
    }

    fn block(&mut self, block: &'a Block) {
        self.open_block();
        self.statements(&block.statements);
        self.close_block();
    }

    /// The value of a blast written inside an expression or block.
    fn closure_into(&mut self, function: &'a Function, dst: Reg) {
        let id = self.reserve_function();
        let unit = self.unit();
        let name = function.name.as_ref().map_or("blast", |name| &name.text);
        let captures = self.function_body(unit, function, id, name);
        self.at(function.span);
        match captures {
            true => self.emit(Op::Closure { a: dst, function: id.0 }),
            false => self.emit(Op::Function { a: dst, function: id.0 }),
        }
    }
}

impl State<'_> {
    fn new(unit: usize, top: bool) -> Self {
        let blocks = vec![(Vec::new(), 0)];
        State { emitter: Emitter::new(), unit, blocks, ups: BTreeMap::new(), controls: Vec::new(), top }
    }

    fn capture(&mut self, key: (usize, u32), capture: Capture) -> u8 {
        let next = self.ups.len().min(255) as u8;
        let at = *self.ups.entry(key).or_insert(next);
        if at == next && self.emitter.captures.len() == usize::from(at) {
            self.emitter.captures.push(capture);
        }
        at
    }
}

/// How a parameter that was not given is passed.
fn missing_argument(function: &Function, a: Reg) -> Op {
    if function.params.iter().any(|p| p.default.is_some()) { Op::Absent { a } } else { Op::Null { a } }
}

fn with_register(op: Op, a: Reg) -> Op {
    match op {
        Op::Absent { .. } => Op::Absent { a },
        _ => Op::Null { a },
    }
}
