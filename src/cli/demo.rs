//! `demo`: runs it and says how to use it.

use super::{Failure, output, signals};
use crate::{
    api::gitspace::Ide,
    app::{
        self,
        demo::{Options, Ready, Steps},
    },
};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A git repository to clone, by folder or URL [default: a sample that is written for it]
    #[arg(long, value_name = "PATH|URL")]
    repo: Option<String>,
    /// terminal (built in) or code-server (if it is installed)
    #[arg(long, default_value_t)]
    ide: Ide,
    /// Open the browser when it is ready
    #[arg(long)]
    open: bool,
    /// Print one line of JSON on standard output when it is ready
    #[arg(long)]
    json: bool,
    /// Let the repository's own start commands run on this machine, where nothing isolates them
    #[arg(long)]
    trust: bool,
}

pub(super) async fn run(arguments: Args) -> Result<(), Failure> {
    let steps = Steps::default();
    let options = Options {
        repository: arguments.repo,
        ide: arguments.ide,
        trust: arguments.trust,
    };
    let (json, open) = (arguments.json, arguments.open);
    signals::until_stopped(|stop| async move {
        let ready = |ready: &Ready| show(ready, &steps, json, open);
        app::demo::run(options, &steps, stop, ready)
            .await
            .map_err(Failure::from)
    })
    .await
}

fn show(ready: &Ready, steps: &Steps, json: bool, open: bool) {
    steps.step("ready", "");
    output::say(&text(ready));
    // Whoever closed standard output cannot be told; the demo runs on until it is stopped.
    let _ = match json {
        true => output::json(ready),
        false => output::data(&urls(ready)),
    };
    if open && let Err(error) = app::open_browser(&ready.url) {
        output::say(&format!(
            "no browser could be started ({error}): open the URL above by hand"
        ));
    }
}

fn urls(ready: &Ready) -> String {
    match &ready.port_url {
        Some(port_url) => format!("{}\n{port_url}", ready.url),
        None => ready.url.clone(),
    }
}

fn text(ready: &Ready) -> String {
    let program =
        std::env::current_exe().map_or("cde-gateway".into(), |path| path.display().to_string());
    let ca = ready.ca.display();
    let below = match ready.port_url {
        Some(_) => "the IDE, then its forwarded port",
        None => "the IDE; its repository forwards no port",
    };
    let open = format!(
        "{program} gitspace --url {} --token-file {} open {} --print",
        ready.control_plane,
        ready.user_token_file.display(),
        ready.gitspace
    );
    let why = format!(
        "{program} session --url {} --token-file {} why",
        ready.admin,
        ready.admin_token_file.display()
    );
    format!(
        "
Below: {below}. Each URL lets one browser in, once, within a minute. A new one:
  {open}

Trust its certificate in Chromium (undo: certutil -d sql:$HOME/.pki/nssdb -D -n cde-gateway-demo):
  mkdir -p ~/.pki/nssdb && certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n cde-gateway-demo -i {ca}

With curl:
  curl --silent --show-error --cacert {ca} --location --cookie '' --header 'Accept: text/html' \\
    \"$({open})\"

What somebody did there last, which is why it is awake:
  {why}

Warning: the process driver isolates nothing. The gitspace is a shell of this user on this machine.
Stop it with Ctrl-C: that leaves nothing behind.
"
    )
}
