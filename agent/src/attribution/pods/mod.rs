//! What several sources know about the pods of this node.

pub mod allow;
pub mod cri;
pub mod facts;
