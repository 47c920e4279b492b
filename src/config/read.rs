//! Reads typed values out of the tree, and notes what is wrong instead of stopping at it.

use std::{borrow::Cow, cell::RefCell, collections::BTreeSet};

use super::{
    finding::{Finding, Origin, Origins},
    reference,
    secret::offending_word,
    tree::{Node, Table, Value, parse_inline},
};

/// What reading has found so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    faults: RefCell<Vec<Finding>>,
    warnings: RefCell<Vec<Finding>>,
    origins: RefCell<Origins>,
    /// Key paths of the reference that were asked for, so that a test can compare.
    asked: RefCell<BTreeSet<String>>,
    /// Tables that were refused whole: what is in them is not looked at.
    closed: RefCell<BTreeSet<String>>,
}

/// What a [`Reader`] ends with.
pub(super) struct Readings {
    pub(super) faults: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    pub(super) origins: Origins,
    pub(super) asked: BTreeSet<String>,
}

impl Reader {
    pub(super) fn finish(self) -> Readings {
        Readings {
            faults: self.faults.into_inner(),
            warnings: self.warnings.into_inner(),
            origins: self.origins.into_inner(),
            asked: self.asked.into_inner(),
        }
    }

    pub(super) fn fault(&self, finding: Finding) {
        self.faults.borrow_mut().push(finding);
    }

    /// Reports every key that nobody asked for, with the known key that looks most like it.
    pub(super) fn unknown_keys(&self, table: &Table, path: &str, pattern: &str) {
        for entry in &table.entries {
            let path = join(path, &entry.key);
            let pattern = join(pattern, &entry.key);
            if !entry.asked.get() {
                let guess = reference::suggest(&pattern, first_leaf(&entry.node, &entry.key).as_deref());
                let message = match guess {
                    Some(guess) => format!("unknown key; {guess}"),
                    None => "unknown key".to_owned(),
                };
                let word = Some(offending_word(&entry.key));
                self.fault(Finding { origin: entry.origin.clone(), path: offending_word(&path), message, word });
            } else if !self.closed.borrow().contains(&path) {
                self.unknown_keys_below(&entry.node, &path, &pattern);
            }
        }
    }

    fn unknown_keys_below(&self, node: &Node, path: &str, pattern: &str) {
        match &node.value {
            Value::Table(table) => self.unknown_keys(table, path, pattern),
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    // The reference names the keys of a list's tables without an index.
                    self.unknown_keys_below(item, &join(path, &index.to_string()), pattern);
                }
            }
            _ => {}
        }
    }
}

