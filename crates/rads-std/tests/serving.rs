//! Scripts that serve HTTP, spoken to over real sockets.

mod common;

use std::io::Read;
use std::net::TcpStream;

use common::{Script, Serving, read_reply, send};

/// `body` stands between making the server `s` and serving it.
fn serve(body: &str) -> Serving {
    script(body).serve()
}

fn script(body: &str) -> Script {
    Script::new(&format!(
        "turbo s = net.http_server(\"127.0.0.1\", 0);\n{body}\necho(\"port \" + s.listen());\ns.serve();\necho(\"stopped\");\n"
    ))
}

#[test]
fn handlers_take_as_many_arguments_as_they_declare() {
    let server = serve(
        r#"
        blast none() { return "none"; }
        blast two(path, method) { return method + " " + path; }
        blast all(path, method, body, query, params, headers, cookies) {
            return body + "|" + query.q + "|" + params.id + "|" + headers["x-a"] + "|" + cookies.sid + "|" + query.missing;
        }
        s.route("/none", none);
        s.route("/two", two, "GET");
        net.route(s, "/all/:id", all, "POST");
        s.route("/named", blast (path) { return path; }, method: "PUT");
        "#,
    );
    assert_eq!(server.get("/none").text(), "none");
    assert_eq!(server.get("/two?x=1").text(), "GET /two");
    let reply = server.ask(
        "POST /all/a%20b?q=1+2 HTTP/1.1\r\nhost: x\r\nx-a: A\r\ncookie: sid=s1; other=2\r\ncontent-length: 4\r\n\r\nbody",
    );
    assert_eq!(reply.text(), "body|1 2|a b|A|s1|null");
    assert_eq!(server.ask("PUT /named HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").text(), "/named");
    assert_eq!(server.get("/named").header("allow"), Some("PUT"));
}

#[test]
fn every_form_of_reply_arrives_as_meant() {
    let server = serve(
        r#"
        s.route("/text", blast () { return "<b>"; });
        s.route("/list", blast () { return [201, "<b>", "text/html"]; });
        s.route("/short", blast () { return [418]; });
        s.route("/object", blast () {
            return { status: 202, headers: { "x-a": "1", "set-cookie": ["a=1", "b=2"] }, body: "made" };
        });
        s.route("/json", blast () { return net.json_response({ a: [1, null, "x"] }); });
        s.route("/json/404", blast () { return net.json_response({ error: "none" }, 404); });
        s.route("/bytes", blast () { return base64.decode_bytes("AP8="); });
        s.route("/away", blast () { return net.redirect("/text"); });
        s.route("/nothing", blast () { return null; });
        s.route("/cookie", blast () {
            return { headers: { "set-cookie": net.cookie_set("sid", "x1", max_age_seconds: 60) }, body: "" };
        });
        "#,
    );
    let check = |path: &str, status: u16, media_type: Option<&str>, body: &[u8]| {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.header("content-type"), &reply.body[..]), (status, media_type, body), "{path}");
        reply
    };
    let text = Some("text/plain; charset=utf-8");
    check("/text", 200, text, b"<b>");
    check("/list", 201, Some("text/html"), b"<b>");
    check("/short", 418, None, b"");
    let object = check("/object", 202, text, b"made");
    assert!(object.head.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n"), "{}", object.head);
    check("/json", 200, Some("application/json"), br#"{"a":[1,null,"x"]}"#);
    check("/json/404", 404, Some("application/json"), br#"{"error":"none"}"#);
    check("/bytes", 200, Some("application/octet-stream"), &[0, 255]);
    assert_eq!(check("/away", 303, text, b"").header("location"), Some("/text"));
    check("/nothing", 204, None, b"");
    let cookie = check("/cookie", 200, text, b"");
    assert_eq!(cookie.header("set-cookie"), Some("sid=x1; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"));
}

#[test]
fn a_handler_that_fails_is_a_500_and_a_trace_in_the_log() {
    let server = serve(
        r#"
        blast deep() { return 1 / 0; }
        s.route("/throw", blast () { return deep(); });
        s.route("/text", blast () { throw "plain"; });
        s.route("/status", blast () { return [99, "x"]; });
        s.route("/header", blast () { return { headers: { "x-a": "1\n2" }, body: "x" }; });
        s.route("/value", blast () { return 7; });
        s.route("/object", blast () { return { ok: true }; });
        s.route("/fine", blast () { return "fine"; });
        "#,
    );
    for path in ["/throw", "/text", "/status", "/header", "/value", "/object"] {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.text()), (500, "500 internal server error\n"), "{path}");
    }
    assert_eq!(server.get("/fine").text(), "fine", "the server goes on");
    let ended = server.stop();
    assert_eq!(ended.code, 0);
    for part in
        ["GET /throw: error:", "at deep (main.rads:3)", "plain", "status `99`", "header `x-a`", "kind integer", "`ok`"]
    {
        let part = part.replace("kind ", "");
        assert!(ended.err.contains(&part), "`{part}` in {}", ended.err);
    }
}

