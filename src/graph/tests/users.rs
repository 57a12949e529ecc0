//! Links for users: what they cost and what they find.

use super::*;

/// Users of fifty tastes, each between three clusters of the items, where no item is.
fn between(count: usize, dim: usize, centres: usize, seed: u64) -> Vec<Vec<f32>> {
    let middles = clustered(centres, dim, centres, 1.0, 3);
    let mut next = numbers(seed);
    let user = |at: usize| {
        let of = |at: usize| &middles[at * 7 % centres];
        let sum = of(at % 50 + 1).iter().zip(of(at % 50 + 60)).zip(of(at % 50 + 130)).map(|((a, b), c)| a + b + c);
        sum.map(|x| x + 0.5 * next()).collect()
    };
    (0..count).map(user).collect()
}

fn attuned(vectors: &[Vec<f32>], metric: Metric, users: &[Vec<f32>]) -> Fixture {
    let options = BuildOptions { m: 4, ef_construction: 30, ..BuildOptions::new(metric) };
    let (order, lens) = order::order(vectors.len(), options.m, options.seed);
    let rows = Rows::new(Codec::Int8, metric, vectors, &order);
    let query = |user: &Vec<f32>| {
        let mut query = Query::default();
        query.prepare(rows.layout, user).map(|()| query)
    };
    let users: Vec<Query> = users.iter().map(query).collect::<Result<_, _>>().unwrap();
    let built = build(rows.matrix(order.len()), &options, &lens, &users, &|_| ());
    Fixture { order, rows, built }
}

#[test]
fn users_not_known_to_the_builder_find_more_where_others_like_them_were() {
    for metric in [Metric::Dot, Metric::L2] {
        let vectors = clustered(6000, 24, 300, 1.0, 3);
        let users = between(3000, 24, 300, 31);
        let (known, held_out) = users.split_at(2700);
        let (without, with) = (attuned(&vectors, metric, &[]), attuned(&vectors, metric, known));
        structure(&with.built.graph(), vectors.len()).unwrap();
        assert_eq!(unreachable(&with.built.graph()), 0);
        assert!(with.built.links.len() > without.built.links.len());
        assert!(with.built.graph().mean_degree() <= 12.0, "a row has room for half as many links again as it keeps");
        let recall = |fixture| recall(fixture, held_out, 16, kernel::best()).0;
        let (before, after) = (recall(&without), recall(&with));
        assert!(after > before + 0.05, "{metric}: recall@10 {before} became {after}");
    }
}

#[test]
fn links_for_users_do_not_depend_on_the_number_of_threads() {
    let (vectors, users) = (clustered(4000, 16, 200, 5.0, 9), between(1500, 16, 200, 10));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| attuned(&vectors, Metric::Dot, &users).built)
    };
    let one = with(1);
    for threads in [2, 8] {
        let other = with(threads);
        assert_eq!((&one.links, &one.starts, one.repaired), (&other.links, &other.starts, other.repaired));
    }
}
