//! What each role is given: its addresses, where the others are, and the tokens between them.
//!
//! A role that is not in this process is named in the configuration; one that is, is joined by the address it really has.

use std::{net::SocketAddr, path::Path, time::Duration};

use tokio::{net::TcpListener, sync::mpsc};

use super::{
    AppError, Places, Running, role,
    role::Role,
    state::{StateDir, StateError, read_or_make_token, read_token},
};
use crate::{
    api::Secret,
    config::{Config, Driver, Gateway, ListenProtocol, Role as Kind},
    control_plane, delegate,
    gateway::{self, Sockets},
    runner,
};

/// How long a role may take to end; the gateway has its drain deadline on top.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a process begins with.
#[derive(Default)]
pub(super) struct Origin {
    /// Sockets that it was given.
    pub(super) sockets: Sockets,
    /// The lock of the state folder, of a process that it takes over from.
    pub(super) lock: Option<std::fs::File>,
}

/// Binds every address, then starts the gateway; the other roles wait for [`Running::start_rest`].
pub(super) async fn start(config: &Config, origin: Origin) -> Result<Running, AppError> {
    let Origin { sockets, lock } = origin;
    let state = match lock {
        None => StateDir::open(&config.state_dir)?,
        Some(lock) => StateDir::take_over(&config.state_dir, lock)?,
    };
    let mut places = Places::default();

    let plane = &config.control_plane;
    let control = match config.runs(Kind::ControlPlane) {
        true => Some(bind(&sockets, plane.address, "control_plane.address")?),
        false => None,
    };
    places.control_plane = control.as_ref().map(|(_, url)| url.clone());
    let runner = match config.runs(Kind::Runner) {
        true => Some(bind(&sockets, config.runner.address, "runner.address")?),
        false => None,
    };
    places.runner = runner.as_ref().map(|(_, url)| url.clone());

    let (ask, reloads) = mpsc::channel(1);
    let (ask_elsewhere, elsewhere) = mpsc::channel(16);
    let bound = match config.runs(Kind::Gateway) {
        true => {
            let mut settings = gateway_settings(config, &state, places.control_plane.as_deref())?;
            settings.reload = Some(ask);
            settings.sockets = sockets.clone();
            settings.elsewhere = Some(ask_elsewhere);
            Some(gateway::bind(settings)?)
        }
        false => None,
    };
    if let Some(bound) = &bound {
        places.gateway = gateway_url(config, bound.addresses());
        places.admin = bound
            .admin_address()
            .map(|address| format!("http://{address}"));
        places.certificate_authority = bound.certificate_authority().map(Path::to_owned);
        tracing::info!(addresses = ?bound.addresses(), admin = ?bound.admin_address(), "gateway listens");
    }
    let handle = bound.as_ref().map(gateway::Bound::handle);

    // Everything that can be refused is known before the first role runs.
    let control = control
        .map(|(listener, url)| {
            let settings = control_plane_settings(config, &state, &url, places.gateway.as_deref());
            settings.map(|settings| (listener, settings))
        })
        .transpose()?;
    let runner = runner
        .map(|(listener, _)| runner_settings(config, &state).map(|settings| (listener, settings)))
        .transpose()?;
    let delegate = match config.runs(Kind::Delegate) {
        true => Some(delegate_settings(config, &state, &places)?),
        false => None,
    };

    for address in sockets.unused() {
        tracing::warn!(%address, "a socket was given for an address that the configuration does not have; it is closed");
    }
    let mut roles = Vec::new();
    let mut rest: Vec<Box<dyn FnOnce() -> Role + Send>> = Vec::new();
    if let Some(bound) = bound {
        let patience = config.gateway.timeouts.drain + PATIENCE;
        roles.push(Role::start(role::GATEWAY, patience, |stop| {
            bound.serve(stop)
        }));
    }
    if let Some(settings) = delegate {
        rest.push(Box::new(|| {
            Role::start("delegate", PATIENCE, |stop| delegate::serve(settings, stop))
        }));
    }
    if let Some((listener, settings)) = runner {
        rest.push(Box::new(|| {
            Role::start("runner", PATIENCE, |stop| {
                runner::serve(listener, settings, stop)
            })
        }));
    }
    if let Some((listener, settings)) = control {
        rest.push(Box::new(|| {
            Role::start("control plane", PATIENCE, |stop| {
                control_plane::serve(listener, settings, stop)
            })
        }));
    }
    Ok(Running {
        roles,
        rest,
        places,
        gateway: handle,
        reloads,
        elsewhere,
        sockets,
        state,
    })
}

