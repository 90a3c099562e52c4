//! Drivers: how instances come and go. Every call may be made twice.

pub mod process;

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
    /// There is no such instance.
    #[error("there is no instance {0} here; set it up first")]
    Unknown(InstanceId),
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
    /// Instances that ran when the runner ended last.
    fn interrupted(&self) -> Vec<InstanceId>;
    /// Keeps a note beside the instance, for the time after a restart.
    fn note(&self, instance: &InstanceId, text: &str) -> Result<(), DriverError>;
    /// The note kept last.
    fn noted(&self, instance: &InstanceId) -> Option<String>;
    /// Ends all that runs; [`Driver::interrupted`] will name it.
    fn shut_down(&self) -> impl Future<Output = ()> + Send;
}
