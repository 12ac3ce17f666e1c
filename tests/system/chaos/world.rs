//! A node, its agent, two receivers, and what happens to them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::dice::Dice;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Node, pod};

use super::node::Pod;
use super::receiver::Receiver;
use crate::{BINARY, config_of, forward_to, with_pods};

/// Pods that live at the same time.
const PODS: usize = 6;
/// No pod writes while a receiver is so many lines behind: the node has a disk, and the run an end.
const MOST_BEHIND: u64 = 60_000;
const OUTPUTS: [&str; 2] = ["one", "two"];

pub(super) struct World {
    fault: Fault,
    dice: Dice,
    node: Node,
    receivers: [Receiver; 2],
    pods: Vec<Pod>,
    agent: Option<Agent>,
    /// When an agent that was ended is started again, or a frozen one goes on.
    resumes: Option<Instant>,
    config: String,
    happened: BTreeMap<&'static str, u64>,
}

// === impl World ===

impl World {
    pub(super) fn new(name: &str, dice: Dice) -> Self {
        let (node, receivers) = (Node::new(), [Receiver::new(), Receiver::new()]);
        let pods = (0..PODS).map(|number| Pod::new(&node, &format!("pod-{number}"))).collect();
        let mut world = World {
            fault: Fault::new(name),
            dice,
            node,
            receivers,
            pods,
            agent: None,
            resumes: None,
            config: String::new(),
            happened: BTreeMap::new(),
        };
        world.config = world.configuration("kube");
        world.start();
        world
    }

    fn configuration(&self, tag: &str) -> String {
        let outputs: String = OUTPUTS
            .iter()
            .zip(self.servers())
            .map(|(name, server)| {
                let keys = format!(
                    "      ack_timeout: 2s\n      chunk_bytes: 64KiB\n      tag: '{tag}.{{namespace}}'\n"
                );
                forward_to(server, &format!("    name: {name}\n"), &keys)
            })
            .collect();
        with_pods(&self.node, &config_of(&self.node, "", &outputs))
            .replace("workers: 2\n", "workers: 2\nmemory_budget: 8MiB\n")
    }

    fn start(&mut self) {
        let agent = Agent::launch_with_grace(BINARY, self.node.path(), &self.config, "4s");
        self.agent = Some(self.fault.watch(agent));
    }

    /// A little time passes, somebody writes, and perhaps something happens.
    pub(super) fn step(&mut self) {
        std::thread::sleep(Duration::from_millis(self.dice.below(40)));
        self.resume();
        self.receivers.iter_mut().for_each(Receiver::cure_in_time);
        if !self.is_far_behind() {
            let index = self.living();
            self.pods[index].write(&mut self.dice);
        }
        match self.dice.below(100) {
            0..3 => self.end_agent(),
            3 => self.freeze(),
            4 => self.reload(),
            5..9 => {
                let index = self.dice.below(2) as usize;
                if let Some(what) = self.receivers[index].make_sick(&mut self.dice) {
                    self.count(what);
                }
            }
            9 => self.change_metadata(),
            10..13 => self.rotate(),
            13..15 => self.compress(),
            15..25 => self.prune(),
            25..27 => self.delete_pod(),
            31..35 => self.truncate(),
            _ => {}
        }
    }

