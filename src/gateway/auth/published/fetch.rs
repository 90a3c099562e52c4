//! One fetch of a key set: bounded in time and size, to the configured URL and nowhere else.
//!
//! `https`, or `http` to loopback (the configuration's check says so). No redirect is followed, no cookie kept.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, StatusCode, header::ACCEPT, redirect::Policy};

use crate::gateway::auth::error::Error;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Large issuers publish some ten keys, a few kilobytes.
const MAX: usize = 256 * 1024;

/// Where a set is fetched from, and how.
#[derive(Debug)]
pub(super) struct Source {
    url: Box<str>,
    ca: Option<PathBuf>,
    client: Client,
}

impl Source {
    /// `ca`: the authorities that the issuer's certificate may be of, in place of the system's.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> Result<Self, Error> {
        let mut builder = Client::builder().redirect(Policy::none()).timeout(TIMEOUT);
        // Behind a proxy only TLS tells whose keys these are.
        if !url.starts_with("https:") {
            builder = builder.no_proxy();
        }
        if let Some(path) = ca {
            builder = builder.tls_certs_only(authorities(path)?);
        }
        let client = builder.build().map_err(|error| fetch(url, said(error)))?;
        Ok(Self {
            url: url.into(),
            ca: ca.map(Into::into),
            client,
        })
    }

    pub(super) fn fits(&self, ca: Option<&Path>) -> bool {
        // A changed file is read again with the next reload that names another one, or after a restart.
        self.ca.as_deref() == ca
    }

    pub(super) async fn fetch(&self) -> Result<Vec<u8>, Error> {
        self.body()
            .await
            .map_err(|problem| fetch(&self.url, problem))
    }

    async fn body(&self) -> Result<Vec<u8>, String> {
        let request = self
            .client
            .get(&*self.url)
            .header(ACCEPT, "application/jwk-set+json, application/json");
        let mut answer = request.send().await.map_err(said)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answered {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(said)? {
            if body.len() + piece.len() > MAX {
                return Err(format!("it sent more than {MAX} bytes"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, Error> {
    let pem = fs::read(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::Authorities(path.into())),
    }
}

fn fetch(url: &str, problem: String) -> Error {
    Error::Fetch {
        url: url.into(),
        problem,
    }
}

/// What went wrong, to the last cause. The URL is named beside it.
fn said(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
