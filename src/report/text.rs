//! Text from elsewhere, made safe to show.

use std::{borrow::Cow, fmt::Write};

/// The text with every character escaped that could steer a terminal, forge a second line, or turn the order of the
/// letters around: control characters, line and paragraph separators, and the bidirectional controls.
///
/// ```
/// use directstream::report::printable;
///
/// assert_eq!(printable("grün"), "grün");
/// assert_eq!(printable("a\n\x1b[2Jb"), "a\\n\\u{1b}[2Jb");
/// ```
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_steering) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    push_printable(&mut escaped, text);
    Cow::Owned(escaped)
}

pub(super) fn push_printable(out: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if is_steering(char) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(char));
            }
            char => out.push(char),
        }
    }
}

fn is_steering(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// At most `bytes_max` bytes of the text, cut between two characters, with `...` where something was cut.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let mut end = bytes_max.saturating_sub(3);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}...", &text[..end]))
}

/// A label's value in the Prometheus text format, without the quotes around it.
pub(super) fn push_label_value(out: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            char => out.push(char),
        }
    }
}
