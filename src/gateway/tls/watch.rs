//! Watches the files of certificates and client authorities, and takes what has changed.
//!
//! Folders are watched, not files: whoever renews a certificate puts another file in the place of the old one, and Kubernetes
//! swaps a link beside it. A file may come in pieces and its key after it, so it is quiet for a moment before anything is read;
//! what cannot be used then changes nothing, and the next event is waited for. Files are looked at every hour without an event
//! too, since some file systems send none.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Tls;

/// So long nothing happens before files are read.
const QUIET: Duration = Duration::from_millis(500);
/// But after so long they are read in any case.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const REMIND_EVERY: Duration = Duration::from_secs(24 * 3600);

/// See the module. Runs until the stop, off the data path.
pub(crate) async fn watch(tls: Arc<Tls>, stop: CancellationToken) {
    let mut seen = fingerprint(tls.files()).await;
    let mut reminded: Option<Instant> = None;
    loop {
        if reminded.is_none_or(|at| at.elapsed() >= REMIND_EVERY) {
            tls.expiry.warn(&tls.current().files);
            reminded = Some(Instant::now());
        }
        let files = tls.files();
        let (sender, mut events) = mpsc::channel(1);
        // Made anew each time, since a folder may be another one under the same name.
        let watcher = watcher(&files, sender);
        let now = fingerprint(files).await;
        if now != seen {
            seen = now;
            let tls = Arc::clone(&tls);
            let _ = tokio::task::spawn_blocking(move || take(&tls)).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tls.refiled.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = events.recv(), if watcher.is_some() => quiet(&mut events).await,
        }
    }
}

/// Waits until nothing happens for a moment.
async fn quiet(events: &mut mpsc::Receiver<()>) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        match timeout(QUIET, events.recv()).await {
            Ok(Some(())) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

fn take(tls: &Tls) {
    match tls.read(&[]) {
        Ok(ready) => {
            tls.take(ready, None);
            tracing::info!("certificates have changed; new connections get the new ones");
        }
        Err(error) => tracing::error!(
            error = crate::telemetry::Chain(&error).to_string(),
            "certificates have changed and cannot be used; the old ones are kept"
        ),
    }
}

/// Of the contents of the files, so far as they can be read.
async fn fingerprint(files: Vec<PathBuf>) -> Option<[u8; 32]> {
    let hash = move || {
        let mut whole = digest::Context::new(&digest::SHA256);
        for file in files {
            match std::fs::read(file) {
                Ok(content) => whole.update(digest::digest(&digest::SHA256, &content).as_ref()),
                Err(_) => whole.update(b"unreadable"),
            }
        }
        whole.finish().as_ref().try_into().ok()
    };
    tokio::task::spawn_blocking(hash).await.ok().flatten()
}

/// Sends when something may have changed. None if nothing can be watched: the hourly look remains.
fn watcher(files: &[PathBuf], sender: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let names: Vec<OsString> = files
        .iter()
        .filter_map(|file| file.file_name().map(OsString::from))
        .collect();
    let report = move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| matters(&event, &names)) {
            // Full: one is on its way already.
            let _ = sender.try_send(());
        }
    };
    let mut folders: Vec<_> = files.iter().map(|file| folder(file)).collect();
    folders.sort();
    folders.dedup();
    let watch = || {
        let mut watcher = notify::recommended_watcher(report)?;
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok::<_, notify::Error>(watcher)
    };
    watch()
        .inspect_err(|error| {
            tracing::warn!(
                %error,
                "certificate files cannot be watched; they are looked at every hour, SIGHUP takes them at once"
            );
        })
        .ok()
}

/// The file's folder; while it is not there, the next one above.
fn folder(file: &Path) -> &Path {
    let mut above = file.ancestors().skip(1);
    above
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("."))
}

/// Whether one of the files may be another one now. Reading does not matter: we do it ourselves.
fn matters(event: &Event, names: &[OsString]) -> bool {
    let ours = || {
        let mut names_of_paths = event.paths.iter().filter_map(|path| path.file_name());
        names_of_paths.any(|name| names.iter().any(|known| known == name))
    };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => ours(),
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => ours(),
        // Links beside the files may lead to them.
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(_) => true,
        EventKind::Any | EventKind::Other => true,
    }
}
