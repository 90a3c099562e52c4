//! The data path.
pub mod auth;
