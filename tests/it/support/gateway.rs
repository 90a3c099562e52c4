//! A gateway in this process: real listeners on port 0, a state folder of its own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use cde_gateway::{
    api::Secret,
    config::{self, RouteEntry},
    gateway::{self, Handle, ReloadRequest, Settings, bind},
};
use reqwest::Method;
use serde_json::Value;
use tokio::{runtime::Runtime, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Client, ControlPlane, GITSPACE, Issuer, OWNER, Upstream, eventually, logs, logs::secret, soon,
};

pub(crate) const ADMIN_TOKEN: &str = "the-admin-token-of-these-tests";

/// Gateways outlive the runtime of the test that started them, so that they can drain.
static BACKGROUND: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
});

/// What a gateway is started from. Start it again for a restart: state and issuer stay.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) dir: Arc<tempfile::TempDir>,
    pub(crate) issuer: Issuer,
    pub(crate) settings: Settings,
}

impl Setup {
    /// An issuer, listeners for https, http and the admin API, an access log, no route.
    pub(crate) fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let issuer = Issuer::new("https://issuer.test");
        let mut config: config::Gateway = toml::from_str(
            r#"
            workers = 2
            listen = [{ address = "127.0.0.1:0", protocol = "https" }, { address = "127.0.0.1:0", protocol = "http" }]
            timeouts = { drain = "2s" }
            upstreams = { allow = ["127.0.0.0/8"] }
            admin = { address = "127.0.0.1:0" }
            "#,
        )
        .unwrap();
        config.issuer = vec![issuer.configured(dir.path())];
        config.access_log.path = logs::file("access").to_str().unwrap().into();
        let settings = Settings {
            config,
            routes: Vec::new(),
            state_dir: dir.path().into(),
            admin_token: Secret::new(secret(ADMIN_TOKEN)),
            chp_token: None,
            control_plane: None,
            sockets: Default::default(),
            elsewhere: None,
            reload: None,
        };
        Self {
            dir,
            issuer,
            settings,
        }
    }

    /// One that leads its gitspace to an upstream: the IDE and port 3000 private, 4000 public, 5000 for the organization `acme`.
    pub(crate) fn to(upstream: &Upstream) -> Self {
        let port = |number: u16, visibility: &str| {
            format!(
                "[ports.{number}]\nupstream = \"http://{}\"\nvisibility = {visibility:?}\n",
                upstream.address
            )
        };
        Self::new().route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"http://{}\"\nowner = {OWNER:?}\norg = \"acme\"\nupgrades = [\"raw\"]\n{}{}{}",
            upstream.address,
            port(3000, "private"),
            port(4000, "public"),
            port(5000, "organization"),
        ))
    }

    /// With a `[[route]]`.
    pub(crate) fn route(mut self, route: &str) -> Self {
        self.settings
            .routes
            .push(toml::from_str::<RouteEntry>(route).unwrap());
        self
    }

    /// With another configuration.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut config::Gateway)) -> Self {
        change(&mut self.settings.config);
        self
    }

    /// Following a control plane, whose principals have no prefix: the issuer's get one.
    pub(crate) fn following(mut self, plane: &ControlPlane, fail_mode: config::FailMode) -> Self {
        self.settings.config.issuer[0].prefix = "configured:".into();
        self.settings.control_plane = Some(gateway::ControlPlane {
            url: plane.url(),
            token: Secret::new(secret(super::control_plane::TOKEN)),
            fail_mode,
        });
        self
    }

    /// Answering `POST /v1/reload` with what `read` gives as the configuration.
    pub(crate) fn reloading(mut self) -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(1);
        self.settings.reload = Some(sender);
        (self, receiver)
    }

    /// Returns once the ports are bound.
    pub(crate) fn start(&self) -> TestGateway {
        self.try_start().unwrap()
    }

    /// The gateway's own keys and those of its certificates are secrets of the tests.
    pub(crate) fn note_keys(&self) {
        let own = [self.dir.path().join("gateway.keys")];
        let certificates = self.settings.config.certificate.iter();
        let development = self.dir.path().join("dev/key.pem");
        let files = certificates.map(|certificate| certificate.key.clone());
        for file in files.chain(own).chain([development]) {
            if let Ok(text) = std::fs::read_to_string(file) {
                secrets_of(&text);
            }
        }
    }

    pub(crate) fn try_start(&self) -> Result<TestGateway, gateway::Error> {
        let _context = BACKGROUND.enter();
        let bound = bind(self.settings.clone())?;
        self.note_keys();
        let stop = CancellationToken::new();
        let addresses = bound.addresses().to_vec();
        Ok(TestGateway {
            addresses: addresses.clone(),
            https: addresses[0],
            http: addresses[1],
            admin: bound.admin_address().unwrap(),
            handle: bound.handle(),
            setup: self.clone(),
            stop: stop.clone(),
            task: Some(BACKGROUND.spawn(bound.serve(stop))),
        })
    }
}

