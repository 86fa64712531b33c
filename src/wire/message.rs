//! Writes protobuf messages, for what the server tells about itself: profiles and spans.
#![forbid(unsafe_code)]

use super::varint;

/// A message that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Adds a varint: uint32, uint64, int32, int64 that is not negative, bool or enum. Zero, the default, is left out.
    pub fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, 0);
            varint::put(&mut self.0, value);
        }
    }

    /// Adds a varint, even if it is zero: in a `oneof`, that it is there is what it says.
    pub fn number_even_if_zero(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        varint::put(&mut self.0, value);
    }

    /// Adds a fixed64.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Adds a double.
    pub fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// Adds bytes or a string, even if empty: an entry of a list may be.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        varint::put(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// Adds the message that `write` writes.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// Adds a packed list of varints.
    pub fn numbers(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut packed = Vec::new();
        values.into_iter().for_each(|value| varint::put(&mut packed, value));
        self.bytes(field, &packed);
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u32, wire_type: u64) {
        varint::put(&mut self.0, u64::from(field) << 3 | wire_type);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that the tests write, as prost reads them.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Read {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(fixed64, tag = "2")]
        fixed: u64,
        #[prost(double, tag = "3")]
        double: f64,
        #[prost(string, repeated, tag = "4")]
        texts: Vec<String>,
        #[prost(uint64, repeated, tag = "5")]
        packed: Vec<u64>,
        #[prost(message, optional, boxed, tag = "600")]
        inner: Option<Box<Read>>,
    }

    #[test]
    fn prost_reads_what_was_written() {
        let mut message = Message::default();
        message.number(1, u64::MAX);
        message.fixed64(2, 7);
        message.double(3, -0.5);
        message.bytes(4, b"a");
        message.bytes(4, b"");
        message.numbers(5, [0, 127, 128, u64::MAX]);
        message.message(600, |inner| inner.number(1, 3));
        let read: Read = prost::Message::decode(message.as_bytes()).unwrap();
        let inner = Read { number: 3, ..Read::default() };
        let wanted = Read {
            number: u64::MAX,
            fixed: 7,
            double: -0.5,
            texts: vec!["a".into(), String::new()],
            packed: vec![0, 127, 128, u64::MAX],
            inner: Some(Box::new(inner)),
        };
        assert_eq!(read, wanted);
    }
}
