//! The kinds of hooks that the agent is tested with: its own choice, and each kind by force.

use clap::ValueEnum;

/// Where the agent looks for what `--hooks` does not say.
pub const VARIABLE: &str = "RSTSCOPE_HOOKS";

/// A value of the agent's `--hooks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Flavour {
    /// What the agent chooses by itself
    Auto,
    /// Tracepoints wherever the kernel has one
    Tracepoint,
    /// Trampolines at the functions' entries
    Fentry,
    /// Breakpoints at the functions' entries
    Kprobe,
}

impl Flavour {
    /// The name it has on both command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavour_has_one_name() {
        for flavour in Flavour::value_variants() {
            assert_eq!(Flavour::from_str(flavour.name(), false), Ok(*flavour));
        }
    }
}
