//! Why a route was not taken.

use super::{Place, Source};
use crate::api::{GitspaceId, access::Port};

/// Why a route was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Another source owns it.
    #[error("the route of {gitspace} comes from {owner:?}; change it there")]
    OtherSource {
        /// Whose route.
        gitspace: GitspaceId,
        /// Who owns it.
        owner: Source,
    },
    /// Its host, or path of it, belongs to another route.
    #[error("{place:?} is claimed by the route of {owner}")]
    HostTaken {
        /// Which host, and which path of it.
        place: String,
        /// Whose it is.
        owner: GitspaceId,
    },
    /// It leads where routes of its source may not lead.
    #[error(
        "port {port} of {gitspace} leads to {address}, which `gateway.upstreams.allow` does not permit"
    )]
    Forbidden {
        /// Whose route.
        gitspace: GitspaceId,
        /// Which port.
        port: Port,
        /// Where it leads.
        address: String,
    },
    /// It cannot be used as it is.
    #[error("the route of {gitspace}: {problem}")]
    Invalid {
        /// Whose route.
        gitspace: GitspaceId,
        /// What was wrong.
        problem: String,
    },
}

impl RouteError {
    pub(super) fn taken(place: &Place, owner: GitspaceId) -> Self {
        Self::HostTaken {
            place: place.to_string(),
            owner,
        }
    }
}
