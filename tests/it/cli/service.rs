//! A job under a service manager, and what packages need: the manual page, completions, the unit.

use std::{collections::BTreeSet, fs, os::unix::net::UnixDatagram, path::Path, process::Command, time::Duration};

use super::{
    directstream, run,
    world::{LIMIT, World},
};
use crate::support::{Process, unique, wait_until};

/// What a service manager hears of a job.
struct Manager {
    socket: UnixDatagram,
    heard: String,
}

impl Manager {
    fn heard(&mut self, line: &str) -> bool {
        let mut message = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut message) {
            self.heard.push_str(std::str::from_utf8(&message[..length]).unwrap());
        }
        self.heard.lines().any(|heard| heard.starts_with(line))
    }

    /// Forgets what it heard.
    fn listen_anew(&mut self) {
        self.heard("");
        self.heard.clear();
    }
}

#[tokio::test]
async fn a_service_manager_hears_that_a_job_has_started_lives_stands_still_and_stops() {
    let world = World::sqlite(1).await;
    world.produce(0, 0..10).await;
    let socket = world.folder.path().join("notify");
    let mut manager = Manager { socket: UnixDatagram::bind(&socket).unwrap(), heard: String::new() };
    manager.socket.set_nonblocking(true).unwrap();
    let mut program = directstream(&["run", "job.toml"]);
    program.current_dir(world.folder.path()).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "300000");
    let job = Process::start(program, world.folder.path().join(unique("stderr")));
    wait_until("it has started", LIMIT, async || manager.heard("READY=1")).await;
    wait_until("it lives", LIMIT, async || manager.heard("WATCHDOG=1")).await;
    wait_until("it tells what it does", LIMIT, async || manager.heard("STATUS=running: 1 batches, 10 records, 0 "))
        .await;
    assert_eq!(manager.heard.matches("READY=1").count(), 1, "{}", manager.heard);

    // Stopped, it says nothing, and would be started again.
    job.signal("STOP");
    job.stopped(LIMIT).await;
    manager.listen_anew();
    assert!(!manager.heard("WATCHDOG=1"));
    job.signal("CONT");
    wait_until("it lives again", LIMIT, async || manager.heard("WATCHDOG=1")).await;

    job.signal("TERM");
    let status = job.end(Duration::from_secs(30)).await;
    assert_eq!(status.code(), Some(143));
    assert!(manager.heard("STOPPING=1"), "{}", manager.heard);
}

#[test]
fn bash_completes_commands_and_options() {
    let script = run(directstream(&["completions", "bash"]));
    assert_eq!((script.code, &*script.stderr), (0, ""));
    let completed = |words: &[&str]| -> BTreeSet<String> {
        let (last, name) = (words.len() - 1, words[words.len() - 1]);
        let ask = format!(
            "{}\nCOMP_WORDS=({}) COMP_CWORD={last}\n_directstream directstream '{name}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.stdout,
            words.join(" "),
            words[last - 1],
        );
        let asked = Command::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    assert_eq!(completed(&["directstream", "off"]), BTreeSet::from(["offsets".to_owned()]));
    assert!(completed(&["directstream", "run", "--until"]).contains("--until-latest"));
    for shell in ["zsh", "fish"] {
        let script = run(directstream(&["completions", shell])).stdout;
        assert!(script.contains("dead-letters") && script.contains("until-latest"), "{shell}");
    }
}

#[test]
fn the_manual_page_has_every_command() {
    let page = run(directstream(&["man"]));
    assert_eq!((page.code, &*page.stderr), (0, ""));
    let sections: Vec<&str> = page.stdout.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    for section in
        ["NAME", "SYNOPSIS", "\"DIRECTSTREAM RUN\"", "\"DIRECTSTREAM OFFSETS RESET\"", "\"DIRECTSTREAM MIGRATE UP\""]
    {
        assert!(sections.contains(&section), "{section}: {sections:?}");
    }
    assert!(page.stdout.contains("\\-\\-until\\-latest"));
    // No line of a help is taken for a request.
    assert!(!page.stdout.lines().any(|line| line.starts_with('\'')));
}

/// The unit's limits are those of the program, as far as one can be read from the other.
#[test]
fn the_unit_restarts_what_a_restart_may_mend_and_nothing_else() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd/directstream@.service");
    let unit = fs::read_to_string(unit).unwrap();
    let value =
        |key: &str| unit.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap_or_default().to_owned();
    let operating = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md")).unwrap();
    let codes = operating.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        // A code with its section. Those that somebody else's signal makes, two in a row, are not for the unit to judge.
        let (code, link) = cells.get(1)?.strip_prefix('[')?.split_once("](#")?;
        let code = code.parse::<i32>().ok().filter(|_| !link.contains(','))?;
        cells.get(3)?.starts_with("no").then_some(code)
    });
    let codes: BTreeSet<i32> = codes.collect();
    let prevented = value("RestartPreventExitStatus");
    assert_eq!(prevented.split(' ').map(|code| code.parse().unwrap()).collect::<BTreeSet<i32>>(), codes);
    assert_eq!((&*value("Type"), &*value("TimeoutStopSec"), &*value("WatchdogSec")), ("notify", "15s", "3min"));
}
