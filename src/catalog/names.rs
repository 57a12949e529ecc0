//! Names in a mapped file, ascending, each with a list of its own: those of tags, and of fields of numbers.

use std::ops::Range;

use crate::file::{FileError, Mapped, Tag};

/// Names, and where the list of each begins and ends in another section.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MappedNames<'a> {
    text: &'a [u8],
    /// For each where its name and where its list end.
    ends: &'a [[u64; 2]],
}

impl<'a> MappedNames<'a> {
    /// The names of two sections. [`MappedNames::check`] says whether they can be trusted.
    pub fn of(file: &'a Mapped, text: Tag, ends: Tag) -> Result<Self, FileError> {
        Ok(Self { text: file.section(text)?, ends: file.numbers(ends)? })
    }

    pub fn len(self) -> usize {
        self.ends.len()
    }

    fn range(self, at: usize, column: usize) -> Range<usize> {
        let start = if at == 0 { 0 } else { self.ends[at - 1][column] };
        start as usize..self.ends[at][column] as usize
    }

    pub fn name(self, at: usize) -> &'a str {
        std::str::from_utf8(&self.text[self.range(at, 0)]).unwrap_or_default()
    }

    /// Where its list is.
    pub fn list(self, at: usize) -> Range<usize> {
        self.range(at, 1)
    }

    pub fn find(self, name: &str) -> Option<usize> {
        let (mut first, mut end) = (0, self.len());
        while first < end {
            let middle = usize::midpoint(first, end);
            if self.name(middle) < name { first = middle + 1 } else { end = middle }
        }
        (first < self.len() && self.name(first) == name).then_some(first)
    }

    /// Those with the longest lists, for a message.
    pub fn examples(self) -> String {
        let mut longest: Vec<usize> = (0..self.len()).collect();
        longest.sort_by_key(|&at| std::cmp::Reverse(self.list(at).len()));
        let names: Vec<_> = longest.iter().take(5).map(|&at| self.name(at)).collect();
        names.join(", ")
    }

    /// What is wrong with them, if anything, beside lists of `listed` elements together.
    pub fn check(self, listed: usize) -> Result<(), &'static str> {
        for (column, len) in [self.text.len(), listed].into_iter().enumerate() {
            let ascending = self.ends.windows(2).all(|pair| pair[0][column] <= pair[1][column]);
            if !ascending || self.ends.last().map_or(0, |end| end[column]) != len as u64 {
                return Err("ends do not cut names and lists");
            }
        }
        let named = |at: usize| std::str::from_utf8(&self.text[self.range(at, 0)]).is_ok();
        let sorted = (1..self.len()).all(|at| self.name(at - 1) < self.name(at));
        let sound = sorted && (0..self.len()).all(named);
        if sound { Ok(()) } else { Err("names repeat, are out of order or are not UTF-8") }
    }
}
