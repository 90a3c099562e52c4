//! TLS: certificates by SNI, protocol versions, ALPN.
//!
//! Part of the second step. rustls types stay in here. Certificates are replaced as a whole on reload; connections that stand
//! keep theirs.
//!
//! Not here: the handshake's deadline (`connection`).

mod development;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::config;

pub(crate) use development::Development;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind.
    #[error("`gateway.certificate`: {path} holds no usable {what}")]
    Pem {
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

/// The names that a certificate covers, in lower case; wildcards cover one label (RFC 6125 §6.4.3).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(Vec<Box<str>>);

impl Names {
    /// Whether a canonical host is covered.
    pub(crate) fn cover(&self, host: &str) -> bool {
        self.0.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => **name == *host,
        })
    }
}

/// A certificate with its key and names.
#[derive(Debug)]
struct Served {
    key: Arc<CertifiedKey>,
    names: Arc<Names>,
}

/// All certificates; the first is the default.
#[derive(Debug)]
struct Certificates {
    default: Served,
    others: Vec<Served>,
}

impl Certificates {
    fn pick(&self, sni: Option<&str>) -> &Served {
        let covers = |served: &&Served| sni.is_some_and(|sni| served.names.cover(sni));
        std::iter::once(&self.default)
            .chain(&self.others)
            .find(covers)
            .unwrap_or(&self.default)
    }
}

/// See the module.
pub(crate) struct Tls {
    certificates: Arc<Resolver>,
    acceptor: TlsAcceptor,
}

#[derive(Debug)]
struct Resolver(ArcSwap<Certificates>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let sni = hello.server_name().map(str::to_ascii_lowercase);
        Some(Arc::clone(&self.0.load().pick(sni.as_deref()).key))
    }
}

impl Tls {
    /// With these certificates.
    pub(crate) fn new(certificates: &[config::Certificate]) -> Result<Self, TlsError> {
        let resolver = Arc::new(Resolver(ArcSwap::from_pointee(load(certificates)?)));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        server.send_tls13_tickets = 1;
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Self {
            certificates: resolver,
            acceptor: TlsAcceptor::from(Arc::new(server)),
        })
    }

    /// Takes other certificates, or keeps the old ones and says why.
    pub(crate) fn reload(&self, certificates: &[config::Certificate]) -> Result<(), TlsError> {
        self.certificates.0.store(Arc::new(load(certificates)?));
        Ok(())
    }

    /// For handshakes.
    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// The names of the certificate that a client asking for `sni` is served.
    pub(crate) fn names(&self, sni: Option<&str>) -> Arc<Names> {
        Arc::clone(&self.certificates.0.load().pick(sni).names)
    }
}

/// Whether the configured certificates can be used.
pub fn check(gateway: &config::Gateway) -> Result<(), TlsError> {
    for certificate in &gateway.certificate {
        served(certificate)?;
    }
    Ok(())
}

fn load(certificates: &[config::Certificate]) -> Result<Certificates, TlsError> {
    let mut all = certificates
        .iter()
        .map(served)
        .collect::<Result<Vec<_>, _>>()?
        .into_iter();
    let Some(default) = all.next() else {
        return Err(TlsError::Setup(rustls::Error::General(
            "an https listener needs a certificate".into(),
        )));
    };
    Ok(Certificates {
        default,
        others: all.collect(),
    })
}

fn served(files: &config::Certificate) -> Result<Served, TlsError> {
    let pem = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, what, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(&files.chain, "certificate"))?;
    if chain.is_empty() {
        return Err(pem(&files.chain, "certificate")(
            rustls::pki_types::pem::Error::NoItemsFound,
        ));
    }
    let names = names(&chain[0]).map_err(|problem| TlsError::Certificate {
        chain: files.chain.clone(),
        problem,
    })?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem(&files.key, "private key"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            chain: files.chain.clone(),
            key: files.key.clone(),
        },
        source => TlsError::Unusable {
            chain: files.chain.clone(),
            source,
        },
    })?;
    Ok(Served {
        key: Arc::new(key),
        names: Arc::new(names),
    })
}

