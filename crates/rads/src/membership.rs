//! The grammar of the words about machines: how they come together, how they are looked at, how they go.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use model::{Name, NodeRole};

use crate::access::Api;

/// What this machine is to be among others.
#[derive(Debug, Args)]
pub(crate) struct MachineOptions {
    /// What this node is called [default: the host's name]
    #[arg(long, visible_alias = "node")]
    pub(crate) name: Option<Name>,
    /// Where it listens for other nodes, TCP and UDP: ADDRESS:PORT, or a port
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7946", value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// Where other nodes reach it, if that is elsewhere [default: this machine's own address]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// Where it is: a part of the world
    #[arg(long)]
    pub(crate) region: Option<Name>,
    /// A part of the region that fails as one
    #[arg(long)]
    pub(crate) zone: Option<Name>,
    /// A part of the zone
    #[arg(long)]
    pub(crate) rack: Option<Name>,
    /// What else is to be known of it; can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Memory kept for the machine itself, in MiB: no star is promised it
    #[arg(long, value_name = "MB", default_value_t = 0)]
    pub(crate) reserve_ram_mb: u32,
    /// Processor time kept for the machine itself, in percent of one core
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    pub(crate) reserve_cpu_percent: u32,
    /// Let users with a grant in here, over HTTPS: ADDRESS:PORT, or a port [default: nowhere]
    #[arg(long, value_name = "ADDRESS", value_parser = crate::access::api)]
    pub(crate) api: Option<Api>,
    /// As a controller, answer machines of this network that look for the constellation: see `rads c join --discover`
    #[arg(long)]
    pub(crate) discoverable: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// What the constellation is called
    #[arg(long)]
    pub(crate) cluster: Option<Name>,
    #[command(flatten)]
    pub(crate) me: MachineOptions,
    /// How long certificates of nodes are good; each renews its own in time
    #[arg(long, value_name = "DAYS")]
    pub(crate) certificate_days: Option<u16>,
    /// Join the one that this node is of instead, as `rads c join` does
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "certificate_days")]
    pub(crate) join: Option<String>,
    /// With `--join`: the token; `-` reads it from standard input [default: `RADS_TOKEN`, or it is asked for]
    #[arg(long, requires = "join")]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// A controller of the constellation; without a port, 7946
    #[arg(value_name = "HOST:PORT", required_unless_present = "discover")]
    pub(crate) address: Option<String>,
    /// Look for it on this machine's own network instead: its controllers answer if they are `--discoverable`
    #[arg(long, conflicts_with = "address")]
    pub(crate) discover: bool,
    /// The token; `-` reads it from standard input [default: `RADS_TOKEN`, or it is asked for]
    #[arg(long)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) me: MachineOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Show them again whenever something changes, until ^C
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Also those that left
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// A node's name or id
    pub(crate) node: String,
    /// Return when its stars run elsewhere
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OneNode {
    /// A node's name or id
    pub(crate) node: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rebalance {
    /// Services [default: all]
    pub(crate) services: Vec<String>,
    /// Show which stars would move, and leave them where they are
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Move no more stars than these
    #[arg(long, value_name = "STARS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) most: u32,
}

#[derive(Debug, Args)]
pub(crate) struct AddTaint {
    /// A node's name or id
    pub(crate) node: String,
    /// A name, or a name and a value: `gpu`, `team=red`
    pub(crate) taint: String,
    /// Stars that are there and do not tolerate it move elsewhere
    #[arg(long)]
    pub(crate) evict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveTaint {
    /// A node's name or id
    pub(crate) node: String,
    /// The name of the taint
    pub(crate) taint: String,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").args(["cpu_percent", "ram_percent", "reset"]).required(true).multiple(true)))]
pub(crate) struct SetOvercommit {
    /// A node's name or id [default: all of which nothing of their own is said]
    pub(crate) node: Option<String>,
    /// So much of its processors may be kept for stars, in percent of what it does not keep for itself: 100 to 1000. What is not said of
    /// the two stays as it is
    #[arg(long, value_name = "PERCENT")]
    pub(crate) cpu_percent: Option<u32>,
    /// So much of its memory
    #[arg(long, value_name = "PERCENT")]
    pub(crate) ram_percent: Option<u32>,
    /// As it is when nothing is said, or for a node as it is for all others
    #[arg(long, conflicts_with_all = ["cpu_percent", "ram_percent"])]
    pub(crate) reset: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// A node's name or id
    pub(crate) node: String,
    /// Even though it is there, or volumes lie there: they are given up
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Leave {
    /// Even though volumes lie here: they are given up
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Write everything that a new first node needs into a file: the state, the keys, the files of apps; not volumes
    Save {
        /// It must not be there yet
        file: PathBuf,
    },
    /// Check a backup and tell what it is of
    Show { file: PathBuf },
    /// Make an empty data folder the first node of what a backup is of
    Restore(Box<RestoreBackup>),
}

#[derive(Debug, Args)]
pub(crate) struct RestoreBackup {
    pub(crate) file: PathBuf,
    /// Even while controllers of old answer: what runs there goes on beside what is restored
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) me: MachineOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// It cannot be undone: go on without being asked
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Words about invitations.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token that lets machines join, and print how
    Create {
        /// What they become: `worker` runs stars, `controller` also keeps the log and lets others in
        #[arg(long, default_value = "worker", value_parser = role)]
        role: NodeRole,
        /// How many machines may join by it
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// For how long it is good: an hour at most
        #[arg(long = "for", default_value = "1h", value_name = "TIME", value_parser = crate::moment::duration)]
        life: Duration,
    },
    /// List tokens that are good yet; they themselves are not shown
    #[command(visible_alias = "ls")]
    List,
    /// Take a token back; machines that joined by it stay
    Revoke {
        /// Its id, as `list` shows it
        token: String,
    },
}

/// Words about certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum Certs {
    /// Shut a node out: nothing it was given is believed any more
    Revoke {
        /// A node's name or id
        node: String,
    },
    /// Put another certificate authority in the place of the present one, step by step
    Rotate {
        /// The key that gossip is sealed with instead
        #[arg(long)]
        gossip: bool,
    },
}

fn role(text: &str) -> Result<NodeRole, String> {
    text.parse().map_err(|error: model::identity::InvalidRole| error.to_string())
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((std::net::Ipv4Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| "expected ADDRESS:PORT or a port, as 0.0.0.0:7946".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
