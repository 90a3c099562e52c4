//! SIGINT and SIGTERM: the first drains, the second ends at once.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Code, Failure, output};

/// Runs `work` with a token that the first signal cancels; a second signal leaves it where it is.
pub(super) async fn until_stopped<F>(
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut interrupts = signal(SignalKind::interrupt()).map_err(Failure::system)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(Failure::system)?;
    let stop = CancellationToken::new();
    let work = work(stop.clone());
    tokio::pin!(work);
    tokio::select! {
        outcome = &mut work => return outcome,
        () = either(&mut interrupts, &mut terminations) => {}
    }
    output::say("stopping; once more ends at once");
    stop.cancel();
    tokio::select! {
        outcome = &mut work => outcome,
        () = either(&mut interrupts, &mut terminations) => {
            Err(Failure::new(Code::Interrupted, "ended at once, without draining"))
        }
    }
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}
