//! `[gateway]` and the tables below it.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

use super::{Limits, Timeout, duration::duration, network::networks};

/// `[gateway]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Domains under which gitspaces are reached: `<gitspace>.<domain>`, `<gitspace>-<port>.<domain>`.
    pub domains: Vec<String>,
    /// Threads of the data path; 0 = one per core.
    pub workers: usize,
    /// A JSON array of routes, read at start and on reload.
    pub routes_file: Option<PathBuf>,
    /// `[[gateway.listen]]`
    pub listen: Vec<Listen>,
    /// Whether browsers may open WebSockets within their HTTP/2 connections (RFC 8441).
    pub websockets_over_http2: bool,
    /// `[[gateway.certificate]]`
    pub certificate: Vec<Certificate>,
    /// `[[gateway.issuer]]`
    pub issuer: Vec<Issuer>,
    /// `[gateway.auth]`
    pub auth: Auth,
    /// `[gateway.keys]`
    pub keys: Keys,
    /// `[gateway.headers]`
    pub headers: Headers,
    /// `[gateway.upstreams]`
    pub upstreams: Upstreams,
    /// `[gateway.timeouts]`
    pub timeouts: Timeouts,
    /// `[gateway.sharing]`
    pub sharing: Sharing,
    /// `[gateway.limits]`
    pub limits: Limits,
    /// `[gateway.admin]`
    pub admin: Admin,
    /// `[gateway.chp]`
    pub chp: Option<Chp>,
    /// `[gateway.control_plane]`
    pub control_plane: ControlPlaneLink,
    /// `[gateway.access_log]`
    pub access_log: AccessLog,
    /// `[gateway.traces]`
    pub traces: Traces,
}

impl Default for Gateway {
    fn default() -> Self {
        let loopback = |address: IpAddr| Listen {
            address: SocketAddr::new(address, 8443),
            ..Listen::default()
        };
        Self {
            domains: vec!["gitspaces.localhost".into()],
            workers: 0,
            routes_file: None,
            listen: vec![
                loopback(std::net::Ipv4Addr::LOCALHOST.into()),
                loopback(std::net::Ipv6Addr::LOCALHOST.into()),
            ],
            websockets_over_http2: true,
            certificate: Vec::new(),
            issuer: Vec::new(),
            auth: Auth::default(),
            keys: Keys::default(),
            headers: Headers::default(),
            upstreams: Upstreams::default(),
            timeouts: Timeouts::default(),
            sharing: Sharing::default(),
            limits: Limits::default(),
            admin: Admin::default(),
            chp: None,
            control_plane: ControlPlaneLink::default(),
            access_log: AccessLog::default(),
            traces: Traces::default(),
        }
    }
}

/// `[[gateway.listen]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// What is spoken there.
    pub protocol: ListenProtocol,
    /// `http` only: answer everything with a redirect to https.
    #[serde(default)]
    pub redirect_to_https: bool,
    /// Where that redirect leads to. Unset: 443.
    #[serde(default)]
    pub redirect_port: Option<NonZeroU16>,
    /// Networks whose connections begin with a PROXY protocol header. With any, all others are closed.
    #[serde(default, deserialize_with = "networks")]
    pub proxy_protocol_from: Vec<IpNet>,
    /// Networks whose `Forwarded`, `X-Forwarded-*` and `X-Request-Id` are believed.
    #[serde(default, deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// `https` only: the Host must be the name that the client asked for by SNI, not only one that the certificate covers.
    #[serde(default)]
    pub strict_sni: bool,
    /// `https` only: PEM file with the authorities whose client certificates are accepted. Unset: none is asked for.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client may come without a certificate. Unset: it may not, where `client_ca` is set.
    #[serde(default)]
    pub client_certificates: Option<ClientCertificates>,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Handshakes without one fail.
    Require,
    /// Without one is well, with a bad one is not.
    Optional,
}

impl Default for Listen {
    /// https on 127.0.0.1:8443, with nobody in front.
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8443)),
            protocol: ListenProtocol::Https,
            redirect_to_https: false,
            redirect_port: None,
            proxy_protocol_from: Vec::new(),
            trusted_proxies: Vec::new(),
            strict_sni: false,
            client_ca: None,
            client_certificates: None,
        }
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenProtocol {
    /// TLS with HTTP/2 or HTTP/1.1.
    Https,
    /// HTTP/1.1, or HTTP/2 with prior knowledge, in the clear: behind a balancer that ends TLS, or to redirect.
    Http,
}

