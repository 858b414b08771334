//! `rads c limits`: what the stars of a service may use, shown or changed while they run.

use api::Client;
use model::limits::{limit_fields, limits_difference};
use model::{Bytes, Limits, LimitsChange, Millicores, Problem};

use super::{find, show};
use crate::cli::{Form, Limit, LimitsArgs, Switch};
use crate::screen;

pub(crate) async fn limits(client: &Client, args: LimitsArgs, form: Form) -> Result<u8, Problem> {
    let service = find::service(&args.name)?;
    let change = change(&args);
    let before = client.service(&service).await?.spec.template.limits;
    if !change.is_empty() {
        client.limit(&service, &change).await?;
    }
    let now = client.service(&service).await?;
    let after = now.spec.template.limits;
    match form {
        Form::Json => screen::json(&after)?,
        Form::Text if change.is_empty() => tell(&after),
        Form::Text if before == after => screen::line(format!("{service}: the limits are as they were")),
        Form::Text => {
            let stars = screen::count(now.ready as usize, "star");
            screen::line(format!("{service}: {} ({stars}, none restarted)", limits_difference(&before, &after)));
        }
    }
    show::report_walls(client, &[&now.spec.template]).await?;
    Ok(0)
}

fn tell(limits: &Limits) {
    let fields = limit_fields(limits);
    // What nobody asked for holds, too.
    let usual = [
        ("disk", "none: /tmp is memory".to_owned()),
        ("log rate", format!("{}/s", Limits::LOG_RATE_MAX)),
        ("processors", "all".to_owned()),
        ("disk reads", "unlimited".to_owned()),
        ("disk writes", "unlimited".to_owned()),
    ];
    let unsaid = usual.into_iter().filter(|(name, _)| fields.iter().all(|(field, _)| field != name));
    for (name, value) in fields.iter().cloned().chain(unsaid) {
        screen::line(format!("{name:<12} {value}"));
    }
}

fn change(args: &LimitsArgs) -> LimitsChange {
    fn scaled<T>(limit: Option<Limit>, factor: f64, make: impl Fn(u64) -> T) -> Option<Option<T>> {
        limit.map(|limit| match limit {
            Limit::None => None,
            Limit::To(number) => Some(make((number * factor).round() as u64)),
        })
    }
    const MIB: f64 = 1_048_576.0;
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let cores = |thousandths: u64| Millicores(narrow(thousandths));
    LimitsChange {
        cpu: scaled(args.cpu_percent, 10.0, cores).or_else(|| scaled(args.cpu_cores, 1000.0, cores)),
        memory: scaled(args.ram_mb, MIB, Bytes).or_else(|| scaled(args.ram_gb, 1024.0 * MIB, Bytes)),
        memory_soft: scaled(args.ram_soft_mb, MIB, Bytes),
        pids: scaled(args.pids, 1.0, narrow),
        open_files: scaled(args.open_files, 1.0, narrow),
        disk: scaled(args.disk_mb, MIB, Bytes),
        log_rate: scaled(args.log_kb_s, 1024.0, Bytes),
        cpus: args.cpus.map(|cpus| cpus.0),
        cpu_burst: scaled(args.cpu_burst_percent, 1.0, narrow),
        cpu_borrow: scaled(args.cpu_borrow_percent, 1.0, narrow),
        io_read: scaled(args.io_read_mb_s, MIB, Bytes),
        io_write: scaled(args.io_write_mb_s, MIB, Bytes),
        balloon: args.ram_balloon.map(|switch| switch == Switch::On),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, Constellation};

    #[test]
    fn options_become_a_change_in_the_units_of_the_model() {
        let check = |line: &str, expected: LimitsChange| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Constellation { command } = cli.command else { panic!("{line}") };
            let Constellation::Limits(args) = *command else { panic!("{line}") };
            assert_eq!(change(&args), expected, "{line}");
        };
        let none = LimitsChange::default();
        check("rads c limits web", none);
        check("rads c limits web --ram-mb 0.5", LimitsChange { memory: Some(Some(Bytes(524_288))), ..none });
        check("rads c limits web --ram-gb 2", LimitsChange { memory: Some(Some(Bytes(2 << 30))), ..none });
        check(
            "rads c limits web --cpu-percent 12.5 --pids none --open-files 64",
            LimitsChange { cpu: Some(Some(Millicores(125))), pids: Some(None), open_files: Some(Some(64)), ..none },
        );
        for line in
            ["rads c limits web --ram-mb -1", "rads c limits web --pids many", "rads c limits web --ram-mb 1e99"]
        {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
