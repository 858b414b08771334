//! The grammar of the command line. What each word does is in `commands`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use model::{CpuSet, ListenAddr, Name, SecretKey, VolumeKey};

use crate::access::{Api, Audit, Contexts, Grant, Grants, api};
use crate::commands::top::board::SortBy;
use crate::membership::{
    AddTaint, Backup, Certs, Drain, Init, Join, Leave, Nodes, OneNode, Rebalance, Recover, Remove, RemoveTaint,
    SetOvercommit, Token,
};
use crate::namespaces::Namespaces;
use crate::options::ServiceOptions;
use crate::reservations::{Release, Reserve};

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked (`plan`: nothing would change)
  1  it did not; the error says why and whether anything changed
  2  `plan` only: there are changes
  `run` ends with the script's own code, `exec` with the command's";

/// Run isolated programs from a description in RADS
#[derive(Debug, Parser)]
#[command(name = "rads", version, after_help = EXIT_CODES, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The agent's folder [default: /var/lib/rads as root, else ~/.local/share/rads]
    #[arg(long, global = true, env = "RADS_DATA", hide_env_values = true, value_name = "FOLDER", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) data_dir: Option<PathBuf>,
    /// A constellation elsewhere, by the name it has here; `local` for this machine [env: RADS_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// How answers are printed
    #[arg(short, long, global = true, value_enum, default_value = "text", value_name = "FORM")]
    pub(crate) output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start what an app describes and follow its logs until ^C
    Up(Up),
    /// Run a script here, without walls
    Run(Run),
    /// Look for mistakes in scripts without running them
    Check(Check),
    /// Write an app from what others describe, and tell what became of every key of it
    Import(Import),
    /// Look after stars, services and the agent
    #[command(visible_alias = "c", subcommand_required = true, arg_required_else_help = true, after_help = EXIT_CODES)]
    Constellation {
        #[command(subcommand)]
        command: Box<Constellation>,
    },
    /// The parent of every star; started by the agent
    #[command(hide = true)]
    Nursery(Nursery),
    /// A script within a star of its own; started by the nursery
    #[command(hide = true)]
    Star(Star),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Constellation {
    /// Run the agent of a data folder here
    Agent(Agent),
    /// Start what an app describes and follow its logs until ^C
    Up(Up),
    /// Show what `up` would change, and change nothing
    Plan(Plan),
    /// Found a constellation with this machine, and print how others join it
    Init(Box<Init>),
    /// Make this machine a node of a constellation; nothing may run on it yet
    Join(Box<Join>),
    /// Invite machines, and take invitations back
    Token {
        #[command(subcommand)]
        what: Token,
    },
    /// Show who is believed and until when, shut a node out, or change the certificate authority
    #[command(args_conflicts_with_subcommands = true)]
    Certs {
        #[command(subcommand)]
        what: Option<Certs>,
        /// Print the certificates of the authority alone, as PEM: what curl and browsers are to believe
        #[arg(long)]
        authority: bool,
    },
    /// Let somebody use the constellation from outside
    Grant(Grant),
    /// List who may use the constellation from outside, or end that
    Grants(Grants),
    /// Show who did what, and who was denied what
    Audit(Audit),
    /// List constellations elsewhere that commands can be about, add one, or choose
    Context(Contexts),
    /// Look after namespaces: which there are, until when, and what each may have
    #[command(visible_alias = "ns", subcommand)]
    Namespaces(Namespaces),
    /// Show processors, memory and disks of all machines as one pool: what is kept, promised, used and free
    Resources,
    /// Hold places on machines for stars to come
    Reserve(Box<Reserve>),
    /// List the reservations
    Reservations,
    /// Give the places of a reservation back
    Release(Release),
    /// List the machines of the constellation
    Nodes(Nodes),
    /// Move the stars of a node elsewhere, and give it none
    Drain(Drain),
    /// Give a node no new stars
    Cordon(OneNode),
    /// Give a node stars again
    Uncordon(OneNode),
    /// Keep a node for services that tolerate a taint
    Taint(AddTaint),
    /// Take a taint from a node
    Untaint(RemoveTaint),
    /// Say how often what a node has may be kept for stars
    Overcommit(SetOvercommit),
    /// Move stars to where they would come if they were placed now
    Rebalance(Rebalance),
    /// Take this machine out of its constellation; its stars run elsewhere first
    Leave(Leave),
    /// Take out a node that is gone for good
    Remove(Remove),
    /// Save the constellation in a file, or bring it back from one
    #[command(subcommand)]
    Backup(Backup),
    /// Let this controller go on alone when most of those that kept the log are gone for good
    Recover(Recover),
    /// Show the node and its services
    Status,
    /// List stars
    #[command(visible_alias = "ls")]
    List(List),
    /// Start one service from a script
    Create(Create),
    /// Start or change an app, or a service from a script, and return when it is ready
    Deploy(Deploy),
    /// Tell why the stars of a service are where they are, node by node
    Explain(Explain),
    /// Promote what a roll-out tries, take it back, hold it, or let it go on
    Rollout {
        #[arg(value_enum)]
        turn: Turn,
        /// A service
        service: String,
    },
    /// Begin a run of a job
    #[command(name = "run")]
    RunJob(OneService),
    /// List the runs of a job, and tell when the next is due
    Runs(OneService),
    /// List the versions of a service
    History(OneService),
    /// Show what differs between two versions of a service
    Diff(DiffArgs),
    /// Make a service what it was in an earlier version
    Rollback(RollbackArgs),
    /// Show what stars use
    Stats(Stats),
    /// Watch what stars use; without a terminal it is printed once
    Top(Top),
    /// Show what stars printed
    Logs(Logs),
    /// Change how many stars a service has
    Scale(Scale),
    /// Show or change what the stars of a service may use, while they run
    Limits(Box<LimitsArgs>),
    /// Replace the stars of a service, one after another, or one star
    Restart(OneTarget),
    /// End the stars of a service and keep it known, or one star and keep its place free
    Stop(OneTarget),
    /// Start a stopped service again, or a star that was stopped
    Start(OneTarget),
    /// Take a service out of its app, with its stars; its volumes stay
    Destroy(OneTarget),
    /// Let the stars of a service stand still: they keep their memory and get no processor time
    Pause(OneService),
    /// Let the stars of a paused service go on
    Resume(OneService),
    /// Wait until a star, or all of a service that ends by itself, has ended; exit as it did
    Wait(Wait),
    /// Keep all that a service's stars wrote as it is now: volumes, and what each has of its own
    Snapshot(Snapshot),
    /// List snapshots, or delete one
    Snapshots(SnapshotsArgs),
    /// List volumes, or delete one
    #[command(alias = "volume")]
    Volumes(VolumesArgs),
    /// Give a service the files of a snapshot; its stars are stopped and started again
    Restore(Restore),
    /// Take apps down, and the agent with the last one if `up` or `deploy` started it
    Down(Down),
    /// Run a command within a star's walls
    Exec(Exec),
    /// Copy files into a star or out of one
    Cp(Cp),
    /// Let a local port lead to a port within a star, until ^C
    PortForward(PortForward),
    /// Keep what only stars are to know
    #[command(subcommand, alias = "secret")]
    Secrets(Secrets),
    /// Show everything that is known of a star or a service
    Inspect(Inspect),
    /// Show what happened
    Events(Events),
    /// Show what changes, by its key, as it does
    Watch(Watch),
    /// End the agent
    Shutdown(Shutdown),
    /// Have nursery and agent become this program, while the stars run on
    Upgrade,
    /// Show the versions of this program and of the agent
    Version,
    /// Try what this machine lets stars have, and say how to get the rest
    Doctor,
    /// Print a completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// An app (`constellation.deploy(…)`), or the script of one service
    pub(crate) file: PathBuf,
    /// Return when everything is ready, and leave it running
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Listen here instead of where the app says: PORT or ADDRESS:PORT; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", value_parser = listen_addr)]
    pub(crate) listen: Option<ListenAddr>,
    /// Do not ask before services are removed or replaced. Where nobody can be asked, a removal needs it
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    pub(crate) file: PathBuf,
    /// What the script gets as its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// What it is
    #[arg(value_enum)]
    pub(crate) format: Foreign,
    /// Files, `-` for standard input; of `docker-run` the line itself, of `systemd` also the names of units [default: `Procfile`,
    /// `compose.yaml` and the like of the working folder; a crontab comes by standard input]
    pub(crate) input: Vec<OsString>,
    /// Write the app to this file, and what it needs of files beside it, instead of to standard output
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) to: Option<PathBuf>,
    /// What `docker image inspect` printed of the images: what they start, with which variables
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) images: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long, requires = "to")]
    pub(crate) force: bool,
}

