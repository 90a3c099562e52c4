//! HTTP/1.1 on a kept connection: one request written at once, its answer read by length. No HTTP library, so that the
//! generator's core has time to keep the peer busy.

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::drive::Io;

pub(crate) struct Connection {
    io: Io,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(io: Io, host: &str, token: &str) -> Self {
        let request = format!(
            "GET /load HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             User-Agent: load\r\nAccept: */*\r\n\r\n"
        );
        Self {
            io,
            request: request.into_bytes(),
            buffer: Vec::with_capacity(4096),
        }
    }

    pub(crate) async fn send(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            self.io.write_all(&self.request).await?;
            self.io.flush().await?;
            self.answer().await?;
        }
        Ok(())
    }

    async fn answer(&mut self) -> anyhow::Result<()> {
        self.buffer.clear();
        let head = read_head(&mut self.io, &mut self.buffer).await?;
        let text = std::str::from_utf8(&self.buffer[..head]).context("the head is not text")?;
        if !text.starts_with("HTTP/1.1 200 ") {
            bail!(
                "not the expected answer: {}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
        let length = field(text, "content-length").context("no Content-Length in the answer")?;
        let whole = head
            + length
                .parse::<usize>()
                .context("Content-Length is no number")?;
        while self.buffer.len() < whole {
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                bail!("the peer closed within a body");
            }
        }
        Ok(())
    }
}

/// Reads until the head is there and returns its length; what came after it stays in the buffer.
pub(crate) async fn read_head(io: &mut Io, buffer: &mut Vec<u8>) -> anyhow::Result<usize> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(end + 4);
        }
        if io.read_buf(buffer).await? == 0 {
            bail!("the peer closed before it answered");
        }
    }
}

pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
