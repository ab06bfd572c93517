//! All that a runtime has at one moment, put together from the parts in which it comes.

use crate::api::{Container, PodSandbox};
use prost::{DecodeError, Message};

/// Pods and containers of one snapshot.
const MAX_OBJECTS: usize = 16_384;

/// Encoded size of one snapshot, bytes.
const MAX_SNAPSHOT: usize = 64 << 20;

/// All containers of a runtime at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Pods.
    pub pods: Vec<PodSandbox>,
    /// Containers in every state.
    pub containers: Vec<Container>,
    /// False when some were left out because there were too many.
    pub complete: bool,
}

/// A [`crate::api::SynchronizeRequest`] whose pods and containers are not read yet: an empty one has two bytes on the
/// wire and hundreds in memory.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Part {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pods: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    containers: Vec<Vec<u8>>,
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
}

/// Parts of a snapshot that have come so far.
#[derive(Default)]
pub(crate) struct Gathered {
    snapshot: Snapshot,
    bytes: usize,
    left_out: usize,
}

impl Gathered {
    /// Takes the next part, as far as there is room.
    pub(crate) fn add(&mut self, part: &Part) -> Result<(), DecodeError> {
        for pod in &part.pods {
            if self.has_room(self.snapshot.pods.len(), pod) {
                self.snapshot.pods.push(PodSandbox::decode(&pod[..])?);
            }
        }
        for container in &part.containers {
            if self.has_room(self.snapshot.containers.len(), container) {
                let container = Container::decode(&container[..])?;
                self.snapshot.containers.push(container);
            }
        }
        Ok(())
    }

    fn has_room(&mut self, present: usize, object: &[u8]) -> bool {
        let bytes = self.bytes.saturating_add(object.len());
        let has_room = present < MAX_OBJECTS && bytes <= MAX_SNAPSHOT;
        if has_room {
            self.bytes = bytes;
        } else {
            self.left_out += 1;
        }
        has_room
    }

    /// The snapshot, and how many pods and containers it lacks.
    pub(crate) fn finish(self) -> (Snapshot, usize) {
        let complete = self.left_out == 0;
        let snapshot = Snapshot {
            complete,
            ..self.snapshot
        };
        (snapshot, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SynchronizeRequest;

    fn containers(count: usize, bytes: usize) -> Part {
        let container = Container {
            id: "c".repeat(bytes),
            ..Container::default()
        };
        Part {
            containers: vec![container.encode_to_vec(); count],
            ..Part::default()
        }
    }

    #[test]
    fn a_snapshot_has_a_bound_of_objects() {
        let mut gathered = Gathered::default();
        for count in [MAX_OBJECTS - 1, 3] {
            gathered.add(&containers(count, 1)).unwrap();
        }
        let (snapshot, left_out) = gathered.finish();
        assert_eq!(snapshot.containers.len(), MAX_OBJECTS);
        assert_eq!((snapshot.complete, left_out), (false, 2));
    }

    #[test]
    fn a_snapshot_has_a_bound_of_bytes() {
        let mut gathered = Gathered::default();
        let large = containers(3, MAX_SNAPSHOT / 2 - 100);
        gathered.add(&large).unwrap();
        gathered.add(&containers(1, 10)).unwrap();
        let (snapshot, left_out) = gathered.finish();
        assert_eq!(snapshot.containers.len(), 3);
        assert_eq!((snapshot.complete, left_out), (false, 1));
    }

    #[test]
    fn a_part_is_read_from_what_the_runtime_sends() {
        let request = SynchronizeRequest {
            pods: vec![PodSandbox {
                id: "p1".to_owned(),
                ..PodSandbox::default()
            }],
            containers: vec![Container::default(), Container::default()],
            more: true,
        };
        let part = Part::decode(&request.encode_to_vec()[..]).unwrap();
        assert!(part.more);
        let mut gathered = Gathered::default();
        gathered.add(&part).unwrap();
        let (snapshot, left_out) = gathered.finish();
        assert_eq!(snapshot.pods, request.pods);
        assert_eq!(snapshot.containers, request.containers);
        assert_eq!((snapshot.complete, left_out), (true, 0));

        let unreadable = Part {
            pods: vec![vec![0xff]],
            ..Part::default()
        };
        assert!(Gathered::default().add(&unreadable).is_err());
    }
}
