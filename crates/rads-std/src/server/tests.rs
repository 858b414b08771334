//! The server against raw sockets: what clients may do wrong, and what stopping does. The app answers with what it
//! was asked, so no script is needed. Bounds are short; every wait ends with an event, or fails at a deadline.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as Client};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use tokio::sync::Semaphore;

use super::*;

/// Answers with method, path, parameters and body; the route `/hold` waits until the test lets it go.
#[derive(Clone)]
struct Mirror {
    held: Rc<Semaphore>,
    entered: mpsc::Sender<()>,
}

impl App for Mirror {
    type Target = &'static str;

    async fn answer(&self, targets: Vec<&'static str>, call: Call) -> Reply {
        if targets.contains(&"hold") {
            let _ = self.entered.send(());
            let _permit = self.held.acquire().await;
        }
        let body = String::from_utf8_lossy(&call.body);
        reply::text(StatusCode::OK, format!("{} {} {:?} {body}", call.head.method, call.head.uri.path(), call.params))
    }
}

struct Server {
    address: SocketAddr,
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
    entered: mpsc::Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

enum Order {
    Stop,
    Release,
}

impl Server {
    fn start(bounds: Bounds) -> Server {
        let (ready, address) = mpsc::channel();
        let (orders, mut incoming) = tokio::sync::mpsc::unbounded_channel();
        let (entering, entered) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .expect("a runtime");
            runtime.block_on(async move {
                let site = Rc::new(Site::new(bounds));
                for (pattern, method, target) in [
                    ("/", None, "root"),
                    ("/p/:id", Some("GET"), "p"),
                    ("/post", Some("POST"), "post"),
                    ("/hold", None, "hold"),
                ] {
                    site.route(pattern, method, target).expect("a good pattern");
                }
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
                ready.send(listener.local_addr().expect("bound")).expect("the test waits");
                let mirror = Mirror { held: Rc::new(Semaphore::new(0)), entered: entering };
                let held = Rc::clone(&mirror.held);
                let lifeline = Lifeline::new();
                spawn_local(listen(site, mirror, listener, lifeline.clone()));
                while let Some(order) = incoming.recv().await {
                    match order {
                        Order::Release => held.add_permits(1000),
                        Order::Stop => lifeline.stop(),
                    }
                    if matches!(order, Order::Stop) {
                        break;
                    }
                }
                spawn_local(async move {
                    while let Some(Order::Release) = incoming.recv().await {
                        held.add_permits(1000);
                    }
                });
                lifeline.ended().await;
            });
        });
        let address = address.recv().expect("the server starts");
        Server { address, orders, entered, thread: Some(thread) }
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.address).expect("connected");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        client
    }

    /// Sends `request`, ends the sending side, and returns everything that comes back.
    fn exchange(&self, request: &[u8]) -> String {
        let mut client = self.connect();
        client.write_all(request).expect("sent");
        client.shutdown(Shutdown::Write).expect("shut");
        read_to_end(&mut client)
    }

    fn order(&self, order: Order) {
        assert!(self.orders.send(order).is_ok(), "the server runs");
    }

    fn join(mut self) {
        self.thread.take().expect("joined once").join().expect("the server ends well");
    }
}

fn read_to_end(client: &mut Client) -> String {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an answer before the deadline");
    String::from_utf8(answer).expect("text")
}

/// One reply with `Content-Length`.
fn read_reply(client: &mut Client) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).expect("a reply");
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).expect("text");
    let length = head
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next().and_then(|number| number.parse().ok()));
    let mut body = vec![0; length.expect("a length")];
    client.read_exact(&mut body).expect("the body");
    head + &String::from_utf8(body).expect("text")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[test]
fn requests_are_answered_and_pipelined_ones_in_order() {
    let server = Server::start(Bounds::default());
    let answer = server.exchange(b"GET /p/a%20b HTTP/1.1\r\nhost: x\r\n\r\nPOST /post HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: x\r\n\r\n");
    let order: Vec<usize> = ["GET /p/a%20b [(\"id\", \"a b\")]", "POST /post [] abc", "GET / []"]
        .iter()
        .map(|part| answer.find(part).unwrap_or_else(|| panic!("{part} in {answer}")))
        .collect();
    assert!(order.is_sorted());
}

