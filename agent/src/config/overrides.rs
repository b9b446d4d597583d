//! Keys of sinks from elsewhere than the file: `--sink NAME.KEY=VALUE`, and variables `RSTSCOPE_SINK_NAME_KEY`, in capitals
//! with `_` for `.` and `-`. So a container's address or token comes from its environment, without a file of its own.
//!
//! The file says which sinks there are and of which type. A secret never stands on a command line, which every user of the
//! machine can read; in the environment the variable itself becomes the secret's place.

use std::{collections::BTreeMap, env};

use toml::{Table, Value};

use super::{
    keys::{Key, Kind},
    nearest::nearest,
    schema::keys_of,
};
use crate::settings::Wrong;

/// What begins every variable.
const PREFIX: &str = "RSTSCOPE_SINK_";

/// What the command line and the environment say about sinks, not yet understood: that takes the sinks.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    flags: Vec<String>,
    variables: BTreeMap<String, String>,
}

/// Where a key's value is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File,
    /// A variable.
    Environment,
    /// A flag.
    CommandLine,
}

impl Origin {
    /// For `config show`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "the file",
            Self::Environment => "the environment",
            Self::CommandLine => "the command line",
        }
    }
}

/// Where the values of a sink's keys are from, by the keys' paths. What is not there is the default.
pub type Origins = BTreeMap<Vec<String>, Origin>;

/// A key that is set, and what to.
type Setting = (Vec<String>, Value);

impl Overrides {
    /// Those of this process, with its `--sink` flags.
    ///
    /// # Errors
    ///
    /// If a variable is not text.
    pub fn of_this_process(flags: Vec<String>) -> Result<Self, Wrong> {
        let mut variables = BTreeMap::new();
        for (name, value) in env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            let value = value.into_string().map_err(|_| Wrong(format!("{name} is not text in UTF-8")))?;
            variables.insert(name.to_owned(), value);
        }
        Ok(Self::new(flags, variables))
    }

    /// These. A variable that is empty counts as not set.
    #[must_use]
    pub fn new(flags: Vec<String>, variables: BTreeMap<String, String>) -> Self {
        let is_set = |(name, value): &(String, String)| !value.is_empty() && !is_service_link(name);
        Self { flags, variables: variables.into_iter().filter(is_set).collect() }
    }

    /// Sets keys in the sections of the sinks: first by variables, then by flags. Says what is set where.
    ///
    /// # Errors
    ///
    /// If there is no such sink or key, or the value is none for it; the sentence does not quote values.
    pub fn apply(&self, sinks: &mut Table) -> Result<BTreeMap<String, Origins>, Wrong> {
        let mut origins: BTreeMap<String, Origins> = BTreeMap::new();
        let mut known: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for (name, section) in sinks.iter() {
            let Some(section) = section.as_table() else { return Ok(origins) };
            // What has no type, or none that exists, is refused when it is read.
            let Some(keys) = section.get("type").and_then(Value::as_str).and_then(keys_of) else { return Ok(origins) };
            origins.insert(name.clone(), leaves(section).into_iter().map(|(path, _)| (path, Origin::File)).collect());
            known.insert(name.clone(), keys);
        }
        let by_variables =
            self.variables.iter().map(|(name, text)| (by_variable(&known, name, text), Origin::Environment));
        let by_flags = self.flags.iter().map(|flag| (by_flag(&known, flag), Origin::CommandLine));
        for (set, origin) in by_variables.chain(by_flags) {
            let (name, settings) = set?;
            for (path, value) in settings {
                let section = sinks.get_mut(name).and_then(Value::as_table_mut);
                section.map_or(Ok(()), |section| insert(section, &path, value)).map_err(|key| {
                    Wrong(format!("sinks.{name}.{key} is a table in the file, or has to be one to set a key in it"))
                })?;
                let origins = origins.entry(name.to_owned()).or_default();
                origins.retain(|other, _| !other.starts_with(&path));
                origins.insert(path, origin);
            }
        }
        Ok(origins)
    }
}

