//! One call to the control plane or the runner: bearer token, deadline, bounded answer.

use std::time::Duration;

use reqwest::{Client, Method, Response, StatusCode, redirect::Policy};
use serde::{Serialize, de::DeserializeOwned};

use crate::api::{Secret, problem::Problem};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The largest answer.
const ANSWER_MAX: usize = 1024 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("cannot reach the {peer} at {url}; is it running?")]
    Away {
        peer: &'static str,
        url: String,
        source: reqwest::Error,
    },
    #[error("the {peer} at {url} refused our token; check `{key}`")]
    Token {
        peer: &'static str,
        url: String,
        key: &'static str,
    },
    #[error("the {peer} at {url} answered {status}: {title}")]
    Refused {
        peer: &'static str,
        url: String,
        status: StatusCode,
        title: String,
    },
    #[error("the {peer} at {url} gave an answer that cannot be read; are the versions the same?")]
    Answer { peer: &'static str, url: String },
}

impl CallError {
    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Token { .. } => Some(StatusCode::UNAUTHORIZED),
            Self::Away { .. } | Self::Answer { .. } => None,
        }
    }

    /// Whether nothing was asked yet: nobody took the connection.
    pub(super) fn not_asked(&self) -> bool {
        matches!(self, Self::Away { source, .. } if source.is_connect())
    }
}

/// Somebody whom the delegate calls.
pub(super) struct Peer {
    client: Client,
    name: &'static str,
    url: String,
    token: Secret,
    /// The key that names its token.
    key: &'static str,
}

impl Peer {
    pub(super) fn new(
        name: &'static str,
        url: &str,
        token: &Secret,
        key: &'static str,
    ) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            // Tokens go to whom the configuration names, and to nobody whom that one names.
            .redirect(Policy::none());
        let client = match loopback(url) {
            // Whatever proxy the environment names is not for this.
            true => client.no_proxy(),
            false => client,
        };
        Ok(Self {
            client: client.build()?,
            name,
            url: url.trim_end_matches('/').to_owned(),
            token: token.clone(),
            key,
        })
    }

    pub(super) async fn get<A: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<A, CallError> {
        let call = self.call(Method::GET, path, within);
        let response = self.send(call).await?;
        self.json(response).await
    }

    pub(super) async fn ask<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
        within: Duration,
    ) -> Result<A, CallError> {
        let call = self.call(Method::POST, path, within).json(question);
        let response = self.send(call).await?;
        self.json(response).await
    }

    /// Says something that has no answer but a status.
    pub(super) async fn tell<Q: Serialize + Sync>(
        &self,
        path: &str,
        what: &Q,
        within: Duration,
    ) -> Result<(), CallError> {
        let call = self.call(Method::POST, path, within).json(what);
        self.send(call).await.map(drop)
    }

    /// Asks for what may not be there: 204.
    pub(super) async fn fetch<A: DeserializeOwned>(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<Option<A>, CallError> {
        let response = self.send(self.call(Method::POST, path, within)).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            _ => self.json(response).await.map(Some),
        }
    }

    fn call(&self, method: Method, path: &str, within: Duration) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(self.token.reveal())
            .timeout(within)
    }

    async fn send(&self, call: reqwest::RequestBuilder) -> Result<Response, CallError> {
        let response = call.send().await.map_err(|error| self.away(error))?;
        let (peer, url) = (self.name, self.url.clone());
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED => Err(CallError::Token {
                peer,
                url,
                key: self.key,
            }),
            status => {
                let problem = self.json::<Problem>(response).await;
                let title = problem.map_or_else(|_| "no reason given".into(), |found| found.title);
                Err(CallError::Refused {
                    peer,
                    url,
                    status,
                    title,
                })
            }
        }
    }

    async fn json<T: DeserializeOwned>(&self, mut response: Response) -> Result<T, CallError> {
        let unreadable = || CallError::Answer {
            peer: self.name,
            url: self.url.clone(),
        };
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.away(error))? {
            if body.len() + piece.len() > ANSWER_MAX {
                return Err(unreadable());
            }
            body.extend_from_slice(&piece);
        }
        serde_json::from_slice(&body).map_err(|_| unreadable())
    }

    fn away(&self, error: reqwest::Error) -> CallError {
        CallError::Away {
            peer: self.name,
            url: self.url.clone(),
            source: error.without_url(),
        }
    }
}

fn loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_its_address() {
        for near in [
            "http://127.0.0.1:8182",
            "http://[::1]:1/",
            "http://localhost",
        ] {
            assert!(loopback(near), "{near}");
        }
        for far in ["https://cde.example.test", "http://10.0.0.1", "nonsense"] {
            assert!(!loopback(far), "{far}");
        }
    }
}
