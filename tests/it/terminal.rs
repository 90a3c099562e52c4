//! The built-in terminal over a real WebSocket and a real shell. Not here: the page (tests/browser).

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cde_gateway::agent::terminal::{self, Settings};
use futures_util::{SinkExt, StreamExt};
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinHandle};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

struct Terminal {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
    folder: tempfile::TempDir,
}

impl Terminal {
    async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        crate::support::keep_logs();
        let folder = tempfile::tempdir().unwrap();
        let environment = vec![("PS1".into(), "$ ".into())];
        let mut settings = Settings::new(
            folder.path().into(),
            PathBuf::from("/bin/sh"),
            environment,
            "test".into(),
        );
        change(&mut settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(terminal::serve(listener, settings, stop.clone()));
        Self {
            address,
            stop,
            task,
            folder,
        }
    }

    async fn open(&self, query: &str) -> Shell {
        let (socket, _) = connect_async(format!("ws://{}/ws?{query}", self.address))
            .await
            .unwrap();
        Shell {
            socket,
            output: String::new(),
            id: String::new(),
            offset: 0,
            exit: None,
            close: None,
        }
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("http://{}{path}", self.address))
            .await
            .unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .expect("the server stops")
            .unwrap()
            .unwrap();
    }
}

struct Shell {
    socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    output: String,
    id: String,
    offset: u64,
    exit: Option<i64>,
    close: Option<u16>,
}

impl Shell {
    async fn type_in(&mut self, text: &str) {
        self.socket
            .send(Message::binary(text.as_bytes().to_vec()))
            .await
            .unwrap();
    }

