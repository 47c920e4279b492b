//! A running server, and the faults a test can put on it.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use testcontainers::{
    ContainerAsync, ImageExt, TestcontainersError,
    bollard::{models::PortBinding, query_parameters::KillContainerOptionsBuilder},
    core::{ContainerPort, ExecCommand, client::docker_client_instance},
    runners::AsyncRunner,
};
use tokio::runtime::Runtime;

use super::{image::Image, reaper::remove_at_exit, sweep, wait_for};

type Result<T> = std::result::Result<T, TestcontainersError>;
type Container = Arc<ContainerAsync<Image>>;

/// How long a server may take to become ready, on a machine that is busy with other tests.
const READY: Duration = Duration::from_secs(60);

/// A server in a container of its own. Dropped, it is removed. A fault that cannot be put on it panics.
///
/// Host ports are chosen here and stay the same over a restart: Docker gives a container with "any" port a NEW one each time
/// it starts, and Kafka advertises a port. They lie below the range that the kernel uses for outgoing connections: a client
/// that retries a dead server's port inside that range can, on loopback, connect to itself and hold the port.
pub(crate) struct Server {
    /// `None` only while it is dropped.
    container: Option<Container>,
    ports: HashMap<u16, u16>,
    starts: AtomicUsize,
}

impl Server {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(image: Image) -> Self {
        Self::try_start(image).await.unwrap_or_else(|error| panic!("{}", explain(&error)))
    }

    async fn try_start(image: Image) -> Result<Self> {
        on_runtime(async move || {
            sweep::once().await;
            let mut attempts = 1;
            loop {
                match Self::start_once(image.clone()).await {
                    // Another process took the port between our look and Docker's bind: look for another one.
                    Err(error) if attempts < 5 && is_port_taken(&error) => attempts += 1,
                    other => return other,
                }
            }
        })
        .await
    }