    fn servers(&self) -> impl Iterator<Item = &ForwardServer> {
        self.receivers.iter().map(|receiver| &receiver.server)
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// One of the pods that are not deleted.
    fn living(&mut self) -> usize {
        let living: Vec<usize> =
            (0..self.pods.len()).filter(|index| self.pods[*index].deleted.is_none()).collect();
        living[self.dice.below(living.len() as u64) as usize]
    }

    fn is_far_behind(&self) -> bool {
        let written: u64 = self.pods.iter().filter(|pod| pod.deleted.is_none()).map(|pod| pod.log.next).sum();
        let living = || self.pods.iter().filter(|pod| pod.deleted.is_none());
        self.servers().any(|server| {
            let arrived: u64 = living().map(|pod| server.count(pod.name())).sum();
            arrived + MOST_BEHIND < written
        })
    }

    fn is_complete(&self, pod: &Pod) -> bool {
        self.servers().all(|server| server.count(pod.name()) == pod.log.next)
    }

    fn resume(&mut self) {
        if self.resumes.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.resumes = None;
        match &self.agent {
            Some(agent) => agent.signal("CONT"),
            None => self.start(),
        }
    }

    /// An agent that is up and not frozen.
    fn awake(&self) -> Option<&Agent> {
        self.agent.as_ref().filter(|agent| self.resumes.is_none() && agent.is_up())
    }

    /// kill -9 or SIGTERM. What is deleted and not delivered then is lost; it must be counted, so the agent must have
    /// saved how much it is: otherwise it lives on.
    fn end_agent(&mut self) {
        let Some(agent) = &self.agent else { return };
        let held: Vec<usize> = (0..self.pods.len())
            .filter(|index| self.pods[*index].deleted.is_some() && !self.is_complete(&self.pods[*index]))
            .collect();
        if !held.iter().all(|index| self.pods[*index].orphaned || self.has_saved(&self.pods[*index])) {
            return;
        }
        let orderly = self.resumes.is_none() && agent.is_up() && self.dice.one_in(3);
        if self.resumes.is_none() && agent.is_up() {
            self.fault.look(agent);
        }
        let Some(agent) = self.agent.take() else { return };
        if orderly {
            assert_eq!(agent.stop(), 0);
            self.count("SIGTERM");
        } else {
            agent.kill();
            self.count("kill -9");
        }
        for index in held {
            self.pods[index].orphaned |= !self.is_complete(&self.pods[index]);
        }
        self.damage_checkpoints();
        self.resumes = Some(Instant::now() + Duration::from_millis(self.dice.below(1_500)));
    }

    /// Whether the checkpoint on the disk knows all bytes of a deleted pod.
    fn has_saved(&self, pod: &Pod) -> bool {
        self.node.saved_files().iter().any(|file| {
            file["namespace"] == pod.name()
                && Some(file["size"].as_u64()) == Some(pod.deleted)
                && OUTPUTS.iter().all(|output| file["outputs"][output].is_u64())
        })
    }

    /// Not while it is all that knows of a loss.
    fn damage_checkpoints(&mut self) {
        let all_complete =
            self.pods.iter().filter(|pod| pod.deleted.is_some()).all(|pod| self.is_complete(pod));
        if !all_complete || !self.dice.one_in(3) {
            return;
        }
        let both = self.dice.one_in(2);
        for name in ["checkpoints", "checkpoints.previous"].iter().take(if both { 2 } else { 1 }) {
            let path = self.node.path().join("data").join(name);
            let Ok(mut bytes) = std::fs::read(&path) else { continue };
            let at = self.dice.below(bytes.len() as u64 + 1) as usize;
            if self.dice.one_in(2) {
                bytes.truncate(at);
            } else {
                bytes[at..].fill(0);
            }
            std::fs::write(&path, bytes).unwrap();
        }
        self.count("checkpoint damaged");
    }

    fn freeze(&mut self) {
        let Some(agent) = self.awake() else { return };
        agent.signal("STOP");
        self.resumes = Some(Instant::now() + Duration::from_millis(self.dice.below(3_000)));
        self.count("SIGSTOP");
    }

    fn reload(&mut self) {
        if self.awake().is_none() {
            return;
        }
        let is_wrong = self.dice.one_in(3);
        let tag = format!("kube-{}", self.dice.below(5));
        let right = self.configuration(&tag);
        let text = if is_wrong { "logs: [".to_owned() } else { right.clone() };
        if let Some(agent) = self.awake() {
            agent.reconfigure(self.node.path(), &text);
            agent.signal("HUP");
        }
        // A start takes a right one in any case.
        self.config = right;
        self.count("reload");
    }

    fn change_metadata(&mut self) {
        let mut pods = Vec::new();
        for one in self.pods.iter().filter(|pod| pod.deleted.is_none()) {
            if self.dice.one_in(4) {
                continue;
            }
            let mut pod = pod(one.name(), &json!({}));
            pod["metadata"]["namespace"] = json!(one.name());
            pod["metadata"]["labels"]["version"] = json!(self.dice.below(100).to_string());
            pods.push(pod);
        }
        self.node.write_pods(&pods);
        if self.dice.one_in(4) {
            std::fs::write(self.node.path().join("pods.json"), "{ half").unwrap();
        }
        self.count("metadata change");
    }

    /// Every other pod keeps its one file: only such a one is truncated, or deleted as a whole.
    fn rotate(&mut self) {
        let index = self.living();
        if index.is_multiple_of(2) {
            return;
        }
        self.pods[index].rotate();
        self.count("rotation");
    }

    fn compress(&mut self) {
        let index = self.living();
        self.pods[index].compress();
    }

    fn prune(&mut self) {
        let index = self.living();
        let servers = self.receivers.each_ref().map(|receiver| &receiver.server);
        self.pods[index].prune(&servers);
    }

    /// What the agent says of the only file of a pod, if it has seen all of it.
    fn seen(&self, pod: &Pod) -> Option<Value> {
        let agent = self.awake().filter(|_| pod.is_one_file())?;
        let files = agent.api("/api/v1/files")["files"].as_array().cloned().unwrap_or_default();
        let mut files = files.into_iter().filter(|file| file["namespace"] == pod.name());
        let (file, others) = (files.next()?, files.count());
        (others == 0 && file["state"] == "open" && file["size"] == pod.size()).then_some(file)
    }

    /// Deletes a pod with whatever is unread, if the agent has seen all of it: it holds the file.
    fn delete_pod(&mut self) {
        let index = self.living();
        if self.pods[index].log.next == 0 || self.seen(&self.pods[index]).is_none() {
            return;
        }
        let under_backlog = !self.is_complete(&self.pods[index]);
        self.pods[index].delete();
        let name = format!("pod-{}", self.pods.len());
        self.pods.push(Pod::new(&self.node, &name));
        self.count(if under_backlog { "pod deleted under backlog" } else { "pod deleted" });
    }

    /// Truncates a file of which every receiver has acknowledged all.
    fn truncate(&mut self) {
        let index = self.living();
        let Some(file) = self.seen(&self.pods[index]) else { return };
        let is_acked = |output: &str| file["outputs"][output]["acked"] == file["size"];
        if file["size"] != 0 && OUTPUTS.iter().all(|output| is_acked(output)) {
            self.pods[index].log.truncate();
            self.count("truncation");
        }
    }

    /// Counts a line as written that is not.
    pub(super) fn forget_to_write_a_line(&mut self) {
        self.pods[0].log.numbered(100);
    }

    /// Every fault ends, the agent is started a last time, and each living pod writes a last line, which arrives.
    pub(super) fn heal(&mut self) {
        self.receivers.iter_mut().for_each(Receiver::cure);
        self.resumes = self.resumes.map(|_| Instant::now());
        self.resume();
        self.node.write_pods(&[]);
        if let Some(agent) = &self.agent {
            eventually("the agent is up", || agent.is_up());
            agent.reconfigure(self.node.path(), &self.config);
        }
        self.pods.iter_mut().filter(|pod| pod.deleted.is_none()).for_each(Pod::write_last);
        eventually("the last lines", || {
            let mut living = self.pods.iter().filter(|pod| pod.deleted.is_none());
            living.all(|pod| self.servers().all(|server| server.has(pod.name(), pod.log.next - 1)))
        });
    }

    /// Every line of every pod has arrived at both receivers, but for those of orphaned pods, and their bytes are counted.
    #[allow(clippy::print_stderr, reason = "whoever runs it wants to know what has happened")]
    pub(super) fn assert_nothing_is_lost(&self) {
        let agent = self.agent.as_ref().unwrap();
        let sent: Vec<_> = self
            .pods
            .iter()
            .flat_map(|pod| self.servers().map(|server| (server, pod.name(), pod.log.next)))
            .collect();
        agent.settle();
        for pod in self.pods.iter().filter(|pod| !pod.orphaned) {
            for (server, output) in self.servers().zip(OUTPUTS) {
                // Fails at a damaged line, which says more than one that is missing: it may be inside of it.
                server.tally(pod.name(), pod.log.next);
                let missing = server.missing(pod.name(), pod.log.next);
                assert!(
                    missing.is_empty(),
                    "{} lines of {} are lost at {output}: {missing:?} of {}, deleted: {:?}, dropped bytes: {}; {:?}",
                    missing.len(),
                    pod.name(),
                    pod.log.next,
                    pod.deleted,
                    self.fault.dropped_of(pod.name()),
                    self.happened
                );
            }
        }
        let mut orphans = 0;
        for pod in self.pods.iter().filter(|pod| pod.orphaned) {
            let missing = || self.servers().map(|server| server.missing(pod.name(), pod.log.next));
            let bytes: u64 = missing().map(|missing| pod.log.bytes_of(&missing)).sum();
            // What could not be listed for a moment is counted with the next rescan, of every minute.
            eventually(&format!("{bytes} lost bytes of {} are counted", pod.name()), || {
                self.fault.dropped_of(pod.name()) >= bytes
            });
            orphans += u64::from(bytes > 0);
        }
        let row = self.fault.survived_with_losses(agent, &sent);
        eprintln!("{:?}; {orphans} pods with counted losses; {row:?}", self.happened);
    }
}
