//! `directstream health`: a running job asked over its own port, for supervisors and containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{CommandEnd, Console, args::HealthArgs, job::load_job};
use crate::{
    error::{Error, Result},
    report::printable,
};

/// An answer has a few hundred bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Asks, and ends with 0 if the answer is that all is well.
pub(super) async fn health(args: HealthArgs, console: &Console) -> Result<CommandEnd> {
    let address = match args.address {
        Some(address) => address,
        None => load_job(&args.job_args())?
            .report
            .listen
            .ok_or_else(|| Error::config("report.listen is off: there is no port to ask"))?,
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let asked = tokio::time::timeout(args.timeout, ask(reachable(address), path)).await;
    let (ok, answer) = asked.unwrap_or_else(|_elapsed| {
        let waited_ms = args.timeout.as_millis();
        Err(Error::unavailable(format!("the job does not answer address={address} waited_ms={waited_ms}")))
    })?;
    console.print(&answer, told)?;
    if ok { Ok(CommandEnd::Done) } else { Err(Error::unavailable(format!("the job is not well address={address}"))) }
}

/// Who listens on all addresses is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Whether the answer's status is 200, and the JSON in it.
async fn ask(address: SocketAddr, path: &str) -> Result<(bool, Value)> {
    let failed = |error| Error::unavailable(format!("cannot ask the job address={address}")).caused_by(error);
    let mut stream = TcpStream::connect(address).await.map_err(failed)?;
    // 1.0: the answer comes in one piece, and the connection ends with it.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.map_err(failed)?;
    understood(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| Error::unavailable(format!("what answers is no job of directstream address={address}")))
}

fn understood(answer: &str) -> Option<(bool, Value)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?;
    let document: Value = serde_json::from_str(body).ok()?;
    let is_ours = document["ok"].is_boolean() && document["status"].is_string();
    is_ours.then_some((status == "200", document))
}

/// For people.
fn told(answer: &Value) -> String {
    let text = |key: &str| printable(answer[key].as_str().unwrap_or("-")).into_owned();
    let number = |key: &str| answer[key].as_u64().unwrap_or(0);
    let (ok, reason) = (if answer["ok"] == true { "well" } else { "not well" }, text("reason"));
    let (batch_seq, ago_ms) = (number("batch_seq"), number("last_progress_ms"));
    format!("{ok}: status={} reason={reason} batch_seq={batch_seq} last_progress_ms={ago_ms}", text("status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood_or_is_none_of_ours() {
        let body = r#"{"ok":false,"status":"failed","reason":"fenced","batch_seq":7,"last_progress_ms":12}"#;
        let (ok, document) = understood(&format!("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\n{body}\n")).unwrap();
        assert!(!ok);
        assert_eq!(told(&document), "not well: status=failed reason=fenced batch_seq=7 last_progress_ms=12");
        assert!(understood("HTTP/1.1 200 OK\r\n\r\n{\"ok\":true,\"status\":\"running\"}").unwrap().0);
        for other in ["", "HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 200 OK\r\n\r\n{}", "SSH-2.0\r\n\r\n{\"ok\":true}"] {
            assert_eq!(understood(other), None, "{other}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        let asked = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(asked("[::]:9464"), "[::1]:9464");
        assert_eq!(asked("10.0.0.7:1"), "10.0.0.7:1");
    }
}
