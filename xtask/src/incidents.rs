//! `cargo xtask incidents`: real incidents, played with the real programs, and what rstscope says about each.
//!
//! Every story runs in a process and a network namespace of its own, as root. It starts its own agent, lets the
//! incident happen, and holds the lines about it against what it did itself: first the facts, then the cause.
//!
//! * [`stories`]: the incidents. [`servers`], [`envoy`], [`relays`], [`client`]: who takes part.
//! * [`programs`]: installs the real programs below the cache.
//! * [`part`]: the process of one story; [`stage`]: what it has at hand. [`network`], [`cgroup`], [`process`], [`sockets`],
//!   [`mod@agent`]: what it is made of.
//! * [`verdict`]: what was expected and what was found; [`again`]: once more, where the machine is to blame.

pub mod again;
pub mod agent;
mod cgroup;
mod client;
mod envoy;
pub mod network;
mod part;
pub mod process;
pub mod programs;
mod relays;
mod servers;
pub mod sockets;
mod stage;
mod stories;
pub mod verdict;

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo, child,
    cli::{IncidentPart, Incidents},
    files,
    setup::{self, Scope},
};
use stories::{STORIES, Story};
use verdict::{Verdict, summarise};

/// How many stories are played at once: each has a network, a cgroup and an agent of its own, and they mostly wait for
/// timeouts. What is late on a busy machine each measures itself.
const AT_A_TIME: usize = 3;

/// Installs what is missing, plays the stories and sums up.
pub fn perform(options: &Incidents) -> Result<()> {
    let chosen = stories::chosen(&options.names)?;
    if options.list {
        for story in chosen {
            println!("{:24} {}", story.name, story.about);
        }
        return Ok(());
    }
    let tools = setup::perform(Scope::Everything)?;
    let folder = tools.cache.join("incidents");
    files::make_folder(&folder)?;
    {
        let _lock = setup::lock(&tools)?;
        let needed: Vec<_> = chosen.iter().flat_map(|story| story.programs).copied().collect();
        programs::ensure(&needed, &folder)?;
    }
    // The build of the kernel tests, which `cargo xtask test` has made: alone its dependencies would be compiled anew, with
    // fewer features.
    let rstscope = cargo::build_kernel_tests(false)?.rstscope;
    let played = play_all(&chosen, |story| {
        again::if_it_stood_still(story.name, || play(story, &rstscope, &folder, options.full))
    })?;
    summarise("incidents", "story", "measured", STORIES.len(), &played)
}

/// Some of them at a time, in their order.
fn play_all(
    stories: &[&'static Story],
    play: impl Fn(&Story) -> Result<Verdict> + Sync,
) -> Result<Vec<(&'static str, Verdict, Duration)>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut played = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&story) = stories.get(index) else { return Ok(played) };
            eprintln!("     Playing {}: {}", story.name, story.about);
            let start = Instant::now();
            let verdict = play(story)?;
            let said: String = verdict.said().iter().map(|sentence| format!("             {sentence}\n")).collect();
            eprint!("      Played {}\n{said}", story.name);
            played.push((index, (story.name, verdict, start.elapsed())));
        }
    };
    let mut played = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker failed")));
        results.collect::<Result<Vec<Vec<_>>>>()
    })?
    .concat();
    played.sort_by_key(|(index, _)| *index);
    Ok(played.into_iter().map(|(_, story)| story).collect())
}

/// Becomes one of the processes of a story.
pub fn play_part(part: IncidentPart) -> Result<()> {
    match part {
        IncidentPart::Story(options) => part::play(&options),
        IncidentPart::Provider(options) => stories::late_reset::provide(&options),
    }
}

fn play(story: &Story, rstscope: &Path, programs: &Path, full: bool) -> Result<Verdict> {
    let xtask = std::env::current_exe().context("xtask has no path")?;
    let unshare =
        child::find("unshare").context("there is no `unshare` program on this machine: install util-linux")?;
    let mut command = child::as_root(unshare)?;
    command.args(["--net", "--"]).arg(xtask).args(["incident-part", "story", story.name]);
    command.arg("--outside").arg(network::own_namespace()?.to_string());
    command.arg("--rstscope").arg(rstscope).arg("--programs").arg(programs);
    if full {
        command.arg("--full");
    }
    // What goes wrong in it is said on standard error.
    let output = command
        .stderr(Stdio::inherit())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", child::shown(&command)))?;
    Verdict::of_process(&output, "story")
}
