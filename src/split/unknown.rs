//! Fields at the top of a request that its format does not know, when the request has to be split.
//!
//! One that holds a number can say nothing of a tenant: it goes into every part. One that holds bytes may be any
//! tenant's data: it goes nowhere, and is counted.
#![forbid(unsafe_code)]

use super::SplitError;
use crate::limits::REQUEST_SCALARS_BYTES_MAX;

/// Unknown fields at the top of a request.
#[derive(Default)]
pub(super) struct Unknown {
    /// Size of those that hold a number.
    pub(super) scalars_bytes: usize,
    /// How many hold bytes or a group.
    pub(super) others: u64,
}

impl Unknown {
    /// Keeps a field for all parts, as long as it is few enough bytes for that.
    #[cold]
    pub(super) fn scalar(&mut self, field: &[u8], scalars: &mut Vec<u8>) {
        self.scalars_bytes += field.len();
        if self.scalars_bytes <= REQUEST_SCALARS_BYTES_MAX {
            scalars.extend_from_slice(field);
        }
    }

    /// Whether they can be copied into every part.
    pub(super) fn check(&self) -> Result<(), SplitError> {
        if self.scalars_bytes > REQUEST_SCALARS_BYTES_MAX {
            return Err(SplitError::TooManyScalars { bytes_max: REQUEST_SCALARS_BYTES_MAX });
        }
        Ok(())
    }
}
