//! `env`: the variables and arguments the program was started with. Nothing is read from the process itself: a star
//! sees what its spec says.

use rads_vm::{Params, Value};

use crate::library::{Action, Entry, Host, host};

pub(crate) const ENTRIES: &[Entry] = &[
    host("env", "get", Params::between(1, 2), get),
    host("env", "all", Params::exactly(0), all),
    host("env", "args", Params::exactly(0), args),
];

/// The variable, or the second argument (null when there is none).
fn get(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let name = cx.arg_text(args, 0, "name")?.to_owned();
    Ok(Action::Done(match host.machine.world.env.get(&name) {
        Some(value) => cx.str(value),
        None => cx.arg(args, 1),
    }))
}

fn all(host: &mut Host<'_>, _: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let object = cx.object();
    for (name, value) in &host.machine.world.env {
        let value = cx.str(value);
        cx.set(object, name, value);
    }
    Ok(Action::Done(object))
}

fn args(host: &mut Host<'_>, _: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let args = host.machine.world.args.iter().map(|arg| cx.str(arg)).collect();
    Ok(Action::Done(cx.array(args)))
}
