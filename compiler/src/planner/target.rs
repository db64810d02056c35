//! What a plan decides: the channels of all Block-ReLUs and their choices, in one flat numbering.

use std::ops::Range;

use bcc_ir::Block;
use bcc_ir::graph::{Graph, NodeId, Op};

use super::menu::Menu;

/// The channels of one Block-ReLU. A class is a channel; the choices of all its channels are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The gate.
    pub node: NodeId,
    /// Name of its ONNX node.
    pub name: String,
    /// Channels.
    pub channels: usize,
    /// Rows and columns of a channel's map.
    pub map: [usize; 2],
    /// Choices of every channel.
    pub menu: Vec<Block>,
    /// Number of its first channel among all classes.
    pub first_class: usize,
    /// Number of its first choice among the choices of all classes.
    pub first_option: usize,
}

impl Layer {
    /// Numbers of a channel's choices.
    pub fn choices(&self, channel: usize) -> Range<usize> {
        let first = self.first_option + channel * self.menu.len();
        first..first + self.menu.len()
    }

    /// Numbers of its channels.
    pub fn classes(&self) -> Range<usize> {
        self.first_class..self.first_class + self.channels
    }

    /// Pixels of one channel.
    pub fn pixels(&self) -> usize {
        self.map[0] * self.map[1]
    }
}

/// All channels that a plan decides on, in the graph's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    /// Gates.
    pub layers: Vec<Layer>,
}

impl Targets {
    /// The plannable gates of a canonical graph, with the choices of a menu.
    pub fn of(graph: &Graph, menu: &Menu) -> Targets {
        let (mut class, mut option) = (0, 0);
        let mut layers = Vec::new();
        for id in graph.topo() {
            let node = graph.node(id);
            let (Op::BlockRelu { plannable: true, .. }, Some((channels, map))) = (&node.op, node.map()) else {
                continue;
            };
            let menu = menu.choices(map);
            let layer = Layer {
                node: id,
                name: node.name.clone(),
                channels,
                map,
                menu,
                first_class: class,
                first_option: option,
            };
            class += channels;
            option += channels * layer.menu.len();
            layers.push(layer);
        }
        Targets { layers }
    }

    /// Number of channels.
    pub fn classes(&self) -> usize {
        self.layers.last().map_or(0, |l| l.classes().end)
    }

    /// Number of choices of all channels.
    pub fn options(&self) -> usize {
        self.layers.last().map_or(0, |l| l.first_option + l.channels * l.menu.len())
    }

    /// The layer of a gate.
    pub fn layer_of(&self, node: NodeId) -> Option<&Layer> {
        self.layers.iter().find(|l| l.node == node)
    }

    /// Sign decisions with every ReLU kept.
    pub fn drelus(&self) -> u64 {
        self.layers.iter().map(|l| (l.channels * l.pixels()) as u64).sum()
    }

    /// Sign decisions of a choice of blocks by class.
    pub fn drelus_of(&self, blocks: &[Block]) -> u64 {
        let of = |l: &Layer| -> usize { blocks[l.classes()].iter().map(|b| b.drelus(l.map[0], l.map[1])).sum() };
        self.layers.iter().map(|l| of(l) as u64).sum()
    }

    /// The blocks of a graph's gates by class.
    pub fn blocks_of(&self, graph: &Graph) -> Vec<Block> {
        let mut blocks = Vec::with_capacity(self.classes());
        for layer in &self.layers {
            match &graph.node(layer.node).op {
                Op::BlockRelu { blocks: own, .. } if own.len() == layer.channels => blocks.extend_from_slice(own),
                _ => blocks.extend(std::iter::repeat_n(Block::RELU, layer.channels)),
            }
        }
        blocks
    }

    /// Gives the gates of a graph their blocks.
    pub fn apply(&self, graph: &mut Graph, blocks: &[Block]) {
        for layer in &self.layers {
            if let Op::BlockRelu { blocks: own, .. } = &mut graph.node_mut(layer.node).op {
                own.clear();
                own.extend_from_slice(&blocks[layer.classes()]);
            }
        }
    }
}
