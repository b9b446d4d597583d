//! The image as an archive: an OCI image layout, which docker's own format shares, so that podman, docker, containerd
//! and skopeo all read it.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{PROGRAM, architecture::Architecture, said};
use crate::{child, files};

/// Packs the tree, and returns the archive.
pub fn pack(tree: &Path, folder: &Path, architecture: Architecture, epoch: u64) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("rstscope:{version}");
    let layout = folder.join("layout");
    files::remove_folder(&layout)?;
    let blobs = Blobs(layout.join("blobs/sha256"));
    files::make_folder(&blobs.0)?;

    let layer = folder.join("layer.tar");
    tar(tree, &layer, epoch)?;
    let content = digest(&layer)?;
    // Without a name and a time in its head.
    child::run_on_stderr(
        Command::new("gzip").args(["--no-name", "--best", "--force"]).arg(&layer),
        "is the disk full?",
    )?;
    let layer = blobs.take(&folder.join("layer.tar.gz"), "application/vnd.oci.image.layer.v1.tar+gzip")?;

    let created = said(Command::new("date").args(["--utc", "--date", &format!("@{epoch}"), "+%FT%TZ"]))?;
    let labels = json!({
        "org.opencontainers.image.title": "rstscope",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
    });
    let configuration = json!({
        "architecture": architecture.name(),
        "os": "linux",
        "created": created,
        "config": { "Entrypoint": [PROGRAM], "Cmd": ["trace"], "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [content] },
        "history": [{ "created": created, "created_by": "cargo xtask image" }],
    });
    let configuration = blobs.write(&configuration, "application/vnd.oci.image.config.v1+json")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": configuration,
        "layers": [layer],
        "annotations": labels,
    });
    let mut manifest = blobs.write(&manifest, "application/vnd.oci.image.manifest.v1+json")?;
    manifest["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": version });
    manifest["platform"] = json!({ "architecture": architecture.name(), "os": "linux" });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    let of_docker = json!([{ "Config": path(&configuration), "RepoTags": [name], "Layers": [path(&layer)] }]);
    for (file, content) in [
        ("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" })),
        ("index.json", &index),
        ("manifest.json", &of_docker),
    ] {
        write(&layout.join(file), content)?;
    }
    let archive = folder.join(format!("rstscope-{version}-{}.tar", architecture.name()));
    tar(&layout, &archive, epoch)?;
    Ok(archive)
}

/// The folder of the blobs, each of which is called after its content.
struct Blobs(PathBuf);

impl Blobs {
    /// Moves a file there, and describes it.
    fn take(&self, file: &Path, media_type: &str) -> Result<Value> {
        let digest = digest(file)?;
        let place = self.0.join(digest.trim_start_matches("sha256:"));
        fs::rename(file, &place).with_context(|| format!("cannot make {}", place.display()))?;
        let size = fs::metadata(&place).with_context(|| format!("cannot read {}", place.display()))?.len();
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": size }))
    }

    fn write(&self, content: &Value, media_type: &str) -> Result<Value> {
        let file = self.0.join("new");
        write(&file, content)?;
        self.take(&file, media_type)
    }
}

/// Where a blob that was described is in the layout.
fn path(blob: &Value) -> String {
    format!("blobs/{}", blob["digest"].as_str().unwrap_or_default().replace(':', "/"))
}

/// The same bytes for the same tree: sorted, nobody's, all of one time.
fn tar(tree: &Path, archive: &Path, epoch: u64) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .args(["--create", "--format=ustar", "--sort=name", "--numeric-owner", "--owner=0", "--group=0"])
        .args(["--mode=u=rwX,go=rX", &format!("--mtime=@{epoch}"), "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(tree)
        .arg(".");
    child::run_on_stderr(&mut command, "is the disk full?")
}

fn digest(file: &Path) -> Result<String> {
    let line = said(Command::new("sha256sum").arg(file))?;
    Ok(format!("sha256:{}", line.split_whitespace().next().context("sha256sum printed nothing")?))
}

fn write(file: &Path, content: &Value) -> Result<()> {
    fs::write(file, content.to_string()).with_context(|| format!("cannot write {}", file.display()))
}
