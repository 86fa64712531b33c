//! All limits that are not settings. Each has its unit in its name and its reason in its comment.
//!
//! Limits that an operator may need to change are settings; see [`crate::config`].

/// Header fields per message. Prometheus sends 8, and proxies add a handful; more indicates an attack.
pub const HEAD_FIELDS_MAX: usize = 64;

/// Length of an error body. Prometheus reads no more (`maxErrMsgLen` in its storage/remote/client.go).
pub const ERROR_BODY_BYTES_MAX: usize = 1024;

/// Length of a tenant ID under `mimir` rules: Mimir's own limit (docs, "About tenant IDs").
pub const MIMIR_TENANT_BYTES_MAX: usize = 150;

/// Length of a tenant ID under `thanos` rules. IDs become directory and object names, whose parts end at 255 bytes on
/// common stores; 256 leaves room for IDs accepted before.
pub const THANOS_TENANT_BYTES_MAX: usize = 256;

/// Length of a tenant ID under `victoriametrics` rules: two 32-bit numbers and a colon.
pub const VICTORIAMETRICS_TENANT_BYTES_MAX: usize = 21;

/// Headers in `upstream.pass_headers`. Only one is known to be needed in practice.
pub const PASS_HEADERS_MAX: usize = 16;

/// Headers of a configuration that every request to an upstream carries.
pub const UPSTREAM_HEADERS_MAX: usize = 16;

/// Their total size, for the same reason as [`PASSED_BYTES_MAX`].
pub const UPSTREAM_HEADERS_BYTES_MAX: usize = 4_096;

/// Named upstreams. Each has pools and name lookups of its own.
pub const UPSTREAMS_MAX: usize = 64;

/// Length of an upstream's name, which is a label in metrics.
pub const UPSTREAM_NAME_BYTES_MAX: usize = 64;

/// Length of a password or token for an upstream. Larger than the heads that upstreams take by default.
pub const CREDENTIAL_BYTES_MAX: usize = 16_384;

/// Total size of the headers passed on from one request. Upstreams limit heads to at least 8 KiB, and our own headers
/// need some of that.
pub const PASSED_BYTES_MAX: usize = 4_096;

/// Length of a `tracestate` that is passed on (W3C Trace Context section 3.3.1.5: at least 512 characters should be). A
/// longer one is dropped, which that section allows.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Depth of nested protobuf groups that the scanner skips. No known sender uses groups; prost stops at 100 as well.
pub const GROUP_DEPTH_MAX: usize = 100;

/// Length of a chunk-size line, including extensions (RFC 9112 section 7.1.1 allows recipients to limit them).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Fragments in flight from the requests of one core. This bounds the mailboxes at 64 bytes per message; the fragments
/// themselves are charged to the budget.
pub const FRAGMENTS_IN_FLIGHT_MAX: usize = 16_384;

/// Interval at which a core checks for expired deadlines, so a timeout may be this late. A shorter interval would only
/// wake idle cores more often.
pub const SWEEP_MILLIS: u64 = 20;

/// Scheduled deadline checks that a core keeps, beyond two per socket, before it removes stale ones.
pub const DUE_SPARE_MAX: usize = 1_024;

/// The shortest `timeout` and `idle_timeout`. Deadlines are checked every [`SWEEP_MILLIS`]; a timeout of nanoseconds
/// would refuse every request.
pub const TIMEOUT_MILLIS_MIN: u64 = 10;

/// The shortest `resolve_interval`. Each lookup is a query to the name server; with a shorter interval, the resolver
/// thread would do nothing else.
pub const RESOLVE_INTERVAL_MILLIS_MIN: u64 = 100;

/// Bytes of buffers that one core keeps for reuse: enough for its requests in flight, not for its idle connections.
pub const POOLED_BYTES_MAX: usize = 8 << 20;

/// The largest buffer that is kept for reuse. A larger one served an unusual request.
pub const POOLED_BUFFER_BYTES_MAX: usize = 1 << 20;

