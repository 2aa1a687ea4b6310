//! The calls of those who are known. Each begins by asking who calls, then hands parsed values to [`Auth`].

use std::pin::Pin;
use std::sync::Arc;

use mezite_api::request;
use mezite_api::v1::hub_server::Hub;
use mezite_api::v1::{self, read_recording_response};
use mezite_ca::rotation::{Generation, Phase};
use mezite_ca::{GenerationState, KeyKind};
use mezite_core::store::StoredEvent;
use mezite_core::{NodeName, SessionId, UnixTime, UserName};
use mezite_rbac::{Resource, Verb};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::access::{json, openssh};
use super::recordings::{self, recording};
use super::{Known, actor, known};
use crate::admin::Shown;
use crate::audit_key::RotatedAuditKey;
use crate::auth::Auth;
use crate::error::Error;
use crate::hubs::HubStanding;
use crate::record::Node;
use crate::recording::{RecordingSource, Until};
use crate::rotate::RotationStatus;
use crate::sinks::ExportStanding;

/// Everything but ping, login and join.
#[derive(Clone, Debug)]
pub struct HubService {
    auth: Auth,
    recordings: Arc<dyn RecordingSource>,
}

impl HubService {
    /// The service on top of `auth`, with recordings from `recordings`.
    #[must_use]
    pub fn new(auth: Auth, recordings: Arc<dyn RecordingSource>) -> Self {
        Self { auth, recordings }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Hub for HubService {
    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let known = known(&self.auth, &request).await?;
        let valid_before_ms = match request.extensions().get::<super::Caller>() {
            Some(super::Caller::Peer(peer)) => peer.not_after().as_millis(),
            _ => 0,
        };
        let (kind, name, roles) = match known {
            Known::Actor(actor) => {
                let kind = if actor.is_local() { "local" } else { "user" };
                let roles = actor.roles().iter().map(ToString::to_string).collect();
                (kind, actor.name().to_owned(), roles)
            }
            Known::Node(id) => ("node", id.to_string(), Vec::new()),
            Known::Hub => ("hub", self.auth.settings().hub.clone(), Vec::new()),
        };
        Ok(Response::new(v1::WhoAmIResponse {
            kind: kind.to_owned(),
            name,
            roles,
            valid_before_ms,
            cluster: self.auth.cluster().to_string(),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let words = request.into_inner().search;
        let nodes = match actor.subject() {
            Some(subject) => self.auth.nodes_seen_by(subject),
            None => {
                self.auth
                    .guard(&actor, Resource::Node, Verb::List, None)
                    .await?;
                let snapshot = self.auth.snapshot();
                snapshot
                    .nodes()
                    .map(|node| (node.clone(), Vec::new()))
                    .collect()
            }
        };
        let mut nodes: Vec<v1::Node> = nodes
            .into_iter()
            .filter(|(node, _)| found_by(&words, node))
            .map(|(node, logins)| v1::Node {
                // A stock sshd is asked when somebody goes there.
                online: node.address.is_some() || self.auth.is_online(&node.id),
                labels: node.merged_labels().into_iter().collect(),
                id: node.id.to_string(),
                name: node.name.to_string(),
                kind: node.kind.to_string(),
                logins: logins.iter().map(ToString::to_string).collect(),
                address: node.address.unwrap_or_default(),
            })
            .collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn get_resource(
        &self,
        request: Request<v1::GetResourceRequest>,
    ) -> Result<Response<v1::GetResourceResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request.into_inner();
        let shown = self.auth.resource(&actor, &asked.kind, &asked.name).await?;
        Ok(Response::new(v1::GetResourceResponse {
            resource: Some(resource(shown)),
        }))
    }

    async fn list_resources(
        &self,
        request: Request<v1::ListResourcesRequest>,
    ) -> Result<Response<v1::ListResourcesResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let shown = self
            .auth
            .resources(&actor, &request.into_inner().kind)
            .await?;
        Ok(Response::new(v1::ListResourcesResponse {
            resources: shown.into_iter().map(resource).collect(),
        }))
    }

    async fn apply_resource(
        &self,
        request: Request<v1::ApplyResourceRequest>,
    ) -> Result<Response<v1::ApplyResourceResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request.into_inner();
        let (shown, created) = self
            .auth
            .apply(&actor, &asked.document, asked.create_only)
            .await?;
        Ok(Response::new(v1::ApplyResourceResponse {
            resource: Some(resource(shown)),
            created,
        }))
    }

    async fn remove_resource(
        &self,
        request: Request<v1::RemoveResourceRequest>,
    ) -> Result<Response<v1::RemoveResourceResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request.into_inner();
        self.auth.remove(&actor, &asked.kind, &asked.name).await?;
        Ok(Response::new(v1::RemoveResourceResponse {}))
    }

    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::CreateUserResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted = request::CreateUser::try_from(request.into_inner()).map_err(Error::from)?;
        let password = self.auth.create_user(&actor, wanted).await?;
        Ok(Response::new(v1::CreateUserResponse {
            password: password.expose().clone(),
        }))
    }

