//! Which place of an answer goes to which source.

use super::request::{Mix, Source};

/// The source of each of `k` places. Pinned places are where they are asked for; each quota is spread evenly over the
/// others, and what no quota claims is personal.
///
/// At each place the source that is furthest behind its share comes next (the quota method of M. Balinski and H. Young,
/// 1975, without its upper bound: a source is never a whole item behind).
pub(super) fn plan(mix: &Mix, k: usize) -> Vec<Source> {
    let pinned = |place: usize| mix.pins.iter().any(|pin| pin.place == place);
    let free = k - mix.pins.len().min(k);
    let mut shares: Vec<(Source, usize)> = vec![(Source::Personal, 0)];
    for quota in &mix.quotas {
        match shares.iter_mut().find(|(source, _)| *source == quota.source) {
            Some((_, count)) => *count += quota.count,
            None => shares.push((quota.source, quota.count)),
        }
    }
    let claimed: usize = shares.iter().map(|(_, count)| count).sum();
    shares[0].1 += free.saturating_sub(claimed);
    let all: usize = shares.iter().map(|(_, count)| count).sum();
    let mut given = vec![0_usize; shares.len()];
    let mut at = 0;
    let mut next = || {
        at += 1;
        // in whole numbers: share * at / all - given
        let behind = |source: usize| (shares[source].1 * at) as i64 - (given[source] * all) as i64;
        let best = (0..shares.len()).rev().max_by_key(|&source| behind(source)).unwrap_or(0);
        given[best] += 1;
        shares[best].0
    };
    (0..k).map(|place| if pinned(place) { Source::Pinned } else { next() }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::{OwnedId, Pin, Quota};
    use super::*;

    fn mix(session: usize, popular: usize, new: usize, pins: &[usize]) -> Mix {
        let quota = |source, count| Quota { source, count };
        Mix {
            quotas: vec![quota(Source::Session, session), quota(Source::Popular, popular), quota(Source::New, new)],
            pins: pins.iter().map(|&place| Pin { place, item: OwnedId::U64(1) }).collect(),
        }
    }

    proptest! {
        #[test]
        fn every_quota_is_met_and_spread(
            (session, popular, new) in (0_usize..5, 0_usize..5, 0_usize..5), extra in 1_usize..20,
            pins in prop::collection::btree_set(0_usize..10, 0..3),
        ) {
            let pins: Vec<usize> = pins.into_iter().collect();
            let k = session + popular + new + pins.len() + extra.max(10);
            let plan = plan(&mix(session, popular, new, &pins), k);
            let of = |wanted: Source| plan.iter().filter(|&&source| source == wanted).count();
            prop_assert_eq!(plan.len(), k);
            prop_assert_eq!([of(Source::Session), of(Source::Popular), of(Source::New)], [session, popular, new]);
            prop_assert_eq!(of(Source::Personal), k - session - popular - new - pins.len());
            prop_assert!(pins.iter().all(|&place| plan[place] == Source::Pinned));
            // in any beginning no source is two items off its share
            let free: Vec<Source> = plan.iter().copied().filter(|&source| source != Source::Pinned).collect();
            for (source, count) in [(Source::Session, session), (Source::Popular, popular), (Source::New, new)] {
                for end in 1..=free.len() {
                    let share = count as f64 * end as f64 / free.len() as f64;
                    let got = free[..end].iter().filter(|&&one| one == source).count() as f64;
                    prop_assert!((got - share).abs() < 2.0, "{source:?}: {got} for {share} of the first {end}");
                }
            }
        }
    }

    #[test]
    fn without_a_mix_all_is_personal() {
        assert_eq!(plan(&Mix::default(), 3), [Source::Personal; 3]);
        let two = mix(0, 2, 0, &[]);
        let p = Source::Personal;
        assert_eq!(plan(&two, 6), [p, Source::Popular, p, p, Source::Popular, p]);
    }
}
