//! Can this node be traced? Each check with its remedy, for `doctor` and for the first lines of `trace`.

use std::{fs, path::Path};

use serde::Serialize;

use super::{
    btf::Btf,
    members::{self, Members},
    plan::{self, Plan, Preference},
};

/// Outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// `trace` works, with something less.
    Warning,
    /// `trace` would not work.
    Failed,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// All is well.
    #[must_use]
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), remedy: None }
    }

    /// Something is missing that `trace` can do without.
    #[must_use]
    pub fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// `trace` would not work.
    #[must_use]
    pub fn failed(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Failed, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// The check as one sentence, for an error message.
    #[must_use]
    pub fn sentence(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}: {}; {remedy}", self.name, self.found),
            None => format!("{}: {}", self.name, self.found),
        }
    }
}

/// What the checks found out on their way, for the tracer.
#[derive(Debug)]
pub struct Found {
    /// The kernel's types.
    pub btf: Btf,
    /// Member locations.
    pub members: Members,
    /// What to try to attach.
    pub plan: Plan,
}

/// Runs every check that needs no program loaded. `btf` is the file with the kernel's types. `Found` is there if none of
/// the checks failed.
#[must_use]
pub fn run(btf: &Path, preference: Preference, learn_readers: bool) -> (Vec<Check>, Option<Found>) {
    let mut checks = vec![kernel(), privileges()];
    let place = btf.display().to_string();
    let btf = match Btf::from_kernel(btf) {
        Ok(btf) => btf,
        Err(error) => {
            let remedy = format!(
                "rstscope needs a kernel built with CONFIG_DEBUG_INFO_BTF=y and {place} readable (in a container: the \
                 host's /sys)"
            );
            checks.push(Check::failed("kernel types (BTF)", chain(&error), remedy));
            return (checks, None);
        }
    };
    checks.push(Check::ok("kernel types (BTF)", place));

    let members = members::find(&btf);
    checks.push(match &members {
        Ok(members) if members.absent.is_empty() => Check::ok("socket members", "all found"),
        Ok(members) => {
            Check::ok("socket members", format!("all that are needed; not here: {}", members.absent.join(", ")))
        }
        Err(missing) => Check::failed("socket members", missing.to_string(), "run a kernel from 5.10 to 7.2"),
    });
    let plan = plan::plan(&btf, preference, learn_readers);
    checks.push(match &plan {
        Ok(plan) => {
            let best = plan.wants.iter().filter_map(|want| want.ways.first());
            let hooks: Vec<&str> = best.flatten().map(|hook| hook.hook).collect();
            Check::ok("hooks", hooks.join(", "))
        }
        Err(missing) => Check::failed("hooks", missing.to_string(), "run a kernel from 5.10 on"),
    });
    match (members, plan) {
        (Ok(members), Ok(plan)) if checks.iter().all(|check| check.status != Status::Failed) => {
            (checks, Some(Found { btf, members, plan }))
        }
        _ => (checks, None),
    }
}

/// An error and what it came from, in one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        sentence.push_str(": ");
        sentence.push_str(&cause.to_string());
        source = cause.source();
    }
    sentence
}

/// `uname -r`.
#[must_use]
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn kernel() -> Check {
    let release = release();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (5, 10) => {
            Check::failed("kernel", format!("Linux {release}"), "rstscope needs Linux 5.10 or newer")
        }
        _ => Check::ok("kernel", format!("Linux {release}")),
    }
}

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

fn privileges() -> Check {
    const NAME: &str = "privileges";
    let status = match procfs::process::Process::myself().and_then(|process| process.status()) {
        Ok(status) => status,
        Err(error) => {
            return Check::failed(NAME, format!("/proc/self/status cannot be read: {error}"), "mount /proc");
        }
    };
    let effective = status.capeff;
    if effective & CAP_SYS_ADMIN != 0 {
        return Check::ok(NAME, "CAP_SYS_ADMIN");
    }
    let missing: Vec<&str> = [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON)]
        .into_iter()
        .filter_map(|(name, bit)| (effective & bit == 0).then_some(name))
        .collect();
    if missing.is_empty() {
        Check::ok(NAME, "CAP_BPF and CAP_PERFMON")
    } else {
        Check::failed(
            NAME,
            format!("{} not held", missing.join(" and ")),
            "run as root (sudo rstscope …), or grant CAP_BPF and CAP_PERFMON",
        )
    }
}
