//! The host whose routes come by the API of configurable-http-proxy (CHP): what JupyterHub and its like expect there of a proxy.
//!
//! Beside the path: asked where a request ends early. The page of an error comes from a server of theirs, the error target. CHP knows
//! two such ends, 404 where no route is and 503 where its target does not answer, and so do the programs behind it: JupyterLab looks
//! for the 503 of a server that was stopped. The reason is told as ever, in `Proxy-Status` and the log.
//!
//! Not here: the routes (`admin::chp`), what they lead to (`route`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Response, StatusCode, header};
use reqwest::{Client, redirect::Policy};
use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    forward::Body,
    own::encode,
    rejection::{Fault, Rejection, tell},
};
use crate::config;

/// How long the error target has for a page.
const WITHIN: Duration = Duration::from_secs(3);
/// The longest page, in bytes.
const MAX: usize = 256 * 1024;
/// So many pages are asked for at once; whoever comes then gets the gateway's own.
const AT_ONCE: usize = 16;

/// See the module.
pub(crate) struct Chp {
    host: Box<str>,
    errors: Option<Errors>,
}

/// The error target.
struct Errors {
    /// With a slash at its end.
    url: Box<str>,
    client: Client,
    background: Handle,
    at_once: Arc<Semaphore>,
    /// Told once, until it answers again.
    failing: AtomicBool,
}

/// A page that it gave.
struct Given {
    body: Vec<u8>,
    media_type: Option<HeaderValue>,
    encoding: Option<HeaderValue>,
}

/// The status with which an early end is told on the host.
pub(crate) fn status(rejection: &Rejection) -> StatusCode {
    match rejection.fault() {
        Fault::Gitspace => StatusCode::SERVICE_UNAVAILABLE,
        Fault::Client | Fault::Gateway => rejection.status(),
    }
}

impl Chp {
    /// To be called on the background runtime, which asks the error target.
    pub(crate) fn new(config: &config::Chp) -> std::io::Result<Self> {
        let errors = config.error_target.as_deref().map(Errors::new);
        Ok(Self {
            host: config
                .host
                .trim_end_matches('.')
                .to_ascii_lowercase()
                .into(),
            errors: errors.transpose().map_err(std::io::Error::other)?,
        })
    }

    /// Whether its routes are paths of this host.
    pub(crate) fn serves(&self, host: &str) -> bool {
        *self.host == *host
    }

    /// The host.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The error target's page for a request for `path` that ended early. None: it is not asked for this one, or has none.
    pub(crate) async fn page(&self, rejection: &Rejection, path: &str) -> Option<Response<Body>> {
        let errors = self.errors.as_ref()?;
        let status = status(rejection);
        let known =
            matches!(rejection, Rejection::NoSuchGitspace) || rejection.fault() == Fault::Gitspace;
        let given = if known {
            errors.ask(status, path).await?
        } else {
            return None;
        };
        let mut response = Response::new(Body::full(given.body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let html = || HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, given.media_type.unwrap_or_else(html));
        if let Some(encoding) = given.encoding {
            headers.insert(header::CONTENT_ENCODING, encoding);
        }
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        tell(rejection, status, headers);
        Some(response)
    }
}

impl Errors {
    fn new(url: &str) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(WITHIN)
            .build()?;
        Ok(Self {
            url: format!("{}/", url.trim_end_matches('/')).into(),
            client,
            background: Handle::current(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            failing: AtomicBool::new(false),
        })
    }

    /// It is told the status and the path, and nothing else of the request: a query may hold a token.
    async fn ask(&self, status: StatusCode, path: &str) -> Option<Given> {
        let permit = Arc::clone(&self.at_once).try_acquire_owned().ok()?;
        let url = format!("{}{}?url={}", self.url, status.as_u16(), encode(path));
        let client = self.client.clone();
        let asked = self.background.spawn(async move {
            let _permit = permit;
            fetch(&client, &url, status).await
        });
        match asked.await.ok()? {
            Ok(given) => {
                self.failing.store(false, Ordering::Relaxed);
                Some(given)
            }
            Err(problem) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        url = &*self.url,
                        problem,
                        "`gateway.chp.error_target` gives no pages; the gateway's own are shown"
                    );
                }
                None
            }
        }
    }
}

async fn fetch(client: &Client, url: &str, status: StatusCode) -> Result<Given, String> {
    let said = |error: reqwest::Error| error.without_url().to_string();
    let asked = client.get(url).header(header::ACCEPT, "text/html");
    let mut answer = asked.send().await.map_err(said)?;
    let found = answer.status();
    if !found.is_success() && found != status {
        return Err(format!("it answered {found}"));
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(said)? {
        if body.len() + piece.len() > MAX {
            return Err(format!("it sent more than {MAX} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    let field = |name| answer.headers().get(name).cloned();
    Ok(Given {
        body,
        media_type: field(header::CONTENT_TYPE),
        encoding: field(header::CONTENT_ENCODING),
    })
}
