//! The JSON Schema of the repository, applied to every line.

use std::sync::LazyLock;

use serde_json::Value;

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema: Value =
        serde_json::from_str(include_str!("../../../docs/rstscope.v1.schema.json")).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is a JSON Schema")
});

/// Panics with the complaint if `line` is not what the schema says.
pub fn check(line: &Value) {
    let complaints: Vec<String> =
        SCHEMA.iter_errors(line).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    assert!(complaints.is_empty(), "{}\nline: {line}", complaints.join("\n"));
}