/// Kubernetes sets such variables in every pod beside a Service whose name begins with `rstscope-sink-`.
fn is_service_link(variable: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port_of_one = || {
        let (_, rest) = variable.rsplit_once("_PORT_")?;
        let mut words = rest.split('_');
        Some(is_number(words.next()?) && matches!(words.next()?, "TCP" | "UDP" | "SCTP"))
    };
    variable.ends_with("_SERVICE_HOST")
        || variable.ends_with("_SERVICE_PORT")
        || variable.contains("_SERVICE_PORT_")
        || variable.ends_with("_PORT")
        || port_of_one() == Some(true)
}

/// A sink's name, or a key's path, as a part of a variable.
fn capitals(text: &str) -> String {
    text.to_uppercase().replace(['-', '.'], "_")
}

fn by_variable<'a>(
    sinks: &'a BTreeMap<String, Vec<Key>>,
    variable: &str,
    text: &str,
) -> Result<(&'a str, Vec<Setting>), Wrong> {
    let rest = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let mut fitting = Vec::new();
    for (name, keys) in sinks {
        let key = rest.strip_prefix(&capitals(name)).and_then(|rest| rest.strip_prefix('_'));
        let set = key.and_then(|key| keys.iter().find_map(|known| set_by_variable(known, key, variable, text)));
        fitting.extend(set.map(|set| (name.as_str(), set)));
    }
    match fitting.len() {
        0 => {
            let all = sinks.iter().flat_map(|(name, keys)| {
                keys.iter().map(move |key| format!("{}_{}", capitals(name), capitals(&key.path.join("."))))
            });
            let all: Vec<String> = all.collect();
            let names: Vec<&str> = all.iter().map(String::as_str).collect();
            Err(Wrong(match nearest(rest, &names) {
                Some(nearest) => {
                    format!(
                        "{variable} is the variable of no key of a sink in the file; did you mean {PREFIX}{nearest}?"
                    )
                }
                None => format!("{variable} is the variable of no key of a sink in the file; unset it"),
            }))
        }
        1 => {
            let (name, set) = fitting.remove(0);
            Ok((name, set.map_err(|Wrong(problem)| Wrong(format!("{variable}: {problem}")))?))
        }
        _ => {
            let names: Vec<String> = fitting.iter().map(|(name, _)| format!("sinks.{name}")).collect();
            let names = names.join(" and ");
            Err(Wrong(format!("{variable} may mean {names}; give one of them another name, or use --sink")))
        }
    }
}

/// What a variable sets if it is this key's; `rest` is what follows the sink's name in it.
fn set_by_variable(key: &Key, rest: &str, variable: &str, text: &str) -> Option<Result<Vec<Setting>, Wrong>> {
    let rest = rest.strip_prefix(&capitals(&key.path.join(".")))?;
    let place = |suffix: &str| match suffix {
        "FILE" => ("file", text),
        _ => ("env", text),
    };
    let (path, (kind, place)) = match (key.kind, rest) {
        (Kind::Secret, "") => (key.path.clone(), ("env", variable)),
        (Kind::Secret, "_FILE" | "_ENV") => (key.path.clone(), place(&rest[1..])),
        (Kind::Secrets, _) => {
            let name = rest.strip_prefix('_').filter(|name| !name.is_empty())?;
            let (name, place) = match name.rsplit_once('_') {
                Some((name, suffix @ ("FILE" | "ENV"))) => (name, place(suffix)),
                _ => (name, ("env", variable)),
            };
            // Names of headers, in which case does not count and _ does not occur.
            ([key.path.as_slice(), &[name.to_lowercase().replace('_', "-")]].concat(), place)
        }
        (_, "") => return Some(values(key, text)),
        _ => return None,
    };
    Some(Ok(vec![(path, secret(kind, place))]))
}

fn by_flag<'a>(sinks: &'a BTreeMap<String, Vec<Key>>, flag: &str) -> Result<(&'a str, Vec<Setting>), Wrong> {
    let Some(((name, key), text)) = flag.split_once('=').and_then(|(key, text)| Some((key.split_once('.')?, text)))
    else {
        return Err(Wrong(
            "--sink takes NAME.KEY=VALUE, as in --sink central.url=https://loki.example:3100".to_owned(),
        ));
    };
    let Some((name, keys)) = sinks.get_key_value(name) else {
        let names: Vec<&str> = sinks.keys().map(String::as_str).collect();
        let remedy = match nearest(name, &names) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("it has {}", names.join(", ")),
        };
        return Err(Wrong(format!("--sink {name}.{key}: the file has no [sinks.{name}]; {remedy}")));
    };
    let in_flag = |Wrong(problem)| Wrong(format!("--sink {name}.{key}: {problem}"));
    match keys.iter().find_map(|known| set_by_flag(known, name, key, text)) {
        Some(set) => Ok((name, set.map_err(in_flag)?)),
        None => {
            let names: Vec<String> = keys.iter().map(|key| key.path.join(".")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let remedy = match nearest(key, &names) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("it has {}", names.join(", ")),
            };
            Err(in_flag(Wrong(format!("sinks.{name} has no key `{key}` that a flag can set; {remedy}"))))
        }
    }
}

