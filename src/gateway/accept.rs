//! Accept: listeners, workers, connection permits.
//!
//! First step of the path. Every worker is a thread with a runtime, listeners and a pool of its own (docs/performance.md says why).
//! A connection without a permit is closed before a byte of it is read. When all places are taken the newest is the one that is
//! refused, with a 503 as long as one of a few places for that is free; who is there stays. Where a balancer announces its
//! connections (PROXY protocol), a connection has a place in total before the announcement is read, and its network's behind it.
//!
//! Not here: what the announcement looks like (`proxy_protocol`), whom a single request is from (`client`).

mod alive;
mod networks;
mod preface;
mod sockets;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

pub(crate) use networks::Networks;
pub(crate) use preface::speaks_h2;
pub use sockets::{Named, Sockets};

use super::{
    Gateway, Worker,
    auth::LastToken,
    connection::{self, Counted, Peer},
    limit::{Admission, Full, Place},
    live::look_over,
    proxy_protocol::{self, Addresses},
    tls::{Acceptor, Tls},
};
use crate::config::{Listen, ListenProtocol};

const BACKLOG: i32 = 4096;
/// How long to wait when the process has no descriptors left.
const BACK_OFF: Duration = Duration::from_millis(50);
/// So long has who is shed to ask and to be told.
const SHED_WITHIN: Duration = Duration::from_secs(2);
/// The answer to who cannot even be listened to, in the clear.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    connection: close\r\ncontent-length: 0\r\nretry-after: 2\r\ncache-control: no-store\r\n\
    proxy-status: cde-gateway; error=connection_limit_reached; details=\"overloaded\"\r\n\r\n";
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A bound address: one socket per worker, or more.
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    listen: Listen,
    sockets: Vec<std::net::TcpListener>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", hint(source))]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has it; stop that program, or choose another `gateway.listen` address"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; grant it, or choose a higher port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose one that it has"
        }
        _ => "see the cause",
    }
}

/// The key that asks for these sockets.
const KEY: &str = "gateway.listen";

/// Takes the sockets of an address that this process was given, or binds it, for so many workers.
pub(crate) fn bind(listen: &Listen, workers: usize, sockets: &Sockets) -> Result<Bound, BindError> {
    let error = |address| move |source| BindError { address, source };
    let given = sockets.take(KEY, listen.address);
    let given = given.map_err(error(listen.address))?;
    let (address, own) = match given.first() {
        Some(first) => {
            let address = first.local_addr().map_err(error(listen.address))?;
            (address, given)
        }
        None => bind_new(listen.address, workers)?,
    };
    let shared = own
        .iter()
        .try_for_each(|socket| sockets.keep(KEY, listen.address, socket))
        .and_then(|()| share(own, workers));
    Ok(Bound {
        address,
        listen: listen.clone(),
        sockets: shared.map_err(error(address))?,
    })
}

/// At least one socket for each worker. Where there are fewer, workers share one: another that is bound beside them would take its
/// queue along if this process did not come to serve.
fn share(
    mut own: Vec<std::net::TcpListener>,
    workers: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    for number in 0..workers.saturating_sub(own.len()) {
        own.push(own[number].try_clone()?);
    }
    Ok(own)
}

/// Binds an address that this process was not given.
fn bind_new(
    asked: SocketAddr,
    workers: usize,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>), BindError> {
    let error = |address| move |source| BindError { address, source };
    // SO_REUSEPORT would also let a second gateway in: a first socket without it finds out whether somebody is there.
    let probe = socket(asked, false).map_err(error(asked))?;
    let address = probe
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket())
        .unwrap_or(asked);
    drop(probe);
    let sockets = (0..workers)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect::<io::Result<Vec<_>>>()
        .map_err(error(address))?;
    Ok((address, sockets))
}

