//! Hand-made requests.

use super::*;
use crate::wire::varint::VarintFault;

/// A length-delimited field with a number below 16.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint::put(&mut field, bytes.len() as u64);
    field.extend_from_slice(bytes);
    field
}

/// A varint field with a number below 16.
fn number(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    varint::put(&mut bytes, value);
    bytes
}

fn packed(references: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    references.iter().for_each(|&reference| varint::put(&mut bytes, reference));
    field(1, &bytes)
}

/// The symbols of a request, behind each other, in which these labels may name a tenant.
fn symbols(request: &mut Vec<u8>, symbols: &[&str], wanted: &[&str]) -> Symbols {
    let names: Vec<Box<[u8]>> = wanted.iter().map(|name| name.as_bytes().into()).collect();
    let labels = TenantLabels::new(&names);
    let mut all = Symbols::default();
    for symbol in symbols {
        request.extend_from_slice(symbol.as_bytes());
        all.push(symbol.as_bytes(), request.len(), &labels).unwrap();
    }
    all
}

/// Reads a series of a request with the symbols 0 `` 1 `t` 2 `a` 3 `u` 4 `b`, in which `t` and then `u` decide.
fn read(series: &[u8]) -> Result<Series, Fault> {
    symbols(&mut Vec::new(), &["", "t", "a", "u", "b"], &["t", "u"]).read(series)
}

fn tenant(series: &[u8]) -> Option<(u32, u32)> {
    read(series).unwrap().tenant.map(|label| (label.at, label.value))
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
    let parts = [
        field(5, b"series"),
        field(4, b"symbol"),
        vec![2 << 3, 7],                         // varint
        [vec![9 << 3 | 1], vec![0; 8]].concat(), // 64 bits
        field(2, b"bytes"),
        vec![6 << 3 | 3, 6 << 3 | 4], // an empty group
        field(4, b""),
    ];
    let request = parts.concat();
    let mut fields = Fields::new(&request);
    let mut seen = Vec::new();
    while let Some(field) = fields.take().unwrap() {
        seen.push((field, fields.at_byte()));
    }
    let ends: Vec<usize> = (1..=parts.len()).map(|n| parts[..n].concat().len()).collect();
    let kinds = [
        Field::Series(b"series"),
        Field::Symbol(b"symbol"),
        Field::Scalar,
        Field::Scalar,
        Field::Other,
        Field::Other,
        Field::Symbol(b""),
    ];
    assert_eq!(seen, kinds.into_iter().zip(ends).collect::<Vec<_>>());
}

#[test]
fn refuses_other_protocols_and_malformed_messages() {
    let series = field(5, b"");
    for (field, fault) in [
        (field(1, b"series"), Fault::RemoteWriteV1),
        (field(3, b"metadata"), Fault::RemoteWriteV1),
        (number(1, 1), Fault::RemoteWriteV1),
        (number(4, 1), KNOWN_WIRE_TYPE),
        (number(5, 1), KNOWN_WIRE_TYPE),
        (vec![0x22, 9], Fault::Protobuf(protobuf::Fault::Truncated)),
        (vec![0xff; 11], VarintFault::Overflow.into()),
    ] {
        let malformed = request_fault(&[series.clone(), field].concat());
        assert_eq!(malformed, Malformed { fault, at_byte: series.len() });
    }
    assert_eq!(
        request_fault(&field(1, b"")).to_string(),
        "the body is not a valid protobuf io.prometheus.write.v2.Request: it belongs to Remote Write 1.0, in the \
         field at byte 0"
    );
}

#[test]
fn symbols_begin_with_the_empty_one_and_resolve() {
    let labels = TenantLabels::new(&[]);
    assert_eq!(Symbols::default().push(b"a", 1, &labels), Err(Fault::FirstSymbol));
    let mut request = b"in front".to_vec();
    let mut all = symbols(&mut request, &["", "one", "", "two"], &[]);
    let texts: Vec<_> = (0..4).map(|at| all.get(&request, at)).collect();
    assert_eq!(texts, [&b""[..], b"one", b"", b"two"]);
    assert_eq!((all.len(), all.longest_bytes(), all.get(&request, 4)), (4, 3, &b""[..]));
    all.release(0);
    assert!(all.is_empty());
    assert_eq!((all.longest_bytes(), all.all.capacity()), (0, 0));
}

