use std::path::Path;

use super::*;
use crate::config::Plan;
use crate::config::reload::adopt;
use crate::tenant::Grant;

/// A folder with a file of upstreams, and configurations that refer to it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(upstreams: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put("u.yml", upstreams);
        folder
    }

    fn put(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn given(&self, main: &str) -> Result<Plan, Vec<String>> {
        let text = format!("upstreams: {}\n{main}", self.0.path().join("u.yml").display());
        let short = |line: &str| line.replace(&format!("{}/", self.0.path().display()), "");
        crate::config::parse("f", &text, []).map_err(|all| all.to_string().lines().map(short).collect())
    }

    fn plan(&self, main: &str) -> Plan {
        self.given(main).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
    }
}

fn mistakes(upstreams: &str) -> Vec<String> {
    Folder::new(upstreams).given("").unwrap_err()
}

const MAIN: &str = "target: http://main:1/push\ntarget_loki: http://logs:2/push\n\
                    auth: {egress: {username: u, password: canary}}\nupstream: {headers: {X-Main: canary}}\n";

fn named<'p>(plan: &'p Plan, name: &str) -> &'p Upstream {
    plan.upstreams.iter().find(|upstream| &*upstream.name == name).unwrap()
}

fn header(upstream: &Upstream) -> Option<&[u8]> {
    upstream.terms.authorization.as_ref().map(|value| value.expose())
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_lines() {
    let text = "\
- name: a b
  tenants: [x]
- name: default
  tenants: x, y
- name: eu
  tenants: []
  target: ftp://h/
  targets: x
- just words
- tenants: [z, z, '']
  name: eu
  target: http://user:canary@h/
- name: [us]
  tenants: {a: b}
  target_loki:
  headers: {Host: canary, X-A: \"canary\\nb\"}
- name: c
  name: d
  tenants: [x, c]
  username: u
  bearer_token: canary
- name: e
  tenants: [e]
  username: u
  password: [canary]
  tls_config: {cert_file: /none, insecure_skip_verify: perhaps, ca: x}
- name: f
  tenants: [f]
  target: http://127.0.0.1:8081/push
  password_file: ''
  tls_config: x
- name: g
  tenants: [g]
  headers: {Authorization: canary}
  bearer_token: canary canary
";
    let found = mistakes(text);
    let expected = [
        "u.yml:1: name: \"a b\" is not a name",
        "u.yml:3: name: `default` is the upstream of the main configuration",
        "u.yml:4: tenants: \"x\" never applies: the upstream on line 1 has it",
        "u.yml:6: tenants: there are no tenants",
        "u.yml:7: target: \"ftp\" is not a scheme",
        "u.yml:8: targets: unknown key",
        "u.yml:9: an upstream wants keys with values",
        "u.yml:10: tenants: \"z\" is listed twice",
        "u.yml:10: tenants: a tenant's ID is empty",
        "u.yml:11: name: the upstream on line 5 has the same name",
        "u.yml:12: target: user and password do not belong here",
        "u.yml:13: name: wants a single value, not a list",
        "u.yml:14: tenants: wants a list of words",
        "u.yml:15: target_loki: wants a single value, not nothing",
        "u.yml:16: headers: Host has a meaning of its own",
        "u.yml:16: headers: the value of X-A",
        "u.yml:18: name: given twice, first on line 17",
        "u.yml:19: tenants: \"x\" never applies",
        "u.yml:21: bearer_token: username and bearer_token are both set",
        "u.yml:25: password: wants a single value",
        "u.yml:26: tls_config.insecure_skip_verify: \"perhaps\"",
        "u.yml:26: tls_config.ca: unknown key",
        "u.yml:26: tls_config.cert_file: tls_config.cert_file is set, but tls_config.key_file is not",
        "u.yml:29: target: the target is our own listen address",
        "u.yml:30: password_file: is empty: remove it",
        "u.yml:31: tls_config: is a section",
        "u.yml:34: headers: Authorization is what bearer_token sets",
        "u.yml:35: bearer_token: must be of visible ASCII characters",
    ];
    for (mistake, expected) in found.iter().zip(expected) {
        assert!(mistake.starts_with(expected), "{mistake}\n{expected}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(found.iter().all(|mistake| !mistake.contains("canary")), "{found:#?}");
}

#[test]
fn anything_but_a_list_is_reported_and_the_number_is_bounded() {
    assert_eq!(mistakes("name: a"), ["u.yml:1: wants a list of upstreams (`- name: …`), not a section"]);
    assert!(mistakes("- 'a\n")[0].starts_with("u.yml:1: not YAML"));
    assert!(Folder::new("# nothing yet\n").plan("").upstreams.is_empty());
    let many: String = (0..65).map(|n| format!("- {{name: u{n}, tenants: [t{n}]}}\n")).collect();
    assert_eq!(mistakes(&many), ["u.yml:1: there are more than the 64 upstreams that are possible"]);
    let plan = Folder::new(many.split_once("- {name: u64").unwrap().0).plan("");
    assert_eq!(plan.upstreams.names().len(), 64);
    let missing = crate::config::parse("f", "upstreams: /none", []).unwrap_err().to_string();
    assert!(missing.starts_with("f:1: upstreams: \"/none\" cannot be read"), "{missing}");
    let route = Folder::new("- {name: a, tenants: [a]}")
        .given("metadata: route\ntenant: {prefix_prefer_source: true}");
    assert!(route.unwrap_err()[0].contains("the upstream of metadata cannot be told"));
}

#[test]
fn codings_of_otlp_are_those_of_the_main_targets_unless_they_are_given() {
    use crate::model::{Compression, TargetCoding};
    let folder = Folder::new(
        "- {name: a, tenants: [a], target_otlp_traces: 'http://t:1/x', target_otlp_traces_coding: none}\n\
         - {name: b, tenants: [b]}\n",
    );
    let plan = folder.plan("target_otlp_traces_coding: zstd\ntarget_otlp_logs_coding: gzip");
    let codings = |name: &str| {
        [Destination::OtlpLogs, Destination::OtlpTraces].map(|to| *named(&plan, name).terms.codings.of(to))
    };
    let [gzip, zstd, none] =
        [Compression::Gzip, Compression::Zstd, Compression::Identity].map(TargetCoding::Always);
    assert_eq!((codings("a"), codings("b")), ([gzip, none], [gzip, zstd]));
    assert_eq!(&*named(&plan, "a").terms.targets.of(Destination::OtlpTraces).host, "t");
    let mistakes = mistakes("- {name: a, tenants: [a], target_coding: gzip, target_otlp_logs_coding: br}");
    assert!(mistakes[0].starts_with("u.yml:1: target_coding: unknown key"), "{mistakes:?}");
    assert!(mistakes[1].contains("none of as-received"), "{mistakes:?}");
}

#[test]
fn what_is_not_given_is_as_in_the_main_configuration_unless_it_is_secret_and_the_place_is_another() {
    let folder = Folder::new(
        "- {name: same, tenants: [s]}\n\
         - {name: path, tenants: [p], target: 'http://main:1/other'}\n\
         - {name: port, tenants: [q], target: 'http://main:2/push'}\n\
         - {name: tls, tenants: [t], target: 'http://main:1/push', target_loki: 'http://elsewhere:2/'}\n\
         - {name: own, tenants: [o], target: 'http://else:1/', bearer_token: own, headers: {X-Own: o}}\n\
         - {name: none, tenants: [n], headers: {}}\n",
    );
    let plan = folder.plan(MAIN);
    let main = plan.terms.authorization.as_ref().unwrap().expose();
    for (name, authorization, headers) in [
        ("same", Some(main), Some(&b"X-Main: canary\r\n"[..])),
        ("path", Some(main), Some(b"X-Main: canary\r\n")),
        ("port", None, None),
        ("tls", None, None),
        ("own", Some(&b"Bearer own"[..]), Some(b"X-Own: o\r\n")),
        ("none", Some(main), None),
    ] {
        let upstream = named(&plan, name);
        assert_eq!(header(upstream), authorization, "{name}");
        assert_eq!(upstream.terms.headers.as_ref().map(|lines| lines.expose()), headers, "{name}");
    }
    // An upstream with only one of the targets takes only that kind of data.
    let takes = |name: &str| Destination::ALL.map(|to| named(&plan, name).id(to).is_some());
    let (metrics, both) = ([true, false, false, false, false], [true, true, false, false, false]);
    assert_eq!((takes("same"), takes("port"), takes("tls")), ([true; 5], metrics, both));
    assert_eq!(plan.upstream_ids().count(), 5 + 5 + 1 + 1 + 2 + 1 + 5);
    let places: std::collections::HashSet<_> = plan.upstreams.iter().map(|one| one.terms.place).collect();
    assert_eq!(places.len(), 6, "what one has stored, another has not");
    assert!(!format!("{plan:?}").contains("canary"));
}

/// The values of all `Authorization` headers in requests to an upstream.
fn authorizations(upstream: &Upstream) -> Vec<String> {
    let lines = upstream.terms.headers.as_ref().map_or(&b""[..], |lines| lines.expose());
    let lines = String::from_utf8(lines.to_vec()).unwrap();
    let of_headers = lines.lines().filter_map(|line| line.split_once(": "));
    let of_headers = of_headers.filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let of_credentials = header(upstream).map(|value| String::from_utf8(value.to_vec()).unwrap());
    of_credentials.into_iter().chain(of_headers.map(|(_, value)| value.to_owned())).collect()
}

#[test]
fn requests_have_one_authorization_and_that_of_their_upstream() {
    let folder = Folder::new("");
    let token = folder.put("token", "main");
    let nothing = "";
    let credentials = ", bearer_token: own";
    let header = ", headers: {authorization: Own h}";
    let others = ", headers: {X-Own: o}";
    let no_headers = ", headers: {}";
    let both = ", bearer_token: own, headers: {X-Own: o}";
    let with_credentials = format!("auth: {{egress: {{bearer_token_file: {token}}}}}\n");
    let with_header = "upstream: {headers: {X-Main: m, AUTHORIZATION: Main h, X-Last: l}}\n";
    for (main, entry, expected) in [
        ("", nothing, None),
        ("", credentials, Some("Bearer own")),
        ("", header, Some("Own h")),
        (&with_credentials, nothing, Some("Bearer main")),
        (&with_credentials, credentials, Some("Bearer own")),
        (&with_credentials, header, Some("Own h")),
        (&with_credentials, others, Some("Bearer main")),
        (&with_credentials, no_headers, Some("Bearer main")),
        (&with_credentials, both, Some("Bearer own")),
        (with_header, nothing, Some("Main h")),
        (with_header, credentials, Some("Bearer own")),
        (with_header, header, Some("Own h")),
        (with_header, others, None),
        (with_header, no_headers, None),
        (with_header, both, Some("Bearer own")),
    ] {
        // Without a target, and with the main one.
        for target in ["", ", target: 'http://main:1/other'"] {
            folder.put("u.yml", &format!("- {{name: eu, tenants: [a]{target}{entry}}}\n"));
            let plan = folder.plan(&format!("target: http://main:1/push\n{main}"));
            let found = authorizations(named(&plan, "eu"));
            assert_eq!(found, Vec::from_iter(expected), "{main}{entry}{target}");
        }
    }
    // The other headers are still taken over.
    folder.put("u.yml", "- {name: eu, tenants: [a], username: u, password: p}\n");
    let plan = folder.plan(with_header);
    let lines = named(&plan, "eu").terms.headers.as_ref().unwrap().expose();
    assert_eq!(lines, b"X-Main: m\r\nX-Last: l\r\n");
    let only_that = "upstream: {headers: {Authorization: Main h}}";
    assert_eq!(named(&folder.plan(only_that), "eu").terms.headers, None);
}

#[test]
fn a_renewed_secret_of_the_main_configuration_does_not_come_beside_an_own_header() {
    let folder = Folder::new("- {name: eu, tenants: [a], headers: {Authorization: Own h}}\n");
    let token = folder.put("token", "first");
    let running = folder.plan(&format!("auth: {{egress: {{bearer_token_file: {token}}}}}\n"));
    folder.put("token", "second");
    let renewed = running.read_files_again().plan.unwrap();
    assert_eq!(renewed.terms.authorization.as_ref().unwrap().expose(), b"Bearer second");
    assert_eq!(authorizations(named(&renewed, "eu")), ["Own h"]);
}

#[test]
fn tenants_are_found_without_their_prefix_and_logs_may_go_elsewhere() {
    let folder = Folder::new(
        "- {name: eu, tenants: ['eu-*', a], target: 'http://eu:1/'}\n- {name: all, tenants: ['*b']}\n",
    );
    let plan = folder.plan("tenant: {prefix: p-, prefix_prefer_source: true, default: eu-d}");
    let at = |value: Option<&str>, source: Option<&str>, destination| {
        let tenant = plan.tenant.resolve(value.map(str::as_bytes), source).unwrap();
        let (id, terms) = plan.upstream_of(&tenant, source.map(str::as_bytes), &Grant::Any, destination);
        assert!(Arc::ptr_eq(terms, plan.terms_of(id)));
        id.index()
    };
    let metrics = Destination::Metrics;
    assert_eq!(at(Some("eu-1"), None, metrics), 1);
    assert_eq!(at(Some("a"), Some("org"), metrics), 1);
    assert_eq!(at(None, None, metrics), 1);
    assert_eq!(at(Some("xb"), None, metrics), 2);
    assert_eq!(at(Some("p-a"), None, metrics), 0);
    assert_eq!(at(Some("b"), Some("eu"), metrics), 2, "the prefix is no part of the ID");
    assert_eq!(at(Some("eu-1"), None, Destination::Logs), 0);
    assert_eq!(at(Some("b"), None, Destination::Logs), 2);
    // A tenant that access rules force, in a request whose header may not choose the prefix then.
    let (source, grant) = (Some("org"), Grant::Forced("eu-x".into()));
    let tenant = plan.tenant.try_resolve(Some(b"b"), source, &grant).unwrap();
    assert_eq!(tenant.as_str(), "p-eu-x");
    let (id, _) = plan.upstream_of(&tenant, source.map(str::as_bytes), &grant, metrics);
    assert_eq!(id.index(), 1);
}

#[test]
fn a_reload_moves_tenants_and_changes_secrets_at_once() {
    let folder = Folder::new(
        "- {name: eu, tenants: [a], target: 'http://eu:1/x', bearer_token: one}\n\
         - {name: us, tenants: [b], target: 'http://us:1/x', bearer_token: one}\n",
    );
    let running = folder.plan(MAIN);
    let same = adopt(&running, folder.plan(MAIN)).unwrap();
    assert_eq!((&same.changed[..], &same.until_restart[..]), (&[][..], &[][..]));
    assert!(Arc::ptr_eq(&named(&same.plan, "eu").terms, &named(&running, "eu").terms));
    folder.put(
        "u.yml",
        "- {name: us, tenants: [b, a], target: 'http://us:1/y', bearer_token: one}\n\
         - {name: eu, tenants: [c], target: 'http://eu:1/x', bearer_token: two}\n",
    );
    let adopted = adopt(&running, folder.plan(MAIN)).unwrap();
    assert_eq!((&adopted.changed[..], &adopted.until_restart[..]), (&["upstreams"][..], &[][..]));
    let plan = adopted.plan;
    let place = |plan: &Plan, name: &str| named(plan, name).terms.place;
    assert_eq!(place(&plan, "eu"), place(&running, "eu"), "a secret moves nothing");
    assert_ne!(place(&plan, "us"), place(&running, "us"), "another path is another place");
    assert_eq!(header(named(&plan, "eu")), Some(&b"Bearer two"[..]));
    for name in ["eu", "us"] {
        assert_eq!(named(&plan, name).index, named(&running, name).index, "pools are known by their numbers");
    }
    assert_eq!(plan.upstreams.names(), running.upstreams.names());
    assert_eq!(&*plan.upstreams.of_tenant(b"a").unwrap().name, "us");
}

#[test]
fn another_place_waits_for_a_restart_with_its_secrets() {
    let folder = Folder::new("- {name: eu, tenants: [a], target: 'http://eu:1/x', bearer_token: one}\n");
    let running = folder.plan(MAIN);
    folder.put("u.yml", "- {name: eu, tenants: [b], target: 'http://eu:2/x', bearer_token: two}\n");
    let adopted = adopt(&running, folder.plan(MAIN)).unwrap();
    assert_eq!(adopted.until_restart, ["upstreams"]);
    let eu = named(&adopted.plan, "eu");
    assert_eq!((header(eu), eu.terms.targets.of(Destination::Metrics).port), (Some(&b"Bearer one"[..]), 1));
    assert!(adopted.plan.upstreams.of_tenant(b"b").is_some(), "its tenants change at once");
    // The main target takes its secrets with it, too.
    let main = "target: http://main:9/push\nauth: {egress: {username: u, password: other}}\n";
    let running =
        Folder::new("").plan("target: http://main:1/push\nauth: {egress: {username: u, password: canary}}");
    let adopted = adopt(&running, Folder::new("").plan(main)).unwrap();
    let mut kept = adopted.until_restart.clone();
    kept.retain(|key| *key != "upstreams");
    kept.sort_unstable();
    assert_eq!(kept, ["auth.egress.password", "target"]);
    assert_eq!(adopted.plan.terms.authorization, running.terms.authorization);
    assert_eq!(adopted.plan.credentials, running.credentials);
}

#[test]
fn another_set_of_upstreams_is_refused() {
    let one = "- {name: eu, tenants: [a], target: 'http://eu:1/x'}\n";
    let folder = Folder::new(one);
    let running = folder.plan(MAIN);
    for other in [
        "",
        "- {name: us, tenants: [a], target: 'http://eu:1/x'}\n",
        &format!("{one}- {{name: us, tenants: [b]}}\n"),
        "- {name: eu, tenants: [a], target: 'http://eu:1/x', target_loki: 'http://eu:1/x'}\n",
        "- {name: eu, tenants: [a]}\n",
    ] {
        folder.put("u.yml", other);
        let refused = adopt(&running, folder.plan(MAIN)).unwrap_err().to_string();
        assert!(refused.starts_with("f:1: upstreams: upstream ") && refused.contains("restart"), "{refused}");
    }
}

#[test]
fn files_of_all_upstreams_are_read_again_and_a_bad_one_does_not_stop_the_others() {
    let folder = Folder::new("");
    let [one, two] = ["one", "two"].map(|name| folder.put(name, "first"));
    folder.put(
        "u.yml",
        &format!(
            "- {{name: eu, tenants: [a], target: 'http://eu:1/', bearer_token_file: {one}}}\n\
             - {{name: us, tenants: [b], target: 'http://us:1/', username: u, password_file: {two}}}\n"
        ),
    );
    let running = folder.plan("");
    assert_eq!(running.watched_files(), [Path::new(&one), Path::new(&two)]);
    assert!(running.read_files_again().plan.is_none());
    folder.put("one", "second");
    folder.put("two", "\n");
    let read = running.read_files_again();
    assert!(read.secrets.changed && read.security.is_quiet());
    assert_eq!(read.secrets.mistakes, [format!("upstream us: {two} is empty")]);
    let plan = read.plan.unwrap();
    assert_eq!(header(named(&plan, "eu")), Some(&b"Bearer second"[..]));
    assert_eq!(header(named(&plan, "us")), header(named(&running, "us")));
    assert_eq!(named(&plan, "eu").terms.place, named(&running, "eu").terms.place);
}

#[test]
fn each_upstream_has_tls_of_its_own() {
    let folder = Folder::new("");
    let authority = testkit::pki::Authority::new("ca").unwrap();
    let ca = folder.put("ca.pem", &authority.certificate());
    let own = folder.put("own.pem", &authority.certificate());
    folder.put(
        "u.yml",
        &format!(
            "- {{name: inherits, tenants: [a], target: 'https://a:1/'}}\n\
             - {{name: own, tenants: [b], target: 'https://b:1/', tls_config: {{ca_bundle_file: {own}, server_name: x}}}}\n\
             - {{name: plain, tenants: [c], target: 'http://c:1/'}}\n\
             - {{name: open, tenants: [d], target: 'https://d:1/', tls_config: {{insecure_skip_verify: true}}}}\n"
        ),
    );
    let tls = format!("{{ca_bundle_file: {ca}, server_name: main, insecure_skip_verify: true}}");
    let plan = folder.plan(&format!("target: https://m:1/\nauth: {{egress: {{tls_config: {tls}}}}}\n"));
    let of = |name: &str| named(&plan, name).tls.of(Destination::Metrics).clone();
    let inherits = of("inherits").unwrap();
    assert!(!inherits.client.is_insecure(), "elsewhere, only the authorities are the same");
    assert_eq!(inherits.name.to_str(), "a");
    assert_eq!(of("own").unwrap().name.to_str(), "x");
    assert!(of("plain").is_none() && of("open").unwrap().client.is_insecure() && plan.is_insecure());
    assert!(plan.notices.iter().any(|notice| notice.starts_with("upstream open: ")), "{:?}", plan.notices);
    let files = plan.watched_files();
    assert!([&ca, &own].iter().all(|file| files.contains(&PathBuf::from(file))), "{files:?}");
    let after = plan.read_files_again();
    assert!(after.plan.is_none() && after.security.is_quiet(), "{after:?}");
}
