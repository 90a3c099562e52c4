//! `upgrade`: another program takes the place of the running one, and no connection notices.

use std::{path::PathBuf, time::Duration};

use super::{Code, Failure, output};
use crate::{
    app::{
        handover::{Asked, Told, ask},
        state,
    },
    config::{Config, default_file},
};

/// Arguments of `upgrade`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration of the running process, which says where its state is [default: config.toml here if there is one, else the defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The new program [default: this one]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// How long the new process may take to be ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// What is asked takes so much longer at the most: other roles have to end.
const REST: Duration = Duration::from_secs(60);

pub(super) async fn run(arguments: Args) -> Result<(), Failure> {
    let path = arguments.config.or_else(default_file);
    let config = match &path {
        Some(path) => Config::read(path)?,
        None => Config::without_file()?,
    };
    let program = match arguments.program {
        Some(program) => std::path::absolute(program).map_err(Failure::system)?,
        None => std::env::current_exe().map_err(Failure::system)?,
    };
    let folder = &config.state_dir;
    let pid = state::holder(folder).ok_or_else(|| {
        Failure::new(
            Code::Unreachable,
            format!("no process runs in the state directory {}", folder.display()),
        )
        .with("start one with `cde-gateway run`, or name the configuration of the one that runs with --config")
    })?;
    let asked = Asked::Upgrade {
        program,
        within: arguments.timeout,
    };
    let within = Duration::from_secs(arguments.timeout) + REST;
    let told = tokio::time::timeout(within, ask(folder, pid, &asked)).await;
    match told {
        Ok(Ok(Told::Upgraded {
            pid: new,
            under_way,
            within,
        })) => {
            output::say(&format!(
                "process {new} is ready and serves; {}",
                rest(pid, under_way, within)
            ));
            output::data(&new.to_string())
        }
        Ok(Ok(Told::Refused(why))) => Err(Failure::new(Code::Failed, why).with(format!(
            "process {pid} goes on as if nothing had been; correct this and run `cde-gateway upgrade` again"
        ))),
        Ok(Ok(_)) => Err(Failure::new(
            Code::Failed,
            format!("process {pid} did not understand what was asked"),
        )),
        Ok(Err(error)) => Err(Failure::new(
            Code::Unreachable,
            format!("process {pid} cannot be asked: {error}"),
        )
        .with("see its log; one that is older than `cde-gateway upgrade` has to be stopped and started")),
        Err(_) => Err(Failure::new(
            Code::Timeout,
            format!("process {pid} did not answer"),
        )
        .with("see its log for what it waits for")),
    }
}

fn rest(pid: u32, under_way: usize, within: u64) -> String {
    if under_way == 0 {
        return format!("process {pid} has nothing left and ends");
    }
    let end = jiff::Timestamp::now() + Duration::from_secs(within);
    let streams = match under_way {
        1 => "1 stream".to_owned(),
        many => format!("{many} streams"),
    };
    format!("process {pid} drains {streams} until {end:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_plain_words() {
        assert_eq!(rest(7, 0, 60), "process 7 has nothing left and ends");
        assert!(rest(7, 1, 60).starts_with("process 7 drains 1 stream until 20"));
        assert!(rest(7, 2, 60).starts_with("process 7 drains 2 streams until 20"));
    }
}
