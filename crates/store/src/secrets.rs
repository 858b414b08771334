//! Secrets at rest: each value sealed under a key of its own, that key under the node's, which lies in a file beside them.
//!
//! `secrets/<namespace>/<name>` is one secret, `secrets.key` the node's key; both are their owner's alone. What is sealed is
//! bound to its name: a file put in the place of another does not open. Values never go anywhere else: not into the log
//! of commands, not into messages.
//!
//! The form of a file, never edited once released (integers are little-endian):
//! `"rads secret 1\n"`, version u64, changed u64 (milliseconds), nonce 24, sealed key 32 + 16, nonce 24, sealed value + 16.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use model::secret::{SECRET_MAX, SECRETS_MAX};
use model::{Code, Name, Problem, SecretChange, SecretKey, SecretView, WallTime};
use zeroize::Zeroizing;

use crate::bundles::sync_dir;
use crate::fault;

/// The sealed secrets of one data folder.
#[derive(Debug)]
pub struct Secrets {
    folder: PathBuf,
    key: PathBuf,
    /// One change at a time: versions are counted from what is there.
    changing: Mutex<()>,
}

/// A value in the open; overwritten when it is dropped.
pub type Value = Zeroizing<Vec<u8>>;

const MAGIC: &[u8] = b"rads secret 1\n";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// What sealing adds.
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = MAGIC.len() + 8 + 8;
const SEALED_MIN: usize = HEAD_BYTES + NONCE_BYTES + KEY_BYTES + TAG_BYTES + NONCE_BYTES + TAG_BYTES;
const SEALED_MAX: u64 = SEALED_MIN as u64 + SECRET_MAX.0;
/// Beside a secret while it is written; no name starts with a dot.
const UNFINISHED: &str = ".unfinished";

impl Secrets {
    /// The secrets below `data_dir`, which this process holds. Nothing is made before there is a secret.
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("secrets"), key: data_dir.join("secrets.key"), changing: Mutex::default() }
    }

    /// Sets a secret's value. Durable when it returns, and all or nothing.
    ///
    /// # Errors
    /// `InvalidValue` for a value that is empty or larger than [`SECRET_MAX`], or one secret more than [`SECRETS_MAX`];
    /// `DataCorrupt` when there are secrets but no key; `DiskFull`.
    pub fn set(&self, secret: &SecretKey, value: &[u8], wall: WallTime) -> Result<SecretChange, Problem> {
        check_value(value)?;
        let _changing = self.lock();
        let before = match self.view(secret) {
            // What is damaged is set anew as if it had never been.
            Err(problem) if problem.code == Code::DataCorrupt => None,
            other => other?,
        };
        if before.is_none() && !self.has(secret) && self.list()?.len() >= SECRETS_MAX {
            let problem = Problem::new(Code::InvalidValue, format!("a node keeps at most {SECRETS_MAX} secrets"));
            return Err(problem.help("delete some with `rads c secrets delete NAME`"));
        }
        let node = self.node_key()?;
        let version = before.as_ref().map_or(0, |view| view.version) + 1;
        let sealed = seal(&node, secret, value, version, wall)?;
        let path = self.path(secret);
        let folder = self.folder.join(secret.namespace.as_str());
        let written = private_folder(&self.folder)
            .and_then(|()| private_folder(&folder))
            .and_then(|()| write_whole(&folder.join(UNFINISHED), &path, &sealed));
        written.map_err(|error| fault::problem("write", &path, &error))?;
        Ok(if before.is_some() { SecretChange::Replaced } else { SecretChange::Created })
    }

    /// The value.
    ///
    /// # Errors
    /// `SecretMissing` when it was not set; `DataCorrupt` when it does not open under its name and this node's key.
    pub fn open(&self, secret: &SecretKey) -> Result<Value, Problem> {
        let path = self.path(secret);
        let sealed = self.read(secret)?.ok_or_else(|| missing(secret))?;
        let node = self.existing_key()?.ok_or_else(|| no_key(&self.key))?;
        unseal(&node, secret, &sealed).ok_or_else(|| {
            let message = format!("`{}` does not open with the key of this node", path.display());
            let help =
                format!("restore `secrets.key` and `secrets` together, or set it with `rads c secrets set {secret}`");
            Problem::new(Code::DataCorrupt, message).help(help)
        })
    }

    pub fn has(&self, secret: &SecretKey) -> bool {
        self.path(secret).is_file()
    }

    /// Removes a secret; an error when there is none.
    pub fn delete(&self, secret: &SecretKey) -> Result<(), Problem> {
        let _changing = self.lock();
        let path = self.path(secret);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(secret)),
            Err(error) => return Err(fault::problem("remove", &path, &error)),
        }
        let folder = self.folder.join(secret.namespace.as_str());
        // An empty namespace goes too; one that is not empty stays.
        let _ = fs::remove_dir(&folder);
        sync_dir(if folder.is_dir() { &folder } else { &self.folder })
            .map_err(|error| fault::problem("write", &folder, &error))
    }

    /// Every secret, by name.
    pub fn list(&self) -> Result<Vec<SecretView>, Problem> {
        let mut views = Vec::new();
        for namespace in names(&self.folder)? {
            for name in names(&self.folder.join(namespace.as_str()))? {
                let secret = SecretKey { namespace: namespace.clone(), name };
                views.extend(self.view(&secret)?);
            }
        }
        views.sort_by(|a, b| a.secret.cmp(&b.secret));
        Ok(views)
    }

    fn view(&self, secret: &SecretKey) -> Result<Option<SecretView>, Problem> {
        let Some(sealed) = self.read(secret)? else { return Ok(None) };
        let number = |at: usize| sealed[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
        let (version, changed) = (number(MAGIC.len()), WallTime(number(MAGIC.len() + 8)));
        Ok(Some(SecretView { secret: secret.clone(), version, changed }))
    }

    /// A secret's file, known to have the form.
    fn read(&self, secret: &SecretKey) -> Result<Option<Vec<u8>>, Problem> {
        let path = self.path(secret);
        let mut sealed = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(SEALED_MAX + 1).read_to_end(&mut sealed));
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault::problem("read", &path, &error)),
            Ok(_) => {}
        }
        if !sealed.starts_with(MAGIC) || sealed.len() < SEALED_MIN || sealed.len() as u64 > SEALED_MAX {
            return Err(fault::corrupt(&path, "it is no sealed secret"));
        }
        Ok(Some(sealed))
    }

    fn path(&self, secret: &SecretKey) -> PathBuf {
        self.folder.join(secret.namespace.as_str()).join(secret.name.as_str())
    }

    /// The node's key, made when there are no secrets yet.
    fn node_key(&self) -> Result<Key, Problem> {
        if let Some(key) = self.existing_key()? {
            return Ok(key);
        }
        if !self.list()?.is_empty() {
            return Err(no_key(&self.key));
        }
        let key = Key::random()?;
        let unfinished = self.key.with_extension("key.unfinished");
        let written = write_whole(&unfinished, &self.key, &key.0[..]);
        written.map_err(|error| fault::problem("write", &self.key, &error))?;
        Ok(key)
    }

    fn existing_key(&self) -> Result<Option<Key>, Problem> {
        let problem = |error: io::Error| fault::problem("read", &self.key, &error);
        let mut file = match File::open(&self.key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(problem)?,
        };
        let metadata = file.metadata().map_err(problem)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            let message = format!("others may read the key of the secrets, `{}`", self.key.display());
            let help = format!("`chmod 600 {}`; if somebody read it, set every secret anew", self.key.display());
            return Err(Problem::new(Code::Forbidden, message).help(help));
        }
        if metadata.len() != KEY_BYTES as u64 {
            return Err(fault::corrupt(&self.key, "a key has 32 bytes"));
        }
        let mut key = Key(Zeroizing::new([0; KEY_BYTES]));
        file.read_exact(&mut key.0[..]).map_err(problem)?;
        Ok(Some(key))
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    fn random() -> Result<Self, Problem> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        random(&mut key[..])?;
        Ok(Self(key))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

