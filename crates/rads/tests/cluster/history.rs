//! What clients at any node saw while machines were killed and cut off, checked to be explicable by one copy that does one thing
//! after another. The registers are variables of services that want no stars: real changes, real reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use api::Client;
use model::{AppKey, Problem};
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

use crate::clients::up_hello;
use crate::rig::{Rig, possible};

type Op = RegisterOp<u32>;
type Ret = RegisterRet<u32>;

/// What each register begins with.
const FIRST: u32 = 3;
/// Looking at one takes time that grows fast with the requests that were not answered: many have few each.
const REGISTERS: usize = 16;
const VARIABLE: &str = "VALUE";

/// One request of one client, between two ticks of a clock that all share; without a return it may have been done or not.
#[derive(Debug)]
struct Event {
    client: u64,
    register: usize,
    op: Op,
    invoked: u64,
    returned: Option<(u64, Ret)>,
}

/// Each register by itself: a history is linearizable when every one of its objects' is.
fn is_linearizable(events: &[Event], register: usize) -> bool {
    let mut tester = LinearizabilityTester::new(Register(FIRST));
    let mut moments: BTreeMap<u64, (u64, Result<&Op, &Ret>)> = BTreeMap::new();
    for event in events.iter().filter(|event| event.register == register) {
        moments.insert(event.invoked, (event.client, Ok(&event.op)));
        if let Some((at, ret)) = &event.returned {
            moments.insert(*at, (event.client, Err(ret)));
        }
    }
    for (client, moment) in moments.into_values() {
        match moment {
            Ok(op) => tester.on_invoke(client, op.clone()).map(|_| ()).unwrap(),
            Err(ret) => tester.on_return(client, ret.clone()).map(|_| ()).unwrap(),
        }
    }
    // It goes as deep as there are operations.
    let checking = std::thread::Builder::new().stack_size(512 << 20).spawn(move || tester.is_consistent());
    checking.unwrap().join().unwrap()
}

/// The next of a sequence that a seed decides.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn register(number: usize) -> AppKey {
    format!("r-{number}").parse().unwrap()
}

async fn write(folder: &Path, number: usize, value: u32) -> Result<Ret, Problem> {
    let (client, _) = Client::connect(folder).await?;
    let mut spec = client.app(&register(number)).await?.spec;
    for service in spec.services.values_mut() {
        service.template.env.insert(VARIABLE.to_owned(), value.to_string());
    }
    client.put_app(spec, None).await.map(|_| Ret::WriteOk)
}

/// Of what the node has, once that is what was acknowledged by now or newer.
async fn read(folder: &Path, number: usize) -> Result<Ret, Problem> {
    let (client, _) = Client::connect(folder).await?;
    client.agreed().await?;
    read_old(folder, number).await
}

/// Of what the node has, however old.
async fn read_old(folder: &Path, number: usize) -> Result<Ret, Problem> {
    let (client, _) = Client::connect(folder).await?;
    let spec = client.app(&register(number)).await?.spec;
    let value = spec.services.values().find_map(|service| service.template.env.get(VARIABLE)?.parse().ok());
    value.map(Ret::ReadOk).ok_or_else(|| Problem::new(model::Code::Internal, "a register without a value"))
}

async fn client(folders: Vec<PathBuf>, mut seed: u64, clock: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Event> {
    let mut events = Vec::new();
    let mut id = seed << 20;
    while !stop.load(SeqCst) {
        let number = random(&mut seed) as usize % REGISTERS;
        let value = (clock.fetch_add(1, SeqCst) % 9_000) as u32 + 4;
        let folder = &folders[random(&mut seed) as usize % folders.len()];
        let op = if random(&mut seed).is_multiple_of(2) { Op::Write(value) } else { Op::Read };
        let invoked = clock.fetch_add(1, SeqCst);
        let asked = async {
            match op {
                Op::Write(value) => write(folder, number, value).await,
                Op::Read => read(folder, number).await,
            }
        };
        let ret = tokio::time::timeout(Duration::from_secs(20), asked).await;
        let returned = clock.fetch_add(1, SeqCst);
        match (ret, &op) {
            (Ok(Ok(ret)), _) => {
                events.push(Event { client: id, register: number, op, invoked, returned: Some((returned, ret)) });
            }
            // Nothing was done, it says: that it was not is looked at with all the rest.
            (Ok(Err(problem)), Op::Write(_)) if !problem.changed => {}
            // It may be done at any time from now on: this client is never heard of again, another takes its place.
            (_, Op::Write(_)) => {
                events.push(Event { client: id, register: number, op, invoked, returned: None });
                id += 1;
            }
            (_, Op::Read) => {}
        }
        // The check takes time that grows with the square of what there is to look at.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    events
}

/// Brings up the registers: apps that want no stars.
fn registers(rig: &Rig) {
    up_hello(rig, 0, 1);
    let folder = rig.machine(0).data().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, _) = Client::connect(&folder).await.unwrap();
        let like = client.app(&"hello".parse().unwrap()).await.unwrap().spec;
        let mut service = like.services.values().next().unwrap().clone();
        service.entry = None;
        service.instances = 0;
        service.template.env.insert(VARIABLE.to_owned(), FIRST.to_string());
        for number in 0..REGISTERS {
            let name: model::Name = format!("r-{number}").parse().unwrap();
            let services = [(name.clone(), service.clone())].into();
            client.put_app(model::AppSpec { app: AppKey::in_default(name), services }, None).await.unwrap();
        }
    });
}

