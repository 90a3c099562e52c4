//! The new process' side: takes what the old one gives, says when it is ready, and waits until the old one has given up the rest.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{HandOverError, pass, system};
use crate::gateway::{Named, Sockets};

/// How long the old process may take to give what it has.
const TAKE_WITHIN: Duration = Duration::from_secs(10);

/// What the old process is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Progress {
    /// It waits for what it is given.
    Takes,
    /// What is missing, in the words of `/readyz`.
    Lacks(Vec<String>),
    /// Nothing is.
    Ready,
    /// It has all that the old one had.
    Serves,
    /// It never will be.
    Failed(String),
}

/// What the old process gave.
#[derive(Debug)]
pub struct TakeOver {
    /// The way to tell it.
    pub link: Link,
    /// All that listens.
    pub sockets: Sockets,
    /// The lock of the state folder.
    pub lock: File,
}

/// To the old process.
#[derive(Debug, Clone)]
pub struct Link(Arc<UnixStream>);

/// Takes it from standard input, where the old process put its end. Blocks.
pub fn receive() -> Result<TakeOver, HandOverError> {
    let stdin = io::stdin();
    rustix::net::sockopt::socket_type(stdin.as_fd()).map_err(|_| {
        HandOverError::Other(
            "standard input is no socket; a process that takes over is started by `cde-gateway upgrade`".into(),
        )
    })?;
    let link = stdin
        .as_fd()
        .try_clone_to_owned()
        .map_err(system("take over standard input"))?;
    // Nothing that this process starts gets to see it.
    File::open("/dev/null")
        .and_then(|null| Ok(rustix::stdio::dup2_stdin(null)?))
        .map_err(system("let go of standard input"))?;
    take(UnixStream::from(link)).map_err(system("take what the old process gives"))
}

fn take(link: UnixStream) -> io::Result<TakeOver> {
    let link = Link(Arc::new(link));
    link.tell(&Progress::Takes);
    link.0.set_read_timeout(Some(TAKE_WITHIN))?;
    let (text, descriptors) = pass::receive(&link.0)?;
    link.0.set_read_timeout(None)?;
    let names: Vec<(String, SocketAddr)> = serde_json::from_str(&text)?;
    if descriptors.len() != names.len() + 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut descriptors = descriptors.into_iter();
    let lock = descriptors.next().ok_or(io::ErrorKind::InvalidData)?;
    let named = |((key, asked), descriptor): ((String, SocketAddr), OwnedFd)| Named {
        key,
        asked,
        socket: TcpListener::from(descriptor),
    };
    Ok(TakeOver {
        link,
        sockets: Sockets::given(names.into_iter().zip(descriptors).map(named).collect()),
        lock: File::from(lock),
    })
}

impl Link {
    /// This process will not serve: why.
    pub fn failed(&self, why: &str) {
        self.tell(&Progress::Failed(why.to_owned()));
    }

    /// Whoever hears nothing sees the end of this process.
    pub(crate) fn tell(&self, progress: &Progress) {
        let text = serde_json::to_string(progress).unwrap_or_default();
        if let Err(error) = (&*self.0).write_all(format!("{text}\n").as_bytes()) {
            tracing::debug!(%error, "the old process does not hear");
        }
    }

    /// This process has all that the old one had.
    pub(crate) fn serves(&self) {
        self.tell(&Progress::Serves);
    }

    /// Waits until the old process has given up the rest, or is gone.
    pub(crate) async fn go(&self) {
        let link = Arc::clone(&self.0);
        let heard = tokio::task::spawn_blocking(move || (&*link).read(&mut [0; 8])).await;
        if !matches!(heard, Ok(Ok(1..))) {
            tracing::warn!("the old process ended without a word; going on without it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_descriptors_must_fit() {
        for (text, count, good) in [
            ("[]", 1, true),
            (r#"[["gateway.admin","127.0.0.1:0"]]"#, 2, true),
            ("[]", 0, false),
            ("[]", 2, false),
            ("{}", 1, false),
        ] {
            let (here, there) = UnixStream::pair().unwrap();
            let socket = || TcpListener::bind("127.0.0.1:0").unwrap().into();
            let all: Vec<OwnedFd> = (0..count).map(|_| socket()).collect();
            pass::send(&here, text, &all).unwrap();
            assert_eq!(take(there).is_ok(), good, "{text} {count}");
        }
    }
}
