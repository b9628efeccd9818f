//! Random operations on a table with two indexes, beside a map of std, on both engines.

use std::collections::BTreeMap;
use std::ops::Bound;

use hedgerow::fs::SimFs;
use hedgerow::{Db, EngineKind};
use hedgerow_typed::{Error, TableBatch};
use support::random::{Random, Source};

use crate::rig::{ENGINES, Id, Item, Items, Shop, item, open};

type Map = BTreeMap<Id, Item>;

const OPERATIONS: usize = 400;
const SEEDS: u64 = 12;

#[test]
fn tables_are_like_maps() {
    let (mut operations, mut refused) = (0, 0);
    for engine in ENGINES {
        for seed in 0..SEEDS {
            let mut run = Run::new(engine, seed);
            for _ in 0..OPERATIONS {
                run.step();
            }
            run.check();
            operations += OPERATIONS;
            refused += run.refused;
        }
    }
    assert!(
        refused > operations / 50,
        "{refused} of {operations} were not unique"
    );
}

struct Run {
    fs: SimFs,
    engine: EngineKind,
    random: Random,
    shop: Shop,
    db: Db,
    items: Items,
    map: Map,
    /// Writes that a unique index refused.
    refused: usize,
}

impl Run {
    fn new(engine: EngineKind, seed: u64) -> Self {
        let fs = SimFs::new();
        let db = open(&fs);
        let shop = Shop::new();
        Self {
            items: shop.open(&db, engine),
            fs,
            engine,
            random: Random::new(seed),
            shop,
            db,
            map: Map::new(),
            refused: 0,
        }
    }

    fn id(&mut self) -> Id {
        let name = *self.random.pick(&["", "a", "a\0", "ab", "b"]);
        (self.random.below(6) as u8, name.into())
    }

    fn item(&mut self) -> Item {
        let number = match self.random.below(3) {
            0 => None,
            _ => Some(self.random.below(40) as u16),
        };
        let len = self.random.below(4);
        // The same tag twice is one entry.
        let tags: Vec<u8> = (0..len).map(|_| self.random.below(5) as u8).collect();
        item(number, &tags)
    }

    fn bounds(&mut self) -> (Bound<Id>, Bound<Id>) {
        let [a, b] = [(); 2].map(|()| {
            let id = self.id();
            match self.random.below(3) {
                0 => Bound::Included(id),
                1 => Bound::Excluded(id),
                _ => Bound::Unbounded,
            }
        });
        (a, b)
    }

    /// Whether the map may have this row.
    fn is_unique(map: &Map, id: &Id, item: &Item) -> bool {
        let same = |other: &Item| item.number.is_some() && other.number == item.number;
        !map.iter().any(|(other, row)| other != id && same(row))
    }