/// Slices in one vectored write. Linux accepts 1,024 (`UIO_MAXIOV`).
pub const GATHER_SLICES_MAX: usize = 1_024;

/// Initial size of the buffer for an upstream's response. Almost all responses are smaller.
pub const RESPONSE_BYTES: usize = 4_096;

/// Size of a response's head. If it is larger, the upstream is taken not to be an HTTP server.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 16_384;

/// Bytes of a response's body that are read so that the connection can be reused. Beyond this, closing it is cheaper.
pub const RESPONSE_BODY_BYTES_MAX: usize = 65_536;

/// Bytes kept of an upstream's error text.
pub const RESPONSE_MESSAGE_BYTES_MAX: usize = 1_024;

/// The largest window that a zstd frame may request, as the logarithm of its bytes: 8 MiB. RFC 8878 (section 3.1.1.1.2)
/// recommends that every decoder supports it and that encoders do not exceed it by default.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// gzip members in one body. bgzip, which creates the most, puts 64 KiB into each, so this corresponds to 64 MiB. An
/// empty member takes 20 bytes, and starting a decoder for it takes microseconds.
pub const GZIP_MEMBERS_MAX: usize = 1_024;

/// Upstream requests of one tenant in flight when each is full or cannot be merged. This keeps an upstream busy over a
/// round trip, and is small compared to all connections to it.
pub const FULL_BATCHES_INFLIGHT_MAX: usize = 8;

/// Pairs of a metric family and a tenant remembered for routing metadata: 100,000 at about 100 bytes.
pub const FAMILY_TENANTS_MAX: usize = 100_000;

/// Time after which a pair that was not seen again moves to the older half; after twice that time it is forgotten.
/// Prometheus sends metadata once a minute, and series of a family at least every few minutes.
pub const FAMILIES_TURN_SECS: u64 = 900;

/// Pairs that a core remembers having announced. Beyond this, it announces all of them once more.
pub const FAMILIES_REPORTED_MAX: usize = 1 << 16;

/// Time after which a request twice as large as an upstream has accepted is tried. Upstream limits are configuration
/// and change within minutes at best. A try costs one refused request.
pub const SIZE_GROWS_SECS: u64 = 600;

/// Time without a refusal after which the size limit learned for an upstream is forgotten.
pub const SIZE_FORGOTTEN_SECS: u64 = 3_600;

/// Addresses for which a tenant's lane remembers size limits.
pub const SIZE_ADDRESSES_MAX: usize = 16;

/// Inflated size above which a part is sent in pieces, and up to which parts are merged. Recent receivers refuse
/// requests that inflate to more than 32 MiB, because they no longer trust declared lengths (client_golang 1.24,
/// Prometheus 3.8.1 and later, VictoriaMetrics); some say 32 MB.
pub const PART_INFLATED_BYTES_MAX: usize = 32_000_000;

/// Memory per receipt, including its places in two tables that may be half empty.
pub const RECEIPT_BYTES: usize = 256;

/// The shortest duration of a slow request, however fast its upstream usually is. Pauses for garbage collection and
/// compaction are shorter.
pub const SLOW_MILLIS_MIN: u64 = 250;

/// A request is slow if it takes this many times as long as is usual for its address. The difference between large and
/// small requests is smaller.
pub const SLOW_TIMES_USUAL: u64 = 8;

/// The lowest duration taken as usual at first. An upstream that answers within a millisecond may well take five.
pub const SLOW_USUAL_MICROS_MIN: u64 = 10_000;

/// The most strikes counted: requests of a slow tenant that were cut or timed out in a row. After six, a request may
/// take 16 seconds while other slow tenants wait, which exceeds the default `timeout`.
pub const SLOW_STRIKES_MAX: u32 = 6;

/// How many more slow requests to an address may be cut for each answer that came in time. A first batch, as large as
/// the share of slow tenants, is cut to find out whether the address answers others.
pub const SLOW_CUTS_PER_ANSWER: u32 = 2;

