//! Searches of an index, one after the other.

use std::time::{Duration, Instant};

use super::{CostSpec, Op, STRIDE};
use crate::catalog::{CatalogError, Index, QueryVector};
use crate::codec::{Codec, record};
use crate::graph::{Filter, SearchOptions};
use crate::plan::Cost;
use crate::plan::meter::Meter;

/// How long searches with one effort are measured on all cores, and how long on one. A plan asks for a dozen efforts of
/// three indexes.
const SEARCHES: Duration = Duration::from_millis(80);

/// Users that search, at most, and bytes of them: more than a processor's nearest cache holds.
const USERS: usize = 16_384;
const USERS_BYTES: usize = 4 << 20;

/// Users as a store keeps them, and how they search.
pub(super) struct Searches {
    pub codec: Codec,
    pub records: Vec<Vec<u8>>,
    pub options: SearchOptions,
}

impl Searches {
    /// With some users of a file, evenly spread over it.
    pub fn new(spec: &CostSpec<'_>, ef: u32) -> Result<Self, CatalogError> {
        let options = SearchOptions { k: spec.k, ef: ef as usize };
        Ok(Self { codec: spec.codec, records: records(spec)?, options })
    }

    /// The `at`-th of many searches.
    pub fn run(&self, index: &Index, at: usize) -> Result<(), CatalogError> {
        let vector = QueryVector::Record(self.codec, &self.records[at * STRIDE % self.records.len()]);
        let found = index.search(vector, self.options, Filter::default())?;
        std::hint::black_box(found);
        Ok(())
    }

    /// One after the other: on each core, for what it takes, and then on one, for how long.
    pub fn measure(&self, index: &Index) -> Result<Op, CatalogError> {
        let run = |from: usize, timed: &mut dyn FnMut(Duration)| {
            let (mut done, started) = (0, Instant::now());
            while done == 0 || started.elapsed() < SEARCHES {
                let begun = Instant::now();
                self.run(index, from + done)?;
                timed(begun.elapsed());
                done += 1;
            }
            Ok(done)
        };
        (0..self.records.len().min(200)).try_for_each(|at| self.run(index, at))?;
        let meter = Meter::start();
        // the threads of the pool stay, so that their time is not lost with them
        let counts: Result<Vec<usize>, CatalogError> =
            rayon::broadcast(|thread| run(thread.index() * USERS, &mut |_| ())).into_iter().collect();
        let busy_us = meter.stop().busy(rayon::current_num_threads()).as_secs_f64() * 1e6;
        let mut alone = Vec::new();
        run(0, &mut |took| alone.push(took.as_secs_f64() * 1e6))?;
        let client_us = busy_us / counts?.iter().sum::<usize>() as f64;
        Ok(Op::new(Cost { client_us, ..Cost::default() }, alone))
    }
}

fn records(spec: &CostSpec<'_>) -> Result<Vec<Vec<u8>>, CatalogError> {
    let dim = spec.users.dim();
    let bytes = spec.codec.bytes_per_vector(dim);
    let count = USERS.min(spec.users.rows()).min((USERS_BYTES / bytes).max(1));
    let rows: Vec<u32> = (0..count).map(|at| (at * spec.users.rows() / count) as u32).collect();
    let mut vectors = vec![0.0; count * dim];
    spec.users.gather(&rows, &mut vectors)?;
    let record = |vector: &mut [f32]| {
        spec.metric.prepare(vector);
        let mut record = vec![0; bytes];
        record::encode(spec.codec, vector, &mut record).map(|()| record)
    };
    Ok(vectors.chunks_mut(dim).map(record).collect::<Result<_, _>>()?)
}
