//! The socket of a process in its state folder: asked for an upgrade, and by the process that took over for the streams that are left.
//!
//! `process-<pid>.sock`; the folder is this user's alone, and so is the socket. A question is a line of JSON, so is its answer, and one
//! connection carries one of each. A socket that nobody answers at is that of a process that is gone, and is removed.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};
use tokio_util::task::TaskTracker;

use crate::{
    api::stream::{EndStreams, Stream, Which},
    gateway::{Acted, Carried, Handle},
};

/// The longest line: some hundred thousand streams.
const LINE_MAX: u64 = 64 * 1024 * 1024;
/// How long a question may take to come.
const QUESTION_WITHIN: Duration = Duration::from_secs(5);
/// How long another process has to tell of its streams.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long the last answers may take to be written.
const LAST_WITHIN: Duration = Duration::from_secs(1);
/// Questions at once.
const AT_ONCE: usize = 16;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// To let another program take over.
    Upgrade {
        /// Which.
        program: PathBuf,
        /// How long it may take to be ready, in seconds.
        within: u64,
    },
    /// To read the configuration again.
    Reload,
    /// For the streams that fit.
    Streams(Which),
    /// To end streams.
    End(EndStreams),
    /// What is used of all limits.
    Used,
    /// What people did at this second since 1970 or later.
    Activity(u64),
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Another process serves now.
    Upgraded {
        /// It.
        pid: u32,
        /// What the old one has left.
        under_way: usize,
        /// How long that may go on, in seconds.
        within: u64,
    },
    /// It was not done: why.
    Refused(String),
    /// It was done.
    Done,
    /// The streams that fit.
    Streams(Vec<Stream>),
    /// So many were ended.
    Ended(usize),
    /// So much is used.
    Used(Box<Carried>),
    /// That was done.
    Activity(Vec<Acted>),
}

/// A question that the process itself has to answer.
pub(crate) struct Question {
    pub(crate) asked: Asked,
    pub(crate) answer: oneshot::Sender<Told>,
}

/// The socket of this process, removed with it.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    answering: TaskTracker,
}

impl Socket {
    /// Waits until those who asked have their answers.
    pub(crate) async fn close(self) {
        self.answering.close();
        let _ = tokio::time::timeout(LAST_WITHIN, self.answering.wait()).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A later process would remove it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves this process' socket: streams by `handle`, all else by whoever has the other end of `questions`.
pub(crate) fn serve(
    folder: &Path,
    handle: Option<Handle>,
    questions: mpsc::Sender<Question>,
) -> io::Result<Socket> {
    let path = folder.join(name(std::process::id()));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(short(&path)?.as_path())?;
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let answering = TaskTracker::new();
    let tasks = answering.clone();
    tokio::spawn(async move {
        loop {
            let Ok(permit) = std::sync::Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket fails; trying again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (handle, questions) = (handle.clone(), questions.clone());
            tasks.spawn(async move {
                if let Err(error) = answer(stream, handle, questions).await {
                    tracing::debug!(%error, "a question at the control socket broke off");
                }
                drop(permit);
            });
        }
    });
    Ok(Socket { path, answering })
}

async fn answer(
    stream: UnixStream,
    handle: Option<Handle>,
    questions: mpsc::Sender<Question>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let asked = tokio::time::timeout(QUESTION_WITHIN, line(reader)).await??;
    let told = match (asked, handle) {
        (Asked::Streams(which), Some(handle)) => Told::Streams(handle.streams(&which)),
        (Asked::End(asked), Some(handle)) => Told::Ended(handle.end_streams(&asked)),
        (Asked::Used, Some(handle)) => Told::Used(Box::new(handle.used())),
        (Asked::Activity(since), Some(handle)) => Told::Activity(handle.activity_since(since)),
        (asked, _) => {
            let (answer, answered) = oneshot::channel();
            let question = Question { asked, answer };
            let gone = || Told::Refused("the process is stopping".into());
            match questions.send(question).await {
                Ok(()) => answered.await.unwrap_or_else(|_| gone()),
                Err(_) => gone(),
            }
        }
    };
    let mut text = serde_json::to_vec(&told)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// Asks a process.
pub async fn ask(folder: &Path, pid: u32, asked: &Asked) -> io::Result<Told> {
    let stream = UnixStream::connect(short(&folder.join(name(pid)))?.as_path()).await?;
    let (reader, mut writer) = stream.into_split();
    let mut text = serde_json::to_vec(asked)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    line(reader).await
}

/// Asks all other processes of this folder, at once. Who does not answer in time is left out.
pub(crate) async fn ask_others(folder: &Path, asked: &Asked) -> Vec<Told> {
    let asking = others(folder).into_iter().map(async |pid| {
        let answer = tokio::time::timeout(ANSWER_WITHIN, ask(folder, pid, asked)).await;
        match answer {
            Ok(Ok(told)) => Some(told),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // Nobody listens there any more.
                let _ = std::fs::remove_file(folder.join(name(pid)));
                None
            }
            Ok(Err(error)) => {
                tracing::warn!(pid, %error, "another process cannot be asked");
                None
            }
            Err(_) => {
                tracing::warn!(pid, "another process does not answer");
                None
            }
        }
    });
    let told = futures_util::future::join_all(asking).await;
    told.into_iter().flatten().collect()
}

fn others(folder: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let pid = name.to_str()?.strip_prefix("process-")?;
        pid.strip_suffix(".sock")?.parse().ok()
    });
    pids.filter(|pid| *pid != std::process::id()).collect()
}

fn name(pid: u32) -> String {
    format!("process-{pid}.sock")
}

async fn line<T: serde::de::DeserializeOwned>(
    reader: impl tokio::io::AsyncRead + Unpin,
) -> io::Result<T> {
    let mut text = Vec::new();
    let mut reader = BufReader::new(reader.take(LINE_MAX));
    reader.read_until(b'\n', &mut text).await?;
    if text.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&text)?)
}

/// An address of a socket takes 107 bytes (unix(7)): a longer path goes by its open folder.
struct Short {
    path: PathBuf,
    _folder: Option<std::fs::File>,
}

impl Short {
    fn as_path(&self) -> &Path {
        &self.path
    }
}

fn short(path: &Path) -> io::Result<Short> {
    use std::os::fd::AsRawFd;

    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if path.as_os_str().len() < 100 {
        return Ok(Short {
            path: path.to_owned(),
            _folder: None,
        });
    }
    let folder = std::fs::File::open(folder)?;
    let by_number = format!("/proc/self/fd/{}", folder.as_raw_fd());
    Ok(Short {
        path: Path::new(&by_number).join(name),
        _folder: Some(folder),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_is_answered_however_long_the_path_and_who_is_gone_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let (sender, mut questions) = mpsc::channel::<Question>(1);
        let socket = serve(&deep, None, sender).unwrap();
        let answering = tokio::spawn(async move {
            let question = questions.recv().await.unwrap();
            assert!(matches!(question.asked, Asked::Reload));
            question.answer.send(Told::Done).unwrap();
        });
        let told = ask(&deep, std::process::id(), &Asked::Reload).await;
        assert!(matches!(told, Ok(Told::Done)), "{told:?}");
        answering.await.unwrap();
        // Nobody else is there; a socket of one that is gone is removed.
        let gone = deep.join(name(1));
        drop(UnixListener::bind(short(&gone).unwrap().as_path()).unwrap());
        assert!(ask_others(&deep, &Asked::Reload).await.is_empty());
        assert!(!gone.exists());
        drop(socket);
        assert!(!deep.join(name(std::process::id())).exists());
    }
}
