//! Lets threads go on one at a time, in an order that a seed draws.
//!
//! A thread that calls [`Scheduler::pause`] waits until it is its turn. One thread runs; when it
//! pauses, the seed picks the next of those that wait. Some are held back for many turns, so that
//! they stand still in the middle of something while the others get far.
//!
//! A thread that runs may wait for another one at a lock, or sleep until there is work. Nobody
//! tells the scheduler: if no thread pauses for [`PATIENCE`], the next one may go on as well. So
//! which threads run beside one another depends on time in such places, and nowhere else.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration;

use hedgerow::Result;
use hedgerow::fs::{File, Fs, FsLock, MapSource, OpenMode, SimFs};
use support::forward_names;
use support::random::{Random, Source};

/// How long a thread may run without a pause before the next one may go on.
const PATIENCE: Duration = Duration::from_micros(100);
/// Bounds the harm of a wake-up that went to a thread that had left.
const LOST_WAKE_UP: Duration = Duration::from_millis(5);

/// Whose turn it is.
#[derive(Debug)]
pub struct Scheduler {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Random,
    /// One in so many threads that pause is held back.
    hold_one_in: u64,
    waiting: Vec<Waiting>,
    /// It may go on, and has not noticed yet.
    chosen: Option<ThreadId>,
    /// It went on last, and has not paused since.
    running: Option<ThreadId>,
    turns: u64,
    is_over: bool,
}

#[derive(Debug)]
struct Waiting {
    thread: ThreadId,
    /// The turn up to which it is held back.
    held: u64,
    wake: Arc<Condvar>,
}

impl State {
    /// Picks the next thread, if one waits, and unless one is chosen that has not noticed yet: that
    /// one waits no more, so nobody would choose it again.
    fn choose(&mut self) {
        if self.chosen.is_some() {
            return;
        }
        let ready: Vec<usize> = (0..self.waiting.len())
            .filter(|at| self.waiting[*at].held <= self.turns)
            .collect();
        let at = match (ready.is_empty(), self.waiting.is_empty()) {
            (_, true) => return,
            (false, _) => *self.random.pick(&ready),
            (true, _) => {
                let held = self.waiting.iter().map(|waiting| waiting.held);
                let first = held.enumerate().min_by_key(|(_, held)| *held);
                first.expect("one waits").0
            }
        };
        let next = self.waiting.remove(at);
        self.turns += 1;
        self.chosen = Some(next.thread);
        next.wake.notify_one();
        if at == 0
            && let Some(first) = self.waiting.first()
        {
            // It is the one that looks at the time from now on.
            first.wake.notify_one();
        }
    }
}

impl Scheduler {
    pub fn new(seed: u64) -> Arc<Self> {
        let mut random = Random::new(seed);
        let hold_one_in = *random.pick(&[4, 12, 40]);
        Arc::new(Self {
            state: Mutex::new(State {
                random,
                hold_one_in,
                waiting: Vec::new(),
                chosen: None,
                running: None,
                turns: 0,
                is_over: false,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Waits for the turn of this thread.
    pub fn pause(&self) {
        let me = std::thread::current().id();
        let wake = Arc::new(Condvar::new());
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        let mut held = state.turns;
        let hold_one_in = state.hold_one_in;
        if state.random.one_in(hold_one_in) {
            held += 1 + state.random.below(80);
        }
        state.waiting.push(Waiting {
            thread: me,
            held,
            wake: Arc::clone(&wake),
        });
        if state.running.is_none_or(|running| running == me) {
            state.choose();
        }
        while !state.is_over && state.chosen != Some(me) {
            let turns = state.turns;
            let is_first = state.waiting.first().is_some_and(|it| it.thread == me);
            let patience = if is_first { PATIENCE } else { LOST_WAKE_UP };
            let (now, waited) = wake.wait_timeout(state, patience).expect("as above");
            state = now;
            if waited.timed_out() && state.turns == turns {
                state.choose();
            }
        }
        if state.chosen == Some(me) {
            state.chosen = None;
            state.running = Some(me);
        }
        state.waiting.retain(|it| it.thread != me);
    }

    /// This thread pauses no more.
    pub fn leave(&self) {
        let mut state = self.lock();
        if state.running == Some(std::thread::current().id()) {
            state.running = None;
            state.choose();
        }
    }

    /// From now on no thread pauses.
    pub fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        for waiting in &state.waiting {
            waiting.wake.notify_one();
        }
    }
}

/// A file system whose reads are pauses. Of its changes those of [`SimFs::on_change`] are.
#[derive(Debug)]
pub struct Pausing {
    pub fs: SimFs,
    pub scheduler: Arc<Scheduler>,
}

impl Fs for Pausing {
    forward_names!(fs);

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>> {
        if mode != OpenMode::CreateNew {
            self.scheduler.pause();
        }
        let inner = self.fs.open(path, mode)?;
        let scheduler = Arc::clone(&self.scheduler);
        Ok(Arc::new(PausingFile { inner, scheduler }))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.fs.rename_new(from, to)
    }

    fn lock_dir(&self, path: &Path) -> Result<Option<Box<dyn FsLock>>> {
        self.fs.lock_dir(path)
    }
}

#[derive(Debug)]
struct PausingFile {
    inner: Arc<dyn File>,
    scheduler: Arc<Scheduler>,
}

impl File for PausingFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.scheduler.pause();
        self.inner.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.inner.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<()> {
        self.inner.sync_data()
    }

    fn map_source(&self) -> Option<MapSource<'_>> {
        self.inner.map_source()
    }
}

/// Only tests hold the scheduler to this.
#[test]
fn one_thread_runs_at_a_time_and_every_one_gets_its_turns() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let scheduler = Scheduler::new(7);
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    scheduler.pause();
                    total.fetch_add(1, Ordering::Relaxed);
                }
                scheduler.leave();
            });
        }
    });
    assert_eq!(total.into_inner(), 400);
    scheduler.end();
    scheduler.pause();
}
