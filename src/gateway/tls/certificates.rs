//! Certificates: read with their keys, found by the name that a client asks for.
//!
//! Not here: which of them a listener serves to whom (`listener`), when they are read again (`watch`).

use std::{collections::HashMap, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use rustls::{
    CipherSuite, SignatureScheme,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};

use super::TlsError;
use crate::config;

/// The names that a certificate covers, in lower case; wildcards cover one label (RFC 6125 §6.4.3).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(Vec<Box<str>>);

impl Names {
    /// Whether a canonical host is covered.
    pub(crate) fn cover(&self, host: &str) -> bool {
        self.0.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => parent_of(host) == Some(parent),
            None => **name == *host,
        })
    }

    /// Only the name that a client asked for, if it is covered; without one, only the addresses, which cannot be asked for.
    pub(super) fn strictly(&self, sni: Option<&str>) -> Self {
        match sni {
            Some(sni) if self.cover(sni) => Self(vec![sni.into()]),
            Some(_) => Self::default(),
            None => Self(self.0.iter().filter(|n| is_address(n)).cloned().collect()),
        }
    }
}

/// What is behind the first label, if there is one.
fn parent_of(host: &str) -> Option<&str> {
    let (label, parent) = host.split_once('.')?;
    (!label.is_empty()).then_some(parent)
}

fn is_address(name: &str) -> bool {
    name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok()
}

/// A certificate with its key and names.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) names: Arc<Names>,
    /// `notAfter`, in seconds since 1970.
    pub(super) not_after: i64,
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key))
    }
}

/// All certificates.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Vec<Arc<Served>>,
    /// Name → certificates that have it, in their order.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// The same without the `*.` of wildcards.
    wildcard: HashMap<Box<str>, Vec<usize>>,
    /// For all other names: the first, and those with the same names.
    default: Vec<usize>,
}

impl Certificates {
    /// Reads them all, or says which one cannot be used.
    pub(super) fn load(files: &[config::Certificate]) -> Result<Self, TlsError> {
        let served = |files| served(files).map(Arc::new);
        let all = files.iter().map(served).collect::<Result<Vec<_>, _>>()?;
        let mut exact = HashMap::<Box<str>, Vec<usize>>::new();
        let mut wildcard = HashMap::<Box<str>, Vec<usize>>::new();
        for (index, served) in all.iter().enumerate() {
            for name in &served.names.0 {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, &**name),
                };
                map.entry(name.into()).or_default().push(index);
            }
        }
        let like_first = |(_, served): &(usize, &Arc<Served>)| served.names == all[0].names;
        let default = all.iter().enumerate().filter(like_first);
        Ok(Self {
            default: default.map(|(index, _)| index).collect(),
            all,
            exact,
            wildcard,
        })
    }

    /// The certificates, in the order of the configuration.
    pub(super) fn all(&self) -> &[Arc<Served>] {
        &self.all
    }

    /// The certificate for a client that asks for `sni`: one that has the name, else one that covers it by a wildcard, else the
    /// default; of several alike the first that the client understands.
    pub(super) fn pick(&self, sni: Option<&str>, offer: &Offer<'_>) -> Option<&Arc<Served>> {
        let named = sni.and_then(|sni| {
            self.exact
                .get(sni)
                .or_else(|| self.wildcard.get(parent_of(sni)?))
        });
        let candidates = named.unwrap_or(&self.default);
        let served = |index: &usize| self.all.get(*index);
        let understood = |served: &&Arc<Served>| offer.understands(&*served.key.key);
        let mut all = candidates.iter().filter_map(served);
        all.find(understood)
            .or_else(|| candidates.first().and_then(served))
    }
}

/// What a client offers, as far as it concerns certificates.
pub(super) struct Offer<'a> {
    pub(super) schemes: &'a [SignatureScheme],
    pub(super) suites: &'a [CipherSuite],
}

impl Offer<'_> {
    /// Whether it can check a signature of this key; in TLS 1.2 its suites have a say in that too.
    fn understands(&self, key: &dyn SigningKey) -> bool {
        let algorithm = key.algorithm();
        let mut ours = rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES.iter();
        let suite = ours.any(|suite| {
            suite.usable_for_signature_algorithm(algorithm) && self.suites.contains(&suite.suite())
        });
        suite && key.choose_scheme(self.schemes).is_some()
    }
}

/// Reads a certificate and its key.
pub(super) fn served(files: &config::Certificate) -> Result<Served, TlsError> {
    let chain = chain(&files.chain)?;
    let unreadable = |problem| TlsError::Certificate {
        chain: files.chain.clone(),
        problem,
    };
    let (names, not_after) = understood(&chain[0]).map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(TlsError::pem(&files.key, "private key"))?;
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
    warn_of_open_key(&files.key);
    Ok(Served {
        key: Arc::new(key),
        names: Arc::new(names),
        not_after,
    })
}

/// All certificates of a PEM file: at least one.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(TlsError::pem(path, "certificate"))?;
    if chain.is_empty() {
        let none = rustls::pki_types::pem::Error::NoItemsFound;
        return Err(TlsError::pem(path, "certificate")(none));
    }
    Ok(chain)
}

