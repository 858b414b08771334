//! The codes of what the compiler reports. Never reused; the parser's are below R0200.

/// Nothing has this name here.
pub const UNKNOWN_NAME: &str = "R0200";
/// A module, struct or enum has no member of this name.
pub const UNKNOWN_MEMBER: &str = "R0201";
/// A call gives more, or fewer, arguments than can be taken.
pub const WRONG_COUNT: &str = "R0202";
/// A named argument that nothing takes.
pub const UNKNOWN_ARGUMENT: &str = "R0203";
/// `break` outside a loop or switch, `continue` outside a loop, `return` outside a blast.
pub const MISPLACED: &str = "R0204";
/// The target of an assignment cannot change.
pub const NOT_ASSIGNABLE: &str = "R0205";
/// An annotation names no type.
pub const UNKNOWN_TYPE: &str = "R0206";
/// An imported file cannot be read.
pub const IMPORT_FAILED: &str = "R0207";
/// No module has this name.
pub const UNKNOWN_MODULE: &str = "R0208";
/// Two declarations of one name in one file.
pub const DECLARED_TWICE: &str = "R0209";
/// Something is used as a value that is none: a module, a struct's name.
pub const NOT_A_VALUE: &str = "R0210";
/// A blast uses more variables or arguments at once than the machine has registers for.
pub const TOO_LARGE: &str = "R0211";
