//! Bundles on disk: uploaded by content, unpacked once per version, shared by every star that runs it.
//!
//! `blobs/` holds contents by hash, `bundles/<id>/` the files of one version, read-only. A file of a bundle is a
//! hard link to its blob, so ten versions that differ in one file cost one file each, in memory too. The mode is the
//! inode's, so a content wanted both plain and executable is kept twice (`<hash>` and `<hash>.x`).
//!
//! Everything here blocks on the disk; an async caller gives it a thread.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use model::bundle::{BUNDLE_FILES_MAX, is_bundle_path};
use model::{BundleId, BundleManifest, Bytes, Code, ContentHash, FileEntry, Problem};

use crate::fault;

/// Largest file of a bundle: a script's assets fit with room to spare, and a body of this size can be held in memory.
pub const FILE_MAX: Bytes = Bytes::mib(64);
/// Largest bundle, all its files together.
pub const BUNDLE_MAX: Bytes = Bytes::mib(512);
/// [`Bundles::collect`] leaves what was touched this recently: it may belong to an upload whose app is not put yet.
pub const COLLECT_AFTER: Duration = Duration::from_secs(600);

/// The bundles of one data folder.
#[derive(Debug)]
pub struct Bundles {
    blobs: PathBuf,
    bundles: PathBuf,
    /// Makes the names of unfinished files distinct within this process.
    next: AtomicU64,
}