#[test]
fn a_symbols_field_is_returned_if_it_has_the_usual_form() {
    let labels = TenantLabels::new(&[]);
    let mut request = Vec::new();
    let mut all = Symbols::default();
    let long = vec![b'x'; 128];
    let usual = field(4, b"usual");
    // An overlong key, and an overlong length.
    let odd = [vec![0xa2, 0x00, 3], b"odd".to_vec(), vec![0x22, 0x83, 0x00], b"odd".to_vec()].concat();
    let mut add = |bytes: &[u8], symbol: usize| {
        request.extend_from_slice(bytes);
        all.push(&bytes[bytes.len() - symbol..], request.len(), &labels).unwrap();
    };
    add(&field(4, b""), 0);
    add(&usual, 5);
    add(&odd[..6], 3);
    add(&odd[6..], 3);
    add(&field(4, &long), 128);
    let fields: Vec<_> = (0..6).map(|at| all.field(&request, at)).collect();
    assert_eq!(fields, [Some(&[0x22, 0][..]), Some(&usual), None, None, None, None]);
    // Without a preceding key there is no field.
    let mut bare = Symbols::default();
    bare.push(b"", 0, &labels).unwrap();
    assert_eq!(bare.field(b"", 0), None);
}

#[test]
fn finds_the_tenant_by_priority_at_any_position() {
    assert_eq!(tenant(&packed(&[1, 2])), Some((0, 2)));
    assert_eq!(tenant(&packed(&[2, 4, 4, 2, 1, 2])), Some((2, 2)));
    assert_eq!(tenant(&packed(&[3, 4, 1, 2])), Some((1, 2)), "the first by priority");
    assert_eq!(tenant(&packed(&[1, 2, 3, 4, 1, 4])), Some((0, 2)), "and then by place");
    assert_eq!(tenant(&packed(&[1, 0, 3, 4])), Some((1, 4)), "an empty value is none");
    assert_eq!(tenant(&packed(&[2, 1, 4, 3])), None, "a value is no name");
    assert_eq!(tenant(&packed(&[])), None);
    assert_eq!(tenant(&[]), None);
}

#[test]
fn a_repeated_symbol_is_the_same_name() {
    let mut request = Vec::new();
    let all = symbols(&mut request, &["", "x", "u", "a", "t", "y", "t", "b"], &["t", "u"]);
    let tenant = |references| all.read(&packed(references)).unwrap().tenant.map(|label| label.value);
    assert_eq!(tenant(&[6, 7]), Some(7));
    assert_eq!(tenant(&[4, 7, 6, 3]), Some(7));
    assert_eq!(tenant(&[2, 7, 6, 3]), Some(3));
    assert_eq!(tenant(&[5, 3]), None, "between two names stands none");
    assert_eq!(tenant(&[1, 3]), None);
    assert_eq!(tenant(&[7, 3]), None);
}

#[test]
fn references_come_in_any_number_of_pieces() {
    let whole = read(&packed(&[3, 4, 1, 2])).unwrap();
    assert!(!whole.scattered);
    let expected = Some(TenantLabel { at: 1, value: 2 });
    for pieces in [
        vec![packed(&[3]), packed(&[4, 1]), packed(&[2])],
        vec![number(1, 3), number(1, 4), number(1, 1), number(1, 2)],
        vec![packed(&[3, 4]), number(1, 1), field(2, b"sample"), packed(&[]), packed(&[2])],
        vec![packed(&[]), packed(&[3, 4, 1, 2])],
    ] {
        let series = read(&pieces.concat()).unwrap();
        assert_eq!((series.tenant, series.scattered), (expected, true), "{pieces:x?}");
        let references: Vec<_> = References::new(&pieces.concat()).collect();
        assert_eq!(references, [3, 4, 1, 2]);
    }
    assert_eq!(read(&packed(&[1])), Err(Fault::OddLabels));
    assert_eq!(read(&[packed(&[1, 2]), number(1, 3)].concat()), Err(Fault::OddLabels));
}

