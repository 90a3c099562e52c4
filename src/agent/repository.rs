//! The repository: cloned once, by the `git` binary, into a folder of its own.
//!
//! A clone goes to a temporary folder first, so an interrupted one leaves nothing half. Hooks of the repository do not run, and
//! no transport but https, http, ssh and local files is allowed.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncReadExt, process::Command};

use super::program::Group;

/// How much of git's words an error repeats.
const WORDS: usize = 4 * 1024;
/// How many of git's lines an error repeats.
const LINES: usize = 5;
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
        command.arg("clone").arg("--no-hardlinks");
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
        let words = read_words(child.stderr.take());
        let ended =
            tokio::time::timeout(self.within, async { (child.wait().await, words.await) }).await;
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

/// Reads all, keeps the end.
async fn read_words(stderr: Option<tokio::process::ChildStderr>) -> String {
    let Some(mut stderr) = stderr else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        let surplus = kept.len().saturating_sub(WORDS);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The lines of git that say what was wrong, with no credentials in them.
fn said(words: &str, repository: &str) -> String {
    let mut words = words.replace(repository, &masked(repository));
    if let Some(credentials) = credentials(repository) {
        words = words.replace(&format!("{credentials}@"), "***@");
    }
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
const NOISE: [&str; 4] = [
    "Cloning into",
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
