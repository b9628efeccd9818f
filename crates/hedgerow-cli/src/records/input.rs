//! The bytes of a file or of standard input, decompressed.
//!
//! A thread of its own reads, so that the command never waits for bytes without end: while none
//! come it looks whether it was interrupted, and after [`IDLE_AFTER`] it says that the input is
//! idle.

use std::fs;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use hedgerow_bench::stop;
use indicatif::ProgressBar;
use lz4_flex::frame::FrameDecoder;

use crate::failure::{Failure, Result};

/// A source of bytes, as it is.
pub type File = Box<dyn Read + Send>;
/// A source of bytes, decompressed.
pub type Input = Box<dyn Read>;

/// Bytes that are read at once, at most.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait to be used, at most.
const CHUNKS_AHEAD: usize = 4;
/// How often a command that waits for input looks whether it was interrupted.
const POLL: Duration = Duration::from_millis(50);
/// An input is idle if nothing came for so long.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// Opens a file, or standard input for `-`.
pub fn open(path: &Path) -> Result<File> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = fs::File::open(path).map_err(|source| Failure::io("opening", path, source))?;
    if path.is_dir() {
        return Err(Failure::error(format!("{} is a directory", path.display())));
    }
    Ok(Box::new(file))
}

/// The length of a file in bytes; `None` for standard input, pipes and devices.
pub fn length(path: &Path) -> Option<u64> {
    let meta = path.metadata().ok()?;
    (path != Path::new("-") && meta.is_file()).then_some(meta.len())
}

/// Opens a file of records, or standard input for `-`, as [`decompressed`].
pub fn open_records(path: &Path, progress: &ProgressBar) -> Result<Input> {
    decompressed(open(path)?, path, progress, || true)
}

/// Counts the bytes read from `file`, which is at `path`, on `progress`, and decompresses what is
/// compressed with gzip or LZ4. Calls `idle` when no input came for a while: once, until more
/// comes; reading ends with an error if it returns false.
pub fn decompressed(
    file: File,
    path: &Path,
    progress: &ProgressBar,
    idle: impl FnMut() -> bool + 'static,
) -> Result<Input> {
    let chunks = Chunks::start(progress.wrap_read(file), Box::new(idle))?;
    decompress(chunks).map_err(|failure| failure.context(path.display().to_string()))
}

/// How compressed files begin, and what they are.
const COMPRESSED: [(&[u8], Compression); 7] = [
    (b"\x1F\x8B", Compression::Gzip),
    (b"\x04\x22\x4D\x18", Compression::Lz4),
    (b"\x28\xB5\x2F\xFD", Compression::Other("zstd", "zstd -dc")),
    (b"BZh", Compression::Other("bzip2", "bzip2 -dc")),
    (b"\xFD7zXZ\0", Compression::Other("xz", "xz -dc")),
    (
        b"PK\x03\x04",
        Compression::Other("a zip archive", "unzip -p"),
    ),
    (b"\x1F\x9D", Compression::Other("compress", "uncompress -c")),
];

/// What begins a block of bzip2, after `BZh` and a digit: digits of pi.
const BZIP2_BLOCK: &[u8] = b"1AY&SY";

/// How a file is compressed.
#[derive(Debug, Clone, Copy)]
enum Compression {
    Gzip,
    Lz4,
    /// By what, and the command that undoes it.
    Other(&'static str, &'static str),
}

fn decompress(mut chunks: Chunks) -> Result<Input> {
    let mut head = Vec::new();
    // More than one read only if what came may be the beginning of a compressed file.
    let undecided = |head: &[u8]| {
        let may_begin = |(magic, _): &(&[u8], _)| magic.starts_with(head) || head == b"BZh";
        head.is_empty() || COMPRESSED.iter().any(may_begin) || (head.len() < 10 && is_bzip2(head))
    };
    while undecided(&head) {
        let mut buffer = [0; 16];
        match chunks.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
            Err(error) => {
                stop::check()?;
                return Err(error.into());
            }
        }
    }
    let found = COMPRESSED.iter().find(|(magic, compression)| {
        let text = matches!(compression, Compression::Other("bzip2", _))
            && (head.len() < 10 || !is_bzip2(&head));
        head.starts_with(magic) && !text
    });
    let found = found.map(|(_, compression)| *compression);
    let input = Cursor::new(head).chain(chunks);
    match found {
        None => Ok(Box::new(input)),
        Some(Compression::Gzip) => Ok(Box::new(MultiGzDecoder::new(input))),
        Some(Compression::Lz4) => {
            // Not zeros, which would be the end of a frame.
            let last = [u8::MAX; 8];
            let input = BufReader::with_capacity(CHUNK_BYTES, Tail { input, last });
            Ok(Box::new(Lz4Frames(FrameDecoder::new(input))))
        }
        Some(Compression::Other(what, command)) => Err(Failure::error(format!(
            "this is compressed ({what}); read it through a pipe: {command} FILE | hedgerow load DB -"
        ))),
    }
}

/// True if `head` is the beginning of a file of bzip2, as far as it goes: its first three bytes
/// alone may be text.
fn is_bzip2(head: &[u8]) -> bool {
    let block = head.get(4..).unwrap_or_default();
    let block = &block[..block.len().min(BZIP2_BLOCK.len())];
    head.starts_with(b"BZh")
        && head.get(3).is_none_or(u8::is_ascii_digit)
        && BZIP2_BLOCK.starts_with(block)
}

