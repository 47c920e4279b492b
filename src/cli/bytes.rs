//! Bytes of records as commands show them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use crate::report::printable;

/// Bytes as far as they are shown.
#[derive(Debug, Serialize)]
pub(super) struct Bytes {
    bytes: usize,
    truncated: bool,
    base64: String,
    /// Null if they are not UTF-8.
    text: Option<String>,
}

/// A record's header.
#[derive(Debug, Serialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: Option<Bytes>,
}

impl Bytes {
    /// The first `limit` of them.
    pub(super) fn of(bytes: &[u8], limit: usize) -> Self {
        let shown = &bytes[..bytes.len().min(limit)];
        // A character that the limit cuts is left out of the text, and is no reason to have none.
        let text = match std::str::from_utf8(shown) {
            Ok(text) => Some(text),
            Err(error) if error.error_len().is_none() && shown.len() < bytes.len() => {
                std::str::from_utf8(&shown[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        Self {
            bytes: bytes.len(),
            truncated: shown.len() < bytes.len(),
            base64: BASE64_STANDARD.encode(shown),
            text: text.map(str::to_owned),
        }
    }

    /// For people: nothing in it steers a terminal.
    fn plain(&self) -> String {
        match &self.text {
            Some(text) => printable(text).into_owned(),
            None => BASE64_STANDARD.decode(&self.base64).unwrap_or_default().escape_ascii().to_string(),
        }
    }

    /// On a line of its own.
    pub(super) fn shown(&self) -> String {
        let more = if self.truncated { " ... (--bytes shows more)" } else { "" };
        format!("{} bytes: {}{more}", self.bytes, self.plain())
    }

    /// In a table; Kafka's null is told from no bytes.
    pub(super) fn cell(bytes: Option<&Self>) -> String {
        match bytes {
            None => "null".to_owned(),
            Some(bytes) if bytes.bytes == 0 => "\"\"".to_owned(),
            Some(bytes) => bytes.plain() + if bytes.truncated { "..." } else { "" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_cut_at_the_limit_and_escaped() {
        let shown = |bytes: &[u8], limit| Bytes::of(bytes, limit).shown();
        assert_eq!(shown("a\x1b[31m\n".as_bytes(), 99), "7 bytes: a\\u{1b}[31m\\n");
        assert_eq!(shown(&[0, 0xff, b'a'], 99), "3 bytes: \\x00\\xffa");
        assert_eq!(shown("aä".as_bytes(), 2), "3 bytes: a ... (--bytes shows more)");
        let cut = Bytes::of("aä".as_bytes(), 2);
        assert_eq!((cut.truncated, cut.text.as_deref(), &*cut.base64), (true, Some("a"), "YcM="));
        assert_eq!(Bytes::of(b"", 0).shown(), "0 bytes: ");
    }

    #[test]
    fn a_cell_tells_null_from_nothing() {
        let cell = |bytes: &[u8], limit| Bytes::cell(Some(&Bytes::of(bytes, limit)));
        assert_eq!([cell(b"", 9), cell(b"abc", 2), cell(b"a\tb", 9)], ["\"\"", "ab...", "a\\tb"]);
        assert_eq!(Bytes::cell(None), "null");
    }
}