    async fn start_once(mut image: Image) -> Result<Self> {
        let ports: HashMap<u16, u16> = image.ports.iter().map(|&port| (port, free_port())).collect();
        let with_ports = |template: String| {
            ports.iter().fold(template, |v, (inner, outer)| v.replace(&format!("{{{inner}}}"), &outer.to_string()))
        };
        for (name, template) in std::mem::take(&mut image.env_with_ports) {
            image.env.insert(name, with_ports(template));
        }
        image.command = image.command.into_iter().map(with_ports).collect();
        let bind = |(inner, outer): (&u16, &u16)| {
            // Loopback only: tests must not open a server to the network.
            let binding = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(outer.to_string()) };
            (format!("{inner}/tcp"), Some(vec![binding]))
        };
        let bindings: HashMap<_, _> = ports.iter().map(bind).collect();
        let (hostname, network, on_host) = (image.hostname.clone(), image.network.clone(), image.on_host);
        let read_only = image.read_only;
        let mut request =
            image.with_labels(sweep::labels()).with_startup_timeout(READY).with_host_config_modifier(move |host| {
                host.publish_all_ports = Some(false);
                if read_only {
                    host.readonly_rootfs = Some(true);
                    host.cap_drop = Some(vec!["ALL".to_owned()]);
                }
                host.port_bindings = Some(bindings.clone()).filter(|_| !on_host);
            });
        if let Some(network) = network {
            remove_at_exit("network", &network);
            request = request.with_network(network);
        }
        if let Some(hostname) = hostname {
            // On a network of its own a container is found by its name.
            request = request.with_hostname(hostname.clone()).with_container_name(hostname);
        }
        if on_host {
            request = request.with_network("host");
        }
        for (&inner, &outer) in ports.iter().filter(|_| !on_host) {
            request = request.with_mapped_port(outer, ContainerPort::Tcp(inner));
        }
        let container = request.start().await?;
        remove_at_exit("container", container.id());
        Ok(Self { container: Some(Arc::new(container)), ports, starts: AtomicUsize::new(1) })
    }

    /// `127.0.0.1:port` for a port of the container; the same for the server's whole life.
    pub(crate) fn address(&self, port: u16) -> String {
        format!("127.0.0.1:{}", self.ports[&port])
    }

    /// The container's id.
    pub(crate) fn id(&self) -> String {
        self.container().id().to_owned()
    }

    /// Freezes every process: connections stay open, nothing answers.
    pub(crate) async fn pause(&self) {
        self.with("pause", async |container| container.pause().await).await;
    }

    /// Ends [`pause`](Self::pause).
    pub(crate) async fn unpause(&self) {
        self.with("unpause", async |container| container.unpause().await).await;
    }

    /// SIGKILL: the crash that durability is about.
    pub(crate) async fn kill(&self) {
        self.with("kill", async |container| {
            let docker = docker_client_instance().await?;
            let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
            docker.kill_container(container.id(), Some(options)).await.map_err(TestcontainersError::other)
        })
        .await;
    }

    /// Starts it again after [`kill`](Self::kill), and waits until it is ready again.
    pub(crate) async fn start_again(&self) {
        let wanted = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        self.with("start again", async move |container| {
            container.start().await?;
            let (line, on_stdout) = container.image().ready.clone();
            // The log keeps the lines of earlier starts: count them.
            wait_for("a server that is ready again", READY, async || {
                let log =
                    if on_stdout { container.stdout_to_vec().await } else { container.stderr_to_vec().await }.ok()?;
                (String::from_utf8_lossy(&log).matches(&line).count() >= wanted).then_some(())
            })
            .await;
            Ok(())
        })
        .await;
    }

    /// Runs a command in the container; what it printed, stdout and stderr apart.
    ///
    /// # Errors
    /// The command ends with another status than 0: all that it printed.
    pub(crate) async fn run(&self, command: &[&str]) -> std::result::Result<(String, String), String> {
        let words: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let (out, err, code) = self
            .with("run a command", async move |container| {
                let mut result = container.exec(ExecCommand::new(words)).await?;
                let out = String::from_utf8_lossy(&result.stdout_to_vec().await?).into_owned();
                let err = String::from_utf8_lossy(&result.stderr_to_vec().await?).into_owned();
                // The streams may end a moment before the engine knows the status.
                let mut code = result.exit_code().await?;
                while code.is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    code = result.exit_code().await?;
                }
                Ok((out, err, code))
            })
            .await;
        if code == Some(0) { Ok((out, err)) } else { Err(format!("{command:?} ended with {code:?}: {out}{err}")) }
    }

    fn container(&self) -> &Container {
        self.container.as_ref().expect("there until it is dropped")
    }

    /// Works on the container, on the helpers' runtime.
    async fn with<T, F>(&self, what: &str, work: impl FnOnce(Container) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        let id = self.id();
        let container = Arc::clone(self.container());
        let done = on_runtime(|| work(container)).await;
        done.unwrap_or_else(|error| panic!("cannot {what} container {id}: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let container = self.container.take();
        // The container's own drop wants a runtime around it, and blocks.
        let removal = std::thread::spawn(move || runtime().block_on(async move { drop(container) }));
        if removal.join().is_err() {
            eprintln!("a container was not removed; it goes when this process ends");
        }
    }
}

/// Each `#[tokio::test]` has a runtime that ends with the test, and the Docker client's connections live on the runtime that
/// made them. Shared servers outlive a test: so all work with the engine is done on a runtime that lasts.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// Runs `work` on the runtime that lasts; a panic in it is a panic here.
async fn on_runtime<T, F>(work: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    // On a thread of its own, so that the future itself need not be `Send`.
    match runtime().spawn_blocking(|| runtime().block_on(work())).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A port of 127.0.0.1 that nobody listens on now, below the range of outgoing connections. Spread by process id, so that
/// test processes that run side by side seldom meet; a meeting is retried.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).expect("below COUNT");
    let ports = || FIRST + (spread + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..COUNT).map(|_| ports()).find(free).unwrap_or_else(|| panic!("no free port from {FIRST} on"))
}

fn is_port_taken(error: &TestcontainersError) -> bool {
    let text = format!("{error:?}");
    text.contains("port is already allocated") || text.contains("address already in use")
}

fn explain(error: &TestcontainersError) -> String {
    let text = format!("{error:?}");
    if ["SocketNotFoundError", "Connection refused", "client error (Connect)"].iter().any(|sign| text.contains(sign)) {
        return format!(
            "these tests need real servers: start a Docker engine (`scripts/test-env up` does it on Debian), \
             or name servers of yours in TEST_KAFKA and TEST_POSTGRES ({error})"
        );
    }
    if text.contains("PullImage") {
        return format!(
            "the image is not here and cannot be pulled: `scripts/test-env up` builds it; \
             then `eval \"$(scripts/test-env env)\"` ({error})"
        );
    }
    error.to_string()
}
