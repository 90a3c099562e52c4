//! The repository: cloned once, by the `git` binary, into a folder of its own.
//!
//! A clone goes to a temporary folder first, so an interrupted one leaves nothing half. Hooks of the repository do not run, and
//! no transport but https, http, ssh and local files is allowed.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncReadExt, process::Command, time::Instant};

use super::{logs::Log, program::Group};

/// How much of git's words an error repeats.
const WORDS: usize = 4 * 1024;
/// How many of git's lines an error repeats.
const LINES: usize = 5;
/// Progress is told no more often: of what is quick nobody needs it.
const PROGRESS: Duration = Duration::from_secs(1);
/// A folder on this host may be another user's.
const UPLOAD_PACK: &str = "git -c safe.directory=* upload-pack";

/// Why there is no repository.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloneError {
    #[error(
        "{0:?} is no repository; give an https://, http:// or ssh:// URL, user@host:path, or an absolute path"
    )]
    Address(String),
    #[error(
        "cannot clone {repository}: {words}; check the address, the branch, and that the instance may read it"
    )]
    Git { repository: String, words: String },
    #[error("cannot clone {repository}: git is not installed in the instance")]
    NoGit { repository: String },
    #[error(
        "cannot clone {repository} within {seconds} s; check the network between instance and repository"
    )]
    Timeout { repository: String, seconds: u64 },
    #[error("cannot write to {path}: {problem}")]
    Folder { path: String, problem: String },
}

/// What to clone, and to where.
pub(super) struct Clone<'a> {
    pub(super) repository: &'a str,
    pub(super) branch: Option<&'a str>,
    pub(super) home: &'a Path,
    pub(super) within: Duration,
    /// Gets what git says.
    pub(super) log: &'a Log,
}

impl Clone<'_> {
    /// The repository's folder, and whether it had to be cloned.
    pub(super) async fn ensure(&self) -> Result<(PathBuf, bool), CloneError> {
        check(self.repository, self.branch)?;
        let folder = self.home.join(name(self.repository));
        if folder.exists() {
            return Ok((folder, false));
        }
        let failed = |path: &Path, error: std::io::Error| CloneError::Folder {
            path: path.display().to_string(),
            problem: error.to_string(),
        };
        let temporary = self.home.join(".cloning");
        match std::fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(&temporary, error));
            }
            _ => {}
        }
        self.clone_to(&temporary).await?;
        std::fs::rename(&temporary, &folder).map_err(|error| failed(&folder, error))?;
        Ok((folder, true))
    }

    async fn clone_to(&self, folder: &Path) -> Result<(), CloneError> {
        let shown = masked(self.repository);
        let mut command = git(self.home);
        command.arg("clone").arg("--no-hardlinks").arg("--progress");
        if let Some(branch) = self.branch {
            command.arg("--branch").arg(branch);
        }
        if self.repository.starts_with('/') {
            // The other end runs as a process of its own, which does not hear of our `-c`.
            command.arg("--upload-pack").arg(UPLOAD_PACK);
        }
        command.arg("--").arg(self.repository).arg(folder);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => CloneError::NoGit {
                repository: shown.clone(),
            },
            _ => CloneError::Git {
                repository: shown.clone(),
                words: error.to_string(),
            },
        })?;
        // git has helpers; they end with it, also when this is dropped.
        let group = Group::of(&child);
        let words = read_words(child.stderr.take(), |line| {
            self.log.line(format!(
                "git: {}",
                without_credentials(line, self.repository)
            ));
        });
        let ended =
            tokio::time::timeout(self.within, async { tokio::join!(child.wait(), words) }).await;
        let Ok((status, words)) = ended else {
            drop(group);
            return Err(CloneError::Timeout {
                repository: shown,
                seconds: self.within.as_secs(),
            });
        };
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(CloneError::Git {
                repository: shown,
                words: said(&words, self.repository),
            }),
            Err(error) => Err(CloneError::Git {
                repository: shown,
                words: error.to_string(),
            }),
        }
    }
}

