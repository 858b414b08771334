//! From syntax trees to bytecode: modules, names, scopes, registers.
//!
//! [`compile`] reads the entry file and what it imports, says what is wrong with them, and gives a program when nothing
//! is. It does no effects itself: files come from [`Sources`].
//!
//! - `load`: which files a program is made of. `items`: what each declares at its top.
//! - `scope`: which variables are captured. `lower`: statements and expressions to instructions. `emit`: registers, jumps.

#![forbid(unsafe_code)]

pub mod codes;
mod emit;
mod items;
mod load;
mod lower;
mod scope;

use std::borrow::Cow;

use rads_syntax::{Diagnostic, Severity};
use rads_vm::{FileId, Natives, Program};

/// Where source texts come from.
pub trait Sources {
    /// The text of a file by its path from the app's root, `/`-separated and normalised. The error is for people.
    fn read(&self, path: &str) -> Result<String, String>;
}

/// One file of a program.
#[derive(Debug, Clone)]
pub struct SourceFile {
    pub path: String,
    pub text: Cow<'static, str>,
}

/// What compiling gave.
#[derive(Debug)]
pub struct Compiled {
    /// `Some` exactly when no diagnostic is an error.
    pub program: Option<Program>,
    /// By `FileId`: the entry first, then what it imports, then the library's own sources.
    pub files: Vec<SourceFile>,
    pub diagnostics: Vec<(FileId, Diagnostic)>,
}

impl Compiled {
    /// Has files shown, in diagnostics and traces, below the folder that somebody typed: `hello.rads` as `examples/hello.rads`.
    /// `folder` ends with `/`, or is empty.
    #[must_use]
    pub fn shown_below(mut self, folder: &str) -> Self {
        let shown = |path: &str| format!("{folder}{path}");
        for file in self.files.iter_mut().filter(|file| file.path != load::LIBRARY) {
            file.path = shown(&file.path);
        }
        let program = self.program.iter_mut().flat_map(|program| &mut program.files);
        for file in program.filter(|file| &*file.path != load::LIBRARY) {
            file.path = shown(&file.path).into();
        }
        self
    }

    /// Every diagnostic as people read it, with its excerpt.
    pub fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        for (file, diagnostic) in &self.diagnostics {
            let nothing = SourceFile { path: String::new(), text: Cow::Borrowed("") };
            let file = self.files.get(file.0 as usize).unwrap_or(&nothing);
            text.push_str(&rads_syntax::render(diagnostic, &file.path, &file.text, colour));
            text.push('\n');
        }
        text
    }
}

/// Compiles the program whose entry file is `entry`, for machines with these natives.
pub fn compile(sources: &dyn Sources, entry: &str, natives: &Natives) -> Compiled {
    let loaded = load::load(sources, entry, natives);
    let files: Vec<SourceFile> =
        loaded.units.iter().map(|unit| SourceFile { path: unit.path.clone(), text: unit.text.clone() }).collect();
    let mut diagnostics = loaded.diagnostics;
    let lowered = lower::lower(&loaded.units, natives);
    diagnostics.extend(lowered.diagnostics);
    diagnostics.sort_by_key(|(file, diagnostic)| (*file, diagnostic.span.start));
    let failed = diagnostics.iter().any(|(_, d)| d.severity == Severity::Error);
    Compiled { program: (!failed).then_some(lowered.program), files, diagnostics }
}
