//! Routes that share a host by path: whose a request is, what its app sees, and what becomes of the answer.

use http::HeaderValue;
use serde_json::{Value, json};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use crate::support::{Answer, OWNER, Setup, TestGateway, Upstream, now, soon};

const DEV: &str = "dev.test";
const PAGE: (&str, &str) = ("sec-fetch-mode", "navigate");

/// Alice's editor sees none of its path, her notebook all of it; both are private. The wiki has the rest and is everybody's.
async fn host(app: &Upstream) -> (Upstream, TestGateway) {
    let wiki = Upstream::echo().await;
    let route = |gitspace: &str, more: &str, upstream: &Upstream| {
        format!(
            "gitspace = {gitspace:?}\nhost = {DEV:?}\nupstream = \"http://{}\"\n{more}",
            upstream.address
        )
    };
    let gateway = Setup::new()
        .route(&route(
            "code-a1b2c3",
            "path = \"/alice/code\"\nowner = \"alice\"",
            app,
        ))
        .route(&route(
            "lab-a1b2c3",
            "path = \"/alice/lab\"\nprefix = \"keep\"\nowner = \"alice\"",
            app,
        ))
        .route(&route(
            "bob-a1b2c3",
            "path = \"/bob\"\nowner = \"bob\"",
            app,
        ))
        .route(&route("wiki", "visibility = \"public\"", &wiki))
        .with(|config| config.auth.login_url = "https://login.test/start".into())
        .start();
    (wiki, gateway)
}

async fn get(gateway: &TestGateway, target: &str, headers: &[(&str, &str)]) -> Answer {
    gateway.plain().await.to(DEV).get(target, headers).await
}

fn ticket(gateway: &TestGateway, gitspace: &str, jti: &str) -> String {
    gateway.setup.issuer.token_with(
        OWNER,
        json!({ "use": "ticket", "jti": jti, "exp": now() + 60, "gitspace": gitspace, "ports": ["ide"] }),
    )
}

#[tokio::test]
async fn the_longest_path_wins_and_an_app_sees_of_it_what_its_route_says() {
    let app = Upstream::echo().await;
    let (wiki, gateway) = host(&app).await;
    let token = gateway.setup.issuer.token("alice");
    let headers = [
        ("x-gitspace-token", &*token),
        ("x-forwarded-prefix", "/evil"),
    ];
    for (sent, seen, prefix, gitspace) in [
        ("/alice/code/", "/", Some("/alice/code"), "code-a1b2c3"),
        (
            "/alice/code/a%2fb//c?d=/alice/code",
            "/a%2fb//c?d=/alice/code",
            Some("/alice/code"),
            "code-a1b2c3",
        ),
        ("/alice/code?x", "/?x", Some("/alice/code"), "code-a1b2c3"),
        ("/alice/lab", "/alice/lab", None, "lab-a1b2c3"),
        ("/alice/lab/tree?x", "/alice/lab/tree?x", None, "lab-a1b2c3"),
    ] {
        let answer = get(&gateway, sent, &headers).await;
        assert_eq!(answer.status, 200, "{sent}");
        let last = app.last();
        assert_eq!(
            (&*last.target, last.header("x-forwarded-prefix")),
            (seen, prefix),
            "{sent}"
        );
        assert_eq!(last.header("x-gitspace-id"), Some(gitspace));
        assert_eq!(last.header("host"), Some(DEV));
    }
    for sent in ["/", "/alice", "/alice/codex", "/Alice/code/"] {
        assert_eq!(get(&gateway, sent, &headers).await.status, 200, "{sent}");
        assert_eq!(wiki.last().target, sent);
        assert_eq!(wiki.last().header("x-forwarded-prefix"), None);
    }
}

#[tokio::test]
async fn what_could_be_another_routes_path_reaches_nobody_and_tells_nothing() {
    let app = Upstream::echo().await;
    let (wiki, gateway) = host(&app).await;
    let token = gateway.setup.issuer.token("alice");
    let doubtful = [
        "/alice/../bob/",
        "/alice/code/..%2f..%2fbob/",
        "/alice/code/%2e%2e/x",
        "//alice/code/",
        "/%61lice/code/",
        "/alice%2fcode/",
        "/alice;x/code/",
        "/alice\\code/",
        "/alice/code/..;/",
    ];
    for sent in doubtful {
        let anonymous = get(&gateway, sent, &[]).await;
        assert_eq!(anonymous.refusal(), (401, "no-token".into()), "{sent}");
        let known = get(&gateway, sent, &[("x-gitspace-token", &token)]).await;
        assert_eq!(known.refusal(), (404, "no-such-gitspace".into()), "{sent}");
    }
    // As if nothing was there, and as what is there and somebody else's.
    let anonymous = get(&gateway, "/bob/", &[]).await;
    assert_eq!(anonymous.refusal(), (401, "no-token".into()));
    let known = get(&gateway, "/bob/", &[("x-gitspace-token", &token)]).await;
    assert_eq!(known.refusal(), (404, "no-such-gitspace".into()));
    assert_eq!(app.connections() + wiki.connections(), 0);
}

