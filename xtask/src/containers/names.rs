//! From whom the agent learns the names of a pod and its container: flags, and what the doctor says about it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::engines::{self, Pod};
use crate::{
    child, files,
    incidents::{
        process::bound_to_us,
        verdict::{Layer, Verdict},
    },
};

/// Who knows the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// The folders that a kubelet would have made for their logs.
    LogFolders,
    /// The same folders, beside a containerd that has the kubelet's interface switched off, as docker's has.
    LogFoldersOnly,
    /// The container runtime, by way of its socket.
    RuntimeSocket,
}

impl Names {
    /// What a line says of it.
    pub fn source(self) -> &'static str {
        match self {
            Self::LogFolders | Self::LogFoldersOnly => "pod_logs",
            Self::RuntimeSocket => "cri",
        }
    }

    /// Prepares it, and says so in the agent's flags. A node always has the folder for logs.
    pub fn tell(self, pod: &Pod<'_>, folder: &Path) -> Result<Vec<String>> {
        let logs = folder.join("pods");
        let log = logs.join(format!("{}_{}_{}/{}", pod.namespace, pod.name, pod.uid, pod.container));
        let made = if self == Self::RuntimeSocket { &logs } else { &log };
        files::make_folder(made)?;
        let mut flags = vec!["--pod-logs".to_owned(), logs.display().to_string()];
        if self != Self::LogFolders {
            let beginning = pod.label.0.split_inclusive('/').next().unwrap_or_default();
            flags.extend(["--cri-socket".to_owned(), engines::socket(folder).display().to_string()]);
            flags.extend(["--pod-labels".to_owned(), format!("{beginning}*")]);
            flags.extend(["--pod-annotations".to_owned(), pod.annotation.0.to_owned()]);
        }
        Ok(flags)
    }

    /// Asks the doctor about the socket.
    pub fn examine(self, rstscope: &Path, flags: &[&str], verdict: &mut Verdict) -> Result<()> {
        let (status, found) = match self {
            Self::LogFolders => return Ok(()),
            Self::LogFoldersOnly => ("warning", "disabled_plugins"),
            Self::RuntimeSocket => ("ok", "knows 1 pods"),
        };
        let output = child::output(bound_to_us(rstscope).args(["doctor", "--json"]).args(flags))?;
        let report: Value =
            serde_json::from_slice(&output.stdout).context("rstscope doctor printed what is no JSON")?;
        let checks = report["checks"].as_array().context("rstscope doctor printed no checks")?;
        let check = checks.iter().find(|check| check["name"] == "CRI socket").unwrap_or(&Value::Null);
        if check["status"] != status || !check["found"].as_str().is_some_and(|text| text.contains(found)) {
            let expected = format!("the doctor says {status} and {found:?} of the socket");
            verdict.problem(Layer::Facts, &expected, Some(check));
        }
        Ok(())
    }
}
