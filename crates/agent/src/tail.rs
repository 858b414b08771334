//! Reads one star's log files: the last lines first, then what is added, across the turning over of the files.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use isolate::log::LogLine;

/// Bytes read at once.
const BLOCK: usize = 64 << 10;

/// Where in a star's log a reader is.
#[derive(Debug)]
pub(crate) struct Tail {
    folder: PathBuf,
    /// The file being read; the nursery may have renamed it to `log.1` meanwhile.
    file: Option<File>,
    /// Bytes of a line whose end was not written yet.
    rest: Vec<u8>,
}

impl Tail {
    /// Opens a star's log and returns its last `lines` lines, older first. A star without a log has none.
    pub(crate) fn open(folder: &Path, lines: usize) -> io::Result<(Self, Vec<LogLine>)> {
        let [older, current] = isolate::log::files(folder);
        let mut tail = Self { folder: folder.to_owned(), file: open(&current)?, rest: Vec::new() };
        let mut found = Vec::new();
        if let Some(file) = &mut tail.file {
            let end = file.seek(SeekFrom::End(0))?;
            found = last_lines(file, end, lines)?;
            file.seek(SeekFrom::Start(end))?;
            tail.rest = found.pop().unwrap_or_default();
        }
        if found.len() < lines
            && let Some(mut file) = open(&older)?
        {
            let end = file.seek(SeekFrom::End(0))?;
            let mut before = last_lines(&mut file, end, lines - found.len())?;
            // The older file ends with a whole line, so nothing follows its last newline.
            before.pop();
            before.append(&mut found);
            found = before;
        }
        let first = found.len().saturating_sub(lines);
        let parsed = found[first..].iter().filter_map(|line| LogLine::parse(line)).collect();
        Ok((tail, parsed))
    }

    /// Before the first line of a log that may not be there yet.
    pub(crate) fn from_start(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None, rest: Vec::new() }
    }

    /// What was added since the last call.
    pub(crate) fn read(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        loop {
            if let Some(file) = &mut self.file {
                let mut block = vec![0; BLOCK];
                let read = file.read(&mut block)?;
                if read > 0 {
                    self.cut(&block[..read], &mut lines);
                    continue;
                }
            }
            // At the end of this file: go on with the next one if the files were turned over.
            let [_, current] = isolate::log::files(&self.folder);
            let next = open(&current)?;
            match (&self.file, &next) {
                (_, None) => return Ok(lines),
                (Some(file), Some(next)) if file.metadata()?.ino() == next.metadata()?.ino() => return Ok(lines),
                _ => self.file = next,
            }
        }
    }

    fn cut(&mut self, bytes: &[u8], lines: &mut Vec<LogLine>) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.last() == Some(&b'\n') {
                self.rest.pop();
                lines.extend(LogLine::parse(&self.rest));
                self.rest.clear();
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last `count` lines before `end`, and after them whatever follows the last newline. Read from the end, a block
/// at a time, so that the cost is that of what is returned.
fn last_lines(file: &mut File, end: u64, count: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut start = end;
    let mut newlines = 0;
    // One newline more than lines: the one before the first line.
    while start > 0 && newlines <= count {
        let length = (start as usize).min(BLOCK);
        start -= length as u64;
        file.seek(SeekFrom::Start(start))?;
        let mut block = vec![0; length];
        file.read_exact(&mut block)?;
        newlines += block.iter().filter(|&&byte| byte == b'\n').count();
        blocks.push(block);
    }
    let bytes: Vec<u8> = blocks.into_iter().rev().flatten().collect();
    let mut lines: Vec<Vec<u8>> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    if start > 0 {
        // The block may begin in the middle of a line.
        lines.remove(0);
    }
    let first = lines.len().saturating_sub(count + 1);
    Ok(lines.split_off(first))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_last_lines_come_first_and_may_begin_in_the_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let [older, current] = isolate::log::files(folder.path());
        append(&older, "1 o a\n2 o b\n");
        append(&current, "3 e c\n4 o d\n5 o unfinish");
        let check = |lines: usize, expected: &[&str]| {
            let (_, found) = Tail::open(folder.path(), lines).unwrap();
            assert_eq!(texts(&found), expected, "{lines}");
        };
        check(0, &[]);
        check(1, &["d"]);
        check(2, &["c", "d"]);
        check(3, &["b", "c", "d"]);
        check(99, &["a", "b", "c", "d"]);
    }

    #[test]
    fn what_is_added_is_read_once_across_a_turn_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let [older, current] = isolate::log::files(folder.path());
        let (mut tail, found) = Tail::open(folder.path(), 10).unwrap();
        assert!(found.is_empty() && tail.read().unwrap().is_empty());
        append(&current, "1 o a\n2 o b");
        assert_eq!(texts(&tail.read().unwrap()), ["a"]);
        append(&current, "c\n3 o d\n");
        fs::rename(&current, &older).unwrap();
        append(&current, "4 o e\n");
        assert_eq!(texts(&tail.read().unwrap()), ["bc", "d", "e"]);
        assert!(tail.read().unwrap().is_empty());
    }

    #[test]
    fn long_logs_are_read_from_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let [_, current] = isolate::log::files(folder.path());
        let text: String = (0..50_000).map(|n| format!("{n} o line {n}\n")).collect();
        append(&current, &text);
        let (mut tail, found) = Tail::open(folder.path(), 20_000).unwrap();
        assert_eq!(found.len(), 20_000);
        assert_eq!(found[0].text, "line 30000");
        assert!(tail.read().unwrap().is_empty());
    }
}
