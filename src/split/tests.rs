//! Hand-made requests, split.

use std::sync::Arc;

use super::*;
use crate::limits::{
    KNOWN_VALUE_BYTES_MAX, KNOWN_VALUES_MAX, REQUEST_FIELDS_MAX, REQUEST_SCALARS_BYTES_MAX,
    TENANT_EXCERPT_BYTES_MAX,
};
use crate::model::HaReplica;
use crate::tenant::map::{MapRule, Matches, Target, TenantAllow, TenantMap};
use crate::tenant::{IdFault, Policy};
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

/// A series with these labels and one sample, whose bytes are nobody's business.
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
        SplitError::Tenant { noun: "series", place: 1, error: TenantError::Invalid { fault: seen, .. }, .. } if *seen == fault
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
fn metadata_is_dropped_unless_it_is_asked_for() {
    let mut rules = Rules::with(|rules| rules.tenant.default = Some("d".into()));
    let request = [metadata("1"), series(&[("t", "a")]), metadata("2")];
    let (scan, parts) = rules.split(&request);
    assert_eq!((scan.metadata_dropped, scan.passthrough), (2, false));
    assert_eq!(all_inflated(&parts), [("a", request[1].clone())]);
    // Nothing is left, but it was no empty request.
    let (scan, _) = rules.split(&[metadata("1")]);
    assert_eq!((scan.tenants, scan.series, scan.metadata_dropped), (0, 0, 1));
    // Without a default there is nobody to have it.
    rules.tenant.default = None;
    rules.metadata = true;
    let (scan, parts) = rules.split(&request);
    assert_eq!((scan.metadata_dropped, parts.len()), (2, 1));
}

#[test]
fn metadata_goes_to_the_default_tenant() {
    let rules = Rules::with(|rules| {
        rules.metadata = true;
        rules.tenant.default = Some("d".into());
        rules.tenant.prefix = "p-".into();
    });
    let of = |tenant: &str| series(&[("t", tenant)]);
    let (scan, parts) = rules.split(&[metadata("1"), of("a"), metadata("2"), metadata("3"), of("a")]);
    let all = [metadata("1"), metadata("2"), metadata("3")].concat();
    assert_eq!(all_inflated(&parts), [("p-a", of("a").repeat(2)), ("p-d", all)]);
    assert_eq!((parts[1].series, parts[1].samples, scan.metadata_dropped), (0, 0, 0));
    let (_, parts) = rules.split(&[metadata("1"), series(&[]), of("a"), metadata("2")]);
    let with_series = [series(&[]), metadata("1"), metadata("2")].concat();
    assert_eq!(all_inflated(&parts), [("p-d", with_series), ("p-a", of("a"))]);
}

