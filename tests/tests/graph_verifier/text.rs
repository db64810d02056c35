//! RON texts of graphs, whole and damaged.

use super::*;

#[test]
fn every_stage_round_trips_as_ron() {
    for name in TINY {
        for (stage, graph) in stages(name) {
            let text = graph.to_ron().unwrap();
            let back = Graph::from_ron(&text).unwrap_or_else(|e| panic!("{name}, {stage:?}: {e}"));
            verify(&back, stage).unwrap();
            assert_eq!(back.to_string(), graph.to_string(), "{name}, {stage:?}");
            assert_eq!(back.to_ron().unwrap(), text, "{name}, {stage:?}");
        }
    }
}

/// Whatever a text says, reading, printing, verifying and compiling it end.
fn survives(text: &str) -> bool {
    let Ok(graph) = Graph::from_ron(text) else { return false };
    assert!(!graph.to_string().is_empty());
    for stage in [Stage::Canonical, Stage::Ranged, Stage::Quantized] {
        let _ = verify(&graph, stage);
    }
    if graph.topo().iter().map(|i| graph.node(*i).len()).max().unwrap_or(0) < 1 << 20 {
        let mut o = options(BlockChoice::Keep, Vec::new());
        o.passes.input_bound = Some(1.5);
        let _ = compile_graph(graph, &o, &mut Quiet);
    }
    true
}

#[test]
fn damaged_ron_does_not_panic() {
    let all = stages("tiny_plain");
    let subjects = [&all[0].1, &all.last().unwrap().1];
    let mut numbers = Numbers::new(0x707);
    let mut refused = 0;
    for graph in subjects {
        let text = graph.to_ron().unwrap();
        for cut in (0..text.len()).step_by(text.len() / 40) {
            assert!(!text.is_char_boundary(cut) || Graph::from_ron(&text[..cut]).is_err());
        }
        for _ in 0..600 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..numbers.between(1, 2) {
                let at = numbers.below(bytes.len());
                bytes[at] ^= 1 << numbers.below(7);
            }
            let Ok(text) = String::from_utf8(bytes) else { continue };
            refused += usize::from(!survives(&text));
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Every number of the structure (not of the weights) replaced by odd ones.
#[test]
fn odd_numbers_in_ron_do_not_panic() {
    let all = stages("tiny_pools");
    let (mut tried, mut refused) = (0, 0);
    for graph in [&all[0].1, &all.last().unwrap().1] {
        let mut value = serde_json::to_value(graph).unwrap();
        // Weights small enough to leave out: their numbers are data.
        let consts = value["consts"].take();
        let mut paths = Vec::new();
        numbers_in(&value, &mut String::new(), &mut paths);
        value["consts"] = consts;
        for path in paths.iter().step_by(3) {
            for odd in [json!(0), json!(3), json!(255), json!(1u64 << 33), json!(u64::MAX), json!(-1)] {
                let mut mutant = value.clone();
                *mutant.pointer_mut(path).unwrap() = odd;
                tried += 1;
                let Ok(graph) = serde_json::from_value::<Graph>(mutant) else {
                    refused += 1;
                    continue;
                };
                for stage in [Stage::Imported, Stage::Canonical, Stage::Ranged, Stage::Quantized] {
                    refused += usize::from(stage == Stage::Quantized && verify(&graph, stage).is_err());
                }
                assert!(!graph.to_string().is_empty());
            }
        }
    }
    assert!(tried > 2000 && refused * 10 > tried * 8, "{refused} of {tried}");
}

fn numbers_in(value: &Value, path: &mut String, found: &mut Vec<String>) {
    let mut inside = |key: &str, v: &Value| {
        let len = path.len();
        *path += &format!("/{key}");
        numbers_in(v, path, found);
        path.truncate(len);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| inside(k, v)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| inside(&i.to_string(), v)),
        Value::Number(_) => found.push(path.clone()),
        _ => {}
    }
}
