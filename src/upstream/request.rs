//! The head of an upstream request. Its constant fields are formatted once per set of terms.

use std::net::SocketAddr;

use crate::config::plan::{Secret, Terms};
use crate::config::{Target, TenantHeader};
use crate::exchange::fragment::Fragment;
use crate::http::Passed;
use crate::model::{Compression, Destination};
use crate::wire::varint;

/// Writes request heads.
#[derive(Debug)]
pub struct RequestHeads {
    target: Target,
    /// The bytes between the path and the tenant's header: the rest of the request line and all constant fields.
    constant: Secret,
    tenant_header: TenantHeader,
}

impl RequestHeads {
    /// Prepares heads for `destination` under these terms.
    pub fn new(terms: &Terms, destination: Destination) -> Self {
        let target = terms.targets.of(destination).clone();
        let mut constant = format!(
            " HTTP/1.1\r\nHost: {}\r\nUser-Agent: tenantry/{}\r\n",
            target.host_header,
            env!("CARGO_PKG_VERSION"),
        )
        .into_bytes();
        let (authorization, headers) = (terms.authorization.as_ref(), terms.headers.as_ref());
        let parts = authorization.map(|value| [b"Authorization: ", value.expose(), b"\r\n"]);
        let parts = parts.into_iter().flatten().chain(headers.map(|lines| lines.expose()));
        // Its size is known first, as a `Vec` that grows would leave secrets behind.
        constant.reserve_exact(parts.clone().map(<[u8]>::len).sum());
        parts.for_each(|part| constant.extend_from_slice(part));
        Self { target, constant: Secret::new(constant), tenant_header: terms.tenant_header.clone() }
    }

    /// Returns the head of a request whose first fragment is `first`, and whose body is coded so. For snappy, the first
    /// bytes of the body follow: the length `inflated_bytes`. The caller sends `elements_bytes` bytes of elements
    /// behind it.
    pub fn head(
        &self,
        first: &Fragment,
        coding: Compression,
        inflated_bytes: u64,
        elements_bytes: usize,
    ) -> Vec<u8> {
        let constant = self.constant.expose();
        let mut head = Vec::with_capacity(constant.len() + 384);
        head.extend_from_slice(b"POST ");
        self.target.path_for(&first.part.tenant, &mut head);
        head.extend_from_slice(constant);
        head.extend_from_slice(coding.content_field().as_bytes());
        head.extend_from_slice(first.part.protocol.content_fields().as_bytes());
        self.tenant_header.write(&first.part.tenant, &mut head);
        match (&first.traced, &first.passed) {
            (Some(traced), passed) => {
                Passed::write_traced(passed.as_deref(), traced.trace, traced.upstream.get(), &mut head);
            }
            (None, Some(passed)) => head.extend_from_slice(passed.lines()),
            (None, None) => {}
        }
        head.extend_from_slice(b"X-Cortex-Tenant-Client: ");
        put_client(first.client, &mut head);
        head.extend_from_slice(b"\r\nX-Cortex-Tenant-ReqID: ");
        head.extend_from_slice(&first.request_id.text());
        head.extend_from_slice(b"\r\nContent-Length: ");
        let is_block = coding == Compression::Snappy;
        let length_bytes = if is_block { varint::len(inflated_bytes) } else { 0 };
        put_number(length_bytes + elements_bytes, &mut head);
        head.extend_from_slice(b"\r\n\r\n");
        if is_block {
            varint::put(&mut head, inflated_bytes);
        }
        head
    }
}

/// Appends an address as `Display` writes it, which takes as long as the rest of the head.
fn put_client(client: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(client) = client else {
        return out.extend_from_slice(client.to_string().as_bytes());
    };
    for (at, byte) in client.ip().octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        put_number(byte, out);
    }
    out.push(b':');
    put_number(client.port(), out);
}

fn put_number(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::fragment::RequestId;

    #[test]
    fn clients_are_written_as_display_writes_them() {
        for client in ["127.0.0.1:1", "10.200.30.4:65535", "0.0.0.0:0", "[::1]:80", "[2001:db8::5]:9090"] {
            let mut out = Vec::new();
            put_client(client.parse().unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), client);
        }
    }

    #[test]
    fn a_request_id_is_written_like_a_uuid() {
        let id = RequestId(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(RequestId(0).to_string(), "00000000-0000-0000-0000-000000000000");
    }
}
