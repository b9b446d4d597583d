//! The guests to run: per kernel one with the tests for each kind of hook, and one that waits for jiffies to wrap.

use std::{path::Path, sync::Mutex, thread};

use anyhow::Result;
use clap::ValueEnum;

use super::{
    contents::Programs,
    flavour::Flavour,
    kernels::Unpacked,
    machine::{self, Outcome},
    modules,
    qemu::Qemu,
    say,
};
use crate::files;

/// The table's first line, for [`Job::table_line`].
pub const TABLE_HEADER: &str =
    "kernel hooks      release                         result  passed failed repeated seconds";

/// What the test program calls the cases that need a machine which has just started.
const AFTER_BOOT: &str = "--ignored";

/// Which tests a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tests {
    /// All of them, or those that were asked for, with this kind of hook.
    Usual(Flavour),
    /// Those for a machine that has just started. They mostly sleep, until five minutes after the start.
    AfterBoot,
}

/// One guest.
#[derive(Debug)]
pub struct Job<'a> {
    /// Its kernel.
    pub kernel: &'a Unpacked,
    tests: Tests,
    arguments: Vec<String>,
}

impl<'a> Job<'a> {
    /// Every guest. With only forced flavours, or a filter, the tests after boot are left out, unless the filter is what
    /// asks for them: `-- --ignored`.
    pub fn all(kernels: &'a [Unpacked], flavours: &[Flavour], filter: &[String]) -> Vec<Self> {
        let only_after_boot = filter.iter().any(|word| word == AFTER_BOOT);
        let after_boot =
            only_after_boot || (filter.is_empty() && (flavours.is_empty() || flavours.contains(&Flavour::Auto)));
        let flavours = if flavours.is_empty() { Flavour::value_variants() } else { flavours };
        let mut jobs = Vec::new();
        for kernel in kernels {
            if !only_after_boot {
                jobs.extend(flavours.iter().map(|&flavour| Self {
                    kernel,
                    tests: Tests::Usual(flavour),
                    arguments: filter.to_vec(),
                }));
            }
            if after_boot {
                let arguments = if only_after_boot { filter.to_vec() } else { vec![AFTER_BOOT.to_owned()] };
                jobs.push(Self { kernel, tests: Tests::AfterBoot, arguments });
            }
        }
        jobs
    }

    /// The kernel and which tests.
    pub fn name(&self) -> String {
        format!("{} {}", self.kernel.kernel.name, self.tests_name())
    }

    /// The result, below [`TABLE_HEADER`].
    pub fn table_line(&self, outcome: &Outcome) -> String {
        format!(
            "{:6} {:10} {:31} {:7} {:6} {:6} {:8} {:7.0}",
            self.kernel.kernel.name,
            self.tests_name(),
            self.kernel.release,
            if outcome.complaint().is_none() { "passed" } else { "FAILED" },
            outcome.count("passed"),
            outcome.count("failed"),
            outcome.repeated().len(),
            outcome.taken.as_secs_f64()
        )
    }

    fn flavour(&self) -> Flavour {
        match self.tests {
            Tests::Usual(flavour) => flavour,
            Tests::AfterBoot => Flavour::Auto,
        }
    }

    fn tests_name(&self) -> &'static str {
        match self.tests {
            Tests::Usual(flavour) => flavour.name(),
            Tests::AfterBoot => "wrap",
        }
    }
}

/// What all guests have in common.
#[derive(Debug)]
pub struct Runner<'a> {
    /// The emulator.
    pub qemu: &'a Qemu,
    /// What is in every guest.
    pub programs: &'a Programs,
    /// A folder for the guests' files.
    pub scratch: &'a Path,
    /// The rate of their time stamp counter.
    pub tsc_khz: Option<u64>,
}

impl Runner<'_> {
    /// Runs five guests at a time on two CPUs, because tests sleep for two thirds of their time, and beside them those
    /// that only wait. The results have the order of the jobs.
    pub fn run_all<'a>(&self, jobs: &'a [Job<'a>]) -> Result<Vec<(&'a Job<'a>, Outcome)>> {
        let (waiting, mut busy): (Vec<_>, Vec<_>) =
            jobs.iter().enumerate().partition(|(_, job)| job.tests == Tests::AfterBoot);
        // The longest first, so that none of them has the machine to itself in the end.
        busy.sort_by_key(|(_, job)| job.tests != Tests::Usual(Flavour::Auto));
        let workers = (thread::available_parallelism().map_or(1, usize::from) * 5).div_ceil(2).min(busy.len());
        let queue = Mutex::new(busy.into_iter());
        let results = Mutex::new(Vec::new());
        let run = |index: usize, job: &'a Job<'a>| {
            let result = self.run(job);
            results.lock().expect("no worker panics with the lock").push((index, job, result));
        };
        thread::scope(|scope| {
            for (index, job) in waiting {
                scope.spawn(move || run(index, job));
            }
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().expect("no worker panics with the lock").next();
                        let Some((index, job)) = next else { return };
                        run(index, job);
                    }
                });
            }
        });
        let mut results = results.into_inner().expect("no worker panics with the lock");
        results.sort_by_key(|(index, ..)| *index);
        results.into_iter().map(|(_, job, result)| Ok((job, result?))).collect()
    }

    fn run(&self, job: &Job<'_>) -> Result<Outcome> {
        say(&format!("kernel {}: running the tests on {}", job.name(), job.kernel.release));
        let folder = self.scratch.join(job.name().replace(' ', "-"));
        files::make_folder(&folder)?;
        let archive = self.programs.archive(&modules::read_wanted(&job.kernel.modules)?, &job.arguments);
        let parameters = machine::parameters(job.flavour(), self.tsc_khz);
        let outcome = machine::run(self.qemu, &job.kernel.image, &parameters, &archive, &folder)?;
        say(&job.table_line(&outcome));
        Ok(outcome)
    }
}
