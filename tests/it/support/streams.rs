//! An HTTP/2 client whose bodies are read and written piece by piece.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::http2::SendRequest,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use super::{HOST, TestGateway, client::tls, soon};

/// A request's body, piece by piece.
pub(crate) struct Pieces(mpsc::UnboundedReceiver<Bytes>);

impl Pieces {
    pub(crate) fn channel() -> (mpsc::UnboundedSender<Bytes>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self(receiver))
    }

    pub(crate) fn none() -> Self {
        Self::channel().1
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }
}

/// An HTTP/2 connection whose bodies are read and written piece by piece.
#[derive(Clone)]
pub(crate) struct Streams(pub(crate) SendRequest<Pieces>);

impl Streams {
    pub(crate) async fn connect(gateway: &TestGateway) -> Self {
        Self::connect_to(gateway, HOST).await
    }

    pub(crate) async fn connect_to(gateway: &TestGateway, host: &str) -> Self {
        let stream = tls(gateway.https, &gateway.authority(), host, &[b"h2"])
            .await
            .unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request for `/`.
    pub(crate) async fn send(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        body: Pieces,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{HOST}/"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        soon("an answer", self.0.clone().send_request(request)).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Result<Response<Incoming>> {
        self.send(method, headers, Pieces::none()).await
    }

    pub(crate) async fn get(
        &self,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::get(format!("https://{host}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Pieces::none()).unwrap();
        soon("an answer", self.0.clone().send_request(request)).await
    }
}

/// The whole body.
pub(crate) async fn text(answer: Response<Incoming>) -> String {
    let body = soon("a body", answer.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}
