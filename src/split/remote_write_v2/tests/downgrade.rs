//! Parts that are written as Remote Write 1.0.

use super::*;

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
fn a_refused_series_does_not_count_as_lost() {
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
