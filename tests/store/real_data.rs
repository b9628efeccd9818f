//! The real data set of the repository, the cities of the world, on both engines.

use std::collections::BTreeMap;
use std::time::Instant;

use hedgerow::{Batch, Durability, EngineKind, Keyspace};
use hedgerow_bench::cities;
use support::rig::{Place, Rig, Sizes, report};

#[test]
fn loads_and_comes_back_on_both_engines() {
    let cities = cities::cities();
    assert!(cities.len() >= 100_000);
    for engine in EngineKind::ALL {
        let start = Instant::now();
        let mut rig = Rig::new(Place::Disk, Sizes::Default);
        let keyspace = rig.keyspace("cities", engine);
        // Half one by one, half in batches.
        let (singly, in_batches) = cities.split_at(cities.len() / 2);
        for city in singly {
            keyspace.put(&city.key, &city.value).unwrap();
        }
        for chunk in in_batches.chunks(1000) {
            let mut batch = Batch::new();
            for city in chunk {
                batch.put(&city.key, &city.value);
            }
            keyspace.write_with(batch, Durability::Buffered).unwrap();
        }
        drop(keyspace);
        rig.close();

        let keyspace = rig.keyspace("cities", engine);
        compare(&keyspace, &cities);
        prefixes(&keyspace, &cities);
        keyspace.compact().unwrap();
        compare(&keyspace, &cities);
        assert!(rig.db().verify().unwrap().is_clean());

        let left = delete_ranges(&keyspace, &cities);
        drop(keyspace);
        rig.close();
        let keyspace = rig.keyspace("cities", engine);
        compare(&keyspace, &left);
        keyspace.compact().unwrap();
        compare(&keyspace, &left);
        let report_of_it = rig.db().verify().unwrap();
        assert!(report_of_it.is_clean(), "{:#?}", report_of_it.problems);
        report(format_args!(
            "real data: {} records on {engine}, {} after range deletes, {} ms",
            cities.len(),
            left.len(),
            start.elapsed().as_millis()
        ));
    }
}

/// Every record is what the source says, by scan both ways and by lookup.
fn compare(keyspace: &Keyspace, cities: &[cities::City]) {
    let mut scan = keyspace.iter();
    for city in cities {
        let same = scan
            .next_with(|key, value| key == city.key && value == city.value)
            .unwrap();
        assert_eq!(same, Some(true), "{}", String::from_utf8_lossy(&city.key));
    }
    assert_eq!(scan.next_with(|_, _| ()).unwrap(), None);
    let mut scan = keyspace.iter();
    for city in cities.iter().rev() {
        let same = scan
            .next_back_with(|key, value| key == city.key && value == city.value)
            .unwrap();
        assert_eq!(same, Some(true), "{}", String::from_utf8_lossy(&city.key));
    }
    assert_eq!(scan.next_back_with(|_, _| ()).unwrap(), None);
    for city in cities {
        let same = keyspace
            .get_with(&city.key, |value| value == city.value)
            .unwrap();
        assert_eq!(same, Some(true), "{}", String::from_utf8_lossy(&city.key));
    }
    for chunk in cities.chunks(997).step_by(10) {
        let keys: Vec<_> = chunk.iter().map(|city| &city.key).collect();
        let found = keyspace.multi_get(&keys).unwrap();
        assert!(
            found
                .iter()
                .zip(chunk)
                .all(|(a, b)| a.as_deref() == Some(&b.value[..]))
        );
    }
    for city in cities.iter().step_by(11) {
        let mut absent = city.key.clone();
        absent.push(b'!');
        assert_eq!(keyspace.get(&absent).unwrap(), None);
    }
}

/// The country of a city: its key up to and with the first slash.
fn country(city: &cities::City) -> &[u8] {
    let slash = city
        .key
        .iter()
        .position(|byte| *byte == b'/')
        .expect("a key has columns");
    &city.key[..=slash]
}

/// Every country's cities by prefix, forwards and backwards.
fn prefixes(keyspace: &Keyspace, cities: &[cities::City]) {
    let mut countries: BTreeMap<&[u8], usize> = BTreeMap::new();
    for city in cities {
        *countries.entry(country(city)).or_default() += 1;
    }
    assert!(countries.len() > 200);
    for (prefix, count) in countries {
        let forwards: Vec<_> = keyspace
            .prefix(prefix)
            .map(|item| item.unwrap().0)
            .collect();
        assert_eq!(forwards.len(), count);
        assert!(forwards.is_sorted() && forwards.iter().all(|key| key.starts_with(prefix)));
        let mut backwards: Vec<_> = keyspace
            .prefix(prefix)
            .rev()
            .map(|item| item.unwrap().0)
            .collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
    }
}

/// Deletes every third country and a stretch across countries; returns what must be left.
fn delete_ranges(keyspace: &Keyspace, cities: &[cities::City]) -> Vec<cities::City> {
    let snapshot = keyspace.snapshot();
    let mut countries: Vec<&[u8]> = cities.iter().map(country).collect();
    countries.dedup();
    let mut deleted: Vec<&[u8]> = countries.iter().copied().step_by(3).collect();
    deleted.sort_unstable();
    for prefix in &deleted {
        let mut end = prefix.to_vec();
        *end.last_mut().expect("a prefix ends with a slash") += 1;
        keyspace.delete_range(*prefix..&end[..]).unwrap();
    }
    keyspace.delete_range("S".."T").unwrap();
    let gone =
        |city: &cities::City| city.key[0] == b'S' || deleted.binary_search(&country(city)).is_ok();
    let left: Vec<_> = cities.iter().filter(|city| !gone(city)).cloned().collect();
    compare(keyspace, &left);
    // The snapshot still has everything.
    assert_eq!(snapshot.iter().count(), cities.len());
    left
}
