//! Moving a user's vector by what they did just now.
//!
//! Each event pulls towards its item, or pushes away from it, by its kind's weight, halved with each half-life. The
//! vector goes a part of the way to where they pull together: `W / (W + inertia)`, `W` being all weights together, and
//! never more than the cap.
//!
//! The way depends on what the metric compares. For inner product and cosine only the direction of a user's vector
//! decides the order of items, and popular items have long vectors, so items count by direction: the vector turns on the
//! great circle towards their weighted mean and keeps its length. For L2 it moves straight towards their mean.

use std::time::Duration;

use super::request::Blend;
use crate::codec::Metric;
use crate::store::EventKind;

/// An event whose item is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull<'a> {
    pub kind: EventKind,
    pub age: Duration,
    /// The item's vector.
    pub item: &'a [f32],
}

/// Where a vector went.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Blended {
    pub vector: Vec<f32>,
    /// Part of the way that was gone.
    pub share: f32,
    /// How far that was: degrees, or for L2 the distance.
    pub drift: f32,
}

/// What an event weighs by now.
pub(super) fn weight(blend: &Blend, kind: EventKind, age: Duration) -> f32 {
    let lives = age.as_secs_f64() / blend.half_life.as_secs_f64();
    (f64::from(blend.weights[kind as usize]) * (-lives).exp2()) as f32
}

/// The user's vector, moved.
pub(super) fn blend(metric: Metric, user: &[f32], pulls: &[Pull], options: &Blend) -> Blended {
    let stay = || Blended { vector: user.to_vec(), share: 0.0, drift: 0.0 };
    let weights: Vec<f64> = pulls.iter().map(|pull| f64::from(weight(options, pull.kind, pull.age))).collect();
    let all: f64 = weights.iter().map(|weight| weight.abs()).sum();
    let share = (all / (all + f64::from(options.inertia))).min(f64::from(options.most_share));
    if all <= 0.0 || share <= 0.0 {
        return stay();
    }
    let moved = match metric {
        Metric::L2 => Some(move_straight(user, pulls, &weights, all, share)),
        Metric::Dot | Metric::Cosine => turn(user, pulls, &weights, share),
    };
    moved.map_or_else(stay, |(vector, drift)| Blended { vector, share: share as f32, drift: drift as f32 })
}

/// Where the events pull by themselves, when the user has no vector; `None` when nothing pulls.
pub(super) fn session_mean(metric: Metric, dim: usize, pulls: &[Pull], options: &Blend) -> Option<Vec<f32>> {
    let weights: Vec<f64> = pulls.iter().map(|pull| f64::from(weight(options, pull.kind, pull.age)).max(0.0)).collect();
    let all: f64 = weights.iter().sum();
    if all <= 0.0 {
        return None;
    }
    let mut mean = vec![0.0; dim];
    for (pull, weight) in pulls.iter().zip(&weights) {
        let scale = if metric == Metric::L2 { 1.0 } else { 1.0 / norm(pull.item).max(f64::MIN_POSITIVE) };
        mean.iter_mut().zip(pull.item).for_each(|(sum, &x)| *sum += weight / all * scale * f64::from(x));
    }
    let mut mean: Vec<f32> = mean.iter().map(|&x| x as f32).collect();
    metric.prepare(&mut mean);
    (metric == Metric::L2 || norm(&mean) > 1e-6).then_some(mean)
}

fn move_straight(user: &[f32], pulls: &[Pull], weights: &[f64], all: f64, share: f64) -> (Vec<f32>, f64) {
    let mut way = vec![0.0; user.len()];
    for (pull, weight) in pulls.iter().zip(weights) {
        let towards = pull.item.iter().zip(user).map(|(&to, &from)| f64::from(to) - f64::from(from));
        way.iter_mut().zip(towards).for_each(|(way, towards)| *way += weight / all * towards);
    }
    let drift = share * way.iter().map(|x| x * x).sum::<f64>().sqrt();
    let vector = user.iter().zip(&way).map(|(&x, way)| (f64::from(x) + share * way) as f32).collect();
    (vector, drift)
}

