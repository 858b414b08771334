//! Which files a program is made of: the entry, what it imports, and the library's own sources.
//!
//! A file is read once, however often it is imported, and its top-level statements run once, after those of the files it
//! imports; files that import each other run in the order in which they were first met.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rads_syntax::ast::{File, ImportTarget, StmtKind};
use rads_syntax::{Diagnostic, Parse, Span};
use rads_vm::{FileId, Natives};

use crate::scope::{self, Captures};
use crate::{Sources, codes};

/// Files a program may have: a bound on what a mistake can make the compiler read.
const MOST_FILES: usize = 1000;

/// One file, parsed.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) path: String,
    pub(crate) text: Cow<'static, str>,
    pub(crate) parsed: Arc<Parsed>,
    /// Imported units, by the place of the import statement.
    pub(crate) imports: BTreeMap<u32, usize>,
    /// Part of the library: compiled only as far as it is used.
    pub(crate) library: bool,
    /// When its top-level statements run, among all units.
    pub(crate) turn: usize,
}

/// What is known of a text by itself.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) ast: File,
    pub(crate) captures: Captures,
    pub(crate) line_starts: Arc<[u32]>,
}

impl Parsed {
    fn new(text: &str) -> (Self, Vec<Diagnostic>) {
        let Parse { file: ast, diagnostics } = rads_syntax::parse(text);
        let captures = scope::analyse(&ast.statements);
        (Self { ast, captures, line_starts: rads_vm::File::line_starts(text) }, diagnostics)
    }
}

#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) units: Vec<Unit>,
    pub(crate) diagnostics: Vec<(FileId, Diagnostic)>,
}

struct Loader<'a> {
    sources: &'a dyn Sources,
    units: Vec<Unit>,
    by_path: BTreeMap<String, usize>,
    diagnostics: Vec<(FileId, Diagnostic)>,
}

/// What the library's own sources are called.
pub(crate) const LIBRARY: &str = "library";

pub(crate) fn load(sources: &dyn Sources, entry: &str, natives: &Natives) -> Loaded {
    let mut loader = Loader { sources, units: Vec::new(), by_path: BTreeMap::new(), diagnostics: Vec::new() };
    let entry = normalise("", entry).unwrap_or_else(|| entry.to_owned());
    match sources.read(&entry) {
        Ok(text) => {
            loader.add(entry, text);
        }
        Err(why) => {
            let message = format!("cannot read `{entry}`: {why}");
            loader.add(entry, String::new());
            loader.diagnostics.push((FileId(0), Diagnostic::error(codes::IMPORT_FAILED, Span::default(), message)));
        }
    }
    // The list grows while it is gone through; each unit's imports are read in their order.
    let mut at = 0;
    while at < loader.units.len() {
        loader.follow(at);
        at += 1;
    }
    loader.order();
    for source in natives.preludes() {
        let (path, at) = (LIBRARY.to_owned(), loader.units.len());
        let (text, parsed) = (Cow::Borrowed(*source), known(source));
        loader.units.push(Unit { path, text, parsed, imports: BTreeMap::new(), library: true, turn: at });
    }
    Loaded { units: loader.units, diagnostics: loader.diagnostics }
}

/// One of the library's own sources, parsed once per process: every program has them, and they are longer than most.
fn known(source: &'static str) -> Arc<Parsed> {
    static KNOWN: Mutex<Vec<(&str, Arc<Parsed>)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, parsed)) = known.iter().find(|(text, _)| std::ptr::eq(*text, source)) {
        return Arc::clone(parsed);
    }
    let (parsed, diagnostics) = Parsed::new(source);
    assert!(diagnostics.is_empty(), "the library has faults: {diagnostics:?}");
    let parsed = Arc::new(parsed);
    known.push((source, Arc::clone(&parsed)));
    parsed
}

impl Loader<'_> {
    fn add(&mut self, path: String, text: String) -> usize {
        let at = self.units.len();
        let (parsed, diagnostics) = Parsed::new(&text);
        self.diagnostics.extend(diagnostics.into_iter().map(|d| (FileId(at as u32), d)));
        self.by_path.insert(path.clone(), at);
        let (text, parsed) = (Cow::Owned(text), Arc::new(parsed));
        self.units.push(Unit { path, text, parsed, imports: BTreeMap::new(), library: false, turn: at });
        at
    }

    fn follow(&mut self, at: usize) {
        let wanted: Vec<(u32, String, Span)> = self.units[at]
            .parsed
            .ast
            .statements
            .iter()
            .filter_map(|stmt| match &stmt.kind {
                StmtKind::Import(import) => match &import.target {
                    ImportTarget::File { path, span } => Some((import.span.start, path.clone(), *span)),
                    ImportTarget::Module(_) => None,
                },
                _ => None,
            })
            .collect();
        for (place, path, span) in wanted {
            match self.find(at, &path) {
                Ok(unit) => {
                    self.units[at].imports.insert(place, unit);
                }
                Err(diagnostic) => {
                    let diagnostic = Diagnostic { span, ..diagnostic };
                    self.diagnostics.push((FileId(at as u32), diagnostic));
                }
            }
        }
    }

    fn find(&mut self, importer: usize, path: &str) -> Result<usize, Diagnostic> {
        let error = |message: String| Diagnostic::error(codes::IMPORT_FAILED, Span::default(), message);
        let folder = self.units[importer].path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let Some(full) = normalise(folder, path) else {
            return Err(error(format!("`{path}` leads outside the app's folder"))
                .help("imports are relative to the importing file and stay inside the app"));
        };
        if let Some(known) = self.by_path.get(&full) {
            return Ok(*known);
        }
        if self.units.len() >= MOST_FILES {
            return Err(error(format!("the program has more than {MOST_FILES} files")));
        }
        match self.sources.read(&full) {
            Ok(text) => Ok(self.add(full, text)),
            Err(why) => {
                Err(error(format!("cannot import `{full}`: {why}")).help("the path is relative to the importing file"))
            }
        }
    }

    /// Gives each unit its turn: after what it imports, as far as that is possible.
    fn order(&mut self) {
        let mut turn = 0;
        let mut seen = vec![false; self.units.len()];
        // Units whose imports are being gone through, each with how many are done.
        let mut open: Vec<(usize, usize)> = vec![(0, 0)];
        seen[0] = true;
        while let Some((unit, done)) = open.pop() {
            match self.units[unit].imports.values().nth(done).copied() {
                Some(next) => {
                    open.push((unit, done + 1));
                    if !std::mem::replace(&mut seen[next], true) {
                        open.push((next, 0));
                    }
                }
                None => {
                    self.units[unit].turn = turn;
                    turn += 1;
                }
            }
        }
    }
}

/// A path from the app's root, without `.` and `..`; `None` when it leads outside.
fn normalise(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = if path.starts_with('/') { Vec::new() } else { folder.split('/').collect() };
    parts.retain(|part| !part.is_empty());
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_importing_file() {
        for (folder, path, full) in [
            ("", "a.rads", Some("a.rads")),
            ("lib", "a.rads", Some("lib/a.rads")),
            ("lib/x", "../y/./a.rads", Some("lib/y/a.rads")),
            ("lib", "../../a.rads", None),
        ] {
            assert_eq!(normalise(folder, path).as_deref(), full, "{folder} {path}");
        }
    }
}