#[test]
fn a_handler_that_eats_all_memory_fails_alone() {
    let server = script(
        r#"
        s.route("/hog", blast () { turbo all = []; loop (true) { all.push("x" + all.length); } return ""; });
        s.route("/fine", blast () { return "fine"; });
        "#,
    )
    .memory_mb(8)
    .serve();
    for _ in 0..3 {
        assert_eq!(server.get("/hog").status, 500);
        assert_eq!(server.get("/fine").text(), "fine", "its memory came back");
    }
    let ended = server.stop();
    assert!(ended.err.contains("memory limit of 8 MiB reached"), "{}", ended.err);
}

#[test]
fn a_handler_that_waits_does_not_hold_up_others() {
    let server = serve(
        r#"
        turbo waiting = 0;
        s.route("/wait", blast () {
            waiting = waiting + 1;
            loop (waiting < 100) { sleep(1); }
            return "all there";
        });
        "#,
    );
    // Each waits until all 100 are there: one at a time they would never end.
    let mut clients: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    for client in &mut clients {
        send(client, "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(read_reply(client, false).text(), "all there");
        send(client, "GET /wait HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(read_reply(client, false).status, 200, "the connection was kept alive");
    }
}

#[test]
fn a_handler_that_computes_for_long_lets_others_in() {
    let server = serve(
        r#"
        turbo go_on = true;
        s.route("/busy", blast () {
            turbo n = 0;
            loop (go_on) { n = n + 1; }
            return "done";
        });
        s.route("/release", blast () { go_on = false; return "released"; });
        "#,
    );
    let mut busy = server.connect();
    send(&mut busy, "GET /busy HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(server.get("/release").text(), "released");
    assert_eq!(read_reply(&mut busy, false).text(), "done");
}

#[test]
fn middleware_sees_every_request_and_may_answer_it() {
    let server = serve(
        r#"
        turbo seen = 0;
        s.use(blast () { seen = seen + 1; return null; });
        s.use(blast (path, method, body, query) {
            if (query.key == null) { return [401, "no key"]; }
            return null;
        });
        s.route("/", blast () { return "seen " + seen; });
        "#,
    );
    assert_eq!(server.get("/").status, 401);
    assert_eq!(server.get("/?key=1").text(), "seen 2");
    assert_eq!(server.get("/nowhere?key=1").status, 404, "not for routes that do not exist");
}

#[test]
fn static_files_are_binary_safe_and_confined() {
    let all: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let server = script(r#"s.static("/files", "public"); s.route("/files/over", blast () { return "route"; });"#)
        .file("public/all.bin", &all)
        .file("public/style.css", "a{}")
        .file("secret.txt", "secret")
        .serve();
    let whole = server.get("/files/all.bin");
    assert!(whole.body == all, "the same bytes");
    assert_eq!(whole.header("content-type"), Some("application/octet-stream"));
    let head = server.ask("HEAD /files/all.bin HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
    let part = server.ask("GET /files/all.bin HTTP/1.1\r\nhost: x\r\nrange: bytes=70000-70002\r\n\r\n");
    assert_eq!((part.status, &part.body[..]), (206, &all[70_000..70_003]));
    let etag = whole.header("etag").expect("an etag");
    let known = server.ask(&format!("GET /files/all.bin HTTP/1.1\r\nhost: x\r\nif-none-match: {etag}\r\n\r\n"));
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(server.get("/files/style.css").header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(server.get("/files/over").text(), "route");
    for path in ["/files/../secret.txt", "/files/%2e%2e/secret.txt", "/files/..%2fsecret.txt", "/files/none"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn bounds_are_those_the_script_sets() {
    let server = Script::new(
        r#"
        turbo s = net.http_server("127.0.0.1", 0, max_body_bytes: 10, header_timeout_ms: 100, body_timeout_ms: 100);
        s.route("/", blast (path, method, body) { return body; });
        echo("port " + s.listen());
        s.serve();
        "#,
    )
    .serve();
    assert_eq!(server.post("/", "0123456789").text(), "0123456789");
    assert_eq!(server.post("/", "0123456789+").status, 413);
    let mut slow = server.connect();
    send(&mut slow, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab");
    assert_eq!(read_reply(&mut slow, false).status, 408);
    let mut slower = server.connect();
    send(&mut slower, "GET / HT");
    assert_eq!(read_reply(&mut slower, false).status, 408);
}

#[test]
fn sigterm_finishes_requests_in_flight_and_the_script_goes_on_after_serve() {
    let server = serve(
        r#"
        turbo released = false;
        s.route("/hold", blast () { echo("held"); loop (!released) { sleep(1); } return "answered"; });
        s.route("/release", blast () { released = true; return "ok"; });
        "#,
    );
    let mut idle = server.connect();
    send(&mut idle, "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n");
    read_reply(&mut idle, false);
    let mut release = server.connect();
    send(&mut release, "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n");
    read_reply(&mut release, false);
    let mut held = server.connect();
    send(&mut held, "GET /hold HTTP/1.1\r\nhost: x\r\n\r\n");
    // A second request in flight that lets the first one go, begun before the signal, ended after it.
    send(&mut release, "POST /release HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n");
    server.signal("TERM");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("closed");
    assert!(rest.is_empty(), "an idle connection is closed");
    send(&mut release, "x");
    let answer = read_reply(&mut held, false);
    assert_eq!((answer.text(), answer.header("connection")), ("answered", Some("close")));
    assert_eq!(read_reply(&mut release, false).text(), "ok");
    let ended = server.ended();
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "held\nstopped\n", ""));
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let server = serve(r#"s.route("/hold", blast () { echo("held"); loop (true) { sleep(1000); } return ""; });"#);
    let mut idle = server.connect();
    send(&mut idle, "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n");
    read_reply(&mut idle, false);
    let mut held = server.connect();
    send(&mut held, "GET /hold HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(server.get("/nowhere").status, 404, "the held request was read before this one");
    server.signal("TERM");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("the first signal closes idle connections");
    server.signal("TERM");
    assert_eq!(server.ended().code, 143);
}

#[test]
fn a_script_can_stop_its_server_itself() {
    let server = serve(r#"s.route("/stop", blast () { s.stop(); return "bye"; });"#);
    assert_eq!(server.get("/stop").text(), "bye");
    let ended = server.ended();
    assert_eq!((ended.code, ended.out.as_str()), (0, "stopped\n"));
}

#[test]
fn the_client_asks_a_server_in_the_same_script() {
    let ended = Script::new(
        r#"
        turbo s = net.http_server("localhost", 0);
        s.route("/echo", blast (path, method, body, query, params, headers) {
            return { status: 201, headers: { "x-method": method }, body: headers["content-type"] + " " + body };
        }, "POST");
        s.route("/slow", blast () { sleep(60000); return ""; });
        s.route("/big", blast () { return str.repeat("x", 1000); });
        turbo base = "http://localhost:" + s.listen();
        turbo reply = http.post(base + "/echo", "hello", type: "text/x");
        echo(reply.status + " " + reply.ok + " " + reply.headers["x-method"] + " " + reply.body);
        echo(http.get(base + "/none").status);
        echo(http.request(url: base + "/echo", method: "delete").headers.allow);
        blast fails(f) { try { f(); echo("no error"); } catch (e) { echo(e.kind + ": " + e.message); } }
        fails(blast () { http.get(base + "/slow", timeout_ms: 50); });
        fails(blast () { http.get(base + "/big", max_body_bytes: 10); });
        fails(blast () { http.get("https://example.org/"); });
        fails(blast () { http.get("nonsense"); });
        fails(blast () { http.get(base, tmeout_ms: 5); });
        process.exit(0);
        "#,
    )
    .run();
    let expected = "201 true POST text/x hello\n404\nPOST\n";
    assert!(ended.out.starts_with(expected), "{ended:?}");
    for part in [
        "timeout: ",
        "value: the reply is larger",
        "value: `https://example.org/` needs TLS",
        "value: `nonsense` is no URL",
        "unknown option `tmeout_ms`",
    ] {
        assert!(ended.out.contains(part), "`{part}` in {ended:?}");
    }
}

#[test]
fn a_port_in_use_and_other_mistakes_are_errors() {
    let ended = Script::new(
        r#"
        blast fails(f) { try { f(); echo("no error"); } catch (e) { echo(e.message); } }
        turbo a = net.http_server("127.0.0.1", 0);
        turbo taken = a.listen();
        fails(blast () { net.http_server("127.0.0.1", taken).listen(); });
        fails(blast () { net.http_server("127.0.0.1", 70000); });
        fails(blast () { net.http_server("127.0.0.1", "x"); });
        fails(blast () { a.route("users", blast () {}); });
        fails(blast () { a.route("/x", 7); });
        fails(blast () { a.static("/s", "no-such-folder"); });
        process.exit(3);
        "#,
    )
    .run();
    assert_eq!(ended.code, 3, "{ended:?}");
    let expected = [
        "the port is in use",
        "not `70000`",
        "not `x`",
        "must start with `/`",
        "`handler` must be a function, not an integer",
        "cannot serve folder `no-such-folder`: no such file or folder",
    ];
    for (line, part) in ended.out.lines().zip(expected) {
        assert!(line.contains(part), "`{part}` in `{line}`");
    }
    assert_eq!(ended.out.lines().count(), expected.len());
}
