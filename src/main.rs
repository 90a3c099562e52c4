//! The program: arguments, log, runtime, exit code. What it does is in `cli`.

use std::process::ExitCode;

use cde_gateway::{cli, telemetry};

fn main() -> ExitCode {
    // Every TLS connection of this process uses it; only a second call could fail.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn start(arguments: cli::Arguments) -> Result<(), cli::Failure> {
    telemetry::init(arguments.log_format, arguments.default_log())?;
    // For all but the data path: the gateway makes its own threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(cli::Failure::system)?;
    let outcome = runtime.block_on(arguments.run());
    // A blocking call that still waits must not hold the end up.
    runtime.shutdown_background();
    outcome
}
