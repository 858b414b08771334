//! The grammar of the words about who may use a constellation from outside, and from where.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use model::{Name, Role};
use net::identity::KeyPin;

/// The token is printed once, on standard output; how it is used, beside it.
#[derive(Debug, Args)]
pub(crate) struct Grant {
    /// What they are called, in the audit log and here
    pub(crate) name: Name,
    /// `viewer` looks, `operator` also changes what runs, `admin` everything
    #[arg(long, value_parser = role)]
    pub(crate) role: Role,
    /// Only in this namespace; can be repeated [default: all]
    #[arg(long = "namespace", value_name = "NAMESPACE")]
    pub(crate) namespaces: Vec<Name>,
    /// For how long (`12h`, `30d`) [default: until it is revoked; a certificate 90 days]
    #[arg(long, value_name = "TIME", value_parser = crate::moment::duration)]
    pub(crate) expires: Option<Duration>,
    /// Instead of a token, a key that is made here and a certificate for it: NAME.key and NAME.crt
    #[arg(long)]
    pub(crate) certificate: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Grants {
    #[command(subcommand)]
    pub(crate) what: Option<GrantsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantsCommand {
    /// End a grant; connections by it end within seconds
    Revoke { name: Name },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Contexts {
    #[command(subcommand)]
    pub(crate) what: Option<ContextCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List them, as without a word
    #[command(visible_alias = "ls")]
    List,
    /// Remember a constellation by a name; the token comes by standard input, or is typed unseen
    Add(AddContext),
    /// Have commands be about this one from now on; `local` is this machine
    Use { name: Name },
    /// Forget one
    #[command(visible_alias = "rm")]
    Remove { name: Name },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("authority").required(true).args(["ca", "ca_hash"]))]
pub(crate) struct AddContext {
    /// What it is called here
    pub(crate) name: Name,
    /// A node that listens for users, as `https://10.0.0.1:7947`
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The certificate of its authority, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Or the hash of its authority's key, `sha256:…`, as `rads c grant` prints it
    #[arg(long, value_name = "HASH")]
    pub(crate) ca_hash: Option<KeyPin>,
    /// Read the token from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Show a certificate instead of a token
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "token_file")]
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Nothing from before: a time ago (`90s`, `10m`, `2h`, `7d`) or a moment (`2026-11-23 14:05`, universal time)
    #[arg(long, value_name = "WHEN", value_parser = crate::moment::since)]
    pub(crate) since: Option<crate::moment::Since>,
    /// Go on with new records until ^C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Compute every hash anew, and say whether the chain holds
    #[arg(long, conflicts_with_all = ["follow", "since"])]
    pub(crate) verify: bool,
}

/// Where users are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Off,
    At(SocketAddr),
}

impl Api {
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

/// `off`, a port, or ADDRESS:PORT.
pub(crate) fn api(text: &str) -> Result<Api, String> {
    if text == "off" {
        return Ok(Api::Off);
    }
    if let Ok(port) = text.parse::<u16>() {
        return Ok(Api::At((std::net::Ipv4Addr::UNSPECIFIED, port).into()));
    }
    text.parse().map(Api::At).map_err(|_| "expected ADDRESS:PORT, a port or `off`, as 0.0.0.0:7947".to_owned())
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error: model::access::NoRole| error.to_string())
}
