//! Every bound that is not a setting: each with its unit in its name and its reason beside it.
//!
//! Bounds that an operator may have to change are settings; they live in [`crate::config`].

/// Headers of one message head. Prometheus sends 8, proxies in front add a handful; past this it is an attack.
pub const HEAD_FIELDS_MAX: usize = 64;

/// What Prometheus reads of an error body (`maxErrMsgLen` in its storage/remote/client.go): longer is wasted.
pub const ERROR_BODY_BYTES_MAX: usize = 1024;

/// A tenant ID's length under `mimir` rules: Mimir's own limit (docs, "About tenant IDs").
pub const MIMIR_TENANT_BYTES_MAX: usize = 150;

/// A tenant ID's length under `thanos` rules: it becomes a directory and object name, whose parts end at 255
/// on common stores; 256 leaves room for IDs that were accepted before.
pub const THANOS_TENANT_BYTES_MAX: usize = 256;

/// Depth of nested protobuf groups that the scanner skips. Nobody sends any; prost stops at 100 as well.
pub const GROUP_DEPTH_MAX: usize = 100;

/// What a chunk-size line may take, extensions included (RFC 9112 section 7.1.1 lets a recipient limit them).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// What an error text shows of a label or a tenant's ID: enough to find it by. All of the text has 1,024 bytes.
pub const TENANT_EXCERPT_BYTES_MAX: usize = 80;

/// Tenant labels that an error text names; a priority list is rarely longer.
pub const TENANT_LABELS_NAMED_MAX: usize = 4;

/// Series, metadata entries and unknown fields of one request, together. Prometheus sends 2,000 series; an
/// empty one takes two bytes, and each costs us some twenty of bookkeeping, so bytes alone are no bound.
pub const REQUEST_FIELDS_MAX: usize = 1_000_000;

/// Unknown scalar fields at the top of a request are copied into every tenant's part; all that is known of
/// (Cortex' `source`, Mimir's `skip_label_name_validation`) take five bytes.
pub const REQUEST_SCALARS_BYTES_MAX: usize = 256;

/// What a splitter keeps of each of its buffers between requests; 2,000 series inflate to half a megabyte.
pub const SCRATCH_BYTES_MAX: usize = 4 << 20;

/// A configuration file. All keys with all their comments take a hundredth of it; past it, it is the wrong file.
pub const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;

/// Values in a configuration file, aliases counted as what they stand for.
pub const CONFIG_NODES_MAX: usize = 100_000;

/// Nesting in a configuration file; our own keys need four levels.
pub const CONFIG_DEPTH_MAX: usize = 32;

/// Fragments that one upstream request may join: each is one piece of a vectored write, which Linux bounds at
/// 1,024 pieces (`IOV_MAX`); head and length take a few.
pub const MERGE_FRAGMENTS_MAX: usize = 1000;

/// Threads that `cores` may ask for: more than any machine we have heard of has CPUs to pin them to.
pub const CORES_MAX: usize = 1024;

/// The least that a request's head must be allowed: what Prometheus and one proxy in front of it send, and room.
pub const HEAD_BYTES_MIN: usize = 1024;