/// LZ4 frames one after another. The decoder by itself takes the end of the first frame for the end
/// of the file, and a file that is cut between two blocks for a whole one.
struct Lz4Frames<R: Read>(FrameDecoder<BufReader<Tail<R>>>);

impl<R: Read> Read for Lz4Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.0.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if self.0.get_mut().fill_buf()?.is_empty() {
                // A frame ends with a block of no bytes, which a checksum may follow.
                return match self.0.get_ref().get_ref().last {
                    [_, _, _, _, 0, 0, 0, 0] | [0, 0, 0, 0, ..] => Ok(0),
                    _ => Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the LZ4 frame is cut off",
                    )),
                };
            }
        }
    }
}

/// Remembers the last bytes that were read.
struct Tail<R> {
    input: R,
    last: [u8; 8],
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let new = &buffer[read.saturating_sub(8)..read];
        self.last.rotate_left(new.len());
        self.last[8 - new.len()..].copy_from_slice(new);
        Ok(read)
    }
}

/// Chunks of a file that another thread reads.
struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    chunk: Cursor<Vec<u8>>,
    idle: Box<dyn FnMut() -> bool>,
}

impl Chunks {
    fn start(input: impl Read + Send + 'static, idle: Box<dyn FnMut() -> bool>) -> Result<Self> {
        let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
        // Not joined: it may wait for input for as long as the process runs.
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || send_chunks(input, &sender))?;
        Ok(Self {
            receiver,
            chunk: Cursor::default(),
            idle,
        })
    }

    /// The next chunk; empty at the end.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut idle_at = Some(Instant::now() + IDLE_AFTER);
        loop {
            stop::check().map_err(io::Error::other)?;
            match self.receiver.recv_timeout(POLL) {
                Ok(chunk) => return chunk,
                Err(RecvTimeoutError::Disconnected) => return Ok(Vec::new()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if idle_at.is_some_and(|at| Instant::now() >= at) {
                idle_at = None;
                if !(self.idle)() {
                    return Err(io::Error::other("what was read could not be used"));
                }
            }
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.chunk.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        self.chunk = Cursor::new(self.next()?);
        self.chunk.read(buffer)
    }
}

fn send_chunks(mut input: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let chunk = match input.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => {
                chunk.truncate(read);
                Ok(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if sender.send(chunk).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Reads `bytes` as a file is read, in pieces of `piece` bytes.
    fn read(bytes: Vec<u8>, piece: usize) -> Result<Vec<u8>> {
        struct Pieces(Cursor<Vec<u8>>, usize);
        impl Read for Pieces {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let len = buffer.len().min(self.1);
                self.0.read(&mut buffer[..len])
            }
        }
        let pieces = Pieces(Cursor::new(bytes), piece);
        let mut input = decompress(Chunks::start(pieces, Box::new(|| true))?)?;
        let mut read = Vec::new();
        input.read_to_end(&mut read)?;
        Ok(read)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    fn lz4(text: &[u8]) -> Vec<u8> {
        let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn gzip_and_lz4_are_decompressed_and_torn_files_are_errors() {
        let text = b"some text, some more text, and some text again\n".repeat(100);
        for packed in [gzip(&text), lz4(&text)] {
            for piece in [1, 7, usize::MAX] {
                assert!(read(packed.clone(), piece).unwrap() == text);
                // Several files one after another are one.
                let twice = [&packed[..], &packed[..]].concat();
                assert!(read(twice, piece).unwrap() == [&text[..], &text].concat());
            }
            for cut in 4..packed.len() {
                assert!(read(packed[..cut].to_vec(), 64).is_err(), "{cut}");
            }
        }
        assert_eq!(read(text.clone(), 3).unwrap(), text);
        assert_eq!(read(Vec::new(), 3).unwrap(), b"");
    }

    /// A file of several blocks, cut where one ends, gave the records before the cut, without a
    /// word.
    #[test]
    fn an_lz4_file_cut_between_blocks_is_an_error() {
        for checksum in [false, true] {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .content_checksum(checksum);
            let mut writer = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            let text: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
            writer.write_all(&text).unwrap();
            let packed = writer.finish().unwrap();
            assert!(read(packed.clone(), 1000).unwrap() == text);
            let mut block_at = 7;
            let mut blocks = 0;
            while block_at + 4 < packed.len() {
                assert!(
                    read(packed[..block_at].to_vec(), 1000).is_err(),
                    "{block_at}"
                );
                let len = u32::from_le_bytes(packed[block_at..][..4].try_into().unwrap());
                block_at += 4 + (len & 0x7FFF_FFFF) as usize;
                blocks += 1;
            }
            assert!(blocks > 5);
        }
    }

    #[test]
    fn what_cannot_be_decompressed_is_named() {
        for (head, name) in [
            (&b"\x28\xB5\x2F\xFD...."[..], "zstd"),
            (b"BZh91AY&SY\x01\x02", "bzip2"),
            (b"\xFD7zXZ\0\0", "xz"),
            (b"PK\x03\x04....", "zip"),
            (b"\x1F\x9D\x90.", "compress"),
        ] {
            for piece in [1, 100] {
                let error = read(head.to_vec(), piece).unwrap_err().to_string();
                assert!(
                    error.contains("compressed") && error.contains(name),
                    "{error}"
                );
            }
        }
        for text in [&b"BZh"[..], b"BZhell\t1\n", b"BZh9\n", b"P", b"PK\x03x"] {
            for piece in [1, 100] {
                assert_eq!(read(text.to_vec(), piece).unwrap(), text);
            }
        }
    }
}
