//! Moving targets: two gitspaces whose instances share one address and port over time, swapped under load. No byte of the one's
//! answers reaches the other's clients, and no byte of a request the other's instance.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::support::{Client, Setup, Streams, TestGateway, eventually, read_request};

/// Swaps in the usual run; all of them in the one that is asked for.
const SWAPS: usize = 150;
const ALL_SWAPS: usize = 10_000;
const CLIENTS: usize = 4;

/// Who has the address at the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tenant {
    gitspace: &'static str,
    owner: &'static str,
    secret: &'static str,
}

const TENANTS: [Tenant; 2] = [
    Tenant {
        gitspace: "left-a1b2c3",
        owner: "alice",
        secret: "secret-of-the-left",
    },
    Tenant {
        gitspace: "right-d4e5f6",
        owner: "bob",
        secret: "secret-of-the-right",
    },
];

impl Tenant {
    fn host(self) -> String {
        format!("{}.gitspaces.localhost", self.gitspace)
    }

    fn route(self, generation: u64, address: Option<SocketAddr>) -> Value {
        let mut route = json!({
            "gitspace": self.gitspace, "generation": generation, "owner": self.owner,
            "state": "stopped", "ide": { "port": 1 },
        });
        if let Some(address) = address {
            route["state"] = "running".into();
            route["address"] = address.ip().to_string().into();
            route["ide"]["port"] = address.port().into();
        }
        route
    }
}

/// A tenant's instance, with its connections, also those that it has not taken yet.
struct Instance {
    serving: JoinSet<()>,
}

impl Instance {
    async fn start(
        tenant: Tenant,
        address: SocketAddr,
        strangers: &Arc<AtomicUsize>,
    ) -> (Self, SocketAddr) {
        // A process that another test has just forked may hold it for a moment.
        let bound = async || TcpListener::bind(address).await.ok();
        let listener = eventually("the address", bound).await;
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, tenant, Arc::clone(strangers)));
        (Self { serving }, address)
    }

    async fn end(mut self) {
        self.serving.shutdown().await;
    }
}

async fn accept(listener: TcpListener, tenant: Tenant, strangers: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, tenant, Arc::clone(&strangers)));
    }
}

