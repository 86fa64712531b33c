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

/// A tenant ID's length under `victoriametrics` rules: two numbers of 32 bits, and a colon.
pub const VICTORIAMETRICS_TENANT_BYTES_MAX: usize = 21;

/// Headers that `upstream.pass_headers` may name. We know of one that somebody needs.
pub const PASS_HEADERS_MAX: usize = 16;

/// What the headers of one request that are passed on may take together: upstreams, too, have a limit for heads, of 8
/// KiB at the least, and our own headers need some of it.
pub const PASSED_BYTES_MAX: usize = 4_096;

/// What is passed on of `tracestate` (W3C Trace Context section 3.3.1.5: at least 512 characters should be); a longer
/// one is left out, which the section allows.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Depth of nested protobuf groups that the scanner skips. Nobody sends any; prost stops at 100 as well.
pub const GROUP_DEPTH_MAX: usize = 100;

/// What a chunk-size line may take, extensions included (RFC 9112 section 7.1.1 lets a recipient limit them).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Fragments that one core's requests may have under way at a time. This is what bounds the mailboxes: 64 bytes a
/// message in them, and the fragments themselves are charged to the budget.
pub const FRAGMENTS_IN_FLIGHT_MAX: usize = 16_384;

/// How often a core looks for deadlines that have passed: a timeout may run this much late. Shorter would only
/// wake idle cores more often.
pub const SWEEP_MILLIS: u64 = 20;

/// Looks at deadlines that a core keeps beyond two for each socket, before it sorts out those that no longer hold.
pub const DUE_SPARE_MAX: usize = 1_024;
/// The shortest `timeout` and `idle_timeout`. Deadlines are looked at every [`SWEEP_MILLIS`]; one of nanoseconds would
/// only refuse every request.
pub const TIMEOUT_MILLIS_MIN: u64 = 10;

/// The shortest `resolve_interval`: each time is a question to the name server, by a thread that would do nothing else.
pub const RESOLVE_INTERVAL_MILLIS_MIN: u64 = 100;

/// Buffers that one core keeps for reuse, in bytes: enough for its requests in flight, not for its idle connections.
pub const POOLED_BYTES_MAX: usize = 8 << 20;

/// A larger buffer is not kept: it served one unusual request.
pub const POOLED_BUFFER_BYTES_MAX: usize = 1 << 20;

/// Slices in one vectored write; Linux takes 1,024 (`UIO_MAXIOV`).
pub const GATHER_SLICES_MAX: usize = 1_024;

/// First size of the buffer that a response of an upstream is read into; almost all are smaller.
pub const RESPONSE_BYTES: usize = 4_096;

/// What is read of a response's head before the upstream is taken to be no HTTP server.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 16_384;

/// What is read of a response's body so that the connection can be used again; past it, closing is cheaper.
pub const RESPONSE_BODY_BYTES_MAX: usize = 65_536;

/// What is kept of an upstream's error text.
pub const RESPONSE_MESSAGE_BYTES_MAX: usize = 1_024;

/// The largest window that a zstd frame may ask for, as the logarithm of its bytes: 8 MiB, which RFC 8878 (section
/// 3.1.1.1.2) recommends that every decoder has and no encoder exceeds by default.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// gzip members that one body may have. bgzip, which makes the most of them, puts 64 KiB into each: as many as make 64
/// MiB. An empty one takes 20 bytes, and starting a decoder for it some microseconds.
pub const GZIP_MEMBERS_MAX: usize = 1_024;

/// Upstream requests of one tenant on their way at a time, when each is as large as merging makes it or can't be merged:
/// enough to keep an upstream busy over a round trip, and few beside all connections to it.
pub const FULL_BATCHES_INFLIGHT_MAX: usize = 8;

/// Pairs of a metric family and a tenant that are remembered for routing metadata; 100,000 of some 100 bytes.
pub const FAMILY_TENANTS_MAX: usize = 100_000;

/// After this a pair that was not seen again is half forgotten, and after twice as long wholly. Prometheus sends
/// metadata once a minute, and series of a family at least every few.
pub const FAMILIES_TURN_SECS: u64 = 900;

/// Pairs that a core remembers to have told of; past that it tells all of them once more.
pub const FAMILIES_TOLD_MAX: usize = 1 << 16;

/// After so long a request twice as large as an upstream has shown to take is tried: limits are configuration, which
/// changes in minutes at best, and a try costs one refused request.
pub const SIZE_GROWS_SECS: u64 = 600;

/// After so long without a refusal, what an upstream has shown to take is forgotten.
pub const SIZE_FORGOTTEN_SECS: u64 = 3_600;

/// Addresses of which a tenant's lane remembers what they take.
pub const SIZE_ADDRESSES_MAX: usize = 16;

/// A part that inflates to more is sent in pieces, and no more is merged. Receivers refuse requests that inflate to more
/// than 32 MiB since they were taught to distrust declared lengths (client_golang 1.24, Prometheus 3.8.1 and later,
/// VictoriaMetrics); some say 32 MB.
pub const PART_INFLATED_BYTES_MAX: usize = 32_000_000;

