//! TLS clients whose sessions, certificates and preferences a test chooses, and authorities that make certificates for both sides.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use cde_gateway::config::Certificate;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, RootCertStore, SupportedProtocolVersion,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;

use super::{Client, soon};

/// A certificate authority of a test.
pub(crate) struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) file: PathBuf,
}

impl TestCa {
    /// Makes one whose files are in `folder`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(format!("{name}.ca.pem"));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A certificate for both sides that holds for so many days from now on, or ended so many days ago.
    pub(crate) fn issue(&self, file: &str, names: &[&str], days: i64) -> Certificate {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let time = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(100 * 24 * 3600)).into();
        params.not_after = if days < 0 { now - time } else { now + time }.into();
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        let folder = self.file.parent().unwrap();
        let files = Certificate {
            chain: folder.join(format!("{file}.pem")),
            key: folder.join(format!("{file}.key")),
        };
        fs::write(&files.chain, made.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// Connects, and remembers sessions.
pub(crate) struct Dialer {
    config: ClientConfig,
    sessions: Arc<Sessions>,
}

/// What a dialer is made with.
#[derive(Default)]
pub(crate) struct Wishes {
    /// Only this version.
    pub(crate) version: Option<&'static SupportedProtocolVersion>,
    /// Who the client is.
    pub(crate) identity: Option<Certificate>,
    /// The groups of its key exchange, the one that it likes best first.
    pub(crate) groups: Option<Vec<NamedGroup>>,
    /// TLS 1.2 sessions by identifier instead of tickets.
    pub(crate) session_ids: bool,
}

impl Dialer {
    /// Trusting `ca`.
    pub(crate) fn new(ca: &Path) -> Self {
        Self::with(ca, &Wishes::default())
    }

    pub(crate) fn with(ca: &Path, wishes: &Wishes) -> Self {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if let Some(groups) = &wishes.groups {
            provider = CryptoProvider {
                kx_groups: groups
                    .iter()
                    .map(|name| {
                        let all = rustls::crypto::aws_lc_rs::ALL_KX_GROUPS;
                        *all.iter().find(|group| group.name() == *name).unwrap()
                    })
                    .collect(),
                ..provider
            };
        }
        let versions = wishes
            .version
            .map_or(rustls::ALL_VERSIONS.to_vec(), |version| vec![version]);
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &wishes.identity {
            None => builder.with_no_client_auth(),
            Some(files) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(&files.chain).unwrap()],
                    PrivateKeyDer::from_pem_file(&files.key).unwrap(),
                )
                .unwrap(),
        };
        let sessions = Arc::new(Sessions {
            kept: ClientSessionMemoryCache::new(32),
            tickets: AtomicUsize::new(0),
        });
        config.resumption = Resumption::store(Arc::clone(&sessions) as Arc<_>);
        if wishes.session_ids {
            config.resumption = config
                .resumption
                .tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
        }
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config, sessions }
    }

    /// How many tickets it was given.
    pub(crate) fn tickets(&self) -> usize {
        self.sessions.tickets.load(Ordering::Relaxed)
    }

    /// A handshake; a name that is an address is not asked for by SNI.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.config.clone()));
        soon("a handshake", connector.connect(name, stream)).await
    }

    /// One request on a connection of its own, by which tickets come too: the kind of handshake, and the answer's status.
    pub(crate) async fn visit(
        &self,
        address: SocketAddr,
        host: &str,
    ) -> io::Result<(HandshakeKind, u16)> {
        let stream = self.connect(address, host).await?;
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        let mut client = Client::over(Box::new(stream)).to(host);
        client
            .try_send(format!(
                "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
            ))
            .await?;
        Ok((kind, client.answer().await?.status))
    }

    /// The certificate that is served to who asks for this name.
    pub(crate) async fn served(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<CertificateDer<'static>> {
        let stream = self.connect(address, name).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        Ok(chain[0].clone().into_owned())
    }
}

/// Sessions, with a count of the tickets that came.
#[derive(Debug)]
struct Sessions {
    kept: ClientSessionMemoryCache,
    tickets: AtomicUsize,
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.kept.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.tickets.fetch_add(1, Ordering::Relaxed);
        self.kept.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.kept.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tickets.fetch_add(1, Ordering::Relaxed);
        self.kept.insert_tls13_ticket(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.take_tls13_ticket(name)
    }
}
