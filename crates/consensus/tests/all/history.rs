//! What clients saw while voters were killed and cut off, checked to be explicable by one copy that does one thing after
//! another. The registers are numbers of instances: real commands, real reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::{Cluster, SOON, register, scale};
use consensus::{Consensus, Refusal};
use model::NodeId;
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};
use tokio::sync::Mutex;

type Op = RegisterOp<u32>;
type Ret = RegisterRet<u32>;

/// One request of one client, between two ticks of a clock that all share; without a return it may have been done or not.
#[derive(Debug)]
struct Event {
    client: u64,
    register: u64,
    op: Op,
    invoked: u64,
    returned: Option<(u64, Ret)>,
}

/// Each register by itself: a history is linearizable when every one of its objects' is.
fn is_linearizable(events: &[Event], register: u64) -> bool {
    let mut tester = LinearizabilityTester::new(Register(3));
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

async fn read(voter: &Consensus, number: u64) -> Result<u32, Refusal> {
    voter.read_index().await?;
    Ok(register(&voter.state(), number))
}

/// One client: a write or a read of one register at any voter, again and again.
async fn client(cluster: Arc<Mutex<Cluster>>, mut seed: u64, clock: Arc<AtomicU64>, until: Instant) -> Vec<Event> {
    let mut events = Vec::new();
    let mut id = seed << 20;
    while Instant::now() < until {
        let (number, value) = (random(&mut seed) % 3, (clock.fetch_add(1, SeqCst) % 9_000) as u32 + 4);
        let voter = {
            let cluster = cluster.lock().await;
            let all = cluster.all();
            let any = all[random(&mut seed) as usize % all.len()];
            let node = cluster.leader_now().filter(|_| !random(&mut seed).is_multiple_of(4)).unwrap_or(any);
            cluster.voter(node).clone()
        };
        let op = if random(&mut seed).is_multiple_of(2) { Op::Write(value) } else { Op::Read };
        let invoked = clock.fetch_add(1, SeqCst);
        let ret = match op {
            Op::Write(value) => voter.propose(&scale(number, value)).await.map(|_| Ret::WriteOk),
            Op::Read => read(&voter, number).await.map(Ret::ReadOk),
        };
        let returned = clock.fetch_add(1, SeqCst);
        match ret {
            Ok(ret) => {
                events.push(Event { client: id, register: number, op, invoked, returned: Some((returned, ret)) });
            }
            // It may be done at any time from now on: this client is never heard of again, another takes its place.
            Err(Refusal::Unknown(_)) => {
                events.push(Event { client: id, register: number, op, invoked, returned: None });
                id += 1;
            }
            Err(_) => {}
        }
        // The check takes time that grows with the square of what there is to look at.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    events
}

async fn history_under_faults(seed: u64, seconds: u64) -> Vec<Event> {
    let cluster = Cluster::start(3).await;
    let net = Arc::clone(&cluster.net);
    let cluster = Arc::new(Mutex::new(cluster));
    let clock = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    let clients = (1..=4)
        .map(|number| tokio::spawn(client(Arc::clone(&cluster), seed * 100 + number, Arc::clone(&clock), until)));
    let clients: Vec<_> = clients.collect();
    let mut chance = seed;
    let mut faults = BTreeMap::<&str, u32>::new();
    while Instant::now() < until {
        let pause = Duration::from_millis(200 + random(&mut chance) % 600);
        tokio::time::sleep(pause).await;
        let mut cluster = cluster.lock().await;
        let all = cluster.all();
        let one = all[random(&mut chance) as usize % all.len()];
        let victim = cluster.leader_now().filter(|_| random(&mut chance).is_multiple_of(2)).unwrap_or(one);
        let others: Vec<NodeId> = all.iter().copied().filter(|node| *node != victim).collect();
        let fault = match random(&mut chance) % 8 {
            0 => {
                cluster.kill(victim).await;
                cluster.up(victim).await;
                "killed and restarted"
            }
            1 => {
                net.cut(&[victim], &others);
                "cut off"
            }
            2 => {
                net.cut_one_way(victim, others[0]);
                "made mute to one"
            }
            3 => {
                others.iter().for_each(|other| net.cut_one_way(*other, victim));
                "made deaf"
            }
            4 => {
                let _ = cluster.voter(victim).transfer_leadership(None).await;
                "told to hand over"
            }
            _ => {
                net.heal();
                "healed"
            }
        };
        *faults.entry(fault).or_default() += 1;
    }
    net.heal();
    let mut events = Vec::new();
    for client in clients {
        events.extend(client.await.unwrap());
    }
    cluster.lock().await.settle().await;
    let unknown = events.iter().filter(|event| event.returned.is_none()).count();
    println!("seed {seed}: {} operations, {unknown} without an answer, faults {faults:?}", events.len());
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_saw_under_faults_is_linearizable() {
    // `RADS_SEEDS=20` looks at more of them.
    let seeds = std::env::var("RADS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for seed in 1..=seeds {
        let events = history_under_faults(seed, 8).await;
        assert!(events.len() > 50, "the faults left nothing to look at: {}", events.len());
        for register in 0..3 {
            assert!(is_linearizable(&events, register), "seed {seed}, register {register}: {events:?}");
        }
    }
}

/// The control: the same look at a history made by reading what a cut-off voter has, without asking whether it is old.
#[tokio::test(flavor = "multi_thread")]
async fn reading_without_asking_is_found_out() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let others: Vec<NodeId> = cluster.all().into_iter().filter(|node| *node != leader).collect();
    cluster.propose(&scale(1, 10)).await;
    cluster.net.cut(&[leader], &others);
    cluster.propose_to(&others, &scale(1, 11)).await;
    let old = register(&cluster.voter(leader).state(), 1);
    let event = |client, op, at, ret| Event { client, register: 1, op, invoked: at, returned: Some((at + 1, ret)) };
    let written = |values: &[u32]| -> Vec<Event> {
        let write = |(at, value): (u64, &u32)| event(1, Op::Write(*value), 2 * at, Ret::WriteOk);
        (0..).zip(values).map(write).collect()
    };
    let mut events = written(&[10, 11]);
    events.push(event(2, Op::Read, 10, Ret::ReadOk(old)));
    assert!(!is_linearizable(&events, 1), "{events:?}");
    // Asking refuses it, and says what is new once the voter is back.
    let end = Instant::now() + SOON;
    if let Ok(value) = read(cluster.voter(leader), 1).await {
        panic!("the leader of before reads {value} by itself");
    }
    cluster.net.heal();
    let value = loop {
        match read(cluster.voter(cluster.leader().await), 1).await {
            Ok(value) => break value,
            Err(refusal) => assert!(Instant::now() < end, "{refusal:?}"),
        }
    };
    let mut events = written(&[10, 11]);
    events.push(event(2, Op::Read, 10, Ret::ReadOk(value)));
    assert!(is_linearizable(&events, 1), "{events:?}");
}
