//! Requests and WebSocket echoes through the gateway, beside a direct connection to the same upstream.
//!
//! The gateway has every duty on: token (cached), route, limits, header policy, account. One connection, one request at a time:
//! this is latency; throughput and CPU are in benches/load.

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use cde_gateway::{
    api::Secret,
    config::{self, RouteEntry},
    gateway::{self, Settings},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, Response, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tokio_util::sync::CancellationToken;

const HOST: &str = "bench-k3x9q2.gitspaces.localhost";
const SECRET: &[u8] = b"a secret of the bench, long enough for HS256";

struct Bench {
    plain: SocketAddr,
    tls: SocketAddr,
    http: SocketAddr,
    echo: SocketAddr,
    token: String,
    authority: CertificateDer<'static>,
    _stop: CancellationToken,
    _folder: tempfile::TempDir,
}

/// Starts both upstreams and the gateway.
async fn start() -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let (http, echo) = (http_upstream().await, echo_upstream().await);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, SECRET).expect("the secret");
    let settings = settings(folder.path(), &secret, http, echo);
    let bound = gateway::bind(settings).expect("the gateway binds");
    let (tls, plain) = (bound.addresses()[0], bound.addresses()[1]);
    let authority = bound.certificate_authority().expect("a development CA");
    let authority = CertificateDer::from_pem_file(authority).expect("its certificate");
    let stop = CancellationToken::new();
    tokio::spawn(bound.serve(stop.clone()));
    Bench {
        plain,
        tls,
        http,
        echo,
        token: token(),
        authority,
        _stop: stop,
        _folder: folder,
    }
}

fn settings(folder: &Path, secret: &Path, http: SocketAddr, echo: SocketAddr) -> Settings {
    let text = format!(
        "workers = 1\n[[listen]]\naddress = '127.0.0.1:0'\nprotocol = 'https'\n[[listen]]\naddress = '127.0.0.1:0'\nprotocol = 'http'\n\
         [[issuer]]\nissuer = 'https://issuer.test'\n[[issuer.key]]\nalgorithm = 'HS256'\nsecret_file = '{}'\n\
         [limits]\nrequests_per_principal = 10000000\n[admin]\naddress = '127.0.0.1:0'\n[access_log]\npath = ''\n",
        secret.display()
    );
    let config: config::Gateway = toml::from_str(&text).expect("the configuration");
    let route: RouteEntry = toml::from_str(&format!(
        "gitspace = 'bench-k3x9q2'\nupstream = 'http://{http}'\nowner = 'alice'\n[ports.3000]\nupstream = 'http://{echo}'"
    ))
    .expect("the route");
    Settings {
        config,
        routes: vec![route],
        state_dir: folder.into(),
        admin_token: Secret::new("bench"),
        chp_token: None,
        control_plane: None,
        sockets: Default::default(),
        elsewhere: None,
        reload: None,
    }
}

fn token() -> String {
    let exp = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock")
        .as_secs()
        + 3600;
    let claims = serde_json::json!({"iss": "https://issuer.test", "aud": "cde-gateway", "sub": "alice", "exp": exp});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
}

/// Answers 200 bytes.
async fn http_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let service = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; 200]))))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

/// Echoes WebSocket messages.
async fn echo_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("connected");
    stream.set_nodelay(true).expect("no delay");
    stream
}

type Http1 = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;
type Http2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn http1(address: SocketAddr) -> Http1 {
    let io = TokioIo::new(connect(address).await);
    let (sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    sender
}

async fn http2(bench: &Bench) -> Http2 {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(bench.authority.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(HOST).expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, connect(bench.tls).await)
        .await
        .expect("TLS");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    sender
}

fn request(uri: &str, token: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::get(uri).header("x-gitspace-token", token);
    if uri.starts_with('/') {
        request = request.header("host", HOST);
    }
    request.body(Empty::new()).expect("a request")
}

async fn finish(response: Response<hyper::body::Incoming>) {
    assert_eq!(response.status(), 200);
    assert_eq!(
        response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes()
            .len(),
        200
    );
}

fn requests(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let bench = runtime.block_on(start());
    let mut group = criterion.benchmark_group("end_to_end/request");
    group.throughput(Throughput::Elements(1));
    for (name, address) in [("direct/h1", bench.http), ("gateway/h1", bench.plain)] {
        let mut sender = runtime.block_on(http1(address));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    sender.ready().await.expect("ready");
                    finish(
                        sender
                            .send_request(request("/", &bench.token))
                            .await
                            .expect("an answer"),
                    )
                    .await;
                });
            });
        });
    }
    let mut sender = runtime.block_on(http2(&bench));
    let uri = format!("https://{HOST}/");
    group.bench_function("gateway/h2_tls", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                sender.ready().await.expect("ready");
                finish(
                    sender
                        .send_request(request(&uri, &bench.token))
                        .await
                        .expect("an answer"),
                )
                .await;
            });
        });
    });
    group.finish();
}

async fn websocket(address: SocketAddr, token: &str) -> WebSocketStream<TcpStream> {
    let mut request = "ws://bench-k3x9q2-3000.gitspaces.localhost/"
        .into_client_request()
        .expect("a request");
    request
        .headers_mut()
        .insert("x-gitspace-token", token.parse().expect("a value"));
    client_async(request, connect(address).await)
        .await
        .expect("upgraded")
        .0
}

fn websockets(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let bench = runtime.block_on(start());
    let mut group = criterion.benchmark_group("end_to_end/websocket");
    for (size_name, size) in [("64B", 64), ("16KiB", 16 * 1024)] {
        group.throughput(Throughput::Bytes(2 * size as u64));
        for (name, address) in [("direct", bench.echo), ("gateway", bench.plain)] {
            let mut socket = runtime.block_on(websocket(address, &bench.token));
            group.bench_function(format!("{name}/{size_name}"), |bencher| {
                bencher.iter(|| {
                    runtime.block_on(async {
                        socket
                            .send(Message::binary(vec![7; size]))
                            .await
                            .expect("sent");
                        let echo = socket.next().await.expect("an echo").expect("a message");
                        assert_eq!(echo.len(), size);
                    });
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, requests, websockets);
criterion_main!(benches);
