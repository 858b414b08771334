//! What each word of the command line does. A command gives its exit code, or the problem that ended it.

mod agent;
mod audit;
mod backup;
mod certs;
mod change;
mod constellation;
mod context;
mod cp;
mod doctor;
mod exec;
mod explain;
mod find;
mod forecast;
pub(crate) mod forward;
mod grants;
mod import;
mod inspect;
mod jobs;
mod language;
mod limits;
mod logs;
mod namespaces;
mod nodes;
mod planning;
mod progress;
mod rebalance;
mod reservations;
mod resources;
mod rollout;
mod secrets;
mod show;
mod snapshot;
mod stats;
pub(crate) mod top;
mod up;
mod upgrade;
mod volumes;
mod wait;
mod watch;

use std::path::Path;

use api::{Client, Version};
use clap::CommandFactory;
use model::{Code, Problem};

use crate::cli::{Cli, Command, Constellation, Form, Global};
use crate::place::Place;
use crate::{place, screen};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told.
    Problem(Problem),
    /// Mistakes in scripts, each whole with its place.
    Faulty(Vec<String>),
}

impl Failure {
    /// Tells it: to people as it is, to programs as one line of JSON.
    pub(crate) fn tell(self, form: Form) {
        match (self, form) {
            (Self::Problem(problem), Form::Text) => screen::problem(&problem),
            (Self::Problem(problem), Form::Json) => screen::problem_as_json(&problem),
            (Self::Faulty(mistakes), Form::Text) => {
                mistakes.iter().for_each(|mistake| screen::note(format!("{}\n", mistake.trim_end())));
            }
            (Self::Faulty(mistakes), Form::Json) => {
                let message = mistakes.iter().map(|mistake| mistake.trim_end()).collect::<Vec<_>>().join("\n\n");
                screen::problem_as_json(&Problem::new(Code::ScriptFaulty, message));
            }
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

pub(crate) fn perform(cli: Cli) -> Result<u8, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Run(args) => language::run(&args.file, args.args, global.data_dir),
        Command::Check(args) => language::check(&args.files, global.output),
        Command::Import(args) => Ok(import::import(&args, global.output)?),
        Command::Nursery(args) => Ok(language::nursery(place::data_dir(global.data_dir)?, &args)?),
        Command::Star(args) => language::star_alone(&args.script, args.args),
        Command::Up(args) => ask(&global, async |place, form| up::up(place, args, form).await),
        Command::Constellation { command } => constellation(&global, *command),
    }
}

fn constellation(global: &Global, command: Constellation) -> Result<u8, Failure> {
    match command {
        Constellation::Agent(args) => {
            Ok(agent::run(place::data_dir(global.data_dir.clone())?, args.background, args.api)?)
        }
        Constellation::Context(args) => run(context::context(args, global.output)).map_err(Into::into),
        Constellation::Grant(args) => tell(global, async |on| grants::grant(&on.client, args, on.form).await),
        Constellation::Grants(args) => tell(global, async |on| grants::grants(&on.client, args, on.form).await),
        Constellation::Audit(args) => tell(global, async |on| audit::audit(&on.client, args, on.form).await),
        Constellation::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rads", &mut script);
            screen::print(&String::from_utf8_lossy(&script));
            Ok(0)
        }
        Constellation::Doctor => Ok(doctor::doctor(&place::data_dir(global.data_dir.clone())?, global.output)?),
        // These find or start an agent themselves, or do without.
        Constellation::Up(args) => ask(global, async |place, form| up::up(place, args, form).await),
        Constellation::Create(args) => ask(global, async |place, form| up::create(place, args, form).await),
        Constellation::Deploy(args) => ask(global, async |place, form| up::deploy(place, args, form).await),
        Constellation::Plan(args) => ask(global, async |place, form| up::plan(place, args, form).await),
        Constellation::Secrets(what) => ask(global, async |place, form| Ok(secrets::secrets(place, what, form).await?)),
        Constellation::Upgrade => ask(global, async |place, form| Ok(upgrade::upgrade(place.folder()?, form).await?)),
        Constellation::Init(args) => {
            ask(global, async |place, form| Ok(constellation::init(place.folder()?, *args, form).await?))
        }
        Constellation::Join(args) => {
            ask(global, async |place, form| Ok(constellation::join(place.folder()?, *args, form).await?))
        }
        Constellation::Leave(args) => {
            ask(global, async |place, form| Ok(constellation::leave(place.folder()?, args, form).await?))
        }
        Constellation::Backup(what) => ask(global, async |place, form| Ok(backup::backup(place, what, form).await?)),
        Constellation::Recover(args) => {
            ask(global, async |place, form| Ok(backup::recover(place.folder()?, &args, form)?))
        }
        Constellation::Token { what } => tell(global, async |on| certs::token(&on.client, what, on.form).await),
        Constellation::Certs { authority: true, .. } => {
            tell(global, async |on| certs::authority(&on.client, on.form).await)
        }
        Constellation::Certs { what, .. } => tell(global, async |on| certs::certs(&on.client, what, on.form).await),
        Constellation::Namespaces(what) => {
            tell(global, async |on| namespaces::namespaces(&on.client, what, on.form).await)
        }
        Constellation::Rebalance(args) => {
            tell(global, async |on| rebalance::rebalance(&on.client, args, on.form).await)
        }
        Constellation::Reserve(args) => {
            ask(global, async |place, form| reservations::reserve(place, *args, form).await)
        }
        Constellation::Reservations => tell(global, async |on| reservations::reservations(&on.client, on.form).await),
        Constellation::Release(args) => tell(global, async |on| reservations::release(&on.client, args, on.form).await),
        Constellation::Resources => tell(global, async |on| resources::resources(&on.client, on.form).await),
        Constellation::Nodes(args) => tell(global, async |on| nodes::nodes(&on.client, args, on.form).await),
        Constellation::Drain(args) => tell(global, async |on| nodes::drain(&on.client, args, on.form).await),
        Constellation::Cordon(args) => tell(global, async |on| nodes::cordon(&on.client, args, on.form).await),
        Constellation::Taint(args) => tell(global, async |on| nodes::taint(&on.client, args, on.form).await),
        Constellation::Overcommit(args) => {
            tell(global, async |on| resources::overcommit(&on.client, args, on.form).await)
        }
        Constellation::Untaint(args) => tell(global, async |on| nodes::untaint(&on.client, args, on.form).await),
        Constellation::Uncordon(args) => tell(global, async |on| nodes::uncordon(&on.client, args, on.form).await),
        Constellation::Remove(args) => tell(global, async |on| nodes::remove(&on.client, args, on.form).await),
        Constellation::Version => ask(global, async |place, form| Ok(show::version(place, form).await?)),
        Constellation::Status => tell(global, async |on| show::status(&on.client, on.form).await),
        Constellation::List(args) => tell(global, async |on| show::list(&on.client, args, on.form).await),
        Constellation::Explain(args) => {
            about(global, Some(args.service.clone()), async |on| explain::explain(&on.client, &args, on.form).await)
        }
        Constellation::Rollout { turn, service } => {
            about(global, Some(service.clone()), async |on| rollout::turn(&on.client, turn, &service, on.form).await)
        }
        Constellation::RunJob(args) => {
            about(global, args.name.clone(), async |on| jobs::run(&on.client, &args, on.form).await)
        }
        Constellation::Runs(args) => {
            about(global, args.name.clone(), async |on| jobs::runs(&on.client, &args, on.form).await)
        }
        Constellation::History(args) => {
            about(global, args.name.clone(), async |on| rollout::history(&on.client, &args, on.form).await)
        }
        Constellation::Diff(args) => {
            about(global, Some(args.name.clone()), async |on| rollout::diff(&on.client, &args, on.form).await)
        }
        Constellation::Rollback(args) => {
            about(global, Some(args.name.clone()), async |on| rollout::back(&on.client, args, on.form).await)
        }
        Constellation::Stats(args) => {
            about(global, args.name.clone(), async |on| stats::stats(&on.client, args, on.form).await)
        }
        Constellation::Top(args) => {
            about(global, args.name.clone(), async |on| top::top(&on.client, args, on.form).await)
        }
        Constellation::Events(args) => tell(global, async |on| show::events(&on.client, args, on.form).await),
        Constellation::Watch(args) => tell(global, async |on| watch::watch(&on.client, args, on.form).await),
        Constellation::Logs(args) => {
            about(global, args.name.clone(), async |on| logs::logs(&on.client, args, on.form).await)
        }
        Constellation::Exec(args) => about(global, args.name.clone(), async |on| exec::exec(&on.client, args).await),
        Constellation::Cp(args) => {
            about(global, cp::star_of(&args), async |on| cp::cp(&on.client, args, on.form).await)
        }
        Constellation::PortForward(args) => {
            about(global, args.name.clone(), async |on| forward::forward(&on.client, args, on.form).await)
        }
        Constellation::Scale(args) => {
            about(global, args.name.clone(), async |on| change::scale(&on.client, args, on.form).await)
        }
        Constellation::Limits(args) => {
            about(global, args.name.clone(), async |on| limits::limits(&on.client, *args, on.form).await)
        }
        Constellation::Inspect(args) => {
            about(global, args.name.clone(), async |on| inspect::inspect(&on.client, args, on.form).await)
        }
        Constellation::Destroy(args) => about(global, args.name.clone(), async |on| change::destroy(&on, args).await),
        Constellation::Restart(args) => {
            about(global, args.name.clone(), async |on| change::restart(&on.client, args, on.form).await)
        }
        Constellation::Stop(args) => {
            about(global, args.name.clone(), async |on| change::stop(&on.client, args, on.form).await)
        }
        Constellation::Start(args) => {
            about(global, args.name.clone(), async |on| change::start(&on.client, args, on.form).await)
        }
        Constellation::Pause(args) => {
            about(global, args.name.clone(), async |on| change::pause(&on.client, args, on.form).await)
        }
        Constellation::Resume(args) => {
            about(global, args.name.clone(), async |on| change::resume(&on.client, args, on.form).await)
        }
        Constellation::Wait(args) => {
            about(global, args.name.clone(), async |on| wait::wait(&on.client, args, on.form).await)
        }
        Constellation::Down(args) => {
            // Of several it is not known which one was meant otherwise.
            let only = args.names.first().filter(|_| args.names.len() == 1).cloned();
            about(global, only, async |on| change::down(&on, args).await)
        }
        Constellation::Snapshot(args) => {
            about(global, args.name.clone(), async |on| snapshot::take(&on.client, args, on.form).await)
        }
        Constellation::Snapshots(args) => tell(global, async |on| snapshot::list(&on.client, args, on.form).await),
        Constellation::Volumes(args) => tell(global, async |on| volumes::volumes(&on.client, args, on.form).await),
        Constellation::Restore(args) => {
            about(global, args.name.clone(), async |on| snapshot::restore(&on.client, args, on.form).await)
        }
        Constellation::Shutdown(args) => {
            ask(global, async |place, _| Ok(agent::shutdown(place.folder()?, args.keep_stars).await?))
        }
    }
}

