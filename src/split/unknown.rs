//! UnknownFields top-level fields of a request that is split.
//!
//! A numeric field cannot hold a tenant's data, so it goes into every part. A field of bytes could be the data of any
//! tenant, so it is dropped and counted.
#![forbid(unsafe_code)]

use super::error::SplitError;
use crate::limits::REQUEST_SCALARS_BYTES_MAX;

/// The unknown top-level fields of a request.
#[derive(Default)]
pub(super) struct UnknownFields {
    /// Size of the numeric fields.
    pub(super) scalars_bytes: usize,
    /// Number of fields of bytes or groups.
    pub(super) others: u64,
}

impl UnknownFields {
    /// Appends a numeric field to `scalars`, which go into every part, unless their limit is exceeded.
    #[cold]
    pub(super) fn scalar(&mut self, field: &[u8], scalars: &mut Vec<u8>) {
        self.scalars_bytes += field.len();
        if self.scalars_bytes <= REQUEST_SCALARS_BYTES_MAX {
            scalars.extend_from_slice(field);
        }
    }

    /// Returns an error if the numeric fields are too large to copy into every part.
    pub(super) fn check(&self) -> Result<(), SplitError> {
        if self.scalars_bytes > REQUEST_SCALARS_BYTES_MAX {
            return Err(SplitError::TooManyScalars { bytes_max: REQUEST_SCALARS_BYTES_MAX });
        }
        Ok(())
    }
}
