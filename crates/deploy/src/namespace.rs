//! What a program says of a namespace: how long it lasts, and what it may have.

use model::{Bytes, Code, Millicores, NamespaceChange, Priority, Problem, QuotaChange};

use crate::options::Options;
use crate::setting::Setting;

const NAMESPACE_OPTIONS: [&str; 6] =
    ["ttl_seconds", "ttl_minutes", "ttl_hours", "ttl_days", "quota", "cpu_borrow_percent"];
/// What may be said of a quota.
pub const QUOTA_OPTIONS: [&str; 10] = [
    "cpu_percent",
    "cpu_cores",
    "ram_mb",
    "ram_gb",
    "disk_mb",
    "disk_gb",
    "instances",
    "services",
    "priority",
    "burst_percent",
];
/// Beyond what any constellation has, and what is converted from here on cannot overflow.
const QUOTA_MAX: f64 = 1e9;
/// What is too long to be is told by who knows how long it may be.
const TTL_MAX: f64 = 1e9;

/// What is said of a namespace; what is not said stays as it is.
///
/// # Errors
/// Names the option that is unknown or cannot be.
pub fn namespace_change(settings: Vec<(String, Setting)>) -> Result<NamespaceChange, Problem> {
    let options = &mut Options::new(settings, &NAMESPACE_OPTIONS, &["namespace"]).map_err(|fault| fault.problem)?;
    let mut change = NamespaceChange::default();
    for (name, ms) in
        [("ttl_seconds", 1e3), ("ttl_minutes", 60e3), ("ttl_hours", 3_600e3), ("ttl_days", 24.0 * 3_600e3)]
    {
        let Some(number) = options.number(name, 0.0, TTL_MAX).map_err(|fault| fault.problem)? else { continue };
        if change.ttl_ms.replace(Some((number * ms).round() as u64)).is_some() {
            let problem =
                Problem::new(Code::InvalidValue, format!("`{name}` says once more how long the namespace lasts"));
            return Err(problem.help("say it in one unit"));
        }
    }
    change.quota = match options.take("quota") {
        None => QuotaChange::default(),
        Some(Setting::Map(settings)) => quota_change(settings)?,
        Some(other) => {
            let message =
                format!("`quota` is an object such as {{ram_mb: 4096, instances: 20}}, not {}", other.shown());
            return Err(Problem::new(Code::InvalidValue, message));
        }
    };
    change.cpu_borrow = match options.take("cpu_borrow_percent") {
        None => None,
        Some(Setting::Text(text)) if text == "none" => Some(None),
        Some(Setting::Int(more)) if more >= 0 => Some(Some(u32::try_from(more).unwrap_or(u32::MAX))),
        Some(other) => {
            let message = format!("`cpu_borrow_percent` is a whole number from 0 on, not {}", other.shown());
            return Err(Problem::new(Code::InvalidValue, message).help("\"none\" ends the sharing"));
        }
    };
    change.check()?;
    Ok(change)
}

/// What a namespace may have; what is not said stays as it is, and `"none"` takes a limit away.
///
/// # Errors
/// Names the option that is unknown or cannot be.
pub fn quota_change(settings: Vec<(String, Setting)>) -> Result<QuotaChange, Problem> {
    let options = &mut Options::new(settings, &QUOTA_OPTIONS, &["quota"]).map_err(|fault| fault.problem)?;
    let mut change = QuotaChange::default();
    const MIB: f64 = (1 << 20) as f64;
    const GIB: f64 = (1 << 30) as f64;
    for name in QUOTA_OPTIONS {
        let Some(setting) = options.take(name) else { continue };
        let most = match name {
            "priority" => f64::from(Priority::MAX.0),
            _ if name.starts_with("cpu") => QUOTA_MAX / 1_000.0,
            _ => QUOTA_MAX,
        };
        let whole = matches!(name, "instances" | "services" | "priority" | "burst_percent");
        let number = match setting {
            Setting::Text(text) if text == "none" => None,
            Setting::Int(number) if (0.0..=most).contains(&(number as f64)) => Some(number as f64),
            Setting::Float(number) if (0.0..=most).contains(&number) && !whole => Some(number),
            other => {
                let wanted = if whole { "a whole number" } else { "a number" };
                let to = if name == "priority" { "from 0 to 100" } else { "from 0 on" };
                let message = format!("`{name}` of a quota is {wanted} {to}, not {}", other.shown());
                return Err(Problem::new(Code::InvalidValue, message).help("\"none\" takes the limit away"));
            }
        };
        let bytes = |unit: f64| number.map(|number| Bytes((number * unit).round() as u64));
        let millicores = |unit: f64| number.map(|number| Millicores((number * unit).round() as u32));
        let count = number.map(|number| number as u32);
        match name {
            "cpu_percent" => change.cpu = Some(millicores(10.0)),
            "cpu_cores" => change.cpu = Some(millicores(1_000.0)),
            "ram_mb" => change.memory = Some(bytes(MIB)),
            "ram_gb" => change.memory = Some(bytes(GIB)),
            "disk_mb" => change.disk = Some(bytes(MIB)),
            "disk_gb" => change.disk = Some(bytes(GIB)),
            "instances" => change.instances = Some(count),
            "priority" => change.priority = Some(number.map(|number| Priority(number as u8))),
            "burst_percent" => change.burst = Some(count),
            _ => change.services = Some(count),
        }
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, Setting)]) -> Vec<(String, Setting)> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_namespace_is_said_to_last_and_to_have_so_much() {
        let quota =
            map(&[("ram_gb", Setting::Float(0.5)), ("cpu_percent", Setting::Int(150)), ("services", Setting::Int(3))]);
        let change = namespace_change(map(&[("ttl_hours", Setting::Int(8)), ("quota", Setting::Map(quota))])).unwrap();
        assert_eq!(change.ttl_ms, Some(Some(8 * 3_600_000)));
        let QuotaChange { services, instances, cpu, memory, disk, priority: _, burst: _ } = change.quota;
        assert_eq!((services, instances, disk), (Some(Some(3)), None, None));
        assert_eq!((cpu, memory), (Some(Some(Millicores(1_500))), Some(Some(Bytes(512 << 20)))));
        assert_eq!(namespace_change(Vec::new()), Ok(NamespaceChange::default()));
        assert_eq!(quota_change(map(&[("burst_percent", Setting::Int(20))])).unwrap().burst, Some(Some(20)));
        let none = map(&[("instances", Setting::Text("none".to_owned()))]);
        assert_eq!(quota_change(none).unwrap().instances, Some(None));
    }

    #[test]
    fn slips_are_named() {
        let check = |entries: &[(&str, Setting)], says: &str| {
            let problem = namespace_change(map(entries)).unwrap_err();
            assert!(problem.to_string().contains(says), "{problem}");
        };
        check(&[("ttl_hour", Setting::Int(1))], "did you mean `ttl_hours`?");
        check(&[("ttl_hours", Setting::Int(1)), ("ttl_days", Setting::Int(1))], "in one unit");
        check(&[("ttl_seconds", Setting::Int(1))], "lasts between 30 s");
        check(&[("quota", Setting::Int(1))], "`quota` is an object");
        check(&[("quota", Setting::Map(map(&[("ram", Setting::Int(1))])))], "`quota` has no option `ram`");
        check(&[("quota", Setting::Map(map(&[("instances", Setting::Float(1.5))])))], "a whole number");
        check(&[("quota", Setting::Map(map(&[("ram_mb", Setting::Int(-1))])))], "from 0 on");
        check(&[("quota", Setting::Map(map(&[("priority", Setting::Int(101))])))], "from 0 to 100");
    }
}
