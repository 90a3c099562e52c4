//! The fuzz target of the observer: what docs/activity.md says of messages and times, read in another way.

use std::time::Duration;

use super::super::{
    Way,
    observer::{Observer, Speaks},
};

/// Milliseconds.
type At = u64;

/// A frame that passes: five bytes of the input.
struct Passed {
    at: At,
    way: Way,
    opcode: u8,
    compressed: bool,
    length: usize,
    first: u8,
}

/// What is spoken, then frames: how long after the one before, which way with what it is, its length in two bytes, its first byte.
pub fn observer(data: &[u8]) {
    let Some((kind, frames)) = data.split_first() else {
        return;
    };
    let speaks = [
        Speaks::VsCode,
        Speaks::JupyterKernel,
        Speaks::JupyterTerminal,
        Speaks::Terminal,
        Speaks::Ttyd,
        Speaks::Other,
    ][usize::from(kind % 6)];
    let (mut at, mut passed) = (0, Vec::new());
    for frame in frames.chunks_exact(5).take(2_000) {
        // In steps of 50 ms up to 3.2 s, and of 5 s above.
        at += match frame[0] {
            short @ 0..64 => u64::from(short) * 50,
            long => u64::from(long - 60) * 5_000,
        };
        passed.push(Passed {
            at,
            way: match frame[1] & 1 {
                0 => Way::Up,
                _ => Way::Down,
            },
            opcode: [0, 1, 2, 8, 9, 10][usize::from(frame[1] >> 2) % 6],
            compressed: frame[1] & 2 != 0,
            length: usize::from(u16::from_be_bytes([frame[2], frame[3]]) % 1_024),
            first: frame[4],
        });
    }
    assert_eq!(
        observed(speaks, &passed),
        expected(speaks, &passed),
        "{speaks:?}"
    );
}

/// When it says that somebody typed.
fn observed(speaks: Speaks, passed: &[Passed]) -> Vec<At> {
    let mut observer = Observer::new(speaks);
    let mut typed = Vec::new();
    for frame in passed {
        observer.look(frame.way, &frame.bytes());
        if observer.typed(Duration::from_millis(frame.at)) {
            typed.push(frame.at);
        }
    }
    typed
}

impl Passed {
    /// As it would be sent: a client masks.
    fn bytes(&self) -> Vec<u8> {
        let masked = self.way == Way::Up;
        let (bit, mask) = (u8::from(masked) << 7, if masked { 0x5a } else { 0 });
        let control = self.opcode >= 8;
        let length = if control {
            self.length % 126
        } else {
            self.length
        };
        let mut bytes = vec![0x80 | u8::from(self.compressed) << 6 | self.opcode];
        match length {
            0..126 => bytes.push(bit | length as u8),
            _ => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([mask; 4]);
        }
        bytes.extend((0..length).map(|at| mask ^ if at == 0 { self.first } else { b'x' }));
        bytes
    }

    fn begins_message(&self) -> bool {
        matches!(self.opcode, 1 | 2)
    }

    /// Long enough to be more than what VS Code sends on its own.
    fn is_long(&self) -> bool {
        self.length > if self.compressed { 16 } else { 13 }
    }

    /// What a person may have made.
    fn may_be_a_persons(&self, speaks: Speaks) -> bool {
        let own = self.begins_message() && self.length > 0 && self.way == Way::Up;
        own && match speaks {
            Speaks::VsCode => self.is_long() && (self.compressed || self.first == 1),
            _ => true,
        }
    }

    /// What a client may answer.
    fn may_be_answered(&self, speaks: Speaks) -> bool {
        let told = self.begins_message() && self.way == Way::Down;
        told && (speaks == Speaks::JupyterKernel || self.is_long())
    }
}

/// The rules, from each message on.
fn expected(speaks: Speaks, passed: &[Passed]) -> Vec<At> {
    let sent = passed[..until_close(passed, Way::Up)].iter();
    let at_once = |frame: &&Passed| match speaks {
        Speaks::Terminal => frame.opcode == 2 && frame.first != 0x1b,
        Speaks::Ttyd => frame.first == b'0',
        // `["stdin",` is never sent here.
        _ => false,
    };
    if !matches!(speaks, Speaks::VsCode | Speaks::JupyterKernel) {
        let typed = sent
            .filter(|frame| frame.may_be_a_persons(speaks))
            .filter(at_once);
        return typed.map(|frame| frame.at).collect();
    }
    let told = &passed[..until_close(passed, Way::Down)];
    let enough = if speaks == Speaks::VsCode { 6 } else { 1 };
    let mut typed = Vec::new();
    let mut burst: Vec<At> = Vec::new();
    for (index, frame) in sent.enumerate() {
        if !frame.may_be_a_persons(speaks) || frame.at < 60_000 {
            continue;
        }
        let within = burst.first().is_some_and(|first| frame.at - first < 1_500);
        let before = told[..index.min(told.len())].iter();
        let answers = before
            .filter(|told| told.may_be_answered(speaks))
            .any(|told| frame.at - told.at < 1_000);
        match (within, answers) {
            (true, _) => burst.push(frame.at),
            (false, true) => continue,
            (false, false) => burst = vec![frame.at],
        }
        if burst.len() >= enough {
            typed.push(frame.at);
        }
    }
    typed
}

/// Up to which frame a way is looked at: nothing counts from a close on.
fn until_close(passed: &[Passed], way: Way) -> usize {
    let close = |frame: &Passed| frame.way == way && frame.opcode == 8;
    passed.iter().position(close).unwrap_or(passed.len())
}
