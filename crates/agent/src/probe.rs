//! One probe of one star: a connection, or a minimal `GET`. When to probe, and what a failure means, is `node`'s.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use model::{ProbeKind, StarId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::doors::{Doors, Need};

/// What to try, and for how long.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) star: StarId,
    pub(crate) port: u16,
    pub(crate) host_network: bool,
    pub(crate) kind: ProbeKind,
    pub(crate) timeout: Duration,
}

/// Probes once. The error says in words what was met instead.
pub(crate) async fn probe(doors: &Doors, attempt: &Attempt) -> Result<(), String> {
    let tried = tokio::time::timeout(attempt.timeout, async {
        if matches!(attempt.kind, ProbeKind::Started) {
            return Ok(());
        }
        let stream = match attempt.host_network {
            true => TcpStream::connect((Ipv4Addr::LOCALHOST, attempt.port)).await,
            false => doors.connect(attempt.star, attempt.port, Need::One).await,
        };
        let stream = stream.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("nothing listens on port {}", attempt.port),
            _ => format!("port {}: {error}", attempt.port),
        })?;
        match &attempt.kind {
            ProbeKind::Http { path } => get(stream, path).await,
            // What is run in the star is `exec`'s.
            ProbeKind::Started | ProbeKind::Tcp | ProbeKind::Exec { .. } | ProbeKind::Script { .. } => Ok(()),
        }
    });
    tried.await.unwrap_or_else(|_| Err(format!("no answer within {} ms", attempt.timeout.as_millis())))
}

/// Asks for `path` and looks at the status alone.
async fn get(mut stream: TcpStream, path: &str) -> Result<(), String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: star\r\nuser-agent: rads-probe\r\nconnection: close\r\n\r\n");
    let mut head = [0; STATUS_BYTES];
    let exchanged = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_exact(&mut head).await
    };
    exchanged.await.map_err(|error| format!("`GET {path}`: {error}"))?;
    match status(&head) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("`GET {path}` answered {status}")),
        None => Err(format!("`GET {path}` was not answered in HTTP/1")),
    }
}

/// Length of `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;

fn status(head: &[u8; STATUS_BYTES]) -> Option<u16> {
    let text = std::str::from_utf8(head).ok()?;
    let code = text.strip_prefix("HTTP/1.0 ").or_else(|| text.strip_prefix("HTTP/1.1 "))?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_status_of_an_http_answer_counts() {
        assert_eq!(status(b"HTTP/1.1 204"), Some(204));
        assert_eq!(status(b"HTTP/1.0 500"), Some(500));
        for other in [b"HTTP/2.0 200", b"SSH-2.0-Open", b"HTTP/1.1 2x4"] {
            assert_eq!(status(other), None);
        }
    }
}
