//! What is lost, and what is given up: each byte counted.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::Tree;
use crate::checkpoint::account::DropReason;
use crate::checkpoint::store::SavedGeneration;
use crate::logs::container::Container;
use crate::logs::generation::Generation;
use crate::logs::layout::pod_directory;

/// A deleted file that is kept open for what is unread.
struct Held<'a> {
    container: &'a Arc<Container>,
    generation: Arc<Generation>,
    bytes: u64,
}

impl Tree {
    /// What a checkpoint knows and the disk does not have any more is lost, and counted. Not where the listing has failed:
    /// what could not be opened just now is not lost.
    pub(super) fn count_lost(&self) {
        let (root, unseen) = (&self.discovery.config.logs.root, &self.unseen);
        let is_missing = |saved: &SavedGeneration| {
            if self.discovery.config.sidecar {
                let directory = saved.file.as_deref().and_then(Path::parent);
                return directory.is_some_and(|directory| self.has_listed(directory));
            }
            let pod = pod_directory(&saved.namespace, &saved.pod, &saved.uid);
            !unseen.everything && !unseen.pods.contains(&root.join(pod))
        };
        let missing =
            self.discovery.saved.lock().unwrap_or_else(PoisonError::into_inner).take_missing(is_missing);
        let outputs = &self.discovery.config.logs.outputs;
        for lost in missing {
            for output in outputs {
                let unread = lost.outputs.get(&output.name).map(|acked| lost.size.saturating_sub(*acked));
                let Some(bytes) = unread.filter(|bytes| *bytes > 0) else { continue };
                tracing::warn!(
                    output = output.name,
                    namespace = lost.namespace,
                    pod = lost.pod,
                    container = lost.container,
                    bytes,
                    "a log file was deleted while no agent ran; its unread end is lost"
                );
                let account = self.discovery.accounts.output(&output.name);
                account.read(bytes);
                account.give_up(
                    &self.discovery.accounts.namespace(&lost.namespace),
                    DropReason::LostUnlinked,
                    0,
                    bytes,
                );
            }
        }
    }

    /// Gives up deleted files, oldest first, of the pod that holds most, while all together hold more than
    /// `held_deleted`. True while any deleted file is held.
    pub(super) fn keep_deleted_within_budget(&self) -> bool {
        // By pod: the sum, and each file with what it holds, oldest first.
        let mut held: HashMap<&str, (u64, VecDeque<Held<'_>>)> = HashMap::new();
        for known in self.pods.values().flat_map(HashMap::values) {
            for generation in known.container.generations() {
                if generation.is_listed() || generation.is_given_up() || generation.refresh() != Some(true) {
                    continue;
                }
                let (sum, files) = held.entry(&known.container.path.uid).or_default();
                let bytes = generation.backlog();
                *sum += bytes;
                files.push_back(Held { container: &known.container, generation, bytes });
            }
        }
        let any = !held.is_empty();
        let mut total: u64 = held.values().map(|(sum, _)| sum).sum();
        let limit = self.discovery.config.logs.held_deleted;
        while total > limit {
            let Some((sum, files)) = held.values_mut().max_by_key(|(sum, _)| *sum) else { break };
            let Some(oldest) = files.pop_front() else { break };
            tracing::warn!(path = %oldest.generation.path().display(), bytes = oldest.bytes, limit,
                "deleted files hold more than logs.held_deleted; the oldest of the largest pod is given up");
            oldest.generation.give_up();
            self.discovery.inventory.changed(oldest.container);
            *sum -= oldest.bytes;
            total -= oldest.bytes;
        }
        self.discovery.metrics.deleted_bytes_held.set(i64::try_from(total).unwrap_or(i64::MAX));
        any
    }
}
