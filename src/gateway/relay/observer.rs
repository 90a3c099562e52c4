//! Observer: whether a person did something on a WebSocket, told from the headers of its frames and the few bytes behind them.
//!
//! IDEs and pages send by themselves all the time: pings, keep-alives, probes of latency, answers to what the server asks. What
//! counts is what nobody but a person makes them send; docs/activity.md has what was measured, and what is told wrongly. VS Code's
//! messages are compressed: of them only length and time speak. A typed key makes it send several messages at once of which the
//! first answers nothing; what it sends on its own is single, or short, or follows a message of the server.
//!
//! Not here: requests (`activity`), what is done with it (`live`).

use std::time::Duration;

use http::{HeaderMap, Uri, header};

use super::{
    Way,
    frames::{Frame, Frames, PEEK},
};

/// So long a stream that has just begun is set up: what an IDE sends then is no typing.
const SETTLES: Duration = Duration::from_secs(60);
/// What comes so soon behind a message of the server may be an answer to it.
const ANSWERS: Duration = Duration::from_secs(1);
/// Within this time the messages of a key are together. VS Code's probes of latency are two seconds apart.
const BURST: Duration = Duration::from_millis(1500);
/// So many messages within it are more than what VS Code sends on its own.
const MESSAGES: u8 = 6;
/// Compressed messages of VS Code up to this length are keep-alives, acknowledgements and probes of latency.
const SHORT: u64 = 16;
/// VS Code's own header of a message (type, identifier, acknowledgement, length), where it is not compressed.
const HEADER: u64 = 13;
/// And its type of a message that is none of its own.
const REGULAR: u8 = 1;

/// What is spoken on a WebSocket, as far as a person's doing can be told from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// VS Code and code-server: its management and its extension host.
    VsCode,
    /// Messages to a Jupyter kernel: a page sends them when somebody runs something.
    JupyterKernel,
    /// Jupyter's terminals: `["stdin", …]`.
    JupyterTerminal,
    /// The agent's terminal: binary messages are input.
    Terminal,
    /// ttyd's: those that begin with a zero digit are.
    Ttyd,
    /// Something else. Nothing on it counts.
    Other,
}

impl Speaks {
    /// What a request for a WebSocket is for. None: for bytes without frames, which VS Code's Node client asks for.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let mut query = uri.query().unwrap_or_default().split('&');
        if query.clone().any(|one| one == "skipWebSocketFrames=true") {
            return None;
        }
        Some(
            match query.any(|one| one.starts_with("reconnectionToken=")) {
                true => Self::VsCode,
                false => Self::of_path(uri.path(), headers),
            },
        )
    }

    fn of_path(path: &str, headers: &HeaderMap) -> Self {
        if path.contains("/api/kernels/") && path.ends_with("/channels") {
            return Self::JupyterKernel;
        }
        if path.contains("/terminals/websocket/") {
            return Self::JupyterTerminal;
        }
        let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let protocols = protocols.iter().filter_map(|value| value.to_str().ok());
        let mut protocols = protocols.flat_map(|value| value.split(',')).map(str::trim);
        let terminal = protocols.find_map(|protocol| match protocol {
            "terminal.gitspace" => Some(Self::Terminal),
            "tty" => Some(Self::Ttyd),
            _ => None,
        });
        terminal.unwrap_or(Self::Other)
    }
}

/// What a message from the client may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    /// What programs send too.
    Nothing,
    /// A person's, if it answers nothing.
    Maybe,
    /// A person's, whenever it comes.
    Typed,
}

/// See the module. Small: every WebSocket has one.
#[derive(Debug)]
pub(crate) struct Observer {
    up: Frames,
    down: Frames,
    speaks: Speaks,
    /// What came since it was last asked, and so many messages of it.
    came: Message,
    messages: u8,
    /// Whether the server said something worth an answer since then.
    said: bool,
    /// How many messages the burst has that is under way.
    burst: u8,
    /// When the server last said something, and when the burst began: milliseconds after the start.
    said_at: Option<u32>,
    burst_at: u32,
}

impl Observer {
    pub(crate) fn new(speaks: Speaks) -> Self {
        Self {
            up: Frames::new(),
            down: Frames::new(),
            speaks,
            came: Message::Nothing,
            messages: 0,
            said: false,
            burst: 0,
            said_at: None,
            burst_at: 0,
        }
    }

    /// Where the bytes to the client stand.
    pub(crate) fn down(&self) -> Frames {
        self.down
    }

    /// These bytes passed.
    pub(crate) fn look(&mut self, way: Way, bytes: &[u8]) {
        let speaks = self.speaks;
        match way {
            Way::Up => self.up.look(bytes, |frame| {
                let message = speaks.message(frame);
                self.came = self.came.max(message);
                self.messages = self
                    .messages
                    .saturating_add((message > Message::Nothing).into());
            }),
            Way::Down => self
                .down
                .look(bytes, |frame| self.said |= speaks.asks(frame)),
        }
    }