/// The most requests that may be cut before another answer comes in time.
pub const SLOW_CUTS_AT_ONCE_MAX: u32 = 64;

/// Time without a cut after which the findings about an address are forgotten.
pub const SLOW_CUTS_RENEW_MILLIS: u64 = 500;

/// Plaintext of a full record (RFC 8446 section 5.1: 2^14).
pub const TLS_RECORD_BYTES: usize = 16_384;

/// What a record adds to its plaintext at most: header 5, explicit nonce 8 (TLS 1.2), content type 1 (TLS 1.3), tag 16.
pub const TLS_RECORD_OVERHEAD_BYTES_MAX: usize = 30;

/// A record on the wire at most: TLS 1.2 lets a ciphertext be 2,048 bytes longer than the plaintext (RFC 5246 section
/// 6.2.3), TLS 1.3 only 256 (RFC 8446 section 5.2); and the header.
pub const TLS_RECORD_WIRE_BYTES_MAX: usize = TLS_RECORD_BYTES + 2_048 + 5;

/// Plaintext that one call encrypts or decrypts: about 100 µs of a core's time. Full records, so that a request's end
/// is its only short one.
pub const TLS_STEP_BYTES_MAX: usize = 16 * TLS_RECORD_BYTES;

/// Room for one read while the handshake lasts. A ClientHello has 250 to 1,800 bytes, and thousands of connections may
/// be in a handshake at once. A server's certificates take two reads.
pub const TLS_HANDSHAKE_READ_BYTES: usize = 4_096;

/// Room for one read after the handshake: a request of usual size in two reads.
pub const TLS_READ_BYTES: usize = 65_536;

/// Ciphertext that a session holds: one read on top of what is left of the read before. That is a part of a record,
/// or a handshake message in pieces.
pub const TLS_INCOMING_BYTES_MAX: usize = 131_072;

/// Bytes that a peer may send until its handshake is complete. Certificate chains have 2 to 10 KiB, and a long list of
/// accepted authorities some 20 KiB. rustls takes as much for a single message.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 65_536;

/// TLS 1.2 sessions that a server remembers for clients without tickets, at about 200 bytes and two names each.
pub const TLS_SERVER_SESSIONS_MAX: usize = 4_096;

/// Server names for which a client remembers sessions. A target has one.
pub const TLS_CLIENT_SESSIONS_MAX: usize = 32;

/// The largest certificate, key or bundle file. Debian's bundle of all public roots has 220 KB.
pub const TLS_FILE_BYTES_MAX: u64 = 4 << 20;

/// TLS handshakes in progress on one core. At the limit one is cut for each that begins. Each holds about 20 KB.
pub const HANDSHAKES_MAX: usize = 1_024;

/// The work that one step of a TLS handshake counts for, in bytes that could be split in the same time: about half a
/// millisecond.
pub const HANDSHAKE_STEP_WORK_BYTES: usize = TURN_BYTES_MAX / 16;

/// Interval at which certificates, keys and secrets are looked at for changes.
pub const WATCHED_FILES_MILLIS: u64 = 5_000;

/// Interval of the warning that an upstream's certificate is not verified.
pub const TLS_INSECURE_WARNING_SECS: u64 = 600;

/// Interval at which a core closes upstream connections that were idle for too long, or whose address no longer belongs
/// to the upstream's name. Each time wakes a sleeping core once.
pub const POOL_TIDY_MILLIS: u64 = 5_000;

/// Consecutive failures after which an upstream address enters backoff, if there are others. One failure may be chance,
/// and a rolling restart breaks a few connections at once.
pub const BACKOFF_AFTER_FAILURES: u32 = 3;

/// The first backoff of an upstream address: about the duration of a restart.
pub const BACKOFF_MILLIS_MIN: u64 = 1_000;

/// The longest backoff; each one is twice the previous one. One request that finds the address dead each time is
/// acceptable.
pub const BACKOFF_MILLIS_MAX: u64 = 30_000;

