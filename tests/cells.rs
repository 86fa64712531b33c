//! Several clusters behind one server: which upstream each tenant's data reaches, with which credentials, and what one
//! cluster's trouble means for the others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation
)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::server::free_port;
use support::upstream::Received;
use support::{
    Close, Driver, Ends, Reply, Server, Upstream, body, eventually, on_both, one, post, send_together, series,
};

/// The file of `upstreams`, for as long as the value lives.
struct Cells {
    folder: tempfile::TempDir,
}

impl Cells {
    fn new(text: &str) -> Self {
        let cells = Self { folder: tempfile::tempdir().unwrap() };
        cells.put(text);
        cells
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("upstreams.yml")
    }

    fn put(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    fn start(&self, driver: Driver, main: &Upstream, more: &str) -> Server {
        Server::start(driver, main.address, &format!("upstreams: {}\n{more}", self.file().display()))
    }
}

fn well() -> Upstream {
    Upstream::start(|_| Reply::ok())
}

fn tenants(upstream: &Upstream) -> BTreeSet<String> {
    upstream.received().iter().map(|received| received.tenant().to_owned()).collect()
}

fn set(tenants: &[&str]) -> BTreeSet<String> {
    tenants.iter().map(|&tenant| tenant.to_owned()).collect()
}

/// Everything that an upstream received, as text.
fn heard(upstream: &Upstream) -> String {
    upstream.received().iter().map(|received| format!("{} {:?}\n", received.path, received.headers)).collect()
}

/// A Loki push of one line for each tenant.
fn push_logs(server: &Server, tenants: &[&str]) -> u16 {
    let stream = |tenant: &&str| {
        format!("{{\"stream\":{{\"tenant\":\"{tenant}\"}},\"values\":[[\"1700000000000000000\",\"x\"]]}}")
    };
    let streams: Vec<_> = tenants.iter().map(stream).collect();
    let body = format!("{{\"streams\":[{}]}}", streams.join(","));
    post(server, "/loki/api/v1/push", "Content-Type: application/json\r\n", body.as_bytes()).status
}

#[test]
fn each_tenant_goes_to_its_upstream_with_that_ones_secrets_only() {
    on_both(|driver| {
        let [main, logs, eu, us, us_logs] = std::array::from_fn(|_| well());
        let cells = Cells::new(&format!(
            "- name: eu\n  tenants: [eu-*]\n  target: http://{}/eu/push\n  username: eu-user\n  password: eu-canary\n\
             - name: us\n  tenants: [berlin, '*us*']\n  target: http://{}/us/push\n  target_loki: http://{}/us/logs\n\
             \x20 headers: {{X-Us: us-canary}}\n",
            eu.address, us.address, us_logs.address
        ));
        let more = format!(
            "target_loki: http://{}/logs\nauth: {{egress: {{bearer_token: main-canary}}}}\n\
             upstream: {{headers: {{X-Main: main-key}}}}\ntenant: {{label: tenant, prefix: p-, default: eu-none}}\n",
            logs.address
        );
        let server = cells.start(driver, &main, &more);
        let mut all: Vec<_> =
            ["eu-1", "eu-us", "berlin", "xusx", "other", "eu"].map(|tenant| series(tenant, "up", 1.0)).into();
        all.push(support::remote_write::TimeSeries::new(&[("__name__", "up")], &[(1_700_000_000_000, 1.0)]));
        assert_eq!(server.client().push(&body(all)).status, 200);
        assert_eq!(push_logs(&server, &["eu-1", "berlin", "other"]) / 100, 2);

        assert_eq!(tenants(&eu), set(&["p-eu-1", "p-eu-us", "p-eu-none"]));
        assert_eq!(tenants(&us), set(&["p-berlin", "p-xusx"]));
        assert_eq!(tenants(&main), set(&["p-other", "p-eu"]));
        // The upstream eu has no target for logs.
        assert_eq!(tenants(&logs), set(&["p-eu-1", "p-other"]));
        assert_eq!(tenants(&us_logs), set(&["p-berlin"]));
        for (upstream, has, path) in [
            (&main, &["main-canary", "main-key"][..], "/api/v1/push"),
            (&logs, &["main-canary", "main-key"], "/logs"),
            (&eu, &["Basic ZXUtdXNlcjpldS1jYW5hcnk="], "/eu/push"),
            (&us, &["us-canary"], "/us/push"),
            (&us_logs, &["us-canary"], "/us/logs"),
        ] {
            let text = heard(upstream);
            for secret in ["main-canary", "main-key", "Basic", "us-canary", "X-Us", "X-Main"] {
                let expected = has.iter().any(|part| part.contains(secret))
                    || (secret == "X-Us" && has.contains(&"us-canary"))
                    || (secret == "X-Main" && has.contains(&"main-key"));
                let found = text.to_lowercase().contains(&secret.to_lowercase());
                assert_eq!(found, expected, "{secret}: {text}");
            }
            assert!(upstream.received().iter().all(|received| received.path == path), "{text}");
        }
        let log = server.log().join("\n");
        assert!(!log.contains("canary") && !log.contains("main-key"), "{log}");
        let open = |labels: &str| server.metric("tenantry_lanes", labels);
        assert_eq!((open("upstream=\"eu\""), open("upstream=\"us\""), open("")), (3.0, 3.0, 10.0));
    });
}

/// A number that looks random; `state` is the one before.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Whether `*` in a pattern can stand for some text so that it is `id`.
fn matches(pattern: &str, id: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == id,
        Some((begin, rest)) => {
            id.strip_prefix(begin).is_some_and(|id| (0..=id.len()).any(|at| matches(rest, &id[at..])))
        }
    }
}

