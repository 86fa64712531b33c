//! Reads bytes as a segment of the spool and as what it keeps of a part. What decodes must be encoded to the same
//! bytes. Checksums are also set right, because a fuzzer does not find them.
#![allow(clippy::expect_used, clippy::panic, reason = "a test: what fails is a finding")]

use bytes::Bytes;
use tenantry::spool::record::{self, FRAME_BYTES, HEADER_BYTES, Header, HeaderFault, Next};
use tenantry::spool::{Malformed, Sequence, Spooled};

/// What the fuzz target does.
pub(crate) fn check(bytes: &[u8]) {
    payload(bytes);
    segment(bytes);
    if let Some((_, records)) = bytes.split_at_checked(HEADER_BYTES) {
        let header = Header { number: 1, sequence: Sequence(1) };
        let mut sealed = [&header.encode()[..], records].concat();
        record::seal(&mut sealed[HEADER_BYTES..], header.seed());
        segment(&sealed);
    }
}

/// What one record may hold.
fn payload(bytes: &[u8]) {
    let Ok(spooled) = Spooled::decode(&Bytes::copy_from_slice(bytes)) else { return };
    let mut again = Vec::new();
    spooled.encode(&mut again).expect("it was encoded before");
    assert_eq!(again, bytes, "{spooled:?}");
}

fn segment(bytes: &[u8]) {
    let length = bytes.len() as u64;
    let header = match Header::decode(bytes, 1, length) {
        Ok(header) => header,
        Err(HeaderFault::Torn) => return assert!(bytes.len() <= HEADER_BYTES),
        Err(HeaderFault::Version(version)) => return assert_ne!(version, record::VERSION),
        Err(HeaderFault::Wrong) => return,
    };
    assert!(bytes.starts_with(&header.encode()));
    let mut rest = &bytes[HEADER_BYTES..];
    loop {
        match record::next(rest, header.seed()) {
            Next::Record(found) => {
                let mut again = Vec::new();
                let put = |out: &mut Vec<u8>| {
                    out.extend_from_slice(found.payload);
                    Ok::<(), Malformed>(())
                };
                record::put(&mut again, found.sequence, found.kind, put).expect("it was encoded before");
                record::seal(&mut again, header.seed());
                assert_eq!(again, &rest[..found.bytes()]);
                payload(found.payload);
                rest = &rest[found.bytes()..];
            }
            Next::More(needed) => {
                assert!(needed > rest.len() && needed >= FRAME_BYTES);
                return;
            }
            Next::Wrong => return,
        }
    }
}