    /// Whether somebody typed something since it was last asked, so long after the start. To be asked after every look.
    pub(crate) fn typed(&mut self, at: Duration) -> bool {
        let millis = u32::try_from(at.as_millis()).unwrap_or(u32::MAX);
        let since = |then: u32| Duration::from_millis(millis.saturating_sub(then).into());
        let came = std::mem::replace(&mut self.came, Message::Nothing);
        let messages = std::mem::take(&mut self.messages);
        let answers = self.said_at.is_some_and(|then| since(then) < ANSWERS);
        if std::mem::take(&mut self.said) {
            self.said_at = Some(millis);
        }
        match came {
            Message::Nothing => false,
            Message::Typed => true,
            Message::Maybe if at < SETTLES => false,
            Message::Maybe if self.burst > 0 && since(self.burst_at) < BURST => {
                self.burst = self.burst.saturating_add(messages);
                self.speaks.is_typing(self.burst)
            }
            Message::Maybe if answers => false,
            Message::Maybe => {
                (self.burst, self.burst_at) = (messages, millis);
                self.speaks.is_typing(messages)
            }
        }
    }
}

impl Speaks {
    /// What a frame from the client may be.
    fn message(self, frame: Frame<'_>) -> Message {
        if !frame.begins_message() || frame.length == 0 {
            return Message::Nothing;
        }
        let mut peek = [0; PEEK];
        let known = frame.peek(&mut peek);
        let begins = &peek[..known];
        let input = |input: bool| match input {
            true => Message::Typed,
            false => Message::Nothing,
        };
        match self {
            Self::Other => Message::Nothing,
            Self::VsCode if frame.compressed => match frame.length > SHORT {
                true => Message::Maybe,
                false => Message::Nothing,
            },
            Self::VsCode => match frame.length > HEADER && begins.first() == Some(&REGULAR) {
                true => Message::Maybe,
                false => Message::Nothing,
            },
            Self::JupyterKernel => Message::Maybe,
            // Terminals of pages answer what programs ask them by themselves; that begins with an escape.
            Self::JupyterTerminal => {
                let typed = begins.strip_prefix(b"[\"stdin\",");
                input(typed.is_some_and(|rest| !rest.trim_ascii_start().starts_with(b"\"\\u001b")))
            }
            Self::Terminal => input(frame.opcode == 2 && begins.first() != Some(&0x1b)),
            Self::Ttyd => input(begins.first() == Some(&b'0') && begins.get(1) != Some(&0x1b)),
        }
    }

    /// Whether what the client sends next may be an answer to this frame of the server.
    fn asks(self, frame: Frame<'_>) -> bool {
        match self {
            Self::VsCode if frame.compressed => frame.begins_message() && frame.length > SHORT,
            Self::VsCode => frame.begins_message() && frame.length > HEADER,
            Self::JupyterKernel => frame.begins_message(),
            _ => false,
        }
    }

