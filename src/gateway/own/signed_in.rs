//! The end of a login that was begun in a window of its own: a page that tells the one that opened it, and closes.
//!
//! It tells pages of its own origin and no others; without script it is a text. What it says is true for whoever opens it: only those who
//! are signed in get it.

use http::{HeaderValue, Response, StatusCode, header};

use crate::gateway::{forward::Body, page::Page};

/// Its path.
pub(super) const PATH: &str = "/_gitspace/signed-in";

pub(super) fn page() -> Response<Body> {
    let page = Page::new("You are signed in")
        .text("You can close this window and go on where you were.")
        .script(include_str!("signed_in.js"));
    let mut response = page.answer(StatusCode::OK);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
