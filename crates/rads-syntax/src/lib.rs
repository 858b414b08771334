//! The RADS grammar: lexer, parser, syntax tree and diagnostics; never fails, never hangs.
//!
//! What names mean, and whether types fit, is for `rads-compile`.

#![forbid(unsafe_code)]

pub mod ast;
pub mod codes;
mod diagnostic;
mod nearest;
mod render;
mod span;

pub use diagnostic::{Diagnostic, Severity};
pub use nearest::nearest;
pub use render::render;
pub use span::Span;
