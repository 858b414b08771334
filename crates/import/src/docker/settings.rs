//! Settings of a container that `docker run` and compose call by different names: limits, rights, user, network.

use crate::draft::{Bounded, Service};
use crate::ledger::{Ledger, WithHelp as _};
use crate::tree::Node;
use crate::units;

/// Why a setting has no counterpart, by what both call it.
const NOT_CARRIED: &[(&str, &str)] = &[
    ("hostname", "a star's host name is its own, as `web-1`"),
    ("domainname", "a star's host name is its own, as `web-1`"),
    ("container_name", "the stars of a service are called after it, as `web-1`"),
    ("labels", "services have no labels"),
    ("annotations", "services have no labels"),
    ("logging", "what a star writes is kept by its agent: `rads c logs`"),
    ("networks", "services do not reach each other by a network of their own: see the note at the services"),
    ("links", "services do not reach each other by name"),
    ("external_links", "services do not reach each other by name"),
    ("extra_hosts", "a star's `/etc/hosts` is its own"),
    ("dns", "a star has the name servers of its machine"),
    ("dns_search", "a star has the name servers of its machine"),
    ("dns_opt", "a star has the name servers of its machine"),
    ("mac_address", "a star's network is its own"),
    ("ipv4_address", "a star's network is its own"),
    ("privileged", "no star has rights over its machine"),
    ("devices", "a star has the usual devices alone"),
    ("device_cgroup_rules", "a star has the usual devices alone"),
    ("gpus", "stars have no GPUs yet"),
    ("runtime", "every star has the same walls"),
    ("platform", "the root file system has to be for the machines it runs on"),
    ("pull_policy", "nothing is pulled: the root file system lies beside the app"),
    ("pid", "a star has processes of its own"),
    ("ipc", "a star has shared memory of its own"),
    ("uts", "a star has a host name of its own"),
    ("userns_mode", "a star has ids of its own in any case"),
    ("cgroup_parent", "a star's group is its agent's to make"),
    ("cgroup", "a star's group is its agent's to make"),
    ("sysctls", "a star has the settings of its machine's kernel"),
    ("group_add", "a star's user has one group"),
    ("shm_size", "a star's `/dev/shm` counts as its memory and has its bounds"),
    ("memswap_limit", "a star's memory is without swap"),
    ("mem_swappiness", "a star's memory is without swap"),
    ("oom_kill_disable", "a star that runs out of memory ends, and another follows"),
    ("oom_score_adj", "a star that runs out of memory ends, and another follows"),
    ("blkio_config", "the bounds of disks are `io_read_mb_s` and `io_write_mb_s`, for reads and writes together"),
    ("cpu_shares", "a share weighs against neighbours; `cpu_cores` bounds"),
    ("cpu_rt_runtime", "stars have no real time"),
    ("cpu_rt_period", "stars have no real time"),
    ("storage_opt", "a disk of its own is `disk_mb`"),
    ("volumes_from", "volumes are named by each service"),
    ("volume_driver", "a volume lies in its machine's data folder"),
    ("isolation", "every star has the same walls"),
    ("credential_spec", "there is no Active Directory"),
    ("develop", "`rads up` again takes changed files over"),
    ("attach", "`rads up` follows all logs"),
    ("provider", "only containers become services"),
    ("models", "only containers become services"),
    ("use_api_socket", "no star controls the machine it runs on"),
    ("post_start", "there is a `before_start`, nothing after it"),
    ("env_file_encoding", "files are UTF-8"),
    ("cidfile", "`rads c list` has the ids"),
    ("sig_proxy", "signals go to stars by `rads c stop`"),
    ("detach_keys", "nothing is attached"),
];

/// What every star is or has, so that nothing needs to be said.
const INHERENT: &[(&str, &str)] = &[
    ("init", "every star's first process reaps what others leave"),
    ("tty", "`rads c exec` gives a terminal to what it runs"),
    ("stdin_open", "`rads c exec` gives input to what it runs"),
    ("detach", "`rads up -d` returns when everything is ready"),
    ("rm", "what a star wrote to its root goes with it"),
    ("quiet", "nothing is printed"),
    ("disable_content_trust", "nothing is pulled"),
    ("version", "it has no meaning any more"),
];

