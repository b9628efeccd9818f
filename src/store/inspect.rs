//! What a store looks like: its own files, the log, and the keyspaces.

use super::keyspaces::OpenKeyspace;
use super::recovery::LOG_DIR;
use super::shared::Shared;
use crate::engine::{InspectDetail, Inspection};
use crate::error::Result;
use crate::options::EngineKind;
use crate::wal::{SegmentFacts, SegmentState, segments_in};

impl Shared {
    /// The catalogue, the WAL manifest, the log and all keyspaces, one after the other. Without the
    /// store's random number: two stores that were used alike look alike.
    pub(crate) fn inspect(&self, detail: InspectDetail) -> Result<Inspection> {
        let mut store = Inspection::new("store", "")
            .number("published_seq", self.snapshot_tracker.published().0)
            .with([
                self.of_catalog(),
                self.of_wal_manifest(),
                self.of_log(detail)?,
            ]);
        if self.values.has_value_files() {
            store.parts.push(self.of_values());
        }
        for open in self.keyspaces.all().iter() {
            store.parts.push(open.inspect(detail)?);
        }
        Ok(store)
    }

    fn of_catalog(&self) -> Inspection {
        let catalog = self.catalog.lock();
        let entries = catalog.current().entries().map(|entry| {
            // What is not set in the catalogue is a default.
            let options = entry.options.clone().with_defaults();
            let number = |option: Option<u64>| option.unwrap_or_default();
            let part = Inspection::new("entry", &entry.name)
                .number("id", entry.id.0.into())
                .text("engine", options.engine);
            match options.engine {
                EngineKind::Lsm => part
                    .number(
                        "block_size_bytes",
                        number(options.block_size_bytes.map(u64::from)),
                    )
                    .number("table_size_bytes", number(options.table_size_bytes))
                    .text("compression", options.compression.unwrap_or_default()),
                EngineKind::BTree => part.number(
                    "page_size_bytes",
                    number(options.page_size_bytes.map(u64::from)),
                ),
            }
        });
        Inspection::new("catalogue", "")
            .number("next_id", catalog.current().next_id().into())
            .number("seq", catalog.current().seq.0)
            .number("stored_seq", catalog.stored().seq.0)
            .with(entries)
    }

    fn of_wal_manifest(&self) -> Inspection {
        let open = self.wal_manifest.lock();
        let manifest = &open.content;
        let watermarks = manifest.watermarks.iter().map(|(id, seq)| {
            Inspection::new("watermark", "")
                .number("keyspace", id.0.into())
                .number("persisted_seq", seq.0)
        });
        Inspection::new("wal_manifest", "")
            .number("first_seq", manifest.first.0)
            .number("end_seq", manifest.end.0)
            .number("catalogue_seq", manifest.catalog.0)
            .with(watermarks)
    }

    fn of_values(&self) -> Inspection {
        let figures = self.value_figures();
        let parts = figures.value_files().map(|file| {
            let part = Inspection::new("value_file", format_args!("{:016x}.val", file.number))
                .number("bytes", file.len_bytes)
                .number("referred_bytes", figures.referred_in(file));
            match file.is_collected {
                true => part.text("state", "collected"),
                false => part,
            }
        });
        let parts: Vec<_> = parts.collect();
        Inspection::new("values", "")
            .number("files", parts.len() as u64)
            .with(parts)
    }

    fn of_log(&self, detail: InspectDetail) -> Result<Inspection> {
        let fs = &*self.options.fs;
        let with_records = detail >= InspectDetail::Tables;
        let segments = segments_in(fs, &self.dir.join(LOG_DIR), self.store_id, with_records)?;
        let part = Inspection::new("log", "").number("segments", segments.len() as u64);
        // A store that is open read-only has no log that goes on.
        let part = match self.coordinator.log() {
            Some(log) => part
                .number("appended_seq", log.appended_seq().0)
                .number("synced_seq", log.synced_seq().0),
            None => part,
        };
        Ok(part.with(segments.iter().map(of_segment)))
    }
}

impl OpenKeyspace {
    /// As [`crate::engine::Engine::inspect`].
    pub(crate) fn inspect(&self, detail: InspectDetail) -> Result<Inspection> {
        Ok(Inspection::new("keyspace", &*self.name())
            .text("engine", self.options.engine())
            .with(self.engine.inspect(detail)?))
    }
}

fn of_segment(segment: &SegmentFacts) -> Inspection {
    let part = Inspection::new("segment", &segment.name);
    let state = |state: &str| part.clone().text("state", state);
    let part = match &segment.state {
        SegmentState::Spare => state("spare"),
        SegmentState::Prepared => state("prepared"),
        SegmentState::Damaged(what) => state("damaged").text("damage", what),
        SegmentState::Used {
            first,
            synced,
            records,
        } => {
            let part = state("used")
                .number("first_seq", first.0)
                .number("synced_before_seq", synced.0);
            match records {
                Some(records) => part
                    .number("records", records.count)
                    .number("last_seq", records.last.0)
                    .number("used_bytes", records.end_bytes),
                None => part,
            }
        }
    };
    part.number("bytes", segment.len_bytes)
}
