//! The operating system's file system.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fork::Owner;
use super::map::{MapFile, MapSource, Mapping, MappingMut};
#[cfg(target_os = "linux")]
use super::uncached::UncachedFile;
#[cfg(all(target_os = "linux", not(miri)))]
use super::writeback;
use super::{File, Fs, FsLock, LockMode, OpenMode, explain_link, lock, name_taken, overwrites};
use crate::error::{Error, Result};
use crate::util::mutants::mutated;

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct StdFs {
    /// The process that opened a store on it; anyone may use it, if there is none.
    owner: Option<Owner>,
}

impl StdFs {
    /// The operating system's file system.
    pub fn new() -> Self {
        Self { owner: None }
    }

    /// Refuses changes in a child of the process that it is for.
    fn check_process(&self) -> Result<()> {
        match &self.owner {
            _ if mutated!("forked-child-changes-names") => Ok(()),
            Some(owner) => owner.check(),
            None => Ok(()),
        }
    }

    fn open_std(&self, path: &Path, mode: OpenMode) -> Result<StdFile> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                self.check_process()?;
                options.write(true).create_new(true);
            }
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
            options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        }
        let op = if mode == OpenMode::CreateNew {
            "create"
        } else {
            "open"
        };
        let file = options
            .open(path)
            .map_err(|e| Error::io(op, path, explain_link(e)))?;
        Ok(StdFile {
            file,
            #[cfg(target_os = "linux")]
            uncached: None,
            path: path.to_path_buf(),
            owner: self.owner.unwrap_or_else(Owner::this_process),
        })
    }
}

impl Fs for StdFs {
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        std::path::absolute(path).map_err(|e| Error::io("open", path, e))
    }

    fn for_this_process(&self) -> Option<Arc<dyn Fs>> {
        Some(Arc::new(Self {
            owner: Some(Owner::this_process()),
        }))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        Ok(Arc::new(self.open_std(path, mode)?))
    }

    fn open_uncached(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = self.open_std(path, OpenMode::Read)?;
        #[cfg(target_os = "linux")]
        let file = StdFile {
            uncached: UncachedFile::open(path).map_err(|e| Error::io("open", path, e))?,
            ..file
        };
        Ok(Arc::new(file))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.check_process()?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt;
            builder.mode(0o700);
        }
        builder
            .create(path)
            .map_err(|e| Error::io("create directory", path, e))
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        let failed = |e| Error::io("read directory", path, e);
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("stat", path, e)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.check_process()?;
        fs::rename(from, to).map_err(|e| Error::io("rename", from, e))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.check_process()?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            use rustix::io::Errno;
            match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => return Err(name_taken(to)),
                // The kernel or the file system has no such rename.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                Err(e) => return Err(Error::io("rename", from, e.into())),
            }
        }
        if self.exists(to)? {
            return Err(name_taken(to));
        }
        self.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.check_process()?;
        fs::remove_file(path).map_err(|e| Error::io("remove", path, e))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.check_process()?;
        fs::remove_dir(path).map_err(|e| Error::io("remove directory", path, e))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.check_process()?;
        // Windows cannot open a directory for syncing and journals names itself.
        #[cfg(unix)]
        fs::File::open(path)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| Error::io("sync directory", path, e))?;
        #[cfg(not(unix))]
        let _ = path;
        Ok(())
    }

    fn lock(&self, path: &Path, mode: LockMode) -> Result<Box<dyn FsLock>> {
        self.check_process()?;
        lock::lock(path, mode)
    }

    fn lock_dir(&self, path: &Path) -> Result<Option<Box<dyn FsLock>>> {
        lock::lock_dir(path)
    }
}

#[derive(Debug)]
struct StdFile {
    file: fs::File,
    /// Reads go here, if there is one.
    #[cfg(target_os = "linux")]
    uncached: Option<UncachedFile>,
    path: PathBuf,
    owner: Owner,
}

impl StdFile {
    #[cfg(unix)]
    fn read_exact_raw(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(uncached) = &self.uncached {
            return uncached.read_exact_at(buf, offset);
        }
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, offset)
    }

    #[cfg(unix)]
    fn write_all_raw(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, buf, offset)
    }

    #[cfg(windows)]
    fn read_exact_raw(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        use std::os::windows::fs::FileExt;
        while !buf.is_empty() {
            match self.file.seek_read(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    #[cfg(windows)]
    fn write_all_raw(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        use std::os::windows::fs::FileExt;
        while !buf.is_empty() {
            match self.file.seek_write(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    buf = &buf[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl File for StdFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        self.file
            .metadata()
            .map(|m| m.len())
            .map_err(|e| Error::io("stat", &self.path, e))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.read_exact_raw(buf, offset)
            .map_err(|e| Error::io_at("read", &self.path, offset, e))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.owner.check()?;
        self.write_all_raw(buf, offset)
            .map_err(|e| Error::io_at("write", &self.path, offset, e))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.owner.check()?;
        self.file
            .set_len(len)
            .map_err(|e| Error::io_at("set length", &self.path, len, e))
    }

    fn sync_data(&self) -> Result<()> {
        self.owner.check()?;
        self.file
            .sync_data()
            .map_err(|e| Error::io("sync", &self.path, e))
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    fn start_writeback(&self, offset: u64, len: u64) -> Result<()> {
        self.owner.check()?;
        writeback::start(&self.file, offset, len)
            .map_err(|e| Error::io_at("begin to write", &self.path, offset, e))
    }

    #[cfg(target_os = "linux")]
    fn is_in_memory(&self, offset: u64) -> Option<bool> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        if self.uncached.is_some() {
            return None;
        }
        let mut byte = [0];
        let mut to = [io::IoSliceMut::new(&mut byte)];
        match preadv2(&self.file, &mut to, offset, ReadWriteFlags::NOWAIT) {
            Ok(1) => Some(true),
            Err(Errno::AGAIN) => Some(false),
            // It ends there, or is on a file system that cannot tell.
            Ok(_) | Err(_) => None,
        }
    }

    fn map_source(&self) -> Option<MapSource<'_>> {
        Some(MapSource::new(self))
    }
}

impl MapFile for StdFile {
    fn map(&self, len: u64) -> Result<Option<Mapping>> {
        let Ok(len_native) = usize::try_from(len) else {
            return Ok(None);
        };
        if len == 0 {
            return Ok(None);
        }
        let actual = self.len()?;
        if len > actual {
            return Err(Error::corruption(
                &self.path,
                actual,
                format!("the file has {actual} bytes where {len} are needed"),
            ));
        }
        Mapping::new(&self.file, len_native)
            .map(Some)
            .map_err(|e| Error::io("map", &self.path, e))
    }

    fn map_mut(&self, len: u64) -> Result<Option<MappingMut>> {
        self.owner.check()?;
        let Ok(len_native) = usize::try_from(len) else {
            return Ok(None);
        };
        if len == 0 || len > self.len()? {
            return Ok(None);
        }
        if !mutated!("log-mapped-everywhere") && !overwrites::in_place(&self.file) {
            return Ok(None);
        }
        MappingMut::new(&self.file, len_native)
            .map(Some)
            .map_err(|e| Error::io("map", &self.path, e))
    }
}
