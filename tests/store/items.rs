//! Item vectors published by row are read by a program that knows nothing but the wire format.

use std::process::{Command, Output};

use crate::support::RedisServer;
use tonnage::codec::{Codec, record};
use tonnage::store::{Ids, ReleaseSpec, Users, activate, items_ns, publish};

const DIM: usize = 100;
const ITEMS: u32 = 1_000;

fn vector(row: u32) -> Vec<f32> {
    (0..DIM as u32).map(|at| (((row + 1) * (at + 3)) % 201) as f32 / 100.0 - 1.0).collect()
}

/// `python3 tools/read_items.py` with the namespace and rows.
fn read(server: &RedisServer, ns: &str, rows: &[u32]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/read_items.py");
    let mut python = Command::new("python3");
    python.args([script, "127.0.0.1", &server.port().to_string(), ns]).args(rows.iter().map(u32::to_string));
    python.output().unwrap_or_else(|e| panic!("python3 must be installed for this test: {e}"))
}

#[tokio::test]
async fn another_program_reads_what_was_published() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let ns = items_ns("shop");
    for codec in [Codec::F32, Codec::F16, Codec::Int8, Codec::Int4] {
        let bytes = codec.bytes_per_vector(DIM);
        let encode = |rows: &[u32], out: &mut [u8]| {
            for (&row, out) in rows.iter().zip(out.chunks_exact_mut(bytes)) {
                record::encode(codec, &vector(row), out)?;
            }
            Ok(())
        };
        let spec = ReleaseSpec {
            name: format!("items-{codec:?}"),
            fingerprint: 7,
            codec,
            dim: DIM as u32,
            grace: ReleaseSpec::DEFAULT_GRACE,
        };
        publish(&kv, &ns, &spec, &Users { count: ITEMS, ids: Ids::Dense, encode: &encode }, &mut |_| ()).await.unwrap();
        activate(&kv, &ns, &spec.name).await.unwrap();
        let rows = [0, 1, 57, 500, ITEMS - 1];
        let output = read(&server, &ns, &rows);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), rows.len());
        for (line, row) in text.lines().zip(rows) {
            let numbers: Vec<f32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
            let mut record = vec![0; bytes];
            record::encode(codec, &vector(row), &mut record).unwrap();
            let mut wanted = vec![0.0; DIM];
            record::decode(codec, &record, &mut wanted).unwrap();
            assert_eq!((numbers[0], &numbers[1..]), (row as f32, wanted.as_slice()), "{codec:?}");
        }
        let beyond = read(&server, &ns, &[ITEMS]);
        assert!(!beyond.status.success() && beyond.stdout.is_empty(), "{codec:?}");
    }
}

#[tokio::test]
async fn a_namespace_without_items_is_said_to_have_none() {
    let server = RedisServer::start(&[]);
    let output = read(&server, &items_ns("shop"), &[0]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("shop.items:current"));
}
