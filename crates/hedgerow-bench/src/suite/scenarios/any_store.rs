//! Trade-off runs that any store can do.

use std::time::Instant;

use ::hedgerow::Durability;

use super::run::{Figure, Run, figure, milliseconds, workload};
use crate::data::is_value_of;
use crate::dataset::DataSet;
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::permutation::Permutation;
use crate::rng::Rng;
use crate::runner::run as run_workload;
use crate::suite::disk_space;
use crate::targets::{Target, TargetOptions};
use crate::verdict::Unit;

impl Run<'_> {
    /// Runs workloads in order on one store.
    fn workloads<const N: usize>(&self, names: [&str; N]) -> Result<[Outcome; N]> {
        let dir = self.store_dir("store")?;
        let target = (self.contestant.open)(&dir, &self.options)?;
        let mut data = DataSet::new(&self.params)?;
        let mut outcomes = Vec::with_capacity(N);
        for name in names {
            disk_space::settle_disk(&dir);
            outcomes.push(run_workload(&*target, &dir, &workload(name)?, &mut data)?);
        }
        Ok(outcomes.try_into().expect("one for each name"))
    }

    pub(super) fn value_size(&self) -> Result<Vec<Figure>> {
        let names = ["fillrandom", "readrandom", "overwrite"];
        let [fill, read, overwrite] = self.workloads(names)?;
        let mut figures = vec![
            figure(
                "fill",
                "fillrandom, settled",
                Unit::PerSecond,
                fill.settled_ops_per_s(),
            ),
            figure("read", "readrandom", Unit::PerSecond, read.ops_per_s()),
            figure(
                "overwrite",
                "overwrite, settled",
                Unit::PerSecond,
                overwrite.settled_ops_per_s(),
            ),
        ];
        let amplifications = [
            (
                "write_amplification",
                "write amplification of overwrite",
                overwrite.write_amplification(),
            ),
            (
                "space_amplification",
                "space amplification",
                overwrite.space_amplification(),
            ),
        ];
        for (id, label, amplification) in amplifications {
            if let Some(amplification) = amplification {
                figures.push(figure(id, label, Unit::Times, amplification));
            }
        }
        Ok(figures)
    }

    pub(super) fn memory_ratio(&self) -> Result<Vec<Figure>> {
        // In order: the random fill of a store larger than memory has no end; see `overwrite`.
        let names = [
            "fillseq",
            "readrandom",
            "seekrandom",
            "overwrite",
            "readrandom",
        ];
        let [fill, read, seek, overwrite, reread] = self.workloads(names)?;
        let mut figures = vec![
            figure(
                "fill",
                "fillseq, settled",
                Unit::PerSecond,
                fill.settled_ops_per_s(),
            ),
            figure("read", "readrandom", Unit::PerSecond, read.ops_per_s()),
            figure("seek", "seekrandom", Unit::PerSecond, seek.ops_per_s()),
            figure(
                "overwrite",
                "overwrite, settled",
                Unit::PerSecond,
                overwrite.settled_ops_per_s(),
            ),
            figure(
                "reread",
                "readrandom, after overwrite",
                Unit::PerSecond,
                reread.ops_per_s(),
            ),
        ];
        if let Some(fetched) = read.device_read_bytes {
            let each = fetched as f64 / read.ops.max(1) as f64;
            figures.push(figure(
                "fetched",
                "fetched per readrandom",
                Unit::Bytes,
                each,
            ));
        }
        if let Some(amplification) = overwrite.write_amplification() {
            figures.push(figure(
                "write_amplification",
                "write amplification of overwrite",
                Unit::Times,
                amplification,
            ));
        }
        Ok(figures)
    }

    fn open_for_kill(&self) -> Result<Box<dyn Target>> {
        // Whatever the plan says: durable commits would leave nothing to lose.
        let options = TargetOptions {
            durability: Durability::Buffered,
            ..self.options
        };
        (self.contestant.open)(&self.store_dir("killed")?, &options)
    }

    /// Puts every record once, in random order. The store stays open: a kill closes nothing.
    pub(super) fn write_to_be_killed(&self) -> Result<Box<dyn Target>> {
        let target = self.open_for_kill()?;
        let data = DataSet::new(&self.params)?;
        let order = Permutation::new(self.params.records, self.params.seed);
        let mut rng = Rng::new(self.params.seed);
        let (mut key, mut value) = (data.keys().buffer(), Vec::new());
        for number in 0..self.params.records {
            data.keys().write(order.at(number), &mut key);
            data.values().write(&key, &mut rng, &mut value);
            target.put(&key, &value)?;
        }
        Ok(target)
    }

    /// Opens what [`write_to_be_killed`](Self::write_to_be_killed) left in a process that was
    /// killed.
    pub(super) fn open_killed(&self) -> Result<Vec<Figure>> {
        let began = Instant::now();
        let target = self.open_for_kill()?;
        let opened = milliseconds(began);
        let data = DataSet::new(&self.params)?;
        let mut key = data.keys().buffer();
        let mut lost = 0u64;
        for number in 0..self.params.records {
            data.keys().write(number, &mut key);
            let mut right = true;
            let found = target.get(&key, &mut |value| right = is_value_of(&key, value))?;
            if !right {
                return Err(Error::wrong(format!(
                    "key {} has a value never written, after a kill",
                    key.escape_ascii()
                )));
            }
            lost += u64::from(!found);
        }
        Ok(vec![
            figure("open", "open after a kill", Unit::Milliseconds, opened),
            figure("lost", "puts lost to the kill", Unit::Count, lost as f64),
        ])
    }
}
