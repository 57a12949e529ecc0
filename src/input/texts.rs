//! Many short strings in two allocations.

/// A table of strings: their bytes end to end, and where each begins. Costs the bytes plus 8 a row, where a
/// `Vec<String>` costs 24 and an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    bytes: String,
    /// One more than the rows: row `i` is `offsets[i]..offsets[i + 1]`.
    offsets: Vec<u64>,
}

impl Texts {
    /// An empty table.
    pub fn new() -> Self {
        Texts { bytes: String::new(), offsets: vec![0] }
    }

    /// Adds a row.
    pub fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.offsets.push(self.bytes.len() as u64);
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The string in `row`; panics when `row >= len()`, as a slice does.
    pub fn get(&self, row: usize) -> &str {
        &self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// All strings in row order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// All strings end to end.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_bytes()
    }

    /// Where each string begins in [`Self::bytes`], and after the last, where it ends: `len() + 1` offsets.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }
}

impl Default for Texts {
    fn default() -> Self {
        Texts::new()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Texts {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        let mut table = Texts::new();
        for text in texts {
            table.push(text.as_ref());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_as_they_went_in() {
        let texts: Texts = ["a", "", "żółw", "🦀"].into_iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["a", "", "żółw", "🦀"]);
        assert_eq!((texts.len(), texts.get(2)), (4, "żółw"));
        assert_eq!(texts.offsets().len(), 5);
        assert_eq!(texts.bytes().len() as u64, texts.offsets()[4]);
        assert!(Texts::new().is_empty());
    }
}
