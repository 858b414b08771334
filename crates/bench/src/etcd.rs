//! etcd as a peer: three processes on loopback, without TLS, written to by gRPC over one connection a client.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// Near the size of the command that ours write.
const VALUE_BYTES: usize = 100;
const MEMBERS: [(&str, u16); 3] = [("a", 1), ("b", 2), ("c", 3)];
const CLIENT_PORTS: u16 = 23_790;
const PEER_PORTS: u16 = 23_800;
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends with its processes.
pub(crate) struct Etcd {
    members: Vec<Child>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in &mut self.members {
            // Gone already is as well.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Etcd {
    /// Nothing where it is not installed.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let peers = MEMBERS.map(|(name, number)| format!("{name}=http://127.0.0.1:{}", PEER_PORTS + number)).join(",");
        let start = |(name, number): (&str, u16)| {
            let peer = format!("http://127.0.0.1:{}", PEER_PORTS + number);
            let client = format!("http://127.0.0.1:{}", CLIENT_PORTS + number);
            Command::new("etcd")
                .args(["--name", name, "--initial-cluster", &peers, "--log-level", "error"])
                .arg("--data-dir")
                .arg(dir.join(name))
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let mut etcd = Self { members: Vec::new() };
        for member in MEMBERS {
            etcd.members.push(start(member).ok()?);
        }
        Some(etcd)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Child::id).collect()
    }

    /// The number of the member that leads, so that nothing is forwarded: ours are written to at the leader too.
    pub(crate) async fn leader(&self) -> Option<u16> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            for (_, number) in MEMBERS {
                let Ok(mut connection) = connect(number).await else { continue };
                // Maintenance.Status: `header {cluster, member = 2}`, field 1, and `leader`, field 4.
                let Ok(status) = call(&mut connection, "/etcdserverpb.Maintenance/Status", Bytes::new()).await else {
                    continue;
                };
                let header = fields(&status).into_iter().find(|(field, _)| *field == 1).map(|(_, value)| value);
                let member = header.and_then(|value| match value {
                    Value::Bytes(bytes) => number_of(&fields(bytes), 2),
                    Value::Number(_) => None,
                });
                if member.is_some() && member == number_of(&fields(&status), 4) {
                    return Some(number);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// How long each write took, of so many clients that write one after the other for so long.
    pub(crate) async fn writes(&self, leader: u16, clients: usize, window: Duration) -> Vec<Duration> {
        let end = Instant::now() + window;
        let writing = (0..clients).map(|client| {
            tokio::spawn(async move {
                let mut times = Vec::new();
                let Ok(mut connection) = connect(leader).await else { return times };
                while Instant::now() < end {
                    let asked = Instant::now();
                    if put(&mut connection, client, times.len()).await.is_err() {
                        break;
                    }
                    times.push(asked.elapsed());
                }
                times
            })
        });
        let mut all = Vec::new();
        for client in writing.collect::<Vec<_>>() {
            all.extend(client.await.unwrap_or_default());
        }
        all
    }

    /// Kills the member that leads; gives how long it was until another one took a write.
    pub(crate) async fn fail_over(&mut self, leader: u16) -> Option<Duration> {
        let killed = self.members.get_mut(usize::from(leader) - 1)?;
        let began = Instant::now();
        killed.kill().ok()?;
        killed.wait().ok()?;
        while began.elapsed() < PATIENCE {
            for (_, number) in MEMBERS.into_iter().filter(|(_, number)| *number != leader) {
                let asked = async {
                    let mut connection = connect(number).await.ok()?;
                    put(&mut connection, 0, 0).await.ok()
                };
                // One that waits for a leader is not waited for longer than for the next look.
                if let Ok(Some(())) = tokio::time::timeout(Duration::from_millis(100), asked).await {
                    return Some(began.elapsed());
                }
            }
        }
        None
    }
}

type Connection = http2::SendRequest<Full<Bytes>>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn connect(member: u16) -> Result<Connection, Failed> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", CLIENT_PORTS + member)).await?;
    stream.set_nodelay(true)?;
    let (connection, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    Ok(connection)
}

async fn put(connection: &mut Connection, client: usize, number: usize) -> Result<(), Failed> {
    let key = format!("key-{client}-{}", number % 1_000);
    let mut message = BytesMut::new();
    // PutRequest: key, field 1, and value, field 2.
    message.put_slice(&[0x0a, key.len() as u8]);
    message.put_slice(key.as_bytes());
    message.put_slice(&[0x12, VALUE_BYTES as u8]);
    message.put_bytes(7, VALUE_BYTES);
    call(connection, "/etcdserverpb.KV/Put", message.freeze()).await.map(|_| ())
}

/// One unary gRPC call; fails unless the status is 0.
async fn call(connection: &mut Connection, path: &str, message: Bytes) -> Result<Bytes, Failed> {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len())?);
    body.put_slice(&message);
    let request = hyper::Request::post(format!("http://127.0.0.1{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body.freeze()))?;
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let body = response.into_body().collect().await?;
    match body.trailers().and_then(|trailers| trailers.get("grpc-status")) {
        Some(status) if status == "0" => Ok(body.to_bytes().slice(5..)),
        other => Err(format!("grpc status {other:?}").into()),
    }
}

enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The fields of a protobuf message that are numbers or bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while let Some(tag) = varint(&mut bytes) {
        let Some(value) = varint(&mut bytes) else { break };
        match tag & 7 {
            0 => fields.push((tag >> 3, Value::Number(value))),
            2 if value as usize <= bytes.len() => {
                let (inside, rest) = bytes.split_at(value as usize);
                fields.push((tag >> 3, Value::Bytes(inside)));
                bytes = rest;
            }
            _ => break,
        }
    }
    fields
}

fn number_of(fields: &[(u64, Value<'_>)], wanted: u64) -> Option<u64> {
    fields.iter().find_map(|(field, value)| match value {
        Value::Number(number) if *field == wanted => Some(*number),
        _ => None,
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
