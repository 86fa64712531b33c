//! Types whose values are a few fixed words.
#![forbid(unsafe_code)]

use tracing::level_filters::LevelFilter;

use super::{Value, Written};
use crate::config::excerpt::found;
use crate::log::LogFormat;
use crate::model::{Compression, MetadataRule, TargetCoding, V2Handling};
use crate::tenant::Policy;
use crate::tls::names::ClientAuth;

/// A type whose values are a few fixed words.
trait Choice: Copy + PartialEq + 'static {
    /// The names of each value. The first name of a value is the one shown.
    const WORDS: &'static [(&'static str, Self)];
    /// The names listed in an error.
    const WANTED: &'static str;
}

impl<T: Choice> Value for T {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let text = written.text()?;
        let word = T::WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        word.map(|(_, value)| *value).ok_or_else(|| format!("{} is none of {}", found(text), T::WANTED))
    }

    fn show(&self) -> String {
        let word = T::WORDS.iter().find(|(_, value)| value == self);
        word.map_or_else(String::new, |(name, _)| (*name).to_owned())
    }

    fn is_zero(&self) -> bool {
        false
    }
}

/// The names are those of logrus. Nothing is logged at `fatal` or `panic` here, so both mean `error`.
impl Choice for LevelFilter {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("trace", Self::TRACE),
        ("debug", Self::DEBUG),
        ("info", Self::INFO),
        ("warn", Self::WARN),
        ("warning", Self::WARN),
        ("error", Self::ERROR),
        ("fatal", Self::ERROR),
        ("panic", Self::ERROR),
    ];
    const WANTED: &'static str = "trace, debug, info, warn, error";
}

impl Choice for ClientAuth {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("verify_if_given", Self::VerifyIfGiven), ("require", Self::Require)];
    const WANTED: &'static str = "none, verify_if_given, require";
}

/// The setting `driver`; [`crate::io::driver`] finds out what works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring if the kernel allows it, else epoll.
    Auto,
    /// Only io_uring; startup fails without it.
    IoUring,
    /// Always epoll.
    Epoll,
}

impl Choice for DriverChoice {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("io_uring", Self::IoUring), ("epoll", Self::Epoll)];
    const WANTED: &'static str = "auto, io_uring, epoll";
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json), ("journald", Self::Journald)];
    const WANTED: &'static str = "auto, text, json, journald";
}

/// The setting `spool.fsync`: when what was written is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// Every second. A crash of the machine, not of the process, may lose what was acknowledged in that time.
    Interval,
}

/// The setting `spool.when`: which parts are spooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolWhen {
    /// Those that the upstream has failed to take, and all that come behind them.
    Failing,
    /// All.
    Always,
}

impl Choice for Fsync {
    const WORDS: &'static [(&'static str, Self)] = &[("always", Self::Always), ("interval", Self::Interval)];
    const WANTED: &'static str = "always, interval";
}

impl Choice for SpoolWhen {
    const WORDS: &'static [(&'static str, Self)] = &[("failing", Self::Failing), ("always", Self::Always)];
    const WANTED: &'static str = "failing, always";
}

/// The setting `tenant.id_rules` as written; [`crate::config::plan`] resolves it to [`crate::tenant::IdRules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum IdRulesChoice {
    /// By the tenant header: Mimir's rules for X-Scope-OrgID, VictoriaMetrics' for its two headers, else those of
    /// Thanos.
    Auto,
    /// Rules of Mimir.
    Mimir,
    /// Rules of Thanos.
    Thanos,
    /// Rules of VictoriaMetrics.
    VictoriaMetrics,
}

impl Choice for IdRulesChoice {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("mimir", Self::Mimir),
        ("thanos", Self::Thanos),
        ("victoriametrics", Self::VictoriaMetrics),
    ];
    const WANTED: &'static str = "auto, mimir, thanos, victoriametrics";
}

/// What happens to Remote Write 2.0; `None` refuses it.
impl Choice for Option<V2Handling> {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pass", Some(V2Handling::Pass)), ("downgrade", Some(V2Handling::Downgrade)), ("refuse", None)];
    const WANTED: &'static str = "pass, downgrade, refuse";
}

impl Choice for TargetCoding {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("as-received", Self::AsReceived),
        ("gzip", Self::Always(Compression::Gzip)),
        ("zstd", Self::Always(Compression::Zstd)),
        ("snappy", Self::Always(Compression::Snappy)),
        ("none", Self::Always(Compression::Identity)),
    ];
    const WANTED: &'static str = "as-received, gzip, zstd, snappy, none";
}

impl Choice for Policy {
    const WORDS: &'static [(&'static str, Self)] = &[("reject", Self::Reject), ("drop", Self::Drop)];
    const WANTED: &'static str = "reject, drop";
}

impl Value for MetadataRule {
    fn read(written: Written<'_>) -> Result<Self, String> {
        let text = written.text()?;
        if text == "route" {
            return Ok(Self::Route);
        }
        match bool::read(written) {
            Ok(forwarded) => Ok(if forwarded { Self::ToDefault } else { Self::Drop }),
            Err(_) => Err(format!("{} is none of false, true and route", found(text))),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Drop => "false",
            Self::ToDefault => "true",
            Self::Route => "route",
        }
        .to_owned()
    }

    fn is_zero(&self) -> bool {
        *self == Self::Drop
    }
}
