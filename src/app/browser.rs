//! Opens a URL in the user's browser.

use std::{
    io,
    process::{Command, Stdio},
};

/// Starts `$BROWSER`, or what the desktop opens URLs with. The browser outlives this process.
pub fn open(url: &str) -> io::Result<()> {
    let chosen = std::env::var("BROWSER")
        .ok()
        .filter(|browser| !browser.is_empty());
    let candidates = chosen
        .into_iter()
        .chain(["xdg-open", "gio", "open"].map(str::to_owned));
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for program in candidates {
        let mut command = Command::new(&program);
        if program == "gio" {
            command.arg("open");
        }
        let started = command
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
