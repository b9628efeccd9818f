//! File systems that wrap another one and look at how files are opened and used.

/// The methods of [`Fs`](hedgerow::fs::Fs) that are about names, passed on to the field that is
/// named. What such a wrapper says itself is how files are opened.
#[macro_export]
macro_rules! forward_names {
    ($inner:ident) => {
        fn create_dir_all(&self, path: &std::path::Path) -> hedgerow::Result<()> {
            self.$inner.create_dir_all(path)
        }
        fn read_dir(&self, path: &std::path::Path) -> hedgerow::Result<Vec<String>> {
            self.$inner.read_dir(path)
        }
        fn exists(&self, path: &std::path::Path) -> hedgerow::Result<bool> {
            self.$inner.exists(path)
        }
        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> hedgerow::Result<()> {
            self.$inner.rename(from, to)
        }
        fn remove_file(&self, path: &std::path::Path) -> hedgerow::Result<()> {
            self.$inner.remove_file(path)
        }
        fn remove_dir(&self, path: &std::path::Path) -> hedgerow::Result<()> {
            self.$inner.remove_dir(path)
        }
        fn sync_dir(&self, path: &std::path::Path) -> hedgerow::Result<()> {
            self.$inner.sync_dir(path)
        }
        fn lock(
            &self,
            path: &std::path::Path,
            mode: hedgerow::fs::LockMode,
        ) -> hedgerow::Result<Box<dyn hedgerow::fs::FsLock>> {
            self.$inner.lock(path, mode)
        }
    };
}