#[test]
fn for_any_assignment_every_series_arrives_at_the_upstream_of_its_tenant() {
    let mut state = 7;
    for _ in 0..3 {
        on_both(|driver| {
            let mut state = random(&mut { state }) as u64;
            let upstreams: [Upstream; 5] = std::array::from_fn(|_| well());
            let patterns = ["a*", "*1", "b2", "*b*", "c*2", "a1", "c", "*c1*", "b*3", "*33"];
            let mut lists: Vec<Vec<&str>> = vec![Vec::new(); 4];
            for pattern in patterns {
                lists[random(&mut state) % 4].push(pattern);
            }
            lists
                .iter_mut()
                .enumerate()
                .filter(|(_, l)| l.is_empty())
                .for_each(|(_, list)| list.push("nothing"));
            let mut seen = BTreeSet::new();
            lists.iter_mut().for_each(|list| list.retain(|pattern| seen.insert(*pattern)));
            let entry = |(at, list): (usize, &Vec<&str>)| {
                let list: Vec<_> = list.iter().map(|pattern| format!("'{pattern}'")).collect();
                let address = upstreams[at + 1].address;
                format!("- {{name: u{at}, tenants: [{}], target: 'http://{address}/'}}\n", list.join(", "))
            };
            let used: Vec<_> =
                lists.iter().enumerate().filter(|(_, list)| !list.is_empty()).map(entry).collect();
            let server = Cells::new(&used.concat());
            let running = server.start(driver, &upstreams[0], "");
            let ids: Vec<String> = (0..60)
                .map(|_| {
                    let letter = ["a", "b", "c", "d", "cc"][random(&mut state) % 5];
                    format!("{letter}{}{}", random(&mut state) % 4, ["", "3", "b"][random(&mut state) % 3])
                })
                .collect();
            let all = ids.iter().map(|id| series(id, "up", 1.0)).collect();
            assert_eq!(running.client().push(&body(all)).status, 200);
            for (at, upstream) in upstreams.iter().enumerate() {
                let belongs = |id: &&String| {
                    let first = lists.iter().position(|list| list.iter().any(|pattern| matches(pattern, id)));
                    first.map_or(0, |first| first + 1) == at
                };
                let expected: BTreeSet<String> = ids.iter().filter(belongs).cloned().collect();
                assert_eq!(tenants(upstream), expected, "upstream {at} of {lists:?}");
            }
        });
        random(&mut state);
    }
}

