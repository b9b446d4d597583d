//! Tests against the running kernel: real resets on real sockets, in network namespaces of their own, and assertions on
//! the lines that `rstscope trace` prints.
//!
//! They need root and run with `cargo xtask test`. Each test asks an agent, its own or the one they share, looks only at
//! lines of its own network namespace, and holds every line against the JSON Schema. Times are compared with clocks read around each
//! step, so a slow machine widens the window and never the tolerance of two ticks.

mod actor;
mod agent;
#[expect(dead_code, reason = "the unit tests of the pods' sources use the rest of it")]
mod api_server;
mod cases;
mod cgroups;
mod crowd;
mod daemon;
mod descriptors;
mod disk;
mod expect;
mod netns;
mod raw;
mod relay;
mod schema;
#[path = "../servers/mod.rs"]
#[expect(dead_code, reason = "the tests of the sinks and the chaos use the rest of it")]
mod servers;
mod shared;
mod sockets;
mod spooled;
#[path = "../../../xtask/src/standstill.rs"]
mod standstill;
mod times;

use std::{
    panic::{catch_unwind, resume_unwind},
    time::Duration,
};

use libtest_mimic::{Arguments, Trial};
use standstill::NOTICEABLE;
use times::Times;

type Case = (&'static str, fn());

fn main() {
    let mut arguments = std::env::args();
    if arguments.nth(1).as_deref() == Some(actor::ACTOR) {
        return actor::act(&arguments.collect::<Vec<_>>());
    }
    // SAFETY: geteuid has no precondition.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("the kernel tests need root: run `cargo xtask test`, which asks for it");
        std::process::exit(1);
    }
    let mut arguments = Arguments::from_args();
    let times = Times::default();
    let hooks = std::env::var("RSTSCOPE_HOOKS").unwrap_or_default();
    let mut cases = if matches!(hooks.as_str(), "" | "auto") { cases::all() } else { cases::resting_on_hooks() };
    // In the guests of `cargo xtask vm` these do not exist: their time is short, and the machine itself runs them.
    if !agent::is_slow() {
        cases.extend(cases::the_same_on_every_kernel());
    }
    let mut trials: Vec<Trial> = cases.into_iter().map(|case| trial(case, &times)).collect();
    // Only a machine that has just started can run these: `cargo xtask vm` asks for them. Elsewhere they do not exist,
    // rather than being counted as skipped.
    if arguments.ignored || arguments.include_ignored {
        trials.extend(cases::CASES_AFTER_BOOT.iter().map(|&case| trial(case, &times).with_ignored_flag(true)));
    }
    // One at a time: between fork and exec of one test's child process that child holds the other tests' sockets too, and
    // is then truly the one that closes them last.
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        times.print();
    }
    shared::stop();
    conclusion.exit();
}

/// How often at most a test is played again.
const REPEATS: usize = 3;

/// A test that fails while the machine stands still is played again, and fails if it fails to the last: whoever provokes
/// something within milliseconds misses it then. An emulated machine stands still all the time, when its host is busy.
/// `cargo xtask vm` counts these.
fn repeated_if_it_stood_still(name: &str, test: fn()) {
    let least = if agent::is_slow() { Duration::ZERO } else { NOTICEABLE };
    let tell = |_: &_, still: Duration| {
        println!("\nrepeated: {name} (the machine had stood still for {} ms)", still.as_millis());
    };
    standstill::again(REPEATS, least, || catch_unwind(test), tell).unwrap_or_else(|panic| resume_unwind(panic));
}

fn trial((name, test): Case, times: &Times) -> Trial {
    let times = times.clone();
    Trial::test(name, move || {
        times.measure(name, || repeated_if_it_stood_still(name, test));
        Ok(())
    })
}
