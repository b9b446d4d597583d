//! Which keys a type of sink has, and what each takes: from the same types that read them, by way of the schema.

use serde_json::{Map, Value};

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string, and what is written as one: times, sizes, one of several words.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Flag,
    /// Strings.
    List,
    /// Names and strings.
    Map,
    /// The place of a secret.
    Secret,
    /// Names and places of secrets.
    Secrets,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The tables it is in, and itself.
    pub path: Vec<String>,
    /// What it takes.
    pub kind: Kind,
}

/// Every key of a section whose schema this is, at any depth, but for `type`.
#[must_use]
pub fn keys(section: &Value, definitions: &Map<String, Value>) -> Vec<Key> {
    let mut found = Vec::new();
    collect(section, definitions, &[], &mut found);
    found
}

fn collect(schema: &Value, definitions: &Map<String, Value>, path: &[String], found: &mut Vec<Key>) {
    let (name, schema) = resolved(schema, definitions);
    let is_secret = |schema: &Value| resolved(schema, definitions).0 == Some("Secret");
    if let (false, Some(properties)) = (name == Some("Secret"), schema["properties"].as_object()) {
        for (property, schema) in properties.iter().filter(|(property, _)| !(path.is_empty() && *property == "type")) {
            collect(schema, definitions, &[path, std::slice::from_ref(property)].concat(), found);
        }
        return;
    }
    let kind = match (&schema["additionalProperties"], schema["type"].as_str()) {
        _ if name == Some("Secret") => Kind::Secret,
        (values @ Value::Object(_), _) if is_secret(values) => Kind::Secrets,
        (Value::Object(_), _) => Kind::Map,
        (_, Some("array")) => Kind::List,
        (_, Some("boolean")) => Kind::Flag,
        (_, Some("integer")) => Kind::Number,
        _ => Kind::Text,
    };
    found.push(Key { path: path.to_vec(), kind });
}

/// Follows references, and what may be left out to what it is otherwise; with the name of the last reference.
fn resolved<'a>(mut schema: &'a Value, definitions: &'a Map<String, Value>) -> (Option<&'a str>, &'a Value) {
    let mut name = None;
    loop {
        let referred = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        let mut alternatives = schema["anyOf"].as_array().into_iter().flatten();
        let alternative = alternatives.find(|alternative| alternative["type"] != "null");
        schema = match (referred.and_then(|name| definitions.get(name)), alternative) {
            (Some(definition), _) => {
                name = referred;
                definition
            }
            (None, Some(alternative)) => alternative,
            (None, None) => return (name, schema),
        };
    }
}
