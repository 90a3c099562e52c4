//! The head of an HTTP/1.1 request, line by line: what may pass, and how the message behind it is framed.
//!
//! The pure half of the guard: it looks at bytes and changes none. RFC 9112 is read in its strict sense: what two parsers could
//! read in two ways is refused, never repaired. hyper parses the same bytes again afterwards and finds nothing left to refuse.
//!
//! Not here: the host, the meaning of fields (`http`), the stream around the head (`guard`).

use http::Uri;

use crate::gateway::connection::HeadLimits;

/// Longer ones hyper does not keep.
const TARGET_MAX: usize = 65_000;
const METHOD_MAX: usize = 64;
const NAME_MAX: usize = 256;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400: it is malformed, or can be read in two ways.
    Bad(&'static str),
    /// 431: more bytes or fields than allowed.
    TooLarge,
    /// 501: a transfer coding that is not `chunked` (RFC 9112 §6.1).
    Coding,
    /// 505: another major version (RFC 9110 §15.6.6).
    Version,
    /// 408: it did not come in time.
    Late,
}

/// How long the message behind a head is (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// As its chunks say.
    Chunked,
}

/// What the guard must know of a head that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// How its body is framed.
    pub(crate) framing: Framing,
    /// Whether it asks for another protocol on this connection.
    pub(crate) upgrade: bool,
}

/// How far a head has been looked at. Bytes may come in any pieces.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Where the next line begins.
    line: usize,
    /// Where to look for its end.
    seen: usize,
    begun: bool,
    fields: usize,
    old: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    nominated: bool,
}

impl Scan {
    /// Looks at the lines that have come since the last call; `head` begins with the head's first byte. The facts and the
    /// head's length once it is complete.
    pub(crate) fn run(
        &mut self,
        head: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<(Facts, usize)>, Refusal> {
        while let Some(at) = memchr::memchr(b'\n', &head[self.seen..]) {
            let end = self.seen + at;
            let line = &head[self.line..end];
            self.line = end + 1;
            self.seen = self.line;
            if self.line > limits.bytes {
                return Err(Refusal::TooLarge);
            }
            let line = line
                .strip_suffix(b"\r")
                .ok_or(Refusal::Bad("a line ends without CR"))?;
            if !line.is_empty() {
                self.take(line, limits)?;
            } else if self.begun {
                return self.facts().map(|facts| Some((facts, self.line)));
            } else if self.line > 2 {
                // One empty line may stand before a request (RFC 9112 §2.2).
                return Err(Refusal::Bad("empty lines before the request line"));
            }
        }
        self.seen = head.len();
        if head.len() >= limits.bytes {
            return Err(Refusal::TooLarge);
        }
        self.early(head)
    }

    /// What can be told of a line before its end: rubbish need not be waited for.
    fn early(&self, head: &[u8]) -> Result<Option<(Facts, usize)>, Refusal> {
        let begin = &head[self.line..];
        let control = |byte: &u8| *byte < b' ' && !matches!(*byte, b'\t' | b'\r') || *byte == 0x7f;
        if begin.first().is_some_and(control) {
            return Err(Refusal::Bad("a line begins with a control character"));
        }
        if !self.begun && begin.len() > METHOD_MAX && !begin[..=METHOD_MAX].contains(&b' ') {
            return Err(Refusal::Bad("the method is no token"));
        }
        Ok(None)
    }

    fn take(&mut self, line: &[u8], limits: HeadLimits) -> Result<(), Refusal> {
        if !self.begun {
            self.begun = true;
            self.old = request_line(line)?;
            return Ok(());
        }
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(Refusal::TooLarge);
        }
        let (name, value) = field(line)?;
        self.note(name, value)
    }

    /// Notes what frames the message or ends the talk of HTTP.
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.nominated |= lists(value, b"upgrade");
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Refusal::Bad("more than one Content-Length"));
                }
                self.length = Some(length(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked {
                    return Err(Refusal::Bad("more than one Transfer-Encoding"));
                }
                coding(value)?;
                self.chunked = true;
            }
            // What CGI and WSGI cannot tell from framing.
            14 if spelled_like(name, b"content-length") => {
                return Err(Refusal::Bad("Content-Length is misspelled"));
            }
            17 if spelled_like(name, b"transfer-encoding") => {
                return Err(Refusal::Bad("Transfer-Encoding is misspelled"));
            }
            _ => {}
        }
        Ok(())
    }

    fn facts(&self) -> Result<Facts, Refusal> {
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => {
                return Err(Refusal::Bad(
                    "Content-Length and Transfer-Encoding in one message",
                ));
            }
            (true, None) if self.old => {
                return Err(Refusal::Bad("Transfer-Encoding in HTTP/1.0"));
            }
            (true, None) => Framing::Chunked,
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(Facts {
            framing,
            upgrade: self.upgrade && self.nominated && !self.old,
        })
    }
}

