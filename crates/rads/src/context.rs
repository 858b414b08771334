//! Constellations elsewhere, by names that this user gave them: where they are, by what they are known, and what shows who asks.
//! One file, its owner's alone.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Client, Road};
use model::{Code, Name, Problem};
use net::ConnectError;
use net::https::{self, Connected};
use net::identity::{NodeKey, Revoked, Trust, pem};
use net::tls::{Belief, SystemClock};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

/// The name of this machine among contexts.
pub(crate) const LOCAL: &str = "local";
/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// All of them.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Contexts {
    /// What commands are about when nobody says otherwise; nothing for this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<Name>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<Name, Context>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Context {
    /// `https://HOST:PORT`.
    pub(crate) url: String,
    pub(crate) cluster: Name,
    /// The certificates of its authorities, in PEM.
    pub(crate) authorities: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// A certificate and its key, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<Shown>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Contexts {
    /// What the user has; nothing when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or others could.
    pub(crate) fn read() -> Result<Self, Problem> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let unreadable = |error: &dyn std::fmt::Display| {
            Problem::new(Code::FileUnreadable, format!("cannot read contexts in `{}`: {error}", path.display()))
        };
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(&error)),
        };
        if metadata.mode() & 0o077 != 0 {
            let problem = unreadable(&"others may use it, and there are tokens in it");
            return Err(problem
                .help(format!("`chmod 600 {}`; if others may have read it, have the grants revoked", path.display())));
        }
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
        serde_json::from_str(&text).map_err(|error| {
            unreadable(&error).help("move it away, and add the contexts anew with `rads c context add`")
        })
    }

    /// # Errors
    /// When it cannot be written; the old one stays then.
    pub(crate) fn write(&self) -> Result<(), Problem> {
        let path = path().ok_or_else(|| {
            Problem::new(Code::Usage, "contexts have no place: neither `XDG_CONFIG_HOME` nor `HOME` is set")
        })?;
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        write_private(&path, text.as_bytes(), true)
            .map_err(|error| Problem::new(Code::FileUnwritable, format!("cannot write `{}`: {error}", path.display())))
    }

    /// # Errors
    /// `NotFound`.
    pub(crate) fn named(&self, name: &Name) -> Result<&Context, Problem> {
        self.contexts.get(name).ok_or_else(|| {
            Problem::new(Code::NotFound, format!("no context `{name}`"))
                .help("`rads c context` lists those there are, `rads c context add` makes one")
        })
    }
}

/// Writes a file that only its owner may read, as a whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.as_os_str().is_empty() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    if !replace {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        return file.sync_all();
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&new);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().inspect_err(|_| drop(fs::remove_file(&new)))
}

/// The XDG base directory specification: a relative `XDG_CONFIG_HOME` is to be ignored.
fn path() -> Option<PathBuf> {
    let of = |variable: &str| env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let folder = of("XDG_CONFIG_HOME").or_else(|| of("HOME").map(|home| home.join(".config")))?;
    Some(folder.join("rads").join("contexts.json"))
}

impl Context {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// When what is kept of it is damaged.
    pub(crate) fn client(&self, name: &Name) -> Result<Client, Problem> {
        let belief = Belief::Trust(Arc::new(self.trust(name)?));
        let caller = Arc::new(Caller { url: self.url.clone(), belief, certificate: self.certificate.clone() });
        let (called, token) = (name.to_string(), self.token.as_deref());
        Client::of_context(name.to_string(), token, move || {
            let (caller, name) = (Arc::clone(&caller), called.clone());
            Box::pin(async move {
                let Connected { stream, certificate, .. } = caller.connect().await?;
                let node = format!("{} of {name}", certificate.identity.node);
                Ok(Road { node, stream: Box::new(stream) })
            })
        })
    }

    fn trust(&self, name: &Name) -> Result<Trust, Problem> {
        let authorities = pem::read_certificates(&self.authorities);
        Trust::new(self.cluster.clone(), authorities, Revoked::default()).map_err(|fault| {
            Problem::new(Code::DataCorrupt, format!("context `{name}` is damaged: {fault}"))
                .help(format!("`rads c context remove {name}`, then add it anew"))
        })
    }
}

