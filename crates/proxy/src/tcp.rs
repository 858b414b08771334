//! The way of one TCP connection: choose a star, dial it, pass bytes on.

use model::StarId;
use tokio::net::TcpStream;

use crate::forward::Way;
use crate::tunnel;
use crate::{Connection, Dial};

/// As for HTTP: one crashed star and its neighbour are stepped over.
const STARS_MAX: usize = 3;

impl<D: Dial> Way<D> {
    /// Serves one connection to its end. When no star can be reached it is closed: there is no way to say why.
    pub(crate) async fn join(&self, client: TcpStream) {
        if client.set_nodelay(true).is_err() {
            return;
        }
        let mut tried: Vec<StarId> = Vec::new();
        while tried.len() < STARS_MAX {
            let Some(mut ticket) = self.route.pick(&tried) else { return };
            match self.dial(&ticket.lane).await {
                Ok(Connection::Near(star)) if star.set_nodelay(true).is_ok() => {
                    ticket.connected();
                    return tunnel::join(client, star, ticket).await;
                }
                Ok(Connection::Far(star)) => {
                    ticket.connected();
                    return tunnel::join(client, star, ticket).await;
                }
                Ok(Connection::Near(_)) | Err(_) => {
                    ticket.fail();
                    tried.push(ticket.lane.endpoint.star);
                }
            }
        }
    }
}
