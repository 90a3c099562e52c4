//! The change itself, as the process lives it: a new one becomes ready and takes over, an old one lets it and outlives that.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    control::{Asked, Question, Told, ask_others},
    successor::Successor,
    systemd,
    takeover::{Link, Progress},
};
use crate::{
    app::{AppError, Running, role},
    gateway::{Elsewhere, Handle},
    telemetry::Chain,
};

/// How often a new process looks whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often what other processes use of limits is asked for.
const COUNT_EVERY: Duration = Duration::from_secs(2);
/// What people did in so long is asked for each time: an answer may have failed.
const LATELY: Duration = Duration::from_secs(60);

/// Asks the processes that were taken over from for their streams.
pub(in crate::app) async fn elsewhere(folder: PathBuf, asked: Elsewhere) {
    // Whoever asked may be gone.
    match asked {
        Elsewhere::List(which, answer) => {
            let told = ask_others(&folder, &Asked::Streams(which)).await;
            let streams = told.into_iter().filter_map(|told| match told {
                Told::Streams(streams) => Some(streams),
                _ => None,
            });
            let _ = answer.send(streams.flatten().collect());
        }
        Elsewhere::End(asked, answer) => {
            let told = ask_others(&folder, &Asked::End(asked)).await;
            let ended = told.into_iter().map(|told| match told {
                Told::Ended(ended) => ended,
                _ => 0,
            });
            let _ = answer.send(ended.sum());
        }
    }
}

/// Counts what other processes use of all limits with what is used here. Whether there are others.
async fn count_elsewhere(folder: &Path, handle: &Handle) -> bool {
    let told = ask_others(folder, &Asked::Used).await;
    let used = told.into_iter().filter_map(|told| match told {
        Told::Used(used) => Some(*used),
        _ => None,
    });
    let used: Vec<_> = used.collect();
    let others = !used.is_empty();
    handle.count_elsewhere(used);
    others
}

/// Takes in what people did at other processes in the last so many seconds; None: ever.
async fn learn_activity(folder: &Path, handle: &Handle, lately: Option<Duration>) {
    let since = lately.and_then(|lately| SystemTime::now().checked_sub(lately));
    let since = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    let since = since.map_or(0, |since| since.as_secs());
    for told in ask_others(folder, &Asked::Activity(since)).await {
        if let Told::Activity(acted) = told {
            handle.take_activity(&acted);
        }
    }
}

/// Goes on with both until the last of them has ended: those whom this process lets take over do so themselves.
async fn follow_others(folder: PathBuf, handle: Handle) {
    loop {
        tokio::time::sleep(COUNT_EVERY).await;
        if !count_elsewhere(&folder, &handle).await {
            return;
        }
        learn_activity(&folder, &handle, Some(LATELY)).await;
    }
}

impl Running {
    /// A new process: becomes ready, and waits until the old one has given up the rest.
    pub(in crate::app) async fn take_over(
        &mut self,
        link: &Link,
        stop: &CancellationToken,
    ) -> Result<(), AppError> {
        let mut told = Vec::new();
        loop {
            let lacks = self.gateway.as_ref().map(Handle::lacks).unwrap_or_default();
            if lacks.is_empty() {
                break;
            }
            if lacks != told {
                let words = lacks.iter().map(|&lack| lack.to_owned()).collect();
                link.tell(&Progress::Lacks(words));
                told = lacks;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                error = role::first_end(&mut self.roles) => return Err(error),
                () = stop.cancelled() => return Ok(()),
            }
        }
        self.learn_elsewhere().await;
        link.tell(&Progress::Ready);
        tokio::select! {
            () = link.go() => {}
            () = stop.cancelled() => {}
        }
        self.state.claim()?;
        self.start_rest();
        if self.learn_elsewhere().await
            && let Some(handle) = self.gateway.clone()
        {
            tokio::spawn(follow_others(self.state.path().to_owned(), handle));
        }
        tracing::info!("this process has taken over");
        Ok(())
    }

