//! The tokens of RADS.

use crate::span::Span;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    /// A line break stands between the token before and this one.
    pub(crate) on_new_line: bool,
}

macro_rules! kinds {
    ({ $($plain:ident = $plain_text:literal,)+ } { $($keyword:ident = $keyword_text:literal,)+ }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($plain,)+ $($keyword,)+ }

        impl Kind {
            /// As it is shown in a message.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$plain => $plain_text,)+ $(Self::$keyword => $keyword_text,)+ }
            }

            pub(crate) fn keyword(text: &str) -> Option<Self> {
                match text { $($keyword_text => Some(Self::$keyword),)+ _ => None }
            }

            pub(crate) fn is_keyword(self) -> bool {
                matches!(self, $(Self::$keyword)|+)
            }
        }
    };
}

kinds! {
    {
    End = "end of file",
    Error = "unreadable text",
    Name = "name",
    Int = "number",
    Float = "number",
    Str = "string",
    Template = "template string",
    Char = "char",
    LeftParen = "(",
    RightParen = ")",
    LeftBracket = "[",
    RightBracket = "]",
    LeftBrace = "{",
    RightBrace = "}",
    Semicolon = ";",
    Comma = ",",
    Colon = ":",
    Dot = ".",
    DotDot = "..",
    Ellipsis = "...",
    Question = "?",
    QuestionDot = "?.",
    Coalesce = "??",
    Arrow = "->",
    FatArrow = "=>",
    Assign = "=",
    PlusAssign = "+=",
    MinusAssign = "-=",
    StarAssign = "*=",
    SlashAssign = "/=",
    PercentAssign = "%=",
    PlusPlus = "++",
    MinusMinus = "--",
    Plus = "+",
    Minus = "-",
    Star = "*",
    Slash = "/",
    Percent = "%",
    Equal = "==",
    NotEqual = "!=",
    Less = "<",
    LessEqual = "<=",
    Greater = ">",
    GreaterEqual = ">=",
    ShiftLeft = "<<",
    AndAnd = "&&",
    OrOr = "||",
    Bang = "!",
    Ampersand = "&",
    Pipe = "|",
    Caret = "^",
    Tilde = "~",
    }
    // Keywords.
    {
    Blast = "blast",
    Turbo = "turbo",
    If = "if",
    Elif = "elif",
    Else = "else",
    Loop = "loop",
    While = "while",
    For = "for",
    Cruise = "cruise",
    In = "in",
    Switch = "switch",
    Case = "case",
    Default = "default",
    Break = "break",
    Continue = "continue",
    Return = "return",
    Struct = "struct",
    Enum = "enum",
    Try = "try",
    Catch = "catch",
    Finally = "finally",
    Throw = "throw",
    TypeOf = "typeof",
    Import = "import",
    Export = "export",
    True = "true",
    False = "false",
    Null = "null",
    And = "and",
    Or = "or",
    Not = "not",
    Spawn = "spawn",
    Await = "await",
    Async = "async",
    }
}
