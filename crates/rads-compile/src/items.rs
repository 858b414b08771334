//! What each file declares at its top, and what it sees of others.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rads_syntax::ast::{EnumDecl, Function, ImportTarget, PatternKind, StmtKind, StructDecl, TypeRef};
use rads_syntax::{Diagnostic, nearest};
use rads_vm::{FileId, Natives};

use crate::codes;
use crate::load::Unit;
use crate::scope::{Captures, pattern_names, unexported};

/// Top-level variables of one file kept in registers; with more of them all become globals.
const MOST_TOP_REGISTERS: usize = 100;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Item<'a> {
    Blast(&'a Function),
    /// The place in the program's structs.
    Struct(u32),
    Enum(&'a EnumDecl),
    Global(u32, Option<&'a TypeRef>),
}

/// One file's names.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    pub(crate) items: BTreeMap<&'a str, Item<'a>>,
    /// `None`: everything may be used from outside.
    pub(crate) exported: Option<BTreeSet<&'a str>>,
    /// Units whose names are visible without a prefix.
    pub(crate) open: Vec<usize>,
    /// Units by the name before the dot.
    pub(crate) units: BTreeMap<&'a str, usize>,
    /// Native modules under another name.
    pub(crate) modules: BTreeMap<&'a str, String>,
    pub(crate) captures: &'a Captures,
    /// Every variable of the top, for suggestions.
    pub(crate) variables: Vec<&'a str>,
}

/// What all files declare.
#[derive(Debug)]
pub(crate) struct Items<'a> {
    pub(crate) names: Vec<Names<'a>>,
    pub(crate) structs: Vec<(usize, &'a StructDecl)>,
    pub(crate) globals: Vec<&'a str>,
    /// Library blasts by module and name, with their unit.
    pub(crate) library: BTreeMap<(String, &'a str), (usize, &'a Function)>,
    pub(crate) diagnostics: Vec<(FileId, Diagnostic)>,
}

pub(crate) fn collect<'a>(units: &'a [Unit], natives: &Natives) -> Items<'a> {
    let mut items = Items {
        names: Vec::new(),
        structs: Vec::new(),
        globals: Vec::new(),
        library: BTreeMap::new(),
        diagnostics: Vec::new(),
    };
    let imported: BTreeSet<usize> = units.iter().flat_map(|unit| unit.imports.values().copied()).collect();
    for (at, unit) in units.iter().enumerate() {
        let names = items.of_unit(at, unit, imported.contains(&at), natives);
        items.names.push(names);
    }
    items
}

impl<'a> Items<'a> {
    /// What a name at the top of a unit, or of one it imports openly, stands for; with the unit that declares it.
    pub(crate) fn find(&self, unit: usize, name: &str) -> Option<(usize, Item<'a>)> {
        let names = &self.names[unit];
        if let Some(item) = names.items.get(name) {
            return Some((unit, *item));
        }
        names.open.iter().find_map(|other| self.find_exported(*other, name).map(|item| (*other, item)))
    }