/// A listening socket of one owner; `[::]` takes IPv6 only, as everywhere.
pub(crate) fn listen_alone(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address, false)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Starts the workers. Each ends when the drain is over.
pub(crate) fn start(
    gateway: &Arc<Gateway>,
    bound: Vec<Bound>,
    workers: usize,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut shares: Vec<Vec<(std::net::TcpListener, Listen)>> =
        (0..workers).map(|_| Vec::new()).collect();
    for Bound {
        listen, sockets, ..
    } in bound
    {
        for (number, socket) in sockets.into_iter().enumerate() {
            shares[number % workers].push((socket, listen.clone()));
        }
    }
    shares
        .into_iter()
        .enumerate()
        .map(|(number, listeners)| {
            let gateway = Arc::clone(gateway);
            thread::Builder::new()
                .name(format!("gateway-{number}"))
                .spawn(move || run(gateway, number, listeners))
        })
        .collect()
}

/// One worker, until the drain is over.
fn run(gateway: Arc<Gateway>, number: usize, listeners: Vec<(std::net::TcpListener, Listen)>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    let _runs = gateway.running.worker();
    runtime.block_on(async move {
        let drain = gateway.drain.clone();
        let worker = Arc::new(Worker {
            pool: gateway.upstreams.pool(),
            live: gateway.lives.shard(number),
            gateway,
        });
        for (socket, listen) in listeners {
            match TcpListener::from_std(socket) {
                Ok(listener) => drain.spawn(accept(Arc::clone(&worker), listener, listen)),
                Err(error) => {
                    tracing::error!(address = %listen.address, %error, "cannot use a listener")
                }
            }
        }
        let sweep = async {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                worker.pool.sweep();
            }
        };
        let overdue = look_over(&worker.live, &worker.gateway.timeouts);
        tokio::select! {
            () = sweep => {}
            () = overdue => {}
            () = drain.finished() => {}
        }
    });
}

/// What a worker knows of an address that it listens on.
pub(crate) struct Listener {
    local: SocketAddr,
    protocol: ListenProtocol,
    /// The port of https that everything is sent to, if it is.
    pub(crate) redirect: Option<u16>,
    /// Whose connections begin with a PROXY protocol header. With any, all others are closed.
    proxy_protocol_from: Networks,
    /// Who is believed for whom it speaks.
    pub(crate) trusted_proxies: Networks,
    /// What makes its handshakes, if it speaks TLS.
    tls: Option<Arc<Acceptor>>,
}

impl Listener {
    fn new(listen: &Listen, local: SocketAddr, tls: Option<&Arc<Tls>>) -> Arc<Self> {
        let port = listen.redirect_port.map_or(443, u16::from);
        Arc::new(Self {
            local,
            protocol: listen.protocol,
            redirect: listen.redirect_to_https.then_some(port),
            proxy_protocol_from: Networks::new(&listen.proxy_protocol_from),
            trusted_proxies: Networks::new(&listen.trusted_proxies),
            tls: tls.and_then(|tls| tls.acceptor(listen)),
        })
    }
}

