//! How the API and what runs beside the loop look at the node, and have it make changes; and who asks, as it is recorded.

use api::Caller;
use model::{Code, NodeId, Problem};
use node::{Node, Reply, Request};
use state::{Author, Deed, Who};
use tokio::sync::{mpsc, oneshot};

use crate::main_loop::Incoming;

/// A way to look at the node from beside the loop.
#[derive(Debug, Clone)]
pub(crate) struct Looker {
    pub(crate) ask: mpsc::Sender<Incoming>,
}

impl Looker {
    /// What `look` sees, taken between two events.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        let look = Box::new(move |node: &Node| drop(answer.send(look(node))));
        self.ask.send(Incoming::Look(look)).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())
    }

    /// Has the node make a change that somebody asks for; it is on disk when this returns.
    pub(crate) fn change_by(&self, author: Author, request: Request) -> impl Future<Output = Changed> + use<> {
        self.change(Request::By { author, request: Box::new(request) })
    }

    /// The same, once if whoever asked chose a key for it.
    pub(crate) fn change_once(&self, author: Author, request: Request) -> impl Future<Output = Changed> + use<> {
        let request = Request::By { author, request: Box::new(request) };
        self.change(match api::keyed::current() {
            Some(once) => Request::Once { once, request: Box::new(request) },
            None => request,
        })
    }

    /// Records what is no change; it is on disk when this returns.
    pub(crate) async fn note(&self, author: Author, deed: Deed) -> Result<(), Problem> {
        self.change(Request::Note { author, deed }).await.map(drop)
    }

    /// The same, once if whoever asked chose a key for it.
    pub(crate) async fn note_once(&self, author: Author, deed: Deed) -> Result<(), Problem> {
        let note = Request::Note { author, deed };
        let request = match api::keyed::current() {
            Some(once) => Request::Once { once, request: Box::new(note) },
            None => note,
        };
        self.change(request).await.map(drop)
    }

    /// Not `async`, so that the request lies in none of the futures that wait for its answer: they would be moved with it.
    fn change(&self, request: Request) -> impl Future<Output = Changed> + use<> {
        let (answer, answered) = oneshot::channel();
        let (ask, asked) = (self.ask.clone(), Incoming::Change { request: Box::new(request), answer });
        async move {
            ask.send(asked).await.map_err(|_| ending())?;
            answered.await.map_err(|_| ending())?
        }
    }
}

type Changed = Result<Reply, Problem>;

/// Who asks a node, as it is recorded.
pub(crate) fn author(caller: &Caller, node: NodeId) -> Author {
    let who = match (&caller.star, &caller.grant) {
        (Some((star, service)), _) => Who::Star { star: *star, service: service.clone() },
        (None, Some(name)) => Who::Grant(name.clone()),
        (None, None) if caller.uid == u32::MAX => Who::Stranger,
        (None, None) => Who::User(caller.uid),
    };
    Author { who, node, by_way_of: caller.from, address: caller.address }
}

fn ending() -> Problem {
    Problem::new(Code::Unavailable, "the agent is ending").help("start another one, or wait for it")
}