/// What `given`, the part of a flag before its value, sets if it is this key's.
fn set_by_flag(key: &Key, sink: &str, given: &str, text: &str) -> Option<Result<Vec<Setting>, Wrong>> {
    let rest = given.strip_prefix(&key.path.join("."))?;
    let below = |name: &str| [key.path.as_slice(), &[name.to_owned()]].concat();
    let no_secret = || {
        let variable = format!("{PREFIX}{}_{}", capitals(sink), capitals(given));
        Some(Err(Wrong(format!(
            "a secret does not stand on the command line: give its file as {sink}.{given}.file=PATH, or set {variable}"
        ))))
    };
    let named = rest.strip_prefix('.').filter(|name| !name.is_empty());
    match (key.kind, rest, named) {
        (Kind::Secret, "", _) => no_secret(),
        (Kind::Secret, _, Some(kind @ ("file" | "env"))) => Some(Ok(vec![(key.path.clone(), secret(kind, text))])),
        (Kind::Secrets, _, Some(name)) => match name.rsplit_once('.') {
            Some((name, kind @ ("file" | "env"))) => Some(Ok(vec![(below(name), secret(kind, text))])),
            _ => no_secret(),
        },
        (Kind::Map, _, Some(name)) => Some(Ok(vec![(below(name), text.into())])),
        (Kind::Secrets, ..) => None,
        (_, "", _) => Some(values(key, text)),
        _ => None,
    }
}

fn secret(kind: &str, place: &str) -> Value {
    Value::Table(Table::from_iter([(kind.to_owned(), place.into())]))
}

/// A text as what the key takes.
fn values(key: &Key, text: &str) -> Result<Vec<Setting>, Wrong> {
    let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let value = match key.kind {
        Kind::Number => text.parse::<i64>().map_err(|_| Wrong("this takes a number".to_owned()))?.into(),
        Kind::Flag => text.parse::<bool>().map_err(|_| Wrong("this takes true or false".to_owned()))?.into(),
        Kind::List => Value::Array(items().map(Into::into).collect()),
        Kind::Map => {
            let entry = |item: &str| {
                let (name, value) = item.split_once('=').filter(|(name, _)| !name.is_empty())?;
                Some(([key.path.as_slice(), &[name.to_owned()]].concat(), value.into()))
            };
            let entries: Option<Vec<Setting>> = items().map(entry).collect();
            return entries
                .ok_or_else(|| Wrong("this takes NAME=VALUE, several of them with commas between".to_owned()));
        }
        Kind::Text | Kind::Secret | Kind::Secrets => text.into(),
    };
    Ok(vec![(key.path.clone(), value)])
}

