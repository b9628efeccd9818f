//! Which file systems write to the blocks that a file has when it is overwritten.

use std::fs::File;

/// Magic numbers of file systems that overwrite allocated blocks in place, from the kernel's
/// `linux/magic.h`: ext2, ext3 and ext4 have one, then XFS, and tmpfs.
#[cfg(target_os = "linux")]
const IN_PLACE: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

/// True if bytes of `file` that are allocated can be overwritten whatever else fills the disk.
/// False on file systems that are not known to do so.
#[cfg(target_os = "linux")]
pub(super) fn in_place(file: &File) -> bool {
    // The type differs between architectures, and the number fits into 32 bits.
    let magic = rustix::fs::fstatfs(file).map(|found| found.f_type as u64 & 0xFFFF_FFFF);
    magic.is_ok_and(|magic| IN_PLACE.contains(&magic))
}

/// Elsewhere it is not known.
#[cfg(not(target_os = "linux"))]
pub(super) fn in_place(_file: &File) -> bool {
    false
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::fs::{FaultFs, Fs, OpenMode, StdFs, map_mut};

    /// What the kernel says is mounted where `path` lies.
    fn mounted_at(path: &Path) -> String {
        let path = path.canonicalize().unwrap();
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let fields = |line: &str| {
            let mut fields = line.split(' ').skip(1).map(str::to_owned);
            Some((fields.next()?, fields.next()?))
        };
        table
            .lines()
            .filter_map(fields)
            .filter(|(mount, _)| path.starts_with(mount))
            // The later of two on one place hides the earlier.
            .max_by_key(|(mount, _)| mount.len())
            .unwrap()
            .1
    }

    #[test]
    fn what_overwrites_in_place_is_told_from_what_does_not() {
        let places = ["/tmp", "/dev/shm", "."];
        for place in places
            .map(Path::new)
            .into_iter()
            .filter(|place| place.is_dir())
        {
            let file = tempfile::tempfile_in(place).unwrap();
            let kind = mounted_at(place);
            let expected = ["ext2", "ext3", "ext4", "xfs", "tmpfs"].contains(&kind.as_str());
            assert_eq!(in_place(&file), expected, "{} is {kind}", place.display());
        }
        // A file system that is not on the list, and always there.
        assert!(!in_place(&File::open("/proc/self/mounts").unwrap()));
    }

    #[test]
    fn only_what_overwrites_in_place_is_mapped_for_writing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("f");
        let fs = StdFs::new();
        let file = fs.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[0; 4096], 0).unwrap();
        let is_in_place = in_place(&File::open(&path).unwrap());
        assert_eq!(map_mut(&*file, 4096).unwrap().is_some(), is_in_place);
        assert!(map_mut(&*file, 4097).unwrap().is_none(), "not allocated");
        let faults = FaultFs::new(Arc::new(fs));
        let file = faults.open(&path, OpenMode::ReadWrite).unwrap();
        assert!(map_mut(&*file, 4096).unwrap().is_none());
        let other = fs
            .open("/proc/self/mounts".as_ref(), OpenMode::Read)
            .unwrap();
        assert!(map_mut(&*other, 1).unwrap().is_none());
    }

    /// A file of a file system that is not on the list, that has a length, and that refuses to be
    /// mapped. Where sysfs is not mounted, or is closed to this process, there may be none.
    fn of_another_file_system() -> Option<(&'static Path, Arc<dyn crate::fs::File>)> {
        let places = [
            "/sys/kernel/uevent_seqnum",
            "/sys/devices/system/cpu/possible",
            "/sys/kernel/mm/transparent_hugepage/enabled",
        ];
        places.into_iter().map(Path::new).find_map(|path| {
            let file = StdFs::new().open(path, OpenMode::Read).ok()?;
            let is_suitable = mounted_at(path) == "sysfs" && file.len().ok()? > 0;
            is_suitable.then_some((path, file))
        })
    }

    /// Where the tests run may be a file system that is on the list.
    #[test]
    fn a_file_of_another_file_system_is_not_even_tried_to_map() {
        let Some((path, file)) = of_another_file_system() else {
            println!("there is no file of sysfs to try this with");
            return;
        };
        assert!(!in_place(&File::open(path).unwrap()));
        assert!(map_mut(&*file, 1).unwrap().is_none());
    }
}
