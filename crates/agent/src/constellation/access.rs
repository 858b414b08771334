//! Who calls from outside: what they show, compared with the grants of the log, which this node follows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::Caller;
use model::{Code, Name, Problem};
use net::identity::{AccessToken, UserCertificate};
use state::access::{GRANTS_MAX, Grant, Proof, whose};
use tokio::sync::watch;
use tokio::time::sleep;

use super::buckets::{Buckets, Rate};
use crate::clock;
use crate::control::Looker;
use crate::main_loop::Seen;

pub(crate) type Grants = Arc<BTreeMap<Name, Grant>>;

/// Least time between two looks at the grants. One that ends is known on every node within a second of its end in the log.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The wall clock may jump: no end of a grant is waited for longer than this at once.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// What shows nobody may be shown so often from one address: a slip of the hand, not a search.
const WRONG: Rate = Rate { burst: 20, each: Duration::from_secs(3) };
/// Addresses that are remembered for it.
const ADDRESSES_MAX: usize = 1_024;
/// What one grant may ask for. `rads up` of a large app sends some files a millisecond apart.
const ASKED: Rate = Rate { burst: 400, each: Duration::from_millis(5) };
/// Longest time a request is held because of it; beyond that it is refused.
const HELD_MAX: Duration = Duration::from_secs(2);

/// Clones know the same.
#[derive(Clone)]
pub(crate) struct Access {
    looker: Looker,
    grants: Arc<watch::Sender<Grants>>,
    wrong: Arc<Mutex<Buckets<IpAddr>>>,
    asked: Arc<Mutex<Buckets<Name>>>,
}

/// By what somebody was let in, to see when that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LetIn {
    pub(crate) name: Name,
    pub(crate) proof: Proof,
}

/// Why somebody is not let in.
pub(crate) enum Kept {
    /// They show what is nobody's. It is to be recorded.
    Unknown(Problem),
    /// They show nothing, or too much.
    Out(Problem),
}

impl Access {
    pub(crate) fn new(looker: Looker) -> Self {
        Self {
            looker,
            grants: Arc::new(watch::Sender::new(Grants::default())),
            wrong: Arc::new(Mutex::new(Buckets::new(WRONG, ADDRESSES_MAX))),
            asked: Arc::new(Mutex::new(Buckets::new(ASKED, GRANTS_MAX))),
        }
    }

    /// Follows what the log says of grants, until the agent ends.
    pub(crate) async fn follow(self, mut seen: watch::Receiver<Seen>) {
        while self.look().await.is_ok() && seen.changed().await.is_ok() {
            sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self) -> Result<(), Problem> {
        let grants = self.looker.look(|node| {
            let grants = node.state().grants();
            Arc::new(grants.map(|(name, grant)| (name.clone(), grant.clone())).collect::<BTreeMap<_, _>>())
        });
        let grants = grants.await?;
        self.grants.send_if_modified(|known| {
            let differs = *known != grants;
            *known = grants;
            differs
        });
        Ok(())
    }

    /// Who shows this.
    pub(crate) async fn admit(
        &self,
        authorization: Option<&str>,
        certificate: Option<&UserCertificate>,
        address: IpAddr,
    ) -> Result<(Caller, LetIn), Kept> {
        let nothing = || {
            let problem = Problem::new(Code::Forbidden, "a token or a certificate is needed");
            Kept::Out(
                problem.help("an admin gives one with `rads c grant`; it is shown as `authorization: Bearer radk_…`"),
            )
        };
        if authorization.is_none() && certificate.is_none() {
            return Err(nothing());
        }
        let from = network(address);
        if !self.wrong().wait(&from, Instant::now()).is_zero() {
            let problem = Problem::new(Code::Unavailable, "too much that is nobody's was shown from this address");
            return Err(Kept::Out(problem.help("try again in a minute")));
        }
        // What cannot be a token is compared like one, so that no answer tells the one from the other.
        let shown = match authorization {
            Some(text) => {
                let token = text.strip_prefix("Bearer ").and_then(|token| token.trim().parse::<AccessToken>().ok());
                token.map(|token| Proof::Token(token.hash()))
            }
            None => certificate.map(|certificate| Proof::Key(certificate.key)),
        };
        let mut found = self.find(shown);
        if found.is_none() {
            // It may have been made this moment.
            self.look().await.map_err(Kept::Out)?;
            found = self.find(shown);
        }
        // A certificate names the grant that it is for.
        let named = certificate.filter(|_| authorization.is_none()).map(|certificate| &certificate.name);
        let found = found.filter(|(let_in, _)| named.is_none_or(|name| *name == let_in.name));
        let Some((let_in, grant)) = found else {
            self.wrong().note(from, Instant::now());
            let problem = Problem::new(Code::Forbidden, "no grant is known by what was shown");
            return Err(Kept::Unknown(problem.help("it may have ended: `rads c grants` on a controller lists them")));
        };
        self.hold(&let_in.name).await?;
        let caller = Caller {
            uid: u32::MAX,
            from: None,
            grant: Some(let_in.name.clone()),
            star: None,
            address: Some(address),
            rights: Arc::new(grant.rights()),
        };
        Ok((caller, let_in))
    }

    fn find(&self, shown: Option<Proof>) -> Option<(LetIn, Grant)> {
        let grants = self.grants.borrow().clone();
        let (name, grant) = whose(grants.iter(), shown?, clock::wall())?;
        Some((LetIn { name: name.clone(), proof: grant.proof }, grant.clone()))
    }

    /// Holds who asks too often.
    async fn hold(&self, name: &Name) -> Result<(), Kept> {
        let wait = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let wait = asked.wait(name, now);
            if wait <= HELD_MAX {
                asked.note(name.clone(), now);
            }
            wait
        };
        if wait > HELD_MAX {
            let problem = Problem::new(Code::Unavailable, format!("`{name}` asks too often"));
            return Err(Kept::Out(problem.help("try again in some seconds")));
        }
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(())
    }

    fn wrong(&self) -> std::sync::MutexGuard<'_, Buckets<IpAddr>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when one of those who were let in is not to be any more.
    pub(crate) async fn until_over(&self, mut let_in: watch::Receiver<Vec<LetIn>>) {
        let mut grants = self.grants.subscribe();
        // Once nobody can come in on this connection any more, those who did still count.
        let mut is_whole = false;
        loop {
            let now = clock::wall();
            let those = let_in.borrow_and_update().clone();
            let known = grants.borrow_and_update().clone();
            let mut wait = WAIT_MAX;
            for one in &those {
                let grant = known.get(&one.name).filter(|grant| grant.proof == one.proof && grant.is_good(now));
                let Some(grant) = grant else { return };
                wait = wait.min(grant.expires.map_or(WAIT_MAX, |end| end.since(now)));
            }
            tokio::select! {
                changed = let_in.changed(), if !is_whole => is_whole = changed.is_err(),
                changed = grants.changed() => if changed.is_err() { return },
                () = sleep(wait) => {}
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn set(&self, grants: BTreeMap<Name, Grant>) {
        self.grants.send_replace(Arc::new(grants));
    }
}

/// Who has one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
        four => four,
    }
}
