//! The API as a client meets it: over a real socket, with an agent that only remembers what it was asked.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use support::{Remembering, stream_to};

use api::exec::{EXIT, STDIN, STDOUT, read_frame, write_frame};
use api::*;
use bytes::Bytes;
use model::{AppSpec, Code, ContentHash, Duty, NodeId, Once, Problem, ServiceKey, StarId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

struct Served {
    folder: tempfile::TempDir,
    control: Arc<Remembering>,
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = Arc::new(Remembering::default());
        let socket = Socket::bind(folder.path()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(socket.serve(control.clone(), async { drop(stopped.await) }));
        Self { folder, control, stop: Some(stop), done }
    }

    async fn client(&self) -> Client {
        Client::connect(self.folder.path()).await.unwrap().0
    }

    fn asked(&self) -> Vec<String> {
        self.control.asked.lock().unwrap().clone()
    }
}

/// One exchange as written, for what the client would never send.
async fn raw(folder: &Path, head: &str, body: &str) -> (u16, String) {
    raw_with(folder, head, "", body).await
}

/// With lines of its own in the head, each with what ends the one before.
async fn raw_with(folder: &Path, head: &str, lines: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket_path(folder)).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json{lines}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn requests_arrive_as_they_were_meant() {
    let served = Served::start();
    let client = served.client().await;
    let web: ServiceKey = "team-a/web".parse().unwrap();
    let spec = AppSpec { app: "team-a/web".parse().unwrap(), services: Default::default() };
    assert_eq!(client.forecast(spec.clone(), Some(0)).await.unwrap(), api::Forecast::default());
    assert_eq!(client.put_app(spec, Some(0)).await.unwrap().index, 7);
    client.scale(&web, 10).await.unwrap();
    client.restart(&web).await.unwrap();
    client.pause(&web).await.unwrap();
    client.resume(&web).await.unwrap();
    client.turn(&web, 3, StarTurn::Restart).await.unwrap();
    assert!(client.moves().await.unwrap().is_empty());
    client.turn(&web, 3, StarTurn::Move).await.unwrap();
    client.remove_service(&web).await.unwrap();
    client.put_blob(ContentHash([1; 32]), Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(client.index(41, 0).await.unwrap(), 42);
    client.shutdown(StarsThen::Keep).await.unwrap();
    let blob = format!("blob {} 3", ContentHash([1; 32]));
    let expected = [
        "forecast team-a/web Some(0)",
        "put team-a/web Some(0)",
        "scale team-a/web 10",
        "restart team-a/web",
        "pause team-a/web",
        "resume team-a/web",
        "Restart team-a/web 3",
        "moves",
        "Move team-a/web 3",
        "remove service team-a/web",
        &blob,
        "index",
        "shutdown Keep",
    ];
    assert_eq!(served.asked(), expected);
}

#[tokio::test]
async fn requests_about_nodes_arrive_as_they_were_meant_and_a_token_is_not_noted() {
    let served = Served::start();
    let client = served.client().await;
    let me = Introduction {
        name: "node-1".parse().unwrap(),
        listen: "0.0.0.0:7946".parse().unwrap(),
        advertise: "10.0.0.1:7946".into(),
        region: Some("eu".parse().unwrap()),
        zone: None,
        rack: None,
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        reserved: Default::default(),
        api: None,
        discoverable: true,
    };
    let init = Init { cluster: "prod".parse().unwrap(), me: me.clone(), certificate_days: None };
    assert_eq!(client.init(&init).await.err().unwrap().code, Code::NotFound);
    let join = Join { address: Some("10.0.0.2:7946".into()), token: "very secret".into(), me };
    assert_eq!(client.join(&join).await.err().unwrap().code, Code::NotFound);
    client.nodes().await.unwrap();
    client.set_duty(NodeId(5), Duty::Draining).await.unwrap();
    client.set_taint(NodeId(5), "gpu", &model::Taint::default()).await.unwrap();
    client.remove_taint(NodeId(5), "gpu").await.unwrap();
    let overcommit = model::Overcommit { cpu_percent: 200, memory_percent: 100 };
    client.set_overcommit(Some(NodeId(5)), &overcommit).await.unwrap();
    client.set_overcommit(None, &overcommit).await.unwrap();
    client.remove_overcommit(Some(NodeId(5))).await.unwrap();
    client.remove_overcommit(None).await.unwrap();
    client.remove_node(NodeId(5), true).await.unwrap();
    client.remove_node(NodeId(5), false).await.unwrap();
    client.leave(true).await.unwrap();
    client.leave(false).await.unwrap();
    let mut backup = client.backup().await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = backup.next().await {
        bytes.extend(part.unwrap());
    }
    assert_eq!(bytes, b"one two");
    let asked = served.asked();
    assert_eq!(asked[0], "init prod node-1 {\"disk\": \"ssd\"}");
    assert!(asked[1].contains("10.0.0.2:7946") && !asked[1].contains("very secret"), "{}", asked[1]);
    let node = NodeId(5);
    let expected = [
        "nodes".to_owned(),
        format!("{node} draining"),
        format!("{node} gpu {:?}", Some(model::Taint::default())),
        format!("{node} gpu None"),
        format!("{:?} {:?}", Some(node), Some(overcommit)),
        format!("None {:?}", Some(overcommit)),
        format!("{:?} None", Some(node)),
        "None None".to_owned(),
        format!("remove {node} true"),
        format!("remove {node} false"),
        "leave true".to_owned(),
        "leave false".to_owned(),
        "backup".to_owned(),
    ];
    assert_eq!(asked[2..], expected);
}

#[tokio::test]
async fn refusals_keep_their_code_and_help() {
    let served = Served::start();
    let problem = served.client().await.star(StarId(1)).await.unwrap_err();
    assert_eq!(problem, Problem::new(Code::NotFound, "no such thing").help("look again"));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_it_reaches_the_agent() {
    let served = Served::start();
    let folder = served.folder.path();
    let check = async |head: &str, body: &str, status: u16, says: &str| {
        let (got, text) = raw(folder, head, body).await;
        assert_eq!(got, status, "{head} {body}: {text}");
        let problem: Problem = serde_json::from_str(&text).unwrap();
        assert!(problem.message.contains(says), "{head}: {problem}");
    };
    check("GET /v2/version", "", 404, "no such path").await;
    check("PATCH /v1/version", "", 405, "method").await;
    check("GET /v1/services/Bad_Name", "", 422, "Bad_Name").await;
    check("GET /v1/stars/star_1", "", 422, "star_1").await;
    check("GET /v1/logs?folow=true", "", 422, "folow").await;
    check("GET /v1/logs?tail=9999999", "", 422, "tail").await;
    check("POST /v1/services/web/scale", "{", 422, "body").await;
    check("POST /v1/services/web/scale", "{\"instances\": -1}", 422, "body").await;
    check("POST /v1/services/web/limits", "{\"ram\": 1}", 422, "`ram`").await;
    check("POST /v1/services/web/scale", "{\"instances\": 1, \"instnces\": 2}", 422, "`instnces`").await;
    check("PUT /v1/apps/web", "{\"spec\": {\"app\": \"other\", \"services\": {}}}", 422, "`other`").await;
    check("POST /v1/bundles", "{\"files\": {\"../x\": {\"content\": \"", 422, "body").await;
    let file = format!("{{\"content\": \"{}\", \"size\": 1, \"executable\": false}}", ContentHash([0; 32]));
    check("POST /v1/bundles", &format!("{{\"files\": {{\"../x\": {file}}}}}"), 422, "`../x`").await;
    check("POST /v1/bundles", &" ".repeat(BODY_MAX_BYTES + 1), 422, "body").await;
    check("POST /v1/stars/star_0000000000001/exec", "{\"argv\": [\"ls\"]}", 422, "upgrade").await;
    check("POST /v1/services/web/stars/one/stop", "", 422, "one").await;
    check("POST /v1/services/web/stars/1/kill", "", 422, "kill").await;
    check("PUT /v1/nodes/node_1/duty", "{\"duty\": \"draining\"}", 422, "node_1").await;
    check("PUT /v1/nodes/node_0000000000001/duty", "{\"duty\": \"dancing\"}", 422, "dancing").await;
    check("DELETE /v1/nodes/node_0000000000001?forced=true", "", 422, "forced").await;
    check("POST /v1/constellation/init", "{\"cluster\": \"A b\"}", 422, "A b").await;
    check("POST /v1/stars/star_0000000000001/ports/80", "", 422, "upgrade").await;
    check("POST /v1/stars/star_0000000000001/ports/70000", "", 422, "70000").await;
    assert!(served.asked().is_empty(), "{:?}", served.asked());
}

#[tokio::test]
async fn a_change_is_asked_for_again_under_the_same_key_until_it_is_answered() {
    let served = Served::start();
    *served.control.silent.lock().unwrap() = 3;
    let web: ServiceKey = "web".parse().unwrap();
    let client = served.client().await;
    assert_eq!(client.restart(&web).await.unwrap().index, 9);
    client.restart(&web).await.unwrap();
    let keys: Vec<Once> = served.control.keys.lock().unwrap().iter().flatten().cloned().collect();
    let [first, second, third, other] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!((first, second), (second, third));
    assert!(other.key != first.key && other.request == first.request, "{other:?} {first:?}");
    // What is not a change of the log has no key and is not repeated.
    client.put_blob(ContentHash([1; 32]), Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(served.asked().iter().filter(|what| what.starts_with("blob")).count(), 1);
}

#[tokio::test]
async fn a_key_is_read_as_it_is_meant_or_refused() {
    let served = Served::start();
    let folder = served.folder.path();
    let check = async |head: &str, keys: &[&str], status: u16, says: &str| {
        let keys: Vec<String> = keys.iter().map(|key| format!("\r\nidempotency-key: {key}")).collect();
        let (got, text) = raw_with(folder, head, &keys.concat(), "").await;
        assert_eq!(got, status, "{head} {keys:?}: {text}");
        assert!(text.contains(says), "{head} {keys:?}: {text}");
    };
    let restart = "POST /v1/services/web/restart";
    check(restart, &[&"k".repeat(129)], 422, "128").await;
    check(restart, &["a b"], 422, "visible").await;
    check(restart, &[""], 422, "visible").await;
    check(restart, &["a", "a"], 422, "more than one").await;
    check("POST /v1/shutdown", &["a"], 422, "takes no").await;
    check("GET /v1/apps", &["a"], 422, "takes no").await;
    assert!(served.asked().is_empty(), "{:?}", served.asked());
    check(restart, &["a"], 200, "9").await;
    check(restart, &[], 200, "9").await;
    let keys = served.control.keys.lock().unwrap().clone();
    assert!(matches!(&keys[..], [Some(once), None] if once.key.as_str() == "a"), "{keys:?}");
}

#[tokio::test]
async fn a_dialled_port_carries_bytes_both_ways() {
    let served = Served::start();
    let mut inside = served.client().await.dial(StarId(1), 80).await.unwrap();
    inside.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    inside.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
    inside.shutdown().await.unwrap();
    assert_eq!(inside.read(&mut answer).await.unwrap(), 0, "an end is passed on");
    let copied = served.client().await.copy(StarId(1), &Copy::Out { path: "/x".into() }).await;
    assert_eq!(copied.err().unwrap().code, Code::NotFound);
}

#[tokio::test]
async fn the_document_describes_every_route() {
    let served = Served::start();
    let (status, text) = raw(served.folder.path(), "GET /v1/openapi.json", "").await;
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for path in [
        "/v1/version",
        "/v1/status",
        "/v1/apps/{app}",
        "/v1/services/{service}/limits",
        "/v1/services/{service}/scale",
        "/v1/stars/{star}/exec",
        "/v1/logs",
        "/v1/bundles",
        "/v1/blobs/{hash}",
        "/v1/events",
        "/v1/nodes",
        "/v1/nodes/{node}/duty",
        "/v1/nodes/{node}/taints/{taint}",
        "/v1/overcommit",
        "/v1/nodes/{node}/overcommit",
        "/v1/constellation/init",
        "/v1/shutdown",
    ] {
        assert!(paths.contains(&path), "{path} is not in {paths:?}");
    }
    let schemas = &document["components"]["schemas"];
    assert!(schemas["ServiceSpec"].is_object());
    // What a number counts is said where its name does not.
    for (place, unit) in [
        (&schemas["Bytes"], "bytes"),
        (&schemas["Millicores"], "Thousandths of one processor core"),
        (&schemas["Limits"]["properties"]["cpu"], "thousandths of a core"),
        (&schemas["Limits"]["properties"]["memory"], "Bytes"),
        (&schemas["Limits"]["properties"]["disk"], "Bytes"),
        (&schemas["Limits"]["properties"]["log_rate"], "Bytes"),
        (&schemas["Limits"]["properties"]["io_read"], "Bytes"),
        (&schemas["Limits"]["properties"]["cpu_burst"], "percent"),
        (&schemas["InForce"]["properties"]["cpu_millicores"], "Thousandths"),
        (&schemas["StatusView"]["properties"]["memory"], "Bytes"),
    ] {
        // What may be missing is one of two things, and described at the one that is there.
        let described = [&place["description"], &place["oneOf"][0]["description"]];
        let says = described.iter().any(|text| text.as_str().is_some_and(|text| text.contains(unit)));
        assert!(says, "`{unit}`: {place}");
    }
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_gone_when_the_agent_is() {
    let mut served = Served::start();
    let path = socket_path(served.folder.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    served.client().await;
    served.stop.take().unwrap().send(()).unwrap();
    served.done.await.unwrap().unwrap();
    assert!(!path.exists());
    let problem = Client::connect(served.folder.path()).await.unwrap_err();
    assert_eq!(problem.code, Code::NoAgent);
    assert!(problem.help.is_some());
}

#[tokio::test]
async fn logs_come_as_records_until_the_end() {
    let served = Served::start();
    let which = LogQuery {
        target: Some("hello".into()),
        follow: true,
        tail: Some(3),
        stream: Some(LogPart::Stderr),
        ..LogQuery::default()
    };
    let mut logs = served.client().await.logs(&which).await.unwrap();
    let mut names = Vec::new();
    while let Some(record) = logs.next().await {
        let record = record.unwrap();
        assert_eq!(record.text, "one\ntwo");
        names.push(record.name);
    }
    assert_eq!(names, ["hello-1", "hello-2", "hello-3"]);
    assert_eq!(served.asked(), ["logs Some(\"hello\") true"]);
}

#[tokio::test]
async fn a_command_gets_its_input_and_its_exit_comes_last() {
    let served = Served::start();
    let command = ExecCommand { argv: vec!["wc".into(), "-c".into()], env: Default::default(), terminal: None };
    let mut connection = served.client().await.exec(StarId(5), &command).await.unwrap();
    write_frame(&mut connection, STDIN, b"some text").await.unwrap();
    write_frame(&mut connection, STDIN, b"").await.unwrap();
    assert_eq!(read_frame(&mut connection).await.unwrap(), Some((STDOUT, Bytes::from("some text"))));
    let (kind, payload) = read_frame(&mut connection).await.unwrap().unwrap();
    assert_eq!((kind, serde_json::from_slice::<Ended>(&payload).unwrap()), (EXIT, Ended::Code(2)));
    assert_eq!(read_frame(&mut connection).await.unwrap(), None);
}

#[tokio::test]
async fn what_concerns_a_star_elsewhere_is_asked_there_and_comes_back_whatever_it_is() {
    let served = Served::start();
    let there = Arc::new(Remembering::default());
    *served.control.elsewhere.lock().unwrap() = Some(Arc::clone(&there));
    // It believes that stars are here: requests that were passed on go no further all the same.
    *there.elsewhere.lock().unwrap() = Some(Arc::clone(&served.control));
    let (client, star) = (served.client().await, StarId(1));
    let problem = client.star_stats(star).await.unwrap_err();
    assert_eq!(problem, Problem::new(Code::NotFound, "no such thing").help("look again"));

    let argv = vec!["cat".into(), "-".into()];
    let command = ExecCommand { argv, env: Default::default(), terminal: None };
    let (mut output, mut input) = tokio::io::split(client.exec(star, &command).await.unwrap());
    let sent = vec![b'x'; 300_000];
    let writing = tokio::spawn(async move {
        for piece in sent.chunks(60_000) {
            write_frame(&mut input, STDIN, piece).await.unwrap();
        }
        write_frame(&mut input, STDIN, b"").await.unwrap();
        input
    });
    let (mut received, mut code) = (0, Bytes::new());
    while let Some((kind, payload)) = read_frame(&mut output).await.unwrap() {
        match kind {
            STDOUT => received += payload.len(),
            EXIT => code = payload,
            other => panic!("{other}"),
        }
    }
    assert_eq!((received, String::from_utf8(code.to_vec()).unwrap().contains('2')), (300_000, true));
    drop(writing.await.unwrap());

    let mut inside = client.dial(star, 80).await.unwrap();
    inside.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    inside.read_exact(&mut answer).await.unwrap();
    inside.shutdown().await.unwrap();
    assert_eq!(inside.read(&mut answer).await.unwrap(), 0, "an end is passed on");
    assert_eq!(client.star(star).await.unwrap_err().code, Code::NotFound, "the star as such is known here");

    let asked = [format!("star stats {star}"), format!("exec {star}"), format!("dial {star} 80")];
    assert_eq!(*there.asked.lock().unwrap(), asked);
    assert_eq!(served.asked(), [format!("star {star}")]);
}

#[tokio::test]
async fn a_client_of_another_node_asks_in_its_name() {
    let there = Arc::new(Remembering::default());
    let asked = Arc::clone(&there);
    let client = Client::of_node("b".to_owned(), move || {
        let stream = Box::new(stream_to(Arc::clone(&asked)));
        Box::pin(async move { Ok(Road { node: "b".to_owned(), stream }) })
    });
    client.service_stats(&"web".parse().unwrap()).await.unwrap_err();
    let mut logs = client.logs(&LogQuery::default()).await.unwrap();
    let mut texts = 0;
    while let Some(record) = logs.next().await {
        texts += usize::from(record.unwrap().text == "one\ntwo");
    }
    assert_eq!(texts, 3);
    assert_eq!(*there.asked.lock().unwrap(), ["service stats web Some(NodeId(7))", "logs None false"]);

    let gone = Client::of_node("c".to_owned(), || Box::pin(async { Err(Problem::new(Code::Unavailable, "gone")) }));
    assert_eq!(gone.stars().await.unwrap_err().message, "gone");
}