/// Sends from `senders` connections, one request after another until `until`. Returns the longest time to an answer,
/// and the number of answers by whether they were 200.
fn answers(server: &Server, tenant: &str, senders: usize, until: Instant) -> (Duration, usize, usize) {
    let of_sender = |number: usize| {
        let (body, mut client) = (one(&format!("{tenant}{number}")), server.client());
        let (mut longest, mut good, mut bad) = (Duration::ZERO, 0, 0);
        while Instant::now() < until {
            let begun = Instant::now();
            match client.push(&body).status {
                200 => good += 1,
                _ => bad += 1,
            }
            longest = longest.max(begun.elapsed());
            std::thread::sleep(Duration::from_millis(10));
        }
        (longest, good, bad)
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..senders).map(|number| scope.spawn(move || of_sender(number))).collect();
        let all = senders.into_iter().map(|sender| sender.join().unwrap());
        all.fold((Duration::ZERO, 0, 0), |(longest, good, bad), one| {
            (longest.max(one.0), good + one.1, bad + one.2)
        })
    })
}

#[test]
fn a_cluster_that_answers_nothing_costs_the_tenants_of_another_nothing() {
    on_both(|driver| {
        let main = Upstream::start(|_| Reply::ok().after(Duration::from_millis(5)));
        let dead = Upstream::start(|_| Reply::from(Close::Stall));
        let cells =
            Cells::new(&format!("- {{name: dead, tenants: [d*], target: 'http://{}/'}}\n", dead.address));
        let more = "concurrency: 40\nmax_conns_per_host: 8\ntimeout: 6s\n";
        let server = cells.start(driver, &main, more);
        // As many tenants of the dead cluster as there is room for requests, and more.
        let stuck = send_together(&server, (0..80).map(|number| one(&format!("d{number}"))));
        eventually("connections to it are in use", || dead.received().len() >= 4);
        let (longest, good, bad) = answers(&server, "m", 8, Instant::now() + Duration::from_secs(3));
        assert!(good > 200 && bad == 0, "{good} good, {bad} bad");
        // Far less than the six seconds for which the others wait, on a busy machine, too.
        assert!(longest < Duration::from_secs(2), "{longest:?}");
        assert!(server.metric("tenantry_upstream_share_refused_total", "") >= 40.0);
        assert!(main.open_most() <= 8 && dead.open_most() <= 8);
        // A request with parts for both: that for the other cluster is stored, and its sender is told to retry.
        let both = body(vec![series("d-both", "up", 1.0), series("m-both", "up", 1.0)]);
        let response = server.client().push(&both);
        assert_eq!(response.status / 100, 5, "{}", response.text());
        assert_eq!(main.of("m-both").len(), 1);
        for mut client in stuck {
            let status = client.response().status;
            assert!([503, 504].contains(&status), "{status}");
        }
    });
}

/// Two clusters with tokens, and a tenant `a` that is at first in the first.
fn moving(eu: &Upstream, us: &Upstream, first: &str, second: &str) -> String {
    format!(
        "- {{name: eu, tenants: [{first}], target: 'http://{}/', bearer_token: eu-token}}\n\
         - {{name: us, tenants: [{second}], target: 'http://{}/', bearer_token: us-token}}\n",
        eu.address, us.address
    )
}

