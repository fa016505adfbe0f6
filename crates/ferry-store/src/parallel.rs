//! The same for each of many things, several at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Calls `work` for each item on at most `threads` threads, and returns what it returned, in the
/// order of the items. The first failure ends it: what was not begun by then is left out, and of
/// several failures the one of the first item is returned.
///
/// # Errors
/// What `work` fails with.
pub fn in_parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let run = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { break };
            let outcome = work(item);
            failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
            done.push((number, outcome));
        }
        done
    };
    let mut all = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(items.len()))
            // Where a thread cannot be had, the others do its part.
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, run).ok())
            .collect();
        let mut all = run();
        for thread in others {
            match thread.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_unstable_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_however_many_threads_there_are() {
        let items: Vec<u32> = (0..1000).collect();
        for threads in [0, 1, 7, 5000] {
            let doubled = in_parallel(&items, threads, |item| Ok::<_, ()>(item * 2));
            assert_eq!(doubled, Ok(items.iter().map(|item| item * 2).collect()));
        }
        assert_eq!(in_parallel(&[], 4, |item: &u32| Ok::<_, ()>(*item)), Ok(Vec::new()));
    }

    #[test]
    fn a_failure_ends_it() {
        let begun = AtomicUsize::new(0);
        let items: Vec<usize> = (0..1000).collect();
        let outcome = in_parallel(&items, 1, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item < 3 { Ok(()) } else { Err(*item) }
        });
        assert_eq!(outcome, Err(3));
        assert_eq!(begun.into_inner(), 4);
    }
}
