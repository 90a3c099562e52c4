//! What integration tests of the gateway share: a gateway in this process, upstreams, clients, an issuer.
//!
//! Everything listens on port 0. Nothing waits for a time: it waits for a value, with a deadline.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod client;
mod control_plane;
mod gateway;
mod h2;
mod issuer;
mod logs;
mod peer;
pub(crate) mod raw_h2;
mod streams;
mod tls;
mod upstream;

pub(crate) use client::{Answer, Client, Io, tls as try_tls, tls_over};
pub(crate) use control_plane::{Asked, ControlPlane, Exactly, route};
pub(crate) use gateway::{ADMIN_TOKEN, Setup, TestGateway};
pub(crate) use h2::H2;
pub(crate) use issuer::{Issuer, now};
pub(crate) use logs::{begin as keep_logs, file as log_file, secret, told};
pub(crate) use peer::{Authority, Identity, Kind, Peer, PeerAnswer};
pub(crate) use raw_h2::{Outcome, RawH2};
pub(crate) use streams::{Pieces, Streams, text};
pub(crate) use tls::{Dialer, TestCa, Wishes};
pub(crate) use upstream::{Refusing, Seen, Upstream, head, read_request};

use std::{future::Future, time::Duration};

/// The gitspace that most tests use.
pub(crate) const GITSPACE: &str = "app-a1b2c3";
/// Its IDE's host.
pub(crate) const HOST: &str = "app-a1b2c3.gitspaces.localhost";
/// Who owns it.
pub(crate) const OWNER: &str = "alice";
/// After so long a test has failed.
pub(crate) const WITHIN: Duration = Duration::from_secs(10);

/// The host of a port of the gitspace.
pub(crate) fn port_host(port: u16) -> String {
    format!("{GITSPACE}-{port}.gitspaces.localhost")
}

/// Asks until there is a value.
pub(crate) async fn eventually<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + WITHIN;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A step that must end before the deadline.
pub(crate) async fn soon<T>(what: &str, step: impl Future<Output = T>) -> T {
    match tokio::time::timeout(WITHIN, step).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}
