//! Every level that this machine has, judged by the scalar one, on every length and misalignment.

use super::*;

const MAX: usize = 1024;

/// A small generator, so that a failure is repeatable without a seed file.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }
    fn byte(&mut self) -> i8 {
        // The extremes are where saturating arithmetic would show.
        match self.next() % 4 {
            0 => i8::MIN,
            1 => i8::MAX,
            _ => self.next() as i8,
        }
    }
    fn float(&mut self) -> f32 {
        self.next() as f32 / (1 << 30) as f32 - 1.0
    }
}

fn bytes(len: usize, seed: u64) -> Vec<i8> {
    let mut numbers = Numbers(seed);
    (0..len).map(|_| numbers.byte()).collect()
}

fn floats(len: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers(seed);
    (0..len).map(|_| numbers.float()).collect()
}

fn close(got: f32, want: f32, terms: impl Iterator<Item = f32>, dim: usize) {
    let bound = dim as f32 * f32::EPSILON * terms.map(f32::abs).sum::<f32>();
    assert!((got - want).abs() <= bound, "got {got}, want {want} within {bound} at {dim} dimensions");
}

#[test]
fn this_processor_has_the_level_that_the_tests_are_meant_to_reach() {
    let levels: Vec<_> = available().iter().map(|kernels| kernels.level()).collect();
    assert!(levels.contains(&Level::Scalar));
    assert_eq!(best().level(), *levels.last().unwrap());
    #[cfg(target_arch = "x86_64")]
    {
        assert_eq!(is_x86_feature_detected!("avx2"), levels.contains(&Level::Avx2));
        assert_eq!(is_x86_feature_detected!("avx512vnni"), levels.contains(&Level::Avx512));
    }
    for level in levels {
        assert_eq!(at(level).unwrap().level(), level);
    }
}

#[test]
fn integer_dots_are_exact_on_every_length_and_misalignment() {
    let (a, b) = (bytes(MAX + 8, 1), bytes(MAX + 8, 2));
    let packed: Vec<u8> = bytes(MAX, 3).iter().map(|&b| b as u8).collect();
    for kernels in available() {
        for len in 0..=MAX {
            for shift in [0, 1, 3, 7] {
                let (a, b) = (&a[shift..shift + len], &b[shift / 2..shift / 2 + len]);
                assert_eq!(kernels.dot_i8(a, b), scalar::dot_i8(a, b), "{:?} {len}", kernels.level());
                let row = &packed[shift..shift + int4_bytes(len)];
                assert_eq!(kernels.dot_i4(row, b), scalar::dot_i4(row, b), "{:?} {len}", kernels.level());
            }
        }
    }
}

#[test]
fn float_dots_stay_within_the_stated_error_on_every_length_and_misalignment() {
    let (a, b) = (floats(MAX + 8, 4), floats(MAX + 8, 5));
    let halves: Vec<f16> = a.iter().map(|&x| f16::from_f32(x)).collect();
    for kernels in available() {
        for len in 0..=MAX {
            for shift in [0, 1, 5] {
                let (x, y, h) = (&a[shift..shift + len], &b[shift..shift + len], &halves[shift..shift + len]);
                let terms = || x.iter().zip(y).map(|(x, y)| x * y);
                close(kernels.dot_f32(x, y), scalar::dot_f32(x, y), terms(), len);
                close(kernels.dot_f16(h, y), scalar::dot_f16(h, y), terms().map(|t| t * 1.01), len);
            }
        }
    }
}

#[test]
fn every_finite_half_is_widened_exactly() {
    let finite = || (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite());
    for kernels in available() {
        for half in finite() {
            let row = [half, f16::ZERO, f16::ZERO, f16::ZERO, f16::ZERO, f16::ZERO, f16::ZERO, f16::ZERO];
            assert_eq!(kernels.dot_f16(&row, &[1.0; 8]), half.to_f32(), "{:?} {half}", kernels.level());
        }
    }
}

