//! The instructions: eight bytes each, operands in registers of the running frame.
//!
//! A register is named by one byte and a frame is seen through a window of 256 registers, so that safe code needs no
//! bounds check to reach one. Offsets of jumps count from the instruction after the jump.

/// A register of the running frame.
pub type Reg = u8;

/// One instruction. `a` is where the result goes unless said otherwise; `b` and `c` are operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    // --- values
    Move {
        a: Reg,
        b: Reg,
    },
    Null {
        a: Reg,
    },
    /// An argument or field that was left out.
    Absent {
        a: Reg,
    },
    Bool {
        a: Reg,
        value: bool,
    },
    Int {
        a: Reg,
        value: i32,
    },
    /// From the program's pool of constants.
    Const {
        a: Reg,
        at: u32,
    },
    /// A declared blast as a value.
    Function {
        a: Reg,
        function: u32,
    },
    Native {
        a: Reg,
        native: u32,
    },
    /// A blast with captured variables, which its declaration lists.
    Closure {
        a: Reg,
        function: u32,
    },
    GetGlobal {
        a: Reg,
        global: u32,
    },
    SetGlobal {
        a: Reg,
        global: u32,
    },

    // --- captured variables
    /// Puts the value of `a` into a fresh cell that takes its place.
    NewCell {
        a: Reg,
    },
    /// From the cell in register `b`.
    GetCell {
        a: Reg,
        b: Reg,
    },
    /// Into the cell in register `a`.
    SetCell {
        a: Reg,
        b: Reg,
    },
    /// From the running closure's captured variable `at`.
    GetUp {
        a: Reg,
        at: u8,
    },
    SetUp {
        a: Reg,
        at: u8,
    },

    // --- arithmetic
    Add {
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Sub {
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Mul {
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Div {
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Rem {
        a: Reg,
        b: Reg,
        c: Reg,
    },
    AddInt {
        a: Reg,
        b: Reg,
        value: i32,
    },
    SubInt {
        a: Reg,
        b: Reg,
        value: i32,
    },
    MulInt {
        a: Reg,
        b: Reg,
        value: i32,
    },
    DivInt {
        a: Reg,
        b: Reg,
        value: i32,
    },
    RemInt {
        a: Reg,
        b: Reg,
        value: i32,
    },
    /// The operators too rare to need an instruction of their own.
    Bits {
        a: Reg,
        b: Reg,
        c: Reg,
        operator: BitOperator,
    },
    Neg {
        a: Reg,
        b: Reg,
    },
    BitNot {
        a: Reg,
        b: Reg,
    },
    Not {
        a: Reg,
        b: Reg,
    },
    TypeOf {
        a: Reg,
        b: Reg,
    },
    Compare {
        a: Reg,
        b: Reg,
        c: Reg,
        test: Test,
    },
    /// The texts of `n` registers from `b` on, joined.
    Concat {
        a: Reg,
        b: Reg,
        n: u8,
    },

    // --- jumps; one that goes back is charged to the slice
    Jump {
        by: i32,
    },
    JumpIf {
        a: Reg,
        by: i32,
    },
    JumpIfNot {
        a: Reg,
        by: i32,
    },
    JumpIfNull {
        a: Reg,
        by: i32,
    },
    JumpIfNotNull {
        a: Reg,
        by: i32,
    },
    JumpLess {
        a: Reg,
        b: Reg,
        by: i32,
    },
    JumpNotLess {
        a: Reg,
        b: Reg,
        by: i32,
    },
    JumpLessEq {
        a: Reg,
        b: Reg,
        by: i32,
    },
    JumpNotLessEq {
        a: Reg,
        b: Reg,
        by: i32,
    },
    JumpEq {
        a: Reg,
        b: Reg,
        by: i32,
    },
    JumpNotEq {
        a: Reg,
        b: Reg,
        by: i32,
    },
    JumpLessInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpNotLessInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpLessEqInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpNotLessEqInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpGreaterInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpNotGreaterInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpGreaterEqInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpNotGreaterEqInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpEqInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    JumpNotEqInt {
        a: Reg,
        value: i16,
        by: i32,
    },
    /// The parameter in `a` was given.
    JumpIfGiven {
        a: Reg,
        by: i32,
    },
    /// Registers `a`.. hold the next integer and the end; while next < end, puts next into `a + 2`, steps and jumps.
    RangeNext {
        a: Reg,
        by: i32,
    },
    /// Throws unless `a` and `a + 1` are integers.
    RangePrepare {
        a: Reg,
    },
    /// Registers `a`.. hold what is gone through and a position; puts the next item into `a + 2` and jumps, if any.
    /// Of an object the items are its keys, of a string its chars.
    IterNext {
        a: Reg,
        by: i32,
    },
    /// Makes `a` something `IterNext` can go through (an object becomes its keys) and sets `a + 1` to the start.
    IterPrepare {
        a: Reg,
    },

    // --- collections
    /// Of `n` registers from `b` on.
    NewArray {
        a: Reg,
        b: Reg,
        n: u8,
    },
    /// Appends `b` to the array in `a`.
    Push {
        a: Reg,
        b: Reg,
    },
    /// Appends all items of `b` to the array in `a`.
    Extend {
        a: Reg,
        b: Reg,
    },
    NewObject {
        a: Reg,
    },
    /// Copies all keys of `b` into the object in `a`.
    Merge {
        a: Reg,
        b: Reg,
    },
    /// Of the declaration `def`, with its fields in registers after `a`, in order; absent ones become null.
    NewStruct {
        a: Reg,
        def: u32,
    },
    GetField {
        a: Reg,
        b: Reg,
        site: u32,
    },
    /// `a.site = b`
    SetField {
        a: Reg,
        b: Reg,
        site: u32,
    },
    GetIndex {
        a: Reg,
        b: Reg,
        c: Reg,
    },
    /// `a[b] = c`
    SetIndex {
        a: Reg,
        b: Reg,
        c: Reg,
    },
    /// `b[c .. c + 1]`; a null end means to the end.
    Slice {
        a: Reg,
        b: Reg,
        c: Reg,
    },
    /// The keys of object `b` that are not among the `n` symbols in registers from `c` on: the rest of a destructuring.
    Without {
        a: Reg,
        b: Reg,
        c: Reg,
        n: u8,
    },
    /// An array of the integers from `b` up to, not including, `c`.
    NewRange {
        a: Reg,
        b: Reg,
        c: Reg,
    },

    // --- calls: the callee is in `a`, its arguments follow; the result replaces it
    Call {
        a: Reg,
        n: u8,
    },
    /// A blast known when compiled; `a` itself is unused until the result comes.
    CallDirect {
        a: Reg,
        n: u8,
        function: u32,
    },
    CallNative {
        a: Reg,
        n: u8,
        native: u32,
    },
    /// The receiver is in `a`.
    CallMethod {
        a: Reg,
        n: u8,
        site: u32,
    },
    /// The last argument is an object of named ones.
    CallNamed {
        a: Reg,
        n: u8,
    },
    CallMethodNamed {
        a: Reg,
        n: u8,
        site: u32,
    },
    /// All arguments are in the array in `a + 1`.
    CallSpread {
        a: Reg,
    },
    CallMethodSpread {
        a: Reg,
        site: u32,
    },
    Return {
        a: Reg,
    },
    ReturnNull,
    /// Starts a task that calls `a`; the handle replaces it. `detached` when the handle is dropped at once.
    Spawn {
        a: Reg,
        n: u8,
        detached: bool,
    },
    Await {
        a: Reg,
        b: Reg,
    },

    // --- errors and checks
    Throw {
        a: Reg,
    },
    /// Throws on when a `finally` ran because of a throw: the trace stays what it was.
    Rethrow {
        a: Reg,
    },
    /// Throws unless `a` is of the type; an int becomes a float where a float is asked for. `what` is the constant
    /// that names the variable.
    Check {
        a: Reg,
        kind: u16,
        what: u32,
    },
}

/// The operators on the bits of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitOperator {
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

/// Comparisons that give a bool. Greater-than is less-than with the operands exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    Eq,
    NotEq,
    Less,
    LessEq,
}

const _: () = assert!(size_of::<Op>() == 8, "an instruction is one machine word");