    async fn set_password(
        &self,
        request: Request<v1::SetPasswordRequest>,
    ) -> Result<Response<v1::SetPasswordResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted = request::SetPassword::try_from(request.into_inner()).map_err(Error::from)?;
        let made = self.auth.set_password(&actor, wanted).await?;
        Ok(Response::new(v1::SetPasswordResponse {
            password: made.map(|made| made.expose().clone()).unwrap_or_default(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted = request::CreateToken::try_from(request.into_inner()).map_err(Error::from)?;
        let made = self.auth.create_token(&actor, wanted).await?;
        Ok(Response::new(v1::CreateTokenResponse {
            token: made.token.expose().clone(),
            expires_ms: made.expires.as_millis(),
            ca_pin: self.auth.ca_pin(),
            id: made.name,
        }))
    }

    async fn add_open_ssh_node(
        &self,
        request: Request<v1::AddOpenSshNodeRequest>,
    ) -> Result<Response<v1::AddOpenSshNodeResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted =
            request::AddOpenSshNode::try_from(request.into_inner()).map_err(Error::from)?;
        let added = self.auth.add_openssh_node(&actor, wanted).await?;
        Ok(Response::new(v1::AddOpenSshNodeResponse {
            node_id: added.node.id.to_string(),
            sshd_lines: added.sshd_lines,
            user_ca: added.user_ca,
            warning: added.warning.to_owned(),
        }))
    }

    async fn sign_host(
        &self,
        request: Request<v1::SignHostRequest>,
    ) -> Result<Response<v1::SignHostResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted = request::SignHost::try_from(request.into_inner()).map_err(Error::from)?;
        let certificate = self.auth.sign_host(&actor, &wanted).await?;
        Ok(Response::new(v1::SignHostResponse {
            certificate: openssh(&certificate)?,
            valid_before_ms: certificate.valid_before().saturating_mul(1000),
        }))
    }

    async fn renew_node(
        &self,
        request: Request<v1::RenewNodeRequest>,
    ) -> Result<Response<v1::RenewNodeResponse>, Status> {
        let id = match known(&self.auth, &request).await? {
            Known::Node(id) => id,
            Known::Actor(_) => Err(Error::NotForPeer("user"))?,
            Known::Hub => Err(Error::NotForPeer("hub"))?,
        };
        let renew = request::RenewNode::try_from(request.into_inner()).map_err(Error::from)?;
        let node = self.auth.renew_node(&id, &renew).await?;
        Ok(Response::new(v1::RenewNodeResponse {
            host_certificate: openssh(&node.host_certificate)?,
            tls_chain: node.tls_chain,
            trust: json(&self.auth.trust_for_nodes())?,
            tunnel_address: self.auth.settings().tunnel_address.clone(),
            valid_before_ms: node.valid_before.as_millis(),
        }))
    }

    async fn create_lock(
        &self,
        request: Request<v1::CreateLockRequest>,
    ) -> Result<Response<v1::CreateLockResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted = request::CreateLock::try_from(request.into_inner()).map_err(Error::from)?;
        let id = self.auth.create_lock(&actor, wanted).await?;
        Ok(Response::new(v1::CreateLockResponse { id }))
    }

