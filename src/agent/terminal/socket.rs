//! The WebSocket between page and session. Binary frames are terminal bytes, text frames JSON.
//!
//! First frame from the server: `{"type":"session","id":…,"offset":…}`; it comes again when output was missed. Last:
//! `{"type":"exit","code":…}`. From the page: `{"type":"resize","cols":…,"rows":…}`. Close codes: 1000 the shell ended, 1001 the
//! server stops, 4001 another viewer took over (the newer one wins), 4002 no session.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{
        Query, State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::{
    session::{Next, Session, Viewer},
    sessions::Sessions,
    shell::Window,
};

/// The largest piece of input: a large paste comes in several.
const INPUT_MAX: usize = 1024 * 1024;
/// By this name the gateway knows that binary frames from the page are typed.
const PROTOCOL: &str = "terminal.gitspace";
const OUTPUT_SIZE: usize = 32 * 1024;
const TAKEN_OVER: u16 = 4001;
const NO_SESSION: u16 = 4002;
const FAREWELL: Duration = Duration::from_secs(2);

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
        .protocols([PROTOCOL])
        .max_message_size(INPUT_MAX)
        .max_frame_size(INPUT_MAX)
        .on_upgrade(move |socket| Arc::clone(&sessions).tracked(serve(sessions, open, socket)))
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

/// How a viewer's socket came to its end.
enum End {
    /// It told the exit code; the shell has ended.
    Exit,
    /// The page went away, or went silent.
    Gone,
    TakenOver,
    Stopping,
}

async fn serve(sessions: Arc<Sessions>, open: Open, socket: WebSocket) {
    let window = Window {
        cols: open.cols,
        rows: open.rows,
    };
    let (mut sender, mut receiver) = socket.split();
    let session = match sessions.open(&open.session, window) {
        Ok(session) => session,
        Err(error) => {
            let reason = error.to_string();
            return close(&mut sender, &mut receiver, NO_SESSION, &reason).await;
        }
    };
    // A reconnected page has its own size.
    session.window.send_replace(window);
    let known = session.id == open.session;
    let after = if known { open.after } else { 0 };
    let ping = sessions.settings().ping;
    let mut viewer = session.look();
    let replaced = viewer.replaced();
    // A socket that takes nothing more must not hold up the rest.
    let end = tokio::select! {
        end = show(&session, &mut viewer, after, ping, &mut sender) => end,
        () = listen(&session, ping, &mut receiver) => End::Gone,
        () = replaced => End::TakenOver,
        () = sessions.stopping().cancelled() => End::Stopping,
    };
    // From here on nobody looks, however long the farewell takes.
    drop(viewer);
    let (code, reason) = match end {
        End::Gone => return,
        End::Exit => (close_code::NORMAL, "the shell ended"),
        End::TakenOver => (TAKEN_OVER, "opened in another window"),
        End::Stopping => (close_code::AWAY, "the server stops"),
    };
    close(&mut sender, &mut receiver, code, reason).await;
}

/// Sends output until the shell ends or the socket breaks, and asks whether somebody is there.
async fn show(
    session: &Session,
    viewer: &mut Viewer<'_>,
    after: u64,
    ping: Duration,
    sender: &mut SplitSink<WebSocket, Message>,
) -> End {
    let (mut offset, _) = session.read(after, 0);
    if sender.send(position(session, offset)).await.is_err() {
        return End::Gone;
    }
    let mut pings = interval_at(Instant::now() + ping, ping);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = viewer.next(offset, OUTPUT_SIZE) => Some(next),
            _ = pings.tick() => None,
        };
        let sent = match next {
            None => sender.send(Message::Ping(Bytes::new())).await,
            Some(Next::Output(from, bytes)) => {
                if from != offset && sender.send(position(session, from)).await.is_err() {
                    return End::Gone;
                }
                offset = from + bytes.len() as u64;
                let sent = sender.send(Message::Binary(bytes.into())).await;
                viewer.saw(offset);
                sent
            }
            Some(Next::Exit(code)) => {
                let exit = text(&serde_json::json!({ "type": "exit", "code": code }));
                let sent = sender.send(exit).await;
                return if sent.is_ok() { End::Exit } else { End::Gone };
            }
        };
        if sent.is_err() {
            return End::Gone;
        }
    }
}

/// Takes input until the socket ends or is silent for three pings. A shell that does not read makes the socket wait.
async fn listen(session: &Session, ping: Duration, receiver: &mut SplitStream<WebSocket>) {
    while let Ok(Some(Ok(message))) = timeout(3 * ping, receiver.next()).await {
        match message {
            Message::Binary(bytes) => {
                if session.input.send(bytes).await.is_err() {
                    // The shell has ended; `show` still has its last words.
                    return std::future::pending().await;
                }
            }
            Message::Text(text) => control(session, &text),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return,
        }
    }
}

/// An unknown or malformed message is ignored: a newer page may say more than we know.
fn control(session: &Session, text: &str) {
    if let Ok(Control::Resize { cols, rows }) = serde_json::from_str(text) {
        session.window.send_replace(Window { cols, rows });
    }
}

/// Where the output that follows begins.
fn position(session: &Session, offset: u64) -> Message {
    text(&serde_json::json!({ "type": "session", "id": session.id, "offset": offset }))
}

fn text(value: &serde_json::Value) -> Message {
    Message::Text(Utf8Bytes::from(value.to_string()))
}

/// Says why, and waits for the answer, but not long: what is still unread would else cut the farewell off.
async fn close(
    sender: &mut SplitSink<WebSocket, Message>,
    receiver: &mut SplitStream<WebSocket>,
    code: u16,
    reason: &str,
) {
    // A close frame holds at most 123 bytes of reason (RFC 6455 §5.5).
    let reason = &reason[..reason.floor_char_boundary(123)];
    let frame = CloseFrame {
        code,
        reason: Utf8Bytes::from(reason),
    };
    let farewell = async {
        if sender.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = receiver.next().await {}
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
}
