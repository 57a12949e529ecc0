//! The journal of changes: what was acknowledged is there again, or its loss is said; one process at a time; no longer
//! than it has to be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::live::{Stage, item};
use tonnage::codec::Metric;
use tonnage::engine::{EngineError, Live, LiveOptions, NewItem, OwnedId};

fn open(path: &Path) -> Result<Live, EngineError> {
    Live::open(path, LiveOptions::default())
}

fn hidden(live: &Live, items: std::ops::Range<u64>) -> usize {
    items.filter(|&item| !live.is_available(&OwnedId::U64(item))).count()
}

#[tokio::test]
async fn a_journal_cut_anywhere_keeps_all_that_was_whole() {
    let stage = Stage::new(Metric::Dot).await;
    let live = Live::open(&stage.journal(), LiveOptions::default()).unwrap();
    let mut lengths = vec![fs::metadata(stage.journal()).unwrap().len() as usize];
    let mut grown = || lengths.push(fs::metadata(stage.journal()).unwrap().len() as usize);
    live.set_available(&[(item(1), false), (item(2), false)]).unwrap();
    grown();
    let engine = stage.start_with(live).await;
    let numbers = BTreeMap::from([("price".to_owned(), 2.5), ("year".to_owned(), 1999.0)]);
    engine.add_items(vec![NewItem { numbers, ..stage.new_item("one", 1.0, &["a"]) }]).unwrap();
    grown();
    engine.delete_items(&[item(3)]).unwrap();
    grown();
    engine.live().set_available(&[(item(1), true)]).unwrap();
    grown();
    let whole = fs::read(stage.journal()).unwrap();
    let copy = stage.world.path("copy.journal");
    for cut in 0..=whole.len() {
        fs::write(&copy, &whole[..cut]).unwrap();
        let live = Live::open(&copy, LiveOptions::default()).unwrap();
        let records = lengths.iter().filter(|&&length| length <= cut).count();
        let state = (live.is_available(&item(1)), live.is_available(&item(2)), live.added_items());
        let expected = match records {
            0 | 1 => (true, true, 0),
            2 => (false, false, 0),
            3 | 4 => (false, false, 1),
            _ => (true, false, 1),
        };
        assert_eq!(state, expected, "cut at {cut} of {}", whole.len());
        // and what comes after is kept as well
        live.set_available(&[(item(9), false)]).unwrap();
        drop(live);
        assert!(!Live::open(&copy, LiveOptions::default()).unwrap().is_available(&item(9)), "cut at {cut}");
    }
    let folder = stage.world.path("no/such/folder/journal");
    assert!(matches!(Live::open(&folder, LiveOptions::default()), Err(EngineError::Journal { .. })));
}

#[test]
fn damage_before_a_later_write_is_refused_and_the_file_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let live = open(&path).unwrap();
    let mut ends = vec![fs::metadata(&path).unwrap().len() as usize];
    for turn in 0..4 {
        live.set_available(&[(OwnedId::U64(turn), false), (OwnedId::U64(10 + turn), false)]).unwrap();
        ends.push(fs::metadata(&path).unwrap().len() as usize);
    }
    drop(live);
    let whole = fs::read(&path).unwrap();
    let last = ends[3];
    for at in 0..whole.len() {
        for flip in [1, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            fs::write(&path, &damaged).unwrap();
            match open(&path) {
                Ok(live) => assert!(at >= last && hidden(&live, 0..20) == 6, "byte {at}"),
                Err(EngineError::JournalDamaged { at: from, next, .. }) => {
                    let write = ends.iter().rposition(|&end| end <= at).unwrap();
                    assert_eq!((from, next), (ends[write], ends[write + 1]), "byte {at}");
                    assert_eq!(fs::read(&path).unwrap(), damaged);
                }
                Err(error) => assert!(at < ends[0] && error.to_string().contains("not a journal"), "{at}: {error}"),
            }
        }
    }
    // a part that is gone altogether, within a write or the whole of one
    for (gone, next) in [(ends[1] + 5..ends[1] + 9, ends[2] - 4), (ends[1]..ends[2], ends[1])] {
        let damaged = [&whole[..gone.start], &whole[gone.end..]].concat();
        fs::write(&path, &damaged).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, EngineError::JournalDamaged { at, next: from, .. } if (at, from) == (ends[1], next)));
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    fs::write(&path, [&whole[..ends[1]], &vec![0; ends[3] - ends[1]], &whole[ends[3]..]].concat()).unwrap();
    let error = open(&path).unwrap_err().to_string();
    let words = [&format!("byte {}", ends[1]), &format!("byte {}", ends[3]), "restore the file", "move it away"];
    assert!(words.iter().all(|word| error.contains(*word)), "{error}");
}

#[test]
fn one_write_may_be_torn_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let live = open(&path).unwrap();
    live.set_available(&[(OwnedId::U64(7), false)]).unwrap();
    let before = fs::metadata(&path).unwrap().len() as usize;
    // so many are two records of one write
    let many: Vec<(OwnedId, bool)> = (100_000..200_001).map(|id| (OwnedId::U64(id), false)).collect();
    live.set_available(&many).unwrap();
    drop(live);
    let whole = fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn[before + 100..before + 5_000].fill(0);
    fs::write(&path, torn).unwrap();
    let live = open(&path).unwrap();
    assert_eq!((hidden(&live, 0..10), hidden(&live, 100_000..200_001)), (1, 0), "the write was never acknowledged");
    drop(live);
    fs::write(&path, whole).unwrap();
    assert_eq!(hidden(&open(&path).unwrap(), 100_000..200_001), 100_001);
}

#[test]
fn one_at_a_time_has_a_journal_and_the_other_is_told_who() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let first = open(&path).unwrap();
    first.set_available(&[(OwnedId::U64(1), false)]).unwrap();
    let before = fs::read(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, EngineError::JournalInUse { .. }), "{error}");
    let (error, own) = (error.to_string(), format!("process {}", std::process::id()));
    assert!(error.contains(&own) && error.contains("stop that one"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    first.set_available(&[(OwnedId::U64(2), false)]).unwrap();
    drop(first);
    assert_eq!(hidden(&open(&path).unwrap(), 0..5), 2);
}

#[test]
fn a_journal_stays_about_as_long_as_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inner").join("journal");
    fs::create_dir(folder.path().join("inner")).unwrap();
    let live = open(&path).unwrap();
    let items: Vec<OwnedId> = (0..50_000).map(OwnedId::U64).collect();
    let turn = |available: bool| {
        let all: Vec<(OwnedId, bool)> = items.iter().map(|item| (item.clone(), available)).collect();
        live.set_available(&all).unwrap();
        fs::metadata(&path).map_or(0, |about| about.len())
    };
    let one_turn = turn(false);
    for at in 0..20 {
        let len = turn(at % 2 == 1);
        assert!(len <= 4 * one_turn + (1 << 20), "{len} bytes where a turn is {one_turn}");
        assert_eq!(hidden(&live, 0..50_000), if at % 2 == 1 { 0 } else { 50_000 });
    }
    // where it cannot be written anew, it goes on growing and keeps what is acknowledged
    let away = folder.path().join("away");
    fs::rename(path.parent().unwrap(), &away).unwrap();
    for _ in 0..10 {
        turn(true);
    }
    assert!(fs::metadata(away.join("journal")).unwrap().len() > 8 * one_turn);
    turn(false);
    fs::rename(&away, path.parent().unwrap()).unwrap();
    drop(live);
    assert_eq!(hidden(&open(&path).unwrap(), 0..50_000), 50_000);
}