#[test]
#[ignore = "two minutes: `cargo xtask test cluster`"]
fn what_clients_at_any_node_saw_under_faults_is_linearizable() {
    if !possible() {
        return;
    }
    let seed = std::env::var("RADS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let rig = Rig::new(3);
    rig.constellation();
    registers(&rig);
    let folders: Vec<PathBuf> = rig.all().map(|at| rig.machine(at).data().to_owned()).collect();
    let (clock, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let clients: Vec<_> = (1..=4)
        .map(|number| runtime.spawn(client(folders.clone(), seed * 100 + number, clock.clone(), stop.clone())))
        .collect();
    let (mut chance, mut faults) = (seed, BTreeMap::<&str, u32>::new());
    let until = Instant::now() + Duration::from_secs(40);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(500 + random(&mut chance) % 2_000));
        let victim = random(&mut chance) as usize % 3;
        let others: Vec<usize> = rig.all().filter(|at| *at != victim).collect();
        let fault = match random(&mut chance) % 5 {
            0 => {
                rig.kill_agent(victim);
                rig.start(victim);
                "killed and started"
            }
            1 => {
                rig.cut(&[victim], &others);
                "cut off"
            }
            2 => {
                rig.cut_one_way(victim, others[0]);
                "made mute to one"
            }
            _ => {
                rig.heal();
                "healed"
            }
        };
        *faults.entry(fault).or_default() += 1;
    }
    rig.heal();
    stop.store(true, SeqCst);
    let mut events = Vec::new();
    for client in clients {
        events.extend(runtime.block_on(client).unwrap());
    }
    let unknown = events.iter().filter(|event| event.returned.is_none()).count();
    println!("seed {seed}: {} operations, {unknown} without an answer, faults {faults:?}", events.len());
    assert!(events.len() > 50, "the faults left nothing to look at");
    for register in 0..REGISTERS {
        assert!(is_linearizable(&events, register), "seed {seed}, register {register}: {events:?}");
    }
}

/// The control: the same look at what a node that was cut off reads by itself; and asking whether it is old refuses it.
#[test]
#[ignore = "a minute: `cargo xtask test cluster`"]
fn what_a_node_that_is_cut_off_has_is_old_and_asking_says_so() {
    if !possible() {
        return;
    }
    let rig = Rig::new(3);
    rig.constellation();
    registers(&rig);
    let folders: Vec<PathBuf> = rig.all().map(|at| rig.machine(at).data().to_owned()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let leader = rig.await_leader(0, None);
    let others: Vec<usize> = rig.all().filter(|at| *at != leader).collect();
    runtime.block_on(write(&folders[leader], 0, 10)).unwrap();
    rig.cut(&[leader], &others);
    let chosen = rig.await_leader(others[0], Some(leader));
    runtime.block_on(write(&folders[chosen], 0, 11)).unwrap();
    let old = runtime.block_on(read_old(&folders[leader], 0)).unwrap();
    let event = |client, op, at, ret| Event { client, register: 0, op, invoked: at, returned: Some((at + 1, ret)) };
    let mut events = vec![
        event(1, Op::Write(10), 0, Ret::WriteOk),
        event(1, Op::Write(11), 2, Ret::WriteOk),
        event(2, Op::Read, 4, old),
    ];
    assert!(!is_linearizable(&events, 0), "{events:?}");
    let refused = runtime.block_on(read(&folders[leader], 0)).unwrap_err();
    assert_eq!(refused.code, model::Code::Unavailable, "{refused}");
    rig.heal();
    let mut new = None;
    rig.wait_for("it to know", || {
        new = runtime.block_on(read(&folders[leader], 0)).ok();
        new.is_some()
    });
    events.pop();
    events.push(event(2, Op::Read, 4, new.unwrap()));
    assert!(is_linearizable(&events, 0), "{events:?}");
}
