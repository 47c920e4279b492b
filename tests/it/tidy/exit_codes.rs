//! The runbook of the exit codes: each code and each kind of error that the program can end with has its section, and tests that
//! cause it.

use std::collections::BTreeMap;

use super::rules::SourceFile;

/// The codes that a process ends with, with what `/healthz` and the metrics call the errors behind them.
type Codes = BTreeMap<u32, Vec<String>>;

/// Deaths by SIGABRT and SIGKILL as shells tell them: no code of the program's own, and in the runbook all the same.
const DEATHS: [u32; 2] = [134, 137];

/// The arms `Self::A | Self::B => 3,` of the functions `exit_code` in a file.
fn codes(text: &str) -> Codes {
    let mut codes = Codes::new();
    for function in text.split("pub const fn exit_code(self) -> u8 {").skip(1) {
        let body = function.split("\n    }\n").next().unwrap_or_default();
        for (kinds, code) in body.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once(" => ")) {
            let Ok(code) = code.parse() else { continue };
            let names = kinds.split(" | ").filter_map(|kind| kind.strip_prefix("Self::")).map(str::to_owned);
            codes.entry(code).or_default().extend(names);
        }
    }
    codes
}

/// A variant's name as the metrics have it: `OffsetsLost` is `offsets_lost`.
fn label(variant: &str) -> String {
    let mut label = String::new();
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}

/// What is wrong with the runbook and with the page of tests, given all files with Rust code.
pub(super) fn exit_codes(runbook: &str, testing: &str, files: &[SourceFile]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let of_errors = codes(text("src/error.rs"));
    let own = codes(text("src/cli/mod.rs"));
    let all: Vec<u32> = of_errors.keys().chain(own.keys()).copied().chain(DEATHS).collect();
    let mut complaints = Vec::new();
    if of_errors.len() < 6 || own.len() != 3 {
        complaints.push("src/error.rs, src/cli/mod.rs: the exit codes were not found".to_owned());
    }
    let table: Vec<&str> = runbook.lines().filter(|line| line.starts_with("| [")).collect();
    let section = |code: u32| {
        let after = runbook.split_once(&format!("\n### Exit code {code}\n"))?.1;
        after.split("\n#").next()
    };
    for code in &all {
        match section(*code) {
            None => complaints.push(format!("docs/operating.md has no section `### Exit code {code}`")),
            Some(section) => {
                for kind in of_errors.get(code).into_iter().flatten().map(|kind| label(kind)) {
                    if !section.contains(&format!("`{kind}`")) {
                        complaints.push(format!("docs/operating.md does not tell of `{kind}` under exit code {code}"));
                    }
                }
            }
        }
        if !table.iter().any(|row| row.contains(&format!("[{code}](#exit-code-{code})"))) {
            complaints.push(format!("docs/operating.md has no row of exit code {code}"));
        }
        complaints.extend(tests_of(*code, testing, files));
    }
    for told in runbook.lines().filter_map(|line| line.strip_prefix("### Exit code ")) {
        if !told.parse().is_ok_and(|code| all.contains(&code)) {
            complaints.push(format!("docs/operating.md tells of exit code {told}, with which nothing ends"));
        }
    }
    complaints
}

/// The row of a code on the page of tests: the tests that it names are there.
fn tests_of(code: u32, testing: &str, files: &[SourceFile]) -> Option<String> {
    let rows = testing.split_once("\n## Exit codes\n").map_or("", |(_, rest)| rest);
    let rows = rows.split("\n## ").next().unwrap_or_default();
    let is_of = |row: &&str| {
        let codes = row.trim_start_matches("| ").split(" | ").next().unwrap_or_default();
        codes.split(", ").any(|one| one.parse() == Ok(code))
    };
    let Some(row) = rows.lines().find(is_of) else {
        return Some(format!("docs/testing.md has no tests of exit code {code}"));
    };
    // `..._with_sqlite` is the one before it with another store.
    let named = row.split('`').skip(1).step_by(2).filter(|name| !name.starts_with("..."));
    let missing = named.filter(|name| !files.iter().any(|file| file.text.contains(&format!("fn {name}("))));
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() && row.contains('`') {
        return None;
    }
    Some(format!("docs/testing.md names tests of exit code {code} that are not there: {}", missing.join(", ")))
}

#[test]
fn the_codes_of_an_enum_are_found() {
    let text = "impl K {\n    pub const fn exit_code(self) -> u8 {\n        match self {\n            Self::A | Self::BothLost => 4,\n            \
                Self::C => 130,\n        }\n    }\n\n    fn other() -> u8 {\n        Self::D => 9,\n    }\n}\n";
    let expected = Codes::from([(4, vec!["A".to_owned(), "BothLost".to_owned()]), (130, vec!["C".to_owned()])]);
    assert_eq!(codes(text), expected);
    assert_eq!(label("BothLost"), "both_lost");
}

#[test]
fn a_code_without_a_section_a_row_or_a_test_is_found() {
    let arms = |arms: &str| format!("pub const fn exit_code(self) -> u8 {{\n{arms}\n    }}\n");
    let kinds = (1..=6).map(|code| format!("Self::Kind{code} => {code},")).collect::<Vec<_>>().join("\n");
    let file = |path: &str, text: String| SourceFile { path: path.to_owned(), text };
    let files = [
        file("src/error.rs", arms(&kinds)),
        file("src/cli/mod.rs", arms("Self::Done => 0,\nSelf::I => 130,\nSelf::T => 143,")),
        file("tests/it/a.rs", "fn a_test_that_is_there() {}".to_owned()),
    ];
    let (mut runbook, mut testing) = (String::new(), "\n## Exit codes\n".to_owned());
    for code in [0, 1, 2, 3, 4, 5, 6, 130, 134, 137, 143] {
        runbook.push_str(&format!("| [{code}](#exit-code-{code}) |\n\n### Exit code {code}\n\n`kind{code}`\n"));
        testing.push_str(&format!("| {code} | `a_test_that_is_there` |\n"));
    }
    assert_eq!(exit_codes(&runbook, &testing, &files), Vec::<String>::new());
    for (part, other, told) in [
        ("### Exit code 5\n", "### Exit code 9\n", "no section `### Exit code 5`"),
        ("### Exit code 5\n", "### Exit code 9\n", "tells of exit code 9"),
        ("`kind3`", "", "does not tell of `kind3`"),
        ("| [6](#exit-code-6) |", "", "no row of exit code 6"),
    ] {
        let complaints = exit_codes(&runbook.replace(part, other), &testing, &files);
        assert!(complaints.iter().any(|complaint| complaint.contains(told)), "{told}: {complaints:?}");
    }
    for (part, other, told) in [
        ("| 6 | `a_test_that_is_there`", "| 6 | `a_test_that_is_gone`", "not there: a_test_that_is_gone"),
        ("| 6 |", "| 7 |", "no tests of exit code 6"),
        ("| 6 | `a_test_that_is_there`", "| 6 | none", "exit code 6 that are not there"),
    ] {
        let complaints = exit_codes(&runbook, &testing.replace(part, other), &files);
        assert!(complaints.iter().any(|complaint| complaint.contains(told)), "{told}: {complaints:?}");
    }
}
