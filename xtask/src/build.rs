//! `cargo xtask build`.

use anyhow::Result;

use crate::{
    cargo,
    cli::Build,
    setup::{self, Scope},
};

/// Builds both sides and says where the program is.
pub fn perform(options: &Build) -> Result<()> {
    setup::perform_if_missing(Scope::Build)?;
    let program = cargo::build_rstscope(options.release, options.ebpf_log)?;
    println!("{}", program.display());
    Ok(())
}
