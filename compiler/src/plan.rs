//! Plan files: which block every channel of every ReLU gets, as readable RON.
//!
//! ```ron
//! Plan(
//!     network: "resnet20",
//!     correct: "none",
//!     layers: {
//!         "relu1": ["4x4"],                              // all channels
//!         "relu2": ["12*2x2", "2*identity", "2*zero"],   // 16 channels, in order
//!     },
//! )
//! ```
//!
//! Layers go by the name of their ONNX node. An entry is `[COUNT*]BLOCK`, a block `HxW` (rows by
//! columns), `identity`, `zero` or `keep` (the ordinary ReLU, `1x1`). A single entry without a count
//! stands for all channels. A layer that is not named keeps its ReLUs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use bcc_ir::Block;
use bcc_ir::graph::{Graph, Op};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::passes::correct::Correction;

/// Block choices by layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name of the network it was made for; not checked.
    #[serde(default)]
    pub network: String,
    /// The correction it was made for, as a word: `mean`, `scale`, `weights` or `none`.
    #[serde(default, with = "word")]
    pub correct: Option<Correction>,
    /// Entries by ONNX node name; a name stands once.
    #[serde(deserialize_with = "unique")]
    pub layers: BTreeMap<String, Vec<String>>,
}

/// A correction as a word in quotes.
mod word {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::passes::correct::Correction;

