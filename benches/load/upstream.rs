//! The upstream behind every peer: 200 bytes for a request, an echo for a WebSocket. As lean as it can be, because it
//! shares a core with the generator.

use std::net::SocketAddr;

use anyhow::ensure;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    h1::field,
    websocket::{BINARY, ECHOED_FRAME, PAYLOAD, SENT_FRAME},
};

const BODY: usize = 200;
/// A request head beyond this is a mistake of the set-up.
const HEAD: usize = 32 * 1024;

pub(crate) async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A peer that closes, or a request that is too long, ends its own connection only.
        tokio::spawn(async move { connection(stream).await });
    }
}

async fn connection(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY}\r\n\r\n{}",
        "x".repeat(BODY)
    );
    let mut buffer = Vec::with_capacity(8192);
    while stream.read_buf(&mut buffer).await? > 0 {
        ensure!(buffer.len() < HEAD, "the head is too long");
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end])?;
        if let Some(key) = field(head, "sec-websocket-key") {
            let accept = accept(key);
            let rest = buffer.split_off(end + 4);
            return websocket(stream, rest, &accept).await;
        }
        buffer.drain(..end + 4);
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

async fn websocket(mut stream: TcpStream, mut buffer: Vec<u8>, accept: &str) -> anyhow::Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut echo = Vec::with_capacity(64 * ECHOED_FRAME);
    while stream.read_buf(&mut buffer).await? > 0 {
        let frames = buffer.chunks_exact(SENT_FRAME);
        let whole = frames.len() * SENT_FRAME;
        for frame in frames {
            echo.extend_from_slice(&[BINARY, PAYLOAD as u8]);
            echo.extend_from_slice(&frame[6..]);
        }
        buffer.drain(..whole);
        stream.write_all(&echo).await?;
        echo.clear();
    }
    Ok(())
}

/// RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}
