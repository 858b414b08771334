//! TCP through real sockets on loopback.

mod common;

use common::{Client, Scene, soon, web};
use model::{Protocol, StarId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A star that answers, after the client's end, how many bytes it got, and says its name first.
async fn counter(scene: &Scene, star: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    scene.doors.set(star, listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(format!("star {star}\n").as_bytes()).await.unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).await.unwrap();
                stream.write_all(got.len().to_string().as_bytes()).await.unwrap();
            });
        }
    });
}

async fn ask(stream: &mut TcpStream, bytes: usize) -> String {
    stream.write_all(&vec![7; bytes]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn each_direction_ends_on_its_own_and_stars_take_turns() {
    let scene = Scene::new(Protocol::Tcp).await;
    counter(&scene, 1).await;
    counter(&scene, 2).await;
    scene.publish(&[1, 2]);
    for star in [1, 2, 1, 2] {
        let mut stream = TcpStream::connect(scene.address).await.unwrap();
        assert_eq!(ask(&mut stream, 1_000_000).await, format!("star {star}\n1000000"));
    }
}

#[tokio::test]
async fn a_drain_waits_for_open_connections_and_new_ones_go_elsewhere() {
    let scene = Scene::new(Protocol::Tcp).await;
    counter(&scene, 1).await;
    counter(&scene, 2).await;
    scene.publish(&[1]);
    let mut old = Client::to(scene.address).await;
    let mut greeting = [0; 7];
    soon(old.0.read_exact(&mut greeting)).await.unwrap();
    scene.publish(&[2]);
    let drained = tokio::spawn(scene.proxy.drain(&web(), StarId(1)));
    let mut new = TcpStream::connect(scene.address).await.unwrap();
    assert_eq!(ask(&mut new, 3).await, "star 2\n3");
    assert!(!drained.is_finished());
    let mut old = old.0.into_inner();
    assert_eq!(ask(&mut old, 5).await, "5");
    soon(drained).await.unwrap();
}

#[tokio::test]
async fn unlisten_lets_open_connections_finish() {
    let scene = Scene::new(Protocol::Tcp).await;
    counter(&scene, 1).await;
    scene.publish(&[1]);
    let mut open = Client::to(scene.address).await;
    let mut greeting = [0; 7];
    soon(open.0.read_exact(&mut greeting)).await.unwrap();
    scene.proxy.unlisten(&web());
    soon(async { while TcpStream::connect(scene.address).await.is_ok() {} }).await;
    assert_eq!(ask(&mut open.0.into_inner(), 5).await, "5");
}

#[tokio::test]
async fn a_dead_star_is_stepped_over_and_with_none_left_the_connection_ends() {
    let scene = Scene::new(Protocol::Tcp).await;
    counter(&scene, 2).await;
    scene.doors.set(1, 1); // nothing listens on port 1
    scene.publish(&[1, 2]);
    for _ in 0..3 {
        let mut stream = TcpStream::connect(scene.address).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await, "star 2\n1");
    }
    scene.publish(&[]);
    assert!(Client::to(scene.address).await.ends().await);
}
