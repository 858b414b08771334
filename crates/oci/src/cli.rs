//! The words of the command line: those of the specification's own proposal, and of the runtimes that engines call.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs containers as the OCI runtime specification describes them, over the engine of RADS Constellation.
#[derive(Debug, Parser)]
#[command(name = "rads-oci", disable_version_flag = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Folder for what is known of containers [default: /run/rads-oci, or in $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<PathBuf>,
    /// File to which errors and warnings are added
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Form of the log's lines
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) log_format: LogFormat,
    /// Put more into the log
    #[arg(long)]
    pub(crate) debug: bool,
    /// Refused: groups are made as files, not through systemd
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Taken for compatibility: whether a user may do a thing is found by doing it
    #[arg(long, hide = true)]
    pub(crate) rootless: Option<String>,
    /// Print the version
    #[arg(short = 'v', long)]
    pub(crate) version: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container from a bundle; its program does not run yet
    Create(Create),
    /// Run the program of a created container
    Start(One),
    /// Print a container's state
    State(One),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Remove a container that has stopped
    Delete(Delete),
    /// Create a container, start it and stay with it to its end
    Run(Run),
    /// Run a further process in a running container
    Exec(Box<Exec>),
    /// List the containers
    List(List),
    /// List a container's processes
    Ps(Ps),
    /// Halt all processes of a container
    Pause(One),
    /// Let them go on
    Resume(One),
    /// Change a container's limits
    Update(Box<Update>),
    /// Write an example of a `config.json`
    Spec(Spec),
    /// Print what this runtime can do
    Features,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Folder with `config.json`
    #[arg(short, long, default_value = ".", value_name = "FOLDER")]
    pub(crate) bundle: PathBuf,
    /// Unix socket that is sent the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// File for the number of the container's first process
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Enter the root without pivot_root, as from a memory file system
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Leave the session's keys in reach of the container
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// How many descriptors after the standard ones the program gets
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u32,
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Return once it is started
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not delete it when it has ended
    #[arg(long)]
    pub(crate) keep: bool,
    #[arg(long, hide = true)]
    pub(crate) no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal every process of the container
    #[arg(short, long)]
    pub(crate) all: bool,
    pub(crate) id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kill what runs; no error when there is no such container
    #[arg(short, long)]
    pub(crate) force: bool,
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Unix socket that is sent the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Working folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cwd: Option<String>,
    /// A variable, as NAME=value
    #[arg(short, long, value_name = "VARIABLE")]
    pub(crate) env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// UID or UID:GID
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Further groups
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// File with the process as in a `config.json`
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Return once it runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File for its number
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub(crate) process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Forbid it to gain privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// A capability beside those of the container
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u32,
    /// Group below the container's own, or CONTROLLER:PATH
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Also while the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    pub(crate) id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: Form,
    /// Only the ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: Form,
    pub(crate) id: String,
    /// Arguments of `ps` [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// File with resources as in a `config.json`; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Bytes of memory, also as `100M`
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = bytes)]
    pub(crate) memory: Option<i64>,
    /// Bytes of memory that are kept when memory is short
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = bytes)]
    pub(crate) memory_reservation: Option<i64>,
    /// Bytes of memory and swap together
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = bytes)]
    pub(crate) memory_swap: Option<i64>,
    #[arg(long, value_name = "N")]
    pub(crate) cpu_share: Option<u64>,
    /// Microseconds in each period
    #[arg(long, value_name = "US", allow_negative_numbers = true)]
    pub(crate) cpu_quota: Option<i64>,
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<u64>,
    #[arg(long, value_name = "US")]
    pub(crate) cpu_burst: Option<u64>,
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    #[arg(long, value_name = "N")]
    pub(crate) blkio_weight: Option<u16>,
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// Folder for it
    #[arg(short, long, default_value = ".", value_name = "FOLDER")]
    pub(crate) bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    pub(crate) rootless: bool,
}

/// A number of bytes, perhaps with a unit of 1024 times the one before (`k`, `M`, `G`, `T`, with or without `B` or `iB`).
fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || "it is not a number of bytes such as `104857600` or `100M`".to_owned();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: i64 = number.trim_end().parse().map_err(|_| wrong())?;
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << (10 * power)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, number) in
            [("7", 7), ("-1", -1), ("1k", 1024), ("100M", 100 << 20), ("2GiB", 2 << 30), ("1 tb", 1 << 40)]
        {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        for text in ["", "M", "1x", "1ibb", "1.5G", "9999999999T", "1M\n"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
        // Where suites put the id.
        for line in [
            &["rads-oci", "--root", "r", "create", "id", "--bundle", "b", "--preserve-fds", "100"][..],
            &["rads-oci", "--root", "r", "create", "--bundle", "b", "--pid-file", "p", "id"],
            &["rads-oci", "--log", "l", "--log-format", "json", "kill", "id", "9"],
            &["rads-oci", "--debug", "exec", "--env", "A=b", "--cap=CAP_KILL", "id", "cat", "--show-all"],
            &["rads-oci", "update", "--memory", "100M", "--pids-limit", "-1", "id"],
        ] {
            Cli::try_parse_from(line).unwrap();
        }
    }
}
