//! Encryption of slices into full records.
#![forbid(unsafe_code)]

use rustls::client::ClientConnectionData;
use rustls::server::ServerConnectionData;
use rustls::unbuffered::{EncryptError, WriteTraffic};

use super::outgoing::{NotWritten, Outgoing};
use crate::limits::{TLS_RECORD_BYTES, TLS_RECORD_OVERHEAD_BYTES_MAX};

/// What rustls can do in the state in which traffic may be written, on either side.
pub(super) trait Seal {
    fn plaintext(&mut self, plaintext: &[u8], room: &mut [u8]) -> Result<usize, EncryptError>;
    fn close_notify(&mut self, room: &mut [u8]) -> Result<usize, EncryptError>;
}

macro_rules! seal {
    ($side:ty) => {
        impl Seal for WriteTraffic<'_, $side> {
            fn plaintext(&mut self, plaintext: &[u8], room: &mut [u8]) -> Result<usize, EncryptError> {
                self.encrypt(plaintext, room)
            }

            fn close_notify(&mut self, room: &mut [u8]) -> Result<usize, EncryptError> {
                self.queue_close_notify(room)
            }
        }
    };
}
seal!(ServerConnectionData);
seal!(ClientConnectionData);

/// What is to be sealed.
pub(super) enum Sealing<'a, 'p> {
    /// Up to `bytes` of the slices, a multiple of [`TLS_RECORD_BYTES`]; `taken` says afterwards how many that were.
    Plaintext { slices: &'a mut dyn Iterator<Item = &'p [u8]>, bytes: usize, taken: usize },
    /// The alert that ends a session.
    CloseNotify,
}

impl Sealing<'_, '_> {
    pub(super) fn run(&mut self, traffic: &mut impl Seal, outgoing: &mut Outgoing) -> Result<(), NotWritten> {
        match self {
            Self::Plaintext { slices, bytes, taken } => {
                let mut staged = std::mem::take(&mut outgoing.scratch);
                staged.clear();
                let result = records(traffic, slices, *bytes, &mut staged, outgoing);
                outgoing.scratch = staged;
                *taken = result?;
                Ok(())
            }
            Self::CloseNotify => {
                outgoing.append(TLS_RECORD_OVERHEAD_BYTES_MAX + 2, |room| traffic.close_notify(room))
            }
        }
    }
}

/// Encrypts up to `bytes` of `slices`, and says how many that were.
fn records(
    traffic: &mut impl Seal,
    slices: &mut dyn Iterator<Item = &[u8]>,
    bytes: usize,
    staged: &mut Vec<u8>,
    outgoing: &mut Outgoing,
) -> Result<usize, NotWritten> {
    let mut taken = 0;
    let mut slices = slices.filter(|slice| !slice.is_empty()).peekable();
    while taken < bytes
        && let Some(slice) = slices.next()
    {
        let mut slice = &slice[..slice.len().min(bytes - taken)];
        taken += slice.len();
        if !staged.is_empty() {
            let (first, others) = slice.split_at(slice.len().min(TLS_RECORD_BYTES - staged.len()));
            staged.extend_from_slice(first);
            slice = others;
            if staged.len() == TLS_RECORD_BYTES {
                encrypt(traffic, staged, outgoing)?;
                staged.clear();
            }
        }
        let is_last = taken == bytes || slices.peek().is_none();
        let whole = if is_last { slice.len() } else { slice.len() / TLS_RECORD_BYTES * TLS_RECORD_BYTES };
        let (now, later) = slice.split_at(whole);
        encrypt(traffic, now, outgoing)?;
        staged.extend_from_slice(later);
    }
    encrypt(traffic, staged, outgoing)?;
    Ok(taken)
}

fn encrypt(traffic: &mut impl Seal, plaintext: &[u8], outgoing: &mut Outgoing) -> Result<(), NotWritten> {
    if plaintext.is_empty() {
        return Ok(());
    }
    let records = plaintext.len().div_ceil(TLS_RECORD_BYTES);
    let estimate = plaintext.len() + records * TLS_RECORD_OVERHEAD_BYTES_MAX;
    outgoing.append(estimate, |room| traffic.plaintext(plaintext, room))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the low bits make a pattern")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes each record as its length and the plaintext.
    #[derive(Default)]
    struct Clear {
        records: Vec<Vec<u8>>,
    }

    impl Seal for Clear {
        fn plaintext(&mut self, plaintext: &[u8], room: &mut [u8]) -> Result<usize, EncryptError> {
            assert!(room.len() >= plaintext.len());
            self.records.extend(plaintext.chunks(TLS_RECORD_BYTES).map(<[u8]>::to_vec));
            Ok(0)
        }

        fn close_notify(&mut self, _: &mut [u8]) -> Result<usize, EncryptError> {
            Ok(0)
        }
    }

    fn sealed(slices: &[Vec<u8>], bytes: usize) -> (usize, Vec<Vec<u8>>) {
        let (mut clear, mut outgoing) = (Clear::default(), Outgoing::default());
        let mut slices = slices.iter().map(Vec::as_slice);
        let mut sealing = Sealing::Plaintext { slices: &mut slices, bytes, taken: 0 };
        assert_eq!(sealing.run(&mut clear, &mut outgoing), Ok(()));
        let Sealing::Plaintext { taken, .. } = sealing else { panic!("it is no close_notify") };
        (taken, clear.records)
    }

    fn lengths() -> impl Strategy<Value = Vec<usize>> {
        let length =
            prop_oneof![Just(0), 1..100_usize, Just(TLS_RECORD_BYTES), 16_000..17_000_usize, 1..70_000_usize];
        prop::collection::vec(length, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_slices_become_full_records_in_order(lengths in lengths(), steps in 1..5_usize) {
            let slices: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(i, n)| (0..*n).map(|k| (i * 31 + k) as u8).collect()).collect();
            let all = slices.concat();
            let bytes = steps * TLS_RECORD_BYTES;
            let (taken, records) = sealed(&slices, bytes);
            prop_assert_eq!(taken, all.len().min(bytes));
            prop_assert_eq!(records.concat(), &all[..taken]);
            let full = records.iter().take_while(|record| record.len() == TLS_RECORD_BYTES).count();
            prop_assert!(full + 1 >= records.len(), "only the last record is shorter");
            prop_assert!(records.iter().all(|record| !record.is_empty()));
        }
    }
}