/// `[[gateway.certificate]]`: the first one is the default, SNI picks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file with the certificate and its intermediates.
    pub chain: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// `[[gateway.issuer]]`: whose tokens are accepted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// `aud`; "" = not checked.
    #[serde(default = "Issuer::default_audience")]
    pub audience: String,
    /// Put before `sub`, so that two issuers' names never meet.
    #[serde(default)]
    pub prefix: String,
    /// The claim that holds gitspaces.
    #[serde(default = "Issuer::default_gitspace_claim")]
    pub gitspace_claim: String,
    /// Whether `gitspace` and `ports` grant access, or only restrict it.
    #[serde(default)]
    pub grants: bool,
    /// A key set (RFC 7517).
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// Where the issuer publishes one.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The authorities that its certificate may be of, in place of the system's (PEM).
    #[serde(default)]
    pub jwks_ca_file: Option<PathBuf>,
    /// How often it is fetched.
    #[serde(
        default = "Issuer::default_jwks_refresh",
        deserialize_with = "super::duration::duration"
    )]
    pub jwks_refresh: Duration,
    /// How long the last one counts while its issuer is down.
    #[serde(
        default = "Issuer::default_jwks_stale",
        deserialize_with = "super::duration::duration"
    )]
    pub jwks_stale: Duration,
    /// Single keys.
    #[serde(default)]
    pub key: Vec<IssuerKey>,
}

impl Issuer {
    fn default_audience() -> String {
        "cde-gateway".into()
    }
    fn default_gitspace_claim() -> String {
        "gitspace".into()
    }
    const fn default_jwks_refresh() -> Duration {
        Duration::from_mins(10)
    }
    const fn default_jwks_stale() -> Duration {
        Duration::from_hours(24)
    }
}

/// `[[gateway.issuer.key]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerKey {
    /// `kid`; "" = for tokens without one.
    #[serde(default)]
    pub id: String,
    /// The one algorithm that this key is used with.
    pub algorithm: Algorithm,
    /// PEM file of the public key.
    #[serde(default)]
    pub public_key_file: Option<PathBuf>,
    /// File with the shared secret (HS256), at least 32 bytes; a trailing newline is not part of it.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

/// Signature algorithms of tokens (RFC 7518 §3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// ECDSA on P-256.
    ES256,
    /// Ed25519.
    EdDSA,
    /// RSA PKCS#1 v1.5.
    RS256,
    /// HMAC with a shared secret.
    HS256,
}

/// `[gateway.auth]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Cookies of others that may hold an access token as it is.
    pub token_cookies: Vec<String>,
    /// Where a navigation without a token is sent; "" = a page that says how to get in.
    pub login_url: String,
}

/// `[gateway.keys]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Keys for sessions and assertions. Unset: `gateway.keys` in `state_dir`. Made if absent, mode 0600.
    pub file: Option<PathBuf>,
}

/// `[gateway.headers]`: names of the headers that upstreams get, and what clients get beside the app's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// Holds the principal.
    pub user: String,
    /// Holds the gitspace.
    pub gitspace: String,
    /// Holds what apps can verify themselves; "" = apps get none.
    pub assertion: String,
    /// Holds the request's identifier; "" = apps get none.
    pub request_id: String,
    /// More headers of clients that apps do not get.
    pub remove: Vec<String>,
    /// `Strict-Transport-Security` of every answer over TLS, in place of the app's; "" = only what the app says.
    pub hsts: String,
}

impl Default for Headers {
    fn default() -> Self {
        Self {
            user: "X-Gitspace-User".into(),
            gitspace: "X-Gitspace-Id".into(),
            assertion: "X-Gitspace-Assertion".into(),
            request_id: "X-Request-Id".into(),
            remove: Vec::new(),
            hsts: String::new(),
        }
    }
}

/// `[gateway.upstreams]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstreams {
    /// Networks that routes of the feed and the API may lead to. Empty: anything but loopback, link-local, unspecified, multicast.
    pub allow: Vec<IpNet>,
    /// Connections to one target at once, at rest and in use.
    pub max_connections: usize,
    /// Connections at rest that each worker keeps for one target.
    pub idle: usize,
    /// How long a connection is kept at rest.
    #[serde(deserialize_with = "duration")]
    pub ttl: Duration,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            max_connections: 1024,
            idle: 64,
            ttl: Duration::from_secs(30),
        }
    }
}