    /// Reads until the condition holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let read = async {
            while !holds(self) {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        self.offset += bytes.len() as u64;
                        self.output.push_str(&String::from_utf8_lossy(&bytes));
                    }
                    Some(Ok(Message::Text(text))) => self.control(&text),
                    Some(Ok(Message::Close(frame))) => {
                        self.close = frame.map(|frame| frame.code.into())
                    }
                    Some(Ok(_)) => {}
                    end => panic!(
                        "{what}: the socket ended with {end:?} after {:?}",
                        self.output
                    ),
                }
            }
        };
        let read = tokio::time::timeout(DEADLINE, read).await;
        assert!(read.is_ok(), "{what}: not within {DEADLINE:?}");
    }

    fn control(&mut self, text: &str) {
        let message: serde_json::Value = serde_json::from_str(text).unwrap();
        match message["type"].as_str().unwrap() {
            "session" => {
                self.id = message["id"].as_str().unwrap().into();
                self.offset = message["offset"].as_u64().unwrap();
            }
            "exit" => self.exit = message["code"].as_i64(),
            other => panic!("{other}"),
        }
    }

    async fn until_output(&mut self, text: &str) {
        self.until(text, |shell| shell.output.contains(text)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_the_gitspaces_folder_and_nothing_of_ours_is_in_its_environment() {
    let terminal =
        Terminal::start(|settings| settings.environment.push(("MINE".into(), "yes".into()))).await;
    let mut shell = terminal.open("").await;
    shell
        .type_in("echo sum-$((6*7)) $MINE $TERM; env | grep -c ^CARGO\n")
        .await;
    shell
        .until_output("sum-42 yes xterm-256color\r\n0\r\n")
        .await;
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_learns_the_windows_size() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("cols=100&rows=30").await;
    shell.type_in("stty size\n").await;
    shell.until_output("30 100\r\n").await;
    shell
        .socket
        .send(Message::text(r#"{"type":"resize","cols":70,"rows":20}"#))
        .await
        .unwrap();
    shell.type_in("stty size\n").await;
    shell.until_output("20 70\r\n").await;
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_socket_comes_back_to_the_same_shell_and_misses_nothing() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("").await;
    shell
        .type_in("kept=value; (sleep 0.3; echo while-$((1+1))-away) &\n")
        .await;
    shell.until_output("kept=value").await;
    let (id, seen) = (shell.id.clone(), shell.offset);
    drop(shell);
    let mut again = terminal.open(&format!("session={id}&after={seen}")).await;
    again.type_in("echo $kept-here\n").await;
    again.until_output("while-2-away").await;
    again.until_output("value-here").await;
    assert_eq!(again.id, id);
    let mut reloaded = terminal.open(&format!("session={id}")).await;
    reloaded.until_output("kept=value").await;
    reloaded.until_output("value-here").await;
    again
        .until("taken over", |shell| shell.close == Some(4001))
        .await;
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_session_gets_a_new_shell() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("session=0123&after=99").await;
    shell.until("a session", |shell| !shell.id.is_empty()).await;
    assert_ne!(shell.id, "0123");
    assert_eq!(shell.offset, 0);
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_told_after_the_last_output() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("").await;
    shell.type_in("echo last-$((2+3)); exit 7\n").await;
    shell.until("exit", |shell| shell.exit.is_some()).await;
    assert_eq!(shell.exit, Some(7));
    assert!(shell.output.contains("last-5"), "{:?}", shell.output);
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_are_bounded_in_number() {
    let terminal = Terminal::start(|settings| settings.sessions = 1).await;
    let mut first = terminal.open("").await;
    first.until("a session", |shell| !shell.id.is_empty()).await;
    let mut second = terminal.open("").await;
    second
        .until("refused", |shell| shell.close == Some(4002))
        .await;
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_arrives_whole_at_a_reader_that_keeps_up() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("").await;
    shell
        .type_in("yes abcdefg | head -n 200000 | tr -d '\\n'; echo en''d\n")
        .await;
    shell
        .until("end", |shell| shell.output.ends_with("end\r\n$ "))
        .await;
    assert_eq!(
        shell.output.matches("abcdefg").count(),
        200_001,
        "once in the echoed command"
    );
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_host_is_refused() {
    let terminal = Terminal::start(|_| {}).await;
    let mut request = format!("ws://{}/ws", terminal.address)
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("origin", "https://evil.test".parse().unwrap());
    let refused = connect_async(request).await.unwrap_err().to_string();
    assert!(refused.contains("403"), "{refused}");
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_shell_after_the_stop_or_when_nobody_came_back() {
    let terminal =
        Terminal::start(|settings| settings.keep_detached = Duration::from_millis(50)).await;
    let mut shell = terminal.open("").await;
    shell
        .type_in("trap '' HUP; sleep 1234.5 & echo pid-$!-\n")
        .await;
    shell
        .until("pid", |shell| {
            shell.output.matches('-').count() >= 3 && pid(&shell.output).is_some()
        })
        .await;
    let pid = pid(&shell.output).unwrap();
    assert!(runs(pid));
    drop(shell);
    eventually("the forgotten shell's child ends", || !runs(pid)).await;
    terminal.stop().await;
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    assert!(waited.is_ok(), "{what}: not within {DEADLINE:?}");
}

fn pid(output: &str) -> Option<u32> {
    output
        .split("pid-")
        .filter_map(|rest| rest.split('-').next()?.parse().ok())
        .next()
}

fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_let_go_of_its_terminal_does_not_hold_up_the_stop() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("").await;
    shell
        .type_in("echo pid-$$-; exec sleep 1234.6 <&- >&- 2>&-\n")
        .await;
    shell
        .until("pid", |shell| pid(&shell.output).is_some())
        .await;
    let pid = pid(&shell.output).unwrap();
    terminal.stop().await;
    assert!(!runs(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_request_does_not_hold_up_the_stop() {
    let terminal = Terminal::start(|_| {}).await;
    let mut client = tokio::net::TcpStream::connect(terminal.address)
        .await
        .unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: ha")
        .await
        .unwrap();
    // The server has taken the connection once a later one is answered.
    terminal.get("/healthz").await;
    terminal.stop().await;
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_comes_back_and_resizes_while_the_shell_reads_nothing() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("").await;
    shell
        .type_in("stty raw -echo; echo rea''dy; while ! [ -e go ]; do sleep 0.05; done; stty size; exit\n")
        .await;
    shell.until_output("ready").await;
    let (id, piece) = (shell.id.clone(), vec![b'x'; 64 * 1024]);
    // A paste that nobody reads: it fills the PTY, then the way to it.
    let stuck = async {
        loop {
            shell
                .socket
                .send(Message::binary(piece.clone()))
                .await
                .unwrap();
        }
    };
    let filled = tokio::time::timeout(Duration::from_millis(500), stuck).await;
    assert!(filled.is_err());
    let mut again = terminal
        .open(&format!("session={id}&cols=91&rows=19"))
        .await;
    again.until_output("ready").await;
    std::fs::write(terminal.folder.path().join("go"), "").unwrap();
    again.until_output("19 91").await;
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_takes_nothing_stops_neither_the_shell_nor_the_next_viewer() {
    let terminal =
        Terminal::start(|settings| settings.wait_for_viewer = Duration::from_millis(200)).await;
    let mut stalled = terminal.open("").await;
    stalled
        .until("a session", |shell| !shell.id.is_empty())
        .await;
    stalled
        .type_in("yes | head -c 40000000; touch through\n")
        .await;
    let through = terminal.folder.path().join("through");
    eventually("the shell gets through", || through.exists()).await;
    let mut next = terminal.open(&format!("session={}", stalled.id)).await;
    next.type_in("echo he''re\n").await;
    next.until_output("here").await;
    stalled
        .until("taken over", |shell| shell.close == Some(4001))
        .await;
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_output_before_the_exit_arrives() {
    let terminal = Terminal::start(|_| {}).await;
    for _ in 0..5 {
        let mut shell = terminal.open("").await;
        shell
            .type_in("yes abcdefg | head -n 100000; echo en''d; exit 3\n")
            .await;
        shell.until("exit", |shell| shell.exit.is_some()).await;
        assert_eq!(shell.exit, Some(3));
        assert!(shell.output.ends_with("end\r\n"));
        assert_eq!(shell.output.matches("abcdefg\r\n").count(), 100_000);
    }
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_a_signal_ended_exits_as_shells_say_it() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("").await;
    shell.type_in("kill -9 $$\n").await;
    shell.until("exit", |shell| shell.exit.is_some()).await;
    assert_eq!(shell.exit, Some(137));
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_went_silent_no_longer_counts_as_looking() {
    let terminal = Terminal::start(|settings| {
        settings.ping = Duration::from_millis(50);
        settings.keep_detached = Duration::from_millis(50);
    })
    .await;
    let mut shell = terminal.open("").await;
    shell.type_in("echo pid-$$-\n").await;
    shell
        .until("pid", |shell| pid(&shell.output).is_some())
        .await;
    let pid = pid(&shell.output).unwrap();
    // Its socket stays open, but nobody answers its pings any more.
    eventually("the shell ends", || !runs(pid)).await;
    drop(shell);
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_says_so_to_its_viewers() {
    let terminal = Terminal::start(|_| {}).await;
    let mut shell = terminal.open("").await;
    shell.until("a session", |shell| !shell.id.is_empty()).await;
    terminal.stop.cancel();
    shell
        .until("going away", |shell| shell.close == Some(1001))
        .await;
    terminal.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_foreign_scripts_sniffing_and_referrers() {
    let terminal = Terminal::start(|_| {}).await;
    for (path, status) in [
        ("/", 200),
        ("/session.json", 200),
        ("/healthz", 200),
        ("/assets/none.js", 404),
        ("/none", 404),
    ] {
        let answer = terminal.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert!(
            header("content-security-policy").contains("script-src 'self';"),
            "{path}"
        );
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert!(
            status != 200 || header("cache-control") == "no-store",
            "{path}"
        );
    }
    terminal.stop().await;
}
