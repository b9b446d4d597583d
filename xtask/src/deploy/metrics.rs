//! The metrics that there are: the table of docs/metrics.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, bail};

use super::render::read;

/// Labels that a scrape adds.
const OF_THE_SCRAPE: [&str; 3] = ["instance", "job", "node"];

/// Metrics and their labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Metrics(BTreeMap<String, BTreeSet<String>>);

impl Metrics {
    /// Reads the table.
    pub fn documented(workspace: &Path) -> Result<Self> {
        let page = workspace.join("docs/metrics.md");
        let metrics = Self::parse(&read(&page)?);
        if metrics.0.is_empty() {
            bail!("{} has no table `| metric | type | labels | meaning |`", page.display());
        }
        Ok(metrics)
    }

    /// A row is `| name | type | labels | meaning |`, the name in backquotes.
    fn parse(page: &str) -> Self {
        let rows = page.lines().filter_map(|line| {
            let cells: Vec<&str> = line.trim().strip_prefix('|')?.split('|').map(str::trim).collect();
            let [name, _kind, labels, ..] = cells[..] else { return None };
            let name = name.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_owned(), words(labels)))
        });
        Self(rows.collect())
    }

    /// Why a query may not name this metric with these labels.
    pub fn refuse(&self, metric: &str, labels: &[String]) -> Option<String> {
        let Some(own) = self.0.get(metric) else {
            return Some(format!("there is no metric {metric} in docs/metrics.md"));
        };
        let unknown = labels.iter().find(|label| !own.contains(*label) && !OF_THE_SCRAPE.contains(&label.as_str()))?;
        Some(format!("{metric} has no label {unknown}"))
    }

    /// Whether some metric has this label.
    pub fn has_label(&self, label: &str) -> bool {
        OF_THE_SCRAPE.contains(&label) || self.0.values().any(|labels| labels.contains(label))
    }
}

fn words(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.split(|character| !is_part(character)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| metric | type | labels | meaning |\n|---|---|---|---|\n\
        | `rstscope_lost_total` | counter | `cause`, `sink` | what was lost |\n| `rstscope_ready` | gauge | | 1 |\n";

    #[test]
    fn a_table_is_read() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!(metrics.0.len(), 2);
        assert_eq!(metrics.refuse("rstscope_lost_total", &["sink".to_owned(), "node".to_owned()]), None);
        assert!(metrics.refuse("rstscope_lost_total", &["pod".to_owned()]).unwrap().contains("no label pod"));
        assert!(metrics.refuse("rstscope_lost", &[]).unwrap().contains("no metric"));
        assert!(metrics.has_label("cause") && !metrics.has_label("pod"));
    }
}
