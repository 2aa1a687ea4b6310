//! The log's tree as a hub gives it out, and who signed it.

use std::collections::BTreeMap;

use mezite_api::request::MAX_TILES;
use mezite_api::v1::{LogKeys, ReadTilesRequest, TilePlace};
use mezite_audit::checkpoint::{self, Signed};
use mezite_audit::handover::{Chain, Handover};
use mezite_audit::merkle::Hash;
use mezite_audit::tile::{Place, TileError};
use mezite_audit::{CheckpointError, NoteKey};

use crate::fail::Failure;
use crate::hub::{Hub, within};

/// The newest checkpoint, verified, and what verifies older ones.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) signed: Signed,
    pub(super) note: String,
    keys: Vec<NoteKey>,
    chain: Chain,
    tiles: BTreeMap<Place, Vec<u8>>,
}

fn broken(why: impl std::fmt::Display) -> Failure {
    Failure::failed(format_args!("the hub's checkpoint does not hold: {why}"))
}

/// The keys that a hub names.
pub(super) fn keys_of(keys: &LogKeys) -> Result<Vec<NoteKey>, Failure> {
    let key = |bytes: &Vec<u8>| {
        let bytes = bytes.as_slice().try_into();
        let bytes = bytes.map_err(|_| broken("the hub sent an audit key that is none"))?;
        NoteKey::new(&*keys.origin, bytes).map_err(broken)
    };
    keys.keys.iter().map(key).collect()
}

/// Lines of audit keys that the user gave.
pub(super) fn parse_keys(lines: &[String]) -> Result<Vec<NoteKey>, Failure> {
    let keys = lines.iter().map(|line| NoteKey::parse(line));
    keys.collect::<Result<_, CheckpointError>>()
        .map_err(Failure::usage)
}

impl Tree {
    /// Asks for the newest checkpoint, which `trusted` keys signed or one that followed them; any that the hub names where
    /// there are none.
    pub(super) async fn open(hub: &mut Hub, trusted: &[NoteKey]) -> Result<Self, Failure> {
        let answer = within(hub.client.read_tiles(ReadTilesRequest::default())).await?;
        let mut keys = trusted.to_vec();
        keys.extend(keys_of(&answer.keys.unwrap_or_default())?);
        let mut chain = Chain::default();
        for (note, pair) in answer
            .handovers
            .iter()
            .zip(keys.get(trusted.len()..).unwrap_or_default().windows(2))
        {
            if let [old, new] = pair {
                let handover = Handover::open(note, old, new).map_err(broken)?;
                chain.push(handover).map_err(broken)?;
            }
        }
        let signed = checkpoint::open_any(&answer.checkpoint, &keys).map_err(broken)?;
        chain.check(&signed).map_err(broken)?;
        for key in trusted {
            chain.leads_from(key, &signed).map_err(broken)?;
        }
        Ok(Self {
            signed,
            note: answer.checkpoint,
            keys,
            chain,
            tiles: BTreeMap::new(),
        })
    }

    /// Every key that signed or signs.
    pub(super) fn keys(&self) -> &[NoteKey] {
        &self.keys
    }

    /// A checkpoint that was kept, by a key that counted at its size.
    pub(super) fn kept(&self, note: &str) -> Result<Signed, CheckpointError> {
        let kept = checkpoint::open_any(note, &self.keys)?;
        self.chain.check(&kept)?;
        Ok(kept)
    }

    /// Makes a proof, asking for tiles until there are enough.
    pub(super) async fn prove(
        &mut self,
        hub: &mut Hub,
        make: impl Fn(&dyn Fn(Place) -> Option<Vec<u8>>) -> Result<Vec<Hash>, TileError>,
    ) -> Result<Vec<Hash>, Failure> {
        loop {
            let missing = match make(&|place| self.tiles.get(&place).cloned()) {
                Ok(path) => return Ok(path),
                Err(TileError::Missing(place)) => place,
                Err(error) => return Err(Failure::failed(error)),
            };
            // Those above it and the right edge are needed too, most likely.
            let mut wanted: Vec<Place> = (0..8)
                .scan(missing, |place, _| {
                    let this = *place;
                    place.level = place.level.saturating_add(1);
                    place.index /= mezite_audit::tile::WIDTH;
                    Some(this)
                })
                .collect();
            wanted.extend(
                mezite_audit::tile::Tiles::edge(self.signed.checkpoint.size)
                    .into_iter()
                    .map(|(place, _)| place),
            );
            wanted.retain(|place| !self.tiles.contains_key(place));
            let found = read(hub, &wanted).await?;
            self.tiles.extend(
                wanted
                    .into_iter()
                    .zip(found)
                    .filter(|(_, content)| !content.is_empty()),
            );
            if !self.tiles.contains_key(&missing) {
                return Err(Failure::failed(TileError::Missing(missing)));
            }
        }
    }
}

/// Tiles as the hub has them, in this order.
pub(super) async fn read(hub: &mut Hub, places: &[Place]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut found = Vec::new();
    for part in places.chunks(MAX_TILES) {
        let tiles = part.iter().map(|place| TilePlace {
            level: u32::from(place.level),
            index: place.index,
        });
        let request = ReadTilesRequest {
            tiles: tiles.collect(),
        };
        found.extend(within(hub.client.read_tiles(request)).await?.tiles);
    }
    Ok(found)
}