    /// Checks a write against the map, in which it is done if it should have been.
    fn written<T: std::fmt::Debug>(
        &mut self,
        id: &Id,
        new: &Item,
        result: &Result<T, Error>,
    ) -> bool {
        let is_unique = Self::is_unique(&self.map, id, new);
        match result {
            Ok(_) => assert!(is_unique, "{id:?} {new:?}"),
            Err(error) => assert!(error.is_not_unique() && !is_unique, "{error}"),
        }
        self.refused += usize::from(!is_unique);
        is_unique
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..4 => self.put(),
            4..6 => self.put_if(),
            6..8 => self.remove(),
            8..10 => self.update(),
            10 => self.pop(),
            11 => self.remove_many(),
            12..15 => self.transaction(),
            15 => self.batch(),
            16 if self.random.one_in(3) => self.reopen(),
            17 if self.random.one_in(5) => self.check(),
            _ => self.read(),
        }
    }

    fn put(&mut self) {
        let (id, new) = (self.id(), self.item());
        let result = match self.random.one_in(2) {
            true => self.items.put(&id, &new).map(|()| None),
            false => self.items.insert(&id, &new).map(Some),
        };
        if self.written(&id, &new, &result) {
            let old = self.map.insert(id, new);
            if let Some(returned) = result.unwrap() {
                assert_eq!(returned, old);
            }
        }
    }

    fn put_if(&mut self) {
        let (id, new) = (self.id(), self.item());
        let current = self.map.get(&id).cloned();
        if self.random.one_in(2) {
            let result = self.items.insert_if_absent(&id, &new);
            match current {
                Some(current) => assert_eq!(result.unwrap(), Err(current)),
                None if self.written(&id, &new, &result) => {
                    assert_eq!(result.unwrap(), Ok(()));
                    self.map.insert(id, new);
                }
                None => {}
            }
            return;
        }
        let expected = match self.random.one_in(2) {
            true => current.clone(),
            false => Some(self.item()),
        };
        let result = self
            .items
            .compare_and_swap(&id, expected.as_ref(), Some(&new));
        if expected != current {
            assert_eq!(result.unwrap(), Err(current));
        } else if self.written(&id, &new, &result) {
            assert_eq!(result.unwrap(), Ok(()));
            self.map.insert(id, new);
        }
    }

    fn remove(&mut self) {
        let id = self.id();
        let old = self.map.remove(&id);
        match self.random.one_in(2) {
            true => assert_eq!(self.items.remove(&id).unwrap(), old),
            false => self.items.delete(&id).unwrap(),
        }
    }

    fn update(&mut self) {
        let (id, tag) = (self.id(), self.random.below(5) as u8);
        let count = self.items.update(&id, |row| {
            if let Some(row) = row {
                row.tags.push(tag);
            }
            if row.as_ref().is_some_and(|row| row.tags.len() > 5) {
                *row = None;
            }
            row.as_ref().map_or(0, |row| row.tags.len())
        });
        let count = count.unwrap();
        if let Some(row) = self.map.get_mut(&id) {
            row.tags.push(tag);
            if row.tags.len() > 5 {
                self.map.remove(&id);
            }
        }
        assert_eq!(count, self.map.get(&id).map_or(0, |row| row.tags.len()));
    }

    fn pop(&mut self) {
        match self.random.one_in(2) {
            true => assert_eq!(self.items.pop_first().unwrap(), self.map.pop_first()),
            false => assert_eq!(self.items.pop_last().unwrap(), self.map.pop_last()),
        }
    }

    fn remove_many(&mut self) {
        let bounds = self.bounds();
        let is_inside = |id: &Id| std::ops::RangeBounds::contains(&bounds, id);
        match self.random.below(8) {
            0 => {
                self.items.clear().unwrap();
                self.map.clear();
            }
            1..4 => {
                self.items.remove_range(bounds.clone()).unwrap();
                self.map.retain(|id, _| !is_inside(id));
            }
            _ => {
                let keep = |row: &Item| row.tags.first().is_some_and(|tag| tag % 2 == 0);
                let count = self
                    .items
                    .retain_in(bounds.clone(), |_, row| keep(row))
                    .unwrap();
                let before = self.map.len();
                self.map.retain(|id, row| !is_inside(id) || keep(row));
                assert_eq!(count, (before - self.map.len()) as u64);
            }
        }
    }

    /// Several operations in one transaction, which goes on after one that was refused.
    fn transaction(&mut self) {
        let tx = self.db.transaction().unwrap();
        let items = self.items.within(&tx).unwrap();
        let mut map = self.map.clone();
        for _ in 0..1 + self.random.below(5) {
            let id = self.id();
            match self.random.below(5) {
                0 => assert_eq!(items.remove(&id).unwrap(), map.remove(&id)),
                1 => assert_eq!(items.pop_first().unwrap(), map.pop_first()),
                2 => {
                    let bounds = self.bounds();
                    items.remove_range(bounds.clone()).unwrap();
                    map.retain(|id, _| !std::ops::RangeBounds::contains(&bounds, id));
                }
                _ => {
                    let new = self.item();
                    let is_unique = Self::is_unique(&map, &id, &new);
                    let result = items.insert(&id, &new);
                    assert_eq!(result.is_ok(), is_unique, "{result:?}");
                    if is_unique {
                        assert_eq!(result.unwrap(), map.insert(id, new));
                    }
                }
            }
            let rows: Map = items.iter().map(Result::unwrap).collect();
            assert_eq!(rows, map);
            check_indexes(&items, &self.shop, &map);
        }
        if self.random.one_in(4) {
            tx.rollback();
            return;
        }
        tx.commit().unwrap();
        self.map = map;
    }

    fn batch(&mut self) {
        let mut batch = TableBatch::new();
        let mut map = self.map.clone();
        let mut is_unique = true;
        for _ in 0..1 + self.random.below(4) {
            let id = self.id();
            if self.random.one_in(3) {
                batch.delete(&self.items, &id);
                map.remove(&id);
                continue;
            }
            let new = self.item();
            is_unique &= Self::is_unique(&map, &id, &new);
            batch.put(&self.items, &id, &new).unwrap();
            map.insert(id, new);
        }
        let result = batch.write(&self.db);
        assert_eq!(result.is_ok(), is_unique, "{result:?}");
        match is_unique {
            true => self.map = map,
            false => self.refused += 1,
        }
    }

    fn reopen(&mut self) {
        match self.random.one_in(2) {
            true => self.db.close().unwrap(),
            // A kill: nothing is lost, nothing was put in order.
            false => self.fs = self.fs.killed(),
        }
        self.db = open(&self.fs);
        self.items = self.shop.open(&self.db, self.engine);
    }

    fn read(&mut self) {
        let id = self.id();
        assert_eq!(self.items.get(&id).unwrap().as_ref(), self.map.get(&id));
        assert_eq!(
            self.items.contains_key(&id).unwrap(),
            self.map.contains_key(&id)
        );
        let bounds = self.bounds();
        let is_inside = |id: &Id| std::ops::RangeBounds::contains(&bounds, id);
        let expected = self.map.iter().filter(|(id, _)| is_inside(id));
        let expected: Vec<(Id, Item)> = expected
            .map(|(id, row)| (id.clone(), row.clone()))
            .collect();
        let rows: Result<Vec<_>, _> = self.items.range(bounds.clone()).collect();
        assert_eq!(rows.unwrap(), expected);
        let back: Result<Vec<_>, _> = self.items.range(bounds.clone()).rev().collect();
        assert!(back.unwrap().iter().eq(expected.iter().rev()));
        let keys: Result<Vec<_>, _> = self.items.range(bounds.clone()).keys().collect();
        assert!(keys.unwrap().iter().eq(expected.iter().map(|(id, _)| id)));
        let first = id.0;
        let prefix: Result<Vec<_>, _> = self.items.prefix((first,)).keys().collect();
        assert!(
            prefix
                .unwrap()
                .iter()
                .eq(self.map.keys().filter(|id| id.0 == first))
        );
        let number = self.random.below(40) as u16;
        let mut rows = self.map.iter();
        let expected = rows.find(|(_, row)| row.number == Some(number));
        let found = self
            .items
            .by(&self.shop.by_number)
            .unwrap()
            .get(number)
            .unwrap();
        assert_eq!(found.as_ref().map(|(id, row)| (id, row)), expected);
    }

    fn check(&self) {
        let report = self.items.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.rows, self.map.len() as u64);
        let snapshot = self.db.snapshot();
        let items = self.items.at(&snapshot).unwrap();
        let rows: Map = items.iter().map(Result::unwrap).collect();
        assert_eq!(rows, self.map);
        check_indexes(&items, &self.shop, &self.map);
        check_indexes(&self.items, &self.shop, &self.map);
    }
}

