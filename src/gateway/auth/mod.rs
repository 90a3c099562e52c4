//! Who the tokens, tickets and sessions of a request are of: what `identity`, the fourth step of the path, asks.
//!
//! [`carrier`] takes tokens and sessions out of the request, [`held`] says in which order they count, [`token`] and [`session`] verify them against the issuers
//! in [`keys`] (of which some are [`published`]) and our [`own_keys`], [`cache`] remembers the good ones, [`revoked`] which of them count no more, [`last`] a connection's last one. Tickets are redeemed in [`ticket`] and logins come back in [`login`], off the data
//! path; what apps get to verify themselves is in [`assertion`].
//!
//! Not here: what the principal may do (`authorize`), and what a refusal looks like (`rejection`).

mod assertion;
mod cache;
mod carrier;
mod claims;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod held;
pub(crate) mod keys;
mod last;
mod login;
mod own_keys;
mod principal;
mod private_file;
mod published;
mod revoked;
mod sealed;
mod session;
mod sources;
mod ticket;
pub(crate) mod token;
mod visitor;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use http::{HeaderValue, Uri, request::Parts};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use self::{
    assertion::Assertions,
    cache::Cache,
    revoked::Revoked,
    sources::{Keyring, Sources},
    ticket::Redeemer,
};
pub(crate) use self::{
    carrier::{cookie, location, parameter},
    login::Begun,
    principal::seconds,
    private_file::replace as replace_file,
    revoked::RevokeError,
    sealed::set_cookie,
    visitor::Invitation,
};
pub use self::{
    error::{Error, TokenError},
    last::LastToken,
    principal::Principal,
    session::COOKIE as SESSION_COOKIE,
    ticket::{Link, Ticket},
};
use crate::{
    api::{
        GitspaceId,
        access::Port,
        feed::FeedKeys,
        revocation::{Revocation, RevocationKind},
    },
    config,
};

/// The cookie of those who were told whose port it is.
pub(crate) const VISITED_COOKIE: &str = "__Host-gitspace-visited";
/// Cookies of ours: apps neither see nor set them.
pub(crate) const OUR_COOKIES: [&str; 3] = [session::COOKIE, login::COOKIE, VISITED_COOKIE];

/// Tells who is asking.
#[derive(Debug)]
pub struct Authenticator {
    keyring: ArcSwap<Keyring>,
    sources: Mutex<Sources>,
    cache: Cache,
    assertions: Assertions,
    redeemer: Redeemer,
    issuer_metrics: published::Metrics,
    revoked: Revoked,
}

/// Rotates the keys of a file as `gateway.keys.file` names it: the next ones become the current ones. Gives whether gateways that
/// have the file as it was know them already. They take them over by a reload.
pub fn rotate_keys(path: &Path) -> Result<bool, Error> {
    own_keys::OwnKeys::rotate(path)
}

/// Where the gateway's own keys are.
pub fn keys_file(config: &config::Gateway, state_dir: &Path) -> PathBuf {
    let configured = config.keys.file.clone();
    configured.unwrap_or_else(|| state_dir.join("gateway.keys"))
}

/// Who is asking.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// No carrier of ours: anonymous.
    Anonymous,
    /// A valid token or session.
    Principal {
        /// Whose.
        principal: Arc<Principal>,
        /// It came in a cookie, so that unsafe methods and WebSockets need an Origin.
        by_cookie: bool,
        /// The `Set-Cookie` value with which a session that is used holds longer, now and then.
        renewed: Option<Box<HeaderValue>>,
    },
    /// A ticket on a navigation: to be redeemed and exchanged for a session.
    Ticket(Ticket),
    /// There was a token and none was valid; the first one's reason. On a public port that is anonymous.
    Refused(TokenError),
}

impl Authenticator {
    /// Reads all keys. The gateway's own and the record of used tickets live in `state_dir`, and are made if absent.
    pub fn new(config: &config::Gateway, state_dir: &Path) -> Result<Self, Error> {
        let (sources, keyring) = Sources::load(config, state_dir, seconds(SystemTime::now()))?;
        Ok(Self {
            keyring: ArcSwap::from_pointee(keyring),
            sources: Mutex::new(sources),
            cache: Cache::new(),
            assertions: Assertions::new(),
            redeemer: Redeemer::load(state_dir, seconds(SystemTime::now()))?,
            issuer_metrics: published::Metrics::default(),
            revoked: Revoked::load(state_dir, seconds(SystemTime::now()))?,
        })
    }

