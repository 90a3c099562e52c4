//! The old process' side: starts the new program, gives it what listens, and learns whether it is ready.

use std::{
    env,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as Blocking},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    time::timeout_at,
};

use super::{ARGUMENT, HandOverError, pass, system, takeover::Progress};
use crate::gateway::Named;

/// What the new process says is not longer.
const SAID_MAX: u64 = 1024 * 1024;
/// How long it may take to have what this process gave up last.
const SERVES_WITHIN: Duration = Duration::from_secs(10);
/// How long one that has closed its socket may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// A process that is to take over.
pub(crate) struct Successor {
    child: Child,
    pid: u32,
    said: BufReader<Take<OwnedReadHalf>>,
    tell: OwnedWriteHalf,
    gift: Option<Gift>,
}

/// What it is given once it asks: a program that is none of ours would hold it without ever serving.
struct Gift {
    link: Blocking,
    lock: OwnedFd,
    sockets: Vec<Named>,
}

impl Successor {
    /// Starts `program` as this process was started; it will be given the lock of the state folder and the sockets.
    pub(crate) fn start(
        program: &Path,
        lock: OwnedFd,
        sockets: Vec<Named>,
    ) -> Result<Self, HandOverError> {
        let (ours, theirs) = Blocking::pair().map_err(system("make a pair of sockets"))?;
        let child = Command::new(program)
            .args(arguments(env::args_os()))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(system("start the new program"))?;
        let pid = child.id().unwrap_or_default();
        let link = ours
            .set_nonblocking(true)
            .and_then(|()| ours.try_clone())
            .and_then(UnixStream::from_std);
        let (said, tell) = link
            .map_err(system("use the socket to the new process"))?
            .into_split();
        Ok(Self {
            child,
            pid,
            said: BufReader::new(said.take(SAID_MAX)),
            tell,
            gift: Some(Gift {
                link: ours,
                lock,
                sockets,
            }),
        })
    }

    /// Its process identifier.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it is ready; or says why it is not.
    pub(crate) async fn ready(&mut self, within: Duration) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + within;
        let mut lacks = Vec::new();
        loop {
            let mut line = String::new();
            match timeout_at(deadline, self.said.read_line(&mut line)).await {
                Ok(Ok(0)) => return Err(self.ended().await),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(format!("the new process cannot be heard: {error}")),
                Err(_) => {
                    let why = match lacks.is_empty() {
                        true => "it did not say why".to_owned(),
                        false => lacks.join(", "),
                    };
                    let seconds = within.as_secs();
                    return Err(format!(
                        "the new process was not ready in {seconds} s: {why}"
                    ));
                }
            }
            match serde_json::from_str(&line) {
                Ok(Progress::Takes) => {
                    if let Some(Err(error)) = self.gift.take().map(give) {
                        return Err(format!(
                            "the new process was not given what listens: {error}"
                        ));
                    }
                }
                Ok(Progress::Ready | Progress::Serves) => return Ok(()),
                Ok(Progress::Lacks(now)) => lacks = now,
                Ok(Progress::Failed(why)) => return Err(why),
                Err(error) => return Err(format!("the new process said something odd: {error}")),
            }
        }
    }

    async fn ended(&mut self) -> String {
        match tokio::time::timeout(END_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) => {
                format!("the new process ended before it was ready ({status}); its log says why")
            }
            _ => "the new process does not answer any more".to_owned(),
        }
    }

    /// This process has given up all but its streams; returns when the new one has all else.
    pub(crate) async fn go(mut self) {
        let serves = async {
            self.tell.write_all(b"go\n").await?;
            self.said.read_line(&mut String::new()).await
        };
        match tokio::time::timeout(SERVES_WITHIN, serves).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) => tracing::error!(pid = self.pid, "the new process is gone"),
            Ok(Err(error)) => tracing::error!(pid = self.pid, %error, "the new process is gone"),
            Err(_) => {
                tracing::warn!(pid = self.pid, "the new process is slow to take the rest")
            }
        }
        // Whoever has children waits for their end; this one outlives its parent.
        tokio::spawn(async move {
            let ended = self.child.wait().await;
            tracing::warn!(
                pid = self.pid,
                ?ended,
                "the process that had taken over has ended"
            );
        });
    }

    /// Ends it.
    pub(crate) async fn give_up(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(pid = self.pid, %error, "the new process was gone already");
        }
    }
}

fn give(gift: Gift) -> io::Result<()> {
    let Gift {
        link,
        lock,
        sockets,
    } = gift;
    let names: Vec<_> = sockets
        .iter()
        .map(|named| (&*named.key, named.asked))
        .collect();
    let text = serde_json::to_string(&names)?;
    let mut all = vec![lock];
    all.extend(sockets.into_iter().map(|named| named.socket.into()));
    pass::send(&link, &text, &all)
}

/// The arguments of this process, for one that takes over.
fn arguments(own: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let own = own.skip(1).filter(|argument| argument != ARGUMENT);
    own.chain([ARGUMENT.into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_processes_has_the_arguments_of_the_first() {
        let mut own: Vec<OsString> = ["cde-gateway", "run", "--config", "x"]
            .map(Into::into)
            .into();
        for _ in 0..3 {
            let next = arguments(own.iter().cloned());
            assert_eq!(next, ["run", "--config", "x", ARGUMENT]);
            own.truncate(1);
            own.extend(next);
        }
    }
}
