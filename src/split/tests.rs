//! Hand-made requests, split.

mod metadata;
mod tenant_map;

use super::*;
use crate::limits::{
    REQUEST_FIELDS_MAX, REQUEST_SCALARS_BYTES_MAX, SCRATCH_BYTES_MAX, TENANT_EXCERPT_BYTES_MAX,
};
use crate::model::{HaLabels, HaReplica, RefusedSeries, SplitLimits, V2Handling};
use crate::tenant::{IdFault, Policy, TenantError, TenantRules};
use crate::wire::varint;

/// A length-delimited field of a number below 16.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint::put(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

fn label(name: &str, value: &str) -> Vec<u8> {
    field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

/// A series with these labels and one sample, whose bytes are not read.
fn series(labels: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes: Vec<u8> = labels.iter().flat_map(|(name, value)| label(name, value)).collect();
    bytes.extend_from_slice(&field(2, b"sample"));
    field(1, &bytes)
}

fn metadata(text: &str) -> Vec<u8> {
    field(3, text.as_bytes())
}

/// A field for the request as a whole: Cortex' `source`, with value 7.
const SCALAR: [u8; 2] = [2 << 3, 7];

fn block(request: &[u8]) -> Bytes {
    snap::raw::Encoder::new().compress_vec(request).unwrap().into()
}

/// Rules under test, with the tenant in label `t`.
struct Rules {
    tenant: TenantRules,
    metadata: bool,
    families: Option<Families>,
    ha: Option<HaLabels>,
    limits: SplitLimits,
    source: Option<&'static str>,
}

impl Default for Rules {
    fn default() -> Self {
        let tenant = TenantRules::of_label(b"t");
        let limits = SplitLimits { inflated_bytes_max: 1 << 20, tenants_max: 3 };
        Self { tenant, metadata: false, families: None, ha: None, limits, source: None }
    }
}

impl Rules {
    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut rules = Self::default();
        change(&mut rules);
        rules
    }

    fn scan(&self, splitter: &mut Splitter, request: &[Vec<u8>]) -> Result<Scan, SplitError> {
        splitter.scan(Body::snappy_v1(block(&request.concat())), &self.split_rules(), self.source)
    }

    fn split_rules(&self) -> SplitRules<'_> {
        let Self { tenant, metadata, ha, limits, .. } = self;
        let metadata = match &self.families {
            Some(families) => Metadata::Route(families),
            None if *metadata => Metadata::ToDefault,
            None => Metadata::Drop,
        };
        SplitRules {
            tenant,
            grant: &crate::tenant::Grant::Any,
            metadata,
            ha: ha.as_ref(),
            loki_label_remove: false,
            remote_write_v2: V2Handling::Pass,
            limits: *limits,
        }
    }

    fn split(&self, request: &[Vec<u8>]) -> (Scan, Vec<Part>) {
        let mut splitter = Splitter::new();
        let scan = self.scan(&mut splitter, request).unwrap();
        let parts: Vec<Part> = std::iter::from_fn(|| splitter.next_part()).collect();
        assert_eq!(parts.len(), scan.tenants);
        assert_eq!(splitter.next_part(), None);
        (scan, parts)
    }

    fn error(&self, request: &[Vec<u8>]) -> SplitError {
        let mut splitter = Splitter::new();
        let error = self.scan(&mut splitter, request).unwrap_err();
        assert_eq!(splitter.next_part(), None);
        error
    }
}

/// What a part inflates to, and whose it is.
fn inflated(part: &Part) -> (&str, Vec<u8>) {
    let mut block = Vec::new();
    varint::put(&mut block, u64::from(part.inflated_bytes));
    block.extend_from_slice(&part.elements);
    (part.tenant.as_str(), snap::raw::Decoder::new().decompress_vec(&block).unwrap())
}

fn all_inflated(parts: &[Part]) -> Vec<(&str, Vec<u8>)> {
    parts.iter().map(inflated).collect()
}

#[test]
fn each_tenant_gets_its_series_in_their_order() {
    let of = |tenant: &str, name: &str| series(&[("__name__", name), ("t", tenant)]);
    let request = [of("b", "1"), of("a", "2"), of("b", "3"), of("b", "4"), of("a", "5")];
    let (scan, parts) = Rules::default().split(&request);
    let [b1, a2, b3, b4, a5] = request.clone();
    assert_eq!(all_inflated(&parts), [("b", [b1, b3, b4].concat()), ("a", [a2, a5].concat())]);
    let counts: Vec<_> = parts.iter().map(|part| (part.series, part.samples)).collect();
    assert_eq!(counts, [(3, 3), (2, 2)]);
    let inflated_bytes = request.concat().len();
    assert_eq!(scan, Scan { tenants: 2, series: 5, samples: 5, inflated_bytes, ..Scan::default() });
    assert!(parts.iter().all(|part| part.merge == MergeKey::Ha(None)));
}

