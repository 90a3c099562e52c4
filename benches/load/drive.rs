//! One peer, one scenario: open the connections, warm up, read its CPU, send the counted requests, read its CPU again.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{cpu, h1, h2, websocket};

/// What to do to whom.
#[derive(Args, Clone)]
pub(crate) struct Plan {
    /// Where the peer listens.
    pub(crate) address: SocketAddr,
    #[arg(long)]
    pub(crate) scenario: Scenario,
    /// Host and SNI.
    #[arg(long)]
    pub(crate) host: String,
    /// The CA that signed the peer's certificate; without it the connection is in the clear.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// File with the access token.
    #[arg(long)]
    token: PathBuf,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests (or messages) at once on each connection; HTTP/1.1 has one.
    #[arg(long, default_value_t = 1)]
    pub(crate) streams: usize,
    /// Counted requests over all connections.
    #[arg(long, default_value_t = 30_000)]
    requests: usize,
    /// Processes of the peer, all counted.
    #[arg(long = "pid", required = true)]
    pids: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// HTTP/1.1, kept connections.
    H1,
    /// HTTP/2, a few connections with streams.
    H2,
    /// WebSocket echo of 64 bytes.
    Websocket,
}

/// The result of one drive.
#[derive(Serialize)]
pub(crate) struct Measured {
    requests: usize,
    seconds: f64,
    cpu_us_per_request: f64,
    /// Share of one core that the peer used: near 1 it was the bottleneck.
    cpu_share: f64,
}

/// No drive may take longer.
const DEADLINE: Duration = Duration::from_secs(90);
/// Part of the counted requests that are sent before, so that pools and caches are filled.
const WARM_UP: usize = 10;

pub(crate) async fn run(plan: Plan) -> anyhow::Result<Measured> {
    timeout(DEADLINE, measure(plan))
        .await
        .context("the drive did not end within its deadline")?
}

async fn measure(plan: Plan) -> anyhow::Result<Measured> {
    let token = std::fs::read_to_string(&plan.token).context("cannot read the token")?;
    let tls = plan
        .ca
        .as_ref()
        .map(|ca| tls(ca, plan.scenario))
        .transpose()?;
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        connections.push(Connection::open(&plan, token.trim(), tls.as_ref()).await?);
    }
    let each = plan.requests / plan.connections;
    connections = phase(connections, each.div_ceil(WARM_UP)).await?;
    let (begun, before) = (Instant::now(), cpu::spent(&plan.pids)?);
    let connections = phase(connections, each).await?;
    let (took, cpu) = (
        begun.elapsed(),
        cpu::spent(&plan.pids)?.saturating_sub(before),
    );
    let requests = each * connections.len();
    Ok(Measured {
        requests,
        seconds: took.as_secs_f64(),
        cpu_us_per_request: cpu.as_secs_f64() * 1e6 / requests as f64,
        cpu_share: cpu.as_secs_f64() / took.as_secs_f64(),
    })
}

/// Lets every connection send `each` requests, all at the same time.
async fn phase(connections: Vec<Connection>, each: usize) -> anyhow::Result<Vec<Connection>> {
    let mut running = JoinSet::new();
    for mut connection in connections {
        running.spawn(async move { connection.send(each).await.map(|()| connection) });
    }
    let mut done = Vec::with_capacity(running.len());
    while let Some(connection) = running.join_next().await {
        done.push(connection??);
    }
    Ok(done)
}

enum Connection {
    H1(h1::Connection),
    H2(h2::Connection),
    Websocket(websocket::Connection),
}

impl Connection {
    async fn open(plan: &Plan, token: &str, tls: Option<&TlsConnector>) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(plan.address)
            .await
            .with_context(|| format!("cannot connect to {}", plan.address))?;
        tcp.set_nodelay(true)?;
        let io: Io = match tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from(plan.host.clone())?;
                Box::new(
                    tls.connect(name, tcp)
                        .await
                        .context("the TLS handshake failed")?,
                )
            }
        };
        Ok(match plan.scenario {
            Scenario::H1 => Self::H1(h1::Connection::new(io, &plan.host, token)),
            Scenario::H2 => Self::H2(h2::Connection::open(io, plan, token).await?),
            Scenario::Websocket => {
                Self::Websocket(websocket::Connection::open(io, plan, token).await?)
            }
        })
    }

    async fn send(&mut self, count: usize) -> anyhow::Result<()> {
        match self {
            Self::H1(connection) => connection.send(count).await,
            Self::H2(connection) => connection.send(count).await,
            Self::Websocket(connection) => connection.send(count).await,
        }
    }
}

/// A connection to a peer, with or without TLS.
pub(crate) type Io = Box<dyn Stream>;

/// What a connection can do.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn tls(ca: &PathBuf, scenario: Scenario) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).context("cannot read the CA")?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![match scenario {
        Scenario::H2 => b"h2".to_vec(),
        Scenario::H1 | Scenario::Websocket => b"http/1.1".to_vec(),
    }];
    Ok(TlsConnector::from(Arc::new(config)))
}
