//! An iterator in the kernel walks over every open file once and notes whose the connections are.

use std::io::{ErrorKind, Read};

use agent_common::counter::Counter;
use anyhow::{Context, Result, anyhow};
use aya::{Ebpf, maps::PerCpuArray, programs::Iter};

use super::{super::refusal::refused, Found, Running};

/// Name of the program, and of the iterator.
const PROGRAM: &str = "task_file";

/// Walks over the open files.
///
/// # Errors
///
/// If the kernel refuses the iterator.
pub fn find(kernel: &mut Running<'_>) -> Result<Found> {
    let (ebpf, types) = kernel.with_types()?;
    let program: &mut Iter = ebpf.program_mut(PROGRAM).ok_or_else(|| anyhow!("no program {PROGRAM}"))?.try_into()?;
    program.load(PROGRAM, types).map_err(|error| refused("the iterator over open files", &error))?;
    let walked = walk(program);
    program.unload().context("unloading the iterator over open files")?;
    walked?;
    let shared = counted(ebpf, Counter::FoundShared)?;
    Ok(Found { named: counted(ebpf, Counter::FoundOpen)?.saturating_sub(shared), shared, missing: Vec::new() })
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

fn counted(ebpf: &Ebpf, counter: Counter) -> Result<u64> {
    let map = ebpf.map("COUNTERS").ok_or_else(|| anyhow!("the eBPF object has no map COUNTERS"))?;
    let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map).context("opening the counters")?;
    Ok(counters.get(&(counter as u32), 0).context("reading the counters")?.iter().sum())
}
