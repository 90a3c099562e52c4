//! Waking: somebody opens a gitspace that is stopped, and a gateway asks the control plane to start it.
//!
//! `POST /v1/feed/wake` is answered when the start is committed, by server-sent events that end with the start: `step` for each thing
//! that happened (an [`Event`](super::gitspace::Event), its `id` is what `Last-Event-ID` takes), `state` for each [`WakeState`], and
//! first of all [`Usual`], if it was started before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{gitspace::State, id::GitspaceId};

/// Who wakes a gitspace by opening it. Nobody who is unknown, and no visitor of a share's link, ever does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wakers {
    /// Its owner.
    #[default]
    Owner,
    /// Its owner, and who may use it by name: `allow` and shares.
    Shared,
    /// These, and its organization.
    Organization,
    /// Nobody.
    Off,
}

/// `POST /v1/feed/wake`: a gitspace is to be started for somebody, or its start looked at.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Wake {
    /// Which.
    #[schema(value_type = String, example = "api-k3x9q2")]
    pub gitspace: GitspaceId,
    /// Who opened it.
    pub principal: String,
    /// Start it. False: only tell how its last action goes.
    #[serde(default = "yes")]
    pub start: bool,
}

fn yes() -> bool {
    true
}

/// `POST /v1/feed/wake/cancel`: somebody does not want a start any more that is under way.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Cancel {
    /// Of which gitspace.
    #[schema(value_type = String, example = "api-k3x9q2")]
    pub gitspace: GitspaceId,
    /// Who does not want it.
    pub principal: String,
}

/// The event `usual`: milliseconds that each step of a start took lately, by the step's label (`vm_setup`).
pub type Usual = BTreeMap<String, u64>;

/// The event `state`: how the gitspace is. All but `starting` end the events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WakeState {
    /// Its state.
    pub state: State,
    /// Why it is in error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