/// The shortest connect timeout for one of several upstream addresses, unless `timeout` is shorter. Linux repeats a
/// lost SYN after a second.
pub const CONNECT_MILLIS_MIN: u64 = 1_500;

/// How long a lane sends its fragments unmerged after a merged request was refused. The sender at fault is likely to
/// send the same again.
pub const UNMERGED_SECS: u64 = 10;

/// Pause after `accept` failed for lack of descriptors or memory. An immediate retry would spin.
pub const ACCEPT_PAUSE_MILLIS: u64 = 100;

/// Connections that a core accepts one after the other before it serves others: a few milliseconds of work, if each of
/// them begins a TLS handshake.
pub const ACCEPTS_PER_TURN_MAX: u32 = 64;

/// How long to wait for the first request of a connection while draining. Its sender has just connected and most likely
/// has something to send.
pub const DRAIN_FIRST_REQUEST_MILLIS: u64 = 500;

/// Time for a ring to close a dropped descriptor, which it does when it next goes to sleep.
pub const RING_CLOSE_MILLIS: u64 = 5;

/// Size up to which the body of a request refused for lack of room is read and discarded, so that its connection can be
/// kept. A new connection costs both sides more than that. Requests of Prometheus are smaller.
pub const OVERLOAD_DISCARD_BYTES_MAX: usize = 512 << 10;

/// Size of the buffer for it.
pub const DISCARD_BUFFER_BYTES: usize = 64 << 10;

/// Descriptors reserved for other uses than inbound connections: rings, listeners, logs, operators' connections, a
/// margin.
pub const DESCRIPTORS_RESERVED: usize = 64 + ADMIN_CONNECTIONS_MAX;

/// How long startup waits for the first answer of the resolver. Afterwards requests are refused until it arrives.
pub const FIRST_RESOLUTION_SECS: u64 = 3;

/// Delay before a name that has never resolved is looked up again.
pub const UNRESOLVED_RETRY_MILLIS: u64 = 500;

/// Backlog of each core's listener. The kernel may lower it (`somaxconn`).
pub const LISTEN_BACKLOG: i32 = 4_096;

/// Inflated bytes that a core processes before it polls its sockets: about ten milliseconds. Those of JSON and gzip
/// count as more (`split/work.rs`). A single request is inflated and scanned in one go, whatever its size.
pub const TURN_BYTES_MAX: usize = 8 << 20;

/// Initial size of the buffer for a request: a head and often a small body.
pub const HEAD_BUFFER_BYTES: usize = 16_384;

/// How long a connection that we close is still read after the last answer, so that the peer reads the answer and not a
/// reset.
pub const CLOSE_DISCARD_MILLIS: u64 = 1_000;

/// How much is read during [`CLOSE_DISCARD_MILLIS`].
pub const CLOSE_DISCARD_BYTES_MAX: usize = 16 << 20;

/// Requests that one connection may have answered without waiting for its peer or an upstream. A client that pipelines
/// more must yield the core for a moment.
pub const REQUESTS_PER_TURN_MAX: u32 = 256;

/// The length of that pause: the shortest that a timer can wait.
pub const TURN_MILLIS: u64 = 1;

/// Splitters that a core keeps for its next requests. More are in use only while large requests take turns.
pub const SPLITTERS_KEPT_MAX: usize = 2;

/// Time for the end of the process beyond the deadlines of requests in flight: waiting for first requests, reading
/// after the last answer, late deadlines, and the work itself. Then it ends anyway.
pub const DRAIN_GRACE_SECS: u64 = 5;

/// How long a process may take from the end of its drain to its exit: it writes its last log lines.
pub const EXIT_SECS: u64 = 3;

/// Total size of chunk extensions and the trailer of one body. No sender of remote write uses either. Without a limit,
/// one-byte chunks with long extensions would let a small body cost gigabytes.
pub const CHUNK_EXCESS_BYTES_MAX: usize = 4096;

/// The `Retry-After` of our own 503. Requests in flight turn over in well under a second. A sender that waits longer
/// only builds up a backlog, and Prometheus backs off further by itself.
pub const OVERLOAD_RETRY_AFTER_SECS: u32 = 1;

