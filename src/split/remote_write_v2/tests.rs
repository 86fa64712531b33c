//! Hand-made Remote Write 2.0 requests, split and downgraded.

mod downgrade;
mod merge;

use crate::limits::{REQUEST_FIELDS_MAX, REQUEST_SCALARS_BYTES_MAX, REQUEST_SYMBOLS_MAX, SCRATCH_BYTES_MAX};
use crate::model::{HaLabels, HaReplica, SplitLimits, V2Handling};
use crate::tenant::{Policy, TenantRules};
use bytes::Bytes;

use crate::split::*;
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

/// A sample, whose bytes are not read.
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
            grant: &crate::tenant::Grant::Any,
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
        parts.iter().all(|part| part.merge == MergeKey::Ha(None) && part.protocol == Protocol::RemoteWriteV2)
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
        grant: &crate::tenant::Grant::Any,
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
    let request = [table(), scalar.clone(), a.clone(), other.clone(), b.clone()];
    let (scan, parts) = Rules::pass().split(&request);
    assert_eq!(scan.unknown_fields_dropped, 1);
    assert!(parts.iter().all(|part| part.merge == MergeKey::Alone));
    let merges = |request: &[Vec<u8>]| Rules::pass().split(request).1[0].merge != MergeKey::Alone;
    assert!(!merges(&[table(), a.clone(), scalar.clone()]));
    assert!(merges(&[table(), a.clone(), other.clone(), b.clone()]), "the field is in no part");
    assert!(!merges(&[table(), a.clone(), other]) && merges(&[table(), a.clone()]));
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
