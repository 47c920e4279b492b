use std::{fs, path::Path, process::Stdio};

use super::{directstream, run};

/// Every command there is, and whether it is one that runs, not one that only holds others.
const COMMANDS: [(&[&str], bool); 25] = [
    (&[], false),
    (&["demo"], true),
    (&["run"], true),
    (&["health"], true),
    (&["offsets"], false),
    (&["offsets", "show"], true),
    (&["offsets", "reset"], true),
    (&["offsets", "set"], true),
    (&["offsets", "export"], true),
    (&["lag"], true),
    (&["batches"], true),
    (&["verify"], true),
    (&["dead-letters"], false),
    (&["dead-letters", "list"], true),
    (&["dead-letters", "show"], true),
    (&["dead-letters", "replay"], true),
    (&["dead-letters", "discard"], true),
    (&["peek"], true),
    (&["migrate"], false),
    (&["migrate", "up"], true),
    (&["migrate", "down"], true),
    (&["migrate", "status"], true),
    (&["check-config"], true),
    (&["completions"], true),
    (&["man"], true),
];

fn help_of(command: &[&str]) -> String {
    let ran = run(directstream(&[command, &["--help"]].concat()));
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
    ran.stdout
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for (command, runs) in COMMANDS {
        let help = help_of(command);
        let name = [&["directstream"], command].concat().join(" ");
        assert!(help.contains(&format!("Usage: {name}")), "{help}");
        assert!(help.contains("--output <table|json>"), "{help}");
        assert_eq!(help.contains("Example"), runs, "{help}");
        if runs {
            assert!(help.contains(&format!("\n  {name}")), "the example is of another command: {help}");
        }
    }
}

/// The help as a whole; with `DIRECTSTREAM_BLESS=1` the file is written anew.
#[test]
fn the_help_is_what_it_was() {
    let all: Vec<String> = COMMANDS
        .iter()
        .map(|(command, _)| {
            format!("$ directstream {}\n{}", [command, &["--help"][..]].concat().join(" "), help_of(command))
        })
        .collect();
    let (all, path) = (all.join("\n"), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/help.txt"));
    if std::env::var_os("DIRECTSTREAM_BLESS").is_some() {
        fs::write(&path, &all).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == all, "tests/snapshots/help.txt is out of date: run the tests with DIRECTSTREAM_BLESS=1\n{all}");
}

#[test]
fn the_commands_of_the_top_help_are_the_ones_tested() {
    let help = help_of(&[]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let listed: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    let mut tested: Vec<&str> = COMMANDS.iter().filter_map(|(command, _)| command.first().copied()).collect();
    tested.dedup();
    tested.push("help");
    assert_eq!(listed, tested);
}

#[test]
fn the_version_names_the_client_library_too() {
    let ran = run(directstream(&["--version"]));
    assert_eq!(ran.code, 0);
    let version =
        ran.stdout.trim_end().strip_prefix(concat!("directstream ", env!("CARGO_PKG_VERSION"), " (librdkafka "));
    assert!(version.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())), "{}", ran.stdout);
}

#[test]
fn a_wrong_command_line_ends_with_2_and_says_what_is_right() {
    let wrong: [(&[&str], &str); 18] = [
        (&[], "Usage: directstream"),
        (&["offset"], "'offsets'"),
        (&["runn"], "'run'"),
        (&["offsets"], "Usage: directstream offsets"),
        (&["offsets", "rewind", "job.toml"], "unrecognized subcommand 'rewind'"),
        (&["offsets", "reset", "job.toml"], "--to-earliest|--to-latest"),
        (&["offsets", "reset", "job.toml", "--to-earliest", "--to-latest"], "cannot be used with"),
        (&["offsets", "reset", "job.toml", "--to-latest", "--dry-run", "--execute"], "cannot be used with"),
        (&["offsets", "reset", "job.toml", "--to-datetime", "yesterday"], "a time is such as"),
        (&["offsets", "reset", "job.toml", "--by-duration=-PT1H"], "a duration is such as"),
        (&["offsets", "reset", "job.toml", "--to-latest", "--topic", "t:x"], "some of its partitions"),
        (&["offsets", "set", "job.toml", "t:0"], "TOPIC:PARTITION:OFFSET"),
        (&["lag", "job.toml", "--watch", "--every", "0s"], "and not zero"),
        (&["run"], "<JOB.toml>"),
        (&["run", "job.toml", "--until-lastest"], "--until-latest"),
        (&["run", "job.toml", "--standby", "--take-over"], "cannot be used with"),
        (&["batches", "job.toml", "--output", "yaml"], "table, json"),
        (&["demo", "--partitions", "0"], "1..=100"),
    ];
    for (arguments, told) in wrong {
        let ran = run(directstream(arguments));
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{arguments:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains('\x1b'), "{arguments:?}");
        // A command without anything is told its help, any other mistake in a line.
        let bare = arguments.is_empty() || arguments == ["offsets"];
        assert!(
            bare || ran.stderr.starts_with("directstream: error: ") && ran.stderr.lines().count() == 1,
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_setting_that_is_not_one_is_not_repeated() {
    for setting in ["store.url:postgres://app:hunter2@db/app", "=hunter2"] {
        let ran = run(directstream(&["run", "job.toml", "--set", setting]));
        assert_eq!(ran.code, 2);
        assert!(ran.stderr.contains("KEY=VALUE") && !ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
}

#[test]
fn wrong_log_settings_are_one_line_and_end_with_2() {
    let mut command = directstream(&["check-config", "job.toml"]);
    command.env("DIRECTSTREAM_LOG_FORMAT", "xml");
    let ran = run(command);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(
        ran.stderr.starts_with("directstream: error: DIRECTSTREAM_LOG_FORMAT must be human or json"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr.lines().count(), 1);
}

#[test]
fn help_into_a_closed_pipe_is_no_failure() {
    let mut child = directstream(&["--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
