//! The web page: a few files that are part of the program, and nothing from elsewhere.

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use super::reporter::Reporter;

/// What a browser may do with the page, and with every other answer: run and load what this port serves, and nothing else.
/// Text from elsewhere is set as text; this is for the day on which somebody forgets.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Each file: its path, its kind, and its text.
pub(super) const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/assets/index.html")),
    ("/page.css", CSS, include_str!("page/assets/page.css")),
    ("/icon.svg", IMAGE, include_str!("page/assets/icon.svg")),
    ("/page.js", SCRIPT, include_str!("page/assets/page.js")),
    ("/batches.js", SCRIPT, include_str!("page/assets/batches.js")),
    ("/charts.js", SCRIPT, include_str!("page/assets/charts.js")),
    ("/dom.js", SCRIPT, include_str!("page/assets/dom.js")),
    ("/format.js", SCRIPT, include_str!("page/assets/format.js")),
    ("/graph.js", SCRIPT, include_str!("page/assets/graph.js")),
    ("/overview.js", SCRIPT, include_str!("page/assets/overview.js")),
    ("/partitions.js", SCRIPT, include_str!("page/assets/partitions.js")),
];

/// Adds the files.
pub(super) fn with_routes(router: Router<Reporter>) -> Router<Reporter> {
    FILES.iter().fold(router, |router, (path, kind, text)| {
        router.route(path, get(async || (StatusCode::OK, [(header::CONTENT_TYPE, *kind)], *text).into_response()))
    })
}
