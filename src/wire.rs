//! The wire formats of requests, read as ranges: nothing is copied or built in between.
//!
//! Everything here is pure: it takes slices and returns lengths, ranges and slices.
#![forbid(unsafe_code)]

pub mod inflate;
pub mod loki;
pub mod message;
pub mod otlp;
pub mod protobuf;
pub mod remote_write_v1;
pub mod remote_write_v2;
pub mod snappy;
pub mod varint;

/// Whether two slices are equal. Made for names and values of labels, most of which are too short for a call of
/// `memcmp` to pay off.
#[inline(always)]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // Compares two words each, which overlap in the middle.
    if let (1..=16, Some(a_ends), Some(b_ends)) = (a.len(), ends::<8>(a), ends::<8>(b)) {
        return a_ends == b_ends;
    }
    match (ends::<4>(a), ends::<4>(b)) {
        (Some(a_ends), Some(b_ends)) if a.len() <= 8 => a_ends == b_ends,
        _ => a == b,
    }
}

/// The first and the last `N` bytes.
#[inline(always)]
fn ends<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N])> {
    Some((*bytes.first_chunk()?, *bytes.last_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn equal_means_same_bytes_and_same_length() {
        let bytes: Vec<u8> = (0..40).collect();
        for length in 0..bytes.len() {
            let a = &bytes[..length];
            assert!(same(a, &bytes.clone()[..length]));
            assert!(!same(a, &bytes[..=length]) && !same(&bytes[..=length], a));
            for at in 0..length {
                let mut b = a.to_vec();
                b[at] ^= 0x80;
                assert!(!same(a, &b), "{length} bytes, of which number {at} differs");
            }
        }
    }
}