    async fn can(
        &self,
        request: Request<v1::CanRequest>,
    ) -> Result<Response<v1::CanResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request::Can::try_from(request.into_inner()).map_err(Error::from)?;
        let answer = self.auth.can(&actor, &asked).await?;
        Ok(Response::new(v1::CanResponse {
            allowed: answer.allowed,
            answer: answer.json.to_string(),
            text: answer.text,
        }))
    }

    type WhoCanStream = Answers<v1::WhoCanResponse>;

    async fn who_can(
        &self,
        request: Request<v1::WhoCanRequest>,
    ) -> Result<Response<Self::WhoCanStream>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request::WhoCan::try_from(request.into_inner()).map_err(Error::from)?;
        let found = self.auth.who_can(&actor, asked).await?;
        let answers = found.map(|found| found.map_err(Status::from));
        Ok(Response::new(Box::pin(answers)))
    }

    type DiffRolesStream = Answers<v1::DiffRolesResponse>;

    async fn diff_roles(
        &self,
        request: Request<v1::DiffRolesRequest>,
    ) -> Result<Response<Self::DiffRolesStream>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request::DiffRoles::try_from(request.into_inner()).map_err(Error::from)?;
        let found = self.auth.diff_roles(&actor, asked).await?;
        let answers = found.map(|found| found.map_err(Status::from));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lint_roles(
        &self,
        request: Request<v1::LintRolesRequest>,
    ) -> Result<Response<v1::LintRolesResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let lints = self.auth.lint_roles(&actor).await?;
        Ok(Response::new(v1::LintRolesResponse { lints }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let id = request::explained(request.get_ref()).map_err(Error::from)?;
        let explained = self.auth.explain(&actor, id).await?;
        Ok(Response::new(v1::ExplainResponse {
            explanation: explained.json.to_string(),
            text: explained.text,
        }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let message = request.into_inner();
        let with_texts = message.texts;
        let found = self
            .auth
            .events(&actor, request::log_query(message))
            .await?;
        let texts = if with_texts {
            self.auth.texts_of_all(&found).await?
        } else {
            Vec::new()
        };
        Ok(Response::new(v1::ListEventsResponse {
            events: found.into_iter().map(event).collect(),
            texts,
        }))
    }

    type ExportLogStream = Answers<v1::ExportLogResponse>;

    async fn export_log(
        &self,
        request: Request<v1::ExportLogRequest>,
    ) -> Result<Response<Self::ExportLogStream>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let after = request.into_inner().after;
        let items = self.auth.export_log(&actor, after).await?;
        let answers = items.map(|item| item.map_err(Status::from));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn read_tiles(
        &self,
        request: Request<v1::ReadTilesRequest>,
    ) -> Result<Response<v1::ReadTilesResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted = request.into_inner().tiles;
        Ok(Response::new(self.auth.read_tiles(&actor, &wanted).await?))
    }

    type FollowEventsStream = Answers<v1::StoredEvent>;

    async fn follow_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = v1::ListEventsRequest {
            before: 0,
            since_ms: 0,
            until_ms: 0,
            ..request.into_inner()
        };
        let events = self
            .auth
            .follow_log(&actor, request::log_query(asked))
            .await?;
        let answers = events.map(|event| event.map_err(Status::from));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn prune_log(
        &self,
        request: Request<v1::PruneLogRequest>,
    ) -> Result<Response<v1::PruneLogResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let pruned = self
            .auth
            .prune_log(&actor, request.into_inner().dry_run)
            .await?;
        let types = pruned.into_iter().map(|pruned| v1::PrunedType {
            event_type: pruned.event_type.to_owned(),
            age_ms: pruned.age.as_millis(),
            count: pruned.count,
        });
        Ok(Response::new(v1::PruneLogResponse {
            types: types.collect(),
        }))
    }

    type BackupStream = Answers<v1::BackupResponse>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let bytes = self.auth.backup(&actor).await?;
        let answers = bytes.map(|data| match data {
            Ok(data) => Ok(v1::BackupResponse { data }),
            Err(error) => Err(Status::from(error)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_recordings(
        &self,
        request: Request<v1::ListRecordingsRequest>,
    ) -> Result<Response<v1::ListRecordingsResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request.into_inner();
        let mut user = (!asked.user.is_empty()).then_some(asked.user);
        if !self.auth.may(&actor, Resource::Recording, Verb::List, None) {
            let own = actor.subject().map(|subject| subject.user.clone());
            self.auth
                .guard(&actor, Resource::Recording, Verb::List, own.as_ref())
                .await?;
            let own = own.map(|own| own.to_string());
            if user.is_some() && user != own {
                return Ok(Response::new(v1::ListRecordingsResponse::default()));
            }
            user = own;
        }
        let limit = request::limit(asked.limit);
        let found = self
            .recordings
            .list(user.as_deref(), limit)
            .await
            .map_err(Error::from)?;
        let holds = self.auth.recording_holds().await?;
        let recordings = found.into_iter().map(|facts| {
            let hold = holds.get(&facts.session_id).cloned().unwrap_or_default();
            v1::Recording {
                hold,
                ..recording(facts)
            }
        });
        Ok(Response::new(v1::ListRecordingsResponse {
            recordings: recordings.collect(),
        }))
    }

    type SearchRecordingsStream = Answers<v1::SearchRecordingsResponse>;

    async fn search_recordings(
        &self,
        request: Request<v1::SearchRecordingsRequest>,
    ) -> Result<Response<Self::SearchRecordingsStream>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let search = recordings::search(request.into_inner());
        let outcome = self
            .auth
            .search_recordings(&actor, self.recordings.as_ref(), search)
            .await?;
        let answers = recordings::answers(outcome).into_iter().map(Ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn hold_recording(
        &self,
        request: Request<v1::HoldRecordingRequest>,
    ) -> Result<Response<v1::HoldRecordingResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request.into_inner();
        let hold = request::Hold::parse(&asked.session_id, asked.reason).map_err(Error::from)?;
        self.auth
            .hold_recording(
                &actor,
                self.recordings.as_ref(),
                hold.session_id,
                hold.reason,
            )
            .await?;
        Ok(Response::new(v1::HoldRecordingResponse {}))
    }

    async fn release_recording(
        &self,
        request: Request<v1::ReleaseRecordingRequest>,
    ) -> Result<Response<v1::ReleaseRecordingResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let asked = request.into_inner();
        let hold = request::Hold::parse(&asked.session_id, asked.reason).map_err(Error::from)?;
        self.auth
            .release_recording(
                &actor,
                self.recordings.as_ref(),
                hold.session_id,
                &hold.reason,
            )
            .await?;
        Ok(Response::new(v1::ReleaseRecordingResponse {}))
    }

    async fn prune_recordings(
        &self,
        request: Request<v1::PruneRecordingsRequest>,
    ) -> Result<Response<v1::PruneRecordingsResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let dry_run = request.get_ref().dry_run;
        let pruned = self
            .auth
            .prune_recordings(&actor, self.recordings.as_ref(), dry_run)
            .await?;
        Ok(Response::new(recordings::pruned(pruned)))
    }

    type ReadRecordingStream = Answers<v1::ReadRecordingResponse>;

    async fn read_recording(
        &self,
        request: Request<v1::ReadRecordingRequest>,
    ) -> Result<Response<Self::ReadRecordingStream>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let id: SessionId = request
            .get_ref()
            .session_id
            .parse()
            .map_err(|error| Error::from(request::ParseError::Id(error)))?;
        let facts = self.recordings.facts(id).await;
        // Whoever may read nothing learns nothing about what there is.
        let owner = facts
            .as_ref()
            .ok()
            .and_then(|facts| facts.user.parse::<UserName>().ok());
        self.auth
            .guard(&actor, Resource::Recording, Verb::Read, owner.as_ref())
            .await?;
        let facts = facts.map_err(Error::from)?;
        let (until, watching) = if request.get_ref().follow {
            let begun = self.auth.begin_watching(&actor, id, &facts.user).await?;
            (Until::Over, Some(begun))
        } else {
            let read = self.auth.recording_is_read(&actor, id, &facts.user);
            read.await?;
            (Until::Now, None)
        };
        let opened = self.recordings.open(id, until).await.map_err(Error::from)?;
        let first = v1::RecordingFacts {
            recording: Some(recording(opened.facts)),
            data_key: opened
                .data_key
                .map(|key| key.expose().clone())
                .unwrap_or_default(),
        };
        let first = Ok(part(read_recording_response::Part::Facts(first)));
        let rest = recordings::while_allowed(
            self.auth.clone(),
            request.extensions().clone(),
            owner,
            opened.bytes,
            watching,
        );
        let rest = rest.map(|chunk| match chunk {
            Ok(data) => Ok(part(read_recording_response::Part::Data(data))),
            Err(status) => Err(status),
        });
        Ok(Response::new(Box::pin(
            tokio_stream::once(first).chain(rest),
        )))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let running = self.auth.sessions(&actor).await?;
        let sessions = running.into_iter().map(|session| v1::Session {
            session_id: session.session_id.to_string(),
            hub: session.hub,
            user: session.user.to_string(),
            node: session.node.to_string(),
            login: session.login.to_string(),
            started_ms: session.started.as_millis(),
            client_ip: session
                .source
                .map(|source| source.to_string())
                .unwrap_or_default(),
        });
        Ok(Response::new(v1::ListSessionsResponse {
            sessions: sessions.collect(),
        }))
    }

    async fn end_session(
        &self,
        request: Request<v1::EndSessionRequest>,
    ) -> Result<Response<v1::EndSessionResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted = request::EndSession::try_from(request.into_inner()).map_err(Error::from)?;
        self.auth
            .end_session(&actor, wanted.session_id, wanted.reason)
            .await?;
        Ok(Response::new(v1::EndSessionResponse {}))
    }

    async fn get_trust(
        &self,
        request: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::GetTrustResponse>, Status> {
        known(&self.auth, &request).await?;
        Ok(Response::new(v1::GetTrustResponse {
            trust: json(&self.auth.trust())?,
            known_hosts: self.auth.known_hosts()?,
            ca_pin: self.auth.ca_pin(),
            api_address: self.auth.settings().api_address.clone(),
        }))
    }

    async fn get_revocation_list(
        &self,
        request: Request<v1::GetRevocationListRequest>,
    ) -> Result<Response<v1::GetRevocationListResponse>, Status> {
        known(&self.auth, &request).await?;
        let list = self.auth.revocation_list()?;
        Ok(Response::new(v1::GetRevocationListResponse {
            krl: list.bytes.clone(),
            number: list.number,
        }))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        self.auth
            .guard(&actor, Resource::Cluster, Verb::Read, None)
            .await?;
        let snapshot = self.auth.snapshot();
        let online = |node: &&Node| node.address.is_some() || self.auth.is_online(&node.id);
        let sessions = count(self.auth.running().len());
        Ok(Response::new(v1::StatusResponse {
            cluster: self.auth.cluster().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: self.auth.now().as_millis(),
            nodes: count(snapshot.nodes().count()),
            nodes_online: count(snapshot.nodes().filter(online).count()),
            sessions,
            users: count(snapshot.user_count()),
            events: self.auth.last_sequence().await?,
            sealed_events: self.auth.sealed_events().await?,
            sinks: self.auth.sinks().into_iter().map(sink).collect(),
            disk_full: self.auth.is_full(),
            hubs: self.auth.hubs().await?.into_iter().map(hub).collect(),
        }))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let found = self.auth.rotations(&actor).await?;
        Ok(Response::new(v1::ListKeysResponse {
            keys: found.into_iter().map(authority_key).collect(),
        }))
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let wanted = request::RotateKey::try_from(request.into_inner()).map_err(Error::from)?;
        let answer = match wanted {
            request::RotateKey {
                kind: KeyKind::Audit,
                step: request::RotationStep::Begin,
                ..
            } => audit_key(self.auth.rotate_audit_key(&actor).await?),
            _ => v1::RotateKeyResponse {
                key: Some(authority_key(self.auth.rotate(&actor, wanted).await?)),
                audit_key: String::new(),
            },
        };
        Ok(Response::new(answer))
    }

    async fn state_adoption(
        &self,
        request: Request<v1::StateAdoptionRequest>,
    ) -> Result<Response<v1::StateAdoptionResponse>, Status> {
        let actor = actor(&self.auth, &request).await?;
        let name = request.into_inner().node.parse::<NodeName>();
        let name = name.map_err(|error| Error::from(request::ParseError::Name(error)))?;
        self.auth.state_adoption(&actor, &name).await?;
        Ok(Response::new(v1::StateAdoptionResponse {}))
    }
}