/// git, asking nobody and running nothing of the repository's.
fn git(home: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .envs(
            ["PATH", "LANG", "SSH_AUTH_SOCK"]
                .iter()
                .filter_map(|name| Some((*name, std::env::var_os(name)?))),
        )
        .env("HOME", home)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "https:http:ssh:file")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
        .args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "protocol.ext.allow=never",
            "-c",
            "safe.directory=*",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Reads all, tells each line, and keeps the end of what is no progress.
async fn read_words(
    stderr: Option<tokio::process::ChildStderr>,
    mut tell: impl FnMut(&str),
) -> String {
    let Some(mut stderr) = stderr else {
        return String::new();
    };
    let mut words = Words::new(Instant::now());
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        words.came(&buffer[..count], Instant::now(), &mut tell);
    }
    words.came(b"\n", Instant::now(), &mut tell);
    words.kept
}

/// What git said so far.
struct Words {
    /// A line that is not whole.
    begun: Vec<u8>,
    /// The end of all lines that are no progress.
    kept: String,
    /// The last progress that was told: all but its last digit, so that it is told ten times and not hundreds.
    told: String,
    /// When that was.
    told_at: Instant,
}

impl Words {
    fn new(now: Instant) -> Self {
        Self {
            begun: Vec::new(),
            kept: String::new(),
            told: String::new(),
            told_at: now,
        }
    }

    fn came(&mut self, bytes: &[u8], now: Instant, tell: &mut impl FnMut(&str)) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.begun);
                    self.line(String::from_utf8_lossy(&line).trim(), now, tell);
                }
                _ if self.begun.len() < WORDS => self.begun.push(*byte),
                _ => {}
            }
        }
    }

    fn line(&mut self, line: &str, now: Instant, tell: &mut impl FnMut(&str)) {
        if line.is_empty() {
            return;
        }
        if let Some((before, _)) = line.split_once('%') {
            let tens = before
                .get(..before.len().saturating_sub(1))
                .unwrap_or_default();
            if self.told != tens && now >= self.told_at + PROGRESS {
                tens.clone_into(&mut self.told);
                self.told_at = now;
                tell(line);
            }
            return;
        }
        tell(line);
        self.kept.push_str(line);
        self.kept.push('\n');
        let surplus = self.kept.len().saturating_sub(WORDS);
        self.kept.drain(..self.kept.ceil_char_boundary(surplus));
    }
}

/// What git says, without what only it may know.
fn without_credentials(words: &str, repository: &str) -> String {
    let words = words.replace(repository, &masked(repository));
    match credentials(repository) {
        Some(credentials) => words.replace(&format!("{credentials}@"), "***@"),
        None => words,
    }
}

/// The lines of git that say what was wrong, with no credentials in them.
fn said(words: &str, repository: &str) -> String {
    let words = without_credentials(words, repository);
    let telling: Vec<&str> = words
        .lines()
        .map(str::trim)
        .filter(|line| !(line.is_empty() || NOISE.iter().any(|noise| line.starts_with(noise))))
        .collect();
    match telling.as_slice() {
        [] => "git said nothing".into(),
        lines => lines[lines.len().saturating_sub(LINES)..].join("; "),
    }
}

/// What git says beside the reason.
const NOISE: [&str; 6] = [
    "Cloning into",
    "remote: Enumerating objects",
    "remote: Total",
    "hint:",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
];

/// `user:password` of a URL.
fn credentials(repository: &str) -> Option<&str> {
    let (_, rest) = repository.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    authority
        .rsplit_once('@')
        .map(|(credentials, _)| credentials)
}

/// An address without the credentials that a URL may hold.
fn masked(repository: &str) -> String {
    match credentials(repository) {
        Some(credentials) => repository.replacen(&format!("{credentials}@"), "***@", 1),
        None => repository.to_owned(),
    }
}

fn check(repository: &str, branch: Option<&str>) -> Result<(), CloneError> {
    let url = ["https://", "http://", "ssh://"]
        .iter()
        .any(|scheme| repository.starts_with(scheme));
    let scp = repository
        .split_once(':')
        .is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    let path = repository.starts_with('/');
    let bad = repository.starts_with('-')
        || repository.contains("::")
        || repository.chars().any(char::is_control);
    if bad || !(url || scp || path) {
        return Err(CloneError::Address(masked(repository)));
    }
    match branch {
        Some(branch) if branch.starts_with('-') || branch.is_empty() => {
            Err(CloneError::Address(format!("branch {branch}")))
        }
        _ => Ok(()),
    }
}

