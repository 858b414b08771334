//! The RADS grammar: lexer, parser, syntax tree and diagnostics; never fails, never hangs.

#![forbid(unsafe_code)]
