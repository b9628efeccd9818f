//! A future of durability.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::Result;
use crate::store::Store;
use crate::types::SeqNo;

/// Ready when a commit survives a power loss. Made by [`Db::durable`](crate::Db::durable), which
/// has an example; it keeps the store open.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct Durable {
    store: Arc<Store>,
    seq: SeqNo,
}

impl Durable {
    pub(crate) fn new(store: &Arc<Store>, seq: SeqNo) -> Self {
        Self {
            store: Arc::clone(store),
            seq,
        }
    }
}

impl Future for Durable {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.store.shared.poll_durable(self.seq, cx.waker())
    }
}
