//! One small HTTP port for the web page and its API, `/metrics`, `/healthz` and `/readyz`. It only answers: no request
//! changes anything.
//!
//! Anyone who reaches the port may ask, so it is bounded: each connection is for one request of at most
//! [`REQUEST_BYTES_MAX`] bytes and is cut off after [`CONNECTION_TIME_MAX`], and [`CONNECTIONS_MAX`] may be open at once.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware::{from_fn, map_response},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
    time::{Sleep, sleep},
};

use super::{api, health::HealthAnswer, host, page, reporter::Reporter};
use crate::error::{Error, Result, Stage};

/// A scraper's request has a few hundred bytes.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// From accept to the answer's last byte. Prometheus gives up after 10 s by default.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections open at once; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;

/// How long answers under way may take when the server stops.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(1);

/// The setting that turns the port off.
const OFF: &str = "off";

/// What one connection may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connections_max: usize,
    pub(super) connection_time_max: Duration,
}

/// The open port. Dropping it closes it.
#[derive(Debug)]
pub struct ReportServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// Opens the port `listen` (`host:port`; port 0 takes a free one) and answers there until it is dropped; `None` if
/// `listen` is `off`. On loopback a request that names another host than an IP address or `localhost` is answered with 403.
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if the address cannot be listened on, as when the port is taken.
pub async fn serve(listen: &str, reporter: Reporter) -> Result<Option<ReportServer>> {
    let bounds = Bounds { connections_max: CONNECTIONS_MAX, connection_time_max: CONNECTION_TIME_MAX };
    serve_within(bounds, listen, reporter).await
}

pub(super) async fn serve_within(bounds: Bounds, listen: &str, reporter: Reporter) -> Result<Option<ReportServer>> {
    if listen == OFF {
        return Ok(None);
    }
    let refused = |error| {
        Error::config(format!(
            "cannot listen for the web page, metrics and health checks, set report.listen to another address or to \"off\" \
             address={listen}"
        ))
        .at(Stage::Start)
        .caused_by(error)
    };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let (stop, stopped) = oneshot::channel();
    let permits = Arc::new(Semaphore::new(bounds.connections_max));
    let bounded = BoundedListener { listener, permits, connection_time_max: bounds.connection_time_max };
    let task = tokio::spawn(async move {
        let stopped = async {
            // An error means that the server was dropped, which asks for the same.
            let _ = stopped.await;
        };
        if let Err(error) = axum::serve(bounded, router(reporter, address)).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the web page, metrics and health checks ended");
        }
    });
    if address.ip().is_loopback() {
        tracing::info!(%address, "the web page, metrics and health checks listen");
    } else {
        tracing::warn!(%address, "the web page, metrics and health checks listen where other machines can read them");
    }
    Ok(Some(ReportServer { address, stop: Some(stop), task }))
}

impl ReportServer {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port, after the answers under way but within a second.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has ended already.
            let _ = stop.send(());
        }
        if tokio::time::timeout(SHUTDOWN_TIME_MAX, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for ReportServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn router(reporter: Reporter, address: SocketAddr) -> Router {
    let routes = page::with_routes(api::with_routes(Router::new()))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async |State(reporter): State<Reporter>| check(&reporter.healthy())))
        .route("/readyz", get(async |State(reporter): State<Reporter>| check(&reporter.ready())))
        .fallback(async || answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n".to_owned()));
    let guarded = match address.ip().to_canonical().is_loopback() {
        true => routes.layer(from_fn(host::own_names_only)),
        false => routes,
    };
    guarded.layer(map_response(bounded)).with_state(reporter)
}

async fn metrics(State(reporter): State<Reporter>) -> Response {
    // Thousands of series take milliseconds to write, which other tasks of this thread need not wait for.
    match tokio::task::spawn_blocking(move || reporter.render_metrics()).await {
        Ok(text) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn check(health: &HealthAnswer) -> Response {
    let status = if health.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, "application/json", format!("{}\n", health.body))
}

pub(super) fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// What every answer says, the framework's own included.
async fn bounded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::CONTENT_SECURITY_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // One request per connection: what a connection may send and how long it may last is then the request's bound.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Accepts only as many connections as may be open, and gives each its bounds.
struct BoundedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    connection_time_max: Duration,
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        // The trait's own accept retries errors, such as too many open files.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let deadline = Box::pin(sleep(self.connection_time_max));
        (BoundedStream { stream, deadline, unread_max: REQUEST_BYTES_MAX, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends after a time and after a number of bytes read.
struct BoundedStream {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    unread_max: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl BoundedStream {
    fn poll_in_time<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_pending() {
            ready!(self.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread_max == 0 {
            return Poll::Ready(Err(io::Error::other("request too large")));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len().saturating_sub(before);
        self.unread_max = self.unread_max.saturating_sub(bytes);
        self.poll_in_time(cx, read)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.poll_in_time(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
