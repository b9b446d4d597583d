//! Objects of Kubernetes as they come out of a rendering.

use anyhow::{Context, Result};
use serde_json::Value;

/// Reads a stream of YAML documents; empty ones are none.
pub fn read(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("what was rendered is not YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The text at a pointer; empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What it is.
pub fn kind(object: &Value) -> &str {
    text(object, "/kind")
}

/// What it is and what it is called.
pub fn name(object: &Value) -> String {
    format!("{} {}", kind(object), text(object, "/metadata/name"))
}

/// The only one of a kind.
pub fn only<'a>(objects: &'a [Value], wanted: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| kind(object) == wanted);
    match (found.next(), found.next()) {
        (Some(object), None) => Ok(object),
        _ => anyhow::bail!("there is not exactly one {wanted} in what was rendered"),
    }
}

/// The container of the DaemonSet.
pub fn container(objects: &[Value]) -> Result<&Value> {
    only(objects, "DaemonSet")?.pointer("/spec/template/spec/containers/0").context("the DaemonSet has no container")
}

/// The list at a pointer; empty if there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