/// `[gateway.timeouts]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// From accept to the first complete head, TLS included.
    #[serde(deserialize_with = "duration")]
    pub head: Duration,
    /// Between two requests of a connection.
    #[serde(deserialize_with = "duration")]
    pub keep_alive: Duration,
    /// Connecting to an upstream.
    #[serde(deserialize_with = "duration")]
    pub connect: Duration,
    /// From the request's last byte to the head of its answer.
    pub response_head: Timeout,
    /// Between two pieces of a body, either way.
    pub body_idle: Timeout,
    /// A stream without a byte either way.
    pub tunnel_idle: Timeout,
    /// The longest life of a stream.
    pub tunnel_lifetime: Timeout,
    /// How long a client may leave unacknowledged what it was sent, or the question whether it is still there.
    pub dead_peer: Timeout,
    /// How long streams may go on when the gateway stops.
    #[serde(deserialize_with = "duration")]
    pub drain: Duration,
    /// How long streams may go on when another process has taken over.
    #[serde(deserialize_with = "duration")]
    pub upgrade_drain: Duration,
    /// The longest life of a session.
    #[serde(deserialize_with = "duration")]
    pub session: Duration,
    /// How long a session lasts that is not used.
    #[serde(deserialize_with = "duration")]
    pub session_idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            connect: Duration::from_secs(5),
            response_head: Timeout::After(Duration::from_secs(60)),
            body_idle: Timeout::After(Duration::from_secs(120)),
            tunnel_idle: Timeout::After(Duration::from_secs(HOUR)),
            tunnel_lifetime: Timeout::After(Duration::from_secs(24 * HOUR)),
            dead_peer: Timeout::After(Duration::from_secs(60)),
            drain: Duration::from_secs(30),
            upgrade_drain: Duration::from_secs(12 * HOUR),
            session: Duration::from_secs(24 * HOUR),
            session_idle: Duration::from_secs(12 * HOUR),
        }
    }
}

/// `[gateway.sharing]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sharing {
    /// How long it is remembered that a browser's user was told whose port it opens. Off: nobody is told.
    pub first_visit: Timeout,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            first_visit: Timeout::After(Duration::from_secs(24 * 3600)),
        }
    }
}

/// `[gateway.admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where health, metrics and the admin API are. Unset keeps it closed.
    pub address: Option<SocketAddr>,
    /// The bearer token. Unset: `admin.token` in `state_dir`. Made if absent, mode 0600.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: Some(SocketAddr::from(([127, 0, 0, 1], 8181))),
            token_file: None,
        }
    }
}

/// `[gateway.chp]`: the API of configurable-http-proxy, for JupyterHub.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chp {
    /// The host whose paths its routes are.
    pub host: String,
    /// The token of whoever sends routes. Unset: `chp.token` in `state_dir`. Made if absent, mode 0600.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Who is asked for the pages of 404 and 503 on that host. Unset: they are the gateway's own.
    #[serde(default)]
    pub error_target: Option<String>,
}

/// `[gateway.control_plane]`: where routes come from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlPlaneLink {
    /// The control plane. Unset: the embedded one, if this process runs it; else no feed.
    pub url: Option<String>,
    /// The gateway's token. Unset: `gateway.token` in `state_dir`.
    pub token_file: Option<PathBuf>,
    /// What to do with feed routes when the feed's lease has run out.
    pub fail_mode: FailMode,
}

/// What to do with feed routes when the feed's lease has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// Keep serving them.
    #[default]
    Static,
    /// Answer 503 `control-plane-stale`.
    Closed,
}

/// `[gateway.access_log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// A file, `-` for standard output, or "" for none. A reload opens the file again.
    pub path: String,
    /// How a line is written.
    pub format: LineFormat,
    /// How much of a client's address a line tells.
    pub client_address: ClientAddress,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            path: "-".into(),
            format: LineFormat::default(),
            client_address: ClientAddress::default(),
        }
    }
}

/// `[gateway.traces]`: spans to a collector, in builds with the feature `otel`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// The collector's base URL (OTLP over HTTP), or "" for none.
    pub endpoint: String,
    /// Which part of all requests is traced, 0 to 1.
    pub ratio: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            ratio: 0.01,
        }
    }
}

/// How a line of the access log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineFormat {
    /// One JSON object.
    #[default]
    Json,
    /// The combined format of web servers, with more fields behind it.
    Text,
}

/// How much of a client's address the access log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAddress {
    /// All of it.
    #[default]
    Full,
    /// Its network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
    Truncated,
}