/// Minimum space for one failing tenant's reason if many share one error body: enough for the first clause of the usual
/// Mimir and Thanos messages.
pub const REASON_BYTES_MIN: usize = 80;

/// Bytes of a label or tenant ID shown in an error text: enough to find it. The whole text has 1,024 bytes.
pub const TENANT_EXCERPT_BYTES_MAX: usize = 80;

/// Tenant labels listed in an error text. A priority list is rarely longer.
pub const TENANT_LABELS_NAMED_MAX: usize = 4;

/// Values of tenant labels whose results are cached within one request. Further values are resolved for each series.
/// Requests have few values, unless a map assigns many to one tenant.
pub const KNOWN_VALUES_MAX: usize = 16_384;

/// The longest value that is cached. A longer one cannot be an ID, and is hardly in a map.
pub const KNOWN_VALUE_BYTES_MAX: usize = 256;

/// Inflated size of a Remote Write 2.0 part up to which it may share a request: some 80 series. To merge it, its home
/// core writes all of it once more. For a larger part that takes longer than the request that it saves. So it is
/// deflated on the core that received it and sent alone, and the home core of a giant tenant has no more to do than to
/// send.
pub const MERGED_PART_BYTES_MAX: usize = 8 << 10;

/// The same for a passthrough. It is deflated already, so merging it costs more.
pub const MERGED_PASSTHROUGH_BYTES_MAX: usize = 2 << 10;

/// Series, metadata entries and unknown fields of one request, together, and pieces that resources of OTLP are taken
/// apart into. Prometheus sends 2,000 series. An empty series takes two bytes and costs us about twenty of bookkeeping.
pub const REQUEST_FIELDS_MAX: usize = 1_000_000;

/// Symbols of one Remote Write 2.0 request. 2,000 series have about 5,000. An empty symbol takes two bytes and costs us
/// about twenty of bookkeeping.
pub const REQUEST_SYMBOLS_MAX: usize = 1_000_000;

/// Unknown scalar fields at the top of a request, which are copied into every tenant's part. All known ones together
/// (Cortex' `source`, Mimir's `skip_label_name_validation`) take five bytes.
pub const REQUEST_SCALARS_BYTES_MAX: usize = 256;

/// Characters of a JSON parser's message, which may quote its input, shown in an error text.
pub const JSON_FAULT_CHARS_MAX: usize = 200;

/// Bytes that a splitter keeps of each of its buffers between requests. 2,000 series inflate to half a megabyte.
pub const SCRATCH_BYTES_MAX: usize = 4 << 20;

/// Size of a configuration file. All keys with all comments take a hundredth of it; a larger one is the wrong file.
pub const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;

/// Values in a configuration file; an alias counts as all the values that it stands for.
pub const CONFIG_NODES_MAX: usize = 100_000;

/// Nesting depth of a configuration file. Our own keys need four levels.
pub const CONFIG_DEPTH_MAX: usize = 32;

/// Fragments merged into one upstream request. Each is one piece of a vectored write, which Linux limits to 1,024
/// pieces (`IOV_MAX`); head and length take a few.
pub const MERGE_FRAGMENTS_MAX: usize = 1000;

/// The most threads for `cores`: more than the CPUs of any known machine.
pub const CORES_MAX: usize = 1024;

/// The smallest limit for a request's head: what Prometheus and one proxy send, plus a margin.
pub const HEAD_BYTES_MIN: usize = 1024;

