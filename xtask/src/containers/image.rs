//! The container's file system, this program and the libraries it is linked to, and images of it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{child, files, vm::libraries_of};

/// Where this program is in the container.
pub const PROGRAM: &str = "/server";

/// Makes the folder that becomes the container's root.
pub fn make(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("rootfs");
    // Runtimes mount on these, and make no folder in a file system that is not theirs.
    for name in ["proc", "sys", "dev", "tmp", "run", "etc", "var/tmp"] {
        files::make_folder(&root.join(name))?;
    }
    let own = env::current_exe().context("xtask has no path")?;
    copy(&own, &root, Path::new(PROGRAM))?;
    for library in libraries_of(&own)? {
        copy(&library, &root, &library)?;
    }
    Ok(root)
}

/// Packs images of that folder, each with its name and what runs in it, as `docker save` does: every runtime reads that.
pub fn archive(root: &Path, folder: &Path, images: &[(&str, &[String])]) -> Result<PathBuf> {
    const LAYER: &str = "layer.tar";
    let parts = folder.join("image");
    files::make_folder(&parts)?;
    let layer = parts.join(LAYER);
    let owner = ["--numeric-owner", "--owner=0", "--group=0"];
    let mut tar = Command::new("tar");
    child::run_on_stderr(tar.args(owner).arg("-C").arg(root).arg("-cf").arg(&layer).arg("."), "is the disk full?")?;
    let digest = digest(&layer)?;
    let mut manifest = Vec::new();
    for (number, (name, entry_point)) in images.iter().enumerate() {
        let configuration = json!({
            "architecture": architecture()?,
            "os": "linux",
            "config": { "Entrypoint": entry_point },
            "rootfs": { "type": "layers", "diff_ids": [digest] },
        });
        let file = format!("{number}.json");
        files::write_file(&parts.join(&file), &configuration.to_string())?;
        manifest.push(json!({ "Config": file, "RepoTags": [name], "Layers": [LAYER] }));
    }
    files::write_file(&parts.join("manifest.json"), &json!(manifest).to_string())?;
    let archive = folder.join("image.tar");
    let mut tar = Command::new("tar");
    child::run_on_stderr(tar.args(owner).arg("-C").arg(&parts).arg("-cf").arg(&archive).arg("."), "is the disk full?")?;
    Ok(archive)
}

/// In the words of Go, which are those of images.
fn architecture() -> Result<&'static str> {
    match env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("nobody has said yet what images call the architecture {other}"),
    }
}

fn digest(file: &Path) -> Result<String> {
    let output = child::output(Command::new("sha256sum").arg(file))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digits = text.split_whitespace().next().filter(|_| output.status.success());
    Ok(format!("sha256:{}", digits.with_context(|| format!("cannot read {}", file.display()))?))
}

fn copy(file: &Path, root: &Path, place: &Path) -> Result<()> {
    files::copy_file(file, &root.join(place.strip_prefix("/").unwrap_or(place)))
}
