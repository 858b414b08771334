//! The registry of native functions: what the machine offers beyond the language itself.
//!
//! It is built once, never changes afterwards and is shared by every machine of the process. A native either runs
//! inline (`Pure`) or leaves the machine as a [`Step::Call`](crate::Step::Call) whose answer its task waits for (`Host`).

use std::collections::BTreeMap;

use crate::cx::Cx;
use crate::value::{NativeId, Value};

/// How many arguments a native takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Fewer than this is an error. A method's receiver is not counted.
    pub min: u8,
    /// More than this is an error; `None` takes any number.
    pub max: Option<u8>,
    /// Named arguments are gathered into one object, passed last, and count as one argument of `max`. Without this,
    /// naming an argument is an error.
    pub options: bool,
}

impl Params {
    /// Exactly `n` arguments.
    pub const fn exactly(n: u8) -> Params {
        Params { min: n, max: Some(n), options: false }
    }

    /// Between `min` and `max` arguments.
    pub const fn between(min: u8, max: u8) -> Params {
        Params { min, max: Some(max), options: false }
    }

    /// `min` arguments or more.
    pub const fn at_least(min: u8) -> Params {
        Params { min, max: None, options: false }
    }

    /// The same, and one more argument that holds the options.
    pub const fn with_options(self) -> Params {
        let max = match self.max {
            Some(n) => Some(n + 1),
            None => None,
        };
        Params { min: self.min, max, options: true }
    }

    pub(crate) fn accepts(self, count: usize) -> bool {
        count >= usize::from(self.min) && self.max.is_none_or(|max| count <= usize::from(max))
    }

    pub(crate) fn describe(self) -> String {
        let plural = |n: u8| if n == 1 { "argument" } else { "arguments" };
        match self.max {
            Some(max) if max == self.min => format!("{max} {}", plural(max)),
            Some(max) => format!("{} to {max} arguments", self.min),
            None => format!("at least {} {}", self.min, plural(self.min)),
        }
    }
}

