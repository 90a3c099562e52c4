//! The program with a configuration of a test's own, and the processes that take over from it.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    cell::RefCell,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Mutex,
};

use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::support::{
    Client, GITSPACE, HOST, Io, Issuer, OWNER, Upstream, eventually, port_host, secret, soon,
};

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_cde-gateway");
/// A listener for https, one for the admin API.
pub(super) const LISTENS: &str =
    "[[gateway.listen]]\naddress = \"127.0.0.1:0\"\nprotocol = \"https\"\n";

pub(super) type Socket = WebSocketStream<Box<dyn Io>>;

/// A service: the process that serves, and those before it.
pub(super) struct Service {
    pub(super) folder: tempfile::TempDir,
    pub(super) issuer: Issuer,
    pub(super) apps: Upstream,
    pub(super) echo: Upstream,
    /// The first process.
    pub(super) first: Child,
    pids: Mutex<Vec<u32>>,
    pub(super) https: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Drop for Service {
    fn drop(&mut self) {
        let pids = self.pids.lock().unwrap();
        for pid in pids.iter().copied().chain(holder(self)) {
            signal(pid, Signal::KILL);
        }
        let _ = self.first.wait();
    }
}

fn holder(service: &Service) -> Option<u32> {
    cde_gateway::app::state::holder(&service.state())
}

pub(super) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // It may have ended.
    let _ = kill_process(pid, signal);
}

/// Gives every message back.
async fn echo() -> Upstream {
    Upstream::scripted(|stream, _| async {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
            return;
        };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// What a service is before it starts.
pub(super) struct Prepared {
    folder: tempfile::TempDir,
    issuer: Issuer,
    apps: Upstream,
    echo: Upstream,
}

impl Prepared {
    pub(super) async fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            issuer: Issuer::new("https://issuer.test"),
            apps: Upstream::echo().await,
            echo: echo().await,
        }
    }

    /// Writes the configuration: what `listens`, and `timeouts`.
    pub(super) fn configure(&self, listens: &str, timeouts: &str) {
        let folder = self.folder.path();
        configure(
            folder,
            &self.issuer,
            (&self.apps, &self.echo),
            listens,
            timeouts,
        );
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `cde-gateway run`.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--log-format", "json", "run", "--config"]);
        command.arg(self.folder.path().join("config.toml"));
        self.logged(&mut command);
        command
    }

    pub(super) fn logged(&self, command: &mut Command) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        command
            .env_remove("CDE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
    }

    pub(super) async fn start(self) -> Service {
        let child = self.command().spawn().unwrap();
        self.started(child).await
    }

    /// Returns when it serves.
    pub(super) async fn started(self, first: Child) -> Service {
        let first = RefCell::new(first);
        let log = self.folder.path().join("log");
        let (https, admin) = eventually("the start", || async {
            let text = fs::read_to_string(&log).unwrap();
            assert!(first.borrow_mut().try_wait().unwrap().is_none(), "{text}");
            let mut lines = text.lines().filter(|line| line.ends_with('}'));
            let line = lines.find(|line| line.contains("gateway listens"))?;
            let line: Value = serde_json::from_str(line).unwrap();
            let place = |name: &str| -> SocketAddr {
                let text = line[name].as_str().unwrap();
                let text = text.trim_start_matches("Some(").trim_start_matches('[');
                let end = text.find([',', ']', ')']).unwrap();
                text[..end].parse().unwrap()
            };
            Some((place("addresses"), place("admin")))
        })
        .await;
        let first = first.into_inner();
        let pid = first.id();
        let Self {
            folder,
            issuer,
            apps,
            echo,
        } = self;
        let service = Service {
            folder,
            issuer,
            apps,
            echo,
            first,
            pids: Mutex::new(vec![pid]),
            https,
            admin,
        };
        eventually("the control socket", || async {
            let socket = service.state().join(format!("process-{pid}.sock"));
            socket.exists().then_some(())
        })
        .await;
        service
    }
}

fn configure(
    folder: &Path,
    issuer: &Issuer,
    (apps, echo): (&Upstream, &Upstream),
    listens: &str,
    timeouts: &str,
) {
    let key = folder.join("issuer.pem");
    fs::write(&key, &issuer.public_pem).unwrap();
    let text = format!(
        "roles = [\"gateway\"]\nstate_dir = {state:?}\n\
         [gateway]\nworkers = 2\n{listens}\n[gateway.timeouts]\n{timeouts}\n\
         [gateway.admin]\naddress = \"127.0.0.1:0\"\n[gateway.access_log]\npath = \"\"\n\
         [gateway.upstreams]\nallow = [\"127.0.0.0/8\"]\n\
         [[gateway.issuer]]\nissuer = \"https://issuer.test\"\n\
         [[gateway.issuer.key]]\nalgorithm = \"ES256\"\npublic_key_file = {key:?}\n\
         [[route]]\ngitspace = {GITSPACE:?}\nupstream = \"http://{}\"\nowner = {OWNER:?}\n\
         [route.ports.3000]\nupstream = \"http://{}\"\n",
        echo.address,
        apps.address,
        state = folder.join("state"),
    );
    fs::write(folder.join("config.toml"), text).unwrap();
}

