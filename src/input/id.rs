//! One external id: a whole number or a text.

use std::fmt;

/// The longest text accepted as an id or a tag. UUIDs, URLs and product codes fit; a paragraph in the id column
/// is a mistake that would otherwise be paid for once per item in memory.
pub const MAX_ID_BYTES: usize = 1024;

/// An external id. The same id must be the same value wherever it comes from, so text that spells a `u64` the
/// canonical way *is* that `u64`: make ids from text with [`Id::parse`]. Numbers sort before texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id<'a> {
    /// A whole number.
    U64(u64),
    /// Any other text.
    Text(&'a str),
}

impl<'a> Id<'a> {
    /// `"42"` is the number 42; `"042"`, `"+42"`, `"-1"`, `""` and everything else stay text.
    pub fn parse(text: &'a str) -> Self {
        let canonical = match text.as_bytes() {
            [b'0'] => true,
            [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        match text.parse() {
            Ok(number) if canonical => Id::U64(number),
            _ => Id::Text(text),
        }
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::U64(number) => number.fmt(f),
            Id::Text(text) => text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_decimals_are_numbers() {
        for (text, number) in [("0", 0), ("7", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(Id::parse(text), Id::U64(number));
            assert_eq!(Id::parse(text).to_string(), text);
        }
        for text in ["", "00", "042", "+1", "-1", " 1", "1.0", "1e3", "18446744073709551616", "٣", "abc"] {
            assert_eq!(Id::parse(text), Id::Text(text));
        }
    }

    #[test]
    fn numbers_sort_by_value_and_before_texts() {
        let mut ids = [Id::parse("b"), Id::parse("10"), Id::parse("9"), Id::parse("a")];
        ids.sort();
        assert_eq!(ids, [Id::U64(9), Id::U64(10), Id::Text("a"), Id::Text("b")]);
    }
}
