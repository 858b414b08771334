//! The RADS machine: bytecode, values, heap, tasks; what it cannot do itself comes out as a value.

#![forbid(unsafe_code)]