    pub(super) fn serialize<S: Serializer>(c: &Option<Correction>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&c.map_or_else(|| "none".to_string(), |c| c.to_string()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Correction>, D::Error> {
        match String::deserialize(from)?.as_str() {
            "none" => Ok(None),
            word => word.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

/// Reads a map and refuses a key that comes twice.
fn unique<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    struct Layers;
    impl<'de> Visitor<'de> for Layers {
        type Value = BTreeMap<String, Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("lists of blocks by layer")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut layers = BTreeMap::new();
            while let Some((layer, entries)) = map.next_entry::<String, Vec<String>>()? {
                if layers.insert(layer.clone(), entries).is_some() {
                    return Err(M::Error::custom(format!("layer \"{layer}\" is named twice")));
                }
            }
            Ok(layers)
        }
    }
    from.deserialize_map(Layers)
}

/// Why a plan cannot be used.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read the plan {path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// Not RON of a plan's structure.
    #[error("{path} is no plan: {reason}")]
    Syntax {
        /// File.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A layer that the network does not have.
    #[error("the plan names \"{layer}\", which is no ReLU of this network; its ReLUs are: {known}")]
    UnknownLayer {
        /// The name.
        layer: String,
        /// Names of the network's ReLUs.
        known: String,
    },
    /// Entries that do not fit a layer.
    #[error("plan, layer \"{layer}\": {reason}")]
    Entry {
        /// Layer.
        layer: String,
        /// What does not fit.
        reason: String,
    },
    /// A block that cannot be read.
    #[error("\"{text}\" is no block: write HxW (such as 4x4), identity, zero or keep")]
    Block {
        /// What was given.
        text: String,
    },
}

impl PlanError {
    pub(crate) fn unknown(layer: &str, graph: &Graph) -> PlanError {
        PlanError::UnknownLayer { layer: layer.into(), known: relus(graph).join(", ") }
    }
}

/// Reads `HxW`, `identity`, `zero` or `keep`.
pub fn parse_block(text: &str) -> Result<Block, PlanError> {
    let bad = || PlanError::Block { text: text.into() };
    match text.trim() {
        "identity" => Ok(Block::Identity),
        "zero" => Ok(Block::Zero),
        "keep" => Ok(Block::RELU),
        other => {
            let (h, w) = other.split_once(['x', 'X']).ok_or_else(bad)?;
            let side = |s: &str| s.trim().parse::<usize>().ok().filter(|n| (1..=1 << 20).contains(n));
            match (side(h), side(w)) {
                (Some(h), Some(w)) => Ok(Block::Patch { h, w }),
                _ => Err(bad()),
            }
        }
    }
}

impl Plan {
    /// Reads a plan file.
    pub fn load(path: &Path) -> Result<Plan, PlanError> {
        let text = std::fs::read_to_string(path).map_err(|source| PlanError::Io { path: path.into(), source })?;
        ron::from_str(&text).map_err(|e| PlanError::Syntax { path: path.into(), reason: e.to_string() })
    }

    /// The same block for every channel of every ReLU of a network.
    pub fn uniform(graph: &Graph, block: Block) -> Plan {
        let layers = relus(graph).into_iter().map(|name| (name, vec![block.to_string()])).collect();
        Plan { network: graph.name.clone(), correct: None, layers }
    }

    /// The choices that a graph holds.
    pub fn of(graph: &Graph) -> Plan {
        let mut layers = BTreeMap::new();
        for id in graph.topo() {
            let node = graph.node(id);
            if let Op::BlockRelu { blocks, plannable: true } = &node.op {
                layers.insert(node.name.clone(), Plan::entries(blocks));
            }
        }
        Plan { network: graph.name.clone(), correct: None, layers }
    }

    /// The entries of a layer with the given blocks.
    pub fn entries(blocks: &[Block]) -> Vec<String> {
        let entry = |run: &[Block]| match run {
            all if all.len() == blocks.len() => all[0].to_string(),
            [b] => b.to_string(),
            many => format!("{}*{}", many.len(), many[0]),
        };
        blocks.chunk_by(|a, b| a == b).map(entry).collect()
    }

    /// The plan as RON text.
    pub fn to_ron(&self) -> Result<String, ron::Error> {
        let config = ron::ser::PrettyConfig::new().struct_names(true).depth_limit(2);
        Ok(ron::ser::to_string_pretty(self, config)? + "\n")
    }

    /// Layers with a block larger than their map, where it is cut off, and the size of the map: a plan made for larger
    /// images has such.
    pub fn clipped(&self, graph: &Graph) -> Vec<(String, [usize; 2])> {
        let clipped = |(layer, entries): (&String, &Vec<String>)| {
            let (_, [h, w]) = graph.node(graph.find(layer)?).map()?;
            let block = |e: &String| parse_block(e.rsplit_once('*').map_or(e.as_str(), |(_, block)| block)).ok();
            let larger = |b: Block| matches!(b, Block::Patch { h: bh, w: bw } if bh > h || bw > w);
            entries.iter().filter_map(block).any(larger).then(|| (layer.clone(), [h, w]))
        };
        self.layers.iter().filter_map(clipped).collect()
    }

    /// Puts the plan's blocks into a graph. Nothing is changed if any part does not fit.
    pub fn apply(&self, graph: &mut Graph) -> Result<(), PlanError> {
        let mut chosen = Vec::new();
        for (layer, entries) in &self.layers {
            let found =
                graph.find(layer).filter(|i| matches!(graph.node(*i).op, Op::BlockRelu { plannable: true, .. }));
            let Some(id) = found else {
                return Err(PlanError::unknown(layer, graph));
            };
            let channels = graph.node(id).map().map_or(0, |(c, _)| c);
            chosen.push((id, read_entries(layer, entries, channels, &parse_block)?));
        }
        for (id, new) in chosen {
            if let Op::BlockRelu { blocks, .. } = &mut graph.node_mut(id).op {
                *blocks = new;
            }
        }
        Ok(())
    }
}

fn relus(graph: &Graph) -> Vec<String> {
    let plannable = |i: &bcc_ir::graph::NodeId| matches!(graph.node(*i).op, Op::BlockRelu { plannable: true, .. });
    graph.topo().into_iter().filter(plannable).map(|i| graph.node(i).name.clone()).collect()
}

/// The choice of every channel from a layer's entries, each read by `read`.
pub(crate) fn read_entries<T: Copy>(
    layer: &str,
    entries: &[String],
    channels: usize,
    read: &dyn Fn(&str) -> Result<T, PlanError>,
) -> Result<Vec<T>, PlanError> {
    let bad = |reason: String| PlanError::Entry { layer: layer.into(), reason };
    if let [only] = entries
        && !only.contains('*')
    {
        let block = read(only).map_err(|e| bad(e.to_string()))?;
        return Ok(vec![block; channels]);
    }
    let mut blocks = Vec::with_capacity(channels);
    for entry in entries {
        let (count, block) = match entry.split_once('*') {
            Some((n, block)) => {
                let n = n.trim().parse::<usize>().map_err(|_| bad(format!("\"{n}\" in \"{entry}\" is no count")))?;
                (n, block)
            }
            None => (1, entry.as_str()),
        };
        let block = read(block).map_err(|e| bad(e.to_string()))?;
        if count > channels - blocks.len() {
            return Err(bad(format!("the entries give more than its {channels} channels")));
        }
        blocks.extend(std::iter::repeat_n(block, count));
    }
    if blocks.len() != channels {
        return Err(bad(format!("the entries give {} of its {channels} channels", blocks.len())));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::Plan;

    #[test]
    fn a_layer_named_twice_is_refused() {
        let text = r#"Plan(layers: {"a": ["1x1"], "b": ["2x2"], "a": ["zero"]})"#;
        let error = ron::from_str::<Plan>(text).map(|_| ()).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("\"a\" is named twice")));
    }
}
