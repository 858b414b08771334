//! Files of one folder under one URL prefix: validators, ranges, media types, `index.html`.
//!
//! No path leaves the folder: `..` in any encoding is refused, and the kernel resolves the rest beneath the folder
//! (`openat2`), so that no symbolic link leads out of it, not even one that changes while it is followed.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::reply::{self, FileSpan, Payload, Reply};
use crate::web::range::{self, Range};
use crate::web::{date, media_type, urlencoded};

pub(crate) struct StaticFolder {
    /// Without a trailing slash: empty for the whole site.
    prefix: String,
    folder: PathBuf,
    /// The same folder, held open: what paths are resolved beneath.
    root: OwnedFd,
}

impl StaticFolder {
    /// Fails when `folder` is not a readable directory.
    pub(crate) fn new(prefix: &str, folder: &Path) -> io::Result<StaticFolder> {
        let folder = folder.canonicalize()?;
        let root = rustix::fs::open(&folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let prefix = format!("/{}", prefix.trim_matches('/')).trim_end_matches('/').to_owned();
        Ok(StaticFolder { prefix, folder, root })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `None` when the path is not below the prefix. `path` is the raw path of the request.
    pub(crate) fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Reply> {
        let below = path.strip_prefix(&self.prefix)?;
        if !below.is_empty() && !below.starts_with('/') {
            return None;
        }
        if method != Method::GET && method != Method::HEAD {
            return Some(reply::status_with(StatusCode::METHOD_NOT_ALLOWED, ALLOW, "GET, HEAD"));
        }
        let Some(inside) = plain_path(below) else { return Some(reply::status(StatusCode::NOT_FOUND)) };
        Some(self.send(path, inside, headers).unwrap_or_else(refuse))
    }

    fn send(&self, path: &str, mut inside: String, headers: &HeaderMap) -> io::Result<Reply> {
        let mut file = self.open(&inside)?;
        let mut about = file.metadata()?;
        if about.is_dir() {
            inside.push_str("/index.html");
            file = self.open(&inside)?;
            about = file.metadata()?;
            if !path.ends_with('/') {
                // Without the slash the page's relative links would point one level too high. The leading slashes are
                // folded, else `//evil.example` would send the browser to another site.
                let target = format!("/{}/", path.trim_matches('/'));
                return Ok(reply::status_with(StatusCode::MOVED_PERMANENTLY, LOCATION, &target));
            }
        }
        if !about.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(answer_file(file, &about, &inside, headers))
    }

    fn open(&self, inside: &str) -> io::Result<File> {
        // NONBLOCK only so that opening a named pipe does not wait; it is refused afterwards.
        let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.root, inside, how, Mode::empty(), resolve) {
            Ok(file) => Ok(File::from(file)),
            Err(Errno::NOSYS | Errno::PERM) => self.open_by_name(inside),
            Err(error) => Err(error.into()),
        }
    }

    /// For kernels and filters without `openat2`: the path that the file really has must lie below the folder's own.
    /// Who can change links while a request runs can get around this.
    fn open_by_name(&self, inside: &str) -> io::Result<File> {
        let real = self.folder.join(inside).canonicalize()?;
        if !real.starts_with(&self.folder) || !(real.is_file() || real.is_dir()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        File::open(real)
    }
}

/// The decoded path below the folder, or `None` for names that are never served: those with a dot in front are private
/// by custom (`.git`, `.env`), which also covers `.` and `..`.
fn plain_path(below: &str) -> Option<String> {
    let mut inside = String::from(".");
    for part in below.split('/').filter(|part| !part.is_empty()) {
        let part = urlencoded::decode_path(part);
        if part.starts_with('.') || part.contains(['/', '\\', '\0']) {
            return None;
        }
        inside.push('/');
        inside.push_str(&part);
    }
    Some(inside)
}

fn answer_file(file: File, about: &Metadata, name: &str, headers: &HeaderMap) -> Reply {
    let etag = etag(about);
    let modified = date::http(about.mtime());
    let mut answer = if is_unchanged(headers, &etag, &modified) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let wanted = header(headers, &RANGE).filter(|_| range_is_current(headers, &etag, &modified));
        send(file, range::parse(wanted, about.len()), about.len())
    };
    let fields = answer.headers_mut();
    fields.insert(ETAG, value(&etag));
    fields.insert(LAST_MODIFIED, value(&modified));
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if !fields.contains_key(CONTENT_TYPE) {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type::of_path(name)));
        // An uploaded picture must not be run as a page because it looks like one.
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    answer
}

fn send(file: File, range: Range, size: u64) -> Reply {
    let (status, span) = match range {
        Range::Whole => (StatusCode::OK, 0..size),
        Range::Part(span) => (StatusCode::PARTIAL_CONTENT, span),
        Range::Unsatisfiable => {
            let complete = format!("bytes */{size}");
            return reply::status_with(StatusCode::RANGE_NOT_SATISFIABLE, CONTENT_RANGE, &complete);
        }
    };
    let body = if span.is_empty() {
        Payload::Bytes(Bytes::new())
    } else {
        Payload::File(FileSpan { file, offset: span.start, remaining: span.end - span.start })
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{size}", span.start, span.end - 1);
        answer.headers_mut().insert(CONTENT_RANGE, value(&part));
    }
    answer
}

/// `If-None-Match` decides when it is there (RFC 9110, 13.2.2). `If-Modified-Since` is compared as text: clients send
/// back what they got, and a file put back to an older state is a change too.
fn is_unchanged(headers: &HeaderMap, etag: &str, modified: &str) -> bool {
    match header(headers, &IF_NONE_MATCH) {
        Some(tags) => tags.trim() == "*" || tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag),
        None => header(headers, &IF_MODIFIED_SINCE) == Some(modified),
    }
}

