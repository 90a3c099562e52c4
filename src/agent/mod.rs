//! The agent: inside the instance, it sets up repository and IDE.

pub mod terminal;
