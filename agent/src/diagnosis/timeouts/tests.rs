use std::{fs, process};

use super::*;

const TICK_MS: f64 = 4.0;

fn servers<'a>(table: &'a Timeouts, measured_ms: f64, process: Option<&str>) -> Vec<&'a str> {
    products(&table.fitting(Kind::Idle, Side::Server, measured_ms, TICK_MS, process, 20))
}

fn products<'a>(rows: &[&'a Known]) -> Vec<&'a str> {
    rows.iter().map(|row| row.product.as_str()).collect()
}

/// The table with a file of this text beside it.
fn with_text(name: &str, text: &str) -> Result<Timeouts, TimeoutsError> {
    let path = std::env::temp_dir().join(format!("rstscope-timeouts-{name}-{}.tsv", process::id()));
    fs::write(&path, text).unwrap();
    let table = Timeouts::with_file(&path);
    fs::remove_file(&path).unwrap();
    table
}

fn problem(name: &str, text: &str) -> (usize, String) {
    match with_text(name, text) {
        Err(TimeoutsError::Malformed { line, problem, .. }) => (line, problem.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_built_in_row_parses_and_has_a_source() {
    let mut count = 0;
    for (line, row) in rows(BUILT_IN) {
        let row = row.unwrap_or_else(|problem| panic!("line {line}: {problem}"));
        assert!(!row.source.is_empty(), "line {line} has no source");
        count += 1;
    }
    assert_eq!(Timeouts::built_in().rows.len(), count);
    assert!(count > 100, "{count}");
}

#[test]
fn no_built_in_row_is_there_twice() {
    let table = Timeouts::built_in();
    for (index, row) in table.rows.iter().enumerate() {
        let twice = |other: &Known| row.overrides(other) && row.kind == other.kind && row.versions == other.versions;
        assert!(!table.rows[index + 1..].iter().any(twice), "{row:?}");
    }
}

#[test]
fn node_20_closes_at_6_s_and_its_process_leaves_only_node() {
    let table = Timeouts::built_in();
    assert_eq!(servers(&table, 6004.0, Some("node")), ["Node.js http/https", "Express"]);
    assert_eq!(servers(&table, 6004.0, Some("MainThread")), ["Node.js http/https", "Express"]);
    assert_eq!(servers(&table, 6004.0, None), ["Node.js http/https", "Express", "Bun node:http", "Deno node:http"]);
}

#[test]
fn five_seconds_have_many_candidates_and_the_process_narrows_them() {
    let table = Timeouts::built_in();
    let all = servers(&table, 5003.7, None);
    for product in ["Node.js http/https", "uvicorn", "Hypercorn", "Apache httpd"] {
        assert!(all.contains(&product), "{all:?}");
    }
    assert_eq!(servers(&table, 5003.7, Some("uvicorn")), ["uvicorn"]);
    assert_eq!(servers(&table, 5003.7, Some("python3.11")), ["uvicorn", "Hypercorn"]);
    assert_eq!(servers(&table, 5003.7, Some("some-service")), all, "the table does not know this process");
    assert_eq!(table.fitting(Kind::Idle, Side::Server, 5003.7, TICK_MS, None, 3).len(), 3);
}

#[test]
fn servers_that_sweep_are_late() {
    let table = Timeouts::built_in();
    assert_eq!(servers(&table, 10_012.0, None), ["Cheroot / CherryPy"]);
    assert_eq!(servers(&table, 10_780.0, Some("python")), ["Cheroot / CherryPy"]);
    assert_eq!(servers(&table, 20_500.0, None), ["Tomcat standalone"]);
    assert_eq!(servers(&table, 20_868.0, Some("java")), ["Tomcat standalone"]);
    assert_eq!(servers(&table, 2972.0, None), ["gunicorn"]);
    assert_eq!(servers(&table, 145_200.0, Some("python")), ["Waitress"]);
    assert_eq!(servers(&table, 38_500.0, None), ["JDK com.sun.net.httpserver"]);
}

#[test]
fn no_timer_fires_early_nor_very_late() {
    let table = Timeouts::built_in();
    assert_eq!(servers(&table, 4990.0, None), [""; 0]);
    assert!(!servers(&table, 4996.0, None).is_empty(), "one tick early: both ends of the time are counted in ticks");
    assert_eq!(servers(&table, 6900.0, Some("node")), [""; 0]);
    assert_eq!(servers(&table, 6900.0, None), [""; 0]);
    assert_eq!(servers(&table, f64::NAN, None), [""; 0]);
}

#[test]
fn a_known_process_excludes_the_products_of_others() {
    let table = Timeouts::built_in();
    assert_eq!(servers(&table, 10_012.0, Some("node")), [""; 0]);
    assert_eq!(servers(&table, 75_070.0, Some("nginx")), ["nginx", "ingress-nginx"]);
}

#[test]
fn the_closest_comes_first() {
    assert_eq!(servers(&Timeouts::built_in(), 130_004.0, None), ["ASP.NET Core Kestrel", "Waitress"]);
}

#[test]
fn proxies_and_load_balancers_act_as_either_side() {
    let table = Timeouts::built_in();
    for side in [Side::Server, Side::Client, Side::Proxy] {
        let fitting = products(&table.fitting(Kind::Idle, side, 3_600_010.0, TICK_MS, Some("envoy"), 9));
        assert!(fitting.contains(&"Envoy HTTP"), "{side:?}: {fitting:?}");
    }
    let as_client = products(&table.fitting(Kind::Idle, Side::Client, 60_004.0, TICK_MS, None, 99));
    assert!(as_client.contains(&"AWS ALB") && as_client.contains(&"nginx upstream"), "{as_client:?}");
    assert!(!servers(&table, 60_004.0, None).contains(&"nginx upstream"));
}

#[test]
fn connects_have_their_own_timers() {
    let table = Timeouts::built_in();
    let connect = |ms, process| products(&table.fitting(Kind::Connect, Side::Client, ms, TICK_MS, process, 9));
    assert_eq!(connect(10_001.0, Some("envoy")), ["Istio sidecar / gateway"]);
    assert_eq!(connect(998.0, None), ["Linkerd proxy"]);
    assert_eq!(connect(1001.0, Some("linkerd2-proxy")), ["Linkerd proxy"]);
    assert_eq!(connect(10_004.0, Some("node")), ["undici / Node fetch"]);
    assert_eq!(connect(10_004.0, Some("java")), ["OkHttp", "Kafka clients"]);
    // Timers fire late, not early; and half a second late is another timer.
    assert_eq!(connect(9_990.0, Some("node")), [""; 0]);
    assert_eq!(connect(10_500.0, Some("node")), [""; 0]);
    assert_eq!(connect(1_000.0, Some("node")), [""; 0]);
}

#[test]
fn a_stranger_is_no_proxy_and_no_load_balancer() {
    let table = Timeouts::built_in();
    let connect = |ms, process| products(&table.fitting(Kind::Connect, Side::Client, ms, TICK_MS, process, 9));
    assert_eq!(
        connect(10_001.0, Some("checkout")),
        ["undici / Node fetch", "OkHttp", "MongoDB drivers", "Kafka clients"]
    );
    assert!(connect(10_001.0, None).contains(&"Istio sidecar / gateway"));
    assert_eq!(connect(19_001.0, None), ["Cloudflare"]);
    assert_eq!(connect(19_001.0, Some("checkout")), [""; 0]);
}

#[test]
fn clients_that_wait_for_an_answer_have_timers_of_their_own() {
    let table = Timeouts::built_in();
    let request = |ms, process| products(&table.fitting(Kind::Request, Side::Client, ms, TICK_MS, process, 9));
    assert_eq!(request(60_010.0, Some("nginx")), ["nginx http proxy", "Kong Gateway"]);
    assert_eq!(request(10_004.0, None), ["OkHttp"]);
    assert_eq!(request(30_004.0, None), ["AWS CloudFront"], "a server's own timers are not the client's");
}

#[test]
fn a_users_row_replaces_all_with_its_product_setting_and_side() {
    let text = "# ours\n\n65\t1\tserver\tidle\tidle\tNode.js http/https\t\tserver.keepAliveTimeout\tnode\trunbook\n\
                7\t\tserver\tidle\tidle\tOur gateway\t2\tidle\tgatewayd\t\n";
    let table = with_text("override", text).unwrap();
    assert_eq!(servers(&table, 65_500.0, Some("node")), ["Node.js http/https"]);
    assert_eq!(servers(&table, 6004.0, Some("node")), ["Express"]);
    assert_eq!(servers(&table, 7001.0, None), ["Our gateway"]);
    assert_eq!(servers(&table, 7001.0, Some("gatewayd")), ["Our gateway"]);
    assert_eq!(servers(&table, 5003.7, Some("uvicorn")), ["uvicorn"]);
}

#[test]
fn a_malformed_line_is_named() {
    let good = "7\t\tserver\tidle\tidle\tOurs\t\t\t\t\n";
    assert_eq!(problem("few", &format!("# head\n{good}\n7\tserver\n")).0, 4);
    assert_eq!(problem("few", "7\tserver\n").1, "2 columns instead of 10; tabs separate them");
    for seconds in ["soon", "", "0", "-5", "inf", "NaN"] {
        let text = good.replacen('7', seconds, 1);
        let expected = format!("seconds is \"{seconds}\", not a positive number of seconds");
        assert_eq!(problem("seconds", &text), (1, expected));
    }
    let text = good.replace("server", "nat");
    assert_eq!(problem("side", &text).1, "side is \"nat\", not server, client, proxy or lb");
    let text = good.replacen("idle", "life", 1);
    assert_eq!(problem("kind", &text).1, "kind is \"life\", not idle, connect or request");
    assert_eq!(problem("product", &good.replace("Ours", "")).1, "product is empty");
}

#[test]
fn a_missing_file_is_named() {
    let error = Timeouts::with_file(Path::new("/nonexistent/timeouts.tsv")).unwrap_err().to_string();
    assert!(error.starts_with("the table of timeouts /nonexistent/timeouts.tsv cannot be read: "), "{error}");
}
