//! Descriptors from one process to another (SCM_RIGHTS, unix(7)), with a line of text that says what they are.
//!
//! The text goes first, with its length in front; then the descriptors in its order, some at a time. Blocks.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// Descriptors in one message; the kernel takes 253 (SCM_MAX_FD).
const AT_ONCE: usize = 64;
/// No text of ours is longer.
const TEXT_MAX: usize = 1024 * 1024;

/// Sends a text and descriptors.
pub(super) fn send(mut to: &UnixStream, text: &str, all: &[OwnedFd]) -> io::Result<()> {
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let count = u32::try_from(all.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(text.as_bytes())?;
    to.write_all(&count.to_be_bytes())?;
    for some in all.chunks(AT_ONCE) {
        let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&some)) {
            return Err(io::Error::other("too many descriptors at once"));
        }
        let sent = sendmsg(to, &[IoSlice::new(b"+")], &mut control, SendFlags::NOSIGNAL)?;
        if sent != 1 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Receives what [`send`] sends.
pub(super) fn receive(mut from: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let length = number(from)?;
    if length > TEXT_MAX {
        return Err(io::Error::other("a text that is too long"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    let count = number(from)?;
    let mut all = Vec::new();
    while all.len() < count {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let before = all.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                all.extend(some);
            }
        }
        if received.bytes == 0 || all.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((text, all))
}

fn number(mut from: &UnixStream) -> io::Result<usize> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes) as usize)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn any_number_of_descriptors_arrives_in_order() {
        for count in [0, 1, AT_ONCE, 2 * AT_ONCE + 1] {
            let (here, there) = UnixStream::pair().unwrap();
            let files: Vec<File> = (0..count).map(|_| tempfile::tempfile().unwrap()).collect();
            let numbers: Vec<u64> = files
                .iter()
                .map(|file| file.metadata().unwrap().ino())
                .collect();
            let all: Vec<OwnedFd> = files.into_iter().map(Into::into).collect();
            send(&here, "what they are", &all).unwrap();
            let (text, received) = receive(&there).unwrap();
            assert_eq!(text, "what they are");
            let received = received.into_iter().map(File::from);
            let received: Vec<u64> = received
                .map(|file| file.metadata().unwrap().ino())
                .collect();
            assert_eq!(received, numbers);
        }
    }

    #[test]
    fn whoever_is_cut_off_is_an_error() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&[0, 0, 0, 1, b'x', 0, 0, 0, 2]).unwrap();
        drop(here);
        receive(&there).unwrap_err();
    }
}
