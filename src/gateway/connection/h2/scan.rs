//! What a client's HTTP/2 frames cost us, read off their headers in front of h2.
//!
//! h2 bounds streams, resets, empty DATA and CONTINUATION; it answers PING and SETTINGS without end, and takes WINDOW_UPDATE,
//! PRIORITY and unknown frames without end. Here every frame that carries nothing of a message takes from a stock, and what carries
//! one gives to it: requests, DATA of either direction. Numbers: a request gives 8, since a browser may send PRIORITY_UPDATE,
//! WINDOW_UPDATE and RST_STREAM for each; a DATA frame that we send gives 4, since simple clients answer each with two
//! WINDOW_UPDATEs; a DATA frame that comes gives 1. Time gives 20 a second, and the clock is read only when nothing is left.
//!
//! Payloads are skipped, but for header blocks: [`walk`] looks at those for what h2 would repair silently.
//!
//! Not here: what happens then (`frames`).

use tokio::time::Instant;

use super::hpack::walk;

const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const CONTINUATION: u8 = 0x9;

const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The stock at first, and at most.
const STOCK: i32 = 1_000;
const PER_REQUEST: i32 = 8;
const PER_DATA_SENT: i32 = 4;
const PER_SECOND: u64 = 20;
/// SETTINGS may concern every stream.
const COST_OF_SETTINGS: i32 = 20;
/// A frame that means nothing to us costs by its size as well.
const BYTES_PER_COST: usize = 1_024;
/// A head with so many times the fields that are allowed is an attack; below, it gets an answer.
const FIELDS_ABUSE: usize = 4;

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// Too much of what carries nothing.
    Flood,
    /// What h2 would let pass, or repair.
    Malformed,
}

/// Reads along with what a client sends.
pub(super) struct Scan {
    preface: usize,
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the frame's payload that are to come.
    left: usize,
    /// A header block that did not come in one piece.
    block: Vec<u8>,
    /// SETTINGS have come: they are first (RFC 9113 §3.4), which h2 does not ask for.
    greeted: bool,
    /// HEADERS have come, END_HEADERS has not.
    open: bool,
    trailers: bool,
    latest: u32,
    stock: i32,
    filled: Instant,
    fields_max: usize,
    bytes_max: usize,
}

impl Scan {
    pub(super) fn new(fields_max: usize, bytes_max: usize) -> Self {
        Self {
            preface: PREFACE,
            head: [0; HEAD],
            have: 0,
            left: 0,
            block: Vec::new(),
            greeted: false,
            open: false,
            trailers: false,
            latest: 0,
            stock: STOCK,
            filled: Instant::now(),
            fields_max,
            bytes_max,
        }
    }

    /// The latest stream that the client has opened.
    pub(super) fn latest(&self) -> u32 {
        self.latest
    }

    /// Whether a frame or a head has begun and is not whole; bodies have a deadline of their own.
    pub(super) fn is_unfinished(&self) -> bool {
        self.open || self.have > 0 && !(self.have == HEAD && self.kind() == DATA)
    }

    /// Notes that we sent so many DATA frames.
    pub(super) fn sent(&mut self, frames: i32) {
        self.gain(frames.saturating_mul(PER_DATA_SENT));
    }

    /// Reads what came.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        let mut bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            if self.have < HEAD {
                let part = bytes.len().min(HEAD - self.have);
                self.head[self.have..self.have + part].copy_from_slice(&bytes[..part]);
                self.have += part;
                bytes = &bytes[part..];
                if self.have < HEAD {
                    return Ok(());
                }
                self.begin()?;
            }
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= part.len();
            bytes = rest;
            if matches!(self.kind(), HEADERS | CONTINUATION) {
                self.of_block(part)?;
            }
            if self.left == 0 {
                self.have = 0;
            }
        }
        Ok(())
    }

    fn kind(&self) -> u8 {
        self.head[3]
    }

    fn has(&self, flag: u8) -> bool {
        self.head[4] & flag != 0
    }

    /// A frame's header is whole.
    fn begin(&mut self) -> Result<(), Violation> {
        let [a, b, c, kind, _, e, f, g, h] = self.head;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([e & 0x7f, f, g, h]);
        if !self.greeted && kind != SETTINGS {
            return Err(Violation::Malformed);
        }
        self.greeted = true;
        match kind {
            DATA if self.left > 0 => self.gain(1),
            // h2 counts the empty ones.
            DATA => {}
            HEADERS => {
                self.open = true;
                self.trailers = stream <= self.latest;
                if !self.trailers {
                    self.latest = stream;
                    self.gain(PER_REQUEST);
                }
            }
            SETTINGS => self.spend(COST_OF_SETTINGS)?,
            // The other frames of RFC 9113: PRIORITY to CONTINUATION.
            0x2..=CONTINUATION => self.spend(1)?,
            _ => self.spend(1 + i32::try_from(self.left / BYTES_PER_COST).unwrap_or(STOCK))?,
        }
        Ok(())
    }

    fn gain(&mut self, count: i32) {
        self.stock = self.stock.saturating_add(count).min(STOCK);
    }

    fn spend(&mut self, count: i32) -> Result<(), Violation> {
        self.stock = self.stock.saturating_sub(count);
        if self.stock >= 0 {
            return Ok(());
        }
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_millis() as u64 * PER_SECOND / 1_000;
        self.filled = now;
        self.gain(i32::try_from(gained).unwrap_or(STOCK));
        match self.stock >= 0 {
            true => Ok(()),
            false => Err(Violation::Flood),
        }
    }

    /// A piece of HEADERS or CONTINUATION. Most blocks come in one, and are read where they are.
    fn of_block(&mut self, part: &[u8]) -> Result<(), Violation> {
        let whole = self.left == 0 && self.kind() == HEADERS && self.has(END_HEADERS);
        if whole && self.block.is_empty() {
            self.open = false;
            return self.block(fragment(part, self.head[4]));
        }
        if self.block.len() + part.len() > self.bytes_max {
            return Err(Violation::Flood);
        }
        self.block.extend_from_slice(part);
        if self.left > 0 {
            return Ok(());
        }
        if self.kind() == HEADERS {
            // Only the first frame is padded.
            let kept = fragment(&self.block, self.head[4]).to_vec();
            self.block = kept;
        }
        if self.has(END_HEADERS) {
            self.open = false;
            let block = std::mem::take(&mut self.block);
            return self.block(&block);
        }
        Ok(())
    }

    fn block(&self, block: &[u8]) -> Result<(), Violation> {
        // What cannot be walked over is an error that h2 finds.
        let Some(walked) = walk(block) else {
            return Ok(());
        };
        if walked.fields > self.fields_max.saturating_mul(FIELDS_ABUSE) {
            return Err(Violation::Flood);
        }
        if self.trailers && walked.fields > self.fields_max {
            // They get no answer of their own.
            return Err(Violation::Flood);
        }
        match self.trailers && walked.pseudo || walked.fragment {
            true => Err(Violation::Malformed),
            false => Ok(()),
        }
    }
}

/// The header block within HEADERS: without padding and priority (RFC 9113 §6.2).
fn fragment(payload: &[u8], flags: u8) -> &[u8] {
    let (mut from, mut to) = (0, payload.len());
    if flags & PADDED != 0 {
        to = to.saturating_sub(usize::from(payload.first().copied().unwrap_or(0)));
        from += 1;
    }
    if flags & PRIORITY != 0 {
        from += 5;
    }
    payload.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests;