/// What can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Foreign {
    /// A `docker run` line, quoted as one word or behind `--`
    DockerRun,
    /// A compose file
    Compose,
    /// Kubernetes manifests
    Kubernetes,
    /// A Nomad job in HCL
    Nomad,
    /// systemd units with their drop-ins
    Systemd,
    /// A Procfile
    Procfile,
    /// A crontab, of a user or of the system
    Crontab,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// From now on, let users with a grant in here: ADDRESS:PORT, a port, or `off`; on a node of a constellation
    #[arg(long, value_name = "ADDRESS", value_parser = api)]
    pub(crate) api: Option<Api>,
    /// Started by a command in the background: logs to `agent.log`, and ends with the last app
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Nursery {
    /// Read a nursery's state on standard input, and say whether this program could go on from there
    #[arg(long)]
    pub(crate) can_take_over: bool,
    /// Go on from the state in this descriptor
    #[arg(long, value_name = "DESCRIPTOR", conflicts_with = "can_take_over")]
    pub(crate) take_over: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct Star {
    /// Its path within `/app`
    pub(crate) script: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// An app, or the script of one service
    pub(crate) file: PathBuf,
    /// Listen here instead of where the app says
    #[arg(long, value_name = "ADDRESS", value_parser = listen_addr)]
    pub(crate) listen: Option<ListenAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Ended stars too
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What the service is called
    #[arg(long)]
    pub(crate) name: Name,
    /// The script that each star runs
    #[arg(long, value_name = "FILE", required_unless_present_any = ["program", "command", "hold"])]
    pub(crate) script: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: ServiceOptions,
    /// Instead of a script, a program and its arguments; what it needs of files lies in the working folder
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) program: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// An app, or the script of one service
    #[arg(required_unless_present_any = ["program", "command"])]
    pub(crate) file: Option<PathBuf>,
    /// What the service of a plain script or of a command is called [default: the file's name]
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Do not ask before services are removed or replaced. Where nobody can be asked, a removal needs it
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// In place of what the app says, where that has one service
    #[command(flatten)]
    pub(crate) options: ServiceOptions,
    /// Instead of a script, a program and its arguments; what it needs of files lies in the working folder
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) program: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Turn {
    /// Stars that are tried take the place of all
    Promote,
    /// The version before comes back
    Abort,
    /// Nothing more is replaced for now
    Pause,
    /// It goes on
    Resume,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A service
    pub(crate) name: String,
    /// A version [default: the one before the present]
    pub(crate) from: Option<u64>,
    /// Another version [default: the present one]
    pub(crate) to: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// A service
    pub(crate) name: String,
    /// Which version comes back [default: the last good one before the present]
    pub(crate) version: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A service
    pub(crate) service: String,
    /// Tell every node one by one, however many there are
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// An app, a service or a star [default: all]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// An app, a service or a star [default: all]
    pub(crate) name: Option<String>,
    /// What the stars are ordered by
    #[arg(short, long, value_enum, default_value = "cpu", value_name = "COLUMN")]
    pub(crate) sort: SortBy,
    /// How often it is drawn anew (`2s`) [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = crate::moment::duration)]
    pub(crate) interval: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// An app, a service or a star [default: all]
    pub(crate) name: Option<String>,
    /// Go on with new lines until ^C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show so many of the last lines of each name [default: 100, with --since all]
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Show no lines from before: a time ago (`90s`, `10m`, `2h`, `7d`) or a moment (`2026-11-23 14:05`, universal time)
    #[arg(long, value_name = "WHEN", value_parser = crate::moment::since)]
    pub(crate) since: Option<crate::moment::Since>,
    /// Show only what came by standard output
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) stdout: bool,
    /// Show only what came by standard error
    #[arg(long)]
    pub(crate) stderr: bool,
    /// Show when each line came, in universal time
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Show the star that ran before the present one of the same name
    #[arg(short, long, conflicts_with = "follow")]
    pub(crate) previous: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    pub(crate) name: String,
    pub(crate) instances: u32,
}

