//! What the stages of the data path cost in instructions. `.ci/instructions` runs this under valgrind's callgrind and
//! compares the counts with perf/instructions.json; run otherwise, it only goes through the stages.
//!
//! Callgrind counts what happens within [`measured_stage`], and writes a file as often as it is left. This prints the
//! name of the stage each time. Each stage runs twice unmeasured, as it would in a server that is in use: buffers have
//! their size then.
#![allow(missing_docs, clippy::expect_used, clippy::print_stdout, reason = "a bench, not an interface")]

mod fleet;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::exports::Named;
use fleet::fragments::{a_part, fragment};
use fleet::{SERIES, exports, logs, split_rules, stored, take_parts, tenant_rules};
use prost::Message;
use tenantry::config::plan::Terms;
use tenantry::egress::lane::{Lane, LaneLimits, Next};
use tenantry::exchange::fragment::Fragment;
use tenantry::http::head::RequestHead;
use tenantry::model::{Destination, Notation, Outcome, Protocol, RefusedSeries, Signal};
use tenantry::split::{Body, Compression, SplitRules, Splitter};
use tenantry::tenant::{IdRules, TenantId};
use tenantry::upstream::request::RequestHeads;
use tenantry::verdict::conclude;
use tenantry::wire::snappy::Inflater;
use testkit::proto::deflate;
use testkit::proto_v2::Request;

const INFLATED_BYTES_MAX: usize = 64 << 20;
const UNMEASURED_RUNS: usize = 2;
/// The second one shows whether a count is stable.
const MEASURED_RUNS: usize = 2;

#[inline(never)]
fn measured_stage(stage: &mut dyn FnMut()) {
    stage();
    // Not a tail call: callgrind has to see that this function is left.
    black_box(());
}

/// Runs a stage. `prepare` is not measured, and makes what `run` takes.
fn stage<S, T, R>(name: &str, mut state: S, prepare: impl Fn(&mut S) -> T, run: impl Fn(&mut S, T) -> R) {
    for at in 0..UNMEASURED_RUNS + MEASURED_RUNS {
        let mut input = Some(prepare(&mut state));
        let mut result = None;
        let mut all = || result = input.take().map(|input| run(&mut state, input));
        if at < UNMEASURED_RUNS {
            all();
        } else {
            measured_stage(&mut all);
            println!("{name}");
        }
        black_box(result);
    }
}

fn main() {
    let tenant = tenant_rules(false);
    let rules = split_rules(&tenant);
    remote_write(&rules);
    pushes(&rules);
    exports();
    heads();
    lane();
    verdict();
}

fn remote_write(rules: &SplitRules<'_>) {
    for (series, tenants) in [(SERIES, 10), (100, 100)] {
        let request = fleet::request(series, tenants);
        let v1 = stored(&request.encode_to_vec());
        let v2 = stored(&Request::from(&request).encode_to_vec());
        let name = |stage: &str| format!("{stage}, {series} series of {tenants} tenants");
        let block = request.to_block();
        stage(
            &name("inflate"),
            Inflater::default(),
            |_| (),
            |inflater, ()| {
                inflater.inflate(&block, INFLATED_BYTES_MAX).expect("inflates");
            },
        );
        for (version, body) in [("1.0", Body::snappy_v1(v1)), ("2.0", Body::snappy_v2(v2))] {
            let scan = |splitter: &mut Splitter| splitter.scan(body.clone(), rules, None).expect("scans");
            stage(&name(&format!("scan {version}")), Splitter::new(), |_| (), |splitter, ()| scan(splitter));
            stage(&name(&format!("split and deflate {version}")), Splitter::new(), scan, |splitter, _| {
                take_parts(splitter);
            });
        }
    }
}

/// Loki pushes, from the body that comes in to the parts that go out.
fn pushes(rules: &SplitRules<'_>) {
    let json = |text: String| Body {
        protocol: Protocol::LokiJson,
        compression: Compression::Identity,
        bytes: text.into(),
    };
    let protobuf = |in_labels| Body {
        protocol: Protocol::Loki,
        compression: Compression::Snappy,
        bytes: deflate(&logs::protobuf(in_labels)),
    };
    for (name, body) in [
        ("Loki protobuf, tenant in labels", protobuf(true)),
        ("Loki protobuf, tenant in entries", protobuf(false)),
        ("Loki JSON", json(logs::json())),
        ("Loki JSON, streams of one entry", json(logs::json_streams())),
    ] {
        stage(
            name,
            Splitter::new(),
            |_| body.clone(),
            |splitter, body| {
                splitter.scan(body, rules, None).expect("scans");
                take_parts(splitter);
            },
        );
    }
}