/// Tells of a setting that has no counterpart, or needs none. Whether it was known.
pub(super) fn plain(ledger: &mut Ledger, key: &str, node: &Node) -> bool {
    if let Some((_, why)) = INHERENT.iter().find(|(name, _)| *name == key) {
        ledger.carried(node, *why);
        return true;
    }
    let off = node.boolean() == Some(false);
    match NOT_CARRIED.iter().find(|(name, _)| *name == key) {
        Some(_) if off => ledger.carried(node, "it is off"),
        Some((_, why)) => ledger.left(node, *why),
        None => return false,
    }
    true
}

/// Tells of a number that was brought into its bounds, or was not.
pub(crate) fn bounded<T: std::fmt::Display>(ledger: &mut Ledger, node: &Node, option: &str, value: Bounded<T>) {
    match value {
        Bounded::AsAsked(value) => ledger.carried(node, format!("{option}: {value}")),
        Bounded::Brought(value) => ledger.changed(node, format!("{option}: {value}, the nearest there is")),
    }
}

pub(super) fn memory(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match units::docker_bytes(text) {
        Some(0) => ledger.left(node, "no limit is no limit: a star has 256 MiB unless `ram_mb` gives it more"),
        Some(bytes) => bounded(ledger, node, "ram_mb", service.set_ram(bytes)),
        None => ledger.left(node, format!("`{text}` is no size")),
    }
}

/// Memory that is kept for each star.
pub(super) fn reserve_memory(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match units::docker_bytes(text) {
        Some(bytes) => bounded(ledger, node, "reserve_ram_mb", service.set_reserve_ram(bytes)),
        None => ledger.left(node, format!("`{text}` is no size")),
    }
}

/// Processor time that is kept for each star.
pub(super) fn reserve_cpu(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match units::cores_milli(text) {
        Some(milli) => kept_cpu(ledger, service, node, milli),
        None => ledger.left(node, format!("`{text}` is no number of cores")),
    }
}

pub(crate) fn kept_cpu(ledger: &mut Ledger, service: &mut Service, node: &Node, milli: u64) {
    let bounded = service.set_reserve_cpu(milli);
    let kept = service.reserve_cpu.unwrap_or_default();
    let text = format!("reserve_cpu_percent: {}", f64::from(kept) / 10.0);
    match bounded {
        Bounded::AsAsked(_) => ledger.carried(node, text),
        Bounded::Brought(_) => ledger.changed(node, format!("{text}, the nearest there is")),
    }
}

pub(super) fn soft_memory(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match units::docker_bytes(text) {
        Some(bytes) if bytes > 0 => {
            let megabytes = service.set_soft_ram(bytes);
            ledger
                .changed(node, format!("ram_soft_mb: {megabytes}, at most the memory it may use; nothing is reserved"));
        }
        _ => ledger.left(node, format!("`{text}` is no size")),
    }
}

pub(super) fn cpus(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match units::cores_milli(text) {
        Some(0) => ledger.carried(node, "no limit"),
        Some(milli) => {
            let _ = service.set_cpu(milli);
            let cores = service.cpu_milli.unwrap_or_default();
            let text = format!("cpu_cores: {}.{:03}", cores / 1000, cores % 1000);
            match u64::from(cores) == milli {
                true => ledger.carried(node, text),
                false => ledger.changed(node, format!("{text}, the nearest there is")),
            }
        }
        None => ledger.left(node, format!("`{text}` is no number of cores")),
    }
}

pub(super) fn cpuset(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match text.trim().parse::<model::CpuSet>() {
        Ok(set) => {
            service.cpus = Some(set.to_string());
            ledger.carried(node, format!("cpus: {set}"));
        }
        Err(error) => ledger.left(node, error.to_string()),
    }
}

pub(super) fn pids(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match text.trim().parse::<i64>() {
        Ok(count) if count > 0 => bounded(ledger, node, "pids", service.set_pids(count.unsigned_abs())),
        Ok(_) => ledger.left(node, "no limit is no limit: a star has 256 processes unless `pids` gives it more"),
        Err(_) => ledger.left(node, format!("`{text}` is no number")),
    }
}

/// `nofile` with its limits; a star has one for both.
pub(super) fn ulimit(ledger: &mut Ledger, service: &mut Service, node: &Node, name: &str, hard: Option<u64>) {
    match (name, hard) {
        ("nofile", Some(count)) => bounded(ledger, node, "open_files", service.set_open_files(count)),
        ("nproc", Some(count)) if count > 0 => bounded(ledger, node, "pids", service.set_pids(count)),
        ("core", Some(0)) => ledger.carried(node, "stars leave no core files"),
        ("memlock", _) => ledger.left(node, "locked memory counts as a star's memory and has its bounds"),
        _ => ledger.left(node, format!("stars have no limit of `{name}`")),
    }
}

