//! How the kernel side is built, and which tools that takes.
//!
//! `cargo xtask setup` puts the tools in place and `agent/build.rs` uses them; both include this module, so neither
//! can disagree with the other about where a tool is or how it is called. The build script includes it by path
//! instead of depending on xtask, which would make every build of the agent compile xtask's command line first.
//! That is why nothing in here uses more than the standard library.

pub mod btf;
mod environment;
mod object;
mod rustc;
mod tools;

pub use environment::forget_outer_cargo;
pub use object::{ObjectBuild, TARGET_FOLDER};
pub use rustc::Rustc;
pub use tools::Tools;
