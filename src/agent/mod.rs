//! The agent: inside the instance, it sets up repository and IDE.
//!
//! The runner alone reaches its API; the gateway reaches what it starts. It dials out to nothing but the repository. It ends
//! with its runner: whoever started it holds its standard input, and the end of that is the end of everything in here.

mod command;
mod descendants;
mod devcontainer;
mod ide;
mod logs;
mod ports;
mod program;
mod repository;
mod service;
pub mod terminal;
mod typing;

pub use command::{Args, run};
pub use service::{Settings, serve};
