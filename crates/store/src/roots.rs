//! Root file systems on disk: archives of bundles, unpacked once per content, shared by every star that has one as its
//! root.
//!
//! `roots/<hash>/` holds the files of the archive of that hash, `roots/<bundle>` is a link to the one a bundle brings.
//! Nothing of an archive is trusted: a path stays inside, device files are left out, and no file keeps a bit that would
//! lend its owner's rights to whoever runs it. Everything belongs to whoever runs the agent; a star sees it as its own
//! root's.
//!
//! Everything here blocks on the disk; an async caller gives it a thread.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{BundleId, Bytes, Code, ContentHash, Problem};
use tar::EntryType;

use crate::bundles::sync_dir;
use crate::fault;

/// Most bytes an archive may unpack to: a compressed one can claim any number.
const UNPACKED_MAX: Bytes = Bytes::mib(8 * 1024);
/// Most files of one: each costs an inode.
const FILES_MAX: usize = 500_000;
/// What of a file's mode is kept: not set-user-id, set-group-id and sticky.
const MODE_REFUSED: u32 = 0o7000;
/// First bytes of gzip: RFC 1952.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The root file systems of one data folder.
#[derive(Debug)]
pub struct Roots {
    folder: PathBuf,
}

impl Roots {
    /// `dir` is the data folder. Unfinished work of an earlier process is removed.
    pub fn new(dir: &Path) -> Result<Self, Problem> {
        let this = Self { folder: dir.join("roots") };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&this.folder);
        made.map_err(|error| fault::problem("create", &this.folder, &error))?;
        for entry in this.entries()? {
            if entry.starts_with(UNFINISHED) {
                this.remove(&entry)?;
            }
        }
        Ok(this)
    }

    /// Unpacks the archive (tar, plain or with gzip) that a bundle brings, unless one of the same content is there.
    /// Durable when it returns.
    ///
    /// # Errors
    /// `InvalidValue` for what is no such archive or unpacks to too much; `DiskFull`. Nothing of it is kept then.
    pub fn ensure(&self, bundle: &BundleId, archive: &Path) -> Result<(), Problem> {
        if let Some(root) = self.path(bundle) {
            // Made anew, so that it is not collected before its app is put.
            let name = root.file_name().map(PathBuf::from).unwrap_or_default();
            return self.link(bundle, &name);
        }
        let unreadable = |error: io::Error| fault::problem("read", archive, &error);
        let hash = hash_of(archive).map_err(unreadable)?;
        let root = self.folder.join(hash.to_string());
        if !root.is_dir() {
            let unfinished = self.folder.join(format!("{UNFINISHED}{hash}"));
            let unpacked = self.remove(&format!("{UNFINISHED}{hash}")).and_then(|()| {
                unpack(archive, &unfinished)?;
                // Its files reach the disk before its name does.
                rustix::fs::syncfs(File::open(&unfinished).map_err(unreadable)?)
                    .map_err(|error| fault::problem("write", &unfinished, &error.into()))?;
                fs::rename(&unfinished, &root).map_err(|error| fault::problem("create", &root, &error))
            });
            if let Err(problem) = unpacked {
                let _ = self.remove(&format!("{UNFINISHED}{hash}"));
                return Err(problem);
            }
        }
        self.link(bundle, Path::new(&hash.to_string()))
    }

    /// Notes which root a bundle brings, whole or not at all.
    fn link(&self, bundle: &BundleId, root: &Path) -> Result<(), Problem> {
        let name = format!("{UNFINISHED}{bundle}");
        self.remove(&name)?;
        symlink(root, self.folder.join(&name))
            .and_then(|()| fs::rename(self.folder.join(&name), self.folder.join(bundle.to_string())))
            .and_then(|()| sync_dir(&self.folder))
            .map_err(|error| fault::problem("write", &self.folder, &error))
    }

    /// The folder a bundle's stars have as their root.
    pub fn path(&self, bundle: &BundleId) -> Option<PathBuf> {
        let target = fs::read_link(self.folder.join(bundle.to_string())).ok()?;
        let path = self.folder.join(target);
        path.is_dir().then_some(path)
    }

    /// Removes the file systems that none of the bundles to `keep` brings. What was ensured less than `young` ago stays:
    /// it may belong to an app that is not put yet.
    pub fn collect(&self, keep: &BTreeSet<BundleId>, young: Duration) -> Result<(), Problem> {
        let links = |name: &str| fs::read_link(self.folder.join(name)).ok();
        let is_young = |name: &str| {
            let changed = fs::symlink_metadata(self.folder.join(name)).and_then(|data| data.modified());
            // A time in the future counts as young: too much is kept, never too little.
            changed.is_ok_and(|time| time.elapsed().map_or(true, |age| age < young))
        };
        let names = self.entries()?;
        let is_kept = |name: &str| name.parse().is_ok_and(|hash| keep.contains(&BundleId(hash))) || is_young(name);
        let (kept, gone): (Vec<&String>, Vec<&String>) =
            names.iter().filter(|name| links(name).is_some()).partition(|name| is_kept(name));
        let used: BTreeSet<PathBuf> = kept.into_iter().filter_map(|name| links(name)).collect();
        for name in gone {
            self.remove(name)?;
        }
        let unused = |name: &&String| !used.contains(Path::new(name.as_str())) && !name.starts_with(UNFINISHED);
        for name in names.iter().filter(unused).filter(|name| self.folder.join(name).is_dir()) {
            if links(name).is_none() {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<String>, Problem> {
        let names = fs::read_dir(&self.folder).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<_>>()
        });
        names.map_err(|error| fault::problem("read", &self.folder, &error))
    }

    fn remove(&self, name: &str) -> Result<(), Problem> {
        let path = self.folder.join(name);
        let removed = match fs::symlink_metadata(&path) {
            Ok(data) if data.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault::problem("remove", &path, &error)),
            _ => Ok(()),
        }
    }
}

