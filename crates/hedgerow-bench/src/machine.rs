//! What a run costs the process and the machine: CPU time, memory, bytes written, disk space; and
//! what kind of machine it is.
//!
//! The figures come from `/proc`, so they exist on Linux; elsewhere they are `None`, and reports
//! leave them out. The store itself uses none of this: it is for benchmarks, which look at the
//! process and at the directory of the store under test from outside.

use std::path::Path;
use std::time::Duration;
use std::{fmt, fs};

use crate::format::counted;

/// What this process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads, in user and kernel mode.
    pub cpu: Option<Duration>,
    /// Bytes that it made the kernel send to storage: pages dirtied by writes and by memory maps,
    /// less what was truncated before it got there. Zero on a memory file system.
    pub written_bytes: Option<u64>,
    /// Bytes fetched from storage, page-cache hits not among them.
    pub fetched_bytes: Option<u64>,
}

impl Usage {
    /// The usage up to now.
    pub fn now() -> Self {
        proc::usage().unwrap_or_default()
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let bytes = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        Self {
            cpu: match (self.cpu, before.cpu) {
                (Some(now), Some(before)) => Some(now.saturating_sub(before)),
                _ => None,
            },
            written_bytes: bytes(self.written_bytes, before.written_bytes),
            fetched_bytes: bytes(self.fetched_bytes, before.fetched_bytes),
        }
    }
}

/// Touches as many bytes of memory once. The first touch of a virtual machine's memory is slow, and
/// would fall to what is measured first.
pub fn touch_memory(bytes: usize) {
    const PAGE_BYTES: usize = 4096;
    let mut memory = vec![0u8; bytes];
    for page in memory.chunks_mut(PAGE_BYTES) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}

/// Memory of this process, now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident bytes: its own memory and the pages of files that it maps.
    pub resident_bytes: u64,
    /// Resident bytes that no file backs: what the process really takes from others.
    pub anonymous_bytes: u64,
}

impl Memory {
    /// The memory now.
    pub fn now() -> Option<Self> {
        proc::memory()
    }

    /// The larger of each figure.
    pub fn max(self, other: Self) -> Self {
        Self {
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
            anonymous_bytes: self.anonymous_bytes.max(other.anonymous_bytes),
        }
    }
}

/// What a process has of the operating system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handles {
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Handles {
    /// Those of this process; `None` where the platform does not tell.
    pub fn now() -> Option<Self> {
        proc::handles()
    }
}

/// Time that the processors of the machine have worked so far, and how much of it was this
/// program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorTime {
    /// Since the machine was started.
    pub elapsed: Duration,
    /// Of all processors together, for anything but waiting; what a hypervisor gave to other
    /// machines counts as well.
    pub busy: Duration,
    /// Of this process and its children that have ended.
    pub own: Duration,
    /// How many processors the machine has.
    pub processors: usize,
}

impl ProcessorTime {
    /// The time up to now, if the platform tells.
    pub fn now() -> Option<Self> {
        proc::processor_time()
    }

    /// What others used of the processors since `before`; `None` if no time has passed.
    pub fn others_since(&self, before: &Self) -> Option<Others> {
        let spent = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64();
        let elapsed = spent(self.elapsed, before.elapsed);
        let others = spent(self.busy, before.busy) - spent(self.own, before.own);
        (elapsed > 0.0).then(|| Others {
            used: (others / elapsed).clamp(0.0, self.processors as f64),
            processors: self.processors,
        })
    }
}

/// What others used of the processors, on average over a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Others {
    /// So many processors: 0.5 is half of one.
    pub used: f64,
    /// How many the machine has.
    pub processors: usize,
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processors = counted(self.processors as u64, "processor");
        write!(f, "{:.2} of {processors}", self.used)
    }
}

impl Others {
    /// The part of the machine that others used, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.used / self.processors.max(1) as f64
    }
}

/// Bytes that the files under `path` occupy. Holes of sparse files are not counted where the
/// platform reports them.
///
/// # Errors
///
/// Those of listing a directory; a file that vanishes meanwhile counts as nothing.
pub fn disk_bytes(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            occupied_bytes(&metadata)
        };
    }
    Ok(bytes)
}