/// The last part of the address, as a folder's name.
fn name(repository: &str) -> String {
    let last = repository
        .trim_end_matches('/')
        .rsplit(['/', ':'])
        .next()
        .unwrap_or_default();
    let last = last.strip_suffix(".git").unwrap_or(last);
    let name: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .collect();
    match name.trim_start_matches('.') {
        "" => "repository".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_tenths_once_a_second_and_is_no_reason() {
        let start = Instant::now();
        let said = |seconds_for_one_percent: f64| {
            let (mut words, mut told) = (Words::new(start), Vec::new());
            let mut tell = |line: &str| told.push(line.to_owned());
            words.came(b"Cloning into 'x'...\n", start, &mut tell);
            for percent in 0..=100 {
                let line = format!("Receiving objects: {percent:3}% ({percent}/100)\r");
                let now =
                    start + Duration::from_secs_f64(f64::from(percent) * seconds_for_one_percent);
                words.came(line.as_bytes(), now, &mut tell);
            }
            words.came(b"fatal: the di", start, &mut tell);
            words.came(b"sk is full\n\n", start, &mut tell);
            assert_eq!(words.kept, "Cloning into 'x'...\nfatal: the disk is full\n");
            told
        };
        let (slow, quick) = (said(1.0), said(0.009));
        assert_eq!(slow.len(), 13, "{slow:?}");
        assert_eq!(slow[1], "Receiving objects:   1% (1/100)");
        assert_eq!(slow[2], "Receiving objects:  10% (10/100)");
        assert_eq!(slow[12], "fatal: the disk is full");
        assert_eq!(quick, ["Cloning into 'x'...", "fatal: the disk is full"]);
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let now = Instant::now();
        let mut words = Words::new(now);
        words.came(&[b'x'; 10 * WORDS], now, &mut |_| ());
        assert_eq!(words.begun.len(), WORDS);
        for _ in 0..3 {
            words.came(&[b'y'; WORDS / 2], now, &mut |_| ());
            words.came(b"\n", now, &mut |_| ());
        }
        assert!(words.kept.len() <= WORDS);
    }

    #[test]
    fn names_come_from_the_address() {
        for (address, expected) in [
            ("https://git.test/team/api.git", "api"),
            ("git@git.test:team/api", "api"),
            ("/srv/repos/my repo/", "my-repo"),
            ("https://git.test/..", "repository"),
            ("https://git.test/.git", "repository"),
        ] {
            assert_eq!(name(address), expected, "{address}");
        }
    }

    #[test]
    fn hostile_addresses_are_refused() {
        for bad in [
            "--upload-pack=/bin/sh",
            "ext::sh -c id",
            "file:///etc",
            "relative/path",
            "",
            "https://a/\nb",
            "fd::17",
        ] {
            assert!(check(bad, None).is_err(), "{bad}");
        }
        assert!(check("https://git.test/a.git", Some("--upload-pack=x")).is_err());
        for good in [
            "https://git.test/a.git",
            "git@git.test:a/b.git",
            "ssh://git@git.test/a",
            "/srv/a",
        ] {
            assert!(check(good, Some("main")).is_ok(), "{good}");
        }
    }

    #[test]
    fn credentials_are_masked() {
        let address = "https://ada:s3cret@git.test/a.git";
        assert_eq!(masked(address), "https://***@git.test/a.git");
        assert_eq!(
            said(&format!("fatal: unable to access '{address}/'"), address),
            "fatal: unable to access 'https://***@git.test/a.git/'"
        );
        let elsewhere = "Cloning into 'x'...\nfatal: no 'https://ada:s3cret@git.test/b'";
        assert_eq!(
            said(elsewhere, address),
            "fatal: no 'https://***@git.test/b'"
        );
    }
}
