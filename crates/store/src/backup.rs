//! The file that a backup is: sections of bytes, one after another, and a hash of all of it at its end.
//!
//! What the sections hold is their writer's. Whoever reads one has checked the whole file first: what is damaged or cut short is
//! refused before anything of it is used.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use model::{Code, Problem};

/// What a file begins with: the kind of file, and its version.
const MAGIC: [u8; 8] = *b"RADSBKP\x01";
/// Of a section: its kind, and the length of what follows (little-endian).
const HEAD_BYTES: usize = 1 + 8;
/// The kind of the last section, whose bytes are the BLAKE3 of all before it.
const END: u8 = 0xff;
const HASH_BYTES: usize = 32;
/// Read at once while the file is checked.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes a backup, section by section.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    hash: blake3::Hasher,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> io::Result<Self> {
        let mut this = Self { out, hash: blake3::Hasher::new() };
        this.put(&MAGIC)?;
        Ok(this)
    }

    /// # Errors
    /// `InvalidInput` for the kind that ends a file; those of the output.
    pub fn section(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        if kind == END {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.head(kind, bytes.len())?;
        self.put(bytes)
    }

    /// Without it the file is one that was cut short.
    pub fn finish(mut self) -> io::Result<W> {
        self.head(END, HASH_BYTES)?;
        let hash = *self.hash.finalize().as_bytes();
        self.out.write_all(&hash)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn head(&mut self, kind: u8, length: usize) -> io::Result<()> {
        self.put(&[kind])?;
        self.put(&(length as u64).to_le_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}

/// A backup that is whole.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    /// Bytes of sections that were not read yet.
    left: u64,
    path: std::path::PathBuf,
}

impl Reader {
    /// Opens a backup and checks all of it. Takes the time it takes to read the file once.
    ///
    /// # Errors
    /// `FileUnreadable`; `Unsupported` when a later version of RADS wrote it; `DataCorrupt` with what is wrong.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let unreadable =
            |error: io::Error| Problem::new(Code::FileUnreadable, format!("cannot read `{}`: {error}", path.display()));
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let corrupt = |what: &str| corrupt(path, what);
        let mut magic = [0; MAGIC.len()];
        if length < magic.len() as u64 {
            return Err(corrupt("it is no backup"));
        }
        file.read_exact(&mut magic).map_err(unreadable)?;
        if magic[..7] != MAGIC[..7] {
            return Err(corrupt("it is no backup"));
        }
        if magic != MAGIC {
            let message =
                format!("`{}` is a backup of version {}, and this program knows version 1", path.display(), magic[7]);
            return Err(Problem::new(Code::Unsupported, message)
                .help("use the version of `rads` that wrote it, or a later one"));
        }
        let end = (HEAD_BYTES + HASH_BYTES) as u64;
        let Some(mut left) = length.checked_sub(magic.len() as u64 + end) else {
            return Err(corrupt("it is cut short"));
        };
        let sections = left;
        let mut hash = blake3::Hasher::new();
        hash.update(&magic);
        let mut chunk = vec![0; CHUNK_BYTES];
        while left > 0 {
            let part = &mut chunk[..left.min(CHUNK_BYTES as u64) as usize];
            file.read_exact(part).map_err(unreadable)?;
            hash.update(part);
            left -= part.len() as u64;
        }
        let mut last = [0; HEAD_BYTES + HASH_BYTES];
        file.read_exact(&mut last).map_err(unreadable)?;
        let (head, told) = last.split_at(HEAD_BYTES);
        hash.update(head);
        if head[0] != END || head[1..] != (HASH_BYTES as u64).to_le_bytes() {
            return Err(corrupt("it is cut short"));
        }
        if hash.finalize().as_bytes() != told {
            return Err(corrupt("it fails its checksum"));
        }
        let mut file = BufReader::new(file);
        io::Seek::seek(&mut file, io::SeekFrom::Start(MAGIC.len() as u64)).map_err(unreadable)?;
        Ok(Self { file, left: sections, path: path.to_owned() })
    }

    /// The next section: its kind and its bytes. `None` after the last one.
    ///
    /// # Errors
    /// `DataCorrupt` when lengths do not fit together; `FileUnreadable`.
    pub fn next_section(&mut self) -> Result<Option<(u8, Vec<u8>)>, Problem> {
        if self.left == 0 {
            return Ok(None);
        }
        let unreadable = |error: io::Error| {
            Problem::new(Code::FileUnreadable, format!("cannot read `{}`: {error}", self.path.display()))
        };
        let mut head = [0; HEAD_BYTES];
        if self.left < head.len() as u64 {
            return Err(corrupt(&self.path, "a section is cut short"));
        }
        self.file.read_exact(&mut head).map_err(unreadable)?;
        let length = u64::from_le_bytes(head[1..].try_into().unwrap_or_default());
        self.left -= head.len() as u64;
        // Never more than the file has.
        if length > self.left {
            return Err(corrupt(&self.path, "a section is longer than the file"));
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes).map_err(unreadable)?;
        self.left -= length;
        Ok(Some((head[0], bytes)))
    }
}

fn corrupt(path: &Path, what: &str) -> Problem {
    Problem::new(Code::DataCorrupt, format!("`{}` cannot be used: {what}", path.display())).help("nothing was changed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("backup");
        let mut writer = Writer::new(File::create(&path).unwrap()).unwrap();
        writer.section(1, b"one").unwrap();
        writer.section(2, b"").unwrap();
        writer.section(1, &[7; 3_000]).unwrap();
        assert!(writer.section(END, b"x").is_err());
        writer.finish().unwrap();
        path
    }

    #[test]
    fn sections_come_back_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(&written(folder.path())).unwrap();
        assert_eq!(reader.next_section().unwrap(), Some((1, b"one".to_vec())));
        assert_eq!(reader.next_section().unwrap(), Some((2, Vec::new())));
        assert_eq!(reader.next_section().unwrap(), Some((1, vec![7; 3_000])));
        assert_eq!(reader.next_section().unwrap(), None);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found_before_anything_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).filter(|at| *at < 100 || *at + 100 > bytes.len() || at % 97 == 0) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, flipped).unwrap();
            let problem = Reader::open(&path).unwrap_err();
            assert!(matches!(problem.code, Code::DataCorrupt | Code::Unsupported), "byte {at}: {problem}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert_eq!(Reader::open(&path).unwrap_err().code, Code::DataCorrupt, "cut at {at}");
        }
        assert_eq!(Reader::open(&folder.path().join("none")).unwrap_err().code, Code::FileUnreadable);
    }

    #[test]
    fn a_section_that_claims_more_than_there_is_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.head(1, usize::MAX / 2).unwrap();
        std::fs::write(&path, writer.finish().unwrap()).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.next_section().unwrap_err().code, Code::DataCorrupt);
    }
}
