//! Graphs forged under valid checksums, in the form of this format and in that of format 1: opened exactly when they
//! are sound, and then searched without harm.

use tonnage::catalog::Index;

use crate::forge::{Forger, Forgery, KINDS, M, N, small, try_all};
use crate::items::Random;

/// The first and the last row of each layer, and the one after: layer 0, then those above.
fn bounds(layers: &[u32]) -> Vec<usize> {
    let mut ends = vec![0, N];
    layers.iter().for_each(|&len| ends.push(ends[ends.len() - 1] + len as usize));
    ends
}

/// Whether rows and links are those of a graph, told one by one.
fn sound(layers: &[u32], starts: &[u32], links: &[u32]) -> bool {
    let bounds = bounds(layers);
    let whole = starts.len() == bounds[bounds.len() - 1] + 1
        && starts[0] == 0
        && starts[starts.len() - 1] as usize == links.len()
        && starts.is_sorted();
    whole
        && bounds.windows(2).all(|rows| {
            let len = (rows[1] - rows[0]) as u32;
            links[starts[rows[0]] as usize..starts[rows[1]] as usize].iter().all(|&link| link < len)
        })
}

/// A file with these rows, refused exactly when they are no graph.
fn graph(forger: &mut Forger, layers: &[u32], what: &str, starts: &[u32], links: &[u32]) -> bool {
    let mut sections = forger.sections.clone();
    for (tag, numbers) in [("starts", starts), ("links", links)] {
        sections.iter_mut().find(|(name, _)| name == tag).unwrap().1 = bytemuck::cast_slice(numbers).to_vec();
    }
    let sound = sound(layers, starts, links);
    forger.made.push(Forgery { what: what.to_owned(), sections, refused: !sound });
    sound
}

fn forge_starts(forger: &mut Forger, layers: &[u32]) {
    let (starts, links) = (forger.numbers::<u32>("starts"), forger.numbers::<u32>("links"));
    let bounds = bounds(layers);
    let (rows, count) = (starts.len() - 1, links.len() as u32);
    let with = |at: usize, start: u32| {
        let mut starts = starts.clone();
        starts[at] = start;
        starts
    };
    for start in [1, 2, count, u32::MAX] {
        assert!(!graph(forger, layers, "the first is not 0", &with(0, start), &links));
    }
    for end in [0, 1, count - 1, count + 1, 1 << 31, u32::MAX] {
        assert!(!graph(forger, layers, "the last is not the number of links", &with(rows, end), &links));
    }
    for at in [1, N / 2, N - 1, N, N + 1, rows - 1] {
        for start in [starts[at + 1] + 1, count + 1, u32::MAX] {
            assert!(!graph(forger, layers, "one is beyond the next", &with(at, start), &links));
        }
    }
    for len in [0, 1, 2, N, N + 1, rows - 1, rows] {
        assert!(!graph(forger, layers, "fewer", &starts[..len], &links), "{len}");
    }
    for more in [1, 2, N] {
        let longer = [&starts[..], &vec![count; more]].concat();
        assert!(!graph(forger, layers, "more", &longer, &links));
        assert!(!graph(forger, layers, "fewer links", &starts, &links[..links.len() - more]));
        assert!(!graph(forger, layers, "more links", &starts, &[&links[..], &vec![0; more]].concat()));
    }
    for pair in bounds.windows(2) {
        let ends = [starts[pair[0]], starts[pair[1]]];
        let one_has_all: Vec<u32> =
            (0..=rows).map(|row| if row > pair[0] && row < pair[1] { ends[1] } else { starts[row] }).collect();
        assert!(graph(forger, layers, "the first of a layer has all its links", &one_has_all, &links));
        let moved = with(pair[1], ends[0].max(starts[pair[1] - 1]));
        graph(forger, layers, "links of a layer moved to the next", &moved, &links);
    }
    let none = vec![0; rows + 1];
    assert!(graph(forger, layers, "no links", &none, &[]));
    let mut random = Random(5);
    for round in 0..60 {
        let mut drawn: Vec<u32> = starts.clone();
        for _ in 0..=round {
            drawn[1 + random.below(rows - 1)] = random.below(links.len() + 1) as u32;
        }
        graph(forger, layers, "some starts drawn anew", &drawn, &links);
        drawn[1..].sort_unstable();
        graph(forger, layers, "and put in order", &drawn, &links);
        bounds.iter().for_each(|&row| drawn[row] = starts[row]);
        drawn.sort_unstable();
        graph(forger, layers, "within their layers", &drawn, &links);
        assert!(graph(forger, layers, "all links to the entry", &drawn, &vec![0; links.len()]));
    }
}

fn forge_links(forger: &mut Forger, layers: &[u32]) {
    let (starts, links) = (forger.numbers::<u32>("starts"), forger.numbers::<u32>("links"));
    let bounds = bounds(layers);
    // A layer above admits its own nodes and no other of the graph's.
    for rows in bounds.windows(2) {
        let (first, end) = (starts[rows[0]] as usize, starts[rows[1]] as usize);
        let len = (rows[1] - rows[0]) as u32;
        for at in [first, first + 1, end - 1] {
            for link in [len, len + 1, 1 << 31, u32::MAX] {
                forger.number("links", at, link);
            }
        }
    }
    let mut random = Random(6);
    for round in 0..40 {
        let mut some = links.clone();
        for _ in 0..=8 * round {
            some.swap(random.below(links.len()), random.below(links.len()));
        }
        graph(forger, layers, "links swapped", &starts, &some);
        let drawn: Vec<u32> = links.iter().map(|_| random.below(N) as u32).collect();
        graph(forger, layers, "links drawn anew", &starts, &drawn);
        let end = starts[N] as usize;
        assert!(graph(forger, layers, "of layer 0", &starts, &[&drawn[..end], &links[end..]].concat()));
    }
    let alone: Vec<u32> = (0..N).flat_map(|row| vec![row as u32; (starts[row + 1] - starts[row]) as usize]).collect();
    let above = &links[alone.len()..];
    assert!(graph(forger, layers, "each to itself", &starts, &[&alone[..], above].concat()));
    for to in [0, 1, N as u32 - 1] {
        assert!(graph(forger, layers, "all to one", &starts, &[&vec![to; alone.len()], above].concat()));
    }
}

