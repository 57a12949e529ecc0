//! Who asked when: the log that hit rates, resident entries and users worth keeping are estimated from.

use std::path::Path;

use super::sheet::{self, Wanted};
use super::{Id, InputError};

/// Seconds that a row may be earlier than one before it. Logs merged from several machines are out of order by less; a
/// log that is more so is not sorted by time, and every gap taken from it would be wrong.
const LATE_S: f64 = 60.0;
/// The year 5138: no log in seconds reaches it, and one in milliseconds does since 1973.
const END_S: f64 = 1e11;

/// Calls `f(user, time_s)` for each row of a log, in bounded memory, with times that never fall: a row at most a minute
/// late is given the time of the latest before it, a later one is refused. Returns how many were late.
///
/// The file is `.csv`, `.parquet`, `.arrow` or `.feather` with the columns `user` (or `user_id`) and `time` (or
/// `timestamp`, `ts`), seconds since any beginning, or a table's own timestamps; others are ignored.
pub fn read_accesses<E: From<InputError>>(
    path: &Path,
    mut f: impl FnMut(Id<'_>, f64) -> Result<(), E>,
) -> Result<u64, E> {
    let wanted = [Wanted::required(&["user", "user_id"]), Wanted::required(&["time", "timestamp", "ts"])];
    let (mut latest, mut late) = (f64::NEG_INFINITY, 0);
    sheet::for_each_row(path, &wanted, |row| {
        let time = row.number(1)?;
        if !(0.0..END_S).contains(&time) {
            let remedy = "write times in seconds since 1970, not in milliseconds";
            return Err(row.refuse_number(1, "seconds, from 0 to 1e11", time, remedy).into());
        }
        if time < latest - LATE_S {
            let expected = format!("a time not before {}", latest - LATE_S);
            return Err(row.refuse_number(1, &expected, time, "sort the log by time").into());
        }
        late += u64::from(time < latest);
        latest = latest.max(time);
        f(row.id(0)?, latest)
    })?;
    Ok(late)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, TimestampMillisecondArray};

    use super::super::testing::{Folder, assert_says, numbers, texts};
    use super::*;

    fn log(path: &Path) -> Result<(String, u64), InputError> {
        let mut seen = String::new();
        let late = read_accesses(path, |user, time| {
            seen.extend([user.to_string().as_str(), "@", time.to_string().as_str(), " "]);
            Ok::<_, InputError>(())
        })?;
        Ok((seen, late))
    }

    #[test]
    fn rows_come_in_order_from_every_kind_of_file() {
        let folder = Folder::new();
        let stamps = TimestampMillisecondArray::from(vec![1_000, 1_500, 1_500]).with_timezone("UTC");
        for times in [Arc::new(stamps) as ArrayRef, Arc::new(Float64Array::from(vec![1.0, 1.5, 1.5]))] {
            for path in folder.tables(&[("ts", times), ("user_id", texts(&["ann", "7", "ann"]))]) {
                assert_eq!(log(&path).unwrap(), ("ann@1 7@1.5 ann@1.5 ".to_owned(), 0));
            }
        }
        let path = folder.file("l.csv", "time,user,page\n10,ann,/\n 11.5 ,18446744073709551615,/a\n");
        assert_eq!(log(&path).unwrap(), ("ann@10 18446744073709551615@11.5 ".to_owned(), 0));
        assert_eq!(log(&folder.file("e.csv", "time,user\n")).unwrap(), (String::new(), 0));
    }

    #[test]
    fn a_row_is_late_by_a_minute_or_refused() {
        let folder = Folder::new();
        let path = folder.file("l.csv", "user,time\na,100\nb,40\nc,101\n");
        assert_eq!(log(&path).unwrap(), ("a@100 b@100 c@101 ".to_owned(), 1));
        let path = folder.file("l.csv", "user,time\na,100\nb,39.9\n");
        assert_says(&log(&path).unwrap_err(), &path, &["line 3", "not before 40", "39.9", "sort the log by time"]);
        // unsigned numbers far apart are no trouble
        for path in folder.tables(&[("user", numbers(&[1, u64::MAX])), ("time", numbers(&[0, 99_999_999_999]))]) {
            assert_eq!(log(&path).unwrap().1, 0);
        }
    }

    #[test]
    fn times_that_are_none_are_refused() {
        let folder = Folder::new();
        for (time, says) in [
            ("NaN", "finite"),
            ("inf", "finite"),
            ("", "finite"),
            ("2026-01-01", "finite"),
            ("-1", "from 0"),
            ("1759300000000", "milliseconds"),
        ] {
            let path = folder.file("l.csv", format!("user,time\nann,{time}\n"));
            assert_says(&log(&path).unwrap_err(), &path, &["line 2", "column time", says]);
        }
        let path = folder.file("l.csv", "user,when\nann,1\n");
        assert_says(&log(&path).unwrap_err(), &path, &["`time` or `timestamp` or `ts`", "`when`"]);
    }
}
