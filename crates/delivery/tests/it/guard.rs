//! Which addresses are taken when a run is accepted.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use delivery::{OwnServer, Rules};
use queue::port::AddressGuard as _;

use crate::fakes::{Answer, INBOX, World};

fn strict() -> World {
    World::with(|options| options.rules = Rules::default())
}

/// A server behind a TLS-terminating proxy, listening on loopback.
fn own(options: &mut delivery::Options) {
    options.rules = Rules {
        own: Some(OwnServer {
            listen: "127.0.0.1:4100".parse().unwrap(),
            public_url: Some("https://postback.example.org".parse().unwrap()),
        }),
        ..Rules::default()
    };
}

/// What attackers write. None of it may pass, and none of it may even be looked up.
const HOSTILE: &[(&str, &[&str])] = &[
    (
        "address_not_allowed",
        &[
            "https://127.0.0.1/",
            "https://127.0.0.1:443/",
            "https://127.1/",
            "https://127.0.1/",
            "https://0x7f.1/",
            "https://0x7f000001/",
            "https://0x7f.0x0.0x0.0x1/",
            "https://2130706433/",
            "https://017700000001/",
            "https://0177.0.0.1/",
            "https://0177.0x0.0.01/",
            "https://127.0.0.1./",
            "https://127.255.255.254/",
            "https://①②⑦.⓪.⓪.①/",
            "https://１２７.０.０.１/",
            "https://127。0。0。1/",
            "https://127.0.0.%31/",
            "https://%31%32%37.0.0.1/",
            "https://0/",
            "https://0.0.0.0/",
            "https://0x0/",
            "https://[::]/",
            "https://[::1]/",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::127.0.0.1]/",
            "https://[::7f00:1]/",
            "https://[64:ff9b::127.0.0.1]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[64:ff9b:1::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[2002:a9fe:a9fe::1]/",
            "https://[2001::7f00:1]/",
            "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
            "https://10.0.0.1/",
            "https://10.255.255.255/",
            "https://012.0.0.1/",
            "https://0xa000001/",
            "https://167772161/",
            "https://172.16.0.1/",
            "https://172.31.255.255/",
            "https://192.168.0.1/",
            "https://192.168.255.255/",
            "https://0xc0a80001/",
            "https://3232235521/",
            "https://[::ffff:192.168.0.1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://169.254.169.254./",
            "https://2852039166/",
            "https://0xa9fea9fe/",
            "https://0xa9.254.0251.254/",
            "https://025177524776/",
            "https://[::ffff:169.254.169.254]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://169.254.170.2/v2/credentials",
            "https://168.63.129.16/",
            "https://100.100.100.200/latest/meta-data/",
            "https://100.64.0.1/",
            "https://192.0.0.192/",
            "https://192.0.0.1/",
            "https://192.0.2.1/",
            "https://192.88.99.1/",
            "https://198.18.0.1/",
            "https://198.51.100.1/",
            "https://203.0.113.1/",
            "https://224.0.0.1/",
            "https://239.255.255.250/",
            "https://240.0.0.1/",
            "https://255.255.255.255/",
            "https://[fd00:ec2::254]/",
            "https://[fd20:ce::254]/",
            "https://[fe80::1]/",
            "https://[fec0::1]/",
            "https://[fc00::1]/",
            "https://[fdff::1]/",
            "https://[ff02::1]/",
            "https://[100::1]/",
            "https://[5f00::1]/",
            "https://[4000::1]/",
            "https://[2001:db8::1]/",
            "https://[3fff::1]/",
            r"https:\\127.0.0.1\x",
            "https:127.0.0.1/",
            "https:////127.0.0.1/",
            "HTTPS://127.0.0.1/",
            "https://127.0.0.1/?a=https://example.com",
            "https://127.0.0.1#@example.com/",
            "https://127.0.0.1?@example.com/",
            "http://127.0.0.1:8000/",
        ],
    ),
    (
        "name",
        &[
            "https://localhost/",
            "https://LOCALHOST/",
            "https://localhost./",
            "https://ｌｏｃａｌｈｏｓｔ/",
            "https://l%6fcalhost/",
            "https://evil.localhost/",
            "https://evil.localhost./",
            "https://printer.local/",
            "https://metadata.google.internal/computeMetadata/v1/",
            "https://metadata.google.internal./",
            "https://instance-data.ec2.internal/",
            "https://host.docker.internal/",
            "https://router.home.arpa/",
            "https://home.arpa/",
            "https://kubernetes/",
            "https://metadata/",
            "https://redis:443/",
            "http://localhost:3000/",
            r"https://intranet\@example.com/",
        ],
    ),
    (
        "userinfo",
        &[
            "https://example.com@127.0.0.1/",
            "https://example.com:80@127.0.0.1/",
            "https://user:password@example.com/",
            "https://user@example.com/",
            "https://:password@example.com/",
            "https://example.com%40@127.0.0.1/",
        ],
    ),
    (
        "scheme",
        &[
            "http://example.com/",
            "HTTP://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "file://127.0.0.1/etc/passwd",
            "gopher://127.0.0.1:6379/_FLUSHALL",
            "dict://127.0.0.1:11211/",
            "ws://example.com/",
            "wss://example.com/",
            "unix:///var/run/docker.sock",
            "data:text/plain,hello",
            "javascript:alert(1)",
            "ldap://127.0.0.1/",
            "mailto:root@localhost",
            "localhost:8080/hook",
            "blob:https://example.com/x",
        ],
    ),
    (
        "port",
        &[
            "https://example.com:0/",
            "https://example.com:22/",
            "https://example.com:6379/",
            "https://example.com:8443/",
            "https://example.com:65535/",
            "https://93.184.216.34:2375/",
        ],
    ),
    (
        "syntax",
        &[
            "",
            "example.com/hook",
            "//example.com/hook",
            "/hook",
            "https://",
            "https:///",
            "https://exa mple.com/",
            "https://example.com:99999/",
            "https://example.com:port/",
            "https://[::1/",
            "https://[fe80::1%25eth0]/",
            "https://[::1]x/",
            "https://256.256.256.256/",
            "https://1.2.3.4.5/",
            "https://0x100000000/",
            "https://exa<mple.com/",
            "https://%00.example.com/",
            "https://example.com%00.evil.com/",
        ],
    ),
    (
        "control_character",
        &[
            "https://example.com/\r\nX-Injected: 1",
            "https://example.com/\0",
            "ht\ntps://127.0.0.1/",
            "https://127.0.0\t.1/",
            "\u{1}https://127.0.0.1/",
            "https://example.com/\u{85}",
            "https://example.com/\u{7f}",
        ],
    ),
];

