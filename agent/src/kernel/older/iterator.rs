//! Connections older than the agent: an iterator in the kernel walks over every open file once and notes whose they are.
//!
//! After the hooks are attached, so that no connection falls between: one that begins meanwhile is a hook's.

use std::io::{ErrorKind, Read};

use anyhow::{Context, Result, anyhow};
use aya::programs::Iter;

use super::{attach::Running, refusal::refused};

/// What is not seen without it.
pub const UNSEEN: &str = "the process of a connection older than the agent, until it reads from it or closes it";

/// Name of the program, and of the iterator.
const PROGRAM: &str = "task_file";

/// Walks over the open files.
///
/// # Errors
///
/// If the kernel refuses the iterator; nothing else depends on it.
pub fn find(kernel: &mut Running<'_>) -> Result<()> {
    let (ebpf, types) = kernel.with_types()?;
    let program: &mut Iter = ebpf.program_mut(PROGRAM).ok_or_else(|| anyhow!("no program {PROGRAM}"))?.try_into()?;
    program.load(PROGRAM, types).map_err(|error| refused("the iterator over open files", &error))?;
    let walked = walk(program);
    program.unload().context("unloading the iterator over open files")?;
    walked
}

fn walk(program: &mut Iter) -> Result<()> {
    let link = program.attach().map_err(|error| refused("attaching the iterator over open files", &error))?;
    let mut file = program.take_link(link)?.into_file().context("opening the iterator over open files")?;
    let mut nothing = [0; 64];
    loop {
        match file.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // After a million files with nothing to say the kernel wants to be asked again (`bpf_seq_read`).
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("reading the iterator over open files"),
        }
    }
}
