//! `rads c resources`: the processors, memory and disks of all machines as one pool; `overcommit`: how often they are kept for stars.

use api::{Amounts, Client, NodeResources, ResourcesView};
use model::{Bytes, Code, Millicores, Overcommit, Problem};

use super::{nodes, show};
use crate::cli::Form;
use crate::membership::SetOvercommit;
use crate::screen::{self, Table};

pub(crate) async fn resources(client: &Client, form: Form) -> Result<u8, Problem> {
    show::tell_age(client, form).await;
    let view = client.resources().await?;
    match form {
        Form::Json => screen::json(&view)?,
        Form::Text => screen::print(&shown(&view)),
    }
    Ok(0)
}

/// What is not said of the two stays as it is.
pub(crate) async fn overcommit(client: &Client, args: SetOvercommit, form: Form) -> Result<u8, Problem> {
    let node = match &args.node {
        Some(name) => Some(nodes::find_there(client, name).await?.machine),
        None => None,
    };
    let id = node.as_ref().map(|machine| machine.id);
    if args.reset {
        client.remove_overcommit(id).await?;
    } else {
        let now = match &node {
            Some(machine) => machine.facts.overcommit,
            None => client.resources().await?.overcommit,
        };
        let overcommit = Overcommit {
            cpu_percent: args.cpu_percent.unwrap_or(now.cpu_percent),
            memory_percent: args.ram_percent.unwrap_or(now.memory_percent),
        };
        client.set_overcommit(id, &overcommit).await?;
    }
    let view = client.resources().await?;
    let now = match id {
        Some(id) => view.nodes.iter().find(|node| node.node == id).map(|node| node.overcommit),
        None => Some(view.overcommit),
    };
    let now = now.ok_or_else(|| Problem::new(Code::NotFound, "the node has left meanwhile"))?;
    match form {
        Form::Json => screen::json(&now)?,
        Form::Text => {
            let of = node.map_or_else(|| "nodes of which nothing else is said".to_owned(), |it| it.name.to_string());
            screen::line(format!("{of}: {now} may be kept for stars"));
        }
    }
    Ok(0)
}

/// A table for each of them: what there is, and what becomes of it.
fn shown(view: &ResourcesView) -> String {
    let cpu: fn(u64) -> String = |amount| Millicores(u32::try_from(amount).unwrap_or(u32::MAX)).to_string();
    let bytes: fn(u64) -> String = |amount| Bytes(amount).to_string();
    let tables = [
        table("CPU", view, cpu, |node| node.pool.cpu, view.sum.cpu),
        table("MEMORY", view, bytes, |node| node.pool.memory, view.sum.memory),
        disks(view, bytes),
    ];
    let mut text = tables.join("\n");
    for node in view.nodes.iter().filter(|node| !node.overcommit.is_none()) {
        text.push_str(&format!("overcommitted: {} may be kept for stars, of {}\n", node.overcommit, named(node)));
    }
    let lies = |node: &NodeResources, amount: String, other: &str| {
        format!("stranded: {amount} on {}, of whose {other} too little is free\n", named(node))
    };
    for node in view.nodes.iter().filter(|node| node.takes) {
        let (idle_cpu, idle_memory) = (node.pool.cpu.stranded, node.pool.memory.stranded);
        if idle_cpu > 0 {
            text.push_str(&lies(node, format!("{} of processors", cpu(idle_cpu)), "memory"));
        }
        if idle_memory > 0 {
            text.push_str(&lies(node, format!("{} of memory", bytes(idle_memory)), "processors"));
        }
    }
    text
}

fn named(node: &NodeResources) -> String {
    let name = node.name.as_ref().map_or("this machine".to_owned(), ToString::to_string);
    if node.takes { name } else { format!("{name} (takes no stars)") }
}

fn table(
    title: &'static str,
    view: &ResourcesView,
    text: fn(u64) -> String,
    of: fn(&NodeResources) -> Amounts,
    sum: Amounts,
) -> String {
    let mut table = Table::new(&[title, ">HAS", ">FOR ITSELF", ">KEPT FOR STARS", ">FREE", ">PROMISED", ">USED"]);
    let mut row = |name: String, amounts: Amounts| {
        let Amounts { capacity, machine, kept, free, promised, used, .. } = amounts;
        let known = |amount| if capacity == 0 { "?".to_owned() } else { text(amount) };
        let used = used.map_or("?".to_owned(), text);
        table.row([name, known(capacity), text(machine), text(kept), known(free), text(promised), used]);
    };
    view.nodes.iter().for_each(|node| row(named(node), of(node)));
    if view.nodes.len() > 1 {
        row("in sum".to_owned(), sum);
    }
    table.render()
}

/// Nothing of a disk is kept.
fn disks(view: &ResourcesView, text: fn(u64) -> String) -> String {
    let mut table = Table::new(&["DISK", ">HAS", ">FREE", ">PROMISED", ">USED"]);
    let mut row = |name: String, Amounts { capacity, free, promised, used, .. }: Amounts| {
        let known = |amount| if capacity == 0 { "?".to_owned() } else { text(amount) };
        table.row([name, known(capacity), known(free), text(promised), used.map_or("?".to_owned(), text)]);
    };
    view.nodes.iter().for_each(|node| row(named(node), node.pool.disk));
    if view.nodes.len() > 1 {
        row("in sum".to_owned(), view.sum.disk);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use api::Pool;
    use model::NodeId;

    use super::*;

    #[test]
    fn the_sum_leaves_out_who_takes_no_stars() {
        let amounts = |capacity, kept| Amounts {
            capacity,
            machine: 1,
            kept,
            free: capacity - kept - 1,
            stranded: 0,
            promised: 7,
            used: Some(3),
        };
        let node = |number: u64, takes| NodeResources {
            node: NodeId(number),
            name: Some(format!("n{number}").parse().unwrap()),
            takes,
            overcommit: Overcommit::default(),
            stars: 0,
            pool: Pool { cpu: amounts(4_000, 1_000), memory: amounts(4 << 30, 1 << 30), disk: Amounts::default() },
        };
        let mut view =
            ResourcesView { nodes: vec![node(1, true), node(2, false), node(3, true)], ..Default::default() };
        view.sum_up();
        let text = shown(&view);
        let cpu: Vec<&str> = text.lines().take(5).collect();
        assert_eq!(
            cpu,
            [
                "CPU                    HAS  FOR ITSELF  KEPT FOR STARS     FREE  PROMISED   USED",
                "n1                   400 %       0.1 %           100 %  299.9 %     0.7 %  0.3 %",
                "n2 (takes no stars)  400 %       0.1 %           100 %  299.9 %     0.7 %  0.3 %",
                "n3                   400 %       0.1 %           100 %  299.9 %     0.7 %  0.3 %",
                "in sum               800 %       0.2 %           200 %  599.8 %     1.4 %  0.6 %",
            ]
        );
        assert!(text.contains("DISK") && !text.contains("stranded"), "{text}");
        view.nodes[0].pool.memory.stranded = 3 << 30;
        let told = "stranded: 3 GiB of memory on n1, of whose processors too little is free\n";
        assert!(shown(&view).ends_with(told), "{}", shown(&view));
    }
}
