//! Text from elsewhere cannot break a line or a label.

use proptest::prelude::*;

use crate::report::{
    printable,
    text::{push_label_value, shortened},
};

#[test]
fn nothing_can_steer_a_terminal_or_forge_a_line() {
    let nasty = "a\u{1b}[31mred\u{9b}2J\nINFO forged\r\u{202e}evil\u{7f}\u{2028}\0";
    let safe = printable(nasty);
    assert_eq!(safe, "a\\u{1b}[31mred\\u{9b}2J\\nINFO forged\\r\\u{202e}evil\\u{7f}\\u{2028}\\u{0}");
}

/// Reads a label's value as a Prometheus server does; `None` if it is not well formed.
fn read_label_value(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next()? {
                '\\' => value.push('\\'),
                '"' => value.push('"'),
                'n' => value.push('\n'),
                _ => return None,
            },
            '"' | '\n' => return None,
            char => value.push(char),
        }
    }
    Some(value)
}

proptest! {
    #[test]
    fn printable_text_has_no_control_character(text in any::<String>()) {
        prop_assert!(!printable(&text).chars().any(char::is_control));
    }

    #[test]
    fn a_label_value_reads_back_as_it_was(value in r#"([\\"\nn]|\PC|\x00|\r){0,40}"#) {
        let mut escaped = String::new();
        push_label_value(&mut escaped, &value);
        prop_assert_eq!(read_label_value(&escaped), Some(value));
    }

    #[test]
    fn shortened_text_fits(text in any::<String>(), bytes_max in 3usize..40) {
        let short = shortened(&text, bytes_max);
        prop_assert!(short.len() <= bytes_max);
        prop_assert!(text.starts_with(short.trim_end_matches("...")) || short == text);
    }
}