/// How a constellation is called.
pub(crate) struct Caller {
    pub(crate) url: String,
    pub(crate) belief: Belief,
    pub(crate) certificate: Option<Shown>,
}

impl Caller {
    /// A connection to the first address that answers.
    ///
    /// # Errors
    /// Tells whether nobody does, or somebody else.
    pub(crate) async fn connect(&self) -> Result<Connected, Problem> {
        let authority = authority(&self.url)?;
        let unknown = |error: &dyn std::fmt::Display| {
            Problem::new(Code::Unavailable, format!("`{}` leads nowhere: {error}", self.url))
        };
        let own = self.certificate.as_ref().map(certified).transpose()?;
        let found = tokio::net::lookup_host(&authority).await.map_err(|error| unknown(&error))?;
        let mut last = unknown(&"it has no address");
        for address in found.collect::<Vec<SocketAddr>>() {
            let connecting = https::connect(address, self.belief.clone(), own.clone(), Arc::new(SystemClock));
            match timeout(CONNECT_WITHIN, connecting).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last = self.not_reached(&error),
                Err(_) => last = self.not_reached(&ConnectError::Timeout { address }),
            }
        }
        Err(last)
    }

    fn not_reached(&self, error: &ConnectError) -> Problem {
        match error {
            ConnectError::Distrust { address, reason } => {
                let message = format!("`{address}` is not believed to be of this constellation: {reason}");
                Problem::new(Code::Forbidden, message)
                    .help("nothing was shown to it; after a change of the authority, add the context anew")
            }
            error => Problem::new(Code::Unavailable, error.to_string())
                .help("is it the address at which a node listens for users (`--api`), and does its agent run?"),
        }
    }
}

/// `HOST:PORT` of a URL.
///
/// # Errors
/// When it is another kind of URL.
pub(crate) fn authority(url: &str) -> Result<String, Problem> {
    let wrong = || {
        Problem::new(Code::Usage, format!("`{}` is no address of a constellation", url.escape_debug()))
            .help("it is `https://HOST:PORT`, as https://10.0.0.1:7947")
    };
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => {
            (host, port.parse::<u16>().map_err(|_| wrong())?)
        }
        _ if rest.contains(':') && !rest.ends_with(']') => return Err(wrong()),
        _ => (rest, api::grants::PORT),
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:%".contains(&byte);
    if host.is_empty() || port == 0 || !host.bytes().all(legal) {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

/// A certificate and its key, for TLS.
///
/// # Errors
/// When one is missing, or they do not belong together.
pub(crate) fn certified(shown: &Shown) -> Result<Arc<rustls::sign::CertifiedKey>, Problem> {
    let invalid = |why: &dyn std::fmt::Display| {
        Problem::new(Code::InvalidValue, format!("the certificate cannot be shown: {why}"))
    };
    let key = pem::read_key(&shown.key).ok_or_else(|| invalid(&"its key is no private key in PEM (PKCS #8)"))?;
    let chain = pem::read_certificates(&shown.chain);
    if chain.is_empty() {
        return Err(invalid(&"there is none in PEM in its file"));
    }
    let key = NodeKey::from_pkcs8(&key).map_err(|error| invalid(&error))?;
    key.certified(chain).map_err(|error| invalid(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_constellations_are_read_and_nothing_else_is() {
        let check = |url: &str, expected: Option<&str>| {
            assert_eq!(authority(url).ok().as_deref(), expected, "{url}");
        };
        check("https://10.0.0.1:7947", Some("10.0.0.1:7947"));
        check("https://10.0.0.1", Some("10.0.0.1:7947"));
        check("https://[::1]:80/", Some("[::1]:80"));
        check("https://[::1]", Some("[::1]:7947"));
        check("https://a.example.com:443", Some("a.example.com:443"));
        for wrong in [
            "",
            "http://a",
            "10.0.0.1:7947",
            "https://",
            "https://:80",
            "https://a:0",
            "https://a:x",
            "https://a/b",
            "https://u@a",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_written_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rads").join("contexts.json");
        write_private(&path, b"one", true).unwrap();
        write_private(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(write_private(&path, b"three", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
