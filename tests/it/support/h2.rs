//! An HTTP/2 client over TLS.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{client::conn::http2::SendRequest, ext::Protocol, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Io, TestGateway, client::tls, eventually, soon};

/// One connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct H2(SendRequest<Full<Bytes>>);

impl H2 {
    /// Connects with `host` as SNI.
    pub(crate) async fn connect(gateway: &TestGateway, host: &str) -> Self {
        let stream = tls(gateway.https, &gateway.authority(), host, &[b"h2"])
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream).await
    }

    /// Over a stream of the test's own.
    pub(crate) async fn over<S: Io + 'static>(stream: S) -> Self {
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request, `url` with scheme and host, and reads the whole answer.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        let sent = self.0.send_request(request.body(body).unwrap());
        let (parts, body) = soon("an answer", sent).await.unwrap().into_parts();
        let body = soon("a body", body.collect()).await.unwrap().to_bytes();
        Response::from_parts(parts, body)
    }

    /// Asks for a stream by an extended CONNECT (RFC 8441): the head of the answer with the stream, or the whole answer.
    pub(crate) async fn connect_to(
        &mut self,
        protocol: &'static str,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Response<()>, TokioIo<Upgraded>), Response<Bytes>> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(url)
            .extension(Protocol::from_static(protocol));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).unwrap();
        // The gateway's settings say that it may be asked.
        let mut answer = soon("an answer", self.0.send_request(request))
            .await
            .unwrap();
        if !answer.status().is_success() {
            let (parts, body) = answer.into_parts();
            let body = soon("a body", body.collect()).await.unwrap().to_bytes();
            return Err(Response::from_parts(parts, body));
        }
        let stream = soon("the stream", hyper::upgrade::on(&mut answer))
            .await
            .unwrap();
        Ok((answer.map(drop), TokioIo::new(stream)))
    }

    /// Waits for the end of the connection.
    pub(crate) async fn ended(&self) {
        let closed = || async { self.0.is_closed().then_some(()) };
        eventually("the connection's end", closed).await;
    }
}