    /// What a unit lets others use under a name.
    pub(crate) fn find_exported(&self, unit: usize, name: &str) -> Option<Item<'a>> {
        let names = &self.names[unit];
        let open = names.exported.as_ref().is_none_or(|exported| exported.contains(name));
        if open { names.items.get(name).copied() } else { None }
    }

    /// What a unit lets others use.
    pub(crate) fn exported_names(&self, unit: usize) -> impl Iterator<Item = &'a str> + '_ {
        let names = &self.names[unit];
        names.items.keys().copied().filter(|n| names.exported.as_ref().is_none_or(|exported| exported.contains(n)))
    }

    fn of_unit(&mut self, at: usize, unit: &'a Unit, imported: bool, natives: &Natives) -> Names<'a> {
        let file = FileId(at as u32);
        let mut names = Names {
            items: BTreeMap::new(),
            exported: None,
            open: Vec::new(),
            units: BTreeMap::new(),
            modules: BTreeMap::new(),
            captures: &unit.parsed.captures,
            variables: Vec::new(),
        };
        let mut exported = BTreeSet::new();
        let mut variables = Vec::new();
        for stmt in &unit.parsed.ast.statements {
            let is_export = matches!(stmt.kind, StmtKind::Export(_));
            let mut declared = Vec::new();
            match &unexported(stmt).kind {
                StmtKind::Blast(function) => {
                    if let Some(name) = &function.name {
                        declared.push((name, Item::Blast(function)));
                        if unit.library
                            && let Some((module, member)) = name.text.split_once("__")
                        {
                            self.library.insert((module.replace("_dot_", "."), member), (at, function));
                        }
                    }
                }
                StmtKind::Struct(decl) => {
                    declared.push((&decl.name, Item::Struct(self.structs.len() as u32)));
                    self.structs.push((at, decl));
                }
                StmtKind::Enum(decl) => declared.push((&decl.name, Item::Enum(decl))),
                StmtKind::Let(decl) => {
                    let annotation = match &decl.pattern.kind {
                        PatternKind::Name { annotation, .. } => annotation.as_ref(),
                        _ => None,
                    };
                    let mut found = Vec::new();
                    pattern_names(&decl.pattern, &mut found);
                    if is_export {
                        exported.extend(found.iter().map(|name| &*name.text));
                    }
                    variables.extend(found.into_iter().map(|name| (name, annotation)));
                }
                StmtKind::Import(import) => {
                    let alias = import.alias.as_ref().map(|name| &*name.text);
                    match &import.target {
                        ImportTarget::File { path, .. } => {
                            let Some(other) = unit.imports.get(&import.span.start) else { continue };
                            match alias {
                                Some(alias) => {
                                    names.units.insert(alias, *other);
                                }
                                None => {
                                    names.open.push(*other);
                                    let stem = path.rsplit('/').next().unwrap_or(path);
                                    let stem = stem.strip_suffix(".rads").unwrap_or(stem);
                                    names.units.entry(stem).or_insert(*other);
                                }
                            }
                        }
                        ImportTarget::Module(parts) => {
                            let parts: Vec<&str> = parts.iter().map(|part| &*part.text).collect();
                            let module = parts.join(".");
                            if let Some(problem) = check_module(&module, natives) {
                                self.diagnostics.push((file, Diagnostic { span: import.span, ..problem }));
                            } else if let Some(alias) = alias {
                                names.modules.insert(alias, module);
                            }
                        }
                    }
                }
                _ => {}
            }
            for (name, item) in declared {
                if is_export {
                    exported.insert(&*name.text);
                }
                if names.items.insert(&name.text, item).is_some() {
                    let message = format!("`{}` is declared twice", name.text);
                    self.diagnostics.push((file, Diagnostic::error(codes::DECLARED_TWICE, name.span, message)));
                }
            }
        }
        let many = variables.len() > MOST_TOP_REGISTERS;
        let captured = variables.iter().filter(|(name, _)| names.captures.captured.contains(&name.span.start));
        let captured: HashSet<&str> = captured.map(|(name, _)| &*name.text).collect();
        for (name, annotation) in &variables {
            let text = &*name.text;
            if !(imported || many || captured.contains(text)) {
                continue;
            }
            match names.items.get(text) {
                None => {
                    names.items.insert(text, Item::Global(self.globals.len() as u32, *annotation));
                    self.globals.push(text);
                }
                Some(Item::Global(..)) => {}
                Some(_) => {
                    let message = format!("`{text}` is declared twice");
                    self.diagnostics.push((file, Diagnostic::error(codes::DECLARED_TWICE, name.span, message)));
                }
            }
        }
        names.variables = variables.iter().map(|(name, _)| &*name.text).collect();
        names.exported = (!exported.is_empty()).then_some(exported);
        names
    }
}

/// What is wrong with `import module;`, if anything.
fn check_module(module: &str, natives: &Natives) -> Option<Diagnostic> {
    let prefix = format!("{module}.");
    let known = natives.has_module(module) || natives.module_names().any(|name| name.starts_with(&prefix));
    if known {
        return None;
    }
    let message = format!("no module is called `{module}`");
    let problem = Diagnostic::error(codes::UNKNOWN_MODULE, rads_syntax::Span::default(), message);
    Some(match nearest(module, natives.module_names()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("a file is imported by its path in quotes: `import \"lib/x.rads\";`"),
    })
}
