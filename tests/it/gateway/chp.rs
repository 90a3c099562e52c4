//! The API of configurable-http-proxy: its routes, what they lead to, and pages of errors.

use std::{net::SocketAddr, path::PathBuf};

use cde_gateway::{api::Secret, config};
use futures_util::StreamExt;
use http::HeaderValue;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::websocket;
use crate::support::{
    ADMIN_TOKEN, Answer, Refusing, Setup, TestGateway, Upstream, eventually, secret, soon,
};

const HUB: &str = "hub.test";
const TOKEN: &str = "the-token-of-the-hub-of-these-tests";
const PAGE: (&str, &str) = ("sec-fetch-mode", "navigate");

/// A gateway that takes routes of CHP for `hub.test`.
fn setup(error_target: Option<String>) -> Setup {
    let mut setup = Setup::new().with(|config| {
        config.chp = Some(config::Chp {
            host: HUB.into(),
            token_file: None,
            error_target,
        });
    });
    setup.settings.chp_token = Some(Secret::new(secret(TOKEN)));
    setup
}

async fn asked(
    gateway: &TestGateway,
    method: Method,
    path: &str,
    authorization: &str,
    body: &str,
) -> reqwest::Response {
    let url = format!("http://{}{path}", gateway.admin);
    let asked = reqwest::Client::new()
        .request(method, url)
        .header("authorization", authorization)
        .body(body.to_owned());
    soon("the API", asked.send()).await.unwrap()
}

async fn api(gateway: &TestGateway, method: Method, path: &str, body: &str) -> (u16, String) {
    let authorization = format!("token {TOKEN}");
    let path = format!("/api/routes{path}");
    let answer = asked(gateway, method, &path, &authorization, body).await;
    let status = answer.status().as_u16();
    (status, answer.text().await.unwrap())
}

fn to(upstream: SocketAddr) -> String {
    json!({ "target": format!("http://{upstream}"), "jupyterhub": true }).to_string()
}

async fn post(gateway: &TestGateway, path: &str, upstream: SocketAddr) {
    let (status, body) = api(gateway, Method::POST, path, &to(upstream)).await;
    assert_eq!((status, &*body), (201, ""), "{path}");
}

