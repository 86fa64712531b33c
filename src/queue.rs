//! Between the cores: what travels, and how it gets there.
//!
//! Design constraints:
//! - Ingest and egress never see each other. What one has for the other goes through here, also on one core.
//! - No waker and no lock crosses a thread. A sleeping core is woken by a byte on its doorbell, which it reads
//!   through its own ring like any other descriptor.
//! - Nothing here can grow without a bound: a [`mailbox`] holds no more than its senders may have in flight, and
//!   the bytes behind the messages are charged to the [`budget`].

pub mod budget;
pub mod commons;
pub mod exchange;
pub mod fragment;
pub mod mailbox;
pub mod pace;
pub mod permits;
pub mod receipt;
pub mod slow;
