//! Hand-made Remote Write 2.0 requests, split and downgraded.

use bytes::Bytes;

use crate::limits::{REQUEST_FIELDS_MAX, REQUEST_SCALARS_BYTES_MAX, REQUEST_SYMBOLS_MAX};
use crate::model::HaReplica;
use crate::split::*;
use crate::tenant::Policy;
use crate::wire::remote_write_v2::Fault;
use crate::wire::varint;

/// A length-delimited field of a number below 16.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint::put(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

/// A field of a number below 16 that holds a number.
fn number(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    varint::put(&mut bytes, value);
    bytes
}

fn symbols(symbols: &[&str]) -> Vec<u8> {
    symbols.iter().flat_map(|symbol| field(4, symbol.as_bytes())).collect()
}

fn packed(references: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    references.iter().for_each(|&reference| varint::put(&mut bytes, reference));
    field(1, &bytes)
}

fn series(members: &[Vec<u8>]) -> Vec<u8> {
    field(5, &members.concat())
}

/// A sample whose bytes are nobody's business.
fn sample() -> Vec<u8> {
    field(2, &[0x10, 1])
}

fn metadata(kind: u64, help: u64, unit: u64) -> Vec<u8> {
    field(5, &[number(1, kind), number(3, help), number(4, unit)].concat())
}

fn block(request: &[u8]) -> Bytes {
    snap::raw::Encoder::new().compress_vec(request).unwrap().into()
}

/// Rules under test, with the tenant in label `t`.
struct Rules {
    tenant: TenantRules,
    v2: V2Handling,
    ha: Option<HaLabels>,
    limits: SplitLimits,
}

impl Rules {
    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let tenant = TenantRules::of_label(b"t");
        let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 3 };
        let mut rules = Self { tenant, v2: V2Handling::Pass, ha: None, limits };
        change(&mut rules);
        rules
    }

    fn pass() -> Self {
        Self::with(|_| {})
    }

    fn downgrade() -> Self {
        Self::with(|rules| rules.v2 = V2Handling::Downgrade)
    }

    fn scan(&self, splitter: &mut Splitter, request: &[Vec<u8>]) -> Result<Scan, SplitError> {
        let rules = SplitRules {
            tenant: &self.tenant,
            metadata: Metadata::Drop,
            ha: self.ha.as_ref(),
            loki_label_remove: false,
            remote_write_v2: self.v2,
            limits: self.limits,
        };
        splitter.scan(Body::snappy_v2(block(&request.concat())), &rules, None)
    }

    fn split(&self, request: &[Vec<u8>]) -> (Scan, Vec<Part>) {
        let mut splitter = Splitter::new();
        let scan = self.scan(&mut splitter, request).unwrap();
        let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
        assert_eq!(parts.len(), scan.tenants);
        (scan, parts)
    }

    /// What the parts inflate to, and whose they are.
    fn inflated(&self, request: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
        self.split(request).1.iter().map(inflated).collect()
    }

    fn error(&self, request: &[Vec<u8>]) -> SplitError {
        let mut splitter = Splitter::new();
        let error = self.scan(&mut splitter, request).unwrap_err();
        assert_eq!(splitter.next_part(), None);
        error
    }
}

fn inflated(part: &Part) -> (String, Vec<u8>) {
    let mut block = Vec::new();
    varint::put(&mut block, u64::from(part.inflated_bytes));
    block.extend_from_slice(&part.elements);
    (part.tenant.to_string(), snap::raw::Decoder::new().decompress_vec(&block).unwrap())
}

fn expect(parts: &[(&str, &[Vec<u8>])]) -> Vec<(String, Vec<u8>)> {
    parts.iter().map(|(tenant, bytes)| ((*tenant).to_owned(), bytes.concat())).collect()
}

/// 0 `` 1 `t` 2 `a` 3 `b` 4 `x` 5 `y` 6 `help` 7 `unit`
fn table() -> Vec<u8> {
    symbols(&["", "t", "a", "b", "x", "y", "help", "unit"])
}