impl Service {
    /// One that listens for https.
    pub(super) async fn start() -> Self {
        Self::start_with("drain = \"1s\"").await
    }

    pub(super) async fn start_with(timeouts: &str) -> Self {
        let prepared = Prepared::new().await;
        prepared.configure(LISTENS, timeouts);
        prepared.start().await
    }

    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    pub(super) fn configure(&self, listens: &str, timeouts: &str) {
        let folder = self.folder.path();
        configure(
            folder,
            &self.issuer,
            (&self.apps, &self.echo),
            listens,
            timeouts,
        );
    }

    /// The log of all processes.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The program beside the service, with `--config` behind its arguments.
    pub(super) async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(self.config());
        command.env_remove("CDE_LOG");
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// `cde-gateway upgrade`; the new process.
    pub(super) async fn upgrade(&self) -> u32 {
        let output = self.command(&["upgrade"]).await;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}\n{}", self.log());
        let pid = String::from_utf8_lossy(&output.stdout).trim().parse();
        let pid = pid.unwrap();
        assert!(
            words.starts_with(&format!("process {pid} is ready and serves; process ")),
            "{words}"
        );
        assert_eq!(cde_gateway::app::state::holder(&self.state()), Some(pid));
        self.pids.lock().unwrap().push(pid);
        pid
    }

    pub(super) fn owner(&self) -> String {
        self.issuer.token(OWNER)
    }

    /// A connection to the IDE's host.
    pub(super) async fn connect(&self) -> Client {
        let authority = self.state().join("dev/ca.pem");
        Client::tls(self.https, &authority, HOST).await
    }

    /// A connection to another host.
    pub(super) async fn connect_to(&self, host: &str) -> Client {
        let authority = self.state().join("dev/ca.pem");
        Client::tls(self.https, &authority, host).await
    }

    /// Begins an upload of eight bytes to port 3000 with half of them.
    pub(super) async fn upload(&self, token: &str) -> Client {
        let host = port_host(3000);
        let mut client = self.connect_to(&host).await;
        let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\nx-gitspace-token: {token}");
        client
            .send(format!("{head}\r\ncontent-length: 8\r\n\r\nhalf"))
            .await;
        client
    }

    /// A WebSocket to the IDE.
    pub(super) async fn socket(&self) -> Socket {
        let mut request = format!("wss://{HOST}/socket")
            .into_client_request()
            .unwrap();
        let token = HeaderValue::from_str(&self.owner()).unwrap();
        request.headers_mut().insert("x-gitspace-token", token);
        let stream = self.connect().await.into_stream();
        let opened = client_async(request, stream);
        soon("the handshake", opened).await.unwrap().0
    }

    /// What the admin API answers.
    pub(super) async fn admin(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let token = fs::read_to_string(self.state().join("admin.token")).unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client
            .request(method, format!("http://{}{path}", self.admin))
            .bearer_auth(secret(token.trim()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = soon("the admin API", request.send()).await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// How many streams are listed.
    pub(super) async fn listed(&self) -> usize {
        let (_, streams) = self.admin(Method::GET, "/v1/streams", None).await;
        streams.as_array().unwrap().len()
    }

    /// Waits until a process has ended.
    pub(super) async fn gone(&self, pid: u32) {
        let socket = self.state().join(format!("process-{pid}.sock"));
        eventually("the end of a process", || async {
            (!socket.exists()).then_some(())
        })
        .await;
    }
}

/// Waits until a child has ended.
pub(super) async fn exited(child: &mut Child) -> ExitStatus {
    let child = RefCell::new(child);
    eventually("the end of the process", || async {
        child.borrow_mut().try_wait().unwrap()
    })
    .await
}

pub(super) async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
    let back = soon("the message", socket.next()).await.unwrap().unwrap();
    assert_eq!(back.to_text().unwrap(), text);
}

/// The code of a close frame that comes.
pub(super) async fn closed(socket: &mut Socket) -> (u16, String) {
    let message = soon("a close frame", socket.next()).await;
    let Some(Ok(Message::Close(Some(frame)))) = message else {
        panic!("{message:?}");
    };
    (frame.code.into(), frame.reason.to_string())
}
