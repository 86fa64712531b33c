//! Reads certificates, keys and secrets again when their files change, without a signal: cert-manager and its like
//! renew them as they see fit. On a dead mount, looking never returns, so this has a thread of its own.
//!
//! A file counts as changed when it is another one, by its inode, or has another size or time. Symbolic links are
//! followed, as Kubernetes swaps a link to a folder. A change is acted upon when two looks in a row have found the
//! same, so that a certificate and its key that are written one after the other are read together.
//!
//! The files are also read once for each new plan. They may have changed after a reload had read them and before its
//! plan was live: then the change would be in neither.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::config::plan::{FilesRead, Live, Plan};
use crate::limits::{TLS_INSECURE_WARNING_SECS, WATCHED_FILES_MILLIS};
use crate::metrics::Reloads;

/// What was read when files had changed.
#[derive(Debug)]
pub(super) struct ReadFiles {
    /// The plan that was live then.
    pub(super) running: Arc<Plan>,
    /// The same with what the files have now, and what is wrong with them.
    pub(super) read: FilesRead,
}

/// Logs and counts what was found in the files. `is_used`: the plan with the changes is in use.
pub(super) fn report(read: &FilesRead, is_used: bool, reloads: &Reloads) {
    for (what, found, done, refused) in [
        (
            "the files of TLS or authentication",
            &read.security,
            &reloads.certificates,
            &reloads.certificates_refused,
        ),
        ("the files of secrets", &read.secrets, &reloads.secrets, &reloads.secrets_refused),
    ] {
        // Otherwise the configuration was read meanwhile, and the files with it.
        if found.changed && is_used {
            tracing::warn!("{what} have changed and were read again");
            done.add(1);
        }
        if !found.mistakes.is_empty() {
            found.mistakes.iter().for_each(|mistake| tracing::error!("{mistake}"));
            tracing::error!("{what} have changed and have mistakes: the old ones stay in use");
            refused.add(1);
        }
    }
}

/// The thread that looks at the files. Dropping this ends it.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Receives the results.
    pub(super) read: Receiver<ReadFiles>,
    _stop: Sender<()>,
}

/// What tells one version of a file from another.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The versions of all files.
type Stamps = Vec<(PathBuf, Stamp)>;

impl Watcher {
    /// Starts to watch the files of the plan that is live.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start(plan: Live) -> std::io::Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (sender, read) = crossbeam_channel::bounded(1);
        std::thread::Builder::new()
            .name("files".into())
            .spawn(move || watch(&plan, &sender, &stopped, Duration::from_millis(WATCHED_FILES_MILLIS)))?;
        Ok(Self { read, _stop: stop })
    }
}

fn watch(plan: &Live, sender: &Sender<ReadFiles>, stopped: &Receiver<()>, interval: Duration) {
    let mut last = stamps(&plan.load());
    // The files when they were read last, and for which plan.
    let mut last_read: Option<(Stamps, Arc<Plan>)> = None;
    let mut warned = Instant::now();
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let plan = plan.load_full();
        if plan.is_insecure() && warned.elapsed() >= Duration::from_secs(TLS_INSECURE_WARNING_SECS) {
            warned = Instant::now();
            tracing::warn!("an upstream's certificate is not verified (insecure_skip_verify)");
        }
        let now = stamps(&plan);
        let has_settled = now == std::mem::replace(&mut last, now.clone());
        let is_read = last_read.as_ref().is_some_and(|(stamps, of)| *stamps == now && Arc::ptr_eq(of, &plan));
        if !has_settled || is_read {
            continue;
        }
        last_read = Some((now, Arc::clone(&plan)));
        let read = plan.read_files_again();
        if read.security.is_quiet() && read.secrets.is_quiet() {
            continue;
        }
        if sender.send(ReadFiles { running: plan, read }).is_err() {
            return;
        }
    }
}

fn stamps(plan: &Plan) -> Stamps {
    let stamp = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    plan.watched_files().into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use testkit::pki::{Authority, Wanted};

    use super::*;

    fn put(folder: &std::path::Path) {
        let issued = Authority::new("ca").unwrap().issue(&Wanted::server(&["localhost"])).unwrap();
        std::fs::write(folder.join("cert.pem"), issued.certificate).unwrap();
        std::fs::write(folder.join("key.pem"), issued.key).unwrap();
    }

    fn plan(folder: &std::path::Path) -> Arc<Plan> {
        let at = |name: &str| folder.join(name).display().to_string();
        let (cert, key) = (at("cert.pem"), at("key.pem"));
        let text = format!("auth: {{ingress: {{tls_config: {{cert_file: '{cert}', key_file: '{key}'}}}}}}");
        Arc::new(crate::config::parse("f", &text, []).unwrap_or_else(|mistakes| panic!("{mistakes}")))
    }

    #[test]
    fn a_change_before_a_plan_is_live_is_found() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path());
        let live = Live::new(ArcSwap::new(plan(folder.path())));
        // The files change after they were read, and before the watcher looks at them.
        put(folder.path());
        let (sender, read) = crossbeam_channel::bounded(1);
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let watched = Arc::clone(&live);
        let thread =
            std::thread::spawn(move || watch(&watched, &sender, &stopped, Duration::from_millis(10)));
        // It may look between the two files that `put` writes, and then tells of a mistake first.
        let found =
            || while read.recv_timeout(Duration::from_secs(5)).expect("it is found").read.plan.is_none() {};
        found();
        // A reload has read the files, and they change before its plan is live.
        let late = plan(folder.path());
        put(folder.path());
        found();
        live.store(late);
        found();
        live.store(plan(folder.path()));
        assert!(read.recv_timeout(Duration::from_millis(200)).is_err(), "nothing has changed");
        drop(stop);
        thread.join().unwrap();
    }
}