#[test]
fn metadata_for_the_only_tenant_passes_through() {
    let rules = Rules::with(|rules| {
        rules.metadata = true;
        rules.tenant.default = Some("d".into());
    });
    for request in [
        vec![metadata("1"), series(&[]), metadata("2"), series(&[("t", "d")])],
        vec![metadata("1"), metadata("2")],
    ] {
        let (scan, parts) = rules.split(&request);
        assert!(scan.passthrough);
        assert_eq!(all_inflated(&parts), [("d", request.concat())]);
    }
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

/// Rules with a map: values of one letter stand for themselves, others for their first letter; `x…` for nobody.
fn mapped() -> Rules {
    Rules::with(|rules| {
        let rule = |matches, target| MapRule { matches, target };
        let map = TenantMap::new(vec![
            rule(Matches::Prefix("x".into()), Target::Drop),
            rule(Matches::Regex("([a-z]).+".into()), Target::Tenant("$1".into())),
        ]);
        rules.tenant.map = Some(Arc::new(map.unwrap()));
    })
}

#[test]
fn values_that_stand_for_one_tenant_make_one_part() {
    let of = |tenant: &str| series(&[("t", tenant)]);
    let mut rules = mapped();
    rules.tenant.default = Some("a".into());
    rules.tenant.prefix = "p-".into();
    rules.metadata = true;
    let request = [of("a1"), of("b1"), of("a"), of("a2"), series(&[]), of("a1"), metadata("m"), of("b")];
    let (scan, parts) = rules.split(&request);
    let a = [of("a1"), of("a"), of("a2"), series(&[]), of("a1"), metadata("m")].concat();
    assert_eq!(all_inflated(&parts), [("p-a", a), ("p-b", [of("b1"), of("b")].concat())]);
    assert_eq!(parts.iter().map(|part| (part.series, part.samples)).collect::<Vec<_>>(), [(5, 5), (2, 2)]);
    assert_eq!(scan.tenants, 2);
    // It is one tenant's request, whatever the values.
    let (scan, parts) = rules.split(&[of("a1"), of("a"), of("a2")]);
    assert!(scan.passthrough);
    assert_eq!(all_inflated(&parts), [("p-a", [of("a1"), of("a"), of("a2")].concat())]);
    // Tenants are bounded, values are not.
    let values: Vec<_> = (0..100).map(|at| of(&format!("a{at}"))).collect();
    rules.limits.tenants_max = 1;
    assert_eq!(rules.split(&values).1.len(), 1);
}

#[test]
fn what_the_map_drops_is_left_out_and_no_fault() {
    let of = |tenant: &str| series(&[("t", tenant)]);
    let (scan, parts) = mapped().split(&[of("x1"), of("a"), of("x1"), of("x2")]);
    assert_eq!(all_inflated(&parts), [("a", of("a"))]);
    let refused = RefusedSeries { dropped: 3, dropped_samples: 3, ..RefusedSeries::default() };
    assert_eq!((&scan.refused, scan.series, scan.samples, scan.passthrough), (&refused, 4, 4, false));
    assert_eq!(refused.series(), 3);
    let (scan, parts) = mapped().split(&[of("x1"), of("x2")]);
    assert_eq!((scan.tenants, parts.len(), scan.refused.dropped, scan.refused.example), (0, 0, 2, None));
}

#[test]
fn who_is_not_allowed_is_refused_as_the_policy_has_it() {
    let of = |tenant: &str| series(&[("t", tenant)]);
    let mut rules = mapped();
    rules.tenant.allow = Some(Arc::new(TenantAllow::new(vec!["a".into()]).unwrap()));
    let request = [of("a1"), of("b1"), of("a"), of("b1"), of("b")];
    let error = rules.error(&request);
    assert_eq!(
        error.to_string(),
        "series 2 (no name): invalid tenant ID \"b\" (from label t): it is not among the tenants that are allowed"
    );
    assert_eq!(error.reason(), "invalid_tenant");
    rules.tenant.on_invalid = Policy::Drop;
    let (scan, parts) = rules.split(&request);
    assert_eq!(all_inflated(&parts), [("a", [of("a1"), of("a")].concat())]);
    assert_eq!((scan.refused.invalid, scan.refused.samples), (3, 3));
}

#[test]
fn more_values_than_are_remembered_are_resolved_all_the_same() {
    let mut rules = mapped();
    rules.limits.inflated_bytes_max = usize::MAX;
    let of = |at: usize| series(&[("t", &format!("{}{at}", ["a", "b", "x"][at % 3]))]);
    let long = series(&[("t", &"b".repeat(KNOWN_VALUE_BYTES_MAX + 1))]);
    let mut request: Vec<_> = (0..KNOWN_VALUES_MAX + 3000).map(of).collect();
    request.push(long.clone());
    request.extend((0..KNOWN_VALUES_MAX + 3000).rev().map(of));
    let (scan, parts) = rules.split(&request);
    let all = |which: usize| (0..KNOWN_VALUES_MAX + 3000).filter(move |at| at % 3 == which);
    let there_and_back = |which, between: &[u8]| {
        let there: Vec<u8> = all(which).flat_map(of).collect();
        let back: Vec<u8> = all(which).rev().flat_map(of).collect();
        [&there, between, &back].concat()
    };
    assert_eq!(all_inflated(&parts), [("a", there_and_back(0, &[])), ("b", there_and_back(1, &long))]);
    assert_eq!(scan.refused.dropped, 2 * all(2).count() as u64);
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

#[test]
fn metadata_goes_to_the_tenants_that_have_its_family() {
    let about = |family: &str| metadata_of(family);
    let rules = Rules::with(|rules| rules.families = Some(Families::default()));
    let of = |tenant: &str, name: &str| series(&[("__name__", name), ("t", tenant)]);
    let series =
        [of("a", "latency_bucket"), of("b", "latency_sum"), of("b", "requests_total"), of("a", "up")];
    rules.split(&series);
    let entries = ["latency", "requests", "up", "nobodys"].map(about);
    let (scan, parts) = rules.split(&entries);
    assert_eq!((scan.series, scan.metadata_dropped, scan.passthrough), (0, 1, false));
    let mut found: Vec<_> = parts.iter().map(inflated).collect();
    found.sort();
    assert_eq!(
        found,
        [
            ("a", [about("latency"), about("up")].concat()),
            ("b", [about("latency"), about("requests")].concat())
        ]
    );
    // What nobody has goes to the default tenant, if there is one; and one tenant's request passes as it is.
    let rules = Rules { tenant: TenantRules { default: Some("d".into()), ..rules.tenant }, ..rules };
    let (scan, parts) = rules.split(&[about("nobodys")]);
    assert_eq!((scan.metadata_dropped, scan.passthrough, inflated(&parts[0]).0), (0, true, "d"));
    let (scan, parts) = rules.split(&[about("up"), of("a", "up")]);
    assert_eq!((scan.passthrough, inflated(&parts[0])), (true, ("a", [about("up"), of("a", "up")].concat())));
}

/// Metadata of a family, with a help text.
fn metadata_of(family: &str) -> Vec<u8> {
    field(3, &[vec![1 << 3, 1], field(2, family.as_bytes()), field(4, b"help")].concat())
}
