//! `rads c ns`: which namespaces there are, until when, and what each has of what it may have.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{AppView, Client, Health, NamespaceView, NodeView};
use model::namespace::{Asked, Counted, Services};
use model::{AppKey, AppSpec, Code, Duty, Name, Placement, Problem, Quota, Usage, VolumeKey};
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::Form;
use crate::moment;
use crate::namespaces::{NamespaceOptions, Namespaces};
use crate::screen::{self, Table};

/// Longest wait for the stars of a namespace to end before its volumes are deleted: the longest grace is a day, and nobody waits for it.
const END_TIMEOUT: Duration = Duration::from_secs(120);
/// What has just been said is told as it was said.
const HALF_A_SECOND: Duration = Duration::from_millis(500);
/// Longest single wait at the agent.
const WAIT_MS: u64 = 1_000;

pub(crate) async fn namespaces(client: &Client, what: Namespaces, form: Form) -> Result<u8, Problem> {
    match what {
        Namespaces::List => list(client, form).await,
        Namespaces::Show { name } => show(client, &name, form).await,
        Namespaces::Create { name, what } => {
            client.create_namespace(&name, &what.change()).await?;
            told(client, &name, "created", form).await
        }
        Namespaces::Set { name, what: NamespaceOptions { ttl: None, quota: None, cpu_borrow_percent: None } } => {
            let problem = Problem::new(Code::Usage, format!("nothing is said of namespace `{name}`"));
            Err(problem.help("say when it ends with `--ttl`, what it may have with `--quota`, or what its stars may borrow with `--cpu-borrow-percent`"))
        }
        Namespaces::Set { name, what } => {
            client.set_namespace(&name, &what.change()).await?;
            told(client, &name, "changed", form).await
        }
        Namespaces::Delete { name, force, volumes, yes } => delete(client, &name, force, volumes, yes, form).await,
    }
}

