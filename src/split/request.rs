//! The request at hand as its format's bytes: inflated, and turned into protobuf if it came as JSON.
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::{Body, SplitError, trim};
use crate::model::Protocol;
use crate::wire::inflate::Inflater;
use crate::wire::loki::json;

/// One request after the other, in memory that is kept for the next.
#[derive(Default, Debug)]
pub(super) struct Request {
    inflater: Inflater,
    /// What a JSON body says, as protobuf.
    converted: Vec<u8>,
    is_converted: bool,
}

impl Request {
    /// Takes a body, whose bytes may be `bytes_max` at every step. Returns its elements, if it came as a snappy block
    /// and could go on as one.
    pub(super) fn open(&mut self, body: Body, bytes_max: usize) -> Result<Option<Bytes>, SplitError> {
        let elements_at = self.inflater.inflate(&body.bytes, body.compression, bytes_max)?;
        if body.protocol == Protocol::LokiJson {
            json::to_protobuf(self.inflater.bytes(), bytes_max, &mut self.converted)?;
            self.is_converted = true;
            return Ok(None);
        }
        Ok(elements_at.map(|at| body.bytes.slice(at..)))
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.is_converted { &self.converted } else { self.inflater.bytes() }
    }

    /// Forgets it, and gives memory beyond what is kept between requests back.
    pub(super) fn release(&mut self) {
        self.inflater.release();
        trim(&mut self.converted);
        self.is_converted = false;
    }
}
