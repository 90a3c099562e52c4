//! The gateway as a role: built from its configuration, bound, served, reloaded, drained.
//!
//! Not here: the life of a request (`gateway`), the choice of roles (`app`).

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Gateway, RequestIds, accept,
    account::{
        Sink,
        log::AccessLog,
        metrics::Metrics,
        traces::{Traces, Unsent},
    },
    activity::Acted,
    admin,
    auth::{Authenticator, Link},
    chp::Chp,
    connection::HeadLimits,
    drain::Drain,
    forward::{Names, Upstreams},
    limit::{Carried, Limits},
    live::{self, Lives},
    own::Exchanges,
    ready::Running,
    route::{
        RouteError, Source, Table,
        feed::{self, Follower},
        file::{self, FileError},
    },
    share::Shares,
    tls::{self, Development, Tls, TlsError},
    wake::{self, Wakes},
};
use crate::{
    api::{
        Secret,
        route::Route,
        stream::{EndStreams, Stream, Which},
    },
    config::{self, FailMode, ListenProtocol, RouteEntry},
};

const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How long a stop waits for the last lines of the access log.
const LOG_WITHIN: Duration = Duration::from_secs(1);
/// And so long the traces' collector.
const TRACES_WITHIN: Duration = Duration::from_secs(2);

/// What a gateway is built from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[gateway]`
    pub config: config::Gateway,
    /// `[[route]]`
    pub routes: Vec<RouteEntry>,
    /// Where keys and last routes live.
    pub state_dir: PathBuf,
    /// Guards the admin API.
    pub admin_token: Secret,
    /// Guards the API of configurable-http-proxy, where there is one.
    pub chp_token: Option<Secret>,
    /// Where routes come from, if from a control plane.
    pub control_plane: Option<ControlPlane>,
    /// Where listening sockets come from that another process had, and where they are kept for the next.
    pub sockets: accept::Sockets,
    /// Asked for what other processes still serve that this one has taken over from.
    pub elsewhere: Option<mpsc::Sender<Elsewhere>>,
    /// Asked by `POST /v1/reload`; whoever listens reads the configuration again and calls [`Handle::reload`].
    pub reload: Option<mpsc::Sender<ReloadRequest>>,
}

/// A control plane to follow.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// Its address.
    pub url: String,
    /// This gateway's token.
    pub token: Secret,
    /// What to do when it is silent too long.
    pub fail_mode: FailMode,
}

/// Answered when the reload is done: or why it was not.
pub type ReloadRequest = oneshot::Sender<Result<(), String>>;

/// What is wanted of the streams that other processes still serve.
#[derive(Debug)]
pub enum Elsewhere {
    /// Those that fit.
    List(Which, oneshot::Sender<Vec<Stream>>),
    /// The end of some. Answered with how many were ended.
    End(EndStreams, oneshot::Sender<usize>),
}

