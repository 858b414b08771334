//! `rads c context`: constellations elsewhere that commands can be about.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use model::{Code, Name, Problem};
use net::identity::KeyPin;
use net::identity::certificate::public_key_info;
use net::identity::pem::{self, PEM_MAX_BYTES};
use net::tls::Belief;
use serde::Serialize;
use zeroize::Zeroizing;

use super::secrets;
use crate::access::{AddContext, ContextCommand, Contexts as Args};
use crate::cli::Form;
use crate::context::{self, Caller, Context, Contexts, LOCAL, Shown};
use crate::screen::{self, Table};

pub(crate) async fn context(args: Args, form: Form) -> Result<u8, Problem> {
    let mut contexts = Contexts::read()?;
    let said = match args.what {
        None | Some(ContextCommand::List) => return list(&contexts, form).map(|()| 0),
        Some(ContextCommand::Add(args)) => {
            let name = args.name.clone();
            if name.as_str() == LOCAL {
                return Err(Problem::new(Code::Usage, "`local` is this machine").help("call it otherwise"));
            }
            if contexts.contexts.contains_key(&name) {
                return Err(Problem::new(Code::AlreadyExists, format!("there is a context `{name}` already"))
                    .help(format!("`rads c context remove {name}` forgets it")));
            }
            let context = made(args).await?;
            let cluster = context.cluster.clone();
            contexts.contexts.insert(name.clone(), context);
            format!(
                "context `{name}` is constellation `{cluster}`\n`--context {name}` has a command be about it, \
                 `rads c context use {name}` all that follow"
            )
        }
        Some(ContextCommand::Use { name }) => {
            contexts.current = match name.as_str() {
                LOCAL => None,
                _ => contexts.named(&name).map(|_| Some(name.clone()))?,
            };
            match &contexts.current {
                Some(name) => format!("commands are about context `{name}` from now on"),
                None => "commands are about this machine from now on".to_owned(),
            }
        }
        Some(ContextCommand::Remove { name }) => {
            contexts.named(&name)?;
            contexts.contexts.remove(&name);
            let was_current = contexts.current.take_if(|current| *current == name).is_some();
            let then = if was_current { "; commands are about this machine from now on" } else { "" };
            format!("context `{name}` is forgotten{then}")
        }
    };
    contexts.write()?;
    match form {
        Form::Json => list(&contexts, form)?,
        Form::Text => screen::line(said),
    }
    Ok(0)
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a Name>,
}

/// Without what proves who asks.
fn list(contexts: &Contexts, form: Form) -> Result<(), Problem> {
    let local = Listed { name: LOCAL, current: contexts.current.is_none(), url: None, cluster: None };
    let others = contexts.contexts.iter().map(|(name, context)| Listed {
        name: name.as_str(),
        current: contexts.current.as_ref() == Some(name),
        url: Some(&context.url),
        cluster: Some(&context.cluster),
    });
    let listed: Vec<Listed<'_>> = [local].into_iter().chain(others).collect();
    if form == Form::Json {
        return screen::json(&listed);
    }
    let mut table = Table::new(&["", "CONTEXT", "CONSTELLATION", "ADDRESS"]);
    for one in &listed {
        table.row([
            if one.current { "*" } else { "" }.to_owned(),
            one.name.to_owned(),
            one.cluster.map(Name::to_string).unwrap_or_else(|| "-".to_owned()),
            one.url.unwrap_or("this machine").to_owned(),
        ]);
    }
    screen::print(&table.render());
    Ok(())
}

/// Looks who answers there, and whether they know who asks, before anything is kept.
async fn made(args: AddContext) -> Result<Context, Problem> {
    let AddContext { name, url, ca, ca_hash, token_file, certificate, key } = args;
    context::authority(&url)?;
    let given = ca.as_deref().map(authorities).transpose()?;
    let belief = match (&given, ca_hash) {
        (Some(authorities), _) => Belief::Authorities(authorities.clone()),
        (None, Some(pin)) => Belief::Authority(pin),
        (None, None) => {
            return Err(Problem::new(Code::Usage, "by what is it to be known?").help("`--ca FILE` or `--ca-hash HASH`"));
        }
    };
    let shown = match (certificate, key) {
        (Some(chain), Some(key)) => Some(Shown { chain: text(&chain)?, key: text(&key)? }),
        _ => None,
    };
    // Nothing is shown to whoever is not believed.
    let caller = Caller { url: url.clone(), belief, certificate: None };
    let connected = caller.connect().await?;
    let authorities = given.unwrap_or_else(|| {
        let pinned = |der: &&_| public_key_info(der).is_ok_and(|key| Some(KeyPin::of(&key)) == ca_hash);
        connected.chain.iter().filter(pinned).cloned().collect()
    });
    let token = match &shown {
        Some(_) => None,
        None => Some(token(token_file.as_deref())?.to_string()),
    };
    let context = Context {
        url,
        cluster: connected.certificate.identity.cluster,
        authorities: pem::certificates(&authorities),
        token,
        certificate: shown,
    };
    context.client(&name)?.greet().await?;
    Ok(context)
}

fn authorities(path: &Path) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, Problem> {
    let found = pem::read_certificates(&text(path)?);
    if found.is_empty() {
        return Err(Problem::new(Code::FileUnreadable, format!("`{}` holds no certificate in PEM", path.display())));
    }
    Ok(found)
}

fn text(path: &Path) -> Result<String, Problem> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Problem::new(Code::FileUnreadable, format!("cannot read `{}`: {error}", path.display()))
    };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| unreadable(&error))?;
    let read = file.take(PEM_MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    if read > PEM_MAX_BYTES { Err(unreadable(&"it is too long")) } else { Ok(text) }
}

/// From a file, by standard input, or typed unseen: arguments of a program may be seen by other users while it runs.
fn token(file: Option<&Path>) -> Result<Zeroizing<String>, Problem> {
    let unreadable = |error: io::Error| Problem::new(Code::FileUnreadable, format!("cannot read the token: {error}"));
    let read = match file {
        Some(path) => Zeroizing::new(text(path)?),
        None if io::stdin().is_terminal() => secrets::unseen("token (it is not shown): ").map_err(unreadable)?,
        None => {
            let mut line = Zeroizing::new(String::new());
            io::stdin().lock().take(PEM_MAX_BYTES as u64).read_line(&mut line).map_err(unreadable)?;
            line
        }
    };
    let token = Zeroizing::new(read.trim().to_owned());
    if token.parse::<net::identity::AccessToken>().is_err() {
        let problem =
            Problem::new(Code::InvalidValue, "this is no token of a grant: one is `radk_` and 64 of 0-9 and a-f");
        return Err(problem.help("`rads c grant` on a controller makes one"));
    }
    Ok(token)
}
