//! What users and nodes keep for themselves is nowhere at the hub.

use std::fs;

use data_encoding::{BASE64, HEXLOWER};
use ssh_key::PrivateKey;

use crate::house::{House, Way, contains, run};

#[test]
fn no_private_key_password_or_token_of_others_lies_at_the_hub() {
    let house = House::start();
    let (token, pin) = house.token(&[]);
    house.join("web", &token, &pin, &house.path("web")).ok();
    house.start_agent("web", &[]);
    let user = house.user("alice");
    run(user.ssh(Way::Proxy, "web").arg("echo hello")).ok();
    run(user.ssh(Way::Jump, "web").arg("echo hello")).ok();
    house.session("alice", 2);

    let mut secrets: Vec<(String, Vec<u8>)> = vec![
        (
            String::from("a private key file"),
            b"OPENSSH PRIVATE KEY".to_vec(),
        ),
        (
            String::from("the password"),
            user.password.clone().into_bytes(),
        ),
        (String::from("the token"), token.into_bytes()),
    ];
    let key = fs::read_to_string(user.key()).unwrap();
    let key = PrivateKey::from_openssh(&key).unwrap();
    let seed = key
        .key_data()
        .ed25519()
        .unwrap()
        .private
        .to_bytes()
        .to_vec();
    let mut seeds = vec![(String::from("the user's key"), seed)];
    let public = key.public_key().key_data().ed25519().unwrap().0.to_vec();
    for entry in fs::read_dir(house.path("web")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            let text = fs::read_to_string(&path).unwrap();
            let seed = HEXLOWER.decode(text.trim().as_bytes()).unwrap();
            seeds.push((path.display().to_string(), seed));
        }
    }
    assert_eq!(seeds.len(), 3, "{seeds:?}");
    for (name, seed) in seeds {
        assert_eq!(seed.len(), 32, "{name}");
        secrets.push((
            format!("{name}, in hexadecimal"),
            HEXLOWER.encode(&seed).into_bytes(),
        ));
        // Whatever stands around it, these digits stay.
        secrets.push((
            format!("{name}, in base64"),
            BASE64.encode(&seed[..30]).into_bytes(),
        ));
        secrets.push((name, seed));
    }
    let mut seen_public = false;
    for path in house.hub_files() {
        let content = fs::read(&path).unwrap();
        for (name, secret) in &secrets {
            assert!(
                !contains(&content, secret),
                "{name} is in {}",
                path.display()
            );
        }
        seen_public |= contains(&content, &public)
            || contains(&content, BASE64.encode(&public[..30]).as_bytes());
    }
    // The search finds what is there: the audit log holds the name of the user at least.
    let names = house
        .hub_files()
        .iter()
        .any(|path| contains(&fs::read(path).unwrap(), b"alice"));
    assert!(names || seen_public);
}
