//! After an upgrade, and for plain TCP: bytes both ways until both sides have ended.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;

use crate::lane::Ticket;
use crate::upstream::Upstream;

/// Joins the two sides of an upgraded connection. It counts as in flight at the star until it ends.
pub(crate) async fn run(client: OnUpgrade, star: OnUpgrade, upstream: Box<Upstream>, mut ticket: Ticket) {
    // The star's side is handed over when its connection's future ends.
    let ((), star) = tokio::join!(upstream.run(), star);
    let Ok(star) = star else {
        ticket.fail();
        return;
    };
    // The client's comes once the 101 is written to it; an error means that it is gone.
    if let Ok(client) = client.await {
        // How it ends is between the two; nothing is left to be told.
        let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(star)).await;
    }
}

/// Joins a client's TCP connection to one to a star; each direction ends on its own.
pub(crate) async fn join(mut client: TcpStream, mut star: impl AsyncRead + AsyncWrite + Unpin, ticket: Ticket) {
    let _ = copy_bidirectional(&mut client, &mut star).await;
    drop(ticket);
}
