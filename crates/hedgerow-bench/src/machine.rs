//! What a run costs the process and the machine: CPU time, memory, bytes written, disk space.
//!
//! The figures come from `/proc`, so they exist on Linux; elsewhere they are `None`, and reports
//! leave them out. The store itself uses none of this: it is for benchmarks, which look at the
//! process and at the directory of the store under test from outside.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Clock ticks per second of the times in `/proc/self/stat`: `USER_HZ`, which is 100 on every
/// architecture that Rust supports.
const TICKS_PER_SECOND: u64 = 100;

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
        let io = fs::read_to_string("/proc/self/io").ok();
        let io = |field| io.as_deref().and_then(|text| field_of(text, field));
        Self {
            cpu: fs::read_to_string("/proc/self/stat")
                .ok()
                .and_then(|stat| cpu_time(&stat)),
            written_bytes: io("write_bytes:")
                .map(|written| written.saturating_sub(io("cancelled_write_bytes:").unwrap_or(0))),
            fetched_bytes: io("read_bytes:"),
        }
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
        let status = fs::read_to_string("/proc/self/status").ok()?;
        Some(Self {
            resident_bytes: field_of(&status, "VmRSS:")? << 10,
            anonymous_bytes: field_of(&status, "RssAnon:")? << 10,
        })
    }

    /// The larger of each figure.
    pub fn max(self, other: Self) -> Self {
        Self {
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
            anonymous_bytes: self.anonymous_bytes.max(other.anonymous_bytes),
        }
    }
}

/// The number after `field` in a file of `field value` lines.
fn field_of(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The CPU time in a line of `/proc/self/stat`.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The second field is the name of the program, in brackets, and may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SECOND,
    ))
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
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(": "))
            .map_or(std::env::consts::ARCH, |(_, name)| name);
        let kernel = read("/proc/sys/kernel/osrelease");
        Self {
            cpu: cpu.trim().into(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field_of(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) << 10,
            system: format!("{} {}", std::env::consts::OS, kernel.trim()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_survives_odd_program_names() {
        let stat = "42 (a ) b) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 100";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("42 (short) R 1"), None);
        assert_eq!(cpu_time(""), None);
    }

    #[test]
    fn fields_are_found_by_name() {
        let text = "VmPeak:  9 kB\nVmRSS:\t  1234 kB\n";
        assert_eq!(field_of(text, "VmRSS:"), Some(1234));
        assert_eq!(field_of(text, "RssAnon:"), None);
    }

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

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_measured() {
        let before = Usage::now();
        let mut sum = 0u64;
        while Usage::now().since(&before).cpu.unwrap() < Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let memory = Memory::now().unwrap();
        assert!(memory.anonymous_bytes <= memory.resident_bytes);
        let machine = Machine::this();
        assert!(machine.cores >= 1 && machine.memory_bytes > 0 && !machine.cpu.is_empty());
    }
}
