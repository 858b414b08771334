//! Namespaces as they are asked for. A machine that is alone keeps its secrets beside the log: what is there of a namespace is
//! counted here, and goes when the log says that the namespace is gone.

use std::sync::Arc;

use api::{Accepted, NamespaceView};
use model::{Code, Name, Problem, Quota, SecretKey, Usage};
use node::Request;
use store::Secrets;

use crate::beside::beside;
use crate::control::Remote;

impl Remote {
    pub(crate) async fn all_namespaces(&self) -> Result<Vec<NamespaceView>, Problem> {
        let mut views = self.looker().look(|node| node.namespace_views()).await?;
        if self.vault.is_some() {
            return Ok(views);
        }
        let secrets = Arc::clone(&self.secrets);
        for secret in beside(move || secrets.list()).await? {
            let namespace = secret.secret.namespace;
            match views.iter_mut().find(|view| view.namespace == namespace) {
                Some(view) => view.secrets += 1,
                None => views.push(NamespaceView { secrets: 1, ..empty(namespace) }),
            }
        }
        views.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        Ok(views)
    }

    pub(crate) async fn one_namespace(&self, namespace: Name) -> Result<NamespaceView, Problem> {
        let views = self.all_namespaces().await?;
        views.into_iter().find(|view| view.namespace == namespace).ok_or_else(|| missing(&namespace))
    }

    pub(crate) async fn remove_namespace(&self, namespace: Name, force: bool) -> Result<Accepted, Problem> {
        if self.vault.is_none() && self.done().await?.is_none() {
            // The log does not know of them.
            let view = self.one_namespace(namespace.clone()).await?;
            if view.secrets > 0 && !force {
                let secrets =
                    if view.secrets == 1 { "1 secret".to_owned() } else { format!("{} secrets", view.secrets) };
                let problem = Problem::new(Code::Conflict, format!("namespace `{namespace}` is not empty: {secrets}"));
                return Err(problem.help("`--force` removes what is in it; volumes stay"));
            }
        }
        self.change_apps(Request::DeleteNamespace { namespace, force }).await
    }
}

/// Removes what a machine that is alone keeps of a namespace beside its log.
pub(crate) fn clear(secrets: Arc<Secrets>, namespace: Name) {
    tokio::task::spawn_blocking(move || {
        let of_it = |secret: &SecretKey| secret.namespace == namespace;
        let listed = secrets.list().map(|views| views.into_iter().map(|view| view.secret).filter(of_it).collect());
        let gone = listed.and_then(|keys: Vec<SecretKey>| keys.iter().try_for_each(|key| secrets.delete(key)));
        if let Err(problem) = gone {
            tracing::warn!(%problem, %namespace, "secrets of a namespace that is gone not removed");
        }
    });
}

fn empty(namespace: Name) -> NamespaceView {
    NamespaceView {
        namespace,
        created: None,
        ends: None,
        quota: Quota::default(),
        cpu_borrow: None,
        used: Usage::default(),
        beyond: Vec::new(),
        burst_stars: 0,
        apps: 0,
        stars: 0,
        secrets: 0,
        volumes: Vec::new(),
    }
}

fn missing(namespace: &Name) -> Problem {
    Problem::new(Code::NotFound, format!("no namespace `{namespace}`")).help("`rads c ns list` lists them")
}