async fn list(client: &Client, form: Form) -> Result<u8, Problem> {
    let views = client.namespaces().await?;
    if form == Form::Json {
        screen::json(&views)?;
        return Ok(0);
    }
    let mut table =
        Table::new(&["NAMESPACE", ">SERVICES", ">STARS", ">CPU", ">MEMORY", ">DISK", ">VOLUMES", "ENDS IN"]);
    for view in &views {
        let of = |counted| share(&view.quota, &view.used, counted);
        table.row([
            view.namespace.to_string(),
            of(Counted::Services),
            of(Counted::Stars),
            of(Counted::Cpu),
            of(Counted::Memory),
            of(Counted::Disk),
            view.volumes.len().to_string(),
            left(view).unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    screen::print(&table.render());
    Ok(0)
}

async fn show(client: &Client, name: &Name, form: Form) -> Result<u8, Problem> {
    let view = client.namespace(name).await?;
    match form {
        Form::Json => screen::json(&view)?,
        Form::Text => screen::print(&shown(&view)),
    }
    Ok(0)
}

async fn told(client: &Client, name: &Name, what: &str, form: Form) -> Result<u8, Problem> {
    let view = client.namespace(name).await.map_err(Problem::after_changes)?;
    if form == Form::Json {
        screen::json(&view)?;
        return Ok(0);
    }
    let ends = left(&view).map(|left| format!("; it ends in {left}")).unwrap_or_default();
    screen::line(format!("{name}: {what}{ends}"));
    over(&view).into_iter().for_each(screen::note);
    Ok(0)
}

async fn delete(
    client: &Client,
    name: &Name,
    force: bool,
    volumes: bool,
    yes: bool,
    form: Form,
) -> Result<u8, Problem> {
    let before = client.namespace(name).await?;
    if volumes && !yes && !before.volumes.is_empty() {
        screen::note(format!("{} would be gone for good, with their files", said(&before.volumes)));
        match screen::ask("delete them?")? {
            Some(true) => {}
            Some(false) => return Ok(0),
            None => {
                let message = format!("{} would be deleted with their files", said(&before.volumes));
                return Err(Problem::new(Code::Usage, message).help("use `--yes` where nobody can be asked"));
            }
        }
    }
    client.delete_namespace(name, force).await?;
    if volumes {
        delete_volumes(client, name).await.map_err(Problem::after_changes)?;
    }
    match form {
        Form::Json => screen::json(&name)?,
        Form::Text => {
            let ending = match before.stars as usize {
                0 => String::new(),
                1 => "; 1 star ends".to_owned(),
                stars => format!("; {stars} stars end"),
            };
            screen::line(format!("{name}: deleted{ending}"));
            if !volumes && !before.volumes.is_empty() {
                screen::note(format!("{} kept; `rads c volumes delete` deletes them", said(&before.volumes)));
            }
        }
    }
    Ok(0)
}

/// A volume is free when the last star that has it has ended.
async fn delete_volumes(client: &Client, name: &Name) -> Result<(), Problem> {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        let index = client.index(0, 0).await?;
        let mut there = client.volumes().await?;
        there.retain(|view| view.volume.namespace == *name);
        let (held, free): (Vec<_>, Vec<_>) = there.into_iter().partition(|view| !view.services.is_empty());
        for view in &free {
            client.delete_volume(&view.volume).await?;
        }
        let Some(first) = held.first() else { return Ok(()) };
        if Instant::now() > deadline {
            let message = format!("volume `{}` is still in use after {} s", first.volume, END_TIMEOUT.as_secs());
            let help = format!("`rads c volumes delete {}` deletes it when its stars have ended", first.volume);
            return Err(Problem::new(Code::Timeout, message).help(help));
        }
        client.index(index, WAIT_MS).await?;
    }
}

fn said(volumes: &[VolumeKey]) -> String {
    let names: Vec<String> = volumes.iter().map(|volume| format!("`{volume}`")).collect();
    format!("{} {}", if names.len() == 1 { "volume" } else { "volumes" }, names.join(", "))
}

/// `2 of 5`, or only `2` where there is no quota.
fn share(quota: &Quota, used: &Usage, counted: Counted) -> String {
    let used = counted.amount(used.of(counted));
    quota.of(counted).map_or(used.clone(), |most| format!("{used} of {}", counted.amount(most)))
}

fn left(view: &NamespaceView) -> Option<String> {
    view.ends.map(|end| screen::duration(end.since(moment::now()) + HALF_A_SECOND))
}

/// That more is used than may be, which takes nothing away.
fn over(view: &NamespaceView) -> Option<String> {
    let over = &view.beyond;
    (!over.is_empty()).then(|| format!("more than its quota is used, and stays, without growing: {}", over.join(", ")))
}

fn shown(view: &NamespaceView) -> String {
    let ends = left(view).map_or("has no end".to_owned(), |left| format!("ends in {left}"));
    let mut text = format!("{}: {ends}\n", view.namespace);
    let counts = [(view.apps, "app"), (view.stars, "running star"), (view.secrets, "secret")];
    let counts: Vec<String> = counts.iter().map(|(count, what)| screen::count(*count as usize, what)).collect();
    text.push_str(&format!("  {}\n", counts.join(", ")));
    if !view.volumes.is_empty() {
        text.push_str(&format!("  {}\n", said(&view.volumes)));
    }
    text.extend(view.cpu_borrow.map(|more| format!("  its stars may borrow {more} % more processor time\n")));
    text.extend(view.quota.burst.map(|more| {
        let now = match view.burst_stars {
            0 => String::new(),
            1 => ": 1 star is".to_owned(),
            stars => format!(": {stars} stars are"),
        };
        format!("  {more} % more stars, cpu and memory while nobody else wants the room{now}\n")
    }));
    text.extend(view.quota.priority.map(|most| format!("  services with a priority of {most} at most\n")));
    text.push('\n');
    let mut table = Table::new(&["", ">USED", ">QUOTA", ">LEFT"]);
    for counted in Counted::ALL {
        let (used, most) = (view.used.of(counted), view.quota.of(counted));
        let amount = |amount: u64| counted.amount(amount);
        table.row([
            counted.to_string(),
            amount(used),
            most.map_or("-".to_owned(), amount),
            most.map_or("-".to_owned(), |most| amount(most.saturating_sub(used))),
        ]);
    }
    text.push_str(&table.render());
    text.extend(over(view).map(|over| format!("\n{over}\n")));
    text
}

/// What a change of an app does to the quota of its namespace.
#[derive(Debug, Serialize)]
pub(crate) struct Effect {
    namespace: Name,
    quota: Quota,
    used: Usage,
    /// What would be used.
    then: Usage,
    /// Why it would be refused.
    problem: Option<Problem>,
}

/// Nothing where there is no quota, or whoever asks may not see it.
pub(crate) async fn effect(client: &Client, wanted: &AppSpec) -> Result<Option<Effect>, Problem> {
    let namespace = &wanted.app.namespace;
    let view = match client.namespace(namespace).await {
        Ok(view) if !view.quota.is_empty() => view,
        Ok(_) => return Ok(None),
        Err(problem) if matches!(problem.code, Code::NotFound | Code::Forbidden | Code::Usage) => return Ok(None),
        Err(problem) => return Err(problem),
    };
    // To who may not see the machines one star is told of each service that has one on every machine.
    let machines = client.nodes().await.unwrap_or_default();
    Ok(Some(effect_on(view.quota, &client.apps().await?, &machines, wanted)))
}

/// How many stars a service has because of the machines there are, if it has one on each of those it may be on.
fn everywhere(machines: &[NodeView], placement: &Placement) -> Option<u32> {
    placement.every_node.then(|| {
        let is_up = |health| matches!(health, Health::Alive | Health::Unknown | Health::Suspect);
        let has_one = |NodeView { machine, .. }: &&NodeView| {
            is_up(machine.health)
                && machine.duty != Duty::Draining
                && placement.fits(&machine.name, &machine.facts, &machine.taints)
        };
        match machines.is_empty() {
            // One that is alone.
            true => 1,
            false => u32::try_from(machines.iter().filter(has_one).count()).unwrap_or(u32::MAX),
        }
    })
}

fn effect_on(quota: Quota, apps: &[AppView], machines: &[NodeView], wanted: &AppSpec) -> Effect {
    let namespace = &wanted.app.namespace;
    let there = apps.iter().filter(|view| view.app.namespace == *namespace);
    let mut specs: BTreeMap<&AppKey, &AppSpec> = there.map(|view| (&view.app, &view.spec)).collect();
    fn services<'a>(specs: &BTreeMap<&AppKey, &'a AppSpec>, machines: &[NodeView]) -> Services<'a> {
        let services = specs.values().flat_map(|spec| &spec.services);
        services.map(|(name, spec)| (name, Asked::of(spec, everywhere(machines, &spec.placement)))).collect()
    }
    let before = services(&specs, machines);
    specs.insert(&wanted.app, wanted);
    let after = services(&specs, machines);
    Effect {
        namespace: namespace.clone(),
        quota,
        used: Usage::of_services(&before),
        then: Usage::of_services(&after),
        problem: quota.check(namespace, &before, &after).err(),
    }
}

