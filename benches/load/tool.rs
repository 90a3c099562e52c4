//! The load comparison's own tool: makes keys, answers as the upstream, drives one peer and measures its CPU.
//!
//! `run.py` starts it beside the peers; see `docs/performance.md` for what is measured. Loopback only, bounded in count
//! and time, and any answer that is not the expected one ends it: a fast refusal must not look like a fast proxy.
//!
//! Built as an example, so that it shares the crate's dependencies and is never in the shipped program.

mod cpu;
mod drive;
mod h1;
mod h2;
mod keys;
mod upstream;
mod websocket;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::ensure;
use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Makes certificates, an issuer key, its key set and a token in a folder.
    Keys {
        folder: PathBuf,
        /// Host that the certificate and the token are for.
        host: String,
    },
    /// Answers every request with 200 bytes and echoes WebSocket messages, until it is killed.
    Upstream { address: SocketAddr },
    /// Drives one peer through one scenario and prints its CPU per request as JSON.
    Drive(drive::Plan),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match Command::parse() {
        Command::Keys { folder, host } => keys::make(&folder, &host),
        Command::Upstream { address } => {
            ensure!(
                address.ip().is_loopback(),
                "the upstream listens on loopback only"
            );
            runtime.block_on(upstream::serve(address))
        }
        Command::Drive(plan) => {
            ensure!(
                plan.address.ip().is_loopback(),
                "only loopback is ever driven"
            );
            let measured = runtime.block_on(drive::run(plan))?;
            #[expect(clippy::print_stdout, reason = "the result is data for run.py")]
            {
                println!("{}", serde_json::to_string(&measured)?);
            }
            Ok(())
        }
    }
}
