//! Where the lines of the access log go: whole lines or none, and what could not be written is counted.
//!
//! Not here: how a line looks (`line`), the thread that writes (`log`).

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::FileTypeExt},
};

/// What lines are written to.
pub(crate) type Sink = Box<dyn Write + Send>;

/// Opens `path`, a file or `-` for standard output, to append to it.
pub(super) fn open(path: &str) -> io::Result<Sink> {
    if path == "-" {
        // The descriptor itself: the standard library's own buffer would keep half a line back.
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        return Ok(Box::new(File::from(output)));
    }
    let pipe = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    let file = OpenOptions::new()
        .create(!pipe)
        .append(true)
        // Opening a pipe for writing alone waits for its reader, and would fail whenever the reader starts again.
        .read(pipe)
        .open(path)?;
    Ok(Box::new(file))
}

/// Writes batches of lines. A line that was begun before an error is ended when writing works again, so that no line is ever
/// torn in two; the others of a failed batch are lost.
pub(super) struct Output {
    sink: Sink,
    /// The rest of a line that was begun.
    begun: Vec<u8>,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Failed {
    /// Lines of it that are not in the output and will not be.
    pub(super) lost: u64,
    /// Why.
    pub(super) error: io::Error,
}

impl Output {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            begun: Vec::new(),
        }
    }

    /// Writes lines, each with its end.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failed> {
        let begun = std::mem::take(&mut self.begun);
        if let Err((written, error)) = self.write_all(&begun) {
            self.begun = begun[written..].to_vec();
            let lost = count(lines);
            return Err(Failed { lost, error });
        }
        let Err((written, error)) = self.write_all(lines) else {
            return Ok(());
        };
        let (done, rest) = lines.split_at(written);
        let torn = !done.is_empty() && !done.ends_with(b"\n");
        let end = rest.iter().position(|byte| *byte == b'\n');
        if let (true, Some(end)) = (torn, end) {
            self.begun = rest[..=end].to_vec();
        }
        let lost = count(rest) - u64::from(torn);
        Err(Failed { lost, error })
    }

    /// Writes to another sink from now on. Gives the lines that this loses: 1 if one was begun.
    pub(super) fn replace(&mut self, sink: Sink) -> u64 {
        self.sink = sink;
        u64::from(!std::mem::take(&mut self.begun).is_empty())
    }

    /// Like that of `Write`, but tells how much was written before an error.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.sink.write(&bytes[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody who shares our standard output made it non-blocking: this thread may wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => super::pause(),
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A disk with so much room.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn room(&self, bytes: usize) {
            self.0.lock().unwrap().0 = bytes;
        }
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let count = bytes.len().min(disk.0);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.0 -= count;
            disk.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_whole_lines_and_tears_none() {
        for room in 0..=12 {
            let disk = Disk::default();
            disk.room(room);
            let mut output = Output::new(Box::new(disk.clone()));
            let lost = output
                .write(b"one\ntwo\nsix\n")
                .map_or_else(|failed| failed.lost, |()| 0);
            assert_eq!(
                lost,
                [3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0][room],
                "{room}"
            );
            disk.room(100);
            output.write(b"ten\n").unwrap();
            let text = disk.text();
            let kept = 3 - usize::try_from(lost).unwrap();
            let expected = ["one\n", "two\n", "six\n"][..kept].concat() + "ten\n";
            assert_eq!(text, expected, "{room}");
        }
    }

    #[test]
    fn a_line_that_was_begun_waits_for_room_and_does_not_go_to_another_file() {
        let (full, other) = (Disk::default(), Disk::default());
        full.room(2);
        let mut output = Output::new(Box::new(full.clone()));
        assert_eq!(output.write(b"one\n").unwrap_err().lost, 0);
        assert_eq!(output.write(b"two\nsix\n").unwrap_err().lost, 2);
        other.room(100);
        assert_eq!(output.replace(Box::new(other.clone())), 1);
        output.write(b"ten\n").unwrap();
        assert_eq!(
            (full.text().as_str(), other.text().as_str()),
            ("on", "ten\n")
        );
    }
}
