//! The examples in `examples/`, run as they are.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Serving, runner};

fn example(path: &str) -> Command {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(path);
    let mut command = Command::new(runner());
    command.arg(file).env("PORT", "0");
    command
}

#[test]
fn hello_says_which_star_answers() {
    let mut command = example("hello/hello.rads");
    command.env("STAR_NAME", "hello-7");
    let server = Serving::start(command, None);
    assert_eq!(server.get("/").text(), "hello from hello-7\n");
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.stop().code, 0);
}

#[test]
fn the_guestbook_takes_shows_and_keeps_entries() {
    let data = tempfile::tempdir().expect("a folder");
    let start = || {
        let mut command = example("guestbook/guestbook.rads");
        command.env("DATA_DIR", data.path());
        Serving::start(command, None)
    };
    let server = start();
    assert!(server.get("/").text().contains("Nobody has written anything yet"));
    let signed = server.post("/", "name=Ann+%3Cb%3E&message=Hello%0A%22you%22");
    assert_eq!((signed.status, signed.header("location")), (303, Some("/")), "{}", signed.text());
    let refused = server.post("/", "name=+&message=kept");
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("Please tell us your name.") && refused.text().contains(">kept</textarea>"));

    let page = server.get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("Ann &lt;b&gt;") && page.text().contains("&quot;you&quot;"), "{}", page.text());
    assert!(server.get("/entry/1").text().contains("Ann &lt;b&gt; in the guestbook"));
    assert_eq!(server.get("/entry/99").status, 404);
    assert_eq!(server.get("/entry/x").status, 404);

    assert_eq!(server.post("/api/entries", r#"{"name": "Bob", "message": "by API"}"#).text(), r#"{"id":2}"#);
    for (body, status) in [("nonsense", 400), ("[]", 400), (r#"{"name": "Bob"}"#, 422)] {
        assert_eq!(server.post("/api/entries", body).status, status, "{body}");
    }
    let listed = server.get("/api/entries");
    assert_eq!(listed.header("content-type"), Some("application/json"));
    assert!(listed.text().starts_with(r#"{"entries":[{"id":2,"name":"Bob","message":"by API","#), "{}", listed.text());
    assert_eq!(server.get("/static/style.css").header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(server.get("/healthz").text(), "ok\n");
    let ended = server.stop();
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));

    let again = start();
    assert!(again.get("/").text().contains("by API"), "entries outlive the process");
}
