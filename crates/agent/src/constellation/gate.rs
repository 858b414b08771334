//! Where users with a grant come in: HTTPS on a port of its own. Each request shows who makes it; a connection ends when one of
//! those who used it may not any more.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use api::{Admit, Bounds, Caller, Control, Routes};
use model::Verb;
use net::identity::UserCertificate;
use net::tls::SystemClock;
use net::{Endpoint, https};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::access::{Access, Kept, LetIn};

/// Connections at once. Each costs some 50 KiB, and a request what it holds.
const CONNECTIONS_MAX: usize = 512;
/// Of them from one address.
const PER_ADDRESS_MAX: usize = 128;
/// For the handshake of TLS.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
pub(crate) const BOUNDS: Bounds =
    Bounds { head_within: Duration::from_secs(10), head_max_bytes: 16 << 10, fields_max: 64 };
/// For answers on their way when the agent ends.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
/// Between two attempts to listen where something else does.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) access: Access,
    pub(crate) routes: Routes,
    pub(crate) control: Arc<dyn Control>,
    /// What this node shows, and whom it believes.
    pub(crate) endpoint: Endpoint,
    /// Becomes true when the agent is about to end.
    pub(crate) leaving: watch::Receiver<bool>,
    pub(crate) bounds: Bounds,
}

impl Gate {
    /// Listens at an address until the agent ends. Nobody else has to wait when it cannot.
    pub(crate) async fn run(self, address: SocketAddr) {
        let (mut told, mut leaving) = (false, self.leaving.clone());
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) if !std::mem::replace(&mut told, true) => {
                    tracing::error!(%address, %error, "no users are let in: it is tried again and again");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = sleep(LISTEN_AGAIN) => {}
                _ = leaving.wait_for(|leaving| *leaving) => return,
            }
        };
        tracing::info!(%address, "users with a grant are let in");
        self.serve(listener).await;
    }

    pub(crate) async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let addresses = Addresses::default();
        let mut leaving = self.leaving.clone();
        loop {
            // More wait in the kernel's queue.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = leaving.wait_for(|leaving| *leaving) => return,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or it was gone before it was taken.
                    tracing::debug!(%error, "a connection of a user could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(held) = addresses.hold(address.ip()) else {
                tracing::debug!(%address, "a connection too many from one address was closed");
                continue;
            };
            tokio::spawn(self.clone().meet(socket, address, Place { _of_all: place, _of_address: held }));
        }
    }

    async fn meet(self, socket: TcpStream, address: SocketAddr, place: Place) {
        let (own, trust) = (self.endpoint.certificate(), self.endpoint.trust());
        let accepted = timeout(HANDSHAKE_WITHIN, https::accept(socket, own, trust, Arc::new(SystemClock))).await;
        let (stream, certificate) = match accepted {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "a connection of a user was refused"),
            Err(_) => return tracing::debug!(%address, "a connection of a user was not greeted in time"),
        };
        let (cut, is_cut) = watch::channel(false);
        let (let_in, those) = watch::channel(Vec::new());
        let stream = Cuttable::new(stream, &is_cut);
        let (access, mut leaving) = (self.access.clone(), self.leaving.clone());
        // As long as the connection is there in any form: what it becomes by an upgrade, too.
        tokio::spawn(async move {
            tokio::select! {
                () = access.until_over(those) => {}
                () = async {
                    let _ = leaving.wait_for(|leaving| *leaving).await;
                    sleep(LAST_ANSWERS).await;
                } => {}
                () = cut.closed() => {}
            }
            cut.send_replace(true);
            drop(place);
        });
        let (routes, bounds) = (self.routes.clone(), self.bounds);
        let admit = self.admit(certificate, address.ip().to_canonical(), let_in);
        let mut is_cut = is_cut;
        let cut = async move {
            let _ = is_cut.wait_for(|cut| *cut).await;
        };
        tokio::select! {
            () = routes.serve_users(stream, admit, bounds) => {}
            () = cut => {}
        }
    }

    fn admit(self, certificate: Option<UserCertificate>, address: IpAddr, let_in: watch::Sender<Vec<LetIn>>) -> Admit {
        let (certificate, let_in) = (Arc::new(certificate), Arc::new(let_in));
        Arc::new(move |head| {
            let shown = head.get("authorization").map(|value| value.to_str().unwrap_or_default().to_owned());
            let (this, certificate, let_in) = (self.clone(), Arc::clone(&certificate), Arc::clone(&let_in));
            Box::pin(async move {
                match this.access.admit(shown.as_deref(), certificate.as_ref().as_ref(), address).await {
                    Ok((caller, by)) => {
                        let_in.send_if_modified(|those| {
                            let is_new = !those.contains(&by);
                            if is_new {
                                those.push(by);
                            }
                            is_new
                        });
                        Ok(caller)
                    }
                    Err(Kept::Unknown(problem)) => {
                        this.note_stranger(address);
                        Err(problem)
                    }
                    Err(Kept::Out(problem)) => Err(problem),
                }
            })
        })
    }

    fn note_stranger(&self, address: IpAddr) {
        let stranger = Caller { address: Some(address), ..Caller::nobody() };
        self.control.by(stranger).denied(Verb::Greet, "come in with what is nobody's".to_owned());
    }
}

struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_address: Held,
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct Held {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    fn hold(&self, address: IpAddr) -> Option<Held> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Held { addresses: self.clone(), address })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that fails from the moment on at which it is cut, whoever holds it.
struct Cuttable<S> {
    inner: S,
    // One for each side, as each remembers one waiter.
    read: Option<Cut>,
    write: Option<Cut>,
}

impl<S> Cuttable<S> {
    fn new(inner: S, is_cut: &watch::Receiver<bool>) -> Self {
        let cut = || -> Option<Cut> {
            let mut is_cut = is_cut.clone();
            Some(Box::pin(async move {
                let _ = is_cut.wait_for(|cut| *cut).await;
            }))
        };
        Self { inner, read: cut(), write: cut() }
    }
}

fn poll_cut(cut: &mut Option<Cut>, context: &mut Context<'_>) -> io::Result<()> {
    let is_cut = cut.as_mut().is_none_or(|cut| cut.as_mut().poll(context).is_ready());
    if is_cut {
        *cut = None;
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the grant is over"));
    }
    Ok(())
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll_cut(&mut self.read, context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll_cut(&mut self.write, context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_cut(&mut self.write, context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_cut(&mut self.write, context)?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