/// Upstream statuses with a latency histogram of their own per tenant. Further statuses share one.
pub const TENANT_STATUSES_MAX: usize = 6;
/// How often the admin thread samples the counters.
pub const SAMPLE_SECS: u64 = 2;
/// Samples of the process that it keeps.
pub const HISTORY_SAMPLES: usize = 60;
/// Samples of each tenant that it keeps.
pub const TENANT_HISTORY_SAMPLES: usize = 30;
/// How long the admin thread waits for the cores' answers to a question.
pub const INQUIRY_MILLIS: u64 = 200;
/// How often it looks for them.
pub const INQUIRY_POLL_MILLIS: u64 = 2;
/// Taps that may be open at a time.
pub const TAPS_MAX: usize = 12;
/// Events that wait for the reader of a tap.
pub const TAP_EVENTS_MAX: usize = 4_096;
/// Series of one request that taps show.
pub const TAP_SERIES_MAX: usize = 200;
/// Labels of a series, at most, for taps to show it. Names of labels can be a byte long, and their list takes more.
pub const TAP_LABELS_MAX: usize = 1_000;
/// Bytes of the labels of a series that taps show.
pub const TAP_LABELS_BYTES_MAX: usize = 4_096;
/// Work that an answer of the API counts as for each tenant, in bytes.
pub const API_WORK_BYTES: usize = 200;
/// The longest time that an answer of the API is shared.
pub const API_SHARED_MILLIS_MAX: u64 = 500;
/// Bytes of all answers of the API that are shared.
pub const API_SHARED_BYTES_MAX: usize = 4 << 20;
/// How often the admin thread looks for events of a tap.
pub const TAP_POLL_MILLIS: u64 = 20;
/// Tenants that the admin thread watches for the rule that names them.
pub const RULES_WATCHED_MAX: usize = 4;
/// How long it watches one.
pub const RULE_WATCH_SECS: u64 = 5;
/// How long what it found counts, and how long it does not watch the same tenant again.
pub const RULE_KEPT_SECS: u64 = 30;
/// Errors that are kept of each tenant for those who look at it.
pub const TENANT_ERRORS_NOTED_MAX: usize = 8;
/// Senders that are kept of each tenant for those who look at it.
pub const TENANT_SENDERS_NOTED_MAX: usize = 8;
/// Bytes of the reason that are kept of each error.
pub const NOTE_BYTES_MAX: usize = 256;
/// How often a core notes a sender of a tenant, and an error of a tenant, at most.
pub const NOTE_MILLIS: u64 = 100;

/// What a fragment costs besides its bytes, as the number of inflated bytes that cost as much. Reading, splitting and
/// deflating take about 4 ns a byte, and an upstream request about 30 µs.
pub const FRAGMENT_WORK_BYTES: u64 = 8_192;

/// Histograms of tenants' durations on /metrics, up to which all their bounds are shown. One takes 2 kB.
pub const TENANT_HISTOGRAMS_FULL_MAX: usize = 1_000;

/// Senders that are counted by their address. Further senders share their counters.
pub const SENDERS_COUNTED_MAX: usize = 100;

/// Pairs of a credential and a tenant with counters of their own. Further pairs share theirs. JWTs and certificates
/// have names that an operator does not choose, so their number has no other bound.
pub const CREDENTIAL_TENANTS_MAX: usize = 1_024;

/// Tenants whose log lines are rate-limited separately. Further tenants share one allowance.
pub const LOG_TENANTS_MAX: usize = 1_024;

/// Lines that a tenant may log per window of [`LOG_WINDOW_SECS`].
pub const LOG_LINES_MAX: u32 = 5;

/// See [`LOG_LINES_MAX`].
pub const LOG_WINDOW_SECS: u64 = 10;

/// Log lines waiting to be written. At an ordinary rate a reader may lag by a second without loss, and a table of this
/// size takes about 100 kB. Further lines are dropped and counted, because no thread may block on the log's reader.
pub const LOG_QUEUE_LINES_MAX: usize = 2_048;

/// The same in bytes. A line that quotes an upstream takes a kilobyte.
pub const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;

/// How long the end of the process waits for the log to be written. A stalled reader must not block it.
pub const LOG_FLUSH_MILLIS: u64 = 1_000;

/// Operators' connections, on all admin ports together. At the limit, a new connection replaces the one that has waited
/// longest. A scrape needs its connection for a few milliseconds.
pub const ADMIN_CONNECTIONS_MAX: usize = 128;

