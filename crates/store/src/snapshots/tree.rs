//! What a snapshot says of a folder: every file in it, by name, attributes and the pieces of its content.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Most files of one snapshot. Each takes some hundred bytes of memory while it is taken.
pub(super) const FILES_MAX: usize = 1_000_000;
/// Largest piece of content. What is changed in a large file costs a piece of this size; a smaller one would cost more
/// files.
pub(super) const PIECE_MAX: usize = 1 << 20;

/// A folder with all that is in it. The first entry is the folder itself, each other comes after its parent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Tree {
    pub(super) entries: Vec<Entry>,
    /// Names in the folder that this one lies over which are not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gone: Vec<Gone>,
    /// Sockets, and what else is not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) left_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gone {
    /// The index of the folder it was in.
    pub(super) parent: u32,
    pub(super) name: ByteBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The index of the folder it is in.
    pub(super) parent: u32,
    /// Any bytes but `/` and NUL.
    pub(super) name: ByteBuf,
    pub(super) mode: u32,
    /// As the star sees it.
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) xattrs: Vec<(ByteBuf, ByteBuf)>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Folder,
    File {
        size: u64,
        /// In order; between them are holes.
        pieces: Vec<Piece>,
    },
    Link {
        target: ByteBuf,
    },
    /// Another name of an entry before it.
    Same {
        entry: u32,
    },
    Fifo,
}

/// A stretch of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u32,
    /// BLAKE3.
    pub(super) hash: ByteBuf,
}

impl Tree {
    /// Bytes of content.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces().map(|piece| u64::from(piece.length)).sum()
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.entries.iter().flat_map(|entry| match &entry.kind {
            Kind::File { pieces, .. } => pieces.as_slice(),
            _ => &[],
        })
    }

    /// Bytes that all of it takes where every file has whole blocks of 4 KiB, as in memory.
    pub(super) fn room(&self) -> u64 {
        self.pieces().map(|piece| u64::from(piece.length).next_multiple_of(4096)).sum()
    }

    /// The path of something in a folder, with every name as it is.
    pub(super) fn raw_path(&self, parent: u32, name: &[u8]) -> Vec<u8> {
        let mut parts = vec![name];
        let mut index = parent as usize;
        while index > 0 && index < self.entries.len() {
            parts.push(&self.entries[index].name);
            index = self.entries[index].parent as usize;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// The path of an entry, to be shown.
    pub(super) fn path(&self, mut index: usize) -> String {
        let mut parts = Vec::new();
        while index > 0 && index < self.entries.len() {
            let entry = &self.entries[index];
            parts.push(String::from_utf8_lossy(&entry.name).escape_debug().to_string());
            index = entry.parent as usize;
        }
        parts.reverse();
        parts.join("/")
    }

    /// Whether it is what `capture` makes: nothing else is unpacked, whoever wrote it.
    pub(super) fn check(&self) -> Result<(), String> {
        let folder = |index: usize| matches!(self.entries[index].kind, Kind::Folder);
        if self.entries.is_empty() || self.entries.len() > FILES_MAX || !folder(0) {
            return Err("it does not begin with a folder".to_owned());
        }
        for (index, entry) in self.entries.iter().enumerate().skip(1) {
            let name = entry.name.as_slice();
            let parent = entry.parent as usize;
            if parent >= index || !folder(parent) {
                return Err(format!("entry {index} is in no folder"));
            }
            if !is_name(name) {
                return Err(format!("entry {index} has no name of a file"));
            }
            match &entry.kind {
                Kind::Same { entry: other } => {
                    let other = *other as usize;
                    if other >= index
                        || !matches!(self.entries[other].kind, Kind::File { .. } | Kind::Link { .. } | Kind::Fifo)
                    {
                        return Err(format!("entry {index} is another name of nothing"));
                    }
                }
                Kind::File { size, pieces } => {
                    let mut end = 0;
                    for piece in pieces {
                        let fits = piece.offset >= end && piece.length as usize <= PIECE_MAX && piece.hash.len() == 32;
                        end = piece.offset.saturating_add(u64::from(piece.length));
                        if !fits || end > *size || *size > i64::MAX as u64 {
                            return Err(format!("entry {index} has pieces that do not fit"));
                        }
                    }
                }
                Kind::Folder | Kind::Link { .. } | Kind::Fifo => {}
            }
        }
        let is_sound = |gone: &Gone| {
            let parent = gone.parent as usize;
            parent < self.entries.len() && folder(parent) && is_name(&gone.name)
        };
        match self.gone.iter().all(is_sound) {
            true => Ok(()),
            false => Err("what is gone was nowhere".to_owned()),
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    (1..=255).contains(&name.len()) && !matches!(name, b"." | b"..") && !name.iter().any(|b| matches!(b, b'/' | 0))
}
