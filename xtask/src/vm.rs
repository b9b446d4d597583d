//! `cargo xtask vm`: the kernel tests on other kernels, each booted in QEMU by software emulation, which needs neither
//! root nor KVM.
//!
//! * [`kernels`], [`qemu`]: Debian's kernels and a QEMU that is new enough, unpacked into the cache and never installed.
//! * [`contents`], [`modules`], [`archive`]: the guest's file system.
//! * [`flavour`], [`job`], [`machine`]: which guests there are, and one of them from start to end; [`tsc`]: its clock.
//! * [`guest`], [`verdict`]: what runs inside as PID 1, and what it says last.

mod archive;
mod contents;
pub mod flavour;
pub mod guest;
mod job;
pub mod kernels;
mod machine;
mod modules;
mod qemu;
mod tsc;
mod verdict;

use std::{fs::File, path::Path};

use anyhow::{Context, Error, Result, bail};

use crate::{
    cargo,
    cli::Vm,
    ebpf::Tools,
    files,
    setup::{self, Scope},
};
use contents::Programs;
pub use contents::libraries_of;
use job::{Job, Runner};
use kernels::{Kernel, MATRIX, Unpacked};
use qemu::Qemu;

/// Fetches what is missing, runs the guests and sums up.
pub fn perform(options: &Vm) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernels are for x86-64, and this machine is not: guests run the programs that are built here");
    }
    let asked: &[Kernel] = if options.kernels.is_empty() { &MATRIX } else { &options.kernels };
    setup::perform(Scope::Kernels)?;
    let cache = Tools::find().map_err(Error::msg)?.cache.join("vm");
    let (qemu, kernels) = fetch(asked, &cache)?;

    let programs = cargo::build_kernel_tests(options.release)?;
    let scratch = cargo::target_folder()?.join("vm");
    let lock = scratch.with_extension("lock");
    let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    lock.try_lock().context("another `cargo xtask vm` uses this target folder")?;
    files::remove_folder(&scratch)?;
    files::make_folder(&scratch)?;
    let programs = Programs::collect(&programs.tests, &programs.rstscope, &scratch)?;

    let jobs = Job::all(&kernels, &options.flavours, &options.filter);
    let runner = Runner { qemu: &qemu, programs: &programs, scratch: &scratch, tsc_khz: tsc::khz() };
    let results = runner.run_all(&jobs)?;
    let mut failed = Vec::new();
    for (job, outcome) in &results {
        if let Some(complaint) = outcome.complaint() {
            eprintln!("\n== {} ({}): {complaint}", job.name(), job.kernel.release);
            eprintln!("{}", outcome.output.trim_end());
            eprintln!("-- its console:\n{}", outcome.console.trim_end());
            if !failed.contains(&job.kernel.kernel.name) {
                failed.push(job.kernel.kernel.name);
            }
        }
    }
    eprintln!("\n{}", job::TABLE_HEADER);
    for (job, outcome) in &results {
        eprintln!("{}", job.table_line(outcome));
        for name in outcome.repeated() {
            eprintln!("       failed and was played again: {name}");
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed on {}; to run it again: `cargo xtask vm {}`", failed.join(", "), failed.join(" "))
}

/// Under the lock of the set-up, because two of these would write to the same folders.
fn fetch(asked: &[Kernel], cache: &Path) -> Result<(Qemu, Vec<Unpacked>)> {
    let _lock = setup::lock(&Tools::find().map_err(Error::msg)?)?;
    files::make_folder(cache)?;
    let qemu = Qemu::find(cache)?;
    let kernels = asked.iter().map(|&kernel| kernels::fetch(kernel, cache)).collect::<Result<_>>()?;
    Ok((qemu, kernels))
}

fn say(what: &str) {
    eprintln!("vm: {what}");
}
