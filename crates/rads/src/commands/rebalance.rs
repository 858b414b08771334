//! `rads c rebalance`: stars go to where they would come if they were placed now, the next one before the last one goes.

use std::collections::BTreeMap;

use api::{Accepted, Client, MoveView, StarTurn};
use model::{Problem, ServiceKey};

use super::{change, find, progress, show};
use crate::cli::Form;
use crate::membership::Rebalance;
use crate::screen::{self, Table};

pub(crate) async fn rebalance(client: &Client, args: Rebalance, form: Form) -> Result<u8, Problem> {
    let named = args.services.iter().map(|name| find::service(name)).collect::<Result<Vec<ServiceKey>, _>>()?;
    for service in &named {
        // One that is not there is told before anything moves.
        client.service(service).await?;
    }
    show::tell_age(client, form).await;
    let mut moves = client.moves().await?;
    moves.retain(|star| named.is_empty() || named.contains(&star.service));
    let more = moves.len().saturating_sub(args.most as usize);
    moves.truncate(args.most as usize);
    if args.dry_run && form == Form::Json {
        screen::json(&moves)?;
        return Ok(0);
    }
    if moves.is_empty() {
        if form == Form::Json {
            screen::json(&moves)?;
        }
        screen::note("nothing to move: stars are where they would come if they were placed now");
        return Ok(0);
    }
    if form == Form::Text {
        screen::print(&table(&moves));
    }
    if args.dry_run {
        let more = if more > 0 { format!(", and {more} more after these") } else { String::new() };
        screen::note(format!("{} would move{more}; nothing was changed", screen::count(moves.len(), "star")));
        return Ok(0);
    }
    let mut asked: BTreeMap<ServiceKey, Accepted> = BTreeMap::new();
    for star in &moves {
        let accepted = client
            .turn(&star.service, star.ordinal, StarTurn::Move)
            .await
            .map_err(|problem| if asked.is_empty() { problem } else { problem.after_changes() })?;
        asked.insert(star.service.clone(), accepted);
    }
    for (service, asked) in asked {
        match form {
            Form::Text => drop(change::settle(client, service, asked, form).await?),
            Form::Json => drop(progress::settled(client, &service, asked.index).await.map_err(Problem::after_changes)?),
        }
    }
    if form == Form::Json {
        screen::json(&moves)?;
        return Ok(0);
    }
    if more > 0 {
        screen::note(format!("{} more would move: ask again", screen::count(more, "star")));
    }
    Ok(0)
}

fn table(moves: &[MoveView]) -> String {
    let mut table = Table::new(&["SERVICE", "STAR", "FROM", "TO"]);
    for MoveView { service, ordinal, from, to } in moves {
        let star = format!("{}-{ordinal}", service.name);
        table.row([service.to_string(), star, from.to_string(), to.to_string()]);
    }
    table.render()
}
