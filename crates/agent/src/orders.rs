//! What the node's orders become for the nursery: names turn into folders of this machine.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use isolate::{Bind, Launch, StarOrder, StarReport};
use model::{Program, ServiceKey, StarId, VolumeMount};
use node::{Event, RunningStar, StartOrder};
use store::{Bundles, Roots};

/// The order as the nursery takes it. The error names the star that cannot be started.
pub(crate) fn star_order(
    order: StartOrder,
    bundles: &Bundles,
    roots: &Roots,
    data_dir: &Path,
) -> Result<StarOrder, (StarId, String)> {
    let star = order.star;
    let template = order.template;
    let bundle = bundles
        .path(&template.bundle)
        .ok_or_else(|| (star, format!("bundle `{}` is not in the data folder", template.bundle)))?;
    let root = match &template.rootfs {
        None => None,
        Some(archive) => {
            let missing = || (star, format!("the root file system `{archive}` is not in the data folder"));
            Some(roots.path(&template.bundle).ok_or_else(missing)?)
        }
    };
    let mut volumes = Vec::with_capacity(template.volumes.len());
    for mount in &template.volumes {
        volumes.push(volume(data_dir, &order.service, mount).map_err(|reason| (star, reason))?);
    }
    let mut env = template.env;
    if let Some(port) = order.port {
        env.entry("PORT".to_owned()).or_insert_with(|| port.to_string());
    }
    env.entry("STAR_ID".to_owned()).or_insert_with(|| star.to_string());
    env.entry("STAR_NAME".to_owned()).or_insert_with(|| order.name.clone());
    let launch = match template.program {
        Program::Script(path) => Launch::Script { path },
        Program::Command(argv) => Launch::Command { argv },
    };
    Ok(StarOrder {
        star,
        generation: order.generation,
        hostname: order.name,
        launch,
        args: template.args,
        env,
        bundle,
        root,
        volumes,
        limits: template.limits,
        network: template.network,
    })
}

/// What the nursery reports when it is met.
pub(crate) fn nursery_up(stars: Vec<StarReport>) -> Event {
    let (mut running, mut ended) = (Vec::new(), Vec::new());
    for report in stars {
        let StarReport { star, generation, pid, start_time, ended: cause } = report;
        match cause {
            None => running.push(RunningStar { star, generation, pid, start_time }),
            Some(cause) => ended.push((star, cause)),
        }
    }
    Event::NurseryUp { running, ended }
}

/// A volume's folder, made when it is first used: `volumes/<namespace>/<name>`, shared by the services of a namespace
/// that name it.
fn volume(data_dir: &Path, service: &ServiceKey, mount: &VolumeMount) -> Result<Bind, String> {
    let host = data_dir.join("volumes").join(service.namespace.as_str()).join(mount.volume.as_str());
    // `volumes` itself is closed to others; this is as the star's root sees its folder.
    let made = DirBuilder::new().recursive(true).mode(0o711).create(&host);
    made.map_err(|error| format!("the folder of volume `{}` cannot be made: {error}", mount.volume))?;
    Ok(Bind { host, inside: mount.path.clone() })
}
