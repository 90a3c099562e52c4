//! WebSocket echo: messages of 64 bytes, a window of them on their way on each connection.
//!
//! The mask is zero, which is legal and leaves the payload as it is; both ends know the length of a frame, so neither
//! needs a parser.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    drive::{Io, Plan},
    h1::{field, read_head},
};

pub(crate) const PAYLOAD: usize = 64;
/// Two bytes of head, four of mask.
pub(crate) const SENT_FRAME: usize = 6 + PAYLOAD;
/// Two bytes of head.
pub(crate) const ECHOED_FRAME: usize = 2 + PAYLOAD;
/// Final binary frame.
pub(crate) const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;

pub(crate) struct Connection {
    io: Io,
    /// As many frames as the window allows.
    frames: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(mut io: Io, plan: &Plan, token: &str) -> anyhow::Result<Self> {
        let host = &plan.host;
        let request = format!(
            "GET /echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nUser-Agent: load\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        io.write_all(request.as_bytes()).await?;
        io.flush().await?;
        let mut buffer = Vec::with_capacity(8192);
        let head = read_head(&mut io, &mut buffer).await?;
        let text = std::str::from_utf8(&buffer[..head]).context("the head is not text")?;
        ensure!(
            text.starts_with("HTTP/1.1 101 "),
            "no upgrade: {}",
            String::from_utf8_lossy(&buffer)
        );
        // The value of RFC 6455 §1.3 for its own example key.
        ensure!(
            field(text, "sec-websocket-accept") == Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "wrong accept: {text}"
        );
        ensure!(
            buffer.len() == head,
            "bytes after the upgrade that nobody asked for"
        );
        let mut frame = [b'x'; SENT_FRAME];
        frame[..6].copy_from_slice(&[BINARY, MASKED | PAYLOAD as u8, 0, 0, 0, 0]);
        Ok(Self {
            io,
            frames: frame.repeat(plan.streams),
            buffer,
        })
    }

    pub(crate) async fn send(&mut self, count: usize) -> anyhow::Result<()> {
        let (mut sent, mut echoed) = (0, 0);
        self.buffer.clear();
        while echoed < count {
            let window = self.frames.len() / SENT_FRAME;
            let now = (count - sent).min(window - (sent - echoed));
            if now > 0 {
                self.io.write_all(&self.frames[..now * SENT_FRAME]).await?;
                self.io.flush().await?;
                sent += now;
            }
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                bail!("the peer closed after {echoed} of {count} echoes");
            }
            let whole = self.buffer.len() / ECHOED_FRAME;
            for frame in self.buffer.chunks_exact(ECHOED_FRAME) {
                ensure!(
                    frame[..2] == [BINARY, PAYLOAD as u8],
                    "not the expected frame: {frame:?}"
                );
            }
            self.buffer.drain(..whole * ECHOED_FRAME);
            echoed += whole;
        }
        Ok(())
    }
}
