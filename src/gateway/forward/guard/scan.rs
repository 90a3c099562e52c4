//! The scan of an answer's heads: line by line, in whatever pieces they come, without a copy of them.
//!
//! Not here: the connection that they come on (`guard`), the meaning of fields (`framing`).

use crate::gateway::rejection::Break;

/// Bytes of all heads of one answer, interim ones included.
const HEAD_BYTES: usize = 64 * 1024;
/// Fields of one head. hyper parses as many without an allocation.
const FIELDS: u32 = 100;
/// Interim answers (1xx) to one request.
const INTERIM: u32 = 32;
/// `HTTP/1.1 200 `
const STATUS_LINE: usize = 13;

/// What the guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Bytes before a request.
    #[error("the gitspace sent bytes that nobody had asked for")]
    Unasked,
    /// Something else than HTTP/1.0 or HTTP/1.1.
    #[error("the gitspace's answer does not begin with an HTTP/1 status line")]
    NotHttp,
    /// A line that ends with a line feed alone.
    #[error("a line of the answer's head ends without a carriage return")]
    BareLineFeed,
    /// More than [`HEAD_BYTES`].
    #[error("the answer's head has more than {HEAD_BYTES} bytes")]
    Bytes,
    /// More than [`FIELDS`].
    #[error("the answer's head has more than {FIELDS} fields")]
    Fields,
    /// More than [`INTERIM`].
    #[error("more than {INTERIM} interim answers came")]
    Interim,
}

impl Refused {
    pub(super) fn kind(self) -> Break {
        match self {
            Self::Unasked | Self::NotHttp | Self::BareLineFeed => Break::Protocol,
            Self::Bytes | Self::Fields | Self::Interim => Break::HeadTooLarge,
        }
    }
}

/// Where in the heads of one answer we are.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes of all heads so far.
    bytes: usize,
    /// Fields of this head.
    fields: u32,
    interim: u32,
    /// How the status line begins.
    status: [u8; STATUS_LINE],
    /// Whether this head's status line is behind us.
    past_status: bool,
    /// Bytes of the line that is not over yet.
    line: usize,
    last: u8,
}

impl Scan {
    /// How a connection broke off that ends here.
    pub(super) fn cut(&self) -> Break {
        if self.bytes == 0 {
            Break::Terminated
        } else {
            Break::Incomplete
        }
    }

    /// Reads on; true once the head of the final answer is over.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<bool, Refused> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += piece.len();
            if self.bytes > HEAD_BYTES {
                return Err(Refused::Bytes);
            }
            if !self.past_status {
                self.begin_status(piece)?;
            }
            let ended = self.piece(piece)?;
            if ended && self.line_over()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes a piece of a line; true if the line is over.
    fn piece(&mut self, piece: &[u8]) -> Result<bool, Refused> {
        let (ended, before) = match piece {
            [.., before, b'\n'] => (true, *before),
            [b'\n'] => (true, self.last),
            _ => (false, 0),
        };
        if ended && before != b'\r' {
            return Err(Refused::BareLineFeed);
        }
        self.line += piece.len();
        self.last = piece.last().copied().unwrap_or(self.last);
        Ok(ended)
    }

    /// A line with its end is behind us; true if it ends the final head.
    fn line_over(&mut self) -> Result<bool, Refused> {
        let empty = self.line == 2;
        (self.line, self.last) = (0, 0);
        if !self.past_status {
            self.past_status = true;
            self.fields = 0;
        } else if empty {
            return self.head_over();
        } else {
            self.fields += 1;
            if self.fields > FIELDS {
                return Err(Refused::Fields);
            }
        }
        Ok(false)
    }

    /// Nonsense is told by its first bytes, without waiting for a line of it.
    fn begin_status(&mut self, piece: &[u8]) -> Result<(), Refused> {
        for (place, byte) in self.status.iter_mut().skip(self.line).zip(piece) {
            *place = *byte;
        }
        let known = (self.line + piece.len()).min(STATUS_LINE);
        let fits = self
            .status
            .iter()
            .take(known)
            .enumerate()
            .all(|(at, byte)| match at {
                0..=6 => b"HTTP/1.".get(at) == Some(byte),
                7 => matches!(byte, b'0' | b'1'),
                8 => *byte == b' ',
                9 => matches!(byte, b'1'..=b'9'),
                10 | 11 => byte.is_ascii_digit(),
                // A reason may be missing, with or without its space (RFC 9112 §4).
                _ => matches!(byte, b' ' | b'\r'),
            });
        if fits { Ok(()) } else { Err(Refused::NotHttp) }
    }

    /// An interim answer is followed by another; a 101 is the last of its connection.
    fn head_over(&mut self) -> Result<bool, Refused> {
        let code = self.status.get(9..12).unwrap_or_default();
        if !code.starts_with(b"1") || code == b"101" {
            return Ok(true);
        }
        self.interim += 1;
        if self.interim > INTERIM {
            return Err(Refused::Interim);
        }
        self.past_status = false;
        self.status = [0; STATUS_LINE];
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
