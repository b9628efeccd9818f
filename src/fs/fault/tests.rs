//! Each kind of failure, and what it leaves.

use super::super::SimFs;
use super::*;

fn disk() -> (FaultFs, SimFs, Arc<dyn File>) {
    let mem = SimFs::new();
    let fs = FaultFs::new(Arc::new(mem.clone()));
    let file = fs.open("/a".as_ref(), OpenMode::CreateNew).unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    file.write_all_at(b"durable", 0).unwrap();
    file.sync_data().unwrap();
    (fs, mem, file)
}

fn seen(file: &dyn File) -> String {
    String::from_utf8(read_all(file, 1000).unwrap()).unwrap()
}

fn on_disk(mem: &SimFs) -> String {
    let file = mem.crash().open("/a".as_ref(), OpenMode::Read).unwrap();
    seen(&*file)
}

#[test]
fn the_planned_operation_fails_and_is_counted() {
    let (fs, _, file) = disk();
    assert_eq!((fs.count(OpKind::Create), fs.count(OpKind::Write)), (1, 1));
    fs.plan(FaultPlan::once(&[OpKind::Write], 1, Fault::Full));
    file.write_all_at(b"D", 0).unwrap();
    let error = file.write_all_at(b"x", 0).unwrap_err();
    let full = io::ErrorKind::StorageFull;
    assert!(matches!(&error, Error::Io { source, offset: Some(0), .. } if source.kind() == full));
    file.write_all_at(b"E", 1).unwrap();
    assert_eq!((fs.fired(), fs.count(OpKind::Write)), (1, 4));
    assert_eq!(seen(&*file), "DErable");

    let reads = [OpKind::Read, OpKind::Len];
    fs.plan(FaultPlan::once(&[OpKind::Read], 0, Fault::Io).and_then_all(&reads));
    file.len().unwrap();
    assert!(file.read_exact_at(&mut [0], 0).is_err());
    assert!(file.len().is_err());
    file.write_all_at(b"F", 2).unwrap();
    fs.heal();
    assert_eq!(seen(&*file), "DEFable");
}

#[test]
fn a_short_write_leaves_half_and_an_arrived_one_all() {
    let (fs, _, file) = disk();
    fs.plan(FaultPlan::once(&[OpKind::Write], 0, Fault::Short));
    assert!(file.write_all_at(b"ABCD", 0).is_err());
    assert_eq!(seen(&*file), "ABrable");
    fs.plan(FaultPlan::once(&[OpKind::Write], 0, Fault::Arrived));
    assert!(file.write_all_at(b"abcd", 0).is_err());
    assert_eq!(seen(&*file), "abcdble");
    fs.plan(FaultPlan::once(&[OpKind::Remove], 0, Fault::Arrived));
    assert!(fs.remove_file("/a".as_ref()).is_err());
    assert!(!fs.exists("/a".as_ref()).unwrap());
}

#[test]
fn a_sync_fails_in_three_ways() {
    for fault in [Fault::SyncDropped, Fault::SyncLost, Fault::Arrived] {
        let (fs, mem, file) = disk();
        file.write_all_at(b"new bytes", 4).unwrap();
        file.set_len(11).unwrap();
        fs.plan(FaultPlan::once(&[OpKind::Sync], 0, fault));
        assert!(file.sync_data().is_err());
        let (now, evicted) = match fault {
            Fault::Arrived => ("duranew byt", "duranew byt"),
            Fault::SyncLost => ("duranew byt", "durable"),
            _ => ("durable", "durable"),
        };
        assert_eq!(seen(&*file), now, "{fault:?}");
        assert_eq!(on_disk(&mem), evicted, "{fault:?}");
        // What is written later can be durable, what was lost cannot.
        file.write_all_at(b"!", 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"?", 1).unwrap();
        fs.evict().unwrap();
        assert_eq!(seen(&*file), format!("!?{}", &evicted[2..]), "{fault:?}");
        assert_eq!(on_disk(&mem), format!("!{}", &evicted[1..]), "{fault:?}");
    }
}
