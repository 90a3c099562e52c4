//! Upstreams that speak HTTP/2, or anything over TLS: hyper behind a listener, and an authority for their certificates.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::Io;

/// An authority that nobody trusts by default.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// What a route writes to have this key alone accepted.
    pub(crate) pin: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names.
    pub(crate) fn identity(&self, names: &[&str]) -> Identity {
        self.identity_with(names, |_| {})
    }

    /// One that is not as it should be.
    pub(crate) fn identity_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.subject_public_key_info());
        Identity {
            chain: vec![params.signed_by(&key, &self.0).unwrap().der().clone()],
            key: PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            pin: format!("sha256/{}", STANDARD.encode(digest)),
        }
    }
}

impl Identity {
    fn acceptor(self, protocols: &[&[u8]]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What an upstream answers with.
pub(crate) type PeerAnswer = Response<BoxBody<Bytes, Infallible>>;

/// A request's head as a [`Peer`] got it.
#[derive(Debug, Clone)]
pub(crate) struct PeerSeen {
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

/// An upstream on hyper. It goes away with this value.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<PeerSeen>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a [`Peer`] is reached.
pub(crate) struct Kind {
    tls: Option<TlsAcceptor>,
    streams: Option<u32>,
}

impl Kind {
    /// HTTP/2 in the clear.
    pub(crate) fn h2c() -> Self {
        Self {
            tls: None,
            streams: None,
        }
    }

    /// TLS, with these protocols by ALPN.
    pub(crate) fn tls(identity: Identity, protocols: &[&[u8]]) -> Self {
        Self {
            tls: Some(identity.acceptor(protocols)),
            streams: None,
        }
    }

    /// With at most so many streams a connection.
    pub(crate) fn streams(mut self, most: u32) -> Self {
        self.streams = Some(most);
        self
    }
}

impl Peer {
    /// One that answers `hello`, or what it was sent.
    pub(crate) async fn echo(kind: Kind) -> Self {
        Self::serving(kind, |request| async {
            let body = request.into_body().collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let body = if body.is_empty() {
                Bytes::from_static(b"hello")
            } else {
                body
            };
            Response::new(Full::new(body).boxed())
        })
        .await
    }

    /// One that answers as `serve` does.
    pub(crate) async fn serving<F>(
        kind: Kind,
        serve: impl Fn(Request<Incoming>) -> F + Send + Sync + Clone + 'static,
    ) -> Self
    where
        F: Future<Output = PeerAnswer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, kind, serve)
    }

    /// One on a listener that is there.
    pub(crate) fn on<F>(
        listener: TcpListener,
        kind: Kind,
        serve: impl Fn(Request<Incoming>) -> F + Send + Sync + Clone + 'static,
    ) -> Self
    where
        F: Future<Output = PeerAnswer> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<PeerSeen>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (note, count) = (Arc::clone(&seen), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (tls, streams) = (kind.tls.clone(), kind.streams);
                let (note, serve) = (Arc::clone(&note), serve.clone());
                serving.spawn(async move {
                    let (io, http2): (Box<dyn Io>, bool) = match tls {
                        None => (Box::new(stream), true),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else {
                                return;
                            };
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            (Box::new(stream), http2)
                        }
                    };
                    let service = service_fn(move |request: Request<Incoming>| {
                        note.lock().unwrap().push(PeerSeen {
                            connection,
                            version: request.version(),
                            method: request.method().clone(),
                            uri: request.uri().clone(),
                            headers: request.headers().clone(),
                        });
                        let answer = serve(request);
                        async { Ok::<_, Infallible>(answer.await) }
                    });
                    let io = TokioIo::new(io);
                    let _ = if http2 {
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .max_concurrent_streams(streams)
                            .serve_connection(io, service)
                            .await
                    } else {
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service)
                            .with_upgrades()
                            .await
                    };
                });
            }
        });
        Self {
            address,
            seen,
            connections,
            task,
        }
    }

    /// How many connections came so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<PeerSeen> {
        self.seen.lock().unwrap().clone()
    }

    /// The latest request.
    #[track_caller]
    pub(crate) fn last(&self) -> PeerSeen {
        self.seen().pop().unwrap()
    }
}
