//! The files that the configuration names: there and readable, before anything starts.
//!
//! Not here: what is in them. Certificates and keys are understood by `gateway`, which also checks them.

use std::{fs::File, io::Read, path::Path};

use super::{Finding, Findings};
use crate::config::{Config, Role};

/// The shortest secret for HS256 (RFC 7518 §3.2: as long as the hash).
const SECRET_MIN: usize = 32;

/// Looks at every file that must be there.
pub(in crate::config) fn files(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    if !config.runs(Role::Gateway) {
        return findings.0;
    }
    let gateway = &config.gateway;
    for (index, certificate) in gateway.certificate.iter().enumerate() {
        let key = format!("gateway.certificate[{index}]");
        readable(&format!("{key}.chain"), &certificate.chain, &mut findings);
        readable(&format!("{key}.key"), &certificate.key, &mut findings);
    }
    for (index, listen) in gateway.listen.iter().enumerate() {
        if let Some(path) = &listen.client_ca {
            let key = format!("gateway.listen[{index}].client_ca");
            readable(&key, path, &mut findings);
        }
    }
    for (index, issuer) in gateway.issuer.iter().enumerate() {
        let key = format!("gateway.issuer[{index}]");
        if let Some(path) = &issuer.jwks_file {
            readable(&format!("{key}.jwks_file"), path, &mut findings);
        }
        if let Some(path) = &issuer.jwks_ca_file {
            readable(&format!("{key}.jwks_ca_file"), path, &mut findings);
        }
        for (index, single) in issuer.key.iter().enumerate() {
            let key = format!("{key}.key[{index}]");
            if let Some(path) = &single.public_key_file {
                readable(&format!("{key}.public_key_file"), path, &mut findings);
            }
            if let Some(path) = &single.secret_file {
                secret(&format!("{key}.secret_file"), path, &mut findings);
            }
        }
    }
    if let Some(path) = &gateway.routes_file {
        readable("gateway.routes_file", path, &mut findings);
    }
    for (index, route) in config.route.iter().enumerate() {
        let own = ("tls_ca".to_owned(), &route.tls_ca);
        let ports = route.ports.iter();
        let ports = ports.map(|(number, port)| (format!("ports.{number}.tls_ca"), &port.tls_ca));
        for (key, path) in ports.chain([own]) {
            if let Some(path) = path {
                readable(&format!("route[{index}].{key}"), path, &mut findings);
            }
        }
    }
    findings.0
}

/// The file's first bytes, or a finding.
fn readable(key: &str, path: &Path, findings: &mut Findings) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut start));
    match read {
        Ok(0) => findings.add(
            key,
            format!("is {}, which is empty", path.display()),
            "write its content, or name another file",
        ),
        Ok(_) => return Some(start),
        Err(error) => findings.add(
            key,
            format!("is {}, which cannot be read: {error}", path.display()),
            "name a file that this user can read; relative paths start at the folder of the configuration",
        ),
    }
    None
}

fn secret(key: &str, path: &Path, findings: &mut Findings) {
    let Some(content) = readable(key, path, findings) else {
        return;
    };
    let length = content.trim_ascii_end().len();
    if length < SECRET_MIN {
        findings.add(
            key,
            format!(
                "is {}, whose secret has {length} bytes; {SECRET_MIN} or more are accepted",
                path.display()
            ),
            "make one with `openssl rand -base64 48`, and give it to the issuer too",
        );
    }
}
