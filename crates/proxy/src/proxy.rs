//! The proxy as the agent uses it: services by name, each with its stars and perhaps a way in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Balance, Code, EndpointSet, Entry, NodeId, Problem, ServiceKey, StarId};

use crate::Dial;
use crate::forward::Way;
use crate::health::Health;
use crate::lane::StarTraffic;
use crate::listener::{BOUNDS, Ended, Listener};
use crate::route::Route;

/// Every service this node lets requests in for. Methods are called within a tokio runtime.
#[derive(Debug)]
pub struct Proxy<D: Dial> {
    dial: Arc<D>,
    services: Mutex<Services>,
}

#[derive(Debug, Default)]
struct Services {
    by_key: BTreeMap<ServiceKey, Service>,
    /// Other machines that stars run on.
    machines: BTreeMap<NodeId, Arc<Health>>,
    /// Listeners on their way out.
    ending: Vec<Ended>,
    /// The agent ends: nothing is opened any more.
    left: bool,
}

#[derive(Debug, Default)]
struct Service {
    route: Arc<Route>,
    listener: Option<Listener>,
}

impl<D: Dial> Proxy<D> {
    pub fn new(dial: Arc<D>) -> Self {
        Self { dial, services: Mutex::default() }
    }

    /// Opens the way in and returns its address, with the port that was taken for 0. A service that already listens
    /// there keeps its connections; one that listens elsewhere moves, gracefully.
    ///
    /// # Errors
    /// `PortInUse`, naming the holder when it can be known; what was open before stays open then. `Unavailable` after
    /// [`Proxy::leave`].
    pub async fn listen(&self, service: ServiceKey, entry: Entry) -> Result<SocketAddr, Problem> {
        loop {
            let ending =
                self.services().ending.iter_mut().filter_map(|ended| ended.accepting.take()).collect::<Vec<_>>();
            if ending.is_empty() {
                break;
            }
            for accepting in ending {
                // A panic there freed the port as well.
                let _ = accepting.await;
            }
        }
        let mut services = self.services();
        if let Some(listener) = services.listener(&service).filter(|listener| listener.asked == entry.listen) {
            listener.speak(entry.protocol);
            return Ok(listener.address);
        }
        if services.left {
            return Err(Problem::new(Code::Unavailable, "the agent is ending"));
        }
        services.check_free(&service, &entry)?;
        let Service { route, .. } = services.by_key.entry(service.clone()).or_default();
        let way = Way { service: service.clone(), route: Arc::clone(route), dial: Arc::clone(&self.dial) };
        match Listener::start(entry.listen, entry.protocol, BOUNDS, Arc::new(way)) {
            Ok(listener) => {
                let address = listener.address;
                let before = services.by_key.entry(service).or_default().listener.replace(listener);
                services.ending.extend(before.map(Listener::end));
                Ok(address)
            }
            Err(problem) => {
                services.forget_if_empty(&service);
                Err(problem)
            }
        }
    }

    /// Closes the way in: nothing new is accepted, what is in flight may finish (30 s at most).
    pub fn unlisten(&self, service: &ServiceKey) {
        let mut services = self.services();
        let listener = services.by_key.get_mut(service).and_then(|service| service.listener.take());
        services.ending.extend(listener.map(Listener::end));
        services.ending.retain(|ended| !ended.is_answered());
        // All of them: a service whose last star was still draining when it was closed is forgotten later.
        services.by_key.retain(|_, service| !service.is_empty());
    }

    /// Closes every way in for good, and waits until all requests that have come are answered; not for TCP connections
    /// and those of other protocols.
    pub async fn leave(&self) {
        let ended = {
            let mut services = self.services();
            services.left = true;
            let Services { by_key, ending, .. } = &mut *services;
            ending.extend(by_key.values_mut().filter_map(|service| service.listener.take()).map(Listener::end));
            std::mem::take(ending)
        };
        for ended in ended {
            ended.answered().await;
        }
    }

    /// Replaces the stars of a service. A set older than the last one is ignored.
    pub fn publish(&self, service: &ServiceKey, set: EndpointSet, balance: Balance) {
        let mut services = self.services();
        let Services { by_key, machines, .. } = &mut *services;
        let machine = |node| (!self.dial.is_near(node)).then(|| Arc::clone(machines.entry(node).or_default()));
        by_key.entry(service.clone()).or_default().route.publish(&set, balance, machine);
        machines.retain(|_, health| Arc::strong_count(health) > 1);
        services.forget_if_empty(service);
    }

    /// Sends a star nothing new, from this call on; the future ends when nothing is in flight there.
    pub fn drain(&self, service: &ServiceKey, star: StarId) -> impl Future<Output = ()> + Send + use<D> {
        let route = self.services().by_key.get(service).map(|service| Arc::clone(&service.route));
        let quiet = route.map(|route| route.drain(star));
        async move {
            if let Some(quiet) = quiet {
                quiet.await;
            }
        }
    }

    /// Counters of every star that is published or draining.
    pub fn stats(&self, service: &ServiceKey) -> BTreeMap<StarId, StarTraffic> {
        let route = self.services().by_key.get(service).map(|service| Arc::clone(&service.route));
        route.map(|route| route.traffic()).unwrap_or_default()
    }

    /// Where a service listens now.
    pub fn address(&self, service: &ServiceKey) -> Option<SocketAddr> {
        self.services().listener(service).map(|listener| listener.address)
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services {
    fn listener(&self, service: &ServiceKey) -> Option<&Listener> {
        self.by_key.get(service)?.listener.as_ref()
    }

    /// The kernel would only say that this process has the port; which service it is helps more.
    fn check_free(&self, service: &ServiceKey, entry: &Entry) -> Result<(), Problem> {
        let port = entry.listen.port;
        let wanted = SocketAddr::new(entry.listen.ip, port);
        let other = self.by_key.iter().find(|(key, other)| {
            *key != service && port != 0 && other.listener.as_ref().is_some_and(|listener| listener.address == wanted)
        });
        match other {
            Some((key, _)) => Err(Problem::new(Code::PortInUse, format!("port {port} is in use by service `{key}`"))
                .help("choose another port, 0 for any free one")),
            None => Ok(()),
        }
    }

    fn forget_if_empty(&mut self, service: &ServiceKey) {
        if self.by_key.get(service).is_some_and(Service::is_empty) {
            self.by_key.remove(service);
        }
    }
}

impl Service {
    fn is_empty(&self) -> bool {
        self.listener.is_none() && self.route.is_empty()
    }
}