async fn listed(gateway: &TestGateway, query: &str) -> Value {
    let (status, body) = api(gateway, Method::GET, query, "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn paths(listed: &Value) -> Vec<&str> {
    listed
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

async fn get(gateway: &TestGateway, path: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.plain().await.to(HUB).get(path, headers).await
}

#[tokio::test]
async fn routes_come_are_told_and_go_as_with_configurable_http_proxy() {
    let gateway = setup(None).start();
    let upstream = Upstream::echo().await;
    assert_eq!(listed(&gateway, "").await, json!({}));
    let data = json!({
        "target": format!("http://{}", upstream.address), "user": "ada", "server_name": "", "jupyterhub": true,
        "last_activity": "of nobody", "more": {"x": [1, null]},
    });
    let path = "/user/ada%40b.test";
    let posted = api(&gateway, Method::POST, path, &data.to_string()).await;
    assert_eq!(posted, (201, String::new()));
    post(&gateway, "", upstream.address).await;

    for query in ["", "/"] {
        let listed = listed(&gateway, query).await;
        assert_eq!(paths(&listed), ["/", "/user/ada@b.test"], "{query}");
        let mut route = listed["/user/ada@b.test"].clone();
        let activity = route["last_activity"].take();
        let activity: jiff::Timestamp = activity.as_str().unwrap().parse().unwrap();
        let ago = jiff::Timestamp::now().as_second() - activity.as_second();
        assert!((0..60).contains(&ago), "{ago} s");
        let mut expected = data.clone();
        expected["last_activity"] = Value::Null;
        assert_eq!(route, expected);
    }
    for path in [path, "/user/ada@b.test", "/user/ada@b.test/"] {
        let (status, body) = api(&gateway, Method::GET, path, "").await;
        assert_eq!(status, 200, "{path}");
        let shown: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(shown["more"], data["more"]);
    }
    for path in ["/user", "/user/ada", "/user/ada@b.test/x", "/user/%zz"] {
        for method in [Method::GET, Method::DELETE] {
            assert_eq!(api(&gateway, method, path, "").await.0, 404, "{path}");
        }
    }
    let deleted = api(&gateway, Method::DELETE, path, "").await;
    assert_eq!(deleted, (204, String::new()));
    assert_eq!(api(&gateway, Method::DELETE, path, "").await.0, 404);
    assert_eq!(paths(&listed(&gateway, "").await), ["/"]);
    assert_eq!(api(&gateway, Method::DELETE, "/", "").await.0, 204);
    assert_eq!(listed(&gateway, "").await, json!({}));
    assert_eq!(api(&gateway, Method::PUT, "/x", "").await.0, 405);
}

#[tokio::test]
async fn the_longest_path_wins_and_everything_passes_as_it_is() {
    let gateway = setup(None).start();
    let [hub, ada, space] = [
        Upstream::echo().await,
        Upstream::echo().await,
        Upstream::echo().await,
    ];
    for (path, upstream) in [
        ("/", &hub),
        ("/user/ada@b.test", &ada),
        ("/user/Ada%20L", &space),
    ] {
        post(&gateway, path, upstream.address).await;
    }
    let token = gateway.owner();
    let bearer = format!("Bearer {token}");
    let headers = [
        ("cookie", "jupyterhub-session-id=s; _xsrf=\"a|b\""),
        ("authorization", &*bearer),
        ("x-forwarded-for", "203.0.113.9"),
    ];
    for (sent, upstream) in [
        ("/", &hub),
        ("/hub/login?next=%2Fhub%2F", &hub),
        ("/user/ada", &hub),
        ("/user/ada@b.testx", &hub),
        ("/user/ada@b.test", &ada),
        ("/user/ada@b.test/lab?token=abc&x=%20", &ada),
        ("/user/ada%40b.test/lab", &ada),
        ("/user/Ada%20L/api/kernels", &space),
    ] {
        let answer = get(&gateway, sent, &headers).await;
        assert_eq!(answer.status, 200, "{sent}");
        let seen = upstream.last();
        assert_eq!(seen.target, sent);
        assert_eq!(seen.header("host"), Some(HUB));
        assert_eq!(seen.header("cookie"), Some(headers[0].1));
        assert_eq!(seen.header("authorization"), Some(&*bearer));
        assert_eq!(seen.header("x-forwarded-host"), Some(HUB));
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.header("x-gitspace-user"), None);
    }
    let before = hub.seen().len() + ada.seen().len() + space.seen().len();
    for doubtful in [
        "/user/%61da@b.test/",
        "/x/../user/ada@b.test/",
        "//user/ada@b.test",
    ] {
        let answer = get(&gateway, doubtful, &[]).await;
        assert_eq!(
            answer.refusal(),
            (404, "no-such-gitspace".into()),
            "{doubtful}"
        );
    }
    assert_eq!(
        hub.seen().len() + ada.seen().len() + space.seen().len(),
        before
    );
    // At a gitspace's own host its whole upstream could be reached.
    let shown: Value = gateway
        .admin(Method::GET, "/v1/routes", None)
        .await
        .json()
        .await
        .unwrap();
    for route in shown.as_array().unwrap() {
        assert_eq!(route["source"], "chp");
        let host = format!(
            "{}.gitspaces.localhost",
            route["gitspace"].as_str().unwrap()
        );
        let answer = gateway.plain().await.to(&host).get("/", &[]).await;
        assert_eq!(answer.refusal(), (401, "no-token".into()));
    }
}

#[tokio::test]
async fn a_websocket_passes_with_its_cookies_until_its_route_goes() {
    let gateway = setup(None).start();
    let kernel = websocket::echo().await;
    post(&gateway, "/user/ada", kernel.address).await;
    let url = format!("ws://{HUB}/user/ada/api/kernels/k1/channels?session_id=1");
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("cookie", HeaderValue::from_static("jupyterhub-user-ada=1"));
    headers.insert("origin", HeaderValue::from_static("https://hub.test"));
    let stream = gateway.plain().await.into_stream();
    let (mut socket, _) = soon("the handshake", client_async(request, stream))
        .await
        .unwrap();
    websocket::say(&mut socket, "print(6*7)").await;
    // The same target again is the same route.
    post(&gateway, "/user/ada", kernel.address).await;
    websocket::say(&mut socket, "still here").await;
    assert_eq!(api(&gateway, Method::DELETE, "/user/ada", "").await.0, 204);
    let end = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(_) = message {
                break;
            }
        }
    };
    soon("the end", end).await;
    let _ = socket.close(None).await;
}

