//! The grammar of the words about namespaces.

use std::time::Duration;

use clap::{Args, Subcommand};
use deploy::QUOTA_OPTIONS;
use model::{Bytes, Millicores, Name, NamespaceChange, Priority, QuotaChange};

/// A namespace that an app names comes into being by itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Namespaces {
    /// List namespaces, and when they end
    #[command(visible_alias = "ls")]
    List,
    /// Make a namespace, to last or to be limited
    Create {
        name: Name,
        #[command(flatten)]
        what: NamespaceOptions,
    },
    /// Show what a namespace has, and what it may have
    Show { name: Name },
    /// Change when a namespace ends, and what it may have
    Set {
        name: Name,
        #[command(flatten)]
        what: NamespaceOptions,
    },
    /// Take a namespace away
    #[command(visible_alias = "rm")]
    Delete {
        name: Name,
        /// With the apps and secrets that are in it; its volumes stay
        #[arg(long)]
        force: bool,
        /// Also its volumes, with their files, once its stars have ended
        #[arg(long)]
        volumes: bool,
        /// Do not ask before files are gone
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NamespaceOptions {
    /// How long from now on until it ends with its apps and secrets (`90m`, `3d`), or `none`; its volumes stay
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    pub(crate) ttl: Option<Ttl>,
    /// What it may have: `cpu_percent=400,ram_mb=4096,disk_mb=10240,instances=20,services=5,priority=50,burst_percent=20`; one is `none`, or all are
    #[arg(long, value_name = "LIMITS", value_parser = quota)]
    pub(crate) quota: Option<QuotaChange>,
    /// How much more processor time than their own its stars may borrow of what others leave, in percent, or `none`
    #[arg(long, value_name = "PERCENT", value_parser = borrowing)]
    pub(crate) cpu_borrow_percent: Option<Borrowing>,
}

/// So many percent more, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Borrowing(pub(crate) Option<u32>);

/// A time, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ttl(pub(crate) Option<Duration>);

impl NamespaceOptions {
    pub(crate) fn change(&self) -> NamespaceChange {
        let ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let cpu_borrow = self.cpu_borrow_percent.map(|Borrowing(more)| more);
        NamespaceChange {
            ttl_ms: self.ttl.map(|Ttl(ttl)| ttl.map(ms)),
            quota: self.quota.unwrap_or_default(),
            cpu_borrow,
        }
    }
}

fn ttl(text: &str) -> Result<Ttl, String> {
    match text {
        "none" => Ok(Ttl(None)),
        _ => crate::moment::duration(text).map(|ttl| Ttl(Some(ttl))).map_err(|error| format!("{error}, or `none`")),
    }
}

fn borrowing(text: &str) -> Result<Borrowing, String> {
    match text {
        "none" => Ok(Borrowing(None)),
        _ => text.parse().map(|more| Borrowing(Some(more))).map_err(|_| "write a whole number, or `none`".to_owned()),
    }
}

/// Beyond what any constellation has; and what is converted from here on cannot overflow.
const QUOTA_MAX: f64 = 1e9;

fn quota(text: &str) -> Result<QuotaChange, String> {
    if text == "none" {
        return Ok(QuotaChange::NONE);
    }
    let mut change = QuotaChange::default();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (name.trim(), value.trim());
        if !QUOTA_OPTIONS.contains(&name) {
            let near = rads_syntax::nearest(name, QUOTA_OPTIONS.into_iter());
            let help =
                near.map_or(format!("use {}", QUOTA_OPTIONS.join(", ")), |near| format!("did you mean `{near}`?"));
            return Err(format!("a quota has no `{}`: {help}", name.escape_debug()));
        }
        let number = match value {
            "none" => None,
            _ => Some(number(name, value)?),
        };
        let bytes = |unit: f64| number.map(|number| Bytes((number * unit).round() as u64));
        const MIB: f64 = (1 << 20) as f64;
        const GIB: f64 = (1 << 30) as f64;
        match name {
            "cpu_percent" => change.cpu = Some(number.map(|percent| thousandths(percent * 10.0))),
            "cpu_cores" => change.cpu = Some(number.map(|cores| thousandths(cores * 1_000.0))),
            "ram_mb" => change.memory = Some(bytes(MIB)),
            "ram_gb" => change.memory = Some(bytes(GIB)),
            "disk_mb" => change.disk = Some(bytes(MIB)),
            "disk_gb" => change.disk = Some(bytes(GIB)),
            "instances" => change.instances = Some(number.map(|number| number as u32)),
            "priority" => change.priority = Some(number.map(|number| Priority(number as u8))),
            "burst_percent" => change.burst = Some(number.map(|number| number as u32)),
            _ => change.services = Some(number.map(|number| number as u32)),
        }
    }
    Ok(change)
}

fn thousandths(number: f64) -> Millicores {
    Millicores(number.round() as u32)
}

fn number(name: &str, value: &str) -> Result<f64, String> {
    let most = match name {
        "priority" => f64::from(Priority::MAX.0),
        _ if name.starts_with("cpu") => QUOTA_MAX / 1_000.0,
        _ => QUOTA_MAX,
    };
    let whole = matches!(name, "instances" | "services" | "priority" | "burst_percent");
    let number = value.parse::<f64>().ok().filter(|number| (0.0..=most).contains(number));
    number.filter(|number| !whole || number.fract() == 0.0).ok_or_else(|| {
        let what = match name {
            "priority" => "a whole number from 0 to 100",
            _ if whole => "a whole number",
            _ => "a number",
        };
        format!("`{name}` is {what} or `none`, not `{}`", value.escape_debug())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_read_in_the_units_of_its_names() {
        let check = |text: &str, expected: QuotaChange| assert_eq!(quota(text), Ok(expected), "{text}");
        let none = QuotaChange::default();
        check(
            "cpu_percent=150, ram_mb=512",
            QuotaChange { cpu: Some(Some(Millicores(1_500))), memory: Some(Some(Bytes::mib(512))), ..none },
        );
        check(
            "cpu_cores=2.5,disk_gb=0.5",
            QuotaChange { cpu: Some(Some(Millicores(2_500))), disk: Some(Some(Bytes::mib(512))), ..none },
        );
        check("instances=8,services=none", QuotaChange { instances: Some(Some(8)), services: Some(None), ..none });
        check("priority=0", QuotaChange { priority: Some(Some(Priority(0))), ..none });
        check("burst_percent=20", QuotaChange { burst: Some(Some(20)), ..none });
        check("priority=none", QuotaChange { priority: Some(None), ..none });
        assert!(quota("priority=101").unwrap_err().contains("from 0 to 100"));
        check("none", QuotaChange::NONE);
    }

    #[test]
    fn what_is_no_quota_is_told_with_the_nearest_name() {
        let check = |text: &str, expected: &str| {
            let told = quota(text).unwrap_err();
            assert!(told.contains(expected), "{told}");
        };
        check("ram=5", "a quota has no `ram`: did you mean `ram_mb`?");
        check("gpu_count=5", "a quota has no `gpu_count`: use cpu_percent,");
        check("instances=1.5", "`instances` is a whole number or `none`, not `1.5`");
        check("ram_mb=-1", "`ram_mb` is a number or `none`, not `-1`");
        check("ram_mb", "`ram_mb` is a number or `none`, not ``");
        check("ram_mb=1e99", "not `1e99`");
    }
}