#[test]
fn a_tenant_moves_under_load_without_a_failure_and_under_one_clusters_terms_at_a_time() {
    on_both(|driver| {
        let slow = || Upstream::start(|_| Reply::ok().after(Duration::from_millis(20)));
        let (main, eu, us) = (well(), slow(), slow());
        let cells = Cells::new(&moving(&eu, &us, "a, b", "c"));
        let server = cells.start(driver, &main, "");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = Ends(&over);
            for _ in 0..6 {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let mut client = server.client();
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(client.push(&one("a")).status, 200);
                    }
                });
            }
            for round in 0..6 {
                let (first, second) = if round % 2 == 0 { ("b", "c, a") } else { ("a, b", "c") };
                cells.put(&moving(&eu, &us, first, second));
                let lines = server.reload().join("\n");
                assert!(lines.contains("upstreams"), "{lines}");
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        for (upstream, token) in [(&eu, "Bearer eu-token"), (&us, "Bearer us-token")] {
            let received = upstream.received();
            assert!(received.len() > 5, "{}", received.len());
            assert!(received.iter().all(|one| one.header("Authorization") == Some(token)));
        }
        assert_eq!(main.received().len(), 0);
    });
}

#[test]
fn what_another_cluster_has_stored_is_sent_again_after_a_move() {
    on_both(|driver| {
        let (main, eu, us) = (Upstream::start(|_| Reply::new(503, "no")), well(), well());
        let cells = Cells::new(&moving(&eu, &us, "a", "c"));
        let server = cells.start(driver, &main, "");
        let both = body(vec![series("a", "up", 1.0), series("sick", "up", 1.0)]);
        assert_eq!(server.client().push(&both).status, 503);
        assert_eq!(server.client().push(&both).status, 503);
        assert_eq!(eu.received().len(), 1, "a retry finds its receipt");
        cells.put(&moving(&eu, &us, "x", "c, a"));
        server.reload();
        assert_eq!(server.client().push(&both).status, 503);
        assert_eq!(server.client().push(&both).status, 503);
        assert_eq!((eu.received().len(), us.received().len()), (1, 1));
    });
}

#[test]
fn another_set_of_upstreams_is_refused_and_another_port_waits() {
    on_both(|driver| {
        let (main, eu, us, other) = (well(), well(), well(), well());
        let first = moving(&eu, &us, "a", "b");
        let cells = Cells::new(&first);
        let server = cells.start(driver, &main, "tenant: {label: tenant, allow: [a, b]}\n");
        // The same edit allows the tenants of the new upstream. They must not reach another cluster.
        let added = format!("{first}- {{name: new, tenants: [n*], target: 'http://{}/'}}\n", other.address);
        cells.put(&added);
        let lines = server.reload_with("allow: [a, b]", "allow: [a, b, n1]").join("\n");
        assert!(lines.contains("upstream new was added") && lines.contains("restart"), "{lines}");
        assert!(lines.contains("nothing changes"), "{lines}");
        assert_eq!(server.client().push(&one("n1")).status, 400);
        cells.put(first.lines().next().unwrap());
        let lines = server.reload_with("allow: [a, b, n1]", "allow: [a, b]").join("\n");
        assert!(lines.contains("upstream us was"), "{lines}");

        // Another port waits for a restart, and with it the token of that place.
        let elsewhere = moving(&other, &us, "a", "b").replace("eu-token", "other-token");
        cells.put(&elsewhere);
        let lines = server.reload().join("\n");
        assert!(lines.contains("next start") && lines.contains("upstreams"), "{lines}");
        for tenant in ["a", "b"] {
            assert_eq!(server.client().push(&one(tenant)).status, 200);
        }
        assert_eq!(other.received().len() + main.received().len(), 0);
        assert_eq!(eu.received()[0].header("Authorization"), Some("Bearer eu-token"));
        assert_eq!(us.of("b").len(), 1);
    });
}

