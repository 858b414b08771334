//! The proxy alone, for measuring it with `wrk` beside other proxies.
//!
//! `front serve PORT` is a backend that answers every request at once; `front proxy PORT BACKEND_PORT…` is the proxy
//! before such backends.

use std::io;
use std::sync::Arc;

use model::{Balance, Endpoint, EndpointSet, Entry, ListenAddr, Name, NodeId, Protocol, ServiceKey, StarId};
use proxy::{Connection, Dial, DialError, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A star's port is its door.
struct Loopback;

impl Dial for Loopback {
    fn is_near(&self, _: NodeId) -> bool {
        true
    }

    async fn dial(&self, endpoint: Endpoint) -> Result<Connection, DialError> {
        Ok(Connection::Near(TcpStream::connect(("127.0.0.1", endpoint.port)).await?))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ports: Vec<u16> = args.iter().skip(1).map(|port| port.parse()).collect::<Result<_, _>>()?;
    let threads = std::env::var("THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    match (args.first().map(String::as_str), ports.as_slice()) {
        (Some("serve"), [port]) => runtime.block_on(serve(*port))?,
        (Some("proxy"), [port, backends @ ..]) => runtime.block_on(front(*port, backends))?,
        _ => eprintln!("use: front serve PORT | front proxy PORT BACKEND_PORT…"),
    }
    Ok(())
}

async fn front(port: u16, backends: &[u16]) -> io::Result<()> {
    let proxy = Proxy::new(Arc::new(Loopback));
    let service = ServiceKey::in_default("web".parse::<Name>().map_err(io::Error::other)?);
    let endpoints = backends
        .iter()
        .map(|port| Endpoint { star: StarId(u64::from(*port)), node: NodeId::FIRST, port: *port })
        .collect();
    proxy.publish(&service, EndpointSet { generation: 1, endpoints, ..EndpointSet::default() }, Balance::RoundRobin);
    let entry = Entry { listen: ListenAddr::loopback(port), protocol: Protocol::Http, balance: Balance::RoundRobin };
    let address = proxy.listen(service, entry).await.map_err(io::Error::other)?;
    println!("listening on {address}");
    std::future::pending().await
}

async fn serve(port: u16) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n\r\nhello world\n";
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut bytes = [0; 4096];
            // One read is one request here: clients that wait for their answer send no more.
            while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                if stream.write_all(ANSWER).await.is_err() {
                    return;
                }
            }
        });
    }
}
