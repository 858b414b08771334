//! What the types of a spec cannot say: ranges and paths. `deploy` checks the same with the place in the file; here it
//! holds for whoever speaks to the API directly.

use model::app::{INSTANCES_MAX, check_disk};
use model::bundle::is_bundle_path;
use model::{AppSpec, Code, Name, Probe, ProbeKind, Problem, Program, ServiceSpec};

/// Refuses a spec that no description could have made.
pub(crate) fn spec(spec: &AppSpec) -> Result<(), Problem> {
    spec.services.iter().try_for_each(|(name, service)| check(name, service))
}

fn check(name: &Name, service: &ServiceSpec) -> Result<(), Problem> {
    let invalid = |what: &str| Err(Problem::new(Code::InvalidValue, format!("service `{name}`: {what}")));
    let template = &service.template;
    if service.instances > INSTANCES_MAX {
        return invalid(&format!("`instances` is at most {INSTANCES_MAX}, not `{}`", service.instances));
    }
    match &template.program {
        Program::Script(path) if !is_bundle_path(path) => return invalid("the script is no path within the bundle"),
        Program::Command(words) if words.first().is_none_or(String::is_empty) => {
            return invalid("the command is empty");
        }
        _ => {}
    }
    if let Some(archive) = &template.rootfs {
        if !is_bundle_path(archive) {
            return invalid("its root file system is no path within the bundle");
        }
        if matches!(template.program, Program::Script(_)) {
            return invalid("a script has no root file system of its own");
        }
    }
    let of_service = |mut problem: Problem| {
        problem.message = format!("service `{name}`: {}", problem.message);
        problem
    };
    template.check_limits(&template.limits).map_err(of_service)?;
    service.placement.check().map_err(of_service)?;
    service.update.check(template.singleton).map_err(of_service)?;
    service.check_everywhere().map_err(of_service)?;
    service.check_hold().map_err(of_service)?;
    service.job.as_ref().map_or(Ok(()), |job| job.check(service.instances)).map_err(of_service)?;
    if template.port == Some(0) {
        return invalid("`port` is between 1 and 65535");
    }
    if template.port.is_none() && service.entry.is_some() {
        return invalid("it has no `port` to be reached at");
    }
    let beside = [&template.health.startup, &template.health.live].into_iter().flatten();
    for probe in beside.clone().chain([&template.probe]) {
        check_probe(probe, template.port.is_some()).or_else(&invalid)?;
    }
    if beside.clone().any(|probe| probe.kind == ProbeKind::Started) {
        return invalid("its start-up and liveness probes have nothing to ask");
    }
    if template.stop_signal.is_some_and(|signal| !(1..=64).contains(&signal)) {
        return invalid("its stop signal is no signal's number");
    }
    if template.deadline_ms == Some(0) {
        return invalid("its deadline is above 0");
    }
    let hooks = [&template.hooks.before_start, &template.hooks.before_stop];
    if hooks.into_iter().any(|hook| hook.first().is_some_and(String::is_empty)) {
        return invalid("the command of a hook is empty");
    }
    let of_service = |mut problem: Problem| {
        problem.message = format!("service `{name}`: {}", problem.message);
        problem
    };
    template.check_interior().map_err(|misplaced| of_service(misplaced.problem))?;
    for mount in &template.volumes {
        if let Some(size) = mount.size {
            check_disk(&format!("volume `{}`", mount.volume), size).map_err(of_service)?;
        }
    }
    let text = |name: &str, value: &str| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    let command: &[String] = match &template.program {
        Program::Command(words) => words,
        Program::Script(_) | Program::Nothing => &[],
    };
    let mut words = template.args.iter().chain(command).chain(hooks.into_iter().flatten());
    if template.env.iter().any(|(name, value)| text(name, value)) || words.any(|word| word.contains('\0')) {
        return invalid("its environment or arguments hold what no program can be given");
    }
    Ok(())
}

