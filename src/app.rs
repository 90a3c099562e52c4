//! Builds the chosen roles, joins them over loopback HTTP, drains them. The only module that knows every role.

pub mod state;
