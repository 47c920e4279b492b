//! Runs the programs of `examples/`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::task::spawn_blocking;

use super::{Database, Kafka};

/// How long an example may run, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

/// The names of all examples of the package.
pub(crate) fn example_names(package: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(package.join("examples")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let single = paths.filter(|path| path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").exists());
    let mut names: Vec<_> = single.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Runs an example to its end, with `BOOTSTRAP_SERVERS`, `DATABASE_URL` and what `env` adds; what it printed to stdout.
/// Panics if it fails, or does not end in time.
pub(crate) async fn run_example(name: &str, kafka: &Kafka, database: &Database, env: &[(&str, &str)]) -> String {
    let mut command = Command::new(example_program(name));
    command.env("BOOTSTRAP_SERVERS", kafka.brokers()).env("DATABASE_URL", database.url());
    command.envs(env.iter().copied());
    let output = tokio::time::timeout(LIMIT, spawn_blocking(move || command.output()));
    let output = output.await.unwrap_or_else(|_| panic!("example {name} runs longer than {LIMIT:?}")).unwrap().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "example {name} ended with {}:\n{out}{err}", output.status);
    out
}

/// The program of an example.
///
/// Cargo builds examples before it runs tests, unless it is told which tests: then they may be missing or old.
pub(crate) fn example_program(name: &str) -> PathBuf {
    let built = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join(name);
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let source =
        [package.join(format!("{name}.rs")), package.join(name).join("main.rs")].into_iter().find(|p| p.exists());
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let fresh = changed(&built) >= source.as_deref().and_then(changed);
    assert!(built.exists() && fresh, "{} is missing or old: run `cargo build --examples` first", built.display());
    built
}
