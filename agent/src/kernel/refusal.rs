//! What the kernel refuses, as one sentence, with the remedy where there is a usual cause.

use std::{error::Error, io};

/// A refusal.
#[derive(Debug, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct Refused {
    /// What was refused, and the kernel's word for why.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Reads the kernel's answer out of an error of aya's.
#[must_use]
pub fn refused(what: &str, error: &(dyn Error + 'static)) -> Refused {
    let mut errno = None;
    let mut source = Some(error);
    let mut deepest = error.to_string();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            errno = io.raw_os_error();
        }
        deepest = cause.to_string();
        source = cause.source();
    }
    let remedy = match errno {
        Some(libc::EPERM) => {
            "the kernel forbids it: run as root or with CAP_BPF and CAP_PERFMON (before Linux 5.11 also CAP_SYS_RESOURCE, for \
             the memory limit), and look at kernel lockdown and seccomp"
        }
        Some(libc::ENOMEM) => {
            "no memory for it: raise the memory limit (before Linux 5.11 also RLIMIT_MEMLOCK) or lower --connections \
             and --closed-connections"
        }
        Some(libc::EINVAL) => "the kernel does not know it: `rstscope doctor` says what this kernel has",
        _ => "`rstscope doctor` says what this kernel has",
    };
    Refused { what: format!("the kernel refused {what} ({deepest})"), remedy }
}