/// Each is a number, or `none` for no limit; without any of them the limits are shown. When a star cannot have them, none is
/// changed.
#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    pub(crate) name: String,
    /// Processor time, in percent of one core
    #[arg(long, value_name = "PERCENT", conflicts_with = "cpu_cores")]
    pub(crate) cpu_percent: Option<Limit>,
    /// Processor time, in cores
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu_cores: Option<Limit>,
    /// Memory, in MiB
    #[arg(long, value_name = "MB", conflicts_with = "ram_gb")]
    pub(crate) ram_mb: Option<Limit>,
    /// Memory, in GiB
    #[arg(long, value_name = "GB")]
    pub(crate) ram_gb: Option<Limit>,
    /// Memory beyond which the kernel takes back what it can, in MiB
    #[arg(long, value_name = "MB")]
    pub(crate) ram_soft_mb: Option<Limit>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pub(crate) pids: Option<Limit>,
    /// Open files of each process
    #[arg(long, value_name = "N")]
    pub(crate) open_files: Option<Limit>,
    /// Disk for `/tmp`, and for what is changed in a root of its own, in MiB
    #[arg(long, value_name = "MB")]
    pub(crate) disk_mb: Option<Limit>,
    /// Output taken in a second, in KiB; who writes faster waits
    #[arg(long, value_name = "KB")]
    pub(crate) log_kb_s: Option<Limit>,
    /// Processors to run on, such as `0-1,3`, or `none` for all
    #[arg(long, value_name = "LIST")]
    pub(crate) cpus: Option<Cpus>,
    /// Of unused processor time, how much may be used later, in percent of what it has in 100 ms
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cpu_burst_percent: Option<Limit>,
    /// How much more it may use of processors that no other star wants, in percent of what it has
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cpu_borrow_percent: Option<Limit>,
    /// Disk reads in a second, in MiB
    #[arg(long, value_name = "MB")]
    pub(crate) io_read_mb_s: Option<Limit>,
    /// Disk writes in a second, in MiB
    #[arg(long, value_name = "MB")]
    pub(crate) io_write_mb_s: Option<Limit>,
    /// Whether the soft limit of memory follows what a star uses
    #[arg(long, value_name = "on|off", conflicts_with = "ram_soft_mb")]
    pub(crate) ram_balloon: Option<Switch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// A list of processors, or `none`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cpus(pub(crate) Option<CpuSet>);