#[test]
fn one_tenants_request_goes_on_as_the_same_bytes() {
    let request = [series(&[("t", "a")]), series(&[("x", "y"), ("t", "a")])].concat();
    let block = block(&request);
    let Rules { tenant, limits, .. } = Rules::default();
    let rules = SplitRules::new(&tenant, limits);
    let mut splitter = Splitter::new();
    assert!(splitter.scan(Body::snappy_v1(block.clone()), &rules, None).unwrap().passthrough);
    let part = splitter.next_part().unwrap();
    assert_eq!((part.inflated_bytes as usize, part.series), (request.len(), 2));
    // Not a copy: the very memory that came in, behind the length.
    assert_eq!(part.elements.as_ptr(), block[1..].as_ptr());
    assert_eq!(part.elements, block[1..]);
    assert_eq!(splitter.next_part(), None);
}

#[test]
fn the_tenant_label_can_be_taken_out() {
    let rules = Rules::with(|rules| rules.tenant.label_remove = true);
    let request = [
        series(&[("a", "1"), ("t", "x"), ("b", "2"), ("t", "y")]),
        series(&[("t", "x")]),
        series(&[("a", &"long".repeat(50)), ("t", "x"), ("z", "")]),
    ];
    let (scan, parts) = rules.split(&request);
    assert!(!scan.passthrough);
    let expected = [
        series(&[("a", "1"), ("b", "2"), ("t", "y")]),
        series(&[]),
        series(&[("a", &"long".repeat(50)), ("z", "")]),
    ];
    assert_eq!(all_inflated(&parts), [("x", expected.concat())]);
}

#[test]
fn a_series_of_the_default_tenant_keeps_its_labels() {
    let rules = Rules::with(|rules| {
        rules.tenant.label_remove = true;
        rules.tenant.default = Some("d".into());
    });
    // Values that resolve to the same tenant make one part.
    let request = [series(&[("a", "1")]), series(&[("t", "")]), series(&[("t", "d")])];
    let (scan, parts) = rules.split(&request);
    let expected = [request[0].clone(), request[1].clone(), series(&[])];
    assert_eq!(all_inflated(&parts), [("d", expected.concat())]);
    assert!(!scan.passthrough);
    assert!(rules.split(&request[..2]).0.passthrough);
}

#[test]
fn prefixes_are_part_of_the_tenant_and_not_of_the_series() {
    let mut rules = Rules::with(|rules| {
        rules.tenant.prefix = "eu-".into();
        rules.tenant.prefix_prefer_source = true;
        rules.tenant.default = Some("d".into());
    });
    let request = [series(&[("t", "a")]), series(&[]), series(&[("t", "eu-a")])];
    let tenants = |rules: &Rules| -> Vec<String> {
        rules.split(&request).1.iter().map(|part| part.tenant.to_string()).collect()
    };
    assert_eq!(tenants(&rules), ["eu-a", "eu-d", "eu-eu-a"]);
    rules.source = Some("org");
    assert_eq!(tenants(&rules), ["org-a", "org-d", "org-eu-a"]);
}

#[test]
fn rejects_the_whole_request_by_default() {
    let bad = [series(&[("t", "a")]), series(&[("__name__", "up\n"), ("t", "")])];
    assert_eq!(
        Rules::default().error(&bad).to_string(),
        "series 2 (up\\n): no tenant: it has no value in label t, and no default tenant is set"
    );
    let bad = [series(&[("t", "a b")]), series(&[("t", "a")])];
    let error = Rules::default().error(&bad);
    let fault = IdFault::Character(b' ');
    assert!(matches!(
        &error,
        SplitError::Tenant { noun: "series", place: 1, error: TenantError::Invalid { fault: seen, .. }, .. }
            if *seen == fault
    ));
    assert_eq!(
        error.to_string(),
        "series 1 (no name): invalid tenant ID \"a b\" (from label t): it contains ' ', which is not allowed"
    );
    let long = series(&[("__name__", &"n".repeat(5000)), ("t", "/")]);
    let text = Rules::default().error(&[long]).to_string();
    assert!(text.contains(&format!("({}…)", "n".repeat(TENANT_EXCERPT_BYTES_MAX))), "{text}");
}

