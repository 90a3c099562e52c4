//! Accept: listeners, workers, connection permits.
//!
//! First step of the path. Every worker is a thread with a runtime, listeners and a pool of its own (docs/performance.md says why).
//! A connection without a permit is closed before a byte of it is read. When all places are taken the newest is the one that is
//! refused, with a 503 as long as one of a few places for that is free; who is there stays.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::{
    Gateway, Worker,
    connection::{self, Counted, Peer},
    forward::Pool,
    limit::{Admission, Full},
    tls::Tls,
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

/// A bound address: one socket per worker.
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

/// Binds an address for so many workers.
pub(crate) fn bind(listen: &Listen, workers: usize) -> Result<Bound, BindError> {
    let error = |address| move |source| BindError { address, source };
    // SO_REUSEPORT would also let a second gateway in: a first socket without it finds out whether somebody is there.
    let probe = socket(listen.address, false).map_err(error(listen.address))?;
    let address = probe
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket())
        .unwrap_or(listen.address);
    drop(probe);
    let sockets = (0..workers)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect::<io::Result<Vec<_>>>()
        .map_err(error(address))?;
    Ok(Bound {
        address,
        listen: listen.clone(),
        sockets,
    })
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
        for (share, socket) in shares.iter_mut().zip(sockets) {
            share.push((socket, listen.clone()));
        }
    }
    shares
        .into_iter()
        .enumerate()
        .map(|(number, listeners)| {
            let gateway = Arc::clone(gateway);
            thread::Builder::new()
                .name(format!("gateway-{number}"))
                .spawn(move || run(gateway, listeners))
        })
        .collect()
}

/// One worker, until the drain is over.
fn run(gateway: Arc<Gateway>, listeners: Vec<(std::net::TcpListener, Listen)>) {
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
    runtime.block_on(async move {
        let drain = gateway.drain.clone();
        let worker = Arc::new(Worker {
            pool: Pool::new(Arc::clone(&gateway.sink)),
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
        tokio::select! {
            () = sweep => {}
            () = drain.finished() => {}
        }
    });
}

/// Accepts until the stop begins.
async fn accept(worker: Arc<Worker>, listener: TcpListener, listen: Listen) {
    let local = listener.local_addr().unwrap_or(listen.address);
    loop {
        let accepted = tokio::select! {
            biased;
            () = worker.gateway.drain.begun() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => admit(&worker, stream, client, local, &listen),
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(address = %local, %error, "cannot accept; trying again");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Gives a connection its permit and task, or closes it.
fn admit(
    worker: &Arc<Worker>,
    stream: TcpStream,
    client: SocketAddr,
    local: SocketAddr,
    listen: &Listen,
) {
    let gateway = &worker.gateway;
    let metrics = &gateway.sink.metrics;
    let (permit, shed) = match gateway.limits.connection(client.ip().into()) {
        Admission::Open(permit) => (permit, false),
        Admission::Shed(permit) => {
            metrics.shed_connections.inc();
            (permit, true)
        }
        Admission::Refused(full) => {
            metrics.refused_connections.inc();
            if full == Full::Total && listen.protocol == ListenProtocol::Http {
                // What does not fit into an empty socket buffer at once is not worth waiting for.
                let _ = stream.try_write(OVERLOADED);
            }
            return;
        }
    };
    let tls: Option<Arc<Tls>> = match listen.protocol {
        ListenProtocol::Https => gateway.tls.clone(),
        ListenProtocol::Http => None,
    };
    let peer = Peer {
        client,
        local,
        secure: listen.protocol == ListenProtocol::Https,
        redirect: listen.redirect_to_https,
        names: None,
        shed,
        counted: Counted::new(permit, &gateway.sink),
    };
    let serving = connection::serve(Arc::clone(worker), stream, peer, tls);
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
