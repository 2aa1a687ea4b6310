//! Well-behaved clients with many requests in flight, against a server that answers in order and gives closed handles
//! away again, as OpenSSH's does: whatever they do, it is read, and told as it was.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// What a client may do next.
#[derive(Clone, Debug)]
enum Next {
    Open,
    /// Writes to one of the open files: at its end, or anywhere.
    Write(prop::sample::Index, Option<u16>, Vec<u8>),
    Close(prop::sample::Index),
    /// The server answers its oldest request.
    Answer,
}

fn any_next() -> impl Strategy<Value = Next> {
    let data = prop::collection::vec(any::<u8>(), 1..30);
    prop_oneof![
        2 => Just(Next::Open),
        6 => (any::<prop::sample::Index>(), prop::option::weighted(0.1, any::<u16>()), data)
            .prop_map(|(file, at, data)| Next::Write(file, at, data)),
        1 => any::<prop::sample::Index>().prop_map(Next::Close),
        6 => Just(Next::Answer),
    ]
}

/// A file as the client knows it.
#[derive(Clone, Debug, Default)]
struct File {
    path: String,
    /// Where the first write was, and where the furthest ended.
    start: u64,
    end: u64,
    bytes: u64,
    /// What was written, while it was in order.
    content: Option<Vec<u8>>,
}

#[derive(Default)]
struct World {
    observer: Option<Observer>,
    seen: Vec<Seen>,
    /// Requests that wait for their answer: their ids, and what they are.
    queue: VecDeque<(u32, Option<Asked>)>,
    last_id: u32,
    /// By their handles.
    open: BTreeMap<u32, File>,
    closed: Vec<File>,
    /// Handles that the server holds.
    held: std::collections::BTreeSet<u32>,
}

enum Asked {
    Open(String),
    Close(u32),
}

impl World {
    fn say(&mut self, by: By, bytes: Vec<u8>) {
        let observer = self.observer.as_mut().unwrap();
        let read = match by {
            By::Client => observer.from_client(bytes.into(), &mut self.seen),
            By::Node => observer.from_node(bytes.into(), &mut self.seen),
        };
        assert_eq!(read, Ok(()));
    }

    fn pick(&self, index: prop::sample::Index) -> Option<u32> {
        let handles: Vec<u32> = self.open.keys().copied().collect();
        (!handles.is_empty()).then(|| *index.get(&handles))
    }

    fn ask(&mut self, asked: Option<Asked>, request: impl FnOnce(u32) -> Vec<u8>) {
        self.last_id += 1;
        self.queue.push_back((self.last_id, asked));
        self.say(By::Client, request(self.last_id));
    }

    fn step(&mut self, next: Next) {
        match next {
            Next::Open => {
                let path = format!("/srv/{}", self.last_id);
                let asked = Some(Asked::Open(path.clone()));
                self.ask(asked, |id| open(id, &path, 0x1a));
            }
            Next::Write(index, at, data) => {
                let Some(handle) = self.pick(index) else {
                    return;
                };
                let file = self.open.get_mut(&handle).unwrap();
                let offset = at.map_or(file.end, u64::from);
                if file.bytes == 0 {
                    file.start = offset;
                } else if offset != file.end {
                    file.content = None;
                }
                if let Some(content) = &mut file.content {
                    content.extend(&data);
                }
                let length = u64::try_from(data.len()).unwrap();
                file.bytes += length;
                file.end = file.end.max(offset + length);
                self.ask(None, |id| write(id, &number(handle), offset, &data));
            }
            Next::Close(index) => {
                let Some(handle) = self.pick(index) else {
                    return;
                };
                let file = self.open.remove(&handle).unwrap();
                self.closed.push(file);
                let asked = Some(Asked::Close(handle));
                self.ask(asked, |id| on_handle(kind::CLOSE, id, &number(handle)));
            }
            Next::Answer => match self.queue.pop_front() {
                None => {}
                Some((id, Some(Asked::Open(path)))) => {
                    let free = (0..).find(|it| !self.held.contains(it)).unwrap();
                    self.held.insert(free);
                    let content = Some(Vec::new());
                    let file = File {
                        path,
                        content,
                        ..File::default()
                    };
                    self.open.insert(free, file);
                    self.say(By::Node, handle(id, &number(free)));
                }
                Some((id, asked)) => {
                    if let Some(Asked::Close(handle)) = asked {
                        self.held.remove(&handle);
                    }
                    self.say(By::Node, status_of(id, 0));
                }
            },
        }
    }
}

proptest! {
    #[test]
    fn well_behaved_clients_are_read_whatever_is_in_flight(steps in prop::collection::vec(any_next(), 1..150)) {
        let (observer, seen, _) = observe(&greeted(), false);
        let mut world = World { observer: Some(observer), seen, ..World::default() };
        for step in steps {
            world.step(step);
        }
        while !world.queue.is_empty() {
            world.step(Next::Answer);
        }
        let told: BTreeMap<String, FileOperation> = operations(world.seen)
            .into_iter()
            .filter(|it| it.action == FileAction::Close)
            .map(|it| (String::from_utf8_lossy(&it.path).into_owned(), it))
            .collect();
        prop_assert_eq!(told.len(), world.closed.len());
        for file in world.closed {
            let written = told.get(&file.path).unwrap().written.clone().unwrap();
            prop_assert_eq!(written.bytes, file.bytes, "{}", file.path);
            let digest = file.content.map(|content| Sha256::digest(content).into());
            prop_assert_eq!(written.sha256, digest, "{}", file.path);
            prop_assert_eq!(written.whole, digest.is_some() && file.start == 0, "{}", file.path);
        }
    }
}
