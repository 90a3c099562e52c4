//! The sample repository: a README, a devcontainer.json that forwards a port, and a tiny app behind it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::DemoError;

const FILES: &[(&str, &str)] = &[
    ("README.md", include_str!("sample/README.md")),
    ("app.mjs", include_str!("sample/app.mjs")),
    (
        ".devcontainer/devcontainer.json",
        include_str!("sample/devcontainer.json"),
    ),
];

/// Writes it below `folder` and commits it; its path.
pub(super) async fn write(folder: &Path) -> Result<String, DemoError> {
    let path = folder.join("sample");
    for (name, content) in FILES {
        put(&path.join(name), content)
            .map_err(|error| DemoError::Sample(format!("{name}: {error}")))?;
    }
    git(&path, &["init", "--quiet", "--initial-branch=main"]).await?;
    git(&path, &["add", "--all"]).await?;
    git(&path, &["commit", "--quiet", "--message=A sample"]).await?;
    Ok(path.to_string_lossy().into_owned())
}

fn put(path: &PathBuf, content: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, content)
}

/// Git without anything of this user: neither its configuration nor a repository that the environment names.
async fn git(folder: &Path, arguments: &[&str]) -> Result<(), DemoError> {
    let mut command = Command::new("git");
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
    ] {
        command.env_remove(name);
    }
    let done = command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args([
            "-c",
            "user.name=cde-gateway",
            "-c",
            "user.email=demo@localhost",
        ])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| DemoError::Sample(format!("git: {error}")))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(DemoError::Sample(format!(
            "git {}: {}",
            arguments[0],
            String::from_utf8_lossy(&done.stderr).trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_a_repository_with_one_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path()).await.unwrap();
        git(Path::new(&path), &["rev-parse", "--verify", "main"])
            .await
            .unwrap();
        git(Path::new(&path), &["diff", "--quiet", "HEAD"])
            .await
            .unwrap();
    }
}
