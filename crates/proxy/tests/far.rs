//! Stars on other machines, through real sockets on loopback.

mod common;

use std::sync::atomic::Ordering::SeqCst;

use common::{Client, Scene, soon, web};
use model::{Balance, Protocol, StarId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HTTP: Protocol = Protocol::Http;

#[tokio::test]
async fn stars_of_this_machine_serve_first_and_others_when_there_is_none() {
    let scene = Scene::new(HTTP).await;
    let near = [scene.star(1).await, scene.star(2).await];
    let far = scene.star(100).await;
    let mut client = scene.client().await;
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        scene.publish_with(&[1, 2, 100], balance);
        for _ in 0..10 {
            assert_eq!(client.get("/").await.0, 200);
        }
    }
    assert_eq!(near.each_ref().map(|star| star.served.load(SeqCst)), [10, 10]);
    assert_eq!(far.served.load(SeqCst), 0);
    scene.publish(&[100]);
    assert_eq!(client.get("/").await, (200, "100".to_owned()));
    client.send("POST /echo HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!(client.receive().await.unwrap().2, b"hi");
}

#[tokio::test]
async fn one_on_trial_elsewhere_gets_its_share_until_it_drains() {
    let scene = Scene::new(HTTP).await;
    let near = [scene.star(1).await, scene.star(2).await, scene.star(3).await];
    let far = scene.star(100).await;
    let mut client = scene.client().await;
    scene.publish_on_trial(&[1, 2, 3, 100], &[100], Balance::RoundRobin);
    for _ in 0..20 {
        assert_eq!(client.get("/").await.0, 200);
    }
    assert_eq!(far.served.load(SeqCst), 5);
    assert_eq!(near.each_ref().map(|star| star.served.load(SeqCst)), [5; 3]);
    scene.proxy.drain(&web(), StarId(100)).await;
    for _ in 0..20 {
        client.get("/").await;
    }
    assert_eq!(far.served.load(SeqCst), 5);
    // Believed, it is one of many again.
    scene.publish(&[1, 2, 3, 200]);
    let believed = scene.star(200).await;
    for _ in 0..20 {
        client.get("/").await;
    }
    assert_eq!(believed.served.load(SeqCst), 0);
}

#[tokio::test]
async fn what_is_too_much_for_the_stars_here_goes_to_others() {
    let scene = Scene::new(HTTP).await;
    let (near, far) = (scene.star(1).await, scene.star(100).await);
    scene.publish(&[1, 100]);
    let mut waiting = Vec::new();
    for _ in 0..balancer::NEAR_MORE + 4 {
        let mut client = scene.client().await;
        client.send("GET /hold HTTP/1.1\r\nhost: web\r\n\r\n").await;
        let there = near.holding.load(SeqCst) + far.holding.load(SeqCst);
        soon(async {
            while near.holding.load(SeqCst) + far.holding.load(SeqCst) == there {
                tokio::task::yield_now().await;
            }
        })
        .await;
        waiting.push(client);
    }
    // Turn about from there on: one more in flight there allows one more here.
    assert_eq!(near.holding.load(SeqCst), balancer::NEAR_MORE as usize + 2);
    assert_eq!(far.holding.load(SeqCst), 2);
}

#[tokio::test]
async fn a_dead_machine_costs_one_attempt_and_no_error_however_many_stars_it_had() {
    let scene = Scene::new(HTTP).await;
    let (_alive, _far) = (scene.star(200).await, scene.star(300).await);
    for star in 100..110 {
        scene.doors.set(star, 1);
    }
    scene.doors.machine_is_dead(100, true);
    scene.publish(&(100..110).chain([200, 300]).collect::<Vec<u64>>());
    for _ in 0..20 {
        // On connections of their own and with a body: nothing is at rest, nothing may be repeated.
        let mut client = scene.client().await;
        client.send("POST /echo HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi").await;
        assert_eq!(client.receive().await.unwrap().2, b"hi");
    }
    assert_eq!(scene.doors.in_vain.load(SeqCst), 1);
    // Another service's stars there are left out as well.
    let other = model::ServiceKey::in_default("other".parse().unwrap());
    let address = scene.proxy.listen(other.clone(), common::entry(HTTP)).await.unwrap();
    let endpoint = |star| model::Endpoint { star: StarId(star), node: common::node_of(star), port: 80 };
    let endpoints = vec![endpoint(101), endpoint(300)];
    let set = model::EndpointSet { generation: 1, endpoints, ..Default::default() };
    scene.proxy.publish(&other, set, Balance::RoundRobin);
    assert_eq!(Client::to(address).await.get("/").await, (200, "300".to_owned()));
    assert_eq!(scene.doors.in_vain.load(SeqCst), 1);
}

#[tokio::test]
async fn a_machine_that_is_left_out_is_tried_when_nothing_else_is_left_and_taken_back_when_it_answers() {
    let scene = Scene::new(HTTP).await;
    let star = scene.star(100).await;
    scene.publish(&[100]);
    let mut client = scene.client().await;
    scene.doors.machine_is_dead(100, true);
    assert_eq!(client.get("/").await.0, 503);
    scene.doors.machine_is_dead(100, false);
    assert_eq!(client.get("/").await, (200, "100".to_owned()), "at once: there is no other");
    let other = scene.star(200).await;
    scene.publish(&[100, 200]);
    for _ in 0..4 {
        client.get("/").await;
    }
    assert_eq!([star.served.load(SeqCst), other.served.load(SeqCst)], [3, 2], "it has its turns again");
}

#[tokio::test]
async fn a_star_alone_that_refuses_leaves_its_neighbours_in() {
    let scene = Scene::new(HTTP).await;
    let _neighbour = scene.star(101).await;
    scene.doors.set(100, 1);
    scene.publish(&[100, 101]);
    let mut client = scene.client().await;
    for _ in 0..6 {
        assert_eq!(client.get("/").await, (200, "101".to_owned()));
    }
    assert_eq!(scene.doors.dials.load(SeqCst), 2, "one in vain, one that is kept");
}

#[tokio::test]
async fn upgrades_and_tcp_reach_stars_of_other_machines() {
    let scene = Scene::new(HTTP).await;
    let _star = scene.star(100).await;
    scene.publish(&[100]);
    let mut client = scene.client().await;
    client.send("GET /upgrade HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await;
    assert_eq!(client.receive().await.unwrap().0, 101);
    client.send("there").await;
    let mut text = [0; 8];
    soon(client.0.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"hi there");

    let scene = Scene::new(Protocol::Tcp).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.doors.set(200, listener.local_addr().unwrap().port());
    scene.doors.machine_is_dead(100, true);
    scene.publish(&[100, 200]);
    let mut client = tokio::net::TcpStream::connect(scene.address).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut star, _) = soon(listener.accept()).await.unwrap();
    let mut question = String::new();
    soon(star.read_to_string(&mut question)).await.unwrap();
    star.write_all(question.to_uppercase().as_bytes()).await.unwrap();
    drop(star);
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "QUESTION");
    let stats = scene.proxy.stats(&web());
    assert_eq!([stats[&StarId(100)].errors, stats[&StarId(200)].errors], [1, 0]);
}

#[tokio::test]
async fn a_machine_that_fell_silent_gets_no_request_over_a_connection_that_is_at_rest() {
    let scene = Scene::new(HTTP).await;
    let (dead, alive) = (scene.star(100).await, scene.star(200).await);
    scene.publish(&[100, 200]);
    let mut client = scene.client().await;
    for _ in 0..4 {
        client.get("/").await;
    }
    assert_eq!(scene.doors.asked.load(SeqCst), 0, "who has just answered is not asked");
    // Its connections stay open, and nothing comes from it any more.
    scene.doors.silent.lock().unwrap().insert(common::node_of(100));
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    for _ in 0..4 {
        client.send("POST /echo HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi").await;
        assert_eq!(client.receive().await.unwrap().2, b"hi");
    }
    assert_eq!([dead.served.load(SeqCst), alive.served.load(SeqCst)], [2, 6]);
    assert_eq!(scene.doors.asked.load(SeqCst), 2, "each once: one answered, the other is left out");
}