#[test]
fn upstreams_at_one_address_share_its_connections_limit_but_no_terms() {
    on_both(|driver| {
        let main = Upstream::start(|_: &Received| Reply::ok().after(Duration::from_millis(10)));
        let entry = |name: &str| {
            format!(
                "- {{name: {name}, tenants: ['{name}*'], target: 'http://{}/{name}', headers: {{X-Cell: {name}}}}}\n",
                main.address
            )
        };
        let cells = Cells::new(&[entry("one"), entry("two")].concat());
        let server = cells.start(driver, &main, "max_conns_per_host: 2\ncores: 2\n");
        let bodies = (0..60).map(|n| one(&format!("{}-{n}", ["one", "two", "main"][n % 3])));
        for mut client in send_together(&server, bodies) {
            assert_eq!(client.response().status, 200);
        }
        assert!(main.open_most() <= 2, "{}", main.open_most());
        for received in main.received() {
            let cell = received.tenant().split('-').next().unwrap().to_owned();
            let (path, header) = match cell.as_str() {
                "main" => ("/api/v1/push".to_owned(), None),
                cell => (format!("/{cell}"), Some(cell)),
            };
            assert_eq!((received.path.as_str(), received.header("X-Cell")), (path.as_str(), header));
        }
        assert_eq!(main.received().len(), 60);
    });
}

#[test]
fn an_upstream_at_the_main_target_has_its_own_authorization_and_not_the_main_one_too() {
    let with_header = "upstream: {headers: {Authorization: Main canary, X-Main: m}}\n";
    let with_credentials = "auth: {egress: {bearer_token: canary}}\n";
    on_both(|driver| {
        for (more, own, expected, main_value) in [
            (with_header, "bearer_token: own", "Bearer own", "Main canary"),
            (with_credentials, "headers: {Authorization: Own h}", "Own h", "Bearer canary"),
        ] {
            let main = well();
            let cells = Cells::new(&format!("- {{name: eu, tenants: [a], {own}}}\n"));
            let server = cells.start(driver, &main, more);
            for (tenant, value) in [("a", expected), ("b", main_value)] {
                assert_eq!(server.client().push(&one(tenant)).status, 200);
                let received = main.of(tenant);
                let headers = received.iter().flat_map(|received| &received.headers.0);
                let found = headers.filter(|(name, _)| name == "authorization");
                assert_eq!(found.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), [value]);
            }
        }
    });
}

#[test]
fn a_clusters_token_is_read_again_when_its_file_changes() {
    on_both(|driver| {
        let (main, eu) = (well(), well());
        let cells = Cells::new("");
        let token = cells.folder.path().join("token");
        std::fs::write(&token, "first\n").unwrap();
        cells.put(&format!(
            "- {{name: eu, tenants: [a], target: 'http://{}/', bearer_token_file: {}}}\n",
            eu.address,
            token.display()
        ));
        let server = cells.start(driver, &main, "");
        assert_eq!(server.client().push(&one("a")).status, 200);
        std::fs::write(&token, "second").unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while server.metric("tenantry_secret_reloads_total", "done") < 1.0 {
            assert!(Instant::now() < until, "{:#?}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(server.client().push(&one("a")).status, 200);
        let tokens: Vec<_> = eu.received();
        let tokens: Vec<_> = tokens.iter().map(|one| one.header("Authorization")).collect();
        assert_eq!(tokens, [Some("Bearer first"), Some("Bearer second")]);
    });
}

#[test]
fn checking_a_configuration_reads_every_file_and_reports_every_mistake() {
    let cells = Cells::new(
        "- {name: eu, tenants: [a], bearer_token_file: /none}\n- {name: eu, tenant: [b]}\n\
         - {name: x, tenants: [c], tls_config: {ca_bundle_file: /none.pem}, target: 'https://h/'}\n",
    );
    let config = cells.folder.path().join("tenantry.yml");
    let text = format!(
        "listen_metrics_address: {}\ntimeout: 3 parsecs\nupstreams: {}\n",
        free_port(),
        cells.file().display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tenantry"));
    let output = command.arg("--check-config").arg("--config").arg(&config).output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(64), "{told}");
    for part in [
        "tenantry.yml:2: timeout: ",
        "upstreams.yml:1: bearer_token_file: /none cannot be read",
        "upstreams.yml:2: name: the upstream on line 1 has the same name",
        "upstreams.yml:2: tenant: unknown key",
        "upstreams.yml:2: `tenants` is missing",
        "upstreams.yml:3: tls_config.ca_bundle_file: /none.pem can't be read",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
