//! Where the tests' logs are kept, and the secrets that none of them may hold.
//!
//! Every gateway's access log and this process's operating log go to a folder of their own below the logs of the run, and
//! every secret that a test makes is written beside them. `.ci/secrets` searches the ones for the others when all tests are over.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use super::eventually;

/// What is kept of our own words: everything, more than an operator usually turns on.
const OPERATING: &str = "cde_gateway=trace";
/// What is kept of those of libraries; another filter in this variable (`trace`) keeps more, and slows floods down.
const LIBRARIES_VARIABLE: &str = "CDE_TEST_LOG";
const LIBRARIES: &str = "info";

struct Kept {
    folder: PathBuf,
    secrets: File,
    next: AtomicUsize,
}

static KEPT: LazyLock<Kept> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let logs = std::env::var_os("CDE_CI_LOGS").map_or_else(|| target.join("logs"), PathBuf::from);
    let tests = logs.join("tests");
    let folder = tests.join(std::process::id().to_string());
    // A number is used again some day; `make test` removes those of earlier runs.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let layer = |name, filter: &str| {
        let file = Arc::new(File::create(folder.join(name)).unwrap());
        let layer = tracing_subscriber::fmt::layer();
        let layer = layer.with_ansi(false).with_writer(file);
        layer.with_filter(EnvFilter::new(filter))
    };
    let libraries = std::env::var(LIBRARIES_VARIABLE).unwrap_or_else(|_| LIBRARIES.into());
    let libraries = format!("{libraries},cde_gateway=off");
    tracing_subscriber::registry()
        .with(vec![
            layer("operating.log", OPERATING),
            layer("libraries.log", &libraries),
        ])
        .init();
    Kept {
        secrets: File::create(folder.join("secrets")).unwrap(),
        folder,
        next: AtomicUsize::new(0),
    }
});

/// Begins to keep logs, if that has not begun.
pub(crate) fn begin() {
    LazyLock::force(&KEPT);
}

/// A file for another log.
pub(crate) fn file(name: &str) -> PathBuf {
    let number = KEPT.next.fetch_add(1, Ordering::Relaxed);
    KEPT.folder.join(format!("{name}-{number}.log"))
}

/// Notes a secret that no log may hold, and gives it back.
pub(crate) fn secret<S: AsRef<str>>(secret: S) -> S {
    let mut lines = String::new();
    for line in secret.as_ref().lines().filter(|line| !line.is_empty()) {
        lines.push_str(line);
        lines.push('\n');
    }
    // In one call: others write to it as well.
    (&KEPT.secrets).write_all(lines.as_bytes()).unwrap();
    secret
}

/// Waits until one line of the operating log holds all of these.
pub(crate) async fn told(words: &[&str]) {
    let path = KEPT.folder.join("operating.log");
    eventually(&format!("{words:?} in the operating log"), || async {
        let log = fs::read_to_string(&path).unwrap();
        let told = |line: &str| words.iter().all(|word| line.contains(word));
        log.lines().any(told).then_some(())
    })
    .await;
}
