//! The spool's settings: what is kept on disk while an upstream does not store it.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use super::keys::Config;
use super::value::{Fsync, SpoolWhen};

/// The paths of the settings, in the order in which they are shown.
pub(super) const PATHS: [&str; 8] = [
    "spool.dir",
    "spool.bytes_max",
    "spool.tenant_bytes_max",
    "spool.age_max",
    "spool.fsync",
    "spool.when",
    "spool.on_429",
    "spool.dead_letter",
];

/// What is kept on disk, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// The folder of its files.
    pub dir: PathBuf,
    /// The most that the files may hold. At least [`SPOOL_BYTES_MIN`].
    pub bytes_max: u64,
    /// The most that one tenant's parts may hold.
    pub tenant_bytes_max: u64,
    /// No more parts of a tenant are taken while its oldest is older than this. Never 0.
    pub age_max: Duration,
    /// When what was written is made durable.
    pub fsync: Fsync,
    /// Which parts go into it.
    pub when: SpoolWhen,
    /// Whether parts that the upstream answers with 429 go into it, too.
    pub on_429: bool,
    /// Where parts go that the upstream refuses for good; `None`: they are dropped.
    pub dead_letter: Option<PathBuf>,
}

/// The smallest spool: two segments, so that one can be given back while the other is written.
const SPOOL_BYTES_MIN: usize = 64 << 20;

/// What is wrong, and with which setting.
pub(super) enum Wrong {
    Bytes(String),
    TenantBytes(String),
    Dir(String),
}

/// Reads the settings. `None`: nothing is spooled.
pub(super) fn spool(config: &Config) -> Result<Option<Spool>, Wrong> {
    let path = |text: &str| Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty());
    let (bytes_max, tenant_bytes_max) =
        (config.spool_bytes_max.value.0, config.spool_tenant_bytes_max.value.0);
    let Some(dir) = path(&config.spool_dir.value) else { return Ok(None) };
    if config.tenant_accept_all.value {
        return Err(Wrong::Dir(
            "with tenant.accept_all, senders are not told what is lost, so there is nothing to keep: switch one of \
             the two off"
                .into(),
        ));
    }
    if bytes_max < SPOOL_BYTES_MIN {
        return Err(Wrong::Bytes(format!("must be at least {}Mi", SPOOL_BYTES_MIN >> 20)));
    }
    if tenant_bytes_max > bytes_max {
        return Err(Wrong::TenantBytes("must not be more than spool.bytes_max".into()));
    }
    Ok(Some(Spool {
        dir,
        bytes_max: bytes_max as u64,
        tenant_bytes_max: tenant_bytes_max as u64,
        age_max: config.spool_age_max.value,
        fsync: config.spool_fsync.value,
        when: config.spool_when.value,
        on_429: config.spool_on_429.value,
        dead_letter: path(&config.spool_dead_letter.value),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn told(text: &str) -> String {
        parse("f", text, []).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn without_a_folder_nothing_is_spooled() {
        assert_eq!(parse("f", "spool: {bytes_max: 1}", []).unwrap().spool, None);
    }

    #[test]
    fn a_folder_is_enough() {
        let spool = parse("f", "spool: {dir: /var/lib/tenantry/spool}", []).unwrap().spool.unwrap();
        assert_eq!((spool.fsync, spool.when, spool.on_429), (Fsync::Always, SpoolWhen::Failing, false));
        assert!(spool.tenant_bytes_max <= spool.bytes_max && spool.dead_letter.is_none());
    }

    #[test]
    fn what_cannot_work_is_refused_at_its_key() {
        assert!(
            told("spool: {dir: d, bytes_max: 1Mi, tenant_bytes_max: 1}")
                .starts_with("f:1: spool.bytes_max: ")
        );
        let text = "spool: {dir: d, bytes_max: 64Mi, tenant_bytes_max: 65Mi}";
        assert!(told(text).starts_with("f:1: spool.tenant_bytes_max: "));
        let text = "tenant: {accept_all: true}\nspool: {dir: d}";
        assert!(told(text).starts_with("f:2: spool.dir: "));
        assert!(told("spool: {dir: d, fsync: never}").contains("none of always, interval"));
        assert!(told("spool: {dir: d, age_max: 0s}").starts_with("f:1: spool.age_max: "));
    }
}