/// No hash starts with a dot.
const UNFINISHED: &str = ".unfinished-";

fn hash_of(path: &Path) -> io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(ContentHash(*hasher.finalize().as_bytes()))
}

fn unpack(archive: &Path, into: &Path) -> Result<(), Problem> {
    DirBuilder::new().mode(0o755).create(into).map_err(|error| fault::problem("create", into, &error))?;
    let mut file = File::open(archive).map_err(|error| fault::problem("read", archive, &error))?;
    let mut first = [0; 2];
    let is_gzip = file.read_exact(&mut first).is_ok() && first == GZIP;
    file.seek(SeekFrom::Start(0)).map_err(|error| fault::problem("read", archive, &error))?;
    let file = BufReader::new(file);
    // One byte more than allowed tells that there was more.
    match is_gzip {
        true => unpack_tar(flate2::bufread::MultiGzDecoder::new(file).take(UNPACKED_MAX.0 + 1), into),
        false => unpack_tar(file.take(UNPACKED_MAX.0 + 1), into),
    }
}

fn unpack_tar(reader: impl Read, into: &Path) -> Result<(), Problem> {
    let invalid =
        |why: String| Problem::new(Code::InvalidValue, why).help("make it with `tar -c`, with or without `-z`");
    let no_archive = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => fault::problem("write", into, &error),
        _ => invalid(format!("the root file system is no tar archive, or is damaged: {error}")),
    };
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(false);
    archive.set_unpack_xattrs(false);
    archive.set_mask(MODE_REFUSED);
    let (mut files, mut bytes) = (0_usize, 0_u64);
    for entry in archive.entries().map_err(no_archive)? {
        let mut entry = entry.map_err(no_archive)?;
        files += 1;
        bytes = bytes.saturating_add(entry.size());
        if files > FILES_MAX || bytes > UNPACKED_MAX.0 {
            return Err(invalid(format!("the root file system is more than {FILES_MAX} files or {UNPACKED_MAX}")));
        }
        match entry.header().entry_type() {
            // A star has the devices it may use, and no others.
            EntryType::Block | EntryType::Char | EntryType::Fifo | EntryType::XGlobalHeader => {}
            // What leads outside is left out: `false`.
            _ => drop(entry.unpack_in(into).map_err(no_archive)?),
        }
    }
    match files {
        0 => Err(invalid("the root file system is an empty archive".to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn bundle(n: u8) -> BundleId {
        BundleId(ContentHash([n; 32]))
    }

    /// An archive of files, links (a text that starts with `-> `) and whatever else `more` adds.
    fn archive(
        dir: &Path,
        files: &[(&str, u32, &str)],
        gzip: bool,
        more: impl FnOnce(&mut tar::Builder<Vec<u8>>),
    ) -> PathBuf {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, mode, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(*mode);
            // Written by hand: the builder refuses what a hostile one would contain.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            match text.strip_prefix("-> ") {
                Some(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_link_name(target).unwrap();
                    header.set_size(0);
                    header.set_cksum();
                    builder.append(&header, io::empty()).unwrap();
                }
                None => {
                    header.set_size(text.len() as u64);
                    header.set_cksum();
                    builder.append(&header, text.as_bytes()).unwrap();
                }
            }
        }
        more(&mut builder);
        let bytes = builder.into_inner().unwrap();
        let path = dir.join("root.tar");
        if gzip {
            let mut encoder = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
            io::Write::write_all(&mut encoder, &bytes).unwrap();
            encoder.finish().unwrap();
        } else {
            fs::write(&path, bytes).unwrap();
        }
        path
    }

    fn fresh() -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(dir.path()).unwrap();
        (dir, roots)
    }

    #[test]
    fn an_archive_is_unpacked_once_per_content() {
        for gzip in [false, true] {
            let (dir, roots) = fresh();
            let files = [("bin/tool", 0o755, "#!"), ("etc/secret", 0o600, "s"), ("lib", 0o777, "-> usr/lib")];
            let archive = archive(dir.path(), &files, gzip, |_| {});
            assert_eq!(roots.path(&bundle(1)), None);
            roots.ensure(&bundle(1), &archive).unwrap();
            roots.ensure(&bundle(2), &archive).unwrap();
            let root = roots.path(&bundle(1)).unwrap();
            assert_eq!(roots.path(&bundle(2)), Some(root.clone()));
            let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode("bin/tool"), mode("etc/secret")), (0o755, 0o600));
            assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
            roots.collect(&BTreeSet::new(), Duration::from_secs(600)).unwrap();
            assert!(roots.path(&bundle(1)).is_some(), "its app may be on its way");
            roots.collect(&BTreeSet::from([bundle(2)]), Duration::ZERO).unwrap();
            assert!(roots.path(&bundle(1)).is_none() && root.is_dir());
            roots.collect(&BTreeSet::new(), Duration::ZERO).unwrap();
            assert!(!root.exists());
        }
    }

    #[test]
    fn nothing_of_an_archive_leads_outside_or_lends_rights() {
        let (dir, roots) = fresh();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let link = format!("-> {}", outside.display());
        let files = [
            ("../escaped", 0o644, "x"),
            ("/absolute", 0o644, "x"),
            ("up", 0o777, link.as_str()),
            ("up/through", 0o644, "x"),
            ("su", 0o6755, "x"),
        ];
        let archive = archive(dir.path(), &files, false, |builder| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::Char);
            header.set_path("device").unwrap();
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        });
        // Refused as a whole or in part: both will do, as long as nothing got out.
        let outcome = roots.ensure(&bundle(1), &archive);
        assert!(!dir.path().join("escaped").exists() && !roots.folder.join("escaped").exists());
        assert!(!Path::new("/absolute").exists());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        if outcome.is_ok() {
            let root = roots.path(&bundle(1)).unwrap();
            assert_eq!(fs::metadata(root.join("su")).unwrap().permissions().mode() & 0o7777, 0o755);
            assert!(!root.join("device").exists());
        }
    }

    #[test]
    fn what_is_no_archive_is_refused_and_nothing_is_kept() {
        let (dir, roots) = fresh();
        for bytes in [&b""[..], b"no archive at all", &[0x1f, 0x8b, 1, 2, 3], &[0; 10_240]] {
            let path = dir.path().join("bad.tar");
            fs::write(&path, bytes).unwrap();
            assert_eq!(roots.ensure(&bundle(1), &path).unwrap_err().code, Code::InvalidValue, "{bytes:?}");
            assert_eq!(fs::read_dir(&roots.folder).unwrap().count(), 0);
        }
    }

    #[test]
    fn set_user_id_is_not_kept() {
        let (dir, roots) = fresh();
        let archive = archive(dir.path(), &[("su", 0o6755, "x")], false, |_| {});
        roots.ensure(&bundle(1), &archive).unwrap();
        let su = roots.path(&bundle(1)).unwrap().join("su");
        assert_eq!(fs::metadata(su).unwrap().permissions().mode() & 0o7777, 0o755);
    }
}
