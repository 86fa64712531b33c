//! One connection of a sink: what it counts and stores of each request, and what it answers.

use std::net::TcpStream;
use std::sync::Arc;

use prost::Message;
use testkit::upstream::{self, Admission, Reply, Request, Storing};

use super::Shared;
use super::export::Export;
use super::script::{Approach, Arrival};
use super::stats::TenantCount;
use super::store::Delivery;
use crate::account::{Tally, walk};
use crate::destination::Destination;
use crate::http::{HttpError, RequestHead};
use crate::proto::inflate;
use crate::translate::{Unreadable, from_loki, from_v2};

/// Gives each connection its session.
pub(super) struct Service(pub(super) Arc<Shared>);

impl upstream::Service for Service {
    fn connect(&self, connection: u64, _stream: &TcpStream) -> Box<dyn upstream::Session> {
        let shared = Arc::clone(&self.0);
        shared.counts().connections += 1;
        Box::new(Session { shared, connection, inflated: Vec::new(), told: None })
    }
}

/// A connection, with the buffer that it keeps from request to request.
struct Session {
    shared: Arc<Shared>,
    connection: u64,
    inflated: Vec<u8>,
    /// What is stored and about to be told so, if an account wants to know.
    told: Option<Delivery>,
}

/// A good request: its tenant's header, and what it adds to the tenant's counts if it is stored.
struct Counted {
    tenant: String,
    adds: TenantCount,
}

/// Whether a request says to be Remote Write 2.0.
fn is_v2(head: &RequestHead) -> bool {
    head.headers.get("content-type").is_some_and(|value| value.contains("io.prometheus.write.v2.Request"))
}

/// The reply, with what was written of the request (Remote Write 2.0 specification, "Required Written Response
/// Headers").
fn tell_written(reply: Reply, tally: &Tally) -> Reply {
    let Tally { samples, histograms, exemplars, .. } = tally;
    reply
        .header("X-Prometheus-Remote-Write-Samples-Written", &samples.to_string())
        .header("X-Prometheus-Remote-Write-Histograms-Written", &histograms.to_string())
        .header("X-Prometheus-Remote-Write-Exemplars-Written", &exemplars.to_string())
}

impl upstream::Session for Session {
    fn admit(&mut self, head: &RequestHead) -> Admission {
        let Some(script) = self.shared.config.script.as_ref().filter(|_| head.method == "POST") else {
            return Admission::Read;
        };
        let tenant = self.tenant(head);
        script.admit(&Approach { tenant: tenant.as_deref() })
    }

    fn answer(&mut self, request: &Request<'_>) -> Reply {
        if request.head.method != "POST" {
            return self.page(request.head);
        }
        let reply = match self.count(request) {
            Ok(counted) => {
                let tally = counted.adds.stored;
                let reply = self.settle(request, counted);
                if is_v2(request.head) && reply.is_success() { tell_written(reply, &tally) } else { reply }
            }
            Err(why) => {
                self.note_broken(&why);
                Reply::new(400, &why)
            }
        };
        match Export::of(request.head) {
            Some(export) => export.worded(reply),
            None => reply,
        }
    }

    fn sent(&mut self, is_sent: bool) {
        if let Some(delivery) = self.told.take().filter(|_| !is_sent) {
            self.shared.untell(&delivery);
        }
    }

    fn broken(&mut self, error: &HttpError) {
        self.note_broken(&error.to_string());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.let_go(Some(self.connection));
    }
}

impl Session {
    /// What a sink says to a GET.
    fn page(&self, head: &RequestHead) -> Reply {
        match head.path.as_str() {
            "/" | "/alive" => Reply::new(
                200,
                "a loadgen sink; its counts are at /stats, its full account, if kept, at /account\n",
            ),
            "/stats" => {
                let counts = self.shared.counts().clone();
                json(&counts)
            }
            "/account" => match self.shared.account() {
                Some(account) => json(&account),
                None => Reply::new(404, "this sink keeps no full account: it was not asked to\n"),
            },
            _ => Reply::new(404, "no such page\n"),
        }
    }

    /// Inflates and walks the body.
    fn count(&mut self, request: &Request<'_>) -> Result<Counted, String> {
        let tenant = self.tenant(request.head).ok_or("no tenant header")?;
        match Export::of(request.head) {
            Some(export) => export.inflate(request.head, request.body, &mut self.inflated)?,
            None => inflate(request.body, &mut self.inflated).map_err(|error| error.to_string())?,
        }
        self.translate(request.head).map_err(|error| error.to_string())?;
        self.count_under(tenant)
    }

