//! Threads that own a connection each and take jobs from one queue.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rusqlite::Connection;

/// Most jobs that are taken at once.
const MOST: usize = 1000;

/// Threads and their queue. The queue is as long as there are callers who wait, and no longer.
pub(crate) struct Workers<J> {
    queue: Option<Sender<J>>,
    threads: Vec<JoinHandle<()>>,
}

impl<J: Send + 'static> Workers<J> {
    /// One thread for each connection. A lone thread is given all jobs that wait, up to [`MOST`]; threads that
    /// share the queue are given one job at a time.
    pub(crate) fn start(
        name: &str,
        connections: Vec<Connection>,
        work: impl Fn(&mut Connection, Vec<J>) + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let most = if connections.len() == 1 { MOST } else { 1 };
        let start = |mut connection: Connection| {
            let (receiver, work) = (Arc::clone(&receiver), work.clone());
            Builder::new().name(name.to_owned()).spawn(move || {
                while let Some(jobs) = take(&receiver, most) {
                    work(&mut connection, jobs);
                }
            })
        };
        let threads = connections
            .into_iter()
            .map(start)
            .collect::<std::io::Result<_>>()?;
        Ok(Self {
            queue: Some(sender),
            threads,
        })
    }
}

impl<J> Workers<J> {
    /// Puts a job into the queue. If no thread lives, the job is dropped, and so is the answer's sender in it.
    pub(crate) fn give(&self, job: J) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(job);
        }
    }
}

/// Waits for a job and takes those that wait behind it; `None` when nobody can send any more.
fn take<J>(receiver: &Mutex<Receiver<J>>, most: usize) -> Option<Vec<J>> {
    let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
    let mut jobs = vec![receiver.recv().ok()?];
    jobs.extend(receiver.try_iter().take(most.saturating_sub(1)));
    Some(jobs)
}

impl<J> Drop for Workers<J> {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            // A thread that panicked has dropped its callers' answers, which told them.
            let _ = thread.join();
        }
    }
}

impl<J> fmt::Debug for Workers<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workers({})", self.threads.len())
    }
}
