//! Random transactions on the model, an LSM tree and a B-tree in lockstep: several at once, whose
//! steps take turns, with scans that go on between them. All three give the same answers, and
//! commit or refuse the same transactions.

use hedgerow::{
    Db, EngineKind, Keyspace, Kv, KvTransaction, Model, ModelSavepoint, ModelTransaction,
    Savepoint, Scan, Transaction, TransactionKeyspace,
};
use support::random::{Random, Source};
use support::rig::{Place, Rig, Sizes, effort, figure};

use super::program::{KEYS, key};

/// Transactions at once.
const OPEN: usize = 4;
/// Steps of a run.
const STEPS: usize = 1500;

/// What a step gives, in the same words for all maps.
type Answer = Vec<String>;

/// What a transaction does with its map.
#[derive(Debug, Clone)]
enum Step {
    Get(String),
    GetWith(String),
    GetForUpdate(String),
    GetMany(Vec<String>),
    First,
    Last,
    Len,
    Put(String, Vec<u8>),
    Delete(String),
    DeleteRange(String, String),
    DeleteFrom(String),
}

fn any_key(random: &mut Random) -> String {
    key(random.below(KEYS as u64) as usize)
}

impl Step {
    fn random(random: &mut Random) -> Self {
        let name = any_key(random);
        match random.weighted(&[6, 3, 2, 2, 2, 2, 1, 10, 4, 2, 1]) {
            0 => Self::Get(name),
            1 => Self::GetWith(name),
            2 => Self::GetForUpdate(name),
            3 => Self::GetMany(vec![name, any_key(random), any_key(random)]),
            4 => Self::First,
            5 => Self::Last,
            6 => Self::Len,
            7 => Self::Put(name, random.bytes(30)),
            8 => Self::Delete(name),
            9 => Self::DeleteRange(name, any_key(random)),
            _ => Self::DeleteFrom(name),
        }
    }

    fn run(&self, tx: &impl KvTransaction) -> Answer {
        let of_value = |value: Option<hedgerow::Value>| vec![format!("{value:?}")];
        match self {
            Self::Get(key) => of_value(tx.get(key).unwrap()),
            Self::GetWith(key) => vec![format!("{:?}", tx.get_with(key, <[u8]>::len).unwrap())],
            Self::GetForUpdate(key) => of_value(tx.get_for_update(key).unwrap()),
            Self::GetMany(keys) => vec![format!("{:?}", tx.multi_get(keys).unwrap())],
            Self::First => vec![format!("{:?}", tx.first().unwrap())],
            Self::Last => vec![format!("{:?}", tx.last().unwrap())],
            Self::Len => vec![tx.len().unwrap().to_string()],
            Self::Put(key, value) => vec![format!("{:?}", tx.put(key, value).unwrap())],
            Self::Delete(key) => vec![format!("{:?}", tx.delete(key).unwrap())],
            Self::DeleteRange(low, high) => {
                vec![format!("{:?}", tx.delete_range(low..high).unwrap())]
            }
            Self::DeleteFrom(low) => vec![format!("{:?}", tx.delete_range(low..).unwrap())],
        }
    }
}

/// What a scan does next.
#[derive(Debug, Clone)]
enum Move {
    Next,
    Back,
    NextKey,
    Seek(String),
    SeekBack(String),
}

impl Move {
    fn random(random: &mut Random) -> Self {
        match random.weighted(&[6, 6, 2, 1, 1]) {
            0 => Self::Next,
            1 => Self::Back,
            2 => Self::NextKey,
            3 => Self::Seek(any_key(random)),
            _ => Self::SeekBack(any_key(random)),
        }
    }

    fn run(&self, scan: &mut Scan) -> Answer {
        match self {
            Self::Next => vec![format!("{:?}", scan.next().transpose().unwrap())],
            Self::Back => vec![format!("{:?}", scan.next_back().transpose().unwrap())],
            Self::NextKey => vec![format!("{:?}", scan.next_key().unwrap())],
            Self::Seek(key) => {
                scan.seek(key);
                Vec::new()
            }
            Self::SeekBack(key) => {
                scan.seek_back(key);
                Vec::new()
            }
        }
    }
}

/// One transaction on each map.
struct Trio<'a> {
    model: ModelTransaction,
    stores: [Transaction; 2],
    keyspaces: &'a [Keyspace; 2],
    /// A scan of each, which go on together.
    scans: Vec<[Scan; 3]>,
    savepoints: Vec<(ModelSavepoint, [Savepoint; 2])>,
}

fn all_equal<T: PartialEq + std::fmt::Debug>(answers: [T; 3], what: &dyn std::fmt::Debug) {
    let [model, lsm, btree] = answers;
    assert_eq!(model, lsm, "LSM tree: {what:?}");
    assert_eq!(model, btree, "B-tree: {what:?}");
}

impl<'a> Trio<'a> {
    fn begin(model: &Model, db: &Db, keyspaces: &'a [Keyspace; 2]) -> Self {
        Self {
            model: model.transaction(),
            stores: [(); 2].map(|()| db.transaction().unwrap()),
            keyspaces,
            scans: Vec::new(),
            savepoints: Vec::new(),
        }
    }

