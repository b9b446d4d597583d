//! What the quick starts in `docs/` say to write, written and rendered as they say.

use anyhow::{Context, Result};

use super::{
    Bench,
    render::{Rendering, read, rendering},
};
use crate::files;

/// The folder that the pages tell a user to make in the checkout.
const FOLDER: &str = "rstscope";

/// Renders what each page says, with kustomize and with Helm.
pub fn all(bench: &Bench) -> Result<Vec<Rendering>> {
    let page = |name: &str| read(&bench.workspace.join("docs").join(name));
    let (kubernetes, loki, splunk) =
        (page("kubernetes.md")?, page("quickstart-loki.md")?, page("quickstart-splunk.md")?);
    let kustomization = block(&loki, "yaml", "resources:")?;
    // The page of Splunk refers to that of Loki.
    let of_splunk = kustomization.replace("overlays/loki", "overlays/splunk");
    let (_, repository) = kubernetes.split_once("--set image.repository=").context("docs/kubernetes.md has no helm")?;
    let set = format!("image: {{ repository: {} }}", repository.split_whitespace().next().unwrap_or_default());
    let alone = block(&kubernetes, "yaml", "resources:")?;
    [
        ("kubernetes", alone, String::new(), set),
        ("quickstart-loki", kustomization, block(&loki, "toml", "")?, block(&loki, "yaml", "sinks:")?),
        ("quickstart-splunk", of_splunk, block(&splunk, "toml", "")?, block(&splunk, "yaml", "sinks:")?),
    ]
    .into_iter()
    .map(|(name, kustomization, configuration, values)| {
        follow(bench, &format!("docs-{name}"), &kustomization, &configuration, &values)
    })
    .collect()
}

fn follow(bench: &Bench, name: &str, kustomization: &str, configuration: &str, values: &str) -> Result<Rendering> {
    // Beside the copy of `deploy/`, as in a checkout.
    let folder = bench.scratch.join(FOLDER);
    files::write_file(&folder.join("kustomization.yaml"), kustomization)?;
    files::write_file(&folder.join("rstscope.toml"), configuration)?;
    let file = folder.join("values.yaml");
    files::write_file(&file, values)?;
    rendering(bench, name, &folder, &[file])
}

/// The first block of code in a language that has these words.
fn block(page: &str, language: &str, words: &str) -> Result<String> {
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0));
    let found = blocks.into_iter().find(|block| block.contains(words));
    Ok(found.with_context(|| format!("a page has no block of {language} with {words:?}"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_by_language_and_words() {
        let page = "a\n```toml\nx = 1\n```\n```yaml\na: 1\n```\n```yaml\nsinks: {}\n```\n";
        assert_eq!(block(page, "yaml", "sinks:").unwrap(), "sinks: {}\n");
        assert_eq!(block(page, "toml", "").unwrap(), "x = 1\n");
        assert!(block(page, "yaml", "nothing").is_err());
    }
}
