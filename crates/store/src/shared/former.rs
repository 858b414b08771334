//! The log as it was kept until journals: a database `shared.redb` in the same folder. It is read once, and taken away when the
//! journal has what it had.

use std::fs;
use std::io;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError};

use super::Found;
use crate::database::Base;
use crate::folder::{Failure, Folder};
use crate::record::{self, Kind};

pub(super) const FILE: &str = "shared.redb";

pub(super) const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
pub(super) const HEADS: TableDefinition<u64, &[u8]> = TableDefinition::new("heads");
pub(super) const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");

/// Rows of the table `heads`.
pub(super) const SEQUENCE: u64 = 0;
pub(super) const VOTE: u64 = 1;
pub(super) const COMMITTED: u64 = 2;
/// `index (8, little-endian) | note`.
pub(super) const PURGED: u64 = 3;

/// What was in it; where its snapshot is to go is not said yet.
pub(super) struct Former {
    pub number: u64,
    pub found: Found,
    pub snapshot: Option<(u64, Vec<u8>)>,
}

/// `None` where there is none.
pub(super) fn read(folder: &Arc<Folder>) -> Result<Option<Former>, Failure> {
    if !folder.path(FILE).exists() {
        return Ok(None);
    }
    let mut base = Base::within(Arc::clone(folder), FILE);
    base.reopen()?;
    let transaction = base.read()?;
    let Some(number) = head(&base, &transaction, SEQUENCE)? else { return Ok(None) };
    let mut former = Former { number: first_eight(&number)?, found: Found::default(), snapshot: None };
    let heads = &mut former.found.heads;
    heads.vote = head(&base, &transaction, VOTE)?;
    heads.committed = head(&base, &transaction, COMMITTED)?;
    if let Some(bytes) = head(&base, &transaction, PURGED)? {
        heads.purged = Some((first_eight(&bytes)?, bytes[8..].to_vec()));
    }
    let table = transaction.open_table(ENTRIES).map_err(|error| base.failure(error.into()))?;
    for row in table.iter().map_err(|error| base.failure(error.into()))? {
        let (index, bytes) = row.map_err(|error| base.failure(error.into()))?;
        let index = index.value();
        let payload = record::unseal(Kind::SharedEntry, index, bytes.value()).map_err(Failure::Corrupt)?;
        former.found.entries.insert(index, payload.to_vec());
    }
    let table = transaction.open_table(SNAPSHOT).map_err(|error| base.failure(error.into()))?;
    if let Some((index, bytes)) = table.last().map_err(|error| base.failure(error.into()))? {
        let index = index.value();
        let payload = record::unseal(Kind::SharedSnapshot, index, bytes.value()).map_err(Failure::Corrupt)?;
        former.snapshot = Some((index, payload.to_vec()));
    }
    Ok(Some(former))
}

/// Takes it away.
pub(super) fn remove(folder: &Folder) -> Result<(), Failure> {
    match fs::remove_file(folder.path(FILE)) {
        Ok(()) => folder.sync(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn first_eight(bytes: &[u8]) -> Result<u64, Failure> {
    let number = bytes.first_chunk().map(|number| u64::from_le_bytes(*number));
    number.ok_or_else(|| Failure::Corrupt("a number is cut short".to_owned()))
}

fn head(base: &Base, transaction: &ReadTransaction, head: u64) -> Result<Option<Vec<u8>>, Failure> {
    let table = match transaction.open_table(HEADS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(base.failure(error.into())),
    };
    let row = table.get(head).map_err(|error| base.failure(error.into()))?;
    let Some(row) = row else { return Ok(None) };
    record::unseal(Kind::SharedHead, head, row.value()).map(|bytes| Some(bytes.to_vec())).map_err(Failure::Corrupt)
}
