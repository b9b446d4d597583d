//! `cargo xtask test`: what CI checks, in steps that can also be run one by one.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    cargo, child,
    cli::{Containers, Incidents, Sinks, Step, Test, Vm},
    containers, deploy,
    ebpf::{ObjectBuild, TARGET_FOLDER, Tools},
    incidents,
    setup::{self, Scope},
    sinks, vm,
};

/// Runs the steps until one fails, and sums up.
pub fn perform(options: &Test) -> Result<()> {
    let tools = setup::perform(Scope::Everything)?;
    let steps: &[Step] = options.only.as_ref().map_or(Step::value_variants(), std::slice::from_ref);
    let mut passed = Vec::new();
    for &step in steps {
        eprintln!("\n== {}", step.name());
        let start = Instant::now();
        let result = check(step, options, &tools);
        let taken = start.elapsed();
        if let Err(error) = result {
            summarise(&passed);
            eprintln!("{}", line(step, "FAILED", taken));
            bail!("{error:#}\nTo run only this step again: `cargo xtask test --only {}`", step.name());
        }
        passed.push((step, taken));
    }
    summarise(&passed);
    Ok(())
}

fn summarise(passed: &[(Step, Duration)]) {
    eprintln!("\n== summary");
    for &(step, taken) in passed {
        eprintln!("{}", line(step, "passed", taken));
    }
}

fn line(step: Step, result: &str, taken: Duration) -> String {
    format!("{:10} {result} {:7.1} s", step.name(), taken.as_secs_f64())
}

fn check(step: Step, options: &Test, tools: &Tools) -> Result<()> {
    match step {
        Step::Fmt => format(),
        Step::Clippy => clippy(tools),
        Step::Doc => documentation(),
        Step::Unit => unit_tests(&options.filter),
        Step::Deploy => deploy::perform(),
        Step::Kernel => kernel_tests(options),
        Step::Sinks => sinks::perform(&Sinks { release: options.release, ..Sinks::default() }),
        Step::Vm => vm::perform(&Vm { release: options.release, filter: options.filter.clone(), ..Vm::default() }),
        Step::Incidents => incidents::perform(&Incidents::default()),
        Step::Containers => containers::perform(&Containers::default()),
    }
}

fn format() -> Result<()> {
    child::run(&mut cargo::command(&["fmt", "--all", "--check"])?, "`cargo fmt --all` formats the code")
}

fn clippy(tools: &Tools) -> Result<()> {
    // Plain `cargo test` leaves out what needs root, and so does `--all-targets`.
    for targets in [&["--all-targets"][..], &["--test", "kernel", "--test", "chaos"]] {
        let arguments = [&["clippy", "--workspace", "--locked"][..], targets, &["--", "-D", "warnings"]].concat();
        cargo::run(&arguments)?;
    }
    // The host never compiles the hooks themselves.
    for log in [false, true] {
        let mut kernel_side = ObjectBuild {
            tools,
            cargo: &cargo::program(),
            workspace: &cargo::workspace()?,
            target_folder: &cargo::target_folder()?.join(TARGET_FOLDER),
            architecture: std::env::consts::ARCH,
            big_endian: cfg!(target_endian = "big"),
            log,
        }
        .command("clippy");
        kernel_side.args(["--locked", "--", "-D", "warnings"]);
        child::run(&mut kernel_side, "see above")?;
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let mut command = cargo::command(&["doc", "--workspace", "--no-deps", "--locked"])?;
    child::run(command.env("RUSTDOCFLAGS", "-D warnings"), "see above")
}

fn unit_tests(filter: &[String]) -> Result<()> {
    let mut command = cargo::command(&["test", "--workspace", "--locked", "--"])?;
    child::run(command.args(filter), "see above")
}

/// The kernel tests are built as the user and run as root, so that nothing in the target folder becomes root's.
fn kernel_tests(options: &Test) -> Result<()> {
    let built = cargo::build_kernel_tests(options.release)?;
    let package = cargo::workspace()?.join("agent");
    let setting = |name: &str, value: &std::path::Path| {
        let mut setting = OsString::from(format!("{name}="));
        setting.push(value);
        setting
    };
    // By way of `env`, because sudo forgets variables.
    let mut command = child::as_root(child::find("env").context("there is no `env` program on this machine")?)?;
    command
        .arg(setting("RSTSCOPE_BIN", &built.rstscope))
        .arg(setting("CARGO_MANIFEST_DIR", &package))
        .arg(&built.tests)
        .args(&options.filter)
        .current_dir(&package);
    let status = command.status().with_context(|| format!("cannot run `{}`", child::shown(&command)))?;
    if !status.success() {
        bail!("the kernel tests failed ({status}), see above");
    }
    Ok(())
}
