//! Each command tried wrong: whatever is wrong, the answer is one line that says what and where, and the documented exit code.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{Ran, directstream, run};

/// The commands that take a job file, and what else they need.
const OF_JOBS: [(&[&str], &[&str]); 17] = [
    (&["run"], &[]),
    (&["check-config"], &[]),
    (&["lag"], &[]),
    (&["batches"], &[]),
    (&["verify"], &[]),
    (&["offsets", "show"], &[]),
    (&["offsets", "export"], &[]),
    (&["offsets", "reset"], &["--to-earliest"]),
    (&["offsets", "set"], &["t:0:5"]),
    (&["dead-letters", "list"], &[]),
    (&["dead-letters", "show"], &["t:0:5"]),
    (&["dead-letters", "replay"], &["--all"]),
    (&["dead-letters", "discard"], &["--all"]),
    (&["migrate", "status"], &[]),
    (&["migrate", "up"], &[]),
    (&["migrate", "down"], &["--to", "1"]),
    (&["run"], &["--until-latest", "--standby"]),
];

/// Nothing listens there.
const NOBODY: &str = "127.0.0.1:1";

struct Wrong {
    what: &'static str,
    /// The job file, or a name that is none.
    file: fn(&Path),
    arguments: &'static [&'static str],
    /// Of those commands that get so far; others end well.
    code: i32,
    told: &'static str,
}

fn written(text: &str) -> String {
    let job = format!(
        "name = \"wrong\"\n[kafka]\nbootstrap_servers = \"{NOBODY}\"\ntopics = [\"t\"]\n[stream]\nstart_timeout = \"1s\"\n\
         [store]\nurl = \"sqlite:wrong.db\"\n[report]\nlisten = \"off\"\n[[output]]\ntable = \"records\"\ncreate = true\n\
         [output.columns]\nvalue = {{ from = \"value\", type = \"bytea\" }}\n"
    );
    match text.split_once(" => ") {
        Some((part, other)) => {
            assert!(job.contains(part), "{part}");
            job.replace(part, other)
        }
        None => job,
    }
}

fn put(folder: &Path, change: &str) {
    fs::write(folder.join("job.toml"), written(change)).unwrap();
}

const WRONG: [Wrong; 11] = [
    Wrong { what: "no file", file: |_| (), arguments: &[], code: 2, told: "job.toml" },
    Wrong {
        what: "a folder",
        file: |folder| fs::create_dir(folder.join("job.toml")).unwrap(),
        arguments: &[],
        code: 2,
        told: "job.toml",
    },
    Wrong {
        what: "no TOML",
        file: |folder| fs::write(folder.join("job.toml"), "name = \"wrong\n").unwrap(),
        arguments: &[],
        code: 2,
        told: "job.toml:1:",
    },
    Wrong {
        what: "no text",
        file: |folder| fs::write(folder.join("job.toml"), [0xff, 0xfe, 0]).unwrap(),
        arguments: &[],
        code: 2,
        told: "job.toml",
    },
    Wrong {
        what: "a key with a typo",
        file: |folder| put(folder, "[stream] => [stream]\nbatch_intervall = \"1s\""),
        arguments: &[],
        code: 2,
        told: "batch_interval",
    },
    Wrong {
        what: "a wrong type",
        file: |folder| put(folder, ""),
        arguments: &["--set", "stream.batch_interval=soon"],
        code: 2,
        told: "stream.batch_interval",
    },
    Wrong {
        what: "a key that is none",
        file: |folder| put(folder, ""),
        arguments: &["--set", "streem.batch_interval=1s"],
        code: 2,
        told: "streem",
    },
    Wrong {
        what: "a variable that is not set",
        file: |folder| put(folder, "sqlite:wrong.db => ${NOT_SET_ANYWHERE}"),
        arguments: &[],
        code: 2,
        told: "NOT_SET_ANYWHERE",
    },
    Wrong {
        what: "a store of no kind",
        file: |folder| put(folder, "sqlite:wrong.db => mysql://app:hunter2@db/app"),
        arguments: &[],
        code: 2,
        told: "store.url",
    },
    Wrong {
        what: "a database that is away",
        file: |folder| put(folder, "sqlite:wrong.db => postgres://app:hunter2@127.0.0.1:1/app"),
        arguments: &[],
        code: 3,
        told: "127.0.0.1",
    },
    Wrong {
        what: "a database that is none",
        file: |folder| {
            put(folder, "");
            fs::write(folder.join("wrong.db"), "this is not a database, whatever its name says".repeat(50)).unwrap();
        },
        arguments: &[],
        code: 4,
        told: "wrong.db",
    },
];

/// One line, which is no panic and holds no secret; several faults of a job file have a line each.
fn is_told_in_one_line(ran: &Ran, told: &str) -> Result<(), String> {
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("directstream: error: ")).collect();
    let right = match errors.as_slice() {
        [error] => error.contains(told),
        _ => false,
    };
    let quiet = ran.stdout.is_empty() && !ran.stderr.contains("panic") && !ran.stderr.contains("hunter2");
    if right && quiet {
        Ok(())
    } else {
        Err(format!("expected {told}, stdout={:?} stderr={:?}", ran.stdout, ran.stderr))
    }
}

/// Words after a command, its exit code, and what its line says.
type Tried = (&'static [&'static str], i32, &'static str);

