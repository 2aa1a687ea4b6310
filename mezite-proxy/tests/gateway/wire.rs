//! A client that sends authentication requests of any bytes (RFC 4252 section 7) over a true encrypted connection, and
//! certificates of any content (PROTOCOL.certkeys), signed by the cluster's own key.

use std::sync::Arc;

use mezite_ca::Signer as _;
use russh::MethodKind;
use russh::client::AuthResult;
use russh::keys::agent::AgentIdentity;

use crate::house::{House, now, private, software};

/// `uint32 length, bytes` (RFC 4251 section 5).
pub(crate) fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u32::try_from(bytes.len()).unwrap();
    [length.to_be_bytes().as_slice(), bytes].concat()
}

/// What the gateway answered to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    In,
    Refused,
    Closed,
}

struct Anybody;

impl russh::client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// One connection to the gateway.
pub(crate) struct Wire(russh::client::Handle<Anybody>);

/// Replaces the signed request that the library would send.
struct Forged<'a>(&'a (dyn Fn(&[u8]) -> Vec<u8> + Sync));

impl russh::Signer for Forged<'_> {
    type Error = russh::AgentAuthError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<russh::keys::HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        // The session id as a string, then the request: only the latter is sent.
        let length = u32::from_be_bytes(*to_sign.first_chunk().unwrap());
        let (session, _) = to_sign.split_at(4 + usize::try_from(length).unwrap());
        Ok([session, &self.0(session)].concat())
    }
}

impl Wire {
    pub(crate) async fn new(house: &House) -> Self {
        let config = Arc::new(russh::client::Config::default());
        let connected = russh::client::connect_stream(config, house.dial(), Anybody);
        Self(connected.await.unwrap())
    }

    pub(crate) async fn none(&mut self, user: &str) -> Answer {
        answer(self.0.authenticate_none(user).await)
    }

    pub(crate) async fn keyboard(&mut self, user: &str) {
        use russh::client::KeyboardInteractiveAuthResponse::Failure;
        let tried = self
            .0
            .authenticate_keyboard_interactive_start(user, None)
            .await;
        assert!(
            matches!(
                tried,
                Ok(Failure {
                    partial_success: false,
                    ..
                })
            ),
            "{tried:?}"
        );
    }

    /// Offers a plain key as `offered`, which is always told to go on, and then sends what `request` makes of the
    /// session id.
    pub(crate) async fn send_as(
        &mut self,
        offered: &str,
        request: &(dyn Fn(&[u8]) -> Vec<u8> + Sync),
    ) -> Answer {
        let key = private(90).public_key().clone();
        let mut forged = Forged(request);
        let tried = self
            .0
            .authenticate_publickey_with(offered, key, None, &mut forged);
        answer(tried.await)
    }

    pub(crate) async fn send(&mut self, login: &Login) -> Answer {
        self.send_as(&login.user, &|session| login.request(session))
            .await
    }
}

fn answer<E>(tried: Result<AuthResult, E>) -> Answer {
    match tried {
        Ok(AuthResult::Success) => Answer::In,
        Ok(AuthResult::Failure {
            remaining_methods,
            partial_success,
        }) => {
            assert!(!partial_success, "no step is half of a way in");
            if remaining_methods.is_empty() {
                return Answer::Closed;
            }
            assert_eq!(*remaining_methods, [MethodKind::PublicKey]);
            Answer::Refused
        }
        Err(_) => Answer::Closed,
    }
}

/// Signs for `publickey`: the content of the signature field.
pub(crate) type Sign = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A `publickey` request whose parts need not fit.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) algorithm: String,
    pub(crate) blob: Vec<u8>,
    pub(crate) sign: Sign,
    /// Behind the signature.
    pub(crate) tail: Vec<u8>,
}

pub(crate) const ED25519: &str = "ssh-ed25519-cert-v01@openssh.com";

impl Login {
    /// Shows `blob`, which certifies key 10, as a client should.
    pub(crate) fn new(user: &str, blob: Vec<u8>) -> Self {
        Self {
            user: user.to_owned(),
            algorithm: ED25519.to_owned(),
            blob,
            sign: key(10),
            tail: Vec::new(),
        }
    }

    pub(crate) fn request(&self, session: &[u8]) -> Vec<u8> {
        let mut request = vec![50];
        request.extend(string(&self.user));
        request.extend(string("ssh-connection"));
        request.extend(string("publickey"));
        request.push(1);
        request.extend(string(&self.algorithm));
        request.extend(string(&self.blob));
        let signature = (self.sign)(&[session, &request].concat());
        request.extend(string(signature));
        request.extend(&self.tail);
        request
    }
}

/// Signatures of software key `number`.
pub(crate) fn key(number: u8) -> Sign {
    named(number, "ssh-ed25519")
}

/// The same signatures under another name.
pub(crate) fn named(number: u8, format: &'static str) -> Sign {
    Arc::new(move |data| {
        let signature = software(number).sign(data).unwrap();
        [string(format), string(signature)].concat()
    })
}

/// Every field of a user certificate of `alice`, at first those of a good one over key 10.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) algorithm: &'static str,
    pub(crate) nonce: Vec<u8>,
    /// Packed, without the type.
    pub(crate) public_key: Vec<u8>,
    pub(crate) principals: Vec<u8>,
    pub(crate) valid_after: u64,
    pub(crate) valid_before: u64,
    /// `None`: the signer's.
    pub(crate) signature_key: Option<Vec<u8>>,
    /// Inside the signature.
    pub(crate) signature_tail: Vec<u8>,
}

impl Forge {
    pub(crate) fn new() -> Self {
        Self {
            algorithm: ED25519,
            nonce: vec![5; 32],
            public_key: string(software(10).public_key()),
            principals: string("mezite:test:alice"),
            valid_after: now().as_secs() - 60,
            valid_before: now().as_secs() + 600,
            signature_key: None,
            signature_tail: Vec::new(),
        }
    }

    pub(crate) fn blob(&self) -> Vec<u8> {
        let authority = software(1);
        let mut blob = string(self.algorithm);
        blob.extend(string(&self.nonce));
        blob.extend(&self.public_key);
        blob.extend(42_u64.to_be_bytes());
        blob.extend(1_u32.to_be_bytes());
        blob.extend(string("forged"));
        blob.extend(string(&self.principals));
        blob.extend(self.valid_after.to_be_bytes());
        blob.extend(self.valid_before.to_be_bytes());
        blob.extend([0; 12]);
        let own = || [string("ssh-ed25519"), string(authority.public_key())].concat();
        blob.extend(string(self.signature_key.clone().unwrap_or_else(own)));
        let signature = string(authority.sign(&blob).unwrap());
        let signature = [
            string("ssh-ed25519"),
            signature,
            self.signature_tail.clone(),
        ]
        .concat();
        blob.extend(string(signature));
        blob
    }
}
