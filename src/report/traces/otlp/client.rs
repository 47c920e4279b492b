//! One request over plain HTTP, on the thread that sends spans.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::net::TcpStream;

use super::Tally;

/// A collector answers with a few bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A connection for each request: one every few seconds, and what became of the one before is nobody's worry.
#[derive(Debug)]
pub(super) struct Client {
    timeout: Duration,
    tally: Arc<Tally>,
}

impl Client {
    pub(super) fn new(timeout: Duration, tally: Arc<Tally>) -> Self {
        Self { timeout, tally }
    }
}

#[async_trait]
impl HttpClient for Client {
    /// Waits where it is called: on the queue's own thread, which has nothing else to do and no async runtime. So a job's
    /// runtime never has a part in this, and need not be alive when the last spans are sent.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answered = runtime.block_on(async {
            match tokio::time::timeout(self.timeout, exchange(request)).await {
                Ok(answered) => answered,
                Err(_elapsed) => Err(format!("no answer in time timeout_ms={}", self.timeout.as_millis()).into()),
            }
        });
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        match &answered {
            Err(error) => self.tally.failed(error.to_string()),
            Ok(answer) if !answer.status().is_success() => {
                self.tally.failed(format!("refused status={}", answer.status()))
            }
            Ok(_) => {}
        }
        answered
    }
}

/// Connects, asks, and takes the answer.
async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (host, port) = server(request.uri()).ok_or("there is no host to send to")?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(without_host(request)?).await?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
    connection.abort();
    Ok(Response::from_parts(parts, body))
}

/// As a server takes it: the path in the first line, and the host in a header.
fn without_host(request: Request<Bytes>) -> Result<Request<Full<Bytes>>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let host = parts.uri.authority().map(|authority| authority.as_str().parse()).transpose()?;
    if let Some(host) = host {
        parts.headers.insert(header::HOST, host);
    }
    parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    Ok(Request::from_parts(parts, Full::new(body)))
}

/// Name or address, without the brackets of an IPv6 one, and port.
fn server(uri: &Uri) -> Option<(String, u16)> {
    let host = uri.host()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), uri.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_in_a_header_and_its_path_alone() {
        let request = Request::post("http://[::1]:4318/v1/traces?a").body(Bytes::new()).unwrap();
        assert_eq!(server(request.uri()), Some(("::1".to_owned(), 4318)));
        assert_eq!(server(&"http://collector/".parse().unwrap()), Some(("collector".to_owned(), 80)));
        let request = without_host(request).unwrap();
        assert_eq!(request.uri(), "/v1/traces?a");
        assert_eq!(request.headers()[header::HOST], "[::1]:4318");
    }
}
