//! RON serialization of a whole graph, weights included.

use thiserror::Error;

use super::{Graph, Stage, Violations, verify};

/// Why a RON text is no graph.
#[derive(Debug, Error)]
pub enum TextError {
    /// Not RON, or not of a graph's structure.
    #[error("not a graph in RON: {0}")]
    Syntax(#[from] ron::error::SpannedError),
    /// A graph that breaks an invariant.
    #[error("the graph is not well formed: {0}")]
    Invalid(#[from] Violations),
    /// The graph cannot be written.
    #[error("cannot write the graph as RON: {0}")]
    Write(#[from] ron::Error),
}

impl Graph {
    /// The graph as RON. Weights are written in full, so this is for small networks.
    pub fn to_ron(&self) -> Result<String, TextError> {
        Ok(ron::ser::to_string_pretty(self, ron::ser::PrettyConfig::new().depth_limit(3))?)
    }

    /// Reads what [`Graph::to_ron`] wrote and verifies it structurally.
    pub fn from_ron(text: &str) -> Result<Graph, TextError> {
        let graph: Graph = ron::from_str(text)?;
        verify(&graph, Stage::Imported)?;
        Ok(graph)
    }
}