/// Sets a key; the error is the one on the way to it that is no table.
fn insert(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    let Some((last, tables)) = path.split_last() else { return Ok(()) };
    let mut table = table;
    for name in tables {
        let next = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
        table = next.as_table_mut().ok_or_else(|| name.clone())?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

/// The keys of a section that have values, at any depth. A secret's place is one value.
#[must_use]
pub fn leaves(section: &Table) -> Vec<Setting> {
    let mut found = Vec::new();
    collect(section, &[], &mut found);
    found
}

fn collect(table: &Table, path: &[String], found: &mut Vec<Setting>) {
    for (name, value) in table {
        let path = [path, std::slice::from_ref(name)].concat();
        match value {
            Value::Table(inner) if !inner.is_empty() && !is_secret(inner) => collect(inner, &path, found),
            value => found.push((path, value.clone())),
        }
    }
}

fn is_secret(table: &Table) -> bool {
    table.len() == 1 && ["file", "env"].iter().any(|kind| table.get(*kind).is_some_and(Value::is_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[central]\ntype = \"loki\"\nurl = \"http://old:1\"\nbatch = { lines = 5 }\n\
                        bearer_token = { file = \"/old\" }\n[to-splunk]\ntype = \"splunk\"\n[otel]\ntype = \"otlp\"\n";

    fn applied(flags: &[&str], variables: &[(&str, &str)]) -> Result<(Table, BTreeMap<String, Origins>), Wrong> {
        let mut sinks: Table = toml::from_str(FILE).unwrap();
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let origins = Overrides::new(flags, variables).apply(&mut sinks)?;
        Ok((sinks, origins))
    }

    #[test]
    fn a_flag_wins_over_a_variable_and_that_over_the_file() {
        let variables = [
            ("RSTSCOPE_SINK_CENTRAL_URL", "http://variable:1"),
            ("RSTSCOPE_SINK_CENTRAL_BATCH_WAIT", "2s"),
            ("RSTSCOPE_SINK_TO_SPLUNK_URL", "https://splunk:8088"),
            ("RSTSCOPE_SINK_TO_SPLUNK_ACKNOWLEDGE", "true"),
            ("RSTSCOPE_SINK_CENTRAL_TENANT", ""),
        ];
        let (sinks, origins) =
            applied(&["central.url=http://flag:1?a=b", "central.batch.lines=7"], &variables).unwrap();
        assert_eq!(sinks["central"]["url"].as_str(), Some("http://flag:1?a=b"));
        assert_eq!(sinks["central"]["batch"].to_string(), "{ lines = 7, wait = \"2s\" }");
        assert_eq!(sinks["to-splunk"]["url"].as_str(), Some("https://splunk:8088"));
        assert_eq!(sinks["to-splunk"]["acknowledge"].as_bool(), Some(true));
        assert!(sinks["central"].get("tenant").is_none(), "an empty variable is none");
        let origin =
            |path: &[&str]| origins["central"].get(&path.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(origin(&["url"]), Some(&Origin::CommandLine));
        assert_eq!(origin(&["batch", "wait"]), Some(&Origin::Environment));
        assert_eq!(origin(&["bearer_token"]), Some(&Origin::File));
        assert_eq!(origin(&["batch", "bytes"]), None);
    }

    #[test]
    fn a_secret_comes_from_the_environment_or_a_file_and_never_from_a_flag() {
        let variables = [
            ("RSTSCOPE_SINK_CENTRAL_BEARER_TOKEN", "hunter2"),
            ("RSTSCOPE_SINK_TO_SPLUNK_TOKEN_FILE", "/run/token"),
            ("RSTSCOPE_SINK_OTEL_HEADERS_AUTHORIZATION", "hunter2"),
            ("RSTSCOPE_SINK_OTEL_HEADERS_X_API_KEY_FILE", "/run/key"),
        ];
        let (sinks, _) = applied(&["central.basic_auth.password.env=PASSWORD"], &variables).unwrap();
        assert_eq!(sinks["central"]["bearer_token"].to_string(), "{ env = \"RSTSCOPE_SINK_CENTRAL_BEARER_TOKEN\" }");
        assert_eq!(sinks["central"]["basic_auth"]["password"].to_string(), "{ env = \"PASSWORD\" }");
        assert_eq!(sinks["to-splunk"]["token"].to_string(), "{ file = \"/run/token\" }");
        let headers = &sinks["otel"]["headers"];
        assert_eq!(headers["authorization"].to_string(), "{ env = \"RSTSCOPE_SINK_OTEL_HEADERS_AUTHORIZATION\" }");
        assert_eq!(headers["x-api-key"].to_string(), "{ file = \"/run/key\" }");
        assert!(!format!("{sinks:?}").contains("hunter2"));
        for flag in
            ["central.bearer_token=hunter2", "otel.headers.authorization=hunter2", "hunter2", "central.hunter=2"]
        {
            let refused = applied(&[flag], &[]).unwrap_err().0;
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let refused = applied(&["to-splunk.token=hunter2"], &[]).unwrap_err().0;
        assert!(refused.contains("token.file") && refused.contains("RSTSCOPE_SINK_TO_SPLUNK_TOKEN"), "{refused}");
    }

    #[test]
    fn lists_and_maps_have_commas() {
        let variables = [
            ("RSTSCOPE_SINK_CENTRAL_LABELS", "cluster=prod, zone=b"),
            ("RSTSCOPE_SINK_CENTRAL_FILTER_NAMESPACES", "shop,pay-*"),
        ];
        let flags = ["otel.resource.k8s.cluster.name=prod", "central.labels.zone=c"];
        let (sinks, _) = applied(&flags, &variables).unwrap();
        assert_eq!(sinks["central"]["labels"].to_string(), "{ cluster = \"prod\", zone = \"c\" }");
        assert_eq!(sinks["central"]["filter"]["namespaces"].to_string(), "[\"shop\", \"pay-*\"]");
        assert_eq!(sinks["otel"]["resource"]["k8s.cluster.name"].as_str(), Some("prod"));
    }

    #[test]
    fn what_does_not_exist_is_refused_with_the_nearest() {
        for (flags, variables, words) in [
            (vec!["centrl.url=x"], vec![], ["no [sinks.centrl]", "`central`"]),
            (vec!["central.urll=x"], vec![], ["no key `urll`", "`url`"]),
            (vec!["central.type=otlp"], vec![], ["no key `type`", "sinks.central"]),
            (vec!["central.batch.lines=many"], vec![], ["central.batch.lines", "a number"]),
            (vec!["central"], vec![], ["NAME.KEY=VALUE", "--sink"]),
            (vec![], vec![("RSTSCOPE_SINK_CENTRAL_ULR", "x")], ["_CENTRAL_ULR", "RSTSCOPE_SINK_CENTRAL_URL?"]),
            (vec![], vec![("RSTSCOPE_SINK_SPLUNK_URL", "x")], ["_SPLUNK_URL", "RSTSCOPE_SINK_TO_SPLUNK_URL?"]),
            (vec![], vec![("RSTSCOPE_SINK_CENTRAL_HTTP_GZIP", "maybe")], ["_HTTP_GZIP", "true or false"]),
        ] {
            let refused = applied(&flags, &variables).unwrap_err().0;
            assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
        }
    }

    #[test]
    fn a_variable_that_fits_two_sinks_is_refused() {
        let mut sinks: Table = toml::from_str("[a-b]\ntype = \"loki\"\n[a_b]\ntype = \"loki\"").unwrap();
        let variables = BTreeMap::from([("RSTSCOPE_SINK_A_B_URL".to_owned(), "x".to_owned())]);
        let refused = Overrides::new(vec![], variables).apply(&mut sinks).unwrap_err().0;
        assert!(refused.contains("sinks.a-b and sinks.a_b"), "{refused}");
    }

    #[test]
    fn what_kubernetes_says_of_a_service_is_not_meant() {
        for name in ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_3100_TCP", "PORT_3100_TCP_PORT"]
        {
            let name = format!("RSTSCOPE_SINK_CENTRAL_{name}");
            assert!(applied(&[], &[(&name, "tcp://10.0.0.1:3100")]).is_ok(), "{name}");
        }
    }

    #[test]
    fn every_key_of_every_type_has_a_variable_of_its_own() {
        for kind in crate::config::sink::TYPES {
            let keys = keys_of(kind).unwrap();
            let mut names: Vec<String> = keys.iter().map(|key| capitals(&key.path.join("."))).collect();
            assert!(names.iter().all(|name| !is_service_link(&format!("{PREFIX}X_{name}"))), "{names:?}");
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{kind}");
        }
        let loki = keys_of("loki").unwrap();
        let kind = |path: &str| loki.iter().find(|key| key.path.join(".") == path).map(|key| key.kind);
        assert_eq!(kind("tls.ca_file"), Some(Kind::Text));
        assert_eq!(kind("batch.lines"), Some(Kind::Number));
        assert_eq!(kind("batch.wait"), Some(Kind::Text));
        assert_eq!(kind("http.gzip"), Some(Kind::Flag));
        assert_eq!(kind("filter.types"), Some(Kind::List));
        assert_eq!(kind("labels"), Some(Kind::Map));
        assert_eq!(kind("bearer_token"), Some(Kind::Secret));
        assert_eq!(kind("basic_auth.password"), Some(Kind::Secret));
        assert_eq!(kind("encoding"), Some(Kind::Text));
        let otlp = keys_of("otlp").unwrap();
        assert!(otlp.iter().any(|key| key.path == ["headers"] && key.kind == Kind::Secrets));
    }
}
