//! x86-64: AVX2 with FMA and F16C, and AVX-512 with VNNI.

mod avx2;
mod avx512;
mod many;
mod reduce;

use super::Kernels;

/// The levels that this processor has beyond plain Rust, the best last.
pub(super) fn available() -> Vec<&'static Kernels> {
    let mut levels = Vec::new();
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("popcnt")
    {
        levels.push(&avx2::KERNELS);
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            levels.push(&avx512::KERNELS);
        }
    }
    levels
}