#[test]
fn scoring_many_rows_is_scoring_each() {
    let ids: Vec<u32> = (0..37).map(|i| (i * 29 + 5) % 40).collect();
    for kernels in available() {
        for dim in [1, 2, 15, 16, 31, 32, 33, 50, 63, 64, 65, 127, 128, 200, 384] {
            let query: Vec<i8> = bytes(dim, 6).into_iter().map(|x| x.max(-127)).collect();
            let rows = bytes(dim * 40, 7);
            let (query_f, rows_f) = (floats(dim, 8), floats(dim * 40, 9));
            let rows_h: Vec<f16> = rows_f.iter().map(|&x| f16::from_f32(x)).collect();
            for count in 0..ids.len() {
                let (ids, mut out) = (&ids[..count], [f32::NAN; 40]);
                kernels.rows_i8(&query, &rows, ids, &mut out);
                for (&id, &got) in ids.iter().zip(&out) {
                    assert_eq!(got, scalar::dot_i8(&query, &rows[id as usize * dim..][..dim]) as f32);
                }
                assert!(out[count..].iter().all(|x| x.is_nan()), "wrote past its ids");
                kernels.rows_f32(&query_f, &rows_f, ids, &mut out);
                for (&id, &got) in ids.iter().zip(&out) {
                    let row = &rows_f[id as usize * dim..][..dim];
                    close(got, scalar::dot_f32(row, &query_f), row.iter().copied(), dim);
                }
                kernels.rows_f16(&query_f, &rows_h, ids, &mut out);
                for (&id, &got) in ids.iter().zip(&out) {
                    let row = &rows_h[id as usize * dim..][..dim];
                    close(got, scalar::dot_f16(row, &query_f), row.iter().map(|h| h.to_f32()), dim);
                }
            }
        }
    }
}

#[test]
fn scoring_many_packed_rows_is_scoring_each() {
    let ids: Vec<u32> = (0..23).map(|i| (i * 7 + 2) % 20).collect();
    for kernels in available() {
        for dim in [64, 128, 192, 256, 384, 448] {
            let (query, stride) = (bytes(dim, 10), dim / 2);
            let rows: Vec<u8> = bytes(stride * 20, 11).iter().map(|&b| b as u8).collect();
            let mut out = [f32::NAN; 23];
            kernels.rows_i4(&query, &rows, &ids, &mut out);
            for (&id, &got) in ids.iter().zip(&out) {
                let want = scalar::dot_i4(&rows[id as usize * stride..][..stride], &query);
                assert_eq!(got, want as f32, "{:?} {dim}", kernels.level());
            }
        }
    }
}

#[test]
fn scoring_many_queries_is_scoring_each_on_every_length_and_ragged_end() {
    let ids: Vec<u32> = (0..PANEL as u32).map(|i| (i * 29 + 5) % 70).collect();
    let rows = bytes(70 * 200, 13);
    let packed: Vec<u8> = rows.iter().map(|&code| code as u8).collect();
    let (mut panel, mut out) = (Panel::default(), [0.0; 9 * PANEL]);
    let dims = (1..=70).chain([127, 128, 129, 191, 192, 200]);
    for (kernels, dim) in available().into_iter().flat_map(|kernels| dims.clone().map(move |dim| (kernels, dim))) {
        let mut queries = Queries::new(dim);
        for count in 1..=9 {
            queries.push(&bytes(dim, count as u64).into_iter().map(|x| x.max(-127)).collect::<Vec<_>>());
            for len in [0, 1, 15, 16, 17, 48 + count % 16, PANEL] {
                let judge = |out: &[f32], dot: &dyn Fn(usize, &[i8]) -> i32| {
                    for (query, out) in out.chunks(PANEL).take(count).enumerate() {
                        let want = |id: &u32| dot(*id as usize, queries.codes(query)) as f32;
                        let same = ids[..len].iter().map(want).eq(out[..len].iter().copied());
                        assert!(same, "{:?} {dim} {count} {len}", kernels.level());
                        assert!(out[len..].iter().all(|x| x.is_nan()), "wrote past its ids");
                    }
                };
                out.fill(f32::NAN);
                kernels.many_i8(&queries, &rows, &ids[..len], &mut panel, &mut out);
                judge(&out, &|id, query| scalar::dot_i8(&rows[id * dim..][..dim], query));
                if dim.is_multiple_of(INT4_BLOCK) {
                    out.fill(f32::NAN);
                    kernels.many_i4(&queries, &packed, &ids[..len], &mut panel, &mut out);
                    judge(&out, &|id, query| scalar::dot_i4(&packed[id * dim / 2..][..dim / 2], query));
                }
            }
        }
    }
}

