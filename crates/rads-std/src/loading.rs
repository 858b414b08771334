//! From a file to a program that can run: reads the entry and its imports below the root, compiles, renders diagnostics.

use std::io::IsTerminal;
use std::path::{Component, Path};
use std::sync::Arc;

use rads_compile::{Compiled, Sources, compile};
use rads_vm::Program;

use crate::library::natives;

/// A compiled program. Traces need nothing more: the program knows its files and lines.
pub struct Loaded {
    pub(crate) program: Arc<Program>,
    warnings: Vec<String>,
}

impl Loaded {
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Diagnostics that did not prevent it, rendered for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Compiles the program whose first file is `entry`, a path inside of `root` (or relative to it). Imports are read below
/// `root` only. The error has every diagnostic, rendered for people.
pub fn load(entry: &Path, root: &Path) -> Result<Loaded, Vec<String>> {
    load_shown(entry, root, "")
}

/// The same of a file that somebody typed: imports are read below its folder, and files are shown below what was typed.
pub fn load_typed(file: &Path) -> Result<Loaded, Vec<String>> {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    let shown = folder.map(|folder| folder.join("").to_string_lossy().into_owned()).unwrap_or_default();
    load_shown(file.file_name().map_or(file, Path::new), folder.unwrap_or(Path::new(".")), &shown)
}

fn load_shown(entry: &Path, root: &Path, shown: &str) -> Result<Loaded, Vec<String>> {
    let inside = entry.strip_prefix(root).unwrap_or(entry);
    let name = inside.to_string_lossy().replace('\\', "/");
    let compiled = compile(&Folder { root }, name.trim_start_matches("./"), &natives()).shown_below(shown);
    let shown = render(&compiled);
    match compiled.program {
        Some(program) => Ok(Loaded { program: Arc::new(program), warnings: shown }),
        None => Err(shown),
    }
}

pub(crate) struct Folder<'a> {
    pub(crate) root: &'a Path,
}

impl Sources for Folder<'_> {
    fn read(&self, path: &str) -> Result<String, String> {
        let path = Path::new(path);
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err("it lies outside of the program's folder".to_owned());
        }
        std::fs::read_to_string(self.root.join(path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".to_owned(),
            std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => error.to_string().to_lowercase(),
        })
    }
}

/// In the order of files and places; colours only when people look.
fn render(compiled: &Compiled) -> Vec<String> {
    if compiled.diagnostics.is_empty() {
        return Vec::new();
    }
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let shown = compiled.diagnostics.iter().map(|(file, diagnostic)| {
        let (path, text) = match compiled.files.get(file.0 as usize) {
            Some(file) => (file.path.as_str(), &*file.text),
            None => ("", ""),
        };
        rads_syntax::render(diagnostic, path, text, colour)
    });
    shown.collect()
}
