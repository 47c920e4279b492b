//! JSON to column values in one pass, without a document tree: only the wanted paths are kept, strings are borrowed.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::types::{ColumnType, Value};

/// The wanted paths of a document, as a tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paths {
    root: Node,
}

#[derive(Debug, Clone, Default)]
struct Node {
    children: Vec<(String, Self)>,
    leaves: Vec<Leaf>,
}

#[derive(Debug, Clone, Copy)]
struct Leaf {
    slot: usize,
    /// The text of the value is wanted as it stands: every digit of a number, the whole of an array.
    raw: bool,
}

impl Node {
    fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|(child, _)| child == name).map(|(_, node)| node)
    }
}

impl Paths {
    /// Adds an RFC 6901 pointer whose value goes to `slot`.
    pub(crate) fn add(&mut self, pointer: &str, slot: usize, to: ColumnType) {
        let mut node = &mut self.root;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let index = match node.children.iter().position(|(name, _)| *name == token) {
                Some(index) => index,
                None => {
                    node.children.push((token, Node::default()));
                    node.children.len() - 1
                }
            };
            node = &mut node.children[index].1;
        }
        node.leaves.push(Leaf { slot, raw: matches!(to, ColumnType::Numeric | ColumnType::Jsonb) });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.root.children.is_empty() && self.root.leaves.is_empty()
    }

    /// Reads `document` and puts what the paths point at into their slots. A path that is not there, or is JSON null,
    /// leaves its slot as it is.
    pub(crate) fn read<'de>(&self, document: &'de [u8], slots: &mut [Value<'de>]) -> Result<(), JsonError> {
        let mut texts_wanted = false;
        {
            let mut deserializer = serde_json::Deserializer::from_slice(document);
            let seed = Walk { node: &self.root, slots, texts_wanted: &mut texts_wanted, all_raw: false };
            seed.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(|e| JsonError::new(&e))?;
        }
        if texts_wanted {
            // A text column met an array, an object or a fraction: its JSON text is taken in a second pass. Rare.
            let mut deserializer = serde_json::Deserializer::from_slice(document);
            let seed = Walk { node: &self.root, slots, texts_wanted: &mut texts_wanted, all_raw: true };
            seed.deserialize(&mut deserializer).map_err(|e| JsonError::new(&e))?;
        }
        Ok(())
    }
}

/// Why a document cannot be read: the kind of fault and its place, never its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonError {
    reason: &'static str,
    line: usize,
    column: usize,
}

impl JsonError {
    fn new(error: &serde_json::Error) -> Self {
        let reason = match error.classify() {
            serde_json::error::Category::Eof => "the JSON ends early",
            // Our own visitors raise no data errors, so these are numbers and strings that serde_json cannot represent.
            serde_json::error::Category::Data => "the JSON holds a value that cannot be represented",
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => "not valid JSON",
        };
        Self { reason, line: error.line(), column: error.column() }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line={} column={}", self.reason, self.line, self.column)
    }
}

struct Walk<'a, 'de> {
    node: &'a Node,
    slots: &'a mut [Value<'de>],
    texts_wanted: &'a mut bool,
    all_raw: bool,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let leaves = &self.node.leaves;
        if leaves.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let raw = self.all_raw || leaves.iter().any(|leaf| leaf.raw) || !self.node.children.is_empty();
        if !raw {
            return deserializer.deserialize_any(self);
        }
        // The value's own text, and from it the leaves and whatever lies below.
        let text: &'de RawValue = serde::Deserialize::deserialize(deserializer)?;
        let value = from_raw::<D::Error>(text.get())?;
        for leaf in leaves {
            self.slots[leaf.slot] = value.clone();
        }
        if !self.node.children.is_empty() {
            let below = Node { children: self.node.children.clone(), leaves: Vec::new() };
            let walk = Walk { node: &below, slots: self.slots, texts_wanted: self.texts_wanted, all_raw: self.all_raw };
            walk.deserialize(&mut serde_json::Deserializer::from_str(text.get())).map_err(D::Error::custom)?;
        }
        Ok(())
    }
}

/// The value of a JSON text: a string loses its quotes, numbers and documents keep their text.
fn from_raw<'de, E: serde::de::Error>(text: &'de str) -> Result<Value<'de>, E> {
    Ok(match text.as_bytes().first() {
        Some(b'"') => Value::Text(string_from(text).map_err(E::custom)?),
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'{' | b'[') => Value::Json(Cow::Borrowed(text)),
        _ => Value::Number(Cow::Borrowed(text)),
    })
}

fn string_from(text: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_str(Text)
}

