//! The JSON Schema of the configuration, from the types that read it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::keys::{Key, keys};
use crate::sinks::{
    file::FileSettings, loki::LokiSettings, otlp::OtlpSettings, splunk::SplunkSettings, stdout::lines::StdoutSettings,
};

/// The types of sinks, and how the definition of each is called.
const TYPES: [(&str, &str); 5] = [
    ("stdout", "StdoutSettings"),
    ("file", "FileSettings"),
    ("loki", "LokiSettings"),
    ("splunk", "SplunkSettings"),
    ("otlp", "OtlpSettings"),
];

fn definitions() -> Map<String, Value> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let _reference = generator.subschema_for::<StdoutSettings>();
    let _reference = generator.subschema_for::<FileSettings>();
    let _reference = generator.subschema_for::<LokiSettings>();
    let _reference = generator.subschema_for::<SplunkSettings>();
    let _reference = generator.subschema_for::<OtlpSettings>();
    generator.take_definitions(true)
}

/// The keys of a sink of this type, if there is that type.
#[must_use]
pub fn keys_of(kind: &str) -> Option<Vec<Key>> {
    let (_, definition) = TYPES.into_iter().find(|(name, _)| *name == kind)?;
    let definitions = definitions();
    Some(keys(definitions.get(definition)?, &definitions))
}

/// The schema; `agent` is that of the section `[agent]`, which the command line knows.
#[must_use]
pub fn schema(agent: Value) -> Value {
    let mut definitions = definitions();
    for (name, definition) in TYPES {
        let Some(definition) = definitions.get_mut(definition) else { continue };
        definition["properties"]["type"] = json!({ "const": name });
        match definition.get_mut("required").and_then(Value::as_array_mut) {
            Some(required) => required.push("type".into()),
            None => definition["required"] = json!(["type"]),
        }
    }
    let sinks = TYPES.map(|(_, definition)| json!({ "$ref": format!("#/$defs/{definition}") }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rstscope.toml",
        "description": "The configuration of `rstscope run`.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "agent": agent,
            "sinks": {
                "type": "object",
                "description": "The sinks by name.",
                "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" },
                "additionalProperties": { "oneOf": sinks },
            },
        },
        "$defs": definitions,
    })
}
