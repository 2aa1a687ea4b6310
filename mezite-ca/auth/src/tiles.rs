//! The hashes of the log's tree, for whoever makes proofs of it.

use mezite_api::request::{MAX_TILES, ParseError};
use mezite_api::v1::{ReadTilesResponse, TilePlace};
use mezite_audit::tile::Place;
use mezite_core::store::Commit;
use mezite_rbac::{Resource, Verb};
use serde_json::json;

use crate::actor::Actor;
use crate::auth::Auth;
use crate::error::Error;

impl Auth {
    /// The newest checkpoint over all that happened before the call, and these tiles as they are then or later: a tile only
    /// grows, so it holds what the checkpoint's tree has of it.
    pub(crate) async fn read_tiles(
        &self,
        actor: &Actor,
        wanted: &[TilePlace],
    ) -> Result<ReadTilesResponse, Error> {
        self.guard(actor, Resource::Audit, Verb::Read, None).await?;
        let count = wanted.len();
        if count > MAX_TILES {
            return Err(Error::Parse(ParseError::TooMany {
                field: "tiles",
                count,
                max: MAX_TILES,
            }));
        }
        let query = json!({ "tiles": count });
        let event = self.tell().audit_read(actor, "tiles", &query, count);
        self.commit(Commit::new(event)).await?;
        self.keep_log().await?;
        let checkpoint = self.checkpoint().await?.unwrap_or_default();
        let (keys, handovers) = self.log_keys().await?;
        let mut tiles = Vec::new();
        for TilePlace { level, index } in wanted {
            // A level that no tree has is a tile that is not there.
            let level = u8::try_from(*level).unwrap_or(u8::MAX);
            let index = *index;
            tiles.push(self.tile(Place { level, index }).await?.unwrap_or_default());
        }
        Ok(ReadTilesResponse {
            keys: Some(keys),
            checkpoint,
            handovers,
            tiles,
        })
    }
}
