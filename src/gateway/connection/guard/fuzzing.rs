//! The fuzz target of the head guard: what passes it is read again by httparse and by rules of its own, which must agree about
//! where every message ends.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};

use super::{Gate, Guard, HeadLimits, REPLACEMENT};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 1024,
    fields: 20,
};

/// A stream that gives `size` bytes at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.size.min(self.rest.len()).min(buffer.remaining());
        let (now, rest) = self.rest.split_at(count);
        buffer.put_slice(now);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

/// What the guard made of a client's bytes.
struct Made {
    passed: Vec<u8>,
    refused: bool,
    early: Vec<u8>,
}

/// Whether upgrades are answered with one, how many bytes come at a time, then a client's bytes.
pub(in crate::gateway) fn guard(data: &[u8]) {
    let [how, size, sent @ ..] = data else {
        return;
    };
    let becomes_stream = how % 2 == 1;
    let size = usize::from(*size).max(1);
    let made = make(sent, size, becomes_stream);
    let whole = make(sent, usize::MAX, becomes_stream);
    assert_eq!(
        made.passed, whole.passed,
        "it matters in which pieces of {size} the bytes come"
    );
    assert_eq!(made.refused, whole.refused);
    let heads = match made.passed.strip_suffix(REPLACEMENT) {
        Some(heads) if made.refused => heads,
        _ => {
            assert!(!made.refused, "a refused head was not replaced");
            &made.passed
        }
    };
    assert!(sent.starts_with(heads), "the guard changed bytes");
    if becomes_stream {
        assert!(sent[heads.len()..].starts_with(&made.early));
    }
    messages(heads);
}

fn make(sent: &[u8], size: usize, becomes_stream: bool) -> Made {
    let gate = Arc::new(Gate::default());
    let within = Duration::from_secs(60);
    let mut guard = Guard::new(Arc::clone(&gate), LIMITS, Instant::now() + within, within);
    let mut stream = Pieces { rest: sent, size };
    let mut context = Context::from_waker(Waker::noop());
    let mut passed = Vec::new();
    let mut some = [0; 700];
    loop {
        let mut buffer = ReadBuf::new(&mut some);
        match guard.poll_read(&mut stream, &mut context, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                passed.extend_from_slice(buffer.filled());
            }
            // It waits for the answer to a request for an upgrade.
            Poll::Ready(Ok(())) | Poll::Pending if waits(&guard) && !becomes_stream => {
                gate.answered(guard.heads);
                // As hyper does after its answer: it reads again what had come until then.
                if guard.held.is_empty() && stream.rest.is_empty() {
                    break;
                }
            }
            _ => break,
        }
    }
    let refused = gate.refused.load(std::sync::atomic::Ordering::Relaxed) > 0;
    Made {
        passed,
        refused,
        early: guard.into_early().to_vec(),
    }
}

fn waits(guard: &Guard) -> bool {
    matches!(guard.state, super::State::Waiting)
}

/// Reads all that passed: whole heads, each with a body that two readings frame alike; only the last body may be cut.
fn messages(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; LIMITS_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else {
            panic!(
                "httparse does not take {:?}",
                bytes.escape_ascii().to_string()
            );
        };
        assert!(length <= LIMITS.bytes, "a head of {length} bytes");
        let (head, rest) = bytes.split_at(length);
        let text = strict(head);
        assert_eq!(
            text.len(),
            request.headers.len(),
            "two readings of the fields"
        );
        let version = request.version.unwrap_or(0);
        let all = |name: &str| -> Vec<&[u8]> {
            let named = text.iter().filter(|(own, _)| own == name);
            named.map(|(_, value)| *value).collect()
        };
        let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
        bytes = match (&lengths[..], &codings[..]) {
            ([], []) => rest,
            ([length], []) => {
                let digits = length.iter().all(u8::is_ascii_digit) && !length.is_empty();
                assert!(digits, "Content-Length {length:?}");
                let length = std::str::from_utf8(length).ok();
                let length: u64 = length.and_then(|it| it.parse().ok()).unwrap_or(u64::MAX);
                assert!(length < u64::MAX >> 1, "a length beyond signed numbers");
                &rest[usize::try_from(length).map_or(rest.len(), |it| it.min(rest.len()))..]
            }
            ([], [coding]) => {
                assert!(coding.eq_ignore_ascii_case(b"chunked"), "{coding:?}");
                assert_eq!(version, 1, "Transfer-Encoding in HTTP/1.0");
                chunked(rest)
            }
            _ => panic!("two framings: {lengths:?} {codings:?}"),
        };
    }
}

const LIMITS_FIELDS: usize = LIMITS.fields;

/// The fields of a head, read by splitting, after everything that parsers quarrel about was looked for.
fn strict(head: &[u8]) -> Vec<(String, &[u8])> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let Some(head) = head.strip_suffix(b"\r\n\r\n") else {
        panic!("a head does not end in an empty line");
    };
    let bad = |byte: &u8| matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127);
    assert!(!head.iter().any(bad), "a control character passed");
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    let breaks = |line: &&[u8]| line.contains(&b'\r') || line.contains(&b'\n');
    assert!(!lines.iter().any(breaks), "a bare CR or LF passed");
    let words: Vec<&[u8]> = lines[0].split(|byte| *byte == b' ').collect();
    let [_, target, b"HTTP/1.1" | b"HTTP/1.0"] = words[..] else {
        panic!(
            "the request line {:?} passed",
            lines[0].escape_ascii().to_string()
        );
    };
    assert!(
        !target.contains(&b'#') && target.is_ascii(),
        "the target {target:?} passed"
    );
    let fields: Vec<(String, &[u8])> = lines[1..].iter().map(|line| split(line)).collect();
    for framing in ["content-length", "transfer-encoding"] {
        let spelled = |name: &str| name != framing && name.replace('_', "-") == framing;
        assert!(
            !fields.iter().any(|(name, _)| spelled(name)),
            "{framing} passed misspelled"
        );
    }
    fields
}

fn split(line: &[u8]) -> (String, &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.unwrap_or(0));
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    assert!(
        !name.is_empty() && name.iter().all(token),
        "the line {line:?} passed"
    );
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    (name, value[1..].trim_ascii())
}

/// What comes behind a chunked body; nothing if it is cut.
fn chunked(mut bytes: &[u8]) -> &[u8] {
    loop {
        let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else {
            return &[];
        };
        let line = &bytes[..at];
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = size.strip_suffix(b"\r").unwrap_or(size);
        let bare = line.iter().position(|byte| *byte == b'\r') != Some(at.saturating_sub(1));
        let hex = (1..=15).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        assert!(hex && !bare, "the chunk line {line:?} passed");
        let size = std::str::from_utf8(size).ok();
        let size = size
            .and_then(|it| usize::from_str_radix(it, 16).ok())
            .unwrap_or(usize::MAX);
        bytes = &bytes[at + 1..];
        if size == 0 {
            return trailers(bytes);
        }
        let Some(end) = bytes.get(size..) else {
            return &[];
        };
        match end {
            [b'\r', b'\n', rest @ ..] => bytes = rest,
            [] | [b'\r'] => return &[],
            _ => panic!("a chunk without end passed"),
        }
    }
}

fn trailers(mut bytes: &[u8]) -> &[u8] {
    while let Some(at) = bytes.windows(2).position(|two| two == b"\r\n") {
        let line = &bytes[..at];
        bytes = &bytes[at + 2..];
        if line.is_empty() {
            return bytes;
        }
        assert!(
            !line.contains(&b'\n') && !line.contains(&b'\r'),
            "the trailer {line:?} passed"
        );
        split(line);
    }
    &[]
}
