//! `rads c grant` and `rads c grants`: who may use the constellation from outside.

use std::path::Path;

use api::{Client, GrantView, NewGrant};
use model::{Code, Problem, Scope};
use net::identity::NodeKey;
use net::identity::pem;
use zeroize::Zeroizing;

use crate::access::{Grant, Grants, GrantsCommand};
use crate::cli::Form;
use crate::context::write_private;
use crate::moment::now;
use crate::screen::{self, Table};

pub(crate) async fn grant(client: &Client, args: Grant, form: Form) -> Result<u8, Problem> {
    let Grant { name, role, namespaces, expires, certificate } = args;
    let namespaces = match namespaces.is_empty() {
        true => Scope::All,
        false => Scope::Only(namespaces.into_iter().collect()),
    };
    let (key_file, certificate_file) = (format!("{name}.key"), format!("{name}.crt"));
    // The key is there before anybody is let in by it, and never leaves this machine.
    let request = match certificate {
        true => {
            let key = NodeKey::generate().map_err(internal)?;
            write(&key_file, &pem::key(&key.to_pkcs8()))?;
            let request = key.request().map_err(internal)?;
            Some(request.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        false => None,
    };
    let life_ms = expires.map(|life| u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    let asked = NewGrant { name, role, namespaces, life_ms, request };
    let granted = client.grant(&asked).await.inspect_err(|_| {
        if certificate {
            // It is of no use without a certificate.
            let _ = std::fs::remove_file(&key_file);
        }
    })?;
    if let Some(chain) = &granted.certificate {
        write(&certificate_file, chain).map_err(Problem::after_changes)?;
    }
    if form == Form::Json {
        screen::json(&granted)?;
        return Ok(0);
    }
    let grant = &granted.grant;
    screen::note(format!("`{}` may come in: {}, {}", grant.name, said(grant), left(grant)));
    let url = granted.url.as_deref().unwrap_or("https://ADDRESS:7947");
    let add = format!("rads c context add {} {url} --ca-hash {}", granted.cluster, granted.ca_hash);
    match granted.token.map(Zeroizing::new) {
        Some(token) => {
            screen::note(format!("on their machine, with the token below, which is not shown again:\n  {add}"));
            screen::line(token.as_str());
        }
        None => {
            screen::note(format!("with `{key_file}` and `{certificate_file}`, which are made here:"));
            screen::line(format!("{add} --certificate {certificate_file} --key {key_file}"));
        }
    }
    if granted.url.is_none() {
        screen::note("note: this node lets no users in; start an agent with `--api 7947`, here or on another node");
    }
    Ok(0)
}

pub(crate) async fn grants(client: &Client, args: Grants, form: Form) -> Result<u8, Problem> {
    if let Some(GrantsCommand::Revoke { name }) = args.what {
        let revoked = client.revoke_grant(&name).await?;
        match form {
            Form::Json => screen::json(&revoked)?,
            Form::Text => screen::line(format!("{name}: revoked; connections by it end within seconds")),
        }
        return Ok(0);
    }
    let grants = client.grants().await?;
    if form == Form::Json {
        screen::json(&grants)?;
        return Ok(0);
    }
    if grants.is_empty() {
        screen::note("no grants: only users of the machines themselves come in; `rads c grant` makes one");
        return Ok(0);
    }
    let mut table = Table::new(&["GRANT", "ROLE", "NAMESPACES", "SHOWS", "GOOD FOR"]);
    for grant in &grants {
        table.row([
            grant.name.to_string(),
            grant.role.to_string(),
            grant.namespaces.to_string(),
            if grant.certificate { "certificate" } else { "token" }.to_owned(),
            match grant.expires {
                None => "until revoked".to_owned(),
                Some(end) if end <= now() => "ran out".to_owned(),
                Some(end) => screen::duration(end.since(now())),
            },
        ]);
    }
    screen::print(&table.render());
    Ok(0)
}

fn said(grant: &GrantView) -> String {
    let quoted = |names: Vec<String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match &grant.namespaces {
        Scope::All => format!("{} of all namespaces", grant.role),
        Scope::Only(names) => format!("{} of {}", grant.role, quoted(names.iter().map(ToString::to_string).collect())),
        Scope::Like(names) => format!("{} of {}", grant.role, quoted(names.iter().map(ToString::to_string).collect())),
    }
}

fn left(grant: &GrantView) -> String {
    match grant.expires {
        None => "until that is revoked".to_owned(),
        Some(end) => format!("for {}", screen::duration(end.since(now()) + std::time::Duration::from_millis(500))),
    }
}

/// A new file for its owner alone.
fn write(path: &str, text: &str) -> Result<(), Problem> {
    write_private(Path::new(path), text.as_bytes(), false).map_err(|error| {
        let problem = Problem::new(Code::FileUnwritable, format!("cannot write `{path}`: {error}"));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => problem.help("move it away first, or do this in another folder"),
            _ => problem,
        }
    })
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}
