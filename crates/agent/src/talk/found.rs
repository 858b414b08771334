//! `constellation.init` of a program outside of stars: this machine founds a constellation, unless it is in that one already.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use api::{Init, Introduction};
use model::{Code, Name, NodeFacts, Problem};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use crate::constellation::entry;
use crate::control::Looker;
use crate::host;
use crate::main_loop::Incoming;

/// The answer leaves before the agent begins anew and its connections end.
const ANSWER_LEAVES_WITHIN: Duration = Duration::from_millis(200);

/// What it takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    cluster: Name,
    /// What this machine is called among the others; as its host is when it is left out.
    #[serde(default)]
    node: Option<Name>,
    #[serde(default)]
    listen: Option<SocketAddr>,
    /// Where the others reach it, `host:port`.
    #[serde(default)]
    advertise: Option<String>,
    #[serde(default)]
    region: Option<Name>,
    #[serde(default)]
    zone: Option<Name>,
    #[serde(default)]
    rack: Option<Name>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    certificate_days: Option<u16>,
}

/// What founding takes of a running agent.
#[derive(Clone)]
pub(crate) struct Founder {
    pub(crate) ask: mpsc::Sender<Incoming>,
    pub(crate) data_dir: PathBuf,
    pub(crate) facts: NodeFacts,
    pub(crate) again: mpsc::Sender<()>,
}

impl Founder {
    /// Founds it; gives what this machine has become, as JSON.
    pub(crate) async fn found(self, options: String) -> Result<String, Problem> {
        let init = read(&options)?;
        let looker = Looker { ask: self.ask.clone() };
        let there = looker.look(|node| node.own_place()).await?;
        match there {
            Some(place) if place.cluster == init.cluster => {
                let became = json!({"cluster": place.cluster, "node": place.name, "role": place.role, "token": null});
                return Ok(became.to_string());
            }
            Some(place) => {
                let message = format!("this machine is in constellation `{}` already", place.cluster);
                return Err(Problem::new(Code::AlreadyExists, message).help("`rads c leave` takes it out"));
            }
            None => {}
        }
        let became = entry::init(&self.ask, &self.data_dir, self.facts, init).await?;
        let token = became.token.map(|token| token.token);
        let answer = json!({"cluster": became.cluster, "node": became.name, "role": became.role, "token": token});
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_LEAVES_WITHIN).await;
            // Full means that it is about to.
            let _ = self.again.try_send(());
        });
        Ok(answer.to_string())
    }
}

fn read(options: &str) -> Result<Init, Problem> {
    let invalid = |message: String| Problem::new(Code::InvalidValue, message);
    let options: Options =
        serde_json::from_str(options).map_err(|error| invalid(format!("the options of `init`: {error}")))?;
    let listen = options.listen.unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, api::constellation::PORT)));
    let advertise = match options.advertise {
        Some(address) => address,
        None if !listen.ip().is_unspecified() => listen.to_string(),
        None => {
            let own = host::own_address();
            let own = own.ok_or_else(|| {
                let problem = invalid("this machine has no address that others could reach".to_owned());
                problem.help("name one: `advertise: \"HOST:PORT\"`")
            })?;
            SocketAddr::from((own, listen.port())).to_string()
        }
    };
    let me = Introduction {
        name: options.node.unwrap_or_else(host::own_name),
        listen,
        advertise,
        region: options.region,
        zone: options.zone,
        rack: options.rack,
        labels: options.labels,
        reserved: Default::default(),
        api: None,
        discoverable: false,
    };
    Ok(Init { cluster: options.cluster, me, certificate_days: options.certificate_days })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_slips_are_named() {
        let init = read(r#"{"cluster": "production", "node": "node-1", "listen": "10.0.0.1:7000"}"#).unwrap();
        assert_eq!((init.cluster.as_str(), init.me.name.as_str()), ("production", "node-1"));
        assert_eq!(init.me.advertise, "10.0.0.1:7000");
        let refused = |options: &str, says: &str| {
            let problem = read(options).unwrap_err();
            assert!(problem.code == Code::InvalidValue && problem.message.contains(says), "{problem}");
        };
        refused("{}", "cluster");
        refused(r#"{"cluster": "A b"}"#, "A b");
        refused(r#"{"cluster": "a", "nod": "b"}"#, "nod");
        refused("[", "init");
    }
}
