//! The least-privilege form's rights are enough to trace, and none of the two that it takes can be left out.
//!
//! `rstscope doctor` loads and attaches every program. It is run as root with just the rights that the manifest adds and
//! that this machine can give, on this machine's kernel. What a runtime's seccomp and AppArmor profiles refuse is not
//! played here.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Bench, object, render::Rendering};
use crate::child;

/// The combination that is looked at.
const FORM: &str = "stdout+least-privilege";

/// Rights by the names in manifests, and their numbers (linux/capability.h).
const RIGHTS: [(&str, u32); 6] =
    [("DAC_READ_SEARCH", 2), ("NET_ADMIN", 12), ("SYS_PTRACE", 19), ("SYS_RESOURCE", 24), ("PERFMON", 38), ("BPF", 39)];

/// Without any of these nothing can be traced, says docs/kubernetes.md.
const NEEDED: [&str; 2] = ["BPF", "PERFMON"];

/// Checks.
pub fn check(bench: &Bench, renderings: &[Rendering]) -> Result<Vec<String>> {
    let form =
        renderings.iter().find(|rendering| rendering.name == FORM).context("there is no least-privilege form")?;
    let container = object::container(&form.plain)?;
    let context = &container["securityContext"];
    let mut problems = Vec::new();
    if context["privileged"] != false || context["capabilities"]["drop"] != serde_json::json!(["ALL"]) {
        problems.push(format!("{FORM} is privileged, or does not drop every right: {context}"));
    }
    let added = object::list(container, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
    let given = that_can_be_given(added.collect())?;
    if let Some(failed) = doctor(bench, &given)? {
        problems.push(format!("with {} rstscope cannot trace: {failed}", given.join(", ")));
    }
    for left_out in NEEDED {
        let fewer: Vec<&str> = given.iter().copied().filter(|right| *right != left_out).collect();
        if doctor(bench, &fewer)?.is_none() {
            problems.push(format!("rstscope traces without {left_out}: leave it out of {FORM}, and mend the page"));
        }
    }
    Ok(problems)
}

/// A machine that is a container itself has not all of them.
fn that_can_be_given(wanted: Vec<&str>) -> Result<Vec<&str>> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("there are no capabilities")?;
    let bounding = u64::from_str_radix(bounding.trim(), 16).context("CapBnd is no number")?;
    let mut given = Vec::new();
    for name in wanted {
        let Some((_, number)) = RIGHTS.iter().find(|(known, _)| *known == name) else {
            bail!("nobody has said yet what number the right {name} has");
        };
        if bounding & 1 << number != 0 {
            given.push(name);
        }
    }
    Ok(given)
}

/// What `rstscope doctor` says fails with these rights, if anything does.
fn doctor(bench: &Bench, rights: &[&str]) -> Result<Option<String>> {
    let rights = rights.iter().map(|right| format!(",+{}", right.to_lowercase())).collect::<String>();
    let setpriv = child::find("setpriv").context("there is no `setpriv` on this machine: install util-linux")?;
    let mut command = child::as_root(setpriv)?;
    command
        .args([format!("--inh-caps=-all{rights}"), format!("--bounding-set=-all{rights}")])
        // As `allowPrivilegeEscalation: false`.
        .args(["--no-new-privs", "--"])
        .arg(&bench.rstscope)
        .args(["doctor", "--json", "--instance", "deploy"]);
    let output = child::output(&mut command)?;
    let checks: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("`rstscope doctor` printed no JSON: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    let failed = object::list(&checks, "/checks").iter().find(|check| object::text(check, "/status") == "failed");
    let failed = failed.map(|check| format!("{}: {}", object::text(check, "/name"), object::text(check, "/found")));
    match failed {
        None if !output.status.success() => bail!("`rstscope doctor` fails without a check that does"),
        failed => Ok(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_nobody_knows_is_an_error() {
        assert!(that_can_be_given(vec!["SYS_ADMIM"]).is_err());
        assert!(that_can_be_given(vec!["BPF", "PERFMON"]).is_ok());
    }
}
