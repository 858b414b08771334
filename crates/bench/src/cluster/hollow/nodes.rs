//! Many agents in one process: `bench hollow-nodes FOLDER COUNT ADDRESS TOKEN`. Each is `agent::run` on a data folder of its own, with a
//! nursery that starts nothing; connections, certificates, log, reports and gossip are those of any agent.
//!
//! Prints `joined MILLISECONDS` for each, then waits until its standard input is closed.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Client;
use api::constellation::{Introduction, Join};
use tokio::sync::Semaphore;

use super::nursery;

/// Machines that join at once: an operator's script would start them so.
const JOINING: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(10);

pub(crate) fn main(args: &[String]) -> ExitCode {
    let [folder, count, address, token] = args else { return ExitCode::from(2) };
    let Ok(count) = count.parse() else { return ExitCode::from(2) };
    let runtime = match agent::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let started = runtime.block_on(start(Path::new(folder), count, address, token));
    if let Err(reason) = started {
        return failed(&reason);
    }
    // Whoever measures closes it.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("hollow nodes: {reason}");
    ExitCode::FAILURE
}

async fn start(folder: &Path, count: usize, address: &str, token: &str) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(JOINING));
    let mut joining = Vec::new();
    for number in 1..=count {
        let data = folder.join(format!("hollow-{number}"));
        let (places, address, token) = (Arc::clone(&places), address.to_owned(), token.to_owned());
        joining.push(tokio::spawn(async move {
            let _place = places.acquire().await.map_err(|error| error.to_string())?;
            one(data, number, address, token).await.map_err(|reason| format!("node {number}: {reason}"))
        }));
    }
    for one in joining {
        let took: Duration = one.await.map_err(|error| error.to_string())??;
        println!("joined {:.1}", took.as_secs_f64() * 1e3);
        std::io::stdout().flush().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Starts an agent and lets it join; gives how long that took until it answered as a node.
async fn one(data_dir: PathBuf, number: usize, address: String, token: String) -> Result<Duration, String> {
    std::fs::create_dir_all(&data_dir).map_err(|error| error.to_string())?;
    nursery::serve(&data_dir).map_err(|error| format!("its nursery: {error}"))?;
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let config = agent::Config {
        data_dir: data_dir.clone(),
        exe,
        nursery_args: Vec::new(),
        background: false,
        api: Default::default(),
    };
    tokio::spawn(async move {
        // A process of its own would execute itself again.
        while matches!(agent::run(config.clone()).await, Ok(agent::Ending::Again)) {}
        eprintln!("hollow nodes: node {number} has ended");
    });
    let client = until(&data_dir, false).await?;
    let listen = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let listen = listen.map_err(|error| error.to_string())?;
    let name = format!("hollow-{number}").parse().map_err(|error| format!("{error}"))?;
    let me = Introduction {
        name,
        listen,
        advertise: listen.to_string(),
        region: None,
        zone: None,
        rack: None,
        labels: std::collections::BTreeMap::new(),
        reserved: Default::default(),
        api: Default::default(),
        discoverable: false,
    };
    let began = Instant::now();
    client.join(&Join { address: Some(address), token, me }).await.map_err(|problem| problem.to_string())?;
    until(&data_dir, true).await?;
    Ok(began.elapsed())
}

/// The agent of a folder, once it answers, as a node or as none.
async fn until(data_dir: &Path, is_node: bool) -> Result<Client, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answered = Client::connect(data_dir).await;
        match answered {
            Ok((client, version)) if version.is_node == is_node => return Ok(client),
            Err(problem) if Instant::now() > deadline => return Err(problem.to_string()),
            Ok(_) if Instant::now() > deadline => return Err("it does not become what it should".to_owned()),
            _ => tokio::time::sleep(STEP).await,
        }
    }
}
