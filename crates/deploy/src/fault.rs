//! What is wrong with a description, ready to be shown: the code, and the text with its excerpt and caret.

use model::{Code, Problem};
use rads_syntax::{Diagnostic, Span};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// Several lines, as people read them.
    pub text: String,
    /// The same without its place, for programs.
    pub problem: Problem,
}

impl Fault {
    /// A problem at a place in a source text.
    pub(crate) fn at(problem: &Problem, file: &str, source: &str, span: Span, colour: bool) -> Self {
        let mut diagnostic = Diagnostic::error(problem.code.as_str(), span, &*problem.message);
        if let Some(help) = &problem.help {
            diagnostic = diagnostic.help(help);
        }
        let text = rads_syntax::render(&diagnostic, file, source, colour);
        Self { code: problem.code, text, problem: problem.clone() }
    }

    /// A problem without a place, such as an option of a command line.
    pub(crate) fn nowhere(problem: &Problem) -> Self {
        Self { code: problem.code, text: problem.to_string(), problem: problem.clone() }
    }
}
