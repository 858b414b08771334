//! The syntax tree: what was written, with where it was written, before any name is looked up.
//!
//! Plain owned data. `Error` nodes stand where something could not be read, so that later passes can go on; a file
//! with one always has a diagnostic too. Depth is bounded by the parser (`parser::DEPTH_MAX`), so walking and dropping a
//! tree needs little stack.

use crate::span::Span;

/// One source file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct File {
    pub statements: Vec<Stmt>,
    /// Every comment, in order, delimiters included: the formatter puts them back.
    pub comments: Vec<Span>,
}

/// A name where it is written: declared, used, a member, a key or an option.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    pub text: Box<str>,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    pub statements: Vec<Stmt>,
    /// From `{` to `}`.
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Stmt {
    pub kind: StmtKind,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub enum StmtKind {
    Import(Import),
    /// `export` before a declaration.
    Export(Box<Stmt>),
    /// `blast name(…) { }`; the function always has a name.
    Blast(Box<Function>),
    Struct(StructDecl),
    Enum(EnumDecl),
    /// `turbo x = e;`, `turbo i32 x = e;`, `i32 x = e;`, `turbo [a, b] = e;`, `turbo (i32 x, i32 y) = f();`
    Let(Let),
    Expr(Expr),
    Block(Block),
    If {
        /// `if` and each `elif` / `else if`: condition and body, in order; at least one.
        arms: Vec<(Expr, Block)>,
        otherwise: Option<Block>,
    },
    /// `while c { }`, `loop (c) { }`, and `loop { }` without a condition.
    While {
        condition: Option<Expr>,
        body: Block,
    },
    /// `cruise (x in e) { }`, `for x in e { }`.
    Each {
        pattern: Pattern,
        iterable: Expr,
        body: Block,
    },
    /// `cruise (i = 0; i < n; i = i + 1) { }`; any of the three may be missing.
    For {
        init: Option<ForInit>,
        condition: Option<Expr>,
        update: Option<Expr>,
        body: Block,
    },
    /// Cases in the order they are written, `default` wherever it stands; control falls through.
    Switch {
        subject: Expr,
        cases: Vec<Case>,
    },
    Break,
    Continue,
    /// `return;`, `return e;`; `return a, b;` returns an array.
    Return(Option<Expr>),
    Throw(Expr),
    Try {
        body: Block,
        catch: Option<Catch>,
        finally: Option<Block>,
    },
    /// A lone `;`.
    Empty,
    Error,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ForInit {
    /// `turbo i = 0` or `i32 i = 0`.
    Let(Let),
    /// `i = 0`: the loop's own variable, unless one of that name is in scope.
    Bare {
        name: Name,
        value: Expr,
    },
    Expr(Expr),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// `None` for `default`.
    pub label: Option<Expr>,
    pub body: Vec<Stmt>,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Catch {
    /// `catch (e)`; `catch { }` binds nothing.
    pub name: Option<Name>,
    pub body: Block,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Let {
    pub pattern: Pattern,
    /// `None` for `turbo x;`, which is null.
    pub value: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    pub target: ImportTarget,
    /// `as name`.
    pub alias: Option<Name>,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ImportTarget {
    /// `import constellation.fs;`: at least one name.
    Module(Vec<Name>),
    /// `import "lib/util.rads";`: relative to the importing file.
    File { path: String, span: Span },
}

#[derive(Debug, Clone, PartialEq)]
pub struct StructDecl {
    pub name: Name,
    pub fields: Vec<StructField>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StructField {
    pub name: Name,
    pub annotation: Option<TypeRef>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EnumDecl {
    pub name: Name,
    /// Each with the value that is written, if one is; otherwise one more than the one before, from 0.
    pub variants: Vec<(Name, Option<i64>)>,
}

/// A declared blast or an anonymous one.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    pub name: Option<Name>,
    pub params: Vec<Param>,
    pub returns: Option<TypeRef>,
    pub body: Block,
    /// `async` was written; it changes nothing.
    pub is_async: bool,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    pub name: Name,
    pub annotation: Option<TypeRef>,
    pub default: Option<Expr>,
    /// `...rest`: takes all further arguments; only the last one.
    pub rest: bool,
}

/// `i32`, `array<i32>`, `Player`; a `?` behind it also allows null.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeRef {
    pub name: Name,
    pub arguments: Vec<TypeRef>,
    pub nullable: bool,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    pub kind: PatternKind,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub enum PatternKind {
    Name {
        name: Name,
        annotation: Option<TypeRef>,
    },
    /// `[a, , b = 1, ...rest]` and `(i32 x, i32 y)`; `None` where an item is passed over.
    Array {
        items: Vec<Option<PatternItem>>,
        rest: Option<Name>,
    },
    /// `{f, g: alias, h = 1, ...rest}`.
    Object {
        fields: Vec<(Name, PatternItem)>,
        rest: Option<Name>,
    },
    Error,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PatternItem {
    pub pattern: Pattern,
    /// Taken when the value is missing or null.
    pub default: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
    /// How deep the tree below is, itself included; at most `parser::DEPTH_MAX`.
    pub(crate) depth: u16,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Char(char),
    Str(String),
    /// `` `total: ${n}` ``
    Template(Vec<TemplatePart>),
    Name(Box<str>),
    Array(Vec<Element>),
    Object(Vec<Property>),
    /// `P { name: "a", hp: 1 }`
    Struct {
        name: Name,
        fields: Vec<(Name, Expr)>,
    },
    Function(Box<Function>),
    Unary {
        operator: UnaryOperator,
        operand: Box<Expr>,
    },
    Binary {
        operator: BinaryOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `a..b`, the end not included. As an index it takes a part: `s[1..3]`, where either side may be missing.
    Range {
        start: Option<Box<Expr>>,
        end: Option<Box<Expr>>,
    },
    /// `c ? a : b`
    Ternary {
        condition: Box<Expr>,
        then: Box<Expr>,
        otherwise: Box<Expr>,
    },
    /// `target = value`, `target += value`. The target is a name, field, index, or (for `=`) an array or object literal.
    Assign {
        operator: Option<BinaryOperator>,
        target: Box<Expr>,
        value: Box<Expr>,
    },
    /// `x++`, `--x`: by one up or down.
    Update {
        target: Box<Expr>,
        up: bool,
        /// The value is the one after the change.
        prefix: bool,
    },
    Field {
        object: Box<Expr>,
        name: Name,
        /// `?.`: null when the object is.
        optional: bool,
    },
    Index {
        object: Box<Expr>,
        index: Box<Expr>,
        /// `?.[`
        optional: bool,
    },
    Call {
        callee: Box<Expr>,
        arguments: Vec<Argument>,
    },
    Spawn(Box<Expr>),
    Await(Box<Expr>),
    Error,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TemplatePart {
    Text(String),
    Expr(Expr),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// `...value`
    pub spread: bool,
    pub value: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Property {
    /// `name: value` or `"any text": value`; `{name}` alone is short for `{name: name}`.
    Field { key: Name, value: Expr },
    /// `...value`
    Spread(Expr),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// `name: value`
    pub name: Option<Name>,
    /// `...value`
    pub spread: bool,
    pub value: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOperator {
    /// `!x`, `not x`
    Not,
    Negate,
    BitNot,
    TypeOf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// `a && b`, `a and b`: the right side is evaluated only when needed.
    And,
    /// `a || b`, `a or b`
    Or,
    /// `a ?? b`
    Coalesce,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

impl BinaryOperator {
    pub fn text(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::And => "&&",
            Self::Or => "||",
            Self::Coalesce => "??",
            Self::BitAnd => "&",
            Self::BitOr => "|",
            Self::BitXor => "^",
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
        }
    }
}