impl Bundles {
    /// `dir` is the data folder. Unfinished work of an earlier process is removed.
    pub fn new(dir: &Path) -> Result<Self, Problem> {
        let this = Self { blobs: dir.join("blobs"), bundles: dir.join("bundles"), next: AtomicU64::new(0) };
        for (folder, mode) in [(&this.blobs, 0o700), (&this.bundles, 0o700)] {
            let made = DirBuilder::new().recursive(true).mode(mode).create(folder);
            made.map_err(|error| fault::problem("create", folder, &error))?;
            for entry in entries(folder)? {
                if name_of(&entry).starts_with(UNFINISHED) {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(this)
    }

    /// The contents that must be put before the bundle can be committed, each once.
    pub fn missing(&self, manifest: &BundleManifest) -> Vec<ContentHash> {
        if self.path(&id_of(manifest)).is_some() {
            return Vec::new();
        }
        let wanted: BTreeSet<ContentHash> = manifest.files.values().map(|file| file.content).collect();
        // What is there is touched, so that it is not collected while the rest arrives.
        wanted.into_iter().filter(|hash| self.blob(hash).is_none_or(|path| touch(&path).is_err())).collect()
    }

    /// Keeps a content. Durable when it returns; putting it twice is harmless.
    ///
    /// # Errors
    /// `InvalidValue` when the bytes are not what the hash says or are more than [`FILE_MAX`]; `DiskFull`.
    pub fn put_blob(&self, hash: &ContentHash, bytes: &[u8]) -> Result<(), Problem> {
        if bytes.len() as u64 > FILE_MAX.0 {
            return Err(too_large(&format!("content `{hash}`"), FILE_MAX));
        }
        let actual = ContentHash(*blake3::hash(bytes).as_bytes());
        if actual != *hash {
            return Err(Problem::new(
                Code::InvalidValue,
                format!("the content sent as `{hash}` has the hash `{actual}`"),
            )
            .help("the file changed while it was sent; run the command again"));
        }
        let path = self.blobs.join(hash.to_string());
        if path.exists() && touch(&path).is_ok() {
            return Ok(());
        }
        self.write_file(&path, bytes, PLAIN).map_err(|error| fault::problem("write", &path, &error))
    }

    /// Unpacks a bundle whose contents were all put, under its own name. Atomic and durable; committing twice is
    /// harmless.
    ///
    /// # Errors
    /// `BundleMissing` names how many contents are not here; `InvalidValue` for a manifest that cannot be unpacked;
    /// `DiskFull`. Nothing of the bundle is visible then.
    pub fn commit(&self, manifest: &BundleManifest) -> Result<BundleId, Problem> {
        check(manifest)?;
        let id = id_of(manifest);
        if let Some(path) = self.path(&id) {
            // Best effort: the worst a failed touch can do is an early collection of what nothing uses.
            let _ = touch(&path);
            return Ok(id);
        }
        let missing = self.missing(manifest).len();
        if missing > 0 {
            return Err(Problem::new(Code::BundleMissing, format!("{missing} files of bundle `{id}` were not sent"))
                .help("send the missing files, then commit again"));
        }
        let unfinished = self.bundles.join(self.unfinished_name());
        let unpacked = self.unpack(manifest, &unfinished).and_then(|()| {
            let path = self.bundles.join(id.to_string());
            match fs::rename(&unfinished, &path) {
                Ok(()) => sync_dir(&self.bundles).map_err(|error| fault::problem("write", &self.bundles, &error)),
                // Another request finished the same bundle meanwhile.
                Err(_) if path.is_dir() => remove(&unfinished),
                Err(error) => Err(fault::problem("create", &path, &error)),
            }
        });
        if unpacked.is_err() {
            // The first problem is the one to tell; what is left behind goes at the next start.
            let _ = remove(&unfinished);
        }
        unpacked.map(|()| id)
    }

    /// The folder of a committed bundle.
    pub fn path(&self, id: &BundleId) -> Option<PathBuf> {
        let path = self.bundles.join(id.to_string());
        path.is_dir().then_some(path)
    }

    /// What a committed bundle holds, read from its files: what is passed on is what was stored. Nothing when it is not here.
    ///
    /// # Errors
    /// `DataCorrupt` when its files are no longer those it was named for.
    pub fn manifest(&self, id: &BundleId) -> Result<Option<BundleManifest>, Problem> {
        let Some(root) = self.path(id) else { return Ok(None) };
        let mut manifest = BundleManifest::default();
        let mut folders = vec![(root, String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in entries(&folder)? {
                let (path, name) = (entry.path(), format!("{prefix}{}", name_of(&entry)));
                let meta = entry.metadata().map_err(|error| fault::problem("read", &path, &error))?;
                if meta.is_dir() {
                    folders.push((path, format!("{name}/")));
                    continue;
                }
                let mut hasher = blake3::Hasher::new();
                let read = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hasher));
                read.map_err(|error| fault::problem("read", &path, &error))?;
                let (content, executable) = (ContentHash(*hasher.finalize().as_bytes()), meta.mode() & 0o111 != 0);
                manifest.files.insert(name, FileEntry { content, size: meta.len(), executable });
            }
        }
        if id_of(&manifest) != *id {
            let message = format!("the files of bundle `{id}` are not those it was stored with");
            return Err(Problem::new(Code::DataCorrupt, message).help("bring the app up again from its source"));
        }
        Ok(Some(manifest))
    }

    /// A content that is here, and its length.
    ///
    /// # Errors
    /// When it cannot be read. Whether it is what its hash says is for whoever takes it to check.
    pub fn content(&self, hash: &ContentHash) -> Result<Option<(File, u64)>, Problem> {
        let Some(path) = self.blob(hash) else { return Ok(None) };
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        opened.map(|(length, file)| Some((file, length))).map_err(|error| fault::problem("read", &path, &error))
    }

    /// Whether a bundle is here; if so, [`Bundles::collect`] leaves it for a while, as if it had just been committed.
    pub fn keep(&self, id: &BundleId) -> bool {
        self.path(id).is_some_and(|path| touch(&path).is_ok())
    }

    /// Removes every bundle that is not in `keep`, and every content no bundle uses, unless touched within
    /// [`COLLECT_AFTER`]. Returns the number of bundles removed.
    pub fn collect(&self, keep: &BTreeSet<BundleId>) -> Result<usize, Problem> {
        let now = SystemTime::now();
        // A time in the future (a clock set back) counts as recent: too much is kept, never too little.
        let old = |meta: &fs::Metadata| {
            let age = meta.modified().ok().and_then(|time| now.duration_since(time).ok());
            age.is_some_and(|age| age >= COLLECT_AFTER)
        };
        let mut removed = 0;
        for entry in entries(&self.bundles)? {
            let Ok(id) = name_of(&entry).parse().map(BundleId) else { continue };
            if !keep.contains(&id) && entry.metadata().is_ok_and(|meta| old(&meta)) {
                remove(&entry.path())?;
                removed += 1;
            }
        }
        for entry in entries(&self.blobs)? {
            if entry.metadata().is_ok_and(|meta| meta.nlink() == 1 && old(&meta)) {
                remove(&entry.path())?;
            }
        }
        Ok(removed)
    }

    fn blob(&self, hash: &ContentHash) -> Option<PathBuf> {
        let plain = self.blobs.join(hash.to_string());
        if plain.is_file() {
            return Some(plain);
        }
        let executable = self.blobs.join(format!("{hash}.x"));
        executable.is_file().then_some(executable)
    }

    fn unpack(&self, manifest: &BundleManifest, into: &Path) -> Result<(), Problem> {
        let mut folders = BTreeSet::from([into.to_path_buf()]);
        for path in manifest.files.keys() {
            let target = into.join(path);
            let parents = target.ancestors().skip(1).take_while(|parent| parent.starts_with(into));
            folders.extend(parents.map(Path::to_path_buf));
        }
        // In the order of their paths, so a parent comes before its children.
        for folder in &folders {
            let made = DirBuilder::new().mode(0o755).create(folder);
            made.and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)))
                .map_err(|error| fault::problem("create", folder, &error))?;
        }
        for (path, file) in &manifest.files {
            let target = into.join(path);
            let blob = self.blob_for(&file.content, file.executable)?;
            let size = fs::metadata(&blob).map_err(|error| fault::problem("read", &blob, &error))?.len();
            if size != file.size {
                return Err(Problem::new(
                    Code::InvalidValue,
                    format!("`{path}` is {size} bytes, its manifest says {}", file.size),
                ));
            }
            fs::hard_link(&blob, &target).map_err(|error| fault::problem("create", &target, &error))?;
        }
        for folder in &folders {
            sync_dir(folder).map_err(|error| fault::problem("write", folder, &error))?;
        }
        Ok(())
    }

    /// The blob with the mode wanted, made from the other when only that one is here.
    fn blob_for(&self, hash: &ContentHash, executable: bool) -> Result<PathBuf, Problem> {
        let (suffix, mode) = if executable { (".x", EXECUTABLE) } else { ("", PLAIN) };
        let path = self.blobs.join(format!("{hash}{suffix}"));
        if path.is_file() {
            return Ok(path);
        }
        let other = self.blob(hash).unwrap_or_else(|| path.clone());
        let copied = fs::read(&other).and_then(|bytes| self.write_file(&path, &bytes, mode));
        copied.map_err(|error| fault::problem("write", &path, &error))?;
        Ok(path)
    }

    /// All or nothing: a temporary file beside the target, synced, then given its name. A file that came there meanwhile has the same
    /// content and stays: somebody may be about to link it, and a file that was replaced cannot be linked any more.
    fn write_file(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let unfinished = self.blobs.join(self.unfinished_name());
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(bytes)?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()?;
            match fs::hard_link(&unfinished, path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            fs::remove_file(&unfinished)?;
            sync_dir(&self.blobs)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn unfinished_name(&self) -> String {
        format!("{UNFINISHED}{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// No hash starts with a dot.
const UNFINISHED: &str = ".unfinished-";
const PLAIN: u32 = 0o444;
const EXECUTABLE: u32 = 0o555;

/// The name of a bundle: BLAKE3 of its manifest's canonical bytes.
pub fn id_of(manifest: &BundleManifest) -> BundleId {
    BundleId(ContentHash(*blake3::hash(&manifest.canonical_bytes()).as_bytes()))
}

fn check(manifest: &BundleManifest) -> Result<(), Problem> {
    let invalid = |message: String| Err(Problem::new(Code::InvalidValue, message));
    if manifest.files.len() > BUNDLE_FILES_MAX {
        return invalid(format!("the bundle has {} files; the most is {BUNDLE_FILES_MAX}", manifest.files.len()));
    }
    for (path, file) in &manifest.files {
        if !is_bundle_path(path) {
            return invalid(format!("`{}` cannot name a file of a bundle", path.escape_debug()));
        }
        if file.size > FILE_MAX.0 {
            return Err(too_large(&format!("`{path}`"), FILE_MAX));
        }
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(parent) = parents.find(|parent| manifest.files.contains_key(*parent)) {
            return invalid(format!("`{parent}` is both a file and a folder of the bundle"));
        }
    }
    let total = manifest.files.values().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    if total > BUNDLE_MAX.0 { Err(too_large("the bundle", BUNDLE_MAX)) } else { Ok(()) }
}

fn too_large(what: &str, most: Bytes) -> Problem {
    Problem::new(Code::InvalidValue, format!("{what} is larger than {most}"))
        .help("keep data in a volume; a bundle is for code and assets")
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, Problem> {
    let read = fs::read_dir(folder).and_then(Iterator::collect);
    read.map_err(|error| fault::problem("read", folder, &error))
}

fn name_of(entry: &fs::DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

fn remove(path: &Path) -> Result<(), Problem> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(fault::problem("remove", path, &error)),
        _ => Ok(()),
    }
}

fn touch(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn hash(bytes: &[u8]) -> ContentHash {
        ContentHash(*blake3::hash(bytes).as_bytes())
    }

    fn manifest(files: &[(&str, &[u8], bool)]) -> BundleManifest {
        let entry = |bytes: &[u8], executable| FileEntry { content: hash(bytes), size: bytes.len() as u64, executable };
        let files: BTreeMap<_, _> = files.iter().map(|(p, b, x)| ((*p).to_owned(), entry(b, *x))).collect();
        BundleManifest { files }
    }

    fn fresh() -> (tempfile::TempDir, Bundles) {
        let dir = tempfile::tempdir().unwrap();
        let bundles = Bundles::new(dir.path()).unwrap();
        (dir, bundles)
    }

    fn age(path: &Path) {
        File::open(path).unwrap().set_modified(SystemTime::now() - 2 * COLLECT_AFTER).unwrap();
    }

    fn count(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[test]
    fn what_is_put_is_unpacked_read_only_under_its_hash() {
        let (dir, bundles) = fresh();
        let wanted = manifest(&[("a.rads", b"same", false), ("bin/tool", b"same", true), ("lib/deep/b", b"b", false)]);
        assert_eq!(bundles.missing(&wanted), {
            let mut hashes = vec![hash(b"same"), hash(b"b")];
            hashes.sort();
            hashes
        });
        assert_eq!(bundles.commit(&wanted).unwrap_err().code, Code::BundleMissing);
        bundles.put_blob(&hash(b"same"), b"same").unwrap();
        assert_eq!(bundles.missing(&wanted), [hash(b"b")]);
        bundles.put_blob(&hash(b"b"), b"b").unwrap();
        let id = bundles.commit(&wanted).unwrap();
        assert_eq!(bundles.commit(&wanted).unwrap(), id, "committing twice is harmless");

        let path = bundles.path(&id).unwrap();
        for (file, content, mode) in
            [("a.rads", "same", 0o444), ("bin/tool", "same", 0o555), ("lib/deep/b", "b", 0o444)]
        {
            assert_eq!(fs::read_to_string(path.join(file)).unwrap(), content);
            assert_eq!(fs::metadata(path.join(file)).unwrap().mode() & 0o7777, mode, "{file}");
        }
        assert!(bundles.missing(&wanted).is_empty());
        assert_eq!(count(&dir.path().join("bundles")), 1, "nothing unfinished is left");
    }

    #[test]
    fn a_bundle_is_passed_on_as_it_was_stored_or_not_at_all() {
        let (_dir, bundles) = fresh();
        let wanted = manifest(&[("a.rads", b"same", false), ("bin/tool", b"same", true), ("lib/deep/b", b"b", false)]);
        assert_eq!(bundles.manifest(&id_of(&wanted)).unwrap(), None);
        for bytes in [b"same".as_slice(), b"b"] {
            assert!(bundles.content(&hash(bytes)).unwrap().is_none());
            bundles.put_blob(&hash(bytes), bytes).unwrap();
            let (mut file, length) = bundles.content(&hash(bytes)).unwrap().unwrap();
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert_eq!((read.as_slice(), length), (bytes, bytes.len() as u64));
        }
        let id = bundles.commit(&wanted).unwrap();
        assert_eq!(bundles.manifest(&id).unwrap(), Some(wanted));
        age(&bundles.path(&id).unwrap());
        assert!(bundles.keep(&id) && !bundles.keep(&BundleId(hash(b"other"))));
        assert_eq!(bundles.collect(&BTreeSet::new()).unwrap(), 0, "it was wanted a moment ago");
        let path = bundles.path(&id).unwrap().join("lib/deep/b");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
        assert_eq!(bundles.manifest(&id).unwrap_err().code, Code::DataCorrupt);
    }

    #[test]
    fn bytes_that_are_not_what_they_are_called_are_refused() {
        let (dir, bundles) = fresh();
        assert_eq!(bundles.put_blob(&hash(b"a"), b"b").unwrap_err().code, Code::InvalidValue);
        let large = vec![0; FILE_MAX.0 as usize + 1];
        assert_eq!(bundles.put_blob(&hash(&large), &large).unwrap_err().code, Code::InvalidValue);
        assert_eq!(count(&dir.path().join("blobs")), 0);
    }

    #[test]
    fn a_manifest_that_leads_out_of_its_folder_or_lies_is_refused() {
        let (dir, bundles) = fresh();
        bundles.put_blob(&hash(b"x"), b"x").unwrap();
        let mut lying = manifest(&[("a", b"x", false)]);
        lying.files.get_mut("a").unwrap().size = 2;
        let mut huge = manifest(&[("a", b"x", false)]);
        huge.files.get_mut("a").unwrap().size = u64::MAX;
        for bad in [
            manifest(&[("../a", b"x", false)]),
            manifest(&[("/etc/a", b"x", false)]),
            manifest(&[("a", b"x", false), ("a/b", b"x", false)]),
            lying,
            huge,
        ] {
            assert_eq!(bundles.commit(&bad).unwrap_err().code, Code::InvalidValue, "{bad:?}");
        }
        assert_eq!(count(&dir.path().join("bundles")), 0);
    }

    #[test]
    fn collection_removes_what_is_old_and_unused_and_nothing_else() {
        let (dir, bundles) = fresh();
        for bytes in [b"one", b"two", b"new"] {
            bundles.put_blob(&hash(bytes), bytes).unwrap();
        }
        let kept = bundles.commit(&manifest(&[("a", b"one", false)])).unwrap();
        let dropped = bundles.commit(&manifest(&[("a", b"one", false), ("b", b"two", false)])).unwrap();
        let young = bundles.commit(&manifest(&[("c", b"one", false)])).unwrap();
        for path in [bundles.path(&dropped).unwrap(), bundles.path(&kept).unwrap()] {
            age(&path);
        }
        for bytes in [b"one", b"two"] {
            age(&dir.path().join("blobs").join(hash(bytes).to_string()));
        }
        assert_eq!(bundles.collect(&BTreeSet::from([kept])).unwrap(), 1);
        assert!(bundles.path(&kept).is_some() && bundles.path(&young).is_some());
        assert!(bundles.path(&dropped).is_none());
        let blob = |bytes| dir.path().join("blobs").join(hash(bytes).to_string()).exists();
        assert!(blob(b"one") && blob(b"new"), "used, or just put");
        assert!(!blob(b"two"));
    }

    #[test]
    fn unfinished_work_of_a_killed_process_is_removed_at_the_next_start() {
        let (dir, _) = fresh();
        fs::create_dir_all(dir.path().join("bundles/.unfinished-1-0/lib")).unwrap();
        fs::write(dir.path().join("blobs/.unfinished-1-1"), "x").unwrap();
        Bundles::new(dir.path()).unwrap();
        assert_eq!(count(&dir.path().join("bundles")) + count(&dir.path().join("blobs")), 0);
    }

    /// Two commands bring up one app at once, and both find that the content is not there.
    #[test]
    fn a_content_that_came_meanwhile_is_not_replaced_under_who_links_it() {
        let (dir, bundles) = fresh();
        let path = dir.path().join("blobs").join(hash(b"a").to_string());
        bundles.put_blob(&hash(b"a"), b"a").unwrap();
        let first = fs::metadata(&path).unwrap().ino();
        bundles.write_file(&path, b"a", PLAIN).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), first);
        assert_eq!(count(&dir.path().join("blobs")), 1, "nothing unfinished is left");
    }
}
