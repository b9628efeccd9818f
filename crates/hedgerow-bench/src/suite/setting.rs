//! The circumstances of a run: what a reader must know to trust it, or to repeat it.

use std::path::Path;

use hedgerow::{Compression, Durability};

use super::plan::Plan;
use crate::conditions::Conditions;
use crate::format::{bytes, counted, thousands};
use crate::machine::Machine;

/// The circumstances of a run.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The command line.
    pub command: String,
    /// Version of hedgerow.
    pub version: String,
    /// The machine.
    pub machine: Machine,
    /// Where the stores were, and how busy the machine was.
    pub conditions: Conditions,
    /// The parameters in words: name and value.
    pub parameters: Vec<(&'static str, String)>,
    /// When it was run, in seconds since 1970.
    pub unix_time_s: u64,
}

impl Setting {
    /// The circumstances of a run of `plan` that begins now, with stores under `dir`. `command`
    /// repeats it; `program` is what else is to be said of the program.
    pub fn now(plan: &Plan, dir: &Path, command: String, program: &[(&'static str, &str)]) -> Self {
        let machine = Machine::this();
        let conditions = Conditions::now(dir);
        let version = concat!("hedgerow ", env!("CARGO_PKG_VERSION")).to_owned();
        let build = if cfg!(debug_assertions) {
            "debug build: figures mean nothing"
        } else {
            "release build"
        };
        let mut parameters = vec![
            ("data", data(plan)),
            ("stores", stores(plan, dir)),
            ("rounds", rounds(plan)),
            ("machine", machine_text(&machine)),
            ("conditions", conditions.to_text()),
            ("version", format!("{version}, {build}")),
        ];
        let program = program.iter();
        parameters.extend(program.map(|&(name, value)| (name, value.to_owned())));
        if let Some(limit) = plan.memory_limit_bytes {
            parameters.push((
                "memory",
                format!("limited to {}, page cache included", bytes(limit)),
            ));
        }
        if let Some(rate) = plan.params.rate_per_s {
            let rate = format!(
                "{} operations a second offered; latency counts from when each was due",
                thousands(rate as u64)
            );
            parameters.push(("rate", rate));
        }
        let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            command,
            version,
            machine,
            conditions,
            parameters,
            unix_time_s: since_1970.as_secs(),
        }
    }
}

fn data(plan: &Plan) -> String {
    let params = &plan.params;
    format!(
        "{}, {} keys of {} bytes, values of {} bytes that compress to {:.0} %: {}",
        counted(params.records, "record"),
        params.key_shape,
        params.key_len_bytes,
        params.values,
        params.compressed_fraction * 100.0,
        bytes(params.live_bytes()),
    )
}

fn stores(plan: &Plan, dir: &Path) -> String {
    let target = &plan.target;
    let durability = match target.durability {
        Durability::Sync => "sync",
        Durability::Buffered => "buffered",
    };
    let compression = match target.compression {
        Compression::Lz4 => "LZ4 where a store compresses",
        Compression::None => "no compression",
        _ => "zstd where a store has it",
    };
    format!(
        "{durability} commits, cache {} MiB, write buffer {} MiB, {compression}, in {}",
        target.cache_bytes >> 20,
        target.write_buffer_bytes >> 20,
        dir.display(),
    )
}

fn rounds(plan: &Plan) -> String {
    let params = &plan.params;
    format!(
        "{}, in turns, each in a process and a store of its own; {}; at most {} s for what is not \
         a fill; seed {}",
        plan.rounds,
        counted(params.threads as u64, "thread"),
        params.duration.map_or(0.0, |limit| limit.as_secs_f64()),
        params.seed,
    )
}

fn machine_text(machine: &Machine) -> String {
    format!(
        "{}, {}, {} of memory, {}",
        machine.cpu,
        counted(machine.cores as u64, "core"),
        bytes(machine.memory_bytes),
        machine.system,
    )
}