/// Compares both indexes with the map, in both directions and in parts.
fn check_indexes<S: hedgerow_typed::Source>(
    items: &hedgerow_typed::Table<Id, Item, hedgerow_typed::Postcard, S>,
    shop: &Shop,
    map: &Map,
) {
    let mut numbers = Vec::new();
    let mut tags = Vec::new();
    for (id, row) in map {
        numbers.extend(row.number.map(|number| (number, id.clone(), row.clone())));
        let mut of_row: Vec<_> = row.tags.iter().map(|tag| (*tag, id.0 % 2 == 0)).collect();
        of_row.sort_unstable();
        of_row.dedup();
        tags.extend(of_row.into_iter().map(|tag| (tag, id.clone(), row.clone())));
    }
    numbers.sort();
    tags.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let by_number = items.by(&shop.by_number).unwrap();
    assert_eq!(
        by_number.iter().collect::<Result<Vec<_>, _>>().unwrap(),
        numbers
    );
    let by_tag = items.by(&shop.by_tag).unwrap();
    assert_eq!(by_tag.iter().collect::<Result<Vec<_>, _>>().unwrap(), tags);
    let mut back: Vec<_> = by_tag.iter().rev().collect::<Result<_, _>>().unwrap();
    back.reverse();
    assert_eq!(back, tags);
    let low = (Bound::Excluded((1, false)), Bound::Included((3, true)));
    let part: Result<Vec<_>, _> = by_tag.range(low).collect();
    let expected = tags
        .iter()
        .filter(|(tag, ..)| *tag > (1, false) && *tag <= (3, true));
    assert!(part.unwrap().iter().eq(expected));
    let of_two: Result<Vec<_>, _> = by_tag.keys((2,)..=(2,)).collect();
    let expected = tags.iter().filter(|(tag, ..)| tag.0 == 2);
    let expected = expected.map(|(tag, id, _)| (*tag, id.clone()));
    assert!(of_two.unwrap().into_iter().eq(expected));
    let same: Result<Vec<_>, _> = by_tag.get_all((2, true)).collect();
    let expected = tags.iter().filter(|(tag, ..)| *tag == (2, true));
    assert!(
        same.unwrap()
            .into_iter()
            .eq(expected.map(|(_, id, row)| (id.clone(), row.clone())))
    );
}