#[tokio::test]
async fn routes_need_the_token_and_the_token_opens_nothing_else() {
    let gateway = setup(None).start();
    let upstream = Upstream::echo().await;
    let body = to(upstream.address);
    let bad = [
        String::new(),
        "token".into(),
        "token wrong".into(),
        format!("Basic {TOKEN}"),
        TOKEN.into(),
    ];
    for authorization in bad {
        for (method, path) in [
            (Method::GET, "/api/routes"),
            (Method::GET, "/api/routes/"),
            (Method::GET, "/api/routes/user/ada"),
            (Method::POST, "/api/routes/user/ada"),
            (Method::DELETE, "/api/routes/user/ada"),
        ] {
            let answer = asked(&gateway, method, path, &authorization, &body).await;
            assert_eq!(answer.status(), 403, "{authorization:?} {path}");
        }
    }
    let good = [
        format!("token {TOKEN}"),
        format!("Bearer {TOKEN}"),
        format!("token {ADMIN_TOKEN}"),
    ];
    for authorization in good {
        let answer = asked(&gateway, Method::GET, "/api/routes", &authorization, "").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({}));
    }
    let authorization = format!("Bearer {TOKEN}");
    for path in ["/v1/routes", "/v1/streams", "/v1/revocations", "/metrics"] {
        let answer = asked(&gateway, Method::GET, path, &authorization, "").await;
        assert_eq!(answer.status(), 401, "{path}");
    }
    let without = Setup::new().start();
    let authorization = format!("token {ADMIN_TOKEN}");
    let answer = asked(&without, Method::GET, "/api/routes", &authorization, "").await;
    assert_eq!(answer.status(), 404);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["reason"], "not-configured");
}