/// Why a gateway cannot start or reload.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener.
    #[error(transparent)]
    Bind(#[from] accept::BindError),
    /// The admin listener.
    #[error(
        "cannot listen on `gateway.admin.address` {address}; stop the program that has it, or choose another address"
    )]
    Admin {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Static routes.
    #[error(transparent)]
    File(#[from] FileError),
    /// A route.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Keys and issuers.
    #[error(transparent)]
    Auth(#[from] super::auth::Error),
    /// A configured value.
    #[error("{0}")]
    Config(String),
    /// The access log.
    #[error("cannot open the access log {path}")]
    AccessLog {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The traces' collector.
    #[error(transparent)]
    Traces(#[from] Unsent),
    /// The stop's time was over before all had ended.
    #[error(
        "{connections} connections had not ended when `gateway.timeouts.drain` was over, and were cut"
    )]
    Cut {
        /// How many.
        connections: usize,
    },
    /// A thread or file of ours.
    #[error("cannot start the gateway")]
    Start(#[from] io::Error),
}

/// A gateway whose addresses are bound and that serves nobody yet.
pub struct Bound {
    gateway: Arc<Gateway>,
    listeners: Vec<accept::Bound>,
    addresses: Vec<SocketAddr>,
    admin: Option<(std::net::TcpListener, SocketAddr)>,
    authority: Option<PathBuf>,
    registry: Registry,
    settings: Settings,
    workers: usize,
}

/// Reaches into a gateway that serves.
#[derive(Clone)]
pub struct Handle(Arc<Gateway>);

/// Builds a gateway and binds its addresses. To be called on the background runtime.
pub fn bind(settings: Settings) -> Result<Bound, Error> {
    let config = &settings.config;
    let workers = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let domains: Vec<Box<str>> = config
        .domains
        .iter()
        .map(|domain| canonical_domain(domain))
        .collect();
    let mut registry = Registry::default();
    let auth = Authenticator::new(config, &settings.state_dir)?;
    auth.register(&mut registry);
    let (tls, authority) = tls(&settings, &domains, auth.tls_tickets(), &mut registry)?;
    let routes = Arc::new(Table::new(config.upstreams.allow.clone()));
    StaticRoutes::read(config, &settings.routes)?.take(&routes)?;
    let metrics = Metrics::new(&mut registry);
    let log = AccessLog::open(&config.access_log, metrics.lost_lines.clone())
        .map_err(|source| access_log(config, source))?;
    let fail_mode = settings
        .control_plane
        .as_ref()
        .map_or(FailMode::Static, |link| link.fail_mode);
    // Tokens go to whom the configuration names: not through a proxy that the environment names.
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(io::Error::other)?;
    let plane = settings.control_plane.as_ref();
    let link = plane.map(|plane| Link::new(client.clone(), &plane.url, plane.token.clone()));
    let waking = plane.map(|plane| wake::Link::new(client, &plane.url, plane.token.clone()));
    let drain = Drain::default();
    let traces = Traces::open(&config.traces)?;
    let sink = Sink::new(metrics, log, traces, drain.clone());
    let gateway = Arc::new(Gateway {
        auth,
        routes,
        shares: Shares::load(&settings.state_dir, SystemTime::now()).map_err(io::Error::other)?,
        first_visits: config.sharing.first_visit,
        wakes: Arc::new(Wakes::new(waking, tokio::runtime::Handle::current())),
        limits: Limits::new(&config.limits),
        names: Arc::new(Names::new(&config.headers).map_err(Error::Config)?),
        timeouts: config.timeouts.clone(),
        head_limits: HeadLimits {
            bytes: config.limits.head_bytes,
            fields: config.limits.head_fields,
        },
        login_url: config.auth.login_url.clone(),
        websockets_over_http2: config.websockets_over_http2,
        tls: tls.map(Arc::new),
        exchanges: Exchanges {
            link,
            background: tokio::runtime::Handle::current(),
        },
        upstreams: Upstreams::new(config.upstreams.clone(), Arc::clone(&sink)),
        sink,
        lives: Lives::new(workers),
        feed: feed::Lease::new(fail_mode, settings.control_plane.is_some()),
        running: Running::new(workers),
        drain,
        request_ids: RequestIds::new(),
        chp: config.chp.as_ref().map(Chp::new).transpose()?,
        domains,
    });
    let listeners = config
        .listen
        .iter()
        .map(|listen| accept::bind(listen, workers, &settings.sockets))
        .collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(|bound| bound.address).collect();
    let bind_admin = |address| bind_admin(address, &settings.sockets);
    let admin = config.admin.address.map(bind_admin).transpose()?;
    Ok(Bound {
        gateway,
        listeners,
        addresses,
        admin,
        authority,
        registry,
        settings,
        workers,
    })
}

fn access_log(config: &config::Gateway, source: io::Error) -> Error {
    let path = config.access_log.path.clone();
    Error::AccessLog { path, source }
}

fn canonical_domain(domain: &str) -> Box<str> {
    domain.trim_end_matches('.').to_ascii_lowercase().into()
}

/// TLS, where a listener speaks it; with the development certificate where none is configured.
fn tls(
    settings: &Settings,
    domains: &[Box<str>],
    keys: Vec<aws_lc_rs::hmac::Key>,
    registry: &mut Registry,
) -> Result<(Option<Tls>, Option<PathBuf>), Error> {
    let config = &settings.config;
    let https = |listen: &config::Listen| listen.protocol == ListenProtocol::Https;
    if !config.listen.iter().any(https) {
        return Ok((None, None));
    }
    let (certificates, authority) = if config.certificate.is_empty() {
        let development = Development::make(&settings.state_dir.join("dev"), domains)?;
        (vec![development.certificate], Some(development.authority))
    } else {
        (config.certificate.clone(), None)
    };
    let tls = Tls::new(&config.listen, &certificates, keys, registry)?;
    Ok((Some(tls), authority))
}

/// Static routes, read and not yet taken.
struct StaticRoutes {
    configured: Vec<Route>,
    from_file: Vec<Route>,
}

impl StaticRoutes {
    fn read(config: &config::Gateway, entries: &[RouteEntry]) -> Result<Self, FileError> {
        Ok(Self {
            configured: entries.iter().map(file::route).collect::<Result<_, _>>()?,
            from_file: config
                .routes_file
                .as_deref()
                .map(file::read)
                .transpose()?
                .unwrap_or_default(),
        })
    }

    fn take(&self, table: &Table) -> Result<(), RouteError> {
        table.replace_all(&[
            (Source::Config, &self.configured),
            (Source::File, &self.from_file),
        ])
    }
}

fn bind_admin(
    address: SocketAddr,
    sockets: &accept::Sockets,
) -> Result<(std::net::TcpListener, SocketAddr), Error> {
    let bound = || {
        let listener = sockets.listen("gateway.admin", address)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound().map_err(|source| Error::Admin { address, source })
}

impl Bound {
    /// Where it listens, in the order of `[[gateway.listen]]`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where its admin API is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// The development CA's certificate, if that is what it serves.
    pub fn certificate_authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// Reaches into it while it serves.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.gateway))
    }

    /// Serves until the stop, then drains.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), Error> {
        let Self {
            gateway,
            listeners,
            admin,
            registry,
            settings,
            workers,
            ..
        } = self;
        let background = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        if let Some((listener, _)) = admin {
            let https = listeners.iter().zip(&settings.config.listen);
            let https = https.filter(|(_, listen)| listen.protocol == ListenProtocol::Https);
            let https_port = https.map(|(bound, _)| bound.address.port()).next();
            let api = admin::Api::new(Arc::clone(&gateway), &settings, registry, https_port)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(admin::follow(api.clone(), background.clone()));
            // The one that has taken over answers on the same socket.
            let stop = background.child_token();
            let (drain, until) = (gateway.drain.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = drain.handed_over() => until.cancel(),
                    () = until.cancelled() => {}
                }
            });
            tasks.spawn(admin::serve(listener, api, stop));
        }
        if let Some(follower) = follower(&gateway, &settings) {
            let kept = feed::Store::new(&settings.state_dir).load();
            if let Some(kept) = &kept {
                feed::restore(kept, &gateway.routes, &gateway.auth);
                gateway.feed.restored();
            }
            tasks.spawn(follower.run(kept, background.clone()));
        }
        tasks.spawn(sweep(Arc::clone(&gateway), background.clone()));
        tasks.spawn(live::watch(Arc::clone(&gateway), background.clone()));
        tasks.spawn(follow_issuers(Arc::clone(&gateway), background.clone()));
        tasks.spawn(gateway.sink.log.clone().watch(background.clone()));
        if let Some(tls) = &gateway.tls {
            tasks.spawn(tls::watch(Arc::clone(tls), background.clone()));
        }
        gateway
            .sink
            .metrics
            .routes
            .set(i64::try_from(gateway.routes.len()).unwrap_or(i64::MAX));
        let threads = accept::start(&gateway, listeners, workers)?;

        let within = until_stop(&gateway, &stop).await;
        settings.sockets.let_go();
        let parting = tokio::spawn(live::part(Arc::clone(&gateway), within));
        let cut = gateway.drain.run(within).await;
        parting.abort();
        // The threads see the end of the drain by themselves; joining them must not block this runtime.
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        if !joined.await.unwrap_or(false) {
            tracing::error!("a worker did not end in order");
        }
        background.cancel();
        while tasks.join_next().await.is_some() {}
        // What was accounted is written and sent before the program ends, unless nobody takes it.
        let finish = move || {
            gateway.sink.log.finish(LOG_WITHIN);
            gateway.sink.traces.finish(TRACES_WITHIN);
        };
        let _ = tokio::task::spawn_blocking(finish).await;
        match cut {
            0 => Ok(()),
            connections => Err(Error::Cut { connections }),
        }
    }
}

