//! `cargo xtask`: everything a developer or an operator with a checkout does, on a machine with nothing but Rust.
//!
//! * [`ebpf`]: which tools the kernel side takes and how it is built; shared with `agent/build.rs`.
//! * [`setup`]: installs those tools where they are missing.
//! * [`build`], [`run`], [`install`], [`image`], [`mod@test`], [`vm`]: one sub-command each.
//! * [`incidents`]: real incidents, played with the real programs; [`containers`]: real containers of real runtimes;
//!   [`sinks`]: chaos on the way to the sinks.
//! * [`deploy`]: manifests, chart, alerts and dashboards, held against what they are for.
//! * [`cargo`], [`child`]: how cargo, and any other program, is called; [`files`]: what they read and write.

mod build;
mod cargo;
mod child;
mod cli;
mod containers;
mod deploy;
#[expect(dead_code, reason = "where the object ends up is of interest to the build script only")]
mod ebpf;
mod files;
mod image;
mod incidents;
mod install;
mod run;
mod setup;
mod sinks;
mod standstill;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use cli::{Cli, Task};
use setup::Scope;

fn main() -> ExitCode {
    let result = if vm::guest::is_this() { vm::guest::run() } else { perform(Cli::parse().task) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::perform(Scope::Everything).map(drop),
        Task::Build(options) => build::perform(&options),
        Task::Run(options) => run::perform(&options),
        Task::Test(options) => test::perform(&options),
        Task::Vm(options) => vm::perform(&options),
        Task::Incidents(options) => incidents::perform(&options),
        Task::IncidentPart(part) => incidents::play_part(part),
        Task::Containers(options) => containers::perform(&options),
        Task::ContainerPart(part) => containers::play_part(part),
        Task::Sinks(options) => sinks::perform(&options),
        Task::Deploy => deploy::perform(),
        Task::Image(options) => image::perform(&options),
        Task::Install(options) => install::perform(&options),
    }
}
