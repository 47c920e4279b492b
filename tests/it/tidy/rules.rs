//! The rules.

use super::code::{code_only, lines_without_tests, root_paths};

/// A file by its path from the package's root.
pub(super) struct SourceFile {
    pub(super) path: String,
    pub(super) text: String,
}

/// The stages of a batch. They share types and never know one another.
const STAGES: [&str; 5] = ["plan", "read", "transform", "commit", "report"];
/// Who may know the stages: the driver, the command line, and what tests of jobs are made with.
const ABOVE: [&str; 3] = ["stream", "cli", "testing"];
/// What a stage may use beside itself.
const BELOW: [&str; 7] = ["types", "error", "config", "clock", "kafka", "failpoint", "backoff"];
/// A file longer than this, without its tests, has more than one duty.
const MOST_LINES: usize = 600;

pub(super) fn stage_imports(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let own = file.path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
        if ABOVE.contains(&own) || own == "lib" || own == "main" {
            continue;
        }
        for (line, other) in root_paths(&file.path, &code_only(&file.text)) {
            let module = other.starts_with(|c: char| c.is_lowercase());
            let wrong = if STAGES.contains(&own) {
                // A type by its re-export at the root is fine: it comes from below.
                module && other != own && !BELOW.contains(&other.as_str())
            } else {
                STAGES.contains(&other.as_str()) || ABOVE.contains(&other.as_str())
            };
            if wrong {
                complaints.push(format!("{}:{line}: `{own}` must not use `{other}`", file.path));
            }
        }
    }
    complaints
}

pub(super) fn unsafe_code(files: &[SourceFile]) -> Vec<String> {
    let allowed = |path: &str| path == "src/kafka/ffi.rs" || path.starts_with("src/kafka/ffi/");
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !allowed(&file.path)) {
        for (index, line) in code_only(&file.text).lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| word == "unsafe") {
                complaints.push(format!("{}:{}: unsafe code belongs to src/kafka/ffi.rs", file.path, index + 1));
            }
        }
    }
    complaints
}

pub(super) fn long_files(files: &[SourceFile]) -> Vec<String> {
    let lengths = files.iter().map(|file| (&file.path, lines_without_tests(&file.text)));
    let long = lengths.filter(|(_, lines)| *lines > MOST_LINES);
    long.map(|(path, lines)| format!("{path}: {lines} lines without tests, more than {MOST_LINES}")).collect()
}

/// Every folder that is a module is named, as `folder/`, in the page that explains the tree.
pub(super) fn folders_in_architecture(files: &[SourceFile], page: &str) -> Vec<String> {
    let folders = files.iter().filter_map(|file| file.path.strip_suffix("/mod.rs"));
    let named = |folder: &str| page.contains(&format!("{}/", folder.rsplit('/').next().unwrap_or(folder)));
    let missing = folders.filter(|folder| !named(folder));
    missing.map(|folder| format!("docs/architecture.md does not speak of {folder}/")).collect()
}

/// Unfinished work, and paths of somebody's machine.
const BANNED: [&str; 7] = ["todo!", "unimplemented!", "FIXME", "TODO", "XXX", "/work/", "/root/"];

pub(super) fn banned_words(files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            let found = BANNED.iter().filter(|&&word| has_word(line, word));
            complaints.extend(found.map(|word| format!("{}:{}: {word}", file.path, index + 1)));
        }
    }
    complaints
}

/// Whether the word stands alone: "XXXXXX" of a temporary file's name is no "XXX".
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let apart = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
        let path = word.starts_with('/');
        apart(line[..at].chars().next_back()) && (path || apart(line[at + word.len()..].chars().next()))
    })
}

