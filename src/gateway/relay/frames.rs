//! Frames: where a side of a WebSocket stands within its frames (RFC 6455 §5.2).
//!
//! Headers are read, whatever extension made the payloads: enough to put a frame of ours between two others, and to tell how long a
//! message is that somebody sent. What is no frame is lost for good, and nothing is put into it.
//!
//! Not here: what a frame means (`observer`).

const CLOSE: u8 = 0x8;
/// How much of a payload is shown to whoever looks at it.
pub(crate) const PEEK: usize = 16;

/// See the module. Small: every WebSocket has two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frames {
    /// Of a payload: how many bytes are still to come. Of a header: its length as far as it came.
    left: u64,
    /// The first two bytes of the header that came last.
    head: [u8; 2],
    /// How many bytes came of a header.
    have: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between two frames, or within a header.
    Head,
    /// Within a payload.
    Payload,
    /// It said that it ends: nothing may follow.
    Closed,
    /// This is no WebSocket.
    Lost,
}

/// A frame whose header has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// What it is (§5.2).
    pub(crate) opcode: u8,
    /// Whether its first reserved bit is set: with permessage-deflate its message is compressed (RFC 7692 §6).
    pub(crate) compressed: bool,
    /// Length of its payload.
    pub(crate) length: u64,
    /// The payload's first bytes as they came, still masked: as many as came with the header, up to [`PEEK`].
    pub(crate) begins: &'a [u8],
    /// What they are masked with. Zeros: they are not.
    pub(crate) mask: [u8; 4],
}

impl Frames {
    pub(crate) const fn new() -> Self {
        Self {
            left: 0,
            head: [0; 2],
            have: 0,
            state: State::Head,
        }
    }

    /// These came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.look(bytes, |_| {});
    }

    /// These came; each frame whose header is whole now is shown.
    pub(crate) fn look(&mut self, mut bytes: &[u8], mut show: impl FnMut(Frame<'_>)) {
        // The last bytes of a header are its mask, which is known only if they came in one piece.
        let (mut mask, mut known) = ([0; 4], 0_u8);
        while let Some((byte, rest)) = bytes.split_first() {
            match self.state {
                State::Payload => {
                    let taken = usize::try_from(self.left)
                        .map_or(bytes.len(), |left| left.min(bytes.len()));
                    bytes = &bytes[taken..];
                    self.left -= taken as u64;
                    if self.left == 0 {
                        self.state = State::Head;
                    }
                }
                State::Head => {
                    self.take(*byte);
                    mask.rotate_left(1);
                    mask[3] = *byte;
                    known += 1;
                    bytes = rest;
                    if self.wanted() == 0 {
                        self.begin();
                        if self.state != State::Lost {
                            show(self.frame(bytes, (known >= 4).then_some(mask)));
                        }
                        known = 0;
                    }
                }
                State::Closed | State::Lost => return,
            }
        }
    }

    /// The frame whose header is whole, and whose payload begins with these.
    fn frame<'a>(&self, bytes: &'a [u8], mask: Option<[u8; 4]>) -> Frame<'a> {
        let masked = self.head[1] & 0x80 != 0;
        let mask = if masked { mask } else { Some([0; 4]) };
        let length = self.left;
        let most = usize::try_from(length).map_or(PEEK, |length| length.min(PEEK));
        let shown = mask.map_or(0, |_| most.min(bytes.len()));
        Frame {
            opcode: self.head[0] & 0x0f,
            compressed: self.head[0] & 0x40 != 0,
            length,
            begins: &bytes[..shown],
            mask: mask.unwrap_or_default(),
        }
    }

    /// How many bytes must come before a frame of ours may follow, as far as is known. None: it never may.
    pub(crate) fn until(&self) -> Option<u64> {
        match self.state {
            State::Head if self.have == 0 => Some(0),
            State::Head => Some(self.wanted() as u64),
            State::Payload => Some(self.left),
            State::Closed | State::Lost => None,
        }
    }

    /// A byte of a header.
    fn take(&mut self, byte: u8) {
        let at = usize::from(self.have);
        self.have += 1;
        match at {
            0 => (self.head[0], self.left) = (byte, 0),
            1 => self.head[1] = byte,
            _ if at < 2 + self.length_bytes() => self.left = self.left << 8 | u64::from(byte),
            // The mask.
            _ => {}
        }
    }

    /// How many bytes of the header are missing, as far as is known.
    fn wanted(&self) -> usize {
        let have = usize::from(self.have);
        if have < 2 {
            return 2 - have;
        }
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + self.length_bytes() + mask - have
    }

    /// How many bytes the length has behind the first two.
    fn length_bytes(&self) -> usize {
        match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    /// A header is whole.
    fn begin(&mut self) {
        let short = self.head[1] & 0x7f;
        if short < 126 {
            self.left = u64::from(short);
        }
        let opcode = self.head[0] & 0x0f;
        let control = opcode & 0x8 != 0;
        // Control frames are short and whole; no length is negative.
        let whole = short < 126 && self.head[0] & 0x80 != 0;
        let sound = self.left >> 63 == 0 && (!control || whole);
        self.have = 0;
        self.state = match (sound, opcode, self.left) {
            (false, ..) => State::Lost,
            (_, CLOSE, _) => State::Closed,
            (_, _, 0) => State::Head,
            _ => State::Payload,
        };
    }
}