/// The dotted path down to the first value, as `a.b.c = 1` makes it.
fn first_leaf(node: &Node, path: &str) -> Option<String> {
    match &node.value {
        Value::Table(table) => {
            let entry = table.entries.first()?;
            first_leaf(&entry.node, &join(path, &entry.key))
        }
        _ => Some(path.to_owned()),
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A table of the tree, there or not.
#[derive(Clone)]
pub(super) struct Section<'a> {
    pub(super) reader: &'a Reader,
    table: Option<&'a Table>,
    path: String,
    /// The path in the words of the reference: `*` for names that the user makes up.
    pattern: String,
    origin: Origin,
    /// It was given as something else than a table, which was said already.
    refused: bool,
}

impl<'a> Section<'a> {
    pub(super) fn root(reader: &'a Reader, table: &'a Table) -> Self {
        let (path, pattern) = (String::new(), String::new());
        Self { reader, table: Some(table), path, pattern, origin: Origin::Default, refused: false }
    }

    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn entry_count(&self) -> usize {
        self.table.map_or(0, |table| table.entries.len())
    }

    /// The value of `key`, if it was given.
    pub(super) fn find(&self, key: &str) -> Option<Found<'a>> {
        let pattern = join(&self.pattern, key);
        self.reader.asked.borrow_mut().insert(pattern.clone());
        let entry = self.table?.get(key)?;
        entry.asked.set(true);
        let path = join(&self.path, key);
        if !matches!(entry.node.value, Value::Table(_)) {
            self.reader.origins.borrow_mut().insert(path.clone(), entry.node.origin.clone());
        }
        let node = Cow::Borrowed(&entry.node);
        Some(Found { reader: self.reader, node, path, pattern, key_origin: entry.origin.clone() })
    }

    /// The value of `key`, which must be given.
    pub(super) fn require(&self, key: &str) -> Option<Found<'a>> {
        let found = self.find(key);
        if found.is_none() {
            self.missing(key, "missing");
        }
        found
    }

    /// Says that `key` should have been given.
    pub(super) fn missing(&self, key: &str, message: &str) {
        if self.refused {
            return;
        }
        let path = offending_word(&join(&self.path, key));
        self.reader.fault(Finding { origin: self.origin.clone(), path, message: message.to_owned(), word: None });
    }

    /// The table under `key`, empty if it was not given.
    pub(super) fn section(&self, key: &str) -> Self {
        let absent = Self {
            reader: self.reader,
            table: None,
            path: join(&self.path, key),
            pattern: join(&self.pattern, key),
            origin: self.origin.clone(),
            refused: self.refused,
        };
        match self.find(key) {
            Some(found) => found.table().unwrap_or(Self { refused: true, ..absent }),
            None => absent,
        }
    }

    /// Says that the value of `key` is that of a variable of the environment which is not ours.
    pub(super) fn came_from(&self, key: &str, variable: &str) {
        let origin = Origin::Environment(variable.to_owned());
        self.reader.origins.borrow_mut().insert(join(&self.path, key), origin);
    }

    /// Notes something to know about a variable of the environment which is not ours, without its value.
    pub(super) fn warn_of_variable(&self, variable: &str, message: String) {
        let origin = Origin::Environment(variable.to_owned());
        let finding = Finding { origin, path: self.path.clone(), message, word: None };
        self.reader.warnings.borrow_mut().push(finding);
    }

    /// All entries of a table whose keys the user makes up.
    pub(super) fn entries(&self) -> Vec<(String, Found<'a>)> {
        let Some(table) = self.table else { return Vec::new() };
        let pattern = join(&self.pattern, "*");
        table
            .entries
            .iter()
            .map(|entry| {
                entry.asked.set(true);
                let path = join(&self.path, &entry.key);
                self.reader.asked.borrow_mut().insert(pattern.clone());
                if !matches!(entry.node.value, Value::Table(_)) {
                    self.reader.origins.borrow_mut().insert(path.clone(), entry.node.origin.clone());
                }
                let found = Found {
                    reader: self.reader,
                    node: Cow::Borrowed(&entry.node),
                    path,
                    pattern: pattern.clone(),
                    key_origin: entry.origin.clone(),
                };
                (entry.key.clone(), found)
            })
            .collect()
    }
}

/// A value that was given.
#[derive(Clone)]
pub(super) struct Found<'a> {
    pub(super) reader: &'a Reader,
    node: Cow<'a, Node>,
    path: String,
    pattern: String,
    key_origin: Origin,
}

impl<'a> Found<'a> {
    pub(super) fn origin(&self) -> &Origin {
        &self.node.origin
    }

    /// The text as it was written, before `${VAR}` was filled in.
    pub(super) fn written(&self) -> Option<&str> {
        self.node.written.as_deref()
    }

    fn finding(&self, message: impl Into<String>, word: Option<String>) -> Finding {
        let path = offending_word(&self.path);
        Finding { origin: self.node.origin.clone(), path, message: message.into(), word }
    }

    /// Notes a fault with the value as its offending word.
    pub(super) fn fault(&self, message: impl Into<String>) {
        self.reader.fault(self.finding(message, self.node.word()));
    }

    /// Notes a fault of a value that may be a secret.
    pub(super) fn secret_fault(&self, message: impl Into<String>) {
        self.reader.fault(self.finding(message, None));
    }

    /// Notes a fault of the key.
    pub(super) fn key_fault(&self, message: impl Into<String>, word: &str) {
        let mut finding = self.finding(message, Some(offending_word(word)));
        finding.origin = self.key_origin.clone();
        self.reader.fault(finding);
    }

    /// Notes something to know, without the value.
    pub(super) fn warn(&self, message: impl Into<String>) {
        self.reader.warnings.borrow_mut().push(self.finding(message, None));
    }

