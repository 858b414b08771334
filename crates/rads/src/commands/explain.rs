//! `rads c explain`: where the stars of a service are, and what keeps the next one off each machine.

use std::collections::BTreeMap;

use api::{Client, ExplainView, ExplainedNode};
use model::Problem;

use super::{find, jobs, show};
use crate::cli::{Explain, Form};
use crate::screen::{self, Table};

/// Machines told one by one; of the others it is counted what keeps stars off them.
const TOLD_MAX: usize = 50;

pub(crate) async fn explain(client: &Client, args: &Explain, form: Form) -> Result<u8, Problem> {
    show::tell_age(client, form).await;
    let view = client.explain(&find::service(&args.service)?).await?;
    match form {
        Form::Json => screen::json(&view)?,
        Form::Text => screen::print(&told(&view, args.all)),
    }
    Ok(0)
}

fn told(view: &ExplainView, all: bool) -> String {
    let ExplainView { service, desired, ready, placement, reserve, job, held, problem, nodes } = view;
    let stands = match (job, held.as_slice()) {
        (Some(job), held) => jobs::stands(service, job, held),
        (None, held) => {
            let stopped = if held.is_empty() { String::new() } else { format!(", {} stopped", held.len()) };
            format!("{ready} of {desired} {} ready{stopped}", if *desired == 1 { "star" } else { "stars" })
        }
    };
    let mut text = format!("{service}: {stands}\n");
    text.extend(deploy::placement_fields(placement).iter().map(|(name, value)| format!("  {name}: {value}\n")));
    if reserve.memory.0 > 0 {
        text.push_str(&format!("  keeps {} of memory for each star\n", reserve.memory.exact()));
    }
    if reserve.cpu.0 > 0 {
        text.push_str(&format!("  keeps {} of a core for each star\n", reserve.cpu));
    }
    if let Some(problem) = problem {
        text.push_str(&format!("\n{}\n", problem.message));
        text.extend(problem.help.iter().map(|help| format!("help: {help}\n")));
    }
    text.push('\n');
    let mut table = Table::new(&["NODE", "ITS STARS", ">STARS", "THE NEXT STAR"]);
    // Where something is comes first, then where something may come.
    let mut order: Vec<&ExplainedNode> = nodes.iter().collect();
    order.sort_by_key(|node| (node.here.is_empty(), !node.next, !node.reasons.is_empty(), node.node));
    let shown = if all { order.len() } else { TOLD_MAX };
    for node in order.iter().take(shown) {
        let name = node.name.as_ref().map_or("this machine".to_owned(), ToString::to_string);
        let here = if node.here.is_empty() { "-".to_owned() } else { node.here.join(", ") };
        table.row([name, here, node.stars.to_string(), verdict(node)]);
    }
    text.push_str(&table.render());
    let rest = order.get(shown..).unwrap_or_default();
    if !rest.is_empty() {
        text.push_str(&format!("and {} more, `--all` shows them:\n", rest.len()));
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        rest.iter().for_each(|node| *counted.entry(verdict(node)).or_default() += 1);
        text.extend(counted.into_iter().map(|(verdict, count)| format!("  {count}: {verdict}\n")));
    }
    text
}

fn verdict(node: &ExplainedNode) -> String {
    let preferred = match node.preferred.is_empty() {
        true => String::new(),
        false => format!(" (preferred: {})", node.preferred.join("; ")),
    };
    let shunned = match node.shunned {
        None => String::new(),
        Some(1) => ", if nowhere else: one of its stars had to go here".to_owned(),
        Some(times) => format!(", if nowhere else: its stars ended here {times} times in a row"),
    };
    match (node.reasons.is_empty(), node.next) {
        (true, true) => format!("comes here{preferred}"),
        (true, false) => format!("may come here{shunned}{preferred}"),
        (false, _) => node.reasons.join("; "),
    }
}
