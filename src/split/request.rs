//! The current request, inflated. A Loki push in JSON is converted to protobuf; an export in JSON stays as it is.
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::error::SplitError;
use super::scan::Body;
use super::scratch::trim;
use crate::model::Protocol;
use crate::wire::inflate::{Compression, Inflater};
use crate::wire::loki::json;
use crate::wire::otlp::{self, Notation};

/// The bytes of one request, in memory that is reused for the next.
#[derive(Default, Debug)]
pub(super) struct Request {
    inflater: Inflater,
    /// A JSON body, converted to protobuf.
    converted: Vec<u8>,
    is_converted: bool,
    /// A body without compression, which is read where it is.
    plain: Option<Bytes>,
}

impl Request {
    /// Inflates and converts a body, which may have at most `bytes_max` after each step. Returns its elements, if it
    /// came in a form that could be forwarded: as a snappy block, or in OTLP in any coding.
    pub(super) fn open(&mut self, body: Body, bytes_max: usize) -> Result<Option<Bytes>, SplitError> {
        if body.protocol == Protocol::LokiJson {
            self.convert(&body, bytes_max)?;
            return Ok(None);
        }
        let is_plain = body.compression == Compression::Identity && body.bytes.len() <= bytes_max;
        let elements_at = match is_plain {
            true => {
                self.plain = Some(body.bytes.clone());
                None
            }
            false => self.inflater.inflate(&body.bytes, body.compression, bytes_max)?,
        };
        let export = body.protocol.export();
        if let Some((_, Notation::Json)) = export {
            otlp::json::check(self.bytes())?;
        }
        Ok(match elements_at {
            Some(at) => Some(body.bytes.slice(at..)),
            // Frames of snappy are forwarded as a block.
            None if export.is_some() && body.compression != Compression::Snappy => Some(body.bytes),
            None => None,
        })
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
        match &self.plain {
            _ if self.is_converted => &self.converted,
            Some(plain) => plain,
            None => self.inflater.bytes(),
        }
    }

    /// How many bytes were made of the body, also if it was refused then; 0 if it was read where it is.
    pub(super) fn made(&self) -> usize {
        self.inflater.made()
    }

    /// Discards the request, and frees memory beyond what is kept between requests.
    pub(super) fn release(&mut self) {
        self.inflater.release();
        trim(&mut self.converted);
        self.is_converted = false;
        self.plain = None;
    }
}
