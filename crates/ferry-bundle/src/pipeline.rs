//! Work spread over threads, with the results in the order of the work.
//!
//! Both ends are bounded: whoever feeds too fast waits, so a pipeline never holds more than a few
//! items however many pass through it.

use crossbeam_channel::{Receiver, Sender, bounded};

/// One item of work and where its result goes.
type Job<I, O> = (I, Sender<O>);

/// Takes work in.
pub(crate) struct Input<I, O> {
    jobs: Sender<Job<I, O>>,
    order: Sender<Receiver<O>>,
}

/// Gives results out, in order; ends when the input was dropped and everything is done.
pub(crate) struct Output<O> {
    order: Receiver<Receiver<O>>,
}

/// The other end of a pipeline is gone, or a worker died.
#[derive(Debug)]
pub(crate) struct Closed;

/// More threads than this need more memory than they save time.
const MAX_WORKERS: usize = 8;

/// Starts a pipeline in which each worker runs a function that `make_worker` made for it.
pub(crate) fn pipeline<I, O, F>(make_worker: impl Fn() -> F) -> (Input<I, O>, Output<O>)
where
    I: Send + 'static,
    O: Send + 'static,
    F: FnMut(I) -> O + Send + 'static,
{
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let (jobs, job_queue) = bounded::<Job<I, O>>(1);
    let (order, results) = bounded(workers + 1);
    for _ in 0..workers {
        let job_queue = job_queue.clone();
        let mut work = make_worker();
        std::thread::spawn(move || {
            for (item, result) in job_queue {
                // An error means that nobody waits for the result any more.
                let _ = result.send(work(item));
            }
        });
    }
    (Input { jobs, order }, Output { order: results })
}

impl<I, O> Input<I, O> {
    /// Hands in an item; waits while the pipeline is full.
    pub(crate) fn send(&self, item: I) -> Result<(), Closed> {
        let (sender, receiver) = bounded(1);
        self.order.send(receiver).map_err(|_| Closed)?;
        self.jobs.send((item, sender)).map_err(|_| Closed)
    }
}

impl<O> Output<O> {
    /// The next result, or `None` after the last.
    pub(crate) fn next(&self) -> Option<Result<O, Closed>> {
        let receiver = self.order.recv().ok()?;
        Some(receiver.recv().map_err(|_| Closed))
    }
}

#[cfg(test)]
mod tests {
    use super::pipeline;

    #[test]
    fn results_keep_the_order_of_the_work() {
        let (input, output) = pipeline(|| |number: u64| number * number);
        let feeder = std::thread::spawn(move || (0..1000).all(|number| input.send(number).is_ok()));
        let squares: Vec<u64> =
            std::iter::from_fn(|| output.next()).map(|result| result.unwrap_or(0)).collect();
        assert_eq!(squares, (0..1000).map(|number| number * number).collect::<Vec<_>>());
        assert!(feeder.join().unwrap_or(false));
    }

    #[test]
    fn a_reader_that_leaves_releases_the_feeder() {
        let (input, output) = pipeline(|| |number: u64| number);
        drop(output);
        assert!((0..1000).any(|number| input.send(number).is_err()));
    }
}
