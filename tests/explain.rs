//! `tenantry explain` and `tenantry plan`, with the real program: every kind of rule, captured requests in every
//! format, hostile values, and input that is not what it should be.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: where they cannot go on, the test fails"
)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::proto::{TimeSeries, WriteRequest};
use testkit::{proto_loki, proto_v2};

const UP: &str = r#"{__name__="up",namespace="a"}"#;

/// A folder with files, in which the program runs.
struct Folder(TempDir);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put("c.yml", config.as_bytes());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Runs the program without variables that would be settings.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "20", env!("CARGO_BIN_EXE_tenantry")]).current_dir(self.0.path());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CT_")) {
            command.env_remove(name);
        }
        command.args(args).output().unwrap()
    }

    /// What it prints if it exits with this code.
    fn prints(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {out}{error}");
        out
    }

    /// What it complains of if it exits with this code.
    fn complains(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stdout));
        let error = text(&output.stderr);
        let is_safe = !error.contains(|letter: char| letter.is_control() && letter != '\n');
        assert!(is_safe && !error.contains("panicked"), "{error}");
        error
    }

    fn explain(&self, args: &[&str]) -> String {
        self.prints(0, &[&["explain", "--config", "c.yml"], args].concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.explain(&[&["--json"], args].concat())).unwrap()
    }

    fn plan(&self, code: i32, more: &[&str]) -> Value {
        let args = [&["plan", "--old", "c.yml", "--new", "n.yml", "--json", "captures"], more].concat();
        serde_json::from_str(&self.prints(code, &args)).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A line of a report: its subject and its text.
fn line<'a>(report: &'a str, subject: &str) -> &'a str {
    let found = report.lines().find_map(|line| line.strip_prefix(subject)?.strip_prefix(' '));
    found.map(str::trim_start).unwrap_or_else(|| panic!("no {subject} in:\n{report}"))
}

#[test]
fn a_series_is_explained_line_by_line() {
    let folder = Folder::new(
        "target: http://mimir:8080/api/v1/push?key=canary\nauth: {egress: {username: u, password: canary}}\n\
         tenant: {label_list: [team, namespace], label_remove: true, prefix: eu-}\n",
    );
    let report = folder.explain(&[UP]);
    for (subject, expected) in [
        ("series", UP),
        ("label", "namespace=\"a\", number 2 of 2 by priority; it is removed"),
        ("rule", "the label's value is the tenant"),
        ("tenant", "eu-a"),
        ("header", "X-Scope-OrgID: eu-a"),
        ("upstream", "main"),
        ("target", "http://mimir:8080/api/v1/push?***"),
    ] {
        assert_eq!(line(&report, subject), expected);
    }
    assert!(!report.contains("canary"), "{report}");
    assert_eq!(report, folder.prints(0, &["explain", "-config=c.yml", UP]), "with one dash");
    let up = folder.explain(&["up{namespace='a',team=\"\"}"]);
    assert_eq!(line(&up, "tenant"), "eu-a", "an empty label is none");
}

#[test]
fn the_json_is_that_of_the_api() {
    let folder = Folder::new("target: http://mimir/push\ntenant: {label: namespace}\n");
    let header = json!({"name": "X-Scope-OrgID", "value": "a"});
    let expected = json!({
        "series": UP, "decision": "tenant", "tenant": "a", "label": "namespace", "label_value": "a",
        "rule": {"kind": "label", "detail": "the label's value is the tenant"}, "reason": null,
        "upstream": "main", "target": "http://mimir/push", "header": header, "headers": [header],
        "label_removed": false, "answer": null,
    });
    assert_eq!(folder.json(&[UP]), expected);
    let missing = folder.json(&["up"]);
    let reason = "no tenant: it has no value in label namespace, and no default tenant is set";
    let answer = json!({"status": 400, "text": format!("series 1 (up): {reason}"),
        "reason": "missing_tenant", "whole_request": true});
    let expected = json!({
        "series": "{__name__=\"up\"}", "decision": "missing", "tenant": null, "label": null,
        "label_value": null, "rule": null, "reason": reason, "upstream": null, "target": null,
        "header": null, "headers": null, "label_removed": false, "answer": answer,
    });
    assert_eq!(missing, expected);
}

