//! A star's log on disk: two files of bounded size, one line of the star per line.
//!
//! `log` is being written, `log.1` is what came before it; together they never exceed twice `FILE_MAX`. A line is
//! `<milliseconds since 1970> <o|e> <text>`: `o` for standard output, `e` for standard error, the text as the star
//! wrote it. A line longer than `LINE_MAX` becomes several. Who drains the pipes, and how fast, is `pipes`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Size at which `log` becomes `log.1`. Two of them hold about 150,000 lines of a web server.
pub const FILE_MAX: u64 = 8 << 20;
/// Longest line kept whole: longer ones are mostly data that went astray.
pub const LINE_MAX: usize = 16 * 1024;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    Out,
    Err,
}

impl LogSource {
    fn letter(self) -> u8 {
        match self {
            Self::Out => b'o',
            Self::Err => b'e',
        }
    }
}

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Milliseconds since the Unix epoch at which the nursery read it.
    pub unix_ms: u64,
    pub source: LogSource,
    pub text: String,
}

impl LogLine {
    /// Reads one line without its newline. `None` when it is not a line of a log, as after a torn write. Bytes that
    /// are not UTF-8 are shown as replacement characters.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(3, |&byte| byte == b' ');
        let unix_ms = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let source = match parts.next()? {
            b"o" => LogSource::Out,
            b"e" => LogSource::Err,
            _ => return None,
        };
        let text = String::from_utf8_lossy(parts.next()?).into_owned();
        Some(Self { unix_ms, source, text })
    }
}

/// The log files of a star's folder, older first. They may not exist.
pub fn files(star_folder: &Path) -> [PathBuf; 2] {
    [star_folder.join("log.1"), star_folder.join("log")]
}

/// Appends lines and turns the files over.
#[derive(Debug)]
pub(crate) struct LogWriter {
    folder: PathBuf,
    /// The file and its size; opened when there is something to write, which for many stars is never.
    open: Option<(File, u64)>,
}

impl LogWriter {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), open: None }
    }

    /// The folder has another name now.
    pub(crate) fn moved(&mut self, folder: &Path) {
        folder.clone_into(&mut self.folder);
    }

    /// Writes whole lines, already in the log's form. They go out in one write, so that a reader that follows sees
    /// them whole.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let (mut file, size) = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let full = size > 0 && size + lines.len() as u64 > FILE_MAX;
        let size = if full {
            let [older, current] = files(&self.folder);
            std::fs::rename(&current, &older)?;
            file = self.open()?.0;
            0
        } else {
            size
        };
        file.write_all(lines)?;
        self.open = Some((file, size + lines.len() as u64));
        Ok(())
    }

    fn open(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.folder.join("log"))?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }
}

/// Turns what comes out of one pipe into lines. Keeps at most one unfinished line.
#[derive(Debug)]
pub(crate) struct LineCutter {
    source: LogSource,
    rest: Vec<u8>,
}

impl LineCutter {
    pub(crate) fn new(source: LogSource) -> Self {
        Self { source, rest: Vec::new() }
    }

    /// Begins with the unfinished line that another program left.
    pub(crate) fn go_on(source: LogSource, rest: Vec<u8>) -> Self {
        Self { source, rest }
    }

