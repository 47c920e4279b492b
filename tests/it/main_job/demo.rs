//! `directstream demo`: no server, and the promise kept.

use std::process::Command;

fn demo(arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_directstream"));
    command.arg("demo").args(arguments).env("TMPDIR", folder.path()).current_dir(folder.path());
    let output = command.output().unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "the demo left files behind: {left:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_demo_kills_recounts_and_leaves_nothing_behind() {
    let arguments = ["--records", "50000", "--partitions", "3", "--kills", "5", "--output", "json"];
    let (code, stdout, stderr) = demo(&arguments);
    assert_eq!(code, Some(0), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    for (name, expected) in [("records", 50_000), ("kills", 5), ("missing", 0), ("doubled", 0), ("wrong_totals", 0)] {
        assert_eq!(report[name], expected, "{name} in {report}");
    }
    assert_eq!(report["ok"], true);
    assert!(report["batches"].as_u64().unwrap() > 5, "{report}");
    assert!(report["records_per_second"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(stderr.matches("SIGKILL").count(), 5, "{stderr}");
}

#[test]
fn the_demo_works_with_few_records_and_without_kills() {
    let (code, stdout, stderr) = demo(&["--records", "1", "--partitions", "1", "--kills", "0"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("missing 0  doubled 0  ok: true"), "{stdout}");
}
