//! HTTP through real sockets on loopback.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::{Client, Scene, entry, field, soon, web};
use model::{Balance, Code, ListenAddr, Protocol, StarId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HTTP: Protocol = Protocol::Http;

#[tokio::test]
async fn requests_of_one_connection_go_round_all_stars_evenly() {
    let scene = Scene::new(HTTP).await;
    let stars = [scene.star(1).await, scene.star(2).await, scene.star(3).await];
    scene.publish(&[1, 2, 3]);
    let mut client = scene.client().await;
    for _ in 0..30 {
        assert_eq!(client.get("/").await.0, 200);
    }
    for star in &stars {
        assert_eq!(star.served.load(SeqCst), 10);
    }
    assert_eq!(scene.doors.dials.load(SeqCst), 3, "connections are kept");
    let stats = scene.proxy.stats(&web());
    assert!(stats.values().all(|star| (star.requests, star.in_flight, star.errors) == (10, 0, 0)), "{stats:?}");
}

#[tokio::test]
async fn least_connections_avoids_the_busy_star() {
    let scene = Scene::new(HTTP).await;
    let stars = [scene.star(1).await, scene.star(2).await];
    scene.publish_with(&[1, 2], Balance::LeastConnections);
    let mut waiting = scene.client().await;
    waiting.send("GET /hold HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let busy = tokio::select! {
        () = stars[0].held.notified() => 0,
        () = stars[1].held.notified() => 1,
    };
    let mut client = scene.client().await;
    for _ in 0..10 {
        client.get("/").await;
    }
    assert_eq!(stars[1 - busy].served.load(SeqCst), 10);
    stars[busy].release.notify_one();
    assert_eq!(waiting.receive().await.unwrap().0, 200);
}

#[tokio::test]
async fn without_a_ready_star_the_answer_is_503_and_says_when_to_retry() {
    let scene = Scene::new(HTTP).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let (status, head, body) = client.receive().await.unwrap();
    assert_eq!((status, field(&head, "retry-after")), (503, Some("1")));
    assert_eq!(body, b"no star of `web` is ready\n");
    let star = scene.star(1).await;
    scene.publish(&[1]);
    assert_eq!(client.get("/").await, (200, "1".to_owned()), "the same connection works once there is one");
    drop(star);
}

#[tokio::test]
async fn a_star_that_refuses_is_stepped_over_even_by_a_post() {
    let scene = Scene::new(HTTP).await;
    let _alive = scene.star(2).await;
    let dead = scene.star(1).await;
    dead.kill();
    scene.doors.set(3, 1); // nothing listens on port 1
    scene.publish(&[1, 2, 3]);
    let mut client = scene.client().await;
    for _ in 0..6 {
        client.send("POST /echo HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi").await;
        assert_eq!(client.receive().await.unwrap().2, b"hi");
    }
    assert!(scene.proxy.stats(&web())[&StarId(3)].errors > 0);
}

#[tokio::test]
async fn connections_a_star_closed_at_rest_cost_no_request() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(1).await;
    scene.publish(&[1]);
    let mut client = scene.client().await;
    for method in ["GET", "POST", "GET", "POST"] {
        client.send(&format!("{method} / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(client.receive().await.unwrap().0, 200);
        star.close_connections();
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        assert_eq!(client.get("/once").await.0, 200);
    }
}

#[tokio::test]
async fn a_request_a_star_took_and_dropped_is_an_error_unless_it_may_be_repeated() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    let mut client = scene.client().await;
    client.get("/").await;
    client.send("POST /drop HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!(client.receive().await.unwrap().0, 502);
    client.get("/").await;
    let dials = scene.doors.dials.load(SeqCst);
    assert_eq!(client.get("/drop").await.0, 502, "repeated once, on a fresh connection, and dropped again");
    assert_eq!(scene.doors.dials.load(SeqCst), dials + 1);
    assert!(scene.proxy.stats(&web())[&StarId(1)].errors >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeatable_requests_survive_a_star_that_is_killed_under_load() {
    let scene = Arc::new(Scene::new(HTTP).await);
    let mut stars = vec![scene.star(0).await, scene.star(1).await];
    scene.publish(&[0, 1]);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (scene, done) = (scene.clone(), done.clone());
            tokio::spawn(async move {
                let mut client = scene.client().await;
                let mut answered = 0;
                while !done.load(SeqCst) {
                    assert_eq!(client.get("/").await.0, 200);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 2..12 {
        // Killed without a drain; its ready replacement is published only afterwards.
        stars.remove(0).kill();
        stars.push(scene.star(round).await);
        scene.publish(&[round - 1, round]);
        let served = stars[1].served.clone();
        soon(async {
            while served.load(SeqCst) < 100 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    done.store(true, SeqCst);
    for client in clients {
        assert!(soon(client).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn an_answer_cut_short_is_cut_short_for_the_client_too() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    let mut client = scene.client().await;
    client.send("GET /cut HTTP/1.1\r\nhost: web\r\n\r\n").await;
    assert!(client.receive().await.is_err());
    assert_eq!(scene.proxy.stats(&web())[&StarId(1)].errors, 1);
}

#[tokio::test]
async fn large_bodies_pass_both_ways_unchanged_with_and_without_a_length() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| ((n * 31) >> 7) as u8).collect();
    for chunked in [false, true] {
        let client = scene.client().await;
        let (mut reading, mut writing) = client.0.into_inner().into_split();
        let body = sent.clone();
        let upload = tokio::spawn(async move {
            let head = "POST /echo HTTP/1.1\r\nhost: web\r\nconnection: close\r\n";
            if chunked {
                writing.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
                for chunk in body.chunks(70_001) {
                    writing.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
                    writing.write_all(chunk).await.unwrap();
                    writing.write_all(b"\r\n").await.unwrap();
                }
                writing.write_all(b"0\r\n\r\n").await.unwrap();
            } else {
                writing.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
                writing.write_all(&body).await.unwrap();
            }
            writing
        });
        let mut answer = Vec::new();
        soon(reading.read_to_end(&mut answer)).await.unwrap();
        drop(upload.await.unwrap());
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(answer[end..] == sent, "{} of {} bytes, chunked {chunked}", answer.len() - end, sent.len());
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    let mut client = scene.client().await;
    client.send("POST /echo HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
    let go_on = soon(common::read_head(&mut client.0)).await.unwrap().unwrap();
    assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
    client.send("hi").await;
    assert_eq!(client.receive().await.unwrap().2, b"hi");
}

#[tokio::test]
async fn heads_bodies_and_trailers_come_through_as_they_are() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    let mut client = scene.client().await;
    let (_, head) = client.get("/head?x=1").await;
    assert!(!head.is_empty());
    client.send("GET /head HTTP/1.1\r\nhost: a.example\r\nconnection: x-mine\r\nx-mine: 1\r\nx-kept: 2\r\n\r\n").await;
    let seen = String::from_utf8(client.receive().await.unwrap().2).unwrap();
    assert_eq!(field(&seen, "host"), Some("a.example"));
    assert_eq!((field(&seen, "x-mine"), field(&seen, "x-kept")), (None, Some("2")));
    assert_eq!(field(&seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&seen, "x-forwarded-proto"), Some("http"));
    client.send("GET /chunked HTTP/1.1\r\nhost: web\r\nte: trailers\r\n\r\n").await;
    assert_eq!(client.receive().await.unwrap().2, b"abcde[x-sum: 5]");
    // The length of a HEAD's answer is that of the body it does not have.
    client.send("HEAD /nobody HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let head = soon(common::read_head(&mut client.0)).await.unwrap().unwrap();
    assert_eq!(field(&head, "content-length"), Some("1"));
    assert_eq!(client.get("/").await, (200, "1".to_owned()));
    let stats = scene.proxy.stats(&web())[&StarId(1)];
    assert_eq!((stats.in_flight, stats.errors), (0, 0));
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served_and_its_connection_ended() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    let mut client = scene.client().await;
    client.send("GET /head HTTP/1.0\r\n\r\n").await;
    let (status, _, seen) = client.receive().await.unwrap();
    let seen = String::from_utf8(seen).unwrap();
    assert_eq!((status, field(&seen, "host")), (200, Some("localhost")));
    assert!(seen.starts_with("GET /head HTTP/1.1\r\n"), "{seen}");
    assert!(client.ends().await);
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_that_counts_as_in_flight() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    let mut client = scene.client().await;
    client.send("GET /upgrade HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    let (status, head, _) = client.receive().await.unwrap();
    assert_eq!((status, field(&head, "upgrade")), (101, Some("echo")));
    client.send("there").await;
    let mut text = [0; 8];
    soon(client.0.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"hi there");
    let drained = scene.proxy.drain(&web(), StarId(1));
    assert_eq!(scene.proxy.stats(&web())[&StarId(1)].in_flight, 1);
    drop(client);
    soon(drained).await;
}

#[tokio::test]
async fn malformed_requests_are_refused_and_reach_no_star() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(1).await;
    scene.publish(&[1]);
    let long = format!("GET / HTTP/1.1\r\nhost: web\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /\u{0} HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", 501),
        (&long, 431),
    ] {
        let mut client = scene.client().await;
        // The proxy may answer and close before it has read everything.
        let _ = client.0.get_mut().write_all(request.as_bytes()).await;
        let shown = &request[..request.len().min(60)];
        let (status, ..) = client.receive().await.unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        assert_eq!(status, expected, "{shown:?}");
        assert!(client.ends().await, "{shown:?} ends the connection");
    }
    assert_eq!(star.served.load(SeqCst), 0);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_the_clients_fault() {
    let scene = Scene::new(HTTP).await;
    scene.star(1).await;
    scene.publish(&[1]);
    for chunk in ["ZZ", "ffffffffffffffffff", "-1"] {
        let mut client = scene.client().await;
        client.send(&format!("POST /head HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}\r\nx")).await;
        let (status, ..) = client.receive().await.unwrap();
        assert_eq!(status, 400, "{chunk}");
        assert!(client.ends().await);
    }
    assert_eq!(scene.proxy.stats(&web())[&StarId(1)].errors, 0, "no star is blamed");
}

/// RFC 9112, section 6.3: the coding counts, the length must not be passed on, and the connection ends.
#[tokio::test]
async fn a_length_beside_a_transfer_coding_smuggles_nothing() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(1).await;
    scene.publish(&[1]);
    for lengths in
        ["content-length: 4\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"]
    {
        let mut client = scene.client().await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        client.send(&format!("POST /head HTTP/1.1\r\nhost: a\r\n{lengths}\r\n\r\n1\r\nx\r\n0\r\n\r\n{smuggled}")).await;
        let (status, _, seen) = client.receive().await.unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert_eq!((status, field(&seen, "content-length")), (200, None), "{seen}");
        assert!(client.ends().await);
    }
    assert_eq!(star.served.load(SeqCst), 2);
}

#[tokio::test]
async fn a_drain_waits_for_what_is_in_flight_and_takes_nothing_new() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(1).await;
    scene.publish(&[1]);
    let mut waiting = scene.client().await;
    waiting.get("/").await;
    waiting.send("GET /hold HTTP/1.1\r\nhost: web\r\n\r\n").await;
    soon(star.held.notified()).await;
    let drained = scene.proxy.drain(&web(), StarId(1));
    tokio::pin!(drained);
    assert_eq!(scene.client().await.get("/").await.0, 503, "nothing new");
    let early = std::future::poll_fn(|cx| std::task::Poll::Ready(drained.as_mut().poll(cx).is_ready())).await;
    assert!(!early, "one is in flight");
    star.release.notify_one();
    assert_eq!(waiting.receive().await.unwrap().0, 200);
    soon(drained).await;
    assert!(scene.proxy.stats(&web()).is_empty());
    soon(scene.proxy.drain(&web(), StarId(7))).await;
}

#[tokio::test]
async fn a_star_that_leaves_busy_and_comes_back_is_chosen_again() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(1).await;
    scene.publish(&[1]);
    let mut waiting = scene.client().await;
    waiting.send("GET /hold HTTP/1.1\r\nhost: web\r\n\r\n").await;
    soon(star.held.notified()).await;
    scene.publish(&[]);
    assert_eq!(scene.client().await.get("/").await.0, 503);
    scene.publish(&[1]);
    assert_eq!(scene.client().await.get("/").await.0, 200);
    star.release.notify_one();
    assert_eq!(waiting.receive().await.unwrap().0, 200);
    assert_eq!(scene.proxy.stats(&web())[&StarId(1)].requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_stars_are_replaced_under_load() {
    const CLIENTS: usize = 32;
    const CHANGES: u64 = 50;
    let scene = Arc::new(Scene::new(HTTP).await);
    let mut stars = vec![(1, scene.star(1).await), (2, scene.star(2).await), (3, scene.star(3).await)];
    scene.publish(&[1, 2, 3]);
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (scene, done, answered) = (scene.clone(), done.clone(), answered.clone());
            tokio::spawn(async move {
                let mut client = scene.client().await;
                while !done.load(SeqCst) {
                    let post = format!("POST /echo HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\n\r\n{n:03}");
                    client.send(&post).await;
                    let (status, _, body) = client.receive().await.expect("a keep-alive connection survives");
                    assert_eq!((status, String::from_utf8(body).unwrap()), (200, format!("{n:03}")));
                    answered.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for change in 0..CHANGES {
        let before = answered.load(SeqCst);
        let (old, backend) = stars.remove(0);
        stars.push((change + 4, scene.star(change + 4).await));
        let ids: Vec<u64> = stars.iter().map(|(id, _)| *id).collect();
        scene.publish(&ids);
        soon(scene.proxy.drain(&web(), StarId(old))).await;
        backend.kill();
        // Some traffic between two changes, or they would all happen at once.
        soon(async {
            while answered.load(SeqCst) < before + CLIENTS {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    done.store(true, SeqCst);
    for client in clients {
        soon(client).await.unwrap();
    }
    let stats = scene.proxy.stats(&web());
    assert_eq!(stats.len(), 3, "those that left are forgotten");
    assert!(stats.values().all(|star| star.in_flight == 0 && star.errors == 0), "{stats:?}");
}

#[tokio::test]
async fn unlisten_finishes_what_is_in_flight_and_frees_the_port() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(1).await;
    scene.publish(&[1]);
    let mut resting = scene.client().await;
    resting.get("/").await;
    let mut waiting = scene.client().await;
    waiting.send("GET /hold HTTP/1.1\r\nhost: web\r\n\r\n").await;
    soon(star.held.notified()).await;
    scene.proxy.unlisten(&web());
    assert!(resting.ends().await, "a connection at rest is closed");
    let mut again = entry(HTTP);
    again.listen = ListenAddr::loopback(scene.address.port());
    assert_eq!(scene.proxy.listen(web(), again).await.unwrap(), scene.address);
    star.release.notify_one();
    assert_eq!(waiting.receive().await.unwrap().0, 200);
    assert_eq!(scene.client().await.get("/").await.0, 200);
}

#[tokio::test]
async fn who_was_let_in_before_the_way_closed_is_answered() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    // Accepted, since the next one is served; and one that only the kernel has let in.
    let mut accepted = scene.client().await;
    scene.client().await.get("/").await;
    let mut queued = scene.client().await;
    scene.proxy.unlisten(&web());
    let answers = tokio::join!(accepted.get("/"), queued.get("/"));
    assert_eq!((answers.0.0, answers.1.0), (200, 200));
    assert!(accepted.ends().await && queued.ends().await, "of one request each");
}

#[tokio::test]
async fn who_leaves_waits_for_requests_and_for_nothing_else() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(1).await;
    scene.publish(&[1]);
    let mut resting = scene.client().await;
    resting.get("/").await;
    let mut tunnel = scene.client().await;
    tunnel.send("GET /upgrade HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    assert_eq!(tunnel.receive().await.unwrap().0, 101);
    let _silent = scene.client().await;
    let mut waiting = scene.client().await;
    waiting.send("GET /hold HTTP/1.1\r\nhost: web\r\n\r\n").await;
    soon(star.held.notified()).await;
    let left = tokio::spawn({
        let proxy = Arc::clone(&scene.proxy);
        async move { proxy.leave().await }
    });
    assert!(resting.ends().await);
    while TcpStream::connect(scene.address).await.is_ok() {}
    assert!(!left.is_finished());
    star.release.notify_one();
    assert_eq!(waiting.receive().await.unwrap().0, 200);
    soon(left).await.unwrap();
    tunnel.send("there").await;
    let mut text = [0; 8];
    soon(tunnel.0.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"hi there");
    let again = scene.proxy.listen(web(), entry(HTTP)).await;
    assert_eq!(again.unwrap_err().code, Code::Unavailable, "it has left for good");
}

#[tokio::test]
async fn a_port_in_use_is_refused_and_what_was_open_stays_open() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[1]);
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut wanted = entry(HTTP);
    wanted.listen = ListenAddr::loopback(taken.local_addr().unwrap().port());
    let problem = scene.proxy.listen(web(), wanted).await.unwrap_err();
    assert_eq!(problem.code, Code::PortInUse);
    assert!(problem.message.contains(&format!("pid {}", std::process::id())), "{problem}");
    assert_eq!(scene.client().await.get("/").await.0, 200);

    let other = "other".parse().unwrap();
    let mut same = entry(HTTP);
    same.listen = ListenAddr::loopback(scene.address.port());
    let problem = scene.proxy.listen(model::ServiceKey::in_default(other), same).await.unwrap_err();
    assert!(problem.message.contains("by service `web`"), "{problem}");
}

#[tokio::test]
async fn an_older_set_does_not_replace_a_newer_one() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(1).await;
    scene.publish(&[]);
    scene.publish(&[1]);
    scene.proxy.publish(&web(), model::EndpointSet { generation: 1, ..Default::default() }, Balance::RoundRobin);
    assert_eq!(scene.client().await.get("/").await.0, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_star() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(1).await;
    scene.publish(&[1]);
    let mut client = Client::to(scene.address).await;
    client.send("GET /hold HTTP/1.1\r\nhost: web\r\n\r\n").await;
    soon(star.held.notified()).await;
    drop(client);
    soon(scene.proxy.drain(&web(), StarId(1))).await;
}