/// The same graph in the form of format 1: rows of a fixed length, filled up with the node itself.
fn as_format_1(forger: &mut Forger, layers: &[u32]) {
    let (starts, links) = (forger.numbers::<u32>("starts"), forger.numbers::<u32>("links"));
    let (mut base, mut upper) = (Vec::new(), Vec::new());
    for (layer, rows) in bounds(layers).windows(2).enumerate() {
        let (out, cap) = if layer == 0 { (&mut base, 2 * M) } else { (&mut upper, M) };
        for row in rows[0]..rows[1] {
            let used = &links[starts[row] as usize..starts[row + 1] as usize];
            out.extend_from_slice(used);
            out.extend(vec![(row - rows[0]) as u32; cap - used.len()]);
        }
    }
    for (name, bytes) in &mut forger.sections {
        match &**name {
            "links" => *bytes = bytemuck::cast_slice(&base).to_vec(),
            "starts" => (*name, *bytes) = ("upper".into(), bytemuck::cast_slice(&upper).to_vec()),
            _ => {}
        }
    }
}

fn forge_format_1(forger: &mut Forger, layers: &[u32]) {
    for at in [0, 1, 2 * M, N * 2 * M - 1] {
        for link in [N as u32, N as u32 + 1, 1 << 31, u32::MAX] {
            forger.number("links", at, link);
        }
    }
    let mut end = 0;
    for &len in layers {
        end += len as usize * M;
        for link in [len, N as u32 - 1, u32::MAX] {
            forger.number("upper", end - 1, link);
        }
    }
    for (tag, at_once) in [("links", 2 * M), ("upper", M)] {
        let bytes = forger.bytes(tag);
        for less in [1, 2, 4, at_once * 4, bytes.len() / 2, bytes.len()] {
            forger.must(tag, &format!("{less} bytes fewer"), bytes[..bytes.len() - less].to_vec());
        }
        for more in [1, 2, 4, at_once * 4] {
            forger.must(tag, &format!("{more} bytes more"), [&bytes[..], &vec![0; more]].concat());
        }
    }
    for m in [0, 1, 3, 5, 8, 128, 129, u32::MAX] {
        forger.field(true, "meta", "m", m.into());
    }
    let mut random = Random(7);
    let links = forger.numbers::<u32>("links");
    for round in 0..40 {
        let mut swapped = links.clone();
        for _ in 0..=8 * round {
            swapped.swap(random.below(links.len()), random.below(links.len()));
        }
        forger.may("links", &format!("{round} swaps"), bytemuck::cast_slice(&swapped).to_vec());
        let drawn: Vec<u32> = links.iter().map(|_| random.below(N) as u32).collect();
        forger.may("links", "drawn anew", bytemuck::cast_slice(&drawn).to_vec());
    }
    for place in 0..2 * M {
        let selves = (0..links.len()).map(|at| if at % (2 * M) == place { (at / (2 * M)) as u32 } else { links[at] });
        let selves: Vec<u32> = selves.collect();
        forger.may("links", &format!("itself at place {place}"), bytemuck::cast_slice(&selves).to_vec());
    }
    let alone: Vec<u32> = (0..links.len()).map(|at| (at / (2 * M)) as u32).collect();
    forger.may("links", "none", bytemuck::cast_slice(&alone).to_vec());
}

#[test]
fn forged_graphs_open_exactly_when_they_are_sound() {
    for kind in KINDS {
        let (folder, index) = small(kind);
        let layers = index.meta().layers.clone();
        let mut forger = Forger::of(&index);
        forge_starts(&mut forger, &layers);
        forge_links(&mut forger, &layers);
        let unsound = forger.made.iter().filter(|forgery| forgery.refused).count();
        let (refused, opened) = try_all(folder.path(), &forger.made);
        println!("{refused} refused, {opened} opened and answered");
        assert!(refused == unsound && opened > 100);
    }
}

#[test]
fn forged_graphs_of_format_1_are_refused_or_harmless() {
    for kind in KINDS {
        let (folder, index) = small(kind);
        let layers = index.meta().layers.clone();
        let mut forger = Forger::of(&index);
        as_format_1(&mut forger, &layers);
        forge_format_1(&mut forger, &layers);
        let (refused, opened) = try_all(folder.path(), &forger.made);
        println!("{refused} refused, {opened} opened and answered");
        assert!(refused > 40 && opened > 80);
    }
}

#[test]
fn a_graph_of_format_1_is_the_same_graph() {
    let (folder, index) = small(KINDS[0]);
    let mut forger = Forger::of(&index);
    as_format_1(&mut forger, &index.meta().layers);
    let path = folder.path().join("old.tng");
    crate::forge::write(&path, &forger.sections);
    let old = Index::open(&path).unwrap();
    for node in 0..N as u32 {
        assert_eq!(old.graph().links(node), index.graph().links(node));
    }
    for query in Random(8).normals(50 * crate::forge::DIM).chunks(crate::forge::DIM) {
        let ask = |index: &Index| crate::forge::walk(index, query);
        assert_eq!(ask(&old), ask(&index));
    }
}