pub(super) fn user(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match (text.trim(), service.set_user(text.trim())) {
        ("root" | "root:root", _) => ledger.carried(node, "a star's root, which is nobody on the host"),
        (_, true) => ledger.carried(node, format!("user: {}, an id of the star's own", text.trim())),
        (text, false) => {
            ledger.left(
                node,
                format!("user `{text}`: a star's user is a number")
                    .help("its number is in `/etc/passwd` of the root file system"),
            );
        }
    }
}

pub(super) fn workdir(ledger: &mut Ledger, service: &mut Service, node: &Node, path: &str) {
    match service.set_workdir(path) {
        Ok(()) => ledger.carried(node, format!("workdir: {path}")),
        Err(why) => ledger.left(node, why),
    }
}

pub(super) fn stop_signal(ledger: &mut Ledger, service: &mut Service, node: &Node, signal: &str) {
    match service.set_stop_signal(signal) {
        true => ledger.carried(node, format!("stop_signal: {}", service.stop_signal.unwrap_or_default())),
        false => ledger.left(node, format!("`{signal}` is no signal that means \"stop\" to a star")),
    }
}

pub(super) fn grace(ledger: &mut Ledger, service: &mut Service, node: &Node, text: &str) {
    match units::go_ms(text) {
        Some(ms) => {
            service.set_grace(ms);
            ledger.carried(node, format!("grace_seconds: {}", ms as f64 / 1000.0));
        }
        None => ledger.left(node, format!("`{text}` is no time")),
    }
}

pub(crate) fn cap_add(ledger: &mut Ledger, service: &mut Service, node: &Node, name: &str) {
    let plain = name.to_ascii_lowercase();
    match plain.strip_prefix("cap_").unwrap_or(&plain) {
        "net_bind_service" => ledger.carried(node, "in its own network a star may listen on every port"),
        _ if service.add_capability(name) => ledger.carried(node, format!("weaken: capability {name}")),
        _ => ledger.left(node, format!("no star can be given the capability `{name}`")),
    }
}

pub(super) fn cap_drop(ledger: &mut Ledger, node: &Node, name: &str) {
    ledger.carried(node, format!("a star lacks `{name}` unless `weaken` gives it"));
}

pub(super) fn security(ledger: &mut Ledger, service: &mut Service, node: &Node, option: &str) {
    let option = option.trim();
    match option.replace('=', ":").as_str() {
        "no-new-privileges" | "no-new-privileges:true" => ledger.carried(node, "no star gains rights by a program"),
        "no-new-privileges:false" => ledger.left(node, "no star gains rights by a program"),
        "seccomp:unconfined" => {
            service.no_seccomp = true;
            ledger.carried(node, "weaken: seccomp off");
        }
        _ if option.starts_with("seccomp") => ledger.left(node, "every command has the same filter of system calls"),
        _ if option.starts_with("apparmor") || option.starts_with("label") => {
            ledger.left(node, "a star's walls are namespaces, seccomp and Landlock");
        }
        _ => ledger.left(node, "stars have no such option"),
    }
}

/// How a container reaches others.
pub(super) fn network(ledger: &mut Ledger, service: &mut Service, node: &Node, mode: &str) {
    match mode {
        "none" => {
            service.network = Some("none");
            ledger.carried(node, "network: \"none\"");
        }
        "host" => {
            service.network = Some("host");
            ledger.carried(
                node,
                "network: \"host\""
                    .help("a service with a `port` is given one in `$PORT`: its program has to listen there"),
            );
        }
        "bridge" | "default" => {
            service.network = Some("bridge");
            ledger.carried(node, "network: \"bridge\", which takes root");
        }
        _ => {
            service.network = Some("bridge");
            ledger.changed(node, "network: \"bridge\": a star calls out and reaches no other by it");
        }
    }
}

pub(super) fn read_only(ledger: &mut Ledger, node: &Node) {
    match node.is_true() {
        true => ledger.left(node, "a star may write above its `rootfs`; what it writes goes with it"),
        false => ledger.carried(node, "it is off"),
    }
}