/// Accepts until the stop begins, or another process has taken over.
async fn accept(worker: Arc<Worker>, socket: TcpListener, listen: Listen) {
    let local = socket.local_addr().unwrap_or(listen.address);
    let listener = Listener::new(&listen, local, worker.gateway.tls.as_ref());
    let _listens = worker.gateway.running.listener();
    loop {
        let accepted = tokio::select! {
            biased;
            () = worker.gateway.drain.begun() => return,
            () = worker.gateway.drain.handed_over() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => admit(&worker, stream, client, &listener),
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(address = %local, %error, "cannot accept; trying again");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
    // Where the other one does not listen, nobody else would serve those who wait.
    for _ in 0..BACKLOG {
        match socket.accept().now_or_never() {
            Some(Ok((stream, client))) => admit(&worker, stream, client, &listener),
            Some(Err(error)) if is_of_connection(&error) => {}
            _ => return,
        }
    }
}

/// A connection that is not admitted yet.
struct Arrival {
    stream: TcpStream,
    /// By the socket.
    client: SocketAddr,
    accepted: Instant,
}

/// Gives a connection its permit and task, or closes it.
fn admit(worker: &Arc<Worker>, stream: TcpStream, client: SocketAddr, listener: &Arc<Listener>) {
    let gateway = &worker.gateway;
    let announcing = listener.proxy_protocol_from.contain(client.ip());
    if !announcing && !listener.proxy_protocol_from.is_empty() {
        gateway.sink.metrics.unannounced_connections.inc();
        return;
    }
    let arrival = Arrival {
        stream,
        client,
        accepted: Instant::now(),
    };
    if !announcing {
        let admission = gateway.limits.connection(client.ip().into());
        return enter(worker, arrival, None, admission, listener);
    }
    match gateway.limits.place() {
        Some(place) => {
            let (worker, listener) = (Arc::clone(worker), Arc::clone(listener));
            // Boxed: what is read last is the smaller part of the task.
            gateway
                .drain
                .spawn(Box::pin(announce(worker, arrival, place, listener)));
        }
        None => {
            let full = Admission::Refused(Full::Total);
            enter(worker, arrival, None, full, listener);
        }
    }
}

/// Reads for whom a balancer speaks, under the deadline of the head.
async fn announce(
    worker: Arc<Worker>,
    mut arrival: Arrival,
    place: Place,
    listener: Arc<Listener>,
) {
    let gateway = &worker.gateway;
    let deadline = arrival.accepted + gateway.timeouts.head;
    let read = proxy_protocol::read(&mut arrival.stream);
    let read = tokio::select! {
        () = gateway.drain.begun() => return,
        read = tokio::time::timeout_at(deadline, read) => read,
    };
    match read {
        Ok(Ok(addresses)) => {
            let client = addresses.map_or(arrival.client, |addresses| addresses.client);
            let admission = gateway.limits.settle(place, client.ip().into());
            enter(&worker, arrival, addresses, admission, &listener);
        }
        Ok(Err(error)) => {
            gateway.sink.metrics.unannounced_connections.inc();
            tracing::debug!(peer = %arrival.client, listener = %listener.local, %error, "closed a connection");
        }
        Err(_) => {
            gateway.sink.metrics.unannounced_connections.inc();
        }
    }
}

/// Serves a connection as it was admitted, or closes it.
fn enter(
    worker: &Arc<Worker>,
    arrival: Arrival,
    announced: Option<Addresses>,
    admission: Admission,
    listener: &Arc<Listener>,
) {
    let gateway = &worker.gateway;
    let metrics = &gateway.sink.metrics;
    let (permit, shed) = match admission {
        Admission::Open(permit) => (permit, false),
        Admission::Shed(permit) => {
            metrics.shed_connections.inc();
            (permit, true)
        }
        Admission::Refused(full) => {
            metrics.refused_connections.inc();
            if full == Full::Total && listener.protocol == ListenProtocol::Http {
                // What does not fit into an empty socket buffer at once is not worth waiting for.
                let _ = arrival.stream.try_write(OVERLOADED);
            }
            return;
        }
    };
    alive::keep_watch(&arrival.stream, gateway.timeouts.dead_peer.duration());
    let Addresses { client, local } = announced.unwrap_or(Addresses {
        client: arrival.client,
        local: listener.local,
    });
    let peer = Peer {
        client,
        local,
        secure: listener.protocol == ListenProtocol::Https,
        trusted: listener.trusted_proxies.contain(client.ip()),
        listener: Arc::clone(listener),
        accepted: arrival.accepted,
        names: None,
        shed,
        counted: Counted::new(permit, &gateway.sink),
        last_token: LastToken::default(),
    };
    let serving = connection::serve(
        Arc::clone(worker),
        arrival.stream,
        peer,
        listener.tls.clone(),
    );
    match shed {
        false => gateway.drain.spawn(serving),
        // Boxed: it is the rarer of the two, and would make room for a timer in all.
        true => gateway.drain.spawn(Box::pin(async {
            let _ = tokio::time::timeout(SHED_WITHIN, serving).await;
        })),
    }
}

/// Errors of the connection that was to be accepted, not of the listener.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