#[tokio::test]
async fn what_is_no_route_is_refused_and_says_why() {
    let gateway = setup(None)
        .with(|config| config.upstreams.allow = vec!["127.0.0.0/30".parse().unwrap()])
        .start();
    let good = r#"{"target": "http://127.0.0.1:9"}"#;
    let large = format!(
        r#"{{"target": "http://127.0.0.1:9", "x": "{}"}}"#,
        "a".repeat(17_000)
    );
    for (path, body, status, said) in [
        ("/x", "", 400, "no JSON"),
        ("/x", "{", 400, "no JSON"),
        ("/x", "[]", 400, "no JSON object"),
        ("/x", "{}", 400, "`target` must be there"),
        ("/x", r#"{"target": 1}"#, 400, "`target` must be there"),
        ("/x", r#"{"target": "http://hub:8081"}"#, 400, "IP address"),
        (
            "/x",
            r#"{"target": "http://127.0.0.1:9/x"}"#,
            400,
            "more than",
        ),
        (
            "/x",
            r#"{"target": "http://10.0.0.7:9"}"#,
            422,
            "gateway.upstreams.allow",
        ),
        ("/x", &large, 413, "limit"),
        ("/a//b", good, 400, "no empty"),
        ("/a/%2e%2e%2fb", good, 400, "no dot segments"),
        ("/a%3bb", good, 400, "no `;`"),
        ("/_gitspace/x", good, 400, "the gateway's"),
        ("/%ff", good, 400, "UTF-8"),
    ] {
        let (found, text) = api(&gateway, Method::POST, path, body).await;
        assert_eq!(found, status, "{path} {text}");
        assert!(text.contains(said), "{path}: {text}");
    }
    assert_eq!(listed(&gateway, "").await, json!({}));
}

#[tokio::test]
async fn a_route_has_one_source() {
    let upstream = Upstream::echo().await;
    let gateway = setup(None)
        .route(&format!(
            "host = {HUB:?}\npath = \"/static\"\nauth = \"app\"\nupstream = \"http://{}\"",
            upstream.address
        ))
        .start();
    let (status, text) = api(&gateway, Method::POST, "/static", &to(upstream.address)).await;
    assert_eq!(status, 409, "{text}");
    assert_eq!(api(&gateway, Method::DELETE, "/static", "").await.0, 404);
    assert_eq!(get(&gateway, "/static/x", &[]).await.status, 200);

    post(&gateway, "/user/ada", upstream.address).await;
    let shown: Value = gateway
        .admin(Method::GET, "/v1/routes", None)
        .await
        .json()
        .await
        .unwrap();
    let mut routes = shown.as_array().unwrap().iter();
    let ours = routes.find(|route| route["source"] == "chp").unwrap();
    assert_eq!(ours["path"], "/user/ada");
    let path = format!("/v1/routes/{}", ours["gitspace"].as_str().unwrap());
    let route = json!({
        "gitspace": ours["gitspace"], "address": "127.0.0.1", "ide": {"port": upstream.address.port()},
    });
    let put = gateway.admin(Method::PUT, &path, Some(route)).await;
    assert_eq!(put.status(), 409);
    let deleted = gateway.admin(Method::DELETE, &path, None).await;
    assert_eq!(deleted.status(), 409);
    assert_eq!(get(&gateway, "/user/ada", &[]).await.status, 200);
}

#[tokio::test]
async fn routes_are_kept_over_a_restart() {
    let setup = setup(None);
    let upstream = Upstream::echo().await;
    let gateway = setup.start();
    for path in ["/user/Ada%20L", "/user/bob", "/"] {
        post(&gateway, path, upstream.address).await;
    }
    assert_eq!(api(&gateway, Method::DELETE, "/user/bob", "").await.0, 204);
    gateway.stop().await;
    let file: PathBuf = setup.dir.path().join("chp-routes.json");
    assert!(file.exists());

    let gateway = setup.start();
    let kept = listed(&gateway, "").await;
    assert_eq!(paths(&kept), ["/", "/user/Ada L"]);
    assert_eq!(kept["/"]["jupyterhub"], true);
    assert_eq!(get(&gateway, "/user/Ada%20L/x", &[]).await.status, 200);
    assert_eq!(
        get(&gateway, "/user/bob", &[]).await.status,
        200,
        "the hub's"
    );
    // One that may not be used any more is still listed and can be taken back.
    let moved = setup.clone().with(|config| {
        config.upstreams.allow = vec!["10.0.0.0/8".parse().unwrap()];
    });
    gateway.stop().await;
    let gateway = moved.start();
    assert_eq!(listed(&gateway, "").await.as_object().unwrap().len(), 2);
    assert_eq!(get(&gateway, "/", &[]).await.status, 404);
    assert_eq!(api(&gateway, Method::DELETE, "/", "").await.0, 204);
}

#[tokio::test]
async fn those_without_activity_since_a_time_are_listed_alone() {
    let gateway = setup(None).start();
    let upstream = Upstream::echo().await;
    post(&gateway, "/user/ada", upstream.address).await;
    for name in ["inactiveSince", "inactive_since"] {
        for (time, count) in [
            ("2020-01-31T12:00:00Z", 0),
            ("2020-01-31T12:00:00%2B01:00", 0),
            ("2020-01-31", 0),
            ("2100-01-31T12:00:00.000Z", 1),
            ("2100-01-31T12:00:00+00:00", 1),
        ] {
            let listed = listed(&gateway, &format!("?{name}={time}")).await;
            assert_eq!(listed.as_object().unwrap().len(), count, "{time}");
        }
        let (status, text) = api(&gateway, Method::GET, &format!("?{name}=soon"), "").await;
        assert_eq!(status, 400);
        assert!(text.contains("ISO 8601"), "{text}");
    }
}

async fn active(gateway: &TestGateway) -> jiff::Timestamp {
    let listed = listed(gateway, "").await;
    let at = listed["/user/ada"]["last_activity"].as_str().unwrap();
    at.parse().unwrap()
}

#[tokio::test]
async fn activity_is_what_a_person_does_and_not_what_passes() {
    const PERSON: [(&str, &str); 3] = [
        PAGE,
        ("sec-fetch-dest", "document"),
        ("sec-fetch-user", "?1"),
    ];
    const POLLER: [(&str, &str); 1] = [("sec-fetch-mode", "cors")];
    let gateway = setup(None).start();
    let upstream = Upstream::echo().await;
    post(&gateway, "/user/ada", upstream.address).await;
    let first = active(&gateway).await;
    let later = eventually("a person's activity", || async {
        // Who asks again and again does nothing.
        let before = active(&gateway).await;
        assert_eq!(get(&gateway, "/user/ada/api", &POLLER).await.status, 200);
        assert_eq!(active(&gateway).await, before);
        assert_eq!(get(&gateway, "/user/ada/lab", &PERSON).await.status, 200);
        Some(active(&gateway).await).filter(|at| *at > first)
    })
    .await;
    let query = format!("?inactiveSince={later}");
    assert_eq!(listed(&gateway, &query).await, json!({}));
}

/// An error target that says what it was asked.
async fn errors() -> (Upstream, String) {
    let target = Upstream::answering(|seen| {
        let body = format!("<h1>the hub says {}</h1>", seen.target);
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nset-cookie: a=b\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    })
    .await;
    let url = format!("http://{}/hub/error", target.address);
    (target, url)
}

#[tokio::test]
async fn the_error_target_gives_the_pages_of_404_and_503() {
    let (target, url) = errors().await;
    let gateway = setup(Some(url)).start();
    let refusing = Refusing::new();
    post(&gateway, "/user/ada", refusing.address()).await;
    let headers = [
        PAGE,
        ("cookie", "jupyterhub-session-id=s"),
        ("authorization", "Bearer of-the-hub"),
    ];
    for (sent, status, reason, told) in [
        (
            "/x/y?token=secret",
            404,
            "no-such-gitspace",
            "404?url=%2Fx%2Fy",
        ),
        (
            "/user/ada/lab?token=secret",
            503,
            "nothing-listens",
            "503?url=%2Fuser%2Fada%2Flab",
        ),
    ] {
        let answer = get(&gateway, sent, &headers).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let expected = format!("<h1>the hub says /hub/error/{told}</h1>");
        assert_eq!(answer.text(), expected);
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("set-cookie"), None);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let proxy_status = answer.header("proxy-status").unwrap();
        assert!(proxy_status.contains(reason), "{proxy_status}");
        let asked = target.last();
        for name in ["cookie", "authorization", "x-forwarded-for", "referer"] {
            assert_eq!(asked.header(name), None);
        }
    }
    let before = target.seen().len();
    // A program gets a problem, with the same status.
    let answer = get(&gateway, "/user/ada/api", &[]).await;
    assert_eq!(answer.refusal(), (503, "nothing-listens".into()));
    assert_eq!(answer.header("retry-after"), Some("2"));
    let answer = get(&gateway, "/x", &[]).await;
    assert_eq!(answer.refusal(), (404, "no-such-gitspace".into()));
    // Other ends and other hosts are the gateway's alone.
    let answer = get(&gateway, "/_gitspace/x", &[PAGE]).await;
    assert_eq!(answer.status, 404);
    let other = gateway
        .plain()
        .await
        .to("other.test")
        .get("/", &[PAGE])
        .await;
    assert_eq!(other.status, 401);
    assert_eq!(target.seen().len(), before);
    let lines = gateway.accounted(6).await;
    let told = lines
        .iter()
        .filter(|line| line["reason"] == "nothing-listens")
        .map(|line| line["status"].as_u64().unwrap());
    assert_eq!(told.collect::<Vec<_>>(), [503, 503]);
}

#[tokio::test]
async fn without_a_page_of_the_error_target_the_gateways_own_is_shown() {
    let large = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}",
        300_000,
        "a".repeat(300_000)
    );
    let targets = [
        Upstream::always("HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno").await,
        Upstream::always("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n").await,
        Upstream::always("no HTTP\r\n\r\n").await,
        Upstream::answering(move |_| large.clone().into_bytes()).await,
        // It says nothing until its time is over.
        Upstream::scripted(|stream, _| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await,
    ];
    for target in &targets {
        let url = format!("http://{}/error/", target.address);
        let gateway = setup(Some(url)).start();
        let answer = get(&gateway, "/x", &[PAGE]).await;
        assert_eq!(answer.status, 404);
        assert!(
            answer.text().contains("no-such-gitspace"),
            "{}",
            answer.text()
        );
        let asked = eventually("the question", || async {
            (target.connections() > 0).then_some(())
        });
        asked.await;
    }
}