fn bind(
    sockets: &Sockets,
    address: SocketAddr,
    key: &'static str,
) -> Result<(TcpListener, String), AppError> {
    let error = |source| AppError::Bind {
        address,
        key,
        source,
    };
    let listener = sockets.listen(key, address).map_err(error)?;
    let listener = TcpListener::from_std(listener).map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    tracing::info!(address = %bound, "{key} listens");
    Ok((listener, format!("http://{bound}")))
}

/// How users reach gitspaces through the gateway of this process: its first domain at its first listener, https if there is one.
fn gateway_url(config: &Config, addresses: &[SocketAddr]) -> Option<String> {
    let domain = config.gateway.domains.first()?;
    let mut listeners = config.gateway.listen.iter().zip(addresses);
    let https = listeners
        .clone()
        .find(|(listen, _)| listen.protocol == ListenProtocol::Https);
    let (listen, address) =
        https.or_else(|| listeners.find(|(listen, _)| !listen.redirect_to_https))?;
    Some(match (listen.protocol, address.port()) {
        (ListenProtocol::Https, 443) => format!("https://{domain}"),
        (ListenProtocol::Https, port) => format!("https://{domain}:{port}"),
        (ListenProtocol::Http, 80) => format!("http://{domain}"),
        (ListenProtocol::Http, port) => format!("http://{domain}:{port}"),
    })
}

/// What the gateway is built from; `control_plane` is that of this process.
pub(super) fn gateway_settings(
    config: &Config,
    state: &StateDir,
    control_plane: Option<&str>,
) -> Result<gateway::Settings, StateError> {
    let mut gateway = config.gateway.clone();
    allow_local_instances(&mut gateway, config);
    let link = &gateway.control_plane;
    let (url, token) = match (&link.url, control_plane) {
        (Some(url), _) => {
            let token = foreign_token(link.token_file.as_deref(), state, "gateway.token")?;
            (Some(url.clone()), Some(token))
        }
        (None, Some(url)) => (Some(url.to_owned()), Some(gateway_token(config, state)?)),
        (None, None) => (None, None),
    };
    let control_plane = url.zip(token).map(|(url, token)| gateway::ControlPlane {
        url,
        token,
        fail_mode: link.fail_mode,
    });
    let admin_token = own_token(gateway.admin.token_file.as_deref(), state, "admin.token")?;
    let chp_token = gateway
        .chp
        .as_ref()
        .map(|chp| own_token(chp.token_file.as_deref(), state, "chp.token"));
    let chp_token = chp_token.transpose()?;
    Ok(gateway::Settings {
        config: gateway,
        routes: config.route.clone(),
        state_dir: state.path().to_owned(),
        admin_token,
        chp_token,
        control_plane,
        sockets: Sockets::default(),
        elsewhere: None,
        reload: None,
    })
}

/// The process driver's instances are on loopback, where routes may not lead by default: they would run and not be reached.
fn allow_local_instances(gateway: &mut Gateway, config: &Config) {
    let local = config.runs(Kind::Runner) && config.runner.driver == Driver::Process;
    if local && gateway.upstreams.allow.is_empty() {
        gateway.upstreams.allow = vec![
            ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128).into(),
        ];
    }
}