    /// Replaces what the configuration says; all stays as it is if this fails.
    pub fn reload(&self, config: &config::Gateway) -> Result<(), Error> {
        self.reload_if(config, || Ok(()))
    }

    /// Replaces what the configuration says, if `then` succeeds, which is asked once nothing else can fail.
    pub(crate) fn reload_if<E: From<Error>>(
        &self,
        config: &config::Gateway,
        then: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut sources = self.sources();
        let keyring = sources.reload(config, seconds(SystemTime::now()), then)?;
        self.swap(keyring);
        Ok(())
    }

    /// Takes the control plane's keys as they came by the feed. The same ones again change nothing.
    pub fn feed_keys(&self, keys: &FeedKeys) -> Result<(), Error> {
        let mut sources = self.sources();
        if let Some(keyring) = sources.feed(keys, seconds(SystemTime::now()))? {
            self.swap(keyring);
        }
        Ok(())
    }

    /// Whether [`Self::feed_keys`] would take them.
    pub(crate) fn check_feed_keys(&self, keys: &FeedKeys) -> Result<(), Error> {
        let now = seconds(SystemTime::now());
        self.sources().made_with(keys, now).map(drop)
    }

    /// The `Set-Cookie` value for a redeemed ticket.
    pub fn session(&self, ticket: &Ticket, host: &str, now: SystemTime) -> HeaderValue {
        let keyring = self.keyring.load();
        session::begin(
            &keyring.own,
            &ticket.principal,
            &ticket.subject,
            host,
            seconds(now),
            keyring.sessions,
        )
    }

    /// The signed text of a share's link.
    pub(crate) fn link(&self, invitation: &Invitation) -> String {
        visitor::link(&self.keyring.load().own, invitation)
    }

    /// What a share's link says.
    pub(crate) fn open_link(&self, text: &[u8]) -> Result<Invitation, TokenError> {
        visitor::open_link(&self.keyring.load().own, text)
    }

    /// The `Set-Cookie` value that begins a visitor's session, which ends with its share. None: the system has no randomness.
    pub(crate) fn visit(
        &self,
        invitation: &Invitation,
        until: Option<i64>,
        host: &str,
        now: SystemTime,
    ) -> Option<HeaderValue> {
        let keyring = self.keyring.load();
        let now = seconds(now);
        let life = session::Life::new(now, until, keyring.sessions);
        visitor::begin(&keyring.own, invitation, host, now, life)
    }

    /// The `Set-Cookie` value that ends a session.
    pub fn end_session(&self) -> HeaderValue {
        session::end()
    }

    /// Begins a login that comes back to a page of `host`. None: the system has no randomness.
    pub(crate) fn begin_login(&self, host: &str, target: &str, now: SystemTime) -> Option<Begun> {
        login::begin(&self.keyring.load().own, host, target, seconds(now))
    }

    /// The `Set-Cookie` value that ends a login.
    pub(crate) fn end_login(&self) -> HeaderValue {
        login::end()
    }

    /// Whether a request comes back from a login.
    pub(crate) fn comes_back(uri: &Uri) -> bool {
        let query = uri.query().unwrap_or_default();
        ["ticket", "state"]
            .iter()
            .all(|name| carrier::parameter(query, name).is_some())
    }

    /// What a request brings back from a login: a ticket for the page that its browser wanted.
    pub(crate) fn back_from_login(
        &self,
        request: &Parts,
        host: &str,
        now: SystemTime,
    ) -> Result<Ticket, TokenError> {
        let keyring = self.keyring.load();
        let now = seconds(now);
        let parameter = |name| carrier::parameter(request.uri.query().unwrap_or_default(), name);
        let (token, state) = (parameter("ticket"), parameter("state"));
        let (token, state) = (token.unwrap_or_default(), state.unwrap_or_default());
        let cookie = carrier::cookie(&request.headers, login::COOKIE);
        let target = login::finish(&keyring.own, host, cookie, &state, now)?;
        let verified = token::verify(&token, &keyring.issuers, now)?;
        let claims = verified
            .ticket
            .ok_or(TokenError::Ticket("is wanted here, not an access token"))?;
        self.revoked.check(&verified.principal, now)?;
        let target: Uri = target.parse().map_err(|_| TokenError::Target)?;
        let location = carrier::location(&target);
        Ok(keyring.ticket((verified.principal, claims), location, None))
    }

