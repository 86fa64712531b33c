//! What the cores of a process share, and what each of them starts with.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};

use super::spool::Spool;
use crate::config::plan::{Live, Plan};
use crate::core::{Endpoints, Listener, Setup};
use crate::exchange::fragment::Message;
use crate::exchange::mailbox::{Mailbox, Post};
use crate::io::driver::Driver;
use crate::metrics::Metrics;
use crate::model::PerUpstream;
use crate::shared::Shared;
use crate::shared::permits::Directory;
use crate::upstream::resolve::Addresses;

/// See the module.
pub struct Cores {
    /// The current plan.
    pub plan: Live,
    /// The state that all cores share.
    pub shared: Arc<Shared>,
    /// The metrics of the whole process.
    pub metrics: Arc<Metrics>,
    /// The posts to all cores, by number.
    pub posts: Box<[Post<Message>]>,
    /// The number of each core comes here when it has closed, and again when it has drained.
    pub done: Receiver<usize>,
    /// The number of each core comes here when it has ended, with the reason (empty after `Stop`).
    pub ended: Receiver<(usize, String)>,
    directory: Arc<Directory>,
    reports: (Sender<usize>, Sender<(usize, String)>),
    boxes: Vec<(Mailbox<Message>, UnixStream)>,
}

impl Cores {
    /// Creates what `cores` cores share that take at most `connections_max` connections together.
    ///
    /// # Errors
    /// If the process may open no more descriptors.
    pub fn new(plan: &Arc<Plan>, cores: usize, connections_max: usize) -> io::Result<Self> {
        let names = plan.upstreams.names();
        let (bytes_max, requests_max) = (plan.limits.in_flight_bytes_max, plan.concurrency);
        let metrics = Metrics::new(cores, plan.limits.tenants_max, plan.metrics_include_tenant);
        let mut boxes = Vec::with_capacity(cores);
        let mut posts = Vec::with_capacity(cores);
        for _ in 0..cores {
            let (mailbox, post, bell) = Mailbox::new()?;
            boxes.push((mailbox, bell));
            posts.push(post);
        }
        let posts: Box<[_]> = posts.into();
        let (done_by, done) = crossbeam_channel::bounded(cores);
        let (ended_by, ended) = crossbeam_channel::bounded(cores);
        Ok(Self {
            plan: Live::new(ArcSwap::new(Arc::clone(plan))),
            shared: Shared::with_upstreams(cores, bytes_max, requests_max, connections_max, names.len()),
            metrics: Arc::new(metrics.with_upstreams(&names)),
            done,
            ended,
            directory: directory(&posts, plan),
            posts,
            reports: (done_by, ended_by),
            boxes,
        })
    }

    /// What each core starts with, once: each takes its own of `listeners`.
    pub fn setups(
        &mut self,
        listeners: Vec<Vec<Listener>>,
        driver: Driver,
        addresses: &PerUpstream<Addresses>,
        spool: Option<&Spool>,
    ) -> Vec<(Setup, Endpoints)> {
        let boxes = std::mem::take(&mut self.boxes);
        let all = listeners.into_iter().zip(boxes).enumerate();
        all.map(|(core, (listeners, (mailbox, bell)))| {
            let setup = Setup {
                core,
                cpu: None,
                driver,
                posts: self.posts.clone(),
                plan: Arc::clone(&self.plan),
                shared: Arc::clone(&self.shared),
                addresses: addresses.clone(),
                directory: Arc::clone(&self.directory),
                metrics: Arc::clone(&self.metrics),
                spool: spool.map(|spool| spool.of_core(core)),
                done: self.reports.0.clone(),
                ended: self.reports.1.clone(),
            };
            (setup, Endpoints { listeners, mailbox, bell })
        })
        .collect()
    }
}

/// The permits of all upstream addresses. A freed permit goes to the mailbox of the core that waits for it.
fn directory(posts: &[Post<Message>], plan: &Plan) -> Arc<Directory> {
    let posts: Box<[_]> = posts.into();
    let (upstreams, slow_max) = (1 + plan.upstreams.iter().count(), plan.slow_connections_max());
    Directory::new(posts.len(), upstreams, plan.max_conns_per_host, slow_max, move |to, handed| {
        if let Some(post) = posts.get(to.core) {
            post.post(Message::Handed(to.upstream, Box::new(handed)));
        }
    })
}