#[test]
fn can_drop_bad_series_and_count_them() {
    let rules = Rules::with(|rules| {
        rules.tenant.on_missing = Policy::Drop;
        rules.tenant.on_invalid = Policy::Drop;
    });
    let good = series(&[("t", "a"), ("n", "1")]);
    let request = [series(&[]), good.clone(), series(&[("t", "/")]), good.clone(), series(&[("t", "/")])];
    let (scan, parts) = rules.split(&request);
    assert_eq!(all_inflated(&parts), [("a", [good.clone(), good].concat())]);
    let RefusedSeries { missing, invalid, samples, example, .. } = &scan.refused;
    assert_eq!((*missing, *invalid, *samples, scan.refused.series()), (1, 2, 3, 3));
    assert!(example.as_ref().unwrap().starts_with("series 1 (no name): no tenant"), "{example:?}");
    // One tenant is left, but not all of the bytes may go on.
    assert_eq!((scan.series, scan.samples, scan.passthrough), (5, 5, false));
    let (scan, parts) = rules.split(&[series(&[])]);
    assert_eq!((scan.tenants, scan.refused.missing, parts.len()), (0, 1, 0));
}

#[test]
fn each_policy_is_for_its_own_fault() {
    let (missing, invalid) = ([series(&[])], [series(&[("t", "/")])]);
    let rules = Rules::with(|rules| rules.tenant.on_missing = Policy::Drop);
    assert_eq!(rules.split(&missing).0.refused.missing, 1);
    assert_eq!(rules.error(&invalid).reason(), "invalid_tenant");
    let rules = Rules::with(|rules| rules.tenant.on_invalid = Policy::Drop);
    assert_eq!(rules.split(&invalid).0.refused.invalid, 1);
    assert_eq!(rules.error(&missing).reason(), "missing_tenant");
}

#[test]
fn unknown_numbers_go_to_all_and_keep_parts_alone() {
    let (a, b) = (series(&[("t", "a")]), series(&[("t", "b")]));
    let (scan, parts) = Rules::default().split(&[a.clone(), SCALAR.to_vec(), b.clone()]);
    assert_eq!(all_inflated(&parts), [("a", [&SCALAR, &a[..]].concat()), ("b", [&SCALAR, &b[..]].concat())]);
    assert!(parts.iter().all(|part| part.merge == MergeKey::Alone));
    assert_eq!(scan.unknown_fields_dropped, 0);
    let (scan, parts) = Rules::default().split(&[a.clone(), SCALAR.to_vec()]);
    assert!(scan.passthrough);
    assert_eq!(parts[0].merge, MergeKey::Alone);
    // More of them than may be multiplied go on only when nothing is.
    let many = SCALAR.repeat(REQUEST_SCALARS_BYTES_MAX / 2 + 1);
    assert!(Rules::default().split(&[a.clone(), many.clone()]).0.passthrough);
    assert_eq!(Rules::default().error(&[a, many, b]).reason(), "too_many_fields");
}

#[test]
fn unknown_bytes_belong_to_no_tenant() {
    let (a, b) = (series(&[("t", "a")]), series(&[("t", "b")]));
    let unknown = [field(4, b"symbol"), vec![5 << 3 | 3, 5 << 3 | 4]].concat();
    let (scan, parts) = Rules::default().split(&[a.clone(), unknown.clone(), b.clone()]);
    assert_eq!(all_inflated(&parts), [("a", a.clone()), ("b", b)]);
    assert_eq!(scan.unknown_fields_dropped, 2);
    assert!(parts.iter().all(|part| part.merge == MergeKey::Ha(None)));
    let (scan, parts) = Rules::default().split(&[a.clone(), unknown.clone()]);
    assert_eq!((scan.passthrough, scan.unknown_fields_dropped), (true, 0));
    assert_eq!(all_inflated(&parts), [("a", [a, unknown].concat())]);
    assert_eq!(parts[0].merge, MergeKey::Alone);
}

