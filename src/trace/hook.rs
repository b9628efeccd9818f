//! What a handle calls when it has read.

use std::sync::Arc;

use super::format;
use super::recorder::Recorder;
use crate::format::coding::put_varint;
use crate::kv::ScanObserver;
use crate::types::{KeyRange, KeyspaceId, Value};

impl Recorder {
    /// Hook for the reads of a keyspace.
    #[inline]
    pub(crate) fn hook(self: &Arc<Self>, keyspace: KeyspaceId, of_snapshot: bool) -> Hook<'_> {
        Hook {
            recorder: self,
            keyspace: keyspace.0,
            of_snapshot,
        }
    }
}

/// What a handle calls when it has read: the recorder, and the keyspace that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook<'a> {
    recorder: &'a Arc<Recorder>,
    keyspace: u32,
    of_snapshot: bool,
}

impl Hook<'_> {
    fn tag(&self, kind: u8) -> u8 {
        kind | if self.of_snapshot {
            format::OF_SNAPSHOT
        } else {
            0
        }
    }

    /// A key was looked up for its value.
    pub(crate) fn get(&self, key: &[u8], value_len_bytes: Option<usize>) {
        if !self.recorder.shared.samples_key(key) {
            return;
        }
        let hit = value_len_bytes.map_or(0, |_| format::HIT);
        let tag = self.tag(format::GET) | hit;
        self.recorder.event(tag, |out, coder| {
            put_varint(out, u64::from(self.keyspace));
            coder.key(out, key);
            if let Some(len) = value_len_bytes {
                put_varint(out, len as u64);
            }
        });
    }

    /// A key was looked up without its value.
    pub(crate) fn contains(&self, key: &[u8], found: bool) {
        if !self.recorder.shared.samples_key(key) {
            return;
        }
        let hit = if found { format::HIT } else { 0 };
        let tag = self.tag(format::GET) | format::KEY_ONLY | hit;
        self.recorder.event(tag, |out, coder| {
            put_varint(out, u64::from(self.keyspace));
            coder.key(out, key);
        });
    }

    /// Several keys were looked up.
    pub(crate) fn multi_get(&self, keys: &[&[u8]], values: &[Option<Value>]) {
        let shared = &*self.recorder.shared;
        let lookups = keys.iter().zip(values);
        let sampled = lookups.filter(|(key, _)| shared.samples_key(key));
        let tag = self.tag(format::MULTI_GET);
        self.recorder
            .list(tag, Some(self.keyspace), sampled, |out, coder, item| {
                let (key, value) = item;
                coder.lookup(out, key, value.as_ref().map(|value| value.len()));
            });
    }

    /// A scan begins; it is recorded when the probe is dropped. `None` if it is not sampled.
    pub(crate) fn scan(&self, range: &KeyRange) -> Option<Box<dyn ScanObserver>> {
        let shared = &*self.recorder.shared;
        if !shared.samples_key(&range.start) {
            return None;
        }
        Some(Box::new(ScanProbe {
            recorder: Arc::clone(self.recorder),
            tag: self.tag(format::SCAN),
            keyspace: self.keyspace,
            range: range.clone(),
            opened_us: shared.now_us(),
            forward: 0,
            backward: 0,
            bytes: 0,
            seeks: 0,
        }))
    }
}

/// Counts what a scan takes, and records it when the scan is dropped.
#[derive(Debug)]
struct ScanProbe {
    recorder: Arc<Recorder>,
    tag: u8,
    keyspace: u32,
    range: KeyRange,
    opened_us: u64,
    forward: u64,
    backward: u64,
    bytes: u64,
    seeks: u64,
}

impl ScanObserver for ScanProbe {
    fn forward(&mut self, len_bytes: usize) {
        self.forward += 1;
        self.bytes += len_bytes as u64;
    }

    fn backward(&mut self, len_bytes: usize) {
        self.backward += 1;
        self.bytes += len_bytes as u64;
    }

    fn seek(&mut self) {
        self.seeks += 1;
    }
}

impl Drop for ScanProbe {
    fn drop(&mut self) {
        let end = self.range.end.as_deref();
        let tag = self.tag | end.map_or(0, |_| format::HAS_END);
        let open_us = self.recorder.shared.now_us() - self.opened_us;
        self.recorder.event(tag, |out, coder| {
            put_varint(out, u64::from(self.keyspace));
            coder.key(out, &self.range.start);
            if let Some(end) = end {
                coder.key(out, end);
            }
            for figure in [self.forward, self.backward, self.bytes, self.seeks, open_us] {
                put_varint(out, figure);
            }
        });
    }
}
