//! The forms in which proxies write a hop: `X-Forwarded-For` by custom, `Forwarded` by RFC 7239.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Hops of one line; more than any road has.
const HOPS_MAX: usize = 100;

/// The address of a hop: alone, or with a port where the two can be told apart. Nothing for `unknown`, for names that hide
/// an address, and for everything else.
pub fn address(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let (ip, after): (IpAddr, &str) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, after) = rest.split_once(']')?;
            (ip.parse::<Ipv6Addr>().ok()?.into(), after)
        }
        None => {
            let (ip, _) = text.split_once(':')?;
            (ip.parse::<Ipv4Addr>().ok()?.into(), &text[ip.len()..])
        }
    };
    let port = |digits: &str| {
        (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let known = after.is_empty() || after.strip_prefix(':').is_some_and(port);
    known.then(|| ip.to_canonical())
}

/// What one hop says in `Forwarded`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Element<'a> {
    /// `for`, without quotes.
    pub node: Option<&'a str>,
    /// `proto`, without quotes.
    pub proto: Option<&'a str>,
}

/// The elements of one `Forwarded` line (RFC 7239 §4), or nothing if it is malformed anywhere: behind a quote that is not
/// closed nobody can say where an element begins. A quoted value with escapes is nothing that can be read.
pub fn elements(line: &str) -> Option<Vec<Element<'_>>> {
    let mut rest = Rest(line);
    let mut elements = Vec::new();
    loop {
        rest.skip_space();
        match rest.peek() {
            None => return Some(elements),
            Some(b',') => rest.skip(),
            Some(_) if elements.len() == HOPS_MAX => return None,
            Some(_) => {
                elements.push(rest.element()?);
                match rest.peek() {
                    None => return Some(elements),
                    Some(b',') => rest.skip(),
                    Some(_) => return None,
                }
            }
        }
    }
}

/// What is left of a line.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.bytes().next()
    }

    fn skip(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Takes what fits.
    fn take(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let end = self.0.bytes().position(|byte| !fits(byte));
        let (taken, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Pairs up to the next comma or the end.
    fn element(&mut self) -> Option<Element<'a>> {
        let mut element = Element::default();
        loop {
            self.skip_space();
            if !matches!(self.peek(), None | Some(b';' | b',')) {
                let name = self.take(is_token);
                if name.is_empty() || self.peek() != Some(b'=') {
                    return None;
                }
                self.skip();
                let value = self.value()?;
                let known = match name {
                    _ if name.eq_ignore_ascii_case("for") => Some(&mut element.node),
                    _ if name.eq_ignore_ascii_case("proto") => Some(&mut element.proto),
                    _ => None,
                };
                // Each parameter at most once.
                if known.is_some_and(|known| known.replace(value).is_some()) {
                    return None;
                }
                self.skip_space();
            }
            match self.peek() {
                Some(b';') => self.skip(),
                _ => return Some(element),
            }
        }
    }

    /// A token or a quoted string. Addresses with a port should be quoted and often are not.
    fn value(&mut self) -> Option<&'a str> {
        if self.peek() != Some(b'"') {
            let value = self.take(|byte| is_token(byte) || b":[]".contains(&byte));
            return (!value.is_empty()).then_some(value);
        }
        self.skip();
        let text = self.0;
        let mut escaped = false;
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.0 = &text[at + 1..];
                    return Some(&text[..at]);
                }
                _ => {}
            }
        }
        None
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