fn seal(node: &Key, secret: &SecretKey, value: &[u8], version: u64, wall: WallTime) -> Result<Vec<u8>, Problem> {
    let mut file = [MAGIC, &version.to_le_bytes(), &wall.0.to_le_bytes()].concat();
    let own = Key::random()?;
    let about = about(secret, &file);
    for (key, open) in [(node, &own.0[..]), (&own, value)] {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let payload = Payload { msg: open, aad: &about };
        let sealed = key.cipher().encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| Problem::new(Code::Internal, "a secret could not be sealed"))?;
        file.extend_from_slice(&nonce);
        file.extend_from_slice(&sealed);
    }
    Ok(file)
}

fn unseal(node: &Key, secret: &SecretKey, file: &[u8]) -> Option<Value> {
    let (head, rest) = file.split_at_checked(HEAD_BYTES)?;
    let about = about(secret, head);
    let open = |key: &Key, sealed: &[u8]| -> Option<Value> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        key.cipher().decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &about }).ok().map(Zeroizing::new)
    };
    let (sealed_key, sealed_value) = rest.split_at_checked(NONCE_BYTES + KEY_BYTES + TAG_BYTES)?;
    let own = open(node, sealed_key)?;
    let mut key = Key(Zeroizing::new([0; KEY_BYTES]));
    key.0.copy_from_slice(own.get(..KEY_BYTES)?);
    open(&key, sealed_value)
}

/// What a value is bound to: its name, and when it was set.
fn about(secret: &SecretKey, head: &[u8]) -> Vec<u8> {
    [head, secret.namespace.as_str().as_bytes(), b"/", secret.name.as_str().as_bytes()].concat()
}

fn random(mut bytes: &mut [u8]) -> Result<(), Problem> {
    while !bytes.is_empty() {
        match rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(length) => bytes = &mut bytes[length..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Problem::new(Code::Internal, format!("the kernel gives no randomness: {error}"))),
        }
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), Problem> {
    let invalid = |message: String| Err(Problem::new(Code::InvalidValue, message));
    match value.len() as u64 {
        0 => invalid("a secret has a value: nothing was given".to_owned()),
        length if length > SECRET_MAX.0 => invalid(format!("a secret has at most {SECRET_MAX}, not {length} bytes")),
        _ => Ok(()),
    }
}

