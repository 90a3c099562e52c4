//! Access that ends while something is under way: every request and stream that it covers ends, with a word where it can be said.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::websocket::{self, Socket};
use crate::support::{
    GITSPACE, HOST, Issuer, OWNER, Pieces, Setup, Streams, TestGateway, Upstream, eventually, head,
    now, port_host, soon,
};

/// A token of a minute ago, and of a login.
fn older(issuer: &Issuer, jti: &str) -> String {
    let times = json!({ "jti": jti, "sid": "login", "iat": now() - 60 });
    issuer.token_with(OWNER, times)
}

async fn revoke(gateway: &TestGateway, revocation: Value) {
    let answer = gateway
        .admin(Method::POST, "/v1/revocations", Some(revocation))
        .await;
    assert_eq!(answer.status(), 201);
}

/// The code and reason with which it was closed.
pub(super) async fn closed(socket: &mut Socket) -> (u16, String) {
    let message = soon("a close frame", socket.next()).await;
    let Some(Ok(Message::Close(Some(frame)))) = message else {
        panic!("{message:?}");
    };
    (frame.code.into(), frame.reason.to_string())
}

/// The accounts of what ended so, once there are so many.
async fn ended(gateway: &TestGateway, count: usize) -> Vec<Value> {
    eventually("the accounts", || async {
        let mut lines = gateway.lines();
        lines.retain(|line| line["reason"] == "access-ended");
        (lines.len() == count).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn each_kind_of_revocation_ends_websockets_with_a_word_and_no_others() {
    let upstream = websocket::echo().await;
    for (kind, id) in [
        ("jti", "t1"),
        ("sid", "login"),
        ("sub", OWNER),
        ("gitspace", GITSPACE),
        ("port", "app-a1b2c3/ide"),
    ] {
        let gateway = Setup::to(&upstream).start();
        let issuer = &gateway.setup.issuer;
        let later = json!({ "jti": "t2", "sid": "login", "iat": now() + 5 });
        let (old, new) = (older(issuer, "t1"), issuer.token_with(OWNER, later));
        let mut covered = websocket::open_with(&gateway, &old).await.unwrap();
        let mut other = websocket::open_with(&gateway, &new).await.unwrap();
        websocket::say(&mut covered, "before").await;
        let revocation =
            json!({ "kind": kind, "id": id, "by": "root", "reason": "left the company" });
        revoke(&gateway, revocation).await;
        let said = "access was revoked: left the company".to_owned();
        assert_eq!(closed(&mut covered).await, (1008, said), "{kind}");
        let line = &ended(&gateway, 1).await[0];
        assert_eq!(
            (&line["reason"], &line["ended_by"]),
            (&"access-ended".into(), &"gateway".into())
        );
        let detail = line["detail"].as_str().unwrap();
        assert!(
            detail.ends_with("revoked by root: left the company"),
            "{detail}"
        );
        websocket::say(&mut other, "still here").await;
    }
}

/// Begins an answer and never ends it, takes an upload without an end, or never answers.
async fn endless() -> Upstream {
    Upstream::scripted(|stream, _| async move {
        let mut reader = tokio::io::BufReader::new(stream);
        let head = head(&mut reader).await;
        if head.contains("/events") {
            let begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";
            reader.write_all(begin).await.unwrap();
        }
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut rest).await;
    })
    .await
}

#[tokio::test]
async fn answers_uploads_and_requests_that_wait_end_too_over_either_version() {
    let upstream = endless().await;
    let gateway = Setup::to(&upstream).start();
    let token = older(&gateway.setup.issuer, "t1");
    let ours = [("x-gitspace-token", &*token)];

    let mut events = gateway.plain().await;
    events.begin("GET", "/events", &ours, b"").await;
    assert_eq!(events.head().await.unwrap().status, 200);
    let mut waits = gateway.plain().await;
    waits.begin("GET", "/waits", &ours, b"").await;
    let mut upload = gateway.plain().await;
    upload
        .send(format!("POST /upload HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ncontent-length: 100\r\n\r\nbegin"))
        .await;
    let streams = Streams::connect(&gateway).await;
    let (sender, body) = Pieces::channel();
    sender.send("begin".into()).unwrap();
    let over_h2 = tokio::spawn(async move {
        streams
            .send("POST", &[("x-gitspace-token", &token)], body)
            .await
    });
    eventually("all four upstream", || async {
        (upstream.connections() >= 4).then_some(())
    })
    .await;

    revoke(
        &gateway,
        json!({ "kind": "sid", "id": "login", "by": "root" }),
    )
    .await;
    assert_eq!(
        waits.answer().await.unwrap().refusal(),
        (403, "access-ended".into())
    );
    assert_eq!(
        upload.answer().await.unwrap().refusal(),
        (403, "access-ended".into())
    );
    let answer = soon("the answer over HTTP/2", over_h2)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.status(), 403);
    let lines = ended(&gateway, 4).await;
    let details: Vec<_> = lines.iter().map(|line| line["detail"].clone()).collect();
    assert_eq!(details, vec![Value::from("login revoked by root"); 4]);
    drop(sender);
}

#[tokio::test]
async fn a_share_that_is_taken_back_revoked_or_over_ends_what_came_by_it() {
    let upstream = websocket::echo().await;
    let address = upstream.address;
    for (how, detail) in [
        ("taken back", "its share is over or was taken back"),
        ("revoked", "share revoked by an operator"),
        ("over", "its share is over or was taken back"),
    ] {
        let gateway = Setup::new()
            .route(&format!(
                "gitspace = {GITSPACE:?}\nupstream = \"http://{address}\"\nowner = {OWNER:?}\norg = \"acme\"\n"
            ))
            .start();
        let until = if how == "over" {
            json!(now() + 2)
        } else {
            Value::Null
        };
        let share =
            json!({ "gitspace": GITSPACE, "port": "ide", "to": { "user": "bob" }, "until": until });
        let answer = gateway.admin(Method::POST, "/v1/shares", Some(share)).await;
        let made: Value = answer.json().await.unwrap();
        let id = made["id"].as_str().unwrap();
        let bob = gateway.setup.issuer.token("bob");
        let mut by_share = websocket::open_with(&gateway, &bob).await.unwrap();
        let mut owners = websocket::open(&gateway).await.unwrap();
        match how {
            "taken back" => {
                let path = format!("/v1/shares/{id}");
                gateway.admin(Method::DELETE, &path, None).await;
            }
            "revoked" => revoke(&gateway, json!({ "kind": "share", "id": id })).await,
            _ => {}
        }
        assert_eq!(closed(&mut by_share).await.0, 1008, "{how}");
        assert_eq!(ended(&gateway, 1).await[0]["detail"], detail, "{how}");
        websocket::say(&mut owners, "still here").await;
    }
}

#[tokio::test]
async fn a_session_ends_its_streams_at_its_maximum_and_a_token_does_not_at_its_end() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.session = Duration::from_secs(2))
        .start();
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let navigation = [("sec-fetch-mode", "navigate")];
    let session = gateway
        .plain()
        .await
        .get(&target, &navigation)
        .await
        .session()
        .unwrap();
    let headers = [
        ("cookie", &*session),
        ("origin", &*format!("https://{HOST}")),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let mut by_session = gateway.tls(HOST).await;
    by_session.begin("GET", "/", &headers, b"").await;
    assert_eq!(by_session.head().await.unwrap().status, 101);
    let short = gateway
        .setup
        .issuer
        .token_with(OWNER, json!({ "exp": now() + 2 }));
    let mut by_token = websocket::open_with(&gateway, &short).await.unwrap();
    assert_eq!(ended(&gateway, 1).await[0]["detail"], "its session is over");
    websocket::say(&mut by_token, "still here").await;
}