impl<'de> Walk<'_, 'de> {
    fn put(self, value: Value<'de>) {
        // One path almost always has one column: the value moves.
        if let [leaf] = self.node.leaves.as_slice() {
            self.slots[leaf.slot] = value;
            return;
        }
        for leaf in &self.node.leaves {
            self.slots[leaf.slot] = value.clone();
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(Value::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(Value::Int(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(Value::from(value));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(Value::Double(value));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.put(Value::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if !self.node.leaves.is_empty() {
            self.put(Value::Text(Cow::Owned(text.to_owned())));
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(Value::Null);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.node.children.is_empty() {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            if !self.node.leaves.is_empty() {
                *self.texts_wanted = true;
            }
            return Ok(());
        }
        let parent = self.node;
        for index in 0_usize.. {
            let child = parent.child(&index.to_string());
            let more = match child {
                Some(node) => {
                    let walk = Walk {
                        node,
                        slots: &mut *self.slots,
                        texts_wanted: &mut *self.texts_wanted,
                        all_raw: self.all_raw,
                    };
                    items.next_element_seed(walk)?.is_some()
                }
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if self.node.children.is_empty() && !self.node.leaves.is_empty() {
            *self.texts_wanted = true;
        }
        while let Some(child) = entries.next_key_seed(Name(self.node))? {
            match child {
                Some(node) => {
                    let walk = Walk {
                        node,
                        slots: &mut *self.slots,
                        texts_wanted: &mut *self.texts_wanted,
                        all_raw: self.all_raw,
                    };
                    entries.next_value_seed(walk)?;
                }
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A member's name, looked up as it is read: it is never copied.
struct Name<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Name<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(document: &'a str, wanted: &[(&str, ColumnType)]) -> Result<Vec<Value<'a>>, JsonError> {
        let mut paths = Paths::default();
        for (slot, (pointer, to)) in wanted.iter().enumerate() {
            paths.add(pointer, slot, *to);
        }
        let mut slots = vec![Value::Null; wanted.len()];
        paths.read(document.as_bytes(), &mut slots)?;
        Ok(slots)
    }

    #[test]
    fn wanted_paths_come_out_and_the_rest_is_skipped() {
        let document =
            r#"{"id":7,"skip":{"id":8},"user":{"name":"Ann","tags":["a","b"]},"ok":true,"none":null,"x":1.5}"#;
        let wanted = [
            ("/id", ColumnType::BigInt),
            ("/user/name", ColumnType::Text),
            ("/user/tags/1", ColumnType::Text),
            ("/ok", ColumnType::Boolean),
            ("/none", ColumnType::Text),
            ("/gone", ColumnType::Text),
            ("/x", ColumnType::Double),
        ];
        let expected = vec![
            Value::Int(7),
            Value::from("Ann"),
            Value::from("b"),
            Value::Bool(true),
            Value::Null,
            Value::Null,
            Value::Double(1.5),
        ];
        assert_eq!(read(document, &wanted).unwrap(), expected);
    }

    #[test]
    fn numeric_and_jsonb_keep_the_text() {
        let document = r#"{"a":0.10000000000000000001,"b":{"c":[1, 2]},"s":"q\"\u00e4"}"#;
        let wanted = [("/a", ColumnType::Numeric), ("/b", ColumnType::Jsonb), ("/s", ColumnType::Jsonb)];
        let expected = vec![
            Value::Number("0.10000000000000000001".into()),
            Value::Json(r#"{"c":[1, 2]}"#.into()),
            Value::from("q\"ä"),
        ];
        assert_eq!(read(document, &wanted).unwrap(), expected);
    }

    #[test]
    fn a_text_column_takes_anything_else_as_json_text() {
        let document = r#"{"a":[1, 2],"b":{"c":1},"d":"plain"}"#;
        let wanted = [("/a", ColumnType::Text), ("/b", ColumnType::Text), ("/d", ColumnType::Text)];
        let expected = vec![Value::Json("[1, 2]".into()), Value::Json(r#"{"c":1}"#.into()), Value::from("plain")];
        assert_eq!(read(document, &wanted).unwrap(), expected);
    }

    #[test]
    fn a_path_and_a_path_below_it_are_both_there() {
        let wanted = [("/a", ColumnType::Jsonb), ("/a/b", ColumnType::BigInt), ("", ColumnType::Jsonb)];
        let slots = read(r#"{"a":{"b":3}}"#, &wanted).unwrap();
        let expected = vec![Value::Json(r#"{"b":3}"#.into()), Value::Int(3), Value::Json(r#"{"a":{"b":3}}"#.into())];
        assert_eq!(slots, expected);
    }

    #[test]
    fn a_fault_is_named_by_its_place_and_never_by_its_text() {
        let fault = |document: &str| read(document, &[("/a", ColumnType::Text)]).unwrap_err().to_string();
        assert_eq!(fault(r#"{"a":secret}"#), "not valid JSON line=1 column=6");
        assert_eq!(fault(r#"{"a":"secret"#), "the JSON ends early line=1 column=12");
        assert_eq!(fault(r#"{"a":1} x"#), "not valid JSON line=1 column=9");
        assert!(read(r#"{"a":"\ud800"}"#, &[("/a", ColumnType::Text)]).is_err());
        assert!(read(r#"{"a":1e400}"#, &[("/a", ColumnType::Double)]).is_err());
    }

    #[test]
    fn escapes_in_pointers_and_members_meet() {
        let slots = read(
            r#"{"a/b":1,"m~n":2,"\u0061":3}"#,
            &[("/a~1b", ColumnType::BigInt), ("/m~0n", ColumnType::BigInt), ("/a", ColumnType::BigInt)],
        );
        assert_eq!(slots.unwrap(), vec![Value::Int(1), Value::Int(2), Value::Int(3)]);
    }
}