pub fn missing(secret: &SecretKey) -> Problem {
    Problem::new(Code::SecretMissing, format!("there is no secret `{secret}`"))
        .help(format!("set it with `rads c secrets set {secret}`"))
}

fn no_key(path: &Path) -> Problem {
    let problem = fault::corrupt(path, "there are secrets, and the key that opens them is gone");
    problem.help("restore the file from a backup, or remove the folder `secrets` beside it and set them anew")
}

/// The names of a folder that has none but names of ours in it; what is not one is left alone.
fn names(folder: &Path) -> Result<Vec<Name>, Problem> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| fault::problem("read", folder, &error))?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn private_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(path.parent().unwrap_or(path)),
    }
}

/// All or nothing: beside its place, synced, then renamed.
pub(crate) fn write_whole(unfinished: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(unfinished, path)?;
        sync_dir(path.parent().unwrap_or(path))
    };
    write().inspect_err(|_| drop(fs::remove_file(unfinished)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SecretKey {
        text.parse().unwrap()
    }

    #[test]
    fn a_value_comes_back_and_is_nowhere_on_disk_in_clear() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path());
        assert_eq!(secrets.set(&key("db"), b"swordfish-1", WallTime(5)).unwrap(), SecretChange::Created);
        assert_eq!(secrets.set(&key("db"), b"swordfish-2", WallTime(9)).unwrap(), SecretChange::Replaced);
        secrets.set(&key("team/db"), b"other", WallTime(1)).unwrap();
        assert_eq!(*secrets.open(&key("db")).unwrap(), b"swordfish-2");
        assert_eq!(*secrets.open(&key("team/db")).unwrap(), b"other");
        let views = secrets.list().unwrap();
        assert_eq!(
            views,
            [
                SecretView { secret: key("db"), version: 2, changed: WallTime(9) },
                SecretView { secret: key("team/db"), version: 1, changed: WallTime(1) }
            ]
        );
        for path in ["secrets/default/db", "secrets/team/db", "secrets.key"] {
            let path = dir.path().join(path);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let bytes = fs::read(path).unwrap();
            assert!(!bytes.windows(5).any(|window| window == b"sword" || window == b"other"));
        }
        secrets.delete(&key("db")).unwrap();
        assert_eq!(secrets.open(&key("db")).unwrap_err().code, Code::SecretMissing);
        assert_eq!(secrets.delete(&key("db")).unwrap_err().code, Code::SecretMissing);
        assert!(!secrets.has(&key("db")) && secrets.has(&key("team/db")));
    }

    #[test]
    fn what_was_changed_or_moved_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path());
        secrets.set(&key("a"), b"of a", WallTime(5)).unwrap();
        let path = dir.path().join("secrets/default/a");
        let sealed = fs::read(&path).unwrap();
        // Every byte counts: the version and time of setting too.
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert_eq!(secrets.open(&key("a")).unwrap_err().code, Code::DataCorrupt, "byte {at}");
        }
        for length in [0, 10, SEALED_MIN, sealed.len() - 1] {
            fs::write(&path, &sealed[..length]).unwrap();
            assert_eq!(secrets.open(&key("a")).unwrap_err().code, Code::DataCorrupt, "{length} bytes");
        }
        fs::write(dir.path().join("secrets/default/b"), &sealed).unwrap();
        assert_eq!(secrets.open(&key("b")).unwrap_err().code, Code::DataCorrupt, "one secret in the place of another");
        fs::write(&path, &sealed).unwrap();
        assert_eq!(*secrets.open(&key("a")).unwrap(), b"of a");
    }

    #[test]
    fn a_key_that_is_gone_or_open_to_others_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path());
        secrets.set(&key("a"), b"x", WallTime(5)).unwrap();
        let path = dir.path().join("secrets.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(secrets.open(&key("a")).unwrap_err().code, Code::Forbidden);
        fs::remove_file(&path).unwrap();
        assert_eq!(secrets.open(&key("a")).unwrap_err().code, Code::DataCorrupt);
        assert_eq!(secrets.set(&key("b"), b"x", WallTime(5)).unwrap_err().code, Code::DataCorrupt);
        assert!(!path.exists(), "no new key in the place of the one that opens what is there");
    }

    #[test]
    fn values_have_a_size() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path());
        let most = vec![7; SECRET_MAX.0 as usize];
        secrets.set(&key("a"), &most, WallTime(5)).unwrap();
        assert_eq!(*secrets.open(&key("a")).unwrap(), most);
        for bad in [&[][..], &vec![7; SECRET_MAX.0 as usize + 1]] {
            assert_eq!(secrets.set(&key("a"), bad, WallTime(5)).unwrap_err().code, Code::InvalidValue);
        }
        assert_eq!(secrets.list().unwrap()[0].version, 1);
    }
}