impl std::str::FromStr for Cpus {
    type Err = model::cpus::InvalidCpuSet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" | "unlimited" => Ok(Self(None)),
            _ => text.parse().map(|cpus| Self(Some(cpus))),
        }
    }
}

/// A number, or `none`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    None,
    To(f64),
}

impl std::str::FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" | "unlimited" => Ok(Self::None),
            _ => match text.parse::<f64>() {
                // Beyond any machine; and what is converted from here on cannot overflow.
                Ok(number) if (0.0..=1e9).contains(&number) => Ok(Self::To(number)),
                _ => Err("neither a number nor `none`"),
            },
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct OneTarget {
    /// A service, or a star's name or id
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A star's name or id, or a service
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct OneService {
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// A service, or a star of it
    pub(crate) name: String,
    /// What the snapshot is called [default: after the service and the time]
    #[arg(long = "as", value_name = "SNAPSHOT")]
    pub(crate) called: Option<Name>,
    /// Also the memory of its star, which then goes on from there; takes root and CRIU (see `doctor`)
    #[arg(long)]
    pub(crate) memory: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SnapshotsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SnapshotsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotsCommand {
    /// Delete a snapshot, and what only that one has
    Delete { snapshot: Name },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct VolumesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<VolumesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumesCommand {
    /// Delete a volume that no service has, and its files
    #[command(visible_alias = "rm")]
    Delete {
        volume: VolumeKey,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    pub(crate) snapshot: Name,
    /// A service with the same volumes and places [default: the one the snapshot is of]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// The apps [default: the only one]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Every app
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// It asks nothing: taken where other commands take it
    #[arg(short, long, hide = true)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Give it no terminal, though this is one
    #[arg(short = 'T', long)]
    pub(crate) no_terminal: bool,
    /// A star, or a service: then its first star
    pub(crate) name: String,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// Set a secret: from a file, from standard input, or typed unseen
    Set(SecretSet),
    /// Print the value of a secret. That you read it is recorded among the events
    Get { name: SecretKey },
    /// List secrets, without their values
    #[command(visible_alias = "ls")]
    List,
    /// Delete a secret that no app uses
    #[command(visible_alias = "rm")]
    Delete { name: SecretKey },
}

#[derive(Debug, Args)]
pub(crate) struct SecretSet {
    /// `name`, or `namespace/name`
    pub(crate) name: SecretKey,
    /// Read the value from a file instead of standard input, byte by byte
    #[arg(long, value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,
}

/// One side is in a star, `hello-1:/path`; the other is a file or folder here, or `-` for a tar archive by standard input or
/// output. In a folder that is there, what is copied keeps its name. Modes are kept; sockets, pipes and devices are left out.
#[derive(Debug, Args)]
pub(crate) struct Cp {
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    #[arg(value_name = "TO")]
    pub(crate) to: String,
}

#[derive(Debug, Args)]
pub(crate) struct PortForward {
    /// A star, or a service: then its first star
    pub(crate) name: String,
    /// The port within the star, and before it the local one if it is another; 0 takes any free one
    #[arg(value_name = "[LOCAL:]PORT")]
    pub(crate) ports: crate::commands::forward::Ports,
    /// Listen on this address instead of 127.0.0.1
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<std::net::IpAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// A service (`restart: "never"` or `"on_failure"`), or a star
    pub(crate) name: String,
    /// Fail when it has not ended after so long (`90s`, `10m`, `2h`)
    #[arg(long, value_name = "TIME", value_parser = crate::moment::duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only of this app, service or star
    pub(crate) name: Option<String>,
    /// Nothing from before: a time ago (`90s`, `10m`, `2h`, `7d`) or a moment (`2026-11-23 14:05`, universal time)
    #[arg(long, value_name = "WHEN", value_parser = crate::moment::since)]
    pub(crate) since: Option<crate::moment::Since>,
    /// Go on with new events until ^C
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Only keys that begin so: `services/default/`, `stars/default/web/`, `nodes/`
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Begin with what came after this index of the log, instead of now
    #[arg(long, value_name = "INDEX")]
    pub(crate) from: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Shutdown {
    /// Leave the stars running; the next agent takes them over
    #[arg(long)]
    pub(crate) keep_stars: bool,
}

fn listen_addr(text: &str) -> Result<ListenAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(ListenAddr::loopback(port));
    }
    let address: std::net::SocketAddr =
        text.parse().map_err(|_| "expected PORT or ADDRESS:PORT, as 8080 or 0.0.0.0:8080".to_owned())?;
    Ok(ListenAddr { ip: address.ip(), port: address.port() })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_manual_parse() {
        for text in [
            "rads up app.rads",
            "rads up app.rads -d --listen 0 --yes --data-dir /tmp/x",
            "rads run hello.rads --flag value",
            "rads check a.rads b.rads",
            "rads import compose docker-compose.yml --images images.json --to app.rads --force",
            "rads import docker-run -- docker run -p 8080:80 nginx",
            "rads import kubernetes a.yaml b.yaml -o json",
            "rads import systemd nginx.service",
            "rads import procfile",
            "rads import crontab -",
            "rads constellation create --name web --script server.rads --cpu-percent 25 --ram-mb 512",
            "rads constellation list",
            "rads constellation status",
            "rads c status -o json",
            "rads c deploy app.rads --instances 3 --cpu-cores 2 --ram-gb 4 --autoscale-min 2 --autoscale-max 20",
            "rads c create --name web --script server.rads --port 80 --env A=1 --env B=2 --volume /data=pages,size_mb=100 --ready /healthz",
            "rads c create --name job --restart never --ram-balloon --tmpfs /cache=size_mb=16 -- sh -c true",
            "rads c deploy app.rads --ram-balloon=off --pids -1 --arg --fast",
            "rads c deploy --name job --command ls",
            "rads c scale hello 10",
            "rads c limits hello --cpus 0-1,3 --cpu-burst-percent 20 --io-read-mb-s 10 --io-write-mb-s none --disk-mb 100",
            "rads c limits hello --cpu-borrow-percent none --log-kb-s 64 --ram-balloon on",
            "rads c logs -f hello --tail 5",
            "rads c logs hello --since 10m --stderr -t",
            "rads c logs hello-1 --previous",
            "rads c exec hello-1 -- ls -l /app",
            "rads c wait job --timeout 90s",
            "rads c cp hello-1:/data/file .",
            "rads c cp - hello:/data",
            "rads c port-forward hello-1 15432:5432",
            "rads c inspect hello-1 -o json",
            "rads c restart hello-2",
            "rads c destroy hello",
            "rads c events hello --since 2h -f",
            "rads c top",
            "rads c top hello --sort memory --interval 5s",
            "rads c completions bash",
            "rads c secrets set db-password --from-file password.txt",
            "rads c secrets set team/db-password",
            "rads c secrets list -o json",
            "rads c secret get team/db-password",
            "rads c secrets delete db-password",
            "rads c volumes -o json",
            "rads c volumes delete team/pages --yes",
            "rads c volume rm pages",
            "rads c down hello",
            "rads c upgrade -o json",
            "rads constellation init --cluster production --node node-1",
            "rads constellation init --cluster production --node node-2 --join 192.168.1.10:7946",
            "rads c init --cluster p --listen 7000 --advertise a.example.com:7000 --region eu --zone eu-1 --rack r5 --label disk=ssd",
            "rads c join 10.0.0.1:7946 --token - --name b",
            "rads c token create --role controller --uses 3 --for 30m",
            "rads c token list -o json",
            "rads c token revoke 3f2a9c01",
            "rads c certs --authority",
            "rads c explain web --all",
            "rads c rollout promote web",
            "rads c rollout abort team/web",
            "rads c history web -o json",
            "rads c diff web",
            "rads c diff web 2 4",
            "rads c rollback web",
            "rads c run report",
            "rads c runs team/report -o json",
            "rads c create --name report --script r.rads --job schedule=@daily --job inputs=a --job inputs=b",
            "rads c rollback web 3",
            "rads c deploy app.rads --update strategy=canary --update canary=10% --update healthy_seconds=5",
            "rads c certs revoke c",
            "rads c certs rotate",
            "rads c grant ann --role viewer --namespace shop --namespace blog --expires 30d",
            "rads c grant ci --role operator --certificate",
            "rads c grants",
            "rads c grants revoke ann",
            "rads c context",
            "rads c context add prod https://10.0.0.1:7947 --ca-hash sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "rads c context add prod https://10.0.0.1:7947 --ca ca.pem --token-file t",
            "rads c context add prod https://10.0.0.1:7947 --ca ca.pem --certificate ann.crt --key ann.key",
            "rads c context use local",
            "rads c context remove prod",
            "rads c audit --since 2h -f",
            "rads c audit --verify",
            "rads --context prod c status",
            "rads c agent --api 0.0.0.0:7947",
            "rads c agent --api off",
            "rads c ns list",
            "rads c namespaces ls -o json",
            "rads c ns create dev --ttl 3d --quota cpu_percent=400,ram_mb=4096,instances=20,services=5",
            "rads c ns show dev",
            "rads c ns set dev --ttl none --quota instances=none",
            "rads c ns set dev --quota none --cpu-borrow-percent 100",
            "rads c ns delete dev --force --volumes --yes",
            "rads c resources",
            "rads c join 10.0.0.1:7946 --token - --reserve-ram-mb 512 --reserve-cpu-percent 20",
            "rads c create --name web --script server.rads --reserve-ram-mb 128 --reserve-cpu-percent 25",
            "rads c nodes -w --all",
            "rads c drain d --wait",
            "rads c cordon d",
            "rads c uncordon d",
            "rads c taint d gpu",
            "rads c taint d team=red --evict",
            "rads c untaint d gpu",
            "rads c overcommit d --cpu-percent 200 --ram-percent 120",
            "rads c overcommit --reset",
            "rads c rebalance web team/api --dry-run --most 5",
            "rads c leave",
            "rads c backup save /tmp/x.backup",
            "rads c backup show /tmp/x.backup",
            "rads c backup restore /tmp/x.backup --name a --listen 7000",
            "rads c recover --yes",
            "rads c remove c --force",
            "rads c snapshot web --as before",
            "rads c snapshot web-1",
            "rads c snapshot web --memory --as before",
            "rads c snapshots",
            "rads c snapshots delete before",
            "rads c restore before web",
            "rads nursery --can-take-over",
            "rads star web/server.rads --fast 3",
            "rads nursery --data-dir /tmp/x --take-over 7",
        ] {
            assert!(Cli::try_parse_from(text.split(' ')).is_ok(), "{text}");
        }
    }
}
