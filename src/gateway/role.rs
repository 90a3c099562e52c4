//! The gateway as a role: built from its configuration, bound, served, reloaded, drained.
//!
//! Not here: the life of a request (`gateway`), the choice of roles (`app`).

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
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
    admin,
    auth::{Authenticator, Link},
    connection::HeadLimits,
    drain::Drain,
    forward::{Names, Upstreams},
    limit::Limits,
    own::Exchanges,
    ready::Running,
    route::{
        RouteError, Source, Table,
        feed::{self, Follower},
        file::{self, FileError},
    },
    share::Shares,
    tls::{self, Development, Tls, TlsError},
};
use crate::{
    api::{Secret, route::Route},
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
    /// Where routes come from, if from a control plane.
    pub control_plane: Option<ControlPlane>,
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
    let link = settings
        .control_plane
        .as_ref()
        .map(|link| Link::new(client, &link.url, link.token.clone()));
    let drain = Drain::default();
    let traces = Traces::open(&config.traces)?;
    let sink = Sink::new(metrics, log, traces, drain.clone());
    let gateway = Arc::new(Gateway {
        auth,
        routes,
        shares: Shares::load(&settings.state_dir, SystemTime::now()).map_err(io::Error::other)?,
        first_visits: config.sharing.first_visit,
        limits: Limits::new(&config.limits),
        names: Arc::new(Names::new(&config.headers).map_err(Error::Config)?),
        timeouts: config.timeouts.clone(),
        head_limits: HeadLimits {
            bytes: config.limits.head_bytes,
            fields: config.limits.head_fields,
        },
        login_url: config.auth.login_url.clone(),
        tls: tls.map(Arc::new),
        exchanges: Exchanges {
            link,
            background: tokio::runtime::Handle::current(),
        },
        upstreams: Upstreams::new(config.upstreams.clone(), Arc::clone(&sink)),
        sink,
        feed: feed::Lease::new(fail_mode, settings.control_plane.is_some()),
        running: Running::new(workers),
        drain,
        request_ids: RequestIds::new(),
        domains,
    });
    let listeners = config
        .listen
        .iter()
        .map(|listen| accept::bind(listen, workers))
        .collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(|bound| bound.address).collect();
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
        table.replace(Source::Config, &self.configured)?;
        table.replace(Source::File, &self.from_file)
    }
}

fn bind_admin(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), Error> {
    let bound = || {
        let listener = accept::listen_alone(address)?;
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
            tasks.spawn(admin::serve(listener, api, background.clone()));
        }
        if let Some(follower) = follower(&gateway, &settings) {
            let kept = follower.store.load();
            if let Some(kept) = &kept {
                feed::restore(kept, &gateway.routes, &gateway.auth);
                gateway.feed.restored();
            }
            tasks.spawn(follower.run(kept, background.clone()));
        }
        tasks.spawn(sweep(Arc::clone(&gateway), background.clone()));
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

        stop.cancelled().await;
        gateway.drain.run(gateway.timeouts.drain).await;
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
        Ok(())
    }
}

impl Handle {
    /// Takes certificates, issuers, static routes and limits from another configuration, and opens the access log's file again.
    /// What stands there in error changes nothing of its kind; all other keys are read at start only, limits of heads too.
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
        gateway.auth.reload(&settings.config)?;
        if let (Some(tls), Some(ready)) = (tls, ready) {
            tls.take(ready, Some(gateway.auth.tls_tickets()));
        }
        routes.take(&gateway.routes)?;
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
        store: feed::Store::new(&settings.state_dir),
        name: format!("gateway-{:x}", gateway.request_ids.start),
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
