//! The RADS grammar: lexer, parser, syntax tree and diagnostics; never fails, never hangs.
//!
//! [`parse`] takes any text and gives a tree and what is wrong with it, in time linear in its length. What names mean is
//! left to `rads-compile`.

#![forbid(unsafe_code)]

pub mod ast;
pub mod codes;
mod diagnostic;
mod dump;
mod lexer;
mod literal;
mod nearest;
mod parser;
mod render;
mod span;
mod token;
mod visit;

pub use diagnostic::{Diagnostic, Severity};
pub use dump::dump;
pub use nearest::nearest;
pub use render::render;
pub use span::Span;
pub use visit::expressions;

/// A tree for whatever was written, and every independent error in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parse {
    pub file: ast::File,
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a source text. Total: any text gives a tree.
pub fn parse(source: &str) -> Parse {
    parser::parse(source)
}

/// The imports of a file, in order: what bundling follows.
pub fn imports(file: &ast::File) -> Vec<ast::Import> {
    let import = |statement: &ast::Stmt| match &statement.kind {
        ast::StmtKind::Import(import) => Some(import.clone()),
        _ => None,
    };
    file.statements.iter().filter_map(import).collect()
}