#[test]
fn every_kind_of_rule_is_named() {
    let folder = Folder::new(
        "target: http://main/push\ntarget_loki: http://loki/{tenant}/push\nupstreams: u.yml\naccess: access.yml\n\
         auth: {ingress: {web_config_file: web.yml, tokens_file: tokens.yml}}\n\
         tenant: {label: namespace, default: infra, map: map.yml, loki_label_remove: true, on_invalid: drop}\n",
    );
    folder.put(
        "map.yml",
        b"- {exact: a, tenant: platform}\n- {prefix: dev-, tenant: development}\n\
          - {regex: '(.+)-team', tenant: $1}\n- {regex: 'test-.*', drop: true}\n",
    );
    folder.put("u.yml", b"- {name: east, tenants: [dev*], target: 'https://east/push'}\n");
    folder.put(
        "access.yml",
        b"- {for: {user: gateway}, trust_header: true}\n- {for: {user: own}, tenant: {from: user}}\n\
          - {for: {token: agent}, tenants: [platform]}\n",
    );
    let hash = "$2b$04$mBRGf.7rP8UkNsUqJ1pT8.1qg1j0sJm4m8xSkX0b6f9nN6oY1c5aK";
    folder.put("web.yml", format!("basic_auth_users:\n  gateway: {hash}\n  own: {hash}\n").as_bytes());
    folder.put("tokens.yml", b"- {name: agent, token_file: agent.token}\n");
    folder.put("agent.token", b"the-bearer-token-0123456789abcdef");
    let of = |args: &[&str]| {
        let told = folder.json(args);
        let field = |key: &str| told[key].as_str().unwrap_or("-").to_owned();
        (
            field("decision"),
            field("tenant"),
            told["rule"]["kind"].as_str().unwrap().to_owned(),
            field("upstream"),
        )
    };
    let series = |value: &str| format!("up{{namespace=\"{value}\"}}");
    for (value, [decision, tenant, rule, upstream]) in [
        ("x", ["tenant", "x", "label", "main"]),
        ("a", ["tenant", "platform", "map", "main"]),
        ("dev-1", ["tenant", "development", "map", "east"]),
        ("pay-team", ["tenant", "pay", "map", "main"]),
        ("test-1", ["dropped", "-", "map", "-"]),
        ("", ["tenant", "infra", "default", "main"]),
        ("x y", ["invalid", "-", "label", "-"]),
    ] {
        let expected = (decision.into(), tenant.into(), rule.into(), upstream.into());
        assert_eq!(of(&[&series(value)]), expected, "{value}");
    }
    let dropped = folder.explain(&[&series("test-1")]);
    assert_eq!(line(&dropped, "rule"), "rule 4 of tenant.map: regex: \"test-.*\", drop: true");
    assert_eq!(line(&dropped, "answer"), "the sender is not told of it");
    assert!(line(&dropped, "note").starts_with("access rules are left out"), "{dropped}");
    let invalid = folder.explain(&[&series("x y")]);
    assert!(line(&invalid, "answer").starts_with("400, after the rest is stored: 1 series"), "{invalid}");
    let by_user = |user: &str, more: &[&str]| of(&[&["--user", user], more, &[&series("a")]].concat());
    let tenant = |id: &str, rule: &str| ("tenant".into(), id.into(), rule.into(), "main".into());
    assert_eq!(by_user("own", &[]), tenant("own", "grant"));
    assert_eq!(by_user("gateway", &["--source", "b"]), tenant("b", "header"));
    assert_eq!(by_user("gateway", &[]), tenant("platform", "map"));
    assert_eq!(of(&["--token", "agent", &series("a")]).1, "platform");
    assert_eq!(of(&["--token", "agent", &series("x")]).0, "denied");
    let stranger = folder.json(&["--user", "bob", &series("a")]);
    assert_eq!((&stranger["decision"], &stranger["answer"]["status"]), (&json!("denied"), &json!(403)));
    let stream = folder.explain(&["--destination", "logs", "{namespace=\"a\"}"]);
    assert_eq!(line(&stream, "target"), "http://loki/platform/push");
    assert!(line(&stream, "label").ends_with("it is removed"), "{stream}");
}

#[test]
fn headers_and_answers_follow_the_configuration() {
    let victoria = Folder::new(
        "target: http://vm/{tenant}/write\nupstream: {}\ntenant: {label: t, header: AccountID+ProjectID, \
         id_rules: victoriametrics}\n",
    );
    let told = victoria.json(&["up{t='42:7'}", "--source", "9"]);
    let both = json!([{"name": "AccountID", "value": "42"}, {"name": "ProjectID", "value": "7"}]);
    assert_eq!((&told["headers"], &told["target"]), (&both, &json!("http://vm/42:7/write")));
    let lax =
        Folder::new("tenant: {label: t, on_missing: drop, accept_all: true, prefix_prefer_source: true}\n");
    assert_eq!(line(&lax.explain(&["up"]), "answer"), "204, as `tenant.accept_all` is set");
    let prefixed = lax.explain(&["--source", "eu", "up{t='a'}"]);
    assert_eq!(line(&prefixed, "header"), "X-Scope-OrgID: eu-a");
}

