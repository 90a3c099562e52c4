//! One role under way: its task, and how it is stopped.

use std::{error::Error, future::Future, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::gateway;

/// The name of the role that drains first.
pub(super) const GATEWAY: &str = "gateway";

/// A role under way.
pub(super) struct Role {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Box<dyn Error + Send + Sync>>>,
    /// How long it may take to end.
    patience: Duration,
    /// Its end was seen already.
    ended: bool,
}

impl Role {
    /// Starts it; `serve` gets the token that stops it.
    pub(super) fn start<F, E>(
        name: &'static str,
        patience: Duration,
        serve: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let stop = CancellationToken::new();
        let serving = serve(stop.clone());
        let task = tokio::spawn(async move { serving.await.map_err(Into::into) });
        Self {
            name,
            stop,
            task,
            patience,
            ended: false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Waits for its end, which it comes to by itself.
    pub(super) async fn ended(&mut self) -> Result<(), AppError> {
        let outcome = (&mut self.task).await;
        self.ended = true;
        let role = self.name;
        outcome
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|source| failed(role, source))
    }

    /// Stops it and waits for its end, but not for ever.
    pub(super) async fn drain(mut self) -> Result<(), AppError> {
        if self.ended {
            return Ok(());
        }
        self.stop.cancel();
        let role = self.name;
        match tokio::time::timeout(self.patience, &mut self.task).await {
            Ok(outcome) => outcome
                .unwrap_or_else(|panic| Err(panic.into()))
                .map_err(|source| failed(role, source)),
            Err(_) => {
                tracing::warn!(role, "did not end in time and is cut off");
                self.task.abort();
                Ok(())
            }
        }
    }
}

/// The gateway says itself what was wrong.
fn failed(role: &'static str, source: Box<dyn Error + Send + Sync>) -> AppError {
    match source.downcast::<gateway::Error>() {
        Ok(error) => AppError::Gateway(*error),
        Err(source) => AppError::Role { role, source },
    }
}

/// Waits until a role ends, which none should before it is stopped.
pub(super) async fn first_end(roles: &mut [Role]) -> AppError {
    if roles.is_empty() {
        return std::future::pending().await;
    }
    let tasks = roles.iter_mut().map(|role| &mut role.task);
    let (outcome, index, _) = futures_util::future::select_all(tasks).await;
    let role = &mut roles[index];
    role.ended = true;
    let name = role.name;
    match outcome {
        Ok(Ok(())) => AppError::Ended { role: name },
        Ok(Err(source)) => AppError::Role { role: name, source },
        Err(panic) => AppError::Role {
            role: name,
            source: panic.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(end: impl Future<Output = Result<(), std::io::Error>> + Send + 'static) -> Role {
        Role::start("test", Duration::from_secs(1), |_| end)
    }

    #[tokio::test]
    async fn the_first_role_that_ends_is_named() {
        let waits = Role::start("waits", Duration::from_secs(1), |stop| async move {
            stop.cancelled().await;
            Ok::<_, std::io::Error>(())
        });
        let fails = role(async { Err(std::io::Error::other("broke")) });
        let mut roles = vec![waits, fails];
        let error = first_end(&mut roles).await;
        assert_eq!(error.to_string(), "the test failed");
        for role in roles {
            role.drain().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_does_not_end_is_cut_off() {
        role(std::future::pending()).drain().await.unwrap();
    }
}
