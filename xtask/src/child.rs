//! Running other programs: as they are or as root, and one sentence when they fail.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs a program to its end with its output visible. `remedy` says what to do about a failure.
pub fn run(command: &mut Command, remedy: &str) -> Result<()> {
    let status = command.status().with_context(|| cannot_run(command))?;
    if status.success() {
        return Ok(());
    }
    bail!("`{}` failed ({status}): {remedy}", shown(command))
}

/// Runs a program whose output goes to stderr: stdout belongs to rstscope, for `cargo xtask run | …`.
pub fn run_on_stderr(command: &mut Command, remedy: &str) -> Result<()> {
    run(command.stdout(io::stderr()), remedy)
}

/// A command for a program that the kernel kills when the thread of ours that started it ends, however that ends.
pub fn bound_to_us(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// Runs a program to its end and keeps its output.
pub fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| cannot_run(command))
}

/// Whether a program runs and succeeds; its output is of no interest.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A command that runs `program` as root.
pub fn as_root(program: impl AsRef<Path>) -> Result<Command> {
    let program = program.as_ref();
    if is_root()? {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find("sudo") else {
        bail!("this step takes root, and there is no sudo here: run `cargo xtask` as root");
    };
    let mut command = Command::new(sudo);
    command.args(kept_variables()).arg("--").arg(program);
    Ok(command)
}

/// Whether this process is root's.
pub fn is_root() -> Result<bool> {
    // The owner of a process's folder is its effective user; std has no other way to ask.
    Ok(fs::metadata("/proc/self").context("cannot read /proc/self")?.uid() == 0)
}

/// Looks for a program the way a shell does, and in the folders for root's programs, which a user's PATH may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A command as it would be typed, the program without its folder.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words = std::iter::once(program.file_name().unwrap_or(program.as_os_str())).chain(command.get_args());
    words.map(|word| word.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// Sudo forgets the environment; what is meant for rstscope has to get through.
fn kept_variables() -> Option<String> {
    let names: Vec<String> = env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("RSTSCOPE_") || name == "NODE_NAME")
        .collect();
    (!names.is_empty()).then(|| format!("--preserve-env={}", names.join(",")))
}

fn cannot_run(command: &Command) -> String {
    let program = command.get_program().display();
    match find(&program.to_string()) {
        None => format!("cannot run `{program}`, which is not installed"),
        Some(_) => format!("cannot run `{program}`"),
    }
}