#[test]
fn every_reference_is_checked() {
    let fault = Err(Fault::Reference { symbols: 5 });
    assert_eq!(read(&packed(&[4, 5])), fault);
    assert_eq!(read(&packed(&[5, 4])), fault);
    // Truncated to 32 bits it would be 1.
    assert_eq!(read(&packed(&[(1 << 32) + 1, 2])), fault);
    assert_eq!(read(&[number(1, 5), number(1, 1)].concat()), fault);
    assert_eq!(read(&field(4, &packed(&[1, 5]))), fault);
    assert_eq!(read(&field(4, &[number(1, 1), number(1, 5)].concat())), fault);
    assert_eq!(read(&field(4, &packed(&[1]))), Err(Fault::OddLabels));
    assert!(read(&field(4, &[packed(&[1]), number(1, 4)].concat())).is_ok());
    assert_eq!(read(&field(5, &number(3, 5))), fault);
    // Also if a later one overrides it.
    assert_eq!(read(&field(5, &[number(4, 5), number(4, 1)].concat())), fault);
    assert!(read(&field(5, &[number(1, 900), number(3, 4), number(4, 4)].concat())).is_ok());
    let truncated = Err(VarintFault::Truncated.into());
    assert_eq!(read(&field(1, &[0x81])), truncated);
    assert_eq!(read(&[8, 0x81]), truncated);
}

#[test]
fn known_fields_have_their_wire_types() {
    for number_of in 2..=5 {
        assert_eq!(read(&number(number_of, 1)), Err(KNOWN_WIRE_TYPE), "{number_of}");
    }
    let fixed = |field: u8| [vec![field << 3 | 5], vec![0; 4]].concat();
    assert_eq!(read(&fixed(1)), Err(KNOWN_WIRE_TYPE));
    assert_eq!(read(&field(4, &fixed(1))), Err(KNOWN_WIRE_TYPE));
    for text in [field(1, b""), field(3, b""), field(4, b""), fixed(3)] {
        assert_eq!(read(&field(5, &text)), Err(KNOWN_WIRE_TYPE), "{text:x?}");
    }
    // An overlong key is the same key. Unknown fields may hold anything.
    assert_eq!(tenant(&[0x88, 0x00, 1, 0x8a, 0x00, 1, 2]), Some((0, 2)));
    let unknown = [number(6, 1), fixed(7), field(8, b"?"), vec![9 << 3 | 3, 9 << 3 | 4]].concat();
    assert_eq!(tenant(&[unknown.clone(), packed(&[1, 2])].concat()), Some((0, 2)));
    assert!(read(&field(4, &unknown)).is_ok() && read(&field(5, &unknown)).is_ok());
    assert_eq!(read(&[1 << 3 | 4]), Err(Fault::Protobuf(protobuf::Fault::Group)));
}

#[test]
fn counts_the_content_of_a_series() {
    let series =
        [field(2, b"x"), field(3, b"y"), field(4, b""), packed(&[1, 2]), field(2, b""), field(5, b"")]
            .concat();
    let seen = read(&series).unwrap();
    assert_eq!((seen.samples, seen.histograms, seen.exemplars), (2, 1, 1));
    let nothing = Series { tenant: None, samples: 0, histograms: 0, exemplars: 0, scattered: false };
    assert_eq!(read(&[]), Ok(nothing));
}

#[test]
fn iteration_ends_at_a_malformed_message_with_its_fault() {
    let message = [number(1, 7), field(2, b"two"), vec![0x1a, 9]].concat();
    let mut members = Members::new(&message);
    let first = Member { number: 1, raw: &[8, 7], bytes: None, value: Some(7) };
    assert_eq!(members.next(), Some(first));
    let second = Member { number: 2, raw: &message[2..7], bytes: Some(b"two"), value: None };
    assert_eq!((members.next(), members.fault()), (Some(second), None));
    assert_eq!((members.next(), members.next()), (None, None));
    assert_eq!(members.fault(), Some(Fault::Protobuf(protobuf::Fault::Truncated)));
}
