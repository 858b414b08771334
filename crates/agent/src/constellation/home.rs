//! What a node keeps of its constellation beside the log: who it is, how it proves it, whom it may ask.
//!
//! One file, replaced as a whole. While it is there the machine is a node, without it the machine is alone.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::{Code, Name, NodeFacts, NodeId, NodeIdentity, NodeRole, Problem, Reserve};
use net::identity::{KeyRing, NodeKey, Revoked, Trust};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The first byte of the file.
const VERSION: u8 = 1;

/// What helps a node that lost what it may not go on without.
pub(crate) const JOIN_ANEW: &str =
    "take this node out with `rads c remove` on another one, and let it join again from an empty data folder";

/// A key of a ring, under its number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) number: u32,
    pub(crate) key: ByteBuf,
}

/// Where a node is, as far as was known when this was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seed {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) address: String,
}

/// What its owner says of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rack: Option<Name>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    /// What is kept for the machine itself.
    #[serde(default, skip_serializing_if = "Reserve::is_nothing")]
    pub(crate) reserved: Reserve,
}

impl Described {
    /// Adds it to what the machine says of itself.
    pub(crate) fn tell(self, facts: &mut NodeFacts) {
        (facts.region, facts.zone, facts.rack, facts.labels) = (self.region, self.zone, self.rack, self.labels);
        facts.reserved = self.reserved;
    }
}

/// See the head of the file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Home {
    pub(crate) cluster: Name,
    pub(crate) node: NodeId,
    pub(crate) name: Name,
    pub(crate) role: NodeRole,
    /// Where it listens, TCP and UDP.
    pub(crate) listen: SocketAddr,
    /// Where others reach it, `host:port`.
    pub(crate) advertise: String,
    #[serde(default)]
    pub(crate) described: Described,
    /// Its private key, PKCS #8.
    pub(crate) key: ByteBuf,
    /// Its certificate and what leads from it to an authority, DER.
    pub(crate) chain: Vec<ByteBuf>,
    /// The authorities it trusts, DER.
    pub(crate) authorities: Vec<ByteBuf>,
    /// What gossip is sealed with, the key that seals first.
    pub(crate) gossip: Vec<Key>,
    /// What opens the sealed parts of the state: on controllers only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unsealing: Vec<Key>,
    pub(crate) seeds: Vec<Seed>,
    /// Where it listens for users with a grant; nowhere when that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<SocketAddr>,
    /// Whether it answers machines of its network that look for its constellation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) discoverable: bool,
    /// It keeps a part of the shared log, begun here. Without that part it must not go on: it would have forgotten what it
    /// acknowledged and whom it elected, and let others lead who lack it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_log: bool,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Home({} `{}`, {} of `{}`)", self.node, self.name, self.role, self.cluster)
    }
}

/// The folder of everything a node has of its constellation.
pub(crate) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("constellation")
}

impl Home {
    /// What is kept in the data folder; nothing when the machine is alone.
    ///
    /// # Errors
    /// `DataCorrupt`, `DataUnwritable`.
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Self>, Problem> {
        let path = path(data_dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unwritable("read", &path, &error)),
        };
        let corrupt = |what: String| {
            Problem::new(Code::DataCorrupt, format!("`{}` is damaged: {what}", path.display())).help(JOIN_ANEW)
        };
        match bytes.split_first() {
            Some((&VERSION, rest)) => {
                let (hash, record) = rest.split_at_checked(32).ok_or_else(|| corrupt("it is cut short".to_owned()))?;
                if *blake3::hash(record).as_bytes() != hash {
                    return Err(corrupt("it fails its checksum".to_owned()));
                }
                rmp_serde::from_slice(record).map(Some).map_err(|error| corrupt(error.to_string()))
            }
            Some((version, _)) => Err(corrupt(format!("its version {version} is not known"))),
            None => Err(corrupt("it is empty".to_owned())),
        }
    }

    /// Puts this in the place of what was there; on disk when it returns.
    ///
    /// # Errors
    /// `DiskFull`, `DataUnwritable`; the old one stays then.
    pub(crate) fn write(&self, data_dir: &Path) -> Result<(), Problem> {
        let record = rmp_serde::to_vec_named(self).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let folder = folder(data_dir);
        let (path, new) = (path(data_dir), folder.join(".home"));
        let written = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&[VERSION])?;
            file.write_all(blake3::hash(&record).as_bytes())?;
            file.write_all(&record)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&folder)?.sync_all()?;
            File::open(data_dir)?.sync_all()
        };
        written().map_err(|error| unwritable("write", &path, &error))
    }

    /// Makes the machine alone again: the home first, then everything beside it.
    pub(crate) fn remove(data_dir: &Path) -> Result<(), Problem> {
        let path = path(data_dir);
        let removed = fs::remove_file(&path).and_then(|()| {
            File::open(folder(data_dir))?.sync_all()?;
            fs::remove_dir_all(folder(data_dir))
        });
        removed.map_err(|error| unwritable("remove", &path, &error))
    }

    /// Where users reach it; nothing when it does not listen for them.
    pub(crate) fn url(&self) -> Option<String> {
        let api = self.api?;
        let host = match api.ip().is_unspecified() {
            true => self.advertise.rsplit_once(':').map_or("", |(host, _)| host).to_owned(),
            false => SocketAddr::new(api.ip(), 0).to_string().trim_end_matches(":0").to_owned(),
        };
        Some(format!("https://{host}:{}", api.port()))
    }

    pub(crate) fn identity(&self) -> NodeIdentity {
        NodeIdentity { cluster: self.cluster.clone(), role: self.role, node: self.node }
    }

    /// Its key and certificate, to be shown in handshakes.
    pub(crate) fn certified(&self) -> Result<std::sync::Arc<rustls::sign::CertifiedKey>, Problem> {
        let key = NodeKey::from_pkcs8(&self.key).map_err(damaged)?;
        key.certified(self.chain.iter().map(|der| der.to_vec().into()).collect()).map_err(damaged)
    }

    pub(crate) fn trust(&self, revoked: Revoked) -> Result<Trust, Problem> {
        let authorities = self.authorities.iter().map(|der| der.to_vec().into()).collect();
        Trust::new(self.cluster.clone(), authorities, revoked).map_err(damaged)
    }

    /// The ring that gossip is sealed with.
    pub(crate) fn gossip_ring(&self) -> Result<KeyRing, Problem> {
        ring(&self.gossip)
    }

    /// The ring that opens sealed parts of the state; refused on a worker, which has none.
    pub(crate) fn unsealing_ring(&self) -> Result<KeyRing, Problem> {
        ring(&self.unsealing)
    }
}

