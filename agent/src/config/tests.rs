use super::*;

fn refused(text: &str) -> String {
    Configuration::parse(text, &Overrides::default()).unwrap_err().0
}

#[test]
fn sinks_are_read_with_their_defaults() {
    let text = r#"
        [agent]
        node = "n1"
        [sinks.console]
        type = "stdout"
        [sinks.central]
        type = "loki"
        url = "https://loki:3100"
        labels = { cluster = "prod" }
        batch = { lines = 10 }
        bearer_token = { file = "/run/secrets/token" }
        filter = { namespaces = ["shop"], hide_benign = true }
    "#;
    let configuration = Configuration::parse(text, &Overrides::default()).unwrap();
    assert_eq!(configuration.agent["node"].as_str(), Some("n1"));
    let SinkSettings::Loki(loki) = &configuration.sinks["central"] else { panic!("not a Loki") };
    assert_eq!((loki.batch.lines, loki.batch.bytes.0), (10, 512 << 10));
    assert!(loki.filter.hide_benign && loki.structured_metadata);
}

#[test]
fn a_key_that_does_not_exist_is_refused_with_the_nearest_at_every_depth() {
    let loki = "[sinks.a]\ntype = \"loki\"\nurl = \"http://l:1\"\n";
    for (text, words) in [
        ("[sink.a]\ntype = \"stdout\"".to_owned(), ["no key `sink`", "`sinks`"]),
        ("agnet = 1".to_owned(), ["no key `agnet`", "`agent`"]),
        (format!("{loki}tenent = \"x\""), ["sinks.a has no key `tenent`", "`tenant`"]),
        (format!("{loki}[sinks.a.batch]\nline = 5"), ["no key `line`", "`lines`"]),
        (format!("{loki}[sinks.a.tls]\nca = \"x\""), ["no key `ca`", "`ca_file`"]),
        ("[sinks.a]\ntype = \"lokki\"".to_owned(), ["no value `lokki`", "`loki`"]),
        ("[sinks.a]\nurl = \"x\"".to_owned(), ["no `type`", "stdout, file, loki, splunk, otlp"]),
        ("[sinks.\"a/b\"]\ntype = \"stdout\"".to_owned(), ["letters", "digits"]),
    ] {
        let refused = refused(&text);
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
        assert!(!refused.contains('\n'), "one sentence: {refused}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_shown() {
    let loki = "[sinks.a]\ntype = \"loki\"\nurl = \"http://l:1\"\n";
    for text in [
        format!("{loki}bearer_token = \"hunter2\""),
        format!("{loki}bearer_token = {{ token = \"hunter2\" }}"),
        format!("{loki}bearer_token = {{ file = \"a\", env = \"hunter2\" }}"),
        format!("{loki}bearer_token = \"hunter2"),
        format!("{loki}token = \"hunter2\""),
        format!("{loki}[sinks.a.basic_auth]\nuser = \"u\"\npassword = \"hunter2\""),
        "[sinks.a]\ntype = \"loki\"\nurl = \"http://u:hunter2@l:1\"".to_owned(),
        "[sinks.a]\ntype = \"loki\"\nurl = \"http://l:1?token=hunter2\"".to_owned(),
        format!("{loki}[sinks.a.http]\nproxy = \"http://u:hunter2@p:1\""),
    ] {
        let refused = refused(&text);
        assert!(!refused.contains("hunter2"), "{refused}");
    }
    let refused = refused(&format!("{loki}bearer_token = \"hunter2\""));
    assert!(refused.contains("file = \"PATH\""), "{refused}");
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let loki = "[sinks.a]\ntype = \"loki\"\n";
    for (text, words) in [
        ("[sinks.a]\ntype = 7".to_owned(), ["sinks.a", "type"]),
        ("[sinks.a\ntype".to_owned(), ["line 1", "column"]),
        (format!("{loki}url = \"loki:3100\""), ["sinks.a", "http://"]),
        (format!("{loki}url = \"http://l:1\"\nretry = {{ first = \"2m\" }}"), ["retry.first", "retry.most"]),
        (format!("{loki}url = \"http://l:1\"\ntls = {{ cert_file = \"c\" }}"), ["cert_file", "key_file"]),
        (format!("{loki}url = \"http://l:1\"\nspool = {{ disk_bytes = \"1MiB\" }}"), ["disk_bytes", "8MiB"]),
        (format!("{loki}url = \"http://l:1\"\nspool = {{ fsync = \"perhaps\" }}"), ["never", "always"]),
        ("[sinks.a]\ntype = \"file\"".to_owned(), ["sinks.a", "path"]),
        ("[sinks.a]\ntype = \"stdout\"\n[sinks.b]\ntype = \"stdout\"".to_owned(), ["sinks.a", "sinks.b"]),
    ] {
        let refused = refused(&text);
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
    }
}

#[test]
fn the_schema_takes_what_the_program_takes_and_refuses_what_it_refuses() {
    let schema = schema::schema(serde_json::json!({ "type": "object" }));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let json = |text: &str| serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    let good = "[sinks.a]\ntype = \"loki\"\nurl = \"http://l:1\"\nbatch = { lines = 5, wait = \"1s\" }\n\
                bearer_token = { env = \"T\" }\n[sinks.b]\ntype = \"file\"\npath = \"/x\"\nfsync = \"2s\"";
    assert!(Configuration::parse(good, &Overrides::default()).is_ok());
    let complaints: Vec<String> = validator.iter_errors(&json(good)).map(|error| error.to_string()).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    for bad in
        ["[sinks.a]\ntype = \"loki\"", "[sinks.a]\npath = \"/x\"", "[sinks.a]\ntype = \"file\"\npath = \"/x\"\nkep = 1"]
    {
        assert!(Configuration::parse(bad, &Overrides::default()).is_err());
        assert!(!validator.is_valid(&json(bad)), "{bad}");
    }
}