#[test]
fn each_tenant_gets_its_series_and_just_their_symbols() {
    let request = [
        table(),
        series(&[packed(&[4, 5, 1, 3]), sample()]),
        series(&[packed(&[1, 2]), sample(), sample()]),
        series(&[packed(&[1, 3, 5, 5]), field(3, b"histogram")]),
    ];
    let (scan, parts) = Rules::pass().split(&request);
    let b = [
        symbols(&["", "x", "y", "t", "b"]),
        series(&[packed(&[1, 2, 3, 4]), sample()]),
        series(&[packed(&[3, 4, 2, 2]), field(3, b"histogram")]),
    ];
    let a = [symbols(&["", "t", "a"]), series(&[packed(&[1, 2]), sample(), sample()])];
    assert_eq!(parts.iter().map(inflated).collect::<Vec<_>>(), expect(&[("b", &b), ("a", &a)]));
    let counts: Vec<_> = parts.iter().map(|part| (part.series, part.samples)).collect();
    assert_eq!(counts, [(2, 2), (1, 2)]);
    assert!(
        parts.iter().all(|part| part.merge == MergeKey::Alone && part.protocol == Protocol::RemoteWriteV2)
    );
    let inflated_bytes = request.concat().len();
    let expected =
        Scan { tenants: 2, series: 3, samples: 4, histograms: 1, inflated_bytes, ..Scan::default() };
    assert_eq!(scan, expected);
}

#[test]
fn symbols_may_stand_before_between_and_behind_the_series() {
    let (a, b) = (series(&[packed(&[1, 2])]), series(&[packed(&[1, 3])]));
    let table = ["", "t", "a", "b"].map(|symbol| field(4, symbol.as_bytes()));
    let [empty, t, va, vb] = table.clone();
    let expected = expect(&[
        ("a", &[symbols(&["", "t", "a"]), series(&[packed(&[1, 2])])]),
        ("b", &[symbols(&["", "t", "b"]), series(&[packed(&[1, 2])])]),
    ]);
    for request in [
        vec![table.concat(), a.clone(), b.clone()],
        vec![a.clone(), b.clone(), table.concat()],
        vec![empty, a, t, va, b, vb],
    ] {
        assert_eq!(Rules::pass().inflated(&request), expected);
    }
}

#[test]
fn all_references_are_written_anew_and_packed() {
    let exemplar =
        field(4, &[number(1, 4), field(9, b"?"), number(1, 5), number(3, 1), packed(&[5, 0])].concat());
    let twice = field(5, &[number(1, 1), number(3, 6), number(4, 7), number(3, 0), field(9, b"?")].concat());
    let rest = [sample(), number(6, 9), vec![9 << 3 | 3, 9 << 3 | 4]].concat();
    let request = [
        table(),
        series(&[number(1, 4), sample(), exemplar, packed(&[5, 1]), twice, rest.clone(), number(1, 3)]),
        series(&[packed(&[1, 2])]),
    ];
    let exemplar = field(4, &[packed(&[1, 2, 2, 0]), field(9, b"?"), number(3, 1)].concat());
    let metadata =
        field(5, &[number(1, 1), number(3, 5), number(4, 6), number(3, 0), field(9, b"?")].concat());
    let b = [
        symbols(&["", "x", "y", "t", "b", "help", "unit"]),
        series(&[packed(&[1, 2, 3, 4]), sample(), exemplar, metadata, rest]),
    ];
    let a = [symbols(&["", "t", "a"]), series(&[packed(&[1, 2])])];
    let (scan, _) = Rules::pass().split(&request);
    assert_eq!((scan.series, scan.samples, scan.exemplars), (2, 2, 1));
    assert_eq!(Rules::pass().inflated(&request), expect(&[("b", &b), ("a", &a)]));
}

#[test]
fn references_grow_and_shrink_with_the_table() {
    // 300 symbols of one tenant, 20,000 of another: one byte, two and three, in both directions.
    let mut names: Vec<String> = ["", "t", "a", "b"].map(str::to_owned).to_vec();
    names.extend((4..20_304).map(|at| format!("{at}")));
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let labels = |tenant: u64, symbols: std::ops::Range<u64>| -> Vec<u64> {
        [1, tenant].into_iter().chain(symbols.rev()).collect()
    };
    let few = labels(2, 20_004..20_304);
    let many = labels(3, 4..20_004);
    let request = [symbols(&all), series(&[packed(&many), sample()]), series(&[packed(&few), sample()])];
    let part = |references: &[u64]| {
        let texts: Vec<&str> = references.iter().map(|&at| all[usize::try_from(at).unwrap()]).collect();
        let places: Vec<u64> = (1..=references.len() as u64).collect();
        [symbols(&[""]), symbols(&texts), series(&[packed(&places), sample()])]
    };
    let parts = Rules::pass().inflated(&request);
    assert_eq!(parts, expect(&[("b", &part(&many)), ("a", &part(&few))]));
}