fn range_is_current(headers: &HeaderMap, etag: &str, modified: &str) -> bool {
    header(headers, &IF_RANGE).is_none_or(|condition| condition == etag || condition == modified)
}

/// Strong: another content written in place changes the time in nanoseconds, a replaced file the inode.
fn etag(about: &Metadata) -> String {
    format!("\"{:x}-{:x}-{:x}-{:x}\"", about.ino(), about.size(), about.mtime(), about.mtime_nsec())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digits, letters and spaces")
}

fn refuse(error: io::Error) -> Reply {
    reply::status(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::CrossesDevices => StatusCode::NOT_FOUND,
        io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        files: StaticFolder,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let public = folder.path().join("public");
        std::fs::create_dir_all(public.join("sub")).expect("made");
        std::fs::create_dir_all(public.join("bare")).expect("made");
        for (name, content) in
            [("public/a.txt", "0123456789"), ("public/sub/index.html", "<p>"), ("public/.env", "x"), ("secret", "s")]
        {
            std::fs::write(folder.path().join(name), content).expect("written");
        }
        std::fs::write(public.join("empty.css"), "").expect("written");
        std::os::unix::fs::symlink("../secret", public.join("out")).expect("linked");
        std::os::unix::fs::symlink("a.txt", public.join("in")).expect("linked");
        Fixture { files: StaticFolder::new("/static/", &public).expect("a folder"), _folder: folder }
    }

    fn get(fixture: &Fixture, path: &str, fields: &[(HeaderName, &str)]) -> Option<Reply> {
        let headers = fields.iter().map(|(name, text)| (name.clone(), value(text))).collect();
        fixture.files.answer(&Method::GET, path, &headers)
    }

    fn field(reply: &Reply, name: HeaderName) -> &str {
        reply.headers().get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }

    #[test]
    fn only_paths_below_the_prefix_and_inside_the_folder_are_answered() {
        let fixture = fixture();
        for (path, expected) in [
            ("/static/a.txt", Some(200)),
            ("/static//a.txt", Some(200)),
            ("/static/%61.txt", Some(200)),
            ("/static/in", Some(200)),
            ("/static/sub/", Some(200)),
            ("/static/sub", Some(301)),
            ("/static/bare/", Some(404)),
            ("/static/out", Some(404)),
            ("/static/.env", Some(404)),
            ("/static/../secret", Some(404)),
            ("/static/%2e%2e/secret", Some(404)),
            ("/static/..%2fsecret", Some(404)),
            ("/static/a.txt%00", Some(404)),
            ("/static/missing", Some(404)),
            ("/staticfoo/a.txt", None),
            ("/other", None),
        ] {
            assert_eq!(get(&fixture, path, &[]).map(|reply| reply.status().as_u16()), expected, "{path}");
        }
        let moved = get(&fixture, "/static/sub", &[]).expect("below the prefix");
        assert_eq!(field(&moved, LOCATION), "/static/sub/");
    }

    #[test]
    fn without_openat2_links_lead_nowhere_else_either() {
        let fixture = fixture();
        let files = &fixture.files;
        for (inside, expected) in
            [("./a.txt", true), ("./in", true), ("./sub", true), ("./out", false), ("./none", false)]
        {
            assert_eq!(files.open_by_name(inside).is_ok(), expected, "{inside}");
            assert_eq!(files.open(inside).is_ok(), expected, "{inside}");
        }
    }

    #[test]
    fn validators_spare_the_body() {
        let fixture = fixture();
        let first = get(&fixture, "/static/a.txt", &[]).expect("there");
        assert_eq!(field(&first, CONTENT_TYPE), "text/plain; charset=utf-8");
        let (etag, modified) = (field(&first, ETAG).to_owned(), field(&first, LAST_MODIFIED).to_owned());
        for (name, text, expected) in [
            (IF_NONE_MATCH, etag.as_str(), 304),
            (IF_NONE_MATCH, &format!("\"x\", W/{etag}"), 304),
            (IF_NONE_MATCH, "*", 304),
            (IF_NONE_MATCH, "\"x\"", 200),
            (IF_MODIFIED_SINCE, &modified, 304),
            (IF_MODIFIED_SINCE, "Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ] {
            let reply = get(&fixture, "/static/a.txt", &[(name.clone(), text)]).expect("there");
            assert_eq!(reply.status().as_u16(), expected, "{name}: {text}");
        }
    }

    #[test]
    fn a_range_is_a_part_unless_its_condition_is_stale() {
        let fixture = fixture();
        let part = get(&fixture, "/static/a.txt", &[(RANGE, "bytes=2-4")]).expect("there");
        assert_eq!((part.status().as_u16(), field(&part, CONTENT_RANGE)), (206, "bytes 2-4/10"));
        assert_eq!(part.body().len(), 3);
        let beyond = get(&fixture, "/static/a.txt", &[(RANGE, "bytes=10-")]).expect("there");
        assert_eq!((beyond.status().as_u16(), field(&beyond, CONTENT_RANGE)), (416, "bytes */10"));
        let stale = get(&fixture, "/static/a.txt", &[(RANGE, "bytes=2-4"), (IF_RANGE, "\"old\"")]).expect("there");
        assert_eq!((stale.status().as_u16(), stale.body().len()), (200, 10));
        let empty = get(&fixture, "/static/empty.css", &[]).expect("there");
        assert_eq!((empty.status().as_u16(), empty.body().len()), (200, 0));
    }

    #[test]
    fn other_methods_are_refused() {
        let reply = fixture().files.answer(&Method::POST, "/static/a.txt", &HeaderMap::new()).expect("below");
        assert_eq!((reply.status().as_u16(), field(&reply, ALLOW)), (405, "GET, HEAD"));
    }
}