/// A ring of keys as they are kept.
pub(crate) fn ring(keys: &[Key]) -> Result<KeyRing, Problem> {
    let keys = keys.iter().map(|key| Some((key.number, <[u8; 32]>::try_from(key.key.as_slice()).ok()?)));
    let keys: Option<Vec<_>> = keys.collect();
    KeyRing::new(keys.ok_or_else(|| damaged("a key is not 256 bits long"))?).map_err(damaged)
}

fn path(data_dir: &Path) -> PathBuf {
    folder(data_dir).join("home")
}

fn damaged(why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::DataCorrupt, format!("what this node keeps of its constellation is damaged: {why}"))
}

fn unwritable(what: &str, path: &Path, error: &io::Error) -> Problem {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => Code::DiskFull,
        _ => Code::DataUnwritable,
    };
    Problem::new(code, format!("cannot {what} `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn home() -> Home {
        Home {
            cluster: "production".parse().unwrap(),
            node: NodeId(7),
            name: "b".parse().unwrap(),
            role: NodeRole::Worker,
            listen: "0.0.0.0:7946".parse().unwrap(),
            advertise: "10.0.0.2:7946".to_owned(),
            described: Described::default(),
            key: ByteBuf::from([1, 2]),
            chain: vec![ByteBuf::from([3])],
            authorities: vec![ByteBuf::from([4])],
            gossip: vec![Key { number: 1, key: ByteBuf::from([5; 32]) }],
            unsealing: Vec::new(),
            seeds: vec![Seed { node: NodeId(1), name: "a".to_owned(), address: "10.0.0.1:7946".to_owned() }],
            api: None,
            discoverable: false,
            has_log: false,
        }
    }

    #[test]
    fn a_home_reads_back_for_its_owner_only_and_a_flipped_bit_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Home::read(folder.path()).unwrap(), None);
        home().write(folder.path()).unwrap();
        assert_eq!(Home::read(folder.path()).unwrap(), Some(home()));
        let path = path(folder.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert_eq!(Home::read(folder.path()).unwrap_err().code, Code::DataCorrupt, "byte {at}");
        }
        fs::write(&path, bytes).unwrap();
        Home::remove(folder.path()).unwrap();
        assert_eq!(Home::read(folder.path()).unwrap(), None);
    }

    #[test]
    fn users_reach_a_node_where_it_says_that_it_is() {
        let check = |api: Option<&str>, expected: Option<&str>| {
            let home = Home { api: api.map(|api| api.parse().unwrap()), ..home() };
            assert_eq!(home.url().as_deref(), expected);
        };
        check(None, None);
        check(Some("0.0.0.0:7947"), Some("https://10.0.0.2:7947"));
        check(Some("127.0.0.1:80"), Some("https://127.0.0.1:80"));
        check(Some("[::1]:7947"), Some("https://[::1]:7947"));
    }

    #[test]
    fn a_ring_needs_whole_keys() {
        assert!(home().gossip_ring().is_ok());
        assert!(home().unsealing_ring().is_err());
        assert!(ring(&[Key { number: 1, key: ByteBuf::from([5; 31]) }]).is_err());
    }

    #[test]
    fn a_controllers_log_is_begun_once_and_missed_afterwards() {
        use crate::constellation::start::{begin_log, log_folder};

        let folder = tempfile::tempdir().unwrap();
        let (dir, log) = (folder.path(), log_folder(folder.path()));
        // A worker keeps none.
        begin_log(&mut home(), dir).unwrap();
        assert!(!log.exists());
        let mut controller = Home { role: NodeRole::Controller, ..home() };
        begin_log(&mut controller, dir).unwrap();
        assert!(Home::read(dir).unwrap().unwrap().has_log);
        begin_log(&mut controller, dir).unwrap();
        fs::remove_dir_all(&log).unwrap();
        let gone = begin_log(&mut controller, dir).unwrap_err();
        assert_eq!((gone.code, gone.help.as_deref()), (Code::DataCorrupt, Some(JOIN_ANEW)));
        assert!(!log.exists(), "nothing is begun in its place");
    }
}