#[cfg(unix)]
fn occupied_bytes(metadata: &fs::Metadata) -> u64 {
    // stat(2) counts in units of 512 bytes, whatever the file system's block size.
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn occupied_bytes(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

/// The machine that a run was made on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Logical processors that this process may use.
    pub cores: usize,
    /// Main memory, in bytes; 0 if unknown.
    pub memory_bytes: u64,
    /// The operating system and its kernel's version.
    pub system: String,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        Self {
            cpu: proc::cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: proc::memory_bytes().unwrap_or(0),
            system: match proc::kernel() {
                Some(kernel) => format!("{} {kernel}", std::env::consts::OS),
                None => std::env::consts::OS.to_owned(),
            },
        }
    }
}

/// How busy the machine was in the last minute: processes that ran, or waited for a processor or a
/// disk, on average.
pub fn load_average() -> Option<f64> {
    proc::load_average()
}

/// The kind of file system that `dir` is on, as the system calls it: `ext4`, `tmpfs`.
pub fn file_system(dir: &Path) -> Option<String> {
    proc::file_system(&dir.canonicalize().ok()?)
}

/// What Linux says in `/proc`.
#[cfg(target_os = "linux")]
mod proc {
    use std::path::Path;
    use std::time::Duration;

    use procfs::process::Process;
    use procfs::{
        CpuInfo, Current as _, CurrentSI as _, KernelStats, LoadAverage, Meminfo, Uptime,
    };

    use super::{Handles, Memory, ProcessorTime, Usage};

    pub(super) fn handles() -> Option<Handles> {
        let process = Process::myself().ok()?;
        Some(Handles {
            // The look itself needs one.
            descriptors: process.fd_count().ok()?.saturating_sub(1) as u64,
            threads: process.stat().ok()?.num_threads.try_into().ok()?,
        })
    }

    fn ticks(ticks: u64) -> Duration {
        Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second().max(1) as f64)
    }

    pub(super) fn usage() -> Option<Usage> {
        let process = Process::myself().ok()?;
        let io = process.io().ok();
        let stat = process.stat().ok();
        Some(Usage {
            cpu: stat.map(|stat| ticks(stat.utime + stat.stime)),
            written_bytes: io
                .as_ref()
                .map(|io| io.write_bytes.saturating_sub(io.cancelled_write_bytes)),
            fetched_bytes: io.as_ref().map(|io| io.read_bytes),
        })
    }

    pub(super) fn memory() -> Option<Memory> {
        let pages = Process::myself().ok()?.statm().ok()?;
        let page_bytes = procfs::page_size();
        Some(Memory {
            resident_bytes: pages.resident * page_bytes,
            anonymous_bytes: pages.resident.saturating_sub(pages.shared) * page_bytes,
        })
    }

    pub(super) fn cpu_model() -> Option<String> {
        let info = CpuInfo::current().ok()?;
        Some(info.model_name(0)?.trim().to_owned())
    }

    pub(super) fn memory_bytes() -> Option<u64> {
        Some(Meminfo::current().ok()?.mem_total)
    }

    pub(super) fn kernel() -> Option<String> {
        let name = rustix::system::uname();
        Some(name.release().to_str().ok()?.to_owned())
    }

    pub(super) fn load_average() -> Option<f64> {
        Some(LoadAverage::current().ok()?.one.into())
    }

    pub(super) fn processor_time() -> Option<ProcessorTime> {
        let stats = KernelStats::current().ok()?;
        let own = Process::myself().ok()?.stat().ok()?;
        let of_children = u64::try_from(own.cutime + own.cstime).ok()?;
        let total = &stats.total;
        // The time of guests is within that of users.
        let busy = [total.user, total.nice, total.system].into_iter();
        let interrupts = [total.irq, total.softirq, total.steal]
            .into_iter()
            .flatten();
        let up = Uptime::current().ok()?.uptime;
        Some(ProcessorTime {
            elapsed: Duration::try_from_secs_f64(up).ok()?,
            busy: ticks(busy.chain(interrupts).sum()),
            own: ticks(own.utime + own.stime + of_children),
            processors: stats.cpu_time.len(),
        })
    }

    pub(super) fn file_system(dir: &Path) -> Option<String> {
        let mounts = Process::myself().ok()?.mountinfo().ok()?;
        // The innermost mount counts, and of those on the same place the last.
        let mounts = mounts.0.into_iter();
        let above = mounts.filter(|mount| dir.starts_with(&mount.mount_point));
        let innermost = above.max_by_key(|mount| mount.mount_point.components().count())?;
        Some(innermost.fs_type)
    }
}