fn audit_key(rotated: RotatedAuditKey) -> v1::RotateKeyResponse {
    let active = Generation {
        number: rotated.generation,
        public_key: rotated.public_key,
        certificate: None,
    };
    v1::RotateKeyResponse {
        key: Some(v1::AuthorityKey {
            kind: KeyKind::Audit.to_string(),
            phase: Phase::Standby.to_string(),
            generations: vec![v1::KeyGeneration {
                number: active.number,
                state: GenerationState::Active.to_string(),
                fingerprint: active.fingerprint(),
            }],
            ..v1::AuthorityKey::default()
        }),
        audit_key: rotated.line,
    }
}

fn authority_key(status: RotationStatus) -> v1::AuthorityKey {
    let RotationStatus {
        rotation,
        adoption,
        behind,
        ..
    } = status;
    let generations = rotation
        .trusted()
        .into_iter()
        .map(|(state, generation)| v1::KeyGeneration {
            number: generation.number,
            state: state.to_string(),
            fingerprint: generation.fingerprint(),
        });
    let laggards = behind.into_iter().map(|behind| v1::Laggard {
        kind: behind.laggard.kind.to_string(),
        lag: behind.laggard.lag.to_string(),
        name: behind.laggard.name,
        hint: behind.hint,
    });
    v1::AuthorityKey {
        kind: rotation.kind().to_string(),
        phase: rotation.phase().to_string(),
        since_ms: rotation.since().as_millis(),
        generations: generations.collect(),
        parties: count(adoption.parties),
        laggards: laggards.collect(),
        until_ms: adoption.until.map_or(0, UnixTime::as_millis),
        logins_until_ms: adoption.logins_until.map_or(0, UnixTime::as_millis),
    }
}