/// The Rust function behind an inline native. A method gets its receiver as the first argument. `Err` is the value thrown.
pub type PureFn = fn(&mut Cx<'_>, &[Value]) -> Result<Value, Value>;

#[derive(Clone, Copy, Debug)]
pub enum NativeBody {
    /// Runs inline. It never sees a collection, so the values it holds stay valid until it returns.
    Pure(PureFn),
    /// Comes out of [`Vm::run`](crate::Vm::run) as `Step::Call` with this number; its task waits for `resume`.
    Host(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Native {
    /// The module, or the kind of receiver of a method.
    pub(crate) home: &'static str,
    pub(crate) name: &'static str,
    pub(crate) params: Params,
    pub(crate) body: NativeBody,
}

impl Native {
    /// As a trace or message shows it: `io.read_file`.
    pub(crate) fn full_name(&self) -> String {
        if self.home.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.home, self.name) }
    }
}

type Members = BTreeMap<&'static str, NativeId>;

/// The registry. Immutable; share it behind an `Arc`.
#[derive(Clone, Debug, Default)]
pub struct Natives {
    natives: Vec<Native>,
    modules: BTreeMap<&'static str, Members>,
    methods: BTreeMap<&'static str, Members>,
    aliases: BTreeMap<&'static str, &'static str>,
    preludes: Vec<&'static str>,
    constants: BTreeMap<(&'static str, &'static str), f64>,
}

/// Collects what a [`Natives`] will hold.
#[derive(Clone, Debug, Default)]
pub struct NativesBuilder {
    made: Natives,
}

impl NativesBuilder {
    /// Adds `module.name`. The module `""` is the global scope: `echo` lives there. A dotted module (`constellation.fs`)
    /// is a submodule. Adding a name twice replaces it.
    pub fn function(
        &mut self,
        module: &'static str,
        name: &'static str,
        params: Params,
        body: NativeBody,
    ) -> &mut Self {
        let id = self.add(Native { home: module, name, params, body });
        self.made.modules.entry(module).or_default().insert(name, id);
        self
    }

    /// Adds a method of a host object's kind or of a built-in kind (`string`, `array`, `object`, `bytes`, …, the names
    /// that `typeof` gives).
    pub fn method(&mut self, kind: &'static str, name: &'static str, params: Params, body: NativeBody) -> &mut Self {
        let id = self.add(Native { home: kind, name, params, body });
        self.made.methods.entry(kind).or_default().insert(name, id);
        self
    }

    /// Adds functions written in RADS. A blast called `module__name` becomes `module.name` and, when the module is named
    /// after a built-in kind, also that kind's method with the receiver as first parameter. A dot in a module is written
    /// `_dot_`. Blasts without `__` are private to the source.
    pub fn prelude(&mut self, source: &'static str) -> &mut Self {
        self.made.preludes.push(source);
        self
    }

    /// Adds a number under a module's name, such as `math.pi`.
    pub fn constant(&mut self, module: &'static str, name: &'static str, value: f64) -> &mut Self {
        self.made.constants.insert((module, name), value);
        self
    }

    /// Makes `alias` another name of `module`.
    pub fn alias(&mut self, alias: &'static str, module: &'static str) -> &mut Self {
        self.made.aliases.insert(alias, module);
        self
    }

    pub fn build(&self) -> Natives {
        self.made.clone()
    }

    fn add(&mut self, native: Native) -> NativeId {
        let id = NativeId(self.made.natives.len() as u32);
        self.made.natives.push(native);
        id
    }
}

impl Natives {
    pub fn builder() -> NativesBuilder {
        NativesBuilder::default()
    }

    /// The function `module.name`.
    pub fn lookup(&self, module: &str, name: &str) -> Option<NativeId> {
        self.modules.get(self.resolve(module))?.get(name).copied()
    }

    /// The constant `module.name`.
    pub fn lookup_constant(&self, module: &str, name: &str) -> Option<f64> {
        let module = self.resolve(module);
        self.constants.iter().find(|((m, n), _)| *m == module && *n == name).map(|(_, value)| *value)
    }

    /// The method `name` of a kind.
    pub fn lookup_method(&self, kind: &str, name: &str) -> Option<NativeId> {
        self.methods.get(kind)?.get(name).copied()
    }

    /// Whether `module` has native members.
    pub fn has_module(&self, module: &str) -> bool {
        self.modules.contains_key(self.resolve(module))
    }

    /// The module's own name when `module` is an alias.
    pub fn resolve<'a>(&'a self, module: &'a str) -> &'a str {
        self.aliases.get(module).copied().unwrap_or(module)
    }

    /// Every module and alias, in order; the global scope (`""`) left out.
    pub fn module_names(&self) -> impl Iterator<Item = &str> + '_ {
        self.modules.keys().chain(self.aliases.keys()).copied().filter(|name| !name.is_empty())
    }

    /// The members of a module, in order.
    pub fn members(&self, module: &str) -> impl Iterator<Item = &str> + '_ {
        let members = self.modules.get(self.resolve(module));
        members.into_iter().flat_map(|m| m.keys().copied())
    }

    /// Every function written in Rust, as its module (`""` for the global scope) and name.
    pub fn functions(&self) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
        self.modules.iter().flat_map(|(module, members)| members.keys().map(|name| (*module, *name)))
    }

    /// The methods of a kind, in order.
    pub fn methods_of(&self, kind: &str) -> impl Iterator<Item = &str> + '_ {
        self.methods.get(kind).into_iter().flat_map(|m| m.keys().copied())
    }

    /// How many arguments a native takes.
    pub fn params(&self, id: NativeId) -> Params {
        self.natives[id.0 as usize].params
    }

    /// The host number of a native that is performed outside.
    pub fn host_number(&self, id: NativeId) -> Option<u32> {
        match self.natives[id.0 as usize].body {
            NativeBody::Host(number) => Some(number),
            NativeBody::Pure(_) => None,
        }
    }

    /// `module.name`, or `kind.name` of a method.
    pub fn name(&self, id: NativeId) -> String {
        self.natives[id.0 as usize].full_name()
    }

    /// The sources given to [`NativesBuilder::prelude`], in order.
    pub fn preludes(&self) -> &[&'static str] {
        &self.preludes
    }

    #[inline]
    pub(crate) fn get(&self, id: NativeId) -> &Native {
        &self.natives[id.0 as usize]
    }
}
