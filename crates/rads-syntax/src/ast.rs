//! The syntax tree: plain owned data, every node with its place in the file.
//!
//! The tree holds what was written, not what it means: names are not resolved, constants are not folded. What could not
//! be parsed is an `Error` node, so that later passes go on and must stay silent about it: the fault has been reported.
//! The height of a tree is bounded (see `limits`), so passes over it may recurse, and dropping one never overflows the
//! stack.

use crate::Span;

/// One parsed file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    pub statements: Vec<Stmt>,
    /// Every comment, in order of appearance; the tree itself has no place for them.
    pub comments: Vec<Comment>,
    /// The whole text.
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Delimiters included; the line break after a line comment is not.
    pub span: Span,
    pub kind: CommentKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommentKind {
    /// `// …`, or the `#!` line that a file may start with.
    Line,
    /// `/* … */`
    Block,
}

/// A name where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ident {
    pub text: String,
    pub span: Span,
}

// --- statements

#[derive(Clone, Debug, PartialEq)]
pub struct Stmt {
    pub kind: StmtKind,
    /// Includes the `;`.
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StmtKind {
    Import(Import),
    /// `export` before a declaration: a `Let`, `Function`, `Struct` or `Enum`.
    Export(Box<Stmt>),
    /// `turbo x = e;`, `turbo i32 x = e;`, `i32 x = e;`, `turbo [a, b] = e;`. Only a plain name may lack the value,
    /// and is null then.
    Let {
        pattern: Pattern,
        value: Option<Expr>,
    },
    /// `blast name(…) { }`. The function's `name` is always there.
    Function(Box<Function>),
    Struct(StructDecl),
    Enum(EnumDecl),
    Expr(Expr),
    /// `if`, each `elif` or `else if`, in order.
    If {
        arms: Vec<IfArm>,
        otherwise: Option<Block>,
    },
    /// `while c { }` and `loop (c) { }`; without a condition, for ever.
    While {
        condition: Option<Expr>,
        body: Block,
    },
    /// `cruise (x in e) { }` and `for x in e { }`; `e` is often a `Range`.
    ForIn {
        pattern: Pattern,
        iterable: Expr,
        body: Block,
    },
    /// `cruise (i = 0; i < n; i = i + 1) { }`. `init` is a `Let` or an `Expr`. `cruise (i = 0; …)` with a name that is
    /// not yet known declares it; which one it is, is for name resolution to say.
    ForC {
        init: Option<Box<Stmt>>,
        condition: Option<Expr>,
        update: Option<Expr>,
        body: Block,
    },
    /// Falls through from case to case as in C.
    Switch {
        subject: Expr,
        cases: Vec<Case>,
    },
    Break,
    Continue,
    /// `return a, b;` has an `Array` here.
    Return(Option<Expr>),
    Throw(Expr),
    /// At least one of `catch` and `finally` is there.
    Try {
        body: Block,
        catch: Option<Catch>,
        finally: Option<Block>,
    },
    Block(Block),
    /// Reported already.
    Error,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub statements: Vec<Stmt>,
    /// Braces included. A body that is a single statement without braces has that statement's span.
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IfArm {
    pub condition: Expr,
    pub body: Block,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// `None` is `default`, of which there is at most one.
    pub value: Option<Expr>,
    pub body: Vec<Stmt>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Catch {
    /// `catch { }` does without.
    pub name: Option<Ident>,
    pub body: Block,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    pub target: ImportTarget,
    /// `import … as name;`
    pub alias: Option<Ident>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ImportTarget {
    /// `import constellation.fs;`: at least one name.
    Module(Vec<Ident>),
    /// `import "lib/util.rads";`: the path as written, relative to the importing file. The span is the literal's.
    File { path: String, span: Span },
}

#[derive(Clone, Debug, PartialEq)]
pub struct StructDecl {
    pub name: Ident,
    pub fields: Vec<FieldDecl>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FieldDecl {
    pub ty: Option<Type>,
    pub name: Ident,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EnumDecl {
    pub name: Ident,
    /// Counted from 0.
    pub members: Vec<Ident>,
}

/// A declared or anonymous blast.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub name: Option<Ident>,
    pub params: Vec<Param>,
    pub returns: Option<Type>,
    pub body: Block,
    /// `async` was written; it changes nothing.
    pub is_async: bool,
    /// From `blast` (or `async`) to the end of the body.
    pub span: Span,
}

impl Function {
    /// The part before the body: what a message about the function should point at.
    pub fn head(&self) -> Span {
        Span { start: self.span.start, end: self.body.span.start.max(self.span.start) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    pub ty: Option<Type>,
    pub name: Ident,
    pub default: Option<Expr>,
    /// `...name`: takes all further arguments as an array. Only the last one may be.
    pub rest: bool,
    pub span: Span,
}

/// A type as written: `i32`, `array<array<str>>`, `(i32, str)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    pub kind: TypeKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TypeKind {
    Named { name: Ident, args: Vec<Type> },
    Tuple(Vec<Type>),
    Error,
}

/// What is on the left of a declaration, or between `for` and `in`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    pub kind: PatternKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PatternKind {
    Name {
        ty: Option<Type>,
        name: Ident,
    },
    /// `[a, b, ...rest]`, and `(i32 a, i32 b)`, which means the same.
    Array {
        items: Vec<Pattern>,
        rest: Option<Ident>,
    },
    /// `{f, g: alias, ...rest}`
    Object {
        fields: Vec<FieldPattern>,
        rest: Option<Ident>,
    },
    Error,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FieldPattern {
    pub key: Ident,
    /// In the short form `{f}`, a `Name` with the key's span.
    pub pattern: Pattern,
}

// --- expressions

#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    Null,
    Bool(bool),
    /// Never negative but for the least integer, written `-9223372036854775808`.
    Int(i64),
    Float(f64),
    Char(char),
    /// Escapes are already decoded.
    Str(String),
    /// `` `a ${b}` ``
    Template(Vec<TemplatePart>),
    Name(String),
    /// Also the tuples `(a, b)` and `return a, b`.
    Array(Vec<Item>),
    Object(Vec<Entry>),
    /// `P { name: "a" }`
    Struct {
        name: Ident,
        fields: Vec<Entry>,
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
    /// Operators that may leave their right side unevaluated.
    Logical {
        operator: LogicalOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `c ? a : b`
    Conditional {
        condition: Box<Expr>,
        yes: Box<Expr>,
        no: Box<Expr>,
    },
    /// `t = v`, or `t += v` with an operator. The target is a `Name`, `Field` or `Index` without `?.`, in no or any
    /// number of `Paren`; anything else has been reported and is an `Error`.
    Assign {
        operator: Option<BinaryOperator>,
        target: Box<Expr>,
        value: Box<Expr>,
    },
    /// `++t`, `t++`, `--t`, `t--`. The target is as in `Assign`.
    Update {
        prefix: bool,
        increment: bool,
        target: Box<Expr>,
    },
    /// `f(a)`; `optional` is `f?.(a)`.
    Call {
        callee: Box<Expr>,
        args: Vec<Arg>,
        optional: bool,
    },
    /// `o.f`; `optional` is `o?.f`.
    Field {
        object: Box<Expr>,
        name: Ident,
        optional: bool,
    },
    /// `a[i]`; `optional` is `a?.[i]`. The index may be a `Range`.
    Index {
        object: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// Around the longest run of `.f`, `[i]` and `(a)` with an optional one among them: when what an optional link is
    /// applied to is null, the whole chain is null.
    Chain(Box<Expr>),
    /// `a..b`, half-open. Only within `[ ]` may an end be left out.
    Range {
        start: Option<Box<Expr>>,
        end: Option<Box<Expr>>,
    },
    /// `spawn f(x)`: the operand is a `Call` or a `Chain` of one, or has been reported and is an `Error`.
    Spawn(Box<Expr>),
    Await(Box<Expr>),
    /// `(e)`, kept for those who print source.
    Paren(Box<Expr>),
    /// Reported already.
    Error,
}

impl Expr {
    /// The expression inside any parentheses.
    pub fn bare(&self) -> &Expr {
        let mut expr = self;
        while let ExprKind::Paren(inner) = &expr.kind {
            expr = inner;
        }
        expr
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum TemplatePart {
    /// Escapes are already decoded; never empty.
    Text(String),
    Expr(Expr),
}

/// An item of an array.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub value: Expr,
    /// `...value`
    pub spread: bool,
}

/// An argument of a call. Named ones may stand anywhere; their order among themselves is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    pub name: Option<Ident>,
    pub value: Expr,
    /// `...value`; never together with a name.
    pub spread: bool,
}

/// An entry of an object or struct literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// `name: value`, `"any text": value`, `1: value`, and `name` alone, whose value is the `Name` with the same span.
    Field { key: Ident, value: Expr },
    /// `[key]: value`; not in a struct literal.
    Computed { key: Expr, value: Expr },
    /// `...value`
    Spread(Expr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOperator {
    /// `-`
    Negate,
    /// `+`: throws unless the operand is a number.
    Plus,
    /// `!` and `not`
    Not,
    /// `~`
    BitNot,
    /// `typeof`
    TypeOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogicalOperator {
    /// `&&` and `and`
    And,
    /// `||` and `or`
    Or,
    /// `??`
    Coalesce,
}
