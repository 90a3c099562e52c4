//! The development certificate: a CA and a leaf, made on first start where no certificate is configured.
//!
//! The CA is kept, so that a browser needs to trust it once; the leaf is made anew when names change or its time runs out. Both
//! keys stay in the state folder, mode 0600.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::TlsError;
use crate::config;

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_DAYS: u32 = 3650;
/// Browsers refuse leaves that hold longer than 398 days.
const LEAF_DAYS: u32 = 90;
const RENEW_BEFORE_DAYS: u32 = 30;

/// Where the development CA and leaf are.
#[derive(Debug, Clone)]
pub(crate) struct Development {
    /// The CA's certificate: what a client has to trust.
    pub(crate) authority: PathBuf,
    /// The leaf.
    pub(crate) certificate: config::Certificate,
}

impl Development {
    /// Makes what is missing in `folder`.
    pub(crate) fn make(folder: &Path, domains: &[Box<str>]) -> Result<Self, TlsError> {
        make(folder, domains).map_err(|source| TlsError::Development {
            path: folder.to_owned(),
            source,
        })
    }
}

fn make(folder: &Path, domains: &[Box<str>]) -> io::Result<Development> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let made = Development {
        authority: folder.join("ca.pem"),
        certificate: config::Certificate {
            chain: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        },
    };
    let authority_key = folder.join("ca.key");
    if !(made.authority.exists() && authority_key.exists()) {
        let authority = authority().map_err(io::Error::other)?;
        write(&authority_key, &authority.key().serialize_pem())?;
        write(&made.authority, &authority.pem())?;
        let _ = fs::remove_file(&made.certificate.chain);
    }
    let names = names(domains);
    if !current(&made.certificate, &names) {
        let key =
            KeyPair::from_pem(&fs::read_to_string(&authority_key)?).map_err(io::Error::other)?;
        let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(&made.authority)?, key)
            .map_err(io::Error::other)?;
        let (chain, key) = leaf(&issuer, &names).map_err(io::Error::other)?;
        write(&made.certificate.key, &key)?;
        write(&made.certificate.chain, &chain)?;
    }
    Ok(made)
}

/// Every domain and what is below it, and the machine's own names.
fn names(domains: &[Box<str>]) -> Vec<String> {
    let mut names: Vec<String> = domains
        .iter()
        .flat_map(|domain| [domain.to_string(), format!("*.{domain}")])
        .collect();
    names.extend(["localhost", "127.0.0.1", "::1"].map(String::from));
    names
}

/// Whether the leaf is there, covers the names and holds for a while.
fn current(certificate: &config::Certificate, names: &[String]) -> bool {
    let Ok(served) = super::certificates::served(certificate) else {
        return false;
    };
    let covered = |name: &String| {
        let host = name.replacen('*', "any", 1);
        let host = if host.contains("::") {
            format!("[{host}]")
        } else {
            host
        };
        served.names.cover(&host)
    };
    names.iter().all(covered) && fresh(&certificate.chain)
}

fn fresh(chain: &Path) -> bool {
    let age = fs::metadata(chain)
        .and_then(|meta| meta.modified())
        .map(|made| made.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age < DAY * (LEAF_DAYS - RENEW_BEFORE_DAYS))
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = params(Vec::new(), CA_DAYS, "cde-gateway development CA")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn leaf(issuer: &Issuer<'_, KeyPair>, names: &[String]) -> Result<(String, String), rcgen::Error> {
    let mut params = params(names.to_vec(), LEAF_DAYS, "cde-gateway development")?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn params(
    names: Vec<String>,
    days: u32,
    common_name: &str,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    // A clock may be a little behind ours.
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}

/// Writes a file that only we may read, whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    use io::Write;
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_development_certificate_covers_the_domains_and_its_ca_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let make = |domains: &[&str]| {
            let domains: Vec<Box<str>> = domains.iter().map(|domain| (*domain).into()).collect();
            let made = Development::make(folder.path(), &domains).unwrap();
            let served = super::super::certificates::served(&made.certificate).unwrap();
            (fs::read(&made.authority).unwrap(), served.names)
        };
        let (authority, names) = make(&["gitspaces.localhost"]);
        for host in [
            "a.gitspaces.localhost",
            "gitspaces.localhost",
            "localhost",
            "127.0.0.1",
            "[::1]",
        ] {
            assert!(names.cover(host), "{host}");
        }
        let (again, names) = make(&["gitspaces.localhost", "other.test"]);
        assert_eq!(again, authority, "the CA stays, so trust in it stays");
        assert!(names.cover("x.other.test"));
    }
}