/// Decision records are `0001-a-name.md`, counted without a hole.
pub(super) fn decision_names(files: &[SourceFile]) -> Vec<String> {
    let names = files.iter().filter_map(|file| file.path.strip_prefix("docs/decisions/"));
    let records: Vec<_> = names.filter(|name| !["README.md", "0000-template.md"].contains(name)).collect();
    let expected = |index: usize, name: &str| {
        let body = name.strip_prefix(&format!("{:04}-", index + 1)).and_then(|rest| rest.strip_suffix(".md"));
        body.is_some_and(|body| body.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
    };
    let wrong = records.iter().enumerate().filter(|(index, name)| !expected(*index, name));
    wrong.map(|(index, name)| format!("docs/decisions/{name}: not {:04}-a-name.md", index + 1)).collect()
}

/// What a rule says to one file.
#[cfg(test)]
fn says(rule: fn(&[SourceFile]) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&[SourceFile { path: path.to_owned(), text: text.to_owned() }]).len()
}

#[test]
fn a_stage_that_imports_another_is_found() {
    let imports = |path, text| says(stage_imports, path, text);
    assert_eq!(imports("src/plan/a.rs", "use crate::read::B;"), 1);
    assert_eq!(imports("src/plan/a.rs", "use crate::{\n    types::A,\n    commit::{B, C},\n};"), 1);
    assert_eq!(imports("src/plan/a.rs", "use super::super::report;"), 1);
    assert_eq!(imports("src/plan/mod.rs", "fn f() { crate::stream::g() }"), 1);
    assert_eq!(imports("src/types/a.rs", "use crate::plan::B;"), 1);
    assert_eq!(imports("src/clock.rs", "use super::stream::B;"), 1);
    assert_eq!(imports("src/plan/a.rs", "// use crate::read::B;\nuse crate::{types::A, plan::C, Result};"), 0);
    assert_eq!(imports("src/stream/a.rs", "use crate::{plan::A, read::B};"), 0);
}

#[test]
fn unsafe_code_elsewhere_is_found() {
    assert_eq!(says(unsafe_code, "src/read/a.rs", "fn f() { unsafe { g() } }"), 1);
    assert_eq!(says(unsafe_code, "src/read/a.rs", "#![deny(unsafe_code)] // unsafe \"unsafe\"\n"), 0);
    assert_eq!(says(unsafe_code, "src/kafka/ffi.rs", "unsafe fn f() {}"), 0);
}

#[test]
fn a_long_file_is_found() {
    let (long, tests) = ("a\n".repeat(MOST_LINES + 1), "a\n".repeat(MOST_LINES));
    assert_eq!(says(long_files, "src/a.rs", &long), 1);
    assert_eq!(says(long_files, "src/a.rs", &format!("b\n#[cfg(test)]\nmod tests {{\n{tests}}}\n")), 0);
}

#[test]
fn a_folder_that_the_page_forgets_is_found() {
    let rule = |files: &[SourceFile]| folders_in_architecture(files, "`src/plan/` plans");
    let file = |path: &str| SourceFile { path: path.to_owned(), text: String::new() };
    assert_eq!(rule(&[file("src/plan/mod.rs"), file("src/read/mod.rs"), file("src/lib.rs")]).len(), 1);
}

#[test]
fn banned_words_are_found() {
    let words = |text| says(banned_words, "a", text);
    assert_eq!([words("todo!()"), words("// TODO: x"), words("cd /work/main"), words("HOME=/root/x")], [1; 4]);
    assert_eq!([words("mktemp a.XXXXXX"), words("docs/work/a"), words("todos!")], [0; 3]);
}

#[test]
fn a_decision_without_its_number_is_found() {
    let rule = |names: &[&str]| {
        let file = |name: &&str| SourceFile { path: format!("docs/decisions/{name}"), text: String::new() };
        decision_names(&names.iter().map(file).collect::<Vec<_>>()).len()
    };
    assert_eq!(rule(&["0000-template.md", "0001-one.md", "0002-two-2.md", "README.md"]), 0);
    assert_eq!([rule(&["one.md"]), rule(&["0001-one.md", "0003-three.md"]), rule(&["0001-One.md"])], [1; 3]);
}
