//! Reloads: all of a configuration or nothing of it, and nobody who is connected notices.

use std::{fs, path::PathBuf};

use cde_gateway::{
    config::{Certificate, Gateway as Config, RouteEntry},
    gateway::Settings,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::websocket::{self, Socket, say};
use crate::support::{
    Client, GITSPACE, HOST, Issuer, OWNER, Setup, TestCa, TestGateway, Upstream, head, port_host,
};

/// Begins an event stream, says more of it whenever somebody asks for `/more`, and gives bodies back.
async fn app() -> Upstream {
    let events = tokio::sync::broadcast::Sender::new(16);
    Upstream::scripted(move |stream, _| {
        let events = events.clone();
        async move {
            let mut stream = BufReader::new(stream);
            let head = head(&mut stream).await;
            if head.starts_with("GET /events") {
                let mut more = events.subscribe();
                let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";
                stream.write_all(begin.as_bytes()).await.unwrap();
                while more.recv().await.is_ok() {
                    if stream.write_all(b"data: 2\n\n").await.is_err() {
                        return;
                    }
                }
                return;
            }
            if head.starts_with("GET /more") {
                events.send(()).unwrap();
            }
            let length = head.split_once("content-length: ").map(|(_, rest)| rest);
            let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            let _ = stream.read_exact(&mut body).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        }
    })
    .await
}

/// A gateway with all that can be reloaded, and streams through it.
struct Stage {
    gateway: TestGateway,
    other: Issuer,
    authority: TestCa,
    _upstreams: [Upstream; 2],
    socket: Socket,
    events: Client,
    upload: Client,
}

impl Stage {
    async fn new() -> Self {
        let (echo, app) = (websocket::echo().await, app().await);
        let setup = Setup::new();
        let authority = TestCa::new(setup.dir.path(), "test");
        let file = setup.dir.path().join("routes.json");
        fs::write(&file, "[]").unwrap();
        let certificate = authority.issue("old", &[HOST], 10);
        let gateway = setup
            .with(|config| {
                config.certificate = vec![certificate];
                config.routes_file = Some(file);
            })
            .route(&format!(
                "gitspace = {GITSPACE:?}\nupstream = \"http://{}\"\nowner = {OWNER:?}\n[ports.3000]\nupstream = \"http://{}\"\n",
                echo.address, app.address
            ))
            .start();
        let token = gateway.owner();
        let ours = ("x-gitspace-token", &*token);
        let stream = Client::tls(gateway.https, &authority.file, HOST).await;
        let opened =
            tokio_tungstenite::client_async(websocket::request(&token), stream.into_stream());
        let socket = opened.await.unwrap().0;
        let host = port_host(3000);
        let mut events = gateway.plain().await.to(&host);
        events.begin("GET", "/events", &[ours], b"").await;
        assert_eq!(events.head().await.unwrap().status, 200);
        let mut upload = gateway.plain().await;
        upload
            .send(format!(
                "POST / HTTP/1.1\r\nhost: {host}\r\nx-gitspace-token: {token}\r\ncontent-length: 8\r\n\r\n"
            ))
            .await;
        Self {
            gateway,
            other: Issuer::new("https://other.test"),
            authority,
            _upstreams: [echo, app],
            socket,
            events,
            upload,
        }
    }

    /// What is seen of the configuration: the certificate, the routes, whether the other issuer counts, whether two KiB are too much.
    async fn seen(&self) -> (Vec<u8>, Vec<Value>, bool, bool) {
        let dialer = crate::support::Dialer::new(&self.authority.file);
        let served = dialer.served(self.gateway.https, HOST).await.unwrap();
        let routes = self.gateway.admin(Method::GET, "/v1/routes", None).await;
        let routes: Vec<Value> = routes.json().await.unwrap();
        let names = routes.into_iter().map(|route| route["gitspace"].clone());
        let (other, owner) = (self.other.token(OWNER), self.gateway.owner());
        let ask = async |token: &str, body: &[u8]| {
            let mut client = self.gateway.plain().await.to(&port_host(3000));
            let headers = [("x-gitspace-token", token)];
            client.request("POST", "/", &headers, body).await.status
        };
        let known = ask(&other, b"12345678").await != 401;
        let too_large = ask(&owner, &[b'x'; 2048]).await == 413;
        (served.to_vec(), names.collect(), known, too_large)
    }

    /// All of it changed.
    fn changed(&self, days: i64) -> Settings {
        let mut settings = self.gateway.setup.settings.clone();
        let config = &mut settings.config;
        config.certificate = vec![self.authority.issue("new", &[HOST], days)];
        let file = self.file("new-routes.json");
        let route = json!([{ "gitspace": "file-a1b2c3", "owner": OWNER }]);
        fs::write(&file, route.to_string()).unwrap();
        config.routes_file = Some(file);
        let mut other = self.other.configured(self.gateway.setup.dir.path());
        other.prefix = "other:".into();
        config.issuer.push(other);
        config.limits.body_bytes = toml::from_str::<Config>("limits = { body_bytes = \"1KiB\" }")
            .unwrap()
            .limits
            .body_bytes;
        let route = "gitspace = \"more-a1b2c3\"\nupstream = \"http://127.0.0.1:1\"\n";
        settings
            .routes
            .push(toml::from_str::<RouteEntry>(route).unwrap());
        settings
    }

    fn file(&self, name: &str) -> PathBuf {
        self.gateway.setup.dir.path().join(name)
    }

    /// All that was open goes on.
    async fn goes_on(&mut self, what: &str) {
        say(&mut self.socket, what).await;
        let token = self.gateway.owner();
        let mut client = self.gateway.plain().await.to(&port_host(3000));
        let answer = client.get("/more", &[("x-gitspace-token", &token)]).await;
        assert_eq!(answer.status, 200, "{what}");
        self.event().await;
        self.upload.send("x").await;
    }

    async fn event(&mut self) {
        let mut text = String::new();
        while !text.ends_with("data: 2\n\n") {
            let byte = self.events.read_exact(1).await.unwrap();
            text.push(char::from(byte[0]));
        }
    }
}

#[tokio::test]
async fn a_bad_file_of_any_kind_changes_nothing_of_any_kind() {
    let mut stage = Stage::new().await;
    let before = stage.seen().await;
    assert_eq!((before.1.len(), before.2, before.3), (1, false, false));
    let broken = stage.file("broken");
    fs::write(&broken, "{ half").unwrap();
    let own_keys = stage.file("gateway.keys");
    let keys = fs::read(&own_keys).unwrap();
    type Spoil = fn(&mut Settings, PathBuf);
    let kinds: [(&str, Spoil); 6] = [
        ("certificate", |settings, broken| {
            settings.config.certificate.push(Certificate {
                chain: broken.clone(),
                key: broken,
            });
        }),
        ("routes file", |settings, broken| {
            settings.config.routes_file = Some(broken);
        }),
        ("a route of another source", |settings, broken| {
            // The same gitspace in the configuration and the file.
            let route = json!([{ "gitspace": GITSPACE }]);
            fs::write(&broken, route.to_string()).unwrap();
            settings.config.routes_file = Some(broken);
        }),
        ("an issuer's key", |settings, broken| {
            settings.config.issuer[1].key[0].public_key_file = Some(broken);
        }),
        ("the gateway's own keys", |settings, broken| {
            let own = broken.with_file_name("gateway.keys");
            fs::write(own, "{ half").unwrap();
            let _ = settings;
        }),
        ("access log", |settings, broken| {
            fs::remove_file(&settings.config.access_log.path).unwrap();
            fs::create_dir(&settings.config.access_log.path).unwrap();
            let _ = broken;
        }),
    ];
    for (days, (kind, spoil)) in kinds.into_iter().enumerate() {
        let mut settings = stage.changed(20 + i64::try_from(days).unwrap());
        spoil(&mut settings, broken.clone());
        let error = stage.gateway.handle.reload(&settings).unwrap_err();
        assert!(!error.to_string().is_empty(), "{kind}");
        assert_eq!(stage.seen().await, before, "{kind}");
        stage.goes_on(kind).await;
        fs::write(&own_keys, &keys).unwrap();
        fs::write(&broken, "{ half").unwrap();
        let _ = fs::remove_dir(&settings.config.access_log.path);
    }
    // Eight bytes, six of which were sent.
    stage.upload.send("xx").await;
    let answer = stage.upload.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "xxxxxxxx"));
}

