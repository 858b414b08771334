//! Who uses a constellation while it is hurt: requests to an app that are counted, and writes whose acknowledgements are kept.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::Client;
use model::{AppKey, AppSpec};

use crate::rig::{Rig, get};

/// A web server that tells its star's name.
pub(crate) const HELLO: &str = r#"
turbo name = env.get("STAR_NAME") ?? "?";
turbo server = net.http_server("127.0.0.1", env.get("PORT") ?? 8080);
server.route("/", blast () { return name; }, "GET");
server.serve();
"#;

/// Brings up the service `hello` from one machine, on port 8080 of every one.
#[track_caller]
pub(crate) fn up_hello(rig: &Rig, at: usize, instances: u32) {
    rig.file("hello.rads", HELLO);
    let text = format!(
        "import constellation;\nconstellation.deploy(\"hello\", {{script: \"hello.rads\", port: 8080, instances: {instances}, \
         ram_mb: 48, grace_seconds: 2}});\n"
    );
    let app = rig.file("app.rads", &text);
    rig.machine(at).rads(&["up", "-d", "--yes", app.to_str().unwrap()]).ok();
}

/// Requests to `hello` at one machine, one after another from within it, until it is asked what came of them.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    worker: JoinHandle<Vec<String>>,
}

impl Load {
    pub(crate) fn start(rig: &Rig, at: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let namespace = rig.machine(at).namespace();
        let name = rig.machine(at).name.clone();
        let (stopping, counted) = (Arc::clone(&stop), Arc::clone(&answered));
        let worker = std::thread::spawn(move || {
            namespace.enter();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
            let mut errors = Vec::new();
            let began = Instant::now();
            while !stopping.load(SeqCst) {
                match get(address) {
                    Ok((200, _)) => drop(counted.fetch_add(1, SeqCst)),
                    other => {
                        errors.push(format!("at `{name}` after {:?}: {other:?}", began.elapsed()));
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
            errors
        });
        Self { stop, answered, worker }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    /// How many were answered, and what happened to the others.
    pub(crate) fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, SeqCst);
        let errors = self.worker.join().unwrap();
        (self.answered.load(SeqCst), errors)
    }
}

/// Writes apps that want no stars, one after another, at whichever machine answers; keeps which were acknowledged.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<AppKey>>>,
    worker: JoinHandle<Vec<String>>,
}

impl Writer {
    /// The app `hello` must be there: what is written are copies of it without stars.
    #[track_caller]
    pub(crate) fn start(rig: &Rig) -> Self {
        Self::start_at(rig, &rig.all().collect::<Vec<_>>())
    }

    /// At these machines only.
    #[track_caller]
    pub(crate) fn start_at(rig: &Rig, at: &[usize]) -> Self {
        let folders: Vec<PathBuf> = at.iter().map(|at| rig.machine(*at).data().to_owned()).collect();
        let hello = rig.machine(0).json(&["c", "status"]);
        assert!(hello["services"].as_array().is_some_and(|services| !services.is_empty()), "{hello}");
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopping, kept) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (client, _) = Client::connect(&folders[0]).await.unwrap();
                let like = client.app(&"hello".parse().unwrap()).await.unwrap().spec;
                let mut refusals = Vec::new();
                let mut number = 0;
                while !stopping.load(SeqCst) {
                    number += 1;
                    let spec = empty_like(&like, number);
                    let key = spec.app.clone();
                    let folder = &folders[number as usize % folders.len()];
                    let write = async {
                        let (client, _) = Client::connect(folder).await?;
                        client.put_app(spec, None).await
                    };
                    match tokio::time::timeout(Duration::from_secs(15), write).await {
                        Ok(Ok(_)) => kept.lock().unwrap().push(key),
                        Ok(Err(problem)) => refusals.push(format!("{key}: {problem}")),
                        Err(_) => refusals.push(format!("{key}: no answer within 15 s")),
                    }
                }
                refusals
            })
        });
        Self { stop, acknowledged, worker }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// What was acknowledged, and what was not and why.
    pub(crate) fn end(self) -> (Vec<AppKey>, Vec<String>) {
        self.stop.store(true, SeqCst);
        let refusals = self.worker.join().unwrap();
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        (acknowledged, refusals)
    }
}

fn empty_like(like: &AppSpec, number: u32) -> AppSpec {
    let mut service = like.services.values().next().expect("a service").clone();
    (service.instances, service.entry) = (0, None);
    let name: model::Name = format!("w-{number}").parse().unwrap();
    AppSpec { app: AppKey::in_default(name.clone()), services: [(name, service)].into() }
}

/// Every app that was acknowledged is there, at every machine that runs.
#[track_caller]
pub(crate) fn none_lost(rig: &Rig, acknowledged: &[AppKey]) {
    rig.up().for_each(|at| has_all(rig, at, acknowledged));
}

/// Every app that was acknowledged is there, at one machine.
#[track_caller]
pub(crate) fn has_all(rig: &Rig, at: usize, acknowledged: &[AppKey]) {
    let machine = rig.machine(at);
    rig.wait_for(&format!("every acknowledged write at `{}`", machine.name), || {
        let status = machine.rads(&["c", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status.out).unwrap_or_default();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let there: std::collections::BTreeSet<&str> =
            services.iter().filter_map(|service| service["app"].as_str()).collect();
        acknowledged.iter().all(|key| there.contains(key.to_string().as_str()))
    });
}
