//! The stdout output: the chunk's JSON lines as they are.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::delivery::chunk::Chunk;
use crate::delivery::status::OutputStatus;
use crate::delivery::until;

/// How long to wait before a write that failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes chunks until there are no more, or the deadline has passed.
pub async fn run(
    mut chunks: mpsc::Receiver<Chunk>,
    status: Arc<OutputStatus>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    status.state.set_up(true);
    loop {
        let deadline = *stop.borrow_and_update();
        let chunk = tokio::select! {
            chunk = chunks.recv() => chunk,
            () = until(deadline) => return,
            changed = stop.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Some(mut chunk) = chunk else { return };
        loop {
            let (written, result) = write(chunk).await;
            let Err(error) = result else {
                written.settle(&[]);
                break;
            };
            status.state.set_up(false);
            status.state.set_error(format!("cannot write to standard output: {error}"));
            let deadline = *stop.borrow();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
            chunk = written;
        }
        status.state.set_up(true);
    }
}

/// Writing may block for as long as nobody reads: not on the runtime's thread.
async fn write(chunk: Chunk) -> (Chunk, std::io::Result<()>) {
    let written = tokio::task::spawn_blocking(move || {
        let mut out = std::io::stdout().lock();
        let result = out.write_all(&chunk.entries).and_then(|()| out.flush());
        (chunk, result)
    });
    written.await.expect("writing bytes does not panic, and the task is never cancelled")
}