#[tokio::test]
async fn a_port_that_is_closed_to_somebody_ends_what_is_under_way() {
    let upstream = websocket::echo().await;
    let address = upstream.address;
    let gateway = Setup::new().start();
    let put = async |generation: u64, visibility: &str, allow: &str| {
        let route = json!({
            "gitspace": GITSPACE, "generation": generation, "state": "running", "owner": OWNER, "allow": [allow],
            "address": address.ip(), "ide": { "port": address.port(), "visibility": visibility },
        });
        let path = format!("/v1/routes/{GITSPACE}");
        let answer = gateway.admin(Method::PUT, &path, Some(route)).await;
        assert_eq!(answer.status(), 204);
    };
    put(1, "public", "bob").await;
    let [bob, eve] = ["bob", "eve"].map(|name| gateway.setup.issuer.token(name));
    let mut bobs = websocket::open_with(&gateway, &bob).await.unwrap();
    let mut eves = websocket::open_with(&gateway, &eve).await.unwrap();
    put(2, "private", "bob").await;
    let said = "you may not use this port any more".to_owned();
    assert_eq!(closed(&mut eves).await, (1008, said));
    websocket::say(&mut bobs, "still here").await;
    put(3, "private", "carol").await;
    assert_eq!(closed(&mut bobs).await.0, 1008);
}