/// The subject alternative names of a certificate.
fn names(certificate: &CertificateDer<'_>) -> Result<Names, String> {
    use x509_parser::{extensions::GeneralName, prelude::FromDer};
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|error| error.to_string())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let names = names
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    Ok(Names(
        names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into_boxed_str()),
                GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            })
            .collect(),
    ))
}

/// An address as it stands in a canonical host.
fn address(bytes: &[u8]) -> Option<Box<str>> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string().into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(format!("[{}]", std::net::Ipv6Addr::from(v6)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn development(domains: &[&str]) -> (tempfile::TempDir, Development) {
        let folder = tempfile::tempdir().unwrap();
        let domains: Vec<Box<str>> = domains.iter().map(|domain| (*domain).into()).collect();
        let made = Development::make(folder.path(), &domains).unwrap();
        (folder, made)
    }

    #[test]
    fn wildcards_cover_one_label() {
        let names = Names(vec!["*.gitspaces.test".into(), "app.test".into()]);
        assert!(names.cover("a.gitspaces.test") && names.cover("app.test"));
        for other in [
            "gitspaces.test",
            "a.b.gitspaces.test",
            ".gitspaces.test",
            "x.app.test",
        ] {
            assert!(!names.cover(other), "{other}");
        }
    }

    #[test]
    fn the_development_certificate_covers_the_domains_and_is_kept() {
        let (folder, made) = development(&["gitspaces.localhost"]);
        let tls = Tls::new(std::slice::from_ref(&made.certificate)).unwrap();
        let names = tls.names(Some("a.gitspaces.localhost"));
        for host in [
            "a.gitspaces.localhost",
            "gitspaces.localhost",
            "localhost",
            "127.0.0.1",
            "[::1]",
        ] {
            assert!(names.cover(host), "{host}");
        }
        let before = std::fs::read(&made.authority).unwrap();
        let again = Development::make(
            folder.path(),
            &["gitspaces.localhost".into(), "other.test".into()],
        )
        .unwrap();
        assert_eq!(
            std::fs::read(&again.authority).unwrap(),
            before,
            "the CA stays, so trust in it stays"
        );
        assert!(
            Tls::new(&[again.certificate])
                .unwrap()
                .names(None)
                .cover("x.other.test")
        );
    }

    #[test]
    fn sni_picks_the_certificate() {
        let (_one, first) = development(&["one.test"]);
        let (_two, second) = development(&["two.test"]);
        let tls = Tls::new(&[first.certificate, second.certificate]).unwrap();
        assert!(tls.names(Some("a.two.test")).cover("a.two.test"));
        assert!(tls.names(Some("unknown.test")).cover("a.one.test"));
        assert!(tls.names(None).cover("a.one.test"));
    }

    #[test]
    fn a_mismatched_key_and_unreadable_files_are_named() {
        let (_one, first) = development(&["one.test"]);
        let (_two, second) = development(&["two.test"]);
        let mixed = config::Certificate {
            chain: first.certificate.chain.clone(),
            key: second.certificate.key.clone(),
        };
        let error = served(&mixed).unwrap_err().to_string();
        assert!(
            error.contains("does not belong to the certificate"),
            "{error}"
        );
        let missing = config::Certificate {
            chain: "/nowhere.pem".into(),
            key: "/nowhere.key".into(),
        };
        assert!(
            served(&missing)
                .unwrap_err()
                .to_string()
                .contains("/nowhere.pem holds no usable certificate")
        );
    }

    #[test]
    fn a_bad_reload_keeps_the_old_certificates() {
        let (_one, first) = development(&["one.test"]);
        let tls = Tls::new(&[first.certificate]).unwrap();
        let missing = config::Certificate {
            chain: "/nowhere.pem".into(),
            key: "/nowhere.key".into(),
        };
        assert!(tls.reload(&[missing]).is_err());
        assert!(tls.names(None).cover("a.one.test"));
    }
}
