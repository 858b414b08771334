//! Machines that find a constellation on their network, and what an impostor there gets out of it.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::rig::{Machine, Rig, possible};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 79, 46);
const PORT: u16 = 7945;
/// Of a datagram: whether it is an answer.
const KIND: usize = 5;
/// Where the nonce and the cluster's name end: 16 bytes, and `test` after its length.
const ADDRESS: usize = 6 + 16 + 2 + 4;

/// Answers every question with its own address, takes connections, and keeps what it is sent.
struct Impostor {
    heard: Arc<Mutex<(usize, Vec<u8>)>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    fn on(machine: &Machine) -> Self {
        let (namespace, ip) = (machine.namespace(), machine.ip);
        let (heard, stop) = (Arc::new(Mutex::new((0, Vec::new()))), Arc::new(AtomicBool::new(false)));
        let (hearing, stopping) = (Arc::clone(&heard), Arc::clone(&stop));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            namespace.enter();
            let door = TcpListener::bind((ip, 0)).unwrap();
            door.set_nonblocking(true).unwrap();
            let socket = UdpSocket::bind((GROUP, PORT)).unwrap();
            socket.join_multicast_v4(&GROUP, &ip).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let address = SocketAddr::from((ip, door.local_addr().unwrap().port())).to_string();
            ready.send(()).unwrap();
            let mut datagram = [0; 512];
            while !stopping.load(SeqCst) {
                if let Ok((512, from)) = socket.recv_from(&mut datagram) {
                    datagram[KIND] = 1;
                    let said = [&(address.len() as u16).to_be_bytes(), address.as_bytes()].concat();
                    datagram[ADDRESS..ADDRESS + said.len()].copy_from_slice(&said);
                    socket.send_to(&datagram, from).unwrap();
                    hearing.lock().unwrap().0 += 1;
                }
                if let Ok((mut stream, _)) = door.accept() {
                    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                    let mut bytes = vec![0; 1 << 16];
                    if let Ok(length) = stream.read(&mut bytes) {
                        hearing.lock().unwrap().1.extend_from_slice(&bytes[..length]);
                    }
                }
            }
        });
        is_ready.recv().unwrap();
        Self { heard, stop, thread: Some(thread) }
    }

    /// How often it was asked, and all it was sent.
    fn end(mut self) -> (usize, Vec<u8>) {
        self.stop.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

#[test]
#[ignore = "ten seconds: `cargo xtask test cluster`"]
fn a_machine_finds_its_constellation_on_its_network_and_an_impostor_learns_no_token() {
    if !possible() {
        return;
    }
    let rig = Rig::new(4);
    for at in 0..3 {
        rig.start(at);
    }
    let token = rig.init(0, &["--discoverable"]);
    let join = |at: usize| {
        let machine = rig.machine(at);
        machine.rads(&["c", "join", "--discover", "--token", &token, "--name", &machine.name])
    };
    let joined = join(1).ok();
    assert!(joined.starts_with("joined constellation `test`"), "{joined}");
    rig.all_alive_of(&[0, 1], 2);

    // With an impostor that answers as well: the genuine one is found among them.
    let impostor = Impostor::on(rig.machine(3));
    join(2).ok();
    let (asked, sent) = impostor.end();
    let secret = token.rsplit_once('_').unwrap().1.as_bytes();
    let tells = |sent: &[u8]| sent.windows(16).any(|part| part == &secret[..16]);
    assert!(asked > 0 && !tells(&sent), "{asked}");

    // With nobody else: it is believed nothing, and is shown nothing.
    rig.start(3);
    // Two can lose none.
    rig.wait_for("three voters", || rig.machine(0).nodes().iter().filter(|node| node["votes"] == true).count() == 3);
    rig.kill_agent(0);
    let impostor = Impostor::on(rig.machine(2));
    let refused = join(3);
    let (asked, sent) = impostor.end();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(asked > 0 && !sent.is_empty() && !tells(&sent), "{asked} {refused:?}");

    // The control: `b` and `c` are controllers, and were not told to answer.
    join(3).refused("C0104", "no node of constellation `test` answers on this network");
    rig.await_leader(1, Some(0));
    rig.join_at(3, 1, &token);
}
