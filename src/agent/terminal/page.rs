//! The page and its assets, embedded in the binary; without them, a page that says how to build them.

use axum::{
    extract::Path,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

#[derive(rust_embed::RustEmbed)]
#[folder = "web/dist/"]
struct Built;

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Not built</title>\
<h1>This terminal's page was not built</h1>\
<p>The program was built by cargo alone. Run <code>make web</code> (it needs Node 20 and npm), then build it again.</p></html>";

const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// For whatever may change.
pub(super) const NO_STORE: [(HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
/// Names of assets hold a hash of their content, so they never change.
const KEPT: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// `GET /`
pub(super) async fn index() -> Response {
    page(Built::get("index.html").map(|file| file.data.into_owned()))
}

/// The built page, or what to do without one.
fn page(built: Option<Vec<u8>>) -> Response {
    let page = built.unwrap_or_else(|| NOT_BUILT.as_bytes().to_vec());
    (NO_STORE, Html(page)).into_response()
}

/// `GET /assets/…`
pub(super) async fn asset(Path(path): Path<String>) -> Response {
    let Some(file) = Built::get(&format!("assets/{path}")) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = HeaderValue::from_static(media_type(&path));
    let head = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, KEPT)];
    (head, file.data.into_owned()).into_response()
}

/// What every answer says to the browser.
pub(super) async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a build of ours holds.
fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_the_built_files_the_page_says_how_to_build_it() {
        let response = protect(page(None)).await;
        assert!(
            response
                .headers()
                .contains_key(header::CONTENT_SECURITY_POLICY)
        );
        let body = axum::body::to_bytes(response.into_body(), 64 * 1024)
            .await
            .unwrap();
        assert!(String::from_utf8_lossy(&body).contains("make web"));
    }
}