#[test]
fn replicas_are_told_apart_by_the_first_series() {
    let rules = Rules::with(|rules| {
        rules.ha = Some(HaLabels { cluster: (*b"c").into(), replica: (*b"r").into() });
    });
    let key = |labels: &[(&str, &str)]| {
        let labels = [labels, &[("t", "a")]].concat();
        rules.split(&[series(&labels), series(&[("t", "a"), ("c", "?"), ("r", "?")])]).1[0].merge.clone()
    };
    let replica = |cluster: &[u8], replica: &[u8]| {
        MergeKey::Ha(Some(Box::new(HaReplica { cluster: cluster.into(), replica: replica.into() })))
    };
    assert_eq!(key(&[("c", "1"), ("r", "2")]), replica(b"1", b"2"));
    assert_eq!(key(&[("r", "2"), ("x", "y"), ("c", "0"), ("c", "1")]), replica(b"1", b"2"));
    assert_eq!(key(&[]), MergeKey::Ha(None));
    assert_eq!(key(&[("c", "1")]), MergeKey::Ha(None));
    assert_eq!(key(&[("c", ""), ("r", "2")]), MergeKey::Ha(None));
    // Each tenant's own first series, also when the request passes through.
    let request =
        [series(&[("t", "a")]), series(&[("t", "b"), ("c", "1"), ("r", "2")]), series(&[("t", "b")])];
    let keys: Vec<_> = rules.split(&request).1.into_iter().map(|part| part.merge).collect();
    assert_eq!(keys, [MergeKey::Ha(None), replica(b"1", b"2")]);
    assert_eq!(rules.split(&request[1..]).1[0].merge, replica(b"1", b"2"));
    let plain = Rules::default().split(&request).1;
    assert!(plain.iter().all(|part| part.merge == MergeKey::Ha(None)));
}

#[test]
fn a_label_that_is_taken_out_names_no_replica() {
    let rules = Rules::with(|rules| {
        rules.tenant.label_remove = true;
        rules.ha = Some(HaLabels { cluster: (*b"t").into(), replica: (*b"r").into() });
    });
    let key = |labels: &[(&str, &str)]| rules.split(&[series(labels)]).1[0].merge.clone();
    assert_eq!(key(&[("t", "a"), ("r", "1")]), MergeKey::Ha(None));
    let HaReplica { cluster, .. } = match key(&[("t", "a"), ("r", "1"), ("t", "b")]) {
        MergeKey::Ha(Some(replica)) => *replica,
        key => panic!("{key:?}"),
    };
    assert_eq!(*cluster, *b"b");
}

#[test]
fn alone_merges_with_nothing() {
    let replica = MergeKey::Ha(Some(Box::new(HaReplica { cluster: [1].into(), replica: [2].into() })));
    assert!(MergeKey::Ha(None).merges_with(&MergeKey::Ha(None)));
    assert!(replica.merges_with(&replica.clone()));
    assert!(!replica.merges_with(&MergeKey::Ha(None)));
    assert!(!MergeKey::Alone.merges_with(&MergeKey::Alone));
    assert!(!MergeKey::Alone.merges_with(&MergeKey::Ha(None)));
}

#[test]
fn refuses_empty_broken_and_boundless_requests() {
    let rules = Rules::default();
    assert_eq!(rules.error(&[]).to_string(), "no timeseries found in the request");
    assert_eq!(rules.error(&[SCALAR.to_vec(), field(4, b"symbol")]), SplitError::Empty);
    assert_eq!(rules.error(&[series(&[("t", "a")]), vec![0x0a, 9]]).reason(), "bad_protobuf");
    let broken = rules.error(&[series(&[("t", "a")]), field(1, &[0x0a, 3, 0x0a, 9, b't'])]);
    let at_byte = series(&[("t", "a")]).len();
    assert!(matches!(broken, SplitError::Malformed(malformed) if malformed.at_byte == at_byte));
    assert_eq!(rules.error(&[vec![b'x'; (1 << 20) + 1]]).reason(), "too_large");
    let mut splitter = Splitter::new();
    let Rules { tenant, limits, .. } = rules;
    let rules = SplitRules::new(&tenant, limits);
    let not_snappy =
        splitter.scan(Body::snappy_v1(Bytes::from_static(b"\x05\xff")), &rules, None).unwrap_err();
    assert_eq!(not_snappy.reason(), "bad_compression");
}

#[test]
fn tenants_and_fields_have_a_bound() {
    let of = |tenant: usize| series(&[("t", &tenant.to_string())]);
    let mut rules = Rules::with(|rules| rules.tenant.default = Some("d".into()));
    assert_eq!(rules.split(&[of(1), of(2), of(3), of(1), of(2)]).1.len(), 3);
    let four = [of(1), of(2), of(3), of(4)];
    assert_eq!(rules.error(&four), SplitError::TooManyTenants { tenants_max: 3 });
    rules.metadata = true;
    let with_metadata = [of(1), of(2), of(3), metadata("")];
    assert_eq!(rules.error(&with_metadata), SplitError::TooManyTenants { tenants_max: 3 });
    rules.limits.inflated_bytes_max = usize::MAX;
    let most = vec![field(1, &[]); REQUEST_FIELDS_MAX];
    assert_eq!(rules.split(&most).0.series, REQUEST_FIELDS_MAX as u64);
    let one_more = [most.concat(), metadata("")];
    assert_eq!(rules.error(&one_more), SplitError::TooManyFields { fields_max: REQUEST_FIELDS_MAX });
}