/// Every word is part of the name, or of a label written `key=value`.
fn found_by(words: &str, node: &Node) -> bool {
    let labels: Vec<String> = node
        .merged_labels()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    words.split_whitespace().all(|word| {
        node.name.as_str().contains(word) || labels.iter().any(|label| label.contains(word))
    })
}

fn resource(shown: Shown) -> v1::Resource {
    v1::Resource {
        kind: shown.kind.to_owned(),
        name: shown.name,
        document: shown.document.to_string(),
    }
}

fn event(stored: StoredEvent) -> v1::StoredEvent {
    v1::StoredEvent {
        sequence: stored.sequence,
        body: stored.body,
    }
}

fn sink(standing: ExportStanding) -> v1::SinkStatus {
    v1::SinkStatus {
        name: standing.name,
        delivered: standing.delivered,
        waiting: standing.waiting,
        trouble: standing.trouble.unwrap_or_default(),
    }
}

fn hub(standing: HubStanding) -> v1::HubStatus {
    v1::HubStatus {
        name: standing.name,
        tunnel: standing.tunnel,
        sessions: count(standing.sessions),
        silent_ms: standing
            .silent
            .map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn part(part: read_recording_response::Part) -> v1::ReadRecordingResponse {
    v1::ReadRecordingResponse { part: Some(part) }
}

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
