//! The keys that lines have, and what goes along with them: docs/rstscope.v1.schema.json and docs/sinks.md.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use super::render::read;

/// What a search can name.
#[derive(Debug)]
pub struct Lines {
    schema: Value,
    /// What Loki gets as structured metadata.
    loki: BTreeSet<String>,
    /// What Splunk indexes beside the event.
    splunk: BTreeSet<String>,
}

impl Lines {
    /// Reads both documents.
    pub fn documented(workspace: &Path) -> Result<Self> {
        let schema = read(&workspace.join("docs/rstscope.v1.schema.json"))?;
        let sinks = read(&workspace.join("docs/sinks.md"))?;
        Ok(Self {
            schema: serde_json::from_str(&schema).context("docs/rstscope.v1.schema.json is not JSON")?,
            loki: named_after(&sinks, "structured metadata: ")
                .context("docs/sinks.md does not name Loki's metadata")?,
            splunk: named_after(&sinks, "indexed fields: ").context("docs/sinks.md does not name Splunk's fields")?,
        })
    }

    /// Whether Loki knows it without parsing the line: a label of every stream, or structured metadata.
    pub fn loki_has(&self, name: &str) -> bool {
        matches!(name, "job" | "node") || self.loki.contains(name)
    }

    /// Whether Splunk indexes it.
    pub fn splunk_has(&self, name: &str) -> bool {
        self.splunk.contains(name)
    }

    /// Whether a line has this key, written with dots as searches do: `local.pod.name`.
    pub fn has(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('.').collect();
        self.is_below(&self.schema, &parts)
    }

    fn is_below(&self, schema: &Value, parts: &[&str]) -> bool {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.schema.pointer(reference.trim_start_matches('#'));
            return target.is_some_and(|target| self.is_below(target, parts));
        }
        let Some((first, rest)) = parts.split_first() else { return true };
        let property = schema.get("properties").and_then(|properties| properties.get(*first));
        if property.is_some_and(|property| self.is_below(property, rest)) {
            return true;
        }
        let others = ["oneOf", "anyOf", "allOf"].iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
        let mut others = others.chain(["then", "items"].iter().filter_map(|key| schema.get(key)));
        others.any(|other| self.is_below(other, parts))
    }
}

/// The names in backquotes between these words and the end of the paragraph.
fn named_after(page: &str, words: &str) -> Option<BTreeSet<String>> {
    let (_, rest) = page.split_once(words)?;
    let paragraph = rest.split("\n\n").next()?;
    let names: BTreeSet<String> = paragraph.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_found_through_references_and_alternatives() {
        let schema = json!({
            "$defs": { "party": { "properties": { "pod": { "properties": { "name": {} } } } } },
            "oneOf": [{ "properties": { "lost": { "properties": { "count": {} } } } },
                      { "properties": { "local": { "$ref": "#/$defs/party" } } }],
        });
        let lines = Lines { schema, loki: BTreeSet::new(), splunk: BTreeSet::new() };
        for path in ["lost.count", "local", "local.pod.name"] {
            assert!(lines.has(path), "{path}");
        }
        for path in ["lost.cause", "peer", "local.pod.name.x"] {
            assert!(!lines.has(path), "{path}");
        }
    }

    #[test]
    fn names_end_with_their_paragraph() {
        let page = "It gets structured metadata: `id`, `type`\nand `cause`.\n\nElse `nothing`.";
        assert_eq!(named_after(page, "metadata:").unwrap().into_iter().collect::<Vec<_>>(), ["cause", "id", "type"]);
        assert_eq!(named_after(page, "fields:"), None);
    }
}