/// Niceness of the admin thread: beside a busy core it gets about a tenth of its CPU (sched(7): weight 110 to 1024).
pub const ADMIN_NICE: i32 = 10;

/// Send buffer for answers to operators' clients. The kernel doubles it, and would otherwise grow it to megabytes. It
/// also bounds the rate over a slow link: 1 MB/s at a round trip of 100 ms.
pub const ADMIN_SEND_BUFFER_BYTES: usize = 128 << 10;

/// Memory for metrics pages that clients have not read completely. Beyond it, the clients that have been reading
/// longest are closed. With ten thousand tenants a page takes 8 MB, and there may be two of each format, besides those
/// that are compressed.
pub const ADMIN_PAGES_BYTES_MAX: usize = 64 << 20;

/// Size of an operator's request.
pub const ADMIN_HEAD_BYTES_MAX: usize = 8_192;

/// Time for an operator's client to send its request and, together with [`ADMIN_BYTES_PER_SEC_MIN`], to read the
/// answer.
pub const ADMIN_TIMEOUT_MILLIS: u64 = 2_000;

/// Time for /metrics to be rendered and compressed, in all formats and codings that are asked for at once, and for an
/// answer of the API to get its turn. Prometheus waits for ten seconds.
pub const ADMIN_METRICS_MILLIS: u64 = 10_000;

/// The minimum rate at which an operator's client must read. With ten thousand tenants the metrics take some megabytes,
/// and Prometheus itself gives up after ten seconds.
pub const ADMIN_BYTES_PER_SEC_MIN: usize = 1 << 20;

/// Threads that check passwords. bcrypt takes a whole CPU for tens of milliseconds, and passwords are remembered after
/// their first check.
pub const BCRYPT_THREADS: usize = 2;

/// Niceness of these threads: beside a busy core they get about a tenth of its CPU (sched(7): weight 110 to 1024).
pub const BCRYPT_NICE: i32 = 10;

/// The highest cost of a bcrypt hash. It takes about four seconds; each further step doubles that, and requests would
/// time out before their password is checked.
pub const BCRYPT_COST_MAX: u32 = 16;

/// Password checks that wait for a thread, of all users together. At 50 ms each and two threads they take six seconds,
/// which is as long as a request should wait.
pub const PASSWORD_CHECKS_MAX: usize = 256;

/// Password checks of one user that wait from one peer. A sender has one password, and the same check waits once.
pub const PASSWORD_CHECKS_PER_PEER_MAX: usize = 8;

/// Requests that wait for one and the same check. Prometheus sends at most 50 at once by default (`max_shards`).
pub const PASSWORD_WAITERS_MAX: usize = 4_096;

/// Wrong passwords that are remembered, at about 100 bytes. This serves senders that retry with an outdated password.
pub const PASSWORDS_WRONG_MAX: usize = 4_096;

/// Length of a password. bcrypt itself reads 72 bytes.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// Length of a user's name, and of a token's. They appear in logs and metrics.
pub const CREDENTIAL_NAME_BYTES_MAX: usize = 256;

/// Length of a bearer token. JWTs with many groups have several kilobytes. The limit for a head comes first.
pub const BEARER_BYTES_MAX: usize = 16_384;

/// The shortest bearer token. 16 characters of base64 are 96 bits, and tokens are not hashed slowly.
pub const TOKEN_BYTES_MIN: usize = 16;

/// Bearer tokens. Each request's token is compared with all of them, at a few nanoseconds each.
pub const TOKENS_MAX: usize = 4_096;

/// Keys in a JWKS. Issuers publish a handful.
pub const JWT_KEYS_MAX: usize = 64;

/// Keys that the signature of one token is tried with, if it does not name one key. Each try takes up to 100 µs of a
/// core, and tokens are free to make up. Issuers with several keys name them.
pub const JWT_KEYS_TRIED_MAX: usize = 2;