/// What a receipt costs in memory, with its place in two tables, filled to half at worst.
pub const RECEIPT_BYTES: usize = 256;

/// A tenant's request has to take at least so long to count as slow, however fast its upstream usually is: pauses of
/// garbage collectors and compactions are shorter.
pub const SLOW_MILLIS_MIN: u64 = 250;

/// A request is slow when it takes so many times as long as its address's answers usually take. Answers to large and small
/// requests differ by less.
pub const SLOW_TIMES_USUAL: u64 = 8;

/// Below this, no average of an upstream's answers is what counts as usual at first: an upstream that answers in a
/// millisecond may well take five.
pub const SLOW_USUAL_MICROS_MIN: u64 = 10_000;

/// Requests of a slow tenant that were cut or timed out in a row, as far as they are counted: after six, one may take 16
/// seconds while other slow tenants wait, which is more than the default `timeout`.
pub const SLOW_STRIKES_MAX: u32 = 6;

/// Of an address's slow requests, as many as slow tenants may have are cut to find out whether it answers others. How many
/// more may be cut for each answer that came in time since.
pub const SLOW_CUTS_PER_ANSWER: u32 = 2;

/// The most that may be cut before another answer comes in time.
pub const SLOW_CUTS_AT_ONCE_MAX: u32 = 64;

/// After so long without a cut, what was found out about an address is forgotten.
pub const SLOW_CUTS_RENEW_MILLIS: u64 = 500;

/// How often a core closes upstream connections that lay idle for too long, or whose address the upstream's name
/// no longer has. Each time costs a core that sleeps one wake-up.
pub const POOL_TIDY_MILLIS: u64 = 5_000;

/// Failures in a row after which an upstream address rests, if there are others. One may be chance, and a rolling
/// restart breaks a few connections at once.
pub const REST_AFTER_FAILURES: u32 = 3;

/// The first rest of an upstream address: about as long as a restart takes.
pub const REST_MILLIS_MIN: u64 = 1_000;

/// The longest rest, each being twice the one before. One request that finds the address dead each time is no burden.
pub const REST_MILLIS_MAX: u64 = 30_000;

/// The least that opening a connection to one of several upstream addresses may take, unless `timeout` is shorter: Linux
/// repeats a lost SYN after a second.
pub const CONNECT_MILLIS_MIN: u64 = 1_500;

/// How long a lane sends its fragments singly after a merged request was refused, as one of its senders is likely
/// to send the same again.
pub const UNMERGED_SECS: u64 = 10;

/// Time to wait after `accept` failed for want of descriptors or memory: trying at once would only spin.
pub const ACCEPT_PAUSE_MILLIS: u64 = 100;

/// How long the first request of a connection is waited for once the server drains: its sender has just connected, most
/// likely with something to say.
pub const LAST_CALL_MILLIS: u64 = 500;

/// Time for a ring to close a descriptor that was dropped: it does so when it goes to sleep next.
pub const RING_CLOSE_MILLIS: u64 = 5;

/// The body of a request that is refused for want of room is read and forgotten up to this size, so that its connection
/// can be kept: a new one costs both sides more than reading so much. Requests of Prometheus are smaller.
pub const SHED_BODY_BYTES_MAX: usize = 512 << 10;

/// What it is read into.
pub const SHED_BUFFER_BYTES: usize = 64 << 10;

/// Descriptors that are not for inbound connections: rings, listeners, logs, operators' connections, a margin.
pub const DESCRIPTORS_RESERVED: usize = 64 + ADMIN_CONNECTIONS_MAX;

/// How long the start waits for the first answer of the resolver; afterwards requests are refused until it comes.
pub const FIRST_RESOLUTION_SECS: u64 = 3;

/// How soon to ask again for a name that has never resolved.
pub const UNRESOLVED_RETRY_MILLIS: u64 = 500;

/// The connections waiting to be accepted, for each core's listener; the kernel may lower it (`somaxconn`).
pub const LISTEN_BACKLOG: i32 = 4_096;

/// Inflated bytes that a core works on before it looks at its sockets: some ten milliseconds. More than requests of
/// ordinary size ever bring together; and a single one is inflated and scanned in one go, whatever its size.
pub const TURN_BYTES_MAX: usize = 8 << 20;

/// First size of the buffer that a request is read into: a head and, often, a small body.
pub const HEAD_BUFFER_BYTES: usize = 16_384;

/// How long, and how much, is read on after the last answer of a connection that we end, so that its peer reads
/// the answer and no reset.
pub const FAREWELL_MILLIS: u64 = 1_000;

/// See [`FAREWELL_MILLIS`].
pub const FAREWELL_BYTES_MAX: usize = 16 << 20;

/// Requests that one connection may have answered without ever waiting, for its peer or for an upstream: whoever
/// pipelines more than that must leave the core to others for a moment.
pub const REQUESTS_AT_ONCE_MAX: u32 = 256;

/// How long that moment is: the least that a timer can wait.
pub const TURN_MILLIS: u64 = 1;

