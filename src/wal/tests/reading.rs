//! Reading the records of a segment in pieces.

use super::super::record_reader::{RecordReader, begin_of};
use super::*;

/// Segment 1 with records of these lengths, each synced before the next is written; the number
/// behind the last.
fn segment(lens: &[usize]) -> (SimFs, PathBuf, SeqNo) {
    let mem = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(mem.clone());
    let (mut writer, log) = open(&fs, DIR.as_ref(), config(64 << 10));
    let mut last = SeqNo::ZERO;
    for len in lens {
        last = last.next();
        writer
            .append(last, last, &[&vec![last.0 as u8; *len]], 0)
            .unwrap();
        log.sync().unwrap();
    }
    let path = Path::new(DIR).join("0000000000000001.log");
    (mem, path, last.next())
}

const LENS: [usize; 8] = [10, 300, 5, 2000, 0, 700, 64, 1500];
const PIECE: u64 = 512;

/// Records that are found before the end, or before damage that is reported.
fn read(fs: &SimFs, path: &Path, end: Option<SeqNo>) -> (usize, Result<()>) {
    let file = fs.open(path, OpenMode::Read).unwrap();
    let mut reader = match RecordReader::in_pieces(&*file, STORE, 1, end, PIECE) {
        Ok(reader) => reader,
        Err(error) => return (0, Err(error)),
    };
    for (count, len) in LENS.iter().enumerate() {
        match reader.next() {
            Ok(Some(record)) => {
                assert_eq!(record.payload, vec![count as u8 + 1; *len]);
                let mut there = vec![0; *len];
                file.read_exact_at(&mut there, record.offset).unwrap();
                assert_eq!(record.payload, there, "its place");
            }
            other => return (count, other.map(|_| ())),
        }
        assert!(reader.held_bytes() as u64 <= PIECE.max(*len as u64 + 32));
    }
    let behind = reader.next().map(|record| assert!(record.is_none()));
    (LENS.len(), behind)
}

#[test]
fn records_are_read_in_pieces() {
    let (fs, path, end) = segment(&LENS);
    for end in [None, Some(end)] {
        let (count, read) = read(&fs, &path, end);
        read.unwrap();
        assert_eq!(count, LENS.len());
    }
    let file = fs.open(&path, OpenMode::Read).unwrap();
    assert_eq!(begin_of(&*file, STORE, 1).unwrap(), (SeqNo(1), 0));
    assert!(begin_of(&*file, STORE, 2).unwrap_err().is_corruption());
    assert!(begin_of(&*file, STORE + 1, 1).unwrap_err().is_corruption());
}

/// The end of the records is told from damage by the number that they go up to, and by a later
/// record; in the last one by the number alone.
#[test]
fn damage_is_told_from_the_end() {
    let (fs, path, end) = segment(&LENS);
    let mut at = HEADER_LEN_BYTES as u64;
    for (damaged, len) in LENS.iter().enumerate() {
        for offset in [0, 4, 9, 17, 25, 32] {
            let copy = fs.killed();
            let file = copy.open(&path, OpenMode::ReadWrite).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at + offset).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at + offset).unwrap();
            for end in [None, Some(end)] {
                // Not every flip concerns a record without a payload.
                let is_hit = offset < 32 || *len > 0;
                let (count, read) = read(&copy, &path, end);
                if !is_hit {
                    assert_eq!(count, damaged + 1);
                    continue;
                }
                let is_seen = end.is_some() || damaged + 1 < LENS.len();
                assert_eq!(count, damaged, "byte {offset}");
                match read {
                    Ok(()) => assert!(!is_seen, "record {damaged}, byte {offset}"),
                    Err(Error::Corruption { file, offset, .. }) => {
                        assert!(is_seen && file == path && offset == at);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        at = (at + 32 + *len as u64).next_multiple_of(8);
    }
}
