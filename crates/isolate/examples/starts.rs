//! Figures of a star's start, memory and stop, from a client's side: `cargo run --release -p isolate --example starts
//! [STARS]`. Lines are `name value unit note`; nothing is asserted.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isolate::{Client, Launch, Message, NurseryConfig, Request, ScriptStart, StarEntry, StarOrder, protocol};
use model::units::{Bytes, Millicores};
use model::{Limits, Network, StarId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "nursery") {
        // About what a loaded RADS virtual machine holds.
        let heap = vec![7u8; 20 << 20];
        std::hint::black_box(&heap);
        let entry = StarEntry { run: idle, rehearse: || {} };
        isolate::serve(NurseryConfig { data_dir: PathBuf::from(&args[2]) }, entry).expect("the nursery runs");
        return;
    }
    let stars = args.get(1).map_or(100, |count| count.parse().expect("a number of stars"));
    let folder = std::env::temp_dir().join(format!("isolate-bench-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("bundle")).expect("a folder");
    measure(&folder, stars);
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// The star: it lives and does nothing.
fn idle(_: ScriptStart<'_>) -> i32 {
    loop {
        std::thread::park();
    }
}

fn measure(folder: &Path, count: u64) {
    let exe = std::env::current_exe().expect("a program has a path");
    let data = folder.join("data");
    std::fs::create_dir_all(&data).expect("a folder");
    isolate::launch_detached(&exe, &["nursery".into(), data.clone().into()], &folder.join("nursery.log"))
        .expect("starts");
    let client = connect(&data);
    send(&client, &Request::Hello { version: protocol::VERSION });
    let Message::Welcome { walls, pid, .. } = wait(&client) else { panic!("no welcome") };
    println!("# walls {walls:?}");
    let script = || Launch::Script { path: "idle.rads".to_owned() };
    let command = || Launch::Command { argv: vec!["sleep".to_owned(), "1000000".to_owned()] };
    let mut next = 0;
    // One at a time with a pause, so that spares are ready; then back to back.
    for (name, pause, launch) in
        [("script", 10, &script as &dyn Fn() -> Launch), ("script back to back", 0, &script), ("native", 10, &command)]
    {
        let mut client_side = Vec::new();
        let mut nursery_side = Vec::new();
        for _ in 0..count {
            next += 1;
            let begun = Instant::now();
            let star = StarId(next);
            send(&client, &Request::Start(Box::new(order(star, folder, launch()))));
            match wait(&client) {
                Message::Started { elapsed_us, .. } => nursery_side.push(elapsed_us),
                other => panic!("{other:?}"),
            }
            client_side.push(begun.elapsed().as_micros() as u64);
            end(&client, star);
            std::thread::sleep(Duration::from_millis(pause));
        }
        print(&format!("start {name}, request to program"), nursery_side);
        print(&format!("start {name}, seen by the client"), client_side);
    }
    next += 1;
    doors(&client, order(StarId(next), folder, script()));
    crowd(&client, folder, &data, pid, count, &mut next, "script", &script);
    crowd(&client, folder, &data, pid, count, &mut next, "native", &command);
    send(&client, &Request::Shutdown);
    while client.try_recv().map_err(|error| error.kind()).err() != Some(io::ErrorKind::UnexpectedEof) {
        std::thread::yield_now();
    }
}

/// Sockets made inside a star's network and handed over, one at a time.
fn doors(client: &Client, order: StarOrder) {
    let star = order.star;
    send(client, &Request::Start(Box::new(order)));
    assert!(matches!(wait(client), Message::Started { .. }));
    let door = |token| {
        let begun = Instant::now();
        send(client, &Request::Door { star, token, count: 1 });
        assert!(matches!(wait(client), Message::Doors { problem: None, .. }));
        begun.elapsed().as_micros() as u64
    };
    print("door, seen by the client", (0..1000).map(door).collect());
    end(client, star);
}

#[allow(clippy::too_many_arguments)]
fn crowd(
    client: &Client,
    folder: &Path,
    data: &Path,
    nursery: u32,
    count: u64,
    next: &mut u64,
    name: &str,
    launch: &dyn Fn() -> Launch,
) {
    let stars: Vec<StarId> = (*next + 1..=*next + count).map(StarId).collect();
    *next += count;
    let before = pss(nursery);
    let begun = Instant::now();
    let mut pids = Vec::new();
    for &star in &stars {
        send(client, &Request::Start(Box::new(order(star, folder, launch()))));
    }
    for _ in &stars {
        match wait(client) {
            Message::Started { pid, .. } => pids.push(pid),
            other => panic!("{other:?}"),
        }
    }
    println!("start {count} {name} stars at once {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    let mut charged = 0;
    for &star in &stars {
        charged += isolate::stats(data, star).expect("it runs").memory_bytes.unwrap_or(0);
    }
    // The nursery's own share shrinks while others share its pages.
    let added = (pids.iter().flat_map(|&pid| family(pid)).map(pss).sum::<u64>() + pss(nursery)) as f64 - before as f64;
    println!("memory of one {name} star, PSS {:.3} MB", added / count as f64 / 1e6);
    println!("memory of one {name} star, charged to its group {:.3} MB", charged as f64 / count as f64 / 1e6);
    let begun = Instant::now();
    for &star in &stars {
        send(client, &Request::Kill { star });
    }
    for _ in &stars {
        assert!(matches!(wait(client), Message::Exited { .. }));
    }
    println!("stop {count} {name} stars {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    for &star in &stars {
        send(client, &Request::Forget { star });
    }
}

fn end(client: &Client, star: StarId) {
    send(client, &Request::Kill { star });
    assert!(matches!(wait(client), Message::Exited { .. }));
    send(client, &Request::Forget { star });
}

fn order(star: StarId, folder: &Path, launch: Launch) -> StarOrder {
    StarOrder {
        star,
        generation: 1,
        hostname: "bench".to_owned(),
        launch,
        args: Vec::new(),
        before: Vec::new(),
        env: BTreeMap::new(),
        bundle: folder.join("bundle"),
        root: None,
        volumes: Vec::new(),
        limits: Limits {
            cpu: Some(Millicores(500)),
            memory: Some(Bytes::mib(64)),
            pids: Some(64),
            ..Limits::UNLIMITED
        },
        network: Network::None,
        interior: Default::default(),
        weakened: Default::default(),
        memory: None,
        beginning: None,
    }
}

fn connect(data: &Path) -> Client {
    loop {
        match Client::connect(data) {
            Ok(client) => return client,
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Sends, however full the socket is.
fn send(client: &Client, request: &Request) {
    while let Err(error) = client.try_send(request, &[]) {
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        std::thread::yield_now();
    }
}

fn wait(client: &Client) -> Message {
    loop {
        match client.try_recv() {
            Ok((message, _)) => return message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
                let ready = poll(&mut [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN)], Some(&deadline));
                assert_eq!(ready, Ok(1), "the nursery does not answer");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([pid]).collect()
}

/// Memory of a process with shared pages divided among those who share them. 0 for one that may not be looked at, as a
/// star's init without privileges.
fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn print(name: &str, mut values: Vec<u64>) {
    values.sort_unstable();
    let at = |part: f64| values[((values.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    println!("{name} median {:.2} ms, p99 {:.2}, least {:.2}", at(0.5), at(0.99), at(0.0));
}
