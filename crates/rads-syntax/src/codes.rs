//! The codes of what the lexer and the parser report. Never reused; compile-time codes start at R0200 in `rads-compile`.

/// A character that starts nothing.
pub const STRANGE_CHARACTER: &str = "R0001";
/// A string, template, char or comment without an end.
pub const UNTERMINATED: &str = "R0002";
/// A backslash followed by something that is no escape.
pub const BAD_ESCAPE: &str = "R0003";
/// A number that cannot be read, or does not fit 64 bits.
pub const BAD_NUMBER: &str = "R0004";
/// A char literal with no or several characters.
pub const BAD_CHAR: &str = "R0005";
/// A file beyond the size that is read.
pub const FILE_TOO_LARGE: &str = "R0006";
/// Something else was expected here.
pub const UNEXPECTED: &str = "R0010";
/// A statement without its `;`.
pub const MISSING_SEMICOLON: &str = "R0011";
/// A bracket without its partner.
pub const UNBALANCED: &str = "R0012";
/// Nested deeper than is read.
pub const TOO_DEEP: &str = "R0013";
/// The left side of an assignment is nothing that can be assigned to.
pub const NOT_ASSIGNABLE: &str = "R0014";
/// Something is written twice that may be there once.
pub const DUPLICATE: &str = "R0015";
/// More errors than are shown.
pub const TOO_MANY: &str = "R0019";
