//! Rust text without what is not code.

/// The text with comments, strings and character literals blanked out; lines and columns stay.
pub(super) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { c } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts `at` ends; `at` if none does.
fn literal_or_comment(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => at + block_comment(rest),
        ['"', ..] => at + quoted(rest, '"'),
        ['r', '"' | '#', ..] if at == 0 || !(chars[at - 1].is_alphanumeric() && chars[at - 1] != 'b') => {
            at + raw_string(rest)
        }
        // 'a' or '\n', but not the lifetime 'a.
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => at + quoted(rest, '\''),
        _ => at,
    }
}

/// Comments nest in Rust.
fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    rest.len().min(at + 1)
}

/// `r"..."`, `r#"..."#`, and so on; 0 for a raw name such as `r#type`.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let start = 2 + hashes;
    let length = rest[start..].windows(end.len()).position(|window| window == end);
    length.map_or(rest.len(), |length| start + length + end.len())
}

/// How many lines are not in an item under `#[cfg(test)]`.
pub(super) fn lines_without_tests(text: &str) -> usize {
    let code = code_only(text);
    let (mut kept, mut rest) = (0, code.as_str());
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept += rest[..start].matches('\n').count();
        rest = &rest[start + item(&rest[start..])..];
        rest = rest.strip_prefix('\n').unwrap_or(rest);
    }
    kept + rest.lines().count()
}

/// The length of the item at the start: up to its `;`, or to the end of its braces.
fn item(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if (c == '}' || c == ';') && depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Every path in the code that starts at the crate's root, as `first::second`, with its line; `super` chains are followed.
pub(super) fn root_paths(file: &str, code: &str) -> Vec<(usize, String)> {
    let depth = module_depth(file);
    let mut found = Vec::new();
    for (number, line) in logical_lines(code) {
        for (start, _) in line.match_indices("crate::") {
            let fresh = line[..start].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
            if fresh {
                found.extend(heads(&line[start + "crate::".len()..]).into_iter().map(|head| (number, head)));
            }
        }
        for (start, _) in line.match_indices("super::") {
            let chain = line[start..].split("::").take_while(|&part| part == "super").count();
            let first = !line[..start].ends_with("super::");
            if first && chain >= depth {
                let tail = &line[start + chain * "super::".len()..];
                found.extend(heads(tail).into_iter().map(|head| (number, head)));
            }
        }
    }
    found
}

/// How many `super` lead from a file's module to the root.
fn module_depth(file: &str) -> usize {
    let parts = file.trim_start_matches("src/").trim_end_matches(".rs").split('/');
    parts.filter(|&part| part != "mod" && part != "lib" && part != "main").count()
}

/// Statements on one line each, since `use crate::{` may go over several.
fn logical_lines(code: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = 0_usize;
    for (index, line) in code.lines().enumerate() {
        if open > 0 {
            lines.last_mut().expect("a line opened the braces").1.push_str(line.trim());
        } else {
            lines.push((index + 1, line.to_owned()));
        }
        let words = lines.last().map_or("", |(_, line)| line.trim_start());
        if open > 0
            || words.starts_with("use ")
            || words.starts_with("pub use ")
            || words.starts_with("pub(crate) use ")
        {
            open = (open + line.matches('{').count()).saturating_sub(line.matches('}').count());
        }
    }
    lines
}

/// The first names of a path's rest: `a` of `a::b`, and `a`, `c` of `{a::b, c::{d, e}}`.
fn heads(rest: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn comments_and_literals_are_blanked() {
    let code = code_only("a /* b /* c */ */ d // e\n\"f \\\" g\" h 'i' '\\'' &'j r#\"k\"# r\"l\" m b\"n\"");
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "d", "h", "&'j", "m", "b"]);
}

#[test]
fn lines_under_cfg_test_do_not_count() {
    assert_eq!(lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n"), 2);
    assert_eq!(lines_without_tests("#[cfg(test)]\nmod tests;\na\n"), 1);
}

#[test]
fn paths_from_the_root_are_found() {
    let code = "use crate::{\n    plan::A,\n    types::{B, C},\n};\nfn f() { crate::read::g(); other_crate::x(); }\nuse super::super::commit::D;";
    let found: Vec<_> = root_paths("src/stream/driver.rs", code).into_iter().map(|(_, head)| head).collect();
    assert_eq!(found, ["plan", "types", "read", "commit"]);
    assert!(root_paths("src/stream/driver.rs", "use super::commit::D;").is_empty());
}
