//! The registry of everything the library offers, and how a call that leaves the machine finds its Rust function.
//!
//! Every module lists its entries; the machine knows a host entry by its number, which is its place in the whole list.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use rads_vm::{Cx, NativeBody, Natives, Params, PureFn, TaskId, Value, Vm};

use crate::machine::Machine;
use crate::modules;

/// One function or method of the library.
pub(crate) struct Entry {
    home: Home,
    name: &'static str,
    params: Params,
    body: Body,
}

enum Home {
    /// `module.name(…)`; the empty module is the global scope.
    Module(&'static str),
    /// A method of host objects of this kind, which also is the first argument.
    Kind(&'static str),
}

#[derive(Clone, Copy)]
enum Body {
    /// Needs nothing but its arguments (a clock or a random number at most) and answers at once.
    Inline(PureFn),
    /// Needs the world: files, sockets, databases, other tasks.
    Host(HostFn),
}

pub(crate) type HostFn = fn(&mut Host<'_>, &[Value]) -> Result<Action, Value>;

/// What a host function may use.
pub(crate) struct Host<'a> {
    pub(crate) vm: &'a mut Vm,
    pub(crate) machine: &'a Rc<Machine>,
    /// Who calls.
    pub(crate) task: TaskId,
}

/// How a host function answers its task.
pub(crate) enum Action {
    /// At once.
    Done(Value),
    /// When the future is done; meanwhile other tasks run.
    Later(Later),
    /// The answer comes from elsewhere: somebody keeps the task's id and resumes it.
    Elsewhere,
    /// Never: the program ends with this code.
    Exit(i32),
}

/// A future cannot touch the heap, so it gives a function that makes its value there.
pub(crate) type Later = Pin<Box<dyn Future<Output = Make>>>;
pub(crate) type Make = Box<dyn FnOnce(&mut Cx<'_>) -> Result<Value, Value>>;

impl Host<'_> {
    pub(crate) fn cx(&mut self) -> Cx<'_> {
        self.vm.heap()
    }
}

pub(crate) const fn inline(module: &'static str, name: &'static str, params: Params, body: PureFn) -> Entry {
    Entry { home: Home::Module(module), name, params, body: Body::Inline(body) }
}

pub(crate) const fn host(module: &'static str, name: &'static str, params: Params, body: HostFn) -> Entry {
    Entry { home: Home::Module(module), name, params, body: Body::Host(body) }
}

pub(crate) const fn method(kind: &'static str, name: &'static str, params: Params, body: HostFn) -> Entry {
    Entry { home: Home::Kind(kind), name, params, body: Body::Host(body) }
}

const SECTIONS: &[&[Entry]] = &[
    modules::io::ENTRIES,
    modules::fs::ENTRIES,
    modules::env::ENTRIES,
    modules::time::ENTRIES,
    modules::tasks::ENTRIES,
    modules::log::ENTRIES,
    modules::text::ENTRIES,
    modules::process::ENTRIES,
    modules::net::ENTRIES,
    modules::web::ENTRIES,
    modules::http::ENTRIES,
    modules::db::ENTRIES,
    modules::constellation::ENTRIES,
];

/// The core of the machine and the whole library. Built once per process and shared by every machine: a star forked
/// from the nursery finds it ready.
pub fn natives() -> Arc<Natives> {
    static NATIVES: OnceLock<Arc<Natives>> = OnceLock::new();
    Arc::clone(NATIVES.get_or_init(|| {
        let mut builder = Natives::builder();
        rads_vm::core_natives(&mut builder);
        for (number, entry) in (1..).zip(SECTIONS.iter().copied().flatten()) {
            let body = match entry.body {
                Body::Inline(function) => NativeBody::Pure(function),
                Body::Host(_) => NativeBody::Host(number),
            };
            match entry.home {
                Home::Module(module) => builder.function(module, entry.name, entry.params, body),
                Home::Kind(kind) => builder.method(kind, entry.name, entry.params, body),
            };
        }
        builder.prelude(modules::tasks::PRELUDE);
        builder.prelude(modules::constellation::PRELUDE);
        builder.prelude(modules::constellation::PROGRAMS);
        Arc::new(builder.build())
    }))
}

/// The functions by number; what is not a host function has no number that a machine could call.
pub(crate) fn host_functions() -> Vec<Option<HostFn>> {
    let in_order = SECTIONS.iter().copied().flatten().map(|entry| match entry.body {
        Body::Host(function) => Some(function),
        Body::Inline(_) => None,
    });
    std::iter::once(None).chain(in_order).collect()
}

/// Boxes a maker, with the type that closures cannot infer by themselves.
pub(crate) fn make(maker: impl FnOnce(&mut Cx<'_>) -> Result<Value, Value> + 'static) -> Make {
    Box::new(maker)
}
