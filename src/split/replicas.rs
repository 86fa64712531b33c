//! Which replica of a highly available sender the series of a part are of: for parts that are read again before they
//! are sent.
//!
//! A part's [`MergeKey`] is about its first series, which is all that an upstream looks at. Whether two parts have a
//! series in common is another question. If *all* series of either name one replica, and another one than those of the
//! other part, they have none.
//!
//! A large part in Remote Write 2.0 has no key, as merging it does not pay while it is on its way. Nor has a large one
//! of OTLP in gzip or zstd, or any in JSON. Here they get one. What is in JSON gets it only if it is an object with
//! nothing but its list. A part in the spool may be damaged, so it is checked once more to be JSON: others would be
//! refused with it.
#![forbid(unsafe_code)]

use super::coder::inflate_into;
use super::downgrade;
use super::remote_write_v2::merge::{inflate, read_symbols};
use crate::limits::TURN_BYTES_MAX;
use crate::model::{HaLabels, MergeKey, Notation, Part, Protocol, Signal};
use crate::wire::otlp::json::{check, find_list};
use crate::wire::otlp::{Level, Member, Members};
use crate::wire::snappy::Inflater;
use crate::wire::{inflate as codings, remote_write_v1, remote_write_v2};

/// The replica that a part is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfReplica {
    /// Decides which parts it may share a request with.
    pub key: MergeKey,
    /// Whether all of its series are known to name the replica of the key, or none.
    pub is_whole: bool,
}

impl OfReplica {
    /// What a part says of itself.
    pub fn by_key(part: &Part) -> Self {
        Self { key: part.merge.clone(), is_whole: false }
    }

    /// Whether the parts have no series in common, for certain.
    pub fn is_apart_from(&self, other: &Self) -> bool {
        self.is_whole && other.is_whole && self.key != other.key
    }
}

/// Reads parts, and keeps its scratch buffers from one to the next.
#[derive(Debug)]
pub struct ReplicaReader<'a> {
    labels: Option<&'a HaLabels>,
    inflater: Inflater,
    /// For parts in OTLP.
    exports: codings::Inflater,
    block: Vec<u8>,
    symbols: remote_write_v2::Symbols,
}

impl<'a> ReplicaReader<'a> {
    /// Looks at these labels. With none, no series names a replica.
    pub fn new(labels: Option<&'a HaLabels>) -> Self {
        let (inflater, exports) = Default::default();
        Self { labels, inflater, exports, block: Vec::new(), symbols: Default::default() }
    }

    /// Whether a part that has no key may get one, if it is read.
    pub fn may_give_key(part: &Part) -> bool {
        part.merge == MergeKey::Alone
            && match part.protocol {
                Protocol::RemoteWriteV2 => true,
                // A larger one shares no request in any case, and is not worth the work.
                Protocol::Otlp(_) | Protocol::OtlpJson(_) => part.inflated_bytes as usize <= TURN_BYTES_MAX,
                _ => false,
            }
    }

    /// Whether [`Self::read`] looks into a part.
    pub fn looks_into(part: &Part) -> bool {
        match part.protocol {
            Protocol::RemoteWriteV1 | Protocol::RemoteWriteV2 => true,
            Protocol::Otlp(_) | Protocol::OtlpJson(_) => Self::may_give_key(part),
            Protocol::Loki | Protocol::LokiJson => false,
        }
    }

    /// Reads a part, which must come from a [`Splitter`](super::Splitter). If it [looks into](Self::looks_into) it, it
    /// costs what inflating and scanning it costs.
    pub fn read(&mut self, part: &Part) -> OfReplica {
        let read = match part.protocol {
            Protocol::RemoteWriteV1 => self.read_v1(part),
            Protocol::RemoteWriteV2 => self.read_v2(part),
            Protocol::Otlp(signal) => self.read_export(part, signal, Notation::Protobuf),
            Protocol::OtlpJson(signal) => self.read_export(part, signal, Notation::Json),
            Protocol::Loki | Protocol::LokiJson => None,
        };
        read.unwrap_or_else(|| OfReplica::by_key(part))
    }

