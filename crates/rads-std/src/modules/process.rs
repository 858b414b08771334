//! `process`: the program as the operating system sees it.

use rads_vm::{Cx, Params, Value};

use crate::library::{Action, Entry, Host, host, inline};

pub(crate) const ENTRIES: &[Entry] = &[
    host("process", "exit", Params::between(0, 1), exit),
    inline("process", "hostname", Params::exactly(0), hostname),
    inline("process", "pid", Params::exactly(0), pid),
];

/// Ends the program at once: no other task runs again.
fn exit(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.cx();
    let code = if cx.arg(args, 0).is_null() { 0 } else { cx.arg_int(args, 0, "code")? };
    match u8::try_from(code) {
        Ok(code) => Ok(Action::Exit(i32::from(code))),
        Err(_) => Err(cx.error("value", "`code` must lie between 0 and 255")),
    }
}

fn hostname(cx: &mut Cx<'_>, _: &[Value]) -> Result<Value, Value> {
    let about = rustix::system::uname();
    Ok(cx.string(about.nodename().to_string_lossy().into_owned()))
}

fn pid(_: &mut Cx<'_>, _: &[Value]) -> Result<Value, Value> {
    Ok(Value::Int(i64::from(std::process::id())))
}

/// From the kernel; blocks only on a machine that is still booting.
pub(crate) fn random_bytes(mut buffer: &mut [u8]) {
    while !buffer.is_empty() {
        match rustix::rand::getrandom(&mut *buffer, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => buffer = &mut buffer[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel has no random bytes: {error}"),
        }
    }
}

pub(crate) fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes);
    u64::from_ne_bytes(bytes)
}
