//! Levels and insertion order, drawn from the seed.

use rayon::prelude::*;

/// Layers above layer 0 at most; with `m` = 4 that is enough for 2^32 nodes.
pub const MAX_LAYERS: usize = 16;

/// The order in which `n` rows are inserted, and the number of nodes in each layer above layer 0, lowest first.
///
/// `order[node]` is the row that becomes `node`. A row's level is geometric with ratio `1 / m`, as in the paper; rows
/// of higher levels come first, each level in random order.
pub fn order(n: usize, m: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let mut keyed: Vec<(u64, u32)> =
        (0..n as u32).into_par_iter().map(|row| (mix(seed ^ mix(u64::from(row))), row)).collect();
    // A uniform draw below m^-l of its range is of level l or above: sorted by the draw, levels are prefixes.
    keyed.par_sort_unstable();
    let mut lens = Vec::new();
    let mut bound = u64::MAX as f64;
    for _ in 0..MAX_LAYERS {
        bound /= m as f64;
        let len = keyed.partition_point(|&(draw, _)| (draw as f64) < bound);
        if len < 2 {
            break; // a layer of one node leads nowhere
        }
        lens.push(len as u32);
    }
    (keyed.into_iter().map(|(_, row)| row).collect(), lens)
}

/// The finalizer of SplitMix64: a bijection whose outputs look random.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_a_permutation_and_layers_shrink_by_m() {
        let (order, lens) = order(100_000, 16, 7);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(at, &row)| row == at as u32));
        assert!((5_800..6_700).contains(&lens[0]), "{lens:?}");
        assert!(lens.windows(2).all(|pair| pair[1] < pair[0]) && lens.len() >= 3, "{lens:?}");
        assert_ne!(order, super::order(100_000, 16, 8).0);
    }

    #[test]
    fn tiny_sets_have_no_layers_above() {
        for n in 0..3 {
            let (order, lens) = order(n, 16, 1);
            assert_eq!(order.len(), n);
            assert!(lens.iter().all(|&len| len as usize <= n));
        }
    }
}
