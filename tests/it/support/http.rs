//! Asking Prometheus, or a job, on loopback.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The status and the body of `GET path`; `None` if there is no answer.
pub(crate) fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    // 1.0: the answer comes in one piece, and the connection ends with it.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The `data` of a call of Prometheus's API, or what it says against it.
pub(crate) fn query(address: &str, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
    let mut path = format!("/api/v1/{path}?");
    for (name, value) in parameters {
        path.push_str(&name.replace("[]", "%5B%5D"));
        path.push('=');
        for byte in value.bytes() {
            write!(path, "%{byte:02X}").unwrap();
        }
        path.push('&');
    }
    let (_, body) = get(address, &path).ok_or("no answer")?;
    let mut answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(body) }
}
