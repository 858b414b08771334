//! `rads c init`, `join`, `leave`: this machine becomes a node, or alone again. Its agent begins anew for it, under the same
//! process id; what the command says at its end is what the new one says of itself.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use ::agent::host;
use api::constellation::{Became, Init, Introduction, Invitation, Join, OwnPlace, PORT};
use api::{Client, Health, NodeView, Version};
use model::{Bytes, Code, Duty, Millicores, NodeRole, Problem, Reserve};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::{agent, nodes, secrets};
use crate::access::Api;
use crate::cli::Form;
use crate::membership::{self, MachineOptions};
use crate::screen;

/// Longest wait for the agent to be what it became: it opens its log, and a node that joined is told the whole state.
const ANEW_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks.
const STEP: Duration = Duration::from_millis(20);
/// Longest wait for the new agent to hear of the other nodes, which it does at once where it reaches one.
const HEAR_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) async fn init(data_dir: &Path, args: membership::Init, form: Form) -> Result<u8, Problem> {
    if let Some(address) = args.join {
        return join(
            data_dir,
            membership::Join { address: Some(address), discover: false, token: args.token, me: args.me },
            form,
        )
        .await;
    }
    let Some(cluster) = args.cluster else {
        return Err(Problem::new(Code::Usage, "a constellation has a name").help("add `--cluster NAME`"));
    };
    let me = introduction(args.me, host::own_address)?;
    let was_empty = is_empty(data_dir);
    let (client, version, started) = agent::find_or_start(data_dir).await?;
    let init = Init { cluster, me: me.clone(), certificate_days: args.certificate_days };
    let became = client.init(&init).await;
    let became = or_leave(became, started, was_empty.then_some(data_dir), &client, &version).await?;
    let place = anew(data_dir, &version, |place| place.is_some()).await.map_err(Problem::after_changes)?;
    if form == Form::Json {
        screen::json(&became)?;
        return Ok(0);
    }
    screen::line(format!("constellation `{}` is founded{}", became.cluster, own_line(&became, place.as_ref())));
    if let Some(invitation) = &became.token {
        invite(invitation, &me.advertise);
        screen::line(
            "\n`rads c token create --role worker` makes a token for machines that only run stars,\n\
             `rads c nodes` shows who is there, `rads up app.rads` works from any of them",
        );
    }
    Ok(0)
}

pub(crate) async fn join(data_dir: &Path, args: membership::Join, form: Form) -> Result<u8, Problem> {
    let address = args.address.as_deref().map(|address| with_port(address, PORT)).transpose()?;
    let reached = address.as_deref().map(resolved).transpose()?;
    let token = token(args.token)?;
    let me = introduction(args.me, || reached.and_then(host::address_towards).or_else(host::own_address))?;
    let was_empty = is_empty(data_dir);
    let (client, version, started) = agent::find_or_start(data_dir).await?;
    let join = Join { address, token: token.to_string(), me };
    let became = client.join(&join).await;
    let became = or_leave(became, started, was_empty.then_some(data_dir), &client, &version).await?;
    let place = anew(data_dir, &version, |place| place.is_some()).await.map_err(Problem::after_changes)?;
    match form {
        Form::Json => screen::json(&became)?,
        Form::Text => {
            screen::line(format!("joined constellation `{}`{}", became.cluster, own_line(&became, place.as_ref())));
        }
    }
    Ok(0)
}

/// What the machine became; or else an agent that was started for this only ends, since this was not to be, and a folder that
/// was empty before is again.
async fn or_leave(
    became: Result<Became, Problem>,
    started: bool,
    was_empty: Option<&Path>,
    client: &Client,
    version: &Version,
) -> Result<Became, Problem> {
    let in_vain = became.as_ref().is_err_and(|problem| !problem.changed);
    if started
        && in_vain
        && super::up::leave(client, version).await?
        && let Some(data_dir) = was_empty
    {
        ::agent::clear_unused(data_dir);
    }
    became
}