/// Sends half a frame, then what is told, when it is told.
async fn halting(rest: &'static [u8]) -> (Upstream, std::sync::Arc<tokio::sync::Notify>) {
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    let told = std::sync::Arc::clone(&go_on);
    let upstream = Upstream::scripted(move |stream, _| {
        let told = std::sync::Arc::clone(&told);
        async move {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            let stream = socket.get_mut();
            stream.write_all(b"\x82\x05he").await.unwrap();
            told.notified().await;
            let _ = stream.write_all(rest).await;
            let mut sink = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(stream, &mut sink).await;
        }
    })
    .await;
    (upstream, go_on)
}

#[tokio::test]
async fn the_word_comes_behind_the_frame_that_is_under_way_and_never_within_it() {
    for comes in [true, false] {
        let (upstream, go_on) = halting(b"llo\x82\x05later").await;
        let gateway = Setup::to(&upstream).start();
        let token = older(&gateway.setup.issuer, "t1");
        let headers = [
            ("x-gitspace-token", &*token),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ];
        let mut client = gateway.tls(HOST).await;
        client.begin("GET", "/", &headers, b"").await;
        assert_eq!(client.head().await.unwrap().status, 101);
        let mut got = soon("half a frame", client.read_exact(4)).await.unwrap();
        if comes {
            // It comes while the word is waiting for it: the look is half a second away at the most.
            let go_on = std::sync::Arc::clone(&go_on);
            let listed = async || {
                let answer = gateway.admin(Method::GET, "/v1/streams", None).await;
                answer.json::<Vec<Value>>().await.unwrap()
            };
            assert_eq!(listed().await.len(), 1);
            let end = json!({ "which": { "principal": OWNER }, "message": "bye" });
            let answer = gateway
                .admin(Method::POST, "/v1/streams/end", Some(end))
                .await;
            assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "ended": 1 }));
            go_on.notify_one();
        } else {
            revoke(&gateway, json!({ "kind": "jti", "id": "t1" })).await;
        }
        got.extend(soon("the end", client.closed()).await);
        let expected: &[u8] = if comes {
            b"\x82\x05hello\x88\x05\x03\xf0bye"
        } else {
            b"\x82\x05he"
        };
        assert_eq!(got, expected);
    }
}