#[test]
fn the_servers_own_answers() {
    let server = Server::start(Bounds { body_bytes: 10, ..Bounds::default() });
    let long_header = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    for (request, expected) in [
        ("GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
        ("PUT /post HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "405"),
        ("POST /post HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\n0123456789", "200"),
        ("POST /post HTTP/1.1\r\nhost: x\r\ncontent-length: 11\r\n\r\n01234567890", "413"),
        (
            "POST /post HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n",
            "413",
        ),
        (
            "POST /post HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "200",
        ),
        ("POST /post HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "400"),
        ("POST /post HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", "400"),
        ("nonsense\r\n\r\n", "400"),
        ("GET / HTTP/9.9\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n", "400"),
        (&long_header, "431"),
        (&many_headers, "431"),
        ("GET / HTTP/1.0\r\n\r\n", "200"),
    ] {
        let answer = server.exchange(request.as_bytes());
        assert_eq!(status(&answer), expected, "{}…: {answer}", &request[..request.len().min(60)]);
    }
    let refused = server.exchange(b"PUT /post HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(refused.contains("allow: POST"), "{refused}");
}

#[test]
fn head_has_the_length_but_not_the_body() {
    let server = Server::start(Bounds::default());
    let answer = server.exchange(b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.contains("content-length: 10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn a_refused_client_that_keeps_sending_still_reads_the_answer() {
    let server = Server::start(Bounds { body_bytes: 1000, ..Bounds::default() });
    let mut client = server.connect();
    client.write_all(b"POST /post HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n").expect("sent");
    // Far more than socket buffers hold; the server reads and forgets it.
    let sent = client.write_all(&vec![b'x'; 2_000_000]);
    let answer = read_to_end(&mut client);
    assert_eq!(status(&answer), "413", "{answer} {sent:?}");
}

#[test]
fn a_request_that_does_not_arrive_in_time_is_answered_with_408() {
    let short = Duration::from_millis(100);
    let server = Server::start(Bounds { header_read: short, body_read: short, ..Bounds::default() });
    for part in ["GET / HT", "POST /post HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab"] {
        let mut client = server.connect();
        client.write_all(part.as_bytes()).expect("sent");
        let answer = read_to_end(&mut client);
        assert_eq!(status(&answer), "408", "{part}: {answer}");
    }
    let mut idle = server.connect();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    assert_eq!(status(&read_reply(&mut idle)), "200");
    assert_eq!(read_to_end(&mut idle), "", "an idle connection is closed without a word");
}

#[test]
fn requests_in_flight_do_not_hold_up_others() {
    let server = Server::start(Bounds::default());
    let mut held: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for client in &mut held {
        client.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    }
    for _ in &held {
        server.entered.recv_timeout(Duration::from_secs(10)).expect("every request is in its handler");
    }
    assert_eq!(status(&server.exchange(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")), "200");
    server.order(Order::Release);
    for client in &mut held {
        assert_eq!(status(&read_reply(client)), "200");
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("kept alive");
        assert_eq!(status(&read_reply(client)), "200");
    }
}

#[test]
fn over_the_bound_a_connection_waits_for_another_to_end() {
    let server = Server::start(Bounds { connections: 1, ..Bounds::default() });
    let mut first = server.connect();
    first.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    server.entered.recv_timeout(Duration::from_secs(10)).expect("in the handler");
    let mut second = server.connect();
    second.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    assert!(server.entered.recv_timeout(Duration::from_millis(100)).is_err(), "the second is not accepted");
    server.order(Order::Release);
    read_reply(&mut first);
    drop(first);
    assert_eq!(status(&read_to_end(&mut second)), "200");
}

#[test]
fn stopping_ends_idle_connections_and_finishes_requests_in_flight() {
    let server = Server::start(Bounds::default());
    let mut idle = server.connect();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    read_reply(&mut idle);
    let mut fresh = server.connect();
    let mut busy = server.connect();
    busy.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    server.entered.recv_timeout(Duration::from_secs(10)).expect("in the handler");

    server.order(Order::Stop);
    assert_eq!(read_to_end(&mut idle), "");
    fresh.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    assert_eq!(status(&read_to_end(&mut fresh)), "200", "its first request was on the way");
    let deadline = Instant::now() + Duration::from_secs(10);
    while Client::connect(server.address).is_ok() {
        assert!(Instant::now() < deadline, "somebody still listens");
    }
    server.order(Order::Release);
    let answer = read_to_end(&mut busy);
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("connection: close"), "{answer}");
    server.join();
}