#[test]
fn one_tenants_request_goes_on_as_the_same_bytes() {
    let request = [
        symbols(&["", "t", "a", "unused"]),
        series(&[number(1, 1), number(1, 2)]),
        series(&[packed(&[1, 2])]),
        field(9, b"unknown"),
    ];
    let block = block(&request.concat());
    let rules = Rules::pass();
    let split_rules = SplitRules {
        tenant: &rules.tenant,
        metadata: Metadata::Drop,
        ha: None,
        loki_label_remove: false,
        remote_write_v2: rules.v2,
        limits: rules.limits,
    };
    let mut splitter = Splitter::new();
    let scan = splitter.scan(Body::snappy_v2(block.clone()), &split_rules, None).unwrap();
    assert!(scan.passthrough);
    assert_eq!(scan.unknown_fields_dropped, 0);
    let part = splitter.next_part().unwrap();
    // Not a copy: the very memory that came in, behind the length.
    assert_eq!(part.elements.as_ptr(), block[1..].as_ptr());
    assert_eq!((part.series, &part.merge), (2, &MergeKey::Alone));
    assert_eq!(splitter.next_part(), None);
    drop(part);
    assert!(block.is_unique());
}

#[test]
fn the_deciding_label_can_be_taken_out() {
    let rules = Rules::with(|rules| {
        rules.tenant.label_remove = true;
        rules.tenant.labels = vec![(*b"u").into(), (*b"t").into()];
        rules.tenant.default = Some("a".into());
    });
    // 5 is `u`.
    let table = symbols(&["", "t", "a", "b", "x", "u"]);
    let request = [
        table,
        series(&[packed(&[4, 4, 1, 2, 1, 3]), sample()]),
        series(&[packed(&[1, 3, 5, 0, 5, 2, 5, 3])]),
        series(&[number(1, 1), packed(&[2, 4]), number(1, 4)]),
        series(&[packed(&[1, 2])]),
        series(&[packed(&[1, 0]), sample()]),
    ];
    let expected = [
        symbols(&["", "x", "t", "b", "u"]),
        series(&[packed(&[1, 1, 2, 3]), sample()]),
        series(&[packed(&[2, 3, 4, 0, 4, 3])]),
        series(&[packed(&[1, 1])]),
        series(&[]),
        series(&[packed(&[2, 0]), sample()]),
    ];
    assert_eq!(rules.inflated(&request), expect(&[("a", &expected)]));
    assert!(!rules.split(&request).0.passthrough);
    // The default's series have none to take out.
    assert!(rules.split(&[request[0].clone(), request[5].clone()]).0.passthrough);
}

#[test]
fn repeated_and_empty_symbols_do_no_harm() {
    // Two empty ones, one of them with a length longer than needed; the label's name and a value twice.
    let table = [symbols(&["", "t", "a"]), vec![0x22, 0x80, 0x00], symbols(&["t", "", "a", "b"])].concat();
    let request = [
        table,
        series(&[packed(&[4, 6, 3, 5])]),
        series(&[packed(&[1, 2])]),
        series(&[packed(&[1, 5, 4, 7])]),
    ];
    let a =
        [symbols(&["", "t", "a", "t", "a"]), series(&[packed(&[1, 2, 0, 0])]), series(&[packed(&[3, 4])])];
    let b = [symbols(&["", "t", "t", "b"]), series(&[packed(&[1, 0, 2, 3])])];
    assert_eq!(Rules::pass().inflated(&request), expect(&[("a", &a), ("b", &b)]));
}