#[test]
fn products_become_the_same_scores_at_every_level() {
    let (products, factors, biases) = (floats(PANEL, 14), floats(PANEL, 15), floats(PANEL, 16));
    for (kernels, len) in available().into_iter().flat_map(|kernels| (0..=PANEL).map(move |len| (kernels, len))) {
        for (biases, floor) in [(&biases[..len], 0.3), (&[], 0.3), (&[], 9.0), (&[], f32::NEG_INFINITY)] {
            let mut scores = products[..len].to_vec();
            let above = kernels.rescale(0.7, &factors[..len], biases, floor, &mut scores);
            for at in 0..len {
                let want = products[at] * (0.7 * factors[at]);
                let want = if biases.is_empty() { want } else { want + biases[at] };
                assert_eq!((scores[at], above >> at & 1 == 1), (want, want > floor), "{:?}", kernels.level());
            }
            assert_eq!(above & !(u64::MAX.checked_shr(64 - len as u32).unwrap_or(0)), 0);
        }
    }
}

#[test]
#[should_panic(expected = "row 40 of 40")]
fn a_row_outside_the_matrix_is_refused() {
    best().rows_i8(&[1; 4], &[0; 160], &[3, 40], &mut [0.0; 2]);
}

#[test]
fn the_best_of_columns_are_those_that_sorting_finds() {
    let mut out = [0; COLUMNS];
    for len in 0..200 {
        let scores = floats(len, len as u64);
        let mut of_columns: Vec<usize> = (0..COLUMNS.min(len))
            .map(|column| (column..len).step_by(COLUMNS).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap())
            .collect();
        of_columns.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        for width in 0..=COLUMNS {
            let count = scalar::best_of_columns(&scores, width, &mut out);
            let mut got: Vec<usize> = out[..count].iter().map(|&at| at as usize).collect();
            got.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            assert_eq!(got, of_columns[..width.min(of_columns.len())], "{width} of {len}");
        }
    }
    // Of equals no more than asked for, and nothing that was taken out.
    assert_eq!((scalar::best_of_columns(&[1.0; 40], 3, &mut out), &out[..3]), (3, &[0, 1, 2][..]));
    assert_eq!(scalar::best_of_columns(&[f32::NEG_INFINITY; 40], 3, &mut out), 0);
}

#[test]
fn pool_operations_are_the_same_at_every_level() {
    let mut scores = floats(300, 12);
    scores[17] = scores[250]; // equals, to see that the first wins
    let ids: Vec<u32> = (1000..1300).collect();
    for kernels in available() {
        for len in 1..=scores.len() {
            let (ids, scores) = (&ids[..len], &scores[..len]);
            assert_eq!(kernels.argmax(scores), scalar::argmax(scores), "{:?} {len}", kernels.level());
            for floor in [-2.0, 0.0, 0.9, scores[len / 2], 2.0] {
                assert_eq!(kernels.count_above(floor, scores), scalar::count_above(floor, scores));
                let mut want = (vec![0; len], vec![0.0; len]);
                let mut got = want.clone();
                let kept = scalar::append_above(floor, ids, scores, &mut want.0, &mut want.1);
                assert_eq!(kernels.append_above(floor, ids, scores, &mut got.0, &mut got.1), kept);
                assert_eq!((&got.0[..kept], &got.1[..kept]), (&want.0[..kept], &want.1[..kept]));
            }
            for width in [0, 1, 2, 5, 8, COLUMNS, 1 << 40] {
                let (mut got, mut want) = ([0; COLUMNS], [0; COLUMNS]);
                let count = kernels.best_of_columns(scores, width, &mut got);
                assert_eq!(count, scalar::best_of_columns(scores, width, &mut want), "{:?} {len}", kernels.level());
                assert_eq!(got[..count], want[..count], "{:?} {len}", kernels.level());
            }
        }
        assert_eq!(kernels.argmax(&[1.0; 100]), 0);
        assert_eq!(kernels.argmax(&[f32::NEG_INFINITY; 40]), 0);
    }
}
