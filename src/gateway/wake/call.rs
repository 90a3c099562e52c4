//! What is asked of the control plane: to start a gitspace for somebody, how its start goes, and to cancel it.
//!
//! `POST /v1/feed/wake`, answered by server-sent events. Bounded in time and size; a connection that is silent is given up.
//!
//! Not here: who may ask (`wake`), what becomes of the answers (`progress`).

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode, header::HeaderName};

use crate::api::{
    Secret,
    gitspace::Event,
    problem::Problem,
    wake::{Cancel, Usual, Wake, WakeState},
};

/// A page waits for the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The control plane says every 15 s that it is there.
const SILENT: Duration = Duration::from_secs(45);
/// The longest event, and the longest refusal.
const EVENT_MAX: usize = 64 * 1024;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The control plane, as far as waking goes.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    client: Client,
    url: String,
    token: Secret,
}

/// Why nothing is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It said no; a sentence for people.
    #[error("the control plane refused: {0}")]
    Refused(String),
    /// It did not answer as it should; for the log.
    #[error("the control plane cannot be asked: {0}")]
    Away(String),
}

impl CallError {
    /// With what a person is answered.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Refused(_) => StatusCode::CONFLICT,
            Self::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What is told to people of what `could not be` done.
    pub(crate) fn sentence(&self, what: &str) -> String {
        match self {
            Self::Refused(why) => format!("It {what}: {why}."),
            Self::Away(_) => {
                format!("It {what}: the control plane does not answer. Try again in a moment.")
            }
        }
    }
}

/// What is told of a start.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    /// How long the steps of a start take.
    Usual(Usual),
    /// Something happened.
    Step(Event),
    /// How it is now.
    State(WakeState),
}

impl Link {
    /// To the control plane at `url`, with the gateway's token.
    pub(crate) fn new(client: Client, url: &str, token: Secret) -> Self {
        let url = format!("{}/v1/feed/wake", url.trim_end_matches('/'));
        Self { client, url, token }
    }

    /// Asks. With an answer the start is committed; `after`: the last event that is known.
    pub(crate) async fn ask(&self, asked: &Wake, after: Option<&str>) -> Result<Events, CallError> {
        let mut request = self.client.post(&self.url).json(asked);
        if let Some(after) = after {
            request = request.header(LAST_EVENT_ID, after);
        }
        self.send(request).await.map(Events::of)
    }

    /// Cancels a start. With an answer that is committed.
    pub(crate) async fn cancel(&self, asked: &Cancel) -> Result<(), CallError> {
        let url = format!("{}/cancel", self.url);
        self.send(self.client.post(url).json(asked)).await.map(drop)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        let request = request.bearer_auth(self.token.reveal());
        let sent = tokio::time::timeout(ANSWER_WITHIN, request.send()).await;
        let sent = sent.map_err(|_| CallError::Away("it does not answer".into()))?;
        let response = sent.map_err(|error| CallError::Away(error.without_url().to_string()))?;
        match response.status() {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(response),
            StatusCode::CONFLICT => Err(CallError::Refused(why(response).await)),
            other => Err(CallError::Away(format!("it answered {other}"))),
        }
    }
}

/// What a refusal says.
async fn why(response: Response) -> String {
    let read = tokio::time::timeout(ANSWER_WITHIN, bounded(response)).await;
    let problem = read
        .ok()
        .and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
    let detail = problem.and_then(|problem| problem.detail);
    detail.unwrap_or_else(|| "its state does not allow it".into())
}

async fn bounded(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > EVENT_MAX {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    body
}

/// Events as they come.
#[derive(Debug)]
pub(crate) struct Events {
    response: Response,
    reader: Reader,
}

impl Events {
    fn of(response: Response) -> Self {
        let reader = Reader::default();
        Self { response, reader }
    }

    /// The next one, with its id. None: there are no more, or nothing is heard of them.
    pub(crate) async fn next(&mut self) -> Option<(Told, Option<String>)> {
        loop {
            if let Some(event) = self.reader.next() {
                return Some(event);
            }
            let chunk = tokio::time::timeout(SILENT, self.response.chunk()).await;
            let chunk = chunk.ok()?.ok()??;
            if !self.reader.feed(&chunk) {
                return None;
            }
        }
    }
}

/// Reads the stream's lines (HTML Living Standard §9.2.6). Events of other names are passed over.
#[derive(Debug, Default)]
struct Reader {
    bytes: Vec<u8>,
    name: String,
    data: String,
    id: Option<String>,
}

impl Reader {
    /// Takes what came; false if an event is too long.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        self.bytes.len() + self.data.len() <= 2 * EVENT_MAX
    }

    fn next(&mut self) -> Option<(Told, Option<String>)> {
        while let Some(end) = memchr::memchr(b'\n', &self.bytes) {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if let Some(told) = self.line(line) {
                return Some(told);
            }
        }
        None
    }

    fn line(&mut self, line: &str) -> Option<(Told, Option<String>)> {
        if line.is_empty() {
            let (name, data) = (
                std::mem::take(&mut self.name),
                std::mem::take(&mut self.data),
            );
            let id = self.id.take();
            let told = match name.as_str() {
                "usual" => Told::Usual(serde_json::from_str(&data).ok()?),
                "step" => Told::Step(serde_json::from_str(&data).ok()?),
                "state" => Told::State(serde_json::from_str(&data).ok()?),
                _ => return None,
            };
            return Some((told, id));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push_str(value),
            "id" => self.id = Some(value.to_owned()),
            // A comment, or what is not known.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::gitspace::State;

    const STREAM: &str = ": alive\n\nevent: step\nid: 7\ndata: {\"time\":\"t\",\"kind\":\"vm_setup_queued\",\"message\":\"m\"}\n\nevent: other\ndata: {}\n\nevent:state\r\ndata:{\"state\":\"running\"}\r\n\r\n";

    #[test]
    fn events_are_read_in_whatever_pieces_they_come() {
        for size in 1..STREAM.len() {
            let mut reader = Reader::default();
            let mut told = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                assert!(reader.feed(piece));
                while let Some(event) = reader.next() {
                    told.push(event);
                }
            }
            assert_eq!(told.len(), 2, "{size}");
            let state = State::Running;
            let running = WakeState {
                state,
                message: None,
            };
            assert_eq!(told[0].1.as_deref(), Some("7"));
            assert_eq!(told[1], (Told::State(running), None));
        }
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut reader = Reader::default();
        let line = format!("data: {}\n", "x".repeat(1000));
        let mut fed = 0;
        while reader.feed(line.as_bytes()) {
            assert_eq!(reader.next(), None);
            fed += line.len();
            assert!(fed < 4 * EVENT_MAX, "it grows without end");
        }
    }
}
