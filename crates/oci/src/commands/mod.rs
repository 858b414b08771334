//! What each word of the command line does.

mod create;
mod exec;
mod features;
mod life;
mod look;
mod update;

use crate::cli::{Cli, Command};
use crate::journal::Journal;
use crate::plan::VERSION;
use crate::store::Store;

/// What every command works with.
pub(crate) struct Context<'a> {
    pub(crate) store: Store,
    pub(crate) journal: &'a Journal,
    /// The descriptors beside the standard ones that this program was started with.
    pub(crate) inherited: &'a [i32],
}

/// Does what is asked; the result is the exit code.
pub(crate) fn perform(cli: &Cli, journal: &Journal, inherited: &[i32]) -> Result<u8, String> {
    if cli.global.version {
        look::print(&format!("rads-oci version {}\nspec: {VERSION}", env!("CARGO_PKG_VERSION")));
        return Ok(0);
    }
    let Some(command) = &cli.command else { return Err("no command is given; see `rads-oci --help`".to_owned()) };
    if cli.global.systemd_cgroup {
        return Err("`--systemd-cgroup` is not supported: groups are made as files, so leave it out".to_owned());
    }
    if let Command::Features = command {
        features::print();
        return Ok(0);
    }
    if let Command::Spec(args) = command {
        return look::spec(args).map(|()| 0);
    }
    // What makes a process in a container does it from a copy of this program that nobody can write to.
    if matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_) | Command::Start(_)) {
        crate::shield::raise()?;
    }
    let context = Context { store: Store::new(cli.global.root.as_deref())?, journal, inherited };
    match command {
        Command::Create(args) => create::create(&context, args).map(|()| 0),
        Command::Run(args) => create::run(&context, args),
        Command::Start(one) => life::start(&context, &one.id).map(|()| 0),
        Command::Kill(args) => life::kill(&context, args).map(|()| 0),
        Command::Delete(args) => life::delete(&context, args).map(|()| 0),
        Command::Pause(one) => life::freeze(&context, &one.id, true).map(|()| 0),
        Command::Resume(one) => life::freeze(&context, &one.id, false).map(|()| 0),
        Command::Exec(args) => exec::exec(&context, args),
        Command::State(one) => look::state(&context, &one.id).map(|()| 0),
        Command::List(args) => look::list(&context, args).map(|()| 0),
        Command::Ps(args) => look::ps(&context, args).map(|()| 0),
        Command::Update(args) => update::update(&context, args).map(|()| 0),
        Command::Spec(_) | Command::Features => unreachable!("handled above"),
    }
}

/// The exit code of a process, as shells have it.
pub(crate) fn exit_code(end: isolate::container::End) -> u8 {
    match end {
        isolate::container::End::Code(code) => code as u8,
        isolate::container::End::Signal(signal) => (128 + signal) as u8,
    }
}