    /// Whether so many messages at once are a person's.
    fn is_typing(self, messages: u8) -> bool {
        messages >= if self == Self::VsCode { MESSAGES } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passed: seconds, which way, length of a compressed message.
    type Passed = (f64, Way, u64);

    fn frame(compressed: bool, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut frame = vec![0x80 | u8::from(compressed) << 6 | opcode];
        match payload.len() {
            length @ ..126 => frame.push(bit | length as u8),
            length => {
                frame.push(bit | 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend(mask.iter().flatten());
        let mask = mask.unwrap_or_default();
        frame.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        frame
    }

    /// When somebody typed, by what passed.
    fn typed(speaks: Speaks, passed: &[Passed]) -> Vec<f64> {
        let mut observer = Observer::new(speaks);
        let mut times = Vec::new();
        for &(at, way, length) in passed {
            let mask = matches!(way, Way::Up).then_some([1, 2, 3, 4]);
            observer.look(way, &frame(true, 2, mask, &vec![7; length as usize]));
            if observer.typed(Duration::from_secs_f64(at)) {
                times.push(at);
            }
        }
        times
    }

    /// What a code-server that was left alone sent on one of its WebSockets, from a recording.
    fn idle_code_server() -> Vec<Passed> {
        use Way::{Down, Up};
        let mut passed = Vec::new();
        for second in (60..600).step_by(5) {
            let second = f64::from(second);
            passed.extend([(second + 0.2, Up, 4), (second + 0.27, Down, 4)]);
        }
        for round in 1..9 {
            for probe in 0..5 {
                let at = f64::from(round * 70 + probe * 2) + 0.96;
                passed.extend([(at, Up, 14), (at + 0.01, Down, 14)]);
            }
        }
        passed.extend([
            (77.1, Up, 37),
            (77.1, Down, 21),
            (105.42, Up, 44),
            (105.42, Down, 204),
        ]);
        passed.extend([(102.54, Down, 497), (102.55, Up, 54), (102.56, Down, 117)]);
        passed.extend([(102.57, Up, 67), (102.58, Down, 68), (102.59, Up, 60)]);
        passed.extend([
            (313.27, Up, 40),
            (313.27, Down, 54),
            (327.69, Down, 41),
            (327.7, Up, 50),
        ]);
        passed.sort_by(|one, other| one.0.total_cmp(&other.0));
        passed
    }

    #[test]
    fn a_code_server_that_is_left_alone_types_nothing_and_a_key_counts() {
        use Way::{Down, Up};
        let mut passed = idle_code_server();
        assert_eq!(typed(Speaks::VsCode, &passed), [0.0; 0]);
        // The second key in an editor, whose messages compress well.
        let key = [
            (0.0, Up, 108),
            (0.01, Down, 73),
            (0.01, Up, 23),
            (0.17, Up, 17),
            (0.18, Down, 14),
            (0.22, Up, 19),
            (0.23, Up, 35),
            (0.23, Down, 41),
            (0.24, Up, 42),
            (0.24, Up, 30),
        ];
        passed.extend(key.map(|(after, way, length)| (700.0 + after, way, length)));
        assert_eq!(typed(Speaks::VsCode, &passed), [700.24, 700.24]);
    }

    #[test]
    fn what_an_ide_sends_while_it_is_set_up_does_not_count() {
        let messages = [
            (3.0, Way::Up, 500),
            (3.1, Way::Up, 300),
            (3.2, Way::Up, 200),
            (3.3, Way::Up, 90),
            (3.4, Way::Up, 80),
            (3.5, Way::Up, 70),
        ];
        assert_eq!(typed(Speaks::VsCode, &messages), [0.0; 0]);
        let later = messages.map(|(at, way, length)| (at + 60.0, way, length));
        assert_eq!(typed(Speaks::VsCode, &later), [63.5]);
    }

    #[test]
    fn a_cell_that_is_run_counts_and_an_answer_of_a_widget_does_not() {
        use Way::{Down, Up};
        let passed = [
            (1.0, Up, 200),
            (90.0, Down, 300),
            (90.2, Up, 200),
            (95.0, Up, 400),
        ];
        assert_eq!(typed(Speaks::JupyterKernel, &passed), [95.0]);
        assert_eq!(typed(Speaks::Other, &passed), [0.0; 0]);
    }

    #[test]
    fn what_is_typed_into_a_terminal_counts_at_once_and_what_its_page_answers_does_not() {
        let counts = |speaks, opcode, payload: &[u8]| {
            let mut observer = Observer::new(speaks);
            observer.look(Way::Up, &frame(false, opcode, Some([9, 8, 7, 6]), payload));
            observer.typed(Duration::ZERO)
        };
        use Speaks::{JupyterTerminal, Terminal, Ttyd};
        for (speaks, opcode, payload, expected) in [
            (JupyterTerminal, 1, &b"[\"stdin\",\"l\"]"[..], true),
            (JupyterTerminal, 1, b"[\"stdin\", \"l\"]", true),
            (JupyterTerminal, 1, b"[\"stdin\",\"\\u001b[?1;2c\"]", false),
            (JupyterTerminal, 1, b"[\"set_size\",24,80]", false),
            (Terminal, 2, b"l", true),
            (Terminal, 2, b"\x1b[?1;2c", false),
            (Terminal, 1, b"{\"type\":\"resize\"}", false),
            (Ttyd, 2, b"0l", true),
            (Ttyd, 2, b"1{\"columns\":80}", false),
            (Speaks::Other, 1, b"[\"stdin\",\"l\"]", false),
            (Speaks::VsCode, 2, b"\x09\0\0\0\0\0\0\0\0\0\0\0\0", false),
            // A ping, and a pong.
            (Terminal, 9, b"l", false),
            (Terminal, 10, b"l", false),
        ] {
            assert_eq!(
                counts(speaks, opcode, payload),
                expected,
                "{speaks:?} {payload:?}"
            );
        }
    }

    #[test]
    fn what_is_spoken_is_told_by_the_request() {
        let of = |uri: &str, protocol: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.parse().unwrap());
            Speaks::of(&uri.parse().unwrap(), &headers).unwrap()
        };
        let raw = "/stable-1?reconnectionToken=x&skipWebSocketFrames=true";
        assert_eq!(Speaks::of(&raw.parse().unwrap(), &HeaderMap::new()), None);
        assert_eq!(
            of("/stable-1?reconnectionToken=x&reconnection=false", "x"),
            Speaks::VsCode
        );
        assert_eq!(
            of("/lab/api/kernels/1/channels?session_id=2", "x"),
            Speaks::JupyterKernel
        );
        assert_eq!(
            of("/alice/terminals/websocket/1", "x"),
            Speaks::JupyterTerminal
        );
        assert_eq!(of("/ws?session=", "a, terminal.gitspace"), Speaks::Terminal);
        assert_eq!(of("/ws", "tty"), Speaks::Ttyd);
        assert_eq!(of("/socket.io/?EIO=4", "vite-hmr"), Speaks::Other);
    }
}
