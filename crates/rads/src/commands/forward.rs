//! `rads c port-forward`: a local port whose connections end at a port within a star, until ^C.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use api::Client;
use model::{Code, Problem};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::find;
use crate::cli::{Form, PortForward};
use crate::screen;

/// Connections carried at once; whoever comes then waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;

/// `[LOCAL:]PORT`; a local 0 takes any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    local: u16,
    inside: u16,
}

impl std::str::FromStr for Ports {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "expected PORT or LOCAL:PORT, as 5432 or 15432:5432";
        let (local, inside) = text.split_once(':').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().map_err(|_| WRONG);
        match (port(local)?, port(inside)?) {
            (_, 0) => Err(WRONG),
            (local, inside) => Ok(Self { local, inside }),
        }
    }
}

pub(crate) async fn forward(client: &Client, args: PortForward, form: Form) -> Result<u8, Problem> {
    // A name that means nothing, or nothing that runs, is told now.
    find::running_star(client, &args.name).await?;
    let Ports { local, inside } = args.ports;
    let wanted = SocketAddr::new(args.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), local);
    let listener = TcpListener::bind(wanted).await.map_err(|error| {
        let message = format!("cannot listen on `{wanted}`: {error}");
        Problem::new(Code::PortInUse, message)
            .help(format!("choose another local port, as in `0:{inside}` for any free one"))
    })?;
    let address = listener.local_addr().map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    match form {
        Form::Json => screen::json(&json!({"address": address.to_string(), "name": args.name, "port": inside}))?,
        Form::Text => screen::line(format!("{address} leads to port {inside} of `{}`, until ^C", args.name)),
    }
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let serve = async {
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            // One that went away before it was taken is no concern of the others.
            let Ok((stream, peer)) = listener.accept().await else { continue };
            let (client, name) = (client.clone(), args.name.clone());
            tokio::spawn(async move {
                if let Err(problem) = carry(&client, &name, inside, stream).await {
                    screen::note(format!("{peer}: {}", problem.message));
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = serve => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(0)
}

/// One connection. Whom the name means is asked each time: a star may have been replaced.
async fn carry(client: &Client, name: &str, port: u16, mut stream: TcpStream) -> Result<(), Problem> {
    let star = find::running_star(client, name).await?;
    let mut inside = client.dial(star, port).await?;
    // How it ends is between the two.
    let _ = stream.set_nodelay(true);
    let _ = copy_bidirectional(&mut stream, &mut inside).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_or_refused() {
        let check = |text: &str, local, inside| assert_eq!(text.parse(), Ok(Ports { local, inside }), "{text}");
        check("80", 80, 80);
        check("8080:80", 8080, 80);
        check("0:80", 0, 80);
        for wrong in ["", ":", "0", "80:0", "80:", ":80", "65536", "-1", "80:80:80", "a", "127.0.0.1:80:80"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }
}
