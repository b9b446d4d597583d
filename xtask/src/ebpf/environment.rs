//! What a cargo that was started by cargo must not inherit.

use std::{env, process::Command};

/// Cargo tells a child a lot about the build that started it, and a cargo inside would take much of it as its own
/// settings: flags for the wrong target, clippy in place of the compiler, the outer target folder (whose lock the
/// outer cargo holds), the outer package's name.
pub fn forget_outer_cargo(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_outer_build) {
            command.env_remove(name);
        }
    }
}

fn belongs_to_outer_build(name: &str) -> bool {
    const USERS_CARGO_SETTINGS: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    const NOT_NAMED_AFTER_CARGO: [&str; 17] = [
        "CLIPPY_ARGS",
        "DEBUG",
        "HOST",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "TARGET",
    ];
    if name.starts_with("CARGO") {
        !USERS_CARGO_SETTINGS.iter().any(|prefix| name.starts_with(prefix))
    } else {
        NOT_NAMED_AFTER_CARGO.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_build_is_forgotten() {
        for name in
            ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_MAKEFLAGS", "RUSTC_WORKSPACE_WRAPPER"]
        {
            assert!(belongs_to_outer_build(name), "{name}");
        }
    }

    #[test]
    fn the_users_network_settings_are_kept() {
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "CARGO_TERM_COLOR", "PATH", "HOME"]
        {
            assert!(!belongs_to_outer_build(name), "{name}");
        }
    }
}
