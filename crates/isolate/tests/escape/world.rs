//! What there is outside of the stars for probes to reach for.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

/// In the host's secret, and so in whatever probe gets hold of it.
pub(crate) const SECRET: &str = "what no star may read";

/// Kept alive while probes run.
pub(crate) struct World {
    env: BTreeMap<String, String>,
    bundle: PathBuf,
    _tcp: TcpListener,
    _udp: UdpSocket,
    _abstract: UnixListener,
}

impl World {
    pub(crate) fn new(folder: &Path, bundle: PathBuf) -> Self {
        let tcp = TcpListener::bind("0.0.0.0:0").expect("a port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let name = format!("escape-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a socket");
        let secret = folder.join("secret");
        std::fs::write(&secret, SECRET).expect("a file");
        let port = |address: std::io::Result<std::net::SocketAddr>| address.expect("bound").port().to_string();
        let env = [
            ("HOST_TCP", port(tcp.local_addr())),
            ("HOST_UDP", port(udp.local_addr())),
            ("HOST_ABSTRACT", name),
            ("HOST_SECRET", secret.display().to_string()),
            ("HOST_FOLDER", folder.display().to_string()),
            ("HOST_PID", std::process::id().to_string()),
            ("HOST_NAME", rustix::system::uname().nodename().to_string_lossy().into_owned()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { env, bundle, _tcp: tcp, _udp: udp, _abstract: listener }
    }

    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        self.env.clone()
    }

    /// For probes that run outside: the same environment, the same working folder.
    pub(crate) fn enter(&self) {
        sys_env(&self.env);
        std::env::set_current_dir(&self.bundle).expect("the bundle is there");
    }
}

fn sys_env(env: &BTreeMap<String, String>) {
    for (name, value) in env {
        crate::sys::set_env(name, value);
    }
}

/// One of the above, from within a probe.
pub(crate) fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
