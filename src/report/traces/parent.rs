//! The header that says which trace a record belongs to.

/// What a record's header `traceparent` says: W3C Trace Context, as OpenTelemetry's producers send it.
///
/// ```
/// use directstream::report::TraceParent;
///
/// let parent = TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
/// assert_eq!(parent.span_id, 0x00f0_67aa_0ba9_02b7);
/// assert!(TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736").is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span within it, the producer's as a rule; never 0.
    pub span_id: u64,
    /// Bit 0: the trace is sampled.
    pub flags: u8,
}

/// `VERSION-TRACE-SPAN-FLAGS` in digits.
const DIGITS: [usize; 4] = [2, 32, 16, 2];
const LENGTH: usize = 2 + 32 + 16 + 2 + 3;

impl TraceParent {
    /// Reads the header, as strictly as the specification asks: small letters, no id of zeros, version 00 without anything
    /// after it; of a later version, what is known of it. `None` of all else: a link to nowhere helps nobody.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (known, rest) = header.split_at_checked(LENGTH)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let mut next = |digits: usize| parts.next().filter(|part| part.len() == digits).and_then(number);
        let [version, trace_id, span_id, flags] =
            [next(DIGITS[0])?, next(DIGITS[1])?, next(DIGITS[2])?, next(DIGITS[3])?];
        let ends = if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
        if !ends || version == 0xff || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, flags: u8::try_from(flags).ok()? })
    }
}

/// A number of small hexadecimal digits, and nothing else: no sign, which the standard library would take.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn a_header_as_the_specification_writes_it_is_read() {
        let parent = parse(GOOD).unwrap();
        let expected = TraceParent {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 0x00f0_67aa_0ba9_02b7,
            flags: 1,
        };
        assert_eq!(parent, expected);
        // A version to come may have more to say.
        assert_eq!(parse(&GOOD.replacen("00-", "01-", 1)), Some(expected));
        assert_eq!(parse(&format!("{}-more", GOOD.replacen("00-", "cc-", 1))), Some(expected));
    }

    #[test]
    fn nothing_else_is() {
        let zeros = |digits: usize| "0".repeat(digits);
        for wrong in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            format!("{GOOD} "),
            format!("{}x", GOOD.replacen("00-", "01-", 1)),
            GOOD.replacen("00-", "ff-", 1),
            GOOD.to_uppercase(),
            GOOD.replacen("4bf", "+bf", 1),
            GOOD.replacen('-', "_", 1),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros(32)),
            GOOD.replace("00f067aa0ba902b7", &zeros(16)),
            GOOD.replace("-00f067aa0ba902b7-01", "00-f067aa0ba902b7-01"),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
        assert_eq!(TraceParent::parse(&[0xff; LENGTH]), None);
    }
}
