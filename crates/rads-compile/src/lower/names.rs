//! What a name means where it is used.

use rads_syntax::ast::{Expr, ExprKind, Function, Name};
use rads_syntax::{Diagnostic, Span};
use rads_vm::{Capture, Const, NativeId, Op, Reg};

use super::{Check, Lowerer};
use crate::codes;
use crate::items::Item;

/// A variable, seen from the function being lowered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Register(Reg),
    Cell(Reg),
    Captured(u8),
    Global(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Variable {
    pub(super) place: Place,
    pub(super) check: Option<Check>,
}

/// What a name or a dotted path stands for, when it is known at compile time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'a> {
    Blast(usize, &'a Function),
    Native(NativeId),
    Number(f64),
    /// A value of an enum.
    Int(i64),
    Struct(u32),
    Enum(&'a rads_syntax::ast::EnumDecl),
    Variable(Variable),
    Module,
    /// It was reported.
    Wrong,
}

impl<'a> Lowerer<'a> {
    pub(super) fn variable(&mut self, name: &str) -> Option<Variable> {
        let top = self.states.len() - 1;
        let found = self.states.iter().enumerate().rev().find_map(|(depth, state)| {
            let local = state.blocks.iter().rev().find_map(|(b, _)| b.iter().rev().find(|local| local.name == name))?;
            Some((depth, *local))
        });
        if let Some((depth, local)) = found {
            if depth == top {
                let place = if local.cell { Place::Cell(local.register) } else { Place::Register(local.register) };
                return Some(Variable { place, check: local.check });
            }
            let key = (depth, local.key);
            let mut capture = Capture::Register(local.register);
            for state in &mut self.states[depth + 1..] {
                capture = Capture::Captured(state.capture(key, capture));
            }
            if let Capture::Captured(at) = capture {
                return Some(Variable { place: Place::Captured(at), check: local.check });
            }
        }
        let unit = self.unit();
        match self.items.find(unit, name)? {
            (_, Item::Global(at, annotation)) => {
                let check = annotation.and_then(|annotation| self.check_of(annotation, name));
                Some(Variable { place: Place::Global(at), check })
            }
            _ => None,
        }
    }

    /// What a bare name stands for.
    pub(super) fn known_name(&mut self, name: &str, span: Span) -> Known<'a> {
        if let Some(variable) = self.variable(name) {
            return Known::Variable(variable);
        }
        let unit = self.unit();
        if let Some((unit, item)) = self.items.find(unit, name) {
            return self.known_item(unit, item);
        }
        if let Some((unit, function)) = self.items.library.get(&(String::new(), name)) {
            return Known::Blast(*unit, function);
        }
        if let Some(id) = self.natives.lookup("", name) {
            return Known::Native(id);
        }
        if self.is_module(name) {
            return Known::Module;
        }
        self.unknown_name(name, span);
        Known::Wrong
    }

    fn known_item(&mut self, unit: usize, item: Item<'a>) -> Known<'a> {
        match item {
            Item::Blast(function) => Known::Blast(unit, function),
            Item::Struct(def) => Known::Struct(def),
            Item::Enum(decl) => Known::Enum(decl),
            Item::Global(at, annotation) => {
                let check = annotation.and_then(|annotation| self.check_of(annotation, ""));
                Known::Variable(Variable { place: Place::Global(at), check })
            }
        }
    }

    fn is_module(&self, name: &str) -> bool {
        let unit = self.unit();
        let prefix = format!("{name}.");
        let names = &self.items.names[unit];
        names.modules.contains_key(name)
            || names.units.contains_key(name)
            || self.natives.has_module(name)
            || self.natives.module_names().any(|module| module.starts_with(&prefix))
            || self.items.library.keys().any(|(module, _)| module == name)
    }

    fn unknown_name(&mut self, name: &str, span: Span) {
        let unit = self.unit();
        let problem = Diagnostic::error(codes::UNKNOWN_NAME, span, format!("nothing is called `{name}` here"));
        let locals = self.states.iter().flat_map(|s| &s.blocks).flat_map(|(block, _)| block).map(|local| local.name);
        let open = self.items.names[unit].open.iter().flat_map(|other| self.items.exported_names(*other));
        let items = self.items.names[unit].items.keys().copied();
        let tops = self.items.names[unit].variables.iter().copied();
        let globals = self.natives.members("");
        let library = self.items.library.keys().filter(|(module, _)| module.is_empty()).map(|(_, name)| *name);
        let modules = self.natives.module_names();
        let all = locals.chain(items).chain(tops).chain(open).chain(globals).chain(library).chain(modules);
        let near = self.near(name, all);
        self.error(match near {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help(format!("declare it first: `turbo {name} = …;`")),
        });
    }

    /// What `object.name` stands for, when `object` is a module, a file or an enum and not a value.
    pub(super) fn known_member(&mut self, object: &'a Expr, name: &'a Name) -> Option<Known<'a>> {
        let mut path: Vec<&'a str> = Vec::new();
        let mut inner = object;
        loop {
            match &inner.kind {
                ExprKind::Field { object, name, optional: false } => {
                    path.push(&name.text);
                    inner = object;
                }
                ExprKind::Name(root) => {
                    path.push(root);
                    break;
                }
                _ => return None,
            }
        }
        path.reverse();
        let root = path[0];
        let unit = self.unit();
        if self.is_variable(root) {
            return None;
        }
        match self.items.find(unit, root) {
            Some((_, Item::Enum(decl))) if path.len() == 1 => return Some(self.enum_value(decl, name)),
            Some(_) => return None,
            None => {}
        }
        if let Some(other) = self.items.names[unit].units.get(root).copied() {
            match path.as_slice() {
                [_] => return Some(self.file_member(other, root, name)),
                [_, inner] => {
                    if let Some(Item::Enum(decl)) = self.items.find_exported(other, inner) {
                        return Some(self.enum_value(decl, name));
                    }
                }
                _ => {}
            }
            if !self.natives.has_module(root) {
                return None;
            }
        }
        let first = self.items.names[unit].modules.get(root).cloned();
        let mut module = first.unwrap_or_else(|| root.to_owned());
        for part in &path[1..] {
            module.push('.');
            module.push_str(part);
        }
        let resolved = self.natives.resolve(&module).to_owned();
        if let Some((unit, function)) = self.items.library.get(&(resolved.clone(), &*name.text)) {
            return Some(Known::Blast(*unit, function));
        }
        if let Some(id) = self.natives.lookup(&resolved, &name.text) {
            return Some(Known::Native(id));
        }
        if let Some(number) = self.natives.lookup_constant(&resolved, &name.text) {
            return Some(Known::Number(number));
        }
        let deeper = format!("{resolved}.{}", name.text);
        let prefix = format!("{deeper}.");
        if self.natives.has_module(&deeper) || self.natives.module_names().any(|m| m.starts_with(&prefix)) {
            return Some(Known::Module);
        }
        let in_library = self.items.library.keys().any(|(m, _)| *m == resolved);
        if !self.natives.has_module(&resolved) && !in_library {
            return None;
        }
        let message = format!("module `{module}` has no member `{}`", name.text);
        let members = self.natives.members(&resolved);
        let library = self.items.library.keys().filter(|(m, _)| *m == resolved).map(|(_, name)| *name);
        let near = self.near(&name.text, members.chain(library).filter(|m| !m.starts_with('_')));
        self.unknown_member(name, message, near);
        Some(Known::Wrong)
    }

    fn is_variable(&self, name: &str) -> bool {
        let local = self.states.iter().flat_map(|s| &s.blocks).flat_map(|(b, _)| b).any(|local| local.name == name);
        local || matches!(self.items.find(self.unit(), name), Some((_, Item::Global(..))))
    }

    fn file_member(&mut self, unit: usize, alias: &str, name: &'a Name) -> Known<'a> {
        if let Some(item) = self.items.find_exported(unit, &name.text) {
            return self.known_item(unit, item);
        }
        let hidden = self.items.names[unit].items.contains_key(&*name.text);
        let near = self.near(&name.text, self.items.exported_names(unit));
        let message = match hidden {
            true => format!("`{}` is not exported by `{alias}`", name.text),
            false => format!("`{alias}` has no member `{}`", name.text),
        };
        self.unknown_member(name, message, near);
        Known::Wrong
    }

    fn enum_value(&mut self, decl: &'a rads_syntax::ast::EnumDecl, name: &'a Name) -> Known<'a> {
        let values = enum_values(decl);
        if let Some((_, value)) = values.iter().find(|(variant, _)| *variant == &*name.text) {
            return Known::Int(*value);
        }
        let message = format!("enum `{}` has no value `{}`", decl.name.text, name.text);
        let near = self.near(&name.text, values.iter().map(|(variant, _)| *variant));
        self.unknown_member(name, message, near);
        Known::Wrong
    }

    pub(super) fn unknown_member(&mut self, name: &Name, message: String, near: Option<String>) {
        let problem = Diagnostic::error(codes::UNKNOWN_MEMBER, name.span, message);
        self.error(match near {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem,
        });
    }

    /// Loads what is known into a register.
    pub(super) fn load_known(&mut self, known: Known<'a>, shown: &str, span: Span, dst: Reg) {
        self.at(span);
        match known {
            Known::Variable(variable) => self.load(variable, dst),
            Known::Blast(unit, function) => {
                let id = self.blast_id(unit, function);
                self.emit(Op::Function { a: dst, function: id.0 });
            }
            Known::Native(id) => self.emit(Op::Native { a: dst, native: id.0 }),
            Known::Number(number) => {
                let at = self.constant(Const::Float(number));
                self.emit(Op::Const { a: dst, at });
            }
            Known::Int(value) => self.int_into(value, dst),
            Known::Enum(decl) => {
                self.emit(Op::NewObject { a: dst });
                let mark = self.emitter().mark();
                let value = self.emitter().reserve();
                for (name, number) in enum_values(decl) {
                    self.int_into(number, value);
                    let site = self.site(name);
                    self.emit(Op::SetField { a: dst, b: value, site });
                }
                self.emitter().release_to(mark);
            }
            Known::Struct(_) => {
                let message = format!("`{shown}` is a struct, not a value");
                let help = format!("make one with `{shown} {{ … }}`");
                self.error(Diagnostic::error(codes::NOT_A_VALUE, span, message).help(help));
            }
            Known::Module => {
                let message = format!("`{shown}` is a module, not a value");
                let help = format!("use one of its members: `{shown}.…`");
                self.error(Diagnostic::error(codes::NOT_A_VALUE, span, message).help(help));
            }
            Known::Wrong => {}
        }
    }

    pub(super) fn load(&mut self, variable: Variable, dst: Reg) {
        match variable.place {
            Place::Register(b) if b == dst => {}
            Place::Register(b) => self.emit(Op::Move { a: dst, b }),
            Place::Cell(b) => self.emit(Op::GetCell { a: dst, b }),
            Place::Captured(at) => self.emit(Op::GetUp { a: dst, at }),
            Place::Global(global) => self.emit(Op::GetGlobal { a: dst, global }),
        }
    }

    /// Stores a register that is nobody else's, or of a variable without annotation.
    pub(super) fn store(&mut self, variable: Variable, from: Reg) {
        self.emit_check(variable.check, from);
        match variable.place {
            Place::Register(a) if a == from => {}
            Place::Register(a) => self.emit(Op::Move { a, b: from }),
            Place::Cell(a) => self.emit(Op::SetCell { a, b: from }),
            Place::Captured(at) => self.emit(Op::SetUp { a: from, at }),
            Place::Global(global) => self.emit(Op::SetGlobal { a: from, global }),
        }
    }
}

/// Each name of an enum with its number.
pub(super) fn enum_values(decl: &rads_syntax::ast::EnumDecl) -> Vec<(&str, i64)> {
    let mut next = 0;
    let mut values = Vec::new();
    for (name, given) in &decl.variants {
        let value = given.unwrap_or(next);
        next = value.wrapping_add(1);
        values.push((&*name.text, value));
    }
    values
}
