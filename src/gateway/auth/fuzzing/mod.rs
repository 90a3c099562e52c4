//! The fuzz targets of the step: what a request carries, who it says is asking, and what is left of it.
//!
//! [`stripping`] asks what is left, [`carriers`] which token counts, [`claims`] what a token may say, [`sessions`] what opens a session.

mod carriers;
mod claims;
mod fixture;
mod sessions;
mod stripping;

pub(in crate::gateway) use self::fixture::{DOMAIN, FIXTURE};
pub use self::{carriers::carriers, claims::claims, sessions::session, stripping::cookies};
