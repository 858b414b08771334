//! The natives that need no effects, one file a module. `rads-std` puts the rest on top.

use crate::native::NativesBuilder;

/// Registers everything that every RADS program can use, wherever it runs.
pub fn core_natives(_builder: &mut NativesBuilder) {}
