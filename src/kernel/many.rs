//! Many queries against the same rows: what an exhaustive scan for a batch does.

use super::scalar;

/// Rows that are scored together at most: the bits of a word that says which of them are wanted.
pub const PANEL: usize = 64;

/// Integer queries of one length that are scored together, one after another.
#[derive(Clone, Debug, Default)]
pub struct Queries {
    dim: usize,
    codes: Vec<i8>,
    /// Of the codes of each.
    pub(super) sums: Vec<i32>,
}

impl Queries {
    /// No queries yet, of `dim` dimensions.
    pub fn new(dim: usize) -> Self {
        Self { dim, ..Self::default() }
    }

    /// Adds a query, its codes within ±127. Panics when its length is another.
    pub fn push(&mut self, codes: &[i8]) {
        assert_eq!(codes.len(), self.dim);
        self.codes.extend_from_slice(codes);
        self.sums.push(codes.iter().map(|&code| i32::from(code)).sum());
    }

    /// Dimensions of each.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// The codes of one.
    pub(super) fn codes(&self, at: usize) -> &[i8] {
        &self.codes[at * self.dim..][..self.dim]
    }
}

/// Room for [`PANEL`] rows in the form that a level wants them in.
#[derive(Debug, Default)]
pub struct Panel {
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the other levels take rows as they are"))]
    pub(super) quads: Vec<Quad>,
}

/// Four dimensions of each row of a panel, a word a row.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Quad(#[allow(dead_code, reason = "read by some levels")] pub [u32; PANEL]);

/// Scores rows for one query after another: the rows stay in the first level cache meanwhile.
pub(super) fn one_by_one(queries: &Queries, out: &mut [f32], score: impl Fn(&[i8], &mut [f32])) {
    for (at, out) in out.chunks_exact_mut(PANEL).take(queries.len()).enumerate() {
        score(queries.codes(at), out);
    }
}

/// Makes scores of products, `products · (scale · factors) + biases`, and says which are above `floor`.
#[inline(always)]
pub(super) fn rescale(scale: f32, factors: &[f32], biases: &[f32], floor: f32, products: &mut [f32]) -> u64 {
    products.iter_mut().zip(factors).for_each(|(product, factor)| *product *= scale * factor);
    if !biases.is_empty() {
        products.iter_mut().zip(biases).for_each(|(product, bias)| *product += bias);
    }
    if scalar::count_above(floor, products) == 0 {
        return 0; // nearly always
    }
    (0..).zip(&*products).fold(0, |mask, (at, &score)| mask | u64::from(score > floor) << at)
}