#[tokio::test]
async fn an_answer_stays_under_the_path_of_an_app_that_does_not_know_it() {
    let app = Upstream::always(
        "HTTP/1.1 302 Found\r\nlocation: /login?to=/x\r\ncontent-location: http://dev.test/y\r\nset-cookie: a=1; Path=/; HttpOnly\r\n\
         set-cookie: __Host-b=2; Secure; Path=/\r\nservice-worker-allowed: /\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let (_wiki, gateway) = host(&app).await;
    let token = gateway.setup.issuer.token("alice");
    let headers = [("x-gitspace-token", &*token)];
    let answer = get(&gateway, "/alice/code/x", &headers).await;
    assert_eq!(answer.header("location"), Some("/alice/code/login?to=/x"));
    assert_eq!(
        answer.header("content-location"),
        Some("http://dev.test/alice/code/y")
    );
    let cookies = [
        "a=1; Path=/alice/code; HttpOnly",
        "__Host-b=2; Secure; Path=/",
    ];
    assert_eq!(answer.all("set-cookie"), cookies);
    assert_eq!(
        answer.header("service-worker-allowed"),
        Some("/alice/code/")
    );

    let answer = get(&gateway, "/alice/lab/x", &headers).await;
    assert_eq!(answer.header("location"), Some("/login?to=/x"));
    assert_eq!(answer.all("set-cookie")[0], "a=1; Path=/; HttpOnly");
    assert_eq!(
        answer.header("service-worker-allowed"),
        None,
        "not the whole host"
    );

    // At the gitspace's own host there is no path.
    let mut client = gateway.plain().await.to("code-a1b2c3.gitspaces.localhost");
    let answer = client.get("/alice/code/x", &headers).await;
    assert_eq!(answer.header("location"), Some("/login?to=/x"));
    assert_eq!(app.last().target, "/alice/code/x");
}

#[tokio::test]
async fn a_page_at_the_path_itself_goes_into_the_folder_once_it_may_be_seen() {
    let app = Upstream::echo().await;
    let (_wiki, gateway) = host(&app).await;
    let token = gateway.setup.issuer.token("alice");
    let headers = [("x-gitspace-token", &*token), PAGE];
    let answer = get(&gateway, "/alice/code?folder=/w", &headers).await;
    assert_eq!(answer.status, 307);
    assert_eq!(answer.header("location"), Some("/alice/code/?folder=/w"));
    assert_eq!(
        get(&gateway, "/alice/lab", &headers).await.status,
        200,
        "it knows its path"
    );
    let answer = get(&gateway, "/bob", &headers).await;
    assert_eq!(answer.status, 404, "no oracle");
    let answer = get(&gateway, "/bob", &[PAGE]).await;
    assert!(
        answer
            .header("location")
            .unwrap()
            .starts_with("https://login.test/start?")
    );
}

#[tokio::test]
async fn a_websocket_finds_its_app_by_path() {
    let (seen, mut targets) = tokio::sync::mpsc::unbounded_channel();
    let app = Upstream::scripted(move |stream, _| {
        let seen = seen.clone();
        async move {
            #[expect(clippy::result_large_err, reason = "the library's own type")]
            let look = |request: &http::Request<()>, response| {
                let prefix = request.headers()["x-forwarded-prefix"].clone();
                seen.send((request.uri().to_string(), prefix)).unwrap();
                Ok(response)
            };
            tokio_tungstenite::accept_hdr_async(stream, look)
                .await
                .unwrap();
        }
    })
    .await;
    let (_wiki, gateway) = host(&app).await;
    for (sent, target) in [
        ("/alice/code/ws?x=1", "/ws?x=1"),
        ("/alice/code?x=1", "/?x=1"),
    ] {
        let mut request = format!("ws://{DEV}{sent}").into_client_request().unwrap();
        let token = HeaderValue::try_from(gateway.setup.issuer.token("alice")).unwrap();
        request.headers_mut().insert("x-gitspace-token", token);
        let stream = gateway.plain().await.into_stream();
        soon("the handshake", client_async(request, stream))
            .await
            .unwrap();
        let expected = (target.to_owned(), HeaderValue::from_static("/alice/code"));
        assert_eq!(targets.recv().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_ticket_becomes_a_session_of_the_route_that_its_page_belongs_to() {
    let app = Upstream::echo().await;
    let (_wiki, gateway) = host(&app).await;
    let good = ticket(&gateway, "code-a1b2c3", "1");
    for page in ["/", "/alice/lab/", "/bob/", "/alice/code/../lab/"] {
        let answer = get(&gateway, &format!("{page}?gitspace_token={good}"), &[PAGE]).await;
        assert!(answer.session().is_none(), "{page}");
    }
    let answer = get(
        &gateway,
        &format!("/alice/code/?x=1&gitspace_token={good}"),
        &[PAGE],
    )
    .await;
    assert_eq!(answer.header("location"), Some("/alice/code/?x=1"));
    let session = answer.session().unwrap();
    let cookie = [("cookie", &*session)];
    assert_eq!(get(&gateway, "/alice/code/", &cookie).await.status, 200);
    assert_eq!(app.last().header("x-gitspace-user"), Some(OWNER));
    assert_eq!(app.last().header("cookie"), None);
    // The session is the host's, and still for this gitspace alone.
    let other = get(&gateway, "/alice/lab/", &cookie).await;
    assert_eq!(other.refusal(), (404, "no-such-gitspace".into()));
}

#[tokio::test]
async fn who_logs_in_at_a_path_comes_back_to_it() {
    let app = Upstream::echo().await;
    let (_wiki, gateway) = host(&app).await;
    let answer = get(&gateway, "/alice/code/?x=1", &[PAGE]).await;
    let location = answer.header("location").unwrap();
    assert!(location.contains("return_to=https%3A%2F%2Fdev.test%2Falice%2Fcode%2F%3Fx%3D1&"));
    let state = location.rsplit_once("&state=").unwrap().1;
    let cookie = answer
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let back = |ticket: String| format!("/_gitspace/login?ticket={ticket}&state={state}");
    let headers = [PAGE, ("cookie", cookie)];
    let other = back(ticket(&gateway, "lab-a1b2c3", "1"));
    assert_eq!(get(&gateway, &other, &headers).await.status, 401);
    let good = back(ticket(&gateway, "code-a1b2c3", "2"));
    let answer = get(&gateway, &good, &headers).await;
    assert_eq!(answer.header("location"), Some("/alice/code/?x=1"));
    assert!(answer.session().is_some());
}

#[tokio::test]
async fn an_app_may_tell_itself_who_is_asking() {
    let app = Upstream::echo().await;
    let gateway = Setup::new()
        .route(&format!(
            "host = {DEV:?}\npath = \"/api\"\nauth = \"app\"\nupstream = \"http://{}\"",
            app.address
        ))
        .with(|config| config.auth.token_cookies = vec!["sso".into()])
        .start();
    let issuer = &gateway.setup.issuer;
    let (token, bearer) = (
        issuer.token(OWNER),
        format!("Bearer {}", issuer.token(OWNER)),
    );
    let jar = format!("sso={token}; __Host-gitspace=1.x; app=1");
    let target = format!("/api/x?token={token}&gitspace_token={token}&y");
    let headers = [
        ("authorization", &*bearer),
        ("cookie", &*jar),
        ("x-gitspace-token", &*token),
        ("origin", "https://elsewhere.test"),
    ];
    let mut client = gateway.plain().await.to(DEV);
    let answer = client.request("POST", &target, &headers, b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = app.last();
    assert_eq!(seen.target, format!("/x?token={token}&y"));
    assert_eq!(seen.header("authorization"), Some(&*bearer));
    assert_eq!(seen.header("cookie"), Some(&*format!("sso={token}; app=1")));
    for ours in [
        "x-gitspace-token",
        "x-gitspace-user",
        "x-gitspace-assertion",
    ] {
        assert_eq!(seen.header(ours), None);
    }
    assert_eq!(seen.header("x-gitspace-id"), Some("dev-test-api"));
    let answer = client
        .get("/api/", &[("authorization", "Bearer what.ever.else")])
        .await;
    assert_eq!(
        answer.status, 200,
        "wrong tokens are the app's business too"
    );
    let answer = client.get("/_gitspace/whoami", &[]).await;
    assert_eq!(answer.refusal(), (401, "no-token".into()));
}

#[tokio::test]
async fn the_admin_api_knows_paths() {
    let app = Upstream::echo().await;
    let gateway = Setup::new().start();
    let route = |gitspace: &str, path: &str| {
        json!({
            "gitspace": gitspace, "host": DEV, "path": path, "address": "127.0.0.1",
            "ide": { "port": app.address.port(), "visibility": "public" },
        })
    };
    let put = |gitspace: &'static str, path: &'static str| {
        let body = route(gitspace, path);
        let url = format!("/v1/routes/{gitspace}");
        let gateway = &gateway;
        async move {
            gateway
                .admin(reqwest::Method::PUT, &url, Some(body))
                .await
                .status()
        }
    };
    assert_eq!(put("one", "/one").await, 204);
    assert_eq!(get(&gateway, "/one/x", &[]).await.status, 200);
    assert_eq!(app.last().target, "/x");
    assert_eq!(put("two", "/one").await, 409);
    for bad in ["/one/", "one", "/a/../b", "/a%20", "/_gitspace/x"] {
        assert_eq!(put("two", bad).await, 400, "{bad}");
    }
    assert_eq!(put("one", "/uno").await, 204);
    assert_eq!(get(&gateway, "/one/x", &[]).await.status, 401, "gone");
    assert_eq!(put("two", "/one").await, 204);
    let listed = gateway
        .admin(reqwest::Method::GET, "/v1/routes", None)
        .await;
    let listed: Value = listed.json().await.unwrap();
    assert_eq!(
        (&listed[0]["path"], &listed[1]["path"]),
        (&json!("/uno"), &json!("/one"))
    );
}
