//! The architecture and the house rules as tests.
//!
//! Each rule is a function from files to complaints; each has a test that it finds a bad sample, and one that the tree is
//! clean.

mod code;
mod conformance;
mod exit_codes;
mod rules;
mod spark;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rules::{
    SourceFile, banned_words, decision_names, folders_in_architecture, long_files, stage_imports, unsafe_code,
};
use spark::spark_page;

/// All files below `folder` of the package, by their path from the package's root; nothing that is not text.
fn files(folder: &str) -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join(folder)]);
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten();
        let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        for path in paths {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if name == ".git" || name == "target" {
                // Git's own files and build results are not the project's.
            } else if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push(SourceFile { path: name, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn rust_files(folders: &[&str]) -> Vec<SourceFile> {
    folders.iter().flat_map(|folder| files(folder)).filter(|file| file.path.ends_with(".rs")).collect()
}

fn assert_clean(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn stages_do_not_import_one_another() {
    let files = rust_files(&["src"]);
    assert!(files.len() > 5, "the sources were not found");
    assert_clean(&stage_imports(&files));
}

#[test]
fn unsafe_code_is_in_its_one_place() {
    assert_clean(&unsafe_code(&rust_files(&["src", "tests", "examples", "benches"])));
}

#[test]
fn files_are_short() {
    assert_clean(&long_files(&rust_files(&["src", "tests", "examples", "benches"])));
}

#[test]
fn every_folder_is_in_the_architecture_page() {
    let pages = files("docs");
    let page = pages.iter().find(|page| page.path == "docs/architecture.md");
    assert_clean(&page.map_or(Vec::new(), |page| folders_in_architecture(&rust_files(&["src"]), &page.text)));
}

#[test]
fn no_banned_word_is_used() {
    let mine = |file: &SourceFile| file.path.starts_with("tests/it/tidy/");
    let files: Vec<_> = files("").into_iter().filter(|file| !mine(file) && file.path != "Cargo.lock").collect();
    assert_clean(&banned_words(&files));
}

#[test]
fn every_name_of_spark_has_its_row_and_every_name_of_ours_is_there() {
    let pages = files("docs");
    let page = |path: &str| pages.iter().find(|page| page.path == path).map_or("", |page| page.text.as_str());
    let complaints = spark_page(page("docs/from-spark.md"), &rust_files(&["src"]), page("docs/configuration.md"));
    assert_clean(&complaints);
}

#[test]
fn decisions_are_numbered() {
    assert_clean(&decision_names(&files("docs/decisions")));
}

#[test]
fn the_conformance_page_leaves_nothing_out() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md")).unwrap();
    assert_clean(&conformance::conformance(&page, &rust_files(&["src", "tests"])));
}

#[test]
fn every_exit_code_has_its_section_in_the_runbook_and_tests_that_cause_it() {
    let page = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap();
    let files = rust_files(&["src", "tests"]);
    assert_clean(&exit_codes::exit_codes(&page("operating.md"), &page("testing.md"), &files));
}