/// The agent that a command talks to.
struct Connected {
    client: Client,
    version: Version,
    form: Form,
}

/// Runs what needs an agent that is there already.
fn tell(global: &Global, work: impl AsyncFnOnce(Connected) -> Result<u8, Problem>) -> Result<u8, Failure> {
    ask(global, async |place, form| {
        let (client, version) = connect(place).await?;
        Ok(work(Connected { client, version, form }).await?)
    })
}

/// The agent that is there: that of the folder, or any of a constellation elsewhere.
async fn connect(place: &Place) -> Result<(Client, Version), Problem> {
    match place {
        Place::Folder(folder) => Client::connect(folder).await.map_err(|problem| orphaned(folder, problem)),
        Place::Context(name, context) => {
            let client = context.client(name)?;
            let version = client.greet().await?;
            Ok((client, version))
        }
    }
}

/// The same for what is about something by its name: when there is no such thing, the nearest one is told.
fn about(
    global: &Global,
    name: impl Into<Option<String>>,
    work: impl AsyncFnOnce(Connected) -> Result<u8, Problem>,
) -> Result<u8, Failure> {
    let name = name.into();
    tell(global, async |on| {
        let client = on.client.clone();
        match (work(on).await, name) {
            (Err(problem), Some(name)) if problem.code == Code::NotFound => {
                Err(match find::nearest_to(&client, &name).await {
                    Some(help) => problem.help(help),
                    None => problem,
                })
            }
            (done, _) => done,
        }
    })
}

/// Stars outlive their agent: where they do, that is what to know.
fn orphaned(data_dir: &Path, problem: Problem) -> Problem {
    if problem.code != Code::NoAgent || isolate::Client::connect(data_dir).is_err() {
        return problem;
    }
    let message = format!("no agent answers on `{}`, but its nursery and stars are there", data_dir.display());
    Problem::new(Code::NoAgent, message).help("`rads c agent` takes them over, `rads c shutdown` ends them")
}

/// Runs what talks to an agent.
fn ask(global: &Global, work: impl AsyncFnOnce(&Place, Form) -> Result<u8, Failure>) -> Result<u8, Failure> {
    let place = Place::choose(global)?;
    let mut result = run(work(&place, global.output));
    if let Err(Failure::Faulty(mistakes)) = &mut result {
        // They are found before an agent is asked for anything.
        mistakes.push("nothing was changed".to_owned());
    }
    result
}

/// One thread: it mostly waits.
fn run<T, E: From<Problem>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::new(Code::Internal, format!("cannot start: {error}")))?;
    let result = runtime.block_on(work);
    // A read of the terminal may still be waiting, and must not hold the end up.
    runtime.shutdown_background();
    result
}
