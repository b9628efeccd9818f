//! Control groups of Linux: how much memory this process may use, and a group of its own with less
//! for the processes that measure.
//!
//! Data that is larger than memory is where engines differ most, and a machine's whole memory
//! takes hours to exceed. A group with a limit shows the same in minutes, because the page cache
//! counts towards the limit. Both versions of control groups are understood; making a group takes
//! the rights of root, or a part of the tree that was delegated to the user.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::bytes;

/// Which version of control groups, and so the names of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    V1,
    V2,
}

impl Kind {
    fn limit_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    /// The file that counts processes killed for lack of memory, as `oom_kill`.
    fn kills_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.oom_control",
            Self::V2 => "memory.events",
        }
    }
}

/// Where the control group of this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    kind: Kind,
    mount: PathBuf,
    own: PathBuf,
}

/// Finds the places of this process, from `/proc/self/mountinfo` and `/proc/self/cgroup`: of the
/// memory controller of version 1, if it is mounted, and of version 2.
fn places(mounts: &str, groups: &str) -> Vec<Place> {
    let of_kind = |kind| {
        let path = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = match kind {
                Kind::V1 => controllers.split(',').any(|name| name == "memory"),
                Kind::V2 => controllers.is_empty(),
            };
            is_it.then_some(path)
        })?;
        let (root, mount) = mounts.lines().find_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mut system = system.split(' ');
            let (name, options) = (system.next()?, system.nth(1)?);
            let is_it = match kind {
                Kind::V1 => name == "cgroup" && options.split(',').any(|name| name == "memory"),
                Kind::V2 => name == "cgroup2",
            };
            let mut fields = mount.split(' ').skip(3);
            is_it.then_some((fields.next()?, fields.next()?))
        })?;
        // In a container the mount may show a part of the tree, while the path may count from its
        // top.
        let below = Path::new(path).strip_prefix(root);
        let below = below.or_else(|_| Path::new(path).strip_prefix("/"));
        Some(Place {
            kind,
            mount: PathBuf::from(mount),
            own: Path::new(mount).join(below.ok()?),
        })
    };
    [Kind::V1, Kind::V2]
        .into_iter()
        .filter_map(of_kind)
        .collect()
}

fn places_here() -> Vec<Place> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// The memory that the control group of this process may use, page cache included: less than the
/// machine's in a container, or under `systemd-run -p MemoryMax=...`. `None` if nothing limits it.
pub fn limit_bytes() -> Option<u64> {
    // The tightest of the group's own limit and those of the groups around it.
    let limits = places_here().into_iter().flat_map(|place| {
        let around: Vec<PathBuf> = place
            .own
            .ancestors()
            .take_while(|dir| dir.starts_with(&place.mount))
            .map(|dir| dir.join(place.kind.limit_file()))
            .collect();
        around
    });
    limits
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|limit| limit.trim().parse().ok())
        .min()
}

/// A control group with a memory limit. Removed when dropped, after its processes have ended.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    kind: Kind,
    limit_bytes: u64,
}

impl Group {
    /// Makes a group whose processes may use `limit_bytes` of memory together.
    pub fn with_limit(limit_bytes: u64) -> Result<Self> {
        let refuse = |why: &dyn Display| {
            Error::failed(format!(
                "a memory limit needs a control group of Linux, which cannot be made here: {why}; run \
                 it as root, or without --memory-limit-mib under `systemd-run --scope -p \
                 MemoryMax={limit_bytes} -p MemorySwapMax=0`"
            ))
        };
        let place = places_here()
            .into_iter()
            .find(|place| place.own.join(place.kind.limit_file()).exists() || place.is_top())
            .ok_or_else(|| refuse(&"no memory controller is mounted"))?;
        let home = place.home();
        let failed = |what: &str, path: &Path, error: std::io::Error| {
            refuse(&format!("{what} {}: {error}", path.display()))
        };
        if place.kind == Kind::V2 {
            let file = home.join("cgroup.subtree_control");
            let enabled = fs::read_to_string(&file).unwrap_or_default();
            if !enabled.split_whitespace().any(|name| name == "memory") {
                fs::write(&file, "+memory").map_err(|error| failed("writing", &file, error))?;
            }
        }
        let dir = home.join(format!("hedgerow-bench-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| failed("making", &dir, error))?;
        let group = Self {
            dir,
            kind: place.kind,
            limit_bytes,
        };
        let file = group.dir.join(place.kind.limit_file());
        fs::write(&file, limit_bytes.to_string())
            .map_err(|error| failed("writing", &file, error))?;
        // Memory that is swapped out would not count. Without swap there is no such file.
        let _ = match place.kind {
            Kind::V1 => fs::write(group.dir.join("memory.swappiness"), "0"),
            Kind::V2 => fs::write(group.dir.join("memory.swap.max"), "0"),
        };
        Ok(group)
    }

    /// What a process is given to [`join`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Why a process of the group was killed, if it was for lack of memory.
    pub fn killed_for(&self) -> Option<String> {
        let text = fs::read_to_string(self.dir.join(self.kind.kills_file())).ok()?;
        (kills_in(&text)? > 0).then(|| {
            format!(
                "it needed more memory than the limit of {}: lower --cache-mib and \
                 --write-buffer-mib, or raise the limit",
                bytes(self.limit_bytes)
            )
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has just ended may still be on its way out.
        for _ in 0..20 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Place {
    fn is_top(&self) -> bool {
        self.own == self.mount
    }

    /// Where a new group goes. In version 2 a group with processes has no groups below it that are
    /// limited, but for the one at the top: there the new one goes beside this process's own.
    fn home(&self) -> &Path {
        match self.kind {
            Kind::V2 if !self.is_top() => self.own.parent().unwrap_or(&self.mount),
            _ => &self.own,
        }
    }
}

/// The figure after `oom_kill`.
fn kills_in(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

/// Puts this process in the group at `dir`.
pub fn join(dir: &Path) -> Result<()> {
    let file = dir.join("cgroup.procs");
    fs::write(&file, std::process::id().to_string())
        .map_err(|source| Error::io("joining the control group", &file, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "\
30 29 0:25 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
31 29 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn both_versions_are_found() {
        let found = places(BOTH, "4:memory:/a/b\n1:cpu:/\n0::/c\n");
        let [v1, v2] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(v1.kind, Kind::V1);
        assert_eq!(v1.own, Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(v1.home(), v1.own);
        assert_eq!(v2.kind, Kind::V2);
        assert_eq!(v2.own, Path::new("/sys/fs/cgroup/unified/c"));
        assert_eq!(v2.home(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(places("", "4:memory:/a\n0::/\n"), []);
        assert_eq!(places(BOTH, ""), []);
    }

    #[test]
    fn a_mount_may_show_a_part_of_the_tree() {
        let mounts = "9 8 0:1 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = places(mounts, "0::/docker/x/y\n");
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/y"));
        let found = places(mounts, "0::/\n");
        assert!(found[0].is_top());
        assert_eq!(found[0].home(), Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn kills_are_read_from_both_versions() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v2 = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n";
        assert_eq!((kills_in(v1), kills_in(v2)), (Some(3), Some(1)));
        assert_eq!(kills_in("oom 1\n"), None);
    }
}