/// Some answers are long and come in pieces, so that swaps find them under way.
async fn answer(stream: TcpStream, tenant: Tenant, strangers: Arc<AtomicUsize>) {
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    while let Ok(request) = read_request(&mut stream).await {
        if request.header("x-gitspace-id") != Some(tenant.gitspace) {
            strangers.fetch_add(1, Ordering::SeqCst);
        }
        let pieces = if request.target == "/long" { 50 } else { 1 };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            tenant.secret.len() * pieces
        );
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        for _ in 0..pieces {
            if stream.write_all(tenant.secret.as_bytes()).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn put(gateway: &TestGateway, client: &reqwest::Client, route: &Value) {
    let path = route["gitspace"].as_str().unwrap();
    let put = client
        .request(
            Method::PUT,
            format!("http://{}/v1/routes/{path}", gateway.admin),
        )
        .bearer_auth(crate::support::ADMIN_TOKEN)
        .json(route)
        .send();
    assert_eq!(put.await.unwrap().status(), 204);
}

#[derive(Debug, Default)]
struct Counts {
    whole: AtomicUsize,
    cut: AtomicUsize,
    refused: AtomicUsize,
}

/// What a client may be told while its gitspace is away or on the move.
fn honest(status: u16, reason: &str, retry_after: Option<&str>) {
    match (status, reason) {
        (503, "target-changed" | "gitspace-stopped") => {
            assert!(retry_after.is_some(), "{reason}");
        }
        // Its instance ended before its route did.
        (502, "gitspace-unreachable" | "nothing-listens" | "gitspace-broke") => {}
        other => panic!("{other:?}"),
    }
}

/// Asks over HTTP/1.1 on one connection until it is told to stop.
async fn ask(
    gateway: Arc<TestGateway>,
    tenant: Tenant,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
) {
    let token = gateway.setup.issuer.token(tenant.owner);
    let headers = [("x-gitspace-token", &*token)];
    let connect = async || Client::plain(gateway.http).await.to(&tenant.host());
    let mut client = connect().await;
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let target = if number % 2 == 0 { "/long" } else { "/" };
        client.begin("GET", target, &headers, b"").await;
        match client.answer().await {
            Ok(answer) if answer.status == 200 => {
                let foreign = answer.text().replace(tenant.secret, "");
                assert!(foreign.is_empty(), "{tenant:?} got {foreign:?}");
                counts.whole.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) => {
                let (status, reason) = answer.refusal();
                honest(status, &reason, answer.header("retry-after"));
                counts.refused.fetch_add(1, Ordering::SeqCst);
            }
            Err(_) => {
                counts.cut.fetch_add(1, Ordering::SeqCst);
                client = connect().await;
            }
        }
    }
}

/// Asks over one HTTP/2 connection; also what came of a cut body is its own.
async fn ask_h2(
    gateway: Arc<TestGateway>,
    tenant: Tenant,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
) {
    use http_body_util::BodyExt;
    let token = gateway.setup.issuer.token(tenant.owner);
    let headers = [("x-gitspace-token", &*token)];
    let streams = Streams::connect_to(&gateway, &tenant.host()).await;
    while !stop.load(Ordering::SeqCst) {
        let answer = streams.get(&tenant.host(), "/long", &headers).await;
        // A reset may overtake the head of the answer that it cuts.
        let Ok(answer) = answer else {
            counts.cut.fetch_add(1, Ordering::SeqCst);
            continue;
        };
        if answer.status() != 200 {
            counts.refused.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let (mut body, mut came) = (answer.into_body(), Vec::new());
        let whole = loop {
            match body.frame().await {
                Some(Ok(frame)) => came.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        let expected = tenant.secret.bytes().cycle();
        assert!(
            came.iter().copied().eq(expected.take(came.len())),
            "{tenant:?}"
        );
        let count = if whole { &counts.whole } else { &counts.cut };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

async fn swap_under_load(swaps: usize) {
    let gateway = Arc::new(Setup::new().start());
    let admin = reqwest::Client::new();
    let strangers = Arc::new(AtomicUsize::new(0));
    let any = "127.0.0.1:0".parse().unwrap();
    let (mut instance, address) = Instance::start(TENANTS[0], any, &strangers).await;
    put(&gateway, &admin, &TENANTS[0].route(1, Some(address))).await;
    put(&gateway, &admin, &TENANTS[1].route(1, None)).await;

    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::<Counts>::default();
    let mut clients = JoinSet::new();
    for tenant in TENANTS {
        for number in 0..CLIENTS {
            let (gateway, stop, counts) =
                (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&counts));
            if number == 0 {
                clients.spawn(ask_h2(gateway, tenant, stop, counts));
            } else {
                clients.spawn(ask(gateway, tenant, stop, counts));
            }
        }
    }
    for swap in 1..=swaps {
        let generation = swap as u64 + 1;
        let (leaving, coming) = (TENANTS[(swap + 1) % 2], TENANTS[swap % 2]);
        // The route goes before its instance does, as the control plane has it.
        put(&gateway, &admin, &leaving.route(generation, None)).await;
        instance.end().await;
        (instance, _) = Instance::start(coming, address, &strangers).await;
        put(&gateway, &admin, &coming.route(generation, Some(address))).await;
        if let Some(ended) = clients.try_join_next() {
            ended.unwrap();
        }
        // Some answers of the new one, or some of a swap in the middle of everything.
        let whole = counts.whole.load(Ordering::SeqCst);
        while swap % 2 == 0 && counts.whole.load(Ordering::SeqCst) < whole + 4 {
            tokio::task::yield_now().await;
            if let Some(ended) = clients.try_join_next() {
                ended.unwrap();
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert_eq!(
        strangers.load(Ordering::SeqCst),
        0,
        "requests reached another's instance"
    );
    let whole = counts.whole.load(Ordering::SeqCst);
    assert!(whole > swaps, "{counts:?}");
    tracing::info!(swaps, ?counts, "addresses changed hands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_changes_hands_leaks_nothing() {
    swap_under_load(SWAPS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "four minutes: cargo test --test it -- --ignored ten_thousand_swaps"]
async fn ten_thousand_swaps_leak_nothing() {
    swap_under_load(ALL_SWAPS).await;
}
