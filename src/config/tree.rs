//! The job file as a tree of values that know where they came from, and the layers that lie over it.

use std::{borrow::Cow, cell::Cell, ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    finding::{Finding, Origin},
    secret::offending_word,
};

/// A value of the file or of a layer over it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A string of the file.
    Text(String),
    /// A string whose `${VAR}` could not be filled in, which was said already.
    Unfilled,
    /// A text whose type is that of its key: from the environment, from `--set`, or with a `${VAR}` filled in.
    Untyped(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// TOML's own date and time, as its text.
    Datetime(String),
    List(Vec<Node>),
    Table(Table),
}

impl Value {
    /// What it is, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Untyped(_) | Self::Unfilled => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a floating point number",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// The text before `${VAR}` was filled in: the only one that may be shown.
    pub(super) written: Option<String>,
}

impl Node {
    pub(super) fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin, written: None }
    }

    /// The value as a word of a message.
    pub(super) fn word(&self) -> Option<String> {
        if let Some(written) = &self.written {
            return Some(offending_word(written));
        }
        match &self.value {
            Value::Text(text) | Value::Untyped(text) | Value::Datetime(text) => Some(offending_word(text)),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Boolean(value) => Some(value.to_string()),
            Value::List(_) | Value::Table(_) | Value::Unfilled => None,
        }
    }
}

/// A table with its entries in the order of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands, which for a table is its header.
    pub(super) origin: Origin,
    pub(super) node: Node,
    /// Whether somebody asked for it: what nobody asks for is unknown.
    pub(super) asked: Cell<bool>,
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of `key`, made empty if it is missing.
    fn entry(&mut self, key: &str, origin: &Origin) -> Option<&mut Entry> {
        if self.get(key).is_none() {
            let node = Node::new(Value::Table(Self::default()), origin.clone());
            self.entries.push(Entry { key: key.to_owned(), origin: origin.clone(), node, asked: Cell::new(false) });
        }
        self.entries.iter_mut().find(|entry| entry.key == key)
    }

    /// Lays one value over the tree. A list is entered by the index of one of its items.
    ///
    /// # Errors
    /// Says at which word the path leaves the tree.
    pub(super) fn lay_over(&mut self, path: &[&str], text: &str, origin: &Origin) -> Result<(), String> {
        let Some((key, rest)) = path.split_first() else { return Ok(()) };
        let Some(entry) = self.entry(key, origin) else { return Ok(()) };
        if rest.is_empty() {
            entry.origin = origin.clone();
            // Whole tables can be given as well: kafka.start={ timestamp = "..." }.
            let table = text.trim_start().starts_with('{').then(|| parse_inline(text, origin)).flatten();
            entry.node = table.unwrap_or_else(|| Node::new(Value::Untyped(text.to_owned()), origin.clone()));
            return Ok(());
        }
        match &mut entry.node.value {
            Value::Table(table) => table.lay_over(rest, text, origin),
            Value::List(items) => {
                let item = rest[0].parse::<usize>().ok().and_then(|index| items.get_mut(index));
                match item.map(|item| &mut item.value) {
                    Some(Value::Table(table)) if rest.len() > 1 => table.lay_over(&rest[1..], text, origin),
                    _ => Err(format!("the file has no table {key}.{}", offending_word(rest[0]))),
                }
            }
            _ => {
                let mut table = Self::default();
                table.lay_over(rest, text, origin)?;
                entry.origin = origin.clone();
                entry.node = Node::new(Value::Table(table), origin.clone());
                Ok(())
            }
        }
    }
}

/// Turns byte positions into lines and columns.
struct Lines<'a> {
    file: &'a Arc<str>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a Arc<str>, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, starts }
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        let line = self.starts.partition_point(|start| *start <= span.start).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let column = self.text.get(start..span.start).map_or(1, |before| before.chars().count() + 1);
        Origin::File { file: Arc::clone(self.file), line, column }
    }
}

/// Reads a TOML document into a tree.
///
/// # Errors
/// Everything that is not TOML.
pub(super) fn parse(file: &Arc<str>, text: &str) -> Result<Table, Vec<Finding>> {
    let lines = Lines::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut findings: Vec<Finding> = errors
        .iter()
        .map(|error| {
            let span = error.span();
            // A key that is there twice is safe to show; anything else might be part of a value.
            let twice = error.message().contains("duplicate key");
            let word = span.clone().filter(|_| twice).and_then(|span| text.get(span)).map(offending_word);
            let origin = span.map_or(Origin::Default, |span| lines.origin(span));
            Finding { origin, path: String::new(), message: format!("not toml: {}", error.message()), word }
        })
        .collect();
    let table = table(&lines, document.get_ref(), &mut findings);
    if findings.is_empty() { Ok(table) } else { Err(findings) }
}

/// Reads one TOML value that stands alone, as `--set` and the environment give it.
pub(super) fn parse_inline(text: &str, origin: &Origin) -> Option<Node> {
    let (value, errors) = DeValue::parse_recoverable(text);
    if !errors.is_empty() {
        return None;
    }
    let file: Arc<str> = Arc::from("");
    let mut findings = Vec::new();
    let mut node = node(&Lines::new(&file, text), &value, &mut findings);
    give_origin(&mut node, origin);
    findings.is_empty().then_some(node)
}

fn give_origin(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| give_origin(item, origin)),
        Value::Table(table) => {
            for entry in &mut table.entries {
                entry.origin = origin.clone();
                give_origin(&mut entry.node, origin);
            }
        }
        _ => {}
    }
}

fn table(lines: &Lines<'_>, table: &DeTable<'_>, findings: &mut Vec<Finding>) -> Table {
    let mut entries: Vec<(usize, Entry)> = table
        .iter()
        .map(|(key, value)| {
            let name: &Cow<'_, str> = key.get_ref();
            let node = node(lines, value, findings);
            let origin = lines.origin(key.span());
            (key.span().start, Entry { key: name.to_string(), origin, node, asked: Cell::new(false) })
        })
        .collect();
    // TOML tables have no order, but a person's columns do.
    entries.sort_by_key(|(start, _)| *start);
    Table { entries: entries.into_iter().map(|(_, entry)| entry).collect() }
}

fn node(lines: &Lines<'_>, value: &Spanned<DeValue<'_>>, findings: &mut Vec<Finding>) -> Node {
    let origin = lines.origin(value.span());
    let mut bad_number = |word: &str| {
        let message = "the number does not fit".to_owned();
        findings.push(Finding {
            origin: origin.clone(),
            path: String::new(),
            message,
            word: Some(offending_word(word)),
        });
    };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                bad_number(number.as_str());
                Value::Integer(0)
            }
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => {
                bad_number(number.as_str());
                Value::Float(0.0)
            }
        },
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|item| node(lines, item, findings)).collect()),
        DeValue::Table(inner) => Value::Table(table(lines, inner, findings)),
    };
    Node::new(value, origin)
}