#[test]
fn policies_hold_and_refused_series_leave_no_symbol_behind() {
    let request = |refused: &[u64]| {
        [
            symbols(&["", "t", "a", "b/", "secret", "__name__"]),
            series(&[packed(&[1, 2]), sample()]),
            series(&[packed(refused), sample(), field(4, b"")]),
            series(&[packed(&[1, 2])]),
        ]
    };
    let rules = Rules::pass();
    assert_eq!(
        rules.error(&request(&[1, 3, 5, 4])).to_string(),
        "series 2 (secret): invalid tenant ID \"b/\" (from label t): it contains '/', which is not allowed"
    );
    assert_eq!(rules.error(&request(&[4, 4])).reason(), "missing_tenant");
    let rules = Rules::with(|rules| {
        rules.tenant.on_invalid = Policy::Drop;
        rules.tenant.on_missing = Policy::Drop;
    });
    for refused in [[1, 3, 5, 4], [1, 0, 5, 4]] {
        let (scan, parts) = rules.split(&request(&refused));
        let of_a =
            [symbols(&["", "t", "a"]), series(&[packed(&[1, 2]), sample()]), series(&[packed(&[1, 2])])];
        assert_eq!(parts.iter().map(inflated).collect::<Vec<_>>(), expect(&[("a", &of_a)]));
        assert_eq!((scan.series, scan.samples, scan.exemplars, scan.passthrough), (3, 2, 1, false));
        assert_eq!((scan.refused.series(), scan.refused.samples), (1, 1));
    }
    // The same tenant, invalid each time, is refused each time.
    let twice = [request(&[1, 3])[0].clone(), series(&[packed(&[1, 3])]), series(&[packed(&[1, 3])])];
    assert_eq!(rules.split(&twice).0.refused.invalid, 2);
}

#[test]
fn refuses_broken_and_boundless_requests() {
    let rules = Rules::pass();
    assert_eq!(rules.error(&[]), SplitError::Empty);
    assert_eq!(rules.error(&[table(), number(9, 1)]), SplitError::Empty);
    let malformed = |request: &[Vec<u8>]| match rules.error(request) {
        SplitError::MalformedV2(malformed) => (malformed.fault, malformed.at_byte),
        error => panic!("{error}"),
    };
    assert_eq!(malformed(&[series(&[])]), (Fault::FirstSymbol, 0));
    assert_eq!(malformed(&[series(&[]), symbols(&["t"])]), (Fault::FirstSymbol, 2));
    let good = [table(), series(&[packed(&[1, 2])])].concat();
    let at_byte = good.len();
    for (bad, fault) in [
        (series(&[packed(&[1, 8])]), Fault::Reference { symbols: 8 }),
        (series(&[packed(&[1, 2, 1])]), Fault::OddLabels),
        (series(&[packed(&[1, 2]), field(4, &packed(&[1]))]), Fault::OddLabels),
        (series(&[packed(&[1, 2]), metadata(1, 8, 0)]), Fault::Reference { symbols: 8 }),
        (field(1, b"series of 1.0"), Fault::RemoteWriteV1),
        (field(3, b"metadata of 1.0"), Fault::RemoteWriteV1),
    ] {
        assert_eq!(malformed(&[good.clone(), bad, series(&[packed(&[1, 2])])]), (fault, at_byte));
    }
    let error = rules.error(&[good, field(3, b"")]);
    assert_eq!(error.reason(), "bad_protobuf");
}