/// Other systems say nothing in this way.
#[cfg(not(target_os = "linux"))]
mod proc {
    use std::path::Path;

    use super::{Handles, Memory, ProcessorTime, Usage};

    pub(super) fn handles() -> Option<Handles> {
        None
    }

    pub(super) fn processor_time() -> Option<ProcessorTime> {
        None
    }

    pub(super) fn usage() -> Option<Usage> {
        None
    }

    pub(super) fn memory() -> Option<Memory> {
        None
    }

    pub(super) fn cpu_model() -> Option<String> {
        None
    }

    pub(super) fn memory_bytes() -> Option<u64> {
        None
    }

    pub(super) fn kernel() -> Option<String> {
        None
    }

    pub(super) fn load_average() -> Option<f64> {
        None
    }

    pub(super) fn file_system(_dir: &Path) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_bytes_follow_the_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(disk_bytes(dir.path()).unwrap(), 0);
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![1; 100_000]).unwrap();
        let bytes = disk_bytes(dir.path()).unwrap();
        // Some file systems allocate late, none more than a few blocks too much.
        assert!(bytes <= 200_000, "{bytes}");
        assert!(disk_bytes(&dir.path().join("absent")).is_err());
    }

    /// The kernel's own counters are the reference; only what is certain at any speed is asserted.
    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_measured() {
        let before = Usage::now();
        let touched = vec![1u8; 8 << 20];
        std::hint::black_box(&touched);
        let used = Usage::now().since(&before);
        assert!(used.cpu.is_some() && used.written_bytes.is_some() && used.fetched_bytes.is_some());
        let memory = Memory::now().unwrap();
        assert!(memory.anonymous_bytes <= memory.resident_bytes);
        assert!(memory.anonymous_bytes >= touched.len() as u64, "{memory:?}");
        let machine = Machine::this();
        assert!(machine.cores >= 1 && machine.memory_bytes > 0 && !machine.cpu.is_empty());
        assert!(load_average().unwrap() >= 0.0);
        let time = ProcessorTime::now().unwrap();
        assert!(time.processors >= 1 && time.own <= time.busy, "{time:?}");
        // What is read later is not less.
        let later = ProcessorTime::now().unwrap();
        assert!(later.busy >= time.busy && later.elapsed >= time.elapsed);
        assert_eq!(
            file_system(Path::new("/proc/self/")).as_deref(),
            Some("proc")
        );
        assert_eq!(file_system(Path::new("/no such directory")), None);
    }

    #[test]
    fn what_others_used_is_what_this_program_did_not() {
        let seconds = Duration::from_secs;
        let before = ProcessorTime {
            elapsed: seconds(1000),
            busy: seconds(900),
            own: seconds(5),
            processors: 4,
        };
        let after = |elapsed: u64, busy: u64, own: u64| ProcessorTime {
            elapsed: seconds(1000 + elapsed),
            busy: seconds(900 + busy),
            own: seconds(5 + own),
            processors: 4,
        };
        let others = after(10, 25, 10).others_since(&before).unwrap();
        assert_eq!((others.used, others.share()), (1.5, 0.375));
        // Alone, and by the grain of the clocks a little more than that.
        assert_eq!(after(10, 8, 9).others_since(&before).unwrap().used, 0.0);
        assert_eq!(after(1, 9, 0).others_since(&before).unwrap().share(), 1.0);
        assert_eq!(before.others_since(&before), None);
    }

    #[test]
    fn usage_is_the_difference_of_two_looks() {
        let (before, after) = (
            Usage {
                cpu: Some(Duration::from_secs(1)),
                written_bytes: Some(100),
                fetched_bytes: None,
            },
            Usage {
                cpu: Some(Duration::from_secs(3)),
                written_bytes: Some(90),
                fetched_bytes: Some(7),
            },
        );
        let used = after.since(&before);
        assert_eq!(used.cpu, Some(Duration::from_secs(2)));
        // A file that was truncated takes back what had been counted.
        assert_eq!((used.written_bytes, used.fetched_bytes), (Some(0), None));
    }
}