    /// Notes that the value is not what the key takes.
    pub(super) fn wrong_type(&self, expected: &str) {
        self.reader.closed.borrow_mut().insert(self.path.clone());
        if !matches!(self.node.value, Value::Unfilled) {
            self.fault(format!("expected {expected}, found {}", self.node.value.kind()));
        }
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.node.value, Value::Table(_))
    }

    /// The text, if it is one; a TOML date counts, so that `timestamp = 2026-01-01T00:00:00Z` needs no quotes.
    pub(super) fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) | Value::Untyped(text) | Value::Datetime(text) => Some(text.clone()),
            _ => {
                self.wrong_type("a string");
                None
            }
        }
    }

    /// The text, read by `parse`.
    pub(super) fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text()?;
        parse(&text).map_err(|message| self.fault(message)).ok()
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        self.parse(|text| {
            let known = || words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("not one of {}", known()))
        })
    }

    /// A whole number within `min..=max`.
    pub(super) fn integer(&self, min: i64, max: i64) -> Option<i64> {
        let number = match &self.node.value {
            Value::Integer(number) => Some(*number),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong_type("an integer");
            return None;
        };
        if (min..=max).contains(&number) {
            return Some(number);
        }
        if max == i64::MAX {
            self.fault(format!("must be at least {min}"));
        } else {
            self.fault(format!("must be between {min} and {max}"));
        }
        None
    }

    /// A whole number from 1.
    pub(super) fn count(&self) -> Option<u64> {
        self.integer(1, i64::MAX).and_then(|number| u64::try_from(number).ok())
    }

    /// A number that is finite and not negative, with or without a decimal point.
    pub(super) fn number_from_zero(&self) -> Option<f64> {
        let number = match &self.node.value {
            Value::Float(number) => Some(*number),
            #[expect(clippy::cast_precision_loss, reason = "a weight above 2^53 is none the lighter for it")]
            Value::Integer(number) => Some(*number as f64),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong_type("a number");
            return None;
        };
        if number.is_finite() && number >= 0.0 {
            return Some(number);
        }
        self.fault("must be a finite number from 0");
        None
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let value = match &self.node.value {
            Value::Boolean(value) => Some(*value),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.wrong_type("true or false");
        }
        value
    }

    /// A string, number or boolean as its text: what librdkafka takes.
    pub(super) fn scalar(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) | Value::Untyped(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Boolean(value) => Some(value.to_string()),
            Value::Unfilled => None,
            Value::Datetime(_) | Value::List(_) | Value::Table(_) => {
                self.reader.closed.borrow_mut().insert(self.path.clone());
                self.secret_fault(format!(
                    "expected a string, a number or a boolean, found {}",
                    self.node.value.kind()
                ));
                None
            }
        }
    }

    /// The items of a list of strings. From the environment and `--set`: separated by commas, or a TOML list.
    pub(super) fn texts(&self) -> Option<Vec<(String, Self)>> {
        let items = match &self.node.value {
            Value::List(items) => items.clone(),
            Value::Untyped(text) => match parse_inline(text, &self.node.origin) {
                Some(Node { value: Value::List(items), .. }) => items,
                _ => text
                    .split(',')
                    .map(|item| Node::new(Value::Untyped(item.trim().to_owned()), self.node.origin.clone()))
                    .collect(),
            },
            _ => {
                self.wrong_type("a list of strings");
                return None;
            }
        };
        let texts = items.into_iter().enumerate().filter_map(|(index, item)| {
            let found = Self {
                reader: self.reader,
                node: Cow::Owned(item),
                path: join(&self.path, &index.to_string()),
                pattern: self.pattern.clone(),
                key_origin: self.key_origin.clone(),
            };
            found.text().map(|text| (text, found))
        });
        Some(texts.collect())
    }

    /// The table, if it is one.
    pub(super) fn table(&self) -> Option<Section<'a>> {
        if let Cow::Borrowed(Node { value: Value::Table(table), .. }) = &self.node {
            return Some(Section {
                reader: self.reader,
                table: Some(table),
                path: self.path.clone(),
                pattern: self.pattern.clone(),
                origin: self.key_origin.clone(),
                refused: false,
            });
        }
        self.wrong_type("a table");
        None
    }

    /// The tables of a list of tables.
    pub(super) fn tables(&self) -> Option<Vec<Section<'a>>> {
        let Cow::Borrowed(Node { value: Value::List(items), .. }) = &self.node else {
            self.wrong_type("a list of tables");
            return None;
        };
        let found = |(index, item): (usize, &'a Node)| Self {
            reader: self.reader,
            node: Cow::Borrowed(item),
            path: join(&self.path, &index.to_string()),
            pattern: self.pattern.clone(),
            key_origin: item.origin.clone(),
        };
        Some(items.iter().enumerate().filter_map(|item| found(item).table()).collect())
    }
}

/// Reports values that are there twice, ignoring what `fold` ignores.
pub(super) fn report_twice(found: &[(String, Found<'_>)], what: &str, fold: impl Fn(&str) -> String) {
    let mut seen = BTreeSet::new();
    for (text, item) in found {
        if !seen.insert(fold(text)) {
            item.fault(format!("the same {what} twice"));
        }
    }
}