fn check_probe(probe: &Probe, has_port: bool) -> Result<(), &'static str> {
    if probe.kind.needs_port() && !has_port {
        return Err("it has no `port` to be reached at");
    }
    match &probe.kind {
        ProbeKind::Http { path }
            if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) =>
        {
            Err("the path of its probe does not start with `/`, or has blanks")
        }
        ProbeKind::Exec { command } if command.first().is_none_or(String::is_empty) => {
            Err("the command of its probe is empty")
        }
        ProbeKind::Script { path } if !is_bundle_path(path) => {
            Err("the script of its probe is no path within the bundle")
        }
        _ if probe.timeout_ms == 0
            || probe.interval_ms == 0
            || probe.failures == 0
            || probe.start_ms == 0
            || probe.restart_after == Some(0) =>
        {
            Err("times and counts of its probe are above 0")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use model::{
        BundleId, Bytes, ContentHash, Entry, Limits, ListenAddr, Millicores, Network, Probe, RestartPolicy,
        StarTemplate, VolumeMount,
    };

    use super::*;

    fn sound() -> ServiceSpec {
        ServiceSpec {
            placement: Default::default(),
            update: Default::default(),
            job: None,
            hold: None,
            template: StarTemplate {
                program: Program::Script("a.rads".to_owned()),
                args: Vec::new(),
                bundle: BundleId(ContentHash([0; 32])),
                rootfs: None,
                checkpoint: false,
                singleton: false,
                env: Default::default(),
                limits: Limits::DEFAULT,
                volumes: vec![VolumeMount { volume: "v".parse().unwrap(), path: "/data".to_owned(), size: None }],
                network: Network::None,
                port: Some(8080),
                probe: Probe::new(ProbeKind::Tcp),
                restart: RestartPolicy::Always,
                grace_ms: 0,
                stop_signal: None,
                deadline_ms: None,
                hooks: Default::default(),
                health: Default::default(),
                interior: Default::default(),
                weakened: Default::default(),
                access: None,
                reserve: Default::default(),
            },
            instances: 1,
            entry: Some(Entry {
                listen: ListenAddr::loopback(0),
                protocol: model::Protocol::Http,
                balance: model::Balance::RoundRobin,
            }),
        }
    }

    #[test]
    fn what_no_description_could_have_made_is_refused() {
        let name: Name = "web".parse().unwrap();
        assert_eq!(check(&name, &sound()), Ok(()));
        let refused = |says: &str, change: fn(&mut ServiceSpec)| {
            let mut service = sound();
            change(&mut service);
            let problem = check(&name, &service).unwrap_err();
            assert!(problem.message.contains("`web`") && problem.message.contains(says), "{problem}");
        };
        refused("at most", |service| service.instances = INSTANCES_MAX + 1);
        refused("no path", |service| service.template.program = Program::Script("../x".to_owned()));
        refused("empty", |service| service.template.program = Program::Command(Vec::new()));
        refused("memory", |service| service.template.limits.memory = Some(Bytes::mib(1)));
        refused("core", |service| service.template.limits.cpu = Some(Millicores(1)));
        refused("process", |service| service.template.limits.pids = Some(0));
        refused("1 and 65535", |service| service.template.port = Some(0));
        refused("no `port`", |service| service.template.port = None);
        refused("probe", |service| service.template.probe.kind = ProbeKind::Http { path: "/a b".to_owned() });
        refused("volume", |service| service.template.volumes[0].path = "/proc/x".to_owned());
        refused("at least", |service| service.template.volumes[0].size = Some(Bytes::mib(1)));
        refused("at most", |service| service.template.limits.disk = Some(Bytes(u64::MAX)));
        refused("twice", |service| drop(service.template.interior.binds.insert("/data".to_owned(), "a".to_owned())));
        refused("inside", |service| drop(service.template.interior.binds.insert("/x".to_owned(), "../a".to_owned())));
        refused("workdir", |service| service.template.interior.workdir = Some("/a/../b".to_owned()));
        refused("weaken", |service| service.template.weakened.no_seccomp = true);
        refused("probe", |service| {
            let exec = ProbeKind::Exec { command: Vec::new() };
            service.template.health.live = Some(Probe::new(exec));
        });
        refused("start-up", |service| service.template.health.startup = Some(Probe::new(ProbeKind::Started)));
        refused("probe", |service| {
            service.template.health.live = Some(Probe { failures: 0, ..Probe::new(ProbeKind::Tcp) });
        });
        refused("probe", |service| service.template.probe.kind = ProbeKind::Exec { command: Vec::new() });
        refused("probe", |service| service.template.probe.kind = ProbeKind::Script { path: "/x".to_owned() });
        refused("signal", |service| service.template.stop_signal = Some(65));
        refused("deadline", |service| service.template.deadline_ms = Some(0));
        refused("hook", |service| service.template.hooks.before_stop = vec![String::new()]);
        refused("arguments", |service| service.template.hooks.before_start = vec!["a\0".to_owned()]);
        refused("environment", |service| service.template.args.push("\0".to_owned()));
    }
}