/// Exports of OTLP: scanning and splitting, and all steps in other codings, other notations and where items name
/// tenants.
fn exports() {
    let tenant = exports::tenant_rules();
    let rules = split_rules(&tenant);
    let scan =
        |splitter: &mut Splitter, body: &Body| splitter.scan(body.clone(), &rules, None).expect("scans");
    let whole = |name: String, body: Body| {
        stage(
            &name,
            Splitter::new(),
            |_| (),
            |splitter, ()| {
                scan(splitter, &body);
                take_parts(splitter);
            },
        );
    };
    for signal in Signal::ALL {
        let name = exports::name(signal);
        let body = exports::body(signal, Notation::Protobuf, Compression::Identity, Named::ByResource);
        stage(&format!("scan OTLP {name}"), Splitter::new(), |_| (), |splitter, ()| scan(splitter, &body));
        stage(
            &format!("split OTLP {name}"),
            Splitter::new(),
            |splitter| scan(splitter, &body),
            |splitter, _| {
                take_parts(splitter);
            },
        );
        let json = exports::body(signal, Notation::Json, Compression::Identity, Named::ByResource);
        whole(format!("OTLP {name} in JSON"), json);
    }
    let metrics = |notation, compression, named| exports::body(Signal::Metrics, notation, compression, named);
    let (protobuf, plain) = (Notation::Protobuf, Compression::Identity);
    for (name, body) in [
        ("in gzip", metrics(protobuf, Compression::Gzip, Named::ByResource)),
        ("in zstd", metrics(protobuf, Compression::Zstd, Named::ByResource)),
        ("in snappy", metrics(protobuf, Compression::Snappy, Named::ByResource)),
        ("tenant in points", metrics(protobuf, plain, Named::ByItem)),
        ("in JSON, tenant in points", metrics(Notation::Json, plain, Named::ByItem)),
    ] {
        whole(format!("OTLP metrics, {name}"), body);
    }
}

fn terms() -> Arc<Terms> {
    tenantry::config::parse("", "", []).expect("the defaults are sound").terms
}

/// The head of a sender's request, as Prometheus writes it, and that of an upstream request.
fn heads() {
    let request = b"POST /api/v1/push HTTP/1.1\r\nHost: tenantry.monitoring.svc:8081\r\n\
        User-Agent: Prometheus/2.42.0\r\nContent-Length: 171044\r\nContent-Encoding: snappy\r\n\
        Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\r\n";
    stage(
        "inbound head",
        (),
        |()| (),
        |(), ()| RequestHead::parse(black_box(request), "X-Scope-OrgID").expect("is one"),
    );
    let terms = terms();
    let heads = RequestHeads::new(&terms, Destination::Metrics);
    let first = fragment(a_part(), &terms);
    stage("upstream head", (), |()| (), |(), ()| heads.head(&first, Compression::Snappy, 1 << 19, 1 << 17));
}

/// A lane's fragments come, some while a request waits for its connection, which they join.
fn lane() {
    const FRAGMENTS: usize = 32;
    let limits = LaneLimits {
        inflight_max: 1,
        inflight_early_max: 0,
        inflight_full_max: 8,
        linger: Duration::ZERO,
        fragments_max: FRAGMENTS,
        inflated_bytes_max: INFLATED_BYTES_MAX,
    };
    let (part, terms, now) = (a_part(), terms(), Instant::now());
    let fragments = |_: &mut ()| -> Vec<Box<Fragment>> {
        (0..FRAGMENTS).map(|_| fragment(part.clone(), &terms)).collect()
    };
    stage("lane, 32 fragments", (), fragments, |(), mut fragments| {
        let mut lane = Lane::default();
        let late = fragments.split_off(FRAGMENTS / 2);
        fragments.into_iter().for_each(|fragment| lane.push(fragment));
        let Next::Send(mut batch) = lane.next(now + Duration::from_secs(1), &limits) else { return None };
        late.into_iter().for_each(|fragment| lane.push(fragment));
        lane.join(&mut batch, now + Duration::from_secs(1), &limits);
        lane.left(now);
        lane.finished(false, None);
        Some((lane, batch))
    });
}

fn verdict() {
    let tenants: Vec<_> =
        (0..100).map(|at| TenantId::new(&format!("tenant-{at}"), IdRules::Mimir).expect("is one")).collect();
    let none = RefusedSeries::default();
    for (name, failures) in [("verdict, 100 delivered", 0), ("verdict, 10 of 100 failed", 10)] {
        let outcome = |at| {
            if at < failures {
                Outcome::upstream(500, None, b"ingester is not ready")
            } else {
                Outcome::delivered(200, b"")
            }
        };
        let outcomes: Vec<_> = (0..tenants.len()).map(outcome).collect();
        stage(
            name,
            (),
            |()| (),
            |(), ()| conclude(Destination::Metrics, tenants.iter().zip(&outcomes), &none, false),
        );
    }
}
