use super::*;
use crate::wire::varint::{self, VarintFault};

/// A length-delimited field with a number below 16.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint::put(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

fn pair(name: &str, value: &str) -> Vec<u8> {
    field(3, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())
}

fn names(names: &[&str]) -> Vec<Box<[u8]>> {
    names.iter().map(|name| name.as_bytes().into()).collect()
}

fn request_fault(request: &[u8]) -> Malformed {
    let mut fields = Fields::new(request);
    loop {
        match fields.take() {
            Ok(field) => assert!(field.is_some(), "{request:x?} has no fault"),
            Err(malformed) => return malformed,
        }
    }
}

#[test]
fn distinguishes_the_fields_of_a_request() {
    let group = vec![5 << 3 | 3, 5 << 3 | 4];
    let parts = [field(1, b"s"), field(2, b"loki"), vec![3 << 3, 7], group, field(1, b"")];
    let request = parts.concat();
    let mut fields = Fields::new(&request);
    let mut seen = Vec::new();
    while let Some(field) = fields.take().unwrap() {
        seen.push((field, fields.at_byte()));
    }
    let kinds = [Field::Stream(b"s"), Field::Other, Field::Scalar, Field::Other, Field::Stream(b"")];
    let ends = (1..=parts.len()).map(|n| parts[..n].concat().len());
    assert_eq!(seen, kinds.into_iter().zip(ends).collect::<Vec<_>>());
    let malformed = request_fault(&[&request[..], &[1 << 3, 1]].concat());
    assert_eq!(malformed, Malformed { fault: Fault::KnownWireType, at_byte: request.len() });
    assert_eq!(
        request_fault(&[0x0a]).to_string(),
        "the body is not a valid protobuf PushRequest: it ends within a varint, in the field at byte 0"
    );
}

#[test]
fn the_last_labels_and_all_entries_of_a_stream_count() {
    let stream =
        [field(1, b"{}"), field(2, b"1"), field(9, b"?"), field(1, b"{a=``}"), field(2, b"")].concat();
    let seen = Stream::read(&stream).unwrap();
    assert_eq!((&stream[seen.labels.clone()], seen.entries), (&b"{a=``}"[..], 2));
    assert_eq!(Stream::read(b""), Ok(Stream::default()));
    let empty = [field(1, b"{}"), field(1, b"")].concat();
    assert!(Stream::read(&empty).unwrap().labels.is_empty());
}

#[test]
fn distinguishes_the_fields_of_a_stream() {
    let parts = [
        field(1, b"{}"),
        vec![3 << 3, 0x80, 1],
        field(2, b"e"),
        vec![9 << 3, 1],
        field(9, b""),
        vec![0x98, 0, 5],
    ];
    let stream = parts.concat();
    let mut fields = StreamFields::new(&stream);
    let mut seen = Vec::new();
    while let Some((field, range)) = fields.take().unwrap() {
        assert_eq!(stream[range], parts[seen.len()]);
        seen.push(field);
    }
    let kinds = [
        StreamField::Labels(b"{}"),
        StreamField::Hash,
        StreamField::Entry(b"e"),
        StreamField::Scalar,
        StreamField::Other,
        StreamField::Hash,
    ];
    assert_eq!(seen, kinds);
}

#[test]
fn refuses_known_fields_of_another_wire_type() {
    let fixed = |number: u8| [vec![number << 3 | 1], vec![0; 8]].concat();
    for wrong in [vec![1 << 3, 1], vec![2 << 3, 1], fixed(1), fixed(2), fixed(3), field(3, b"")] {
        assert_eq!(Stream::read(&wrong), Err(Fault::KnownWireType), "{wrong:x?}");
    }
    for number in 1..=4_u8 {
        assert_eq!(entry_tenant(&[number << 3, 1], &names(&["t"])), Err(Fault::KnownWireType));
    }
    assert_eq!(Stream::read(&[0x0a, 5]), Err(Fault::Truncated));
    assert_eq!(entry_tenant(&[0x0a], &names(&["t"])), Err(Fault::Varint(VarintFault::Truncated)));
    assert_eq!(entry_tenant(&field(3, &[0x0a, 9]), &names(&["t"])), Err(Fault::Truncated));
}

#[test]
fn an_entrys_metadata_names_its_tenant_by_priority() {
    let entry =
        [field(1, &[8, 1]), pair("b", "2"), field(2, b"line"), pair("a", ""), pair("b", "3"), pair("c", "4")];
    let entry = entry.concat();
    let tenant = |wanted: &[&str]| entry_tenant(&entry, &names(wanted)).unwrap().map(<[u8]>::to_vec);
    assert_eq!(tenant(&["a", "b", "c"]).as_deref(), Some(&b"2"[..]));
    assert_eq!(tenant(&["c", "b"]).as_deref(), Some(&b"4"[..]));
    assert_eq!(tenant(&["a"]), None);
    assert_eq!(tenant(&["line"]), None);
    // The metadata in `parsed`, which queries return, names no tenant.
    let parsed = field(4, &[field(1, b"a"), field(2, b"1")].concat());
    assert_eq!(entry_tenant(&parsed, &names(&["a"])), Ok(None));
}