#[tokio::test]
async fn streams_are_listed_with_who_has_them_and_ended_by_what_fits() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = older(&gateway.setup.issuer, "t1");
    let mut one = websocket::open_with(&gateway, &token).await.unwrap();
    let mut two = websocket::open(&gateway).await.unwrap();
    websocket::say(&mut one, "hello").await;
    let list = async |query: &str| -> Vec<Value> {
        let path = format!("/v1/streams?{query}");
        gateway
            .admin(Method::GET, &path, None)
            .await
            .json()
            .await
            .unwrap()
    };
    assert_eq!(list("").await.len(), 2);
    let listed = list("login=login").await;
    let [stream] = &*listed else {
        panic!("{listed:?}");
    };
    assert_eq!(stream["principal"], OWNER);
    assert_eq!(
        (&stream["gitspace"], &stream["port"]),
        (&GITSPACE.into(), &"ide".into())
    );
    assert_eq!(
        (&stream["protocol"], &stream["client"]),
        (&"websocket".into(), &"127.0.0.1".into())
    );
    assert!(
        stream["received"].as_u64() >= Some(11) && stream["sent"].as_u64() >= Some(7),
        "{stream}"
    );
    assert!(stream["since"].as_i64().unwrap() >= now() - 60 && stream["idle"].as_u64() < Some(60));
    assert!(list("port=3000").await.is_empty() && list("principal=bob").await.is_empty());

    let end = async |body: Value| {
        let answer = gateway
            .admin(Method::POST, "/v1/streams/end", Some(body))
            .await;
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    for bad in [
        json!({ "which": {} }),
        json!({ "which": { "id": "x" }, "message": "a\nb" }),
        json!({ "which": { "id": "x" }, "message": "x".repeat(121) }),
        json!({ "which": { "user": "x" } }),
    ] {
        assert_eq!(end(bad.clone()).await.0 / 100, 4, "{bad}");
    }
    assert_eq!(
        end(json!({ "which": { "principal": "bob" } })).await,
        (200, json!({ "ended": 0 }))
    );
    let this = json!({ "which": { "id": stream["id"] }, "by": "root", "message": "the VM moves" });
    assert_eq!(end(this).await, (200, json!({ "ended": 1 })));
    assert_eq!(closed(&mut one).await, (1008, "the VM moves".into()));
    assert_eq!(
        ended(&gateway, 1).await[0]["detail"],
        "ended by root: the VM moves"
    );
    websocket::say(&mut two, "still here").await;
    eventually("one left", || async {
        (list("").await.len() == 1).then_some(())
    })
    .await;
    // It was ended, not kept out.
    websocket::open_with(&gateway, &token).await.unwrap();
}

/// Something is revoked and ends: all was looked through.
async fn end_another(gateway: &TestGateway, id: &str) {
    let issued = json!({ "jti": id, "iat": now() + 120 });
    let token = gateway.setup.issuer.token_with(OWNER, issued);
    let mut socket = websocket::open_with(gateway, &token).await.unwrap();
    let revocation = json!({ "kind": "jti", "id": id, "issued_before": now() + 180 });
    revoke(gateway, revocation).await;
    closed(&mut socket).await;
}

#[tokio::test]
async fn a_new_ticket_and_a_new_token_end_nothing() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut socket = websocket::open_with(&gateway, &older(&gateway.setup.issuer, "t1"))
        .await
        .unwrap();
    let ticket = gateway.setup.issuer.ticket(OWNER, "t2", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let navigation = [("sec-fetch-mode", "navigate")];
    gateway
        .plain()
        .await
        .get(&target, &navigation)
        .await
        .session()
        .unwrap();
    let mut second = websocket::open_with(&gateway, &older(&gateway.setup.issuer, "t3"))
        .await
        .unwrap();
    end_another(&gateway, "t4").await;
    websocket::say(&mut socket, "still here").await;
    websocket::say(&mut second, "still here").await;
}