#[test]
fn symbols_series_and_tenants_have_a_bound() {
    let mut rules = Rules::with(|rules| rules.limits.inflated_bytes_max = usize::MAX);
    let tenants = |count: u64| {
        let names: Vec<String> = (0..count).map(|at| format!("{at}")).collect();
        let names: Vec<&str> = ["", "t"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let series: Vec<u8> = (0..count).flat_map(|at| series(&[packed(&[1, at + 2])])).collect();
        [symbols(&names), series]
    };
    assert_eq!(rules.split(&tenants(3)).0.tenants, 3);
    assert_eq!(rules.error(&tenants(4)), SplitError::TooManyTenants { tenants_max: 3 });
    rules.tenant.default = Some("d".into());
    let most = symbols(&[""]).repeat(REQUEST_SYMBOLS_MAX);
    assert_eq!(rules.split(&[most.clone(), series(&[])]).0.series, 1);
    let too_many = rules.error(&[most, symbols(&[""])]);
    assert_eq!(too_many, SplitError::TooManySymbols { symbols_max: REQUEST_SYMBOLS_MAX });
    assert_eq!(too_many.reason(), "too_many_fields");
    let most = series(&[]).repeat(REQUEST_FIELDS_MAX);
    assert_eq!(rules.split(&[symbols(&[""]), most.clone()]).0.series, REQUEST_FIELDS_MAX as u64);
    let too_many = rules.error(&[symbols(&[""]), most, number(9, 1)]);
    assert_eq!(too_many, SplitError::TooManyFields { fields_max: REQUEST_FIELDS_MAX });
}

#[test]
fn many_tenants_each_get_their_own() {
    // More than parts can be numbered in a place.
    let rules = Rules::with(|rules| {
        rules.limits = SplitLimits { inflated_bytes_max: 64 << 20, tenants_max: 10_000 };
    });
    let names: Vec<String> = (0..10_000).map(|at| format!("tenant-{at}")).collect();
    let table: Vec<&str> = ["", "t", "x"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let series_of = |at: u64| series(&[packed(&[2, 2, 1, at + 3]), sample()]);
    let request: Vec<Vec<u8>> =
        [symbols(&table)].into_iter().chain((0..20_000).map(|at| series_of(at * 7 % 10_000))).collect();
    let parts = rules.inflated(&request);
    assert_eq!(parts.len(), 10_000);
    for (at, (tenant, bytes)) in parts.iter().enumerate() {
        let name = &names[at * 7 % 10_000];
        assert_eq!(tenant, name);
        let both = series(&[packed(&[1, 1, 2, 3]), sample()]).repeat(2);
        assert_eq!(*bytes, [symbols(&["", "x", "t", name]), both].concat());
    }
}

#[test]
fn a_symbol_that_tenants_share_does_not_multiply_without_bound() {
    let long = "x".repeat(400_000);
    let request = |series_of: &[u64]| {
        let series: Vec<u8> = series_of.iter().flat_map(|&at| series(&[packed(&[1, at, 5, 5])])).collect();
        [symbols(&["", "t", "a", "b", "c", &long]), series]
    };
    let rules = Rules::pass();
    assert_eq!(rules.split(&request(&[2, 3])).0.tenants, 2);
    let error = rules.error(&request(&[2, 3, 4]));
    assert_eq!(error, SplitError::TooMuchGrowth { bytes_max: 1 << 20 });
    assert_eq!(error.reason(), "too_large");
    // In 1.0 each series has it, tenant or no tenant.
    let rules = Rules::downgrade();
    let with_sample =
        |count: usize| [request(&[])[0].clone(), series(&[packed(&[1, 2, 4, 5]), sample()]).repeat(count)];
    assert_eq!(rules.split(&with_sample(2)).0.series, 2);
    assert_eq!(rules.error(&with_sample(3)), error);
}

#[test]
fn unknown_fields_at_the_top_are_treated_as_in_1_0() {
    let (a, b) = (series(&[packed(&[1, 2])]), series(&[packed(&[1, 3])]));
    let (scalar, other) = (number(9, 7), field(9, b"?"));
    let request = [table(), scalar.clone(), a.clone(), other, b.clone()];
    let (scan, parts) = Rules::pass().split(&request);
    assert_eq!(scan.unknown_fields_dropped, 1);
    let part = |tenant| [scalar.clone(), symbols(&["", "t", tenant]), series(&[packed(&[1, 2])])];
    let expected = expect(&[("a", &part("a")), ("b", &part("b"))]);
    assert_eq!(parts.iter().map(inflated).collect::<Vec<_>>(), expected);
    let many = scalar.repeat(REQUEST_SCALARS_BYTES_MAX / 2 + 1);
    assert!(Rules::pass().split(&[table(), a.clone(), many.clone()]).0.passthrough);
    assert_eq!(Rules::pass().error(&[table(), a, many.clone(), b]).reason(), "too_many_fields");
    // 1.0 may mean something else by the same numbers.
    let (scan, parts) =
        Rules::downgrade().split(&[table(), many, request[3].clone(), series(&[packed(&[1, 2]), sample()])]);
    assert_eq!(scan.unknown_fields_dropped, REQUEST_SCALARS_BYTES_MAX as u64 / 2 + 2);
    assert_eq!((parts[0].merge.clone(), parts[0].series), (MergeKey::Ha(None), 1));
}

#[test]
fn a_splitter_forgets_the_request_before() {
    let mut splitter = Splitter::new();
    let rules = Rules::with(|rules| rules.limits.inflated_bytes_max = usize::MAX);
    let request = [table(), series(&[packed(&[1, 2])]), series(&[packed(&[1, 3])]), number(9, 1)];
    rules.scan(&mut splitter, &request).unwrap();
    splitter.next_part().unwrap();
    // As many symbols, other words; the second part was never taken.
    let other = [symbols(&["", "t", "c", "d", "x", "y", "z", "w"]), request[1].clone(), request[2].clone()];
    rules.scan(&mut splitter, &other).unwrap();
    let parts: Vec<_> = std::iter::from_fn(|| splitter.next_part()).map(|part| inflated(&part)).collect();
    let part = |tenant| [symbols(&["", "t", tenant]), series(&[packed(&[1, 2])])];
    assert_eq!(parts, expect(&[("c", &part("c")), ("d", &part("d"))]));
    rules.scan(&mut splitter, &[request[0].clone(), series(&[packed(&[1])])]).unwrap_err();
    assert_eq!(splitter.next_part(), None);
    // Little memory stays.
    let names: Vec<String> = (0..600_000).map(|at| at.to_string()).collect();
    let table: Vec<&str> = ["", "t"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let series: Vec<u8> =
        (0..400_000).flat_map(|at| series(&[packed(&[1, at % 2 + 2, at + 2, 2])])).collect();
    rules.scan(&mut splitter, &[symbols(&table), series]).unwrap();
    while splitter.next_part().is_some() {}
    assert!(splitter.v2.scratch_bytes() <= 4 * SCRATCH_BYTES_MAX);
    assert!(splitter.gathered.capacity() <= SCRATCH_BYTES_MAX);
}

// ---- Downgrade ----

fn label_v1(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

fn series_v1(members: &[Vec<u8>]) -> Vec<u8> {
    field(1, &members.concat())
}

fn metadata_v1(kind: u64, family: &str, help: &str, unit: &str) -> Vec<u8> {
    let text = [field(2, family.as_bytes()), field(4, help.as_bytes()), field(5, unit.as_bytes())].concat();
    field(3, &[number(1, kind), text].concat())
}

#[test]
fn a_downgraded_part_is_a_1_0_request() {
    let histogram = field(3, &[number(1, 5), number(4, 104), number(15, 1)].concat());
    let exemplar = field(4, &[packed(&[4, 5]), vec![0x11; 9], number(3, 1)].concat());
    let request = [
        table(),
        series(&[packed(&[1, 3, 4, 5]), sample(), histogram.clone(), exemplar]),
        series(&[packed(&[1, 2]), sample()]),
        series(&[packed(&[1, 3, 4, 0]), sample()]),
    ];
    let (scan, parts) = Rules::downgrade().split(&request);
    let exemplar = field(3, &[label_v1("x", "y"), vec![0x11; 9], number(3, 1)].concat());
    let b = [
        series_v1(&[label_v1("t", "b"), label_v1("x", "y"), sample(), field(4, &histogram[2..]), exemplar]),
        series_v1(&[label_v1("t", "b"), label_v1("x", ""), sample()]),
    ];
    let a = [series_v1(&[label_v1("t", "a"), sample()])];
    assert_eq!(parts.iter().map(inflated).collect::<Vec<_>>(), expect(&[("b", &b), ("a", &a)]));
    assert!(
        parts.iter().all(|part| part.protocol == Protocol::RemoteWriteV1 && part.merge == MergeKey::Ha(None))
    );
    assert_eq!((parts[0].series, parts[0].samples, scan.passthrough), (2, 3, false));
    assert_eq!((scan.samples, scan.histograms, scan.exemplars, scan.lost), (4, 1, 1, Lost::default()));
    // One tenant alone is downgraded as well.
    let alone = Rules::downgrade().inflated(&[table(), request[2].clone()]);
    assert_eq!(alone, expect(&[("a", &a)]));
}

#[test]
fn a_downgrade_counts_what_it_loses() {
    let started = field(2, &[vec![0x09; 9], number(2, 1), number(3, 77)].concat());
    let unset = field(2, &[vec![0x09; 9], number(2, 1), number(3, 0)].concat());
    let custom = field(3, &[number(4, 105), vec![0x82, 1, 0]].concat());
    let histogram = |more: Vec<u8>| field(3, &[number(4, 1), vec![0x82, 1, 0], more].concat());
    let start = vec![0x88, 1, 5];
    let request = [
        table(),
        series(&[packed(&[1, 2]), started, unset, number(6, 9), field(9, b"?")]),
        series(&[packed(&[1, 2]), histogram(start), histogram(vec![0x98, 1, 5]), custom.clone()]),
        series(&[packed(&[1, 3]), custom.clone(), number(6, 9)]),
        series(&[packed(&[1, 3]), field(4, &number(4, 1)), field(5, &number(2, 1))]),
        series(&[packed(&[1, 3])]),
    ];
    let (scan, parts) = Rules::downgrade().split(&request);
    let plain = field(2, &[vec![0x09; 9], number(2, 1)].concat());
    let histogram = field(4, &[number(4, 1), vec![0x82, 1, 0]].concat());
    let a = [
        series_v1(&[label_v1("t", "a"), plain.clone(), plain]),
        series_v1(&[label_v1("t", "a"), histogram.clone(), histogram]),
    ];
    let b = [series_v1(&[label_v1("t", "b"), field(3, b"")])];
    assert_eq!(parts.iter().map(inflated).collect::<Vec<_>>(), expect(&[("a", &a), ("b", &b)]));
    assert_eq!(scan.lost, Lost { custom_histograms: 2, series: 2, start_timestamps: 4, fields: 4 });
    assert_eq!((scan.series, scan.samples, scan.histograms, scan.exemplars), (5, 6, 4, 1));
    let counts: Vec<_> = parts.iter().map(|part| (part.series, part.samples)).collect();
    assert_eq!(counts, [(2, 4), (1, 0)]);
    // Of what has no tenant and nothing to send, none is asked for; and there may be nothing left at all.
    let (scan, parts) = Rules::downgrade().split(&[table(), series(&[custom])]);
    assert_eq!((scan.tenants, scan.series, scan.samples, scan.lost.series, parts.len()), (0, 1, 1, 1, 0));
}

#[test]
fn what_a_refused_series_had_is_not_lost() {
    let rules = Rules::with(|rules| {
        rules.v2 = V2Handling::Downgrade;
        rules.tenant.on_missing = Policy::Drop;
    });
    let started = field(2, &number(3, 77));
    let (scan, _) =
        rules.split(&[table(), series(&[packed(&[4, 5]), started]), series(&[packed(&[1, 2]), sample()])]);
    assert_eq!((scan.lost, scan.refused.missing, scan.refused.samples), (Lost::default(), 1, 1));
}

#[test]
fn messages_within_a_series_have_to_be_whole_to_be_downgraded() {
    for message in [field(2, &[0x09, 0]), field(3, &[0x22, 5]), field(4, &[0x18])] {
        let request = [table(), series(&[packed(&[1, 2]), message])];
        // Passed on, it is the upstream's to judge.
        let is_exemplar = request[1][6] == 0x22;
        if !is_exemplar {
            Rules::pass().split(&request);
        }
        let error = Rules::downgrade().error(&request);
        assert!(matches!(error, SplitError::MalformedV2(malformed) if malformed.at_byte == request[0].len()));
    }
}

#[test]
fn metadata_is_told_once_for_each_family_of_a_part() {
    // 1 `t` 2 `a` 3 `b` 4 `__name__`, then help and unit, then metrics.
    let names = [
        "", "t", "a", "b", "__name__", "help", "unit", "other", "h_bucket", "h_sum", "h_count", "c_total",
        "g_total", "i_info", "s_sum", "_sum", "gh_gsum",
    ];
    let at = |name: &str| names.iter().position(|known| *known == name).unwrap() as u64;
    let of = |tenant: u64, metric: &str, metadata: Vec<u8>| {
        series(&[packed(&[1, tenant, 4, at(metric)]), sample(), metadata])
    };
    let plain = |tenant: &str, metric: &str| {
        series_v1(&[label_v1("t", tenant), label_v1("__name__", metric), sample()])
    };
    let request = [
        symbols(&names),
        of(2, "h_bucket", metadata(3, 5, 6)),
        of(3, "h_sum", metadata(3, 5, 0)),
        of(2, "h_count", metadata(3, 7, 0)),
        of(2, "h_sum", metadata(2, 0, 0)),
        of(2, "c_total", metadata(1, 0, 0)),
        of(2, "g_total", metadata(2, 0, 0)),
        of(2, "i_info", metadata(6, 0, 0)),
        of(2, "s_sum", metadata(5, 0, 0)),
        of(2, "_sum", metadata(5, 0, 0)),
        of(2, "gh_gsum", metadata(4, 0, 0)),
        of(2, "h_bucket", metadata(0, 0, 0)),
        of(2, "g_total", metadata(2, 5, 0)),
    ];
    let a = [
        [plain("a", "h_bucket"), metadata_v1(3, "h", "help", "unit")].concat(),
        plain("a", "h_count"),
        [plain("a", "h_sum"), metadata_v1(2, "h_sum", "", "")].concat(),
        [plain("a", "c_total"), metadata_v1(1, "c", "", "")].concat(),
        [plain("a", "g_total"), metadata_v1(2, "g_total", "", "")].concat(),
        [plain("a", "i_info"), metadata_v1(6, "i", "", "")].concat(),
        [plain("a", "s_sum"), metadata_v1(5, "s", "", "")].concat(),
        [plain("a", "_sum"), metadata_v1(5, "_sum", "", "")].concat(),
        [plain("a", "gh_gsum"), metadata_v1(4, "gh", "", "")].concat(),
        plain("a", "h_bucket"),
        plain("a", "g_total"),
    ];
    let b = [plain("b", "h_sum"), metadata_v1(3, "h", "help", "")];
    assert_eq!(Rules::downgrade().inflated(&request), expect(&[("a", &a), ("b", &b)]));
}

#[test]
fn metadata_alone_goes_on_and_without_a_name_is_dropped() {
    let table = symbols(&["", "t", "a", "__name__", "up"]);
    let request = [
        table,
        series(&[packed(&[1, 2, 3, 4]), metadata(2, 0, 0)]),
        series(&[packed(&[1, 2]), sample(), metadata(2, 0, 0)]),
        series(&[packed(&[1, 2]), metadata(2, 0, 0)]),
    ];
    let (scan, parts) = Rules::downgrade().split(&request);
    let a = [metadata_v1(2, "up", "", ""), series_v1(&[label_v1("t", "a"), sample()])];
    assert_eq!(parts.iter().map(inflated).collect::<Vec<_>>(), expect(&[("a", &a)]));
    assert_eq!((parts[0].series, scan.metadata_dropped, scan.lost.series), (1, 2, 1));
    // Pieces of it are one: of a number that is repeated the last counts.
    let pieces =
        [field(5, &[number(1, 1), number(3, 4)].concat()), field(5, &[number(1, 2), number(3, 0)].concat())];
    let scattered = [request[0].clone(), series(&[packed(&[1, 2, 3, 4]), pieces.concat()])];
    assert_eq!(Rules::downgrade().inflated(&scattered), expect(&[("a", &[metadata_v1(2, "up", "", "")])]));
}

#[test]
fn downgraded_parts_merge_by_replica_and_lose_their_label() {
    let rules = Rules::with(|rules| {
        rules.v2 = V2Handling::Downgrade;
        rules.tenant.label_remove = true;
        rules.ha = Some(HaLabels { cluster: (*b"x").into(), replica: (*b"t").into() });
    });
    let request = |references: &[u64]| [table(), series(&[packed(references), sample()])];
    let (_, parts) = rules.split(&request(&[1, 2, 4, 5, 1, 3]));
    let replica = HaReplica { cluster: (*b"y").into(), replica: (*b"b").into() };
    assert_eq!(parts[0].merge, MergeKey::Ha(Some(Box::new(replica))));
    let a = [series_v1(&[label_v1("x", "y"), label_v1("t", "b"), sample()])];
    assert_eq!(parts.iter().map(inflated).collect::<Vec<_>>(), expect(&[("a", &a)]));
    // The label that is taken out names none.
    assert_eq!(rules.split(&request(&[1, 2, 4, 5])).1[0].merge, MergeKey::Ha(None));
}