/// `method SP target SP version` (RFC 9112 §3). Whether it is HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, Refusal> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Bad("the request line has not three parts"));
    };
    if method.is_empty() || method.len() > METHOD_MAX || !method.iter().all(|byte| is_token(*byte))
    {
        return Err(Refusal::Bad("the method is no token"));
    }
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal::Version);
        }
        _ => return Err(Refusal::Bad("the request line ends in no HTTP version")),
    };
    if target.len() > TARGET_MAX {
        return Err(Refusal::TooLarge);
    }
    if !is_target(method, target) {
        return Err(Refusal::Bad("the request target is none"));
    }
    Ok(old)
}

/// The four forms of RFC 9112 §3.2, without a fragment and in ASCII.
fn is_target(method: &[u8], target: &[u8]) -> bool {
    match target.first() {
        Some(b'/') => {
            let path = memchr::memchr(b'?', target).unwrap_or(target.len());
            let (path, query) = target.split_at(path);
            path.iter().all(|byte| is_path(*byte)) && query.iter().all(|byte| is_query(*byte))
        }
        Some(b'*') => target.len() == 1 && method == b"OPTIONS",
        _ if method == b"CONNECT" => target.iter().all(|byte| is_path(*byte)),
        _ => is_absolute(target),
    }
}

/// VS Code's Node client asks for WebSockets by `ws://`.
fn is_absolute(target: &[u8]) -> bool {
    let known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https" | "ws" | "wss"));
    target.iter().all(|byte| is_query(*byte))
        && Uri::try_from(target).is_ok_and(|uri| known(&uri) && uri.authority().is_some())
}

/// What hyper takes in a path, without what is not ASCII: more than RFC 3986 allows, and unambiguous.
const fn is_path(byte: u8) -> bool {
    matches!(byte, 0x21 | b'"' | 0x24..=0x3b | 0x3d | 0x40..=0x5f | 0x61..=0x7e)
}

/// The same for a query.
const fn is_query(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x24..=0x3b | 0x3d | 0x3f..=0x7e)
}

/// `name: value` (RFC 9112 §5): no space before the colon, no continuation lines, no control characters.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Bad("a field goes on in a second line"));
    }
    let colon = memchr::memchr(b':', line).ok_or(Refusal::Bad("a field has no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.len() > NAME_MAX {
        return Err(Refusal::TooLarge);
    }
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::Bad("a field's name is no token"));
    }
    // Without a branch per byte, so that the compiler may take many at once.
    let bad = value.iter().fold(false, |bad, byte| {
        bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f)
    });
    if bad {
        return Err(Refusal::Bad("a field's value has a control character"));
    }
    Ok((name, trim(value)))
}

/// Without the optional white space around it: SP and HTAB, nothing else.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `1*DIGIT`, as far as a file can be large.
fn length(value: &[u8]) -> Result<u64, Refusal> {
    const BAD: Refusal = Refusal::Bad("Content-Length is no number");
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    // Eighteen digits always fit.
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// `chunked` and nothing else: no other coding would be undone here, and none may be passed on.
fn coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let known = |coding: &[u8]| {
        [
            &b"gzip"[..],
            b"x-gzip",
            b"deflate",
            b"compress",
            b"x-compress",
        ]
        .iter()
        .any(|known| coding.eq_ignore_ascii_case(known))
    };
    let mut codings = value.split(|byte| *byte == b',').map(trim);
    match codings.next_back() {
        Some(last) if last.eq_ignore_ascii_case(b"chunked") && codings.all(known) => {
            Err(Refusal::Coding)
        }
        _ => Err(Refusal::Bad("Transfer-Encoding is not chunked")),
    }
}

/// Whether only `_` stands for `-`.
fn spelled_like(name: &[u8], ours: &[u8]) -> bool {
    let dash = |byte: &u8| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    name.iter().map(dash).eq(ours.iter().copied())
}

fn lists(value: &[u8], option: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|one| trim(one).eq_ignore_ascii_case(option))
}

