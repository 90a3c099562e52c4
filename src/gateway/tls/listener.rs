//! What a listener's handshakes are made of: versions, suites, key exchange, client certificates, tickets.
//!
//! TLS 1.2 and 1.3 with AEAD and ephemeral keys only, in our order of preference. Whoever knows X25519MLKEM768 gets it, whatever
//! it prefers itself: its traffic stays secret from those who record it for a later quantum computer.
//!
//! Not here: the handshake itself (`handshake`).

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use aws_lc_rs::{digest, hmac};
use rustls::{
    Error, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig,
    crypto::{
        ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self as provider, kx_group},
    },
    ffdhe_groups::FfdheGroup,
    server::{
        ClientHello, NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
};

use super::{
    TlsError,
    certificates::{self, Certificates, Offer, Served},
    tickets::{TicketKeys, Tickets},
};
use crate::config::{ClientCertificates, Listen};

/// What listeners differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) client_ca: Option<PathBuf>,
    optional: bool,
    pub(super) strict_sni: bool,
}

impl Policy {
    pub(super) fn of(listen: &Listen) -> Self {
        Self {
            client_ca: listen.client_ca.clone(),
            optional: listen.client_certificates == Some(ClientCertificates::Optional),
            strict_sni: listen.strict_sni,
        }
    }

    /// Who checks client certificates, and bytes that are equal only for who asks for the same.
    fn verifier(&self) -> Result<(Arc<dyn ClientCertVerifier>, Vec<u8>), TlsError> {
        let Some(path) = &self.client_ca else {
            let none = WebPkiClientVerifier::no_client_auth();
            return Ok((none, b"no client certificates".to_vec()));
        };
        let unusable = |problem: String| TlsError::ClientCa {
            path: path.clone(),
            problem,
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut roots = RootCertStore::empty();
        for authority in certificates::chain(path).map_err(TlsError::of_client_ca)? {
            hash.update(digest::digest(&digest::SHA256, &authority).as_ref());
            roots
                .add(authority)
                .map_err(|error| unusable(error.to_string()))?;
        }
        let provider = Arc::new(provider::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let (builder, mode) = if self.optional {
            (builder.allow_unauthenticated(), "optional ")
        } else {
            (builder, "required ")
        };
        let verifier = builder
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok((verifier, [mode.as_bytes(), hash.finish().as_ref()].concat()))
    }

    /// Reads what the policy names.
    pub(super) fn read(&self) -> Result<Settings, TlsError> {
        let (verifier, same) = self.verifier()?;
        Ok(Settings {
            hybrid: server(hybrid_provider(), &verifier)?,
            classic: server(provider::default_provider(), &verifier)?,
            policy: same,
            with_certificate: self.client_ca.is_some(),
        })
    }
}

/// A policy, ready for use.
#[derive(Clone)]
pub(super) struct Settings {
    /// For clients that know the hybrid key exchange.
    hybrid: ServerConfig,
    classic: ServerConfig,
    policy: Vec<u8>,
    with_certificate: bool,
}

/// What the next handshake is made of. Never changed: another takes its place.
pub(super) struct State {
    settings: Settings,
    certificates: Arc<Certificates>,
    tickets: Arc<TicketKeys>,
}

impl State {
    pub(super) fn new(
        settings: Settings,
        certificates: Arc<Certificates>,
        keys: &[hmac::Key],
    ) -> Self {
        let tickets = TicketKeys::new(keys, &settings.policy, settings.with_certificate);
        Self {
            settings,
            certificates,
            tickets,
        }
    }

    /// The certificate for `sni`, and the handshake with it.
    pub(super) fn handshake(
        &self,
        hello: &ClientHello<'_>,
        sni: Option<&str>,
        now: SystemTime,
    ) -> Option<(Arc<Served>, ServerConfig)> {
        let offer = Offer {
            schemes: hello.signature_schemes(),
            suites: hello.cipher_suites(),
        };
        let served = self.certificates.pick(sni, &offer)?;
        let groups = hello.named_groups().unwrap_or_default();
        let settings = if groups.contains(&NamedGroup::X25519MLKEM768) {
            &self.settings.hybrid
        } else {
            &self.settings.classic
        };
        let mut server = settings.clone();
        server.cert_resolver = Arc::<Served>::clone(served);
        server.ticketer = Tickets::new(&self.tickets, now);
        Some((Arc::clone(served), server))
    }
}

fn server(
    provider: CryptoProvider,
    verifier: &Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, TlsError> {
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(Arc::clone(verifier))
        // Every handshake is given its own.
        .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.ignore_client_order = true;
    server.send_tls13_tickets = 1;
    server.max_early_data_size = 0;
    // Nothing is kept here: tickets hold all.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(server)
}

/// With the hybrid group, and all others for TLS 1.2 alone, which does not have it.
fn hybrid_provider() -> CryptoProvider {
    static X25519: Tls12Only = Tls12Only(kx_group::X25519);
    static P256: Tls12Only = Tls12Only(kx_group::SECP256R1);
    static P384: Tls12Only = Tls12Only(kx_group::SECP384R1);
    CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, &X25519, &P256, &P384],
        ..provider::default_provider()
    }
}

/// A group that TLS 1.3 does not get to see.
#[derive(Debug)]
struct Tls12Only(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for Tls12Only {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        self.0.start()
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        self.0.start_and_complete(peer)
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version != ProtocolVersion::TLSv1_3 && self.0.usable_for_version(version)
    }
}