    /// Counts what others use, and takes in what was done there. Whether there are others.
    async fn learn_elsewhere(&self) -> bool {
        let Some(handle) = &self.gateway else {
            return false;
        };
        learn_activity(self.state.path(), handle, None).await;
        count_elsewhere(self.state.path(), handle).await
    }

    /// Answers a question at the control socket. Whether another process has taken over.
    pub(in crate::app) async fn asked(
        &mut self,
        question: Question,
        path: Option<&Path>,
        stop: &CancellationToken,
    ) -> bool {
        let mut over = false;
        let told = match question.asked {
            Asked::Upgrade { program, within } => {
                let within = Duration::from_secs(within);
                match self.upgrade(&program, within, stop).await {
                    Ok(told) => {
                        over = true;
                        told
                    }
                    Err(why) => {
                        tracing::error!(program = %program.display(), "no hand-over, this process goes on: {why}");
                        Told::Refused(why)
                    }
                }
            }
            Asked::Reload => match self.reload(path).await {
                Ok(()) => Told::Done,
                Err(why) => Told::Refused(why),
            },
            Asked::Streams(_) | Asked::End(_) | Asked::Used | Asked::Activity(_) => {
                Told::Refused("this process runs no gateway".into())
            }
        };
        // Whoever asked may be gone.
        let _ = question.answer.send(told);
        over
    }

    /// Lets a new process take over. An error: all is as it was.
    async fn upgrade(
        &mut self,
        program: &Path,
        within: Duration,
        stop: &CancellationToken,
    ) -> Result<Told, String> {
        let words = |error: &dyn std::error::Error| Chain(error).to_string();
        let lock = self.state.lock().map_err(|error| words(&error))?;
        let sockets = self.sockets.to_give().map_err(|error| words(&error))?;
        let mut next =
            Successor::start(program, lock.into(), sockets).map_err(|error| words(&error))?;
        let pid = next.pid();
        tracing::info!(pid, program = %program.display(), "a new process is to take over");
        let ready = tokio::select! {
            ready = next.ready(within) => ready,
            () = stop.cancelled() => Err("this process was told to stop".into()),
            error = role::first_end(&mut self.roles) => Err(words(&error)),
        };
        if let Err(why) = ready {
            next.give_up().await;
            return Err(why);
        }
        systemd::main_is(pid);
        let (mut under_way, mut left) = (0, Duration::ZERO);
        if let Some(gateway) = &self.gateway {
            gateway.hand_over();
            (under_way, left) = (gateway.under_way(), gateway.upgrade_drain());
        }
        self.sockets.let_go();
        self.drain_others().await;
        self.state.release();
        next.go().await;
        tracing::info!(pid, under_way, "a new process has taken over");
        Ok(Told::Upgraded {
            pid,
            under_way,
            within: left.as_secs(),
        })
    }

    /// Stops all roles but the gateway: the new process starts its own.
    async fn drain_others(&mut self) {
        let (gateways, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.roles)
            .into_iter()
            .partition(|role| role.name() == role::GATEWAY);
        self.roles = gateways;
        for role in others {
            let name = role.name();
            if let Err(error) = role.drain().await {
                tracing::error!(error = %Chain(&error), "the {name} did not end in order");
            }
        }
    }

    /// Returns when nothing is left here, or when stopped.
    pub(in crate::app) async fn outlive(
        &mut self,
        path: Option<&Path>,
        stop: &CancellationToken,
        mut questions: mpsc::Receiver<Question>,
    ) -> Result<(), AppError> {
        loop {
            let ended = async {
                match self.roles.first_mut() {
                    Some(gateway) => gateway.ended().await,
                    None => Ok(()),
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = ended => return ended,
                Some(question) = questions.recv() => {
                    let told = match question.asked {
                        Asked::Reload => match self.try_reload(path).await {
                            Ok(()) => Told::Done,
                            Err(why) => {
                                tracing::warn!("the configuration is not for this old process: {why}");
                                Told::Refused(why)
                            }
                        },
                        _ => Told::Refused("another process has taken over from this one; ask that one".into()),
                    };
                    let _ = question.answer.send(told);
                }
            }
        }
    }
}
