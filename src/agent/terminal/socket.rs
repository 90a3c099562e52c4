//! The WebSocket between page and session. Binary frames are terminal bytes, text frames JSON.
//!
//! First frame from the server: `{"type":"session","id":…,"offset":…}`; it comes again when output was missed. Close codes: 4001 another viewer took over, 4002 no session.

use std::sync::Arc;

use axum::{
    extract::{
        Query, State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use serde::Deserialize;

use super::session::{Input, Next, Session, Sessions, Window};

/// The largest piece of input: a large paste comes in several.
const INPUT_MAX: usize = 1024 * 1024;
const OUTPUT_SIZE: usize = 32 * 1024;
const TAKEN_OVER: u16 = 4001;
const NO_SESSION: u16 = 4002;

/// `GET /ws?session=&after=&cols=&rows=`
#[derive(Debug, Deserialize)]
pub(super) struct Open {
    #[serde(default)]
    session: String,
    #[serde(default)]
    after: u64,
    #[serde(default = "Open::cols")]
    cols: u16,
    #[serde(default = "Open::rows")]
    rows: u16,
}

impl Open {
    fn cols() -> u16 {
        80
    }
    fn rows() -> u16 {
        24
    }
}

/// Text frames from the page.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Control {
    Resize { cols: u16, rows: u16 },
}

/// Opens the socket. A page of another host cannot: what it sends would be typed into a shell.
pub(super) async fn open(
    State(sessions): State<Arc<Sessions>>,
    Query(open): Query<Open>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !same_origin(&headers) {
        return (StatusCode::FORBIDDEN, "the page comes from another host\n").into_response();
    }
    upgrade
        .max_message_size(INPUT_MAX)
        .on_upgrade(move |socket| serve(sessions, open, socket))
}

/// Clients that are no browsers send no Origin.
fn same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    origin.is_some() && origin == host
}

async fn serve(sessions: Arc<Sessions>, open: Open, mut socket: WebSocket) {
    let window = Window {
        cols: open.cols,
        rows: open.rows,
    };
    let session = match sessions.open(&open.session, window) {
        Ok(session) => session,
        Err(error) => return close(&mut socket, NO_SESSION, &error.to_string()).await,
    };
    // A reconnected page has its own size.
    let _ = session.input.send(Input::Resize(window)).await;
    let known = session.id == open.session;
    let (mut sender, receiver) = socket.split();
    tokio::select! {
        () = show(&session, if known { open.after } else { 0 }, &mut sender) => {}
        () = listen(&session, receiver) => {}
        () = sessions.stopping().cancelled() => {}
    }
    let _ = sender.close().await;
}

/// Sends output until the shell ends, the socket breaks or another viewer comes.
async fn show(session: &Session, after: u64, sender: &mut SplitSink<WebSocket, Message>) {
    let mut viewer = session.look();
    let (mut offset, _) = session.read(after, 0);
    if sender.send(position(session, offset)).await.is_err() {
        return;
    }
    loop {
        let sent = match viewer.next(offset, OUTPUT_SIZE).await {
            Next::Output(from, bytes) => {
                if from != offset && sender.send(position(session, from)).await.is_err() {
                    return;
                }
                offset = from + bytes.len() as u64;
                sender.send(Message::Binary(bytes.into())).await
            }
            Next::Exit(code) => {
                let _ = sender
                    .send(text(&serde_json::json!({ "type": "exit", "code": code })))
                    .await;
                return;
            }
            Next::TakenOver => {
                let frame = CloseFrame {
                    code: TAKEN_OVER,
                    reason: "opened in another window".into(),
                };
                let _ = sender.send(Message::Close(Some(frame))).await;
                return;
            }
        };
        if sent.is_err() {
            return;
        }
        viewer.saw(offset);
    }
}

/// Takes input until the socket ends. A shell that does not read makes the socket wait.
async fn listen(session: &Session, mut receiver: SplitStream<WebSocket>) {
    while let Some(Ok(message)) = receiver.next().await {
        let input = match message {
            Message::Binary(bytes) => Input::Bytes(bytes),
            Message::Text(text) => match control(&text) {
                Some(input) => input,
                None => continue,
            },
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return,
        };
        if session.input.send(input).await.is_err() {
            // The shell has ended; `show` still has its last words.
            return std::future::pending().await;
        }
    }
}

/// An unknown or malformed message is ignored: a newer page may say more than we know.
fn control(text: &str) -> Option<Input> {
    match serde_json::from_str(text).ok()? {
        Control::Resize { cols, rows } => Some(Input::Resize(Window { cols, rows })),
    }
}

/// Where the output that follows begins.
fn position(session: &Session, offset: u64) -> Message {
    text(&serde_json::json!({ "type": "session", "id": session.id, "offset": offset }))
}

fn text(value: &serde_json::Value) -> Message {
    Message::Text(Utf8Bytes::from(value.to_string()))
}

async fn close(socket: &mut WebSocket, code: u16, reason: &str) {
    // A close frame holds at most 123 bytes of reason (RFC 6455 §5.5).
    let reason: String = reason.chars().take(100).collect();
    let frame = CloseFrame {
        code,
        reason: Utf8Bytes::from(reason),
    };
    let _ = socket.send(Message::Close(Some(frame))).await;
}