#[tokio::test]
async fn a_reload_of_everything_ends_nothing() {
    let mut stage = Stage::new().await;
    let before = stage.seen().await;
    for days in 20..24 {
        cde_gateway::gateway::auth::rotate_keys(&stage.file("gateway.keys")).unwrap();
        let settings = stage.changed(days);
        stage.gateway.handle.reload(&settings).unwrap();
        let now = stage.seen().await;
        assert_ne!(now.0, before.0);
        assert_eq!((now.1.len(), now.2, now.3), (3, true, true));
        stage.goes_on("all of it").await;
        let old = stage.gateway.setup.settings.clone();
        stage.gateway.handle.reload(&old).unwrap();
        stage.goes_on("all of it back").await;
    }
    let answer = stage.upload.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "xxxxxxxx"));
}

#[tokio::test]
async fn a_gitspace_may_go_from_the_configuration_to_the_routes_file() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut settings = gateway.setup.settings.clone();
    let file = gateway.setup.dir.path().join("routes.json");
    let address = upstream.address;
    let route = json!([{
        "gitspace": GITSPACE, "owner": OWNER, "address": address.ip(), "ide": { "port": address.port() },
    }]);
    fs::write(&file, route.to_string()).unwrap();
    settings.config.routes_file = Some(file);
    gateway.handle.reload(&settings).unwrap_err();
    settings.routes.clear();
    gateway.handle.reload(&settings).unwrap();
    gateway.handle.reload(&gateway.setup.settings).unwrap();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let answer = gateway.plain().await.get("/", &headers).await;
    assert_eq!(answer.status, 200);
}
