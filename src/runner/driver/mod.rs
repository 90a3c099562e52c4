//! Drivers: how instances come and go. Every call may be made twice.

mod files;
pub mod process;
mod remains;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
};

use crate::api::{InstanceId, Secret};

/// An instance that runs.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its address.
    pub address: IpAddr,
    /// Where its agent listens.
    pub agent: SocketAddr,
    /// Guards its agent.
    pub token: Secret,
}

/// Why a driver failed: a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A file or process of the instance.
    #[error("cannot {doing} for {instance}: {source}")]
    Io {
        /// What it was doing.
        doing: &'static str,
        /// For which instance.
        instance: InstanceId,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The agent did not come up.
    #[error("the agent of {instance} did not start: {problem}")]
    Agent {
        /// Of which instance.
        instance: InstanceId,
        /// What it said.
        problem: String,
    },
    /// It does not run.
    #[error("instance {0} does not run here; set it up first")]
    Unknown(InstanceId),
    /// The runner ends.
    #[error("the runner is shutting down; {0} comes back with it")]
    ShuttingDown(InstanceId),
}

/// See the module.
pub trait Driver: Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;
    /// Whether its instances live on this host only.
    const HOST_BOUND: bool;

    /// Makes the instance, or brings a suspended one back; it runs afterwards.
    fn setup(
        &self,
        instance: &InstanceId,
    ) -> impl Future<Output = Result<Machine, DriverError>> + Send;
    /// Brings an instance back that [`Driver::wanted`] names and that does not run; [`DriverError::Unknown`] for others.
    fn revive(
        &self,
        instance: &InstanceId,
    ) -> impl Future<Output = Result<Machine, DriverError>> + Send;
    /// The instance, if it runs.
    fn machine(&self, instance: &InstanceId) -> Option<Machine>;
    /// Stops it and keeps everything.
    fn suspend(
        &self,
        instance: &InstanceId,
    ) -> impl Future<Output = Result<(), DriverError>> + Send;
    /// Destroys it, with or without its data.
    fn destroy(
        &self,
        instance: &InstanceId,
        delete_data: bool,
    ) -> impl Future<Output = Result<(), DriverError>> + Send;
    /// Instances that were set up and neither suspended nor destroyed since, also before a restart: they are to run.
    fn wanted(&self) -> Vec<InstanceId>;
    /// Keeps a note beside the instance, for the time after a restart.
    fn note(&self, instance: &InstanceId, text: &str) -> Result<(), DriverError>;
    /// The note kept last.
    fn noted(&self, instance: &InstanceId) -> Option<String>;
    /// Ends all that runs and starts nothing more; [`Driver::wanted`] names it still.
    fn shut_down(&self) -> impl Future<Output = ()> + Send;
}