    /// The line that is not at its end.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Takes bytes as they came and writes the lines they complete. Tells how many bytes the log gets for them, kept or not: short
    /// lines are many times what came.
    pub(crate) fn take(&mut self, bytes: &[u8], unix_ms: u64, log: &mut LogWriter) -> (usize, io::Result<()>) {
        let mut lines = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        let note = self.note(unix_ms);
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                // Of a flood of short lines each costs as little as it can.
                Some(end) if self.rest.is_empty() && end.len() <= LINE_MAX => {
                    lines.extend_from_slice(&note);
                    lines.extend_from_slice(piece);
                }
                Some(end) => {
                    self.rest.extend_from_slice(end);
                    self.push_lines(&note, &mut lines);
                }
                None => self.rest.extend_from_slice(piece),
            }
        }
        while self.rest.len() > LINE_MAX {
            let tail = self.rest.split_off(LINE_MAX);
            self.push_lines(&note, &mut lines);
            self.rest = tail;
        }
        (lines.len(), if lines.is_empty() { Ok(()) } else { log.write(&lines) })
    }

    /// What stands before each line of this moment.
    fn note(&self, unix_ms: u64) -> Vec<u8> {
        format!("{unix_ms} {} ", char::from(self.source.letter())).into_bytes()
    }

    /// Writes the unfinished line: the star has ended and nothing will finish it.
    pub(crate) fn finish(&mut self, unix_ms: u64, log: &mut LogWriter) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        self.push_lines(&self.note(unix_ms), &mut lines);
        log.write(&lines)
    }

    fn push_lines(&mut self, note: &[u8], lines: &mut Vec<u8>) {
        let mut push = |text: &[u8]| {
            lines.extend_from_slice(note);
            lines.extend_from_slice(text);
            lines.push(b'\n');
        };
        if self.rest.is_empty() {
            push(b"");
        }
        self.rest.chunks(LINE_MAX).for_each(&mut push);
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<LogLine> {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(folder.path());
        let mut cutter = LineCutter::new(LogSource::Err);
        for piece in pieces {
            cutter.take(piece, 7, &mut log).1.unwrap();
        }
        cutter.finish(8, &mut log).unwrap();
        let text = std::fs::read(folder.path().join("log")).unwrap_or_default();
        text.split_inclusive(|&b| b == b'\n').map(|line| LogLine::parse(&line[..line.len() - 1]).unwrap()).collect()
    }

    fn line(unix_ms: u64, text: &str) -> LogLine {
        LogLine { unix_ms, source: LogSource::Err, text: text.to_owned() }
    }

    #[test]
    fn lines_are_cut_wherever_the_reads_fall() {
        assert_eq!(cut(&[b"one\ntw", b"o\n\nthree"]), [line(7, "one"), line(7, "two"), line(7, ""), line(8, "three")]);
        assert_eq!(cut(&[]), []);
        assert_eq!(cut(&[b"a\xffb\n"]), [line(7, "a\u{fffd}b")]);
    }

    #[test]
    fn how_much_the_log_gets_is_told_and_is_no_less_than_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(folder.path());
        let mut cutter = LineCutter::new(LogSource::Out);
        let mut told = 0;
        for piece in [&b"y\n".repeat(1000)[..], b"half", b" a line\n", &[b'x'; 3 * LINE_MAX]] {
            let (length, written) = cutter.take(piece, 1_700_000_000_000, &mut log);
            written.unwrap();
            told += length;
        }
        assert_eq!(told as u64, std::fs::metadata(folder.path().join("log")).unwrap().len());
        assert!(told > 1000 * 18 + 2 * LINE_MAX, "{told}");
    }

    #[test]
    fn a_line_without_end_is_cut_at_the_longest_length() {
        let lines = cut(&[&vec![b'x'; LINE_MAX * 2 + 5]]);
        assert_eq!(lines.iter().map(|line| line.text.len()).collect::<Vec<_>>(), [LINE_MAX, LINE_MAX, 5]);
    }

    #[test]
    fn two_files_bound_what_a_flood_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(folder.path());
        let mut cutter = LineCutter::new(LogSource::Out);
        let chunk = b"0123456789abcdef\n".repeat(4096);
        for _ in 0..600 {
            cutter.take(&chunk, 1, &mut log).1.unwrap();
        }
        for file in files(folder.path()) {
            let size = std::fs::metadata(&file).unwrap().len();
            assert!(size <= FILE_MAX, "{} has {size} bytes", file.display());
        }
    }

    #[test]
    fn what_is_not_a_line_of_a_log_is_not_read_as_one() {
        for text in ["", "12", "12 o", "x o text", "12 q text"] {
            assert_eq!(LogLine::parse(text.as_bytes()), None, "{text}");
        }
    }
}
