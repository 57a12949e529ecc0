//! One vector on its own: what a store keeps for a user.
//!
//! | codec | bytes |
//! |---|---|
//! | `f32` | `d` little-endian floats |
//! | `f16` | `d` little-endian halves |
//! | `int8` | `d` signed codes, then the scale as little-endian `bf16` |
//! | `int4` | packed codes ([`kernel::int4_bytes`]), then the scale as little-endian `bf16` |
//!
//! The scale is rounded *up* to `bf16` before the codes are made, so it costs two bytes and no clipping. Error of a
//! decoded component: `f32` none; `f16` at most `2^-11 · |x|`, or `2^-25` near zero; `int8` at most
//! `0.51 · max|x| / 127`; `int4` at most `0.51 · max|x| / 7`.
//!
//! [`kernel::int4_bytes`]: crate::kernel::int4_bytes

use half::{bf16, f16};

use super::{Codec, CodecError, MAX_COMPONENT, get_int4, max_abs, put_int4, quantize};

/// Encodes `vector` into `out`. Panics when `out` is not [`Codec::bytes_per_vector`] long.
pub fn encode(codec: Codec, vector: &[f32], out: &mut [u8]) -> Result<(), CodecError> {
    assert_eq!(out.len(), codec.bytes_per_vector(vector.len()), "a record's length follows from its codec");
    codec.check(vector)?;
    match codec {
        Codec::F32 => {
            out.as_chunks_mut::<4>().0.iter_mut().zip(vector).for_each(|(out, x)| *out = x.to_le_bytes());
        }
        Codec::F16 => {
            let halves = vector.iter().map(|&x| f16::from_f32(x));
            out.as_chunks_mut::<2>().0.iter_mut().zip(halves).for_each(|(out, x)| *out = x.to_le_bytes());
        }
        Codec::Int8 | Codec::Int4 => {
            let scale = round_up(max_abs(vector) / codec.levels());
            let (codes, tail) = out.split_at_mut(out.len() - 2);
            tail.copy_from_slice(&scale.to_le_bytes());
            put_codes(codec, vector, scale.to_f32(), codes);
        }
    }
    Ok(())
}

fn put_codes(codec: Codec, vector: &[f32], scale: f32, codes: &mut [u8]) {
    if codec == Codec::Int8 {
        quantize(vector, scale, codec.levels(), |at, code| codes[at] = code as u8);
    } else {
        codes.fill(0);
        quantize(vector, scale, codec.levels(), |at, code| put_int4(codes, at, vector.len(), code));
    }
}

/// The codes and the scale of an integer record, without going through floats. `int4` codes come widened.
///
/// Panics for a float codec.
pub fn codes(codec: Codec, record: &[u8], out: &mut [i8]) -> Result<f32, CodecError> {
    let dim = out.len();
    let (codes, scale) = split(codec, record, dim)?;
    out.iter_mut().enumerate().for_each(|(at, code)| *code = code_at(codec, codes, at, dim));
    Ok(scale)
}

/// The bytes of the codes, and the scale.
fn split(codec: Codec, record: &[u8], dim: usize) -> Result<(&[u8], f32), CodecError> {
    check_length(codec, record, dim)?;
    let (codes, scale) = record.split_at(record.len() - 2);
    let scale = bf16::from_le_bytes([scale[0], scale[1]]).to_f32();
    // The scale of the largest component that is encoded, rounded up, is the largest that is written.
    if (0.0..=1.01 * MAX_COMPONENT / codec.levels()).contains(&scale) {
        Ok((codes, scale))
    } else {
        Err(CodecError::Damaged { codec })
    }
}

fn code_at(codec: Codec, codes: &[u8], at: usize, dim: usize) -> i8 {
    match codec {
        Codec::Int8 => (codes[at] as i8).max(-127), // no encoder writes -128, and not every kernel takes it
        Codec::Int4 => get_int4(codes, at, dim),
        Codec::F32 | Codec::F16 => unreachable!("only integer codecs have codes"),
    }
}

/// Decodes a record into `out`, whose length is the dimension. Bytes that hold no finite vector are refused.
pub fn decode(codec: Codec, record: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
    check_length(codec, record, out.len())?;
    match codec {
        Codec::F32 => {
            let floats = record.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            out.iter_mut().zip(floats).for_each(|(out, x)| *out = x);
        }
        Codec::F16 => {
            let halves = record.as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32());
            out.iter_mut().zip(halves).for_each(|(out, x)| *out = x);
        }
        Codec::Int8 | Codec::Int4 => {
            let dim = out.len();
            let (codes, scale) = split(codec, record, dim)?;
            for (at, out) in out.iter_mut().enumerate() {
                let code = f32::from(code_at(codec, codes, at, dim));
                *out = (scale * code).clamp(-MAX_COMPONENT, MAX_COMPONENT);
            }
        }
    }
    codec.check(out).map_err(|_| CodecError::Damaged { codec })
}

