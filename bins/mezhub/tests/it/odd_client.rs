//! A client that opens channels and asks for things that no row of the coverage table has: nothing of it passes.

use serde_json::Value;

use crate::house::{Done, House, login, run, tool};

/// Tries each channel type and each global request, then runs a command; says what came of it, a line each.
const CLIENT: &str = r#"
import sys, paramiko
port, user, key, certificate = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
pkey = paramiko.Ed25519Key.from_private_key_file(key)
pkey.load_certificate(certificate)
transport = paramiko.Transport(("127.0.0.1", port))
transport.connect(username=user, pkey=pkey)
for kind in ["tun@openssh.com", "session@example.com", "", "SESSION", "x" * 4000]:
    try:
        transport.open_channel(kind)
        print("opened", kind[:20])
    except paramiko.ChannelException as refused:
        print("refused")
for request in ["no-more-sessions@openssh.com", "keepalive@openssh.com", "hostkeys-prove-00@openssh.com", "", "x" * 4000]:
    print("answered", transport.global_request(request, wait=True) is not None)
    transport.global_request(request, wait=False)
channel = transport.open_session()
channel.exec_command("echo still")
print(channel.makefile().read().decode().strip(), channel.recv_exit_status())
transport.close()
"#;

/// Runs the client; the house, what it said, and the one session that it had.
fn tried() -> (House, Done) {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    let mut client = tool("paramiko", "python3");
    let key = user.key();
    client
        .args(["-c", CLIENT, &house.ports.ssh.to_string()])
        .arg(format!("{}+web", login()))
        .arg(&key)
        .arg(format!("{}-cert.pub", key.display()));
    let done = run(&mut client);
    (house, done)
}

#[test]
fn unknown_channels_and_global_requests_are_refused_and_the_session_goes_on() {
    let (house, done) = tried();
    let refused = "refused\n".repeat(5) + &"answered False\n".repeat(5);
    assert_eq!(done.ok(), refused + "still 0\n");
    // What was refused left no channel: the first is the one that ran something.
    let session = house.session("alice", 1);
    let recorded = house.export(&session.id, "json");
    let opened: Vec<Value> = recorded
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|frame: &Value| frame["type"] == "opened")
        .collect();
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert_eq!(opened[0]["channel"], 0);
    house.mezctl(&["recordings", "verify", &session.id]).ok();
}

/// One refusal must be enough (RFC 4254 section 5.1). The library sends two, for different reasons.
#[test]
fn limit_an_unknown_channel_is_refused_twice() {
    let (_house, done) = tried();
    let refusals = done.err().matches("open FAILED").count();
    assert_eq!(refusals, 10, "the limit is gone: {done}");
}