    /// `None` if it has something besides series.
    fn read_v1(&mut self, part: &Part) -> Option<OfReplica> {
        use remote_write_v1::{Field, Fields, Labels};
        let request = inflate(part, &mut self.inflater, &mut self.block)?;
        let (mut fields, mut pairs) = (Fields::new(request), Pairs::default());
        while let Some(field) = fields.take().ok()? {
            let Field::Series(series) = field else { return None };
            pairs.add(self.labels.map_or(NO_PAIR, |names| {
                let labels = Labels::about(series, [&names.cluster, &names.replica]);
                pair(labels.map(|label| (label.name, label.value)), names)
            }));
        }
        Some(OfReplica { key: part.merge.clone(), is_whole: pairs.is_whole(&part.merge) })
    }

    /// `None` if it has a field of the request as a whole.
    fn read_v2(&mut self, part: &Part) -> Option<OfReplica> {
        use remote_write_v2::{Field, Fields};
        let request = inflate(part, &mut self.inflater, &mut self.block)?;
        read_symbols(request, &mut self.symbols)?;
        let (mut fields, mut pairs) = (Fields::new(request), Pairs::default());
        while let Some(field) = fields.take().ok()? {
            match field {
                Field::Symbol(_) => {}
                Field::Series(series) => pairs.add(self.labels.map_or(NO_PAIR, |names| {
                    pair(downgrade::labels(request, &self.symbols, series, None), names)
                })),
                Field::Scalar | Field::Other => return None,
            }
        }
        let key = match &part.merge {
            MergeKey::Alone => pairs.key()?,
            key => key.clone(),
        };
        Some(OfReplica { is_whole: pairs.is_whole(&key), key })
    }

    /// Resources put behind others make one export. `None` if it has a field of the export as a whole. Nobody takes its
    /// items for those of a replica, but what its series are is not known, so it passes no others.
    fn read_export(&mut self, part: &Part, signal: Signal, notation: Notation) -> Option<OfReplica> {
        if !Self::looks_into(part) {
            return None;
        }
        let export = inflate_into(&mut self.exports, part)?;
        let holds_only_resources = match notation {
            Notation::Protobuf => holds_only_resources(signal, export),
            Notation::Json => check(export).is_ok() && find_list(signal, export).is_some(),
        };
        holds_only_resources.then_some(OfReplica { key: MergeKey::Ha(None), is_whole: false })
    }
}

/// Whether an export in protobuf is well-formed, and has no field of its own.
fn holds_only_resources(signal: Signal, export: &[u8]) -> bool {
    let mut members = Members::new(Notation::Protobuf, signal, Level::Export, export);
    loop {
        match members.take() {
            Ok(Some((Member::Child(..), _))) => {}
            Ok(None) => return true,
            Ok(Some(_)) | Err(_) => return false,
        }
    }
}

/// The values of the labels that name a replica; both are empty if it names none.
type Pair<'a> = (&'a [u8], &'a [u8]);

const NO_PAIR: Pair<'_> = (&[], &[]);

/// The replica that these labels of a series name. As in the upstreams, the last of several labels with the same name
/// counts, and a pair that lacks one half is none.
pub(super) fn pair<'a>(labels: impl Iterator<Item = (&'a [u8], &'a [u8])>, names: &HaLabels) -> Pair<'a> {
    let (mut cluster, mut replica): Pair<'_> = NO_PAIR;
    for (name, value) in labels {
        if *name == *names.cluster {
            cluster = value;
        }
        if *name == *names.replica {
            replica = value;
        }
    }
    if cluster.is_empty() || replica.is_empty() { NO_PAIR } else { (cluster, replica) }
}

/// The pairs of a part's series.
#[derive(Default)]
struct Pairs<'a> {
    first: Option<Pair<'a>>,
    differ: bool,
}

impl<'a> Pairs<'a> {
    fn add(&mut self, pair: Pair<'a>) {
        let first = *self.first.get_or_insert(pair);
        self.differ |= first != pair;
    }

    fn key(&self) -> Option<MergeKey> {
        self.first.map(|(cluster, replica)| MergeKey::replica(cluster, replica))
    }

