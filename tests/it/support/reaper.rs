//! Removes this process's containers however the process ends.
//!
//! A test that returns or panics drops its servers. Nothing drops the shared ones, which live in statics, and nothing at all
//! runs after SIGKILL. So a shell beside the process reads the containers' names from a pipe: when the process is gone, for
//! whatever reason, the pipe ends, and the shell removes what it read. Ctrl-C reaches the shell, too: it does not listen.

use std::{
    io::Write as _,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock},
};

const SCRIPT: &str = r#"
    trap '' INT TERM HUP
    containers= networks=
    while read -r kind name; do
        case $kind in
            container) containers="$containers $name" ;;
            network) networks="$networks $name" ;;
        esac
    done
    [ -z "$containers" ] || docker rm --force --volumes $containers
    [ -z "$networks" ] || docker network rm $networks
"#;

/// Adds a `"container"` or a `"network"` to what goes when this process goes.
pub(crate) fn remove_at_exit(kind: &str, name: &str) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        let mut shell = Command::new("sh");
        // It outlives the tests by a second: whoever reads their output must not wait for it.
        let shell = shell.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(shell.spawn().expect("sh runs").stdin.take().expect("stdin is a pipe"))
    });
    writeln!(pipe.lock().unwrap(), "{kind} {name}").expect("the shell reads");
}