#[test]
fn many_tenants_each_get_their_own() {
    // More than are remembered, of many lengths: all have to be found again.
    let rules = Rules::with(|rules| {
        rules.limits = SplitLimits { inflated_bytes_max: 64 << 20, tenants_max: 1000 };
    });
    let of = |tenant: usize| series(&[("t", &format!("{}{tenant}", "x".repeat(tenant % 40)))]);
    let request: Vec<_> = (0..3000).map(|at| of(at * 7 % 1000)).collect();
    let (scan, parts) = rules.split(&request);
    assert_eq!((scan.tenants, scan.series), (1000, 3000));
    for (at, part) in parts.iter().enumerate() {
        assert_eq!(inflated(part).1, of(at * 7 % 1000).repeat(3));
    }
}

#[test]
fn a_splitter_forgets_the_request_before() {
    let mut splitter = Splitter::new();
    let rules = Rules::with(|rules| {
        rules.metadata = true;
        rules.tenant.default = Some("d".into());
    });
    let of = |tenant: &str| series(&[("t", tenant)]);
    let first = [of("a"), of("b"), metadata("1"), SCALAR.to_vec(), field(4, b"?")];
    rules.scan(&mut splitter, &first).unwrap();
    assert_eq!(inflated(&splitter.next_part().unwrap()), ("a", [&SCALAR, &of("a")[..]].concat()));
    // Two parts are left, and never taken.
    rules.scan(&mut splitter, &[of("c"), of("d"), of("c")]).unwrap();
    let parts: Vec<_> = std::iter::from_fn(|| splitter.next_part()).collect();
    assert_eq!(all_inflated(&parts), [("c", of("c").repeat(2)), ("d", of("d"))]);
    assert!(parts.iter().all(|part| part.merge == MergeKey::Ha(None)));
    rules.scan(&mut splitter, &first).unwrap();
    rules.scan(&mut splitter, &[of("a"), vec![0x0a]]).unwrap_err();
    assert_eq!(splitter.next_part(), None);
}

#[test]
fn holds_no_request_and_little_memory_after_the_last_part() {
    let mut splitter = Splitter::new();
    let mut rules = Rules::default();
    rules.limits.inflated_bytes_max = usize::MAX;
    let block = block(&series(&[("t", "a")]));
    let split_rules = SplitRules::new(&rules.tenant, rules.limits);
    splitter.scan(Body::snappy_v1(block.clone()), &split_rules, None).unwrap();
    drop(splitter.next_part());
    assert!(block.is_unique());
    let large: Vec<_> = (0..400_000).map(|at| series(&[("t", ["a", "b"][at % 2])])).collect();
    rules.scan(&mut splitter, &large).unwrap();
    while splitter.next_part().is_some() {}
    assert_eq!(splitter.request.bytes(), b"");
    let Splitter { v1: series, tenants, gathered, .. } = &splitter;
    assert_eq!((series.scratch_bytes(), gathered.capacity()), (0, 0));
    assert!(tenants.scratch_bytes() <= SCRATCH_BYTES_MAX);
}

#[test]
fn a_body_that_is_no_snappy_block_is_deflated_anew_even_for_one_tenant() {
    let rules = Rules::default();
    let request =
        [series(&[("__name__", "up"), ("t", "a")]), series(&[("__name__", "down"), ("t", "a")])].concat();
    let zstd = zstd::bulk::compress(&request, 1).unwrap();
    for (compression, bytes) in [(Compression::Zstd, zstd), (Compression::Identity, request.clone())] {
        let mut splitter = Splitter::new();
        let body = Body { protocol: Protocol::RemoteWriteV1, compression, bytes: bytes.into() };
        let split_rules = rules.split_rules();
        let scan = splitter.scan(body, &split_rules, None).unwrap();
        assert_eq!((scan.passthrough, scan.tenants, scan.series), (false, 1, 2));
        assert_eq!(inflated(&splitter.next_part().unwrap()), ("a", request.clone()));
        assert_eq!(splitter.next_part(), None);
    }
}