/// On the great circle (K. Shoemake, SIGGRAPH 1985). `None` where there is no way: the events cancel out, or pull
/// straight back.
fn turn(user: &[f32], pulls: &[Pull], weights: &[f64], share: f64) -> Option<(Vec<f32>, f64)> {
    let length = norm(user);
    let mut goal = vec![0.0; user.len()];
    for (pull, weight) in pulls.iter().zip(weights) {
        let scale = weight / norm(pull.item).max(f64::MIN_POSITIVE);
        goal.iter_mut().zip(pull.item).for_each(|(goal, &x)| *goal += scale * f64::from(x));
    }
    let goal_length = goal.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length <= 0.0 || goal_length <= 1e-9 * weights.iter().map(|weight| weight.abs()).sum::<f64>() {
        return None;
    }
    let cosine = user.iter().zip(&goal).map(|(&x, goal)| f64::from(x) / length * goal / goal_length).sum::<f64>();
    let angle = cosine.clamp(-1.0, 1.0).acos();
    let (from, to) = if angle < 1e-6 {
        (1.0 - share, share)
    } else if angle > std::f64::consts::PI - 1e-6 {
        return None;
    } else {
        (((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin())
    };
    let turned = |(&x, goal): (&f32, &f64)| (from * f64::from(x) + to * length / goal_length * goal) as f32;
    Some((user.iter().zip(&goal).map(turned).collect(), (share * angle).to_degrees()))
}

fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn angle(a: &[f32], b: &[f32]) -> f64 {
        let dot: f64 = a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
        (dot / (norm(a) * norm(b))).clamp(-1.0, 1.0).acos().to_degrees()
    }

    fn pulls<'a>(items: &'a [Vec<f32>], events: &[(usize, u64)]) -> Vec<Pull<'a>> {
        let pull = |(item, &(kind, age)): (&'a Vec<f32>, &(usize, u64))| Pull {
            kind: EventKind::ALL[kind],
            age: Duration::from_secs(age),
            item,
        };
        items.iter().zip(events).map(pull).collect()
    }

    prop_compose! {
        fn case()(dim in 2_usize..20, count in 1_usize..6)(
            user in prop::collection::vec(-1_f32..1.0, dim),
            items in prop::collection::vec(prop::collection::vec(-1_f32..1.0, dim), count),
            events in prop::collection::vec((0_usize..6, 0_u64..20_000), count),
            most_share in 0_f32..1.0, inertia in 0_f32..10.0,
        ) -> (Vec<f32>, Vec<Vec<f32>>, Vec<(usize, u64)>, Blend) {
            (user, items, events, Blend { inertia, most_share, ..Blend::default() })
        }
    }

    proptest! {
        /// The same way, gone in a thousand small straight steps, each brought back to the sphere.
        #[test]
        fn turning_is_walking_the_great_circle((user, items, events, options) in case()) {
            prop_assume!(norm(&user) > 0.1 && items.iter().all(|item| norm(item) > 0.1));
            let pulls = pulls(&items, &events);
            let moved = blend(Metric::Dot, &user, &pulls, &options);
            let mut goal = vec![0.0_f64; user.len()];
            for pull in &pulls {
                let weight = f64::from(options.weights[pull.kind as usize]) * 0.5_f64.powf(pull.age.as_secs_f64() / 1800.0);
                goal.iter_mut().zip(pull.item).for_each(|(goal, &x)| *goal += weight * f64::from(x) / norm(pull.item));
            }
            let goal: Vec<f32> = goal.iter().map(|&x| x as f32).collect();
            prop_assume!(norm(&goal) > 1e-3);
            let whole = angle(&user, &goal);
            prop_assume!(whole < 170.0 && whole > 1.0);
            let wanted = whole * f64::from(moved.share);
            // as far as it says, in the plane of the two, and of the same length
            prop_assert!((angle(&user, &moved.vector) - wanted).abs() < 0.1, "{} for {wanted}", angle(&user, &moved.vector));
            prop_assert!((angle(&moved.vector, &goal) - (whole - wanted)).abs() < 0.1);
            prop_assert!((f64::from(moved.drift) - wanted).abs() < 0.1);
            prop_assert!((norm(&moved.vector) - norm(&user)).abs() < 1e-4 * norm(&user));
            prop_assert!(moved.share <= options.most_share + 1e-6);
        }

        #[test]
        fn moving_straight_is_the_weighted_mean((user, items, events, options) in case()) {
            let pulls = pulls(&items, &events);
            let moved = blend(Metric::L2, &user, &pulls, &options);
            let weights: Vec<f64> = pulls.iter()
                .map(|pull| f64::from(options.weights[pull.kind as usize]) * 0.5_f64.powf(pull.age.as_secs_f64() / 1800.0))
                .collect();
            let all: f64 = weights.iter().map(|weight| weight.abs()).sum();
            let share = (all / (all + f64::from(options.inertia))).min(f64::from(options.most_share));
            for (at, &x) in user.iter().enumerate() {
                let way: f64 = pulls.iter().zip(&weights)
                    .map(|(pull, weight)| weight / all * (f64::from(pull.item[at]) - f64::from(x))).sum();
                let wanted = f64::from(x) + share * way;
                prop_assert!((f64::from(moved.vector[at]) - wanted).abs() < 1e-4, "{} for {wanted}", moved.vector[at]);
            }
        }

        #[test]
        fn no_cap_and_no_events_leave_the_vector_alone((user, items, events, options) in case()) {
            for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
                let none = Blend { most_share: 0.0, ..options };
                prop_assert_eq!(&blend(metric, &user, &pulls(&items, &events), &none).vector, &user);
                prop_assert_eq!(&blend(metric, &user, &[], &options).vector, &user);
                let opposite: Vec<f32> = user.iter().map(|x| -x).collect();
                let straight = [Pull { kind: EventKind::Click, age: Duration::ZERO, item: &opposite }];
                prop_assert!(blend(metric, &user, &straight, &options).vector.iter().all(|x| x.is_finite()));
            }
        }

        #[test]
        fn a_mean_lies_among_what_was_liked((_, items, events, options) in case()) {
            let (dim, pulls) = (items[0].len(), pulls(&items, &events));
            for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
                let mean = session_mean(metric, dim, &pulls, &options);
                let liked = pulls.iter().any(|pull| options.weights[pull.kind as usize] > 0.0);
                prop_assert!(liked || mean.is_none());
                prop_assert!(mean.is_none_or(|mean| mean.iter().all(|x| x.is_finite())));
            }
            let one = [Pull { kind: EventKind::Click, age: Duration::from_mins(1), item: &items[0] }];
            prop_assume!(norm(&items[0]) > 0.1);
            prop_assert_eq!(&session_mean(Metric::L2, dim, &one, &options).unwrap(), &items[0]);
            prop_assert!(angle(&session_mean(Metric::Cosine, dim, &one, &options).unwrap(), &items[0]) < 0.1);
        }
    }

    #[test]
    fn an_event_halves_with_each_half_life() {
        let options = Blend::default();
        let at = |minutes: u64| weight(&options, EventKind::Click, Duration::from_mins(minutes));
        assert_eq!([at(0), at(30), at(60), at(300)], [1.0, 0.5, 0.25, 1.0 / 1024.0]);
        assert!(weight(&options, EventKind::Dislike, Duration::ZERO) < 0.0);
        assert_eq!(weight(&options, EventKind::Click, Duration::MAX), 0.0);
    }
}