/// Some ways to hand out keys cannot but leave them readable, so this is no error.
fn warn_of_open_key(path: &Path) {
    let mode = std::fs::metadata(path).map(|file| file.permissions().mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{mode:o}"),
            "others can read the private key of a certificate; chmod 600 keeps it secret"
        );
    }
}

/// The subject alternative names of a certificate, and its end.
fn understood(certificate: &CertificateDer<'_>) -> Result<(Names, i64), String> {
    use x509_parser::{extensions::GeneralName, prelude::FromDer};
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|error| error.to_string())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let names = names
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into_boxed_str()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    let names = Names(names.iter().filter_map(name).collect());
    Ok((names, certificate.validity().not_after.timestamp()))
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
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256,
    };

    use super::*;

    fn certificate(
        folder: &Path,
        file: &str,
        names: &[&str],
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> config::Certificate {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = CertificateParams::new(names).unwrap().self_signed(&key);
        let files = config::Certificate {
            chain: folder.join(format!("{file}.pem")),
            key: folder.join(format!("{file}.key")),
        };
        std::fs::write(&files.chain, made.unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const TLS13: &[CipherSuite] = &[CipherSuite::TLS13_AES_128_GCM_SHA256];

    fn offer(schemes: &[SignatureScheme]) -> Offer<'_> {
        Offer {
            schemes,
            suites: TLS13,
        }
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
    fn strictly_only_the_name_asked_for_is_covered() {
        let names = Names(vec!["*.a.test".into(), "127.0.0.1".into(), "[::1]".into()]);
        let strict = names.strictly(Some("x.a.test"));
        assert!(
            strict.cover("x.a.test") && !strict.cover("y.a.test") && !strict.cover("127.0.0.1")
        );
        assert_eq!(names.strictly(Some("b.test")), Names::default());
        let strict = names.strictly(None);
        assert!(strict.cover("127.0.0.1") && strict.cover("[::1]") && !strict.cover("x.a.test"));
    }

    #[test]
    fn an_exact_name_beats_an_earlier_wildcard_and_the_first_is_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let make =
            |file, names: &[&str]| certificate(folder.path(), file, names, &PKCS_ECDSA_P256_SHA256);
        let files = [
            make("default", &["default.test"]),
            make("wildcard", &["*.one.test"]),
            make("exact", &["a.one.test", "two.test"]),
        ];
        let certificates = Certificates::load(&files).unwrap();
        let index = |sni| {
            let picked = certificates.pick(sni, &offer(ECDSA)).unwrap();
            certificates
                .all()
                .iter()
                .position(|served| Arc::ptr_eq(served, picked))
        };
        assert_eq!(index(Some("a.one.test")), Some(2));
        assert_eq!(index(Some("b.one.test")), Some(1));
        assert_eq!(index(Some("two.test")), Some(2));
        for other in [
            Some("one.test"),
            Some("x.a.one.test"),
            Some("unknown"),
            None,
        ] {
            assert_eq!(index(other), Some(0), "{other:?}");
        }
    }

    #[test]
    fn of_two_certificates_for_a_name_the_client_gets_the_one_that_it_understands() {
        let folder = tempfile::tempdir().unwrap();
        let names = &["a.test"];
        let files = [
            certificate(folder.path(), "ed25519", names, &PKCS_ED25519),
            certificate(folder.path(), "ecdsa", names, &PKCS_ECDSA_P256_SHA256),
        ];
        let certificates = Certificates::load(&files).unwrap();
        // For a name that neither has, too: both have what the default has.
        for sni in [Some("a.test"), Some("other.test"), None] {
            let picked = |schemes| certificates.pick(sni, &offer(schemes)).unwrap();
            assert!(Arc::ptr_eq(picked(ECDSA), &certificates.all()[1]));
            let both = &[ECDSA[0], SignatureScheme::ED25519];
            assert!(Arc::ptr_eq(picked(both), &certificates.all()[0]));
            assert!(Arc::ptr_eq(picked(&[]), &certificates.all()[0]));
        }
    }

    #[test]
    fn in_tls_1_2_the_suites_have_a_say_in_the_choice() {
        let folder = tempfile::tempdir().unwrap();
        let names = &["a.test"];
        let files = [
            certificate(folder.path(), "ecdsa", names, &PKCS_ECDSA_P256_SHA256),
            certificate(folder.path(), "rsa", names, &PKCS_RSA_SHA256),
        ];
        let certificates = Certificates::load(&files).unwrap();
        let picked = |suite| {
            let offer = Offer {
                schemes: &[ECDSA[0], SignatureScheme::RSA_PSS_SHA256],
                suites: &[suite],
            };
            Arc::clone(certificates.pick(None, &offer).unwrap())
        };
        let ecdsa = picked(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
        assert!(Arc::ptr_eq(&ecdsa, &certificates.all()[0]));
        let rsa = picked(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256);
        assert!(Arc::ptr_eq(&rsa, &certificates.all()[1]));
    }

    #[test]
    fn a_mismatched_key_and_unreadable_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let make = |file| certificate(folder.path(), file, &["a.test"], &PKCS_ECDSA_P256_SHA256);
        let mixed = config::Certificate {
            chain: make("one").chain,
            key: make("two").key,
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
}
