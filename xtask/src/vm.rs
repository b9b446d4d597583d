//! `cargo xtask vm`: the kernel tests on other kernels, each booted in QEMU by software emulation, which needs neither
//! root nor KVM.
//!
//! * [`kernels`], [`qemu`]: Debian's kernels and a QEMU that is new enough, unpacked into the cache and never installed.
//! * [`contents`], [`modules`], [`archive`]: the guest's file system.
//! * [`machine`]: one guest from start to end.
//! * [`guest`], [`verdict`]: what runs inside as PID 1, and what it says last.

mod archive;
mod contents;
pub mod guest;
pub mod kernels;
mod machine;
mod modules;
mod qemu;
mod verdict;

use std::{fs, path::Path, sync::Mutex, thread};

use anyhow::{Context, Error, Result, bail};

use crate::{
    cargo, child,
    cli::Vm,
    ebpf::Tools,
    setup::{self, Scope},
};
use contents::Programs;
use kernels::{Kernel, MATRIX, Unpacked};
use machine::Outcome;
use qemu::Qemu;

/// Guests are 20 to 30 times slower than the machine, so that optimised programs pay.
const BUILD: [&str; 7] = ["test", "--package", "rstscope", "--test", "kernel", "--no-run", "--release"];

/// Fetches what is missing, runs the guests and sums up.
pub fn perform(options: &Vm) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernels are for x86-64, and this machine is not: guests run the programs that are built here");
    }
    let asked: &[Kernel] = if options.kernels.is_empty() { &MATRIX } else { &options.kernels };
    setup::perform(Scope::Kernels)?;
    let cache = Tools::find().map_err(Error::msg)?.cache.join("vm");
    let (qemu, kernels) = fetch(asked, &cache)?;

    let mut arguments = BUILD.to_vec();
    arguments.push("--locked");
    let programs = cargo::build(&arguments)?;
    let scratch = cargo::target_folder()?.join("vm");
    child::remove_folder(&scratch)?;
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make the folder {}", scratch.display()))?;
    let programs = Programs::collect(
        cargo::path_of(&programs, "test", "kernel")?,
        cargo::path_of(&programs, "bin", "rstscope")?,
        &scratch,
    )?;

    let results = run_all(&qemu, &kernels, &programs, &options.filter, &scratch)?;
    let mut failed = Vec::new();
    for (unpacked, outcome) in &results {
        if let Some(complaint) = complaint(outcome) {
            eprintln!("\n== {} ({}): {complaint}", unpacked.kernel.name, unpacked.release);
            eprintln!("{}", outcome.output.trim_end());
            eprintln!("-- its console:\n{}", outcome.console.trim_end());
            failed.push(unpacked.kernel.name);
        }
    }
    eprintln!("\n{}", Line::HEADER);
    for (unpacked, outcome) in &results {
        eprintln!("{}", Line::of(unpacked, outcome));
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed on {}; to run it again: `cargo xtask vm {}`", failed.join(", "), failed.join(" "))
}

/// Under the lock of the set-up, because two of these would write to the same folders.
fn fetch(asked: &[Kernel], cache: &Path) -> Result<(Qemu, Vec<Unpacked>)> {
    let _lock = setup::lock(&Tools::find().map_err(Error::msg)?)?;
    fs::create_dir_all(cache).with_context(|| format!("cannot make the folder {}", cache.display()))?;
    let qemu = Qemu::find(cache)?;
    let kernels = asked.iter().map(|&kernel| kernels::fetch(kernel, cache)).collect::<Result<_>>()?;
    Ok((qemu, kernels))
}

/// As many guests at a time as there are CPUs, the results in the order of the kernels.
fn run_all<'a>(
    qemu: &Qemu,
    kernels: &'a [Unpacked],
    programs: &Programs,
    arguments: &[String],
    scratch: &Path,
) -> Result<Vec<(&'a Unpacked, Outcome)>> {
    let queue = Mutex::new(kernels.iter().enumerate());
    let results = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no worker panics with the lock").next();
                    let Some((index, unpacked)) = next else { return };
                    say(&format!("kernel {}: running the tests on {}", unpacked.kernel.name, unpacked.release));
                    let result = run_one(qemu, unpacked, programs, arguments, scratch);
                    results.lock().expect("no worker panics with the lock").push((index, unpacked, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no worker panics with the lock");
    results.sort_by_key(|(index, ..)| *index);
    results.into_iter().map(|(_, unpacked, result)| Ok((unpacked, result?))).collect()
}

fn run_one(
    qemu: &Qemu,
    unpacked: &Unpacked,
    programs: &Programs,
    arguments: &[String],
    scratch: &Path,
) -> Result<Outcome> {
    let folder = scratch.join(unpacked.kernel.name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let archive = programs.archive(&modules::read_wanted(&unpacked.modules)?, arguments);
    let outcome = machine::run(qemu, &unpacked.image, &archive, &folder)?;
    say(&Line::of(unpacked, &outcome));
    Ok(outcome)
}

fn complaint(outcome: &Outcome) -> Option<String> {
    match &outcome.verdict {
        None if outcome.timed_out => Some("the guest took too long and was ended".to_owned()),
        None => Some("the guest ended before the tests did".to_owned()),
        Some(verdict) => verdict.complaint(),
    }
}

/// A line of the table.
struct Line;

impl Line {
    const HEADER: &str = "kernel release                          result  passed failed seconds";

    fn of(unpacked: &Unpacked, outcome: &Outcome) -> String {
        let ended = |how: &str| {
            let test = |line: &&str| line.starts_with("test ") && line.trim_end().ends_with(how);
            outcome.output.lines().filter(test).count()
        };
        format!(
            "{:6} {:32} {:7} {:6} {:6} {:7.0}",
            unpacked.kernel.name,
            unpacked.release,
            if complaint(outcome).is_none() { "passed" } else { "FAILED" },
            ended("... ok"),
            ended("... FAILED"),
            outcome.taken.as_secs_f64()
        )
    }
}

fn say(what: &str) {
    eprintln!("vm: {what}");
}