    /// Turns what is no Remote Write 1.0 into that, so that one walk serves all.
    fn translate(&mut self, head: &RequestHead) -> Result<(), Unreadable> {
        let request = if is_v2(head) {
            from_v2(&self.inflated)?
        } else if let Some(export) = Export::of(head) {
            export.read(&self.inflated)?
        } else if Destination::of(&head.path) == Destination::Logs {
            from_loki(&self.inflated)?
        } else {
            return Ok(());
        };
        self.inflated = request.encode_to_vec();
        Ok(())
    }

    /// Walks the inflated body, as one that comes under this tenant's header.
    fn count_under(&self, tenant: String) -> Result<Counted, String> {
        let config = &self.shared.config;
        // A header without the prefix matches no label, so every series with a label is misplaced.
        let expected = tenant.strip_prefix(config.prefix.as_str()).map(str::as_bytes);
        let mut adds = TenantCount::default();
        adds.metadata = walk(&self.inflated, &config.tenant_labels, |series| {
            adds.stored += series.tally;
            adds.misplaced += u64::from(series.tenant.is_some_and(|label| Some(label) != expected));
        })
        .map_err(|error| error.to_string())?;
        Ok(Counted { tenant, adds })
    }

    fn tenant(&self, head: &RequestHead) -> Option<String> {
        let mut names = self.shared.config.tenant_headers.iter();
        names.find_map(|name| head.headers.get(name)).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// Asks the script, waits as long as it says, and stores; the answer may leave after that.
    fn settle(&mut self, request: &Request<'_>, counted: Counted) -> Reply {
        let (nth, nth_of_tenant) = {
            let mut counts = self.shared.counts();
            counts.requests += 1;
            let nth = counts.requests;
            let count = counts.tenants.entry(counted.tenant.clone()).or_default();
            count.requests += 1;
            count.bytes += request.body.len() as u64;
            (nth, count.requests)
        };
        let mut reply = match &self.shared.config.script {
            None => Reply::default(),
            Some(script) => script.answer(&Arrival {
                tenant: &counted.tenant,
                destination: Destination::of(&request.head.path),
                headers: &request.head.headers,
                connection: self.connection,
                nth_of_tenant,
                nth,
                body: request.body,
                inflated: &self.inflated,
            }),
        };
        // It is stored when it is answered, and not before.
        request.pause(std::mem::take(&mut reply.delay));
        if reply.stores() {
            self.store(request, counted, &reply);
        } else if let Some(count) = self.shared.counts().tenants.get_mut(&counted.tenant) {
            count.refused += 1;
        }
        reply
    }

    /// Stores a request in the way that its script says.
    fn store(&mut self, request: &Request<'_>, counted: Counted, reply: &Reply) {
        // Only an account wants to know, and asking costs a system call.
        let is_told = self.shared.store.keeps_account() && reply.is_success() && request.is_heard();
        let delivery = |counted: Counted| Delivery {
            is_told,
            tenant: counted.tenant,
            count: counted.adds,
            decoded: self.shared.store.decode(&self.inflated),
        };
        match &reply.storing {
            Storing::Once => {
                let delivery = delivery(counted);
                self.shared.store(&delivery, self.connection);
                self.told = Some(delivery).filter(|delivery| delivery.is_told);
            }
            Storing::Twice => {
                let delivery = delivery(counted);
                self.shared.store(&delivery, self.connection);
                self.shared.store(&delivery, self.connection);
            }
            // What was walked once can be walked again.
            Storing::Under(tenant) => {
                if let Ok(counted) = self.count_under(tenant.clone()) {
                    self.shared.store(&delivery(counted), self.connection);
                }
            }
            Storing::AfterNext => self.shared.store_after_next(delivery(counted), self.connection),
        }
    }

    fn note_broken(&self, why: &str) {
        let mut counts = self.shared.counts();
        counts.broken += 1;
        counts.broken_why = Some(why.to_owned());
    }
}

/// A page for programs.
fn json(page: &impl serde::Serialize) -> Reply {
    match serde_json::to_string(page) {
        Ok(json) => Reply::new(200, &json).header("Content-Type", "application/json"),
        Err(error) => Reply::new(500, &error.to_string()),
    }
}
