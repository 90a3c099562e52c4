//! A client that writes what a test tells it to, byte by byte, and reads answers strictly.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{HOST, secret, soon};

/// A byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One connection.
pub(crate) struct Client {
    stream: BufReader<Box<dyn Io>>,
    host: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The one value of a field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.all(name).into_iter();
        let first = values.next();
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        first
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The stable reason: the same in `Proxy-Status` and the problem.
    #[track_caller]
    pub(crate) fn reason(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        let reason = problem["reason"].as_str().unwrap().to_owned();
        let status = self.header("proxy-status").unwrap();
        assert!(
            status.starts_with("cde-gateway; error=")
                && status.ends_with(&format!("; details=\"{reason}\"")),
            "{status}"
        );
        assert_eq!(self.header("cache-control"), Some("no-store"));
        reason
    }

    /// Status and reason, of an answer that is the gateway's.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.reason())
    }

    /// The session cookie that it sets, as a `Cookie` value.
    pub(crate) fn session(&self) -> Option<String> {
        let cookies = self.all("set-cookie");
        let ours = cookies
            .iter()
            .find(|value| value.starts_with("__Host-gitspace="))?;
        let ours = ours.split(';').next().unwrap();
        secret(ours.split_once('=').unwrap().1);
        Some(ours.to_owned())
    }
}

impl Client {
    /// Over TCP.
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        let stream = soon("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(Box::new(stream))
    }

    /// Over TLS, asking for `host` by SNI, trusting `ca`.
    pub(crate) async fn tls(address: SocketAddr, ca: &Path, host: &str) -> Self {
        let stream = tls(address, ca, host, &[b"http/1.1"]).await.unwrap();
        let mut client = Self::over(Box::new(stream));
        client.host = host.into();
        client
    }

    /// Over a stream of the test's own.
    pub(crate) fn over(stream: Box<dyn Io>) -> Self {
        Self {
            stream: BufReader::new(stream),
            host: HOST.into(),
        }
    }

    /// The host that requests name if they name none.
    pub(crate) fn to(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// The stream, for those who speak something else on it.
    pub(crate) fn into_stream(self) -> Box<dyn Io> {
        assert!(self.stream.buffer().is_empty());
        self.stream.into_inner()
    }

    /// Writes these bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Ends our direction.
    pub(crate) async fn shut(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(crate) async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", target, headers, b"").await
    }

    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.begin(method, target, headers, body).await;
        self.answer_to(method).await.unwrap()
    }

    /// Sends a request and does not wait.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let named = headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !named {
            head.push_str(&format!("host: {}\r\n", self.host));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        // A peer may answer and close before it has read all: the answer tells.
        let _ = self.try_send(bytes).await;
    }

    /// The next answer; an error if it is cut.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        self.answer_to("GET").await
    }

    pub(crate) async fn answer_to(&mut self, method: &str) -> io::Result<Answer> {
        soon("an answer", async {
            let mut answer = self.head().await?;
            if method != "HEAD" && !matches!(answer.status, 100..=199 | 204 | 304) {
                answer.body = self.body(&answer).await?;
            }
            Ok(answer)
        })
        .await
    }

    /// The next answer's head; its body is left to be read.
    pub(crate) async fn head(&mut self) -> io::Result<Answer> {
        let line = self.line().await?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Answer {
            status,
            headers,
            body: Vec::new(),
        })
    }

    async fn body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if let Some(length) = answer.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.stream.read_exact(&mut body).await?;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().await?, 16).unwrap();
                let start = body.len();
                body.resize(start + size, 0);
                self.stream.read_exact(&mut body[start..]).await?;
                self.line().await?;
                if size == 0 {
                    break;
                }
            }
        } else {
            self.stream.read_to_end(&mut body).await?;
        }
        Ok(body)
    }

    /// The next chunk of a body that goes on; empty at its end.
    pub(crate) async fn chunk(&mut self) -> String {
        let chunk = async {
            let size = usize::from_str_radix(&self.line().await?, 16).unwrap();
            let mut bytes = vec![0; size];
            self.stream.read_exact(&mut bytes).await?;
            self.line().await?;
            io::Result::Ok(String::from_utf8(bytes).unwrap())
        };
        soon("a chunk", chunk).await.unwrap()
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Some bytes of what comes.
    pub(crate) async fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        soon("bytes", self.stream.read_exact(&mut bytes)).await?;
        Ok(bytes)
    }

    /// Waits for the end of the connection, whatever still comes.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset ends it as well.
        let _ = soon("the connection's end", self.stream.read_to_end(&mut rest)).await;
        rest
    }
}

/// A TLS stream, with these protocols offered.
pub(crate) async fn tls(
    address: SocketAddr,
    ca: &Path,
    host: &str,
    protocols: &[&[u8]],
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    tls_over(stream, ca, host, protocols).await
}

/// TLS over a stream of the test's own.
pub(crate) async fn tls_over<S: Io>(
    stream: S,
    ca: &Path,
    host: &str,
    protocols: &[&[u8]],
) -> io::Result<tokio_rustls::client::TlsStream<S>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).map_err(io::Error::other)?)
        .map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    soon("a handshake", connector.connect(name, stream)).await
}
