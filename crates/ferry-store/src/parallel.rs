//! The same for each of many things, several at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
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

/// Calls `work` for each item on at most `threads` threads, and hands what it returned to `each`,
/// on the thread of the caller, as it comes: in no particular order, and without keeping it. The
/// first failure ends it.
///
/// # Errors
/// What `work` or `each` fails with.
pub fn in_parallel_as_it_comes<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
    mut each: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let run = |results: SyncSender<Result<R, E>>| {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = work(item);
            let is_over = outcome.is_err();
            // Where nobody listens any more, something has failed.
            if results.send(outcome).is_err() || is_over {
                break;
            }
        }
    };
    thread::scope(|scope| {
        let (results, coming) = sync_channel(2 * threads.max(1));
        // Where a thread cannot be had, the others do its part.
        let others = (0..threads.clamp(1, items.len().max(1)))
            .map_while(|_| {
                let results = results.clone();
                thread::Builder::new().spawn_scoped(scope, || run(results)).ok()
            })
            .count();
        drop(results);
        if others == 0 {
            return items.iter().try_for_each(|item| each(work(item)?));
        }
        // Dropping the receiver, as this ends, ends the threads.
        coming.into_iter().try_for_each(|outcome| each(outcome?))
    })
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

    #[test]
    fn what_is_handed_over_as_it_comes_is_all_there_is() {
        let items: Vec<u32> = (0..1000).collect();
        for threads in [0, 1, 7, 5000] {
            let mut seen = Vec::new();
            let outcome = in_parallel_as_it_comes(
                &items,
                threads,
                |item| Ok::<_, ()>(item * 2),
                |doubled| {
                    seen.push(doubled);
                    Ok(())
                },
            );
            assert_eq!(outcome, Ok(()));
            seen.sort_unstable();
            assert_eq!(seen, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_failure_on_either_side_ends_what_comes() {
        let items: Vec<usize> = (0..100_000).collect();
        let begun = AtomicUsize::new(0);
        let work = |item: &usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 50 { Err("work") } else { Ok(*item) }
        };
        assert_eq!(in_parallel_as_it_comes(&items, 3, work, |_| Ok(())), Err("work"));
        let each = |item| if item == 10 { Err("each") } else { Ok(()) };
        assert_eq!(in_parallel_as_it_comes(&items, 3, work, each), Err("each"));
        assert!(begun.into_inner() < 1000);
    }
}