    fn of_store(&self, at: usize) -> TransactionKeyspace<'_> {
        self.stores[at].keyspace(&self.keyspaces[at])
    }

    fn scans_of(&self, scan: impl Fn(&dyn Fn(&str, &str) -> Scan) -> Scan) -> [Scan; 3] {
        let [lsm, btree] = [0, 1].map(|at| self.of_store(at));
        [
            scan(&|low, high| self.model.range(low..high)),
            scan(&|low, high| lsm.range(low..high)),
            scan(&|low, high| btree.range(low..high)),
        ]
    }

    fn step(&mut self, random: &mut Random) {
        match random.weighted(&[30, 20, 5, 3, 2, 4]) {
            0 => {
                let step = Step::random(random);
                let stores = [0, 1].map(|at| step.run(&self.of_store(at)));
                let [lsm, btree] = stores;
                all_equal([step.run(&self.model), lsm, btree], &step);
            }
            1 if !self.scans.is_empty() => {
                let at = random.below(self.scans.len() as u64) as usize;
                for _ in 0..1 + random.below(4) {
                    let step = Move::random(random);
                    let answers = self.scans[at].each_mut().map(|scan| step.run(scan));
                    all_equal(answers, &step);
                }
                if random.one_in(5) {
                    self.scans.swap_remove(at);
                }
            }
            1 | 2 => {
                let (low, high) = (any_key(random), any_key(random));
                let scans = self.scans_of(|range| range(&low, &high));
                self.scans.push(scans);
            }
            3 => {
                let stores = self.stores.each_ref().map(Transaction::savepoint);
                self.savepoints.push((self.model.savepoint(), stores));
            }
            4 if !self.savepoints.is_empty() => {
                let at = random.below(self.savepoints.len() as u64) as usize;
                self.savepoints.truncate(at + 1);
                let (model, stores) = self.savepoints[at];
                self.model.rollback_to(model).unwrap();
                for (tx, savepoint) in self.stores.iter().zip(stores) {
                    tx.rollback_to(savepoint).unwrap();
                }
            }
            _ => {
                let name = any_key(random);
                let [lsm, btree] = [0, 1].map(|at| {
                    let (tx, keyspace) = (&self.stores[at], &self.keyspaces[at]);
                    let all = tx.untracked(keyspace).iter().map(Result::unwrap);
                    (
                        tx.get_untracked(keyspace, &name).unwrap(),
                        all.collect::<Vec<_>>(),
                    )
                });
                let all = self.model.untracked().iter().map(Result::unwrap).collect();
                let model = (self.model.get_untracked(&name).unwrap(), all);
                all_equal([model, lsm, btree], &"untracked");
            }
        }
    }

    /// Whether it was committed.
    fn commit(self) -> bool {
        let Self {
            model,
            stores,
            scans,
            ..
        } = self;
        let model = model.commit();
        let [lsm, btree] = stores.map(Transaction::commit);
        // What scans have passed counts if they live.
        drop(scans);
        for error in [&model, &lsm, &btree]
            .into_iter()
            .filter_map(|r| r.as_ref().err())
        {
            assert!(error.is_conflict(), "{error:#}");
        }
        let committed = model.is_ok();
        all_equal([committed, lsm.is_ok(), btree.is_ok()], &"commit");
        committed
    }
}

/// The same write outside of transactions.
fn write_beside(random: &mut Random, model: &Model, keyspaces: &[Keyspace; 2]) {
    fn write(kv: &impl Kv, what: usize, low: &str, high: &str, value: &[u8]) {
        match what {
            0 => drop(kv.put(low, value).unwrap()),
            1 => drop(kv.delete(low).unwrap()),
            2 => drop(kv.delete_range(low..high).unwrap()),
            _ => drop(kv.update(low, |_| Some(value)).unwrap()),
        }
    }
    let what = random.below(4) as usize;
    let (low, high, value) = (any_key(random), any_key(random), random.bytes(20));
    write(model, what, &low, &high, &value);
    for keyspace in keyspaces {
        write(keyspace, what, &low, &high, &value);
    }
}

#[test]
fn the_model_and_both_engines_agree() {
    let mut tally = [0_u64; 2];
    for seed in 0..20 * effort() {
        let mut random = Random::new(seed);
        let mut rig = Rig::new(Place::Memory, Sizes::Tiny);
        let engines = [("lsm", EngineKind::Lsm), ("btree", EngineKind::BTree)];
        let keyspaces = engines.map(|(name, engine)| rig.keyspace(name, engine));
        let db = rig.db().clone();
        let model = Model::new();
        let mut open: Vec<Trio<'_>> = Vec::new();
        for _ in 0..STEPS {
            if open.is_empty() || open.len() < OPEN && random.one_in(8) {
                open.push(Trio::begin(&model, &db, &keyspaces));
            }
            let at = random.below(open.len() as u64) as usize;
            match random.weighted(&[60, 5, 1, 3, 1]) {
                0 => open[at].step(&mut random),
                1 => tally[usize::from(!open.swap_remove(at).commit())] += 1,
                2 => drop(open.swap_remove(at)),
                3 => write_beside(&mut random, &model, &keyspaces),
                _ => random.pick(&keyspaces).flush().unwrap(),
            }
        }
        drop(open);
        let all = |kv: &dyn Fn() -> Scan| kv().map(Result::unwrap).collect::<Vec<_>>();
        let [lsm, btree] = keyspaces.each_ref();
        let entries = [
            all(&|| model.iter()),
            all(&|| lsm.iter()),
            all(&|| btree.iter()),
        ];
        all_equal(entries, &seed);
    }
    figure("transactions in lockstep with the model", tally[0]);
    figure("conflicts in lockstep with the model", tally[1]);
    assert!(tally[1] > tally[0] / 10 && tally[0] > tally[1], "{tally:?}");
}
