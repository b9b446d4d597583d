//! `cargo xtask install`.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    cargo, child,
    cli::Install,
    setup::{self, Scope},
};

/// Installs rstscope and says what else there is to install.
pub fn perform(options: &Install) -> Result<()> {
    setup::perform_if_missing(Scope::Build)?;
    let root = options.root.as_deref().map(std::path::absolute).transpose().context("cannot find --root")?;
    let mut command = cargo::command(&["install", "--path", "agent", "--locked"])?;
    if let Some(root) = &root {
        command.arg("--root").arg(root);
    }
    child::run(&mut command, "see above")?;

    let place = root.or_else(default_root);
    let program = place.as_deref().unwrap_or(Path::new("")).join("bin/rstscope");
    eprintln!("Installed {}. It needs root to trace: `sudo {} trace`", program.display(), program.display());
    eprintln!("The man page: `rstscope man`; completions for a shell: `rstscope completions bash`, or zsh, fish, …");
    Ok(())
}

/// Where `cargo install` puts programs when it is not told.
fn default_root() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from);
    set("CARGO_INSTALL_ROOT").or_else(|| set("CARGO_HOME")).or_else(|| Some(set("HOME")?.join(".cargo")))
}
