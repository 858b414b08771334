//! From syntax trees to bytecode: modules, names, scopes, registers.

#![forbid(unsafe_code)]
