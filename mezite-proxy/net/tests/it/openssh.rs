//! The facade's server against the OpenSSH client, for what our own client cannot say.

use std::process::Stdio;
use std::time::Duration;

use mezite_ca::openssh;
use mezite_net::ssh::{Message, Request, accept};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::keys;
use crate::ssh::{Door, accepted};

/// A shell session in which the user types `typed`: what the server heard until it heard `done`, and what the client
/// says of itself.
async fn session(typed: &str) -> (Vec<Message>, String) {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let text = openssh::private_key(keys::software(10).seed(), "").unwrap();
    std::fs::write(&key, text.expose()).unwrap();
    let mut permissions = std::fs::metadata(&key).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&key, permissions).unwrap();
    let certificate = keys::identity("alice").to_openssh().unwrap();
    std::fs::write(directory.path().join("key-cert.pub"), certificate).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut client = Command::new("ssh")
        .args(["-F", "none", "-tt", "-vvv", "-p", &port, "-i"])
        .arg(&key)
        .args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"])
        .args(["-o", "StrictHostKeyChecking=no"])
        .args(["-o", "UserKnownHostsFile=/dev/null"])
        .arg("alice@127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let output = tokio::spawn(client.wait_with_output());
    let (stream, _) = listener.accept().await.unwrap();
    let mut server = accept(stream, keys::gateway("127.0.0.1"), Door::default())
        .await
        .unwrap();
    let mut channel = accepted(&mut server).await;
    let mut heard = Vec::new();
    loop {
        let message = channel.reader.next().await.unwrap();
        if let Message::Request(request) = &message
            && request.is_answered()
        {
            channel.writer.send(Message::Success).await.unwrap();
        }
        if message == Message::Request(Request::Shell) {
            // The client takes escapes only once its session runs.
            tokio::time::sleep(Duration::from_millis(200)).await;
            input.write_all(typed.as_bytes()).await.unwrap();
        }
        let done = matches!(&message, Message::Data(data) if data.ends_with(b"done"));
        heard.push(message);
        if done {
            break;
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.disconnect("over").await;
    let output = output.await.unwrap().unwrap();
    (heard, String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn with_a_break() -> (Vec<Message>, String) {
    let session = session("~Bdone");
    tokio::time::timeout(Duration::from_secs(20), session)
        .await
        .unwrap()
}

/// `~B` makes OpenSSH send the channel request `break` (RFC 4335): nothing is passed on, and the session goes on.
#[tokio::test]
async fn an_unknown_channel_request_is_refused() {
    let (heard, told) = with_a_break().await;
    assert!(told.contains("request break"), "{told}");
    assert!(
        heard.iter().all(|message| matches!(
            message,
            Message::Data(_)
                | Message::Request(Request::Pty { .. } | Request::Env { .. } | Request::Shell)
        )),
        "{heard:?}"
    );
    assert!(matches!(heard.last(), Some(Message::Data(_))));
}

/// An unknown request must reach the coverage table, so that it can be recorded. It does not.
#[tokio::test]
async fn limit_unknown_requests_have_no_hook() {
    let (heard, told) = with_a_break().await;
    assert!(told.contains("request break"), "{told}");
    let after = heard
        .iter()
        .skip_while(|message| **message != Message::Request(Request::Shell))
        .skip(1)
        .filter(|message| !matches!(message, Message::Data(_)))
        .count();
    assert_eq!(after, 0, "the limit is gone: {heard:?}");
}
