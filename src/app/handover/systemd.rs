//! systemd: sockets that it opened (sd_listen_fds(3)), and what it is told (sd_notify(3)). Elsewhere all of this is nothing.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{ffi::OsStrExt, net::SocketAddr, net::UnixDatagram},
    },
};

use rustix::time::{ClockId, clock_gettime};

use crate::gateway::Named;

/// The sockets that systemd opened for this process. Their names count for nothing: an address of the configuration finds its own.
pub fn sockets() -> io::Result<Vec<Named>> {
    let mut all = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..all.len() {
        let Some(socket) = all.take_tcp_listener(number)? else {
            continue;
        };
        let asked = socket.local_addr()?;
        sockets.push(Named {
            key: String::new(),
            asked,
            socket,
        });
    }
    Ok(sockets)
}

/// All roles run.
pub(crate) fn ready() {
    notify("READY=1");
}

/// The configuration is read again; [`ready`] says when that is over.
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// Another process is the service now. Only the one that was it so far is believed.
pub(crate) fn main_is(pid: u32) {
    notify(&format!("MAINPID={pid}"));
}

/// The drain begins.
pub(crate) fn stopping() {
    notify("STOPPING=1");
}

fn notify(state: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(path.as_bytes(), state) {
        tracing::warn!(%error, "cannot tell systemd: {state}");
    }
}

fn send(path: &[u8], state: &str) -> io::Result<()> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_arrive_at_paths_and_at_abstract_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("cde-gateway-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        for (socket, address) in [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.to_str().unwrap().to_owned(),
            ),
            (
                UnixDatagram::bind_addr(&abstract_name).unwrap(),
                format!("@{name}"),
            ),
        ] {
            send(address.as_bytes(), "READY=1").unwrap();
            let mut text = [0; 64];
            let length = socket.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"READY=1");
        }
    }
}