/// The commands that take no job file, or need none, each in ten ways of its own: no server is asked but by the last one of some.
const OTHERS: [(&[&str], [Tried; 10]); 5] = [
    (
        &["peek"],
        [
            (&["t"], 2, "TOPIC:PARTITION:FROM..UNTIL"),
            (&["t:0"], 2, "TOPIC:PARTITION:FROM..UNTIL"),
            (&["t:x:0..1"], 2, "TOPIC:PARTITION:FROM..UNTIL"),
            (&["t:0:1..0"], 2, "TOPIC:PARTITION:FROM..UNTIL"),
            (&["t:0:-1..2"], 2, "TOPIC:PARTITION:FROM..UNTIL"),
            (&["t:0:..", "--limit", "0"], 2, "--limit"),
            (&["t:0:..", "--bytes", "many"], 2, "--bytes"),
            (&["t:0:..", "--isolation-level", "serializable"], 2, "read_committed"),
            (&["t:0:..", "--command-config", "not-there"], 2, "not-there"),
            (&["t:0:..", "--bootstrap-servers", NOBODY], 3, NOBODY),
        ],
    ),
    (
        &["health"],
        [
            (&["not-there.toml"], 2, "not-there.toml"),
            (&["."], 2, "."),
            (&["--address", "nowhere"], 2, "--address"),
            (&["--address", "127.0.0.1"], 2, "--address"),
            (&["--address", "127.0.0.1:99999"], 2, "--address"),
            (&["--address", NOBODY, "job.toml"], 2, "cannot be used with"),
            (&["--address", NOBODY, "--timeout", "0s"], 2, "--timeout"),
            (&["--address", NOBODY, "--timeout", "soon"], 2, "--timeout"),
            (&["--address", NOBODY, "--redy"], 2, "--ready"),
            (&["--address", NOBODY, "--timeout", "1s"], 3, NOBODY),
        ],
    ),
    (
        &["demo"],
        [
            (&["--records", "0"], 2, "--records"),
            (&["--records", "100000001"], 2, "--records"),
            (&["--records", "many"], 2, "--records"),
            (&["--records"], 2, "--records"),
            (&["--partitions", "0"], 2, "--partitions"),
            (&["--partitions", "101"], 2, "--partitions"),
            (&["--kills", "101"], 2, "--kills"),
            (&["--kills=-1"], 2, "--kills"),
            (&["--kill", "1"], 2, "--kills"),
            (&["job.toml"], 2, "job.toml"),
        ],
    ),
    (
        &["completions"],
        [
            (&["bassh"], 2, "bash"),
            (&["BASH!"], 2, "bash"),
            (&[""], 2, "bash"),
            (&["/bin/bash"], 2, "bash"),
            (&["csh"], 2, "bash"),
            (&["bash", "zsh"], 2, "zsh"),
            (&["--shell", "bash"], 2, "--shell"),
            (&["bash", "--install"], 2, "--install"),
            (&["-x"], 2, "-x"),
            (&["cmd.exe"], 2, "powershell"),
        ],
    ),
    (
        &["man"],
        [
            (&["run"], 2, "run"),
            (&["1"], 2, "1"),
            (&["directstream"], 2, "directstream"),
            (&["--section", "1"], 2, "--section"),
            (&["--html"], 2, "--html"),
            (&["-k"], 2, "-k"),
            (&["-P", "cat"], 2, "-P"),
            (&[""], 2, "unexpected"),
            (&["job.toml"], 2, "job.toml"),
            (&["--all"], 2, "--all"),
        ],
    ),
];

/// The command line itself is wrong, for each command that takes a job file.
const USAGE: [(&[&str], &str); 4] = [
    (&["--no-such-flag"], "--no-such-flag"),
    (&["--set"], "--set"),
    (&["--set", "no value"], "KEY=VALUE"),
    (&["--output", "yaml"], "--output"),
];

#[test]
fn each_other_command_tried_wrong_in_ten_ways_has_a_one_line_answer_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut failed = Vec::new();
    let others = OTHERS.iter().flat_map(|(command, wrong)| wrong.iter().map(move |wrong| (*command, *wrong)));
    let usage =
        OF_JOBS.iter().flat_map(|(command, _)| USAGE.iter().map(move |(wrong, told)| (*command, (*wrong, 2, *told))));
    for (command, (wrong, code, told)) in others.chain(usage) {
        // Before the job file, for some commands take any number of words after it.
        let mut program = directstream(&[command, wrong].concat());
        program.current_dir(folder.path());
        let ran = run(program);
        let found = match is_told_in_one_line(&ran, told) {
            // What was tried before somebody gave up is in the log.
            Ok(()) if code == 3 || ran.stderr.lines().count() == 1 => {
                (ran.code != code).then(|| format!("exit code {}", ran.code))
            }
            Ok(()) => Some(ran.stderr.clone()),
            Err(found) => Some(found),
        };
        failed.extend(found.map(|found| format!("{command:?} {wrong:?}: {found}")));
    }
    assert!(failed.is_empty(), "{}:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn each_command_tried_wrong_in_ten_ways_has_a_one_line_answer_and_the_documented_exit_code() {
    let mut failed = Vec::new();
    let mut tried = 0;
    for wrong in &WRONG {
        for (command, more) in OF_JOBS {
            // It connects to nothing.
            if wrong.code != 2 && command == ["check-config"] {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            (wrong.file)(folder.path());
            let mut program = directstream(&[command, &["job.toml"], more, wrong.arguments].concat());
            program.current_dir(folder.path());
            let ran = run(program);
            tried += 1;
            // A run asks Kafka before it opens its database, and there is none.
            let (code, told) =
                if wrong.code == 4 && command == ["run"] { (3, NOBODY) } else { (wrong.code, wrong.told) };
            let mut expect = is_told_in_one_line(&ran, told);
            if ran.code != code {
                expect = Err(format!("exit code {}: {:?}", ran.code, ran.stderr));
            }
            if let Err(found) = expect {
                failed.push(format!("{} of {command:?}: {found}", wrong.what));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {tried}:\n{}", failed.len(), failed.join("\n"));
    assert!(tried >= OF_JOBS.len() * 10, "{tried}");
}