impl Frame<'_> {
    /// Whether it begins a message, and is no control frame.
    pub(crate) fn begins_message(&self) -> bool {
        matches!(self.opcode, 1 | 2)
    }

    /// The payload's first bytes, unmasked.
    pub(crate) fn peek(&self, into: &mut [u8; PEEK]) -> usize {
        for (at, (to, byte)) in into.iter_mut().zip(self.begins).enumerate() {
            *to = byte ^ self.mask[at % 4];
        }
        self.begins.len()
    }
}

/// A server's close frame: a code, and a reason that is cut to fit (§5.5).
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(123)];
    let mut frame = vec![0x80 | CLOSE, 2 + reason.len() as u8];
    frame.extend(code.to_be_bytes());
    frame.extend(reason.bytes());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, mask: Option<[u8; 4]>, payload: usize) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(bit | payload as u8),
            126..=0xffff => {
                frame.push(bit | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(bit | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(
            mask.unwrap_or_default()
                .iter()
                .take(if mask.is_some() { 4 } else { 0 }),
        );
        frame.resize(frame.len() + payload, 0xff);
        frame
    }

    proptest! {
        #[test]
        fn wherever_the_bytes_are_cut_the_ends_of_frames_are_found(
            frames in proptest::collection::vec((prop_oneof![Just(0x81_u8), Just(0x02), Just(0xc1), Just(0x89)], any::<Option<[u8; 4]>>(), 0_usize..70_000), 1..8),
            cuts in proptest::collection::vec(1_usize..5_000, 1..50),
        ) {
            let mut ends = vec![0];
            let mut bytes = Vec::new();
            for (first, mask, length) in frames {
                let length = if first == 0x89 { length % 126 } else { length };
                bytes.extend(frame(first, mask, length));
                ends.push(bytes.len());
            }
            let (mut seen, mut at, mut cuts) = (Frames::new(), 0, cuts.into_iter().cycle());
            while at < bytes.len() {
                let to = bytes.len().min(at + cuts.next().unwrap());
                let until = usize::try_from(seen.until().unwrap()).unwrap();
                prop_assert!(ends.iter().any(|end| *end >= at + until));
                seen.feed(&bytes[at..to]);
                at = to;
                prop_assert_eq!(seen.until() == Some(0), ends.contains(&at));
            }
        }

        #[test]
        fn each_frame_is_shown_once_with_its_length_and_its_first_bytes(
            frames in proptest::collection::vec((any::<bool>(), any::<Option<[u8; 4]>>(), 0_usize..70_000), 1..8),
            cuts in proptest::collection::vec(1_usize..5_000, 1..50),
        ) {
            let mut bytes = Vec::new();
            for (compressed, mask, length) in &frames {
                bytes.extend(frame(if *compressed { 0xc1 } else { 0x82 }, *mask, *length));
            }
            let (mut seen, mut shown, mut rest, mut cuts) = (Frames::new(), Vec::new(), &bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(cuts.next().unwrap()));
                seen.look(piece, |frame| {
                    let mut peek = [0; PEEK];
                    let known = frame.peek(&mut peek);
                    shown.push((frame.opcode, frame.compressed, frame.length, frame.mask, peek[..known].to_vec()));
                });
                rest = more;
            }
            prop_assert_eq!(shown.len(), frames.len());
            for ((opcode, deflated, length, found, peek), (compressed, mask, expected)) in shown.into_iter().zip(frames) {
                prop_assert_eq!((opcode, deflated, length), (if compressed { 1 } else { 2 }, compressed, expected as u64));
                // Payloads are of bytes of 0xff, masked or not.
                let mask = mask.unwrap_or_default();
                prop_assert!(peek.is_empty() || found == mask);
                prop_assert!(peek.iter().enumerate().all(|(at, byte)| *byte == 0xff ^ mask[at % 4]) && peek.len() <= expected);
            }
        }

        #[test]
        fn no_bytes_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..40)) {
            let mut seen = Frames::new();
            for piece in pieces {
                seen.feed(&piece);
                prop_assert!(seen.until() != Some(u64::MAX));
            }
        }
    }

    #[test]
    fn nothing_follows_a_close_and_what_is_no_frame() {
        for bytes in [
            &[0x88, 0][..],
            &[0x88, 2, 3, 0xe8],
            &[0x08, 0],
            &[0x89, 126, 0, 1],
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let mut seen = Frames::new();
            seen.feed(bytes);
            seen.feed(&[0x81, 0]);
            assert!(seen.until().is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn a_close_frame_fits_whatever_the_reason() {
        assert_eq!(close(1008, "revoked"), b"\x88\x09\x03\xf0revoked");
        let long = close(1012, &"ä".repeat(100));
        assert_eq!((long.len(), long[1]), (2 + 2 + 122, 124));
        assert!(std::str::from_utf8(&long[4..]).is_ok());
    }
}
