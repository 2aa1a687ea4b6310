//! An authority whose private key is somewhere else: prepared here, signed there, finished here. A thread with a queue stands for the
//! key management service; a network, a smart card or a person with a USB stick would do as well, and may take as long as they like.

#![expect(clippy::print_stdout, reason = "a program whose result is text")]

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use mezite_ca::verify::{self, Context, Purpose};
use mezite_ca::{
    IdentityKey, IdentityRequest, IssueError, PeerKind, PeerName, Prepared, RemoteKey, SignError,
    Signer, SoftwareKey, TlsRequest, TrustBundle, UserTls, openssh,
};
use mezite_core::{ClusterName, Serial, Span, UnixTime, UserName};

/// What the service gets: bytes, and where the signature goes. It learns nothing of certificates.
struct Job {
    key: &'static str,
    message: Vec<u8>,
    answer: Sender<Result<[u8; 64], SignError>>,
}

/// The service's side: keys by name, and a log of what they signed.
fn serve(jobs: &Receiver<Job>, identity: &SoftwareKey, tls: &SoftwareKey) {
    for job in jobs {
        println!("service: {} signs {} bytes", job.key, job.message.len());
        let key = if job.key == "tls" { tls } else { identity };
        // Whoever asked may have given up.
        let _gone = job.answer.send(key.sign(&job.message));
    }
}

/// Sends a prepared certificate out, and makes a certificate of what comes back.
fn through<C>(
    service: &Sender<Job>,
    key: &'static str,
    prepared: Prepared<C>,
) -> Result<C, Box<dyn Error>> {
    let (answer, signature) = channel();
    let message = prepared.message().to_vec();
    service.send(Job {
        key,
        message,
        answer,
    })?;
    Ok(prepared.finish(&signature.recv()??)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng = rand::rng();
    let (identity, tls) = (
        SoftwareKey::generate(&mut rng),
        SoftwareKey::generate(&mut rng),
    );
    let (identity_public, tls_public) = (identity.public_key(), tls.public_key());
    let (service, jobs) = channel();
    let server = thread::spawn(move || serve(&jobs, &identity, &tls));
    let outcome = issue(&service, identity_public, tls_public);
    drop(service);
    server.join().map_err(|_| "the service failed")?;
    outcome
}

fn issue(service: &Sender<Job>, identity: [u8; 32], tls: [u8; 32]) -> Result<(), Box<dyn Error>> {
    let mut rng = rand::rng();
    let now = UnixTime::from_secs(1_800_000_000); // a program takes it from its clock
    let (cluster, user): (ClusterName, UserName) = ("example".parse()?, "alice".parse()?);
    let mut trust = TrustBundle::empty(cluster.clone());

    // SSH: the authority knows its public key.
    let authority = IdentityKey::new(Arc::new(RemoteKey::new(identity)));
    trust.identity.push(authority.public_key());
    let alice = SoftwareKey::generate(&mut rng);
    let request = IdentityRequest {
        cluster: &cluster,
        user: &user,
        public_key: &openssh::public_key(alice.public_key()),
        ttl: "8h".parse()?,
        ceiling: Span::from_secs(12 * 3600),
    };
    let prepared = authority.prepare(&request, Serial::new([1; 8]), now, &mut rng)?;
    let ssh = through(service, "identity", prepared)?;

    // TLS: the authority's own certificate goes the same way, then those that it issues.
    let own = UserTls::prepare_own(tls, &cluster, now, &mut rng)?;
    let own = through(service, "tls", own)?;
    trust.user_tls.push(own.to_vec());
    let authority_tls = UserTls::load(Arc::new(RemoteKey::new(tls)), own, &cluster)?;
    let peer = PeerName {
        cluster: cluster.clone(),
        kind: PeerKind::User,
        name: user.to_string(),
    };
    let request_tls = TlsRequest {
        twin: None,
        peer: &peer,
        public_key: alice.public_key(),
        dns_names: &[],
        addresses: &[],
        life: "8h".parse()?,
    };
    let prepared = authority_tls.prepare(&request_tls, Serial::new([2; 8]), now)?;
    let x509 = through(service, "tls", prepared)?;

    let context = Context {
        trust: &trust,
        now,
        source: None,
        revoked: &|_| false,
    };
    let verified = verify::identity(&ssh.to_bytes()?, &context)?;
    println!("SSH: {} until {}", verified.user(), verified.valid_before());
    let verified = verify::peer(&[x509], Purpose::Client, &[PeerKind::User], &context)?;
    println!("TLS: {} until {}", verified.peer(), verified.not_after());

    // A service that signs with another key, by mistake or not, issues nothing.
    let prepared = authority.prepare(&request, Serial::new([3; 8]), now, &mut rng)?;
    match through(service, "tls", prepared) {
        Err(error)
            if matches!(
                error.downcast_ref(),
                Some(IssueError::Sign(SignError::Wrong(_)))
            ) =>
        {
            println!("the wrong key: refused");
            Ok(())
        }
        Err(other) => Err(other),
        Ok(_) => Err("a certificate by the wrong key was accepted".into()),
    }
}