fn check_length(codec: Codec, record: &[u8], dim: usize) -> Result<(), CodecError> {
    let expected = codec.bytes_per_vector(dim);
    if record.len() == expected { Ok(()) } else { Err(CodecError::Length { codec, expected, got: record.len() }) }
}

/// The smallest `bf16` that is not below a finite `x >= 0`.
fn round_up(x: f32) -> bf16 {
    let bits = x.to_bits();
    bf16::from_bits((bits >> 16) as u16 + u16::from(bits & 0xFFFF != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(codec: Codec, vector: &[f32]) -> Vec<f32> {
        let mut record = vec![0; codec.bytes_per_vector(vector.len())];
        encode(codec, vector, &mut record).unwrap();
        let mut back = vec![f32::NAN; vector.len()];
        decode(codec, &record, &mut back).unwrap();
        back
    }

    proptest! {
        #[test]
        fn decoded_components_stay_within_the_stated_error(
            vector in prop::collection::vec(-1e4_f32..1e4, 0..200), exponent in -12_i32..=0
        ) {
            let vector: Vec<f32> = vector.iter().map(|x| x * 10_f32.powi(exponent)).collect();
            let max = max_abs(&vector);
            for codec in Codec::ALL {
                for (&x, back) in vector.iter().zip(round_trip(codec, &vector)) {
                    let bound = match codec {
                        Codec::F32 => 0.0,
                        Codec::F16 => (x.abs() / 2048.0).max(2_f32.powi(-25)),
                        Codec::Int8 => 0.51 * max / 127.0,
                        Codec::Int4 => 0.51 * max / 7.0,
                    };
                    prop_assert!((x - back).abs() <= bound, "{codec}: {x} came back as {back}");
                }
            }
        }

        #[test]
        fn any_bytes_decode_to_finite_numbers_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..80), dim in 0_usize..80) {
            for codec in Codec::ALL {
                let mut out = vec![0.0; dim];
                if decode(codec, &bytes, &mut out).is_ok() {
                    prop_assert!(out.iter().all(|x| x.is_finite()));
                    prop_assert_eq!(bytes.len(), codec.bytes_per_vector(dim));
                }
            }
        }
    }

    #[test]
    fn extremes_survive() {
        for vector in [&[0.0; 5][..], &[f32::MIN_POSITIVE / 8.0; 3], &[1e15, -1e15], &[1e15, 1e-15], &[-65504.0]] {
            for codec in [Codec::Int4, Codec::Int8, Codec::F32] {
                assert!(round_trip(codec, vector).iter().all(|x| x.is_finite()), "{codec} {vector:?}");
            }
        }
        assert_eq!(round_trip(Codec::Int8, &[1e15, -1e15]).iter().map(|x| x.signum()).collect::<Vec<_>>(), [1.0, -1.0]);
    }

    #[test]
    fn what_cannot_be_held_is_refused_with_its_column() {
        for (codec, bad) in
            [(Codec::F16, 65600.0), (Codec::Int8, f32::NAN), (Codec::F32, f32::INFINITY), (Codec::Int4, 2e15)]
        {
            let vector = [0.0, bad, 1.0];
            let message = encode(codec, &vector, &mut vec![0; codec.bytes_per_vector(3)]).unwrap_err().to_string();
            assert!(message.starts_with("column 1 is"), "{message}");
        }
    }

    #[test]
    fn the_packed_order_is_the_documented_one() {
        let mut vector = vec![0.0; 70];
        (vector[0], vector[32], vector[64], vector[67]) = (7.0, -7.0, 3.0, 1.0);
        let mut record = vec![0; Codec::Int4.bytes_per_vector(70)];
        encode(Codec::Int4, &vector, &mut record).unwrap();
        assert_eq!(record.len(), 32 + 3 + 2);
        assert_eq!(record[0], 0x1F, "dimension 0 low (7 + 8), dimension 32 high (-7 + 8)");
        assert_eq!(record[32], 0x9B, "the last block has 6 dimensions: 64 low (3 + 8), 67 high (1 + 8)");
        assert_eq!(bf16::from_le_bytes([record[35], record[36]]).to_f32(), 1.0);
    }
}
