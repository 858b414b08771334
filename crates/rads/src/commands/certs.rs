//! `rads c token` and `rads c certs`: who may come in, and who is believed.

use std::time::Duration;

use api::{CertificatesView, Client, Invite};
use model::machine::said_of_volumes;
use model::{Code, Problem};

use super::nodes;
use crate::cli::Form;
use crate::membership::{Certs, Token};
use crate::moment::{clock_time, now};
use crate::screen::{self, Table};

pub(crate) async fn token(client: &Client, what: Token, form: Form) -> Result<u8, Problem> {
    match what {
        Token::Create { role, uses, life } => {
            let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
            let invitation = client.invite(&Invite { role, uses, life_ms }).await?;
            if form == Form::Json {
                screen::json(&invitation)?;
                return Ok(0);
            }
            let own = nodes::own(client).await?;
            let left = screen::duration(invitation.expires.since(now()) + Duration::from_millis(500));
            let machines = screen::count(uses as usize, "machine");
            screen::note(format!("on each other machine (good for {machines} within {left}, as {role}):"));
            screen::line(format!("rads c join {} --token {}", own.machine.address, invitation.token));
        }
        Token::List => {
            let tokens = client.tokens().await?;
            if form == Form::Json {
                screen::json(&tokens)?;
                return Ok(0);
            }
            if tokens.is_empty() {
                screen::note("no tokens; `rads c token create` makes one");
                return Ok(0);
            }
            let mut table = Table::new(&["TOKEN", "ROLE", ">USED", "GOOD FOR"]);
            for token in &tokens {
                table.row([
                    token.id.clone(),
                    token.role.to_string(),
                    format!("{} of {}", token.uses, token.uses_max),
                    screen::duration(token.expires.since(now())),
                ]);
            }
            screen::print(&table.render());
        }
        Token::Revoke { token } => {
            // It goes into a path.
            let id: String = token.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
            if id != token {
                let message = "a token is named by its id, eight digits or more".to_owned();
                return Err(Problem::new(Code::InvalidValue, message).help("`rads c token list` shows it"));
            }
            let token = client.revoke_token(&id).await?;
            match form {
                Form::Json => screen::json(&token)?,
                Form::Text => screen::line(format!("{}: revoked, used {} of {}", token.id, token.uses, token.uses_max)),
            }
        }
    }
    Ok(0)
}

/// What is believed by who is to believe nodes: after a change of the authority, while it lasts, more than one.
pub(crate) async fn authority(client: &Client, form: Form) -> Result<u8, Problem> {
    let authorities = client.certificates().await?.authorities;
    match form {
        Form::Json => screen::json(&authorities)?,
        Form::Text => {
            authorities.iter().for_each(|authority| screen::print(&authority.certificate));
        }
    }
    Ok(0)
}

pub(crate) async fn certs(client: &Client, what: Option<Certs>, form: Form) -> Result<u8, Problem> {
    let mut lies_there = None;
    let view = match &what {
        None => client.certificates().await?,
        Some(Certs::Rotate { gossip: true }) => client.rotate_gossip().await?,
        Some(Certs::Rotate { gossip: false }) => client.rotate_authority().await?,
        Some(Certs::Revoke { node }) => {
            let node = nodes::find(client, node).await?;
            lies_there = said_of_volumes(&node.machine.volumes_there);
            client.revoke_certificates(node.machine.id).await?
        }
    };
    if form == Form::Json {
        screen::json(&view)?;
        return Ok(0);
    }
    match what {
        None => screen::print(&shown(&view)),
        Some(Certs::Rotate { gossip: true }) => screen::line(
            "the next key of gossip is made: in some seconds all have it, it seals, and the present one goes\n\
             `rads c events` shows how far it has come",
        ),
        Some(Certs::Rotate { gossip: false }) => screen::line(
            "the next certificate authority is made: in some seconds it issues, nodes renew theirs, and the present one \
             goes when nobody needs it\n`rads c certs` shows how far it has come",
        ),
        Some(Certs::Revoke { node }) => {
            screen::line(format!(
                "{node}: shut out, within seconds by all\n`rads c remove {node} --force` takes it out of `rads c nodes`; its \
                 machine can join anew, as another node"
            ));
            // Shutting it out leaves them where they are; what is to follow does not.
            if let Some(said) = lies_there {
                screen::line(format!("what lies there and nowhere else is given up with that: {said}"));
            }
        }
    }
    Ok(0)
}

fn shown(view: &CertificatesView) -> String {
    let mut authorities = Table::new(&["AUTHORITY", "STATE", "UNTIL", "NEEDED BY"]);
    for (at, authority) in view.authorities.iter().enumerate() {
        let state = match (authority.issues, at + 1 == view.authorities.len(), authority.needed_by.is_empty()) {
            (true, ..) => "issues",
            // Nobody has anything of it: it is to come, or about to go.
            (false, true, true) => "trusted",
            (false, ..) => "going",
        };
        let needed: Vec<&str> = authority.needed_by.iter().map(|name| name.as_str()).take(8).collect();
        let more = authority.needed_by.len().saturating_sub(needed.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        authorities.row([
            authority.id.clone(),
            state.to_owned(),
            clock_time(authority.not_after),
            if needed.is_empty() { "-".to_owned() } else { needed.join(", ") + &more },
        ]);
    }
    let mut nodes = Table::new(&["NODE", "ROLE", "CERTIFICATE", "AUTHORITY", "GOOD FOR"]);
    for node in &view.nodes {
        let left = node.not_after.since(now());
        nodes.row([
            node.name.to_string(),
            node.role.to_string(),
            node.serial.to_string(),
            node.authority.clone(),
            match (node.revoked, left.is_zero()) {
                (true, _) => "revoked".to_owned(),
                (false, true) => "ran out".to_owned(),
                (false, false) => screen::duration(left),
            },
        ]);
    }
    format!("{}\n{}", authorities.render(), nodes.render())
}
