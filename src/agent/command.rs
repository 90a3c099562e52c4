//! `cde-gateway agent`: how a runner starts an agent. Hidden, since people have no use for it.

use std::{io::Write, path::PathBuf};

use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{
    descendants,
    service::{Settings, serve},
};
use crate::api::Secret;

/// Arguments of the hidden subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The home folder of the instance; repositories are cloned below it.
    #[arg(long)]
    home: PathBuf,
    /// File with the bearer token that guards the API.
    #[arg(long)]
    token_file: PathBuf,
}

/// Serves on a free port of 127.0.0.1, whose address is the first line of standard output, until standard input ends or a
/// SIGTERM comes.
#[expect(clippy::print_stdout, reason = "the address is this command's data")]
pub async fn run(args: Args) -> std::io::Result<()> {
    descendants::adopt()?;
    let token = Secret::new(std::fs::read_to_string(&args.token_file)?.trim());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let stop = CancellationToken::new();
    let ended = stop.clone();
    tokio::spawn(async move {
        runner_gone().await;
        ended.cancel();
    });
    let code_server = std::env::var_os("CDE_CODE_SERVER").map(PathBuf::from);
    let settings = Settings {
        alone: true,
        ..Settings::new(token, args.home, code_server)
    };
    serve(listener, settings, stop).await
}

/// Resolves when the runner lets go of us.
async fn runner_gone() {
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 64];
    let closed = async { while !matches!(input.read(&mut ignored).await, Ok(0) | Err(_)) {} };
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => {
            tokio::select! {
                () = closed => {}
                _ = terminated.recv() => {}
            }
        }
        Err(_) => closed.await,
    }
}
