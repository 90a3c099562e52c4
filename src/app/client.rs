//! The control plane's REST API as its users call it: for `gitspace …` and for the demo.
//!
//! Not here: how answers are printed (`cli`).

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep};

use crate::api::{
    GitspaceId, Secret,
    activity::Used,
    gitspace::{CreateGitspace, Event, Gitspace, State, Ticket, TicketRequest},
    problem::Problem,
    revocation::{Revocation, Revoked},
    stream::{EndStreams, Ended, Stream, Which},
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Steps come fast at first; a long clone need not be asked about forty times a second.
const POLL_FIRST: Duration = Duration::from_millis(25);
const POLL_LAST: Duration = Duration::from_millis(500);
/// What is read of an answer at most: a list of some ten thousand gitspaces.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// Why a call was not answered as wished.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer.
    #[error("{who} at {url} cannot be reached")]
    Unreachable {
        /// What was looked for.
        who: &'static str,
        /// Where it was looked for.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// An answer that says no.
    #[error("{}", told(.0))]
    Refused(Problem),
    /// An answer that is none of ours.
    #[error("{url} answered {status}, which is not what {who} answers")]
    Unexpected {
        /// What was looked for.
        who: &'static str,
        /// Who answered.
        url: String,
        /// What.
        status: StatusCode,
    },
    /// It went another way than waited for.
    #[error("{id} is in state {state}{}", why(message))]
    Ended {
        /// Which gitspace.
        id: String,
        /// Its state.
        state: State,
        /// What the control plane says of it.
        message: Option<String>,
    },
    /// It took too long.
    #[error("{id} is still in state {state} after {} s", after.as_secs())]
    Timeout {
        /// Which gitspace.
        id: String,
        /// Its state.
        state: State,
        /// How long it was waited for.
        after: Duration,
    },
}

fn told(problem: &Problem) -> String {
    match &problem.detail {
        Some(detail) => format!("{}: {detail}", problem.title),
        None => problem.title.clone(),
    }
}

fn why(message: &Option<String>) -> String {
    message
        .as_ref()
        .map(|message| format!(": {message}"))
        .unwrap_or_default()
}

/// A caller of the API.
#[derive(Debug, Clone)]
pub struct Client {
    who: &'static str,
    http: reqwest::Client,
    url: String,
    token: Secret,
}

impl Client {
    /// A caller of the control plane at `url`.
    pub fn new(url: &str, token: Secret) -> Result<Self, ClientError> {
        Self::of("the control plane", url, token)
    }

    /// A caller of a gateway's admin API at `url`.
    pub fn admin(url: &str, token: Secret) -> Result<Self, ClientError> {
        Self::of("the gateway's admin API", url, token)
    }

    fn of(who: &'static str, url: &str, token: Secret) -> Result<Self, ClientError> {
        let url = url.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("cde-gateway/", env!("CARGO_PKG_VERSION")));
        // A proxy for the internet does not lead to this machine.
        let http = if is_loopback(&url) {
            http.no_proxy()
        } else {
            http
        };
        let http = http.build().map_err(|source| ClientError::Unreachable {
            who,
            url: url.clone(),
            source,
        })?;
        Ok(Self {
            who,
            http,
            url,
            token,
        })
    }

    /// Makes a gitspace.
    pub async fn create(&self, asked: &CreateGitspace) -> Result<Gitspace, ClientError> {
        self.json(Method::POST, "/v1/gitspaces", Some(asked)).await
    }

    /// All gitspaces of the user.
    pub async fn list(&self) -> Result<Vec<Gitspace>, ClientError> {
        self.json(Method::GET, "/v1/gitspaces", NONE).await
    }

    /// One gitspace.
    pub async fn show(&self, id: &str) -> Result<Gitspace, ClientError> {
        self.json(Method::GET, &path(id, ""), NONE).await
    }

    /// Starts it; it is then on its way.
    pub async fn start(&self, id: &str) -> Result<Gitspace, ClientError> {
        self.json(Method::POST, &path(id, "/start"), NONE).await
    }

    /// Stops it; it is then on its way.
    pub async fn stop(&self, id: &str) -> Result<Gitspace, ClientError> {
        self.json(Method::POST, &path(id, "/stop"), NONE).await
    }

    /// Deletes it; it is then on its way.
    pub async fn delete(&self, id: &str) -> Result<(), ClientError> {
        let (status, body) = self.call(Method::DELETE, &path(id, ""), NONE).await?;
        match status.is_success() {
            true => Ok(()),
            false => Err(self.refused(status, &body)),
        }
    }

    /// A URL that opens its IDE, or a port of it, once.
    pub async fn ticket(&self, id: &str, port: Option<u16>) -> Result<Ticket, ClientError> {
        let asked = TicketRequest { port };
        self.json(Method::POST, &path(id, "/ticket"), Some(&asked))
            .await
    }

    /// Waits until it is in state `wanted`; `step` gets every step as it happens.
    pub async fn wait_for(
        &self,
        id: &str,
        wanted: State,
        patience: Duration,
        mut step: impl FnMut(&Event),
    ) -> Result<Gitspace, ClientError> {
        let begun = Instant::now();
        let mut pause = POLL_FIRST;
        let mut told: Vec<Event> = Vec::new();
        loop {
            let gitspace = self.show(id).await?;
            let news = match gitspace.events.starts_with(&told) {
                true => &gitspace.events[told.len()..],
                false => &gitspace.events,
            };
            news.iter().for_each(&mut step);
            told.clone_from(&gitspace.events);
            let state = gitspace.state;
            if state == wanted {
                return Ok(gitspace);
            }
            let busy = matches!(state, State::Starting | State::Stopping | State::Cleaning);
            if !busy {
                return Err(ClientError::Ended {
                    id: id.to_owned(),
                    state,
                    message: gitspace.message,
                });
            }
            if begun.elapsed() >= patience {
                return Err(ClientError::Timeout {
                    id: id.to_owned(),
                    state,
                    after: patience,
                });
            }
            sleep(pause).await;
            pause = (pause * 5 / 4).min(POLL_LAST);
        }
    }

    /// Waits until it is gone.
    pub async fn wait_gone(&self, id: &str, patience: Duration) -> Result<(), ClientError> {
        // No gitspace is in this state after its delete: either it is gone, or it failed.
        let waited = self.wait_for(id, State::Running, patience, |_| {}).await;
        match waited {
            Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(()),
            Err(ClientError::Ended {
                state: State::Uninitialized,
                ..
            }) => Ok(()),
            Err(error) => Err(error),
            Ok(gitspace) => Err(ClientError::Ended {
                id: id.to_owned(),
                state: gitspace.state,
                message: gitspace.message,
            }),
        }
    }

    /// What is under way at a gateway.
    pub async fn streams(&self, which: &Which) -> Result<Vec<Stream>, ClientError> {
        let query = serde_urlencoded::to_string(which).unwrap_or_default();
        let path = format!("/v1/streams?{query}");
        self.json(Method::GET, &path, NONE).await
    }

    /// How gitspaces of a gateway are used: one of them, or all.
    pub async fn activity(&self, gitspace: Option<&GitspaceId>) -> Result<Vec<Used>, ClientError> {
        let which = gitspace.map_or_else(String::new, |one| format!("?gitspace={one}"));
        let path = format!("/v1/activity{which}");
        self.json(Method::GET, &path, NONE).await
    }

    /// Ends streams of a gateway.
    pub async fn end_streams(&self, asked: &EndStreams) -> Result<Ended, ClientError> {
        self.json(Method::POST, "/v1/streams/end", Some(asked))
            .await
    }

    /// Revokes at a gateway, which tells how far that reaches.
    pub async fn revoke(&self, revocation: &Revocation) -> Result<Revoked, ClientError> {
        self.json(Method::POST, "/v1/revocations", Some(revocation))
            .await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let (status, body) = self.call(method, path, body).await?;
        if !status.is_success() {
            return Err(self.refused(status, &body));
        }
        serde_json::from_slice(&body).map_err(|_| self.unexpected(status))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let unreachable = |source: reqwest::Error| ClientError::Unreachable {
            who: self.who,
            url: self.url.clone(),
            source: source.without_url(),
        };
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(self.token.reveal());
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut read = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            read.extend_from_slice(&chunk);
            if read.len() > ANSWER_MAX {
                return Err(self.unexpected(status));
            }
        }
        Ok((status, read))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice(body) {
            Ok(problem) => ClientError::Refused(problem),
            Err(_) => self.unexpected(status),
        }
    }

    fn unexpected(&self, status: StatusCode) -> ClientError {
        ClientError::Unexpected {
            who: self.who,
            url: self.url.clone(),
            status,
        }
    }
}

const NONE: Option<&()> = None;

/// The path of a gitspace. An identifier is a DNS label; whatever else is asked for leads to one that cannot be.
fn path(id: &str, below: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    match !id.is_empty() && id.chars().all(plain) {
        true => format!("/v1/gitspaces/{id}{below}"),
        false => format!("/v1/gitspaces/-{below}"),
    }
}

fn is_loopback(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["127.", "[::1]", "localhost"]
        .iter()
        .any(|local| authority.starts_with(local))
}
