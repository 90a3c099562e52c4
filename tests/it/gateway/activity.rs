//! Activity: what a person does counts, and what programs send does not.

use cde_gateway::config::FailMode;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{
    session_cli::{out, session},
    websocket::{self, Socket},
};
use crate::support::{
    ControlPlane, GITSPACE, HOST, OWNER, Setup, TestGateway, Upstream, WITHIN, eventually, now,
    port_host, route, soon,
};

/// An IDE whose WebSockets echo, and an app at port 3000 that answers as its path says.
async fn start() -> (TestGateway, Upstream, Upstream) {
    let ide = websocket::echo().await;
    let app = Upstream::answering(|seen| {
        let status = if seen.target == "/missing" {
            "404 Not Found"
        } else {
            "200 OK"
        };
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes()
    })
    .await;
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"http://{}\"\nowner = {OWNER:?}\n[ports.3000]\nupstream = \"http://{}\"",
            ide.address, app.address
        ))
        .start();
    (gateway, ide, app)
}

async fn used(gateway: &TestGateway) -> Value {
    let path = format!("/v1/activity?gitspace={GITSPACE}");
    let answer = gateway.admin(Method::GET, &path, None).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json::<Vec<Value>>().await.unwrap().remove(0)
}

/// Kind, deed and port of what was done last.
fn last(used: &Value) -> Vec<(String, String, Option<u64>)> {
    let last = used["last"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |one: &Value| (text(&one["kind"]), text(&one["deed"]), one["port"].as_u64());
    last.iter().map(one).collect()
}

/// A WebSocket to a terminal of Jupyter's.
async fn terminal(gateway: &TestGateway) -> Socket {
    let mut request = format!("wss://{HOST}/terminals/websocket/1")
        .into_client_request()
        .unwrap();
    let token = HeaderValue::from_str(&gateway.owner()).unwrap();
    request.headers_mut().insert("x-gitspace-token", token);
    let stream = gateway.tls(HOST).await.into_stream();
    let opened = client_async(request, stream);
    soon("the handshake", opened).await.unwrap().0
}

const PAGE: [(&str, &str); 3] = [
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-user", "?1"),
];

async fn open(gateway: &TestGateway, target: &str, headers: &[(&str, &str)]) -> u16 {
    let token = gateway.owner();
    let host = port_host(3000);
    let client = gateway.tls(&host).await;
    let headers = [headers, &[("x-gitspace-token", &token)]].concat();
    client.to(&host).get(target, &headers).await.status
}

#[tokio::test]
async fn pages_that_are_opened_count_and_what_programs_ask_does_not() {
    let (gateway, _ide, _app) = start().await;
    let before = used(&gateway).await;
    assert_eq!(
        (last(&before), &before["idle_since"]),
        (vec![], &Value::Null)
    );
    // A poller, a page that loads itself again, one that is fetched ahead, and one that is not there.
    assert_eq!(open(&gateway, "/", &[("accept", "text/html")]).await, 200);
    assert_eq!(
        open(
            &gateway,
            "/",
            &[PAGE[0], PAGE[1], ("sec-fetch-site", "same-origin")]
        )
        .await,
        200
    );
    let ahead = [&PAGE[..], &[("sec-purpose", "prefetch")]].concat();
    assert_eq!(open(&gateway, "/", &ahead).await, 200);
    assert_eq!(open(&gateway, "/missing", &PAGE).await, 404);
    let after = used(&gateway).await;
    assert_eq!(last(&after), []);
    assert!(after["passed"].as_i64().unwrap() >= now() - 60, "{after}");
    assert_eq!(open(&gateway, "/", &PAGE).await, 200);
    let after = used(&gateway).await;
    assert_eq!(last(&after), [("port".into(), "opened".into(), Some(3000))]);
    assert!(
        after["idle_since"].as_i64().unwrap() >= now() - 60,
        "{after}"
    );
}

#[tokio::test]
async fn what_is_typed_counts_and_an_open_connection_does_not() {
    let (gateway, _ide, _app) = start().await;
    let mut socket = terminal(&gateway).await;
    websocket::say(&mut socket, "[\"set_size\",24,80]").await;
    socket.send(Message::Ping(vec![1].into())).await.unwrap();
    let pong = soon("the pong", socket.next()).await.unwrap().unwrap();
    assert!(pong.is_pong(), "{pong}");
    websocket::say(&mut socket, "[\"set_size\",25,80]").await;
    let quiet = used(&gateway).await;
    assert_eq!((last(&quiet), &quiet["streams"]), (vec![], &json!(1)));
    let why = quiet["why"].as_str().unwrap();
    assert!(
        why.contains("a connection is open, which does not count"),
        "{why}"
    );
    websocket::say(&mut socket, "[\"stdin\",\"l\"]").await;
    let typed = eventually("the key counts", || async {
        let used = used(&gateway).await;
        (!last(&used).is_empty()).then_some(used)
    })
    .await;
    assert_eq!(last(&typed), [("ide".into(), "typed".into(), None)]);
    // Both ways to ask say so.
    let streams = gateway.admin(Method::GET, "/v1/streams", None).await;
    let streams = streams.json::<Vec<Value>>().await.unwrap();
    assert_eq!(streams[0]["typed"], typed["idle_since"]);
    let table = out(&session(&gateway, &["why", GITSPACE]).await);
    assert!(table.contains("somebody typed at the IDE"), "{table}");
    // A route that changes is the same gitspace.
    let list = out(&session(&gateway, &["list"]).await);
    assert!(list.lines().next().unwrap().contains("TYPED"), "{list}");
}

#[tokio::test]
async fn others_may_tell_what_the_gateway_does_not_see() {
    let (gateway, _ide, _app) = start().await;
    let tell = async |body: Value| {
        let answer = gateway
            .admin(Method::POST, "/v1/activity", Some(body))
            .await;
        answer.status().as_u16()
    };
    let at = now() - 100;
    assert_eq!(
        tell(json!({ "gitspace": GITSPACE, "kind": "ssh", "at": at })).await,
        204
    );
    // An older one changes nothing.
    assert_eq!(
        tell(json!({ "gitspace": GITSPACE, "kind": "ssh", "at": at - 5 })).await,
        204
    );
    let told = used(&gateway).await;
    assert_eq!(last(&told), [("ssh".into(), "told".into(), None)]);
    assert_eq!(told["idle_since"], json!(at));
    assert_eq!(tell(json!({ "gitspace": GITSPACE })).await, 204);
    assert_eq!(
        last(&used(&gateway).await)[1],
        ("api".into(), "told".into(), None)
    );
    for bad in [
        json!({ "gitspace": GITSPACE, "at": now() + 1000 }),
        json!({ "gitspace": GITSPACE, "kind": "cat" }),
        json!({ "gitspace": GITSPACE, "more": 1 }),
    ] {
        assert_eq!(tell(bad.clone()).await, 400, "{bad}");
    }
    assert_eq!(tell(json!({ "gitspace": "web-a1b2c3" })).await, 404);
    let unknown = gateway
        .admin(Method::GET, "/v1/activity?gitspace=web-a1b2c3", None)
        .await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_agents_see_of_terminals_comes_with_the_answer_to_a_report() {
    const STATIC: &str = "web-b7n2m4";
    let ide = websocket::echo().await;
    let plane = ControlPlane::start().await;
    plane.snapshot(1, 60, &[route(1, ide.address)]);
    // Of a gitspace that is not its own the control plane has nothing to say.
    plane.answer_reports(json!({ "typed": [
        { "gitspace": GITSPACE, "ago": 30 }, { "gitspace": STATIC, "ago": 1 }, { "gitspace": "gone-a1b2c3", "ago": 1 },
    ] }));
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {STATIC:?}\nupstream = \"http://{}\"\nowner = {OWNER:?}",
            ide.address
        ))
        .following(&plane, FailMode::Static)
        .start();
    plane.asked_after(1).await;
    // Reports go every ten seconds.
    let told = tokio::time::timeout(3 * WITHIN, async {
        loop {
            let used = used(&gateway).await;
            if !last(&used).is_empty() {
                return used;
            }
            tokio::time::sleep(WITHIN / 100).await;
        }
    });
    let told = told.await.expect("the report is answered in time");
    assert_eq!(last(&told), [("terminal".into(), "typed".into(), None)]);
    let ago = now() - told["idle_since"].as_i64().unwrap();
    assert!((30..60).contains(&ago), "{ago}");
    let table = out(&session(&gateway, &["why"]).await);
    let row = |gitspace: &str| {
        let mut rows = table.lines();
        rows.find(|row| row.starts_with(gitspace)).unwrap()
    };
    assert!(
        row(GITSPACE).contains("somebody typed at a terminal"),
        "{table}"
    );
    assert!(row(STATIC).contains("nobody did anything"), "{table}");
}
