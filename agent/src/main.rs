//! The program people type.

use std::process::ExitCode;

fn main() -> ExitCode {
    rstscope::cli::main()
}
