//! The fuzz targets of a WebSocket's frames: `observer`, and here, wherever the bytes are cut, it knows where frames end, or that nothing may follow.

mod observer;

pub use observer::observer;

use super::frames::Frames;

/// How long a piece is at the most, then what a WebSocket's server sends.
pub fn frames(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else {
        return;
    };
    let (ends, over) = ends(bytes);
    let mut seen = Frames::new();
    let mut at = 0;
    for piece in bytes.chunks(usize::from(*piece).max(1)) {
        seen.feed(piece);
        at += piece.len();
        let next = ends.iter().find(|end| **end >= at as u64);
        let expected = match (over, next) {
            (Some(over), _) if at >= over => None,
            (_, Some(end)) => Some(end - at as u64),
            // Within the last header, which is not whole: at least one byte more.
            (_, None) => Some(1),
        };
        match (seen.until(), expected) {
            (Some(until), Some(left)) if until == 0 || left == 0 => assert_eq!(until, left),
            // Before a header is whole less is known, and never more than is right.
            (Some(until), Some(left)) => assert!(until <= left || next.is_none(), "{until} {left}"),
            (until, expected) => assert_eq!(until, expected),
        }
    }
}

/// Where frames end, those too that are not whole; and where it is over: behind the header of a close, or of what is no frame.
fn ends(bytes: &[u8]) -> (Vec<u64>, Option<usize>) {
    let mut ends = vec![0];
    let mut at = 0_usize;
    loop {
        let Some([first, second]) = bytes.get(at..at + 2) else {
            return (ends, None);
        };
        let (masked, code) = (second >= &0x80, second % 0x80);
        let more = if code < 126 {
            0
        } else {
            (code as usize - 125).pow(2) * 2
        };
        let header = 2 + more + if masked { 4 } else { 0 };
        let Some(length) = bytes.get(at + 2..at + 2 + more) else {
            return (ends, None);
        };
        if bytes.len() < at + header {
            return (ends, None);
        }
        let length = match more {
            0 => u128::from(code),
            _ => length
                .iter()
                .fold(0, |sum, byte| sum * 256 + u128::from(*byte)),
        };
        let control = first & 0x08 > 0;
        let whole = first & 0x80 > 0;
        if length > i64::MAX as u128 || (control && !(whole && code < 126)) || first % 16 == 8 {
            return (ends, Some(at + header));
        }
        let end = (at + header) as u128 + length;
        ends.push(end as u64);
        match usize::try_from(end) {
            Ok(end) if end <= bytes.len() => at = end,
            _ => return (ends, None),
        }
    }
}
