//! The last of a shell's output, by absolute offset.

use std::collections::VecDeque;

/// How much output a session keeps: what a reloaded page shows again.
pub(super) const KEPT: usize = 256 * 1024;

/// Bytes with their absolute offsets; the oldest go first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Ring {
    /// Adds output.
    pub(super) fn push(&mut self, output: &[u8]) {
        self.end += output.len() as u64;
        let kept = &output[output.len().saturating_sub(KEPT)..];
        let surplus = (self.bytes.len() + kept.len()).saturating_sub(KEPT);
        self.bytes.drain(..surplus.min(self.bytes.len()));
        self.bytes.extend(kept);
    }

    /// The offset after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The oldest offset that is kept.
    pub(super) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// At most `most` bytes from `after` on, or from the oldest: their offset, and they.
    pub(super) fn read(&self, after: u64, most: usize) -> (u64, Vec<u8>) {
        // An offset from the future belongs to another session: all is shown.
        let from = if after > self.end {
            self.start()
        } else {
            after.max(self.start())
        };
        let skip = usize::try_from(from - self.start()).unwrap_or(usize::MAX);
        (
            from,
            self.bytes.iter().skip(skip).take(most).copied().collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_can_be_read_again_from_any_offset() {
        let mut ring = Ring::default();
        ring.push(b"hello ");
        ring.push(b"world");
        assert_eq!(ring.read(0, 100), (0, b"hello world".to_vec()));
        assert_eq!(ring.read(6, 3), (6, b"wor".to_vec()));
        assert_eq!(ring.read(11, 100), (11, vec![]));
        assert_eq!(ring.read(99, 100).0, 0);
    }

    #[test]
    fn the_oldest_bytes_go_first() {
        let mut ring = Ring::default();
        ring.push(&vec![1; KEPT]);
        ring.push(&[2; 10]);
        assert_eq!((ring.start(), ring.end()), (10, KEPT as u64 + 10));
        let (from, bytes) = ring.read(0, KEPT + 10);
        assert_eq!((from, bytes.len()), (10, KEPT));
        ring.push(&vec![3; 2 * KEPT]);
        assert_eq!(ring.read(0, 1), (2 * KEPT as u64 + 10, vec![3]));
    }
}