impl Effect {
    /// `quota of dev: stars 6 → 10 of 8`, and that it would be refused.
    pub(crate) fn lines(&self) -> Vec<String> {
        let part = |counted: Counted| {
            let most = self.quota.of(counted)?;
            let (used, then) = (self.used.of(counted), self.then.of(counted));
            let amount = |amount: u64| counted.amount(amount);
            (used != then).then(|| format!("{counted} {} → {} of {}", amount(used), amount(then), amount(most)))
        };
        let parts: Vec<String> = Counted::ALL.into_iter().filter_map(part).collect();
        let quota = (!parts.is_empty()).then(|| format!("quota of `{}`: {}", self.namespace, parts.join(", ")));
        let refused = self.problem.as_ref().map(|problem| format!("it will be refused: {}", problem.message));
        let bursts = self.problem.is_none() && self.quota.burst.is_some() && self.quota.is_passed_by(&self.then);
        let bursts = bursts.then(|| "stars beyond the quota give way to those of other namespaces".to_owned());
        quota.into_iter().chain(bursts).chain(refused).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::Bytes;

    use super::*;

    #[test]
    fn a_table_shows_what_is_used_and_what_is_left() {
        let view = NamespaceView {
            namespace: "dev".parse().unwrap(),
            created: None,
            ends: None,
            quota: Quota { instances: Some(8), memory: Some(Bytes::mib(256)), ..Quota::default() },
            cpu_borrow: Some(50),
            used: Usage { services: 2, instances: 6, cpu: 250, memory: 300 << 20, disk: 0 },
            beyond: vec!["300 MiB of 256 MiB of memory".to_owned()],
            burst_stars: 0,
            apps: 1,
            stars: 5,
            secrets: 0,
            volumes: vec!["dev/pages".parse().unwrap()],
        };
        let expected = "\
dev: has no end
  1 app, 5 running stars, 0 secrets
  volume `dev/pages`
  its stars may borrow 50 % more processor time

             USED    QUOTA  LEFT
services        2        -     -
stars           6        8     2
cpu          25 %        -     -
memory    300 MiB  256 MiB   0 B
disk          0 B        -     -

more than its quota is used, and stays, without growing: 300 MiB of 256 MiB of memory
";
        assert_eq!(shown(&view), expected);
        let quota = Quota { priority: Some(model::Priority(60)), ..view.quota };
        let told = "processor time\n  services with a priority of 60 at most\n\n";
        assert!(shown(&NamespaceView { quota, ..view.clone() }).contains(told));
        let quota = Quota { burst: Some(50), ..view.quota };
        let told = "time\n  50 % more stars, cpu and memory while nobody else wants the room: 2 stars are\n\n";
        assert!(shown(&NamespaceView { quota, burst_stars: 2, ..view }).contains(told));
    }

    #[test]
    fn one_on_each_machine_are_as_many_as_there_are_machines_for_it() {
        let machine = |name: &str, health, duty| {
            let facts = model::NodeFacts { cores: 2, ..Default::default() };
            let named = super::super::nodes::tests::machine(Vec::new());
            let machine = api::MachineView { name: name.parse().unwrap(), health, duty, facts, ..named };
            NodeView { machine, leads: false, votes: true, answers: false }
        };
        let everyone = Placement { every_node: true, ..Placement::default() };
        let mut machines = vec![
            machine("a", Health::Alive, Duty::Takes),
            machine("b", Health::Suspect, Duty::Cordoned),
            machine("c", Health::Alive, Duty::Draining),
            machine("d", Health::Dead, Duty::Takes),
            machine("e", Health::Left, Duty::Takes),
        ];
        assert_eq!(everywhere(&[], &everyone), Some(1), "a machine that is alone");
        assert_eq!(everywhere(&machines, &everyone), Some(2));
        assert_eq!(everywhere(&machines, &Placement::default()), None);
        machines[0].machine.taints.insert("gpu".to_owned(), model::Taint::default());
        assert_eq!(everywhere(&machines, &everyone), Some(1));
    }
}