#[test]
fn hostile_values_cannot_harm_a_terminal() {
    let folder = Folder::new("tenant: {label: t, id_rules: thanos}\n");
    let value = "a\\n\\u001b[31m\u{202e}\u{200b}\\xff<script>";
    let series = format!("{{\"n\u{202e}\"=\"1\",t=\"{value}\"}}");
    for args in [&[&*series][..], &["--json", &series]] {
        let report = folder.explain(args);
        let is_plain = |letter: char| matches!(letter, '\n' | '\u{fffd}' | ' '..='~');
        assert!(report.chars().all(is_plain), "{report:?}");
        assert!(report.contains("<script>"), "{report}");
    }
    let report = folder.explain(&[&series]);
    assert!(line(&report, "label").starts_with(r#"t="a\n\x1b[31m\u202e\u200b\xff<script>""#), "{report}");
    assert!(line(&report, "refused").starts_with("invalid tenant ID"), "{report}");
}

#[test]
fn bad_usage_is_64_and_says_where() {
    let folder = Folder::new("tenant: {label: t}\n");
    let explain = |what: &str| folder.complains(64, &["explain", "--config", "c.yml", what]);
    for (what, expected) in [
        ("up{t=\"a\"", "it is not a series: the text ends, but ',' or '}' should follow, at byte 8"),
        ("{t=~\"a\"}", "it is not a series: a series has its labels' values"),
        ("{t='a',t='b'}", "this label is given twice, at byte 7"),
        ("body.bin", "there is no such file, and it is not a series"),
        ("{\u{202e}}", "found '\\u{202e}'"),
        ("", "there is no such file"),
    ] {
        let error = explain(what);
        assert!(error.contains(expected), "{what}: {error}");
    }
    assert!(explain(&format!("{{t='{}'}}", "x".repeat(5_000))).contains("longer than 4096 bytes"));
    folder.put("bad.yml", b"lable: x\ntimeout: y\n");
    let both = folder.complains(64, &["explain", "--config", "bad.yml", UP]);
    assert!(both.contains("bad.yml:1: lable") && both.contains("bad.yml:2: timeout"), "{both}");
    for args in [
        &["explain", "--config", "none.yml", UP][..],
        &["explain"],
        &["explain", UP, UP],
        &["plan", "--old", "c.yml", "captures"],
        &["plan", "--old", "c.yml", "--new", "bad.yml", "captures"],
        &["plan", "--old", "bad.yml", "--new", "none.yml", "captures"],
    ] {
        folder.complains(64, args);
    }
}

/// Series of these tenants, each with so many samples.
fn series(tenants: &[(&str, usize)]) -> WriteRequest {
    let one = |(tenant, samples): &(&str, usize)| {
        let samples: Vec<_> = (0..*samples as i64).map(|at| (at, 1.0)).collect();
        TimeSeries::new(&[("__name__", "up"), ("t", tenant)], &samples)
    };
    WriteRequest { timeseries: tenants.iter().map(one).collect(), metadata: vec![] }
}

fn v2(tenants: &[(&str, usize)]) -> Vec<u8> {
    let mut request = proto_v2::Request { symbols: vec!["".into(), "t".into()], timeseries: vec![] };
    for (tenant, samples) in tenants {
        request.symbols.push(tenant.to_string().into());
        let value = u32::try_from(request.symbols.len() - 1).unwrap();
        request.timeseries.push(proto_v2::TimeSeries {
            labels_refs: vec![1, value],
            samples: vec![proto_v2::Sample { value: 1.0, timestamp: 1, start_timestamp: 0 }; *samples],
            ..Default::default()
        });
    }
    request.to_block().to_vec()
}

/// A push whose second stream names its tenants by metadata.
fn push() -> proto_loki::PushRequest {
    let mut by_metadata = proto_loki::Stream::new("{app=\"shop\"}", &[]);
    by_metadata.entries.push(proto_loki::Entry::new(1, "x", &[("t", "b")]));
    by_metadata.entries.push(proto_loki::Entry::new(2, "y", &[]));
    let streams = vec![proto_loki::Stream::new("{t=\"a\"}", &[(1, "x"), (2, "y")]), by_metadata];
    proto_loki::PushRequest { streams }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn inflated(request: &WriteRequest) -> Vec<u8> {
    prost::Message::encode_to_vec(request)
}

/// The parts of a summary: tenant, series, samples.
fn parts(summary: &Value) -> Vec<(String, u64, u64)> {
    let part = |part: &Value| {
        let number = |key: &str| part[key].as_u64().unwrap();
        (part["tenant"].as_str().unwrap().to_owned(), number("series"), number("samples"))
    };
    summary["parts"].as_array().unwrap().iter().map(part).collect()
}

#[test]
fn bodies_of_every_format_are_told_by_part() {
    let folder = Folder::new("tenant: {label: t, default: infra, prefix: p-}\n");
    let request = series(&[("a", 2), ("b", 1), ("a", 3), ("", 1)]);
    let expected = [("p-a", 2, 5), ("p-b", 1, 1), ("p-infra", 1, 1)];
    let json = r#"{"streams":[{"stream":{"t":"a"},"values":[["1","x"],["2","y"]]},
        {"stream":{"t":"b"},"values":[["1","x"]]}]}"#;
    let of_push = [("p-a", 1, 2), ("p-b", 1, 1), ("p-infra", 1, 1)];
    let of_json = [("p-a", 1, 2), ("p-b", 1, 1)];
    let zstd = zstd::bulk::compress(&inflated(&request), 1).unwrap();
    for (format, encoding, body, expected) in [
        ("remote-write-1", "snappy", request.to_block().to_vec(), &expected[..]),
        ("remote-write-1", "zstd", zstd, &expected),
        ("remote-write-1", "none", inflated(&request), &expected),
        ("remote-write-2", "snappy", v2(&[("a", 2), ("b", 1), ("a", 3), ("", 1)]), &expected),
        ("loki", "snappy", push().to_block().to_vec(), &of_push),
        ("loki-json", "none", json.as_bytes().to_vec(), &of_json),
        ("loki-json", "gzip", gzip(json.as_bytes()), &of_json),
    ] {
        folder.put("body", &body);
        let expected: Vec<_> = expected.iter().map(|(id, a, b)| ((*id).to_owned(), *a, *b)).collect();
        for more in [&[][..], &["--format", format, "--encoding", encoding]] {
            let summary = folder.json(&[more, &["body"]].concat());
            assert_eq!((&summary["format"], &summary["encoding"]), (&json!(format), &json!(encoding)));
            assert_eq!(parts(&summary), expected, "{format} {encoding}");
            assert_eq!(summary["bytes"], json!(body.len()));
            assert_eq!((&summary["answer"], &summary["left_out"]), (&Value::Null, &json!([])));
        }
    }
}

#[test]
fn refused_series_are_told_with_an_example() {
    let folder = Folder::new("tenant: {label: t, on_missing: drop, on_invalid: drop}\n");
    let request = series(&[("a", 2), ("", 1), ("x y", 4), ("", 3)]);
    folder.put("body", &request.to_block());
    let summary = folder.json(&["body"]);
    assert_eq!(parts(&summary), [("a".to_owned(), 1, 2)]);
    let left = &summary["left_out"];
    let of =
        |at: usize| (left[at]["decision"].clone(), left[at]["series"].clone(), left[at]["samples"].clone());
    assert_eq!(of(0), (json!("missing"), json!(2), json!(4)));
    assert_eq!(of(1), (json!("invalid"), json!(1), json!(4)));
    assert_eq!(left[1]["example"], json!("{__name__=\"up\",t=\"x y\"}"));
    assert_eq!(summary["answer"]["status"], json!(400));
    let report = folder.explain(&["body"]);
    assert!(line(&report, "answer").starts_with("400, after the rest is stored: 3 series"), "{report}");
    folder.put("c.yml", b"tenant: {label: t}\n");
    let report = folder.explain(&["body"]);
    assert!(line(&report, "at fault").starts_with("missing (2 series, 4 samples)"), "{report}");
    let answer = "400 for the whole request: series 2 (up): no tenant";
    assert!(line(&report, "answer").starts_with(answer), "{report}");
    assert!(!report.contains("part "), "{report}");
}

#[test]
fn a_capture_is_read_by_its_description() {
    let folder = Folder::new("tenant: {label: t, prefix_prefer_source: true}\nremote_write_v2: refuse\n");
    let describe = |text: &str| folder.put("captures/1.json", text.as_bytes());
    folder.put("captures/1.bin", &series(&[("a", 1)]).to_block());
    describe(
        r#"{"path":"/api/v1/write","content_type":"application/x-protobuf","content_encoding":"snappy",
            "tenant_header":{"name":"X-Scope-OrgID","value":"eu"}}"#,
    );
    assert_eq!(parts(&folder.json(&["captures/1.bin"])), [("eu-a".to_owned(), 1, 1)]);
    assert_eq!(parts(&folder.json(&["--source", "us", "captures/1.bin"])), [("us-a".to_owned(), 1, 1)]);
    for (description, status) in [
        (r#"{"path":"/other"}"#, 404),
        (r#"{"path":"/push","content_type":"text/plain"}"#, 415),
        (r#"{"path":"/push","content_encoding":"gzip"}"#, 415),
        (r#"{"path":"/push","content_encoding":"zstd"}"#, 400),
        (
            r#"{"path":"/push","content_type":"application/x-protobuf;proto=io.prometheus.write.v2.Request"}"#,
            415,
        ),
        (r#"{"path":"/loki/api/v1/push"}"#, 400),
    ] {
        describe(description);
        let summary = folder.json(&["captures/1.bin"]);
        assert_eq!(summary["answer"]["status"], json!(status), "{description}: {summary}");
        assert_eq!(parts(&summary), []);
    }
    // What is demanded counts more than what was captured.
    let demanded = folder.json(&["--format", "remote-write-1", "--encoding", "snappy", "captures/1.bin"]);
    assert_eq!(parts(&demanded).len(), 1);
}

#[test]
fn broken_bodies_and_files_are_told_and_nothing_hangs() {
    let folder = Folder::new("tenant: {label: t}\nlimits: {body_bytes_max: 10Ki}\n");
    let block = series(&[("a", 1), ("b", 2)]).to_block();
    for end in [0, 1, 5, block.len() - 1] {
        folder.put("body", &block[..end]);
        let summary = folder.json(&["--format", "remote-write-1", "--encoding", "snappy", "body"]);
        assert_eq!(summary["answer"]["status"], json!(400), "cut at {end}");
    }
    folder.put("large", &vec![b'x'; 20 << 10]);
    assert_eq!(folder.json(&["large"])["answer"]["status"], json!(413));
    folder.put("bomb", &zstd::bulk::compress(&vec![0; 300 << 20], 1).unwrap());
    assert!(folder.json(&["bomb"])["answer"]["status"].as_u64().unwrap() >= 400);
    let explain = |file: &str| folder.complains(1, &["explain", "--config", "c.yml", file]);
    fs::create_dir(folder.path("directory")).unwrap();
    assert!(explain("directory").contains("is not a regular file"));
    let made = Command::new("mkfifo").arg(folder.path("fifo")).status().unwrap();
    assert!(made.success() && explain("fifo").contains("is not a regular file"));
    folder.put("captures/1.bin", &block);
    for (description, expected) in [
        (&b"{"[..], "captures/1.json: is not JSON"),
        (b"[]", "captures/1.json: is not a JSON object"),
        (b"{\"path\":7}", "`path` is not a text"),
        (b"{\"\xff\":7}", "is not JSON"),
    ] {
        folder.put("captures/1.json", description);
        assert!(explain("captures/1.bin").contains(expected));
    }
    let plan = ["plan", "--old", "c.yml", "--new", "c.yml"];
    let of = |dir: &str| folder.complains(1, &[&plan[..], &[dir]].concat());
    assert!(of("captures").contains("captures/1.json: is not JSON"));
    assert!(of("directory").contains("has no captured request"));
    assert!(of("none").contains("cannot be read"));
}

const OLD: &str = "target: http://mimir/push\ntenant: {label: t, default: infra}\n";

/// A folder with captured requests and another configuration.
fn captured(new: &str) -> Folder {
    let folder = Folder::new(OLD);
    folder.put("n.yml", new.as_bytes());
    folder.put("captures/1.bin", &series(&[("a", 1), ("dev-1", 2), ("dev-2", 3), ("", 1)]).to_block());
    folder.put("captures/2.bin", &series(&[("a", 1), ("dev-1", 4)]).to_block());
    folder
}

#[test]
fn a_plan_tells_what_moves() {
    let folder = captured("target: http://mimir/push\ntenant: {label: t, default: infra, map: map.yml}\n");
    folder.put("map.yml", b"- {prefix: dev-, tenant: development}\n- {exact: a, drop: true}\n");
    let plan = folder.plan(2, &["--examples", "1"]);
    assert_eq!((&plan["requests"], &plan["series"], &plan["samples"]), (&json!(2), &json!(4), &json!(12)));
    let changes = plan["changes"].as_array().unwrap();
    let of = |from: &str| changes.iter().find(|change| change["from"]["tenant"] == from).unwrap();
    let dev_1 = of("dev-1");
    assert_eq!((&dev_1["series"], &dev_1["samples"]), (&json!(1), &json!(6)), "a series counts once");
    assert_eq!(dev_1["to"]["tenant"], json!("development"));
    assert_eq!(dev_1["examples"], json!(["{__name__=\"up\",t=\"dev-1\"}"]));
    assert_eq!(of("a")["to"], json!({"decision": "dropped"}));
    let tenant =
        |tenant: &str, gains: u64, loses: u64| json!({"tenant": tenant, "gains": gains, "loses": loses});
    let expected =
        [tenant("a", 0, 1), tenant("dev-1", 0, 1), tenant("dev-2", 0, 1), tenant("development", 2, 0)];
    assert_eq!(plan["tenants"], json!(expected));
    assert_eq!(
        (&plan["reload"]["accepted"], &plan["reload"]["waiting_for_restart"]),
        (&json!(true), &json!([]))
    );
    let report = folder.prints(2, &["plan", "-old", "c.yml", "-new", "n.yml", "captures"]);
    assert_eq!(line(&report, "reload"), "a running server accepts it");
    assert!(report.contains("tenant     development gains 2 series and loses 0"), "{report}");
}

#[test]
fn a_plan_without_a_change_exits_with_0() {
    let folder = captured(OLD);
    let plan = folder.plan(0, &[]);
    assert_eq!((&plan["changes"], &plan["tenants"]), (&json!([]), &json!([])));
    folder.put("n.yml", format!("{OLD}timeout: 3s\ncores: 7\n").as_bytes());
    let plan = folder.plan(0, &[]);
    assert_eq!(plan["reload"]["waiting_for_restart"], json!(["cores"]));
    assert_eq!(plan["reload"]["changed"], json!(["timeout"]));
}

#[test]
fn one_series_can_refuse_its_whole_request() {
    let folder = captured("target: http://mimir/push\ntenant: {label: t}\n");
    let plan = folder.plan(2, &[]);
    let changes = plan["changes"].as_array().unwrap();
    let refused =
        json!({"decision": "refused", "reason": "missing_tenant", "status": 400, "whole_request": true});
    assert!(changes.iter().all(|change| change["to"] == refused), "{plan:#}");
    // The second request has no such series.
    let samples: u64 = changes.iter().map(|change| change["samples"].as_u64().unwrap()).sum();
    assert_eq!((changes.len(), samples), (4, 7));
}

#[test]
fn a_plan_tells_what_waits_for_a_restart() {
    let folder = captured(&OLD.replace("mimir", "elsewhere"));
    let plan = folder.plan(0, &[]);
    assert_eq!(
        (&plan["after"], &plan["reload"]["waiting_for_restart"]),
        (&json!("reload"), &json!(["target"]))
    );
    let plan = folder.plan(2, &["--restart"]);
    assert_eq!(plan["after"], json!("restart"));
    let targets: Vec<_> = plan["changes"].as_array().unwrap().iter().map(|c| &c["to"]["target"]).collect();
    assert!(!targets.is_empty() && targets.iter().all(|target| **target == "http://elsewhere/push"));
    // Settings that are sound in the file, but not together with one that waits.
    folder.put(
        "c.yml",
        format!("{OLD}limits: {{in_flight_bytes_max: 8Mi, inflated_bytes_max: 2Mi, body_bytes_max: 1Mi}}\n")
            .as_bytes(),
    );
    folder.put(
        "n.yml",
        format!(
            "{OLD}limits: {{in_flight_bytes_max: 1Gi, inflated_bytes_max: 500Mi, body_bytes_max: 400Mi}}\n"
        )
        .as_bytes(),
    );
    let plan = folder.plan(2, &[]);
    assert_eq!(plan["reload"]["accepted"], json!(false));
    assert!(!plan["reload"]["mistakes"].as_array().unwrap().is_empty());
    let report = folder.prints(2, &["plan", "--old", "c.yml", "--new", "n.yml", "captures"]);
    assert_eq!(line(&report, "reload"), "a running server refuses it:");
    assert_eq!(line(&report, "result"), "no series goes elsewhere");
}
