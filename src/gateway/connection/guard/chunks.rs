//! The chunked coding of a request's body (RFC 9112 §7.1), followed byte by byte to find where it ends.
//!
//! The pure half of the guard. Strict: sizes are hexadecimal digits and nothing else, every line ends in CR LF, extensions are
//! text and bounded, trailers are fields. hyper decodes the same bytes again.

use super::head::{Refusal, field};

/// What all extensions of one body may take together.
const EXTENSIONS_MAX: usize = 16 * 1024;
/// What its trailers may take.
const TRAILERS_MAX: usize = 16 * 1024;
/// More digits cannot be a size.
const DIGITS_MAX: u8 = 15;

/// Where in a body we are.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    extensions: usize,
    /// The trailer line that is coming.
    trailer: Vec<u8>,
    trailers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a size, after so many digits.
    Size(u64, u8),
    /// In an extension of a chunk of that size.
    Extension(u64),
    /// After the CR of a size line.
    SizeEnd(u64),
    /// In data, with so many bytes to come.
    Data(u64),
    /// After the data: CR, then LF.
    DataCr,
    DataLf,
    /// In the trailer section.
    Trailer,
    /// All has come.
    Done,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            state: State::Size(0, 0),
            extensions: 0,
            trailer: Vec::new(),
            trailers: 0,
        }
    }

    /// Whether the body has ended.
    pub(super) fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Follows the body through these bytes: how many of them belong to it, and whether what comes next is wrong.
    pub(super) fn run(&mut self, bytes: &[u8]) -> (usize, Option<Refusal>) {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if let State::Data(left) = self.state {
                let take = left.min((bytes.len() - at) as u64);
                at += take as usize;
                self.state = if take == left {
                    State::DataCr
                } else {
                    State::Data(left - take)
                };
                continue;
            }
            match self.byte(bytes[at]) {
                Ok(state) => self.state = state,
                Err(refusal) => return (at, Some(refusal)),
            }
            at += 1;
        }
        (at, None)
    }

    fn byte(&mut self, byte: u8) -> Result<State, Refusal> {
        match self.state {
            State::Size(size, digits) => size_byte(size, digits, byte),
            State::Extension(size) => {
                self.extensions += 1;
                match byte {
                    b'\r' => Ok(State::SizeEnd(size)),
                    _ if self.extensions > EXTENSIONS_MAX => {
                        Err(Refusal::Bad("chunk extensions are too long"))
                    }
                    b'\t' | b' '..=0x7e | 0x80.. => Ok(State::Extension(size)),
                    _ => Err(Refusal::Bad("a chunk extension has a control character")),
                }
            }
            State::SizeEnd(size) => match (byte, size) {
                (b'\n', 0) => Ok(State::Trailer),
                (b'\n', size) => Ok(State::Data(size)),
                _ => Err(Refusal::Bad("a chunk size's line does not end in CR LF")),
            },
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::Size(0, 0)),
            State::DataCr | State::DataLf => {
                Err(Refusal::Bad("a chunk is longer than its size says"))
            }
            State::Trailer => self.trailer_byte(byte),
            // The caller looks at neither byte by byte.
            State::Data(_) | State::Done => Ok(self.state),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, Refusal> {
        self.trailers += 1;
        if self.trailers > TRAILERS_MAX {
            return Err(Refusal::Bad("trailers are too long"));
        }
        if byte != b'\n' {
            self.trailer.push(byte);
            return Ok(State::Trailer);
        }
        let line = self
            .trailer
            .strip_suffix(b"\r")
            .ok_or(Refusal::Bad("a trailer's line ends without CR"))?;
        if line.is_empty() {
            self.trailer = Vec::new();
            return Ok(State::Done);
        }
        field(line).map_err(|_| Refusal::Bad("a trailer is no field"))?;
        self.trailer.clear();
        Ok(State::Trailer)
    }
}

fn size_byte(size: u64, digits: u8, byte: u8) -> Result<State, Refusal> {
    match (char::from(byte).to_digit(16), byte) {
        (Some(_), _) if digits >= DIGITS_MAX => Err(Refusal::Bad("a chunk size is too large")),
        (Some(digit), _) => Ok(State::Size(size * 16 + u64::from(digit), digits + 1)),
        (None, b'\r') if digits > 0 => Ok(State::SizeEnd(size)),
        (None, b';') if digits > 0 => Ok(State::Extension(size)),
        _ => Err(Refusal::Bad("a chunk size is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body's length, or why it is refused; the same in one piece and byte by byte.
    fn check(body: &str) -> Result<Option<usize>, Refusal> {
        let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut chunks = Chunks::new();
            let mut taken = 0;
            for piece in pieces {
                let (length, refusal) = chunks.run(piece);
                taken += length;
                match refusal {
                    Some(refusal) => return Err(refusal),
                    None if chunks.done() => return Ok(Some(taken)),
                    None => {}
                }
            }
            Ok(None)
        };
        let whole = run(&mut std::iter::once(body.as_bytes()));
        assert_eq!(whole, run(&mut body.as_bytes().chunks(1)), "{body:?}");
        whole
    }

    #[test]
    fn the_end_is_found() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;a=b;c=\"d e\"\r\nhello\r\n000;x\r\n\r\n",
            "A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        ] {
            assert_eq!(check(body), Ok(Some(body.len())), "{body:?}");
            assert_eq!(
                check(&format!("{body}GET / HTTP/1.1")),
                Ok(Some(body.len()))
            );
            assert_eq!(check(&body[..body.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn funky_chunks_are_refused() {
        for body in [
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5_0\r\nhello\r\n0\r\n\r\n",
            "-1\r\n",
            "\r\n",
            ";a\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\rXhello\r\n0\r\n\r\n",
            "5;a\nhello\r\n0\r\n\r\n",
            "5;a\0\r\nhello\r\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "0\r\nbad\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\na: b\rc\r\n\r\n",
            "10000000000000000\r\n",
            "fffffffffffffffff\r\n",
        ] {
            assert!(matches!(check(body), Err(Refusal::Bad(_))), "{body:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        assert!(check(&format!("5;{}", "x".repeat(20_000))).is_err());
        assert!(check(&format!("0\r\n{}", "a: b\r\n".repeat(5_000))).is_err());
    }
}
