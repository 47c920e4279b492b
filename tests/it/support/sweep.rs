//! Containers that dead test processes left behind.
//!
//! The reaper misses a container if its own shell is killed as well, or if the process dies between Docker's making the
//! container and telling its name. So each container carries its owner, and each test process removes, before its first
//! start, what dead owners left.

use std::collections::HashMap;

use testcontainers::{
    bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
    core::client::docker_client_instance,
};
use tokio::sync::OnceCell;

const OWNER: &str = "directstream-test.owner";
const HOST: &str = "directstream-test.host";

/// Process ids mean something only on one host and in one PID namespace; the host's name stands for both.
fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Process id and start time: ids are used again.
fn process(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (command) state ...": the command may hold anything. The start time is field 22 of all, 20 after the command.
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid}:{started}"))
}

/// The labels of a container that this process owns.
pub(crate) fn labels() -> [(String, String); 2] {
    let me = process(std::process::id()).expect("the tests run on Linux");
    [(OWNER.to_owned(), me), (HOST.to_owned(), host())]
}

fn lives(owner: &str) -> bool {
    let pid = owner.split(':').next().and_then(|pid| pid.parse().ok());
    pid.and_then(process).is_some_and(|now| now == owner)
}

/// Removes what dead owners left; does it once per process.
pub(crate) async fn once() {
    static DONE: OnceCell<()> = OnceCell::const_new();
    DONE.get_or_init(remove_orphans).await;
}

async fn remove_orphans() {
    let Ok(docker) = docker_client_instance().await else { return };
    let filters = HashMap::from([("label".to_owned(), vec![OWNER.to_owned(), format!("{HOST}={}", host())])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    for container in docker.list_containers(Some(options)).await.unwrap_or_default() {
        let labels = container.labels.unwrap_or_default();
        if let (Some(id), Some(owner)) = (container.id, labels.get(OWNER))
            && !lives(owner)
        {
            eprintln!("removing container {id} of the dead test process {owner}");
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            // Two processes may sweep at once: the second finds it gone.
            let _ = docker.remove_container(&id, Some(options)).await;
        }
    }
}
