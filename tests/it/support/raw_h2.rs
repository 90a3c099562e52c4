//! An HTTP/2 client that writes any frame a test tells it to, and reads what comes back frame by frame.
//!
//! It keeps no rules: no flow control, no state of streams. Header blocks are written literally, or byte by byte by the test.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{Io, TestGateway, client::tls, soon};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags (RFC 9113 §6).
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Error codes (RFC 9113 §7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// How a stream, or its whole connection, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer with this status and body.
    Answer(u16, Vec<u8>),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code, and then the end.
    GoAway(u32),
    /// The end without a word.
    Closed,
}

/// One connection.
pub(crate) struct RawH2 {
    stream: Box<dyn Io>,
    /// The header fields of every request, before those that a test adds.
    base: Vec<(String, String)>,
    /// The code of the GOAWAY that came.
    gone: Option<u32>,
}

impl RawH2 {
    /// TLS only: not a byte of HTTP/2 is sent.
    pub(crate) async fn bare(gateway: &TestGateway, host: &str) -> Self {
        let stream = tls(gateway.https, &gateway.authority(), host, &[b"h2"]).await;
        let token = gateway.owner();
        Self {
            stream: Box::new(stream.unwrap()),
            base: [
                (":scheme", "https"),
                (":authority", host),
                ("x-gitspace-token", &token),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            gone: None,
        }
    }

    /// Preface, SETTINGS without a dynamic table (so that answers are easy to read), and the ACK of the gateway's own.
    pub(crate) async fn connect(gateway: &TestGateway, host: &str) -> Self {
        Self::with_settings(gateway, host, &[]).await
    }

    /// With these settings more.
    pub(crate) async fn with_settings(
        gateway: &TestGateway,
        host: &str,
        settings: &[(u16, u32)],
    ) -> Self {
        let mut client = Self::bare(gateway, host).await;
        let mut bytes = PREFACE.to_vec();
        let mut payload = setting(1, 0);
        settings
            .iter()
            .for_each(|(id, value)| payload.extend(setting(*id, *value)));
        bytes.extend(frame(kind::SETTINGS, 0, 0, &payload));
        bytes.extend(frame(kind::SETTINGS, flag::ACK, 0, b""));
        client.raw(&bytes).await.unwrap();
        client
    }

    /// Writes bytes.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Writes a frame. That the gateway has gone already shows when reading.
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.raw(&frame(kind, flags, stream, payload)).await;
    }

    /// The header block of a request with these fields beside the usual ones.
    pub(crate) fn block(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = literal(":method", method);
        block.extend(literal(":path", path));
        for (name, value) in &self.base {
            block.extend(literal(name, value));
        }
        for (name, value) in fields {
            block.extend(literal(name, value));
        }
        block
    }

    /// Sends a request's head, and its end if there is no body.
    pub(crate) async fn request(
        &mut self,
        stream: u32,
        method: &str,
        fields: &[(&str, &str)],
        end: bool,
    ) {
        let block = self.block(method, "/", fields);
        let end = if end { flag::END_STREAM } else { 0 };
        self.send(kind::HEADERS, flag::END_HEADERS | end, stream, &block)
            .await;
    }

    /// The next frame; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        soon("a frame", self.read()).await
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        };
        if frame.kind == kind::GOAWAY {
            self.gone = Some(number(&frame.payload[4..]));
        }
        Some(frame)
    }

    /// Reads until this stream has ended, or the connection has.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut status, mut body) = (0, Vec::new());
        while let Some(frame) = self.next().await {
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                kind::HEADERS => status = read_status(&frame.payload).unwrap_or(status),
                kind::DATA => {
                    body.extend_from_slice(&frame.payload);
                }
                kind::RST_STREAM => return Outcome::Reset(number(&frame.payload)),
                _ => continue,
            }
            if frame.flags & flag::END_STREAM != 0 {
                return Outcome::Answer(status, body);
            }
        }
        self.gone.map_or(Outcome::Closed, Outcome::GoAway)
    }

    /// Reads until the connection ends, and tells with which code.
    pub(crate) async fn ended(&mut self) -> Outcome {
        let all = async { while self.read().await.is_some() {} };
        soon("the connection's end", all).await;
        self.gone.map_or(Outcome::Closed, Outcome::GoAway)
    }

    /// Whether a new request is answered: the connection lives.
    pub(crate) async fn lives(&mut self, stream: u32) -> bool {
        self.request(stream, "GET", &[], true).await;
        matches!(self.outcome(stream).await, Outcome::Answer(200, _))
    }

    /// The stream, for those who only keep it.
    pub(crate) fn into_stream(self) -> Box<dyn Io> {
        self.stream
    }

    /// Both directions for themselves: floods write while somebody reads.
    pub(crate) fn split(self) -> Halves {
        tokio::io::split(self.stream)
    }
}

/// Both directions of a connection.
pub(crate) type Halves = (ReadHalf<Box<dyn Io>>, WriteHalf<Box<dyn Io>>);

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// One setting (RFC 9113 §6.5.1).
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(value.to_be_bytes());
    bytes
}

/// A field that is not indexed, without Huffman code (RFC 7541 §6.2.2).
pub(crate) fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = vec![0];
    string(&mut bytes, name.as_ref());
    string(&mut bytes, value.as_ref());
    bytes
}

/// A field that goes into the dynamic table (RFC 7541 §6.2.1); 62 is the index of the latest.
pub(crate) fn indexed_literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = literal(name, value);
    bytes[0] = 0x40;
    bytes
}

/// A reference to a table (RFC 7541 §6.1): one byte below 127.
pub(crate) fn reference(index: u8) -> u8 {
    0x80 | index
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut left = text.len();
    if left < 127 {
        bytes.push(left as u8);
    } else {
        bytes.push(127);
        left -= 127;
        while left >= 128 {
            bytes.push((left % 128) as u8 | 128);
            left /= 128;
        }
        bytes.push(left as u8);
    }
    bytes.extend(text);
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

/// The status of an answer's head whose encoder has no dynamic table; none for trailers.
fn read_status(mut block: &[u8]) -> Option<u16> {
    // The table's size may be told first.
    while let [first, rest @ ..] = block
        && first & 0xe0 == 0x20
    {
        block = rest;
    }
    let known = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => Some(known[usize::from(index - 0x88)]),
        // A value for the name of entry 8, Huffman-coded in 3 bytes at most.
        [0x08 | 0x18 | 0x48, length, value @ ..] if length & 0x80 != 0 => {
            let bytes = &value[..usize::from(length & 0x7f)];
            let bits = bytes
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1));
            let bits: Vec<u8> = bits.collect();
            let (mut at, mut status) = (0, 0);
            for _ in 0..3 {
                let (digit, length) = digit(&bits[at..]);
                status = status * 10 + digit;
                at += length;
            }
            Some(status)
        }
        _ => None,
    }
}

/// The Huffman codes of digits (RFC 7541 Appendix B): 0 to 2 have five bits, 3 to 9 six.
fn digit(bits: &[u8]) -> (u16, usize) {
    let read = |count: usize| {
        bits[..count]
            .iter()
            .fold(0, |all, bit| all * 2 + u16::from(*bit))
    };
    match read(5) {
        code @ 0..=2 => (code, 5),
        _ => (read(6) - 25 + 3, 6),
    }
}