/// Splitters that a core keeps for its next requests. More are at work only while large requests take turns.
pub const SPLITTERS_KEPT_MAX: usize = 2;

/// On top of all deadlines of requests in flight, what their end may take before the process ends without them: the
/// last call for a first request, a farewell, deadlines that are kept late, and the work itself.
pub const DRAIN_GRACE_SECS: u64 = 5;

/// What the extensions of all chunk-size lines of one body, and its trailer, may take together. Nobody that sends
/// remote write sends either; unbounded, one-byte chunks with long extensions make a small body cost gigabytes.
pub const CHUNK_EXCESS_BYTES_MAX: usize = 4096;

/// The `Retry-After` of our own 503. Requests in flight turn over in well under a second, and a sender that
/// stays away for longer only builds a backlog; Prometheus backs off further by itself.
pub const OVERLOAD_RETRY_AFTER_SECS: u32 = 1;

/// What the reason of one failing tenant gets at the least, when many have to share one error body: enough for
/// the first clause of the usual Mimir and Thanos messages.
pub const REASON_BYTES_MIN: usize = 80;

/// What an error text shows of a label or a tenant's ID: enough to find it by. All of the text has 1,024 bytes.
pub const TENANT_EXCERPT_BYTES_MAX: usize = 80;

/// Tenant labels that an error text names; a priority list is rarely longer.
pub const TENANT_LABELS_NAMED_MAX: usize = 4;

/// Values of tenant labels that are remembered within one request, with what became of them; others are resolved for
/// each series anew. Requests have few, unless a map makes many values one tenant.
pub const KNOWN_VALUES_MAX: usize = 16_384;

/// A longer value is not remembered: it can be no ID, and hardly one that a map knows.
pub const KNOWN_VALUE_BYTES_MAX: usize = 256;

/// Series, metadata entries and unknown fields of one request, together. Prometheus sends 2,000 series; an
/// empty one takes two bytes, and each costs us some twenty of bookkeeping, so bytes alone are no bound.
pub const REQUEST_FIELDS_MAX: usize = 1_000_000;

/// Symbols of one Remote Write 2.0 request. 2,000 series have some 5,000; an empty one takes two bytes, and each costs us
/// some twenty of bookkeeping.
pub const REQUEST_SYMBOLS_MAX: usize = 1_000_000;

/// Unknown scalar fields at the top of a request are copied into every tenant's part; all that is known of
/// (Cortex' `source`, Mimir's `skip_label_name_validation`) take five bytes.
pub const REQUEST_SCALARS_BYTES_MAX: usize = 256;

/// What an error text shows of what a JSON parser has to say, which may quote what it found.
pub const JSON_FAULT_CHARS_MAX: usize = 200;

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

/// Statuses of an upstream that a tenant's durations are kept apart by; what comes on top shares one histogram.
pub const TENANT_STATUSES_MAX: usize = 6;

/// Tenants whose log lines are limited apart from each other; past it they share one allowance.
pub const LOG_TENANTS_MAX: usize = 1_024;

/// Lines that a tenant may log in each window of [`LOG_WINDOW_SECS`].
pub const LOG_LINES_MAX: u32 = 5;

/// See [`LOG_LINES_MAX`].
pub const LOG_WINDOW_SECS: u64 = 10;

/// Log lines that wait to be written: a reader that is late by a second costs none at an ordinary pace, and a table of
/// so many takes some 100 kB. Past it lines are dropped and counted, as nobody may wait for the log's reader.
pub const LOG_QUEUE_LINES_MAX: usize = 2_048;

/// The same in bytes. A line that quotes an upstream takes a kilobyte.
pub const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;

/// How long the end of the process waits for the log to be written: a reader that stalls must not keep it.
pub const LOG_FLUSH_MILLIS: u64 = 1_000;

/// Operators' connections at a time, on all ports of theirs. When there are as many, a newcomer takes the place of the
/// one that waited longest; a scrape needs its own for some milliseconds.
pub const ADMIN_CONNECTIONS_MAX: usize = 128;

/// What the kernel keeps of an answer that an operator's client does not read (it doubles this, and would grow it to
/// megabytes by itself). It also bounds the pace over a slow line: 1 MB/s over a round trip of 100 ms.
pub const ADMIN_SEND_BUFFER_BYTES: usize = 128 << 10;

/// What the pages of metrics may take that operators' clients have not read to the end: past it those go who have been
/// at it for longest. With ten thousand tenants a page takes some megabytes.
pub const ADMIN_PAGES_BYTES_MAX: usize = 32 << 20;

/// What an operator's request may take.
pub const ADMIN_HEAD_BYTES_MAX: usize = 8_192;

/// How long an operator's client may take to send its request, and, with [`ADMIN_BYTES_PER_SEC_MIN`], to read the
/// answer.
pub const ADMIN_TIMEOUT_MILLIS: u64 = 2_000;

/// The slowest that an operator's client may read. With ten thousand tenants the metrics take some megabytes, and
/// Prometheus itself gives up after ten seconds.
pub const ADMIN_BYTES_PER_SEC_MIN: usize = 1 << 20;
