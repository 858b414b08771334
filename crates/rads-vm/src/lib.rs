//! The RADS machine: bytecode, values, heap, tasks; what it cannot do itself comes out as a value.
//!
//! A [`Vm`] runs one [`Program`] (made by `rads-compile`) until something needs the world outside: [`Vm::run`] gives a
//! [`Step`], the host performs it and answers with [`Vm::resume`]. Nothing here reads a clock, a file or the
//! environment, so the same program with the same answers is the same run.
//!
//! - `value`, `heap`, `dict`, `record`, `collect`: what variables hold, where objects live, how they are freed.
//! - `op`, `program`: the instructions and the tables around them.
//! - `exec`, `arith`, `access`, `call`: the interpreter; `vm` holds the tasks and turns what happens into steps.
//! - `native`, `cx`: how functions written in Rust are registered and what they may do. `core` has those that need no
//!   effects; `rads-std` adds the rest.

#![forbid(unsafe_code)]

mod access;
mod arith;
mod call;
mod collect;
mod core;
mod cx;
mod dict;
mod disassemble;
mod display;
mod exec;
mod hash;
mod heap;
mod native;
mod op;
mod program;
mod record;
mod step;
mod trace;
mod value;
mod vm;

pub use crate::core::core_natives;
pub use cx::Cx;
pub use native::{NativeBody, Natives, NativesBuilder, Params, PureFn};
pub use op::{BitOperator, Op, Reg, Test};
pub use program::{
    Capture, Const, File, Function, FunctionId, Handler, Program, StructDef, StructField, Symbol, Symbols, Type,
};
pub use step::{FileId, Limits, Location, RootId, Span, Step, TaskId, TraceLine, Uncaught};
pub use value::{Handle, NativeId, Value};
pub use vm::Vm;