/// Whether nothing is in a data folder yet.
fn is_empty(data_dir: &Path) -> bool {
    match std::fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Takes this machine out in good order: its stars run elsewhere first.
pub(crate) async fn leave(data_dir: &Path, args: membership::Leave, form: Form) -> Result<u8, Problem> {
    let (client, version) = Client::connect(data_dir).await.map_err(|problem| super::orphaned(data_dir, problem))?;
    let all = client.nodes().await?;
    let Some(own) = all.iter().find(|node| node.answers) else {
        // It has left already, or has been taken out, which it can be told to forget.
        let former = client.status().await?.former;
        client.leave(args.force).await?;
        return left(former.as_ref().map_or("", |former| former.name.as_str()), form);
    };
    if !args.force {
        nodes::may_be_given_up(own)?;
        // One that has to stay is told so, by its agent, before its stars have moved.
        let keeps_log = |node: &&NodeView| node.machine.role == NodeRole::Controller;
        let is_heir = |node: &NodeView| !node.answers && node.machine.health == Health::Alive;
        let may_go = !keeps_log(&own) || all.iter().filter(keeps_log).any(is_heir);
        if own.machine.stars > 0 && may_go {
            client.set_duty(own.machine.id, Duty::Draining).await?;
            nodes::drained(&client, own.machine.id).await.map_err(Problem::after_changes)?;
        }
    }
    client.leave(args.force).await?;
    anew(data_dir, &version, |place| place.is_none()).await.map_err(Problem::after_changes)?;
    left(own.machine.name.as_str(), form)
}

fn left(name: &str, form: Form) -> Result<u8, Problem> {
    match form {
        Form::Json => screen::json(&Left { left: name.to_owned() })?,
        Form::Text => screen::line(format!("node `{name}` left; this machine is alone")),
    }
    Ok(0)
}

#[derive(Serialize)]
struct Left {
    left: String,
}

/// Waits until the agent that was told to begin anew answers again and is what it was to be.
pub(super) async fn anew(
    data_dir: &Path,
    before: &Version,
    is_it: impl Fn(&Option<OwnPlace>) -> bool,
) -> Result<Option<OwnPlace>, Problem> {
    let deadline = Instant::now() + ANEW_TIMEOUT;
    let mut hears_until = None;
    loop {
        let answer = async {
            let (client, version) = Client::connect(data_dir).await?;
            // The old one may answer a last time.
            if version.started == before.started && version.pid == before.pid {
                return Ok(None);
            }
            let place = client.status().await?.node.place;
            // One that nobody leads can be looked at, and nothing more.
            let nodes = if place.is_none() { Vec::new() } else { client.nodes().await? };
            let works = place.is_none() || nodes.iter().any(|node| node.leads);
            if !works || !is_it(&place) {
                return Ok(None);
            }
            let hears = nodes.iter().all(|node| node.machine.health != Health::Unknown);
            let hears_until = *hears_until.get_or_insert_with(|| Instant::now() + HEAR_TIMEOUT);
            Ok::<_, Problem>((hears || Instant::now() > hears_until).then_some(place))
        };
        match answer.await {
            Ok(Some(place)) => return Ok(place),
            Ok(None) => {}
            Err(problem) if matches!(problem.code, Code::NoAgent | Code::Unavailable) => {
                if !agent::runs(before.pid) {
                    return Err(Problem::new(Code::NoAgent, "the agent ended instead of beginning anew")
                        .help(format!("see what it said in `{}`", data_dir.join("agent.log").display())));
                }
            }
            Err(problem) => return Err(problem),
        }
        if Instant::now() > deadline {
            let message = format!("the agent did not become it within {} s", ANEW_TIMEOUT.as_secs());
            return Err(Problem::new(Code::Timeout, message).help("it goes on; `rads c status` tells what it is"));
        }
        sleep(STEP).await;
    }
}

/// Says how others join.
pub(super) fn invite(invitation: &Invitation, address: &str) {
    let uses = screen::count(invitation.uses as usize, "machine");
    let left = about(invitation.expires.since(crate::moment::now()));
    screen::line(format!("\non each other machine (good for {uses} within {left}, each a {}):", invitation.role));
    screen::line(format!("  rads c join {address} --token {}", invitation.token));
}

/// What this machine is now, as the rest of a line.
fn own_line(became: &Became, place: Option<&OwnPlace>) -> String {
    let of = place.filter(|place| place.nodes > 1);
    let of = of.map(|place| format!(", {} of {} alive", place.alive, screen::count(place.nodes as usize, "node")));
    format!("; this machine is its node `{}`, {}{}", became.name, became.role, of.unwrap_or_default())
}

/// A time in whole minutes, as it was meant some seconds ago.
fn about(time: Duration) -> String {
    match (time.as_secs() + 30) / 60 {
        minutes if minutes % 60 == 0 && minutes > 0 => screen::count(minutes as usize / 60, "hour"),
        minutes => screen::count(minutes as usize, "minute"),
    }
}

pub(super) fn introduction(
    options: MachineOptions,
    own: impl FnOnce() -> Option<std::net::IpAddr>,
) -> Result<Introduction, Problem> {
    let listen = options.listen;
    let advertise = match options.advertise {
        Some(address) => {
            let address = with_port(&address, listen.port())?;
            resolved(&address)?;
            address
        }
        None if !listen.ip().is_unspecified() => listen.to_string(),
        None => {
            let ip = own().ok_or_else(|| {
                Problem::new(Code::Usage, "this machine has no address that others could reach")
                    .help("name one with `--advertise HOST:PORT`")
            })?;
            SocketAddr::from((ip, listen.port())).to_string()
        }
    };
    let mut labels = BTreeMap::new();
    for (key, value) in options.labels {
        if labels.insert(key.clone(), value).is_some() {
            return Err(Problem::new(Code::Usage, format!("label `{key}` is given twice")));
        }
    }
    let name = options.name.unwrap_or_else(host::own_name);
    let MachineOptions { region, zone, rack, discoverable, .. } = options;
    let api = options.api.and_then(Api::address);
    let reserved = Reserve {
        cpu: Millicores(options.reserve_cpu_percent.saturating_mul(10)),
        memory: Bytes::mib(options.reserve_ram_mb.into()),
    };
    Ok(Introduction { name, listen, advertise, region, zone, rack, labels, reserved, api, discoverable })
}

/// An address with the port it says, or else the usual one; `[::1]` and `::1` say none.
fn with_port(address: &str, usual: u16) -> Result<String, Problem> {
    if let Ok(bare) = address.parse::<std::net::Ipv6Addr>() {
        return Ok(SocketAddr::from((bare, usual)).to_string());
    }
    let said = address.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    match said.map(|(_, port)| (port, port.parse::<u16>())) {
        None => Ok(format!("{address}:{usual}")),
        Some((_, Ok(1..))) => Ok(address.to_owned()),
        Some((port, _)) => {
            let shown = (port.escape_debug(), address.escape_debug());
            Err(Problem::new(Code::InvalidValue, format!("`{}` is no port, in `{}`", shown.0, shown.1))
                .help(format!("it is a number from 1 to 65535, {usual} when none is said")))
        }
    }
}

fn resolved(address: &str) -> Result<SocketAddr, Problem> {
    let unknown = |why: String| {
        Problem::new(Code::InvalidValue, format!("`{}` is no address of a node: {why}", address.escape_debug()))
            .help("it is HOST:PORT, as 10.0.0.1:7946")
    };
    let mut found = address.to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    found.next().ok_or_else(|| unknown("it leads nowhere".to_owned()))
}

/// The token: as an option, from standard input, from the environment, or typed unseen. Other users of this machine may see the
/// arguments of a program while it runs.
fn token(given: Option<String>) -> Result<Zeroizing<String>, Problem> {
    let unreadable = |error: io::Error| Problem::new(Code::FileUnreadable, format!("cannot read the token: {error}"));
    let text = match given {
        Some(text) if text != "-" => Zeroizing::new(text),
        None if std::env::var_os("RADS_TOKEN").is_some() => {
            Zeroizing::new(std::env::var("RADS_TOKEN").unwrap_or_default())
        }
        None if io::stdin().is_terminal() => secrets::unseen("token (it is not shown): ").map_err(unreadable)?,
        given => {
            if given.is_none() {
                return Err(Problem::new(Code::Usage, "a token is needed to join")
                    .help("give it with `--token`, `--token -` and standard input, or `RADS_TOKEN`"));
            }
            let mut line = Zeroizing::new(String::new());
            io::stdin().lock().read_line(&mut line).map_err(unreadable)?;
            line
        }
    };
    let text = Zeroizing::new(text.trim().to_owned());
    if text.is_empty() {
        return Err(Problem::new(Code::Usage, "the token is empty").help("`rads c token create` on a node makes one"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_it_was_meant() {
        let check = |seconds: u64, expected: &str| assert_eq!(about(Duration::from_secs(seconds)), expected);
        check(3_598, "1 hour");
        check(7_199, "2 hours");
        check(1_795, "30 minutes");
        check(40, "1 minute");
    }

    #[test]
    fn an_address_without_a_port_gets_the_usual_one() {
        let check = |text: &str, expected: &str| assert_eq!(with_port(text, PORT).unwrap(), expected, "{text}");
        check("10.0.0.1", "10.0.0.1:7946");
        check("10.0.0.1:80", "10.0.0.1:80");
        check("a.example.com", "a.example.com:7946");
        check("::1", "[::1]:7946");
        check("[::1]:80", "[::1]:80");
        check("[::1]", "[::1]:7946");
        let refused = |text: &str, says: &str| {
            let problem = with_port(text, PORT).unwrap_err();
            assert_eq!(problem.message, says, "{text}");
        };
        refused("10.77.0.1:99999", "`99999` is no port, in `10.77.0.1:99999`");
        refused("a.example.com:", "`` is no port, in `a.example.com:`");
        refused("10.77.0.1:0", "`0` is no port, in `10.77.0.1:0`");
        refused("[::1]:http", "`http` is no port, in `[::1]:http`");
    }
}
