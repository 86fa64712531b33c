//! The current request as protobuf: inflated, and converted if it came as JSON.
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::error::SplitError;
use super::scan::Body;
use super::scratch::trim;
use crate::model::Protocol;
use crate::wire::inflate::{Compression, Inflater};
use crate::wire::loki::json;

/// The bytes of one request, in memory that is reused for the next.
#[derive(Default, Debug)]
pub(super) struct Request {
    inflater: Inflater,
    /// A JSON body, converted to protobuf.
    converted: Vec<u8>,
    is_converted: bool,
}

impl Request {
    /// Inflates and converts a body, which may have at most `bytes_max` after each step. Returns its elements, if it
    /// came as a snappy block that could be forwarded as one.
    pub(super) fn open(&mut self, body: Body, bytes_max: usize) -> Result<Option<Bytes>, SplitError> {
        if body.protocol == Protocol::LokiJson {
            self.convert(&body, bytes_max)?;
            return Ok(None);
        }
        let elements_at = self.inflater.inflate(&body.bytes, body.compression, bytes_max)?;
        Ok(elements_at.map(|at| body.bytes.slice(at..)))
    }

    fn convert(&mut self, body: &Body, bytes_max: usize) -> Result<(), SplitError> {
        let json = match body.compression {
            // It is read where it is.
            Compression::Identity if body.bytes.len() <= bytes_max => &body.bytes[..],
            compression => {
                self.inflater.inflate(&body.bytes, compression, bytes_max)?;
                self.inflater.bytes()
            }
        };
        json::to_protobuf(json, bytes_max, &mut self.converted)?;
        self.is_converted = true;
        Ok(())
    }

    /// Returns the request's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.is_converted { &self.converted } else { self.inflater.bytes() }
    }

    /// Discards the request, and frees memory beyond what is kept between requests.
    pub(super) fn release(&mut self) {
        self.inflater.release();
        trim(&mut self.converted);
        self.is_converted = false;
    }
}
