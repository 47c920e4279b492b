//! The image with the program: without root, with a read-only file system, healthy while it works.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::support::{
    JobFile, Server, directstream, free_port, fresh_database, program, record, shared_kafka, unique, wait_until,
};

/// Enough for anything, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

/// What `docker` prints; panics with what it says if it fails.
fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("the Docker client");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    assert!(output.status.success(), "docker {arguments:?} ended with {}:\n{out}\n{err}", output.status);
    out
}

/// An image with the program that the tests were built with. Dropped, it is removed; what it was built on is kept for the
/// next time.
struct Packaged {
    tag: String,
}

impl Packaged {
    fn build() -> Self {
        let tag = unique("directstream-test-program") + ":latest";
        let context = tempfile::tempdir().unwrap();
        fs::copy(env!("CARGO_BIN_EXE_directstream"), context.path().join("directstream")).unwrap();
        let dockerfile = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/Dockerfile");
        let base = std::env::var("TEST_BASE_IMAGE").unwrap_or_else(|_| "debian:bookworm-slim".to_owned());
        let (base, context) = (format!("BASE={base}"), context.path().to_str().unwrap().to_owned());
        docker(&["build", "-f", dockerfile, "--target", "packaged", "--build-arg", &base, "-t", &tag, &context]);
        Self { tag }
    }
}

impl Drop for Packaged {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", "--no-prune", &self.tag]).output();
    }
}

/// What Docker's own health check says.
fn health(server: &Server) -> String {
    docker(&["inspect", "--format", "{{.State.Health.Status}}", &server.id()])
}

fn job(folder: &Path, job: &JobFile) -> String {
    // Read by another user.
    let path = job.write(folder);
    docker_readable(folder, 0o755);
    docker_readable(&path, 0o644);
    path.to_str().unwrap().to_owned()
}

fn docker_readable(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn the_image_commits_without_root_on_a_read_only_file_system_and_is_healthy() {
    let image = Packaged::build();
    let (kafka, database) = (shared_kafka().await, fresh_database().await);
    let (topic, folder) = (kafka.topic(1).await, tempfile::tempdir().unwrap());
    let listen = format!("127.0.0.1:{}", free_port());
    let output =
        "[[output]]\ntable = \"records\"\ncreate = true\ncolumns.id = { from = \"value:/id\", type = \"bigint\" }\n";
    let file =
        JobFile::new(kafka.brokers(), &topic, database.url()).report(format!("listen = \"{listen}\"")).outputs(output);
    let path = job(folder.path(), &file);
    let server = Server::start(program(&image.tag, &path)).await;
    kafka.produce(&topic, (0..100).map(|id| record(format!("{{\"id\":{id}}}"))).collect()).await;
    let all = async || database.count("records").await == 100;
    wait_until("the records are in the table", LIMIT, all).await;
    wait_until("Docker finds it healthy", LIMIT, async || health(&server) == "healthy").await;

    let (user, _) = server.run(&["id", "-u"]).await.unwrap();
    assert_eq!(user.trim(), "10001");
    let refused = server.run(&["touch", "/usr/local/bin/x"]).await.unwrap_err();
    assert!(refused.contains("Read-only file system"), "{refused}");

    // The same question from outside, of who is ready as well; and of a port where nobody is.
    let asked = |arguments: &[&str]| directstream(&[&["health"], arguments].concat()).output().unwrap();
    let answer = asked(&["--address", &listen, "--ready"]);
    let told = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.status.success() && told.starts_with("well: status=running reason=- batch_seq="), "{told}");
    let nobody = format!("127.0.0.1:{}", free_port());
    assert_eq!(asked(&["--address", &nobody]).status.code(), Some(3));

    // SIGTERM reaches the program, which is the container's first process.
    docker(&["stop", "--time", "15", &server.id()]);
    assert_eq!(docker(&["inspect", "--format", "{{.State.ExitCode}}", &server.id()]), "143");
}
