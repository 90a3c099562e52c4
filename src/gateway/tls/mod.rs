//! TLS: certificates by SNI, protocol versions, tickets, client certificates, ALPN.
//!
//! Second step of the path. rustls types stay in here. Certificates, client authorities and ticket keys are replaced as a whole
//! on reload, when they were read without a fault; connections that stand keep theirs.
//!
//! Not here: the handshake's deadline and what follows (`connection`).

mod certificates;
mod development;
mod expiry;
mod handshake;
mod listener;
mod tickets;
mod watch;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::config::{self, Listen, ListenProtocol};

use certificates::Certificates;
use expiry::Expiry;
use listener::{Policy, Settings, State};

pub(crate) use certificates::Names;
pub(crate) use development::Development;
pub(crate) use handshake::{Acceptor, Failure, Secured};
pub(crate) use watch::watch;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind.
    #[error("`{key}`: {path} holds no usable {what}")]
    Pem {
        /// Which key of the configuration names it.
        key: &'static str,
        /// Which file.
        path: PathBuf,
        /// Certificate or key.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The key does not belong to the certificate.
    #[error(
        "`gateway.certificate`: the key {key} does not belong to the certificate {chain}; name the key that it was issued for"
    )]
    Mismatch {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls cannot use it.
    #[error("`gateway.certificate`: {chain} cannot be used")]
    Unusable {
        /// The certificate's file.
        chain: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The certificate cannot be read.
    #[error("`gateway.certificate`: {chain} is no X.509 certificate: {problem}")]
    Certificate {
        /// The certificate's file.
        chain: PathBuf,
        /// Why.
        problem: String,
    },
    /// The authorities of client certificates cannot be used.
    #[error("`gateway.listen.client_ca`: {path} cannot be used: {problem}")]
    ClientCa {
        /// Their file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The development certificate could not be made.
    #[error("cannot make the development certificate in {path}")]
    Development {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// rustls refused the configuration.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    /// A problem with a file of `gateway.certificate`.
    fn pem(
        path: &Path,
        what: &'static str,
    ) -> impl FnOnce(rustls::pki_types::pem::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Pem {
            key: "gateway.certificate",
            path,
            what,
            source,
        }
    }

    /// The same with a file of client authorities.
    fn of_client_ca(mut self) -> Self {
        if let Self::Pem { key, .. } = &mut self {
            *key = "gateway.listen.client_ca";
        }
        self
    }
}

/// See the module.
pub(crate) struct Tls {
    acceptors: Vec<Arc<Acceptor>>,
    current: Mutex<Current>,
    expiry: Expiry,
    /// Other files are to be watched.
    refiled: Notify,
}

/// What was taken last.
struct Current {
    files: Vec<config::Certificate>,
    keys: Vec<hmac::Key>,
}

/// Read without a fault, and not taken yet.
pub(crate) struct Ready {
    files: Vec<config::Certificate>,
    certificates: Arc<Certificates>,
    settings: Vec<Settings>,
}

impl Tls {
    /// For these listeners, with these certificates; `keys` are those that TLS tickets are made of. None if no listener is https.
    pub(crate) fn new(
        listen: &[Listen],
        files: &[config::Certificate],
        keys: Vec<hmac::Key>,
        registry: &mut Registry,
    ) -> Result<Self, TlsError> {
        let policies = policies(listen);
        let ready = read(&policies, files)?;
        let acceptors = policies
            .into_iter()
            .zip(ready.settings)
            .map(|(policy, settings)| {
                let state = State::new(settings, Arc::clone(&ready.certificates), &keys);
                Arc::new(Acceptor {
                    policy,
                    state: ArcSwap::from_pointee(state),
                })
            });
        let tls = Self {
            acceptors: acceptors.collect(),
            current: Mutex::new(Current {
                files: ready.files,
                keys,
            }),
            expiry: Expiry::new(registry),
            refiled: Notify::new(),
        };
        tls.expiry.take(&ready.certificates);
        Ok(tls)
    }

    /// What makes the handshakes of a listener; none if it is not https.
    pub(crate) fn acceptor(&self, listen: &Listen) -> Option<Arc<Acceptor>> {
        let policy = (listen.protocol == ListenProtocol::Https).then(|| Policy::of(listen))?;
        let mut acceptors = self.acceptors.iter();
        acceptors.find(|known| known.policy == policy).cloned()
    }

    /// Reads certificates and client authorities, or says what is wrong. Without any named, the files of before are read again.
    pub(crate) fn read(&self, files: &[config::Certificate]) -> Result<Ready, TlsError> {
        let files = match files {
            [] => self.current().files.clone(),
            files => files.to_vec(),
        };
        let policies: Vec<_> = self
            .acceptors
            .iter()
            .map(|acceptor| acceptor.policy.clone())
            .collect();
        read(&policies, &files)
    }

    /// Takes what was read, and other keys if given, for all handshakes to come.
    pub(crate) fn take(&self, ready: Ready, keys: Option<Vec<hmac::Key>>) {
        let mut current = self.current();
        if let Some(keys) = keys {
            current.keys = keys;
        }
        for (acceptor, settings) in self.acceptors.iter().zip(ready.settings) {
            let certificates = Arc::clone(&ready.certificates);
            let state = State::new(settings, certificates, &current.keys);
            acceptor.state.store(Arc::new(state));
        }
        self.expiry.take(&ready.certificates);
        current.files = ready.files;
        self.refiled.notify_one();
    }

    /// Every file that certificates and client authorities come from.
    fn files(&self) -> Vec<PathBuf> {
        let authorities = self.acceptors.iter().map(|acceptor| &acceptor.policy);
        let authorities = authorities.filter_map(|policy| policy.client_ca.clone());
        let current = self.current();
        let certificates = current
            .files
            .iter()
            .flat_map(|files| [files.chain.clone(), files.key.clone()]);
        certificates.chain(authorities).collect()
    }

    /// A thread that panicked while it held the lock left it whole.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the configured certificates and client authorities can be used.
pub fn check(gateway: &config::Gateway) -> Result<(), TlsError> {
    for certificate in &gateway.certificate {
        certificates::served(certificate)?;
    }
    for policy in policies(&gateway.listen) {
        policy.read()?;
    }
    Ok(())
}

/// The different policies of https listeners.
fn policies(listen: &[Listen]) -> Vec<Policy> {
    let mut policies = Vec::new();
    for listen in listen {
        let policy = Policy::of(listen);
        if listen.protocol == ListenProtocol::Https && !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    policies
}

fn read(policies: &[Policy], files: &[config::Certificate]) -> Result<Ready, TlsError> {
    Ok(Ready {
        files: files.to_vec(),
        certificates: Arc::new(Certificates::load(files)?),
        settings: policies
            .iter()
            .map(Policy::read)
            .collect::<Result<_, _>>()?,
    })
}
