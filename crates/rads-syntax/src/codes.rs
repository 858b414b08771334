//! The codes of the grammar's diagnostics, one line each. A code is never reused.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        $($(#[$doc])* pub const $name: &str = $text;)+

        /// Every code of the grammar.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

codes! {
    /// A character that begins no token.
    UNEXPECTED_CHARACTER = "R0001",
    /// A string without its closing quote.
    UNTERMINATED_STRING = "R0002",
    /// A `/*` without its `*/`.
    UNTERMINATED_COMMENT = "R0003",
    /// A template string without its closing backtick.
    UNTERMINATED_TEMPLATE = "R0004",
    /// A char literal that does not hold exactly one character.
    INVALID_CHAR = "R0005",
    /// A backslash followed by what no escape is.
    INVALID_ESCAPE = "R0006",
    /// A number that cannot be read or does not fit.
    INVALID_NUMBER = "R0007",
    /// A file larger than the grammar takes.
    FILE_TOO_LARGE = "R0008",
    /// Code nested more deeply, or an expression longer, than the grammar takes.
    TOO_DEEP = "R0009",
    /// The rest of the errors is not shown.
    TOO_MANY_ERRORS = "R0010",
    /// A place where an expression must stand, without one.
    EXPECTED_EXPRESSION = "R0011",
    /// A statement without its `;`.
    MISSING_SEMICOLON = "R0012",
    /// Another token than the grammar asks for.
    UNEXPECTED_TOKEN = "R0013",
    /// A bracket that is never closed.
    UNCLOSED = "R0014",
    /// A closing bracket that nothing opened.
    UNOPENED = "R0015",
    /// A value is given to what cannot hold one.
    INVALID_TARGET = "R0016",
    /// A destructuring declaration without a value.
    MISSING_VALUE = "R0017",
    /// A `...` where none may stand.
    MISPLACED_REST = "R0018",
    /// A `try` with neither `catch` nor `finally`.
    LONELY_TRY = "R0019",
    /// A word before something it does not apply to.
    MISPLACED_WORD = "R0020",
    /// A word of the language where a name must stand.
    RESERVED_NAME = "R0021",
    /// A word from another language.
    FOREIGN_WORD = "R0022",
    /// A `switch` with more than one `default`.
    SECOND_DEFAULT = "R0023",
}

#[cfg(test)]
mod tests {
    #[test]
    fn codes_are_distinct() {
        let distinct: std::collections::BTreeSet<_> = super::ALL.iter().collect();
        assert_eq!(distinct.len(), super::ALL.len());
    }
}
