//! The head of an upstream request. Its constant fields are formatted once per set of terms.

use crate::config::plan::{Secret, Terms};
use crate::config::{Target, TenantHeader};
use crate::exchange::fragment::Fragment;
use crate::http::Passed;
use crate::model::{Destination, Protocol};
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
            " HTTP/1.1\r\nHost: {}\r\nUser-Agent: tenantry/{}\r\nContent-Encoding: snappy\r\n",
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

    /// Returns the head of a request whose first fragment is `first`, followed by the first bytes of its body: the
    /// snappy length `inflated_bytes`. The caller sends `elements_bytes` bytes of elements behind it.
    pub fn head(&self, first: &Fragment, inflated_bytes: u64, elements_bytes: usize) -> Vec<u8> {
        use std::io::Write;
        let constant = self.constant.expose();
        let mut head = Vec::with_capacity(constant.len() + 384);
        head.extend_from_slice(b"POST ");
        self.target.path_for(&first.part.tenant, &mut head);
        head.extend_from_slice(constant);
        head.extend_from_slice(content_fields(first.part.protocol).as_bytes());
        self.tenant_header.write(&first.part.tenant, &mut head);
        match (&first.traced, &first.passed) {
            (Some(traced), passed) => {
                Passed::write_traced(passed.as_deref(), traced.trace, traced.upstream.get(), &mut head);
            }
            (None, Some(passed)) => head.extend_from_slice(passed.lines()),
            (None, None) => {}
        }
        let length = varint::len(inflated_bytes) + elements_bytes;
        // Writing to a Vec can't fail.
        let _ = write!(
            head,
            "X-Cortex-Tenant-Client: {}\r\nX-Cortex-Tenant-ReqID: {}\r\nContent-Length: {length}\r\n\r\n",
            first.client, first.request_id,
        );
        varint::put(&mut head, inflated_bytes);
        head
    }
}

/// The fields that describe the body.
fn content_fields(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::RemoteWriteV1 => {
            "Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n"
        }
        Protocol::RemoteWriteV2 => {
            "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\n\
             X-Prometheus-Remote-Write-Version: 2.0.0\r\n"
        }
        Protocol::Loki | Protocol::LokiJson => "Content-Type: application/x-protobuf\r\n",
    }
}