    fn is_whole(&self, key: &MergeKey) -> bool {
        !self.differ && self.key().as_ref() == Some(key)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use testkit::proto::{TimeSeries, WriteRequest};
    use testkit::proto_v2;

    use super::*;
    use crate::limits::MERGED_PART_BYTES_MAX;
    use crate::tenant::{IdRules, TenantId};
    use crate::wire::snappy::Deflater;

    fn names() -> HaLabels {
        HaLabels { cluster: (*b"cluster").into(), replica: (*b"__replica__").into() }
    }

    fn part(protocol: Protocol, request: &[u8], merge: MergeKey) -> Part {
        Part {
            tenant: TenantId::new("a", IdRules::Mimir).unwrap(),
            protocol,
            elements: Deflater::default().elements(request),
            coding: crate::model::Coding::SNAPPY,
            inflated_bytes: u32::try_from(request.len()).unwrap(),
            series: 1,
            samples: 1,
            histograms: 0,
            exemplars: 0,
            merge,
        }
    }

    /// The labels of a series of this replica; of none if that is empty.
    fn labels(replica: &str) -> Vec<(&str, &str)> {
        let mut labels = vec![("__name__", "up"), ("cluster", "c")];
        labels.extend((!replica.is_empty()).then_some(("__replica__", replica)));
        labels
    }

    fn v1(replicas: &[&str], merge: MergeKey) -> Part {
        let timeseries =
            replicas.iter().map(|replica| TimeSeries::new(&labels(replica), &[(1, 1.0)])).collect();
        let request = WriteRequest { timeseries, ..WriteRequest::default() };
        part(Protocol::RemoteWriteV1, &request.encode_to_vec(), merge)
    }

    fn request_v2(replicas: &[&str]) -> Vec<u8> {
        let mut table = proto_v2::SymbolTable::default();
        let timeseries = replicas.iter().map(|replica| {
            let labels = labels(replica);
            let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
            proto_v2::TimeSeries { labels_refs: table.references(labels), ..Default::default() }
        });
        let timeseries = timeseries.collect();
        proto_v2::Request { symbols: table.into_symbols(), timeseries }.encode_to_vec()
    }

    fn v2(replicas: &[&str], merge: MergeKey) -> Part {
        part(Protocol::RemoteWriteV2, &request_v2(replicas), merge)
    }

    fn key(replica: &str) -> MergeKey {
        MergeKey::replica(b"c", replica.as_bytes())
    }

    #[test]
    fn a_part_is_whole_if_all_of_its_series_name_the_replica_of_its_key() {
        let names = names();
        let mut reader = ReplicaReader::new(Some(&names));
        for (replicas, of, is_whole) in [
            (&["r0", "r0"][..], "r0", true),
            (&["r0", "r1"], "r0", false),
            (&["r0", ""], "r0", false),
            (&["", "r0"], "", false),
            (&["", ""], "", true),
            // The setting has changed since.
            (&["r0"], "r1", false),
        ] {
            let expected = OfReplica { key: key(of), is_whole };
            assert_eq!(reader.read(&v1(replicas, key(of))), expected, "{replicas:?}");
            assert_eq!(reader.read(&v2(replicas, key(of))), expected, "{replicas:?}");
        }
        let [zero, one, none] = ["r0", "r1", ""].map(|of| reader.read(&v2(&[of], key(of))));
        assert!(zero.is_apart_from(&one) && one.is_apart_from(&none) && !zero.is_apart_from(&zero));
        let mixed = reader.read(&v1(&["r1", "r0"], key("r1")));
        assert!(!zero.is_apart_from(&mixed) && !mixed.is_apart_from(&zero));
    }

    #[test]
    fn a_part_in_2_0_without_a_key_gets_that_of_its_first_series_unless_it_has_other_fields() {
        let names = names();
        let mut reader = ReplicaReader::new(Some(&names));
        assert_eq!(reader.read(&v2(&["r0", "r1"], MergeKey::Alone)).key, key("r0"));
        let long = "r".repeat(2 * MERGED_PART_BYTES_MAX);
        assert_eq!(
            reader.read(&v2(&[&long], MergeKey::Alone)),
            OfReplica { key: key(&long), is_whole: true }
        );
        let with_scalar = [&request_v2(&["r0"])[..], &[9 << 3, 7]].concat();
        let with_scalar = part(Protocol::RemoteWriteV2, &with_scalar, MergeKey::Alone);
        assert_eq!(reader.read(&with_scalar), OfReplica { key: MergeKey::Alone, is_whole: false });
        // One in 1.0 without a key has such fields, too, and keeps to itself.
        assert_eq!(reader.read(&v1(&["r0"], MergeKey::Alone)).key, MergeKey::Alone);
        let mut without = ReplicaReader::new(None);
        let expected = OfReplica { key: MergeKey::Ha(None), is_whole: true };
        assert_eq!(without.read(&v2(&["r0", "r1"], MergeKey::Alone)), expected);
    }

    #[test]
    fn an_export_without_a_key_gets_one_unless_it_has_other_fields_or_is_large() {
        let mut reader = ReplicaReader::new(None);
        let resource = [0x0a, 3, 0x12, 1, 0];
        let of = |bytes: &[u8]| part(Protocol::Otlp(Signal::Logs), bytes, MergeKey::Alone);
        let merges = OfReplica { key: MergeKey::Ha(None), is_whole: false };
        for bytes in [&resource[..], &resource.repeat(2), b""] {
            assert_eq!(reader.read(&of(bytes)), merges);
        }
        let gzip = flate2::read::GzEncoder::new(&resource[..], flate2::Compression::fast());
        let elements: Vec<u8> = std::io::Read::bytes(gzip).map(Result::unwrap).collect();
        let coding = crate::model::Coding::of(crate::model::Compression::Gzip);
        let gzip = Part { elements: elements.into(), coding, ..of(&resource) };
        assert_eq!(reader.read(&gzip), merges);
        let alone = OfReplica { key: MergeKey::Alone, is_whole: false };
        for field in [&[9 << 3, 7][..], &[9 << 3 | 2, 0]] {
            assert_eq!(reader.read(&of(&[&resource[..], field].concat())), alone);
        }
        assert_eq!(reader.read(&Part { inflated_bytes: 1, ..gzip.clone() }), alone, "damaged");
        let large = Part { inflated_bytes: u32::MAX, ..gzip };
        assert_eq!(reader.read(&large), alone);
        assert!(!ReplicaReader::may_give_key(&large) && !ReplicaReader::looks_into(&large));
    }

    #[test]
    fn an_export_in_json_gets_a_key_if_its_list_is_all_that_it_has() {
        let mut reader = ReplicaReader::new(None);
        let of = |text: &[u8]| part(Protocol::OtlpJson(Signal::Logs), text, MergeKey::Alone);
        let merges = OfReplica { key: MergeKey::Ha(None), is_whole: false };
        for text in [r#"{"resourceLogs":[{}, {}]}"#, " { \"resource_logs\" : [ ] } "] {
            assert_eq!(reader.read(&of(text.as_bytes())), merges, "{text}");
        }
        let alone = OfReplica { key: MergeKey::Alone, is_whole: false };
        for text in [
            "{}",
            r#"{"resourceLogs":null}"#,
            r#"{"resourceSpans":[{}]}"#,
            r#"{"resourceLogs":[{}],"x":1}"#,
            r#"{"resourceLogs":[],"resource_logs":[]}"#,
            // Damaged: these are no JSON.
            r#"{"resourceLogs":[{}]"#,
            r#"{"resourceLogs":[{}}]}"#,
            r#"{"resourceLogs":[{"a":1 2}]}"#,
            r#"{"resourceLogs"[{}]}"#,
            "",
        ] {
            assert_eq!(reader.read(&of(text.as_bytes())), alone, "{text}");
        }
        assert_eq!(reader.read(&of(b"{\"resourceLogs\":[\"\xff\"]}")), alone, "no UTF-8");
        let whole = of(br#"{"resourceLogs":[{}]}"#);
        assert_eq!(reader.read(&Part { inflated_bytes: 9, ..whole.clone() }), alone, "damaged");
        let large = Part { inflated_bytes: u32::MAX, ..whole.clone() };
        assert_eq!(reader.read(&large), alone);
        assert!(ReplicaReader::looks_into(&whole) && !ReplicaReader::looks_into(&large));
        let mut keyed = whole;
        keyed.merge = MergeKey::Ha(None);
        assert!(!ReplicaReader::looks_into(&keyed));
        assert_eq!(reader.read(&keyed), merges);
    }

    #[test]
    fn bytes_that_are_no_request_are_left_alone() {
        let mut reader = ReplicaReader::new(None);
        let logs = Protocol::Otlp(Signal::Logs);
        for protocol in [Protocol::RemoteWriteV1, Protocol::RemoteWriteV2, Protocol::Loki, logs] {
            let broken = part(protocol, b"\x0a\xff", MergeKey::Alone);
            assert_eq!(reader.read(&broken), OfReplica::by_key(&broken));
        }
        let metadata = part(Protocol::RemoteWriteV1, &[3 << 3 | 2, 1, b'm'], MergeKey::Ha(None));
        assert!(!reader.read(&metadata).is_whole);
    }
}