    /// The value of `X-Gitspace-Assertion` for an upstream. None only if signing fails, which is logged.
    pub fn assertion(
        &self,
        principal: &Principal,
        host: &str,
        gitspace: &str,
        now: SystemTime,
    ) -> Option<HeaderValue> {
        let keyring = self.keyring.load();
        self.assertions.value(
            &keyring.own,
            keyring.generation,
            principal,
            (host, gitspace),
            seconds(now),
        )
    }

    /// The public keys of assertions, for `/_gitspace/jwks.json`.
    pub fn jwks(&self) -> String {
        self.keyring.load().own.jwks().into()
    }

    /// What keys of TLS tickets are made of: the current one, then the previous one. Replicas have the same.
    pub(crate) fn tls_tickets(&self) -> Vec<aws_lc_rs::hmac::Key> {
        self.keyring.load().own.tickets().to_vec()
    }

    /// Redeems a ticket: the first time wins, over a restart too. With `link` the control plane decides; without it, or
    /// while it is away, this gateway does.
    pub async fn redeem(
        &self,
        ticket: &Ticket,
        link: Option<&Link>,
        now: SystemTime,
    ) -> Result<(), TokenError> {
        self.redeemer.redeem(ticket, link, seconds(now)).await
    }

    /// Fetches what issuers publish, until the stop. To be run off the data path.
    pub(crate) async fn follow_issuers(&self, stop: CancellationToken) {
        published::follow(self, stop).await;
    }

    /// Shows what becomes of that.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.issuer_metrics.register(registry);
    }

    fn issuer_metrics(&self) -> &published::Metrics {
        &self.issuer_metrics
    }

    fn published_changed(&self) {
        match self.sources().published_changed(seconds(SystemTime::now())) {
            Ok(keyring) => self.swap(keyring),
            // Names and prefixes were checked with the configuration, and keys cannot add to them.
            Err(error) => tracing::error!(%error, "cannot take an issuer's new keys"),
        }
    }

    /// Whether what the principal came with is older than a revocation of this port or gitspace.
    pub(crate) fn revoked_for(
        &self,
        principal: &Principal,
        gitspace: &GitspaceId,
        port: Port,
        now: SystemTime,
    ) -> bool {
        self.revoked.covers(principal, gitspace, port, seconds(now))
    }

    /// What keeps a principal from a port, of all that was revoked.
    pub(crate) fn revocation_of(
        &self,
        principal: &Principal,
        gitspace: &GitspaceId,
        port: Port,
        now: SystemTime,
    ) -> Option<Revocation> {
        self.revoked.of(principal, gitspace, port, seconds(now))
    }

    /// The revocation of a share.
    pub(crate) fn revocation_of_share(&self, id: &str, now: SystemTime) -> Option<Revocation> {
        self.revoked.of_share(id, seconds(now))
    }

    /// How often something was revoked since the start.
    pub(crate) fn revocation_changes(&self) -> u64 {
        self.revoked.changes()
    }

    /// Whether a share was revoked.
    pub(crate) fn share_revoked(&self, id: &str, now: i64) -> bool {
        self.revoked.share(id, now)
    }

    /// Revokes: at once, and on disk when this returns. Gives what counts now.
    pub(crate) async fn revoke_all(
        &self,
        revocations: Vec<Revocation>,
        now: SystemTime,
    ) -> Result<Vec<Revocation>, RevokeError> {
        if revocations.is_empty() {
            return Ok(revocations);
        }
        let revoked = self.revoked.clone();
        let add = move || revoked.add(revocations, seconds(now));
        tokio::task::spawn_blocking(add)
            .await
            .map_err(io::Error::other)?
    }

    /// Takes in what another process revoked, if it did. Blocks.
    pub(crate) fn catch_up(&self) -> io::Result<()> {
        self.revoked.catch_up()
    }

    /// Takes a revocation back. Tells whether it was there.
    pub(crate) async fn unrevoke(
        &self,
        kind: RevocationKind,
        id: String,
    ) -> Result<bool, RevokeError> {
        let revoked = self.revoked.clone();
        let remove = move || revoked.remove(kind, &id);
        tokio::task::spawn_blocking(remove)
            .await
            .map_err(io::Error::other)?
    }

    /// All revocations.
    pub(crate) fn revocations(&self) -> Vec<Revocation> {
        self.revoked.all()
    }

    fn swap(&self, keyring: Keyring) {
        self.keyring.store(Arc::new(keyring));
        self.cache.clear();
    }

    /// A thread that panicked while it held the lock changed nothing yet.
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