#[tokio::test]
async fn hostile_addresses_are_refused_each_by_its_rule_and_without_a_look_up() {
    let world = strict();
    let mut count = 0;
    for (rule, urls) in HOSTILE {
        for url in *urls {
            count += 1;
            match world.handle.check(url).await {
                Ok(admitted) => panic!("{url:?} was admitted as {}", admitted.url),
                Err(refused) => assert_eq!(refused.rule, *rule, "{url:?}: {refused}"),
            }
        }
    }
    assert!(count >= 100, "{count} addresses");
    assert_eq!(world.names.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn lengths_are_bounded() {
    let world = strict();
    let long = format!("https://example.com/{}", "a".repeat(2_048 - 20));
    assert!(world.handle.check(&long).await.is_ok(), "2,048 bytes");
    assert_eq!(world.handle.check(&format!("{long}a")).await.unwrap_err().rule, "length");
    let host = format!("{}example.com", "a.".repeat(122));
    assert_eq!(world.handle.check(&format!("https://{host}/")).await.unwrap_err().rule, "host");
}

#[tokio::test]
async fn public_addresses_are_admitted_in_their_normal_form() {
    let world = strict();
    world.names.say("example.com", &[&["93.184.216.34", "2606:2800:220:1::1"]]);
    world.names.say("xn--bcher-kva.example", &[&["93.184.216.34"]]);
    for (url, normal) in [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://EXAMPLE.com:443/Hook?a=1&b=%20#part", "https://example.com/Hook?a=1&b=%20"),
        ("https://example.com:80/x", "https://example.com:80/x"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://93.184.216.34/", "https://93.184.216.34/"),
        ("https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]/"),
        ("https://example.com/a/../b", "https://example.com/b"),
    ] {
        let admitted = world.handle.check(url).await.unwrap_or_else(|refused| panic!("{url}: {refused}"));
        assert_eq!((admitted.url.as_str(), admitted.warning), (normal, None));
    }
}

#[tokio::test]
async fn one_forbidden_answer_spoils_a_name_and_is_not_told() {
    let world = strict();
    for (name, answers) in [
        ("a.example.com", ["10.1.2.3"].as_slice()),
        ("b.example.com", &["93.184.216.34", "127.0.0.1"]),
        ("c.example.com", &["93.184.216.34", "::1"]),
        ("d.example.com", &["::ffff:169.254.169.254"]),
        ("e.example.com", &["fd00:ec2::254", "2606:4700:4700::1111"]),
    ] {
        world.names.say(name, &[answers]);
        let refused = world.handle.check(&format!("https://{name}/")).await.unwrap_err();
        assert_eq!(refused.rule, "address_not_allowed", "{name}");
        for answer in answers {
            assert!(!refused.message.contains(answer), "{}", refused.message);
        }
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_leaves_a_warning_and_soon() {
    let world = strict();
    world.names.say_nothing("gone.example.com", Answer::Nothing);
    world.names.say_nothing("slow.example.com", Answer::Silence);
    let warning = world.handle.check("https://gone.example.com/").await.unwrap().warning.unwrap();
    assert!(warning.contains("does not resolve"), "{warning}");
    let began = Instant::now();
    let warning = world.handle.check("https://slow.example.com/").await.unwrap().warning.unwrap();
    assert!(warning.contains("in time"), "{warning}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn each_refusal_names_the_flag_that_would_lift_it() {
    let world = strict();
    for (url, flag) in [
        ("http://127.0.0.1:9000/x", "--allow-private-webhooks 127.0.0.0/8"),
        ("https://192.168.1.5/", "--allow-private-webhooks 192.168.0.0/16"),
        ("http://localhost:9000/x", "--allow-private-webhooks 127.0.0.0/8"),
        ("https://redis.internal/", "--allow-private-webhooks"),
        ("http://example.com/", "--allow-http-webhooks"),
        ("https://example.com:8443/", "--allow-webhook-ports 8443"),
    ] {
        let message = world.handle.check(url).await.unwrap_err().message;
        assert!(message.contains(flag), "{url}: {message}");
    }
    let message = world.handle.check("https://169.254.169.254/").await.unwrap_err().message;
    assert!(!message.contains("--allow"), "{message}");
}

#[tokio::test]
async fn opened_ranges_lift_scheme_port_and_name_for_themselves_alone() {
    let world = World::with(|options| {
        options.rules.allow_private =
            ["127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "fd00::/8", "0.0.0.0/32"]
                .map(|net| net.parse().unwrap())
                .to_vec();
    });
    world.names.say("redis", &[&["10.0.0.5"]]);
    world.names.say("hook.internal", &[&["10.0.0.5", "fd12::1"]]);
    world.names.say("mixed.internal", &[&["10.0.0.5", "93.184.216.34"]]);
    world.names.say("example.com", &[&["93.184.216.34"]]);
    world.names.say("inside.example.com", &[&["10.0.0.5"]]);
    for url in [
        "http://127.0.0.1:9000/",
        "http://localhost:9000/",
        "http://api.localhost:9000/",
        "http://10.1.2.3/",
        "http://[fd12::1]:8080/",
        "http://[::ffff:10.0.0.1]:8080/",
        "http://redis:6379/",
        "http://hook.internal:1234/",
        "http://inside.example.com:1234/",
        "https://example.com/",
    ] {
        assert!(
            world.handle.check(url).await.is_ok(),
            "{url}: {}",
            world.handle.check(url).await.unwrap_err()
        );
    }
    for (url, rule) in [
        ("http://example.com/", "scheme"),
        ("https://example.com:8443/", "port"),
        ("http://mixed.internal/", "name"),
        ("http://192.168.0.1/", "address_not_allowed"),
        ("http://169.254.169.254/", "address_not_allowed"),
        ("http://[fd00:ec2::254]/", "address_not_allowed"),
        ("http://0.0.0.0/", "address_not_allowed"),
        ("https://[::1]/", "address_not_allowed"),
        ("http://127.0.0.1:0/", "port"),
    ] {
        assert_eq!(world.handle.check(url).await.unwrap_err().rule, rule, "{url}");
    }
}

#[tokio::test]
async fn http_and_ports_open_by_their_own_flags() {
    let world = World::with(|options| {
        options.rules = Rules { allow_http: true, allow_ports: vec![8443], ..Rules::default() };
    });
    world.names.say("example.com", &[&["93.184.216.34"]]);
    assert!(world.handle.check("http://example.com/").await.is_ok());
    assert!(world.handle.check("https://example.com:8443/").await.is_ok());
    assert_eq!(world.handle.check("https://example.com:8444/").await.unwrap_err().rule, "port");
    assert_eq!(world.handle.check("http://127.0.0.1/").await.unwrap_err().rule, "address_not_allowed");
}

#[tokio::test]
async fn of_the_server_itself_only_existing_inboxes_may_be_called() {
    let world = World::with(own);
    for origin in ["http://127.0.0.1:4100", "http://localhost:4100", "https://postback.example.org"] {
        let inbox = format!("{origin}/inbox/{INBOX}");
        assert!(world.handle.check(&inbox).await.is_ok(), "{inbox}");
        assert!(world.handle.check(&format!("{inbox}?from=test")).await.is_ok());
        let unknown = format!("{origin}/inbox/{}", INBOX.replace('0', "f"));
        assert_eq!(world.handle.check(&unknown).await.unwrap_err().rule, "no_such_inbox");
        for path in ["/", "/inbox", "/inbox/", "/v4/p/a/run", "/inbox/../metrics", "/inbox//x", "/metrics"] {
            let url = format!("{origin}{path}");
            assert_eq!(world.handle.check(&url).await.unwrap_err().rule, "own_server", "{url}");
        }
        for path in [format!("/inbox/{INBOX}/"), format!("/inbox/{INBOX}/x"), format!("//inbox/{INBOX}")] {
            assert_eq!(world.handle.check(&format!("{origin}{path}")).await.unwrap_err().rule, "own_server");
        }
    }
    // The same path elsewhere is nobody's inbox.
    let other_port = format!("http://127.0.0.1:4101/inbox/{INBOX}");
    assert_eq!(world.handle.check(&other_port).await.unwrap_err().rule, "address_not_allowed");
}

#[tokio::test]
async fn the_servers_own_port_stays_closed_under_every_name() {
    let world = World::with(|options| {
        own(options);
        options.rules.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    });
    world.names.say("me.example.com", &[&["127.0.0.1"]]);
    for url in ["http://127.0.0.1:4100/metrics", "http://api.localhost:4100/", "http://me.example.com:4100/"]
    {
        assert!(world.handle.check(url).await.is_err(), "{url}");
    }
    assert!(world.handle.check("http://me.example.com:4101/").await.is_ok());
}
