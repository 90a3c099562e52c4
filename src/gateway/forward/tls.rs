//! TLS to an upstream: who the other end must be, and which HTTP it picks.
//!
//! The only file of this step that knows rustls. By default the other end shows a certificate for its host from an authority
//! that this machine trusts; a target may name its own authorities, a name, or the one key that counts (a pin). Nothing is
//! remembered across targets: a session of one is never resumed at another.
//!
//! Not here: TLS with clients (`gateway::tls`).

use std::{
    io,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    api::{pin::Pin, route::UpstreamTls},
    gateway::{
        rejection::{Rejection, TlsFault},
        route::{Address, Target},
    },
};

/// A TLS stream to an upstream.
pub(super) type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Sessions of one target that each worker remembers.
const SESSIONS: usize = 4;

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is needed to speak TLS to one target.
pub(super) struct Client {
    any: TlsConnector,
    only_http1: TlsConnector,
    name: ServerName<'static>,
}

impl Client {
    /// Prepares it. The first without authorities of its own reads this machine's, off this thread.
    pub(super) async fn new(target: &Target) -> Result<Self, Rejection> {
        let default = UpstreamTls::default();
        let tls = target.tls.as_deref().unwrap_or(&default);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Verifier {
            authorities: match (&tls.ca, tls.pin) {
                (Some(ca), _) => Some(authorities(named(ca)?, &provider)?),
                (None, None) => Some(authorities(trusted().await?, &provider)?),
                (None, Some(_)) => None,
            },
            pin: tls.pin,
            provider: Arc::clone(&provider),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let mut only_http1 = config.clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        only_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            any: TlsConnector::from(Arc::new(config)),
            only_http1: TlsConnector::from(Arc::new(only_http1)),
            name: name(target, tls)?,
        })
    }

    /// The handshake. An upgrade is a thing of HTTP/1.1 alone: then nothing else is offered.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        only_http1: bool,
    ) -> Result<(TlsStream, Spoken), Rejection> {
        let connector = if only_http1 {
            &self.only_http1
        } else {
            &self.any
        };
        let connected = connector.connect(self.name.clone(), stream).await;
        let stream = connected.map_err(|source| Rejection::Tls {
            fault: fault(&source),
            source,
        })?;
        let spoken = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Spoken::Http2,
            _ => Spoken::Http1,
        };
        Ok((stream, spoken))
    }
}

fn fault(error: &io::Error) -> TlsFault {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    match error {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            TlsFault::Certificate
        }
        // It begins with no record of TLS.
        Some(rustls::Error::InvalidMessage(_)) => TlsFault::NotSpoken,
        _ => TlsFault::Handshake,
    }
}

/// What is configured cannot be used; no attempt is made.
fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Rejection {
    Rejection::Tls {
        fault: TlsFault::Handshake,
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    }
}

/// The name that is asked for and that the certificate must have.
fn name(target: &Target, tls: &UpstreamTls) -> Result<ServerName<'static>, Rejection> {
    let text = match (&tls.name, &target.address) {
        (Some(name), _) => name.to_string(),
        (None, Address::Socket(address)) => return Ok(address.ip().into()),
        (None, Address::Name(name, _)) => name.trim_matches(['[', ']']).to_owned(),
        (None, Address::Unix(_) | Address::Nowhere) => {
            return Err(unusable("the target has no name to check"));
        }
    };
    ServerName::try_from(text).map_err(unusable)
}

/// The authorities that a target names.
fn named(pem: &str) -> Result<Arc<RootCertStore>, Rejection> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots
            .add(certificate.map_err(unusable)?)
            .map_err(unusable)?;
    }
    Ok(Arc::new(roots))
}

/// The authorities that this machine trusts, read once.
async fn trusted() -> Result<Arc<RootCertStore>, Rejection> {
    static TRUSTED: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = TRUSTED.get() {
        return Ok(Arc::clone(roots));
    }
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::warn!(%error, "an authority that this machine trusts cannot be read");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    };
    let roots = tokio::task::spawn_blocking(read).await.map_err(unusable)?;
    Ok(Arc::clone(TRUSTED.get_or_init(|| roots)))
}

fn authorities(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Rejection> {
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(unusable)
}

/// Accepts a certificate from one of the authorities, with the pinned key, or both; whoever shows it must hold its key.
#[derive(Debug)]
struct Verifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    pin: Option<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(authorities) = &self.authorities {
            authorities.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        }
        match self.pin {
            Some(pin) if pin_of(leaf)? != pin => Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::ApplicationVerificationFailure,
            )),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The pin of a certificate's key.
fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
    let key = certificate.tbs_certificate.subject_pki.raw;
    let digest = aws_lc_rs_digest(key);
    Ok(Pin::new(digest))
}

fn aws_lc_rs_digest(bytes: &[u8]) -> [u8; 32] {
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes);
    let mut copy = [0; 32];
    copy.copy_from_slice(digest.as_ref());
    copy
}