/// Notes the long words of a key file.
fn secrets_of(text: &str) {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=_-".contains(c));
    for word in words.filter(|word| word.len() >= 24 && !word.starts_with('-')) {
        secret(word);
    }
}

/// A running gateway. Dropped, it drains on its own.
pub(crate) struct TestGateway {
    /// All listeners, in their order.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) setup: Setup,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), gateway::Error>>>,
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestGateway {
    /// Begins the stop and does not wait for it.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Drains, and tells how many connections were cut; a test that fails here has found a shutdown bug.
    pub(crate) async fn stop(mut self) -> usize {
        self.stop.cancel();
        let task = self.task.take().unwrap();
        match soon("the stop", task).await.unwrap() {
            Ok(()) => 0,
            Err(gateway::Error::Cut { connections }) => connections,
            Err(error) => panic!("{error}"),
        }
    }

    /// The development CA.
    pub(crate) fn authority(&self) -> PathBuf {
        self.setup.dir.path().join("dev/ca.pem")
    }

    /// A connection in the clear, to the IDE's host.
    pub(crate) async fn plain(&self) -> Client {
        Client::plain(self.http).await
    }

    /// A connection over TLS.
    pub(crate) async fn tls(&self, host: &str) -> Client {
        Client::tls(self.https, &self.authority(), host).await
    }

    /// A token of the owner.
    pub(crate) fn owner(&self) -> String {
        self.setup.issuer.token(OWNER)
    }

    /// What the admin API answers.
    pub(crate) async fn admin(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Response {
        let url = format!("http://{}{path}", self.admin);
        let mut request = reqwest::Client::new()
            .request(method, url)
            .bearer_auth(ADMIN_TOKEN)
            .timeout(Duration::from_secs(10));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    /// The sum of a metric's samples whose text holds all of `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self
            .admin(Method::GET, "/metrics", None)
            .await
            .text()
            .await
            .unwrap();
        let samples = text.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let named = key == name || key.strip_prefix(name)?.starts_with('{');
            (named && labels.iter().all(|label| key.contains(label)))
                .then(|| value.parse::<f64>().unwrap())
        });
        samples.sum()
    }

    /// The lines of the access log so far.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.log()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The access log as it is, whole lines only.
    pub(crate) fn log(&self) -> String {
        let mut text =
            std::fs::read_to_string(&self.setup.settings.config.access_log.path).unwrap();
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    /// Waits until nothing is under way and `count` requests were accounted: not one line more or less.
    pub(crate) async fn accounted(&self, count: usize) -> Vec<Value> {
        let lines = eventually("the accounts", || async {
            let lines = self.lines();
            let quiet = self.metric("cde_gateway_streams", &[]).await == 0.0;
            (lines.len() >= count && quiet).then_some(lines)
        })
        .await;
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    /// The account of the only request so far.
    pub(crate) async fn account(&self) -> Value {
        self.accounted(1).await.remove(0)
    }
}
