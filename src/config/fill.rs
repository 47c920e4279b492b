//! `${VAR}` and `${VAR:default}` in the strings of a job file.

use super::{
    finding::Finding,
    load::Environment,
    secret::offending_word,
    tree::{Node, Table, Value},
};

/// Fills in every string of the tree that came from the file. Values of the environment and of `--set` stay as they
/// are: the shell has had its turn with them.
pub(super) fn fill_table(table: &mut Table, path: &str, environment: &Environment, faults: &mut Vec<Finding>) {
    for entry in &mut table.entries {
        let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
        fill_node(&mut entry.node, &path, environment, faults);
    }
}

fn fill_node(node: &mut Node, path: &str, environment: &Environment, faults: &mut Vec<Finding>) {
    match &mut node.value {
        Value::Table(table) => fill_table(table, path, environment, faults),
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                fill_node(item, &format!("{path}.{index}"), environment, faults);
            }
        }
        Value::Text(text) if text.contains("${") => match fill(text, |name| environment.get(name)) {
            Ok(filled) => {
                node.written = Some(std::mem::take(text));
                node.value = Value::Untyped(filled);
            }
            Err((message, word)) => {
                faults.push(Finding { origin: node.origin.clone(), path: offending_word(path), message, word });
                // Whatever stands there is not to be judged a second time.
                node.written = Some(std::mem::take(text));
                node.value = Value::Unfilled;
            }
        },
        _ => {}
    }
}

/// Fills in one string. `$${` is a `${` that is meant as it stands.
///
/// # Errors
/// What is wrong, and the variable.
pub(super) fn fill<'a>(text: &str, get: impl Fn(&str) -> Option<&'a str>) -> Result<String, (String, Option<String>)> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        let after = &after["${".len()..];
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = after;
            continue;
        }
        filled.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            return Err(("a ${ has no closing brace; write $${ where it is meant as it stands".to_owned(), None));
        };
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(("not the name of a variable in ${}".to_owned(), Some(offending_word(name))));
        }
        match get(name).or(default) {
            Some(value) => filled.push_str(value),
            None => {
                return Err((
                    "the variable is not in the environment, and ${} gives no default".to_owned(),
                    Some(offending_word(name)),
                ));
            }
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The text as far as a reader of the file can see it: without what comes from the environment, with the defaults.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        shown.push_str(before);
        let (inside, after) = after.split_once('}').unwrap_or((after, ""));
        shown.push_str(inside.split_once(':').map_or("", |(_, default)| default));
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, (String, Option<String>)> {
        fill(text, |name| match name {
            "HOST" => Some("db"),
            "EMPTY" => Some(""),
            "MARKUP" => Some("${HOST}"),
            _ => None,
        })
    }

    #[test]
    fn variables_are_filled_in_once() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a ${HOST} b ${HOST}", "a db b db"),
            ("${MISSING:x}", "x"),
            ("${MISSING:}", ""),
            ("${MISSING:a:b}", "a:b"),
            ("${EMPTY:x}", ""),
            ("$${HOST} $HOST $", "${HOST} $HOST $"),
            ("${MARKUP}", "${HOST}"),
        ] {
            assert_eq!(filled(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_variable_that_cannot_be_filled_is_named() {
        assert_eq!(filled("${MISSING}").unwrap_err().1.as_deref(), Some("MISSING"));
        assert_eq!(filled("${a-b}").unwrap_err().1.as_deref(), Some("a-b"));
        assert!(filled("${HOST").is_err());
        assert!(filled("${}").is_err());
    }

    #[test]
    fn what_comes_from_the_environment_is_not_visible() {
        assert_eq!(visible("postgres://u:${PASSWORD}@h"), "postgres://u:@h");
        assert_eq!(visible("postgres://u:${PASSWORD:canary}@h"), "postgres://u:canary@h");
        assert_eq!(visible("x"), "x");
    }
}
