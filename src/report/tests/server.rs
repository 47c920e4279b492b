//! The HTTP port: what it answers, and what it bears.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::reporter;
use crate::{
    error::{Error, ErrorKind},
    report::{
        ReportServer, Reporter, Status,
        page::FILES,
        serve,
        server::{Bounds, serve_within},
    },
};

async fn server(reporter: &Reporter) -> ReportServer {
    serve("127.0.0.1:0", reporter.clone()).await.unwrap().unwrap()
}

/// Sends bytes and reads until the server closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may hang up before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn the_port_answers_what_the_reporter_says() {
    let (reporter, _) = reporter();
    let server = server(&reporter).await;
    let address = server.local_addr();
    let metrics = get(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(metrics.contains("x-content-type-options: nosniff\r\n"));
    assert!(metrics.contains("directstream_status{status=\"starting\"} 1\n"));

    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("\"reason\":\"starting\""), "{ready}");
    reporter.status(Status::Running);
    reporter.plan_completed(Duration::ZERO);
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 OK\r\n"));
    reporter.stopped(Some(&Error::fenced("another owner")));
    let health = get(address, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 503 ") && health.contains("\"reason\":\"fenced\""), "{health}");
    server.shutdown().await;
}

#[tokio::test]
async fn anything_else_is_not_found_and_nothing_can_be_changed() {
    let (reporter, _) = reporter();
    let server = server(&reporter).await;
    for path in ["/index.html", "/api/v1/", "/api/v1/overview/", "/metrics/", "/../etc/passwd", "/debug/vars"] {
        assert!(get(server.local_addr(), path).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    let post =
        exchange(server.local_addr(), b"POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}

/// A page of the internet whose name was made to point to loopback cannot read what is there; who names no host is no browser.
#[tokio::test]
async fn on_loopback_a_request_for_another_name_is_refused_in_one_line() {
    let (reporter, _) = reporter();
    let server = server(&reporter).await;
    let port = server.local_addr().port();
    let ask = async |path: &str, host: &str| {
        exchange(server.local_addr(), format!("GET {path} HTTP/1.1\r\n{host}\r\n").as_bytes()).await
    };
    for path in ["/", "/metrics", "/api/v1/applications", "/healthz", "/none"] {
        for host in ["evil.example", "evil.example:80", "localhost.evil.example", "x\u{e9}"] {
            let answer = ask(path, &format!("host: {host}\r\n")).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            // What is no host at all the HTTP library itself may refuse.
            let refused = head.starts_with("HTTP/1.1 403 ") && body.lines().count() == 1 && !body.contains("evil");
            assert!(refused || (head.starts_with("HTTP/1.1 400 ") && body.is_empty()), "{path} {host}: {answer}");
        }
    }
    for host in
        [format!("host: 127.0.0.1:{port}\r\n"), "host: [::1]\r\n".to_owned(), "host: LOCALHOST:1\r\n".to_owned()]
    {
        assert!(ask("/healthz", &host).await.starts_with("HTTP/1.1 200 OK\r\n"), "{host}");
    }
    let without = exchange(server.local_addr(), b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(without.starts_with("HTTP/1.0 200 OK\r\n"), "{without}");
    // The first line may name a host, too, and there may be two of them.
    for host in ["host: localhost\r\nhost: evil.example\r\n", "host: evil.example\r\nhost: localhost\r\n"] {
        assert!(!ask("/healthz", host).await.contains(" 200 "), "{host}");
    }
    assert!(ask("http://evil.example/healthz", "host: localhost\r\n").await.starts_with("HTTP/1.1 403 "));
}

/// Where other machines ask, it has names that it does not know.
#[tokio::test]
async fn a_port_that_is_not_on_loopback_is_asked_for_by_any_name() {
    let (reporter, _) = reporter();
    let server = serve("0.0.0.0:0", reporter).await.unwrap().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()));
    let answer = exchange(address, b"GET /healthz HTTP/1.1\r\nhost: job.example:9464\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn a_taken_port_is_a_configuration_error_that_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (reporter, _) = reporter();
    let error = serve(&address, reporter.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().ends_with(&format!("address={address}")), "{error}");
    assert!(serve("not an address", reporter.clone()).await.is_err());
    assert!(serve("off", reporter).await.unwrap().is_none());
}

#[tokio::test]
async fn a_request_without_end_is_cut_off() {
    let (reporter, _) = reporter();
    let server = server(&reporter).await;
    let mut endless = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n".to_vec();
    endless.extend(std::iter::repeat_n(*b"x-filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 1000).flatten());
    let answer = exchange(server.local_addr(), &endless).await;
    assert!(!answer.contains(" 200 "), "{answer}");
    assert!(get(server.local_addr(), "/healthz").await.contains(" 200 "));
}

/// The page and its API are served with what keeps a browser from running or loading anything else.
#[tokio::test]
async fn the_page_and_its_api_are_served_under_a_strict_policy() {
    let (reporter, _) = reporter();
    let server = server(&reporter).await;
    let ask = async |path: &str| get(server.local_addr(), path).await;
    let policy = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";
    for (path, kind, text) in FILES {
        let answer = ask(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(text), "{path}");
        assert!(answer.contains(&format!("content-type: {kind}\r\n")) && answer.contains(policy), "{path}");
        let bounds = ["referrer-policy: no-referrer", "x-content-type-options: nosniff", "cache-control: no-store"];
        assert!(bounds.iter().all(|bound| answer.contains(bound)), "{path}");
        // What comes from elsewhere is never read as markup, and nothing is loaded from elsewhere.
        for banned in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "https://",
            " style=",
            "onclick=",
        ] {
            assert!(!text.contains(banned), "{path} has {banned}");
        }
    }
    let applications = ask("/api/v1/applications").await;
    assert!(
        applications.contains("content-type: application/json\r\n") && applications.contains(policy),
        "{applications}"
    );
    assert!(applications.contains("\"id\":\"orders\""), "{applications}");
    assert!(ask("/api/v1/applications/orders/streaming/batches").await.ends_with("[]"));
    assert!(ask("/api/v1/applications/no%3Cb%3E/streaming/batches").await.ends_with("unknown app: no<b>\n"));
    let missing = ask("/api/v1/applications/orders/streaming/batches/5").await;
    assert!(missing.starts_with("HTTP/1.1 404 ") && missing.contains("content-type: text/plain"), "{missing}");
    assert!(ask("/api/v1/partitions?count=many").await.starts_with("HTTP/1.1 400 "));
}

/// UI-18: like Spark's tab, the page is there while the stream is, and gone with it.
#[tokio::test]
async fn ui_18_the_page_is_gone_after_the_stop() {
    let (reporter, _) = reporter();
    let server = server(&reporter).await;
    let address = server.local_addr();
    assert!(get(address, "/").await.contains("<title>directstream</title>"));
    server.shutdown().await;
    assert!(TcpStream::connect(address).await.is_err());
}

/// Slow senders: a connection is closed when its time is up, and only then is there room for the next one.
#[tokio::test]
async fn a_request_that_never_ends_is_timed_out_and_makes_room() {
    let (reporter, _) = reporter();
    let bounds = Bounds { connections_max: 1, connection_time_max: Duration::from_millis(200) };
    let server = serve_within(bounds, "127.0.0.1:0", reporter).await.unwrap().unwrap();
    let mut slow = TcpStream::connect(server.local_addr()).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    assert!(get(server.local_addr(), "/healthz").await.contains(" 200 "));
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
}

#[tokio::test]
async fn a_hundred_scrapes_at_once_are_all_answered() {
    let (reporter, _) = reporter();
    let server = server(&reporter).await;
    let address = server.local_addr();
    let scrapes: Vec<_> = (0..100).map(|_| tokio::spawn(async move { get(address, "/metrics").await })).collect();
    for scrape in scrapes {
        assert!(scrape.await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn the_port_is_free_after_shutdown() {
    let (reporter, _) = reporter();
    let server = server(&reporter).await;
    let address = server.local_addr();
    server.shutdown().await;
    assert!(serve(&address.to_string(), reporter).await.is_ok());
}
