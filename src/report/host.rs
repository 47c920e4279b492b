//! Whom a request takes this port for: a guard against DNS rebinding.
//!
//! A page of the internet that somebody has open in a browser can ask loopback, too, if the name that it came from is made to
//! point there. To the browser that is the page's own origin, so it may read the answer. The request still says which name it
//! was sent to. On loopback this port has no name of its own, so it answers those that ask for an IP address, which no DNS
//! server hands out, or for `localhost`, which none is asked for; a request without a name comes from no browser. Jupyter and
//! Vite do the same. Where other machines may ask, anybody who can make a browser do it can ask without one.

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};

use super::server::answer;

/// What somebody reads who is turned away, such as a person behind a reverse proxy that hands on its own name.
const TURNED_AWAY: &str = "on loopback this port is asked for by an IP address or as localhost, and by no other name in the \
                           header Host\n";

/// Answers only those that ask for loopback by its own names: 403 for all others.
pub(super) async fn own_names_only(request: Request, next: Next) -> Response {
    let named = request.uri().authority().is_none_or(is_own_name);
    let header = |host: &HeaderValue| host.to_str().ok()?.parse().ok().filter(is_own_name);
    if named && request.headers().get_all(header::HOST).iter().all(|host| header(host).is_some()) {
        return next.run(request).await;
    }
    answer(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", TURNED_AWAY.to_owned())
}

/// An IP address or `localhost`, whatever the port is: behind a tunnel or a container's mapping it is another one.
fn is_own_name(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse::<std::net::IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_asked_for_by_address_or_as_localhost() {
        let is_own = |host: &str| host.parse::<Authority>().is_ok_and(|authority| is_own_name(&authority));
        for own in ["127.0.0.1:9464", "127.0.0.1", "[::1]:9464", "[::1]", "localhost:80", "LocalHost", "10.0.0.7:1"] {
            assert!(is_own(own), "{own}");
        }
        for other in
            ["evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example", "db", "", "::1"]
        {
            assert!(!is_own(other), "{other}");
        }
    }
}
