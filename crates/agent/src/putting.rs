//! An app on its way to the log: that its files are here, and elsewhere too, and its secrets are what they are used as.

use std::sync::Arc;

use api::{Accepted, Forecast};
use model::{AppSpec, BundleId, Code, ContentHash, Problem};
use node::Request;

use crate::beside::beside;
use crate::control::Remote;
use crate::orders;

/// In place of the files of a service: those of the star that asks for it.
const OWN_FILES: BundleId = BundleId(ContentHash([0; 32]));

impl Remote {
    pub(crate) async fn forecast_of(&self, spec: AppSpec, base: Option<u64>) -> Result<Forecast, Problem> {
        if let Some(former) = self.former() {
            return Ok(Forecast { refused: Some(former.alone()), ..Forecast::default() });
        }
        if self.vault.is_none() && spec.services.values().any(|service| !service.template.secrets().is_empty()) {
            let (secrets, wanted) = (Arc::clone(&self.secrets), spec.clone());
            if let Err(refused) = beside(move || orders::check_secrets(&wanted, &secrets)).await {
                return Ok(Forecast { refused: Some(refused), ..Forecast::default() });
            }
        }
        let now = crate::clock::wall();
        self.looker().look(move |node| node.forecast(&spec, base, now)).await
    }

    pub(crate) async fn put(&self, mut spec: AppSpec, base: Option<u64>) -> Result<Accepted, Problem> {
        if let Some(accepted) = self.done().await? {
            return Ok(accepted);
        }
        // Meant for the constellation, most likely, where it may run already.
        if let Some(former) = self.former() {
            return Err(former.alone());
        }
        self.name_own_files(&mut spec).await?;
        let wanted = self.brought_here(&spec).await?;
        let held = wanted.services.values().map(|service| service.template.bundle).collect();
        let (bundles, roots) = (Arc::clone(&self.bundles), Arc::clone(&self.roots));
        beside(move || {
            wanted.services.iter().try_for_each(|(service, spec)| {
                let template = &spec.template;
                let bundle = bundles.path(&template.bundle).ok_or_else(|| {
                    let message = format!("the bundle of service `{service}` was not sent");
                    Problem::new(Code::BundleMissing, message).help("send it to `/v1/bundles` first")
                })?;
                // Unpacked before anything is promised: what is wrong with it is told to whoever asks.
                template.rootfs.iter().try_for_each(|archive| roots.ensure(&template.bundle, &bundle.join(archive)))
            })
        })
        .await?;
        if let Some(carrier) = &self.carrier {
            // The death of this node loses nothing once the change is acknowledged.
            carrier.spread(&held).await?;
        }
        let mut settle = None;
        // In a constellation the log settles it.
        if self.vault.is_none() && spec.services.values().any(|service| !service.template.secrets().is_empty()) {
            settle = Some(self.secrets_settle.lock().await);
            let (secrets, wanted) = (Arc::clone(&self.secrets), spec.clone());
            beside(move || orders::check_secrets(&wanted, &secrets)).await?;
        }
        let put = self.change_apps(Request::PutApp { spec, base }).await;
        drop(settle);
        put
    }

    /// A star deploys what it was made of.
    async fn name_own_files(&self, spec: &mut AppSpec) -> Result<(), Problem> {
        let Some((star, _)) = self.caller.as_ref().and_then(|caller| caller.star.clone()) else { return Ok(()) };
        let own = move |node: &node::Node| node.state().stars.get(&star).map(|record| record.template.bundle);
        let Some(own) = self.looker().look(own).await? else { return Ok(()) };
        for service in spec.services.values_mut().filter(|service| service.template.bundle == OWN_FILES) {
            service.template.bundle = own;
        }
        Ok(())
    }

    /// The services whose files have to be here. In a constellation those of services that run already may be elsewhere: who adds one to
    /// an app need not have the others'.
    async fn brought_here(&self, spec: &AppSpec) -> Result<AppSpec, Problem> {
        let mut wanted = spec.clone();
        if self.carrier.is_some() {
            let known = self.looker().look(|node| node.state().bundles()).await?;
            let is_elsewhere = |bundle: &BundleId| known.contains(bundle) && self.bundles.path(bundle).is_none();
            wanted.services.retain(|_, service| !is_elsewhere(&service.template.bundle));
        }
        Ok(wanted)
    }
}