fn control_plane_settings(
    config: &Config,
    state: &StateDir,
    url: &str,
    gateway_url: Option<&str>,
) -> Result<control_plane::Settings, StateError> {
    let plane = &config.control_plane;
    let or = |configured: &Option<String>, embedded: &str| {
        configured.clone().unwrap_or_else(|| embedded.to_owned())
    };
    Ok(control_plane::Settings {
        public_url: or(&plane.public_url, url),
        gateway_url: or(&plane.gateway_url, gateway_url.unwrap_or_default()),
        database: plane
            .database
            .clone()
            .unwrap_or_else(|| state.file("control-plane.db")),
        signing_key: state.file("control-plane.key"),
        user: plane.user.clone(),
        user_token: own_token(plane.user_token_file.as_deref(), state, "user.token")?,
        gateway_token: gateway_token(config, state)?,
        delegate_token: delegate_token(config, state)?,
    })
}

fn delegate_settings(
    config: &Config,
    state: &StateDir,
    places: &Places,
) -> Result<delegate::Settings, StateError> {
    let delegate = &config.delegate;
    let (url, token) = match &delegate.url {
        Some(url) => {
            let token = foreign_token(delegate.token_file.as_deref(), state, "delegate.token")?;
            (url.clone(), token)
        }
        None => (
            places.control_plane.clone().unwrap_or_default(),
            delegate_token(config, state)?,
        ),
    };
    let (runner, runner_token) = match &delegate.runner {
        Some(url) => {
            let file = delegate.runner_token_file.as_deref();
            (url.clone(), foreign_token(file, state, "runner.token")?)
        }
        None => (
            places.runner.clone().unwrap_or_default(),
            runner_token(config, state)?,
        ),
    };
    Ok(delegate::Settings {
        name: delegate.name.clone(),
        url,
        token,
        runner,
        runner_token,
        tags: delegate.tags.clone(),
        capacity: delegate.capacity,
    })
}

fn runner_settings(config: &Config, state: &StateDir) -> Result<runner::Settings, AppError> {
    let executable = std::env::current_exe().map_err(|source| AppError::System {
        action: "find this program's own file, which is also the agent",
        source,
    })?;
    Ok(runner::Settings {
        token: runner_token(config, state)?,
        driver: config.runner.driver,
        instances: config
            .runner
            .instances
            .clone()
            .unwrap_or_else(|| state.file("instances")),
        identity: state.file("runner.id"),
        executable,
    })
}

fn gateway_token(config: &Config, state: &StateDir) -> Result<Secret, StateError> {
    let file = config.control_plane.gateway_token_file.as_deref();
    own_token(file, state, "gateway.token")
}

fn delegate_token(config: &Config, state: &StateDir) -> Result<Secret, StateError> {
    let file = config.control_plane.delegate_token_file.as_deref();
    own_token(file, state, "delegate.token")
}

fn runner_token(config: &Config, state: &StateDir) -> Result<Secret, StateError> {
    own_token(config.runner.token_file.as_deref(), state, "runner.token")
}

/// A token that guards something of this process: made if absent.
fn own_token(file: Option<&Path>, state: &StateDir, name: &str) -> Result<Secret, StateError> {
    match file {
        Some(file) => read_or_make_token(file),
        None => state.token(name),
    }
}

/// A token that another process gave out: it must be there.
fn foreign_token(file: Option<&Path>, state: &StateDir, name: &str) -> Result<Secret, StateError> {
    match file {
        Some(file) => read_token(file),
        None => read_token(&state.file(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_the_embedded_process_driver_can_be_reached_by_default() {
        let mut config = Config::default();
        let mut gateway = config.gateway.clone();
        allow_local_instances(&mut gateway, &config);
        assert_eq!(gateway.upstreams.allow.len(), 2);
        config.roles = vec![Kind::Gateway];
        let mut alone = config.gateway.clone();
        allow_local_instances(&mut alone, &config);
        assert!(alone.upstreams.allow.is_empty());
    }
}
