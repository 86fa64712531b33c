//! How a body is written, and what a request's head says of it.
//!
//! Everything that depends on the format is here: whoever adds one adds a variant, its name, its headers and its
//! encoding, and nothing else has to know.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use prost::Message;

use crate::proto::{WriteRequest, deflate};

/// A protocol together with its compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus Remote Write 1.0: `prometheus.WriteRequest` as a snappy block.
    #[default]
    RemoteWrite1,
}

impl Format {
    /// All there are.
    pub const ALL: &[Self] = &[Self::RemoteWrite1];

    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RemoteWrite1 => "remote-write-1",
        }
    }

    /// The headers that tell a receiver what the body is ("Protocol" in the Remote Write 1.0 specification).
    #[must_use]
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::RemoteWrite1 => &[
                ("Content-Type", "application/x-protobuf"),
                ("Content-Encoding", "snappy"),
                ("X-Prometheus-Remote-Write-Version", "0.1.0"),
            ],
        }
    }

    /// The request in this format: before it is compressed, and as it is sent.
    pub(super) fn encode(self, request: &WriteRequest) -> (Vec<u8>, Bytes) {
        match self {
            Self::RemoteWrite1 => {
                let inflated = request.encode_to_vec();
                let block = deflate(&inflated);
                (inflated, block)
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no [`Format`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no format")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let known = Self::ALL.iter().copied().find(|format| format.name() == name);
        known.ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_name_of_its_own_and_says_what_it_is() {
        for &format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
            assert!(format.headers().iter().any(|(name, _)| *name == "Content-Type"), "{format}");
        }
        assert!("remote-write".parse::<Format>().is_err());
    }
}