/// Difference between the clocks of issuer and server that `exp` and `nbf` allow for. RFC 7519 section 4.1.4: "usually
/// no more than a few minutes".
pub const JWT_LEEWAY_SECS: u64 = 30;

/// Valid JWTs that are remembered, at about 500 bytes. Beyond it, a signature is checked again.
pub const JWTS_REMEMBERED_MAX: usize = 16_384;

/// Spans that wait to be exported. One takes about half a kilobyte. Further ones are dropped and counted.
pub const TRACE_QUEUE_SPANS_MAX: usize = 4_096;

/// Spans in one request to the receiver, as the SDKs of OpenTelemetry have it.
pub const TRACE_BATCH_SPANS_MAX: usize = 512;

/// How long the first span of a batch waits for others.
pub const TRACE_BATCH_MILLIS: u64 = 500;

/// Parts of a traced request that have spans of their own. All parts of one request could fill the queue.
pub const TRACED_PARTS_MAX: usize = 64;
/// Time for the receiver to accept a connection, and to answer. After it the batch is dropped.
pub const TRACE_TIMEOUT_SECS: u64 = 5;

/// The end of the process waits so long for the last spans to be exported.
pub const TRACE_FLUSH_MILLIS: u64 = 1_000;

/// The least time between two log lines about spans that cannot be exported.
pub const TRACE_LOG_SECS: u64 = 60;

/// Samples of a profile in each second of a thread's CPU time, as in Go.
pub const PROFILE_HERTZ: u32 = 100;

/// The length of a profile, unless the client asks for another; as in Go.
pub const PROFILE_SECS: u64 = 30;

/// The longest profile. Go's tools ask for at most some minutes.
pub const PROFILE_SECS_MAX: u64 = 300;

/// The deepest stack that a sample holds. Those of a core have about forty frames; beyond this, the outer ones are cut.
pub const PROFILE_FRAMES_MAX: usize = 127;

/// Samples that wait to be added up. They are fetched every [`PROFILE_DRAIN_MILLIS`]; 100 busy cores take 500 in that
/// time. The table takes a megabyte, from the first profile on.
pub const PROFILE_SLOTS: usize = 1_024;

/// See [`PROFILE_SLOTS`].
pub const PROFILE_DRAIN_MILLIS: u64 = 50;

/// Different stacks of a profile. An ordinary one has hundreds; samples of stacks beyond it are only counted.
pub const PROFILE_STACKS_MAX: usize = 1 << 15;

/// Niceness of the thread that looks up symbols: beside a busy core it gets a few percent of its CPU.
pub const PROFILE_NICE: i32 = 19;

/// Time for the symbols of a profile, after which its client is closed. They take about a second on an idle machine.
pub const PROFILE_SYMBOLS_SECS: u64 = 60;

/// Length of a series selector, and of a series that is to be explained. It has to fit into an operator's request
/// ([`ADMIN_HEAD_BYTES_MAX`]).
pub const SELECTOR_BYTES_MAX: usize = 4_096;

/// Matchers of a series selector. Each is asked for each series, and may hold [`SELECTOR_PATTERN_BYTES_MAX`].
pub const SELECTOR_MATCHERS_MAX: usize = 16;

/// Memory of one compiled pattern of a series selector. A usual one takes some kilobytes; `(\w{100}){100}` takes more
/// than this.
pub const SELECTOR_PATTERN_BYTES_MAX: usize = 1 << 18;

/// Size of a captured body, or of its description, that `tenantry explain` and `tenantry plan` read: more than any
/// sensible `limits.body_bytes_max`.
pub const CAPTURE_BYTES_MAX: usize = 256 << 20;

/// Requests that `tenantry plan` reads from one directory.
pub const CAPTURES_MAX: usize = 1_000_000;

/// Different series that `tenantry plan` counts exactly, at 16 bytes each.
pub const PLAN_SERIES_MAX: usize = 10_000_000;

/// Pairs of places that `tenantry plan` keeps apart. An output of this length is not read, but may be processed.
pub const PLAN_CHANGES_MAX: usize = 100_000;