#[tokio::test]
async fn what_is_public_goes_on_whoever_is_revoked() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream).start();
    let stream = gateway.tls(&port_host(4000)).await.into_stream();
    let url = format!("wss://{}/socket", port_host(4000));
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    end_another(&gateway, "t1").await;
    let gone = json!({ "kind": "gitspace", "id": GITSPACE, "issued_before": now() + 60 });
    revoke(&gateway, gone).await;
    end_another(&gateway, "t2").await;
    websocket::say(&mut socket, "still here").await;
}

/// Half of what is open is revoked at once: that half ends, in its own way each, and the other does not notice. So many WebSockets, and
/// a fiftieth of it server-sent events and uploads each; `CDE_STREAMS=5000` is run by hand, and tells how long the end took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_many_streams_end_and_the_others_do_not_notice() {
    let count = std::env::var("CDE_STREAMS").map_or(200, |count| count.parse().unwrap());
    let (sockets, others) = (websocket::echo().await, endless().await);
    let (echo, slow) = (sockets.address, others.address);
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"http://{echo}\"\nowner = {OWNER:?}\n\
             [ports.3000]\nupstream = \"http://{slow}\"\n"
        ))
        .with(|config| {
            let limits = &mut config.limits;
            (limits.connections_per_network, limits.streams_per_principal) = (50_000, 50_000);
            (limits.streams_per_gitspace, limits.connections) = (50_000, 50_000);
            config.upstreams.max_connections = 50_000;
            let rate = std::num::NonZeroU32::new(100_000).unwrap();
            (
                limits.new_connections_per_network,
                limits.new_streams_per_principal,
            ) = (rate, rate);
            (
                limits.new_streams_per_gitspace,
                limits.requests_per_principal,
            ) = (rate, rate);
        })
        .start();
    let issuer = &gateway.setup.issuer;
    let login = |sid: &str| issuer.token_with(OWNER, json!({ "sid": sid, "iat": now() - 60 }));
    let logins = [login("goes"), login("stays")];
    let mut open = [Vec::new(), Vec::new()];
    for n in 0..count {
        let request = websocket::request(&logins[n % 2]);
        let stream = gateway.plain().await.into_stream();
        let (socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap();
        open[n % 2].push(socket);
    }
    let mut answers = [Vec::new(), Vec::new()];
    for n in 0..count / 50 {
        let ours = [("x-gitspace-token", &*logins[n % 2])];
        let mut events = gateway.plain().await.to(&port_host(3000));
        events.begin("GET", "/events", &ours, b"").await;
        assert_eq!(events.head().await.unwrap().status, 200);
        let mut upload = gateway.plain().await.to(&port_host(3000));
        let (host, token) = (port_host(3000), ours[0].1);
        upload
            .send(format!("POST /upload HTTP/1.1\r\nhost: {host}\r\nx-gitspace-token: {token}\r\ncontent-length: 100\r\n\r\nbegin"))
            .await;
        answers[n % 2].push((events, upload));
    }
    eventually("the uploads upstream", || async {
        (others.connections() == 2 * (count / 50)).then_some(())
    })
    .await;

    let begun = std::time::Instant::now();
    revoke(&gateway, json!({ "kind": "sid", "id": "goes" })).await;
    let [goes, stays] = &mut open;
    for socket in goes {
        assert_eq!(closed(socket).await.0, 1008);
    }
    let [goes, still] = &mut answers;
    for (events, upload) in goes {
        let rest = events.closed().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "cut, not ended");
        assert_eq!(upload.answer().await.unwrap().status, 403);
    }
    println!(
        "{} of {} streams ended in {:?}",
        count / 2 + count / 50,
        count + count / 25,
        begun.elapsed()
    );
    for socket in stays {
        websocket::say(socket, "still here").await;
    }
    for (_, upload) in still {
        upload.send("x".repeat(95)).await;
    }
    let lines = ended(&gateway, count / 2 + count / 50).await;
    assert!(
        lines
            .iter()
            .all(|line| line["detail"] == "login revoked by an operator")
    );
}
