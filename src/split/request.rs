//! The request at hand as its format's bytes: inflated, and turned into protobuf if it came as JSON.
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::{Body, Compression, Protocol, SplitError, trim};
use crate::wire::loki::json;
use crate::wire::snappy::{Inflater, SnappyError};

/// One request after the other, in memory that is kept for the next.
#[derive(Default, Debug)]
pub(super) struct Request {
    inflater: Inflater,
    /// A body that needed no inflating.
    plain: Option<Bytes>,
    /// What a JSON body says, as protobuf.
    converted: Vec<u8>,
    is_converted: bool,
}

impl Request {
    /// Takes a body, whose bytes may be `bytes_max` at every step. Returns its elements, if it came as a snappy block and
    /// could go on as one.
    pub(super) fn open(&mut self, body: Body, bytes_max: usize) -> Result<Option<Bytes>, SplitError> {
        let mut elements = None;
        match body.compression {
            Compression::Snappy => {
                let header = self.inflater.inflate(&body.bytes, bytes_max)?;
                elements = Some(body.bytes.slice(header.elements_at..));
            }
            Compression::Identity => {
                let declared_bytes = body.bytes.len();
                if declared_bytes > bytes_max {
                    return Err(SnappyError::TooLarge { declared_bytes, bytes_max }.into());
                }
                self.plain = Some(body.bytes);
            }
        }
        if body.protocol == Protocol::LokiJson {
            let json = self.plain.as_deref().unwrap_or(self.inflater.bytes());
            json::to_protobuf(json, bytes_max, &mut self.converted)?;
            self.is_converted = true;
            elements = None;
        }
        Ok(elements)
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.is_converted {
            return &self.converted;
        }
        self.plain.as_deref().unwrap_or(self.inflater.bytes())
    }

    /// Forgets it, and gives memory beyond what is kept between requests back.
    pub(super) fn release(&mut self) {
        self.inflater.release();
        self.plain = None;
        trim(&mut self.converted);
        self.is_converted = false;
    }
}
