//! `.safetensors`: the length of a JSON header, the header, then raw tensors.

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::InputError;
use super::disk::Disk;
use super::error::list;
use super::layout::{Element, Layout};

/// The format's own limit on its header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;

/// Finds the tensor called `name`, or the only two-dimensional float tensor.
pub(super) fn layout(disk: &Disk, name: Option<&str>) -> Result<Layout, InputError> {
    let (metadata, data) = metadata(disk)?;
    let (name, info) = choose(disk, &metadata, name)?;
    let element = element(info.dtype).filter(|_| info.shape.len() == 2);
    let (Some(element), &[rows, dim]) = (element, info.shape.as_slice()) else {
        return Err(InputError::format(
            disk.path(),
            format!("tensor `{name}` to be a two-dimensional F32, F16 or BF16"),
            format!("{:?} of shape {:?}", info.dtype, info.shape),
            "name another tensor as file.safetensors#name, or save this one as float32",
        ));
    };
    let (start, end) = info.data_offsets;
    Layout::dense(disk, data + start as u64, (rows as u64, dim as u64), element, data + end as u64)
}

fn element(dtype: Dtype) -> Option<Element> {
    match dtype {
        Dtype::F32 => Some(Element::F32),
        Dtype::F16 => Some(Element::F16),
        Dtype::BF16 => Some(Element::Bf16),
        _ => None,
    }
}

/// The header, and the byte its tensors are counted from. The crate checks that tensors neither overlap nor
/// leave holes and that shapes agree with lengths; the end of the last one is checked here.
fn metadata(disk: &Disk) -> Result<(Metadata, u64), InputError> {
    let mut length = [0; LENGTH_BYTES as usize];
    disk.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > disk.len() - LENGTH_BYTES {
        return Err(InputError::format(
            disk.path(),
            format!("a header of at most {MAX_HEADER_BYTES} bytes, inside the file"),
            format!("{length} bytes of header in a file of {}", disk.len()),
            "the file is truncated or not safetensors: save it again",
        ));
    }
    let mut header = vec![0; length as usize];
    disk.read_at(LENGTH_BYTES, &mut header)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| {
        InputError::format(
            disk.path(),
            "a safetensors header",
            e.to_string(),
            "the file is damaged or not safetensors: save it again",
        )
    })?;
    let data = LENGTH_BYTES + length;
    let expected = data.saturating_add(metadata.data_len() as u64);
    if expected != disk.len() {
        return Err(InputError::format(
            disk.path(),
            format!("{expected} bytes, as its header says"),
            format!("{} bytes", disk.len()),
            "the file is truncated or has bytes left over: save it again",
        ));
    }
    Ok((metadata, data))
}

fn choose<'a>(disk: &Disk, metadata: &'a Metadata, name: Option<&str>) -> Result<(String, &'a TensorInfo), InputError> {
    let names = metadata.offset_keys();
    if let Some(name) = name {
        return metadata.info(name).map(|info| (name.to_owned(), info)).ok_or_else(|| {
            InputError::format(
                disk.path(),
                format!("a tensor named `{name}`"),
                list(&names),
                "name one of these as file.safetensors#name",
            )
        });
    }
    let mut matrices = names.iter().filter_map(|name| {
        let info = metadata.info(name)?;
        (info.shape.len() == 2 && element(info.dtype).is_some()).then_some((name, info))
    });
    match (matrices.next(), matrices.next()) {
        (Some((name, info)), None) => Ok((name.clone(), info)),
        _ => Err(InputError::format(
            disk.path(),
            "one two-dimensional F32, F16 or BF16 tensor",
            list(&names),
            "name the one to read as file.safetensors#name",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use half::{bf16, f16};
    use safetensors::tensor::TensorView;

    use super::super::Vectors;
    use super::super::testing::{Folder, assert_says, f32s};
    use super::*;

    const VALUES: [f32; 6] = [1.5, -2.0, 0.25, 3.0, 0.0, -0.5];

    fn write(folder: &Folder, tensors: &[(&str, Dtype, &[usize], &[u8])]) -> PathBuf {
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
        folder.file("m.safetensors", safetensors::serialize(views, None).unwrap())
    }

    fn read(path: &Path) -> Vec<f32> {
        let vectors = Vectors::open(path).unwrap();
        let mut out = vec![0.0; vectors.rows() * vectors.dim()];
        vectors.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn the_only_float_matrix_is_read_in_every_dtype() {
        let folder = Folder::new();
        let f16s: Vec<u8> = VALUES.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let bf16s: Vec<u8> = VALUES.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        for (dtype, data) in [(Dtype::F32, &f32s(&VALUES)), (Dtype::F16, &f16s), (Dtype::BF16, &bf16s)] {
            let others = ("bias", Dtype::F32, &[3][..], &[0; 12][..]);
            let path = write(&folder, &[others, ("w", dtype, &[3, 2], data), ("n", Dtype::I64, &[1, 1], &[0; 8])]);
            assert_eq!(read(&path), VALUES);
        }
    }

    #[test]
    fn one_of_several_is_read_by_name() {
        let folder = Folder::new();
        let (items, users) = (f32s(&VALUES), f32s(&VALUES[..2]));
        let tensors = [("items", Dtype::F32, &[3, 2][..], &items[..]), ("users", Dtype::F32, &[1, 2], &users)];
        let path = write(&folder, &tensors);
        assert_says(&Vectors::open(&path).unwrap_err(), &path, &["`items`, `users`", "file.safetensors#name"]);
        assert_eq!(read(&folder.path("m.safetensors#items")), VALUES);
        assert_eq!(read(&folder.path("m.safetensors#users")), VALUES[..2]);
        let error = Vectors::open(&folder.path("m.safetensors#no")).unwrap_err();
        assert_says(&error, &path, &["`no`", "`items`, `users`"]);
    }

    #[test]
    fn other_tensors_and_damaged_headers_are_refused() {
        let folder = Folder::new();
        let path = write(&folder, &[("w", Dtype::I8, &[3, 2], &[0; 6])]);
        assert_says(&Vectors::open(&path).unwrap_err(), &path, &["F32, F16 or BF16"]);
        let error = Vectors::open(&folder.path("m.safetensors#w")).unwrap_err();
        assert_says(&error, &path, &["I8 of shape [3, 2]", "float32"]);
        for (bytes, says) in [
            (&u64::MAX.to_le_bytes()[..], "at most 100000000 bytes"),
            (&[9, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'], "inside the file"),
            (&[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'x'], "header"),
            (&[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}', 0], "left over"),
            (&[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'], "none"),
        ] {
            let path = folder.file("m.safetensors", bytes);
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &[says]);
        }
    }
}