/// `tchar` (RFC 9110 §5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
        | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 8192,
        fields: 100,
    };

    fn check(head: &str) -> Result<Facts, Refusal> {
        let whole = Scan::default().run(head.as_bytes(), LIMITS);
        // However it comes, the outcome is the same.
        let mut scan = Scan::default();
        let mut bytewise = Ok(None);
        for end in 1..=head.len() {
            bytewise = scan.run(&head.as_bytes()[..end], LIMITS);
            if !matches!(bytewise, Ok(None)) {
                break;
            }
        }
        match (whole, bytewise) {
            // Byte by byte it may be told sooner, and by another mistake.
            (Err(Refusal::Bad(_)), Err(Refusal::Bad(_))) => {}
            (whole, bytewise) => assert_eq!(whole, bytewise, "{head:?}"),
        }
        whole.map(|done| {
            let (facts, length) = done.expect("a whole head");
            assert_eq!(length, head.len());
            facts
        })
    }

    fn with(fields: &str) -> Result<Facts, Refusal> {
        check(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn framing_is_told() {
        let framing = |fields| with(fields).unwrap().framing;
        assert_eq!(framing(""), Framing::Length(0));
        assert_eq!(framing("Content-Length: 5\r\n"), Framing::Length(5));
        assert_eq!(framing("content-length:\t 007 \r\n"), Framing::Length(7));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Framing::Chunked);
    }

    #[test]
    fn what_frames_a_message_twice_or_oddly_is_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 9999999999999999999\r\n",
            "Content-Length : 5\r\n",
            "Content_Length: 5\r\n",
            "Transfer_Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding:\x0bchunked\r\n",
            "Transfer-Encoding\t: chunked\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "Transfer-Encoding: \r\n",
        ] {
            assert!(matches!(with(fields), Err(Refusal::Bad(_))), "{fields:?}");
        }
        assert_eq!(
            with("Transfer-Encoding: gzip, chunked\r\n"),
            Err(Refusal::Coding)
        );
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            check(old),
            Err(Refusal::Bad("Transfer-Encoding in HTTP/1.0"))
        );
    }

    #[test]
    fn lines_that_two_parsers_would_end_differently_are_refused() {
        for head in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\x7fb\r\n\r\n",
            "GET / HTTP/1.1\r\n X: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\na b: c\r\n\r\n",
            "GET / HTTP/1.1\r\n\x00: c\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(matches!(check(head), Err(Refusal::Bad(_))), "{head:?}");
        }
    }

    #[test]
    fn one_empty_line_may_stand_before_a_request() {
        assert!(check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    }

    #[test]
    fn request_lines_are_read_strictly() {
        for line in [
            "GET / HTTP/1.1",
            "M-SEARCH * HTTP/1.1",
            "GET",
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1.10",
            "GET / HTTP/11",
            "GET /a b HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /\u{e4} HTTP/1.1",
            "GET /a\tb HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "G@T / HTTP/1.1",
            "GET /<x> HTTP/1.1",
        ] {
            let outcome = check(&format!("{line}\r\nHost: a\r\n\r\n"));
            if line == "GET / HTTP/1.1" {
                assert!(outcome.is_ok());
            } else {
                assert!(
                    matches!(outcome, Err(Refusal::Bad(_))),
                    "{line}: {outcome:?}"
                );
            }
        }
        for line in [
            "OPTIONS * HTTP/1.1",
            "GET http://a/x?y HTTP/1.1",
            "GET ws://a/x?y HTTP/1.1",
            "CONNECT a:443 HTTP/1.1",
            "GET /a|b{}\\^ HTTP/1.0",
        ] {
            assert!(
                check(&format!("{line}\r\nHost: a\r\n\r\n")).is_ok(),
                "{line}"
            );
        }
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
            assert_eq!(
                check(&format!("GET / {version}\r\n\r\n")),
                Err(Refusal::Version)
            );
        }
        assert_eq!(check("PRI * HTTP/2.0\r\n\r\n"), Err(Refusal::Version));
    }

    #[test]
    fn upgrades_are_recognised_as_the_parser_behind_recognises_them() {
        let upgrade = |fields| with(fields).unwrap().upgrade;
        assert!(upgrade(
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        ));
        assert!(upgrade(
            "Connection: keep-alive\r\nUpgrade: x\r\nConnection: UPGRADE\r\n"
        ));
        assert!(!upgrade("Upgrade: websocket\r\n"));
        assert!(!upgrade("Connection: upgrade\r\n"));
        assert!(!upgrade("Connection: xupgrade\r\nUpgrade: websocket\r\n"));
    }

    #[test]
    fn size_and_number_are_bounded() {
        let fields = |count: usize| with(&"a: b\r\n".repeat(count));
        assert!(fields(99).is_ok());
        assert_eq!(fields(100), Err(Refusal::TooLarge));
        assert_eq!(
            with(&format!("a: {}\r\n", "x".repeat(9000))),
            Err(Refusal::TooLarge)
        );
        let endless = [b'x'; 100];
        assert!(
            Scan::default().run(&endless, LIMITS).is_err(),
            "a method need not be waited for"
        );
    }
}
