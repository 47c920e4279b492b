//! The page that compares behaviours with Spark's: no number is left out or told twice, and every test that it names is there.

use std::collections::BTreeMap;

use super::rules::SourceFile;

/// The numbers of all behaviours, by family.
const NUMBERS: [(&str, &str); 8] = [
    ("CP", "1-3 5-6 8-9 11-13 17-20 22-23 26 28 30 32-34"),
    ("DK", "1-5 7 9 11-12 14 16 18-21 24-29 31-37 40 42 44 47-53 55-56 59 61 63-65 67 70-71 73-75 77-78 80-81"),
    ("LC", "1-5 7-9 11-14 17-20 22 25 27 29-30"),
    ("SC", "1 3 5-6 8-9 11-12 16-22 26-30"),
    ("ST", "1-2 4 6 8-10 12-14 16-17 19 23-27 29-30"),
    ("TR", "1-9 11-16 19-20 22-23 25-26 31-32 34-35 38 41-42 44-45"),
    ("UI", "1-2 5 7-8 10 13-16 18-21 23-26 29-32 34 37-40"),
    ("WN", "1-3 5-7 9-10 12-14 16-20 22-23 28"),
];

/// The ids that a cell names: `DK-01, DK-07`, `ST-02, 08`, `WN-05 to 07`. `None`: it names none.
fn ids(cell: &str) -> Option<Vec<(String, u32)>> {
    let mut named: Vec<(String, u32)> = Vec::new();
    let mut through = false;
    for word in cell.split([' ', ',']).filter(|word| !word.is_empty()) {
        if word == "to" {
            through = true;
            continue;
        }
        let (family, number) = match word.split_once('-') {
            Some((family, number)) => (family.to_owned(), number),
            None => (named.last()?.0.clone(), word),
        };
        let number = number.parse().ok()?;
        if through {
            let first = named.last()?.1 + 1;
            named.extend((first..number).map(|between| (family.clone(), between)));
        }
        through = false;
        named.push((family, number));
    }
    (!named.is_empty()).then_some(named)
}

/// What is wrong with the page, given all files with Rust code.
pub(super) fn conformance(page: &str, files: &[SourceFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut told: BTreeMap<(String, u32), u32> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let Some(ids) = cells.first().and_then(|cell| ids(cell.trim())) else { continue };
        ids.into_iter().for_each(|id| *told.entry(id).or_default() += 1);
        // `file: test`, `test`; a name that ends in `...` stands for all that begin so.
        for code in line.split('`').skip(1).step_by(2) {
            let name = code.rsplit(' ').next().unwrap_or_default();
            let beginning = name.trim_end_matches("...");
            let words = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let is_test = name.len() > 20 && beginning.contains('_') && beginning.chars().all(words);
            let known = || files.iter().any(|file| file.text.contains(&format!("fn {beginning}")));
            if is_test && !known() {
                complaints.push(format!("docs/conformance.md names a test that is not there: {name}"));
            }
        }
    }
    for (family, numbers) in NUMBERS {
        for span in numbers.split(' ') {
            let (first, last) = span.split_once('-').unwrap_or((span, span));
            for number in first.parse::<u32>().unwrap_or(0)..=last.parse().unwrap_or(0) {
                match told.get(&(family.to_owned(), number)) {
                    Some(1) => {}
                    Some(_) => complaints.push(format!("docs/conformance.md tells of {family}-{number:02} twice")),
                    None => complaints.push(format!("docs/conformance.md leaves out {family}-{number:02}")),
                }
            }
        }
    }
    complaints
}

#[test]
fn cells_with_ids_are_read() {
    let all = |cell| {
        ids(cell).map(|ids| {
            ids.into_iter().map(|(family, number)| format!("{family}{number}")).collect::<Vec<_>>().join(" ")
        })
    };
    assert_eq!(all("DK-01, DK-07").as_deref(), Some("DK1 DK7"));
    assert_eq!(all("WN-05 to 07, 09, ST-30").as_deref(), Some("WN5 WN6 WN7 WN9 ST30"));
    assert_eq!((all("Id"), all("---"), all("")), (None, None, None));
}

#[test]
fn what_is_left_out_told_twice_or_made_up_is_found() {
    let files = [SourceFile { path: "a.rs".into(), text: "fn wn_28_a_stream_has_no_batch_between() {}".into() }];
    let page = "| WN-28, 28 | twice | `wn_28_a_stream_has_no_batch_between` |\n| TR-01 | x | `a.rs: tr_01_a_test_that_is_not_there` |\n";
    let complaints = conformance(page, &files);
    let has = |text: &str| complaints.iter().any(|complaint| complaint.contains(text));
    assert!(
        has("WN-28 twice") && has("leaves out DK-01") && has("not there: tr_01") && !has("TR-01"),
        "{complaints:?}"
    );
}
