//! A query in the form that a matrix's rows are scored with.

use super::{Codec, CodecError, Layout, Matrix, get_int4, max_abs, record, residual, round};

/// A prepared query. Its buffers are kept from one preparation to the next, so preparing allocates nothing once warm.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// For float rows: the vector, padded with zeros.
    floats: Vec<f32>,
    /// For integer rows: the vector as `int8`, padded with zeros.
    codes: Vec<i8>,
    /// What the codes leave of the vector ([`residual`]); empty when they leave nothing.
    rest: Vec<i8>,
    scale: f32,
}

impl Query {
    /// Prepares a vector for rows of `layout`. Panics when the dimensions differ.
    pub fn prepare(&mut self, layout: Layout, vector: &[f32]) -> Result<(), CodecError> {
        assert_eq!(vector.len(), layout.dim);
        Codec::F32.check(vector)?;
        if layout.has_scales() {
            self.take_apart(layout, vector);
        } else {
            self.set_floats(layout, vector);
        }
        Ok(())
    }

    /// Prepares a stored record for rows of `layout`, `decoded` being the vector that it holds. Integer codes are taken
    /// as they are when the rows are integers as well, so that no float stands between a stored user and the items.
    pub fn prepare_record(
        &mut self,
        layout: Layout,
        codec: Codec,
        bytes: &[u8],
        decoded: &[f32],
    ) -> Result<(), CodecError> {
        if !(layout.has_scales() && matches!(codec, Codec::Int8 | Codec::Int4)) {
            return self.prepare(layout, decoded);
        }
        self.codes.clear();
        self.codes.resize(layout.padded_dim(), 0);
        self.rest.clear();
        self.scale = record::codes(codec, bytes, &mut self.codes[..layout.dim])?;
        Ok(())
    }

    /// Takes a row of a matrix as the query for the same matrix.
    pub fn prepare_row(&mut self, matrix: &Matrix, row: u32) {
        let (layout, bytes) = (matrix.layout(), matrix.row(row));
        self.scale = matrix.scale(row);
        self.codes.clear();
        self.rest.clear();
        match layout.codec {
            Codec::Int8 => self.codes.extend_from_slice(bytemuck::cast_slice(bytes)),
            Codec::Int4 => self.codes.extend((0..2 * bytes.len()).map(|at| get_int4(bytes, at, 2 * bytes.len()))),
            Codec::F32 => self.set_floats(layout, bytemuck::cast_slice(bytes)),
            Codec::F16 => {
                let halves: &[half::f16] = bytemuck::cast_slice(bytes);
                self.floats.clear();
                self.floats.extend(halves.iter().map(|half| half.to_f32()));
            }
        }
    }

    /// Sets codes, rest and scale: see [`residual`].
    fn take_apart(&mut self, layout: Layout, vector: &[f32]) {
        let levels = Codec::Int8.levels();
        self.scale = max_abs(vector) / levels;
        for codes in [&mut self.codes, &mut self.rest] {
            codes.clear();
            codes.resize(layout.padded_dim(), 0);
        }
        if self.scale > 0.0 {
            let steps = 1.0 / self.scale;
            for ((&x, code), rest) in vector.iter().zip(&mut self.codes).zip(&mut self.rest) {
                *code = round(x * steps, levels);
                *rest = residual::code_of(x * steps, *code);
            }
        }
    }

    fn set_floats(&mut self, layout: Layout, vector: &[f32]) {
        self.floats.clear();
        self.floats.extend_from_slice(vector);
        self.floats.resize(layout.padded_dim(), 0.0);
    }

    pub(super) fn floats(&self) -> &[f32] {
        &self.floats
    }

    pub(super) fn codes(&self) -> &[i8] {
        &self.codes
    }

    pub(super) fn rest(&self) -> &[i8] {
        &self.rest
    }