/// Waits for the stop: by the signal, or because another process has taken over and either nothing is left here or the time for it is
/// nearly over. How long the rest may take.
async fn until_stop(gateway: &Gateway, stop: &CancellationToken) -> Duration {
    let timeouts = &gateway.timeouts;
    let handed_over = async {
        gateway.drain.handed_over().await;
        let within = timeouts.upgrade_drain.saturating_sub(timeouts.drain);
        let _ = tokio::time::timeout(within, gateway.drain.idle()).await;
    };
    tokio::select! {
        () = stop.cancelled() => timeouts.drain,
        () = handed_over => timeouts.drain.min(timeouts.upgrade_drain),
    }
}

impl Handle {
    /// Why it should get no traffic, in the words of `/readyz`. Empty: it is ready.
    pub fn lacks(&self) -> Vec<&'static str> {
        self.0.lacks()
    }

    /// Another process has taken over: accepts nothing more, and ends when all has ended that is under way.
    pub fn hand_over(&self) {
        self.0.drain.hand_over();
    }

    /// How much is under way.
    pub fn under_way(&self) -> usize {
        self.0.lives.all().len()
    }

    /// How long what is under way may go on once another process has taken over.
    pub fn upgrade_drain(&self) -> Duration {
        self.0.timeouts.upgrade_drain
    }

    /// What is used here of all limits.
    pub fn used(&self) -> Carried {
        self.0.limits.used()
    }

    /// Counts what all other processes use with what is used here.
    pub fn count_elsewhere(&self, others: Vec<Carried>) {
        self.0.limits.count_elsewhere(others);
    }

    /// What people did here at this second since 1970 or later.
    pub fn activity_since(&self, second: u64) -> Vec<Acted> {
        self.0.routes.activity_since(second)
    }

    /// Takes in what people did at other processes.
    pub fn take_activity(&self, all: &[Acted]) {
        self.0.routes.take_activity(all);
    }

    /// The streams of this process.
    pub fn streams(&self, which: &Which) -> Vec<Stream> {
        admin::streams_of(&self.0, which)
    }

    /// Ends streams of this process; how many.
    pub fn end_streams(&self, asked: &EndStreams) -> usize {
        admin::end_streams_of(&self.0, asked)
    }

    /// Takes certificates, issuers, static routes and limits from another configuration, and opens the access log's file again.
    /// Anything that stands there in error changes nothing at all; all other keys are read at start only, limits of heads too.
    pub fn reload(&self, settings: &Settings) -> Result<(), Error> {
        let gateway = &self.0;
        let routes = StaticRoutes::read(&settings.config, &settings.routes)?;
        let log = &gateway.sink.log;
        let file = log
            .open_again()
            .map_err(|source| access_log(&settings.config, source))?;
        let tls = gateway.tls.as_ref();
        let ready = tls
            .map(|tls| tls.read(&settings.config.certificate))
            .transpose()?;
        gateway.auth.reload_if(&settings.config, || {
            routes.take(&gateway.routes).map_err(Error::from)
        })?;
        if let (Some(tls), Some(ready)) = (tls, ready) {
            tls.take(ready, Some(gateway.auth.tls_tickets()));
        }
        gateway.limits.set(&settings.config.limits);
        if let Some(file) = file {
            log.turn_to(file);
        }
        tracing::info!(
            routes = gateway.routes.len(),
            "reloaded certificates, issuers, static routes and limits"
        );
        Ok(())
    }
}

fn follower(gateway: &Arc<Gateway>, settings: &Settings) -> Option<Follower> {
    let link = settings.control_plane.as_ref()?;
    Some(Follower {
        gateway: Arc::clone(gateway),
        url: link.url.trim_end_matches('/').to_owned(),
        token: link.token.clone(),
        store: Arc::new(Mutex::new(feed::Store::new(&settings.state_dir))),
        name: format!("gateway-{:x}", gateway.request_ids.start),
        clock: feed::Clock::default(),
    })
}

async fn follow_issuers(gateway: Arc<Gateway>, stop: CancellationToken) {
    gateway.auth.follow_issuers(stop).await;
}

async fn sweep(gateway: Arc<Gateway>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        gateway.limits.sweep();
    }
}
