//! A target: instance, address, port, protocol and pin behind a port of a gitspace, with a fence.
//!
//! Every target has a number of its own. Pools know connections by that number, so a connection to an old target can never be
//! taken for a new one, even when a VM's address is used again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use super::reach::Reach;
use crate::api::{
    InstanceId,
    route::{Protocol, UpstreamTls},
};

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// An address and port.
    Socket(SocketAddr),
    /// A host name and port. Static routes only.
    Name(Arc<str>, u16),
    /// A Unix socket. Static routes only.
    Unix(Arc<str>),
    /// It does not run.
    Nowhere,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its number, unlike any other's in this process.
    pub(crate) number: u64,
    /// Where it is.
    pub(crate) address: Address,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// How the other end is known, where it is spoken to over TLS.
    pub(crate) tls: Option<Arc<UpstreamTls>>,
    /// What the workers share of reaching it.
    pub(crate) reach: Reach,
    instance: Option<InstanceId>,
    fence: CancellationToken,
}

impl Target {
    pub(crate) fn new(
        instance: Option<InstanceId>,
        address: Address,
        protocol: Protocol,
        tls: Option<Arc<UpstreamTls>>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            number,
            address,
            protocol,
            tls,
            reach: Reach::default(),
            instance,
            fence: CancellationToken::new(),
        }
    }

    /// Whether these are the things that make a target what it is.
    pub(crate) fn is(
        &self,
        instance: Option<&InstanceId>,
        address: &Address,
        protocol: Protocol,
        tls: Option<&Arc<UpstreamTls>>,
    ) -> bool {
        self.instance.as_ref() == instance
            && self.address == *address
            && self.protocol == protocol
            && self.tls.as_ref() == tls
    }

    /// Its port; 0 where it has none.
    pub(crate) fn port(&self) -> u16 {
        match &self.address {
            Address::Socket(address) => address.port(),
            Address::Name(_, port) => *port,
            Address::Unix(_) | Address::Nowhere => 0,
        }
    }

    /// Ends its connections and streams.
    pub(crate) fn fence(&self) {
        self.fence.cancel();
    }

    /// Cancelled when it is fenced.
    pub(crate) fn fenced(&self) -> &CancellationToken {
        &self.fence
    }
}