    pub(super) fn scale(&self) -> f32 {
        self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;
    use proptest::prelude::*;

    fn encode(layout: Layout, vectors: &[Vec<f32>]) -> (Vec<u32>, Vec<f32>) {
        let mut codes = vec![0_u32; (vectors.len() * layout.row_bytes()).div_ceil(4)]; // u32 for the alignment of floats
        let rows = bytemuck::cast_slice_mut::<u32, u8>(&mut codes).chunks_exact_mut(layout.row_bytes());
        let scales = rows.zip(vectors).map(|(row, vector)| layout.encode(vector, row).unwrap()).collect();
        (codes, if layout.has_scales() { scales } else { Vec::new() })
    }

    fn matrix<'a>(layout: Layout, codes: &'a [u32], scales: &'a [f32]) -> Matrix<'a> {
        let bytes: &[u8] = bytemuck::cast_slice(codes);
        let whole = bytes.len() / layout.row_bytes() * layout.row_bytes();
        Matrix::new(layout, &bytes[..whole], scales, &[]).unwrap()
    }

    proptest! {
        #[test]
        fn scores_are_dot_products_within_the_codecs_error(
            dim in 1_usize..150, seed in prop::collection::vec(-1_f32..1.0, 150 * 6)
        ) {
            let vectors: Vec<Vec<f32>> = seed.chunks(150).map(|chunk| chunk[..dim].to_vec()).collect();
            let (query, items) = vectors.split_first().unwrap();
            let ids: Vec<u32> = (0..items.len() as u32).collect();
            for codec in Codec::ALL {
                let layout = Layout { codec, dim };
                let (codes, scales) = encode(layout, items);
                let matrix = matrix(layout, &codes, &scales);
                let mut prepared = Query::default();
                prepared.prepare(layout, query).unwrap();
                let (mut scores, mut row_scores) = (vec![0.0; ids.len()], vec![0.0; ids.len()]);
                for kernels in kernel::available() {
                    matrix.score(kernels, &prepared, &ids, &mut scores);
                    for (item, &got) in items.iter().zip(&scores) {
                        let exact: f32 = item.iter().zip(query).map(|(x, y)| x * y).sum();
                        let step = match codec { Codec::F32 => 1e-6, Codec::F16 => 1e-3, Codec::Int8 => 0.01, Codec::Int4 => 0.09 };
                        prop_assert!((exact - got).abs() <= step * dim as f32, "{codec}: {got} for {exact} at {dim}");
                    }
                    // A row taken as the query scores itself with its own squared length.
                    prepared.prepare_row(&matrix, 0);
                    matrix.score(kernels, &prepared, &ids, &mut row_scores);
                    let norm: f32 = items[0].iter().map(|x| x * x).sum();
                    prop_assert!((row_scores[0] - norm).abs() <= 0.2 * dim as f32);
                    prepared.prepare(layout, query).unwrap();
                }
            }
        }

        #[test]
        fn a_stored_record_scores_as_its_vector(vector in prop::collection::vec(-1_f32..1.0, 1..140)) {
            let dim = vector.len();
            for (codec, items) in Codec::ALL.into_iter().flat_map(|c| Codec::ALL.map(|items| (c, items))) {
                let layout = Layout { codec: items, dim };
                let (codes, scales) = encode(layout, std::slice::from_ref(&vector));
                let matrix = matrix(layout, &codes, &scales);
                let mut bytes = vec![0; codec.bytes_per_vector(dim)];
                record::encode(codec, &vector, &mut bytes).unwrap();
                let (mut query, mut score) = (Query::default(), [0.0]);
                let mut decoded = vec![0.0; dim];
                record::decode(codec, &bytes, &mut decoded).unwrap();
                query.prepare_record(layout, codec, &bytes, &decoded).unwrap();
                matrix.score(kernel::best(), &query, &[0], &mut score);
                let norm: f32 = vector.iter().map(|x| x * x).sum();
                prop_assert!((score[0] - norm).abs() <= 0.2 * dim as f32, "{codec} against {items}");
            }
        }
    }
}
